//! Other clients write to a log: each answer is in range or a clear error, and nobody is locked out for longer than windows.

use redis::{Connection, Value};
use support::errors::{LAST_ID_AHEAD, NOT_A_LOG, WRONG_TYPE};
use support::interference::{Interference, Kind};
use support::judge::is_in_range;
use support::seeds::random;
use support::{Ask, Clock, START, Stage, assert_same, get, six, words};

const HIT: &str = "RATELIMIT.HIT k 10 8s";
const PEEK: &str = "RATELIMIT.PEEK k 10 8s";

/// Begins a case: hits of cost 1, 2 and 3 in the first three milliseconds; the clock stands a millisecond later.
fn three_hits(client: &mut Connection, clock: &Clock) {
    clock.set(START);
    client.run("SELECT 0");
    client.run("FLUSHALL");
    // The first by hand, so that the log begins to count at 0.
    client.run(&format!("XADD k {START}-1 8000ms 1"));
    client.run(&format!("PEXPIREAT k {}", START + 9_000));
    clock.set(START + 1);
    for cost in 2..=3 {
        assert_eq!(client.answer(&format!("{HIT} COST {cost}"))[0], 1);
        clock.set(START + cost);
    }
    assert_eq!(client.answer(PEEK)[..3], [1, 10, 3]);
}

fn units_left(client: &mut Connection) -> i64 {
    // A peek answers as if its hit were stored.
    client.answer(PEEK)[2] + 1
}

fn fails(client: &mut Connection, line: &str, error: &str) {
    assert_eq!(client.ask(&words(line)), Err(error.to_owned()), "{line}");
}

/// The log as it is after the first hit ever.
fn begins_again(client: &mut Connection) {
    assert_eq!(client.answer(HIT), [1, 10, 9, 0, 8_000, 8_000]);
    assert_eq!(client.integer("XLEN k"), 1);
    assert!((8_000..=9_000).contains(&client.integer("PTTL k")));
}

#[test]
fn a_foreign_entry_on_top_is_an_error_until_it_is_deleted() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    three_hits(client, &clock);
    let foreign = [
        "* field value",
        "* 8000ms 0",
        "* 8000ms 01",
        "* 8000ms 9007199254740992",
        "* 08000ms 1",
        "* 8000ms>8000ms 1",
        "* 8000ms 1 8000ms 1",
        "* field value field value field value",
    ];
    for (entry, step) in foreign.into_iter().zip(4..) {
        let id = client.text(&format!("XADD k {entry}"));
        let before = client.fingerprint();
        for line in [HIT, PEEK, "RATELIMIT.HIT k 10 8s STRICT", "RATELIMIT.RESET k", "RATELIMIT.RESET missing k"] {
            fails(client, line, NOT_A_LOG);
        }
        assert_eq!(client.fingerprint(), before, "it is left as it was");
        assert_eq!(client.integer(&format!("XDEL k {id}")), 1);
        clock.set(START + step);
        assert_eq!(units_left(client), 4, "the history is intact after {entry}");
    }
    assert_eq!(client.answer(HIT)[..3], [1, 10, 3]);
    assert_eq!(client.integer("XLEN k"), 4);
}

/// A foreign entry in the future leaves the last ID there when it is deleted.
#[test]
fn a_foreign_entry_in_the_future() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    three_hits(client, &clock);
    let id = format!("{}-7", START + 3_600_000);
    client.run(&format!("XADD k {id} field value"));
    fails(client, HIT, NOT_A_LOG);
    fails(client, PEEK, NOT_A_LOG);
    client.run(&format!("XDEL k {id}"));
    assert_eq!(units_left(client), 4);
    begins_again(client);
    // Nobody deletes it: it goes with the key.
    client.run("XADD k * field value");
    clock.set(START + 3 + 9_000);
    fails(client, HIT, NOT_A_LOG);
    clock.set(START + 3 + 9_001);
    begins_again(client);
}

