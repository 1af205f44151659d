//! Every error text a client can see. They are constants: input is never echoed.

use std::ffi::CStr;

/// An error reply, including its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(pub &'static CStr);

pub const LIMIT: Error = Error(c"ERR limit is not an integer or out of range");
pub const WINDOW: Error = Error(c"ERR window is not a duration like 60, 500ms, 10s, 1m, 1h, 1d or 1w");
pub const TIMEOUT: Error = Error(c"ERR timeout is not a duration like 60, 500ms, 10s, 1m, 1h, 1d or 1w");
pub const COST: Error = Error(c"ERR cost is not an integer or out of range");
pub const TOO_MANY_TIERS: Error = Error(c"ERR too many tiers, at most 8 are allowed");
pub const NUMKEYS: Error = Error(c"ERR numkeys should be greater than 0");
pub const TOO_FEW_KEYS: Error = Error(c"ERR number of keys can't be greater than number of args");
pub const TOO_MANY_KEYS: Error = Error(c"ERR too many keys, at most 1024 are allowed");
pub const GROUPS: Error = Error(c"ERR each key needs one group of limits, with AND between them");
pub const REPEATED_KEY: Error = Error(c"ERR a key may be named only once");
pub const COUNT: Error = Error(c"ERR count is not an integer or out of range");
pub const SYNTAX: Error = Error(c"ERR syntax error");
pub const WRONG_TYPE: Error = Error(c"WRONGTYPE Operation against a key holding the wrong kind of value");
pub const NOT_A_LOG: Error = Error(c"ERR the stream at this key was not written by this module, it is left as it was");
pub const LAST_ID_AHEAD: Error =
    Error(c"ERR the last ID of the empty stream at this key is too far in the future, it is left as it was");
pub const APPEND_FAILED: Error = Error(c"ERR the server did not accept the log entry");
pub const OUT_OF_MEMORY: Error = Error(c"OOM command not allowed when used memory > 'maxmemory'.");
pub const NO_PERMISSION: Error =
    Error(c"NOPERM this user has no permissions to run the 'ratelimit.hit' command on this key any more");
pub const DISTURBED: Error = Error(c"ERR other modules change the key whenever it expires");
pub const INTERNAL: Error = Error(c"ERR internal error in the ratelimit module, please report it");
