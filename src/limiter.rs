//! The decision: may one more hit happen now, and what does the caller learn?
//!
//! A sliding-window log: at no time do the hits inside `(t - window, t]` weigh more than `limit`, and a hit is refused
//! only if they would. Everything here is arithmetic over a [`Log`] and a clock, and writes nothing: a
//! [`Review`] reads what it needs, decides, and says what there is to be written.
//!
//! Times and durations are whole milliseconds. Every operation saturates or wraps on purpose: a log can hold anything
//! that somebody restored, and whatever it holds the answer stays in range and nobody waits longer than the window.

use crate::args::{Call, MAX_TIERS, MAX_UNITS, Tier};
use crate::error::{self, Error};
use crate::log::{Entry, Hit, Id, Log, Store, Written};
use crate::retention;

/// The reply to a hit. Durations count from the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    /// The limit of the tier that binds.
    pub limit: u64,
    /// Units left in that tier after this call.
    pub remaining: u64,
    /// Time until the same call would be allowed: 0 if it was, or if this key did not refuse it; `None` if it never can be.
    pub retry_after: Option<u64>,
    /// Time until that tier is entirely unused; 0 if it is.
    pub reset_after: u64,
    /// Time until the oldest live entry of that tier leaves; 0 if there is none.
    pub next_after: u64,
}

impl Answer {
    /// The six integers of the reply, `retry_after` -1 for never.
    pub fn integers(&self) -> [i64; 6] {
        let integer = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        [
            i64::from(self.allowed),
            integer(self.limit),
            integer(self.remaining),
            self.retry_after.map_or(-1, integer),
            integer(self.reset_after),
            integer(self.next_after),
        ]
    }

    /// Of the tiers that refuse, the one with the longest wait binds (never is longest); if none does, the one with the
    /// fewest units left; among equals, the earlier.
    fn binds_before(&self, earlier: &Self) -> bool {
        let wait = |answer: &Self| answer.retry_after.unwrap_or(u64::MAX);
        if self.allowed { self.remaining < earlier.remaining } else { wait(self) > wait(earlier) }
    }
}

/// An entry to append, and what to drop from the log after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append {
    /// The log is worth nothing any more: remove the key first.
    pub restart: bool,
    pub entry: Entry,
    /// Entries before this ID have expired; whole nodes of them go. `None` if it is not yet time to look.
    pub expired_before: Option<Id>,
    /// Entries before this ID weigh too much to be counted (see [`room_for`]); each of them goes.
    pub surplus_before: Option<Id>,
    /// A refused hit was stored: nodes beyond this many entries go, because only the newest `limit` units can influence
    /// an answer and an entry weighs at least 1.
    pub max_entries: Option<u64>,
}

/// What a call changes. All of it is absent for an ordinary refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub append: Option<Append>,
    /// The key's expiry, in milliseconds since the epoch.
    pub expire_at: Option<u64>,
}

impl Write {
    /// Whether this creates a key. So it does for a stream without entries, as far as it is known here.
    pub fn creates(&self, store: &impl Store) -> bool {
        self.append.is_some_and(|append| append.restart || store.length() == 0)
    }
}

/// An answer, and the hit that is stored, if one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub answer: Answer,
    stored: Option<Stored>,
    /// The oldest live entry's time in the tier that binds.
    first_time: Option<u64>,
}

