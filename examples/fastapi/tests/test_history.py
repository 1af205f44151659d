"""The last minute, from readings that come late, twice, or not at all."""

from rate_monitor.history import LENGTH, Counters, Halved


def read(counters, second, admitted, run="a"):
    counters.read(second, {"admitted": admitted}, run)


def seconds(sums, name="admitted"):
    return {second: counts[name] for second, counts in sums.seconds.items()}


def test_what_was_counted_before_belongs_to_no_second():
    counters = Counters()
    read(counters, 100, 40)
    read(counters, 101, 45)
    assert seconds(counters) == {100: 0, 101: 5}
    assert (counters.minute["admitted"], counters.total["admitted"]) == (5, 45)


def test_a_late_reading_leaves_no_gap_and_loses_nothing():
    counters = Counters()
    read(counters, 100, 0)
    read(counters, 104, 10)
    read(counters, 104, 11)
    assert seconds(counters) == {100: 0, 101: 2, 102: 3, 103: 2, 104: 4}


def test_a_restart_and_a_reset():
    counters = Counters()
    read(counters, 100, 7)
    read(counters, 101, 9, "b")
    read(counters, 102, 3, "b")
    assert seconds(counters) == {100: 0, 101: 9, 102: 3}
    assert counters.total["admitted"] == 19


def test_only_a_minute_is_kept():
    counters = Counters()
    for second in range(200):
        read(counters, second, second)
    assert (len(counters.seconds), counters.minute["admitted"], counters.total["admitted"]) == (LENGTH, LENGTH, 199)
    read(counters, 1000, 300)
    assert seconds(counters) == {1000: 101}, "nobody knows where in all that time"
    counters.forget(1000 + LENGTH)
    assert (counters.minute["admitted"], counters.total["admitted"]) == (0, 300)


def test_a_clock_that_was_set_back():
    counters = Counters()
    for second, count in [(100, 0), (101, 1), (102, 3), (50, 4), (51, 6)]:
        read(counters, second, count)
    assert seconds(counters) == {50: 1, 51: 2}
    assert counters.total["admitted"] == 6


def test_counts_that_are_halved_every_minute_are_added_up():
    """As RATELIMIT.TOP does: halved a minute after the first refusal, 0.5 s before the second's reading."""
    halved, count, true = Halved(), 0, 0
    halved.read(99, [])
    for second in range(100, 400):
        more = 10 if second % 7 else 0
        if second > 100 and (second - 100) % 60 == 0:
            count //= 2  # before the hits of this second
        count, true = count + more, true + more
        halved.read(second, [("a", count)])
        recent = sum(10 for at in range(max(100, second - LENGTH + 1), second + 1) if at % 7)
        assert (halved.minute["a"], halved.total["a"]) == (recent, true), second


def test_a_client_that_was_there_before():
    """When it is halved is not known until it is."""
    halved = Halved()
    halved.read(100, [("a", 80)])
    for second in range(101, 160):
        halved.read(second, [("a", 80 if second < 130 else 40)])
    assert (halved.minute["a"], halved.total["a"]) == (0, 80)
    halved.read(190, [("a", 20)])
    halved.read(191, [])
    halved.read(192, [("a", 1)])
    assert (halved.minute["a"], halved.total["a"]) == (1, 81)


def test_the_number_of_clients_is_bounded():
    halved = Halved()
    for second in range(100):
        halved.read(second, [(f"{second}-{i}", 1) for i in range(100)])
    assert len(halved.total) <= 1000 + 100
