//! The table of cursors, for a fixed number of keys.
//!
//! It is set-associative: a key's hash chooses [`WAYS`] places, of which it may use one. The first call on a key only leaves
//! the hash there, so keys seen once cost nothing.

use super::births::Births;
use super::cursor::Cursor;
use crate::hash;

/// Keys that have a cursor. By default they take about 9 MB if all are in use, and a
/// kilobyte more for each with many hits in its window.
pub const DEFAULT_CURSORS: i64 = 32_768;
pub const MIN_CURSORS: i64 = 0;
pub const MAX_CURSORS: i64 = 1 << 20;

/// Places a key may use.
const WAYS: usize = 4;

#[derive(Default)]
struct Way {
    /// The hash of the key that has this place; 0 if none has.
    hash: u64,
    /// None while it is in use.
    cursor: Option<Box<Cursor>>,
}

pub struct Table {
    cursors: usize,
    sets: Vec<[Way; WAYS]>,
    next_victim: usize,
    /// For a key that has no place. None while it is in use.
    spare: Option<Box<Cursor>>,
    /// The logs that began since the table has this size.
    pub births: Births,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// A table of size 0.
    pub const fn new() -> Self {
        Self { cursors: 0, sets: Vec::new(), next_victim: 0, spare: None, births: Births::new() }
    }

    /// The number of keys it was made for.
    pub fn cursors(&self) -> usize {
        self.cursors
    }

    /// Makes room for this many keys, rounded up to whole sets; with 0 no key has a cursor. The table starts empty.
    pub fn resize(&mut self, cursors: usize) {
        *self = Self { cursors, ..Self::new() };
        self.sets.resize_with(cursors.div_ceil(WAYS), Default::default);
    }

    /// Takes the cursor of a key whose log has `length` entries, or one that knows nothing. `hash` is that of the key.
    #[inline]
    pub fn take(&mut self, hash: u64, length: u64) -> Box<Cursor> {
        let Some(way) = self.place_of(hash) else {
            return self.take_spare();
        };
        let mut cursor = way.cursor.take().unwrap_or_default();
        if cursor.hash != hash || cursor.length != length {
            cursor.clear();
            cursor.hash = hash;
        }
        cursor
    }

    /// Takes a cursor for a key that has no log. What was known of an earlier one is forgotten.
    #[inline]
    pub fn take_new(&mut self, hash: u64) -> Box<Cursor> {
        let set = hash::set_of(hash, self.sets.len()).and_then(|at| self.sets.get_mut(at));
        if let Some(way) = set.and_then(|set| set.iter_mut().find(|way| way.hash == hash)) {
            *way = Way::default();
        }
        self.take_spare()
    }

    fn take_spare(&mut self) -> Box<Cursor> {
        self.spare.take().unwrap_or_default()
    }

    /// The place of a key that was here before. Otherwise it gets one for the next time.
    #[inline]
    fn place_of(&mut self, hash: u64) -> Option<&mut Way> {
        let victim = self.next_victim;
        let at = hash::set_of(hash, self.sets.len())?;
        let set = self.sets.get_mut(at)?;
        if let Some(at) = set.iter().position(|way| way.hash == hash) {
            return set.get_mut(at);
        }
        let empty = set.iter().position(|way| way.hash == 0);
        if let Some(way) = set.get_mut(empty.unwrap_or(victim)) {
            way.hash = hash;
        }
        self.next_victim = victim.wrapping_add(1) % WAYS;
        None
    }

