//! What a call writes. It is decided together with the answer and carried out by a [`Store`].

use crate::error::Error;
use crate::log::{Entry, Hit, Id, Log};
use crate::number::MAX_UNITS;
use crate::retention;
use crate::search::time_of_unit;
use crate::syntax::Record;
use crate::usage::{Usage, window_start};

/// What a call changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// An ordinary refusal leaves no trace.
    Nothing,
    /// The key's expiry is set, in milliseconds since the epoch: a refusal showed that a longer policy is still in use.
    Expire(u64),
    /// A hit is stored.
    Append(Append),
}

/// An entry to append, and what to drop from the log after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append {
    /// Nothing in the log counts any more: remove the key first.
    pub restart: bool,
    pub entry: Entry,
    /// The key's expiry, in milliseconds since the epoch, if it must be set.
    pub expire_at: Option<u64>,
    /// Entries before this ID have expired: drop whole nodes of them. `None` if it is not yet time to look.
    pub expired_before: Option<Id>,
    /// Entries before this ID weigh too much to be counted (see [`surplus`]): drop each of them.
    pub surplus_before: Option<Id>,
    /// A refused hit was stored: drop nodes beyond this many entries. Only the newest `limit` units can influence an answer,
    /// and an entry weighs at least 1.
    pub max_entries: Option<u64>,
}

impl Plan {
    /// Whether it creates the key of a log of `length` entries. (An empty stream may exist; that is not known here.)
    pub fn creates(&self, length: u64) -> bool {
        matches!(self, Self::Append(append) if append.restart || length == 0)
    }

    /// The expiry to set, in milliseconds since the epoch.
    pub fn expire_at(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Expire(at) => Some(*at),
            Self::Append(append) => append.expire_at,
        }
    }
}

/// A log that can be written.
pub trait Store: Log {
    /// The number of entries, expired ones included.
    fn length(&self) -> u64;

    /// When the key expires, if it does, in milliseconds since the epoch.
    fn expires_at(&mut self) -> Option<u64>;

    /// The tally before the first hit of a log that begins at `time`: another one for each log, see
    /// [`Births`](crate::cursors::Births).
    fn first_tally(&mut self, time: u64) -> u64;

    /// Carries out a plan.
    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error>;
}

/// What became of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Done {
        /// The oldest entry left, if any were dropped.
        oldest: Option<Id>,
    },
    /// Nothing was appended, because the stream's last ID is not below that of the new entry.
    IdTooLow,
    /// Nothing was appended, because another module has put something at a key that did not exist.
    KeyExists,
}

/// A log with more entries than this, all expired, is removed as a whole, in the background, instead of being trimmed.
const LONG: u64 = 1_000;

/// Looking for expired entries costs a tenth of a hit, and mostly finds none. So it is done once in this many hits of the same
/// cost, when the tally passes a multiple of their weight, and when the expiry is set. It depends only on stored data, so it
/// is the same wherever it is decided.
const TRIM_EVERY: u64 = 32;

impl Usage<'_> {
    /// The plan for a hit that is stored.
    pub(crate) fn plan_to_store(&self, store: &mut impl Store, admitted: bool, hit: Hit) -> Result<Plan, Error> {
        let (newest, now, window) = (self.newest, self.now, self.call.longest_window());
        let surplus_before = surplus(store, newest.map(|newest| newest.hit), hit.cost)?;
        let is_dead =
            newest.is_some_and(|newest| newest.hit.id.time < window_start(now, newest.retention.longest.max(window)));
        let restart = self.is_stale || is_dead && store.length() > LONG;
        let expires_at = if restart { None } else { store.expires_at() };
        let retention = newest.map(|newest| newest.retention);
        // The hit may be stamped a millisecond later, see `next_id`.
        let (retention, expire_at) = retention::after_stored(retention, expires_at, hit.id.time, window);
        let tally = newest.map_or(0, |newest| newest.hit.id.tally);
        let step = TRIM_EVERY.saturating_mul(hit.cost).max(1);
        let is_time = expire_at.is_some() && store.length() >= TRIM_EVERY
            || tally.checked_div(step) != hit.id.tally.checked_div(step);
        Ok(Plan::Append(Append {
            restart,
            entry: Entry { hit, retention },
            expire_at,
            expired_before: is_time.then(|| Id { time: window_start(now, retention.longest), tally: 0 }),
            surplus_before,
            max_entries: (!admitted && self.call.record == Record::Strict).then(|| self.call.largest_limit()),
        }))
    }

    /// The plan for a hit that is not stored and told to wait `retry_after` milliseconds, or forever (`None`).
    #[inline]
    pub(crate) fn plan_to_refuse(&self, store: &mut impl Store, retry_after: Option<u64>) -> Plan {
        // Nobody waits for a key that has room, though by this clock it may have expired already (Redis 7.0).
        let until = retry_after.filter(|&wait| wait > 0).map(|wait| self.clock.saturating_add(wait));
        let retention = self.newest.map(|newest| newest.retention);
        let window = self.call.longest_window();
        let expire_at = retention::after_refused(retention, || store.expires_at(), self.now, window, until);
        expire_at.map_or(Plan::Nothing, Plan::Expire)
    }
}

/// With lighter hits, no log that fits into memory comes near 2^63 units.
const HEAVY: u64 = 1 << 32;

/// Most units of a log, so that a difference of tallies is never ambiguous.
const MAX_TALLY: u64 = 1 << 62;

/// Where to cut the log so that the tally does not lap itself when a heavy hit is added. What is cut off lies further back
/// than the largest limit, so it decides nothing.
fn surplus(log: &mut impl Log, newest: Option<Hit>, cost: u64) -> Result<Option<Id>, Error> {
    let Some(newest) = newest.filter(|_| cost >= HEAVY) else {
        return Ok(None);
    };
    let oldest = log.seek(0)?.unwrap_or(newest);
    let total = newest.units_since(&oldest);
    if total.saturating_add(cost) <= MAX_TALLY {
        return Ok(None);
    }
    let units = total.saturating_sub(MAX_UNITS);
    let time = time_of_unit(log, &oldest, &newest, units)?;
    let first = log.seek(time)?.unwrap_or(newest);
    // Within a millisecond tallies only grow, so its entries, however many, need not be looked at.
    let missing = units.saturating_sub(first.units_since(&oldest));
    let cut = Id { tally: first.id.tally.wrapping_add(missing), ..first.id };
    Ok(Some(cut.min(newest.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::Retention;

    #[test]
    fn a_plan_creates_a_key_where_there_is_none() {
        let append = |restart| {
            let retention = Retention { longest: 1_000, fallback: None };
            let entry = Entry { hit: Hit::default(), retention };
            Plan::Append(Append {
                restart,
                entry,
                expire_at: None,
                expired_before: None,
                surplus_before: None,
                max_entries: None,
            })
        };
        assert!(append(false).creates(0) && append(true).creates(0) && append(true).creates(5));
        assert!(!append(false).creates(1) && !append(false).creates(5));
        assert!(!Plan::Nothing.creates(0) && !Plan::Expire(1).creates(0));
    }
}
