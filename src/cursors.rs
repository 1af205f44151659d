//! The table of cursors: what need not be looked up again in the log of a key that is hit often.
//!
//! A hit needs two entries of a log, the newest one and the first one inside the window, and each costs an iterator. But the
//! newest is the one that was appended last, and the first one is, nearly always, the same as before or one soon after it.
//! So for each of the keys used lately the table keeps the newest entry, the key's expiry, and for each window a *run*:
//! the hits that will leave it next, read ahead, so that one iterator serves many hits and small logs need none.
//!
//! It is a cache and never the truth. A cursor is used only if the key is a stream of just the length it had when the
//! cursor was put back; every event on the key from elsewhere makes the table forget it, and whatever concerns more than
//! one key (FLUSHDB, SWAPDB, loading, a change of role) makes it forget all. While a command works with a cursor, the
//! cursor is out of the table: it is put back only if the command succeeds and nothing was heard of meanwhile, on any key.
//! A cursor answers exactly what the log would, so that the table changes no reply and nothing that is stored.
//!
//! The table is set-associative: a key may use one of the [`WAYS`] places that its hash chooses. The first call on a key
//! only leaves its hash there, so that keys which are seen once cost nothing.

use crate::args::MAX_TIERS;
use crate::error::Error;
use crate::hash;
use crate::limiter::Write;
use crate::log::{Entry, Hit, Id, Log, Store, Written};

/// Keys that are followed: by default some 10 MB of memory, if all of them are hit often.
pub const DEFAULT_CURSORS: i64 = 8_192;
pub const MIN_CURSORS: i64 = 0;
pub const MAX_CURSORS: i64 = 1 << 20;

/// Bytes of the longest key that is followed.
const MAX_KEY: usize = 512;

/// Places that a key may use.
const WAYS: usize = 4;

/// Bytes of a run: a thousand hits of a client that comes often, at least fifty of any.
const RUN_BYTES: usize = 1_000;

/// Bytes of the longest hit in a run: two numbers.
const MOST_BYTES: usize = 20;

/// Hits that are read ahead at most, at one time.
const MOST_AHEAD: usize = 64;

#[derive(Default)]
struct Way {
    /// Of the key that was here last; 0 if there was none.
    hash: u64,
    /// None also while it is in use.
    cursor: Option<Box<Cursor>>,
}

pub struct Table {
    cursors: usize,
    is_out_of_use: bool,
    sets: Vec<[Way; WAYS]>,
    /// Cursors of an earlier epoch are worth nothing.
    epoch: u64,
    /// Changes by others that were heard of, of one key or of many.
    changes: u64,
    next_victim: usize,
}

impl Table {
    /// A table in which no key is followed.
    pub const fn new() -> Self {
        Self { cursors: 0, is_out_of_use: false, sets: Vec::new(), epoch: 0, changes: 0, next_victim: 0 }
    }

    /// The setting, whether or not the table is in use.
    pub fn cursors(&self) -> usize {
        self.cursors
    }

    /// Makes room for so many keys, rounded up to whole sets; with 0 none is followed. The table begins empty; cursors
    /// that are in use are not put back.
    pub fn resize(&mut self, cursors: usize) {
        self.forget_all();
        (self.cursors, self.sets) = (cursors, Vec::new());
        if !self.is_out_of_use {
            self.sets.resize_with(cursors.div_ceil(WAYS), Default::default);
        }
    }

    /// For a server that cannot tell what happens to keys: no key is followed, whatever the setting says.
    pub fn put_out_of_use(&mut self) {
        self.is_out_of_use = true;
        self.resize(self.cursors);
    }

    /// Takes the cursor of a key whose log has `length` entries, or an empty one if nothing is known of it. None if the
    /// key is not followed.
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

    /// Puts a cursor back after the command that took it, if nobody has done anything since.
    pub fn put(&mut self, cursor: Box<Cursor>) {
        let is_its = |way: &&mut Way| way.hash == cursor.hash && way.cursor.is_none();
        if cursor.changes == self.changes && cursor.newest.is_some() {
            if let Some(way) = self.set_of(cursor.hash).and_then(|set| set.iter_mut().find(is_its)) {
                way.cursor = Some(cursor);
            }
        }
    }

    /// Somebody else has done something to this key.
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

    /// Somebody has done something to many keys.
    pub fn forget_all(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.changes = self.changes.wrapping_add(1);
    }

