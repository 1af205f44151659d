//! Properties of random histories, against the oracle.

use limiter::cursors::Table;
use limiter::log::{self, Entry, Id};
use limiter::number::MAX_UNITS;
use limiter::retention::Retention;
use limiter::usage::Usage;
use proptest::prelude::*;

use crate::memory_log::{self, MemoryLog, START, Subject, call_of, old_log, open};
use oracle::{self, Hit, Question, Tier};

/// A configuration for this many histories, or for a part of them: `PROPTEST_CASES` is the part in percent.
fn cases(number: u32) -> ProptestConfig {
    let percent = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    ProptestConfig { cases: (number * percent / 100).max(1), ..ProptestConfig::default() }
}

/// Milliseconds between calls: mostly none or few, sometimes as long as a window.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0_u64), 4 => 1..5_u64, 2 => 5..60_u64, 1 => 60..400_u64]
}

fn limit() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0_u64), 8 => 1..20_u64, 4 => 20..500_u64, 1 => Just(MAX_UNITS)]
}

fn cost() -> impl Strategy<Value = u64> {
    prop_oneof![8 => Just(1_u64), 4 => 1..12_u64, 1 => 12..600_u64]
}

/// Tiers, one of them with the key's longest window, so that the log never drops what a later call counts.
fn tiers(longest: u64) -> impl Strategy<Value = Vec<Tier>> {
    let others = prop::collection::vec((limit(), 1..=longest), 0..4);
    (limit(), others, any::<prop::sample::Index>()).prop_map(move |(limit, mut tiers, place)| {
        tiers.insert(place.index(tiers.len() + 1), (limit, longest));
        tiers
    })
}

/// The policies of one key.
fn policies() -> impl Strategy<Value = (u64, Vec<Vec<Tier>>)> {
    (20..300_u64).prop_flat_map(|longest| (Just(longest), prop::collection::vec(tiers(longest), 1..4)))
}

#[derive(Clone, Debug)]
struct Step {
    gap: u64,
    policy: prop::sample::Index,
    cost: u64,
    peek: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (gap(), any::<prop::sample::Index>(), cost(), prop::bool::weighted(0.1));
    prop::collection::vec(step.prop_map(|(gap, policy, cost, peek)| Step { gap, policy, cost, peek }), 1..250)
}

/// Sizes of the table: off and on.
fn cursors() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0_usize), Just(64)]
}

fn tally() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0_u64), 1 => any::<u64>(), 2 => (u64::MAX - 2000)..=u64::MAX]
}

/// Whether the answer is right if a strict log was cut. Then only the time when the oldest entry leaves may differ, and only
/// be later, because entries that decide nothing were dropped.
fn agree(answer: [i64; 6], expected: [i64; 6], cut: bool) -> bool {
    answer[..5] == expected[..5] && (answer[5] == expected[5] || cut && answer[5] > expected[5])
}