impl Decision {
    /// Lets the answer describe the log as it is after writing: what was dropped with this very call no longer counts, so
    /// that another entry may be the oldest.
    #[inline]
    pub fn adjust(&mut self, written: Written) {
        if let (Some(oldest), Some(first)) = (written.oldest, self.first_time) {
            let later = oldest.time.saturating_sub(first);
            self.answer.next_after = self.answer.next_after.saturating_add(later);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    hit: Hit,
    restart: bool,
    surplus_before: Option<Id>,
    max_entries: Option<u64>,
}

/// The live entries of one tier.
#[derive(Clone, Copy, Default)]
struct Usage {
    first: Option<Hit>,
    units: u64,
}

/// What a log says to one call at the server's time `clock`, in milliseconds since the epoch. To be read, then decided.
pub struct Review<'c> {
    pub call: &'c Call,
    pub clock: u64,
    /// The server's clock, or the newest entry's time where that is ahead, or that of the stream's last ID.
    now: u64,
    newest: Option<Entry>,
    /// The stream's last ID, as far as it is known.
    last_id: Id,
    /// The log was stamped by a clock that is no longer in use, and counts for nothing.
    stale: bool,
    usages: [Usage; MAX_TIERS],
}

impl<'c> Review<'c> {
    #[inline]
    pub fn new(clock: u64, call: &'c Call) -> Self {
        Self::above(Id::default(), clock, call)
    }

    /// For a log that did not take an ID: its stream's last ID is at least `last_id`, which the newest entry did not tell.
    /// That was deleted, or XSETID was used.
    #[inline]
    pub fn above(last_id: Id, clock: u64, call: &'c Call) -> Self {
        let usages = [Usage::default(); MAX_TIERS];
        Self { call, clock, now: clock, newest: None, last_id, stale: false, usages }
    }

    /// Reads what the call needs to know. (In place, because a review is large and would be copied on its way.)
    pub fn read(&mut self, log: &mut impl Log) -> Result<(), Error> {
        // What is further ahead than the log is kept cannot be waited for.
        let clock = self.clock;
        let too_far = |id: Id, keep: u64| id.time > clock.saturating_add(keep);
        match log.newest()? {
            Some(newest) => {
                let last_id = newest.hit.id.max(self.last_id);
                self.stale = too_far(last_id, newest.retention.keep);
                if !self.stale {
                    (self.newest, self.last_id) = (Some(newest), last_id);
                }
            }
            // It may be a queue of somebody's that is drained for the moment, so that it must not be started again.
            None => {
                let last_id = log.last_id()?.max(self.last_id);
                if too_far(last_id, self.call.longest_window()) {
                    return Err(error::LAST_ID_AHEAD);
                }
                self.last_id = last_id;
            }
        }
        if self.stale {
            self.last_id = Id::default();
        }
        self.now = self.clock.max(self.last_id.time);
        let newest = self.newest.map(|newest| newest.hit);
        for (usage, tier) in self.usages.iter_mut().zip(self.call.tiers()) {
            *usage = usage_of(log, newest, self.now, tier.window)?;
        }
        Ok(())
    }

    fn tiers(&self) -> impl Iterator<Item = (&Tier, &Usage)> {
        self.call.tiers().iter().zip(&self.usages)
    }

    /// Whether every tier has room for the hit.
    pub fn fits(&self) -> bool {
        self.tiers().all(|(tier, usage)| fits(tier, usage.units, self.call.cost))
    }

    /// The answer to the call and what to write. Where a call has several keys, `admitted` is the verdict on all of them.
    pub fn decide(&self, log: &mut impl Log, admitted: bool) -> Result<Decision, Error> {
        let stored = self.store(log, admitted)?;
        let mut binding: Option<(Answer, Option<u64>)> = None;
        for (tier, usage) in self.tiers() {
            let answer = self.answer(log, admitted, stored.as_ref(), tier, usage)?;
            if binding.is_none_or(|(earlier, _)| answer.binds_before(&earlier)) {
                binding = Some((answer, usage.first.map(|first| first.id.time)));
            }
        }
        let (answer, first_time) = binding.ok_or(error::INTERNAL)?;
        Ok(Decision { answer, stored, first_time })
    }

