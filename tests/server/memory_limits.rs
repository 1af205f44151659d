//! Nothing is half written when memory runs out or keys are evicted, and a key costs what docs/operations.md says.
//!
//! `cargo test memory_limits -- --nocapture` prints the figures.

use support::seeds::random;
use support::{Ask, START, Server, Setup, Stage, in_minutes, is_long, six, wait_for, words};

/// Bytes by which the server's memory grows with each of so many hits.
fn growth(server: &Server, hits: i64, line: impl Fn(i64) -> String) -> f64 {
    let mut client = server.connect();
    let before = client.used_memory();
    let mut at = 0;
    while at < hits {
        let mut pipe = redis::pipe();
        for hit in at..at + 100 {
            pipe.add_command(words(&line(hit))).ignore();
        }
        pipe.exec(&mut client).unwrap();
        at += 100;
    }
    (client.used_memory() - before) as f64 / hits as f64
}

#[test]
fn memory_of_a_key() {
    for (name, node, one_hit, further_hit) in
        [("default", "4096", 250.0..400.0, 8.0..14.5), ("small nodes", "512", 250.0..400.0, 8.0..12.5)]
    {
        let server = Setup::new().args(["--stream-node-max-bytes", node, "--ratelimit.cursors", "0"]).start();
        let key = growth(&server, 20_000, |at| format!("RATELIMIT.HIT user:{at} 1000000 1h"));
        let further = growth(&server, 100_000, |_| "RATELIMIT.HIT busy 1000000 1h".to_owned());
        println!("{name}: a key with one hit takes {key:.0} bytes, each further hit {further:.1} bytes");
        assert!(one_hit.contains(&key), "{name}: {key} bytes");
        assert!(further_hit.contains(&further), "{name}: {further} bytes");
    }
}

/// Nodes that were filled when they could be far larger are dropped as well, though the server's approximate trimming
/// stops at them.
#[test]
fn large_nodes_of_the_past_go() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    client.run("CONFIG SET stream-node-max-bytes 0 stream-node-max-entries 0");
    let mut pipe = redis::pipe();
    for _ in 0..15_000 {
        pipe.cmd("RATELIMIT.HIT").arg("key").arg(1_000_000).arg("1m").ignore();
    }
    pipe.exec(&mut client).unwrap();
    client.run("CONFIG SET stream-node-max-bytes 512 stream-node-max-entries 16");
    for minute in 1..=3 {
        clock.set(START + minute * 61_000);
        client.answer("RATELIMIT.HIT key 1000000 1m");
    }
    assert!(client.integer("XLEN key") <= 16);
}

/// Every limiter key that is evicted is a window forgotten, and nothing else: each call agrees with what is stored at that
/// moment, whatever has been evicted since the last one.
#[test]
fn under_every_eviction_policy() {
    const LIMIT: i64 = 12;
    let mut rng = random("under_every_eviction_policy");
    let batches = if is_long() { 1_000 } else { 30 };
    for family in ["allkeys", "volatile"] {
        for policy in ["lru", "lfu", "random", "ttl"] {
            if (family, policy) == ("allkeys", "ttl") {
                continue;
            }
            let server = Server::start();
            let mut client = server.connect();
            let most = client.used_memory() + 300_000;
            client.run(&format!("CONFIG SET maxmemory {most} maxmemory-policy {family}-{policy}"));
            let mut known = vec![0; 2_000];
            let (mut forgotten, mut refused) = (0, 0);
            for _ in 0..batches {
                // Nothing is evicted within a transaction.
                let keys: Vec<usize> = (0..50).map(|_| (rng.f64().powi(3) * known.len() as f64) as usize).collect();
                for &key in &keys {
                    let mut pipe = redis::pipe();
                    pipe.atomic();
                    for line in [format!("XLEN k:{key}"), format!("RATELIMIT.HIT k:{key} {LIMIT} 1h")] {
                        pipe.add_command(words(&line));
                    }
                    let (before, reply): (i64, redis::Value) = pipe.query(&mut client).unwrap();
                    let answer = six(&reply);
                    let expected = if before < LIMIT { [1, LIMIT, LIMIT - before - 1] } else { [0, LIMIT, 0] };
                    assert_eq!(answer[..3], expected, "{family}-{policy}, {before} hits are stored");
                    assert!(before == known[key] || before == 0, "{before} hits are left of {}", known[key]);
                    forgotten += usize::from(before < known[key]);
                    refused += usize::from(answer[0] == 0);
                    known[key] = before + answer[0];
                }
            }
            let evicted = client.info("stats", "evicted_keys");
            println!(
                "{family}-{policy}: {evicted} keys evicted, {forgotten} windows seen forgotten, {refused} refused"
            );
            assert!(forgotten > 10 && refused > 10, "{family}-{policy}: {forgotten}, {refused}");
        }
    }
}

