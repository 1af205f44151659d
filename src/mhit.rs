//! `RATELIMIT.MHIT numkeys key [key ...] limit window [limit window ...] [COST units]`
//!
//! Several keys, a user, an address and the whole service say, checked in one step: all are charged or none is. One
//! `limit window` for each key, in the order of the keys. The reply is an array of one reply of `RATELIMIT.HIT` for each
//! key; `allowed` is the verdict on the whole call in each, the other five speak of that key alone.

use crate::args;
use crate::charge::{self, Charged, charge};
use crate::error::{self, Error};
use crate::hit;
use crate::limiter::Review;
use crate::log::{Store, Written};
use crate::register::{Argument, Command, Keys, Kind, Reply, Spec};
use crate::stream::{Arg, Events, Mode, Server};

pub struct MultiHit;

impl Command for MultiHit {
    const SPEC: Spec = Spec {
        name: c"ratelimit.mhit",
        flags: c"write deny-oom getkeys-api",
        arity: -5,
        keys: Keys::Counted { flags: hit::CHARGED },
        summary: c"Records a hit on several keys if every limit allows it, or on none.",
        complexity: c"O(K log N) for K keys, N being the number of entries in a log",
        args: &[
            Argument::new(c"numkeys", Kind::Integer),
            Argument::new(c"key", Kind::Key).multiple(),
            hit::TIER,
            hit::COST,
        ],
        categories: c"write stream slow",
    };

    fn run(server: Server, args: &[Arg]) -> Result<Reply, Error> {
        let [_, numkeys, rest @ ..] = args else {
            return Err(error::SYNTAX);
        };
        let count = args::number_of_keys(numkeys.bytes(), rest.len())?;
        let (names, rest) = rest.split_at_checked(count).ok_or(error::TOO_FEW_KEYS)?;
        let calls = args::parse_each(rest.iter().map(|arg| arg.bytes()), count)?;
        let mut sorted: Vec<&[u8]> = names.iter().map(|name| name.bytes()).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(error::REPEATED_KEY);
        }

        server.settle(names)?;
        let clock = server.clock();
        let mut read = Vec::with_capacity(count);
        for (name, call) in names.iter().zip(&calls) {
            let mut log = server.follow(*name, Mode::Write)?;
            let mut review = Review::new(clock, call);
            review.read(&mut log)?;
            read.push((log, review));
        }
        let admitted = read.iter().all(|(_, review)| review.fits());
        let mut decided = Vec::with_capacity(count);
        for (mut log, review) in read {
            let decision = review.decide(&mut log, admitted)?;
            let write = review.write(&decision, &mut log);
            decided.push((log, review, decision, write));
        }

        // Creating a key tells other modules so at once. So the keys that exist are written first, and the others when
        // none of these is open any more.
        let mut charged = Vec::with_capacity(count);
        for (name, (mut log, review, mut decision, write)) in names.iter().zip(decided) {
            let written = match &write {
                Some(write) if write.creates(&log) => None,
                Some(write) => log.write(write)?,
                None => Some(Written::default()),
            };
            charged.push(match written {
                Some(written) => {
                    decision.adjust(written);
                    let events = charge::close(server, *name, log, &review, &decision.answer)?;
                    Ok(Charged { answer: decision.answer, events })
                }
                None => Err(decision.answer),
            });
        }
        let mut answers = Vec::with_capacity(count);
        let mut events = Vec::with_capacity(count);
        for ((name, call), charged) in names.iter().zip(&calls).zip(charged) {
            let Charged { answer, events: own } = charged.or_else(|decided| {
                // Another module that has put something else at the key meanwhile has the last word on it, as it would have a
                // moment later. The other keys are charged by now.
                let charged = charge(server, *name, call, clock, Some(admitted));
                charged.or(Ok(Charged { answer: decided, events: Events::default() }))
            })?;
            answers.push(Reply::Integers(answer.integers()));
            events.push(own);
        }
        for (name, events) in names.iter().zip(events) {
            server.tell(*name, events)?;
        }
        Ok(Reply::Array(answers))
    }
}
