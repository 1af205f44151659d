//! An open key.

use std::ffi::c_int;
use std::ptr::null_mut;

use limiter::error::{self, Error};
use redis_module::raw;

use super::api::api;
use super::context::{Arg, Server};
use super::events::Events;

/// What a key is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
}

/// An open key that holds a stream or nothing.
pub struct Key<'a> {
    raw: *mut raw::RedisModuleKey,
    name: Arg<'a>,
    server: Server<'a>,
    exists: bool,
    /// What was done to it since it was opened.
    pub events: Events,
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        // SAFETY: the key is open (or null, which the server accepts) and is closed once.
        unsafe {
            if let Some(close) = raw::RedisModule_CloseKey {
                close(self.raw);
            }
        }
    }
}

impl<'a> Key<'a> {
    /// Opens a key that holds a stream or does not exist. If it has expired just now, another module that heard of it may have
    /// put something there again; this key counts as empty all the same.
    #[inline]
    pub fn open(server: Server<'a>, name: Arg<'a>, mode: Mode) -> Result<Self, Error> {
        let flags = match mode {
            Mode::Read => raw::REDISMODULE_READ,
            Mode::Write => raw::REDISMODULE_READ | raw::REDISMODULE_WRITE,
        };
        // SAFETY: context and name belong to the running command. A null key means that it does not exist; every function
        // that takes a key accepts null.
        let raw = unsafe { api(raw::RedisModule_OpenKey)?(server.ctx(), name.as_raw(), flags as c_int) };
        let mut key = Self { raw, name, server, exists: false, events: Events::default() };
        // SAFETY: the key is open or null, which KeyType accepts.
        let kind = unsafe { api(raw::RedisModule_KeyType)?(raw) } as isize;
        // The crate's own enum panics on types it does not know.
        match kind {
            raw::REDISMODULE_KEYTYPE_EMPTY => {}
            raw::REDISMODULE_KEYTYPE_STREAM => key.exists = true,
            _ => return Err(error::WRONG_TYPE),
        }
        Ok(key)
    }

    /// A key that does not exist.
    fn nothing(server: Server<'a>, name: Arg<'a>) -> Self {
        Self { raw: null_mut(), name, server, exists: false, events: Events::default() }
    }

    /// Which of these keys exist. Opening those for writing, in the same command, deletes nothing.
    ///
    /// Opening a key that has expired deletes it. Other modules hear of that, and may do anything to any key. So those that do
    /// not exist must not be opened again before all others are closed: such a module may have put something there that has
    /// expired as well.
    pub fn which_exist(server: Server<'a>, names: &[Arg<'a>]) -> Result<Vec<bool>, Error> {
        let mut exist = vec![true; names.len()];
        let mut all_exist = false;
        while !all_exist {
            all_exist = true;
            for (name, exists) in names.iter().zip(&mut exist).filter(|(_, exists)| **exists) {
                *exists = Self::open(server, *name, Mode::Write)?.exists();
                all_exist &= *exists;
            }
        }
        Ok(exist)
    }

    /// Opens several keys for writing, together.
    pub fn open_all(server: Server<'a>, names: &[Arg<'a>]) -> Result<Vec<Self>, Error> {
        let exist = Self::which_exist(server, names)?;
        let open = |(name, exists): (&Arg<'a>, bool)| match exists {
            true => Self::open(server, *name, Mode::Write),
            false => Ok(Self::nothing(server, *name)),
        };
        names.iter().zip(exist).map(open).collect()
    }

    pub fn as_raw(&self) -> *mut raw::RedisModuleKey {
        self.raw
    }

    pub fn name(&self) -> Arg<'a> {
        self.name
    }

    pub fn server(&self) -> Server<'a> {
        self.server
    }

    /// Whether there was a stream when it was opened, or is one since.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// It is empty now, or holds a stream.
    pub(super) fn set_exists(&mut self, exists: bool) {
        self.exists = exists;
    }

    /// The number of entries, expired ones included.
    pub fn length(&self) -> u64 {
        // SAFETY: the key is open, or null, which counts as empty.
        let length = unsafe { raw::RedisModule_ValueLength.map_or(0, |length| length(self.raw)) };
        u64::try_from(length).unwrap_or(u64::MAX)
    }

    /// When it expires, in milliseconds since the epoch, if it does.
    pub fn expires_at(&self) -> Option<u64> {
        if !self.exists {
            return None;
        }
        // SAFETY: the key is open and exists, as servers after 7.0 require. The answer is negative for "none".
        let at = unsafe { raw::RedisModule_GetAbsExpire.map_or(-1, |expire| expire(self.raw)) };
        u64::try_from(at).ok()
    }
}
