//! Registration: what the module does when it is loaded, and the one way by which a command is entered and left.
//!
//! Commands are not registered in the table of `redis_module!`, which copies every argument into a vector of retained strings:
//! that alone costs more than the rest of a refused hit.
//!
//! Nothing of redis-module-macros is used. It was tried on every server:
//! * `#[command]` does not load on Redis 7.0.
//! * Handlers of server events (`#[cron_event_handler]` and the like) are subscribed before `init` runs. Redis 7.0 keeps the
//!   subscriptions of a module whose load fails: after `MODULE LOAD` with an unknown argument the next event ended the server.
//!   Here subscribing comes after all that can fail. And there is no handler for SWAPDB or for another data set.
//! * `#[info_command_handler]` shows the same section, but makes the crate put a backtrace of its own into crash reports: 0.2 to
//!   0.35 s in the handler of the crash, in which it allocates, perhaps on a broken heap. `InfoSection` renames the section.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_longlong, c_void};
use std::io::{Error as SystemError, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};

use redis_module::{Context, RedisString, RedisValue, Status, raw};

use crate::args;
use crate::cursors::Table;
use crate::error::{self, Error};
use crate::stats::STATS;
use crate::stream::{Arg, CURSORS, OFFENDERS, Server, heard, missing_api};

const OK: c_int = raw::REDISMODULE_OK as c_int;

/// One command of the module.
pub trait Command {
    const SPEC: Spec;

    /// `args` begins with the command's name and is as long as [`Spec::arity`] demands.
    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error>;
}

/// What the server and `COMMAND DOCS` are told of a command.
pub struct Spec {
    pub name: &'static CStr,
    /// As for `RedisModule_CreateCommand`.
    pub flags: &'static CStr,
    /// Number of arguments with the name; negative for "at least".
    pub arity: c_int,
    pub keys: Keys,
    pub summary: &'static CStr,
    pub complexity: &'static CStr,
    pub args: &'static [Argument],
    /// ACL categories beyond those that follow from the flags, where the server can set them (7.2).
    pub categories: &'static CStr,
}

/// Which arguments of a command are keys. `flags` are `REDISMODULE_CMD_KEY_*`.
#[derive(Clone, Copy)]
pub enum Keys {
    None,
    /// From the first argument to `last`, counted from there; -1 is the last argument.
    Range {
        last: c_int,
        flags: u32,
    },
    /// As many as the first argument says, side by side after it. (Servers up to Redis 8.2 and Valkey 8.1 lose keys that
    /// have anything else between them, and with them ACL and cluster checks.) Needs the flag `getkeys-api`: ACLs and
    /// `COMMAND GETKEYS` go by the key spec, but a node of a cluster asks the command itself.
    Counted {
        flags: u32,
    },
}

/// One node of a command's argument tree.
pub struct Argument {
    pub name: &'static CStr,
    pub kind: Kind,
    /// A word that stands before the value, or for itself.
    pub token: Option<&'static CStr>,
    /// `REDISMODULE_CMD_ARG_*`.
    pub flags: u32,
}

pub enum Kind {
    Key,
    Integer,
    String,
    Token,
    Block(&'static [Argument]),
}

impl Argument {
    pub const fn new(name: &'static CStr, kind: Kind) -> Self {
        Self { name, kind, token: None, flags: raw::REDISMODULE_CMD_ARG_NONE }
    }

    pub const fn optional(self) -> Self {
        let flags = self.flags | raw::REDISMODULE_CMD_ARG_OPTIONAL;
        Self { flags, ..self }
    }

    pub const fn multiple(self) -> Self {
        let flags = self.flags | raw::REDISMODULE_CMD_ARG_MULTIPLE;
        Self { flags, ..self }
    }

