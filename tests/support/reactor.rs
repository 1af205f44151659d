//! A module for tests that acts in the events of others, while the command that sent them is still at work.
//!
//! `REACT event key times command [arg ...]`: at the next `times` events of this name on this key, run the command. `*` is
//! any event, or any key. `REACT` alone forgets all that it was told.
//!
//! `BLOCK key [argument ...]`: blocks the client on a key, which nobody ends. It shows what that alone takes.

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis_module::{
    CallOptionsBuilder, CallResult, Context, NextArg, NotifyEvent, RedisError, RedisResult, RedisString, RedisValue,
    raw, redis_module,
};

struct Order {
    event: String,
    key: Vec<u8>,
    times: u64,
    command: String,
    args: Vec<Vec<u8>>,
}

fn orders() -> MutexGuard<'static, Vec<Order>> {
    static ORDERS: Mutex<Vec<Order>> = Mutex::new(Vec::new());
    ORDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn react(_: &Context, args: Vec<RedisString>) -> RedisResult {
    let mut args = args.into_iter().skip(1);
    let Ok(event) = args.next_string() else {
        orders().clear();
        return Ok("OK".into());
    };
    let key = args.next_arg()?.as_slice().to_vec();
    let (times, command) = (args.next_u64()?, args.next_string()?);
    let args = args.map(|arg| arg.as_slice().to_vec()).collect();
    orders().push(Order { event, key, times, command, args });
    Ok("OK".into())
}

fn act(ctx: &Context, _: NotifyEvent, event: &str, key: &[u8]) {
    let (command, args) = {
        let mut orders = orders();
        let fits = |order: &&mut Order| {
            order.times > 0 && (order.event == event || order.event == "*") && (order.key == key || order.key == b"*")
        };
        let Some(order) = orders.iter_mut().find(fits) else { return };
        order.times -= 1;
        (order.command.clone(), order.args.clone())
    };
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    let replicated = CallOptionsBuilder::new().replicate().build();
    // Whatever it replies: an action need not be possible.
    let _ = ctx.call_ext::<_, CallResult>(&command, &replicated, &args[..]).map_err(|_| RedisError::Str(""));
}

/// Not yet.
extern "C" fn not_ready(_: *mut raw::RedisModuleCtx, _: *mut *mut raw::RedisModuleString, _: c_int) -> c_int {
    1
}

fn block(ctx: &Context, args: Vec<RedisString>) -> RedisResult {
    const HOUR: i64 = 3_600_000;
    let key = args.get(1).ok_or(RedisError::WrongArity)?;
    let mut keys = [key.inner];
    // SAFETY: the context is that of a command; the server retains the key's name; there are no private data.
    unsafe {
        let block = raw::RedisModule_BlockClientOnKeys.ok_or(RedisError::Str("ERR not possible here"))?;
        block(ctx.ctx, Some(not_ready), None, None, HOUR, keys.as_mut_ptr(), 1, null_mut());
    }
    Ok(RedisValue::NoReply)
}

redis_module! {
    name: "reactor",
    version: 1,
    allocator: (redis_module::alloc::RedisAlloc, redis_module::alloc::RedisAlloc),
    data_types: [],
    commands: [
        ["react", react, "write", 0, 0, 0, ""],
        ["block", block, "", 1, 1, 1, ""],
    ],
    event_handlers: [
        [@STREAM @GENERIC @EXPIRED @NEW @MODULE: act],
    ],
}
