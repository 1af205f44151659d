//! A server in this process that loads the module as it is built, and drives it by seeds.
//!
//! The module is the file that real servers load, unchanged: it gets its functions from [`api`] as it gets them from a
//! server, and cannot tell the difference.
//!
//! | file | what it is |
//! | --- | --- |
//! | `stream` | a stream as the servers keep it, node by node |
//! | `server`, `database`, `native` | databases, expiry, events, replication; the server's own commands |
//! | `api`, `variadic.c`, `strings`, `module` | the module API, with every rule checked; the module and what it registers |
//! | `frame`, `judge` | one call with what was before and after it; whether it is right |
//! | `waiting`, `lines` | clients that wait, and the timers of the module; whether they were served in turn |
//! | `retention` | how long a log must be kept |
//! | `world` | a primary, a replica and a server without the module; each step checked |
//! | `workload` | what a seed makes happen |
//! | `history` | one history by its seed, and the shortest one that still fails |
//! | `replay` | a history to be told to a real server, with all that it must do |
//! | `memory` | memory that is used again at once, for the program and the module |
//! | `chance` | random bytes that are the same in every run; a part of the program, not of the library |
//! | `loading` | what the module does when it is loaded, where anything may be missing or fail |

#![allow(clippy::not_unsafe_ptr_arg_deref, reason = "whatever the module passes is checked where it is used")]

pub mod api;
pub mod database;
pub mod frame;
pub mod history;
pub mod judge;
pub mod lines;
pub mod loading;
pub mod memory;
pub mod module;
mod native;
pub mod problems;
pub mod replay;
pub mod retention;
pub mod server;
pub mod stream;
pub mod strings;
pub mod waiting;
pub mod workload;
pub mod world;
