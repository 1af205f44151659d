//! When enough units have left a log.

use crate::error::Error;
use crate::log::{Hit, Log};

/// Entries to look at one by one, which is cheaper than one search by time.
const WALK: u64 = 16;

/// The time of the entry with which `needed` units have left, counted from `first`. A refused call waits until that time has
/// left the window.
///
/// The place is guessed from the units on both sides of it, as hits come more or less evenly, and a short walk goes the rest.
/// Every second step halves the time instead, so there are never more than 84 searches, however long the log is.
pub fn time_of_unit(log: &mut impl Log, first: &Hit, newest: &Hit, needed: u64) -> Result<u64, Error> {
    if first.cost >= needed {
        return Ok(first.id.time);
    }
    // Entries deleted before a hit left with the hit before it.
    let units_before = |hit: &Hit| hit.units_since(first).saturating_sub(hit.cost);
    // The entries up to `low` weigh too little, those up to `high` enough.
    let (mut low, mut low_units, mut cost) = (first.id.time.saturating_sub(1), 0_u64, first.cost);
    let (mut high, mut high_units) = (newest.id.time, newest.units_since(first));
    let (mut walks, mut halves) = (true, false);
    while high.saturating_sub(low) > 1 {
        // The entry after those that weigh enough must be reached.
        if walks && needed.saturating_sub(low_units) <= cost.saturating_mul(WALK - 1) {
            let mut left = WALK;
            let mut walked_to = low;
            let mut found = None;
            log.walk(low.saturating_add(1), &mut |hit| {
                if units_before(&hit) >= needed {
                    found = Some(walked_to);
                    return false;
                }
                walked_to = hit.id.time;
                left = left.saturating_sub(1);
                left > 0
            })?;
            if let Some(time) = found {
                return Ok(time);
            }
            low = walked_to.saturating_sub(1).clamp(low, high.saturating_sub(1));
            walks = false;
            continue;
        }
        // A little too early is best, because walks go forward.
        let aim = needed.saturating_sub(cost.saturating_mul(WALK / 2));
        let middle = match halves {
            true => low.midpoint(high),
            false => low.saturating_add(part(
                high.saturating_sub(low),
                aim.saturating_sub(low_units),
                high_units.saturating_sub(low_units),
            )),
        };
        let middle = middle.clamp(low.saturating_add(1), high.saturating_sub(1));
        halves = !halves;
        match log.seek(middle.saturating_add(1))? {
            Some(next) if units_before(&next) < needed => {
                let last_too_early = next.id.time.saturating_sub(1);
                low = last_too_early.clamp(middle, high.saturating_sub(1));
                (low_units, cost, walks) = (units_before(&next), next.cost, true);
            }
            Some(next) => (high, high_units) = (middle, units_before(&next)),
            None => high = middle,
        }
    }
    Ok(high)
}

