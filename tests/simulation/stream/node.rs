//! A node: the entries that a server keeps in one listpack.

use super::sizes::{EMPTY, integer};
use super::{Bounds, Fields, Id, Server};

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Bytes of the listpack.
    bytes: u64,
    live: usize,
    deleted: usize,
    /// Whether IDs rise from each entry to the next. They do unless the stream's last ID was lowered below a tombstone.
    rises: bool,
    /// The first is the master entry too: its ID and its names stay what the others are compared with when it is deleted.
    entries: Vec<Entry>,
    /// A bit for each entry that is deleted; bits behind the last word are 0.
    dead: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub id: Id,
    pub fields: Fields,
}

/// What `streamAppendItem` writes for an entry. Differences of IDs wrap, and are signed then.
fn size(master: Id, id: Id, fields: &Fields, names: bool, server: Server) -> u64 {
    let pairs = fields.len() as i64;
    let ms = id.ms.wrapping_sub(master.ms) as i64;
    let seq = id.seq.wrapping_sub(master.seq) as i64;
    let (named, pieces) =
        if names { (integer(pairs) + fields.size_of_names(server), 2 * pairs + 4) } else { (0, pairs + 3) };
    // First the flags, at the end the number of pieces before.
    integer(0) + integer(ms) + integer(seq) + named + fields.size_of_values(server) + integer(pieces)
}

impl Node {
    pub fn new(entry: Entry, server: Server) -> Self {
        let Entry { id, ref fields } = entry;
        // Live, deleted, pairs, names, the mark of the first entry.
        let master = integer(1) + integer(0) + integer(fields.len() as i64) + fields.size_of_names(server) + integer(0);
        Self {
            bytes: EMPTY + master + size(id, id, fields, false, server),
            live: 1,
            deleted: 0,
            rises: true,
            entries: vec![entry],
            dead: Vec::new(),
        }
    }

    pub fn master(&self) -> Id {
        self.entries[0].id
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn deleted(&self) -> usize {
        self.deleted
    }

    pub fn rises(&self) -> bool {
        self.rises
    }

    /// All of them, tombstones too.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The last entry, though it be a tombstone.
    pub fn last(&self) -> &Entry {
        &self.entries[self.entries.len() - 1]
    }

    pub fn is_dead(&self, at: usize) -> bool {
        self.deleted > 0 && self.dead.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// The first live entry at this place or behind it.
    pub fn live_from(&self, at: usize) -> Option<usize> {
        (at..self.entries.len()).find(|&at| !self.is_dead(at))
    }

    /// The last live entry before this place.
    pub fn live_before(&self, at: usize) -> Option<usize> {
        (0..at).rev().find(|&at| !self.is_dead(at))
    }

    /// Whether an entry of these fields may be appended, as `streamAppendItem` decides: by what the texts have, not by what
    /// they would take.
    pub fn has_room(&self, fields: &Fields, bounds: Bounds) -> bool {
        self.bytes + fields.text_bytes() < bounds.most_bytes()
            && (bounds.entries == 0 || (self.entries.len() as u64) < bounds.entries)
    }

    pub fn push(&mut self, entry: Entry, server: Server) {
        let names = !entry.fields.same_names(&self.entries[0].fields);
        self.bytes += size(self.master(), entry.id, &entry.fields, names, server);
        self.rises &= self.last().id <= entry.id;
        self.entries.push(entry);
        self.count(self.live + 1, self.deleted);
    }

    /// Makes a tombstone of a live entry. It keeps its bytes.
    pub fn kill(&mut self, at: usize) {
        debug_assert!(at < self.entries.len() && !self.is_dead(at), "no live entry {at}");
        let word = at / 64;
        if self.dead.len() <= word {
            self.dead.resize(word + 1, 0);
        }
        self.dead[word] |= 1 << (at % 64);
        self.count(self.live - 1, self.deleted + 1);
    }

    /// Both counts are in the master entry, and may need more bytes or fewer.
    fn count(&mut self, live: usize, deleted: usize) {
        let size = |count: usize| integer(count as i64);
        self.bytes = self.bytes + size(live) + size(deleted) - size(self.live) - size(self.deleted);
        (self.live, self.deleted) = (live, deleted);
    }
}
