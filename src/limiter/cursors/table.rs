//! The table of cursors, for a fixed number of keys.
//!
//! It is set-associative: a key's hash chooses [`WAYS`] places, of which it may use one. The first call on a key only leaves
//! the hash there, so keys seen once cost nothing.

use super::cursor::Cursor;
use crate::hash;

/// Keys that have a cursor. By default they take about 9 MB, if all are busy.
pub const DEFAULT_CURSORS: i64 = 32_768;
pub const MIN_CURSORS: i64 = 0;
pub const MAX_CURSORS: i64 = 1 << 20;

/// Places a key may use.
const WAYS: usize = 4;

#[derive(Default)]
struct Way {
    /// The hash of the key that was here last; 0 if there was none. Its lowest bit, which is set in every hash, is not set
    /// while the cursor is still that of a key that was here before.
    hash: u64,
    /// None while it is in use.
    cursor: Option<Box<Cursor>>,
}

impl Way {
    fn is_of(&self, hash: u64) -> bool {
        self.hash | 1 == hash
    }
}

pub struct Table {
    cursors: usize,
    sets: Vec<[Way; WAYS]>,
    next_victim: usize,
    /// For a key that has no place. None while it is in use.
    spare: Option<Box<Cursor>>,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// A table of size 0.
    pub const fn new() -> Self {
        Self { cursors: 0, sets: Vec::new(), next_victim: 0, spare: None }
    }

    /// The number of keys it was made for.
    pub fn cursors(&self) -> usize {
        self.cursors
    }

    /// Makes room for this many keys, rounded up to whole sets; with 0 no key has a cursor. The table starts empty.
    pub fn resize(&mut self, cursors: usize) {
        (self.cursors, self.sets, self.spare) = (cursors, Vec::new(), None);
        self.sets.resize_with(cursors.div_ceil(WAYS), Default::default);
    }

    /// Takes the cursor of a key whose log has `length` entries, or one that knows nothing. `hash` is that of the key.
    #[inline]
    pub fn take(&mut self, hash: u64, length: u64) -> Box<Cursor> {
        let Some(way) = self.place_of(hash) else {
            return self.take_spare();
        };
        let is_its = way.hash == hash;
        way.hash = hash;
        let mut cursor = way.cursor.take().unwrap_or_default();
        if !is_its || cursor.hash != hash || cursor.length != length {
            cursor.clear();
            cursor.hash = hash;
        }
        cursor
    }

