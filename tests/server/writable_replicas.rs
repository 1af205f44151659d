//! A replica that takes writes limits by what it holds, until its primary's data replace that.

use std::ops::Range;

use redis::Connection;
use support::checked::Call;
use support::client::{HIT, MHIT, PEEK};
use support::oracle::Tier;
use support::replication::{REPLICATION, caught_up, replica_of};
use support::seeds::random;
use support::{Ask, Server, Setup, assert_same, wait_for, words};

const HOUR: u64 = 3_600_000;

const KEYS: usize = 12;

const TIERS: [Tier; 2] = [(30, HOUR), (40, 2 * HOUR)];

fn servers(options: &[&str]) -> [Server; 2] {
    let setup = Setup::new().tcp().args(REPLICATION).args(["--stream-node-max-entries", "4"]);
    let primary = setup.clone().start();
    let replica = replica_of(&primary, setup.args(["--replica-read-only", "no"]).args(options));
    [primary, replica]
}

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// Random calls on some of the keys, each held to the logs of the server that is asked.
fn hit(client: &mut Connection, rng: &mut fastrand::Rng, numbers: Range<usize>, calls: usize) {
    let keys: Vec<String> = numbers.map(key).collect();
    for _ in 0..calls {
        let at = rng.usize(..keys.len() - 1);
        let (name, count) = *rng.choice(&[(HIT, 1), (MHIT, 2), (PEEK, 1)]).unwrap();
        // MHIT has one tier for each key, and HIT all of them.
        Call { name, keys: &keys[at..at + count], tiers: &TIERS, cost: rng.u64(1..3) }.ask(client).unwrap();
    }
}

/// What the keys answer in several ways.
fn look(client: &mut Connection) -> Vec<Vec<i64>> {
    let policies = ["30 1h", "30 1h 40 2h", "10000 3h", "10000 3h COST 9500"];
    let lines = (0..KEYS).flat_map(|number| policies.map(|policy| format!("RATELIMIT.PEEK {} {policy}", key(number))));
    lines.map(|line| client.answer(&line)[..3].to_vec()).collect()
}

/// The same without the table of cursors, and afterwards with a table that knows the keys anew.
fn look_without_cursors(client: &mut Connection) -> Vec<Vec<i64>> {
    client.run("CONFIG SET ratelimit.cursors 0");
    let seen = look(client);
    client.run("CONFIG SET ratelimit.cursors 8192");
    assert_eq!(look(client), seen);
    seen
}

/// What the replica does is its own: the primary knows nothing of it. What the primary deletes is gone.
#[test]
fn it_limits_by_its_own_logs() {
    let mut rng = random("it_limits_by_its_own_logs");
    let servers = servers(&[]);
    let [mut client, mut other] = servers.each_ref().map(Server::connect);
    hit(&mut client, &mut rng, 0..6, 60);
    caught_up(&servers[0], &servers[1]);
    assert_same(&other.fingerprint(), &client.fingerprint(), "primary and replica");
    let before = client.fingerprint();
    hit(&mut other, &mut rng, 0..KEYS, 150);
    assert_ne!(other.fingerprint(), before, "hits are stored");
    assert_same(&client.fingerprint(), &before, "the primary knows nothing of it");
    assert_eq!(other.info("replication", "role"), "slave");

    // Keys that both hit: what comes from the primary is added to what is there, and no cursor misses it.
    for _ in 0..15 {
        hit(&mut client, &mut rng, 0..3, 3);
        other.run(&format!("RATELIMIT.HIT {} 10000 3h", key(rng.usize(0..3))));
        hit(&mut other, &mut rng, 6..KEYS, 5);
        caught_up(&servers[0], &servers[1]);
        let seen = look(&mut other);
        assert_eq!(seen, look_without_cursors(&mut other));
        // A log in place of one that was as long as it.
        let mut pipe = redis::pipe();
        pipe.atomic().add_command(words("RATELIMIT.RESET key:0"));
        let weight = rng.u64(2..99);
        for _ in 0..other.integer("XLEN key:0") {
            pipe.add_command(words(&format!("RATELIMIT.HIT key:0 100000 1h COST {weight}")));
        }
        pipe.exec(&mut client).unwrap();
        caught_up(&servers[0], &servers[1]);
        let policies = look(&mut other).len() / KEYS;
        assert_eq!(look(&mut other)[..policies], look(&mut client)[..policies]);
    }
    client.run("RATELIMIT.RESET key:0 key:1 key:2");
    caught_up(&servers[0], &servers[1]);
    assert_eq!(other.integer("EXISTS key:0 key:1 key:2"), 0, "what the primary deletes is gone here too");
    hit(&mut other, &mut rng, 0..KEYS, 60);

    // A link that is cut for a moment changes nothing: only what was missed is sent.
    let before = other.fingerprint();
    client.run("CLIENT KILL TYPE replica");
    wait_for("the replica is back", || client.info("stats", "sync_partial_ok") == "1");
    caught_up(&servers[0], &servers[1]);
    assert_same(&other.fingerprint(), &before, "the replica's own");
    hit(&mut other, &mut rng, 0..KEYS, 60);
    assert_eq!(client.info("stats", "sync_full"), "1");
}