    /// What a decision writes. `None` if nothing.
    #[inline]
    pub fn write(&self, decision: &Decision, store: &mut impl Store) -> Option<Write> {
        let window = self.call.longest_window();
        let retention = self.newest.map(|newest| newest.retention);
        let Some(stored) = decision.stored else {
            let wait = decision.answer.retry_after;
            let until = wait.map(|wait| self.clock.saturating_add(wait));
            let expire_at = retention::after_refused(retention, || store.expires(), self.now, window, until)?;
            return Some(Write { append: None, expire_at: Some(expire_at) });
        };
        let is_dead = self
            .newest
            .is_some_and(|newest| newest.hit.id.time < first_live(self.now, newest.retention.keep.max(window)));
        let restart = stored.restart || is_dead && store.length() > LONG;
        let expires = if restart { None } else { store.expires() };
        let (retention, expire_at) = retention::after_stored(retention, expires, self.now, window);
        let before = self.newest.map_or(0, |newest| newest.hit.id.tally);
        let step = TRIM_EVERY.saturating_mul(stored.hit.cost).max(1);
        let is_time = expire_at.is_some() || before.checked_div(step) != stored.hit.id.tally.checked_div(step);
        let append = Append {
            restart,
            entry: Entry { hit: stored.hit, retention },
            expired_before: is_time.then(|| Id { time: first_live(self.now, retention.keep), tally: 0 }),
            surplus_before: stored.surplus_before,
            max_entries: stored.max_entries,
        };
        Some(Write { append: Some(append), expire_at })
    }

    fn store(&self, log: &mut impl Log, admitted: bool) -> Result<Option<Stored>, Error> {
        let cost = self.call.cost;
        let possible = self.tiers().all(|(tier, _)| fits(tier, 0, cost));
        if admitted || (self.call.strict && possible) {
            let newest = self.newest.map(|newest| newest.hit);
            Ok(Some(Stored {
                hit: Hit { id: self.next_id(cost), cost },
                restart: self.stale,
                surplus_before: room_for(log, newest, cost)?,
                max_entries: (!admitted).then(|| self.call.largest_limit()),
            }))
        } else {
            Ok(None)
        }
    }

    /// The ID of a hit. IDs must increase: where the tally wraps within a millisecond, or the newest entry of this
    /// millisecond was deleted, the next one is used.
    fn next_id(&self, cost: u64) -> Id {
        let tally = self.newest.map_or(0, |newest| newest.hit.id.tally).wrapping_add(cost);
        let id = Id { time: self.now, tally };
        if id > self.last_id { id } else { Id { time: self.now.saturating_add(1), tally } }
    }

