//! Clocks that jump, shake or stand still: the limit holds by the time that was recorded, and every wait is exact.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use support::client::time_of;
use support::judge::is_in_range;
use support::oracle::{self, Hit, Question, Tier};
use support::replication::{Effects, REPLICATION, caught_up, replica_of};
use support::seeds::random;
use support::{Ask, Clock, START, Setup, Stage, get, is_long, six};

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600_000;
const TEN_YEARS: i64 = 3650 * 86_400_000;

/// One key with one policy, on a clock of its own, beside what it should answer.
struct Watched {
    stage: Stage,
    tier: Tier,
    hits: Vec<Hit>,
    /// Times of the admitted hits as the server recorded them, since the log was last begun.
    recorded: Vec<u64>,
    admitted: usize,
    refused: usize,
    begun: usize,
}

impl Watched {
    fn new(tier: Tier) -> Option<Self> {
        Some(Self {
            stage: Stage::new()?,
            tier,
            hits: Vec::new(),
            recorded: Vec::new(),
            admitted: 0,
            refused: 0,
            begun: 0,
        })
    }

    fn call(&self, name: &str) -> String {
        format!("RATELIMIT.{name} k {} {}ms", self.tier.0, self.tier.1)
    }

    /// What is known at this moment: nothing, if the key has expired or the log is further ahead than it is kept.
    fn forget(&mut self) {
        let newest = self.hits.iter().map(|hit| hit.0).max().unwrap_or(0);
        if newest > self.stage.now + self.tier.1 || self.stage.client.integer("EXISTS k") == 0 {
            self.hits.clear();
        }
    }

    /// A hit, its answer against the oracle, and the limit against what the server recorded. True if it was admitted.
    fn hit(&mut self) -> bool {
        let (limit, window) = self.tier;
        self.forget();
        let begins = self.hits.is_empty();
        let question = Question { tiers: &[self.tier], cost: 1, ..Question::default() };
        let expected = oracle::ask(&mut self.hits, self.stage.now, question);
        let line = self.call("HIT");
        let answer = self.stage.client.answer(&line);
        assert_eq!(answer, expected, "at {}: {line}", self.stage.now);
        let in_range = is_in_range(answer, 2 * window as i64, true) && answer[3] >= 0;
        assert!(in_range, "nobody waits longer than two windows: {answer:?}");
        if answer[0] == 0 {
            self.refused += 1;
            return false;
        }
        self.admitted += 1;
        if begins {
            self.recorded.clear();
            self.begun += 1;
        }
        let newest: Vec<(String, Vec<String>)> = get(self.stage.client.run("XREVRANGE k + - COUNT 1"));
        self.recorded.push(time_of(&newest[0].0));
        if let Some(first) = self.recorded.len().checked_sub(1 + limit as usize) {
            let (first, last) = (self.recorded[first], self.recorded[self.recorded.len() - 1]);
            assert!(last - first >= window, "{} hits from {first} to {last}", limit + 1);
        }
        true
    }

    /// Goes to the end of the wait that a refused hit names, and a millisecond before it.
    fn wait(&mut self) {
        let line = self.call("PEEK");
        let wait = self.stage.client.answer(&line)[3];
        assert!(wait > 0, "it was refused");
        self.stage.go(wait - 1);
        let answer = self.stage.client.answer(&line);
        assert_eq!((answer[0], answer[3]), (0, 1), "a millisecond too early");
        self.stage.go(1);
        assert_eq!(self.stage.client.answer(&line)[0], 1, "at the end of the wait");
    }

    fn fill(&mut self) {
        for _ in 0..self.tier.0 {
            assert!(self.hit());
        }
        assert!(!self.hit());
    }
}

