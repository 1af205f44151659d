//! Arguments that several commands share, as `COMMAND DOCS` shows them, and what happens to their keys.

use redis_module::raw;

use crate::server::{Argument, ArgumentKind};

/// A key that may be charged. The answer shows what is in the log, so a user also needs the right to read it.
pub const CHARGED: u32 =
    raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_ACCESS | raw::REDISMODULE_CMD_KEY_UPDATE;

pub const KEY: Argument = Argument::new(c"key", ArgumentKind::Key);

pub const TIER: Argument = Argument::new(
    c"tier",
    ArgumentKind::Block(&[
        Argument::new(c"limit", ArgumentKind::Integer),
        Argument::new(c"window", ArgumentKind::String),
    ]),
)
.multiple();

pub const COST: Argument = Argument::new(c"units", ArgumentKind::Integer).token(c"COST").optional();

pub const RECORD: Argument = Argument::new(
    c"record",
    ArgumentKind::OneOf(&[
        Argument::new(c"strict", ArgumentKind::Token).token(c"STRICT"),
        Argument::new(c"force", ArgumentKind::Token).token(c"FORCE"),
    ]),
)
.optional();

pub const WITHTIERS: Argument = Argument::new(c"withtiers", ArgumentKind::Token).token(c"WITHTIERS").optional();
