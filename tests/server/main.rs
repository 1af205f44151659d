//! Tests against real servers, through a real client.
//!
//! Each test starts its own server; see `support`. Random ones print their seed when they fail, and take one from `SEED`.

mod support;

#[path = "../model/oracle.rs"]
mod oracle;

mod attackers;
mod bad_input;
mod bursts;
mod chaos;
mod clocks;
mod cluster;
mod conditions;
mod crashes;
mod cursors;
mod documents;
mod events;
mod everywhere;
mod examples;
mod expiry;
mod fuzz;
mod histories;
mod hostile;
mod interference;
mod introspection;
mod memcheck;
mod memory;
mod mhit;
mod panics;
mod recipe;
mod replication;
mod soak;
mod unload;
