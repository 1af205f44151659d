//! Which keys are refused most, right now: a sketch of fixed size.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams, ICDT
//! 2005) in small sets. A key's hash chooses its set of [`WAYS`] counters. A key that has no counter takes over the smallest
//! one of its set and counts on from there. So recording looks at eight counters, whatever the table's size. A count is
//! never too small, and too large by at most the smallest count of its set, so frequent keys stand out.
//!
//! Counts decay: each is halved every minute from when its key was first counted.

use std::cmp::Reverse;

/// Counters of a set.
const WAYS: usize = 8;

/// Milliseconds after which a count is halved.
const HALF_LIFE: u64 = 60_000;

/// Bytes of the longest key that is counted, to bound a counter's size.
pub const MAX_KEY: usize = 1024;

/// Keys counted. They take about 100 kB by default; at most, with the longest keys, 70 MB.
pub const DEFAULT_ENTRIES: i64 = 1_000;
pub const MIN_ENTRIES: i64 = 0;
pub const MAX_ENTRIES: i64 = 65_536;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedKey {
    pub key: Box<[u8]>,
    /// Refusals, halved every minute.
    pub refused: u64,
    /// Milliseconds since the epoch.
    pub last: u64,
}

#[derive(Clone, Default)]
struct Slot {
    hash: u64,
    database: i32,
    counted: RefusedKey,
    halved_at: u64,
}

impl Slot {
    fn decay(&mut self, now: u64) {
        let halvings = now.saturating_sub(self.halved_at) / HALF_LIFE;
        if halvings != 0 {
            let shift = u32::try_from(halvings).unwrap_or(u32::MAX);
            self.counted.refused = self.counted.refused.checked_shr(shift).unwrap_or(0);
            self.halved_at = self.halved_at.saturating_add(halvings.saturating_mul(HALF_LIFE));
        }
    }
}

pub struct Refusals {
    entries: usize,
    sets: Vec<[Slot; WAYS]>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self::new()
    }
}

impl Refusals {
    /// A table in which nothing is counted.
    pub const fn new() -> Self {
        Self { entries: 0, sets: Vec::new() }
    }

    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Makes room for `entries` keys, rounded up to whole sets; 0 turns counting off. Existing counts are kept, the largest
    /// first, while there is room.
    pub fn resize(&mut self, entries: usize) {
        self.entries = entries;
        let old = std::mem::replace(&mut self.sets, vec![Default::default(); entries.div_ceil(WAYS)]);
        let mut slots: Vec<Slot> = old.into_iter().flatten().collect();
        slots.sort_by_key(|slot| Reverse(slot.counted.refused));
        for slot in slots {
            let set = self.set_of(slot.hash);
            if let Some(free) = set.and_then(|set| set.iter_mut().find(|free| free.counted.refused == 0)) {
                *free = slot;
            }
        }
    }

    pub fn clear(&mut self) {
        self.sets.fill_with(Default::default);
    }

    /// Counts a refusal of `key` in `database` at `now`, in milliseconds since the epoch. `hash` is that of [`crate::hash::of`].
    pub fn record(&mut self, hash: u64, database: i32, key: &[u8], now: u64) {
        if self.sets.is_empty() || key.len() > MAX_KEY {
            return;
        }
        let Some(set) = self.set_of(hash) else { return };
        let is_it = |slot: &Slot| slot.hash == hash && slot.database == database && *slot.counted.key == *key;
        if let Some(slot) = set.iter_mut().find(|slot| is_it(slot)) {
            slot.decay(now);
            slot.counted.refused = slot.counted.refused.saturating_add(1);
            slot.counted.last = now;
            return;
        }
        set.iter_mut().for_each(|slot| slot.decay(now));
        if let Some(smallest) = set.iter_mut().min_by_key(|slot| slot.counted.refused) {
            let refused = smallest.counted.refused.saturating_add(1);
            let counted = RefusedKey { key: key.into(), refused, last: now };
            *smallest = Slot { hash, database, counted, halved_at: now };
        }
    }

    fn set_of(&mut self, hash: u64) -> Option<&mut [Slot; WAYS]> {
        let index = crate::hash::set_of(hash, self.sets.len())?;
        self.sets.get_mut(index)
    }

