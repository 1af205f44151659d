//! While the server evicts keys, among them those of the very call, each answer is what the logs say at that moment.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

use redis::{Connection, Value};
use support::checked::Call;
use support::client::{HIT, MHIT, PEEK, add_groups};
use support::oracle::Tier;
use support::replication::{REPLICATION, caught_up, replica_of};
use support::seeds::random;
use support::{Ask, Running, Setup, assert_same, get, six, wait_for};

const HOUR: u64 = 3_600_000;

/// One for each key of a call. Logs live for different times, by which `volatile-ttl` chooses.
const TIERS: [Tier; 4] = [(5, HOUR), (9, 2 * HOUR), (7, 24 * HOUR), (6, 30 * HOUR)];

/// Bytes that are left for keys.
const ROOM: i64 = 700_000;

/// A key whose policy follows from its name.
fn key(number: usize) -> (String, Tier) {
    (format!("key:{number}"), TIERS[number % TIERS.len()])
}

/// A few numbers, some far more often than others.
fn some(rng: &mut fastrand::Rng, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let number = (rng.f64().powi(3) * 800.0) as usize;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Seen {
    /// Calls that were held to the logs.
    checked: AtomicUsize,
    /// Logs that others put where some were evicted.
    written: AtomicUsize,
    /// What plain calls found: keys whose log was as this client knows it, and keys whose log was gone.
    kept: AtomicUsize,
    forgotten: AtomicUsize,
    /// Calls of several keys that found some of each.
    both: AtomicUsize,
}

impl Seen {
    fn is_enough(&self) -> bool {
        let each = [&self.checked, &self.written, &self.kept, &self.forgotten, &self.both];
        each.iter().zip([1_200, 10, 100, 20, 5]).all(|(seen, least)| seen.load(Relaxed) >= least)
    }
}

/// Hits keys that others hit too, and holds each reply to the logs.
fn check(client: &mut Connection, mut rng: fastrand::Rng, running: &AtomicBool, seen: &Seen) {
    while running.load(Relaxed) {
        let name = *rng.choice(&[HIT, MHIT, MHIT, PEEK]).unwrap();
        let count = if name == MHIT { rng.usize(1..6) } else { 1 };
        let (keys, tiers): (Vec<String>, Vec<Tier>) = some(&mut rng, count).into_iter().map(key).unzip();
        let call = Call { name, keys: &keys, tiers: &tiers, cost: rng.u64(1..4) };
        if rng.u8(..3) == 0 {
            call.ask_in_script(client).unwrap_or_else(|error| panic!("{call:?}: {error}"));
        } else {
            call.ask(client).unwrap_or_else(|error| panic!("{call:?}: {error}"));
        }
        seen.checked.fetch_add(1, Relaxed);
    }
}

/// Puts logs of its own where others were evicted. They may be as long as those.
fn write(client: &mut Connection, mut rng: fastrand::Rng, running: &AtomicBool, seen: &Seen) {
    const SCRIPT: &str = "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end \
        local now = redis.call('TIME')[1] * 1000 - 1000 \
        for n = 1, ARGV[1] do \
            redis.call('XADD', KEYS[1], string.format('%.0f-%d', now + n, 2 * n), ARGV[2] .. 'ms', 2) end \
        return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
    while running.load(Relaxed) {
        let (key, (_, window)) = key(some(&mut rng, 1)[0]);
        let mut eval = redis::cmd("EVAL");
        eval.arg(SCRIPT).arg(1).arg(key).arg(rng.u8(1..5)).arg(window);
        seen.written.fetch_add(get(client.ask(&eval).unwrap()), Relaxed);
        sleep(Duration::from_millis(1));
    }
}

/// Hits keys of its own by plain calls, before which the server may evict what they name: each key must be as it was, or gone
/// as a whole, and the calls of several keys charge all of them or none.
fn guess(client: &mut Connection, mut rng: fastrand::Rng, running: &AtomicBool, seen: &Seen) {
    let mut known = vec![0_i64; 800];
    while running.load(Relaxed) {
        let count = rng.usize(1..6);
        let numbers = some(&mut rng, count);
        let tiers: Vec<Tier> = numbers.iter().map(|number| key(*number).1).collect();
        let names: Vec<String> = numbers.iter().map(|number| format!("own:{number}")).collect();
        let answers: Vec<[i64; 6]> = if count == 1 && rng.bool() {
            let (limit, window) = tiers[0];
            vec![six(&client.ask(redis::cmd(HIT).arg(names).arg(limit).arg(format!("{window}ms"))).unwrap())]
        } else {
            let mut cmd = redis::cmd(MHIT);
            add_groups(cmd.arg(count).arg(names), &tiers, 1);
            let reply: Vec<Value> = get(client.ask(&cmd).unwrap());
            reply.iter().map(six).collect()
        };
        let allowed = answers[0][0];
        let (mut kept, mut forgotten) = (0, 0);
        let mut refuses = false;
        for ((number, (limit, _)), answer) in numbers.iter().zip(&tiers).zip(&answers) {
            let limit = *limit as i64;
            assert_eq!(answer[..2], [allowed, limit], "{answers:?}");
            let used = limit - answer[2] - allowed;
            assert!(used == known[*number] || used == 0, "own:{number}: {answers:?}, {} were known", known[*number]);
            if known[*number] > 0 {
                *if used > 0 { &mut kept } else { &mut forgotten } += 1;
            }
            assert_eq!(answer[3] > 0, used == limit, "{answers:?}");
            refuses |= used == limit;
            known[*number] = used + allowed;
        }
        assert_eq!(refuses, allowed == 0, "{answers:?}");
        seen.kept.fetch_add(kept, Relaxed);
        seen.forgotten.fetch_add(forgotten, Relaxed);
        seen.both.fetch_add(usize::from(kept > 0 && forgotten > 0), Relaxed);
    }
}

fn under(policy: &str, lazily: &str) {
    let mut rng = random(policy);
    // What is not for keys stays small, or everything would be evicted to make room for it.
    let small = ["--stream-node-max-bytes", "512", "--repl-backlog-size", "16384", "--ratelimit.cursors", "200"];
    let options = [&small[..], &["--lazyfree-lazy-eviction", lazily]].concat();
    let mut primary = Setup::new().tcp().args(REPLICATION).args(&options).start();
    let replica = replica_of(&primary, Setup::new().args(&options));
    let mut operator = primary.connect();
    let most = operator.used_memory() + ROOM;
    operator.run(&format!("CONFIG SET maxmemory {most} maxmemory-policy {policy}"));
    let (running, seen) = (AtomicBool::new(true), Seen::default());
    std::thread::scope(|scope| {
        let _stop = Running(&running);
        for work in [check, check, write, guess] {
            let (mut client, rng) = (primary.connect(), rng.fork());
            let (running, seen) = (&running, &seen);
            scope.spawn(move || work(&mut client, rng, running, seen));
        }
        wait_for("enough of everything", || seen.is_enough());
    });
    let evicted = operator.info("stats", "evicted_keys");
    println!("{policy}: {evicted} keys evicted, {seen:?}");

    // Nothing more is evicted while both are compared.
    operator.run("CONFIG SET maxmemory 0");
    caught_up(&primary, &replica);
    let mut follower = replica.connect();
    assert_same(&follower.fingerprint(), &operator.fingerprint(), "primary and replica");
    assert_eq!(follower.info("stats", "evicted_keys"), "0", "it does what its primary does");
    for number in 0..800 {
        let (key, tier) = key(number);
        let call = Call { name: PEEK, keys: &[key], tiers: &[tier], cost: 1 };
        let [left, right] = [&mut operator, &mut follower].map(|client| call.ask(client).unwrap());
        assert_eq!(left.answers[0][..3], right.answers[0][..3], "{call:?}");
    }
    assert!(primary.is_alive());
}

#[test]
fn the_least_recently_used() {
    under("allkeys-lru", "no");
}

#[test]
fn the_first_to_expire() {
    under("volatile-ttl", "yes");
}

#[test]
fn any_key() {
    under("allkeys-random", "no");
}
