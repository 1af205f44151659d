//! The one way into and out of a command.
//!
//! Commands are not registered through `redis_module!`: it copies all arguments into a vector of retained strings, which alone
//! costs more than the rest of a refused hit.

use std::ffi::{c_int, c_long};
use std::panic::{AssertUnwindSafe, catch_unwind};

use limiter::error::{self, Error};
use limiter::syntax::parse_numkeys;
use redis_module::raw;

use super::api::OK;
use super::command::{Command, Keys, Reply};
use super::context::{Arg, Server};
use super::stats::STATS;

/// A command as the server calls it.
///
/// # Safety
/// Called by the server alone, with `argc` strings at `argv` that live until the function returns.
pub unsafe extern "C" fn run<C: Command>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: `Arg` is a transparent wrapper around a string pointer, and the server promises `argc` of them.
    let args = unsafe { std::slice::from_raw_parts(argv.cast::<Arg>(), usize::try_from(argc).unwrap_or(0)) };
    if let Keys::Counted { flags } = C::SPEC.keys {
        // SAFETY: the context is that of this command.
        if unsafe { asks_for_keys(ctx, args, flags) } {
            return OK;
        }
    }
    // SAFETY: the context is that of this command.
    unsafe { answer(ctx, args, C::run) };
    OK
}

/// What a callback of a client that waits replies, with the arguments of its command.
///
/// # Safety
/// Called with what the server has passed to the callback.
pub unsafe fn enter(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
    run: impl FnOnce(Server, &[Arg]) -> Result<Reply, Error>,
) {
    // SAFETY: as in `run`.
    unsafe {
        let args = std::slice::from_raw_parts(argv.cast::<Arg>(), usize::try_from(argc).unwrap_or(0));
        answer(ctx, args, run);
    }
}

/// # Safety
/// `ctx` and `args` are those of the running command or callback.
#[inline(always)]
unsafe fn answer(
    ctx: *mut raw::RedisModuleCtx,
    args: &[Arg],
    run: impl FnOnce(Server, &[Arg]) -> Result<Reply, Error>,
) {
    // SAFETY: the context is that of this command.
    let server = unsafe { Server::new(ctx) };
    // A panic that reached the server would end it. None is known to be reachable.
    let outcome = catch_unwind(AssertUnwindSafe(|| run(server, args)));
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
}

/// If the server only asks which arguments are keys, answers that. Wrong arguments have none; the command itself will say what
/// is wrong.
///
/// # Safety
/// `ctx` is the context of the running command.
unsafe fn asks_for_keys(ctx: *mut raw::RedisModuleCtx, args: &[Arg], flags: u32) -> bool {
    // SAFETY: the context is as promised by the caller, and positions may be given while the server asks. Both functions are
    // checked at load.
    unsafe {
        let (Some(is_asked), Some(tell)) = (raw::RedisModule_IsKeysPositionRequest, raw::RedisModule_KeyAtPosWithFlags)
        else {
            return false;
        };
        if is_asked(ctx) == 0 {
            return false;
        }
        if let [_, numkeys, rest @ ..] = args {
            let keys = parse_numkeys(numkeys.bytes(), rest.len()).unwrap_or(0);
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
    // SAFETY: the context is as promised by the caller, the server copies bytes, and as many replies follow an array as it
    // says. The functions are checked at load.
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
            Reply::Later => {}
            Reply::Error(text) => {
                if let Some(error) = raw::RedisModule_ReplyWithError {
                    error(ctx, text.as_ptr());
                }
            }
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