/// Full logs before and after each jump, with windows shorter than it, longer, and just as long.
#[test]
fn jumps() {
    for window in [400, 1_000, 60_000, 3_600_000, 3_600_001] {
        let Some(mut key) = Watched::new((3, window)) else { return };
        for jump in [SECOND, HOUR, TEN_YEARS, -SECOND, -HOUR, -TEN_YEARS, -SECOND, SECOND, -HOUR, HOUR] {
            key.fill();
            let filled = key.recorded[key.recorded.len() - 1];
            key.stage.go(jump);
            let forgotten = key.stage.now + window < filled;
            let over = key.stage.now >= filled + window;
            assert_eq!(key.hit(), forgotten || over, "a jump by {jump} with a window of {window}");
            while key.hit() {}
            key.wait();
        }
    }
}

/// The longest wait there can be: the clock goes back by a whole window just after the log was filled.
#[test]
fn the_longest_wait_is_two_windows() {
    let Some(mut key) = Watched::new((2, 60_000)) else { return };
    key.fill();
    key.stage.go(-60_000);
    assert_eq!(key.stage.client.answer(&key.call("HIT")), [0, 2, 0, 120_000, 120_000, 120_000]);
    key.stage.go(-1);
    assert_eq!(key.stage.client.answer(&key.call("PEEK")), [1, 2, 1, 0, 60_000, 60_000], "the log is stale");
    key.stage.go(1);
    key.wait();
    assert_eq!(key.stage.now, START + 60_000);
}

#[test]
fn random_jumps() {
    let mut rng = random("random_jumps");
    for window in [50, 5_000, 7_200_000] {
        let Some(mut key) = Watched::new((rng.u64(2..12), window)) else { return };
        for _ in 0..1_000 {
            let jump = match rng.u8(..60) {
                0 => *rng.choice(&[SECOND, HOUR]).unwrap(),
                1 => -*rng.choice(&[SECOND, HOUR]).unwrap(),
                2 => rng.choice([TEN_YEARS, -TEN_YEARS]).unwrap(),
                3..6 => rng.i64(-(window as i64)..=window as i64),
                6..30 => rng.i64(0..=window as i64 / 10),
                30..40 => rng.i64(-2..=2),
                _ => 0,
            };
            key.stage.go(jump);
            if !key.hit() && rng.u8(..30) == 0 {
                key.wait();
            }
        }
        assert!(key.refused > 100 && key.admitted > 50 && key.begun > 5, "{}, {}", key.refused, key.begun);
    }
}

/// Two cores that disagree by a millisecond.
#[test]
fn a_clock_that_shakes() {
    let mut rng = random("a_clock_that_shakes");
    let Some(mut key) = Watched::new((20, 30)) else { return };
    key.hit();
    for step in 0..2_500 {
        key.stage.go(if step % 2 == 0 { 1 } else { -1 });
        key.stage.go(i64::from(rng.u8(..4) == 0));
        if !key.hit() && rng.u8(..60) == 0 {
            key.wait();
        }
    }
    assert!(key.admitted > 300 && key.refused > 300, "{} admitted, {} refused", key.admitted, key.refused);
    assert_eq!(key.begun, 1, "it is the same log from first to last");
}

/// Thousands of hits in one millisecond.
#[test]
fn a_clock_that_stands_still() {
    let Some(Stage { server: _server, clock, mut client, .. }) = Stage::new() else { return };
    let limit = 3_000;
    for window in 0..3 {
        clock.set(START + window * 10);
        let mut pipe = redis::pipe();
        for _ in 0..5_000 {
            pipe.cmd("RATELIMIT.HIT").arg("k").arg(limit).arg("10ms");
        }
        let replies: Vec<[i64; 6]> = pipe.query::<Vec<redis::Value>>(&mut client).unwrap().iter().map(six).collect();
        for (before, answer) in (0..).zip(replies) {
            let expected = match limit - before {
                left if left > 0 => [1, limit, left - 1, 0, 10, 10],
                _ => [0, limit, 0, 10, 10, 10],
            };
            assert_eq!(answer, expected, "hit {before}");
        }
        clock.set(START + window * 10 + 9);
        assert_eq!(client.answer(&format!("RATELIMIT.PEEK k {limit} 10ms")), [0, limit, 0, 1, 1, 1]);
    }
}

