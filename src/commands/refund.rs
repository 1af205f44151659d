//! `RATELIMIT.REFUND key [COST units]`
//!
//! Gives the newest units back: for requests that failed, and for estimates that were too high. The newest hits leave; where
//! the last of them weighs more than is owed, its rest is recorded anew. Replies how many units were given back.

use limiter::error::{self, Error};
use limiter::log::{Id, Log};
use limiter::refund::refund;
use limiter::syntax::parse_refund;

use super::arguments::{CHARGED, COST, KEY};
use super::charge::ATTEMPTS;
use super::wait;
use crate::server::{Arg, Command, Events, Key, Keys, Mode, Reply, STATS, Server, Spec};

pub struct Refund;

impl Command for Refund {
    const SPEC: Spec = Spec {
        name: c"ratelimit.refund",
        flags: c"write",
        arity: -2,
        keys: Keys::Range { last: 0, flags: CHARGED },
        summary: c"Gives the newest units back.",
        complexity: c"O(M) where M is the number of hits that leave, at most 1024",
        args: &[KEY, COST],
        categories: c"write stream slow",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, name, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let units = parse_refund(rest.iter().map(|arg| arg.bytes()))?;
        let (units, events) = give_back(server, *name, units)?;
        STATS.units_refunded.add(units);
        wait::wake(server, *name)?;
        server.notify(*name, events)?;
        Ok(Reply::Integer(i64::try_from(units).unwrap_or(i64::MAX)))
    }
}

/// The units that were given back, and the events to send.
fn give_back(server: Server, name: Arg, units: u64) -> Result<(u64, Events), Error> {
    let mut last_id = Id::default();
    for _ in 0..ATTEMPTS {
        let mut key = Key::open(server, name, Mode::Write)?;
        let Some(refund) = refund(&mut key, server.clock(), units, last_id)? else {
            return Ok((0, Events::default()));
        };
        if let Some(events) = key.give_back(&refund)? {
            return Ok((refund.units, events));
        }
        let tried = refund.rest.map_or(last_id, |rest| rest.hit.id);
        last_id = Key::open(server, name, Mode::Write)?.last_id()?.max(tried);
    }
    Err(error::APPEND_FAILED)
}