/// `whole * share / all`.
fn part(whole: u64, share: u64, all: u64) -> u64 {
    let product = u128::from(whole).wrapping_mul(u128::from(share));
    u64::try_from(product.checked_div(u128::from(all)).unwrap_or(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Back, Entry, Id};

    /// A log that counts how often it is read.
    struct Counted {
        hits: Vec<Hit>,
        seeks: usize,
        walks: usize,
        /// Most hits passed in one walk.
        longest: u64,
    }

    impl Counted {
        fn new(hits: Vec<Hit>) -> Self {
            Self { hits, seeks: 0, walks: 0, longest: 0 }
        }

        /// Hits with these times and costs, of which some were deleted afterwards.
        fn of(hits: impl IntoIterator<Item = (u64, u64)>, tally: u64, is_deleted: impl Fn(usize) -> bool) -> Self {
            let mut id = Id { time: 0, tally };
            let hits = hits.into_iter().map(|(time, cost)| {
                // IDs increase, so a tally that wraps is one of the next millisecond.
                let next = Id { time: time.max(id.time), tally: id.tally.wrapping_add(cost) };
                id = if next > id { next } else { Id { time: id.time + 1, ..next } };
                Hit { id, cost }
            });
            let kept = hits.enumerate().filter(|(at, _)| !is_deleted(*at)).map(|(_, hit)| hit);
            Self::new(kept.collect())
        }

        fn ends(&self) -> [Hit; 2] {
            [self.hits[0], self.hits[self.hits.len() - 1]]
        }

        fn total(&self) -> u64 {
            let [first, newest] = self.ends();
            newest.units_since(&first)
        }

        fn find(&mut self, needed: u64) -> u64 {
            (self.seeks, self.walks, self.longest) = (0, 0, 0);
            let [first, newest] = self.ends();
            time_of_unit(self, &first, &newest, needed).unwrap()
        }

        /// The same by looking at every hit.
        fn scan(&self, needed: u64) -> u64 {
            let [first, newest] = self.ends();
            let has_left = |pair: &&[Hit]| pair[1].units_since(&first) - pair[1].cost >= needed;
            let last = self.hits.windows(2).find(|pair| pair[0].id.time < pair[1].id.time && has_left(pair));
            last.map_or(newest, |pair| pair[0]).id.time
        }
    }

    impl Log for Counted {
        fn read_back(&mut self, _: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
            panic!("a search does not read backwards")
        }

        fn last_id(&mut self) -> Result<Id, Error> {
            panic!("a search does not need the last ID")
        }

        fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
            self.walks += 1;
            let start = self.hits.partition_point(|hit| hit.id.time < from);
            let mut passed = 0;
            self.hits[start..].iter().all(|hit| {
                passed += 1;
                visit(*hit)
            });
            self.longest = self.longest.max(passed);
            Ok(())
        }

        fn seek(&mut self, from: u64) -> Result<Option<Hit>, Error> {
            self.seeks += 1;
            let start = self.hits.partition_point(|hit| hit.id.time < from);
            Ok(self.hits.get(start).copied())
        }
    }

    const NOW: u64 = 1_767_225_600_000;

    /// Even, in bursts, or all in few milliseconds; of cost 1, of one other cost, or of any.
    fn random_log(rng: &mut fastrand::Rng) -> Counted {
        let length = 1 << rng.u32(0..9);
        let gaps = [0, 1, 7, 1_000, 86_400_000][rng.usize(0..5)];
        let pause = [0, 50, 100_000, 1 << 33][rng.usize(0..4)];
        let burst = rng.usize(1..40);
        let (weights, one) = (rng.u32(0..4), rng.u64(1..500));
        let tally = if rng.bool() { u64::MAX - rng.u64(0..2_000) } else { rng.u64(..) };
        let mut time = NOW;
        let hits: Vec<(u64, u64)> = (0..length)
            .map(|nth| {
                time += match nth % burst {
                    0 => pause,
                    _ if rng.u32(0..8) == 0 => rng.u64(0..=gaps * 3),
                    _ => gaps,
                };
                let cost = match weights {
                    0 => 1,
                    1 => one,
                    2 => 1 + rng.u64(0..10),
                    _ => 1 + (rng.u64(..) >> rng.u32(20..64)),
                };
                (time, cost)
            })
            .collect();
        let deleted: Vec<bool> = match rng.u32(0..3) {
            0 => (0..length).map(|_| rng.u32(0..4) == 0).collect(),
            1 => (0..length).map(|nth| nth / 20 % 2 == 1).collect(),
            _ => vec![false; length],
        };
        // The first and the last hit stay.
        Counted::of(hits, tally, |at| deleted[at] && at > 0 && at + 1 < length)
    }

    #[test]
    fn it_finds_what_a_scan_finds() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..3_000 {
            let mut log = random_log(&mut rng);
            let total = log.total();
            let mut needed =
                vec![1, 2, 17, total / 2, total.saturating_sub(1), total, total.saturating_add(1), u64::MAX];
            // At the edge of a hit, and anywhere.
            let [first, _] = log.ends();
            for _ in 0..8 {
                let edge = log.hits[rng.usize(0..log.hits.len())].units_since(&first);
                needed.extend([edge - 1, edge, edge + 1, 1 + rng.u64(0..total)]);
            }
            for needed in needed.into_iter().filter(|needed| *needed > 0) {
                assert_eq!(log.find(needed), log.scan(needed), "{needed} of {total} in {:?}", log.hits);
                assert!(log.seeks <= 84 && log.walks <= log.seeks + 1 && log.longest <= WALK);
            }
        }
    }

    #[test]
    fn few_units_are_found_in_one_walk() {
        let mut log = Counted::of((0..1_000).map(|nth| (NOW + nth, 5)), 7, |_| false);
        for needed in 1..=100 {
            assert_eq!(log.find(needed), NOW + (needed - 1) / 5);
            // Sixteen entries tell what has left with fifteen.
            let expected = match needed {
                ..=5 => (0, 0),
                6..=75 => (0, 1),
                _ => (1, 1),
            };
            assert_eq!((log.seeks, log.walks), expected, "{needed}");
        }
    }

    #[test]
    fn an_even_log_needs_few_searches() {
        for (gap, cost) in [(0, 1), (1, 1), (7, 1), (1_728, 1), (7, 20), (1, MOST_UNITS)] {
            let mut log = Counted::of((0..50_000).map(|nth| (NOW + nth * gap, cost)), u64::MAX - 3, |_| false);
            for share in 1..=1_000 {
                let needed = log.total() / 1_000 * share;
                assert_eq!(log.find(needed), log.scan(needed));
                assert!(log.seeks + log.walks <= 4, "{gap} {cost} {share}: {} and {}", log.seeks, log.walks);
            }
        }
    }

    /// Of all costs together.
    const MOST_UNITS: u64 = (1 << 62) / 50_000;

    /// What misleads a guess most: nearly everything at one end of ten years, or twice as far apart each time.
    #[test]
    fn no_log_needs_many_searches() {
        let years = 315_360_000_000_u64;
        let shapes: [fn(u64, u64) -> u64; 4] = [
            |nth, years| if nth == 0 { 0 } else { years - 10_000 + nth },
            |nth, years| if nth == 9_999 { years } else { nth },
            |nth, _| 1 << (nth * 38 / 10_000),
            |nth, years| years - (1 << (38 - nth * 38 / 10_000)),
        ];
        let weights: [fn(u64) -> u64; 4] =
            [|_| 1, |nth| 1 + nth % 100, |nth| 1 << (nth * 40 / 10_000), |nth| 1 << (40 - nth * 40 / 10_000)];
        for shape in shapes {
            for costs in weights {
                let mut log = Counted::of((0..10_000).map(|nth| (NOW + shape(nth, years), costs(nth))), 7, |_| false);
                for share in 1..=100 {
                    let needed = log.total() / 100 * share;
                    assert_eq!(log.find(needed), log.scan(needed));
                    assert!(log.seeks <= 84 && log.walks <= log.seeks + 1 && log.longest <= WALK);
                }
            }
        }
    }
}
