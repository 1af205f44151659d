//! `RATELIMIT.MHIT numkeys key [key ...] limit window [limit window ...] [COST units]`
//!
//! Several keys, a user, an address and the whole service say, checked in one step: all are charged or none is. One
//! `limit window` for each key, in the order of the keys. The reply is an array of one reply of `RATELIMIT.HIT` for each
//! key; `allowed` is the verdict on the whole call in each, the other five speak of that key alone.

use crate::args;
use crate::error::{self, Error};
use crate::hit::{self, carry_out};
use crate::limiter::Review;
use crate::register::{Argument, Command, Keys, Kind, Reply, Spec};
use crate::stream::{Arg, Mode, Server};

pub struct MultiHit;

impl Command for MultiHit {
    const SPEC: Spec = Spec {
        name: c"ratelimit.mhit",
        flags: c"write deny-oom fast getkeys-api",
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
        categories: c"write stream fast",
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

        // Nothing is written before every key has been read and every answer is known.
        let clock = server.clock();
        let mut reviewed = Vec::with_capacity(count);
        for (name, call) in names.iter().zip(&calls) {
            let mut log = server.follow(*name, Mode::Write)?;
            let mut review = Review::new(clock, call);
            review.read(&mut log)?;
            reviewed.push((*name, log, review));
        }
        let admitted = reviewed.iter().all(|(.., review)| review.fits());
        let mut decisions = Vec::with_capacity(count);
        for (_, log, review) in &mut reviewed {
            decisions.push(review.decide(log, admitted)?);
        }

        let mut answers = Vec::with_capacity(count);
        for ((name, mut log, review), decision) in reviewed.into_iter().zip(decisions) {
            let answer = carry_out(server, name, &mut log, &review, &decision)?;
            hit::keep(log);
            answers.push(Reply::Integers(answer.integers()));
        }
        Ok(Reply::Array(answers))
    }
}
