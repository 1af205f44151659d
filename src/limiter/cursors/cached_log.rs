//! A log that is read through its cursor, and keeps the cursor correct when it is written.

use super::cursor::Cursor;
use crate::error::Error;
use crate::log::{Back, Entry, Hit, Id, Log};
use crate::plan::{Applied, Plan, Store};
use crate::usage::window_start;

/// Entries of a log that is read as a whole. (Backwards an entry costs the server twice as much, but fewer are read if most
/// have expired.)
const SHORT: u64 = 8;

/// Most entries that are read backwards to find where a window starts.
const MOST_BACK: usize = 16;

/// After so many it can be told whether the start is near.
const FEW_BACK: usize = 4;

/// A log with its cursor. A key that has no place in the table has one for the running command.
pub struct CachedLog<S> {
    store: S,
    cursor: Box<Cursor>,
}

impl<S: Store> CachedLog<S> {
    pub fn new(store: S, cursor: Box<Cursor>) -> Self {
        Self { store, cursor }
    }

    /// The log, and the cursor to put back into its table.
    #[inline]
    pub fn into_parts(mut self) -> (S, Box<Cursor>) {
        self.cursor.length = self.store.length();
        (self.store, self.cursor)
    }

    /// Reads the newest entry, and whatever else is cheap to read at the same time.
    fn read(&mut self, clock: u64, window: u64) -> Result<Option<Entry>, Error> {
        let newest = match self.store.length() <= SHORT {
            true => self.read_all()?,
            false => None,
        };
        let newest = match newest {
            Some(newest) => Some(newest),
            None => self.read_back_to_start(clock, window)?,
        };
        self.cursor.newest = newest;
        self.cursor.since = newest.map_or(Id::default(), |newest| newest.hit.id);
        Ok(newest)
    }

    /// Reads a short log from its beginning.
    fn read_all(&mut self) -> Result<Option<Entry>, Error> {
        let mut hits = [Hit::default(); SHORT as usize];
        let (mut count, mut step) = (0_usize, Back::Pass);
        let newest = self.store.read_all(&mut |id, cost| {
            let before = count.checked_sub(1).and_then(|before| hits.get(before)).map(|before| before.id);
            // An entry weighs at least one unit, so none can be missing between them.
            let follows = before.is_some_and(|before| id.tally.wrapping_sub(before.tally) == 1);
            if let Some(place) = hits.get_mut(count) {
                *place = Hit { id, cost: cost.unwrap_or(u64::from(follows)) };
            }
            if count == 0 && cost != Some(1) {
                step = Back::Read;
            }
            count = count.saturating_add(1);
            step
        })?;
        if newest.is_some() {
            self.cursor.fill(0, hits.iter().take(count));
        }
        Ok(newest)
    }

    /// Reads the newest entry, and the hits before it as long as that is cheaper than to search for the start of the longest
    /// window. So a log with few live hits needs one iterator, however many expired ones there are.
    fn read_back_to_start(&mut self, clock: u64, window: u64) -> Result<Option<Entry>, Error> {
        let length = self.store.length();
        // Newest first. A cost of 0 is not known.
        let mut hits = [Hit::default(); MOST_BACK];
        let (mut count, mut from, mut step) = (0_usize, 0, Back::Pass);
        // Whether the start of the window was found.
        let mut is_found = false;
        let newest = self.store.read_back(&mut |id, cost| {
            let [first, ..] = hits;
            match count.checked_sub(1).and_then(|before| hits.get_mut(before)) {
                // An entry weighs at least one unit, so none can be missing between them.
                Some(later) if later.cost == 0 && later.id.tally.wrapping_sub(id.tally) == 1 => later.cost = 1,
                Some(_) => {}
                None => {
                    from = window_start(clock.max(id.time), window);
                    if cost != Some(1) {
                        step = Back::Read;
                    }
                }
            }
            if let Some(place) = hits.get_mut(count) {
                *place = Hit { id, cost: cost.unwrap_or(0) };
            }
            count = count.saturating_add(1);
            is_found = id.time < from || count as u64 == length;
            let is_far = count == FEW_BACK && {
                let so_far = first.id.time.saturating_sub(id.time);
                from < id.time.saturating_sub(so_far.saturating_mul(4))
            };
            match count as u64 {
                _ if is_found || is_far || count == MOST_BACK => Back::Stop,
                // No entry tells what the first one weighs.
                read if read.saturating_add(1) == length => Back::Read,
                _ => step,
            }
        })?;
        if is_found {
            let hits = hits.get(..count).unwrap_or_default();
            // What came in the millisecond of an expired hit has expired too.
            let known_from = match hits.last() {
                Some(oldest) if oldest.id.time < from => oldest.id.time.saturating_add(1),
                _ => 0,
            };
            self.cursor.fill(known_from, hits.iter().rev().filter(|hit| hit.id.time >= known_from));
        }
        Ok(newest)
    }
}

impl<S: Store> Store for CachedLog<S> {
    fn length(&self) -> u64 {
        self.store.length()
    }

    fn expires_at(&mut self) -> Option<u64> {
        self.store.expires_at()
    }

    fn first_tally(&mut self, time: u64) -> u64 {
        self.store.first_tally(time)
    }

    /// A cursor that differs from the log afterwards, because the plan failed, is found out when it is used next.
    #[inline]
    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        if matches!(plan, Plan::Nothing) {
            return Ok(Applied::Done { oldest: None });
        }
        let applied = self.store.apply(plan)?;
        let (true, Applied::Done { oldest }) = (self.cursor.is_kept(), applied) else {
            return Ok(applied);
        };
        if let Plan::Append(append) = plan {
            if append.restart {
                self.cursor.forget();
            }
            self.cursor.append(append.entry);
        }
        if let Some(oldest) = oldest {
            self.cursor.drop_before(oldest);
        }
        Ok(applied)
    }
}

impl<S: Store> Log for CachedLog<S> {
    #[inline]
    fn newest(&mut self, clock: u64, window: u64) -> Result<Option<Entry>, Error> {
        if let Some(known) = self.cursor.newest {
            // Nobody else tells what happens to a key. But a log of the same length that ends with the same hit is the same.
            if self.store.newest_id()? == Some(known.hit.id) {
                return Ok(Some(known));
            }
            self.cursor.forget();
        }
        self.read(clock, window)
    }

    fn read_back(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        self.store.read_back(visit)
    }

    fn last_id(&mut self) -> Result<Id, Error> {
        self.store.last_id()
    }

    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        self.store.walk(from, visit)
    }

    fn window_start(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        let (since, is_kept) = (self.cursor.since, self.cursor.is_kept());
        let window = self.cursor.window(from);
        if let Some(hit) = window.first(from) {
            return Ok(Some(hit));
        }
        if !is_kept {
            return self.store.window_start(from);
        }
        let mut left = window.begin(from);
        let mut first = None;
        let walked = self.store.walk_since(from, since, &mut |hit| {
            left = left.saturating_sub(1);
            match first {
                None => {
                    first = Some(hit);
                    window.push_first(hit);
                    // At least two are read.
                    true
                }
                Some(_) => window.push(hit) && left > 0,
            }
        });
        match first {
            // An error after it does not concern the caller yet.
            Some(hit) => Ok(Some(hit)),
            None => walked.map(|()| None),
        }
    }
}
