//! `RATELIMIT.HIT key limit window [limit window ...] [COST units] [STRICT]`
//!
//! May one more hit on `key` happen now, and if so, record it. The reply is an array of six integers: allowed, limit,
//! remaining, retry_after, reset_after, next_after (times in milliseconds). A refusal is an answer, not an error, and
//! leaves no trace; with `STRICT` it counts like a hit.

use redis_module::raw;

use crate::args::{Call, Strict};
use crate::charge::charge;
use crate::error::{self, Error};
use crate::register::{Argument, Command, Keys, Kind, Reply, Spec};
use crate::stream::{Arg, Server};

pub struct Hit;

/// What happens to the keys of `HIT` and `MHIT`. An answer tells what is in the log, so that a user needs the right to read
/// it as well.
pub const CHARGED: u32 =
    raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_ACCESS | raw::REDISMODULE_CMD_KEY_UPDATE;

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
        keys: Keys::Range { last: 0, flags: CHARGED },
        summary: c"Records a hit if every limit allows it, and tells what is left.",
        complexity: c"O(log N) for each tier, N being the number of entries in the log",
        args: &[KEY, TIER, COST, Argument::new(c"strict", Kind::Token).token(c"STRICT").optional()],
        categories: c"write stream fast",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, name, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let mut call = Call::default();
        call.read(rest.iter().map(|arg| arg.bytes()), Strict::Known)?;
        let charged = charge(server, *name, &call, server.clock(), None)?;
        server.tell(*name, charged.events)?;
        Ok(Reply::Integers(charged.answer.integers()))
    }
}
