//! Commands work in every state of the server: paused, loading, watched, cached by its clients, or a replica that takes writes.

use redis::Value;
use support::replication::{REPLICATION, caught_up, replica_of};
use support::{Ask, Clock, START, Server, Setup, Stage, assert_same, get, six, wait_for, words};

const HIT: &str = "RATELIMIT.HIT k 2 1m";
const PEEK: &str = "RATELIMIT.PEEK k 2 1m";

/// While writes are paused hits wait, looking is served, and what has expired is gone for whoever looks although it may not be
/// deleted.
#[test]
fn paused() {
    let Some(Stage { server, clock, .. }) = Stage::new() else { return };
    let (mut client, mut operator) = (server.connect(), server.connect());
    client.run(HIT);
    client.run(HIT);
    operator.run("CLIENT PAUSE 3600000 WRITE");
    assert_eq!(client.answer(PEEK)[0], 0);
    clock.set(START + 70_000);
    assert_eq!(client.answer(PEEK), [1, 2, 1, 0, 60_000, 60_000]);
    clock.set(START);
    assert_eq!(client.answer(PEEK)[0], 0, "it was not deleted");
    let mut waiting = server.connect();
    std::thread::scope(|scope| {
        let hit = scope.spawn(move || waiting.answer(HIT));
        wait_for("the hit waits", || operator.text("CLIENT LIST").contains("cmd=ratelimit.hit"));
        clock.set(START + 70_000);
        operator.run("CLIENT UNPAUSE");
        assert_eq!(hit.join().unwrap(), [1, 2, 1, 0, 60_000, 60_000], "it happens when it is carried out");
    });
    assert_eq!(client.entries("k").len(), 1);
}

/// While a data set is loaded every command of the module is refused, and afterwards all is as before.
#[test]
fn loading() {
    let slowly = ["--key-load-delay", "200", "--loading-process-events-interval-bytes", "1024"];
    let server = Setup::new().args(slowly).start();
    let (mut client, mut operator) = (server.connect(), server.connect());
    client.run("DEBUG POPULATE 2000");
    (0..3).for_each(|_| _ = client.run(HIT));
    let refused = std::thread::scope(|scope| {
        let reload = scope.spawn(move || operator.run("DEBUG RELOAD"));
        let mut refused = 0;
        while !reload.is_finished() {
            let replies = [HIT, PEEK, "RATELIMIT.RESET other"].map(|line| client.ask(&words(line)));
            refused +=
                usize::from(replies.iter().all(|reply| matches!(reply, Err(error) if error.starts_with("LOADING"))));
        }
        reload.join().unwrap();
        refused
    });
    assert!(refused > 0, "it was seen loading");
    assert_eq!(client.answer(PEEK)[..3], [0, 2, 0]);
}

/// Client-side caches drop a key when a hit is stored, and only then.
#[test]
fn tracked_by_clients() {
    let server = Server::start();
    let (mut cache, mut client) = (server.connect_resp3(), server.connect());
    let (sender, pushed) = std::sync::mpsc::channel();
    cache.set_push_sender(sender);
    cache.run("CLIENT TRACKING ON");
    let mut invalidated = |line: &str| {
        cache.run("XLEN k");
        client.run(line);
        // The push comes before the reply.
        cache.run("PING");
        pushed.try_iter().any(|push| push.kind == redis::PushKind::Invalidate)
    };
    for (line, expected) in [
        (HIT, true),
        (PEEK, false),
        (HIT, true),
        (HIT, false),
        ("RATELIMIT.HIT k 2 1m STRICT", true),
        ("RATELIMIT.MHIT 2 k other 2 1m AND 2 1m", false),
        ("RATELIMIT.MHIT 2 k other 9 1m AND 2 1m", true),
        ("RATELIMIT.RESET k", true),
        ("RATELIMIT.RESET k", false),
    ] {
        assert_eq!(invalidated(line), expected, "{line}");
    }
}