    /// The answer if this tier binds. It describes the log after the call, with the hit in it if it is stored.
    fn answer(
        &self,
        log: &mut impl Log,
        admitted: bool,
        stored: Option<&Stored>,
        tier: &Tier,
        usage: &Usage,
    ) -> Result<Answer, Error> {
        let cost = self.call.cost;
        let newest = usage.first.and(self.newest).map(|newest| newest.hit);
        let until_left = |time: u64| time.saturating_add(tier.window).saturating_sub(self.clock);
        let units = usage.units.saturating_add(stored.map_or(0, |stored| stored.hit.cost));
        let retry_after = if admitted || fits(tier, units, cost) {
            Some(0)
        } else if !fits(tier, 0, cost) {
            None
        } else {
            let needed = units.saturating_add(cost).saturating_sub(tier.limit);
            let stored_time = stored.map(|stored| stored.hit.id.time).filter(|_| needed > usage.units);
            Some(until_left(match (stored_time, usage.first, newest) {
                (Some(time), _, _) => time,
                (None, Some(first), Some(newest)) => departure(log, &first, &newest, needed)?,
                _ => self.now,
            }))
        };
        let last_time = stored.map(|stored| stored.hit).or(newest).map(|hit| hit.id.time);
        let first_time = usage.first.map(|hit| hit.id.time).or(last_time);
        Ok(Answer {
            allowed: admitted,
            limit: tier.limit,
            remaining: tier.limit.saturating_sub(units),
            retry_after,
            reset_after: last_time.map_or(0, until_left),
            next_after: first_time.map_or(0, until_left),
        })
    }
}

/// A log of more entries than this of which none is alive is removed, in the background, and not trimmed bit by bit.
const LONG: u64 = if cfg!(test) { 3 } else { 1_000 };

/// Looking for expired entries costs a tenth of a hit, mostly in vain: it is done once in so many hits like this one, when
/// the tally passes a multiple of what they weigh, and when the expiry is set. It goes by what is stored, so that it is
/// the same wherever it is decided.
const TRIM_EVERY: u64 = 32;

fn fits(tier: &Tier, used: u64, cost: u64) -> bool {
    used.saturating_add(cost) <= tier.limit
}

/// The earliest time inside `(now - window, now]`.
fn first_live(now: u64, window: u64) -> u64 {
    now.saturating_add(1).saturating_sub(window)
}

fn usage_of(log: &mut impl Log, newest: Option<Hit>, now: u64, window: u64) -> Result<Usage, Error> {
    let from = first_live(now, window);
    let Some(newest) = newest.filter(|newest| newest.id.time >= from) else {
        return Ok(Usage::default());
    };
    let first = log.first(from)?.unwrap_or(newest);
    // What the entries say of themselves bounds what their tallies, which anyone may have written, say of the rest.
    let least = first.cost.max(newest.cost);
    let units = newest.units_since(&first).clamp(least, i64::MAX.unsigned_abs());
    Ok(Usage { first: Some(first), units })
}

/// Entries that are looked at one by one before the search goes by time.
const WALK: u32 = 16;

/// The time of the entry with whose departure `needed` units have left, counted from `first`. At most 40 seeks.
fn departure(log: &mut impl Log, first: &Hit, newest: &Hit, needed: u64) -> Result<u64, Error> {
    if first.cost >= needed {
        return Ok(first.id.time);
    }
    let mut found = None;
    let mut walked_to = first.id.time;
    let mut left = WALK;
    log.walk(first.id.time, &mut |hit| {
        // What was deleted in front of this hit has left with the one before.
        if hit.units_since(first).saturating_sub(hit.cost) >= needed {
            found = Some(walked_to);
            return false;
        }
        walked_to = hit.id.time;
        left = left.saturating_sub(1);
        left > 0
    })?;
    if let Some(time) = found {
        return Ok(time);
    }
    // Of the entries up to `low` too little leaves, of those up to `high` enough.
    let mut low = walked_to.saturating_sub(1);
    let mut high = newest.id.time;
    while high.saturating_sub(low) > 1 {
        let middle = low.midpoint(high);
        let next = log.seek(middle.saturating_add(1))?;
        match next.filter(|next| next.units_since(first).saturating_sub(next.cost) < needed) {
            Some(next) => {
                let last_too_early = next.id.time.saturating_sub(1);
                low = last_too_early.clamp(middle, high.saturating_sub(1));
            }
            None => high = middle,
        }
    }
    Ok(high)
}

/// Lighter hits cannot bring a log that fits into memory anywhere near 2^63 units.
const HEAVY: u64 = 1 << 32;

/// Most units of a whole log, so that a difference of tallies is never ambiguous.
const MAX_TALLY: u64 = 1 << 62;

/// Where to cut the log so that a heavy hit can be added without the tally lapping itself. What is cut off lies more
/// than the largest limit back, so that it decides nothing.
fn room_for(log: &mut impl Log, newest: Option<Hit>, cost: u64) -> Result<Option<Id>, Error> {
    let Some(newest) = newest.filter(|_| cost >= HEAVY) else {
        return Ok(None);
    };
    let oldest = log.seek(0)?.unwrap_or(newest);
    let total = newest.units_since(&oldest);
    if total.saturating_add(cost) <= MAX_TALLY {
        return Ok(None);
    }
    let surplus = total.saturating_sub(MAX_UNITS);
    let time = departure(log, &oldest, &newest, surplus)?;
    let first = log.seek(time)?.unwrap_or(newest);
    // Within a millisecond tallies only grow, so that nobody need look at its entries, of which there may be any number.
    let missing = surplus.saturating_sub(first.units_since(&oldest));
    let cut = Id { tally: first.id.tally.wrapping_add(missing), ..first.id };
    Ok(Some(cut.min(newest.id)))
}
