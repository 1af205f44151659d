//! The decision: the answer to a call, and the plan that goes with it. It writes nothing itself.

use crate::answer::Answer;
use crate::error::Error;
use crate::log::{Hit, Id, Log};
use crate::plan::{Plan, Store};
use crate::usage::Usage;

/// An answer, and what must be written for it to be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub answer: Answer,
    pub plan: Plan,
    /// The oldest live hit of the tier that binds.
    oldest: Option<Hit>,
}

impl Usage<'_> {
    /// Decides by what this key alone says.
    pub fn decide(&self, log: &mut impl Store) -> Result<Decision, Error> {
        self.decide_as(log, self.has_room())
    }

    /// Decides where the verdict on all keys of the call is known.
    #[inline]
    pub fn decide_as(&self, log: &mut impl Store, admitted: bool) -> Result<Decision, Error> {
        let stored = self.stored(admitted);
        let (answer, oldest) = self.answer(log, admitted, stored)?;
        let plan = match stored {
            Some(hit) => self.plan_to_store(log, admitted, hit)?,
            None => self.plan_to_refuse(log, answer.retry_after),
        };
        Ok(Decision { answer, plan, oldest })
    }

    /// The answer that a hit would get.
    pub fn peek(&self, log: &mut impl Log) -> Result<Answer, Error> {
        let admitted = self.has_room();
        Ok(self.answer(log, admitted, self.stored(admitted))?.0)
    }
}

impl Decision {
    /// Lets the answer describe the log as it is after writing: what was dropped with this very call no longer counts, so
    /// that another entry may be the `oldest`.
    #[inline]
    pub fn adjust(&mut self, oldest: Option<Id>) {
        if let (Some(oldest), Some(was)) = (oldest, self.oldest) {
            let later = oldest.time.saturating_sub(was.id.time);
            self.answer.next_after = self.answer.next_after.saturating_add(later);
        }
    }
}
