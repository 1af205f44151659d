//! The table of cursors, for a fixed number of keys.
//!
//! It is set-associative: a key's hash chooses [`WAYS`] places, of which it may use one. The first call on a key only leaves
//! the hash there, so keys seen once cost nothing.

use super::cursor::Cursor;
use crate::hash;

/// Keys that have a cursor. By default they take about 10 MB, if all are busy.
pub const DEFAULT_CURSORS: i64 = 8_192;
pub const MIN_CURSORS: i64 = 0;
pub const MAX_CURSORS: i64 = 1 << 20;

/// Bytes of the longest key that has a cursor.
const MAX_KEY: usize = 512;

/// Places a key may use.
const WAYS: usize = 4;

#[derive(Default)]
struct Way {
    /// The hash of the key that was here last; 0 if there was none.
    hash: u64,
    /// Also None while it is in use.
    cursor: Option<Box<Cursor>>,
}

pub struct Table {
    cursors: usize,
    is_disabled: bool,
    sets: Vec<[Way; WAYS]>,
    /// Cursors of an earlier epoch are invalid.
    epoch: u64,
    /// How many changes by others, to one key or many, were seen.
    changes: u64,
    next_victim: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// A table of size 0.
    pub const fn new() -> Self {
        Self { cursors: 0, is_disabled: false, sets: Vec::new(), epoch: 0, changes: 0, next_victim: 0 }
    }

    /// The setting, even if the table is disabled.
    pub fn cursors(&self) -> usize {
        self.cursors
    }

    /// Makes room for this many keys, rounded up to whole sets; with 0 no key has a cursor. The table starts empty. Cursors in
    /// use are not put back.
    pub fn resize(&mut self, cursors: usize) {
        self.forget_all();
        (self.cursors, self.sets) = (cursors, Vec::new());
        if !self.is_disabled {
            self.sets.resize_with(cursors.div_ceil(WAYS), Default::default);
        }
    }

    /// For a server that cannot report what happens to keys: no key has a cursor, whatever the setting.
    pub fn disable(&mut self) {
        self.is_disabled = true;
        self.resize(self.cursors);
    }

    /// Takes the cursor of a key whose log has `length` entries, or an empty one if nothing is known. None if the key has no
    /// place in the table yet.
    #[inline]
    pub fn take(&mut self, database: i32, key: &[u8], length: u64) -> Option<Box<Cursor>> {
        if !self.has_place_for(key) {
            return None;
        }
        let hash = hash::of(database, key);
        let (epoch, changes, victim) = (self.epoch, self.changes, self.next_victim);
        let set = self.set_of(hash)?;
        let Some(way) = set.iter_mut().find(|way| way.hash == hash) else {
            let empty = set.iter().position(|way| way.hash == 0);
            if let Some(way) = set.get_mut(empty.unwrap_or(victim)) {
                *way = Way { hash, cursor: None };
            }
            self.next_victim = victim.wrapping_add(1) % WAYS;
            return None;
        };
        let mut cursor = way.cursor.take().filter(|cursor| cursor.is_of(database, key)).unwrap_or_default();
        if cursor.epoch != epoch || cursor.length != length || cursor.newest.is_none() {
            *cursor = Cursor { hash, database, key: key.into(), epoch, ..Cursor::default() };
        }
        cursor.changes = changes;
        Some(cursor)
    }

    /// Puts a cursor back after the command that took it, if nothing has changed since.
    #[inline]
    pub fn put(&mut self, cursor: Box<Cursor>) {
        let is_its = |way: &&mut Way| way.hash == cursor.hash && way.cursor.is_none();
        if cursor.changes == self.changes && cursor.newest.is_some() {
            if let Some(way) = self.set_of(cursor.hash).and_then(|set| set.iter_mut().find(is_its)) {
                way.cursor = Some(cursor);
            }
        }
    }

    /// Somebody else changed this key.
    pub fn forget(&mut self, database: i32, key: &[u8]) {
        self.changes = self.changes.wrapping_add(1);
        if !self.has_place_for(key) {
            return;
        }
        let hash = hash::of(database, key);
        if let Some(way) = self.set_of(hash).and_then(|set| set.iter_mut().find(|way| way.hash == hash)) {
            *way = Way::default();
        }
    }

    /// Somebody changed many keys.
    pub fn forget_all(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.changes = self.changes.wrapping_add(1);
    }

    fn has_place_for(&self, key: &[u8]) -> bool {
        !self.sets.is_empty() && key.len() <= MAX_KEY
    }

    fn set_of(&mut self, hash: u64) -> Option<&mut [Way; WAYS]> {
        let index = hash::set_of(hash, self.sets.len())?;
        self.sets.get_mut(index)
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
        assert_eq!((MIN_CURSORS, DEFAULT_CURSORS, MAX_CURSORS), (0, 8_192, 1_048_576));
    }

    #[test]
    fn every_place_is_used() {
        let mut table = of_size(64);
        (0..10_000_u32).for_each(|n| assert!(table.take(0, &n.to_le_bytes(), 5).is_none()));
        assert!(table.sets.iter().flatten().all(|way| way.hash != 0));
    }
}