proptest! {
    #![proptest_config(cases(400))]

    /// All six values are what brute force says, and a wait is exact: refused until a millisecond before its end, admitted at
    /// its end.
    #[test]
    fn answers_are_the_oracles(
        (longest, policies) in policies(),
        (tally, keep_expired, cursors) in (tally(), 0..5_usize, cursors()),
        steps in steps(),
    ) {
        let mut subject = Subject::new(old_log(tally, longest, keep_expired), cursors);
        let mut hits: Vec<Hit> = Vec::new();
        let mut now = START;
        for Step { gap, policy, cost, peek } in steps {
            now += gap;
            let tiers = policy.get(&policies);
            let call = call_of(tiers, cost, false);
            let mut after = hits.clone();
            let expected = oracle::ask(&mut after, now, Question { tiers, cost, ..Question::default() });
            // If the tally wraps within a millisecond, the entry gets the next one, which the oracle does not know.
            let mut trial = subject.log.clone();
            trial.hit(now, &call).unwrap();
            if trial.entries.last().is_some_and(|entry| entry.hit.id.time > now) {
                return Ok(());
            }
            let before = subject.log.clone();
            let answer = if peek { subject.peek(now, &call) } else { subject.hit(now, &call) }.unwrap();
            prop_assert_eq!(answer.integers(), expected);
            if peek {
                prop_assert!(subject.log.entries == before.entries || subject.log.entries.is_empty());
            } else {
                hits = after;
            }
            if let (false, Some(wait)) = (answer.allowed, answer.retry_after) {
                prop_assert!(wait > 0);
                prop_assert!(!subject.log.clone().peek(now + wait - 1, &call).unwrap().allowed);
                prop_assert!(subject.log.clone().peek(now + wait, &call).unwrap().allowed);
            }
        }
    }

    /// The same for refused hits that count.
    #[test]
    fn strict_answers_are_the_oracles(
        (longest, policies) in policies(),
        (keep_expired, cursors) in (0..5_usize, cursors()),
        steps in steps(),
        strictness in prop::collection::vec(any::<bool>(), 250),
    ) {
        let tiers = &policies[0];
        let largest = tiers.iter().map(|tier| tier.0).max().unwrap();
        let mut subject = Subject::new(old_log(0, longest, keep_expired), cursors);
        let mut hits: Vec<Hit> = Vec::new();
        let mut now = START;
        for (Step { gap, cost, peek, .. }, strict) in steps.into_iter().zip(strictness) {
            now += gap;
            let strict = strict && !peek;
            let call = call_of(tiers, cost, strict);
            let mut after = hits.clone();
            let expected = oracle::ask(&mut after, now, Question { tiers, cost, strict, ..Question::default() });
            let answer = if peek { subject.peek(now, &call) } else { subject.hit(now, &call) }.unwrap();
            let live = after.iter().filter(|(time, _)| time + longest > now).count() as u64;
            prop_assert!(agree(answer.integers(), expected, live > largest), "{:?} {:?}", answer, expected);
            if !peek {
                hits = after;
            }
            prop_assert!((subject.log.entries.len() as u64) <= largest.saturating_add(2 * keep_expired as u64 + 1 + hits.len() as u64));
            if let (false, Some(wait)) = (answer.allowed, answer.retry_after) {
                let call = call_of(tiers, cost, false);
                prop_assert_eq!(subject.peek(now, &call), Ok(answer), "it describes the log after the call");
                prop_assert!(!subject.log.clone().peek(now + wait - 1, &call).unwrap().allowed);
                prop_assert!(subject.log.clone().peek(now + wait, &call).unwrap().allowed);
            }
        }
    }

    /// A clock that jumps: the newest hit's time counts until the clock has caught up, and a log further ahead than it is kept
    /// starts over, so nobody waits longer than two windows.
    #[test]
    fn clocks_may_jump(
        (longest, policies) in policies(),
        (steps, cursors) in (steps(), cursors()),
        jumps in prop::collection::vec(prop_oneof![8 => Just(0_i64), 2 => -30..30_i64, 1 => -900..900_i64], 250),
    ) {
        let mut subject = Subject::new(MemoryLog::default(), cursors);
        let mut hits: Vec<Hit> = Vec::new();
        let mut now = START;
        for (Step { gap, policy, cost, peek }, jump) in steps.into_iter().zip(jumps) {
            now = (now + gap).saturating_add_signed(jump);
            if subject.log.expires_at.is_some_and(|at| at <= now) {
                hits.clear();
            }
            let newest = hits.iter().map(|hit| hit.0).max().unwrap_or(0);
            let known = if newest > now + longest { Vec::new() } else { hits.clone() };
            let tiers = policy.get(&policies);
            let call = call_of(tiers, cost, false);
            let mut after = known.clone();
            let expected = oracle::ask(&mut after, now, Question { tiers, cost, ..Question::default() });
            let answer = if peek { subject.peek(now, &call) } else { subject.hit(now, &call) }.unwrap();
            prop_assert_eq!(answer.integers(), expected);
            prop_assert!(answer.retry_after.unwrap_or(0) <= 2 * longest);
            if !peek && after.len() > known.len() {
                hits = after;
            }
            if let (Some(newest), Some(at)) = (subject.log.entries.last(), subject.log.expires_at) {
                prop_assert!(at >= newest.hit.id.time + longest, "the key outlives its newest hit");
            }
        }
    }

    /// Anything that could be restored into a stream in the form of a log: no panic, and an answer in range.
    #[test]
    fn a_hostile_log_gets_an_answer_in_range(
        entries in prop::collection::vec((0..3_000_u64, any::<u64>(), 1..=MAX_UNITS, 1..5_000_u64, any::<bool>()), 0..60),
        (expires, clock) in (prop::option::of(0..10_000_u64), 0..4_000_u64),
        tiers in tiers(3_000),
        cost in prop_oneof![cost(), 1..=MAX_UNITS],
        strict in any::<bool>(),
    ) {
        let mut entries: Vec<Entry> = entries
            .into_iter()
            .map(|(time, tally, cost, longest, falling)| {
                let fallback = (falling && longest > 1).then_some(longest / 2);
                Entry { hit: log::Hit { id: Id { time, tally }, cost }, retention: Retention { longest, fallback } }
            })
            .collect();
        entries.sort_by_key(|entry| entry.hit.id);
        entries.dedup_by_key(|entry| entry.hit.id);
        let mut log = MemoryLog { entries, last_id: None, expires_at: expires, keep_expired: 0 };
        let call = call_of(&tiers, cost, strict);
        let mut log = &mut log;
        let mut usage = Usage::new(&call, clock, Id::default());
        usage.read(&mut log).unwrap();
        let answer = usage.decide(&mut log, usage.has_room()).unwrap().answer;
        prop_assert!(tiers.iter().any(|tier| tier.0 == answer.limit));
        prop_assert!(answer.remaining <= answer.limit);
        // The log may be ahead of the clock by as long as it is kept, and the ID may need one millisecond more.
        let longest = 3_000 + 5_000 + 1;
        prop_assert!(answer.next_after <= answer.reset_after && answer.reset_after <= longest);
        prop_assert!(answer.retry_after.unwrap_or(0) <= longest);
        prop_assert_eq!(answer.allowed, answer.retry_after == Some(0));
    }

    /// Two to four policies that come, go and are refused on one key: no entry is dropped that counts for a policy which was
    /// asked at least once in each of its own windows.
    #[test]
    fn policies_that_share_a_key_forget_nothing_they_need(
        windows in prop::sample::subsequence(vec![5_u64, 10, 20, 30, 60, 100, 240], 2..=4),
        limits in prop::collection::vec(prop::sample::select(vec![1_u64, 2, 3, 5, 10, 30]), 4),
        cursors in cursors(),
        steps in prop::collection::vec((0..4_usize, 0..40_u64, prop::bool::weighted(0.02)), 1..800),
    ) {
        let policies: Vec<Tier> = limits.into_iter().zip(windows).collect();
        let mut subject = Subject::new(MemoryLog::default(), cursors);
        let (mut hits, mut calls): (Vec<u64>, Vec<oracle::Call>) = (Vec::new(), Vec::new());
        let (mut now, mut in_use) = (START, policies.clone());
        for (pick, gap, change) in steps {
            if change {
                in_use = policies.iter().copied().cycle().skip(pick).step_by(1 + pick % 2).take(1 + gap as usize % 3).collect();
            }
            let (limit, window) = in_use[pick % in_use.len()];
            now += gap * window / 60;
            if subject.log.expires_at.is_some_and(|at| at <= now) {
                calls.clear();
            }
            let call = call_of(&[(limit, window)], 1, false);
            let live = |since| hits.iter().filter(|&&time| time >= since && time + window > now).count() as u64;
            let (needed, all) = (live(oracle::needed_since(&calls, now, window)), live(0));
            let answer = subject.hit(now, &call).unwrap();
            prop_assert!(!(answer.allowed && needed >= limit), "a needed hit was forgotten");
            prop_assert!(answer.allowed || all >= limit, "refused without need");
            prop_assert!(answer.remaining + needed <= limit.max(needed));
            let until = now + answer.retry_after.unwrap_or(0);
            prop_assert!(subject.log.expires_at.is_none_or(|at| at >= until), "the key does not live to see the end of the wait");
            calls.push((now, window, answer.allowed));
            if answer.allowed {
                hits.push(now);
            }
        }
    }
}

