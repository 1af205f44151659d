//! What the caller is told.

use crate::error::{self, Error};
use crate::log::{Hit, Log};
use crate::search::time_of_unit;
use crate::syntax::Tier;
use crate::usage::{TierUsage, Usage, fits};

/// The reply to a hit. Durations are milliseconds and count from the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    /// The limit of the tier that binds.
    pub limit: u64,
    /// Units left in that tier after this call.
    pub remaining: u64,
    /// Time until the same call would be allowed: 0 if it was, or if this key did not refuse it; `None` for never.
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

    /// Whether this key refused the call. (If there are several keys, another one may have refused it.)
    pub fn refuses(&self) -> bool {
        !self.allowed && self.retry_after != Some(0)
    }

    /// Of the tiers that refuse, the one with the longest wait binds (never is longest); if none refuses, the one with the
    /// fewest units left; among equals, the earlier one.
    fn binds_before(&self, earlier: &Self) -> bool {
        let wait = |answer: &Self| answer.retry_after.unwrap_or(u64::MAX);
        match (wait(self), wait(earlier)) {
            (0, 0) => self.remaining < earlier.remaining,
            (one, other) => one > other,
        }
    }
}

/// The answer of one tier, and the time of its oldest live hit.
pub type TierAnswer = (Answer, Option<u64>);

impl Usage<'_> {
    /// The answer to the call, admitted or not: that of the tier that binds. It describes the log after the call, with the
    /// `stored` hit in it.
    #[inline]
    pub(crate) fn answer(&self, log: &mut impl Log, admitted: bool, stored: Option<Hit>) -> Result<TierAnswer, Error> {
        let mut binding: Option<TierAnswer> = None;
        for (tier, used) in self.tiers() {
            let (answer, oldest) = self.answer_of_tier(log, admitted, stored, tier, used)?;
            if binding.is_none_or(|(earlier, _)| answer.binds_before(&earlier)) {
                binding = Some((answer, oldest));
            }
        }
        binding.ok_or(error::INTERNAL)
    }

    /// The same for every tier, in the order of the call, if it asks for that.
    #[inline]
    pub(crate) fn answers(
        &self,
        log: &mut impl Log,
        admitted: bool,
        stored: Option<Hit>,
    ) -> Result<Vec<TierAnswer>, Error> {
        if !self.call.with_tiers {
            return Ok(Vec::new());
        }
        self.tiers().map(|(tier, used)| self.answer_of_tier(log, admitted, stored, tier, used)).collect()
    }

    fn answer_of_tier(
        &self,
        log: &mut impl Log,
        admitted: bool,
        stored: Option<Hit>,
        tier: &Tier,
        used: &TierUsage,
    ) -> Result<TierAnswer, Error> {
        let cost = self.call.cost;
        let newest = used.oldest.and(self.newest).map(|newest| newest.hit);
        let until_left = |time: u64| time.saturating_add(tier.window).saturating_sub(self.clock);
        let units = used.units.saturating_add(stored.map_or(0, |stored| stored.cost));
        // Whoever has room does not refuse, though it may be full once the hit is stored.
        let retry_after = if admitted || fits(tier, units, cost) || stored.is_some() && self.has_room() {
            Some(0)
        } else if !fits(tier, 0, cost) {
            None
        } else {
            let needed = units.saturating_add(cost).saturating_sub(tier.limit);
            let stored_time = stored.map(|stored| stored.id.time).filter(|_| needed > used.units);
            Some(until_left(match (stored_time, used.oldest, newest) {
                (Some(time), _, _) => time,
                (None, Some(oldest), Some(newest)) => time_of_unit(log, &oldest, &newest, needed)?,
                _ => self.now,
            }))
        };
        let last_time = stored.or(newest).map(|hit| hit.id.time);
        let first_time = used.oldest.map(|hit| hit.id.time).or(last_time);
        let answer = Answer {
            allowed: admitted,
            limit: tier.limit,
            remaining: tier.limit.saturating_sub(units),
            retry_after,
            reset_after: last_time.map_or(0, until_left),
            next_after: first_time.map_or(0, until_left),
        };
        Ok((answer, used.oldest.map(|oldest| oldest.id.time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_refuses_unless_it_waits_for_another() {
        let refuses = |allowed, retry_after| {
            Answer { allowed, limit: 1, remaining: 0, retry_after, reset_after: 0, next_after: 0 }.refuses()
        };
        assert!(refuses(false, Some(1)) && refuses(false, None));
        assert!(!refuses(true, Some(0)) && !refuses(false, Some(0)));
    }
}