/// Below the top it is found by whoever reads it, and by nobody once it has left the window.
#[test]
fn a_foreign_entry_below_the_top() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    client.run(&format!("XADD k {START}-0 field value"));
    client.run(&format!("XADD k {}-1 8000ms 1", START + 1));
    clock.set(START + 1);
    let before = client.fingerprint();
    for line in [HIT, PEEK, "RATELIMIT.HIT k 10 1ms 10 8s", "RATELIMIT.PEEK k 10 1ms 10 8s"] {
        fails(client, line, NOT_A_LOG);
        assert_eq!(client.text("PING"), "PONG");
        assert_same(&client.fingerprint(), &before, line);
    }
    assert_eq!(client.answer("RATELIMIT.HIT k 10 1ms"), [1, 10, 8, 0, 1, 1], "it is not in this window");
    clock.set(START + 1_000);
    assert_eq!(client.answer("RATELIMIT.PEEK k 10 1s"), [1, 10, 7, 0, 1_000, 1], "nor in this one");
    clock.set(START + 8_000);
    assert_eq!(client.answer(HIT)[..3], [1, 10, 7]);
}

#[test]
fn deleting_an_entry_gives_its_units_back_at_either_end() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    for (entry, left) in [(0, 5), (1, 4), (2, 7)] {
        three_hits(client, &clock);
        let id = client.entries("k").swap_remove(entry).0;
        assert_eq!(client.integer(&format!("XDEL k {id}")), 1);
        assert_eq!(units_left(client), left, "entry {entry}");
        clock.set(START + 4);
        assert_eq!(client.answer(HIT)[..3], [1, 10, left - 1], "entry {entry}");
    }
}

/// Units of an entry that was deleted in the middle leave with the entry before it, and the wait is exact.
#[test]
fn a_wait_after_a_deletion_in_the_middle() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    three_hits(client, &clock);
    let id = client.entries("k").swap_remove(1).0;
    client.run(&format!("XDEL k {id}"));
    let refused = "RATELIMIT.HIT k 10 8s COST 7";
    let wait = client.answer(refused)[3] as u64;
    assert_eq!(wait, 8_000 - 3, "with the first entry, its own unit and the two that were deleted");
    clock.set(START + 3 + wait - 1);
    assert_eq!(client.answer(refused)[0], 0);
    clock.set(START + 3 + wait);
    assert_eq!(client.answer(refused)[0], 1);
}

/// What stays in a log that was cut counts as before.
#[test]
fn trimming_by_hand() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    for (how, left) in [("MAXLEN 2", 5), ("MAXLEN 1", 7), ("MAXLEN 9", 4), ("MAXLEN ~ 1", 4)] {
        three_hits(client, &clock);
        client.run(&format!("XTRIM k {how}"));
        assert_eq!(units_left(client), left, "{how}");
        assert_eq!(client.answer(HIT)[..3], [1, 10, left - 1], "{how}");
    }
}

#[test]
fn an_empty_stream_is_an_empty_log() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    let empty: [&[&str]; 4] = [
        &["XTRIM k MAXLEN 0"],
        &["XTRIM k MAXLEN 0", "PERSIST k"],
        &["DEL k", "XGROUP CREATE k group $ MKSTREAM"],
        &["XTRIM k MAXLEN 0", "DEBUG RELOAD"],
    ];
    for lines in empty {
        three_hits(client, &clock);
        for line in lines {
            client.run(line);
        }
        assert_eq!(client.integer("EXISTS k"), 1);
        assert_eq!(client.answer(PEEK), [1, 10, 9, 0, 8_000, 8_000]);
        assert_eq!(client.integer("XLEN k"), 0);
        begins_again(client);
        assert_eq!(client.integer("RATELIMIT.RESET k"), 1);
    }
    three_hits(client, &clock);
    for (id, ..) in client.entries("k") {
        client.run(&format!("XDEL k {id}"));
    }
    begins_again(client);
    client.run("XTRIM k MAXLEN 0");
    assert_eq!(client.integer("RATELIMIT.RESET k"), 0, "an empty stream is nobody's log");
    assert_eq!(client.integer("EXISTS k"), 1);
}

