//! An exact rate limiter as one command of Redis and Valkey: a sliding-window log on a plain stream.
//!
//! A call flows one way: arguments, decision, effects, reply, events.
//!
//! | folder | what it is |
//! | --- | --- |
//! | `commands/` | one file a command |
//! | `server/` | the server's raw API, and the only unsafe code |
//! | `limiter/` | arguments, decision and plan: pure arithmetic over a log and a clock, in its own crate |
//!
//! Commands use the server and the limiter, the server uses the limiter, and the limiter uses neither. This file is the table
//! of commands. Nothing that a client can reach may panic.

// Not in Cargo.toml, where it would hold for tests as well.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![deny(unsafe_code)]

mod commands;
#[allow(unsafe_code, reason = "the server's interface is C")]
mod server;

use redis_module::{Context, RedisString, Status};

use commands::{Hit, MultiHit, Peek, Refund, Reset, ResetStat, Top};
use server::Loader;

/// Major * 10000 + minor * 100 + patch, as `MODULE LIST` shows it.
const VERSION: i32 = 100;

fn load(ctx: &Context, args: &[RedisString]) -> Status {
    server::outcome(ctx, load_all(ctx, args))
}

fn load_all(ctx: &Context, args: &[RedisString]) -> Result<(), &'static str> {
    let loader = Loader::new(ctx, args)?;
    loader.command::<Hit>()?;
    loader.command::<Peek>()?;
    loader.command::<MultiHit>()?;
    loader.command::<Refund>()?;
    loader.command::<Reset>()?;
    loader.command::<Top>()?;
    loader.command::<ResetStat>()?;
    loader.finish()
}

fn unload(ctx: &Context) -> Status {
    server::outcome(ctx, server::unload())
}

redis_module::redis_module! {
    name: "ratelimit",
    version: VERSION,
    allocator: (redis_module::alloc::RedisAlloc, redis_module::alloc::RedisAlloc),
    data_types: [],
    init: load,
    deinit: unload,
}
