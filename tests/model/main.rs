//! The limiter without a server: random histories against an oracle.

mod memory_log;
mod properties;
