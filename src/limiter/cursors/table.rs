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
        if self.sets.is_empty() || key.len() > MAX_KEY {
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
        if self.sets.is_empty() || key.len() > MAX_KEY {
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

    fn set_of(&mut self, hash: u64) -> Option<&mut [Way; WAYS]> {
        // Use the upper half, because the lowest bit is always the same.
        let index = usize::try_from(hash >> 32).ok()?.checked_rem(self.sets.len())?;
        self.sets.get_mut(index)
    }
}
