//! Histories of one log: compared with the oracle as long as nobody interferes, and always with the table of cursors against
//! without it.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use limiter::log::{Entry, Hit, Id};
use limiter::number::MAX_UNITS;
use limiter::retention::Retention;
use oracle::{self, Question};
use ratelimit_fuzz::memory_log::{START, Subject, call_of, old_log};

#[derive(Arbitrary, Debug)]
struct History {
    longest: u16,
    keep_expired: u8,
    tally: u64,
    acts: Vec<Act>,
}

#[derive(Arbitrary, Debug)]
enum Act {
    Call { limit: Units, others: [Option<(Units, u16)>; 3], cost: Units, strict: bool, peek: bool },
    Wait(u8),
    WaitLong(u16),
    Meddle(Meddling),
}

/// What others do to the log, or to the clock.
#[derive(Arbitrary, Debug)]
enum Meddling {
    StepBack(u16),
    Append { ahead: u16, tally: u64, cost: Units, longest: u16, fallback: Option<u16> },
    Delete(u8),
    Expire(Option<u16>),
    PushLastId(u16),
}

/// A small number, or one with a few leading digits.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Units(u8, u8);

impl Units {
    fn get(self) -> u64 {
        (u64::from(self.0) << (self.1.saturating_sub(200))).min(MAX_UNITS)
    }
}

fn meddle(subject: &mut Subject, now: &mut u64, meddling: Meddling) {
    let log = &mut subject.log;
    let newest = log.entries.last().map_or(Id { time: *now, tally: 0 }, |entry| entry.hit.id);
    match meddling {
        Meddling::StepBack(by) => *now = now.saturating_sub(by.into()),
        Meddling::Append { ahead, tally, cost, longest, fallback } => {
            // Only where a running total is one that could have been reached, an entry weighs more than one unit: of others
            // no answer is right.
            let cost = cost.get().max(1);
            let (tally, cost) = match tally % 2 {
                0 => (newest.tally.wrapping_add(cost).wrapping_add(tally % 8), cost),
                _ => (tally, 1),
            };
            let id = Id { time: newest.time.max(*now) + u64::from(ahead) + 1, tally };
            let longest = u64::from(longest) + 1;
            let fallback = fallback.map(|fallback| u64::from(fallback) + 1).filter(|fallback| *fallback < longest);
            log.entries.push(Entry { hit: Hit { id, cost }, retention: Retention { longest, fallback } });
            log.last_id = log.last_id.max(Some(id));
        }
        Meddling::Delete(at) if !log.entries.is_empty() => {
            _ = log.entries.remove(usize::from(at) % log.entries.len());
        }
        Meddling::Delete(_) => {}
        Meddling::Expire(left) => log.expires_at = left.map(|left| *now + u64::from(left)),
        Meddling::PushLastId(ahead) => {
            log.last_id = log.last_id.map(|id| Id { time: id.time.max(*now) + u64::from(ahead), ..id });
        }
    }
}

fuzz_target!(|history: History| {
    let longest = u64::from(history.longest) + 1;
    let keep_expired = usize::from(history.keep_expired % 8);
    let new = |cursors| Subject::new(old_log(history.tally, longest, keep_expired), cursors);
    let (mut plain, mut cached) = (new(0), new(8));
    let mut now = START;
    let mut hits = Some(Vec::new());
    for act in history.acts {
        match act {
            Act::Wait(milliseconds) => now += u64::from(milliseconds),
            Act::WaitLong(milliseconds) => now += u64::from(milliseconds),
            Act::Meddle(meddling) => {
                hits = None;
                meddle(&mut plain, &mut now, meddling);
                cached.log.clone_from(&plain.log);
            }
            Act::Call { limit, others, cost, strict, peek } => {
                let others = others.into_iter().flatten();
                let mut tiers: Vec<_> =
                    others.map(|(limit, window)| (limit.get(), u64::from(window) % longest + 1)).collect();
                tiers.insert(0, (limit.get(), longest));
                let cost = cost.get().max(1);
                let call = call_of(&tiers, cost, strict && !peek);
                let before = plain.log.clone();
                let (answer, again) = match peek {
                    true => (plain.peek(now, &call), cached.peek(now, &call)),
                    false => (plain.hit(now, &call), cached.hit(now, &call)),
                };
                assert_eq!(answer, again);
                assert_eq!(plain.log, cached.log);
                // The log is empty, and its last ID is in the far future.
                let Ok(answer) = answer else {
                    assert!(hits.is_none() && plain.log.entries.is_empty());
                    continue;
                };

                let two_windows = 2 * u64::from(u16::MAX) + 3;
                assert!(answer.remaining <= answer.limit && answer.limit <= MAX_UNITS);
                assert!(answer.next_after <= answer.reset_after && answer.reset_after <= two_windows);
                assert!(answer.retry_after.unwrap_or(0) <= two_windows);
                assert_eq!(answer.allowed, answer.retry_after == Some(0));

                // Unlike the oracle, a log of STRICT hits drops those that decide nothing. And if the tally wraps within a
                // millisecond, the hit gets the next one.
                let mut trial = before.clone();
                trial.hit(now, &call).unwrap();
                if strict || trial.entries.last().is_some_and(|entry| entry.hit.id.time > now) {
                    hits = None;
                }
                let Some(hits) = &mut hits else { continue };
                let mut after = hits.clone();
                let expected = oracle::ask(&mut after, now, Question { tiers: &tiers, cost, ..Question::default() });
                assert_eq!(answer.integers(), expected);
                if !peek {
                    *hits = after;
                }
                if let (false, Some(wait)) = (answer.allowed, answer.retry_after) {
                    assert!(!before.clone().peek(now + wait - 1, &call).unwrap().allowed);
                    assert!(before.clone().peek(now + wait, &call).unwrap().allowed);
                }
            }
        }
    }
});
