//! Giving units back: the newest hits leave a log.

use crate::error::{self, Error};
use crate::log::{Back, Entry, Hit, Id};
use crate::plan::Store;
use crate::retention;
use crate::usage::window_start;

/// Most hits that leave in one call, so that none takes long.
pub const MOST_GONE: usize = 1_024;

/// What leaves a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Units that are given back, at least 1.
    pub units: u64,
    /// The hits that leave, newest first.
    pub gone: Vec<Id>,
    /// The last of them weighed more than was owed: its rest, which is recorded anew.
    pub rest: Option<Entry>,
    /// The key's expiry, in milliseconds since the epoch, if it must be set.
    pub expire_at: Option<u64>,
    /// Nothing that counts is left, so the key is removed.
    pub is_all: bool,
}

/// What leaves the log so that `units` are given back, or as many as it holds; nothing if it holds none. `clock` is the server's,
/// in milliseconds since the epoch. `last_id` is a lower bound of the stream's last ID, if that is known to be ahead.
pub fn refund(log: &mut impl Store, clock: u64, units: u64, last_id: Id) -> Result<Option<Refund>, Error> {
    let Some(newest) = log.read_back(&mut |_, _| Back::Stop)? else {
        return Ok(None);
    };
    let last_id = last_id.max(newest.hit.id);
    let longest = newest.retention.longest;
    let now = clock.max(last_id.time);
    if last_id.time.saturating_sub(clock) > longest {
        // It is stale: the next hit starts it again.
        return Ok(None);
    }
    let from = window_start(now, longest);
    let (mut gone, mut sum, mut last) = (Vec::new(), 0_u64, Hit::default());
    let (mut is_ours, mut is_all) = (true, true);
    log.read_back(&mut |id, cost| {
        match cost {
            _ if id.time < from => {}
            _ if sum >= units || gone.len() == MOST_GONE => is_all = false,
            None => is_ours = false,
            Some(cost) => {
                gone.push(id);
                last = Hit { id, cost };
                sum = sum.saturating_add(cost);
                // The one after the last is looked at, too: it may count.
                return Back::Read;
            }
        }
        Back::Stop
    })?;
    if !is_ours {
        return Err(error::NOT_A_LOG);
    }
    let left_over = sum.saturating_sub(units);
    if left_over == 0 {
        let refund = Refund { units: sum, gone, rest: None, expire_at: None, is_all };
        return Ok((sum > 0).then_some(refund));
    }
    let given = last.cost.saturating_sub(left_over);
    let id = Id { time: now, tally: last.id.tally.wrapping_sub(given) };
    let id = if id > last_id { id } else { Id { time: now.saturating_add(1), ..id } };
    let expires_at = log.expires_at();
    let (retention, expire_at) = retention::after_stored(Some(newest.retention), expires_at, id.time, longest);
    let rest = Entry { hit: Hit { id, cost: left_over }, retention };
    Ok(Some(Refund { units, gone, rest: Some(rest), expire_at, is_all: false }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::plan::{Applied, Plan};
    use crate::retention::Retention;

    /// Hits that are kept for 100 ms, oldest first.
    struct Hits(Vec<Hit>);

    impl Log for Hits {
        fn read_back(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
            // A cost of 0 is not known.
            self.0.iter().rev().all(|hit| visit(hit.id, (hit.cost > 0).then_some(hit.cost)) != Back::Stop);
            let retention = Retention { longest: 100, fallback: None };
            Ok(self.0.last().map(|hit| Entry { hit: *hit, retention }))
        }

        fn last_id(&mut self) -> Result<Id, Error> {
            Ok(Id::default())
        }

        fn walk(&mut self, _from: u64, _visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
            Ok(())
        }
    }

    impl Store for Hits {
        fn length(&self) -> u64 {
            self.0.len() as u64
        }

        fn expires_at(&mut self) -> Option<u64> {
            Some(1_100)
        }

        fn first_tally(&mut self, _time: u64) -> u64 {
            0
        }

        fn apply(&mut self, _plan: &Plan) -> Result<Applied, Error> {
            Ok(Applied::IdTooLow)
        }
    }

    fn hit(time: u64, tally: u64, cost: u64) -> Hit {
        Hit { id: Id { time, tally }, cost }
    }

    #[test]
    fn the_newest_hits_leave() {
        let hits = [hit(899, 1, 1), hit(901, 4, 3), hit(950, 6, 2), hit(1_000, 11, 5)];
        let ids = |from: usize| hits[from..].iter().rev().map(|hit| hit.id).collect::<Vec<_>>();
        let refund = |clock, units| refund(&mut Hits(hits.to_vec()), clock, units, Id::default()).unwrap();
        let whole = |units, gone, is_all| Some(Refund { units, gone, rest: None, expire_at: None, is_all });
        assert_eq!(refund(1_000, 5), whole(5, ids(3), false));
        assert_eq!(refund(1_000, 7), whole(7, ids(2), false));
        assert_eq!(refund(1_000, 10), whole(10, ids(1), true), "the first has expired");
        assert_eq!(refund(1_000, 99), whole(10, ids(1), true), "no more than there is");
        assert_eq!(refund(1_001, 99), whole(7, ids(2), true));
        assert_eq!(refund(1_100, 99), None, "all have expired");
        assert_eq!(refund(899, 99), None, "the log is stale");

        // A part of a hit.
        let part = refund(1_000, 3).unwrap();
        assert_eq!((part.units, part.gone, part.is_all), (3, ids(3), false));
        assert_eq!(part.rest.unwrap().hit, hit(1_001, 8, 2), "the next millisecond, since the tally falls");
        assert_eq!(part.expire_at, Some(1_001 + 112), "a millisecond later than the key would live");
        let part = refund(1_001, 6).unwrap();
        assert_eq!((part.units, part.gone), (6, ids(2)));
        assert_eq!(part.rest.unwrap().hit, hit(1_001, 5, 1));
        let part = super::refund(&mut Hits(hits.to_vec()), 1_000, 3, Id { time: 1_050, tally: 7 }).unwrap().unwrap();
        assert_eq!(part.rest.unwrap().hit, hit(1_050, 8, 2), "after the stream's last ID");
    }

    #[test]
    fn foreign_entries_are_an_error_if_they_would_leave() {
        let hits = vec![hit(990, 1, 1), hit(995, 2, 0), hit(1_000, 3, 1)];
        let refund = |units| refund(&mut Hits(hits.clone()), 1_000, units, Id::default());
        assert_eq!(refund(1).unwrap().unwrap().units, 1);
        assert_eq!(refund(2), Err(error::NOT_A_LOG));
    }

    #[test]
    fn a_bounded_number_leaves() {
        let hits: Vec<Hit> = (1..=2_000).map(|at| hit(1_000, at, 1)).collect();
        let refund = refund(&mut Hits(hits), 1_000, 1_500, Id::default()).unwrap().unwrap();
        assert_eq!((refund.units, refund.gone.len(), refund.is_all), (1_024, MOST_GONE, false));
    }
}
