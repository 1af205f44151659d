//! An open key.

use std::ffi::c_int;

use limiter::error::{self, Error};
use redis_module::raw;

use super::api::api;
use super::context::{Arg, Server};
use super::events::{self, Events};

/// What a key is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
}

/// How often keys are opened anew because another module acted when one expired.
const MOST_OPENED: usize = 64;

/// An open key that holds a stream or nothing.
pub struct Key<'a> {
    raw: *mut raw::RedisModuleKey,
    name: Arg<'a>,
    server: Server<'a>,
    /// What was done to it since it was opened.
    pub events: Events,
}

#[derive(PartialEq, Eq)]
enum Holds {
    Nothing,
    Stream,
    Other,
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
    /// Opens a key that holds a stream or does not exist.
    #[inline]
    pub fn open(server: Server<'a>, name: Arg<'a>, mode: Mode) -> Result<Self, Error> {
        for _ in 0..MOST_OPENED {
            let heard = events::heard();
            let key = Self::open_once(server, name, mode)?;
            // If it has expired just now, a module that heard of it may have created it again.
            if mode == Mode::Read || key.exists()? || events::none_since(heard) {
                return Ok(key);
            }
            if heard.is_none() {
                drop(key);
                return Self::open_once(server, name, mode);
            }
        }
        Err(error::DISTURBED)
    }

    #[inline]
    fn open_once(server: Server<'a>, name: Arg<'a>, mode: Mode) -> Result<Self, Error> {
        let flags = match mode {
            Mode::Read => raw::REDISMODULE_READ,
            Mode::Write => raw::REDISMODULE_READ | raw::REDISMODULE_WRITE,
        };
        // SAFETY: context and name belong to the running command. A null key means that it does not exist; every function
        // that takes a key accepts null.
        let raw = unsafe { api(raw::RedisModule_OpenKey)?(server.ctx(), name.as_raw(), flags as c_int) };
        let key = Self { raw, name, server, events: Events::default() };
        match key.holds()? {
            Holds::Nothing | Holds::Stream => Ok(key),
            Holds::Other => Err(error::WRONG_TYPE),
        }
    }

    /// Deletes those of these keys that have expired. Other modules hear of that and may do anything to any key, so call this
    /// before reading the first of several keys. After it, opening them for writing sends no event.
    pub fn delete_expired(server: Server<'a>, names: &[Arg<'a>]) -> Result<(), Error> {
        for _ in 0..MOST_OPENED {
            let heard = events::heard();
            names.iter().try_for_each(|name| Self::open_once(server, *name, Mode::Write).map(drop))?;
            // With SWAPDB, others can bring in keys that have expired as well.
            if heard.is_none() || events::none_since(heard) {
                return Ok(());
            }
        }
        Err(error::DISTURBED)
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

    fn holds(&self) -> Result<Holds, Error> {
        // SAFETY: the key is open or null, which KeyType accepts.
        let kind = unsafe { api(raw::RedisModule_KeyType)?(self.raw) } as isize;
        // The crate's own enum panics on types it does not know.
        Ok(match kind {
            raw::REDISMODULE_KEYTYPE_EMPTY => Holds::Nothing,
            raw::REDISMODULE_KEYTYPE_STREAM => Holds::Stream,
            _ => Holds::Other,
        })
    }

    pub fn exists(&self) -> Result<bool, Error> {
        Ok(self.holds()? != Holds::Nothing)
    }

    /// The number of entries, expired ones included.
    pub fn length(&self) -> u64 {
        // SAFETY: the key is open, or null, which counts as empty.
        let length = unsafe { raw::RedisModule_ValueLength.map_or(0, |length| length(self.raw)) };
        u64::try_from(length).unwrap_or(u64::MAX)
    }

    /// When it expires, in milliseconds since the epoch, if it does.
    pub fn expires_at(&self) -> Option<u64> {
        if !self.exists().unwrap_or(false) {
            return None;
        }
        // SAFETY: the key is open and exists, as servers after 7.0 require. The answer is negative for "none".
        let at = unsafe { raw::RedisModule_GetAbsExpire.map_or(-1, |expire| expire(self.raw)) };
        u64::try_from(at).ok()
    }
}
