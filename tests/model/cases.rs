//! Single cases: what random histories hardly reach, or what changes no answer.

use limiter::cursors::Table;
use limiter::error::Error;
use limiter::log::{self, Back, Entry, Id, Log};
use limiter::number::MAX_UNITS;
use limiter::plan::{Append, Applied, Plan, Store};
use limiter::retention::Retention;
use limiter::syntax::Call;
use limiter::usage::Usage;

use crate::memory_log::{self, MemoryLog, START, call_of, old_log, open};

const MINUTE: u64 = 60_000;

/// A log that says it has `length` entries, and tells how it is read.
struct Watched {
    log: MemoryLog,
    length: u64,
    /// Where walks began, and how many hits they passed.
    walks: Vec<(u64, usize)>,
    /// How many entries each reading backwards passed, the newest included.
    backs: Vec<usize>,
}

impl Watched {
    fn new(log: MemoryLog) -> Self {
        Self { length: log.entries.len() as u64, log, walks: Vec::new(), backs: Vec::new() }
    }
}

impl Log for Watched {
    fn read_back(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        let mut passed = 0;
        let newest = (&mut self.log).read_back(&mut |id, cost| {
            passed += 1;
            visit(id, cost)
        })?;
        self.backs.push(passed);
        Ok(newest)
    }

    fn last_id(&mut self) -> Result<Id, Error> {
        (&mut self.log).last_id()
    }

    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(log::Hit) -> bool) -> Result<(), Error> {
        let mut passed = 0;
        (&mut self.log).walk(from, &mut |hit| {
            passed += 1;
            visit(hit)
        })?;
        self.walks.push((from, passed));
        Ok(())
    }
}

impl Store for Watched {
    fn length(&self) -> u64 {
        self.length
    }

    fn expires_at(&mut self) -> Option<u64> {
        self.log.expires_at
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        self.length += u64::from(matches!(plan, Plan::Append(_)));
        (&mut self.log).apply(plan)
    }
}

fn append_of(log: &mut Watched, now: u64, call: &Call) -> Append {
    let mut usage = Usage::new(call, now, Id::default());
    usage.read(log).unwrap();
    match usage.decide(log, usage.has_room()).unwrap().plan {
        Plan::Append(append) => append,
        plan => panic!("{plan:?}"),
    }
}

fn entry(time: u64, tally: u64, cost: u64) -> Entry {
    let retention = Retention { longest: MINUTE, fallback: None };
    Entry { hit: log::Hit { id: Id { time, tally }, cost }, retention }
}

fn log_of(entries: &[Entry]) -> MemoryLog {
    let last_id = entries.last().map(|entry| entry.hit.id);
    MemoryLog { entries: entries.to_vec(), last_id, expires_at: Some(START + 100 * MINUTE), keep_expired: 0 }
}

/// The newest entry of this millisecond was deleted, so a refused hit that counts is stored in the next one. The caller waits
/// for just this hit to leave.
#[test]
fn a_refused_hit_may_be_stored_a_millisecond_later() {
    let mut log = log_of(&[entry(START, 6, 6)]);
    log.last_id = Some(Id { time: START, tally: 100 });
    let answer = log.hit(START, &call_of(&[(10, MINUTE)], 6, true)).unwrap();
    assert_eq!(log.entries[1].hit.id.time, START + 1);
    assert_eq!(answer.integers(), [0, 10, 0, MINUTE as i64 + 1, MINUTE as i64 + 1, MINUTE as i64]);
}

#[test]
fn a_long_log_that_has_expired_is_removed_as_a_whole() {
    for (age, length, restart) in [(2 * MINUTE, 1_000, false), (2 * MINUTE, 1_001, true), (MINUTE - 1, 1_001, false)] {
        let mut log = Watched::new(log_of(&[entry(START - age, 7, 1)]));
        log.length = length;
        let append = append_of(&mut log, START, &call_of(&[(10, MINUTE)], 1, false));
        assert_eq!(append.restart, restart, "{age} {length}");
    }
}

/// Looking for expired entries has its price, so it is done once in 32 hits, and where the expiry is set.
#[test]
fn one_hit_in_32_looks_for_expired_entries() {
    for cost in [1, 10] {
        let mut log = log_of(&[entry(START, cost, cost)]);
        for nth in 2..200 {
            let append =
                append_of(&mut Watched::new(log.clone()), START + nth, &call_of(&[(9_000, MINUTE)], cost, false));
            let expired_before = Id { time: START + nth + 1 - MINUTE, tally: 0 };
            assert_eq!(append.expired_before, (nth % 32 == 0).then_some(expired_before), "hit {nth} of cost {cost}");
            (&mut log).apply(&Plan::Append(append)).unwrap();
        }
        log.expires_at = Some(START + 200 + MINUTE - 1);
        let append = append_of(&mut Watched::new(log), START + 200, &call_of(&[(9_000, MINUTE)], cost, false));
        assert!(append.expire_at.is_some() && append.expired_before.is_some());
    }
}

