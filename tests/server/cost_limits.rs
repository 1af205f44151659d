//! No argument costs more time or memory than docs/reliability.md says.
//!
//! `RATELIMIT_LONG=1 cargo test cost_limits -- --nocapture` prints the figures of that document; the bounds here leave room
//! for slower machines.

use redis::Connection;
use support::client::add_groups;
use support::errors;
use support::{Ask, Clock, START, Setup, is_long, six, wait_for, words};

const MOST: u64 = (1 << 53) - 1;

/// Microseconds of the server's CPU so far. (By the clock on the wall a busy machine would make everything slow.)
fn cpu(client: &mut Connection) -> f64 {
    let seconds = |field: &str| client.info("cpu", field).parse::<f64>().unwrap();
    ["used_cpu_user_main_thread", "used_cpu_sys_main_thread"].map(seconds).iter().sum::<f64>() * 1e6
}

/// Microseconds of CPU that each of so many pipelined calls takes, reading and replying included, and how many of them were
/// admitted.
fn microseconds(client: &mut Connection, calls: usize, line: impl Fn(usize) -> String) -> (f64, usize) {
    let before = cpu(client);
    let mut admitted = 0;
    for first in (0..calls).step_by(500) {
        let mut pipe = redis::pipe();
        (first..calls.min(first + 500)).for_each(|call| _ = pipe.add_command(words(&line(call))));
        let replies: Vec<redis::Value> = pipe.query(client).unwrap();
        let first_of = |reply: &redis::Value| match reply {
            redis::Value::Array(items) if matches!(items[0], redis::Value::Array(_)) => six(&items[0])[0],
            reply => six(reply)[0],
        };
        admitted += replies.iter().filter(|reply| first_of(reply) == 1).count();
    }
    ((cpu(client) - before) / calls as f64, admitted)
}

/// The longest of some single calls, in microseconds of CPU.
fn longest(client: &mut Connection, line: impl Fn(usize) -> String) -> f64 {
    let calls = (0..300).map(|call| microseconds(client, 1, |_| line(call)).0);
    calls.fold(0.0, f64::max)
}

#[test]
fn a_flood_of_distinct_keys() {
    let keys = if is_long() { 1_000_000 } else { 10_000 };
    let server = Setup::new().args(["--stream-node-max-bytes", "512"]).start();
    let mut client = server.connect();
    microseconds(&mut client, 1_000, |call| format!("RATELIMIT.HIT warm:{} 1 1h", call % 10));
    client.run("FLUSHALL");
    let before = client.used_memory();
    let (once, admitted) = microseconds(&mut client, keys, |call| format!("RATELIMIT.HIT user:{call} 1 1h"));
    let full = client.used_memory();
    // The keys come back and are refused: nobody is followed for long, and the table of those refused has its size.
    let (again, none) = microseconds(&mut client, keys, |call| format!("RATELIMIT.HIT user:{call} 1 1h"));
    let refused = client.used_memory();
    assert_eq!((admitted, none), (keys, 0));
    client.run("FLUSHALL");
    let mut after = 0;
    wait_for("memory comes back", || {
        after = client.used_memory();
        after - before < 1_000_000
    });
    let (key, more) = ((full - before) / keys as i64, refused - full);
    println!(
        "{keys} distinct keys: {once:.1} us and {key} bytes each; refused again: {again:.1} us and {more} bytes in all; \
         {} bytes left after FLUSHALL",
        after - before
    );
    assert!(key < 1_100 && more < 20_000_000, "{key} bytes a key, {more} bytes for refusals");
    assert!(once < 200.0 && again < 200.0, "{once} us, {again} us");
}

/// Eight tiers and the longest and largest arguments there can be, on a log of some length, admitted and refused.
#[test]
fn the_heaviest_calls() {
    let calls = if is_long() { 20_000 } else { 1_500 };
    let server = Setup::new().args(["--stream-node-max-bytes", "512"]).start();
    let mut client = server.connect();
    let tiers =
        |limit: u64| -> String { (1..=8).map(|tier| format!(" {limit} {}ms", 3650_u64 * 86_400_000 / tier)).collect() };
    let long_key = "k".repeat(100_000);
    let cases: [(&str, String); 9] = [
        ("one tier", format!("RATELIMIT.HIT one {MOST} 1h")),
        ("one tier, refused", "RATELIMIT.HIT one 1 1h".to_owned()),
        ("eight tiers of up to ten years", format!("RATELIMIT.HIT eight{}", tiers(MOST))),
        ("eight tiers, refused", format!("RATELIMIT.HIT eight{}", tiers(1))),
        ("eight tiers, STRICT", format!("RATELIMIT.HIT strict{} STRICT", tiers(50))),
        ("COST 2^53 - 1, admitted once", format!("RATELIMIT.HIT heavy {MOST} 3650d COST {MOST}")),
        ("COST 2^53 - 1, STRICT", format!("RATELIMIT.HIT heavier {MOST} 3650d COST {MOST} STRICT")),
        ("a key of 100 kB", format!("RATELIMIT.HIT {long_key} 100 1h")),
        (
            "MHIT of eight keys",
            format!("RATELIMIT.MHIT 8 a b c d e f g h {}", vec![format!("{MOST} 1h"); 8].join(" AND ")),
        ),
    ];
    for (name, line) in cases {
        let calls = if name.contains("100 kB") { calls / 20 } else { calls };
        let each = microseconds(&mut client, calls, |_| line.clone()).0;
        let longest = longest(&mut client, |_| line.clone());
        println!("{name}: {each:.1} us, the longest {longest:.0} us");
        assert!(each < 2_000.0 && longest < 10_000.0, "{name}: {each} us, {longest} us");
    }
    let heavier = client.integer("XLEN heavier");
    assert!(heavier < 600, "{heavier} entries: what lies further back than 2^62 units is cut off");
    // The strict log holds what its limit can count, and a node more.
    assert!(client.integer("XLEN strict") <= 50 + 200);
}

