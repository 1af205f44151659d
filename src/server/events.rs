//! Keyspace events: sends those of our commands, and listens to those of others.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use limiter::cursors::Table;
use limiter::error::Error;
use redis_module::{Context, raw};

use super::api::{OK, api};
use super::context::{Arg, Server};
use super::shared::CURSORS;
use super::strings::bytes_of;

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

/// The events as the server's own commands send them, in the order in which they are sent. Listeners get the same pointer to
/// the name, so ours recognises its own events by it: nobody else has these pointers.
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

/// How many events of others were heard. 0 if the module does not listen; then nobody knows.
static HEARD: AtomicU64 = AtomicU64::new(0);

/// How many events of others were heard so far. None if the module does not listen.
pub fn heard() -> Option<u64> {
    Some(HEARD.load(Relaxed)).filter(|heard| *heard > 0)
}

/// Whether no event was heard since then. False if nobody knows.
pub fn none_since(before: Option<u64>) -> bool {
    before.is_some() && before == heard()
}

/// Subscribes to everything that can change a log without its cursor. None if the server does not allow it.
pub fn subscribe(ctx: &Context) -> Option<()> {
    const KEYS: c_int = raw::REDISMODULE_NOTIFY_GENERIC
        | raw::REDISMODULE_NOTIFY_STREAM
        | raw::REDISMODULE_NOTIFY_EXPIRED
        | raw::REDISMODULE_NOTIFY_EVICTED;
    const MANY_KEYS: [u64; 5] = [
        raw::REDISMODULE_EVENT_FLUSHDB,
        raw::REDISMODULE_EVENT_SWAPDB,
        raw::REDISMODULE_EVENT_LOADING,
        raw::REDISMODULE_EVENT_REPL_ASYNC_LOAD,
        raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
    ];
    // Redis 8.4 and later delete the keys of slots that moved away as a whole (CLUSTER MIGRATION) without an event for each.
    // On Valkey 9.0 and later the same number means that such a move begins or ends.
    const SLOTS_HAVE_MOVED: u64 = 19;
    // SAFETY: the context is that of the module that is being loaded.
    unsafe {
        let to_keys = raw::RedisModule_SubscribeToKeyspaceEvents?;
        let to_server = raw::RedisModule_SubscribeToServerEvent?;
        let subscribed = to_keys(ctx.ctx, KEYS, Some(on_key_event)) == OK
            && MANY_KEYS.into_iter().all(|id| {
                let event = raw::RedisModuleEvent { id, dataver: 1 };
                to_server(ctx.ctx, event, Some(on_server_event)) == OK
            });
        if !subscribed {
            return None;
        }
        // Servers that move slots key by key do not have this event.
        let event = raw::RedisModuleEvent { id: SLOTS_HAVE_MOVED, dataver: 1 };
        to_server(ctx.ctx, event, Some(on_server_event));
        HEARD.store(1, Relaxed);
        Some(())
    }
}

/// Hears of every change to a key, including our own.
///
/// # Safety
/// Called by the server alone, with the context, the name and the key of an event.
unsafe extern "C" fn on_key_event(
    ctx: *mut raw::RedisModuleCtx,
    _: c_int,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        if NAMES.iter().any(|(.., name)| name.as_ptr() == event) {
            return;
        }
        HEARD.store(HEARD.load(Relaxed).wrapping_add(1).max(1), Relaxed);
        // SAFETY: the context and the string are those of the event, and live until it is over.
        unsafe {
            let database = raw::RedisModule_GetSelectedDb.map_or(0, |database| database(ctx));
            CURSORS.with(|table| table.forget(database, bytes_of(key)));
        }
    }));
    OK
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn on_server_event(_: *mut raw::RedisModuleCtx, _: raw::RedisModuleEvent, _: u64, _: *mut c_void) {
    let _ = catch_unwind(|| CURSORS.with(Table::forget_all));
}
