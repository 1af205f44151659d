//! What the tests on real servers and the benchmarks share.

pub mod calls;
pub mod client;
pub mod clock;
pub mod contenders;
pub mod errors;
pub mod fuzzer;
pub mod interference;
pub mod judge;
pub mod modules;
pub mod reactions;
pub mod replication;
pub mod seeds;
pub mod servers;
pub mod stage;
pub mod streams;
pub mod waiting;

pub use client::{Ask, assert_same, get, in_minutes, six, text_of, words};
pub use clock::{Clock, START};
pub use modules::root;
pub use oracle;
pub use seeds::is_long;
pub use servers::{Server, Setup};
pub use stage::Stage;
pub use waiting::{PATIENCE, Running, wait_for, wait_for_more};
