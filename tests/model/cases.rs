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

    fn first_tally(&mut self, time: u64) -> u64 {
        (&mut self.log).first_tally(time)
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

/// Looking for expired entries has its price, so it is done once in 32 hits, and where the expiry of a log of 32 entries or
/// more is set.
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
        // A log of few entries is not worth looking at when the expiry is set.
        log.expires_at = Some(START + 200 + MINUTE - 1);
        for (length, looks) in [(31, false), (32, true), (199, true)] {
            let mut log = Watched::new(log.clone());
            log.length = length;
            let append = append_of(&mut log, START + 200, &call_of(&[(9_000, MINUTE)], cost, false));
            assert!(append.expire_at.is_some());
            assert_eq!(append.expired_before.is_some(), looks, "{length}");
        }
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
            usage.peek(&mut log).unwrap().0
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
    // The first 1,065 hits were noted as they came, and then there was no room for more.
    let mut expected = vec![(1_065, 8), (1_073, 32)];
    expected.extend((1_105..1_400).step_by(64).map(|from| (from, 64)));
    assert_eq!(walks, expected);
}

/// How a call without a cursor reads this log: backwards, and by walks. It answers as the log by itself does.
fn readings(log: &MemoryLog, now: u64, call: &Call) -> (Vec<usize>, Vec<(u64, usize)>) {
    let expected = log.clone().peek(now, call);
    let watched = Watched::new(log.clone());
    let (answer, watched) = open(&mut Table::new(), b"key", watched, |log| memory_log::peek(log, now, call));
    assert_eq!(answer, expected);
    (watched.backs, watched.walks)
}

/// Entries of these ages and costs, oldest first.
fn aged(entries: impl IntoIterator<Item = (u64, u64)>) -> MemoryLog {
    let mut tally = 7;
    let entries = entries.into_iter().map(|(age, cost)| {
        tally += cost;
        entry(START - age, tally, cost)
    });
    log_of(&entries.collect::<Vec<_>>())
}

/// Ages of 100 expired entries, and of live ones spread over a minute.
fn mostly_expired(live: u64) -> impl Iterator<Item = u64> {
    (0..100).rev().map(|nth| MINUTE + nth).chain((0..live).rev().map(move |nth| nth * MINUTE / live))
}

/// The start of the window of a minute, where a walk begins.
const FROM: u64 = START + 1 - MINUTE;

/// However many have expired, it is read backwards up to the first of them, and no walk is needed.
#[test]
fn few_live_hits_are_read_at_once() {
    let call = call_of(&[(1_000, MINUTE)], 1, false);
    for live in 0..=15 {
        let log = aged(mostly_expired(live).map(|age| (age, 1)));
        assert_eq!(readings(&log, START, &call), (vec![live as usize + 1], vec![]), "{live}");
    }
}

/// Nothing tells what the first entry weighs, so its own cost is read. (Its tally is another number.)
#[test]
fn a_short_log_is_read_to_its_beginning() {
    let call = call_of(&[(1_000, MINUTE)], 1, false);
    for length in 1..=15 {
        for (first, others) in [(1, 1), (7, 1), (7, 7), (1, 7)] {
            let costs = std::iter::once(first).chain(std::iter::repeat(others));
            let log = aged((0..length).rev().map(|nth| nth * MINUTE / length).zip(costs));
            assert_eq!(readings(&log, START, &call), (vec![length as usize], vec![]), "{length} {first} {others}");
        }
    }
}

/// A cost is read if the newest hit's is not 1, and otherwise known only if it is 1.
#[test]
fn a_weighted_log_may_need_a_walk() {
    let call = call_of(&[(1_000, MINUTE)], 1, false);
    let seek = vec![(FROM, 1)];
    for (oldest, others, newest, walks) in [
        (7, 7, 7, vec![]),
        (1, 7, 7, vec![]),
        (1, 1, 7, vec![]),
        (1, 7, 1, vec![]),
        (7, 1, 1, seek.clone()),
        (7, 7, 1, seek),
    ] {
        let costs = [9; 100].into_iter().chain([oldest]).chain([others; 8]).chain([newest]);
        let log = aged(mostly_expired(10).zip(costs));
        assert_eq!(readings(&log, START, &call), (vec![11], walks), "{oldest} {others} {newest}");
    }
    // What was deleted before an entry leaves open what it weighs.
    let mut log = aged(mostly_expired(10).map(|age| (age, 1)));
    log.entries.remove(99);
    assert_eq!(readings(&log, START, &call), (vec![11], vec![(FROM, 1)]));
}

/// Where a cost is read, it is what the entry says, whatever the tallies say. So is that of the newest hit.
#[test]
fn a_cost_that_is_read_counts() {
    let call = call_of(&[(1_000, MINUTE)], 1, false);
    for (live, says, backs) in [(10, 0, 11), (10, 9, 11), (1, 0, 2)] {
        let mut log = aged(mostly_expired(live).map(|age| (age, 1)));
        let at = log.entries.len() - 1 - says;
        log.entries[at].hit.cost = 5;
        log.entries.last_mut().unwrap().hit.cost = 5;
        assert_eq!(readings(&log, START, &call), (vec![backs], vec![]), "{live} {says}");
    }
}

/// Sixteen entries are read backwards, and no more.
#[test]
fn reading_backwards_ends_after_sixteen() {
    let call = call_of(&[(1_000, MINUTE)], 1, false);
    for (live, walks) in [(14, vec![]), (15, vec![]), (16, vec![(FROM, 1)]), (300, vec![(FROM, 1)])] {
        // The newest four leave it open whether the start is near.
        let ages = (0..100).rev().map(|nth| MINUTE + nth).chain((4..live).rev().map(|nth| 40_000 + nth));
        let log = aged(ages.chain([30_000, 20_000, 10_000, 0]).map(|age| (age, 1)));
        assert_eq!(readings(&log, START, &call), (vec![16.min(live as usize + 1)], walks), "{live}");
    }
}

