//! Hits survive `kill -9` under load: on disk with `appendfsync always`, and on a replica that takes over.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use redis::{Cmd, Connection, Value};
use support::client::number;
use support::replication::{REPLICATION, replica_of};
use support::seeds::random;
use support::{Ask, Running, Setup, is_long, six, wait_for_more, words};

/// Keys that are always hit together and so must always hold the same, and the way in which they are.
const TOGETHER: [(&str, &[&str]); 4] =
    [("plain", &["p"]), ("mhit", &["a", "b", "c"]), ("transaction", &["x", "y"]), ("script", &["s", "t", "u"])];

const MOST: u64 = (1 << 53) - 1;

/// One hit on each key of a group, together; None if no answer came.
fn hit_together(client: &mut Connection, (how, keys): (&str, &[&str]), cost: u64) -> Option<()> {
    let hit = |key: &str| format!("RATELIMIT.HIT {key} {MOST} 1h COST {cost}");
    let allowed = |replies: Vec<Value>| replies.iter().for_each(|reply| assert_eq!(six(reply)[0], 1));
    let ask = |client: &mut Connection, cmd: &Cmd| match client.ask(cmd) {
        Ok(Value::Array(replies)) => Some(replies),
        _ => None,
    };
    match how {
        "plain" => allowed(vec![Value::Array(ask(client, &words(&hit(keys[0])))?)]),
        "mhit" => {
            let groups = vec![format!("{MOST} 1h COST {cost}"); keys.len()].join(" AND ");
            let line = format!("RATELIMIT.MHIT {} {} {groups}", keys.len(), keys.join(" "));
            allowed(ask(client, &words(&line))?);
        }
        "transaction" => {
            let mut pipe = redis::pipe();
            pipe.atomic();
            keys.iter().for_each(|key| _ = pipe.add_command(words(&hit(key))));
            allowed(pipe.query(client).ok()?);
        }
        _ => {
            let script = "local r = {} for i, key in ipairs(KEYS) do \
                r[i] = redis.call('RATELIMIT.HIT', key, ARGV[1], '1h', 'COST', ARGV[2]) end return r";
            let mut cmd = redis::cmd("EVAL");
            cmd.arg(script).arg(keys.len()).arg(keys).arg(MOST).arg(cost);
            allowed(ask(client, &cmd)?);
        }
    }
    Some(())
}

/// Units and hits of each group.
type Known = [(u64, usize); TOGETHER.len()];

/// Hits groups until no answer comes: what was acknowledged, and the group and the cost of the step in doubt.
fn hit_until_the_end(client: &mut Connection, rng: &mut fastrand::Rng, done: &AtomicUsize) -> (Known, usize, u64) {
    let mut known = Known::default();
    loop {
        let (group, cost) = (rng.usize(..TOGETHER.len()), rng.u64(1..100));
        if hit_together(client, TOGETHER[group], cost).is_none() {
            return (known, group, cost);
        }
        known[group].0 += cost;
        known[group].1 += 1;
        done.fetch_add(1, Relaxed);
    }
}

/// Everything that was acknowledged is there after the restart, and of every step that hits several keys all or nothing.
#[test]
fn what_was_acknowledged_is_on_disk() {
    let seed = random("what_was_acknowledged_is_on_disk").u64(..);
    let rounds = if is_long() { 50 } else { 5 };
    let setup = Setup::new().args(["--appendonly", "yes", "--appendfsync", "always"]);
    let mut dir = tempfile::TempDir::new().unwrap();
    // What is known to be on disk.
    let mut kept = Known::default();
    let (mut acknowledged, mut unanswered) = (0, 0);
    for round in 0..rounds {
        let mut rng = fastrand::Rng::with_seed(seed + round);
        let server = setup.clone().start_in(dir);
        let done = AtomicUsize::new(0);
        let mut at_least = kept;
        let mut in_doubt = Known::default();
        let left = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|number| {
                    let (mut client, done) = (server.connect(), &done);
                    let mut rng = fastrand::Rng::with_seed(seed + round * 10 + number);
                    scope.spawn(move || hit_until_the_end(&mut client, &mut rng, done))
                })
                .collect();
            if rng.u8(..3) == 0 {
                server.connect().run("BGREWRITEAOF");
            }
            wait_for_more("load", &done, rng.usize(50..500));
            let left = server.kill();
            for thread in threads {
                let (known, group, cost) = thread.join().unwrap();
                for (at_least, known) in at_least.iter_mut().zip(known) {
                    *at_least = (at_least.0 + known.0, at_least.1 + known.1);
                    acknowledged += known.1;
                }
                in_doubt[group] = (in_doubt[group].0 + cost, in_doubt[group].1 + 1);
                unanswered += 1;
            }
            left
        });

        let server = setup.clone().start_in(left);
        let mut client = server.connect();
        for (group, (how, keys)) in TOGETHER.iter().enumerate() {
            let logs: Vec<Vec<u64>> = keys
                .iter()
                .map(|key| client.entries(key).into_iter().map(|(_, _, cost)| number(&cost)).collect())
                .collect();
            assert!(logs.iter().all(|log| *log == logs[0]), "{how}: all or none");
            let (units, hits) = (logs[0].iter().sum::<u64>(), logs[0].len());
            let (least, doubt) = (at_least[group], in_doubt[group]);
            assert!((least.0..=least.0 + doubt.0).contains(&units), "{how}: {units} units, {least:?}, {doubt:?}");
            assert!((least.1..=least.1 + doubt.1).contains(&hits), "{how}: {hits} hits, {least:?}, {doubt:?}");
            kept[group] = (units, hits);
            for key in *keys {
                let peek = client.answer(&format!("RATELIMIT.PEEK {key} {MOST} 1h"));
                assert_eq!(peek[2] as u64, MOST - units - 1, "{how}: the log goes on where it was");
                assert!(client.integer(&format!("PTTL {key}")) > 3_500_000 || units == 0);
            }
        }
        dir = server.kill();
    }
    eprintln!("kill -9: {rounds} rounds, {acknowledged} acknowledged steps, none lost; {unanswered} without an answer");
}

