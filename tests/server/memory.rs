//! The figures of docs/operations.md on memory: what a key costs, at the server's default node size and at that of
//! `redis.conf`.
//!
//! `cargo test memory -- --nocapture` prints them.

use crate::support::{Ask, START, Server, Setup, words};

fn used(client: &mut redis::Connection) -> i64 {
    client.info("memory", "used_memory").parse().unwrap()
}

/// Bytes by which the server's memory grows with each of so many hits.
fn growth(server: &Server, hits: i64, line: impl Fn(i64) -> String) -> f64 {
    let mut client = server.connect();
    let before = used(&mut client);
    let mut at = 0;
    while at < hits {
        let mut pipe = redis::pipe();
        for hit in at..at + 100 {
            pipe.add_command(words(&line(hit))).ignore();
        }
        pipe.exec(&mut client).unwrap();
        at += 100;
    }
    (used(&mut client) - before) as f64 / hits as f64
}

#[test]
fn memory_of_a_key() {
    for (name, node, one_hit, further_hit) in
        [("default", "4096", 4_000.0..5_000.0, 8.0..14.5), ("redis.conf", "512", 600.0..1_000.0, 8.0..12.5)]
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
    let Some((server, clock)) = Server::on_clock() else { return };
    let mut client = server.connect();
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
