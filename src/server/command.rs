//! What a command is: how it describes itself, and what it replies.

use std::ffi::{CStr, CString, c_int};

use limiter::error::Error;
use redis_module::raw;

use super::context::{Arg, Server};

/// One command of the module.
pub trait Command {
    const SPEC: Spec;

    /// `args` begins with the command's name and is as long as [`Spec::arity`] says.
    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error>;
}

/// What the server is told about a command, and `COMMAND DOCS` and `COMMAND INFO` show.
pub struct Spec {
    pub name: &'static CStr,
    /// As for `RedisModule_CreateCommand`.
    pub flags: &'static CStr,
    /// Number of arguments, including the name; negative for "at least".
    pub arity: c_int,
    pub keys: Keys,
    pub summary: &'static CStr,
    pub complexity: &'static CStr,
    pub args: &'static [Argument],
    /// ACL categories beyond those that follow from the flags, if the server can set them (7.2).
    pub categories: &'static CStr,
}

/// Which arguments of a command are keys. `flags` are `REDISMODULE_CMD_KEY_*`.
#[derive(Clone, Copy)]
pub enum Keys {
    None,
    /// From the first argument to `last`, counted from there; -1 is the last argument.
    Range {
        last: c_int,
        flags: u32,
    },
    /// As many as the first argument says, side by side after it. (Servers up to Redis 8.2 and Valkey 8.1 miss keys with
    /// anything else between them, and so skip their ACL and cluster checks.) Needs the flag `getkeys-api`: ACLs and `COMMAND
    /// GETKEYS` use the key spec, but a cluster node asks the command itself.
    Counted {
        flags: u32,
    },
}

/// One node of a command's argument tree.
pub struct Argument {
    pub name: &'static CStr,
    pub kind: ArgumentKind,
    /// A word before the value, or on its own.
    pub token: Option<&'static CStr>,
    /// `REDISMODULE_CMD_ARG_*`.
    pub flags: u32,
}

pub enum ArgumentKind {
    Key,
    Integer,
    String,
    Token,
    Block(&'static [Argument]),
    OneOf(&'static [Argument]),
}

impl Argument {
    pub const fn new(name: &'static CStr, kind: ArgumentKind) -> Self {
        Self { name, kind, token: None, flags: raw::REDISMODULE_CMD_ARG_NONE }
    }

    pub const fn optional(self) -> Self {
        let flags = self.flags | raw::REDISMODULE_CMD_ARG_OPTIONAL;
        Self { flags, ..self }
    }

    pub const fn multiple(self) -> Self {
        let flags = self.flags | raw::REDISMODULE_CMD_ARG_MULTIPLE;
        Self { flags, ..self }
    }

    /// Several, each after its token.
    pub const fn each(self) -> Self {
        let flags = self.flags | raw::REDISMODULE_CMD_ARG_MULTIPLE | raw::REDISMODULE_CMD_ARG_MULTIPLE_TOKEN;
        Self { flags, ..self }
    }

    pub const fn token(self, token: &'static CStr) -> Self {
        Self { token: Some(token), ..self }
    }
}

/// A reply. It is complete before any of it is sent.
pub enum Reply {
    Ok,
    /// The client waits, and gets its reply later.
    Later,
    /// An error of the server.
    Error(CString),
    Integer(i64),
    Text(Box<[u8]>),
    Integers([i64; 6]),
    Array(Vec<Reply>),
}