#[test]
fn without_memory() {
    let server = Server::start();
    let mut client = server.connect();
    client.run("RATELIMIT.HIT key 2 1m");
    client.run("CONFIG SET maxmemory-policy noeviction");
    client.run("CONFIG SET maxmemory 1");
    let before = client.fingerprint();
    let oom = Err("OOM command not allowed when used memory > 'maxmemory'.".to_owned());
    assert_eq!(client.ask(&words("RATELIMIT.HIT key 2 1m")), oom);
    assert_eq!(client.ask(&words("RATELIMIT.HIT new 2 1m STRICT")), oom);
    assert_eq!(in_minutes(&client.run("RATELIMIT.PEEK key 2 1m")), [1, 2, 0, 0, 60_000, 60_000]);
    assert_eq!(in_minutes(&client.run("RATELIMIT.PEEK new 2 1m")), [1, 2, 1, 0, 60_000, 60_000]);
    assert_eq!(client.fingerprint(), before);
    assert_eq!(client.integer("RATELIMIT.RESET key"), 1);
    assert_eq!(client.integer("DBSIZE"), 0);
    client.run("CONFIG SET maxmemory 0");
    assert_eq!(in_minutes(&client.run("RATELIMIT.HIT key 2 1m")), [1, 2, 1, 0, 60_000, 60_000]);
}

/// Memory runs out in the middle of a load: calls of several keys are all there or not at all, and who only looks or clears
/// away is served.
#[test]
fn memory_runs_out_under_load() {
    let server = Server::start();
    let mut client = server.connect();
    let most = client.used_memory() + 1_500_000;
    client.run(&format!("CONFIG SET maxmemory {most} maxmemory-policy noeviction"));
    let mut pairs = 0;
    let error = loop {
        match client.ask(&words(&format!("RATELIMIT.MHIT 2 a:{pairs} b:{pairs} 9 1h AND 9 1h"))) {
            Ok(_) => pairs += 1,
            Err(error) => break error,
        }
    };
    assert!(error.starts_with("OOM") && pairs > 100, "{error} after {pairs} calls");
    let script = |source: &str| redis::cmd("EVAL").arg(source).arg(2).arg("a:0").arg("new").to_owned();
    let before = client.fingerprint();
    for source in [
        "return redis.call('RATELIMIT.HIT', KEYS[2], 9, '1h')",
        "return redis.call('RATELIMIT.MHIT', 2, KEYS[1], KEYS[2], 9, '1h', 'AND', 9, '1h')",
        "redis.call('RATELIMIT.PEEK', KEYS[1], 9, '1h') return redis.call('RATELIMIT.HIT', KEYS[1], 9, '1h', 'STRICT')",
    ] {
        let error = client.ask(&script(source)).unwrap_err();
        assert!(error.starts_with("OOM"), "{error}");
    }
    assert!(client.error("RATELIMIT.HIT a:0 9 1h").starts_with("OOM"));
    assert_eq!(client.fingerprint(), before, "nothing is half written");
    for pair in 0..pairs {
        let peeks = ["a", "b"].map(|key| client.answer(&format!("RATELIMIT.PEEK {key}:{pair} 9 1h"))[2]);
        assert_eq!(peeks, [7, 7]);
    }
    assert_eq!(client.answer("RATELIMIT.PEEK new 9 1h")[0], 1);
    // A script that says it may, does: that is what it says.
    let careless = "#!lua flags=allow-oom\nreturn redis.call('RATELIMIT.HIT', KEYS[2], 9, '1h')";
    assert_eq!(six(&client.ask(&script(careless)).unwrap())[0], 1);
    for pair in 0..pairs / 2 {
        assert_eq!(client.integer(&format!("RATELIMIT.RESET a:{pair} b:{pair}")), 2);
    }
    wait_for("there is room again", || client.ask(&words("RATELIMIT.HIT a:0 9 1h")).is_ok());
}

/// Keys that came and expired leave nothing behind, whether they were hit once, followed by a cursor, or refused.
#[test]
fn memory_comes_back() {
    let keys = if is_long() { 1_000_000 } else { 20_000 };
    let server = Setup::new().args(["--ratelimit.cursors", "64"]).start();
    let mut client = server.connect();
    let wave = |client: &mut redis::Connection, keys: usize| {
        for first in (0..keys).step_by(500) {
            let mut pipe = redis::pipe();
            for key in first..first + 500 {
                let hits = if key % 7 == 0 { 4 } else { 1 };
                for _ in 0..hits {
                    pipe.add_command(words(&format!("RATELIMIT.HIT user:{key} 3 1s"))).ignore();
                }
            }
            pipe.exec(client).unwrap();
        }
        let peak = client.used_memory();
        wait_for("all keys expire", || client.integer("DBSIZE") == 0);
        peak
    };
    wave(&mut client, 5_000);
    // The server shrinks its tables of keys step by step.
    let before = client.used_memory();
    let peak = wave(&mut client, keys);
    let mut after = 0;
    wait_for("memory comes back", || {
        after = client.used_memory();
        after < before + 500_000
    });
    println!("{keys} keys came and expired: {before} bytes used before, {peak} at the most, {after} after");
}
