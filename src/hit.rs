//! `RATELIMIT.HIT key limit window [limit window ...] [COST units] [STRICT]`
//!
//! May one more hit on `key` happen now, and if so, record it. The reply is an array of six integers: allowed, limit,
//! remaining, retry_after, reset_after, next_after (times in milliseconds). A refusal is an answer, not an error, and
//! leaves no trace; with `STRICT` it counts like a hit.

use redis_module::raw;

use crate::args::{Call, Strict};
use crate::cursors::Followed;
use crate::error::{self, Error};
use crate::hash;
use crate::limiter::{Answer, Decision, Review};
use crate::log::Store;
use crate::register::{Argument, Command, Keys, Kind, Reply, Spec};
use crate::stats::STATS;
use crate::stream::{Arg, CURSORS, Key, Mode, OFFENDERS, Server};

pub struct Hit;

/// What happens to the keys of `HIT` and `MHIT`. An answer tells what is in the log, so that a user needs the right to read
/// it as well.
pub const CHARGED: u32 =
    raw::REDISMODULE_CMD_KEY_RW | raw::REDISMODULE_CMD_KEY_ACCESS | raw::REDISMODULE_CMD_KEY_UPDATE;

/// The arguments that `HIT` and `PEEK` share.
pub const KEY: Argument = Argument::new(c"key", Kind::Key);
pub const TIER: Argument = Argument::new(
    c"tier",
    Kind::Block(&[Argument::new(c"limit", Kind::Integer), Argument::new(c"window", Kind::String)]),
)
.multiple();
pub const COST: Argument = Argument::new(c"units", Kind::Integer).token(c"COST").optional();

impl Command for Hit {
    const SPEC: Spec = Spec {
        name: c"ratelimit.hit",
        flags: c"write deny-oom fast",
        arity: -4,
        keys: Keys::Range { last: 0, flags: CHARGED },
        summary: c"Records a hit if every limit allows it, and tells what is left.",
        complexity: c"O(log N) for each tier, N being the number of entries in the log",
        args: &[KEY, TIER, COST, Argument::new(c"strict", Kind::Token).token(c"STRICT").optional()],
        categories: c"write stream fast",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, name, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let mut call = Call::default();
        call.read(rest.iter().map(|arg| arg.bytes()), Strict::Known)?;
        let mut log = server.follow(*name, Mode::Write)?;

        let mut review = Review::new(server.clock(), &call);
        review.read(&mut log)?;
        let decision = review.decide(&mut log, review.fits())?;
        let answer = carry_out(server, *name, &mut log, &review, &decision)?;
        keep(log);
        Ok(Reply::Integers(answer.integers()))
    }
}

/// Writes what was decided for one key, and keeps the books.
pub fn carry_out(
    server: Server,
    name: Arg,
    log: &mut Followed<Key>,
    review: &Review,
    decision: &Decision,
) -> Result<Answer, Error> {
    let answer = match review.write(decision, log) {
        Some(write) if log.write(&write)?.is_none() => start_again(log.forget(), review)?,
        _ => decision.answer,
    };
    if answer.allowed {
        STATS.hits_admitted.add(1);
        STATS.units_admitted.add(review.call.cost);
    } else if answer.retry_after != Some(0) {
        STATS.hits_refused.add(1);
        let (database, name_bytes) = (server.database()?, name.bytes());
        let hash = log.hash().unwrap_or_else(|| hash::of(database, name_bytes));
        OFFENDERS.with(|offenders| offenders.record(hash, database, name_bytes, review.clock));
        server.notify_refused(name)?;
    }
    Ok(answer)
}

/// Closes the key, and puts its cursor back into the table.
pub fn keep(log: Followed<Key>) {
    if let (_key, Some(cursor)) = log.into_parts() {
        CURSORS.with(|table| table.put(cursor));
    }
}

/// The server does not take the entry: somebody has pushed the stream's last ID ahead. An empty log admits whatever could
/// be stored, so that nobody is locked out.
fn start_again(key: &mut Key, review: &Review) -> Result<Answer, Error> {
    key.remove()?;
    let review = Review::new(review.clock, review.call);
    let decision = review.decide(key, review.fits())?;
    match review.write(&decision, key) {
        Some(write) if key.write(&write)?.is_some() => Ok(decision.answer),
        _ => Err(error::APPEND_FAILED),
    }
}
