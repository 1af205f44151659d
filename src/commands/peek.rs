//! `RATELIMIT.PEEK key limit window [limit window ...] [COST units] [WITHTIERS]`
//!
//! Answers as `RATELIMIT.HIT` would, and changes nothing. It is read-only, so it works on a replica. `COST 0` describes the log
//! as it is.

use limiter::error::{self, Error};
use limiter::log::Id;
use limiter::syntax::{Asker, Call};
use limiter::usage::Usage;
use redis_module::raw;

use super::arguments::{COST, KEY, TIER, WITHTIERS};
use super::charge::reply;
use crate::server::{Arg, Command, Keys, Mode, Reply, Server, Spec, logs};

pub struct Peek;

impl Command for Peek {
    const SPEC: Spec = Spec {
        name: c"ratelimit.peek",
        flags: c"readonly fast",
        arity: -4,
        keys: Keys::Range { last: 0, flags: raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS },
        summary: c"Tells what RATELIMIT.HIT would answer, and changes nothing.",
        complexity: c"O(log N) for each tier, N being the number of entries in the log",
        args: &[KEY, TIER, COST, WITHTIERS],
        categories: c"read stream fast",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, name, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let mut call = Call::default();
        call.parse(rest.iter().map(|arg| arg.bytes()), Asker::Peek)?;
        let mut log = logs::open(server, *name, Mode::Read)?;
        #[cfg(feature = "planted-panic")]
        {
            // If there is a log, an iterator is running: unwinding must stop it before it closes the key.
            let planted = || assert_ne!(name.bytes(), b"planted-panic");
            limiter::log::Log::walk(&mut log, 0, &mut |_| {
                planted();
                false
            })?;
            planted();
        }
        let mut usage = Usage::new(&call, server.clock(), Id::default());
        usage.read(&mut log)?;
        let (answer, tiers) = usage.peek(&mut log)?;
        logs::close(log);
        Ok(reply(&answer, &tiers))
    }
}