const KEYS: usize = 10;
const LIMIT: usize = 5_000;

fn hit(key: usize) -> Cmd {
    words(&format!("RATELIMIT.HIT k:{key} {LIMIT} 1h"))
}

/// Hits random keys: what was admitted, and the key of the hit in doubt, where no answer came.
fn hit_while_running(
    client: &mut Connection,
    rng: &mut fastrand::Rng,
    done: &AtomicUsize,
    running: &AtomicBool,
) -> ([usize; KEYS], Option<usize>) {
    let mut admitted = [0; KEYS];
    while running.load(Relaxed) {
        let key = rng.usize(..KEYS);
        match client.ask(&hit(key)) {
            Ok(reply) => admitted[key] += six(&reply)[0] as usize,
            Err(_) => return (admitted, Some(key)),
        }
        done.fetch_add(1, Relaxed);
    }
    (admitted, None)
}

/// A replica takes over from a primary that was killed: over all, nobody gets in more often than the limit and what the
/// replica had not got.
#[test]
fn a_failover_loses_what_was_not_replicated() {
    let seed = random("a_failover_loses_what_was_not_replicated").u64(..);
    let rounds = if is_long() { 20 } else { 2 };
    let (mut total, mut all_lost, mut most_lost) = (0, 0, 0);
    for round in 0..rounds {
        // In every other round the replica stands still for a while before the end.
        let lag = round % 2 == 1;
        let primary = Setup::new().args(REPLICATION).tcp().start();
        let replica = replica_of(&primary, Setup::new());
        let done = AtomicUsize::new(0);
        let running = AtomicBool::new(true);
        let mut before = [0; KEYS];
        let mut unanswered = [0; KEYS];
        std::thread::scope(|scope| {
            let _stop = Running(&running);
            let threads: Vec<_> = (0..3)
                .map(|number| {
                    let (mut client, done, running) = (primary.connect(), &done, &running);
                    let mut rng = fastrand::Rng::with_seed(seed + round * 10 + number);
                    scope.spawn(move || hit_while_running(&mut client, &mut rng, done, running))
                })
                .collect();
            wait_for_more("load", &done, 500);
            if lag {
                replica.signal("STOP");
                // Or what the kernel holds for the replica would still reach it.
                primary.connect().run("CLIENT KILL TYPE replica");
                wait_for_more("hits that are not replicated", &done, 500);
            }
            drop(primary.kill());
            for thread in threads {
                let (admitted, doubt) = thread.join().unwrap();
                before.iter_mut().zip(admitted).for_each(|(before, admitted)| *before += admitted);
                doubt.into_iter().for_each(|key| unanswered[key] += 1);
            }
            replica.signal("CONT");
        });

        let mut client = replica.connect();
        client.run("REPLICAOF NO ONE");
        let (mut lost, mut more) = (0, 0);
        for key in 0..KEYS {
            let inherited = client.integer(&format!("XLEN k:{key}")) as usize;
            let mut pipe = redis::pipe();
            (0..=LIMIT).for_each(|_| _ = pipe.add_command(hit(key)));
            let replies: Vec<Value> = pipe.query(&mut client).unwrap();
            let after = replies.iter().filter(|reply| six(reply)[0] == 1).count();
            assert_eq!(inherited + after, LIMIT, "what the successor counts is exact");
            assert!(inherited <= before[key] + unanswered[key], "nothing is counted twice");
            let missing = before[key].saturating_sub(inherited);
            assert!(before[key] + after <= LIMIT + missing);
            lost += missing;
            more += (before[key] + after).saturating_sub(LIMIT);
        }
        let acknowledged: usize = before.iter().sum();
        assert!(more <= lost && lag == (lost >= 200), "{lost} of {acknowledged} lost");
        (total, all_lost, most_lost) = (total + acknowledged, all_lost + lost, most_lost.max(lost));
    }
    eprintln!("failover: {rounds} rounds, {total} hits acknowledged, {all_lost} lost, {most_lost} in one round");
}

/// What WAIT has seen on the replica is not lost.
#[test]
fn what_wait_has_seen_is_kept() {
    let primary = Setup::new().args(REPLICATION).tcp().start();
    let replica = replica_of(&primary, Setup::new());
    let mut client = primary.connect();
    for hit in 0..50 {
        client.run(&format!("RATELIMIT.MHIT 2 k:{} all 9 1h AND 100 1h", hit % 10));
    }
    assert_eq!(client.integer("WAIT 1 20000"), 1);
    drop(primary.kill());
    let mut client = replica.connect();
    client.run("REPLICAOF NO ONE");
    assert_eq!(client.integer("XLEN all"), 50);
    assert_eq!(client.answer("RATELIMIT.HIT k:0 9 1h")[..3], [1, 9, 3]);
}