    pub const fn token(self, token: &'static CStr) -> Self {
        Self { token: Some(token), ..self }
    }
}

/// A reply, complete before any of it is sent.
pub enum Reply {
    Ok,
    Integer(i64),
    Text(Box<[u8]>),
    Integers([i64; 6]),
    Array(Vec<Reply>),
}

/// A command as the server calls it.
///
/// # Safety
/// Called by the server alone, with `argc` strings at `argv` that live until the function returns.
unsafe extern "C" fn enter<C: Command>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: `Arg` is a transparent wrapper of a pointer to a string, and the server promises `argc` of them.
    let args = unsafe { std::slice::from_raw_parts(argv.cast::<Arg>(), usize::try_from(argc).unwrap_or(0)) };
    if let Keys::Counted { flags } = C::SPEC.keys {
        // SAFETY: the context is that of this command.
        if unsafe { asks_for_keys(ctx, args, flags) } {
            return OK;
        }
    }
    // SAFETY: the context is that of this command.
    let server = unsafe { Server::new(ctx) };
    // A panic must not cross into the server, which it would end. None is known to be reachable.
    let outcome = catch_unwind(AssertUnwindSafe(|| C::run(server, args)));
    // SAFETY: the context is that of this command; the server copies error texts.
    unsafe {
        match outcome.unwrap_or(Err(error::INTERNAL)) {
            Ok(reply) => send(ctx, &reply),
            Err(error) => {
                if error == error::NOT_A_LOG {
                    STATS.foreign_stream_errors.add(1);
                }
                if let Some(reply_with_error) = raw::RedisModule_ReplyWithError {
                    reply_with_error(ctx, error.0.as_ptr());
                }
            }
        }
    }
    OK
}

/// Where the call is only the question which of its arguments are keys: answers that. Arguments that are in error have
/// none, and the command itself will say why.
///
/// # Safety
/// `ctx` is the context of the running command.
unsafe fn asks_for_keys(ctx: *mut raw::RedisModuleCtx, args: &[Arg], flags: u32) -> bool {
    // SAFETY: the context is as promised by the caller, and a position may be told while the question is asked. Both
    // functions are checked at load.
    unsafe {
        let (Some(is_asked), Some(tell)) = (raw::RedisModule_IsKeysPositionRequest, raw::RedisModule_KeyAtPosWithFlags)
        else {
            return false;
        };
        if is_asked(ctx) == 0 {
            return false;
        }
        if let [_, numkeys, rest @ ..] = args {
            let keys = args::number_of_keys(numkeys.bytes(), rest.len()).unwrap_or(0);
            for position in (2..).take(keys) {
                tell(ctx, position, flags as c_int);
            }
        }
        true
    }
}

/// # Safety
/// `ctx` is the context of the running command.
unsafe fn send(ctx: *mut raw::RedisModuleCtx, reply: &Reply) {
    // SAFETY: the context is as promised by the caller, the server copies bytes, and an array's length is that of what
    // follows it. The functions are checked at load.
    unsafe {
        let (Some(array), Some(integer), Some(bytes), Some(status)) = (
            raw::RedisModule_ReplyWithArray,
            raw::RedisModule_ReplyWithLongLong,
            raw::RedisModule_ReplyWithStringBuffer,
            raw::RedisModule_ReplyWithSimpleString,
        ) else {
            return;
        };
        match reply {
            Reply::Ok => _ = status(ctx, c"OK".as_ptr()),
            Reply::Integer(value) => _ = integer(ctx, *value),
            Reply::Text(text) => _ = bytes(ctx, text.as_ptr().cast(), text.len()),
            Reply::Integers(values) => {
                array(ctx, 6);
                for value in values {
                    integer(ctx, *value);
                }
            }
            Reply::Array(items) => {
                array(ctx, c_long::try_from(items.len()).unwrap_or(0));
                for item in items {
                    send(ctx, item);
                }
            }
        }
    }
}

/// The module while it is being loaded. An error is a line for the server's log, and ends loading.
pub struct Loader<'c> {
    ctx: &'c Context,
    /// The server knows the ACL category of the module.
    has_category: bool,
}

const REFUSED: &str = "the server did not accept a part of ratelimit, see the line above";

