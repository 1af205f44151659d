//! Loading: what the module refuses, registers, and tells the server about itself.
//!
//! redis-module-macros is not used. Tried on every server:
//! * `#[command]` does not load on Redis 7.0.
//! * Handlers of server events (`#[cron_event_handler]` and the like) subscribe before `init` runs. Redis 7.0 keeps the
//!   subscriptions of a module whose load fails: after `MODULE LOAD` with an unknown argument, the next event ended the server.
//!   Here, subscribing comes after everything that can fail.
//! * `#[info_command_handler]` shows the same section, but makes the crate add its own backtrace to crash reports. That takes
//!   0.2 to 0.35 s in the crash handler and allocates, perhaps on a broken heap. `InfoSection` renames the section.

use std::ffi::{CStr, c_int};
use std::io::{Error as SystemError, ErrorKind};

use redis_module::{Context, RedisString, RedisValue, Status, raw};

use super::api::{self, OK};
use super::command::Command;
use super::{command_info, info, settings, unload};

/// The module's own ACL category.
const CATEGORY: &CStr = c"ratelimit";

const NOT_ACCEPTED: &str = "the server did not accept a part of ratelimit, see the line above";

/// The module while it is being loaded. An error ends loading; its text is a line for the server's log.
pub struct Loader<'c> {
    ctx: &'c Context,
    /// The server knows the module's ACL category.
    has_category: bool,
}

impl<'c> Loader<'c> {
    /// Refuses what cannot work.
    pub fn new(ctx: &'c Context, args: &[RedisString]) -> Result<Self, &'static str> {
        if !args.is_empty() {
            return Err("ratelimit takes no arguments at load, settings are ratelimit.* in the configuration");
        }
        // First, because the crate panics where a function is missing that it needs.
        if api::missing().is_some() || !set_options(ctx) {
            return Err("ratelimit needs Redis 7.0 or Valkey 7.2 or later");
        }
        if replicated_commands_are_renamed(ctx) {
            return Err("ratelimit replicates by XADD, XDEL, PEXPIREAT and UNLINK, which must not be renamed");
        }
        Ok(Self { ctx, has_category: add_category(ctx) })
    }

    /// Registers a command.
    pub fn command<C: Command>(&self) -> Result<(), &'static str> {
        let category = self.has_category.then_some(CATEGORY);
        command_info::register::<C>(self.ctx, category).ok_or(NOT_ACCEPTED)
    }

    /// Registers everything else.
    pub fn finish(&self) -> Result<(), &'static str> {
        settings::register(self.ctx).ok_or(NOT_ACCEPTED)?;
        // Nothing fails from here on: Redis 7.0 would keep calling what has subscribed.
        info::register(self.ctx).ok_or(NOT_ACCEPTED)?;
        unload::watch(self.ctx).ok_or(NOT_ACCEPTED)
    }
}

/// Tells the server how the module behaves. False if it cannot.
fn set_options(ctx: &Context) -> bool {
    // Closing a key that was only read must not count as a change. And a replica may keep answering while it loads another
    // data set: what is known of a log is checked against the log.
    let options = raw::REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED | raw::REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD;
    // SAFETY: the pointer is copied; the context is that of the module that is being loaded.
    unsafe {
        let Some(set_options) = raw::RedisModule_SetModuleOptions else {
            return false;
        };
        set_options(ctx.ctx, options as c_int | options_of_valkey(ctx));
    }
    true
}

/// Adds the module's ACL category, if the server can (Redis 7.4, Valkey 8 and later). Servers keep the category of a module that
/// they took out again, as after a failed MODULE LOADEX.
fn add_category(ctx: &Context) -> bool {
    // SAFETY: the context is that of the module that is being loaded, and the server copies the name.
    unsafe {
        raw::RedisModule_AddACLCategory.is_some_and(|add| {
            let is_new = add(ctx.ctx, CATEGORY.as_ptr()) == OK;
            is_new || SystemError::last_os_error().kind() == ErrorKind::ResourceBusy
        })
    }
}

/// Options for Valkey only: on Redis the bits may mean something else.
///
/// Slots may move as a whole (CLUSTER MIGRATESLOTS). One module without this option forbids that for the whole server. The
/// module keeps nothing that must be told of keys that arrive or leave. On Redis, CLUSTER MIGRATION needs no option.
///
/// The server need not look up the commands we replicate each time, which is 7 % of the instructions of a hit on Valkey 9.1.2.
/// We know what we replicate, see [`REPLICATED`].
fn options_of_valkey(ctx: &Context) -> c_int {
    const SKIP_COMMAND_VALIDATION: c_int = 1 << 4;
    const HANDLE_ATOMIC_SLOT_MIGRATION: c_int = 1 << 5;
    // SAFETY: the pointer is copied; the function takes nothing.
    let known = unsafe { raw::RedisModule_GetModuleOptionsAll.map_or(0, |all| all()) };
    match valkey_version(ctx) {
        Some(_) => known & (SKIP_COMMAND_VALIDATION | HANDLE_ATOMIC_SLOT_MIGRATION),
        None => 0,
    }
}

/// The commands with which this module replicates what it did.
const REPLICATED: [&str; 4] = ["XADD", "XDEL", "PEXPIREAT", "UNLINK"];

/// If they have other names, nothing would reach replicas, or an append-only file that can be read again.
fn replicated_commands_are_renamed(ctx: &Context) -> bool {
    let mut args = vec!["INFO"];
    args.extend(REPLICATED);
    // This cannot be known if COMMAND itself is renamed.
    match ctx.call("COMMAND", args.as_slice()) {
        Ok(RedisValue::Array(known)) => known.iter().any(|command| matches!(command, RedisValue::Null)),
        _ => false,
    }
}

/// None on Redis.
fn valkey_version(ctx: &Context) -> Option<[u32; 3]> {
    // SAFETY: the context is that of the module that is being loaded; the text lives until the data are freed, which is once.
    unsafe {
        let data = raw::RedisModule_GetServerInfo?(ctx.ctx, c"server".as_ptr());
        let text = raw::RedisModule_ServerInfoGetFieldC?(data, c"valkey_version".as_ptr());
        let version = match text.is_null() {
            true => None,
            false => version_of(CStr::from_ptr(text)),
        };
        raw::RedisModule_FreeServerInfo?(ctx.ctx, data);
        version
    }
}

/// Reads `9.1.2`.
fn version_of(text: &CStr) -> Option<[u32; 3]> {
    let mut parts = text.to_str().ok()?.splitn(3, '.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

/// Ends loading, or an attempt to unload. The reason, if there is one, goes to the server's log.
pub fn outcome(ctx: &Context, result: Result<(), &'static str>) -> Status {
    match result {
        Ok(()) => Status::Ok,
        Err(reason) => {
            // The server uses the line as a printf format; it is one of our constants, without a `%`.
            ctx.log_warning(reason);
            Status::Err
        }
    }
}
