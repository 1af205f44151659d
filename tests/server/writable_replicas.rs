//! A replica that takes writes limits by what it holds, until its primary's data replace that.

use std::collections::BTreeMap;

use redis::Connection;
use support::checked::Call;
use support::client::{HIT, MHIT, PEEK};
use support::oracle::Tier;
use support::replication::{REPLICATION, caught_up, replica_of};
use support::seeds::random;
use support::{Ask, Server, Setup, assert_same, wait_for, words};

const HOUR: u64 = 3_600_000;

const TIERS: [Tier; 2] = [(30, HOUR), (40, 2 * HOUR)];

fn servers(options: &[&str]) -> [Server; 2] {
    let setup = Setup::new().tcp().args(REPLICATION).args(["--stream-node-max-entries", "4"]);
    let primary = setup.clone().start();
    let replica = replica_of(&primary, setup.args(["--replica-read-only", "no"]).args(options));
    [primary, replica]
}

fn keys() -> Vec<String> {
    (0..12).map(|number| format!("key:{number}")).collect()
}

/// Random calls, each held to the logs of the server that is asked.
fn hit(client: &mut Connection, rng: &mut fastrand::Rng, calls: usize) {
    let keys = keys();
    for _ in 0..calls {
        let at = rng.usize(..keys.len() - 1);
        let (name, count) = *rng.choice(&[(HIT, 1), (MHIT, 2), (PEEK, 1)]).unwrap();
        // MHIT has one tier for each key, and HIT all of them.
        Call { name, keys: &keys[at..at + count], tiers: &TIERS, cost: rng.u64(1..3) }.ask(client).unwrap();
    }
}

/// Every key, asked in several ways and held to the log that is there.
fn look(client: &mut Connection) -> Vec<Vec<i64>> {
    let mut seen = Vec::new();
    for key in keys() {
        for tiers in [&TIERS[..1], &TIERS[..], &[(1_000, 3 * HOUR)]] {
            let call = Call { name: PEEK, keys: &[key.clone()], tiers, cost: 1 };
            seen.push(call.ask(client).unwrap().answers[0][..3].to_vec());
        }
    }
    seen
}

fn lengths(client: &mut Connection) -> BTreeMap<String, i64> {
    keys().into_iter().map(|key| (key.clone(), client.integer(&format!("XLEN {key}")))).collect()
}

/// The replica goes its own way, with logs that become as long as those of its primary but say something else, so that nothing
/// but the event tells its cursors that they have been replaced.
fn its_own_way(servers: &[Server; 2], rng: &mut fastrand::Rng) {
    let [mut client, mut other] = servers.each_ref().map(Server::connect);
    caught_up(&servers[0], &servers[1]);
    client.run("RATELIMIT.RESET key:0 key:1 key:2 key:3");
    caught_up(&servers[0], &servers[1]);
    hit(&mut other, rng, 150);
    let theirs = lengths(&mut other);
    for key in keys() {
        let (own, theirs) = (client.integer(&format!("XLEN {key}")), theirs[&key]);
        // With another weight.
        (own..theirs).for_each(|_| _ = client.run(&format!("RATELIMIT.HIT {key} 100000 1h COST 11")));
    }
    let equal = lengths(&mut client).into_iter().filter(|(key, length)| *length > 0 && theirs[key] == *length).count();
    assert!(equal > 3, "logs are equally long");
    // The table of the replica follows them.
    look(&mut other);
}

