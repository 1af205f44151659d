//! The server during one command, and the command's arguments.

use std::marker::PhantomData;

use limiter::error::Error;
use redis_module::raw;

use super::api::api;
use super::stats::STATS;
use super::strings::bytes_of;

/// An argument of the running command: a server string that lives as long as the command.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Arg<'a> {
    raw: *mut raw::RedisModuleString,
    command: PhantomData<&'a ()>,
}

impl<'a> Arg<'a> {
    /// # Safety
    /// `raw` is a string of the server that lives, unchanged, during `'a`.
    pub unsafe fn new(raw: *mut raw::RedisModuleString) -> Self {
        Self { raw, command: PhantomData }
    }

    pub fn as_raw(self) -> *mut raw::RedisModuleString {
        self.raw
    }

    pub fn bytes(self) -> &'a [u8] {
        // SAFETY: the server keeps the strings of argv unchanged until the command returns, and `'a` ends before that.
        unsafe { bytes_of(self.raw) }
    }
}

/// The server, during one command.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    ctx: *mut raw::RedisModuleCtx,
    command: PhantomData<&'a ()>,
}

impl Server<'_> {
    /// # Safety
    /// `ctx` is the context of a command that does not return during `'a`.
    pub unsafe fn new(ctx: *mut raw::RedisModuleCtx) -> Self {
        Self { ctx, command: PhantomData }
    }

    pub fn ctx(self) -> *mut raw::RedisModuleCtx {
        self.ctx
    }

    /// Milliseconds since the epoch: the time at which the command began, if the server has that (7.2), so all parts of one
    /// step happen at one time.
    #[inline]
    pub fn clock(self) -> u64 {
        // SAFETY: both functions take nothing and only read the clock.
        let milliseconds = unsafe {
            match (raw::RedisModule_CachedMicroseconds, raw::RedisModule_Milliseconds) {
                (Some(cached), _) => cached() / 1_000,
                (None, Some(now)) => now(),
                (None, None) => 0,
            }
        };
        let now = u64::try_from(milliseconds).unwrap_or(0);
        STATS.saw_clock(now);
        now
    }

    /// Whether the server follows a primary.
    pub fn is_replica(self) -> Result<bool, Error> {
        // SAFETY: the context is that of the running command.
        let flags = unsafe { api(raw::RedisModule_GetContextFlags)?(self.ctx) };
        Ok(flags.unsigned_abs() & raw::REDISMODULE_CTX_FLAGS_SLAVE != 0)
    }

    /// The number of the client's selected database.
    #[inline]
    pub fn database(self) -> Result<i32, Error> {
        // SAFETY: the context is that of the running command.
        Ok(unsafe { api(raw::RedisModule_GetSelectedDb)?(self.ctx) })
    }
}
