//! `RATELIMIT.HIT key limit window [limit window ...] [COST units] [STRICT]`
//!
//! May one more hit on `key` happen now, and if so, record it. The reply is an array of six integers: allowed, limit,
//! remaining, retry_after, reset_after, next_after (times in milliseconds). A refusal is an answer, not an error, and
//! leaves no trace; with `STRICT` it counts like a hit.

use redis_module::raw;

use crate::args::{self, Strict};
use crate::error::{self, Error};
use crate::limiter;
use crate::register::{Argument, Command, Keys, Kind, Reply, Spec};
use crate::stream::{Arg, Mode, Server};

pub struct Hit;

/// The arguments that `HIT` and `PEEK` share.
pub const KEY: Argument = Argument::new(c"key", Kind::Key);
pub const TIER: Argument = Argument::new(
    c"tier",
    Kind::Block(&[Argument::new(c"limit", Kind::Integer), Argument::new(c"window", Kind::String)]),
)
.multiple();
pub const COST: Argument = Argument::new(c"units", Kind::Integer).token(c"COST").optional();

impl Command for Hit {
    const SPEC: Spec = Spec {
        name: c"ratelimit.hit",
        flags: c"write deny-oom fast",
        arity: -4,
        keys: Keys { last: 0, flags: raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_UPDATE },
        summary: c"Records a hit if every limit allows it, and tells what is left.",
        complexity: c"O(log N) for each tier, N being the number of entries in the log",
        args: &[KEY, TIER, COST, Argument::new(c"strict", Kind::Token).token(c"STRICT").optional()],
        categories: c"write stream fast",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, name, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let call = args::parse(rest.iter().map(|arg| arg.bytes()), Strict::Known)?;
        let mut key = server.open(*name, Mode::Write)?;
        let clock = server.clock();

        // Twice at most: if the server does not take the entry, because somebody has pushed the stream's last ID ahead,
        // the log is started again.
        for _ in 0..2 {
            let decision = limiter::decide(&mut key, clock, &call)?;
            let done = match decision.write(key.expires()?) {
                Some(write) => key.write(&write)?,
                None => true,
            };
            if done {
                return Ok(Reply::Integers(decision.answer.integers()));
            }
            key.remove()?;
        }
        Err(error::APPEND_FAILED)
    }
}
