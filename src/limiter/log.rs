//! The log of a key, as the arithmetic sees it: a list of hits in which every entry knows the running total.
//!
//! A stream ID is `time-tally`: the time of the hit in milliseconds, and the units of all hits so far, this one included.
//! So the use of any interval is a subtraction, whatever the costs are and however long the log is. The tally is a u64
//! and wraps; what lies between two entries stays far below 2^63 (see `plan.rs`).

use crate::error::Error;
use crate::number::PairText;
use crate::retention::Retention;

/// A stream ID of the log, in the order in which the server sorts IDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Milliseconds since the Unix epoch.
    pub time: u64,
    /// Units of all hits up to this one, modulo 2^64.
    pub tally: u64,
}

impl Id {
    /// Reads `1767225600000-7`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (time, tally) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { time: time.parse().ok()?, tally: tally.parse().ok()? })
    }

    /// As the server spells it: `1767225600000-7`.
    pub fn text(self) -> PairText {
        PairText::new(self.time, self.tally)
    }
}

/// One stored hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    pub id: Id,
    /// Units, at least 1.
    pub cost: u64,
}

impl Hit {
    /// Units of the hits after `older`'s predecessor, up to and including this one.
    pub fn units_since(&self, older: &Self) -> u64 {
        let between = self.id.tally.wrapping_sub(older.id.tally);
        between.wrapping_add(older.cost)
    }
}

/// A hit, and the name of its entry, which says how long the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub hit: Hit,
    pub retention: Retention,
}

/// Read access to the log of one key. An entry that this module did not write is an error.
pub trait Log {
    /// The newest entry, if the log holds any.
    fn newest(&mut self) -> Result<Option<Entry>, Error>;

    /// The ID that the next entry's must exceed: that of the newest entry there ever was, or what XSETID made of it. 0-0 if
    /// there is no stream, or if it cannot be told.
    fn last_id(&mut self) -> Result<Id, Error>;

    /// Shows `visit` the hits from time `from` on, oldest first, until it answers false.
    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error>;

    /// The same, where all hits after `since` are known to be ours with nothing missing between them. So the cost of one
    /// follows from the hit before it, and need not be read.
    fn walk_since(&mut self, from: u64, since: Id, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error>;

    /// The oldest hit from time `from` on.
    fn seek(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        let mut first = None;
        self.walk(from, &mut |hit| {
            first = Some(hit);
            false
        })?;
        Ok(first)
    }

    /// The same for the start of a window, which is asked for with every call and only ever moves on.
    fn window_start(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        self.seek(from)
    }
}
