//! The log of a key, as the arithmetic sees it: a list of hits in which every entry knows the running total.
//!
//! A stream ID is `time-tally`: the time of the hit in milliseconds, and the units of all hits so far, this one included.
//! So the use of any interval is a subtraction, whatever the costs are and however long the log is. The tally is a u64
//! and wraps; what lies between two entries is far below 2^63 (see `limiter::room_for`).

use crate::error::Error;
use crate::retention::Retention;

/// A stream ID of the log, in the order in which the server sorts IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Milliseconds since the Unix epoch.
    pub time: u64,
    /// Units of all hits up to this one, modulo 2^64.
    pub tally: u64,
}

impl std::fmt::Display for Id {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}", self.time, self.tally)
    }
}

/// One stored hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: Id,
    /// Units, at least 1.
    pub cost: u64,
    pub retention: Retention,
}

impl Entry {
    /// Units of the hits after `older`'s predecessor, up to and including this one.
    pub fn units_since(&self, older: &Self) -> u64 {
        let between = self.id.tally.wrapping_sub(older.id.tally);
        between.wrapping_add(older.cost)
    }
}

/// Read access to the log of one key. An entry that this module did not write is an error.
pub trait Log {
    /// The newest entry, if the log holds any.
    fn newest(&mut self) -> Result<Option<Entry>, Error>;

    /// Shows `visit` the entries from time `from` on, oldest first, for as long as it answers true.
    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Entry) -> bool) -> Result<(), Error>;

    /// The oldest entry from time `from` on.
    fn first(&mut self, from: u64) -> Result<Option<Entry>, Error> {
        let mut first = None;
        self.walk(from, &mut |entry| {
            first = Some(entry);
            false
        })?;
        Ok(first)
    }
}
