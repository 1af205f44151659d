//! `RATELIMIT.RESET key [key ...]`
//!
//! Deletes the logs of keys and replies how many there were. It deletes only logs, so an ACL can grant it without `DEL`: with
//! any other key among its arguments it is an error and deletes nothing. It leaves empty streams alone.

use limiter::error::{self, Error};
use limiter::log::{Back, Log};
use redis_module::raw;

use super::wait;
use crate::server::{Arg, Argument, ArgumentKind, Command, Key, Keys, Mode, Reply, STATS, Server, Spec};

pub struct Reset;

impl Command for Reset {
    const SPEC: Spec = Spec {
        name: c"ratelimit.reset",
        flags: c"write",
        arity: -2,
        keys: Keys::Range { last: -1, flags: raw::REDISMODULE_CMD_KEY_RM | raw::REDISMODULE_CMD_KEY_DELETE },
        summary: c"Forgets the hits of keys.",
        complexity: c"O(N) where N is the number of keys; their memory is freed in the background",
        args: &[Argument::new(c"key", ArgumentKind::Key).multiple()],
        categories: c"write stream slow",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, names @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let exist = Key::which_exist(server, names)?;
        let existing = || names.iter().zip(&exist).filter(|(_, exists)| **exists).map(|(name, _)| *name);
        for name in existing() {
            Key::open(server, name, Mode::Write)?.read_back(&mut |_, _| Back::Stop)?;
        }
        let mut events = Vec::with_capacity(names.len());
        for name in existing() {
            let mut key = Key::open(server, name, Mode::Write)?;
            // An empty stream may not be a log but a drained queue, with its consumer groups.
            if key.length() > 0 {
                key.remove()?;
            }
            events.push((name, key.events));
        }
        let existed = events.iter().filter(|(_, events)| !events.is_empty()).count() as u64;
        STATS.keys_reset.add(existed);
        for (name, _) in &events {
            wait::wake(server, *name)?;
        }
        for (name, events) in events {
            server.notify(name, events)?;
        }
        Ok(Reply::Integer(i64::try_from(existed).unwrap_or(i64::MAX)))
    }
}
