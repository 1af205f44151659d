//! The settings `ratelimit.*` of the server's configuration.

use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use std::panic::{UnwindSafe, catch_unwind};
use std::ptr::null_mut;

use limiter::{cursors, line, refusals};
use redis_module::{Context, raw};

use super::api::{ERR, OK};
use super::shared::{CURSORS, LINES, REFUSALS};

/// A setting that is a number.
struct Setting {
    name: &'static CStr,
    default: i64,
    min: i64,
    max: i64,
    get: unsafe extern "C" fn(*const c_char, *mut c_void) -> c_longlong,
    set: unsafe extern "C" fn(*const c_char, c_longlong, *mut c_void, *mut *mut raw::RedisModuleString) -> c_int,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        name: c"top-entries",
        default: refusals::DEFAULT_ENTRIES,
        min: refusals::MIN_ENTRIES,
        max: refusals::MAX_ENTRIES,
        get: get_top_entries,
        set: set_top_entries,
    },
    Setting {
        name: c"cursors",
        default: cursors::DEFAULT_CURSORS,
        min: cursors::MIN_CURSORS,
        max: cursors::MAX_CURSORS,
        get: get_cursors,
        set: set_cursors,
    },
    Setting {
        name: c"max-waiters",
        default: line::DEFAULT_WAITERS,
        min: line::MIN_WAITERS,
        max: line::MAX_WAITERS,
        get: get_max_waiters,
        set: set_max_waiters,
    },
];

/// Registers the settings and reads them from the configuration. None if the server does not accept one.
pub fn register(ctx: &Context) -> Option<()> {
    let flags = raw::REDISMODULE_CONFIG_DEFAULT;
    for Setting { name, default, min, max, get, set } in SETTINGS {
        // SAFETY: the context is that of the module that is being loaded; the server copies the name and checks the range
        // before it calls back.
        let registered = unsafe {
            let register = raw::RedisModule_RegisterNumericConfig?;
            register(ctx.ctx, name.as_ptr(), default, flags, min, max, Some(get), Some(set), None, null_mut())
        };
        if registered != OK {
            return None;
        }
    }
    // SAFETY: the context is that of the module that is being loaded.
    let loaded = unsafe { raw::RedisModule_LoadConfigs?(ctx.ctx) };
    (loaded == OK).then_some(())
}

/// A setting as the server reads it; no panic gets out.
fn get(read: impl FnOnce() -> Option<usize> + UnwindSafe) -> c_longlong {
    c_longlong::try_from(catch_unwind(read).ok().flatten().unwrap_or(0)).unwrap_or(c_longlong::MAX)
}

/// Whether a setting took the value; no panic gets out.
fn set(value: c_longlong, write: impl FnOnce(usize) -> Option<()> + UnwindSafe) -> c_int {
    let value = usize::try_from(value).unwrap_or(0);
    match catch_unwind(|| write(value)) {
        Ok(Some(())) => OK,
        _ => ERR,
    }
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn get_top_entries(_: *const c_char, _: *mut c_void) -> c_longlong {
    get(|| REFUSALS.with(|table| table.entries()))
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn set_top_entries(
    _: *const c_char,
    entries: c_longlong,
    _: *mut c_void,
    _: *mut *mut raw::RedisModuleString,
) -> c_int {
    set(entries, |entries| REFUSALS.with(|table| table.resize(entries)))
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn get_cursors(_: *const c_char, _: *mut c_void) -> c_longlong {
    get(|| CURSORS.with(|table| table.cursors()))
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn set_cursors(
    _: *const c_char,
    cursors: c_longlong,
    _: *mut c_void,
    _: *mut *mut raw::RedisModuleString,
) -> c_int {
    set(cursors, |cursors| CURSORS.with(|table| table.resize(cursors)))
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn get_max_waiters(_: *const c_char, _: *mut c_void) -> c_longlong {
    get(|| LINES.with(|lines| lines.most))
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn set_max_waiters(
    _: *const c_char,
    most: c_longlong,
    _: *mut c_void,
    _: *mut *mut raw::RedisModuleString,
) -> c_int {
    set(most, |most| LINES.with(|lines| lines.most = most))
}