/// A hot key at full speed, with a limit that is never reached: its log grows with what is admitted and no call takes long,
/// also when a great many hits expire at once.
#[test]
fn a_hot_key() {
    let hits = if is_long() { 500_000 } else { 20_000 };
    let Some(clock) = Clock::at(START) else { return };
    let server = Setup::new().clock(&clock).start();
    let mut client = server.connect();
    let before = client.used_memory();
    let hit = |call: usize| format!("RATELIMIT.HIT hot {MOST} 1h COST {}", 1 + call % 3);
    for part in 0..10 {
        clock.set(START + part * 60_000);
        microseconds(&mut client, hits / 10, hit);
    }
    let bytes = (client.used_memory() - before) as f64 / hits as f64;
    // Refused for ever larger reasons: which hit must leave first is found by bisection.
    let (found, _) = microseconds(&mut client, 2_000, |call| {
        let cost = MOST - hits as u64 * (call as u64 % 1_000) / 500;
        format!("RATELIMIT.HIT hot {MOST} 1h COST {cost}")
    });
    // The first tenth leaves, then all but the last tenth.
    let mut each = Vec::new();
    let mut most = 0.0_f64;
    for minutes in [61, 69] {
        clock.set(START + minutes * 60_000);
        most = most.max(longest(&mut client, hit));
        each.push(microseconds(&mut client, 2_000, hit).0);
    }
    println!(
        "a hot key of {hits} hits: {bytes:.1} bytes each; {found:.1} us to find a retry time; {each:.1?} us while they \
         expire, the longest {most:.0} us; {} entries left",
        client.integer("XLEN hot")
    );
    assert!(bytes < 20.0 && found < 2_000.0 && each.iter().all(|each| *each < 2_000.0), "{bytes}, {found}, {each:?}");
}

/// The table of cursors at its largest: as many keys as it follows, with eight windows each, hit for as long as they grow.
#[test]
fn the_table_of_cursors() {
    let (cursors, hits) = if is_long() { (2_048, 400) } else { (64, 400) };
    let server = Setup::new().args(["--ratelimit.cursors", &cursors.to_string()]).start();
    let mut client = server.connect();
    // In this order each window needs look-ahead of its own.
    let tiers: String = (1..=8).map(|tier| format!(" {MOST} {tier}h")).collect();
    for _ in 0..hits {
        microseconds(&mut client, cursors, |call| {
            format!("RATELIMIT.HIT k:{call}{tiers} COST {}", fastrand::u32(1..1_000_000))
        });
    }
    let full = client.used_memory();
    client.run("CONFIG SET ratelimit.cursors 0");
    let all = full - client.used_memory();
    let each = all / cursors as i64;
    println!("{cursors} cursors of eight windows each: {all} bytes, {each} each");
    assert!(each < 12_000, "{each} bytes a cursor");
}

/// One call of as many keys as there may be, and of one more.
#[test]
fn very_many_keys_in_one_call() {
    let server = Setup::new().args(["--stream-node-max-bytes", "512"]).start();
    let mut client = server.connect();
    let of = |keys: usize| {
        let mut call = redis::cmd("RATELIMIT.MHIT");
        call.arg(keys);
        (0..keys).for_each(|key| _ = call.arg(format!("k:{key}")));
        add_groups(&mut call, &vec![(9, 3_600_000); keys], 1);
        call
    };
    let keys = 1_024;
    assert_eq!(client.ask(&of(keys + 1)), Err(errors::TOO_MANY_KEYS.to_owned()));
    let call = of(keys);
    let (before, began) = (client.used_memory(), cpu(&mut client));
    client.ask(&call).unwrap();
    let took = cpu(&mut client) - began;
    let bytes = (client.used_memory() - before) / keys as i64;
    let peak: i64 = client.info("memory", "used_memory_peak").parse().unwrap();
    println!(
        "MHIT of {keys} keys: {:.0} ms, {:.2} us a key; {bytes} bytes a key afterwards, {} more at the most",
        took / 1_000.0,
        took / keys as f64,
        (peak - client.used_memory()) / keys as i64
    );
    assert!(took / (keys as f64) < 50.0);
    assert_eq!(client.integer("DBSIZE"), keys as i64);
}
