//! The limiter without a server: random histories against an oracle.

mod cases;
mod memory_log;
mod properties;
mod waiting;