/// XSETID, or the newest entry that was deleted within its millisecond: the hit is stamped with the next ID there is.
#[test]
fn a_last_id_pushed_ahead_delays_the_next_hit() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    // Last IDs, and what the next hit gets, whose tally is 7.
    let ahead = [((3, 6), (3, 7)), ((3, 7), (4, 7)), ((4, 0), (4, 7)), ((4, 7), (5, 7)), ((8_003, 5), (8_003, 7))];
    for ((last, sequence), (stamp, tally)) in ahead {
        three_hits(client, &clock);
        client.run(&format!("XSETID k {}-{sequence}", START + last));
        assert_eq!(units_left(client), 4, "{last} changes no answer");
        assert_eq!(client.answer(&format!("{HIT} COST 5"))[0], 0, "a refused hit needs no ID");
        assert_eq!(client.integer("XLEN k"), 3);
        let [allowed, _, remaining, _, reset_after, _] = client.answer(HIT);
        // The hits of the first three milliseconds have left by the time that 8003 is.
        assert_eq!((allowed, remaining), (1, if last > 8_000 { 9 } else { 3 }));
        assert_eq!(reset_after as u64, stamp - 3 + 8_000);
        assert_eq!(client.entries("k").last().unwrap().0, format!("{}-{tally}", START + stamp));
        assert!(client.integer("PTTL k") >= reset_after, "the key lives as long");
    }
}

/// Further ahead than the log is kept: nobody shall wait so long.
#[test]
fn a_last_id_far_ahead_starts_the_log_again() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    for id in [format!("{}-0", START + 8_004), format!("{}-{}", u64::MAX, u64::MAX)] {
        three_hits(client, &clock);
        client.run(&format!("XSETID k {id}"));
        assert_eq!(units_left(client), 4, "{id} changes no answer");
        begins_again(client);
        // It is an ordinary log from now on.
        clock.set(START + 4);
        assert_eq!(client.answer(HIT)[..3], [1, 10, 8]);
    }
}

/// The newest hit is taken back by hand, and the next comes in the same millisecond.
#[test]
fn the_newest_is_deleted_within_its_millisecond() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    let undo = "local a = redis.call('RATELIMIT.HIT', 'k', 10, '8s') \
        local newest = redis.call('XREVRANGE', 'k', '+', '-', 'COUNT', 1) redis.call('XDEL', 'k', newest[1][1]) \
        return {a[3], redis.call('RATELIMIT.PEEK', 'k', 10, '8s')[3], redis.call('RATELIMIT.HIT', 'k', 10, '8s')[3]}";
    for before in 0..4 {
        client.run("FLUSHALL");
        for _ in 0..before {
            client.run(HIT);
        }
        clock.set(START + before + 1);
        let left = 9 - before as i64;
        let replies: Vec<i64> = get(client.ask(redis::cmd("EVAL").arg(undo).arg(0)).unwrap());
        assert_eq!(replies, [left, left, left]);
        assert_eq!(client.integer("XLEN k"), before as i64 + 1);
    }
}