    /// Takes a cursor for a key that has no log. What was known of an earlier one is forgotten.
    #[inline]
    pub fn take_new(&mut self, hash: u64) -> Box<Cursor> {
        let set = hash::set_of(hash, self.sets.len()).and_then(|at| self.sets.get_mut(at));
        if let Some(way) = set.and_then(|set| set.iter_mut().find(|way| way.is_of(hash))) {
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
        if let Some(at) = set.iter().position(|way| way.is_of(hash)) {
            return set.get_mut(at);
        }
        let empty = set.iter().position(|way| way.hash == 0);
        if let Some(way) = set.get_mut(empty.unwrap_or(victim)) {
            way.hash = hash & !1;
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

    /// A cursor that knows the newest entry of a log of five.
    fn filled(mut cursor: Box<Cursor>) -> Box<Cursor> {
        let hit = Hit { id: Id { time: 1, tally: 5 }, cost: 1 };
        cursor.newest = Some(Entry { hit, retention: Retention { longest: 1_000, fallback: None } });
        cursor.length = 5;
        cursor
    }

    /// Whether what is put into the table is still there.
    fn is_kept(table: &mut Table, database: i32, key: &[u8]) -> bool {
        table.take(database, key, 5).is_some_and(|cursor| cursor.newest.is_some())
    }

    fn keep(table: &mut Table, database: i32, key: &[u8]) {
        let cursor = table.take(database, key, 5).or_else(|| table.take(database, key, 5)).unwrap();
        table.put(filled(cursor));
    }

    #[test]
    fn the_second_call_gets_a_cursor_and_the_third_what_it_knew() {
        let mut table = of_size(64);
        assert!(table.take(0, b"key", 5).is_none());
        let cursor = table.take(0, b"key", 5).unwrap();
        assert!(cursor.newest.is_none());
        table.put(filled(cursor));
        assert!(is_kept(&mut table, 0, b"key"));
        assert!(!is_kept(&mut table, 0, b"key"), "it is in use");
        keep(&mut table, 1, b"key");
        keep(&mut table, 0, b"key");
        assert!(is_kept(&mut table, 0, b"key") && is_kept(&mut table, 1, b"key"));
    }

    #[test]
    fn a_cursor_that_knows_nothing_is_not_put_back() {
        let mut table = of_size(4);
        assert!(table.take(0, b"key", 5).is_none());
        let cursor = table.take(0, b"key", 5).unwrap();
        table.put(cursor);
        assert!(table.sets.iter().flatten().all(|way| way.cursor.is_none()));
    }

    #[test]
    fn a_log_of_another_length_was_changed() {
        let mut table = of_size(64);
        keep(&mut table, 0, b"key");
        assert!(table.take(0, b"key", 6).unwrap().newest.is_none());
    }

    #[test]
    fn what_others_change_is_forgotten() {
        let mut table = of_size(64);
        keep(&mut table, 0, b"key");
        table.forget(1, b"key");
        table.forget(0, b"other");
        assert!(is_kept(&mut table, 0, b"key"));
        keep(&mut table, 0, b"key");
        table.forget(0, b"key");
        assert!(!is_kept(&mut table, 0, b"key"));
        keep(&mut table, 0, b"key");
        table.forget_all();
        assert!(!is_kept(&mut table, 0, b"key"));
    }

    #[test]
    fn a_change_while_a_cursor_is_in_use_makes_it_useless() {
        let mut table = of_size(64);
        for change in [|table: &mut Table| table.forget(0, b"other"), Table::forget_all] {
            keep(&mut table, 0, b"key");
            let cursor = table.take(0, b"key", 5).unwrap();
            change(&mut table);
            table.put(cursor);
            assert!(!is_kept(&mut table, 0, b"key"));
        }
    }

    /// Four keys have room in one set. A fifth takes the place of one of them, in turn.
    #[test]
    fn keys_push_each_other_out_in_turn() {
        let mut table = of_size(1);
        for key in ["a", "b", "c", "d"] {
            keep(&mut table, 0, key.as_bytes());
        }
        let kept = |table: &Table| {
            let cursors = table.sets.iter().flatten().filter_map(|way| way.cursor.as_ref());
            cursors.map(|cursor| String::from_utf8_lossy(&cursor.key).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kept(&table), ["a", "b", "c", "d"]);
        keep(&mut table, 0, b"e");
        assert_eq!(kept(&table), ["e", "b", "c", "d"]);
        keep(&mut table, 0, b"f");
        assert_eq!(kept(&table), ["e", "f", "c", "d"]);
        let cursor = table.take(0, b"c", 5).unwrap();
        assert!(table.take(0, b"g", 5).is_none());
        table.put(cursor);
        assert_eq!(kept(&table), ["e", "f", "d"], "its place was taken meanwhile");
    }

    /// A hash may be that of two keys.
    #[test]
    fn a_cursor_is_of_one_key() {
        for (database, key, is_its) in [(0, b"key", true), (1, b"key", false), (0, b"kez", false)] {
            let mut table = of_size(1);
            keep(&mut table, 0, b"key");
            let cursor = table.sets[0][0].cursor.as_mut().unwrap();
            (cursor.database, cursor.key) = (database, key.as_slice().into());
            assert_eq!(is_kept(&mut table, 0, b"key"), is_its);
        }
    }

    #[test]
    fn a_key_that_is_too_long_has_no_cursor() {
        let mut table = of_size(64);
        let key = [b'x'; MAX_KEY + 1];
        assert!((0..3).all(|_| table.take(0, &key, 5).is_none()));
        keep(&mut table, 0, &key[1..]);
        table.forget(0, &key);
        table.forget(0, &key[1..]);
        assert!(!is_kept(&mut table, 0, &key[1..]));
    }

    #[test]
    fn a_table_has_so_many_places_or_none() {
        let mut table = of_size(9);
        assert_eq!((table.cursors(), table.sets.len()), (9, 3));
        keep(&mut table, 0, b"key");
        table.resize(9);
        assert!(!is_kept(&mut table, 0, b"key"), "it starts empty");
        table.disable();
        assert_eq!((table.cursors(), table.sets.len()), (9, 0));
        table.resize(20);
        assert_eq!((table.cursors(), table.sets.len()), (20, 0));
        assert!((0..3).all(|_| table.take(0, b"key", 5).is_none()));
        table.forget(0, b"key");
        let mut table = Table::default();
        assert!((0..3).all(|_| table.take(0, b"key", 5).is_none()));
    }

    #[test]
    fn sizes_are_those_of_the_documents() {
        assert_eq!((MIN_CURSORS, DEFAULT_CURSORS, MAX_CURSORS), (0, 32_768, 1_048_576));
    }

    #[test]
    fn every_place_is_used() {
        let mut table = of_size(64);
        (0..10_000_u32).for_each(|n| assert!(table.take(0, &n.to_le_bytes(), 5).is_none()));
        assert!(table.sets.iter().flatten().all(|way| way.hash != 0));
    }
}
