//! The log of a key: a list of hits in which every entry carries the running total.
//!
//! A stream ID is `time-tally`: the time of the hit in milliseconds, and the units of all hits so far, this one included.
//! So the usage of any interval is a subtraction, whatever the costs and the length of the log. The tally is a u64 and
//! wraps; the difference between two entries stays far below 2^63 (see `plan.rs`).

use crate::error::Error;
use crate::number::PairText;
use crate::retention::Retention;

/// A stream ID of the log. IDs sort as they do in the server.
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

/// A hit, and its entry's field name, which says how long the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub hit: Hit,
    pub retention: Retention,
}

/// How to go on after an entry that was read backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    Stop,
    /// The ID of the next one is enough.
    Pass,
    /// The cost of the next one is read as well, which takes twice as long.
    Read,
}

/// Read access to the log of one key. An entry that this module did not write is an error.
pub trait Log {
    /// The newest entry, if the log holds any. It is passed to `visit`, and then those before it, newest first, each with its
    /// ID and with its cost, if that was read. Entries before the newest may be foreign; their cost is not known.
    fn read_back(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error>;

    /// Reads a short log as a whole, from the oldest entry to the newest, which is cheaper than backwards: passes each to
    /// `visit` as [`Self::read_back`] does, and returns the newest. None if it is not read this way; what was visited then
    /// means nothing.
    fn read_all(&mut self, _visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        Ok(None)
    }

    /// The newest entry, if the log holds any. What is asked for next is the start of a window of this length, which ends at
    /// `clock` or with the newest entry, and of shorter ones.
    fn newest(&mut self, _clock: u64, _window: u64) -> Result<Option<Entry>, Error> {
        self.read_back(&mut |_, _| Back::Stop)
    }

    /// The ID of the newest entry, whoever wrote it.
    fn newest_id(&mut self) -> Result<Option<Id>, Error> {
        Ok(self.read_back(&mut |_, _| Back::Stop)?.map(|entry| entry.hit.id))
    }

    /// The ID that the next one must exceed: that of the newest entry there ever was, or what XSETID set. 0-0 if there is no
    /// stream, or if the ID cannot be found out.
    fn last_id(&mut self) -> Result<Id, Error>;

    /// Passes the hits from time `from` on to `visit`, oldest first, until it returns false.
    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error>;

    /// The same, if all hits after `since` are known to be ours, with none missing between them. So a cost follows from the
    /// hit before, and need not be read.
    fn walk_since(&mut self, from: u64, _since: Id, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        self.walk(from, visit)
    }

    /// The oldest hit from time `from` on.
    fn seek(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        let mut first = None;
        self.walk(from, &mut |hit| {
            first = Some(hit);
            false
        })?;
        Ok(first)
    }

    /// The same for the start of a window, which every call asks for and which only moves forward.
    fn window_start(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        self.seek(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for id in
            [Id { time: 0, tally: 0 }, Id { time: 1_767_225_600_000, tally: 7 }, Id { time: u64::MAX, tally: u64::MAX }]
        {
            assert_eq!(Id::parse(id.text().bytes()), Some(id));
        }
        for text in
            ["", "-", "1", "1-", "-1", "1-2-3", "a-1", "1-a", "18446744073709551616-1", "1-18446744073709551616"]
        {
            assert_eq!(Id::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Id::parse(b"1-\xff"), None);
    }
}
