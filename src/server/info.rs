//! The section `ratelimit` of INFO.

use std::ffi::c_int;
use std::ptr::null;

use redis_module::{Context, raw};

use super::api::OK;
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
    }
}