    /// Puts a cursor back after the command that took it.
    #[inline]
    pub fn put(&mut self, mut cursor: Box<Cursor>) {
        let hash = cursor.hash;
        let at = hash::set_of(hash, self.sets.len()).filter(|_| hash != 0);
        let set = at.and_then(|at| self.sets.get_mut(at));
        match set.and_then(|set| set.iter_mut().find(|way| way.hash == hash && way.cursor.is_none())) {
            Some(way) => way.cursor = Some(cursor),
            None => {
                cursor.clear();
                self.spare = Some(cursor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Entry, Hit, Id};
    use crate::retention::Retention;

    fn of_size(cursors: usize) -> Table {
        let mut table = Table::new();
        table.resize(cursors);
        table
    }

    /// Hashes of the first set of a table that has one, two or four, and of other sets where there are more.
    fn hash(nth: u64) -> u64 {
        nth << 34 | 1
    }

    /// What a cursor knows of the log: its length, or 0 if nothing is known.
    fn knows(cursor: &Cursor) -> u64 {
        cursor.newest.map_or(0, |newest| newest.hit.id.tally)
    }

    /// A cursor that knows the newest entry of a log of so many.
    fn filled(mut cursor: Box<Cursor>, length: u64) -> Box<Cursor> {
        let hit = Hit { id: Id { time: 1, tally: length }, cost: 1 };
        cursor.newest = Some(Entry { hit, retention: Retention { longest: 1_000, fallback: None } });
        cursor.length = length;
        cursor
    }

    /// A call on a key whose log has this length. Says what was known.
    fn call(table: &mut Table, hash: u64, length: u64) -> u64 {
        let cursor = table.take(hash, length);
        let known = knows(&cursor);
        table.put(filled(cursor, length));
        known
    }

    /// The calls after which the key has a cursor.
    fn twice(table: &mut Table, hash: u64) {
        (0..2).for_each(|_| assert_eq!(call(table, hash, 5), 0));
    }

    /// The hashes of the keys whose cursors are in the table and still theirs.
    fn kept(table: &Table) -> Vec<u64> {
        let cursors = table.sets.iter().flatten().filter_map(|way| Some((way.hash, way.cursor.as_ref()?)));
        cursors.filter(|(hash, cursor)| *hash == cursor.hash).map(|(hash, _)| hash).collect()
    }

    #[test]
    fn the_second_call_gets_a_place_and_the_third_what_was_known() {
        let mut table = of_size(64);
        let cursor = table.take(hash(1), 5);
        assert!(!cursor.is_kept() && knows(&cursor) == 0);
        table.put(filled(cursor, 5));
        assert_eq!(kept(&table), [0; 0]);
        let cursor = table.take(hash(1), 5);
        assert!(cursor.is_kept() && knows(&cursor) == 0);
        table.put(filled(cursor, 5));
        assert_eq!(kept(&table), [hash(1)]);
        let cursor = table.take(hash(1), 5);
        assert!(cursor.is_kept() && knows(&cursor) == 5);
    }

    #[test]
    fn each_key_has_its_own() {
        let mut table = of_size(64);
        for length in [3, 3] {
            for nth in 1..9 {
                call(&mut table, hash(nth), length * nth);
            }
        }
        assert!((1..9).all(|nth| call(&mut table, hash(nth), 3 * nth) == 3 * nth));
    }

    #[test]
    fn a_log_of_another_length_is_not_known() {
        for length in [0, 4, 6] {
            let mut table = of_size(64);
            twice(&mut table, hash(1));
            let cursor = table.take(hash(1), length);
            assert!(cursor.is_kept() && knows(&cursor) == 0, "{length}");
            table.put(filled(cursor, length));
            assert_eq!(call(&mut table, hash(1), length), length);
        }
    }

    /// A command may name a key twice.
    #[test]
    fn a_cursor_that_is_in_use_is_not_there() {
        let mut table = of_size(64);
        twice(&mut table, hash(1));
        let first = table.take(hash(1), 5);
        let second = table.take(hash(1), 5);
        assert_eq!([knows(&first), knows(&second)], [5, 0]);
        let third = table.take(hash(1), 0);
        assert!(second.is_kept() && third.is_kept());
        table.put(filled(second, 6));
        table.put(first);
        assert_eq!(call(&mut table, hash(1), 6), 6, "the first that is put back is kept");
    }

    /// Four keys have room in one set. A fifth takes the place of one of them, in turn.
    #[test]
    fn keys_push_each_other_out_in_turn() {
        let mut table = of_size(1);
        let kept = |table: &Table| kept(table).iter().map(|hash| hash >> 34).collect::<Vec<_>>();
        (1..5).for_each(|nth| twice(&mut table, hash(nth)));
        assert_eq!(kept(&table), [1, 2, 3, 4]);
        twice(&mut table, hash(5));
        assert_eq!(kept(&table), [5, 2, 3, 4]);
        twice(&mut table, hash(6));
        assert_eq!(kept(&table), [5, 6, 3, 4]);
        call(&mut table, hash(7), 5);
        assert_eq!(kept(&table), [5, 6, 4], "a single call takes the place");
        let cursor = table.take(hash(4), 5);
        call(&mut table, hash(8), 5);
        table.put(cursor);
        assert_eq!(kept(&table), [5, 6], "its place was taken meanwhile");
        [5, 6].into_iter().for_each(|nth| assert_eq!(call(&mut table, hash(nth), 5), 5));
    }

    /// The cursor of the key before is used again, but not what it knew.
    #[test]
    fn a_place_taken_brings_nothing_of_the_key_before() {
        let mut table = of_size(1);
        (1..5).for_each(|nth| twice(&mut table, hash(nth)));
        assert_eq!([call(&mut table, hash(9), 5), call(&mut table, hash(9), 5)], [0, 0]);
        assert_eq!(call(&mut table, hash(9), 5), 5);
    }

    #[test]
    fn a_log_that_begins_anew_is_not_known() {
        let mut table = of_size(64);
        twice(&mut table, hash(1));
        twice(&mut table, hash(2));
        let cursor = table.take_new(hash(1));
        assert!(!cursor.is_kept() && knows(&cursor) == 0);
        assert_eq!(kept(&table), [hash(2)]);
        table.put(filled(cursor, 5));
        assert_eq!([0, 0, 5].map(|_| call(&mut table, hash(1), 5)), [0, 0, 5], "it begins as a new key");
        assert_eq!(call(&mut table, hash(2), 5), 5);
    }

    /// Even while it was pushed out, or is in use.
    #[test]
    fn a_log_that_began_anew_does_not_get_its_cursor_back() {
        let mut table = of_size(64);
        twice(&mut table, hash(1));
        let cursor = table.take(hash(1), 5);
        drop(table.take_new(hash(1)));
        table.put(cursor);
        assert_eq!([0, 0].map(|_| call(&mut table, hash(1), 5)), [0, 0]);
        let mut table = of_size(64);
        call(&mut table, hash(1), 5);
        drop(table.take_new(hash(1)));
        assert!(!table.take(hash(1), 5).is_kept(), "what was left there is gone as well");
    }

    #[test]
    fn the_spare_is_cleared_and_used_again() {
        let mut table = of_size(64);
        let cursor = table.take(hash(1), 5);
        let place: *const Cursor = &raw const *cursor;
        table.put(filled(cursor, 5));
        for nth in 2..5 {
            let cursor = if nth == 4 { table.take_new(hash(nth)) } else { table.take(hash(nth), 5) };
            assert_eq!(&raw const *cursor, place);
            assert!(!cursor.is_kept() && knows(&cursor) == 0);
            table.put(filled(cursor, 5));
        }
        // While it is in use there is another.
        let (one, other) = (table.take(hash(5), 5), table.take(hash(6), 5));
        assert!(&raw const *one == place && knows(&other) == 0);
    }

    /// A cursor whose place is gone is forgotten.
    #[test]
    fn a_cursor_without_a_place_becomes_the_spare() {
        let mut table = of_size(64);
        twice(&mut table, hash(1));
        let cursor = table.take(hash(1), 5);
        table.resize(64);
        table.put(cursor);
        assert_eq!(kept(&table), [0; 0]);
        let spare = table.spare.as_ref().unwrap();
        assert!(!spare.is_kept() && knows(spare) == 0);
    }

    #[test]
    fn a_table_of_size_0_knows_nothing() {
        let mut resized = of_size(64);
        twice(&mut resized, hash(1));
        resized.resize(0);
        for mut table in [Table::new(), Table::default(), of_size(0), resized] {
            assert_eq!((table.cursors(), table.sets.len()), (0, 0));
            for _ in 0..4 {
                assert_eq!(call(&mut table, hash(1), 5), 0);
                let cursor = table.take_new(hash(1));
                assert!(!cursor.is_kept());
                table.put(cursor);
            }
        }
    }

    #[test]
    fn a_size_is_rounded_up_to_whole_sets() {
        for (cursors, sets) in [(1, 1), (4, 1), (5, 2), (9, 3), (64, 16)] {
            let table = of_size(cursors);
            assert_eq!((table.cursors(), table.sets.len()), (cursors, sets));
        }
    }

    #[test]
    fn a_table_starts_empty() {
        let mut table = of_size(64);
        twice(&mut table, hash(1));
        table.resize(64);
        assert_eq!([0, 0, 5].map(|_| call(&mut table, hash(1), 5)), [0, 0, 5]);
    }

    #[test]
    fn sizes_are_those_of_the_documents() {
        assert_eq!((MIN_CURSORS, DEFAULT_CURSORS, MAX_CURSORS), (0, 32_768, 1_048_576));
        // "By default they take about 9 MB."
        let bytes = DEFAULT_CURSORS as usize * (size_of::<Way>() + size_of::<Cursor>());
        assert!((8_000_000..9_500_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn every_place_is_used() {
        let mut table = of_size(64);
        for n in 0..10_000_u32 {
            let hash = hash::of(0, &n.to_le_bytes());
            let cursor = table.take(hash, 5);
            table.put(cursor);
        }
        assert!(table.sets.iter().flatten().all(|way| way.hash != 0));
    }
}
