//! What is known of one log.

use super::look_ahead::LookAhead;
use crate::log::{Entry, Hit, Id};
use crate::syntax::MAX_TIERS;

/// What is known of one log. The record has no pointers unless a key has several windows, so following a key that is new to
/// the table costs nothing but its place.
#[derive(Debug, Default)]
pub struct Cursor {
    /// That of the key. 0 if the key has no place in the table.
    pub(super) hash: u64,
    /// The log's length when the cursor was put back.
    pub(super) length: u64,
    /// None if nothing is known.
    pub(super) newest: Option<Entry>,
    /// We saw every append after this hit: none is missing between them, and none is foreign.
    pub(super) since: Id,
    /// The first window, and others: at most one for each tier that a call can have.
    window: LookAhead,
    more: Vec<LookAhead>,
}

impl Cursor {
    /// Whether it goes back to a place in the table.
    pub(super) fn is_kept(&self) -> bool {
        self.hash != 0
    }

    fn windows(&mut self) -> impl Iterator<Item = &mut LookAhead> {
        std::iter::once(&mut self.window).chain(&mut self.more).filter(|window| window.is_used())
    }

    /// The window that begins last at or before `from`, or another one if there is none. This finds each tier's own window,
    /// because windows only move forward.
    pub(super) fn window(&mut self, from: u64) -> &mut LookAhead {
        let begins_before = |window: &LookAhead| window.is_used() && window.from() <= from;
        let others = self.more.iter().enumerate().filter(|(_, window)| begins_before(window));
        let other = others.max_by_key(|(_, window)| window.from()).map(|(at, window)| (at, window.from()));
        let at = match other {
            Some((_, begins)) if begins_before(&self.window) && self.window.from() >= begins => {
                return &mut self.window;
            }
            Some((at, _)) => at,
            None if begins_before(&self.window) || !self.window.is_used() => return &mut self.window,
            None if self.more.len() < MAX_TIERS.saturating_sub(1) => {
                self.more.push(LookAhead::default());
                self.more.len().saturating_sub(1)
            }
            None => return &mut self.window,
        };
        self.more.get_mut(at).unwrap_or(&mut self.window)
    }

    /// Starts with these hits of the log, all from this time on, oldest first. Whose cost is not known ends them.
    pub(super) fn fill<'h>(&mut self, from: u64, hits: impl Iterator<Item = &'h Hit>) {
        let mut hits = hits.take_while(|hit| hit.cost > 0);
        if let Some(first) = hits.next() {
            self.window.begin(from);
            self.window.push_first(*first);
            hits.all(|hit| self.window.push(*hit));
        }
    }

    /// Nothing is known any more, and it belongs to nobody.
    pub(super) fn clear(&mut self) {
        self.hash = 0;
        self.forget();
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.newest = None;
        self.since = Id::default();
        self.window.clear();
        self.more.clear();
    }

    /// The log has one more entry.
    pub(super) fn append(&mut self, entry: Entry) {
        let before = self.newest.map(|newest| newest.hit.id);
        for window in self.windows() {
            // One that reached the end of the log still does, if there is room.
            if Some(window.last_id()) == before {
                window.push(entry.hit);
            }
        }
        self.newest = Some(entry);
    }

    /// The entries before `oldest` are gone.
    pub(super) fn drop_before(&mut self, oldest: Id) {
        self.windows().for_each(|window| window.drop_before(oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tier_finds_its_window() {
        let mut cursor = Cursor::default();
        let begins = [80, 10, 70, 20, 60, 30, 50, 40];
        cursor.window.begin(begins[0]);
        for from in &begins[1..] {
            cursor.more.push(LookAhead::default());
            cursor.more.last_mut().unwrap().begin(*from);
        }
        for (from, begin) in [(10, 10), (19, 10), (20, 20), (45, 40), (79, 70), (80, 80), (1_000, 80)] {
            assert_eq!(cursor.window(from).from(), begin, "{from}");
        }
        assert_eq!(cursor.window(9).from(), 80, "the first, because there are as many as tiers");
        assert_eq!(cursor.more.len(), MAX_TIERS - 1);
        cursor.more.pop();
        let new = cursor.window(9);
        assert!(!new.is_used() && new.from() == 0);
        new.begin(9);
        assert_eq!(cursor.more.len(), MAX_TIERS - 1);
        assert_eq!([9, 10, 80].map(|from| cursor.window(from).from()), [9, 10, 80]);
    }

    #[test]
    fn one_window_needs_no_more_memory() {
        let mut cursor = Cursor::default();
        cursor.window(5).begin(5);
        cursor.window(7).begin(7);
        assert!(cursor.more.is_empty());
        assert!(size_of::<Cursor>() <= 256, "{}", size_of::<Cursor>());
    }
}