impl<'c> Loader<'c> {
    /// Refuses what cannot work.
    pub fn new(ctx: &'c Context, args: &[RedisString]) -> Result<Self, &'static str> {
        if !args.is_empty() {
            return Err("ratelimit takes no arguments at load, settings are ratelimit.* in the configuration");
        }
        if replicated_commands_are_renamed(ctx) {
            return Err("ratelimit replicates by XADD, PEXPIREAT and UNLINK, which must not be renamed");
        }
        // SAFETY: the pointers are set before the module's load function runs; they are copied, not borrowed. The context
        // is that of the module that is being loaded, and the server copies the category's name.
        let has_category = unsafe {
            let needed = (
                raw::RedisModule_SetModuleOptions,
                raw::RedisModule_SetCommandInfo,
                raw::RedisModule_RegisterNumericConfig,
                raw::RedisModule_ReplyWithError,
                (raw::RedisModule_ReplyWithArray, raw::RedisModule_ReplyWithLongLong),
                (raw::RedisModule_ReplyWithStringBuffer, raw::RedisModule_ReplyWithSimpleString),
                (raw::RedisModule_IsKeysPositionRequest, raw::RedisModule_KeyAtPosWithFlags),
                missing_api(),
            );
            let (
                Some(set_options),
                Some(_),
                Some(_),
                Some(_),
                (Some(_), Some(_)),
                (Some(_), Some(_)),
                (Some(_), Some(_)),
                None,
            ) = needed
            else {
                return Err("ratelimit needs Redis 7.0 or Valkey 7.2 or later");
            };
            // A key that is only read must not count as changed when it is closed. And a replica may go on answering while it
            // loads another data set: the table of cursors hears of the exchange.
            let options =
                raw::REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED | raw::REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD;
            set_options(ctx.ctx, options as c_int | options_of_valkey(ctx));
            // Absent before Redis 7.4 and Valkey 8. Servers keep the category of a module that they took out again, as after
            // a failed MODULE LOADEX.
            raw::RedisModule_AddACLCategory.is_some_and(|add| {
                let is_new = add(ctx.ctx, c"ratelimit".as_ptr()) == OK;
                is_new || SystemError::last_os_error().kind() == ErrorKind::ResourceBusy
            })
        };
        advise_on_node_size(ctx);
        Ok(Self { ctx, has_category })
    }

    /// Registers one command with everything that the server wants to know of it.
    pub fn command<C: Command>(&self) -> Result<(), &'static str> {
        let Spec { name, flags, arity, keys, summary, complexity, args, categories } = C::SPEC;
        let (first, last, step) = match keys {
            Keys::Range { last, .. } => (1, if last < 0 { last } else { last.saturating_add(1) }, 1),
            // They follow from the arguments.
            Keys::None | Keys::Counted { .. } => (0, 0, 0),
        };
        // SAFETY: the context is that of the module that is being loaded, and the server copies the texts.
        let command = unsafe {
            let create = raw::RedisModule_CreateCommand.ok_or(REFUSED)?;
            if create(self.ctx.ctx, name.as_ptr(), Some(enter::<C>), flags.as_ptr(), first, last, step) != OK {
                return Err(REFUSED);
            }
            raw::RedisModule_GetCommand.ok_or(REFUSED)?(self.ctx.ctx, name.as_ptr())
        };

        let version = raw::RedisModuleCommandInfoVersion {
            version: 1,
            sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
            sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
            sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
        };
        let mut key_specs = [key_spec(keys), key_spec(Keys::None)];
        let mut trees = Vec::new();
        let info = raw::RedisModuleCommandInfo {
            version: &raw const version,
            summary: summary.as_ptr(),
            complexity: complexity.as_ptr(),
            since: SINCE.as_ptr(),
            history: null_mut(),
            tips: null(),
            arity,
            key_specs: key_specs.as_mut_ptr(),
            args: raw_arguments(args, &mut trees),
        };
        // SAFETY: `info` and all it points to outlive the call, lists end with an empty element, and the server copies
        // them.
        if unsafe { raw::RedisModule_SetCommandInfo.ok_or(REFUSED)?(command, &raw const info) } != OK {
            return Err(REFUSED);
        }

        // Absent before 7.2, where the commands of modules have no categories at all.
        // SAFETY: the pointer is copied.
        let Some(set_categories) = (unsafe { raw::RedisModule_SetCommandACLCategories }) else {
            return Ok(());
        };
        let mut all = categories.to_bytes().to_vec();
        if self.has_category {
            all.extend(b" ratelimit");
        }
        let all = CString::new(all).map_err(|_| REFUSED)?;
        // SAFETY: the command is the one just registered; the server only reads the text.
        if unsafe { set_categories(command, all.as_ptr()) } != OK {
            return Err(REFUSED);
        }
        Ok(())
    }