/// A queue that is drained for the moment has its consumer groups, and must keep them.
#[test]
fn somebody_elses_empty_stream_is_left_alone() {
    let Some(Stage { server: _server, clock: _clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    let empty = |client: &mut Connection| {
        client.run("DEL orders");
        client.run("XGROUP CREATE orders workers $ MKSTREAM");
        client.run("XADD orders * item 1");
        client.run("XADD orders * item 2");
        client.run("XTRIM orders MAXLEN 0");
    };
    let groups = |client: &mut Connection| get::<Vec<Value>>(client.run("XINFO GROUPS orders")).len();
    empty(client);
    assert_eq!(client.integer("RATELIMIT.RESET orders"), 0);
    assert_eq!(groups(client), 1);
    for line in ["RATELIMIT.HIT orders 10 8s", "RATELIMIT.MHIT 2 a orders 10 8s AND 10 8s"] {
        empty(client);
        client.run(line);
        assert_eq!((client.integer("XLEN orders"), groups(client)), (1, 1), "{line}");
    }
    // The next hit could never be appended: an error, and not another stream.
    empty(client);
    client.run(&format!("XSETID orders {}-0", START + 8_004));
    client.run("RATELIMIT.RESET a");
    for line in
        ["HIT orders 10 8s", "PEEK orders 10 8s", "MHIT 2 a orders 10 8s AND 10 8s", "MHIT 2 orders a 10 8s AND 10 8s"]
    {
        fails(client, &format!("RATELIMIT.{line}"), LAST_ID_AHEAD);
        assert_eq!((client.integer("EXISTS a"), groups(client)), (0, 1), "{line}");
    }
    assert_eq!(client.answer("RATELIMIT.HIT orders 10 9s")[..3], [1, 10, 9]);
    assert_eq!(groups(client), 1);
}

#[test]
fn keys_that_come_and_go() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    for line in ["DEL k", "UNLINK k", "RENAME k other", "MOVE k 1", "FLUSHALL", "SWAPDB 0 1", "PEXPIRE k 0"] {
        three_hits(client, &clock);
        client.run(line);
        begins_again(client);
    }
    // The history goes with the entries, under whatever name and in whatever database.
    for line in ["RENAME k other", "COPY k other", "COPY k other REPLACE"] {
        three_hits(client, &clock);
        client.run(line);
        assert_eq!(client.answer("RATELIMIT.HIT other 10 8s")[..3], [1, 10, 3], "{line}");
        assert!((8_000..=9_000).contains(&client.integer("PTTL other")));
    }
    three_hits(client, &clock);
    client.run("MOVE k 1");
    client.run("SELECT 1");
    assert_eq!(client.answer(HIT)[..3], [1, 10, 3]);
}

#[test]
fn a_log_that_is_restored_is_the_log_of_then() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    three_hits(client, &clock);
    let dump: Vec<u8> = get(client.run("DUMP k"));
    for _ in 0..4 {
        assert_eq!(client.answer(HIT)[0], 1);
    }
    assert_eq!(client.answer(HIT)[0], 0);
    for (name, ttl) in [("k", 0), ("other", 0), ("k", 5)] {
        let restore = redis::cmd("RESTORE").arg(name).arg(ttl).arg(&dump).arg("REPLACE").to_owned();
        client.ask(&restore).unwrap();
        assert_eq!(client.answer(&format!("RATELIMIT.HIT {name} 10 8s")), [1, 10, 3, 0, 8_000, 7_997]);
        assert_eq!(client.integer(&format!("PTTL {name}")), 9_000);
    }
    // Long after, nothing in it counts.
    clock.set(START + 60_000);
    client.ask(redis::cmd("RESTORE").arg("k").arg(0).arg(&dump).arg("REPLACE")).unwrap();
    assert_eq!(client.answer(HIT), [1, 10, 9, 0, 8_000, 8_000]);
    // Long before, the log is stale.
    clock.set(START - 60_000);
    client.ask(redis::cmd("RESTORE").arg("k").arg(0).arg(&dump).arg("REPLACE")).unwrap();
    begins_again(client);
}