/// Once nobody uses the long policy, the log is kept only for the short one.
#[test]
fn retention_falls_again() {
    let (long, short) = ((1_000, 60_000), (100, 1_000));
    let mut log = MemoryLog::default();
    log.hit(START, &call_of(&[long], 1, false)).unwrap();
    let mut fell = None;
    for tenth in 1..3_000 {
        let now = START + tenth * 100;
        log.hit(now, &call_of(&[short], 1, false)).unwrap();
        let retention = log.entries.last().unwrap().retention;
        if fell.is_none() && retention == (Retention { longest: 1_000, fallback: None }) {
            fell = Some(now - START);
        }
    }
    // It waits for one window after the last renewal of the expiry, and is then due within an eighth.
    let fell = fell.expect("the retention falls");
    assert!((60_000..=60_000 * 10 / 4).contains(&fell), "{fell}");
    assert!(log.entries.len() <= 11, "{} entries are kept", log.entries.len());
    assert!(log.expires_at.unwrap() <= START + 299_900 + 1_125);
}

/// The heaviest possible hits, thousands of them in one window: the tally does not lap itself. A short policy admits as much
/// as it can (or stores its refusals, all in one millisecond), beside a long one that must refuse from then on.
#[test]
fn heavy_hits_never_lap_the_tally() {
    for strict in [true, false] {
        let mut log = old_log(u64::MAX - 5, 10_000, 0);
        let short = call_of(&[(MAX_UNITS, 1)], MAX_UNITS, strict);
        let long = call_of(&[(MAX_UNITS, 10_000)], 1, false);
        assert!(log.hit(START, &long).unwrap().allowed);
        for step in 1..6_000 {
            let now = START + if strict { 1 } else { step };
            assert_eq!(log.hit(now, &short).unwrap().allowed, !strict || step == 1);
            let peek = log.peek(now, &long).unwrap();
            assert!(!peek.allowed && peek.remaining == 0, "step {step}: {peek:?}");
        }
        assert!(log.entries.len() <= 513, "{} entries", log.entries.len());
    }
}

