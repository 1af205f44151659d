//! The texts of errors, spelled out and not taken from the module, so that a change of one is seen.

pub const LIMIT: &str = "ERR limit is not an integer or out of range";
pub const WINDOW: &str = "ERR window is not a duration like 60, 500ms, 10s, 1m, 1h, 1d or 1w";
pub const TIMEOUT: &str = "ERR timeout is not a duration like 60, 500ms, 10s, 1m, 1h, 1d or 1w";
pub const COST: &str = "ERR cost is not an integer or out of range";
pub const TOO_MANY_TIERS: &str = "ERR too many tiers, at most 8 are allowed";
pub const SYNTAX: &str = "ERR syntax error";
pub const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
pub const LAST_ID_AHEAD: &str =
    "ERR the last ID of the empty stream at this key is too far in the future, it is left as it was";
pub const NOT_A_LOG: &str = "ERR the stream at this key was not written by this module, it is left as it was";
pub const NUMKEYS: &str = "ERR numkeys should be greater than 0";
pub const TOO_FEW_ARGUMENTS: &str = "ERR number of keys can't be greater than number of args";
pub const GROUPS: &str = "ERR each key needs one group of limits, with AND between them";
pub const KEY_TWICE: &str = "ERR a key may be named only once";
pub const TOO_MANY_KEYS: &str = "ERR too many keys, at most 1024 are allowed";
pub const COUNT: &str = "ERR count is not an integer or out of range";
pub const INTERNAL: &str = "ERR internal error in the ratelimit module, please report it";

/// What the server itself says of a call that is too short.
pub fn arity(command: &str) -> String {
    format!("ERR wrong number of arguments for '{}' command", command.to_lowercase())
}
