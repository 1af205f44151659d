//! `RATELIMIT.PEEK key limit window [limit window ...] [COST units]`
//!
//! Answers as `RATELIMIT.HIT` would, and changes nothing: it is read-only, and works on a replica.

use redis_module::raw;

use crate::args::{Call, Strict};
use crate::error::{self, Error};
use crate::hit;
use crate::limiter::Review;
use crate::register::{Command, Keys, Reply, Spec};
use crate::stream::{Arg, Mode, Server};

pub struct Peek;

impl Command for Peek {
    const SPEC: Spec = Spec {
        name: c"ratelimit.peek",
        flags: c"readonly fast",
        arity: -4,
        keys: Keys::Range { last: 0, flags: raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS },
        summary: c"Tells what RATELIMIT.HIT would answer, and changes nothing.",
        complexity: c"O(log N) for each tier, N being the number of entries in the log",
        args: &[hit::KEY, hit::TIER, hit::COST],
        categories: c"read stream fast",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, name, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let mut call = Call::default();
        call.read(rest.iter().map(|arg| arg.bytes()), Strict::Unknown)?;
        let mut log = server.follow(*name, Mode::Read)?;
        #[cfg(feature = "planted-panic")]
        {
            // Where there is a log, an iterator is running, so that unwinding must stop it before it closes the key.
            let planted = || assert_ne!(name.bytes(), b"planted-panic");
            crate::log::Log::walk(&mut log, 0, &mut |_| {
                planted();
                false
            })?;
            planted();
        }
        let mut review = Review::new(server.clock(), &call);
        review.read(&mut log)?;
        let decision = review.decide(&mut log, review.fits())?;
        server.close(log);
        Ok(Reply::Integers(decision.answer.integers()))
    }
}
