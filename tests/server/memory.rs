//! The figures of the README on memory: what a key costs, at the server's default node sizes and at those of `redis.conf`.
//!
//! `cargo test memory -- --nocapture` prints them.

use crate::support::{Ask, START, Server, Setup};

fn usage(server: &Server, hits: u64) -> i64 {
    let mut client = server.connect();
    let key = format!("user:{hits}");
    let mut pipe = redis::pipe();
    for _ in 0..hits {
        pipe.cmd("RATELIMIT.HIT").arg(&key).arg(1_000_000).arg("1h").ignore();
    }
    pipe.exec(&mut client).unwrap();
    client.integer(&format!("MEMORY USAGE {key} SAMPLES 0"))
}

#[test]
fn memory_of_a_key() {
    let default = Setup::new().start();
    let conf = ["--stream-node-max-bytes", "512", "--stream-node-max-entries", "16"];
    let small = Setup::new().args(conf).start();
    for (name, server, one_hit, each_further) in
        [("default", default, 4_000..5_000, 8..20), ("redis.conf", small, 700..1_300, 8..40)]
    {
        let (one, ten, many) = (usage(&server, 1), usage(&server, 10), usage(&server, 20_000));
        let each = (many - one) / 19_999;
        println!("{name}: a key with one hit {one} bytes, with ten {ten}; each of 20,000 hits {each} bytes");
        assert!(one_hit.contains(&one), "{name}: {one}");
        assert!(each_further.contains(&each), "{name}: {each}");
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