/// Only where a heavy hit would make differences of tallies ambiguous is a log cut.
#[test]
fn only_a_heavy_hit_looks_at_the_beginning_of_a_log() {
    const HEAVY: u64 = 1 << 32;
    const MAX_TALLY: u64 = 1 << 62;
    let day = 1_440 * MINUTE;
    for (total, cost, is_read, is_cut) in [
        (MAX_TALLY, 1, false, false),
        (MAX_TALLY, HEAVY - 1, false, false),
        (5 * MAX_UNITS, HEAVY, true, false),
        (MAX_TALLY - HEAVY, HEAVY, true, false),
        (MAX_TALLY - HEAVY + 1, HEAVY, true, true),
    ] {
        // What lies further back than the caller's window.
        let old = entry(START - day, 1, 1);
        let mut log = Watched::new(log_of(&[old, entry(START - 1, total, 1)]));
        log.log.entries.iter_mut().for_each(|entry| entry.retention.longest = 2 * day);
        let append = append_of(&mut log, START, &call_of(&[(MAX_UNITS, MINUTE)], cost, false));
        assert_eq!(log.walks.iter().any(|walk| walk.0 == 0), is_read, "{total} {cost}");
        assert_eq!(append.surplus_before.is_some(), is_cut, "{total} {cost}");
    }
}

/// What a call of cost 1 costs must not depend on how many entries the window holds.
#[test]
fn the_search_for_a_wait_is_bounded() {
    let mut log = MemoryLog::default();
    let (limit, day) = (50_000, 86_400_000);
    for step in 0..limit {
        assert!(log.hit(START + step * 7, &call_of(&[(limit, day)], 1, false)).unwrap().allowed);
    }
    for cost in [1, 2, 10, 1_000, 25_000, 49_999, 50_000] {
        let mut watched = Watched::new(log.clone());
        let now = START + limit * 7;
        let answer = memory_log::peek(&mut watched, now, &call_of(&[(limit, day)], cost, false)).unwrap();
        assert_eq!(answer.retry_after, Some(START + (cost - 1) * 7 + day - now));
        let read: usize = watched.walks.iter().map(|walk| walk.1).sum();
        assert!(read <= 60, "cost {cost}: {read} entries were read");
    }
}

/// The next few hits are looked at one by one, which is cheaper than to search for them by time.
#[test]
fn a_short_wait_is_found_in_one_walk() {
    let mut log = old_log(0, MINUTE, 0);
    for nth in 0..1_000 {
        log.hit(START + nth, &call_of(&[(1_000, MINUTE)], 1, false)).unwrap();
    }
    for cost in 1..=15 {
        let mut log = Watched::new(log.clone());
        let mut usage_log = |call: &Call| {
            let mut usage = Usage::new(call, START + 1_000, Id::default());
            usage.read(&mut log).unwrap();
            log.walks.clear();
            usage.peek(&mut log).unwrap()
        };
        let answer = usage_log(&call_of(&[(1_000, MINUTE)], cost, false));
        assert_eq!(answer.retry_after, Some(MINUTE - 1_000 + cost - 1));
        assert_eq!(log.walks.len(), usize::from(cost > 1), "cost {cost}");
    }
}

/// Of a busy key, the log is read only for the hits that leave the window next: few at first, then 64 at once.
#[test]
fn a_cached_log_is_hardly_read() {
    let mut table = Table::new();
    table.resize(64);
    let call = call_of(&[(MAX_UNITS, 3_000)], 1, false);
    let mut log = MemoryLog { keep_expired: 1_000_000, ..MemoryLog::default() };
    let mut walks = Vec::new();
    for nth in 0..4_400 {
        let ((), watched) = open(&mut table, b"key", Watched::new(std::mem::take(&mut log)), |log| {
            memory_log::hit(log, START + nth, &call).unwrap();
        });
        if nth > 3 {
            assert_eq!(watched.backs, [1]);
            walks.extend(watched.walks.iter().map(|&(from, passed)| (from as i64 - START as i64, passed)));
        }
        log = watched.log;
    }
    println!("{walks:?}");
    // The first 982 hits were noted as they came, and then there was no room for more.
    let expected = [(982, 8), (990, 32), (1022, 64), (1086, 64), (1150, 64), (1214, 64), (1278, 64), (1342, 64)];
    assert_eq!(walks, expected);
}

/// How a call without a cursor reads this log: backwards, and by walks.
fn readings(log: &MemoryLog, now: u64, call: &Call) -> (Vec<usize>, Vec<(u64, usize)>) {
    let plain = log.clone().peek(now, call);
    let (answer, log) =
        open(&mut Table::new(), b"key", Watched::new(log.clone()), |log| memory_log::peek(log, now, call));
    assert_eq!(answer, plain);
    (log.backs, log.walks)
}

/// Live hits, one a second up to `START`, behind 100 that have expired.
fn mostly_expired(live: u64, costs: impl Fn(u64) -> u64) -> MemoryLog {
    let mut tally = 7;
    let entries: Vec<Entry> = (0..100 + live)
        .map(|nth| {
            let left = 99 + live - nth;
            let age = left * 1_000 + if left < live { 0 } else { 60_000 };
            tally += costs(nth);
            entry(START - age, tally, costs(nth))
        })
        .collect();
    log_of(&entries)
}

/// Backwards until the first that has expired.
#[test]
fn few_live_hits_are_read_at_once() {
    let call = call_of(&[(1_000, MINUTE)], 1, false);
    for live in 1..=15 {
        let log = mostly_expired(live, |_| 1);
        assert_eq!(readings(&log, START, &call), (vec![live as usize + 1], vec![]), "{live}");
    }
    // One that has expired as a whole needs no more than its newest entry.
    assert_eq!(readings(&mostly_expired(0, |_| 1), START, &call), (vec![1], vec![]));
}
