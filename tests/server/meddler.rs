//! A module for a test: whatever happens to a key that begins with `outer`, it answers with hits on other keys, while the
//! command that it happened in is still at work.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use redis_module::{CallOptionsBuilder, CallResult, Context, NotifyEvent, redis_module};

fn meddle(ctx: &Context, _: NotifyEvent, event: &str, key: &[u8]) {
    static IS_AT_IT: AtomicBool = AtomicBool::new(false);
    if !key.starts_with(b"outer") || IS_AT_IT.swap(true, Relaxed) {
        return;
    }
    let replicated = CallOptionsBuilder::new().replicate().build();
    for cost in ["2", "3", "4", "5", "6", "7"] {
        let key = format!("inner:{event}");
        let args = [&key[..], "1000000", "1h", "COST", cost];
        ctx.call_ext::<_, CallResult>("RATELIMIT.HIT", &replicated, &args).unwrap();
    }
    IS_AT_IT.store(false, Relaxed);
}

redis_module! {
    name: "meddler",
    version: 1,
    allocator: (redis_module::alloc::RedisAlloc, redis_module::alloc::RedisAlloc),
    data_types: [],
    commands: [],
    event_handlers: [
        [@STREAM @GENERIC @NEW: meddle],
    ],
}
