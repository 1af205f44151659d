//! The server: its raw API, and the only unsafe code of the module.
//!
//! | file | what it is |
//! | --- | --- |
//! | `api.rs` | the API's functions, and which of them must exist |
//! | `context.rs` | the server during one command, and the command's arguments |
//! | `strings.rs`, `shared.rs` | the server's strings; what commands share |
//! | `key.rs`, `entries.rs`, `effects.rs` | an open key; reading its log; writing it, and what replicas are told |
//! | `events.rs` | keyspace events; none is heard |
//! | `logs.rs` | a key with its cursor |
//! | `blocking.rs` | clients that wait |
//! | `command.rs`, `dispatch.rs`, `command_info.rs` | what a command is; how it is run; how it is registered |
//! | `load.rs`, `unload.rs`, `settings.rs`, `info.rs`, `stats.rs` | the module as a whole |
//!
//! All of it runs on the server's main thread, inside a command or an event. The stream wrappers of the crate redis-module are
//! not used: none of them appends, they allocate for every field, and they treat "nothing trimmed" as an error.
//!
//! Rules of the server that this folder keeps, so nobody else has to know them:
//! * Iterators: see `entries.rs`.
//! * Replication by effect: see `effects.rs`.
//! * Keys are opened with implicit signals turned off (see `load.rs`), so a refused hit disturbs no WATCH.
//! * Other modules act in events, and may do anything to any key. So [`Server::notify`] sends the events when every key is
//!   closed, and after the first event the command touches nothing. Two cannot be delayed. Opening an expired key sends
//!   `expired`, so a command on several keys first deletes the expired ones ([`Key::which_exist`]). Creating a key sends `new`
//!   and `restore`, so no other key is open then, and what is there afterwards is not known.

mod api;
mod blocking;
mod command;
mod command_info;
mod context;
mod dispatch;
mod effects;
mod entries;
mod events;
mod info;
mod key;
mod load;
pub mod logs;
mod settings;
mod shared;
mod stats;
mod strings;
mod unload;

pub use blocking::{Asked, Outcome, Waiting};
pub use command::{Argument, ArgumentKind, Command, Keys, Reply, Spec};
pub use context::{Arg, Server};
pub use events::Events;
pub use key::{Key, Mode};
pub use load::{Loader, outcome};
pub use shared::{Exclusive, LINES, POLICIES, REFUSALS};
pub use stats::STATS;
pub use unload::unload;
