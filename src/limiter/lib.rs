//! An exact sliding-window limiter over a log, without a server.
//!
//! A call flows one way: arguments, decision, plan. Whatever has a log (the module, a test) implements [`log::Log`] and
//! [`plan::Store`], and passes the time. Nothing here reads a clock, allocates for an ordinary hit, or can panic.
//!
//! | file | what it is |
//! | --- | --- |
//! | `syntax.rs`, `duration.rs`, `number.rs` | what arguments mean |
//! | `error.rs` | every error text |
//! | `log.rs` | what an entry is, and how a log is read |
//! | `retention.rs` | how long a log is kept when several policies share it |
//! | `usage.rs` | how much is in use, and whether there is room: the rule that decides |
//! | `search.rs` | when enough units have left |
//! | `answer.rs` | what the caller learns |
//! | `plan.rs` | what a call writes |
//! | `decision.rs` | the answer and the plan, in one step |
//! | `dump.rs` | a log of one hit as the server's RESTORE reads it |
//! | `cursors/` | a cache of what is known of busy keys' logs |
//! | `line.rs` | who waits in line, and when their turns come |
//! | `refusals.rs` | which keys are refused most: a sketch of fixed size |
//! | `hash.rs` | the place of a key in the tables of the last two |

#![forbid(unsafe_code)]
// Not in Cargo.toml, where it would hold for tests as well.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod answer;
pub mod cursors;
pub mod decision;
pub mod dump;
pub mod duration;
pub mod error;
pub mod hash;
pub mod line;
pub mod log;
pub mod number;
pub mod plan;
pub mod policies;
pub mod refund;
pub mod refusals;
pub mod retention;
mod search;
pub mod syntax;
pub mod usage;