    fn set_of(&mut self, hash: u64) -> Option<&mut [Way; WAYS]> {
        // By the upper half: the lowest bit is always the same.
        let index = usize::try_from(hash >> 32).ok()?.checked_rem(self.sets.len())?;
        self.sets.get_mut(index)
    }
}

/// What is known of one log.
#[derive(Default)]
pub struct Cursor {
    hash: u64,
    database: i32,
    key: Box<[u8]>,
    epoch: u64,
    /// Of the table when the cursor was taken.
    changes: u64,
    /// Of the log when the cursor was put back.
    length: u64,
    /// None if it is not known.
    newest: Option<Entry>,
    /// The hits after this one were appended under our eyes: nothing is missing between them, and nothing is foreign.
    since: Id,
    /// The key's expiry, which may be none; None if it is not known.
    expires: Option<Option<u64>>,
    /// At most one for each tier that a call can have.
    runs: Vec<Run>,
}

impl Cursor {
    fn is_of(&self, database: i32, key: &[u8]) -> bool {
        self.database == database && *self.key == *key
    }

    /// The run that begins last at or before `from`, or another one where there is none. Each tier's own run is found
    /// in this way, because windows only move on.
    fn run(&mut self, from: u64) -> Option<&mut Run> {
        let fits = |(_, run): &(usize, &Run)| run.from <= from;
        let best = self.runs.iter().enumerate().filter(fits).max_by_key(|(_, run)| run.from).map(|(at, _)| at);
        let at = match best {
            Some(at) => at,
            None if self.runs.len() < MAX_TIERS => {
                self.runs.push(Run::default());
                self.runs.len().saturating_sub(1)
            }
            None => 0,
        };
        self.runs.get_mut(at)
    }

    fn appended(&mut self, entry: Entry) {
        let before = self.newest.map(|newest| newest.hit.id);
        for run in &mut self.runs {
            // A run that reached the end of the log still does, if there is room.
            if Some(run.last.id) == before {
                run.push(entry.hit);
            }
        }
        self.newest = Some(entry);
    }

    /// The entries before `oldest` are gone.
    fn cut(&mut self, oldest: Id) {
        for run in &mut self.runs {
            while run.first.is_some_and(|hit| hit.id < oldest) {
                run.pop();
            }
        }
    }
}

/// Consecutive hits of a log, all but the first in the form of differences.
#[derive(Default)]
struct Run {
    /// Between this time and the first hit of the run there is no other.
    from: u64,
    first: Option<Hit>,
    /// The last hit that was pushed, whether or not it is still in the run.
    last: Hit,
    /// For each hit after the first the time since the one before it, doubled, as LEB128. If it is odd, the hit's cost
    /// follows, which is that of the one before otherwise.
    bytes: Vec<u8>,
    /// Where the second hit begins in `bytes`.
    start: usize,
    /// How many hits were read when it was filled last.
    ahead: usize,
}

impl Run {
    /// Forgets the first hit.
    fn pop(&mut self) {
        let mut next = None;
        if let (Some(before), Some(rest)) = (self.first, self.bytes.get(self.start..)) {
            let mut rest = rest.iter();
            next = Self::read_after(before, &mut rest);
            self.start = self.bytes.len().saturating_sub(rest.len());
        }
        self.first = next;
    }

    fn read_after<'b>(before: Hit, bytes: &mut impl Iterator<Item = &'b u8>) -> Option<Hit> {
        let gap = read(bytes)?;
        let cost = if gap & 1 == 0 { before.cost } else { read(bytes)? };
        let Id { time, tally } = before.id;
        Some(Hit { id: Id { time: time.wrapping_add(gap >> 1), tally: tally.wrapping_add(cost) }, cost })
    }

    /// Adds the next hit of the log. False where there is no room, or where it does not follow from the one before,
    /// because an entry between them was deleted.
    fn push(&mut self, hit: Hit) -> bool {
        let follows = hit.id.tally == self.last.id.tally.wrapping_add(hit.cost);
        let gap = hit.id.time.checked_sub(self.last.id.time).filter(|gap| *gap < 1 << 63);
        if self.bytes.len().saturating_add(MOST_BYTES) > RUN_BYTES && self.start > RUN_BYTES / 4 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let room = self.bytes.len().saturating_add(MOST_BYTES) <= RUN_BYTES;
        let (true, true, Some(gap)) = (follows, room, gap) else {
            return false;
        };
        if self.first.is_none() {
            self.first = Some(hit);
        } else {
            write(&mut self.bytes, gap << 1 | u64::from(hit.cost != self.last.cost));
            if hit.cost != self.last.cost {
                write(&mut self.bytes, hit.cost);
            }
        }
        self.last = hit;
        true
    }

    /// The first hit from time `from` on, if the run knows it. It forgets what comes before.
    fn first(&mut self, from: u64) -> Option<Hit> {
        if from < self.from {
            return None;
        }
        while self.first?.id.time < from {
            self.pop();
            self.from = from;
        }
        self.first
    }

    /// Begins anew with the first hit that is to be pushed, and says how many there should be: few where it is not yet
    /// clear that reading ahead pays.
    fn begin(&mut self, from: u64) -> usize {
        let ahead = self.ahead.saturating_mul(4).clamp(2, MOST_AHEAD);
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        *self = Self { from, ahead, bytes, ..Self::default() };
        ahead
    }

    fn push_first(&mut self, hit: Hit) {
        self.first = Some(hit);
        self.last = hit;
    }
}

