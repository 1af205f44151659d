//! What is known of one log.

use super::look_ahead::LookAhead;
use crate::log::{Entry, Id};
use crate::syntax::MAX_TIERS;

/// When a key expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expiry {
    #[default]
    Unknown,
    /// Milliseconds since the epoch; None if it never does.
    Known(Option<u64>),
}

/// What is known of one log.
#[derive(Default)]
pub struct Cursor {
    pub(super) hash: u64,
    pub(super) database: i32,
    pub(super) key: Box<[u8]>,
    /// The table's epoch when the cursor began.
    pub(super) epoch: u64,
    /// The table's changes when the cursor was taken.
    pub(super) changes: u64,
    /// The log's length when the cursor was put back.
    pub(super) length: u64,
    /// None if it is not known.
    pub(super) newest: Option<Entry>,
    /// We saw every append after this hit: none is missing between them, and none is foreign.
    pub(super) since: Id,
    pub(super) expiry: Expiry,
    /// At most one for each tier that a call can have.
    pub(super) windows: Vec<LookAhead>,
}

impl Cursor {
    pub(super) fn is_of(&self, database: i32, key: &[u8]) -> bool {
        self.database == database && *self.key == *key
    }

    /// The window that begins last at or before `from`, or another one if there is none. This finds each tier's own window,
    /// because windows only move forward.
    pub(super) fn window(&mut self, from: u64) -> Option<&mut LookAhead> {
        let begins_before = |(_, window): &(usize, &LookAhead)| window.from() <= from;
        let windows = self.windows.iter().enumerate().filter(begins_before);
        let at = match windows.max_by_key(|(_, window)| window.from()) {
            Some((at, _)) => at,
            None if self.windows.len() < MAX_TIERS => {
                self.windows.push(LookAhead::default());
                self.windows.len().saturating_sub(1)
            }
            None => 0,
        };
        self.windows.get_mut(at)
    }

    /// The log was removed.
    pub(super) fn clear(&mut self) {
        self.newest = None;
        self.since = Id::default();
        self.windows.clear();
    }

    /// The log has one more entry.
    pub(super) fn append(&mut self, entry: Entry) {
        let before = self.newest.map(|newest| newest.hit.id);
        for window in &mut self.windows {
            // One that reached the end of the log still does, if there is room.
            if Some(window.last_id()) == before {
                window.push(entry.hit);
            }
        }
        self.newest = Some(entry);
    }

    /// The entries before `oldest` are gone.
    pub(super) fn drop_before(&mut self, oldest: Id) {
        self.windows.iter_mut().for_each(|window| window.drop_before(oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tier_finds_its_window() {
        let mut cursor = Cursor::default();
        let begins = [80, 10, 70, 20, 60, 30, 50, 40];
        for from in begins {
            cursor.windows.push(LookAhead::default());
            cursor.windows.last_mut().unwrap().begin(from);
        }
        for (from, begin) in [(10, 10), (19, 10), (20, 20), (45, 40), (79, 70), (80, 80), (1_000, 80)] {
            assert_eq!(cursor.window(from).unwrap().from(), begin, "{from}");
        }
        assert_eq!(cursor.window(9).unwrap().from(), 80, "the first, because there are as many as tiers");
        assert_eq!(cursor.windows.len(), MAX_TIERS);
        cursor.windows.pop();
        assert_eq!(cursor.window(9).unwrap().from(), 0, "a new one");
        assert_eq!(cursor.windows.len(), MAX_TIERS);
        cursor.window(9).unwrap().begin(9);
        assert_eq!(cursor.windows[MAX_TIERS - 1].from(), 9);
    }
}
