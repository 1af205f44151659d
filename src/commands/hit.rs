//! `RATELIMIT.HIT key limit window [limit window ...] [COST units] [STRICT | FORCE | WAIT timeout] [WITHTIERS]`
//!
//! Decides whether one more hit on `key` may happen now and, if so, records it. The reply is an array of six integers:
//! allowed, limit, remaining, retry_after, reset_after, next_after (times in milliseconds). A refusal is an answer, not an
//! error, and leaves no trace. With `STRICT` a refused hit counts as well, unless it could never be allowed; with `FORCE` every
//! hit does. With `WAIT` the client waits in line for its turn: see `wait.rs`. With `WITHTIERS` the reply has six integers for
//! every tier.

use limiter::error::{self, Error};
use limiter::syntax::{Asker, Call};

use super::arguments::{CHARGED, COST, KEY, RECORD, TIER, WITHTIERS};
use super::charge::{charge, reply};
use super::wait;
use crate::server::{Arg, Argument, ArgumentKind, Command, Keys, Reply, Server, Spec};

pub struct Hit;

impl Command for Hit {
    const SPEC: Spec = Spec {
        name: c"ratelimit.hit",
        flags: c"write deny-oom fast",
        arity: -4,
        keys: Keys::Range { last: 0, flags: CHARGED },
        summary: c"Records a hit if every limit allows it, and tells what is left.",
        complexity: c"O(log N) for each tier, N being the number of entries in the log",
        args: &[
            KEY,
            TIER,
            COST,
            RECORD,
            Argument::new(c"timeout", ArgumentKind::String).token(c"WAIT").optional(),
            WITHTIERS,
        ],
        categories: c"write stream fast",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, name, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let mut call = Call::default();
        call.parse(rest.iter().map(|arg| arg.bytes()), Asker::Hit)?;
        if call.wait > 0 {
            return wait::hit(server, args, &call);
        }
        let charged = charge(server, *name, &call, server.clock(), None)?;
        server.notify(*name, charged.events)?;
        Ok(reply(&charged.answer, &charged.tiers))
    }
}