/// If the rest of the window is more than four times as long as what the first four entries span.
#[test]
fn reading_backwards_gives_up_after_four_if_the_start_is_far() {
    // It starts a minute before `START`.
    let call = call_of(&[(1_000, MINUTE + 1)], 1, false);
    let seek = vec![(START - MINUTE, 1)];
    for (span, is_far) in [(3, true), (11_999, true), (12_000, false)] {
        let ages = [2 * MINUTE, 55_000, span, 2, 1, 0];
        let (backs, walks) = if is_far { (4, seek.clone()) } else { (6, vec![]) };
        assert_eq!(readings(&aged(ages.map(|age| (age, 1))), START, &call), (vec![backs], walks), "{span}");
    }
    // All of a short log is known by then.
    assert_eq!(readings(&aged([3, 2, 1, 0].map(|age| (age, 1))), START, &call), (vec![4], vec![]));
    assert_eq!(readings(&aged([4, 3, 2, 1, 0].map(|age| (age, 1))), START, &call), (vec![4], seek));
}

/// The clock may be behind the newest entry, which then ends the windows.
#[test]
fn a_log_ahead_of_the_clock_is_read_at_once() {
    let call = call_of(&[(1_000, MINUTE)], 1, false);
    let log = aged(mostly_expired(10).map(|age| (age, 1)));
    assert_eq!(readings(&log, START - MINUTE / 2, &call), (vec![11], vec![]));
}

/// What was read for the longest window serves the shorter ones, if they come after it.
#[test]
fn several_tiers_are_read_at_once() {
    let log = aged(mostly_expired(15).map(|age| (age, 1)));
    for (windows, walks) in [
        ([MINUTE, MINUTE / 2, MINUTE / 6], vec![]),
        ([MINUTE, MINUTE, MINUTE], vec![]),
        ([MINUTE / 2, MINUTE / 6, MINUTE], vec![(FROM, 1)]),
    ] {
        let call = call_of(&windows.map(|window| (1_000, window)), 1, false);
        assert_eq!(readings(&log, START, &call), (vec![16], walks), "{windows:?}");
    }
}

/// A kept cursor has a window for each tier. Then a call looks at nothing but the newest entry.
#[test]
fn two_tiers_are_hardly_read() {
    for windows in [[MINUTE, MINUTE / 3], [MINUTE / 3, MINUTE]] {
        let mut table = Table::new();
        table.resize(64);
        let call = call_of(&windows.map(|window| (1_000, window)), 1, false);
        let mut log = MemoryLog { keep_expired: 1_000_000, ..MemoryLog::default() };
        let mut walks = 0;
        for nth in 0..1_000 {
            let now = START + nth * 5_000;
            let expected = log.peek(now, &call);
            let ((), watched) = open(&mut table, b"key", Watched::new(log), |log| {
                assert_eq!(memory_log::peek(log, now, &call), expected);
                memory_log::hit(log, now, &call).unwrap();
            });
            if nth > 3 {
                assert_eq!(watched.backs, [1, 1], "{nth}");
                walks += watched.walks.len();
            }
            log = watched.log;
        }
        assert!(walks <= 3, "{windows:?}: {walks}");
    }
}

/// Nothing is before the first entry, so a log that was read to its beginning serves windows of any length.
#[test]
fn a_log_read_to_its_beginning_serves_longer_windows() {
    let mut table = Table::new();
    table.resize(64);
    let mut log = aged([3_000, 2_000, 1_000, 0].map(|age| (age, 1)));
    for nth in 0..10 {
        // The longer one is asked for later, and the clock may be set back.
        let (window, now) = if nth < 4 { (5_000, START) } else { (MINUTE * nth, START - nth) };
        let call = call_of(&[(1_000, window)], 1, false);
        let expected = log.peek(now, &call);
        let (answer, watched) = open(&mut table, b"key", Watched::new(log), |log| memory_log::peek(log, now, &call));
        assert_eq!(answer, expected);
        assert_eq!((watched.backs, watched.walks), (vec![if nth < 2 { 4 } else { 1 }], vec![]), "{nth}");
        log = watched.log;
    }
}

/// A cursor that others made wrong is found out: by the length before the log is read, or by its newest entry.
#[test]
fn a_log_that_others_changed_is_read_again() {
    let call = call_of(&[(1_000, MINUTE)], 1, false);
    let begin = aged(mostly_expired(10).map(|age| (age, 1)));
    type Change = fn(&mut MemoryLog);
    let changes: [(Change, &[usize]); 4] = [
        (|_| {}, &[1]),
        (|log| log.entries.retain(|entry| entry.hit.id.time != START - MINUTE / 2), &[10]),
        (|log| log.entries.push(entry(START + 1, 1_000, 1)), &[12]),
        (
            |log| {
                log.entries.remove(0);
                log.entries.push(entry(START + 1, 1_000, 1));
            },
            &[1, 12],
        ),
    ];
    for (change, backs) in changes {
        let mut table = Table::new();
        table.resize(64);
        let mut watched = Watched::new(begin.clone());
        let mut peek = |log: MemoryLog| {
            let expected = log.clone().peek(START + 1, &call);
            let (answer, watched) =
                open(&mut table, b"key", Watched::new(log), |log| memory_log::peek(log, START + 1, &call));
            assert_eq!(answer, expected);
            watched
        };
        (0..3).for_each(|_| watched = peek(watched.log.clone()));
        assert_eq!(watched.backs, [1]);
        change(&mut watched.log);
        assert_eq!(peek(watched.log).backs, backs);
    }
}
