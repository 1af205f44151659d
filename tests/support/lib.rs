//! What the tests on real servers and the benchmarks share.
//!
//! | file | what it has |
//! | --- | --- |
//! | `servers`, `clock`, `client`, `waiting` | a server with its options, a clock that can be set, what tests ask, patience |
//! | `stage` | the fixture of most tests: a server on a set clock, and a client |
//! | `skips` | how a test says that a server cannot run it |
//! | `modules` | paths, and the modules that servers load |
//! | `seeds`, `calls` | chance that can be repeated, and random calls |
//! | `errors` | the texts of errors |
//! | `oracle`, `checked`, `judge` | what the reply must be; calls that are held to it; what it may be at all, and stalls |
//! | `interference` | what others do to the keys |
//! | `replication` | replicas, append-only files, effects |
//! | `fuzzer`, `streams`, `reactions` | what several tests put a server through: broken calls, hostile streams, other modules |
//! | `contenders`, `traffic`, `counts` | what the benchmarks compare, how they send it, instructions that were counted |
//!
//! `reactor.rs` is no part of it: cargo builds it as an example, a second module for servers to load.

pub mod calls;
pub mod checked;
pub mod client;
pub mod clock;
pub mod contenders;
pub mod counts;
pub mod errors;
pub mod fuzzer;
pub mod interference;
pub mod judge;
pub mod modules;
pub mod reactions;
pub mod replication;
pub mod seeds;
pub mod servers;
pub mod skips;
pub mod stage;
pub mod streams;
pub mod traffic;
pub mod waiting;

pub use client::{Ask, assert_same, get, in_minutes, six, text_of, words};
pub use clock::{Clock, START};
pub use modules::root;
pub use oracle;
pub use seeds::is_long;
pub use servers::{Server, Setup};
pub use skips::skipped;
pub use stage::Stage;
pub use waiting::{PATIENCE, Running, wait_for, wait_for_more};
