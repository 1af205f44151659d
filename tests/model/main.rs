//! The limiter without a server: random histories against an oracle.

mod cases;
mod memory_log;
#[allow(dead_code, reason = "of calls on several keys, which need a server")]
mod oracle;
mod properties;