#[test]
fn a_key_of_another_kind() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    for line in ["SET k 1", "LPUSH k 1", "SADD k 1", "ZADD k 1 1", "HSET k 1 1", "PFADD k 1", "SETBIT k 9 1"] {
        three_hits(client, &clock);
        client.run("DEL k");
        client.run(line);
        let before = client.fingerprint();
        for line in [HIT, PEEK, "RATELIMIT.HIT k 0 1s STRICT", "RATELIMIT.RESET k", "RATELIMIT.RESET other k"] {
            fails(client, line, WRONG_TYPE);
        }
        assert_eq!(client.fingerprint(), before, "it is left as it was");
        client.run("DEL k");
        begins_again(client);
    }
    three_hits(client, &clock);
    client.run("RATELIMIT.HIT log 1 1s");
    client.run("SET k 1");
    fails(client, "RATELIMIT.RESET log k", WRONG_TYPE);
    assert_eq!(client.integer("EXISTS log"), 1, "an error deletes nothing");
}

/// Reading a log as a stream changes nothing for it.
#[test]
fn consumer_groups() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    three_hits(client, &clock);
    client.run("XGROUP CREATE k group 0");
    let rows = |value: Value| if value == Value::Nil { 0 } else { 1 };
    assert_eq!(rows(client.run("XREADGROUP GROUP group reader STREAMS k >")), 1);
    assert_eq!(client.answer(HIT)[..3], [1, 10, 3]);
    assert_eq!(rows(client.run("XREADGROUP GROUP group reader COUNT 1 STREAMS k >")), 1, "hits can be followed");
    let ids: Vec<String> = client.entries("k").into_iter().map(|entry| entry.0).collect();
    client.run(&format!("XACK k group {}", ids[0]));
    client.run(&format!("XCLAIM k group another 0 {}", ids[1]));
    client.run(&format!("XDEL k {}", ids[0]));
    client.run("XAUTOCLAIM k group another 0 0");
    assert_eq!(client.answer(HIT)[..3], [1, 10, 3], "only the deletion counts");
    clock.set(START + 3 + 9_001);
    begins_again(client);
}

/// The worst that an entry in the log's own form can do: it is stamped a window ahead and fills every limit.
#[test]
fn a_forged_entry_locks_nobody_out_for_more_than_two_windows() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    for tally in [0, 1, 6, 1 << 53, 1 << 63, u64::MAX - 5, u64::MAX] {
        for cost in [1, 10, (1_u64 << 53) - 1] {
            three_hits(client, &clock);
            let ahead = START + 3 + 8_000;
            client.run(&format!("XADD k {ahead}-{tally} 8000ms {cost}"));
            let answer = client.answer(HIT);
            // The next ID may need one millisecond more where the tally wraps.
            assert!(is_in_range(answer, 16_001, true), "{tally}, {cost}: {answer:?}");
            assert!(answer[0] == 1 || (1..=16_000).contains(&answer[3]), "{tally}, {cost}: {answer:?}");
            assert!(answer[1] == 10 && answer[4] > 0, "{tally}, {cost}: {answer:?}");
            clock.set(ahead + 8_001);
            assert_eq!(client.answer(HIT)[0], 1, "two windows later: {tally}, {cost}");
        }
    }
    // Further ahead than the log is kept, it is stale.
    three_hits(client, &clock);
    client.run(&format!("XADD k {}-9 8000ms 10", START + 3 + 8_001));
    begins_again(client);
    client.run(&format!("XADD k {}-{} 8000ms 10", u64::MAX, u64::MAX));
    begins_again(client);
}

/// Entries in the log's own form that are no further ahead than now count like hits.
#[test]
fn a_hit_written_by_hand_counts() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    three_hits(client, &clock);
    client.run(&format!("XADD k {}-8 8000ms 2", START + 3));
    assert_eq!(units_left(client), 2);
    clock.set(START + 8_001);
    assert_eq!(client.answer(PEEK), [1, 10, 4, 0, 8_000, 1], "costs 3 and 2 are left, and this one");
}

const KEYS: [&str; 3] = ["a", "b", "c"];
const POLICIES: [(i64, u64); 4] = [(10, 1_000), (4, 300), (25, 2_000), (2, 20)];
const LONGEST: u64 = 2_000;