/// What the replica does is its own: the primary knows nothing of it, and neither does anybody else. What the primary sends
/// meanwhile is added to that or does not fit, and every answer is what the replica's own log says.
#[test]
fn it_limits_by_its_own_logs() {
    let mut rng = random("it_limits_by_its_own_logs");
    let servers = servers(&[]);
    let [mut client, mut other] = servers.each_ref().map(Server::connect);
    hit(&mut client, &mut rng, 60);
    caught_up(&servers[0], &servers[1]);
    assert_same(&other.fingerprint(), &client.fingerprint(), "primary and replica");
    let before = client.fingerprint();
    hit(&mut other, &mut rng, 60);
    assert_ne!(other.fingerprint(), before, "hits are stored");
    assert_same(&client.fingerprint(), &before, "the primary knows nothing of it");
    for _ in 0..15 {
        hit(&mut client, &mut rng, 8);
        hit(&mut other, &mut rng, 8);
    }
    client.run("RATELIMIT.RESET key:3 key:4");
    caught_up(&servers[0], &servers[1]);
    assert_eq!(other.integer("EXISTS key:3 key:4"), 0, "what the primary deletes is gone here too");
    hit(&mut other, &mut rng, 60);
    look(&mut other);

    // A link that is cut for a moment changes nothing: only what it has missed is sent.
    let before = other.fingerprint();
    client.run("CLIENT KILL TYPE replica");
    wait_for("the replica is back", || client.info("stats", "sync_partial_ok") == "1");
    caught_up(&servers[0], &servers[1]);
    assert_same(&other.fingerprint(), &before, "the replica's own");
    look(&mut other);
    hit(&mut other, &mut rng, 60);

    // Nobody else is told either.
    let primary = servers[0].connect().info("stats", "sync_full");
    assert_eq!(primary, "1");
}

/// Once with a snapshot that replaces the data set, and once with one that is loaded beside it.
#[test]
fn a_full_sync_replaces_what_it_had() {
    let mut rng = random("a_full_sync_replaces_what_it_had");
    for load in ["disabled", "swapdb"] {
        let servers = servers(&["--repl-diskless-load", load]);
        let [primary, replica] = &servers;
        let [mut client, mut other] = servers.each_ref().map(Server::connect);
        client.run("CONFIG SET repl-diskless-sync yes repl-diskless-sync-delay 0");
        hit(&mut client, &mut rng, 60);
        for round in 1..=2 {
            its_own_way(&servers, &mut rng);
            other.run("RATELIMIT.HIT mine 5 1h");
            let before = look(&mut other);
            if round == 1 {
                // Its own history, which no primary goes on with.
                other.run("REPLICAOF NO ONE");
                hit(&mut other, &mut rng, 10);
                other.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
            } else {
                // In one step the link is cut and the replica misses more than the primary keeps for it.
                client.run("CONFIG SET repl-backlog-size 16384");
                let filler = format!("SET filler {}", "x".repeat(40_000));
                let mut pipe = redis::pipe();
                pipe.atomic().add_command(words("CLIENT KILL TYPE replica"));
                (0..3).for_each(|_| _ = pipe.add_command(words(&filler)));
                pipe.exec(&mut client).unwrap();
            }
            let synced = (round + 1).to_string();
            wait_for("another snapshot", || client.info("stats", "sync_full") == synced);
            wait_for("the replica is in sync", || other.info("replication", "master_link_status") == "up");
            caught_up(primary, replica);
            // What it counted is forgotten, and every answer is what the primary's logs say: looked at first, because a look
            // at another length would put a cursor right.
            let after = look(&mut other);
            assert_ne!(after, before, "{load}: something has changed");
            assert_eq!(after, look(&mut client), "{load}, round {round}");
            assert_same(&other.fingerprint(), &client.fingerprint(), load);
            assert_eq!(other.integer("EXISTS mine"), 0);
            hit(&mut client, &mut rng, 30);
            caught_up(primary, replica);
            assert_eq!(look(&mut other), look(&mut client), "{load}: it follows again");
            hit(&mut other, &mut rng, 30);
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
    assert!(other.integer("DBSIZE") > 0);
    wait_for("they expire although nobody asks for them", || other.integer("DBSIZE") == 0);
    assert_eq!(other.answer("RATELIMIT.HIT own:0 1 1h")[..3], [1, 1, 0], "it begins anew");
    assert_eq!(other.answer("RATELIMIT.HIT own:0 1 1h")[..3], [0, 1, 0]);

    // Of the primary, which is not told to delete it and not asked for it.
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    client.run("RATELIMIT.HIT theirs 2 200ms");
    caught_up(&servers[0], &servers[1]);
    // In one moment, so that both count or the first has left.
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
