//! The section `ratelimit` of INFO.

use std::ffi::{c_char, c_int};
use std::fmt::{self, Write};
use std::ptr::null;

use limiter::policies::write_name;
use redis_module::{Context, raw};

use super::api::OK;
use super::shared::POLICIES;
use super::stats::STATS;

/// Registers the section. None if the server does not accept it.
pub fn register(ctx: &Context) -> Option<()> {
    // SAFETY: the context is that of the module that is being loaded.
    let status = unsafe { raw::RedisModule_RegisterInfoFunc?(ctx.ctx, Some(write_info)) };
    (status == OK).then_some(())
}

/// Writes `INFO ratelimit`, also in a crash report, so it takes no lock and allocates nothing.
///
/// # Safety
/// Called by the server alone, with the context of the section.
unsafe extern "C" fn write_info(ctx: *mut raw::RedisModuleInfoCtx, _: c_int) {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    // SAFETY: the context is as promised; a section without a name has the module's; the server copies names and texts.
    unsafe {
        let (Some(section), Some(text), Some(number)) = (
            raw::RedisModule_InfoAddSection,
            raw::RedisModule_InfoAddFieldCString,
            raw::RedisModule_InfoAddFieldULongLong,
        ) else {
            return;
        };
        section(ctx, null());
        text(ctx, c"version".as_ptr(), VERSION.as_ptr().cast());
        for (name, value) in STATS.counters() {
            number(ctx, name.as_ptr(), value);
        }
        POLICIES.with(|policies| {
            policies.each(|tiers, figures| {
                let (mut name, mut value) = (Line::new(), Line::new());
                if write_name(tiers, &mut name).is_ok() && write!(value, "{figures}").is_ok() {
                    text(ctx, name.as_ptr(), value.as_ptr());
                }
            });
        });
    }
}

/// A short C string in place.
struct Line {
    bytes: [u8; Self::SIZE],
    length: usize,
}

impl Line {
    /// Eight tiers with the largest numbers, and the zero at the end.
    const SIZE: usize = 320;

    fn new() -> Self {
        Self { bytes: [0; Self::SIZE], length: 0 }
    }

    fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length.saturating_add(text.len());
        // The last byte stays zero.
        let place = self.bytes.get_mut(self.length..end).filter(|_| end < Self::SIZE);
        place.ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
