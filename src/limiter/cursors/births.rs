//! Where the running totals of new logs begin.

use crate::hash;

/// The steps of a sequence that visits all numbers of 32 bits and in which neighbours lie far apart (Knuth, The Art of
/// Computer Programming, volume 3, section 6.4).
const STEP: u32 = 0x9e37_79b9;

/// A new log begins to count at a multiple of this, so that people can read its running total from the last digits.
const MULTIPLE: u64 = 1_000_000;

/// Gives each new log a number to begin its running total at, which no other log of this table has. So one that is put in
/// place of another, by RENAME or COPY for example, is told from it by the ID of its newest hit.
#[derive(Debug, Default)]
pub struct Births {
    last: Option<u32>,
}

impl Births {
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// The tally before the first hit of a log that begins at `time`, in milliseconds since the epoch: a multiple of a million
    /// below 2^53. Numbers come again after 2^32 logs. The time of the first log chooses the first number, so logs from other
    /// servers, or from before a restart, hardly ever have the same.
    pub fn first_tally(&mut self, time: u64) -> u64 {
        let last = self.last.unwrap_or_else(|| hash::of_number(time) as u32);
        let next = last.wrapping_add(STEP);
        self.last = Some(next);
        u64::from(next).saturating_mul(MULTIPLE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_log_has_its_own() {
        let mut births = Births::new();
        let tallies: HashSet<u64> = (0..100_000).map(|_| births.first_tally(1_767_225_600_000)).collect();
        assert_eq!(tallies.len(), 100_000);
        assert!(tallies.iter().all(|tally| tally % MULTIPLE == 0 && *tally < 1 << 53));
    }

    /// Servers that start in neighbouring milliseconds have numbers far apart.
    #[test]
    fn each_server_has_its_own() {
        let of_server = |time| {
            let mut births = Births::new();
            (0..100_u64).map(|at| births.first_tally(time + at)).collect::<Vec<_>>()
        };
        let tallies: HashSet<u64> = (0..1_000).flat_map(|at| of_server(1_767_225_600_000 + at)).collect();
        assert_eq!(tallies.len(), 100_000);
    }

    #[test]
    fn it_goes_on_after_the_largest_number() {
        let mut births = Births { last: Some(u32::MAX) };
        assert_eq!(births.first_tally(0), u64::from(STEP - 1) * MULTIPLE);
    }
}