/// Reads one number as LEB128: seven bits a byte, the lowest first, with the eighth where more follow.
fn read<'b>(bytes: &mut impl Iterator<Item = &'b u8>) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0_u32;
    loop {
        let byte = *bytes.next()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift = shift.saturating_add(7);
    }
}

fn write(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A log with its cursor, if it has one.
pub struct Followed<S> {
    store: S,
    cursor: Option<Box<Cursor>>,
}

impl<S: Store> Followed<S> {
    pub fn new(store: S, cursor: Option<Box<Cursor>>) -> Self {
        Self { store, cursor }
    }

    /// The hash of the key, where it is known already.
    pub fn hash(&self) -> Option<u64> {
        self.cursor.as_ref().map(|cursor| cursor.hash)
    }

    pub fn into_parts(self) -> (S, Option<Box<Cursor>>) {
        let Self { store, mut cursor } = self;
        if let Some(cursor) = &mut cursor {
            cursor.length = store.length();
        }
        (store, cursor)
    }
}

impl<S: Store> Store for Followed<S> {
    fn length(&self) -> u64 {
        self.store.length()
    }

    fn expires(&mut self) -> Option<u64> {
        match &mut self.cursor {
            Some(cursor) => *cursor.expires.get_or_insert_with(|| self.store.expires()),
            None => self.store.expires(),
        }
    }

    fn write(&mut self, write: &Write) -> Result<Option<Written>, Error> {
        let cursor = self.cursor.take();
        let written = self.store.write(write)?;
        let (Some(mut cursor), Some(Written { oldest })) = (cursor, written) else {
            return Ok(written);
        };
        if let Some(append) = &write.append {
            if append.restart {
                cursor.newest = None;
                cursor.since = Id::default();
                cursor.runs.clear();
            }
            cursor.appended(append.entry);
        }
        if let Some(oldest) = oldest {
            cursor.cut(oldest);
        }
        if write.expire_at.is_some() {
            cursor.expires = Some(write.expire_at);
        }
        self.cursor = Some(cursor);
        Ok(written)
    }
}

impl<S: Store> Log for Followed<S> {
    fn newest(&mut self) -> Result<Option<Entry>, Error> {
        let Some(cursor) = &mut self.cursor else {
            return self.store.newest();
        };
        if cursor.newest.is_none() {
            cursor.newest = self.store.newest()?;
            cursor.since = cursor.newest.map_or(Id::default(), |newest| newest.hit.id);
        }
        Ok(cursor.newest)
    }

    fn last_id(&mut self) -> Result<Id, Error> {
        self.store.last_id()
    }

    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        self.store.walk(from, visit)
    }

    fn walk_since(&mut self, from: u64, since: Id, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        self.store.walk_since(from, since, visit)
    }

    fn first(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        let Some(cursor) = &mut self.cursor else {
            return self.store.first(from);
        };
        let since = cursor.since;
        let Some(run) = cursor.run(from) else {
            return self.store.first(from);
        };
        if let Some(hit) = run.first(from) {
            return Ok(Some(hit));
        }
        let mut left = run.begin(from);
        let mut first = None;
        let walked = self.store.walk_since(from, since, &mut |hit| {
            left = left.saturating_sub(1);
            match first {
                None => {
                    first = Some(hit);
                    run.push_first(hit);
                    left > 0
                }
                Some(_) => run.push(hit) && left > 0,
            }
        });
        match first {
            // Whatever comes after it is not the caller's concern yet.
            Some(hit) => Ok(Some(hit)),
            None => walked.map(|()| None),
        }
    }
}
