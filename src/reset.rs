//! `RATELIMIT.RESET key [key ...]`
//!
//! Forgets the hits of keys and replies how many of them existed. It deletes logs only, so that an ACL can grant it
//! without `DEL`: with any other key among its arguments it is an error and deletes nothing.

use redis_module::raw;

use crate::error::{self, Error};
use crate::log::Log;
use crate::register::{Argument, Command, Keys, Kind, Reply, Spec};
use crate::stats::STATS;
use crate::stream::{Arg, Mode, Server};

pub struct Reset;

impl Command for Reset {
    const SPEC: Spec = Spec {
        name: c"ratelimit.reset",
        flags: c"write",
        arity: -2,
        keys: Keys::Range { last: -1, flags: raw::REDISMODULE_CMD_KEY_RM | raw::REDISMODULE_CMD_KEY_DELETE },
        summary: c"Forgets the hits of keys.",
        complexity: c"O(N) where N is the number of keys; their memory is freed in the background",
        args: &[Argument::new(c"key", Kind::Key).multiple()],
        categories: c"write stream",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, names @ ..] = args else {
            return Err(error::SYNTAX);
        };
        for name in names {
            server.open(*name, Mode::Read)?.newest()?;
        }
        let mut existed = 0_i64;
        for name in names {
            let mut key = server.open(*name, Mode::Write)?;
            if key.exists()? {
                key.remove()?;
                existed = existed.saturating_add(1);
            }
        }
        STATS.keys_reset.add(existed.unsigned_abs());
        Ok(Reply::Integer(existed))
    }
}
