//! Sends the keyspace events of our commands. The module hears none, so it costs other commands nothing.

use std::ffi::{CStr, c_int};

use limiter::error::Error;
use redis_module::raw;

use super::api::api;
use super::context::{Arg, Server};

/// What a command did to a key. The events are sent when all is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u8);

impl Events {
    pub const DEL: Self = Self(1);
    pub const XADD: Self = Self(1 << 1);
    pub const XTRIM: Self = Self(1 << 2);
    pub const EXPIRE: Self = Self(1 << 3);
    pub const REFUSED: Self = Self(1 << 4);

    pub fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The events as the server's own commands send them, in the order in which they are sent.
static NAMES: [(Events, c_int, &CStr); 5] = [
    (Events::DEL, raw::REDISMODULE_NOTIFY_GENERIC, c"del"),
    (Events::XADD, raw::REDISMODULE_NOTIFY_STREAM, c"xadd"),
    (Events::XTRIM, raw::REDISMODULE_NOTIFY_STREAM, c"xtrim"),
    (Events::EXPIRE, raw::REDISMODULE_NOTIFY_GENERIC, c"expire"),
    (Events::REFUSED, raw::REDISMODULE_NOTIFY_MODULE, c"ratelimit.refused"),
];

impl Server<'_> {
    /// Sends the events of a key. Other modules may do anything to any key before this returns.
    pub fn notify(self, name: Arg, events: Events) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        for (event, class, text) in &NAMES {
            if events.0 & event.0 != 0 {
                // SAFETY: context and name belong to the running command.
                unsafe {
                    api(raw::RedisModule_NotifyKeyspaceEvent)?(self.ctx(), *class, text.as_ptr(), name.as_raw());
                }
            }
        }
        Ok(())
    }

    /// Whether the server sends module events at all.
    pub fn sends_module_events(self) -> Result<bool, Error> {
        // SAFETY: the function takes nothing and only reads the configuration.
        let classes = unsafe { api(raw::RedisModule_GetNotifyKeyspaceEvents)?() };
        Ok(classes & raw::REDISMODULE_NOTIFY_MODULE != 0)
    }
}
