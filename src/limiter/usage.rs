//! How much of each tier is in use, and whether there is room for one more hit.
//!
//! A sliding-window log: at no time do the hits inside `(t - window, t]` weigh more than `limit`, and a hit is refused
//! only if they would.
//!
//! Times and durations are whole milliseconds. Every operation saturates or wraps on purpose: a restored log may hold
//! anything, and still the answer stays in range and nobody waits longer than the window.

use crate::error::{self, Error};
use crate::log::{Entry, Hit, Id, Log};
use crate::syntax::{Call, MAX_TIERS, Record, Tier};

/// The live entries of one tier.
#[derive(Clone, Copy, Default)]
pub(crate) struct TierUsage {
    pub oldest: Option<Hit>,
    pub units: u64,
}

/// What a log says to one call at one moment.
pub struct Usage<'c> {
    pub call: &'c Call,
    /// The server's clock, in milliseconds since the epoch.
    pub clock: u64,
    /// The end of every window: the latest of the clock, the newest entry's time, and that of the stream's last ID.
    pub(crate) now: u64,
    /// None if the log is empty or stale.
    pub(crate) newest: Option<Entry>,
    /// The stream's last ID, as far as it is known.
    last_id: Id,
    /// The newest ID is further ahead of the clock than the log is kept, so nothing in the log counts.
    pub(crate) is_stale: bool,
    tiers: [TierUsage; MAX_TIERS],
}

impl<'c> Usage<'c> {
    /// Of a log that is still to be read, when the server's clock is `clock`. `last_id` is a lower bound of the stream's last
    /// ID, if that is known to be ahead of the newest entry: because an entry was deleted, or by XSETID.
    #[inline]
    pub fn new(call: &'c Call, clock: u64, last_id: Id) -> Self {
        let tiers = [TierUsage::default(); MAX_TIERS];
        Self { call, clock, now: clock, newest: None, last_id, is_stale: false, tiers }
    }

    /// Reads what the call needs to know. (In place, because a usage is large and returning it would copy it.)
    pub fn read(&mut self, log: &mut impl Log) -> Result<(), Error> {
        self.read_head(log)?;
        let newest = self.newest.map(|newest| newest.hit);
        for (used, tier) in self.tiers.iter_mut().zip(self.call.tiers()) {
            *used = tier_usage(log, newest, self.now, tier.window)?;
        }
        Ok(())
    }

    /// Reads the newest entry, and finds the end of the windows.
    fn read_head(&mut self, log: &mut impl Log) -> Result<(), Error> {
        // Nobody should wait for a time further ahead than the log is kept.
        let clock = self.clock;
        let is_too_far = |id: Id, window: u64| id.time > clock.saturating_add(window);
        match log.newest(clock, self.call.longest_window())? {
            Some(newest) => {
                let last_id = newest.hit.id.max(self.last_id);
                self.is_stale = is_too_far(last_id, newest.retention.longest);
                if !self.is_stale {
                    (self.newest, self.last_id) = (Some(newest), last_id);
                }
            }
            // It may be somebody's drained queue, so it must not be started again.
            None => {
                let last_id = log.last_id()?.max(self.last_id);
                if is_too_far(last_id, self.call.longest_window()) {
                    return Err(error::LAST_ID_AHEAD);
                }
                self.last_id = last_id;
            }
        }
        if self.is_stale {
            self.last_id = Id::default();
        }
        self.now = clock.max(self.last_id.time);
        Ok(())
    }

    pub(crate) fn tiers(&self) -> impl Iterator<Item = (&Tier, &TierUsage)> {
        self.call.tiers().iter().zip(&self.tiers)
    }

    /// Whether every tier has room for the hit: the rule that decides. Nothing always has room.
    pub fn has_room(&self) -> bool {
        self.call.cost == 0 || self.tiers().all(|(tier, used)| fits(tier, used.units, self.call.cost))
    }

    /// Whether every tier would have room for the hit if it were unused.
    pub(crate) fn ever_has_room(&self) -> bool {
        self.tiers().all(|(tier, _)| fits(tier, 0, self.call.cost))
    }

    /// The hit that is stored if the call is admitted, or if it is not. `first_tally` says where a new log begins to count.
    pub(crate) fn stored(&self, admitted: bool, first_tally: impl FnOnce() -> u64) -> Option<Hit> {
        let is_stored = admitted
            || match self.call.record {
                Record::Allowed => false,
                Record::Strict => !self.has_room() && self.ever_has_room(),
                Record::Force => true,
            };
        is_stored.then(|| Hit { id: self.next_id(first_tally), cost: self.call.cost })
    }

    /// The ID of a hit. IDs must increase: if the tally wraps within a millisecond, or the newest entry of this millisecond
    /// was deleted, the next millisecond is used. (Also where a new log could begin at a higher tally: so the time, and with it
    /// the answer, does not depend on where it begins.)
    fn next_id(&self, first_tally: impl FnOnce() -> u64) -> Id {
        let before = self.newest.map(|newest| newest.hit.id.tally);
        let tally = before.unwrap_or_else(first_tally).wrapping_add(self.call.cost);
        let id = Id { time: self.now, tally };
        let is_free = match before {
            Some(_) => id > self.last_id,
            None => self.last_id == Id::default() || self.now > self.last_id.time,
        };
        if is_free { id } else { Id { time: self.now.saturating_add(1), tally } }
    }
}

/// Whether a tier with `used` units in use has room for `cost` more.
pub(crate) fn fits(tier: &Tier, used: u64, cost: u64) -> bool {
    used.saturating_add(cost) <= tier.limit
}

/// The earliest time inside `(now - window, now]`.
pub(crate) fn window_start(now: u64, window: u64) -> u64 {
    now.saturating_add(1).saturating_sub(window)
}

fn tier_usage(log: &mut impl Log, newest: Option<Hit>, now: u64, window: u64) -> Result<TierUsage, Error> {
    let from = window_start(now, window);
    let Some(newest) = newest.filter(|newest| newest.id.time >= from) else {
        return Ok(TierUsage::default());
    };
    let oldest = log.window_start(from)?.unwrap_or(newest);
    // Anyone may have written the tallies, so the entries' own costs are a lower bound.
    let least = oldest.cost.max(newest.cost);
    let units = newest.units_since(&oldest).clamp(least, i64::MAX.unsigned_abs());
    Ok(TierUsage { oldest: Some(oldest), units })
}
