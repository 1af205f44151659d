//! What HIT and MHIT share: charging a key with a hit.
//!
//! Other modules act in events, and may do anything to any key. So a command goes in this order, whatever it is: every key
//! is read; every key is written, and what was written is replicated; every key is closed, and its cursor put back; and
//! only then are the events sent, after which nothing of the command is touched.

use crate::args::Call;
use crate::cursors::Followed;
use crate::error::{self, Error};
use crate::hash;
use crate::limiter::{Answer, Review};
use crate::log::{Id, Log, Store, Written};
use crate::offenders::Offenders;
use crate::stats::STATS;
use crate::stream::{Arg, Events, Key, Mode, OFFENDERS, Server};

/// What became of one key.
pub struct Charged {
    pub answer: Answer,
    /// To be sent once every key is closed.
    pub events: Events,
}

/// A log does not take an entry whose ID is not above the stream's last one, which may be ahead of the newest entry. The
/// second attempt knows it; a third one is for servers on which XINFO is renamed.
const ATTEMPTS: usize = 3;

/// Charges one key, and closes it. `verdict` is that on all keys of the call, where there are several and it is known.
pub fn charge(server: Server, name: Arg, call: &Call, clock: u64, verdict: Option<bool>) -> Result<Charged, Error> {
    let mut events = Events::default();
    let mut last_id = Id::default();
    for _ in 0..ATTEMPTS {
        let mut log = server.follow(name, Mode::Write)?;
        let mut review = Review::above(last_id, clock, call);
        review.read(&mut log)?;
        let mut decision = review.decide(&mut log, verdict.unwrap_or_else(|| review.fits()))?;
        let write = review.write(&decision, &mut log);
        let written = match &write {
            Some(write) => log.write(write)?,
            None => Some(Written::default()),
        };
        if let Some(written) = written {
            decision.adjust(written);
            events.add(close(server, name, log, &review, &decision.answer)?);
            return Ok(Charged { answer: decision.answer, events });
        }
        let tried = write.and_then(|write| write.append).map_or(last_id, |append| append.entry.hit.id);
        last_id = log.last_id()?.max(tried);
        events.add(server.close(log));
    }
    Err(error::APPEND_FAILED)
}

/// Keeps the books on an answer that stands, and closes its key. What is to be told of it.
#[inline]
pub fn close(server: Server, name: Arg, log: Followed<Key>, review: &Review, answer: &Answer) -> Result<Events, Error> {
    let refused = !answer.allowed && answer.retry_after != Some(0);
    if answer.allowed {
        STATS.hits_admitted.add(1);
        STATS.units_admitted.add(review.call.cost);
    } else if refused {
        STATS.hits_refused.add(1);
        let (database, name) = (server.database()?, name.bytes());
        let hash = log.hash().unwrap_or_else(|| hash::of(database, name));
        OFFENDERS.with(|offenders: &mut Offenders| offenders.record(hash, database, name, review.clock));
    }
    let mut events = server.close(log);
    if refused && server.module_events_are_on()? {
        events.add(Events::REFUSED);
    }
    Ok(events)
}
