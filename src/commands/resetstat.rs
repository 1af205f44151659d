//! `RATELIMIT.RESETSTAT`
//!
//! Sets the counters of `INFO ratelimit` to zero and empties the list of `RATELIMIT.TOP`. (`CONFIG RESETSTAT` does not notify
//! modules.) Replies OK.

use limiter::error::Error;
use limiter::policies::Policies;
use limiter::refusals::Refusals;

use crate::server::{Arg, Command, Keys, POLICIES, REFUSALS, Reply, STATS, Server, Spec};

pub struct ResetStat;

impl Command for ResetStat {
    const SPEC: Spec = Spec {
        name: c"ratelimit.resetstat",
        flags: c"admin deny-script allow-loading allow-stale",
        arity: 1,
        keys: Keys::None,
        summary: c"Resets the counters of INFO ratelimit and the list of RATELIMIT.TOP.",
        complexity: c"O(N) where N is the number of keys that are counted (ratelimit.top-entries)",
        args: &[],
        categories: c"admin slow dangerous",
    };

    fn run(_: Server, _: &[Arg]) -> Result<Reply, Error> {
        STATS.reset();
        REFUSALS.with(Refusals::clear);
        POLICIES.with(Policies::reset);
        Ok(Reply::Ok)
    }
}
