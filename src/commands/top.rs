//! `RATELIMIT.TOP [COUNT n]`
//!
//! Lists the keys of the selected database that are refused most right now, the worst first: an array of at most `n` (10 by
//! default) arrays of key, refusals (halved every minute), and time of the last one in milliseconds since the epoch.
//! `ratelimit.top-entries` sets how many keys are counted. The list is neither saved nor replicated.

use limiter::error::Error;
use limiter::syntax::parse_count;

use crate::server::{Arg, Argument, ArgumentKind, Command, Keys, REFUSALS, Reply, Server, Spec};

pub struct Top;

impl Command for Top {
    const SPEC: Spec = Spec {
        name: c"ratelimit.top",
        // Like KEYS and SLOWLOG, it shows names of keys that the user may not read.
        flags: c"readonly admin",
        arity: -1,
        keys: Keys::None,
        summary: c"Lists the keys that are being refused most.",
        complexity: c"O(N log N) where N is the number of keys that are counted (ratelimit.top-entries)",
        args: &[Argument::new(c"count", ArgumentKind::Integer).token(c"COUNT").optional()],
        categories: c"read admin slow dangerous",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let count = parse_count(args.iter().skip(1).map(|arg| arg.bytes()))?;
        let integer = |value: u64| Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX));
        let (database, now) = (server.database()?, server.clock());
        let top = REFUSALS.with(|table| table.top(database, count, now));
        let rows = top
            .into_iter()
            .flatten()
            .map(|row| Reply::Array(vec![Reply::Text(row.key), integer(row.refused), integer(row.last)]));
        Ok(Reply::Array(rows.collect()))
    }
}