/// The successor's clock is 30 seconds off: every answer is right by its own clock, and nobody waits for longer than two
/// windows.
#[test]
fn a_promoted_replica_on_another_clock() {
    for window in [20_000, 30_000, 3_600_000] {
        for ahead in [30 * SECOND, -30 * SECOND] {
            let (Some(clock), Some(other)) = (Clock::at(START), Clock::at(START.saturating_add_signed(ahead))) else {
                return;
            };
            let primary = Setup::new().clock(&clock).args(REPLICATION).tcp().start();
            let replica = replica_of(&primary, Setup::new().clock(&other));
            let mut client = primary.connect();
            let (tier, line) = ((5, window), |name: &str| format!("RATELIMIT.{name} k 5 {window}ms"));
            let mut recorded = Vec::new();
            for hit in 0..5 {
                clock.set(START + hit * 100);
                other.set((START + hit * 100).saturating_add_signed(ahead));
                assert_eq!(client.answer(&line("HIT"))[0], 1);
                recorded.push(START + hit * 100);
            }
            caught_up(&primary, &replica);
            drop(primary.kill());
            let mut client = replica.connect();
            client.run("REPLICAOF NO ONE");

            let begin = (START + 400).saturating_add_signed(ahead);
            let mut hits: Vec<Hit> = recorded.iter().map(|&time| (time, 1)).collect();
            // Forgotten where the log is further ahead than it is kept, or has expired.
            if START + 400 > begin + window || client.integer("EXISTS k") == 0 {
                hits.clear();
            }
            let mut now = begin;
            for _ in 0..12 {
                let question = Question { tiers: &[tier], cost: 1, ..Question::default() };
                let expected = oracle::ask(&mut hits, now, question);
                let answer = client.answer(&line("HIT"));
                assert_eq!(answer, expected, "{ahead} ms ahead, {window} ms, at {now}");
                if answer[0] == 0 {
                    assert!(answer[3] <= 2 * window as i64);
                    other.set(now + answer[3] as u64 - 1);
                    assert_eq!(client.answer(&line("PEEK"))[0], 0, "a millisecond too early");
                    now += answer[3] as u64;
                    other.set(now);
                    assert_eq!(client.answer(&line("PEEK"))[0], 1, "at the end of the wait");
                }
            }
            assert!(now - begin <= 4 * window, "it has gone on");
        }
    }
}

/// Several clients while the clock goes a millisecond back and forth: by the times that were recorded no window holds more
/// than the limit.
#[test]
fn a_clock_that_shakes_under_load() {
    const LIMIT: usize = 5;
    const WINDOW: u64 = 5;
    let Some(clock) = Clock::at(START) else { return };
    let (server, mut effects) = Effects::of(Setup::new().clock(&clock));
    let calls = if is_long() { 20_000 } else { 1_500 };
    // One step an answer, so that no window passes within one call: what has expired by then is not stored.
    let (steps, admitted) = (Mutex::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = server.connect();
            let (clock, steps, admitted) = (&clock, &steps, &admitted);
            scope.spawn(move || {
                for _ in 0..calls {
                    let answer = client.answer(&format!("RATELIMIT.HIT k {LIMIT} {WINDOW}ms"));
                    admitted.fetch_add(answer[0] as usize, Relaxed);
                    assert!(is_in_range(answer, 2 * WINDOW as i64, true) && answer[3] >= 0, "{answer:?}");
                    let mut step = steps.lock().unwrap();
                    *step += 1;
                    clock.set(START + *step / 3 + *step % 2);
                }
            });
        }
    });
    let written = effects.take();
    let times: Vec<u64> = written
        .iter()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            ["XADD", .., id, _, _] | ["RESTORE", _, _, id, _, _, "ABSTTL"] => Some(time_of(id)),
            _ => None,
        })
        .collect();
    assert_eq!(times.len(), admitted.load(Relaxed));
    for full in times.windows(LIMIT + 1) {
        assert!(full[LIMIT] - full[0] >= WINDOW, "{full:?}");
    }
    println!("{} of {} calls were admitted on a clock that shakes", times.len(), 4 * calls);
    assert!(times.len() > LIMIT && times.len() < 4 * calls);
}
