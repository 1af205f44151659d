//! Streams to be afraid of.

use redis::Connection;

use crate::client::{Ask, call};

/// Appends entries of one field.
pub fn append(client: &mut Connection, key: &str, ids: &[(u64, u64)], field: &str, value: &str) {
    for (time, tally) in ids {
        client.ask(&call("XADD", &[key, &format!("{time}-{tally}"), field, value])).unwrap();
    }
}

/// The same on the server, entries 1 to `many`; `time` is an expression of `n`.
fn append_many(client: &mut Connection, key: &str, many: u64, time: &str) {
    let script = format!(
        "for n = 1, {many} do redis.call('XADD', KEYS[1], string.format('%.0f-%d', {time}, n), '60000ms', '1') end"
    );
    client.ask(redis::cmd("EVAL").arg(script).arg(1).arg(key)).unwrap();
}

/// Makes every stream there is to be afraid of, some of so many entries.
pub fn make_streams(client: &mut Connection, now: u64, many: u64) {
    const MAX: u64 = u64::MAX;
    const HALF: u64 = 1 << 63;
    let minute = 60_000;
    let mut rng = fastrand::Rng::with_seed(1);
    let random: Vec<(u64, u64)> = (0..2_000).map(|at| (now - minute + at * 30, rng.u64(..))).collect();
    for (key, ids) in [
        ("smallest ID", &[(0, 1)][..]),
        ("largest ID", &[(MAX, MAX)]),
        ("ahead", &[(now, 1), (now + minute, 2)]),
        ("too far ahead", &[(now, 1), (now + 2 * minute, 2)]),
        ("standing tally", &[(now - 2, 7), (now - 1, 7), (now, 7)]),
        ("falling tally", &[(now - 2, 9), (now - 1, 5), (now, 0)]),
        ("leaping tally", &[(now - 2, 0), (now - 1, HALF), (now, MAX)]),
        ("tally at its end", &[(now - 1, MAX - 1), (now, MAX)]),
        ("wrapped tally", &[(now - 1, MAX - 1), (now, 3)]),
        ("lapped tally", &[(now - 2, 5), (now - 1, HALF + 4), (now, 4)]),
        ("random tallies", &random),
    ] {
        append(client, key, ids, "60000ms", "1");
    }

    let hits: Vec<(u64, u64)> = (1..=300).map(|at| (now - minute + at * 200, at)).collect();
    for (key, field, value) in [
        ("a decade", "315360000000ms", "9007199254740991"),
        ("falling retention", "315360000000ms>1ms", "9007199254740991"),
        ("a millisecond", "1ms", "1"),
        ("foreign name", "60001 ms", "1"),
        ("foreign value", "60000ms", "0"),
    ] {
        append(client, key, &hits, field, value);
    }
    for (key, foreign) in [("foreign first", 0), ("foreign among others", 150), ("foreign last", 299)] {
        append(client, key, &hits[..foreign], "60000ms", "1");
        append(client, key, &hits[foreign..=foreign], "x", "y");
        append(client, key, &hits[foreign + 1..], "60000ms", "1");
    }

    // As many in one millisecond as there never were, and units as if there had been many more.
    for (key, time) in [("one millisecond", now), ("one dead millisecond", now - 2 * minute)] {
        append_many(client, key, many, &time.to_string());
        append(client, key, &[(time, 1 << 62)], "60000ms", "1");
    }
    append_many(client, "dead", many, &format!("{} + n", now - minute - many));
    append_many(client, "tombstones", many, &format!("{} + n", now - many));
    for line in [
        "XADD empty 1-1 60000ms 1",
        "XDEL empty 1-1",
        "XADD emptied 1-1 60000ms 1",
        "XDEL emptied 1-1",
        "XSETID emptied 18446744073709551615-18446744073709551615",
        "XGROUP CREATE group readers 0 MKSTREAM",
        "XSETID group 18446744073709551615-18446744073709551614",
        &format!("XADD fields {now}-1 60000ms 1 60000ms 1"),
        &format!("XADD pushed {now}-1 60000ms 1"),
        &format!("XSETID pushed {}-0", now + 1_000_000),
        "XGROUP CREATE tombstones readers 0",
        "XREADGROUP GROUP readers one COUNT 5000 STREAMS tombstones >",
    ] {
        client.run(line);
    }
    // Of each node only the first is left.
    let script = "for n = 1, ARGV[1] do if n % 100 ~= 1 then \
                  redis.call('XDEL', KEYS[1], string.format('%.0f-%d', ARGV[2] + n, n)) end end";
    client.ask(redis::cmd("EVAL").arg(script).arg(1).arg("tombstones").arg(many).arg(now - many)).unwrap();
}
