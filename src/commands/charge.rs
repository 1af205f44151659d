//! What HIT and MHIT share: charging a key with a hit.
//!
//! Other modules act in events, and may do anything to any key. So every command goes in this order: read all keys; write
//! and replicate all keys; close all keys and put their cursors back; send the events, and touch nothing after that.

use std::mem;

use limiter::answer::{Answer, TierAnswer};
use limiter::cursors::CachedLog;
use limiter::decision::Decision;
use limiter::error::{self, Error};
use limiter::hash;
use limiter::log::{Id, Log};
use limiter::plan::{Applied, Plan, Store};
use limiter::policies::Figures;
use limiter::syntax::Call;
use limiter::usage::Usage;

use crate::server::{Arg, Events, Key, Mode, POLICIES, REFUSALS, Reply, STATS, Server, logs};

/// What became of one key.
pub struct Charged {
    pub answer: Answer,
    pub tiers: Vec<TierAnswer>,
    /// Sent once every key is closed.
    pub events: Events,
}

/// A stream takes only IDs above its last one, which may be ahead of the newest entry. The second attempt knows that ID; a
/// third one is for servers on which XINFO is renamed.
pub const ATTEMPTS: usize = 3;

/// Charges one key and closes it. `verdict` is the one on all keys of the call, if there are several and it is known.
pub fn charge(server: Server, name: Arg, call: &Call, clock: u64, verdict: Option<bool>) -> Result<Charged, Error> {
    let mut events = Events::default();
    let mut last_id = Id::default();
    for _ in 0..ATTEMPTS {
        let mut log = logs::open(server, name, Mode::Write)?;
        let mut usage = Usage::new(call, clock, last_id);
        usage.read(&mut log)?;
        let mut decision = usage.decide(&mut log, verdict.unwrap_or_else(|| usage.has_room()))?;
        match log.apply(&decision.plan)? {
            Applied::Done { oldest } => {
                let charged = finish(server, name, log, &usage, &mut decision, oldest)?;
                events.add(charged.events);
                return Ok(Charged { events, ..charged });
            }
            Applied::IdTooLow => {
                let tried = match decision.plan {
                    Plan::Append(append) => append.entry.hit.id,
                    _ => last_id,
                };
                last_id = log.last_id()?.max(tried);
                events.add(logs::close(log));
            }
            Applied::KeyExists => events.add(logs::close(log)),
        }
    }
    Err(error::APPEND_FAILED)
}

/// Ends the call on a key whose plan was carried out: counts the answer and closes the key. `oldest` is the oldest entry left,
/// if any were dropped.
#[inline]
pub fn finish(
    server: Server,
    name: Arg,
    log: CachedLog<Key>,
    usage: &Usage,
    decision: &mut Decision,
    oldest: Option<Id>,
) -> Result<Charged, Error> {
    decision.adjust(oldest);
    let answer = decision.answer;
    count(server, name, usage, &answer)?;
    let mut events = logs::close(log);
    events.add(refusal(server, &answer)?);
    Ok(Charged { answer, tiers: mem::take(&mut decision.tiers), events })
}

/// Six integers, or an array of them for every tier.
pub fn reply(answer: &Answer, tiers: &[TierAnswer]) -> Reply {
    match tiers {
        [] => Reply::Integers(answer.integers()),
        tiers => Reply::Array(tiers.iter().map(|(answer, _)| Reply::Integers(answer.integers())).collect()),
    }
}

/// The event of a refusal, if the answer is one.
#[inline]
pub fn refusal(server: Server, answer: &Answer) -> Result<Events, Error> {
    let is_sent = answer.refuses() && server.sends_module_events()?;
    Ok(if is_sent { Events::REFUSED } else { Events::default() })
}

/// Counts an answer.
#[inline]
pub fn count(server: Server, name: Arg, usage: &Usage, answer: &Answer) -> Result<(), Error> {
    if answer.allowed {
        STATS.hits_admitted.add(1);
        STATS.units_admitted.add(usage.call.cost);
        POLICIES.with(|table| table.record(usage.call.tiers(), Figures::admitted(usage.call.cost)));
    } else if answer.refuses() {
        STATS.hits_refused.add(1);
        POLICIES.with(|table| table.record(usage.call.tiers(), Figures::refused()));
        let (database, name) = (server.database()?, name.bytes());
        REFUSALS.with(|table| table.record(hash::of(database, name), database, name, usage.clock));
    }
    Ok(())
}
