//! Registration: what the module does when it is loaded, and the one way by which a command is entered and left.
//!
//! Commands are registered through the raw API and not with `#[command]` of redis-module-macros, which does not load on
//! Redis 7.0, nor in the table of `redis_module!`, which copies every argument into a vector of retained strings: that
//! alone costs more than the rest of a refused hit.

use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};

use redis_module::{Context, RedisString, RedisValue, Status, raw};

use crate::error::{self, Error};
use crate::stream::{Arg, Server, missing_api};

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

/// The keys of a command: the arguments from the first to `last`, counted from the first; -1 is the last argument.
pub struct Keys {
    pub last: c_int,
    /// `REDISMODULE_CMD_KEY_*`.
    pub flags: u32,
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
    Integer(i64),
    Integers([i64; 6]),
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
    // SAFETY: the context is that of this command.
    let server = unsafe { Server::new(ctx) };
    // A panic must not cross into the server, which it would end. None is known to be reachable.
    let outcome = catch_unwind(AssertUnwindSafe(|| C::run(server, args)));
    // SAFETY: the context is that of this command; the server copies error texts.
    unsafe {
        match outcome.unwrap_or(Err(error::INTERNAL)) {
            Ok(Reply::Integer(value)) => reply_integer(ctx, value),
            Ok(Reply::Integers(values)) => {
                if let Some(reply_with_array) = raw::RedisModule_ReplyWithArray {
                    reply_with_array(ctx, 6);
                }
                for value in values {
                    reply_integer(ctx, value);
                }
            }
            Err(Error(text)) => {
                if let Some(reply_with_error) = raw::RedisModule_ReplyWithError {
                    reply_with_error(ctx, text.as_ptr());
                }
            }
        }
    }
    OK
}

/// # Safety
/// `ctx` is the context of the running command.
unsafe fn reply_integer(ctx: *mut raw::RedisModuleCtx, value: i64) {
    // SAFETY: as promised by the caller.
    unsafe {
        if let Some(reply_with_long_long) = raw::RedisModule_ReplyWithLongLong {
            reply_with_long_long(ctx, value);
        }
    }
}

/// The first steps at load: refuses what cannot work with a clear line in the server's log.
pub fn prepare(ctx: &Context, args: &[RedisString]) -> Result<(), &'static str> {
    if !args.is_empty() {
        return Err("ratelimit takes no arguments at load");
    }
    // SAFETY: the pointers are set before the module's load function runs; they are copied, not borrowed.
    let (options, info, replies) = unsafe {
        (
            raw::RedisModule_SetModuleOptions,
            raw::RedisModule_SetCommandInfo,
            (raw::RedisModule_ReplyWithArray, raw::RedisModule_ReplyWithLongLong, raw::RedisModule_ReplyWithError),
        )
    };
    let (Some(set_options), Some(_), (Some(_), Some(_), Some(_)), None) = (options, info, replies, missing_api())
    else {
        return Err("ratelimit needs Redis 7.0 or Valkey 7.2 or later");
    };
    // A key that is only read must not count as changed when it is closed.
    let flags = raw::REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED as c_int;
    // SAFETY: the context is that of the module that is being loaded.
    unsafe { set_options(ctx.ctx, flags) };
    advise_on_node_sizes(ctx);
    Ok(())
}

/// A sparse key costs several kilobytes at the server's default node sizes; who runs on them should know.
fn advise_on_node_sizes(ctx: &Context) {
    let is_default = |name: &str, default: &[u8]| match ctx.call("CONFIG", &["GET", name]) {
        Ok(RedisValue::Array(pair)) => match pair.last() {
            Some(RedisValue::SimpleString(value)) => value.as_bytes() == default,
            Some(RedisValue::BulkString(value)) => value.as_bytes() == default,
            Some(RedisValue::StringBuffer(value)) => value == default,
            Some(RedisValue::BulkRedisString(value)) => value.as_slice() == default,
            _ => false,
        },
        _ => false,
    };
    if is_default("stream-node-max-bytes", b"4096") || is_default("stream-node-max-entries", b"100") {
        ctx.log_notice(
            "ratelimit: stream-node-max-bytes 512 and stream-node-max-entries 16 would make keys smaller \
             and hits faster than the defaults, see the README",
        );
    }
}

/// Registers one command with everything that the server wants to know of it.
pub fn register<C: Command>(ctx: &Context) -> Result<(), &'static str> {
    let Spec { name, flags, arity, keys, summary, complexity, args, categories } = C::SPEC;
    const REFUSED: &str = "the server did not accept a command of ratelimit";

    // SAFETY: the context is that of the module that is being loaded, and the server copies the texts.
    let command = unsafe {
        let create = raw::RedisModule_CreateCommand.ok_or(REFUSED)?;
        let enter = Some(enter::<C> as unsafe extern "C" fn(_, _, _) -> _);
        if create(ctx.ctx, name.as_ptr(), enter, flags.as_ptr(), 1, at(keys.last), 1) != OK {
            return Err(REFUSED);
        }
        raw::RedisModule_GetCommand.ok_or(REFUSED)?(ctx.ctx, name.as_ptr())
    };

    let version = raw::RedisModuleCommandInfoVersion {
        version: 1,
        sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
        sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
        sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
    };
    let mut key_specs = [key_spec(&keys), no_key_spec()];
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
    // SAFETY: `info` and all it points to outlive the call, lists end with an empty element, and the server copies them.
    unsafe {
        let set_info = raw::RedisModule_SetCommandInfo.ok_or(REFUSED)?;
        if set_info(command, &raw const info) != OK {
            return Err(REFUSED);
        }
        // Absent before 7.2, where the categories that follow from the flags are all there can be.
        if let Some(set_categories) = raw::RedisModule_SetCommandACLCategories {
            if set_categories(command, categories.as_ptr()) != OK {
                return Err(REFUSED);
            }
        }
    }
    Ok(())
}

const SINCE: &CStr = c"0.1.0";

/// A position relative to the first key, as an absolute one.
fn at(last: c_int) -> c_int {
    if last < 0 { last } else { last.saturating_add(1) }
}

fn key_spec(keys: &Keys) -> raw::RedisModuleCommandKeySpec {
    raw::RedisModuleCommandKeySpec {
        notes: null(),
        flags: keys.flags.into(),
        begin_search_type: raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX,
        bs: raw::RedisModuleCommandKeySpec__bindgen_ty_1 {
            index: raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos: 1 },
        },
        find_keys_type: raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE,
        fk: raw::RedisModuleCommandKeySpec__bindgen_ty_2 {
            range: raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1 {
                lastkey: keys.last,
                keystep: 1,
                limit: 0,
            },
        },
    }
}

/// Ends a list of key specs.
fn no_key_spec() -> raw::RedisModuleCommandKeySpec {
    // SAFETY: a plain C struct of integers, pointers and unions of integers, for which all zeros is a value.
    unsafe { std::mem::zeroed() }
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

/// Ends loading: a reason, if there is one, goes to the server's log.
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
