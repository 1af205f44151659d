//! Tests against real servers, through a real client.
//!
//! Each test starts its own server; see `tests/support`. Random ones print their seed when they fail, and take one from `SEED`.

mod access_control;
mod bad_arguments;
mod bursts;
mod clock_steps;
mod cluster;
mod command_tables;
mod cost_limits;
mod crash_recovery;
mod cursor_cache;
mod documents;
mod evictions;
mod exactness;
mod examples;
mod expiry;
mod failover;
mod foreign_writes;
mod fuzzing;
mod hostile_streams;
mod io_threads;
mod loading;
mod memcheck;
mod memory_limits;
mod multi_key;
mod no_panics;
mod other_modules;
mod protocol;
mod recipe;
mod refunds;
mod replays;
mod replication;
mod server_states;
mod soak;
mod statistics;
mod streams_agree;
mod too_few_replicas;
mod transactions_and_scripts;
mod unloading;
mod waiting;
mod waiting_crowds;
mod writable_replicas;
