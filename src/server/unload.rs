//! Unloading, which is refused.
//!
//! Servers look up commands long before they run them, keep them in queues, threads and ACL users, and read them when the
//! module is gone. No module can see all of these places. So unloading is refused once commands can have run.
//!
//! Until the load is over, unloading must be allowed: if MODULE LOADEX names an unknown setting, the server takes the module
//! out again, and Redis 8 ends if that fails. Nothing announces this; it happens between the load and the next command. So a
//! command filter waits for that command.

use std::ffi::c_void;
use std::panic::catch_unwind;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};

use redis_module::{Context, raw};

use super::api::OK;
use super::blocking;
use super::context::Server;
use super::shared::{CURSORS, REFUSALS};

const STAYS: &str = "ratelimit is never unloaded: queues, I/O threads and ACL users may still hold its commands, and the server would \
    read freed memory. To upgrade, restart the server with the new file, or load it on a replica and fail over to that";

/// Whether the load of this module is over.
static IS_LOADED: AtomicBool = AtomicBool::new(false);

/// The filter that waits for the first command after the load.
static FILTER: AtomicPtr<raw::RedisModuleCommandFilter> = AtomicPtr::new(null_mut());

/// Allowed before the first command after the load, refused from then on. An error is a line for the server's log.
pub fn unload() -> Result<(), &'static str> {
    if IS_LOADED.load(Relaxed) {
        return Err(STAYS);
    }
    CURSORS.with(|table| table.resize(0));
    REFUSALS.with(|table| table.resize(0));
    Ok(())
}

/// Waits for the first command after the load. None if the server does not allow it.
pub fn watch(ctx: &Context) -> Option<()> {
    // SAFETY: the context is that of the module that is being loaded.
    let subscribed = unsafe {
        let register = raw::RedisModule_RegisterCommandFilter?;
        let to_server = raw::RedisModule_SubscribeToServerEvent?;
        FILTER.store(register(ctx.ctx, Some(on_command), 0), Relaxed);
        let event = raw::RedisModuleEvent { id: raw::REDISMODULE_EVENT_CRON_LOOP, dataver: 1 };
        to_server(ctx.ctx, event, Some(on_tick))
    };
    (subscribed == OK).then_some(())
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn on_command(_: *mut raw::RedisModuleCommandFilterCtx) {
    IS_LOADED.store(true, Relaxed);
}

/// Removes the filter within a tenth of a second, so other commands do not pay for it. The filter cannot do this itself,
/// because it gets no context.
///
/// # Safety
/// Called by the server alone, with a context of this module.
unsafe extern "C" fn on_tick(ctx: *mut raw::RedisModuleCtx, _: raw::RedisModuleEvent, _: u64, _: *mut c_void) {
    // SAFETY: the context is that of this event.
    let _ = catch_unwind(|| blocking::tick(unsafe { Server::new(ctx) }));
    let filter = FILTER.swap(null_mut(), Relaxed);
    if !filter.is_null() {
        IS_LOADED.store(true, Relaxed);
        // SAFETY: the context is as promised; the filter is registered, and is removed once.
        unsafe {
            if let Some(unregister) = raw::RedisModule_UnregisterCommandFilter {
                unregister(ctx, filter);
            }
        }
    }
}
