//! One file a command. Each reads top down: syntax and reply, what the server is told about it, what it does.

mod arguments;
mod charge;
mod hit;
mod mhit;
mod peek;
mod refund;
mod reset;
mod resetstat;
mod top;
mod wait;

pub use hit::Hit;
pub use mhit::MultiHit;
pub use peek::Peek;
pub use refund::Refund;
pub use reset::Reset;
pub use resetstat::ResetStat;
pub use top::Top;