/// MONITOR, and a client that leaves no trace in the eviction data.
#[test]
fn monitored() {
    let server = Server::start();
    let (mut client, mut monitor) = (server.connect(), server.connect());
    monitor.run("MONITOR");
    // Not known to Redis 7.0.
    let _ = client.ask(&words("CLIENT NO-TOUCH on"));
    for left in [1, 0] {
        assert_eq!(client.answer(HIT)[2], left);
    }
    let mut shown = || get::<String>(monitor.recv_response().unwrap());
    wait_for("both were shown", || shown().ends_with(r#""RATELIMIT.HIT" "k" "2" "1m""#));
    assert!(shown().ends_with(r#""RATELIMIT.HIT" "k" "2" "1m""#));
}

/// A log can be followed as it grows: who waits for the next entry gets it.
#[test]
fn followed_by_waiting_readers() {
    let server = Server::start();
    let (mut client, mut operator) = (server.connect(), server.connect());
    client.run(HIT);
    for line in ["XREAD BLOCK 20000 STREAMS k $", "XREADGROUP GROUP group reader BLOCK 20000 STREAMS k >"] {
        client.run("RATELIMIT.RESET k");
        client.run(HIT);
        client.run("XGROUP CREATE k group $");
        let mut reader = server.connect();
        std::thread::scope(|scope| {
            let read = scope.spawn(move || reader.run(line));
            wait_for("somebody waits", || operator.info("clients", "blocked_clients") == "1");
            assert_eq!(client.answer("RATELIMIT.HIT k 1 1m")[0], 0, "a refusal wakes nobody");
            assert_eq!(operator.info("clients", "blocked_clients"), "1");
            assert_eq!(client.answer(HIT)[0], 1);
            let read = format!("{:?}", read.join().unwrap());
            assert!(read.contains("60000ms"), "{read}");
        });
    }
}

/// A replica that takes writes keeps its own count until its primary's data replace it.
#[test]
fn a_replica_that_takes_writes() {
    let Some(clock) = Clock::at(START) else { return };
    let setup = Setup::new().clock(&clock).args(REPLICATION);
    let primary = setup.clone().tcp().start();
    let replica = replica_of(&primary, setup.args(["--replica-read-only", "no"]));
    let (mut client, mut other) = (primary.connect(), replica.connect());
    client.run(HIT);
    caught_up(&primary, &replica);
    assert_eq!(other.answer(HIT)[..3], [1, 2, 0]);
    assert_eq!(other.answer(HIT)[0], 0);
    assert_eq!(other.answer("RATELIMIT.HIT own 1 1m")[0], 1);
    assert_eq!(client.answer(PEEK)[2], 0, "the primary knows nothing of it");
    // What the primary sends does not fit in any more: it has counted a hit of its own at this ID.
    clock.set(START + 61_000);
    assert_eq!(other.answer("RATELIMIT.PEEK own 1 1m")[0], 1);
    assert_eq!(other.answer("RATELIMIT.HIT own 1 1m")[0], 1, "it has expired here as well");
    let before = other.text("INFO replication");
    assert!(before.contains("role:slave"), "{before}");
    // A full synchronization ends it.
    other.run("REPLICAOF NO ONE");
    other.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    wait_for("in sync again", || other.info("replication", "master_link_status") == "up");
    client.run(HIT);
    caught_up(&primary, &replica);
    client.run("EXISTS k own");
    assert_same(&other.fingerprint(), &client.fingerprint(), "primary and replica");
    assert_eq!(other.answer(PEEK), client.answer(PEEK));
}

/// Two databases change places within a transaction, between hits on both.
#[test]
fn databases_swapped_within_a_transaction() {
    let server = Server::start();
    let mut client = server.connect();
    for _ in 0..4 {
        client.run("RATELIMIT.HIT k 20 1h");
    }
    client.run("SELECT 1");
    (0..4).for_each(|_| _ = client.run("RATELIMIT.HIT k 20 1h COST 3"));
    client.run("MULTI");
    for line in ["RATELIMIT.HIT k 20 1h", "SWAPDB 0 1", "RATELIMIT.HIT k 20 1h", "SELECT 0", "RATELIMIT.HIT k 20 1h"] {
        client.run(line);
    }
    let Value::Array(replies) = client.run("EXEC") else { panic!("no array") };
    let left: Vec<i64> = [0, 2, 4].iter().map(|&at| six(&replies[at])[2]).collect();
    assert_eq!(left, [20 - 13, 20 - 5, 20 - 14]);
}
