//! `RATELIMIT.MHIT numkeys key [key ...] group [AND group ...] [STRICT | FORCE] [WITHTIERS]`, where a group is
//! `limit window [limit window ...] [COST units]`
//!
//! Checks several keys (a user, an address, the whole service) in one step: all are charged or none is. Takes a group for each
//! key, in the order of the keys. The reply is an array with one reply of `RATELIMIT.HIT` for each key. Its `allowed` is the
//! verdict on the whole call; the other five are about that key alone. With `STRICT` the keys that refuse are charged as well.

use limiter::decision::Decision;
use limiter::error::{self, Error};
use limiter::log::Id;
use limiter::plan::{Applied, Store};
use limiter::syntax::{Call, parse_groups, parse_numkeys};
use limiter::usage::Usage;

use super::arguments::{CHARGED, COST, RECORD, TIER, WITHTIERS};
use super::charge::{Charged, charge, count, finish, refusal, reply};
use crate::server::{Arg, Argument, ArgumentKind, Command, Key, Keys, Reply, Server, Spec, logs};

pub struct MultiHit;

impl Command for MultiHit {
    const SPEC: Spec = Spec {
        name: c"ratelimit.mhit",
        flags: c"write deny-oom getkeys-api",
        arity: -5,
        keys: Keys::Counted { flags: CHARGED },
        summary: c"Records a hit on several keys if every limit allows it, or on none.",
        complexity: c"O(K log N) for K keys, N being the number of entries in a log",
        args: &[
            Argument::new(c"numkeys", ArgumentKind::Integer),
            Argument::new(c"key", ArgumentKind::Key).multiple(),
            Argument::new(c"group", ArgumentKind::Block(&[TIER, COST])),
            Argument::new(c"further", ArgumentKind::Block(&[TIER, COST])).optional().token(c"AND").each(),
            RECORD,
            WITHTIERS,
        ],
        categories: c"write stream slow",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, numkeys, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let count = parse_numkeys(numkeys.bytes(), rest.len())?;
        let (names, rest) = rest.split_at_checked(count).ok_or(error::TOO_FEW_KEYS)?;
        let calls = parse_groups(rest.iter().map(|arg| arg.bytes()), count)?;
        let mut sorted: Vec<&[u8]> = names.iter().map(|name| name.bytes()).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(error::REPEATED_KEY);
        }
        let charged = charge_all(server, names, &calls)?;
        let answers = charged.iter().map(|charged| reply(&charged.answer, &charged.tiers)).collect();
        for (name, charged) in names.iter().zip(charged) {
            server.notify(*name, charged.events)?;
        }
        Ok(Reply::Array(answers))
    }
}

/// Charges all keys or none, and closes them.
fn charge_all(server: Server, names: &[Arg], calls: &[Call]) -> Result<Vec<Charged>, Error> {
    let keys = Key::open_all(server, names)?;
    let clock = server.clock();
    let mut read = Vec::with_capacity(names.len());
    for (key, call) in keys.into_iter().zip(calls) {
        let mut log = logs::with_cursor(key)?;
        let mut usage = Usage::new(call, clock, Id::default());
        usage.read(&mut log)?;
        read.push((log, usage));
    }
    let admitted = read.iter().all(|(_, usage)| usage.has_room());
    let mut decided = Vec::with_capacity(names.len());
    for (mut log, usage) in read {
        let decision = usage.decide(&mut log, admitted)?;
        decided.push((log, usage, decision));
    }

    // Creating a key notifies other modules at once. So write the keys that exist first, and the others once none of these
    // is open.
    let mut written = Vec::with_capacity(names.len());
    for (name, (mut log, usage, mut decision)) in names.iter().zip(decided) {
        let is_created = decision.plan.creates(log.length());
        let applied = if is_created { Applied::IdTooLow } else { log.apply(&decision.plan)? };
        written.push(match applied {
            Applied::Done { oldest } => Ok(finish(server, *name, log, &usage, &mut decision, oldest)?),
            Applied::IdTooLow | Applied::KeyExists => Err((usage, decision)),
        });
    }
    let mut charged = Vec::with_capacity(names.len());
    for ((name, call), written) in names.iter().zip(calls).zip(written) {
        charged.push(match written {
            Ok(charged) => charged,
            Err((usage, Decision { answer, tiers, .. })) => match charge(server, *name, call, clock, Some(admitted)) {
                Ok(charged) => charged,
                // If another module has put something else at the key, that stays, as if it had come a moment later. The other
                // keys are already charged.
                Err(_) => {
                    count(server, *name, &usage, &answer)?;
                    Charged { answer, tiers, events: refusal(server, &answer)? }
                }
            },
        });
    }
    Ok(charged)
}
