//! A module for tests that acts in the events of others, while the command that sent them is still at work.
//!
//! `REACT event key times command [arg ...]`: at the next `times` events of this name on this key, run the command. `*` is
//! any event, or any key. `REACT` alone forgets all that it was told.

use std::sync::{Mutex, MutexGuard, PoisonError};

use redis_module::{
    CallOptionsBuilder, CallResult, Context, NextArg, NotifyEvent, RedisError, RedisResult, RedisString, redis_module,
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

redis_module! {
    name: "reactor",
    version: 1,
    allocator: (redis_module::alloc::RedisAlloc, redis_module::alloc::RedisAlloc),
    data_types: [],
    commands: [
        ["react", react, "write", 0, 0, 0, ""],
    ],
    event_handlers: [
        [@STREAM @GENERIC @EXPIRED @NEW @MODULE: act],
    ],
}
