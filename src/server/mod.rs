//! The server: its raw API, and the only unsafe code of the module.
//!
//! | file | what it is |
//! | --- | --- |
//! | `api.rs` | the functions of the API, and which of them must be there |
//! | `context.rs` | the server during one command, and the command's arguments |
//! | `strings.rs`, `shared.rs` | strings of the server; what commands share |
//! | `key.rs`, `entries.rs`, `effects.rs` | an open key; reading its log; writing it, and what replicas are told |
//! | `events.rs` | keyspace events, sent and heard |
//! | `logs.rs` | a key with its cursor |
//! | `command.rs`, `dispatch.rs`, `command_info.rs` | what a command is, how it is run, how it is registered |
//! | `load.rs`, `unload.rs`, `settings.rs`, `info.rs`, `stats.rs` | the module as a whole |
//!
//! All of it runs on the server's main thread, inside a command or an event. The wrappers of the crate redis-module are not
//! used for streams: they have none for appending, allocate for every field, and take "nothing trimmed" for an error.
//!
//! Rules of the server that this folder keeps, so that nobody else has to know them:
//! * iterators: see `entries.rs`;
//! * replication by effect: see `effects.rs`;
//! * keys are opened with implicit signals turned off (see `load.rs`), so that a refused hit disturbs no WATCH;
//! * other modules act in events, and may do anything to any key. So events are sent by [`Server::notify`], when every key
//!   is closed, and after the first of them nothing of the command is touched. Two events cannot be put off: opening a
//!   key that has expired sends `expired`, so that the expired ones of several keys are deleted first, see
//!   [`Key::delete_expired`]; and creating a key sends `new` before the entry is in it, so that no other key is open then.

mod api;
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

pub use command::{Argument, ArgumentKind, Command, Keys, Reply, Spec};
pub use context::{Arg, Server};
pub use events::Events;
pub use key::{Key, Mode};
pub use load::{Loader, outcome};
pub use shared::REFUSALS;
pub use stats::STATS;
pub use unload::unload;
