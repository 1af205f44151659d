//! The server's strings: borrowed ones (arguments) and our own.

use std::collections::VecDeque;
use std::ptr::null_mut;

use limiter::error::Error;
use limiter::retention::Retention;
use redis_module::raw;

use super::api::api;
use super::context::Arg;
use super::shared::Exclusive;

/// # Safety
/// `string` is a string of the server, and neither freed nor changed during `'a`.
pub unsafe fn bytes_of<'a>(string: *const raw::RedisModuleString) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: StringPtrLen accepts any string and returns its buffer and the number of bytes in it.
    unsafe {
        match raw::RedisModule_StringPtrLen {
            Some(pointer_of) => match pointer_of(string, &raw mut length) {
                start if start.is_null() => &[],
                start => std::slice::from_raw_parts(start.cast(), length),
            },
            None => &[],
        }
    }
}

/// A server string that we own.
pub struct OwnedString(*mut raw::RedisModuleString);

// SAFETY: any thread may free server strings; only the main thread, where commands run, uses them.
unsafe impl Send for OwnedString {}

impl OwnedString {
    pub fn new(text: &[u8]) -> Result<Self, Error> {
        // SAFETY: CreateString copies the bytes; without a context only we free the string.
        let string = unsafe { api(raw::RedisModule_CreateString)?(null_mut(), text.as_ptr().cast(), text.len()) };
        Ok(Self(string))
    }

    /// An argument that is kept after its command.
    pub fn retain(arg: Arg) -> Result<Self, Error> {
        // SAFETY: the string is one of the server; without a context only we free what we retain.
        unsafe { api(raw::RedisModule_RetainString)?(null_mut(), arg.as_raw()) };
        Ok(Self(arg.as_raw()))
    }

    pub fn as_arg(&self) -> Arg<'_> {
        // SAFETY: the string lives until `self` is dropped and nothing changes it.
        unsafe { Arg::new(self.0) }
    }

    /// # Safety
    /// `string` is a string of the server that nobody else frees, or null.
    pub unsafe fn from_raw(string: *mut raw::RedisModuleString) -> Self {
        Self(string)
    }

    pub fn as_raw(&self) -> *mut raw::RedisModuleString {
        self.0
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the string lives until `self` is dropped and nothing changes it.
        unsafe { bytes_of(self.0) }
    }
}

impl Drop for OwnedString {
    fn drop(&mut self) {
        // SAFETY: the string is ours, and is freed once.
        unsafe {
            if let (Some(free), false) = (raw::RedisModule_FreeString, self.0.is_null()) {
                free(null_mut(), self.0);
            }
        }
    }
}

/// The field and the value of an entry. Most entries repeat recent ones, and need no new strings.
pub struct EntryStrings {
    retention: Retention,
    cost: u64,
    pub field: OwnedString,
    pub value: OwnedString,
}

/// The strings of the entries stored last.
static RECENT: Exclusive<VecDeque<EntryStrings>> = Exclusive::new(VecDeque::new());
const MAX_RECENT: usize = 4;

impl EntryStrings {
    fn new(retention: Retention, cost: u64) -> Result<Self, Error> {
        let (field, value) =
            (OwnedString::new(retention.to_string().as_bytes())?, OwnedString::new(cost.to_string().as_bytes())?);
        Ok(Self { retention, cost, field, value })
    }

    /// Takes the strings out, so nobody else frees them: another module that hears of our hit may itself hit. The caller puts
    /// them back.
    pub fn take(retention: Retention, cost: u64) -> Result<Self, Error> {
        let known = RECENT.with(|recent| {
            let at = recent.iter().position(|strings| strings.retention == retention && strings.cost == cost)?;
            recent.swap_remove_front(at)
        });
        known.flatten().map_or_else(|| Self::new(retention, cost), Ok)
    }

    pub fn put_back(self) {
        RECENT.with(|recent| {
            recent.truncate(MAX_RECENT.saturating_sub(1));
            recent.push_front(self);
        });
    }
}
