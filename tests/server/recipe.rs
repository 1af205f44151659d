//! The plain recipe that the module replaces, fault by fault: `XADD key *`, `XTRIM key MINID ~ (now - window)`, `XLEN key`
//! from a client, and a refusal if the length is over the limit. Each test shows the recipe having the fault, beside the
//! module not having it. (The sixth fault at length, with random histories: see `expiry`.)

use redis::Connection;
use support::{Ask, START, Setup, Stage};

const MINUTE: u64 = 60_000;

/// A client with the recipe. `clock` is the application's, in milliseconds since the epoch.
fn recipe(client: &mut Connection, key: &str, limit: i64, window: u64, clock: u64) -> bool {
    append(client, key);
    admits(client, key, limit, window, clock)
}

fn append(client: &mut Connection, key: &str) {
    client.run(&format!("XADD {key} * hit 1"));
}

fn admits(client: &mut Connection, key: &str, limit: i64, window: u64, clock: u64) -> bool {
    client.run(&format!("XTRIM {key} MINID ~ {}", clock - window));
    client.integer(&format!("XLEN {key}")) <= limit
}

fn hit(client: &mut Connection, key: &str, limit: i64, window: u64) -> bool {
    client.answer(&format!("RATELIMIT.HIT {key} {limit} {window}ms"))[0] == 1
}

/// Nodes of one entry make the approximate trim an exact one, for faults that have nothing to do with it.
fn exact() -> Option<Stage> {
    Stage::of(Setup::new().args(["--stream-node-max-entries", "1"]))
}

#[test]
fn fault_1_a_race_between_the_round_trips() {
    let Some(Stage { server, clock: _clock, client: mut one, .. }) = exact() else { return };
    let mut other = server.connect();
    // One of two clients may pass, and the recipe turns both away: each counts the other before itself.
    append(&mut one, "recipe");
    append(&mut other, "recipe");
    let passed = [&mut one, &mut other].map(|client| admits(client, "recipe", 1, MINUTE, START));
    assert_eq!(passed, [false, false]);

    let passed = [&mut one, &mut other].map(|client| hit(client, "module", 1, MINUTE));
    assert_eq!(passed, [true, false]);
}

#[test]
fn fault_2_the_applications_clock_decides() {
    let Some(Stage { server: _server, clock: _clock, mut client, .. }) = exact() else { return };
    // Two application servers, one of them a minute fast: it makes both forget everything.
    for clock in [START, START, START + MINUTE + 1] {
        assert!(recipe(&mut client, "recipe", 2, MINUTE, clock), "three pass, of two allowed");
    }
    // The module takes no time from anyone.
    let passed: Vec<bool> = (0..3).map(|_| hit(&mut client, "module", 2, MINUTE)).collect();
    assert_eq!(passed, [true, true, false]);
}

#[test]
fn fault_3_expired_entries_count() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    for _ in 0..10 {
        assert!(recipe(&mut client, "recipe", 10, MINUTE, START));
        assert!(hit(&mut client, "module", 10, MINUTE));
    }
    // An hour later nothing is in the window, but the approximate trim leaves a node that is not full.
    let later = START + 60 * MINUTE;
    clock.set(later);
    assert!(!recipe(&mut client, "recipe", 10, MINUTE, later), "refused in an empty window");
    assert!(hit(&mut client, "module", 10, MINUTE));
    // As soon as they leave the window, and not a millisecond before, they do not count here either.
    for _ in 0..9 {
        assert!(hit(&mut client, "module", 10, MINUTE));
    }
    clock.set(later + MINUTE - 1);
    assert!(!hit(&mut client, "module", 10, MINUTE));
    clock.set(later + MINUTE);
    assert!(client.integer("XLEN module") > 0, "the entries are there, expired");
    assert!(hit(&mut client, "module", 10, MINUTE));
}

#[test]
fn fault_4_refused_hits_are_stored() {
    let Some(Stage { server: _server, clock, mut client, .. }) = exact() else { return };
    // A client that tries once a second, ten times as often as it may, for an hour.
    let (mut by_recipe, mut by_module) = (0, 0);
    for second in 0..3_600 {
        let now = START + second * 1_000;
        clock.set(now);
        by_recipe += i32::from(recipe(&mut client, "recipe", 6, MINUTE, now));
        by_module += i32::from(hit(&mut client, "module", 6, MINUTE));
    }
    assert_eq!(by_recipe, 6, "it never gets back in");
    assert_eq!(by_module, 6 * 60, "it gets what it may have");

    // A flood.
    let mut flood = redis::pipe();
    for _ in 0..5_000 {
        flood.cmd("XADD").arg("recipe").arg("*").arg("hit").arg(1).ignore();
        flood.cmd("RATELIMIT.HIT").arg("module").arg(6).arg("1m").ignore();
    }
    flood.exec(&mut client).unwrap();
    assert!(client.integer("XLEN recipe") > 5_000);
    assert!(client.integer("XLEN module") <= 6 + 16);
}

#[test]
fn fault_5_an_idle_clients_stream_stays_for_ever() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    recipe(&mut client, "recipe", 10, MINUTE, START);
    hit(&mut client, "module", 10, MINUTE);
    assert_eq!(client.integer("PTTL recipe"), -1);
    clock.set(START + MINUTE * 9 / 8 + 1);
    assert_eq!(client.integer("EXISTS recipe"), 1);
    assert_eq!(client.integer("EXISTS module"), 0);
}

#[test]
fn fault_6_a_short_window_forgets_for_a_long_one() {
    let Some(Stage { server: _server, clock, mut client, .. }) = exact() else { return };
    let (long, short) = ((10, MINUTE), (5, 10_000));
    for _ in 0..10 {
        assert!(recipe(&mut client, "recipe", long.0, long.1, START));
        assert!(hit(&mut client, "module", long.0, long.1));
    }
    let now = START + 11_000;
    clock.set(now);
    assert!(recipe(&mut client, "recipe", short.0, short.1, now));
    assert!(hit(&mut client, "module", short.0, short.1));
    // Eleven hits in the last minute, of ten allowed.
    assert!(recipe(&mut client, "recipe", long.0, long.1, now), "the short route has made it forget");
    assert!(!hit(&mut client, "module", long.0, long.1));
    assert_eq!(client.answer("RATELIMIT.PEEK module 10 1m"), [0, 10, 0, 49_000, 60_000, 49_000]);
}