/// Logs that are replaced by others of the same length, so that only the event tells the replica's cursors: by a snapshot that
/// is loaded into an empty data set, and by one that is loaded beside the old one.
#[test]
fn a_full_sync_replaces_what_it_had() {
    let mut rng = random("a_full_sync_replaces_what_it_had");
    for load in ["disabled", "swapdb"] {
        let servers = servers(&["--repl-diskless-load", load]);
        let [primary, replica] = &servers;
        let [mut client, mut other] = servers.each_ref().map(Server::connect);
        client.run("CONFIG SET repl-diskless-sync yes repl-diskless-sync-delay 0 repl-backlog-size 16384");
        hit(&mut client, &mut rng, 0..KEYS, 60);
        caught_up(primary, replica);
        for round in 1..=2 {
            hit(&mut other, &mut rng, 0..KEYS, 100);
            (0..KEYS).for_each(|number| _ = other.run(&format!("RATELIMIT.HIT {} 10000 1h", key(number))));
            other.run("RATELIMIT.HIT mine 5 1h");
            let before = look(&mut other);
            let lengths: Vec<i64> = (0..KEYS).map(|number| other.integer(&format!("XLEN {}", key(number)))).collect();
            assert!(lengths.iter().all(|length| *length > 0));
            let mut pipe = redis::pipe();
            pipe.atomic();
            if round == 1 {
                // A history of its own, which no primary goes on with.
                other.run("REPLICAOF NO ONE");
            } else {
                // In one step the link is cut and the replica misses more than the primary keeps for it.
                pipe.add_command(words("CLIENT KILL TYPE replica"));
                let filler = format!("SET filler {}", "x".repeat(40_000));
                (0..3).for_each(|_| _ = pipe.add_command(words(&filler)));
            }
            for (number, length) in lengths.iter().enumerate() {
                let key = key(number);
                pipe.add_command(words(&format!("RATELIMIT.RESET {key}")));
                // With another weight in every round.
                let hit = format!("RATELIMIT.HIT {key} 10000 3h COST {}", 10 + round);
                (0..*length).for_each(|_| _ = pipe.add_command(words(&hit)));
            }
            pipe.exec(&mut client).unwrap();
            if round == 1 {
                other.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
            }
            let synced = (round + 1).to_string();
            wait_for("another snapshot", || client.info("stats", "sync_full") == synced);
            wait_for("the replica is in sync", || other.info("replication", "master_link_status") == "up");
            caught_up(primary, replica);
            for (number, length) in lengths.iter().enumerate() {
                assert_eq!(other.integer(&format!("XLEN {}", key(number))), *length, "only the length is the same");
            }
            let after = look(&mut other);
            assert_eq!(after, look(&mut client), "{load}, round {round}");
            assert_ne!(after, before, "{load}: something has changed");
            assert_same(&other.fingerprint(), &client.fingerprint(), load);
            assert_eq!(other.integer("EXISTS mine"), 0, "what it counted alone is forgotten");
            client.run("RATELIMIT.RESET key:0 key:1 key:2 key:3");
            hit(&mut client, &mut rng, 0..KEYS, 30);
            caught_up(primary, replica);
            assert_eq!(look(&mut other), look(&mut client), "{load}: it follows again");
        }
    }
}

/// A log that the replica has made expires there by itself, as any key that such a server makes; a log of the primary counts
/// for nobody once it is past its expiry, and goes when the primary says so.
#[test]
fn its_own_logs_expire() {
    let servers = servers(&[]);
    let [mut client, mut other] = servers.each_ref().map(Server::connect);
    for number in 0..20 {
        assert_eq!(other.answer(&format!("RATELIMIT.HIT own:{number} 1 100ms"))[..3], [1, 1, 0]);
    }
    other.run("SET plain x PX 100");
    wait_for("they expire although nobody asks for them", || other.integer("DBSIZE") == 0);
    assert_eq!(other.info("stats", "expired_keys"), "21");
    assert_eq!(other.answer("RATELIMIT.HIT own:0 1 1h")[..3], [1, 1, 0], "it begins anew");
    assert_eq!(other.answer("RATELIMIT.HIT own:0 1 1h")[..3], [0, 1, 0]);

    // Of the primary, which is not told to delete it and not asked for it.
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    client.run("RATELIMIT.HIT theirs 2 200ms");
    caught_up(&servers[0], &servers[1]);
    // Both count, unless the first has left by now.
    let second = other.answer("RATELIMIT.HIT theirs 2 200ms");
    assert!(second[0] == 1 && (0..2).contains(&second[2]), "{second:?}");
    wait_for("nobody sees it any more", || other.integer("EXISTS theirs") == 0);
    for left in [1, 0] {
        assert_eq!(other.answer("RATELIMIT.HIT theirs 2 1h")[..3], [1, 2, left], "it begins anew");
    }
    assert_eq!(other.answer("RATELIMIT.HIT theirs 2 1h")[0], 0);
    assert_eq!(client.integer("EXISTS theirs"), 0, "now the primary knows, and says so");
    caught_up(&servers[0], &servers[1]);
    assert_eq!(other.integer("EXISTS theirs"), 0, "so that even the new one is gone");
    assert_eq!(other.answer("RATELIMIT.HIT theirs 2 1h")[..3], [1, 2, 1]);
}