    /// Registers the settings and reads them from the configuration.
    pub fn settings(&self) -> Result<(), &'static str> {
        use crate::{cursors as c, offenders as o};
        self.setting(
            c"top-entries",
            [o::DEFAULT_ENTRIES, o::MIN_ENTRIES, o::MAX_ENTRIES],
            get_top_entries,
            set_top_entries,
        )?;
        self.setting(c"cursors", [c::DEFAULT_CURSORS, c::MIN_CURSORS, c::MAX_CURSORS], get_cursors, set_cursors)?;
        // SAFETY: the context is that of the module that is being loaded.
        match unsafe { raw::RedisModule_LoadConfigs.ok_or(REFUSED)?(self.ctx.ctx) } {
            OK => Ok(()),
            _ => Err(REFUSED),
        }
    }

    fn setting(
        &self,
        name: &'static CStr,
        [default, least, most]: [i64; 3],
        get: unsafe extern "C" fn(*const c_char, *mut c_void) -> c_longlong,
        set: unsafe extern "C" fn(*const c_char, c_longlong, *mut c_void, *mut *mut raw::RedisModuleString) -> c_int,
    ) -> Result<(), &'static str> {
        let flags = raw::REDISMODULE_CONFIG_DEFAULT;
        // SAFETY: the context is that of the module that is being loaded; the server copies the name and checks the range
        // before it calls back.
        let registered = unsafe {
            let register = raw::RedisModule_RegisterNumericConfig.ok_or(REFUSED)?;
            register(self.ctx.ctx, name.as_ptr(), default, flags, least, most, Some(get), Some(set), None, null_mut())
        };
        if registered == OK { Ok(()) } else { Err(REFUSED) }
    }

    /// Subscribes to whatever can change a log behind the back of its cursor.
    pub fn events(&self) -> Result<(), &'static str> {
        if self.events_change_the_database() {
            self.ctx.log_notice(
                "ratelimit: with this version of Valkey, MOVE and COPY would leave clients in another database if a module \
                 heard of them, so that ratelimit.cursors has no effect, and hits are slower; 9.1.2 is not affected",
            );
            CURSORS.with(Table::put_out_of_use);
            return Ok(());
        }
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
        // From Redis 8.4 on the keys of slots that have moved away as a whole (CLUSTER MIGRATION) are deleted, without an event
        // for each. On Valkey from 9.0 on the same number tells that such a move begins or ends.
        const SLOTS_HAVE_MOVED: u64 = 19;
        // SAFETY: the context is that of the module that is being loaded.
        unsafe {
            let to_keys = raw::RedisModule_SubscribeToKeyspaceEvents.ok_or(REFUSED)?;
            let to_server = raw::RedisModule_SubscribeToServerEvent.ok_or(REFUSED)?;
            let subscribed = to_keys(self.ctx.ctx, KEYS, Some(key_has_changed)) == OK
                && MANY_KEYS.into_iter().all(|id| {
                    let event = raw::RedisModuleEvent { id, dataver: 1 };
                    to_server(self.ctx.ctx, event, Some(keys_have_changed)) == OK
                });
            // Not an event of servers that move slots key by key.
            let event = raw::RedisModuleEvent { id: SLOTS_HAVE_MOVED, dataver: 1 };
            to_server(self.ctx.ctx, event, Some(keys_have_changed));
            if subscribed { Ok(()) } else { Err(REFUSED) }
        }
    }

    /// A fault of Valkey from 8.1.0 on: an event on a key of another database than the client's, as MOVE and COPY send them,
    /// selects that database for the client if any module listens (valkey-io/valkey pull request 4024).
    fn events_change_the_database(&self) -> bool {
        const FIRST: [u32; 3] = [8, 1, 0];
        const MENDED: [u32; 3] = [9, 1, 2];
        let version = valkey_version(self.ctx);
        version.is_some_and(|version| (FIRST..MENDED).contains(&version))
    }

    /// Finds out when loading has ended, see [`unload`].
    pub fn end(&self) -> Result<(), &'static str> {
        // SAFETY: the context is that of the module that is being loaded.
        unsafe {
            let register = raw::RedisModule_RegisterCommandFilter.ok_or(REFUSED)?;
            let to_server = raw::RedisModule_SubscribeToServerEvent.ok_or(REFUSED)?;
            FILTER.store(register(self.ctx.ctx, Some(a_command_begins), 0), Relaxed);
            let event = raw::RedisModuleEvent { id: raw::REDISMODULE_EVENT_CRON_LOOP, dataver: 1 };
            if to_server(self.ctx.ctx, event, Some(tick)) == OK { Ok(()) } else { Err(REFUSED) }
        }
    }

    /// Registers the section of INFO.
    pub fn info(&self) -> Result<(), &'static str> {
        // SAFETY: the context is that of the module that is being loaded.
        unsafe {
            let register = raw::RedisModule_RegisterInfoFunc.ok_or(REFUSED)?;
            if register(self.ctx.ctx, Some(write_info)) != OK {
                return Err(REFUSED);
            }
        }
        Ok(())
    }
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn get_top_entries(_: *const c_char, _: *mut c_void) -> c_longlong {
    let entries = catch_unwind(|| OFFENDERS.with(|offenders| offenders.entries()));
    c_longlong::try_from(entries.ok().flatten().unwrap_or(0)).unwrap_or(c_longlong::MAX)
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn set_top_entries(
    _: *const c_char,
    entries: c_longlong,
    _: *mut c_void,
    _: *mut *mut raw::RedisModuleString,
) -> c_int {
    let entries = usize::try_from(entries).unwrap_or(0);
    match catch_unwind(|| OFFENDERS.with(|offenders| offenders.resize(entries))) {
        Ok(Some(())) => OK,
        _ => raw::REDISMODULE_ERR as c_int,
    }
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn get_cursors(_: *const c_char, _: *mut c_void) -> c_longlong {
    let cursors = catch_unwind(|| CURSORS.with(|table| table.cursors()));
    c_longlong::try_from(cursors.ok().flatten().unwrap_or(0)).unwrap_or(c_longlong::MAX)
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn set_cursors(
    _: *const c_char,
    cursors: c_longlong,
    _: *mut c_void,
    _: *mut *mut raw::RedisModuleString,
) -> c_int {
    let cursors = usize::try_from(cursors).unwrap_or(0);
    match catch_unwind(|| CURSORS.with(|table| table.resize(cursors))) {
        Ok(Some(())) => OK,
        _ => raw::REDISMODULE_ERR as c_int,
    }
}

/// # Safety
/// Called by the server alone, with the context, the name and the key of an event.
unsafe extern "C" fn key_has_changed(
    ctx: *mut raw::RedisModuleCtx,
    _: c_int,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: all three are as promised.
    let _ = catch_unwind(AssertUnwindSafe(|| unsafe { heard(ctx, event, key) }));
    OK
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn keys_have_changed(_: *mut raw::RedisModuleCtx, _: raw::RedisModuleEvent, _: u64, _: *mut c_void) {
    let _ = catch_unwind(|| CURSORS.with(Table::forget_all));
}

/// Whether the load of this module is over.
static IS_LOADED: AtomicBool = AtomicBool::new(false);

/// The filter that waits for the first command after the load.
static FILTER: AtomicPtr<raw::RedisModuleCommandFilter> = AtomicPtr::new(null_mut());

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn a_command_begins(_: *mut raw::RedisModuleCommandFilterCtx) {
    IS_LOADED.store(true, Relaxed);
}

/// Takes the filter away, within a tenth of a second, so that other commands do not pay for it: a filter is given no context to
/// do so itself.
///
/// # Safety
/// Called by the server alone, with a context of this module.
unsafe extern "C" fn tick(ctx: *mut raw::RedisModuleCtx, _: raw::RedisModuleEvent, _: u64, _: *mut c_void) {
    let filter = FILTER.swap(null_mut(), Relaxed);
    if !filter.is_null() {
        IS_LOADED.store(true, Relaxed);
        // SAFETY: the context is as promised; the filter is registered, and is taken away once.
        unsafe {
            if let Some(unregister) = raw::RedisModule_UnregisterCommandFilter {
                unregister(ctx, filter);
            }
        }
    }
}

const STAYS: &str = "ratelimit is never unloaded: queues, I/O threads and ACL users may still hold its commands, and the server would \
    read freed memory. To upgrade, restart the server with the new file, or load it on a replica and fail over to that";

/// Refused once commands can have run: servers look commands up long before they run them, keep them in queues, in threads and
/// in ACL users, and read them when the module is gone. No module can see all of these places.
///
/// Until the load is over it must not be refused: a server takes a module out again whose MODULE LOADEX names a setting that
/// does not exist, and Redis 8 ends if that fails. This comes without any sign, between the load and the next command; hence
/// the filter.
pub fn unload() -> Result<(), &'static str> {
    if IS_LOADED.load(Relaxed) {
        return Err(STAYS);
    }
    CURSORS.with(|table| table.resize(0));
    OFFENDERS.with(|offenders| offenders.resize(0));
    Ok(())
}

fn bytes_of_reply(reply: RedisValue) -> Option<Vec<u8>> {
    match reply {
        RedisValue::SimpleString(text) | RedisValue::BulkString(text) => Some(text.into_bytes()),
        RedisValue::StringBuffer(bytes) => Some(bytes),
        RedisValue::BulkRedisString(string) => Some(string.as_slice().to_vec()),
        _ => None,
    }
}

/// Writes `INFO ratelimit`, also in a crash report: it takes no lock and allocates nothing.
///
/// # Safety
/// Called by the server alone, with the context of the section.
unsafe extern "C" fn write_info(ctx: *mut raw::RedisModuleInfoCtx, _: c_int) {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    // SAFETY: the context is as promised; a section without a name has the module's; the server copies names and texts.
    unsafe {
        let (Some(section), Some(text), Some(number)) = (
            raw::RedisModule_InfoAddSection,
            raw::RedisModule_InfoAddFieldCString,
            raw::RedisModule_InfoAddFieldULongLong,
        ) else {
            return;
        };
        section(ctx, null());
        text(ctx, c"version".as_ptr(), VERSION.as_ptr().cast());
        for (name, value) in STATS.counters() {
            number(ctx, name.as_ptr(), value);
        }
    }
}

/// Who runs on the server's default should know what it costs.
fn advise_on_node_size(ctx: &Context) {
    let Ok(RedisValue::Array(mut pair)) = ctx.call("CONFIG", &["GET", "stream-node-max-bytes"]) else {
        return;
    };
    if pair.pop().and_then(bytes_of_reply).is_some_and(|value| value == b"4096") {
        ctx.log_notice(
            "ratelimit: a key of one hit takes more than 4 kB at the default of stream-node-max-bytes, and less than \
             1 kB with 512",
        );
    }
}

/// Options of Valkey alone: Redis may give the bits another meaning.
///
/// Slots may move as a whole (CLUSTER MIGRATESLOTS), which one module that does not say so forbids to all of the server. Keys
/// that arrive or leave in this way are heard of like any others. On Redis CLUSTER MIGRATION asks for no option; it deletes
/// what has left without a word, but what comes, or comes back, is restored, and that is heard.
///
/// The names of commands that are replicated need not be looked up each time: 7 % of the instructions of a hit on Valkey 9.1.2.
/// What is replicated is known, see [`REPLICATED`].
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

/// The commands by which this module replicates what it did.
const REPLICATED: [&str; 3] = ["XADD", "PEXPIREAT", "UNLINK"];

/// Where they have other names, nothing would get to replicas, nor to an append-only file that can be read again.
fn replicated_commands_are_renamed(ctx: &Context) -> bool {
    let mut args = vec!["INFO"];
    args.extend(REPLICATED);
    // Where COMMAND itself is renamed that cannot be told.
    match ctx.call("COMMAND", args.as_slice()) {
        Ok(RedisValue::Array(known)) => known.iter().any(|command| matches!(command, RedisValue::Null)),
        _ => false,
    }
}

/// None on Redis.
fn valkey_version(ctx: &Context) -> Option<[u32; 3]> {
    // SAFETY: the context is that of the module that is being loaded; the text lives until the data are freed, once.
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

const SINCE: &CStr = c"0.1.0";

/// The C form of a command's keys. That of no keys ends a list of them.
fn key_spec(keys: Keys) -> raw::RedisModuleCommandKeySpec {
    // SAFETY: a plain C struct of integers, pointers and unions of integers, for which all zeros is a value.
    let mut spec: raw::RedisModuleCommandKeySpec = unsafe { std::mem::zeroed() };
    let (flags, find_keys_type, fk) = match keys {
        Keys::None => return spec,
        Keys::Range { last, flags } => (
            flags,
            raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE,
            raw::RedisModuleCommandKeySpec__bindgen_ty_2 {
                range: raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1 {
                    lastkey: last,
                    keystep: 1,
                    limit: 0,
                },
            },
        ),
        Keys::Counted { flags } => (
            flags,
            raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_KEYNUM,
            raw::RedisModuleCommandKeySpec__bindgen_ty_2 {
                keynum: raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_2 {
                    keynumidx: 0,
                    firstkey: 1,
                    keystep: 1,
                },
            },
        ),
    };
    spec.flags = flags.into();
    spec.begin_search_type = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
    spec.bs.index = raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos: 1 };
    spec.find_keys_type = find_keys_type;
    spec.fk = fk;
    spec
}

/// The C form of an argument tree. `trees` keeps the lists alive.
fn raw_arguments(
    args: &[Argument],
    trees: &mut Vec<Vec<raw::RedisModuleCommandArg>>,
) -> *mut raw::RedisModuleCommandArg {
    let mut list = Vec::new();
    for arg in args {
        let (kind, children): (_, &[Argument]) = match arg.kind {
            Kind::Key => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY, &[]),
            Kind::Integer => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER, &[]),
            Kind::String => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING, &[]),
            Kind::Token => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN, &[]),
            Kind::Block(children) => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_BLOCK, children),
        };
        // A key names the key spec that it belongs to; anything else must name none.
        let key_spec_index = if matches!(arg.kind, Kind::Key) { 0 } else { -1 };
        list.push(raw::RedisModuleCommandArg {
            name: arg.name.as_ptr(),
            type_: kind,
            key_spec_index,
            token: arg.token.map_or(null(), CStr::as_ptr),
            summary: null(),
            since: null(),
            flags: arg.flags as c_int,
            deprecated_since: null(),
            subargs: if children.is_empty() { null_mut() } else { raw_arguments(children, trees) },
            display_text: null(),
        });
    }
    // SAFETY: a plain C struct of integers and pointers; all zeros ends the list.
    list.push(unsafe { std::mem::zeroed() });
    let start = list.as_mut_ptr();
    trees.push(list);
    start
}

/// Ends loading, or an attempt to unload: a reason, if there is one, goes to the server's log.
pub fn outcome(ctx: &Context, result: Result<(), &'static str>) -> Status {
    match result {
        Ok(()) => Status::Ok,
        Err(reason) => {
            // The server takes the line for a printf format; it is one of the constants above, without a `%`.
            ctx.log_warning(reason);
            Status::Err
        }
    }
}
