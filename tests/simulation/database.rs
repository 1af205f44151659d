//! A database: keys and what is at them.

use std::cell::Cell;
use std::rc::Rc;

use crate::server::Entry;
use crate::stream::Text;

/// In the order of the keys. Most have a handful, which are looked through in no time; names that are shared are found by
/// their place in memory.
#[derive(Clone, Debug, Default)]
pub struct Database {
    keys: Vec<Text>,
    entries: Vec<Entry>,
    /// Where a key was found last.
    found: Cell<usize>,
}

/// Above so many keys the order helps.
const FEW: usize = 16;

/// Whether two names are the same.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    let is_same_text = || match one.len() {
        0..=2 => one.first() == other.first() && one.last() == other.last(),
        _ => one == other,
    };
    one.len() == other.len() && (one.as_ptr() == other.as_ptr() || is_same_text())
}

/// A hash of few bytes.
#[derive(Default)]
pub struct Hasher(u64);

impl std::hash::Hasher for Hasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(usize::from(byte)));
    }

    fn write_usize(&mut self, number: usize) {
        self.0 = (self.0.rotate_left(5) ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Database {
    /// Where a key is, until keys come or go.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        if self.keys.len() > FEW {
            return self.keys.binary_search_by(|known| (**known).cmp(key)).ok();
        }
        let found = self.found.get();
        if self.keys.get(found).is_some_and(|known| is_same(known, key)) {
            return Some(found);
        }
        let found = self.keys.iter().position(|known| is_same(known, key))?;
        self.found.set(found);
        Some(found)
    }

    /// Whether this very name is at a place.
    pub fn is_at(&self, place: usize, key: &Text) -> bool {
        self.keys.get(place).is_some_and(|known| Rc::ptr_eq(known, key))
    }

    pub fn at(&self, place: usize) -> (&Text, &Entry) {
        (&self.keys[place], &self.entries[place])
    }

    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.find(key).map(|place| &self.entries[place])
    }

    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.find(key).map(|place| &mut self.entries[place])
    }

    pub fn insert(&mut self, key: Text, entry: Entry) {
        match self.keys.binary_search(&key) {
            Ok(place) => self.entries[place] = entry,
            Err(place) => {
                self.keys.insert(place, key);
                self.entries.insert(place, entry);
            }
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let place = self.find(key)?;
        self.keys.remove(place);
        Some(self.entries.remove(place))
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.entries.clear();
    }

    pub fn retain(&mut self, stays: impl Fn(&Text, &Entry) -> bool) {
        let mut stay =
            self.keys.iter().zip(&self.entries).map(|(key, entry)| stays(key, entry)).collect::<Vec<_>>().into_iter();
        let mut again = stay.clone();
        self.keys.retain(|_| stay.next() == Some(true));
        self.entries.retain(|_| again.next() == Some(true));
    }

    pub fn keys(&self) -> impl Iterator<Item = &Text> {
        self.keys.iter()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Text, &Entry)> {
        self.keys.iter().zip(&self.entries)
    }
}
