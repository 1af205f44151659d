//! `RATELIMIT.HIT key limit window [limit window ...] [COST units] [STRICT | WAIT timeout]`
//!
//! Decides whether one more hit on `key` may happen now and, if so, records it. The reply is an array of six integers:
//! allowed, limit, remaining, retry_after, reset_after, next_after (times in milliseconds). A refusal is an answer, not an
//! error, and leaves no trace; with `STRICT` it counts like a hit. With `WAIT` the client waits in line for its turn: see
//! `wait.rs`.

use limiter::error::{self, Error};
use limiter::syntax::{Call, Strict};

use super::arguments::{CHARGED, COST, KEY, TIER};
use super::charge::charge;
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
            Argument::new(c"strict", ArgumentKind::Token).token(c"STRICT").optional(),
            Argument::new(c"timeout", ArgumentKind::String).token(c"WAIT").optional(),
        ],
        categories: c"write stream fast",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, name, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let mut call = Call::default();
        call.parse(rest.iter().map(|arg| arg.bytes()), Strict::Known)?;
        if call.wait > 0 {
            return wait::hit(server, args, &call);
        }
        let charged = charge(server, *name, &call, server.clock(), None)?;
        server.notify(*name, charged.events)?;
        Ok(Reply::Integers(charged.answer.integers()))
    }
}