#[derive(Clone, Debug)]
enum Act {
    Call { tiers: Vec<Tier>, cost: u64, strict: bool, peek: bool },
    Delete(prop::sample::Index),
    Trim(prop::sample::Index),
    Append { ahead: u64, units: u64, cost: u64 },
    Replace(usize),
    Expire(Option<u64>),
    Push,
    Everything,
}

fn act() -> impl Strategy<Value = Act> {
    let tier = || (limit(), prop::sample::select(vec![3_u64, 20, 60, 250]));
    let call = (prop::collection::vec(tier(), 1..4), cost(), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop_oneof![
        30 => call.prop_map(|(tiers, cost, strict, peek)| Act::Call { tiers, cost, strict, peek }),
        1 => any::<prop::sample::Index>().prop_map(Act::Delete),
        1 => any::<prop::sample::Index>().prop_map(Act::Trim),
        1 => (0..9_u64, 0..9_u64, 1..9_u64).prop_map(|(ahead, units, cost)| Act::Append { ahead, units, cost }),
        1 => (0..7_usize).prop_map(Act::Replace),
        1 => prop::option::of(0..200_u64).prop_map(Act::Expire),
        1 => Just(Act::Push),
        1 => Just(Act::Everything),
    ]
}

/// What happens: to which key, after how long, and how far the clock is set back before.
fn acts() -> impl Strategy<Value = Vec<(usize, u64, u64, Act)>> {
    prop::collection::vec((0..7_usize, gap(), prop_oneof![20 => Just(0_u64), 1 => 0..600_u64], act()), 1..600)
}

/// Seven logs: empty, or with one hit and any tally.
fn logs() -> impl Strategy<Value = Vec<MemoryLog>> {
    (prop::option::of(tally()), 0..5_usize).prop_map(|(tally, keep_expired)| {
        let empty = MemoryLog { keep_expired, ..MemoryLog::default() };
        vec![tally.map_or(empty, |tally| old_log(tally, 60, keep_expired)); 7]
    })
}

/// Logs with a table of cursors and the same without, read by seeks alone: whatever happens to them, replies and data are the
/// same. The table is told nothing of what others do.
///
/// Two exceptions:
///
/// * A log that others put in place of another one, with as many entries and the same newest ID, is taken for the other one.
///   Then the table is emptied.
/// * An entry that weighs one unit by its tally is taken at that, whatever others wrote into it. So here they write nothing
///   else there.
fn a_table_changes_nothing(
    cursors: usize,
    mut plain: Vec<MemoryLog>,
    acts: Vec<(usize, u64, u64, Act)>,
) -> Result<(), TestCaseError> {
    let mut table = Table::new();
    table.resize(cursors);
    let mut cached = plain.clone();
    // Each log as it was after the last call on its key, and whether it was put in place of another one since.
    let (mut seen, mut is_replaced) = (plain.clone(), [false; 7]);
    let alike = |log: &MemoryLog| (log.entries.len(), log.entries.last().map(|entry| entry.hit.id));
    let mut now = START;
    for (at, gap, back, act) in acts {
        now = now + gap - back;
        if plain[at].expires_at.is_some_and(|at| at <= now) {
            plain[at].clear();
            cached[at].clear();
            is_replaced[at] = true;
        }
        let one = &mut plain[at];
        match act {
            Act::Call { tiers, cost, strict, peek } => {
                if alike(one) == alike(&seen[at]) && one.entries != seen[at].entries {
                    prop_assert!(is_replaced[at]);
                    table.resize(cursors);
                }
                let call = call_of(&tiers, cost, strict && !peek);
                let expected = if peek { one.peek(now, &call) } else { one.hit(now, &call) };
                let (answer, _) = open(&mut table, &[b"key:", &[at as u8][..]].concat(), &mut cached[at], |log| {
                    if peek { memory_log::peek(log, now, &call) } else { memory_log::hit(log, now, &call) }
                });
                prop_assert_eq!(answer, expected);
                prop_assert_eq!(&cached[at], &plain[at]);
                seen[at].clone_from(&plain[at]);
                is_replaced[at] = false;
                continue;
            }
            Act::Delete(index) if !one.entries.is_empty() => {
                one.entries.remove(index.index(one.entries.len()));
            }
            Act::Trim(index) if !one.entries.is_empty() => {
                one.entries.drain(..index.index(one.entries.len()));
            }
            Act::Append { ahead, units, cost } => {
                let newest = one.entries.last().copied();
                // The server takes no ID that is not above the last one, even if that entry was deleted.
                let last = one.last_id.unwrap_or_default();
                let id = Id {
                    time: last.time.max(now) + ahead + 1,
                    tally: newest.map_or(0, |newest| newest.hit.id.tally).wrapping_add(units),
                };
                let cost = if units < 2 { 1 } else { cost };
                let retention = newest.map_or(Retention { longest: 60, fallback: None }, |newest| newest.retention);
                one.entries.push(Entry { hit: log::Hit { id, cost }, retention });
                one.last_id = Some(id);
            }
            Act::Replace(other) => {
                plain[at] = plain[other].clone();
                is_replaced[at] = true;
            }
            Act::Expire(left) => one.expires_at = left.map(|left| now + left),
            Act::Push => one.last_id = one.last_id.map(|id| Id { time: id.time.max(now) + 40, ..id }),
            Act::Everything => {
                plain.rotate_left(1);
                cached.clone_from(&plain);
                is_replaced = [true; 7];
                continue;
            }
            Act::Delete(_) | Act::Trim(_) => {}
        }
        cached[at] = plain[at].clone();
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(600))]

    /// The table is so small that keys push each other out, or large enough for all.
    #[test]
    fn a_table_of_cursors_changes_nothing(
        cursors in prop_oneof![Just(4_usize), Just(8), Just(64)],
        (logs, acts) in (logs(), acts()),
    ) {
        a_table_changes_nothing(cursors, logs, acts)?;
    }

    /// A cursor for one call only, which reads backwards where that is cheaper.
    #[test]
    fn an_unkept_cursor_changes_nothing((logs, acts) in (logs(), acts())) {
        a_table_changes_nothing(0, logs, acts)?;
    }
}
