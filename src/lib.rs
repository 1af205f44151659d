//! An exact rate limiter as one command of Redis and Valkey: a sliding-window log on a plain stream.
//!
//! A call flows one way: arguments, decision, log, reply.
//!
//! | file | what it is |
//! | --- | --- |
//! | `lib.rs` | the module and its table of commands |
//! | `hit.rs`, `peek.rs`, `mhit.rs`, `reset.rs`, `top.rs`, `resetstat.rs` | one command each |
//! | `charge.rs` | what HIT and MHIT share: the order of reading, writing and telling |
//! | `args.rs`, `duration.rs` | what the arguments mean |
//! | `limiter.rs` | the decision; pure arithmetic over a log and a clock |
//! | `retention.rs` | how long a log is kept when several policies share it; pure |
//! | `log.rs` | what an entry is, and the trait by which the arithmetic reads a log |
//! | `cursors.rs` | what need not be looked up again in the logs of busy keys; pure |
//! | `offenders.rs` | who is refused most: a sketch of fixed size; pure |
//! | `hash.rs` | where a key belongs in those two tables |
//! | `stats.rs` | the counters of INFO |
//! | `error.rs` | every error text |
//! | `stream.rs` | the server's raw API: streams, expiry, replication, events, clock |
//! | `register.rs` | loading, registration, and the way in and out of a command |
//!
//! Only the last two know the server, and only they hold unsafe code. Nothing that a client can reach may panic.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![deny(unsafe_code, clippy::undocumented_unsafe_blocks)]
// Without the server there is nobody to load the module.
#![cfg_attr(test, allow(dead_code))]

mod args;
mod charge;
mod cursors;
mod duration;
mod error;
mod hash;
mod hit;
mod limiter;
mod log;
mod mhit;
mod offenders;
mod peek;
#[allow(unsafe_code)]
mod register;
mod reset;
mod resetstat;
mod retention;
mod stats;
#[allow(unsafe_code)]
mod stream;
mod top;

#[cfg(test)]
#[path = "../tests/model/mod.rs"]
mod model;

use redis_module::{Context, RedisString, Status};

use register::Loader;

/// Major * 10000 + minor * 100 + patch, as `MODULE LIST` shows it.
const VERSION: i32 = 100;

fn load(ctx: &Context, args: &[RedisString]) -> Status {
    register::outcome(ctx, load_all(ctx, args))
}

fn load_all(ctx: &Context, args: &[RedisString]) -> Result<(), &'static str> {
    let loader = Loader::new(ctx, args)?;
    loader.command::<hit::Hit>()?;
    loader.command::<peek::Peek>()?;
    loader.command::<mhit::MultiHit>()?;
    loader.command::<reset::Reset>()?;
    loader.command::<top::Top>()?;
    loader.command::<resetstat::ResetStat>()?;
    loader.settings()?;
    // From here on nothing fails: Redis 7.0 would go on calling what has subscribed.
    loader.events()?;
    loader.info()?;
    loader.end()
}

fn unload(ctx: &Context) -> Status {
    register::outcome(ctx, register::unload())
}

// The server's allocator works inside a server only, so that unit tests are built without it.
#[cfg(not(test))]
redis_module::redis_module! {
    name: "ratelimit",
    version: VERSION,
    allocator: (redis_module::alloc::RedisAlloc, redis_module::alloc::RedisAlloc),
    data_types: [],
    init: load,
    deinit: unload,
}
