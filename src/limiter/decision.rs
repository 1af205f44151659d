//! The decision: the answer to a call, and its plan. Nothing is written here.

use crate::answer::{Answer, TierAnswer};
use crate::error::Error;
use crate::log::{Id, Log};
use crate::plan::{Plan, Store};
use crate::usage::Usage;

/// An answer, and what must be written to make it true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub answer: Answer,
    pub plan: Plan,
    /// The time of the oldest live hit of the tier that binds.
    oldest: Option<u64>,
    /// What is said of every tier, if the call asks for that; otherwise nothing.
    pub tiers: Vec<TierAnswer>,
}

impl Usage<'_> {
    /// The decision on a call that is `admitted` or not, as [`Usage::has_room`] says for this key, or for all keys of the call.
    #[inline]
    pub fn decide(&self, log: &mut impl Store, admitted: bool) -> Result<Decision, Error> {
        let stored = self.stored(admitted, || log.first_tally(self.now));
        let (answer, oldest) = self.answer(log, admitted, stored)?;
        let tiers = self.answers(log, admitted, stored)?;
        let plan = match stored {
            Some(hit) => self.plan_to_store(log, admitted, hit)?,
            None => self.plan_to_refuse(log, answer.retry_after),
        };
        Ok(Decision { answer, plan, oldest, tiers })
    }

    /// The answer a hit would get, and that of every tier if the call asks for that. If it costs nothing, what there is.
    pub fn peek(&self, log: &mut impl Log) -> Result<(Answer, Vec<TierAnswer>), Error> {
        let admitted = self.has_room();
        let stored = if self.call.cost == 0 { None } else { self.stored(admitted, || 0) };
        Ok((self.answer(log, admitted, stored)?.0, self.answers(log, admitted, stored)?))
    }
}

impl Decision {
    /// Makes the answer describe the log after writing: entries that this call dropped no longer count, so `oldest` may be
    /// another one.
    #[inline]
    pub fn adjust(&mut self, oldest: Option<Id>) {
        let Some(oldest) = oldest else { return };
        let adjust = |answer: &mut Answer, was: Option<u64>| {
            let later = was.map_or(0, |was| oldest.time.saturating_sub(was));
            answer.next_after = answer.next_after.saturating_add(later);
        };
        adjust(&mut self.answer, self.oldest);
        self.tiers.iter_mut().for_each(|(answer, was)| adjust(answer, *was));
    }
}
