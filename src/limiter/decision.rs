//! The decision: the answer to a call, and its plan. Nothing is written here.

use crate::answer::Answer;
use crate::error::Error;
use crate::log::{Id, Log};
use crate::plan::{Plan, Store};
use crate::usage::Usage;

/// An answer, and what must be written to make it true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub answer: Answer,
    pub plan: Plan,
    /// The time of the oldest live hit of the tier that binds.
    oldest: Option<u64>,
}

impl Usage<'_> {
    /// The decision on a call that is `admitted` or not, as [`Usage::has_room`] says for this key, or for all keys of the call.
    #[inline]
    pub fn decide(&self, log: &mut impl Store, admitted: bool) -> Result<Decision, Error> {
        let stored = self.stored(admitted, || log.first_tally(self.now));
        let (answer, oldest) = self.answer(log, admitted, stored)?;
        let plan = match stored {
            Some(hit) => self.plan_to_store(log, admitted, hit)?,
            None => self.plan_to_refuse(log, answer.retry_after),
        };
        Ok(Decision { answer, plan, oldest })
    }

    /// The answer a hit would get.
    pub fn peek(&self, log: &mut impl Log) -> Result<Answer, Error> {
        let admitted = self.has_room();
        Ok(self.answer(log, admitted, self.stored(admitted, || 0))?.0)
    }
}

impl Decision {
    /// Makes the answer describe the log after writing: entries that this call dropped no longer count, so `oldest` may be
    /// another one.
    #[inline]
    pub fn adjust(&mut self, oldest: Option<Id>) {
        if let (Some(oldest), Some(was)) = (oldest, self.oldest) {
            let later = oldest.time.saturating_sub(was);
            self.answer.next_after = self.answer.next_after.saturating_add(later);
        }
    }
}