    /// The `count` keys of `database` refused most, the worst first.
    pub fn top(&mut self, database: i32, count: usize, now: u64) -> Vec<RefusedKey> {
        let slots = self.sets.iter_mut().flatten();
        let mut listed: Vec<&RefusedKey> = slots
            .filter_map(|slot| {
                slot.decay(now);
                (slot.database == database && slot.counted.refused > 0).then_some(&slot.counted)
            })
            .collect();
        let worse = |one: &&RefusedKey, other: &&RefusedKey| {
            (other.refused, other.last, &one.key).cmp(&(one.refused, one.last, &other.key))
        };
        // Do not sort or copy a large table for a few keys.
        if count < listed.len() {
            listed.select_nth_unstable_by(count, worse);
            listed.truncate(count);
        }
        listed.sort_unstable_by(worse);
        listed.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_size(entries: usize) -> Refusals {
        let mut table = Refusals::new();
        table.resize(entries);
        table
    }

    fn record(table: &mut Refusals, database: i32, key: &[u8], now: u64) {
        table.record(crate::hash::of(database, key), database, key, now);
    }

    fn names(table: &[RefusedKey]) -> Vec<String> {
        table.iter().map(|key| String::from_utf8_lossy(&key.key).into_owned()).collect()
    }

    #[test]
    fn a_few_keys_are_counted_exactly() {
        let mut table = of_size(1_000);
        for (key, times) in [("a", 3), ("b", 5), ("c", 1)] {
            (0..times).for_each(|at| record(&mut table, 0, key.as_bytes(), 1_000 + at));
        }
        record(&mut table, 1, b"elsewhere", 1_000);
        let top = table.top(0, 10, 2_000);
        assert_eq!(names(&top), ["b", "a", "c"]);
        assert_eq!((top[0].refused, top[0].last), (5, 1_004));
        assert_eq!(names(&table.top(0, 1, 2_000)), ["b"]);
        assert_eq!(names(&table.top(1, 10, 2_000)), ["elsewhere"]);
    }

    #[test]
    fn counts_are_halved_every_minute() {
        let mut table = of_size(8);
        (0..100).for_each(|_| record(&mut table, 0, b"key", 0));
        for (now, refused) in [(59_999, 100), (60_000, 50), (119_999, 50), (120_000, 25), (360_000, 1)] {
            assert_eq!(table.top(0, 1, now)[0].refused, refused, "{now}");
        }
        assert_eq!(table.top(0, 1, 420_000), []);
        assert_eq!(table.top(0, 1, u64::MAX), []);
        record(&mut table, 0, b"key", 5);
        assert_eq!(table.top(0, 1, 0)[0].refused, 1, "a clock that was stepped back");
    }

    #[test]
    fn a_table_of_no_size_counts_nothing() {
        let mut table = of_size(0);
        record(&mut table, 0, b"key", 0);
        assert_eq!(table.top(0, 10, 0), []);
    }

    #[test]
    fn a_key_that_is_too_long_is_not_counted() {
        let mut table = of_size(1);
        record(&mut table, 0, &[b'x'; MAX_KEY + 1], 0);
        assert_eq!(table.top(0, 10, 0), []);
        record(&mut table, 0, &[b'x'; MAX_KEY], 0);
        assert_eq!(table.top(0, 10, 0).len(), 1);
    }

    #[test]
    fn keys_with_one_hash_are_told_apart() {
        let mut table = of_size(8);
        for (database, key, times) in [(0, "a", 3), (0, "b", 2), (1, "a", 1)] {
            (0..times).for_each(|_| table.record(1, database, key.as_bytes(), 0));
        }
        let counts = |keys: Vec<RefusedKey>| keys.iter().map(|key| key.refused).collect::<Vec<_>>();
        assert_eq!((counts(table.top(0, 10, 0)), counts(table.top(1, 10, 0))), (vec![3, 2], vec![1]));
    }

    #[test]
    fn another_size_keeps_the_worst() {
        let mut table = of_size(64);
        for (key, times) in [("a", 3), ("b", 5), ("c", 1)] {
            (0..times).for_each(|_| record(&mut table, 0, key.as_bytes(), 0));
        }
        table.resize(1_000);
        assert_eq!(names(&table.top(0, 10, 0)), ["b", "a", "c"]);
        record(&mut table, 0, b"a", 0);
        assert_eq!(table.top(0, 10, 0)[1].refused, 4);
        table.clear();
        assert_eq!((table.top(0, 10, 0), table.entries()), (vec![], 1_000));
        table.resize(0);
        record(&mut table, 0, b"a", 0);
        assert_eq!(table.top(0, 10, 0), []);
    }

    #[test]
    fn every_counter_is_used() {
        let mut table = of_size(64);
        (0..10_000).for_each(|n| record(&mut table, 0, format!("{n}").as_bytes(), 0));
        assert_eq!(table.top(0, 100, 0).len(), 64);
    }

    #[test]
    fn the_heavy_are_told_from_the_many() {
        let mut table = of_size(DEFAULT_ENTRIES as usize);
        let mut rng = fastrand::Rng::with_seed(7);
        // The weight of key n is 1/n, n up to 100,000.
        let mut cumulative = Vec::new();
        let mut total = 0.0;
        for n in 1..=100_000 {
            total += 1.0 / f64::from(n);
            cumulative.push(total);
        }
        for _ in 0..400_000 {
            let at = rng.f64() * total;
            let n = cumulative.partition_point(|&sum| sum < at) + 1;
            record(&mut table, 0, format!("user:{n}").as_bytes(), 0);
        }
        let expected: Vec<String> = (1..=10).map(|n| format!("user:{n}")).collect();
        assert_eq!(names(&table.top(0, 10, 0)), expected);
        assert_eq!(table.sets.len() * WAYS, 1_000);
    }
}