const OTHERS: Interference = Interference {
    keys: &KEYS,
    windows: &[20, 300, 1_000, LONGEST],
    kinds: &[
        Kind::Own,
        Kind::Forged,
        Kind::Foreign,
        Kind::Posing,
        Kind::Deletion,
        Kind::LastId,
        Kind::Keys,
        Kind::Expiry,
        Kind::Endless,
        Kind::Types,
        Kind::Groups,
        Kind::Dumps,
        Kind::Reload,
    ],
};

/// Removes by hand what the module did not write, as the documentation tells an operator to.
fn clean(client: &mut Connection, key: &str) {
    if client.run(&format!("TYPE {key}")) != Value::SimpleString("stream".into()) {
        client.run(&format!("DEL {key}"));
        return;
    }
    let entries: Vec<(String, Vec<String>)> = get(client.run(&format!("XRANGE {key} - +")));
    for (id, pairs) in entries.iter().rev() {
        if pairs.len() != 2 || !pairs[0].ends_with("ms") {
            client.run(&format!("XDEL {key} {id}"));
        }
    }
    if client.integer(&format!("XLEN {key}")) == 0 {
        client.run(&format!("DEL {key}"));
    }
}

#[test]
fn everything_at_once() {
    let mut rng = random("everything_at_once");
    let Some(Stage { mut server, clock, mut client, .. }) = Stage::new() else { return };
    let client = &mut client;
    let mut dumps = Vec::new();
    let mut now = START;
    let (mut admitted, mut refused, mut errors) = (0, 0, 0);
    for step in 0..5_000 {
        if rng.u8(..3) == 0 {
            now += if rng.u8(..40) == 0 { rng.u64(..LONGEST) } else { rng.u64(..30) };
            clock.set(now);
        }
        if rng.u8(..3) == 0 {
            OTHERS.act(&mut rng).carry_out(now, &mut dumps, |cmd| client.ask(cmd));
        }
        let key = rng.choice(KEYS).unwrap();
        let (limit, window) = rng.choice(POLICIES).unwrap();
        let cost = if rng.u8(..5) == 0 { rng.i64(1..6) } else { 1 };
        let name = rng.choice(["HIT", "HIT", "HIT", "PEEK"]).unwrap();
        let strict = if name == "HIT" && rng.u8(..10) == 0 { " STRICT" } else { "" };
        let policy = format!("{key} {limit} {window}ms COST {cost}");
        let line = format!("RATELIMIT.{name} {policy}{strict}");
        match client.ask(&words(&line)) {
            Err(error) => {
                assert!([NOT_A_LOG, WRONG_TYPE, LAST_ID_AHEAD].contains(&&error[..]), "step {step}: {line}: {error}");
                errors += 1;
                if rng.bool() {
                    clean(client, key);
                    client.answer(&line);
                }
            }
            Ok(value) => {
                let answer = six(&value);
                // One millisecond more where a forged tally wraps.
                assert!(is_in_range(answer, (LONGEST + window + 1) as i64, true), "step {step}: {line}: {answer:?}");
                assert_eq!(answer[1], limit, "step {step}: {line}");
                assert_eq!(answer[3] == -1, cost > limit, "step {step}: {line}: {answer:?}");
                *if answer[0] == 1 { &mut admitted } else { &mut refused } += 1;
                if answer[0] == 0 && cost <= limit && rng.u8(..30) == 0 {
                    now += LONGEST + window + 1;
                    clock.set(now);
                    let answer = client.answer(&format!("RATELIMIT.HIT {policy}"));
                    assert_eq!(answer[0], 1, "step {step}: {policy} is locked out: {answer:?}");
                    assert_eq!(answer[4], window as i64, "nothing is ahead of the clock");
                    let left = client.integer(&format!("PTTL {key}"));
                    assert!(left >= window as i64, "the key outlives its newest hit, not by {left} ms");
                }
            }
        }
    }
    assert!(server.is_alive());
    assert!(admitted > 500 && refused > 500 && errors > 50, "{admitted} admitted, {refused} refused, {errors} errors");
}
