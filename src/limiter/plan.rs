//! What a call writes: decided together with the answer, carried out by a [`Store`].

use crate::error::Error;
use crate::log::{Entry, Hit, Id, Log};
use crate::number::MAX_UNITS;
use crate::retention;
use crate::search::time_of_unit;
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
    /// The log is worth nothing any more: remove the key first.
    pub restart: bool,
    pub entry: Entry,
    /// The key's expiry, in milliseconds since the epoch, if it must be set.
    pub expire_at: Option<u64>,
    /// Entries before this ID have expired; whole nodes of them go. `None` if it is not yet time to look.
    pub expired_before: Option<Id>,
    /// Entries before this ID weigh too much to be counted (see [`surplus`]); each of them goes.
    pub surplus_before: Option<Id>,
    /// A refused hit was stored: nodes beyond this many entries go, because only the newest `limit` units can influence
    /// an answer and an entry weighs at least 1.
    pub max_entries: Option<u64>,
}

impl Plan {
    /// Whether it creates the key of a log of `length` entries. (A stream without entries may exist, which is not known here.)
    pub fn creates(&self, length: u64) -> bool {
        matches!(self, Self::Append(append) if append.restart || length == 0)
    }

    /// The key's expiry that is to be set, in milliseconds since the epoch.
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

    /// When the key expires, in milliseconds since the epoch, if it does.
    fn expires_at(&mut self) -> Option<u64>;

    /// Carries out a plan.
    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error>;
}

/// What has become of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Done {
        /// The oldest entry, if any were dropped.
        oldest: Option<Id>,
    },
    /// Nothing was appended, because the stream's last ID is not below that of the new entry.
    IdTooLow,
}

/// A log of more entries than this of which none is alive is removed, in the background, and not trimmed bit by bit.
const LONG: u64 = 1_000;

/// Looking for expired entries costs a tenth of a hit, mostly in vain: it is done once in so many hits like this one, when
/// the tally passes a multiple of what they weigh, and when the expiry is set. It goes by what is stored, so that it is
/// the same wherever it is decided.
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
        let (retention, expire_at) = retention::after_stored(retention, expires_at, now, window);
        let tally = newest.map_or(0, |newest| newest.hit.id.tally);
        let step = TRIM_EVERY.saturating_mul(hit.cost).max(1);
        let is_time = expire_at.is_some() || tally.checked_div(step) != hit.id.tally.checked_div(step);
        Ok(Plan::Append(Append {
            restart,
            entry: Entry { hit, retention },
            expire_at,
            expired_before: is_time.then(|| Id { time: window_start(now, retention.longest), tally: 0 }),
            surplus_before,
            max_entries: (!admitted).then(|| self.call.largest_limit()),
        }))
    }

    /// The plan for a hit that is not stored, and told to wait `retry_after` milliseconds; `None` is for ever.
    #[inline]
    pub(crate) fn plan_to_refuse(&self, store: &mut impl Store, retry_after: Option<u64>) -> Plan {
        let until = retry_after.map(|wait| self.clock.saturating_add(wait));
        let retention = self.newest.map(|newest| newest.retention);
        let window = self.call.longest_window();
        let expire_at = retention::after_refused(retention, || store.expires_at(), self.now, window, until);
        expire_at.map_or(Plan::Nothing, Plan::Expire)
    }
}

/// Lighter hits cannot bring a log that fits into memory anywhere near 2^63 units.
const HEAVY: u64 = 1 << 32;

/// Most units of a whole log, so that a difference of tallies is never ambiguous.
const MAX_TALLY: u64 = 1 << 62;

/// Where to cut the log so that a heavy hit can be added without the tally lapping itself. What is cut off lies more
/// than the largest limit back, so that it decides nothing.
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
    // Within a millisecond tallies only grow, so that nobody need look at its entries, of which there may be any number.
    let missing = units.saturating_sub(first.units_since(&oldest));
    let cut = Id { tally: first.id.tally.wrapping_add(missing), ..first.id };
    Ok(Some(cut.min(newest.id)))
}
