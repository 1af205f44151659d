//! The log of a key, as the arithmetic sees it: a list of hits in which every entry knows the running total.
//!
//! A stream ID is `time-tally`: the time of the hit in milliseconds, and the units of all hits so far, this one included.
//! So the use of any interval is a subtraction, whatever the costs are and however long the log is. The tally is a u64
//! and wraps; what lies between two entries is far below 2^63 (see `limiter::room_for`).

use crate::error::Error;
use crate::limiter::Write;
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
    pub fn text(self) -> IdText {
        let mut text = IdText { bytes: [0; IdText::LONGEST], start: IdText::LONGEST };
        text.number_before(self.tally);
        text.dash_before();
        text.number_before(self.time);
        text
    }
}

/// The text of an ID, without the cost of formatting: every stored hit replicates one.
pub struct IdText {
    bytes: [u8; Self::LONGEST],
    start: usize,
}

impl IdText {
    /// Two numbers of 20 digits and what is between them, and room for leading zeros up to a multiple of eight.
    const LONGEST: usize = 45;

    fn dash_before(&mut self) {
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.bytes.get_mut(self.start) {
            *place = b'-';
        }
    }

    fn number_before(&mut self, mut number: u64) {
        const EIGHT_DIGITS: u64 = 100_000_000;
        let mut free = self.bytes.get_mut(..self.start).unwrap_or_default();
        while let Some((before, place)) = free.split_last_chunk_mut() {
            let digits = eight_digits(number % EIGHT_DIGITS);
            *place = (digits | 0x3030_3030_3030_3030).to_le_bytes();
            (number, free) = (number / EIGHT_DIGITS, before);
            if number == 0 {
                let leading_zeros = (digits.trailing_zeros() / 8).min(7);
                self.start = free.len().saturating_add(leading_zeros as usize);
                return;
            }
        }
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

/// The digits of a number below 10^8, a byte each, the first one lowest. All are worked out at once: a word is divided into
/// halves that hold four digits each, these into quarters of two, and these into bytes of one.
fn eight_digits(number: u64) -> u64 {
    let halves = (number / 10_000) | ((number % 10_000) << 32);
    // 10486 / 2^20 is near enough to 1/100 below 10^4, and 103 / 2^10 to 1/10 below 100.
    let hundreds = (halves.wrapping_mul(10_486) >> 20) & 0x0000_007f_0000_007f;
    let quarters = hundreds | (halves.wrapping_sub(hundreds.wrapping_mul(100)) << 16);
    let tens = (quarters.wrapping_mul(103) >> 10) & 0x000f_000f_000f_000f;
    tens | (quarters.wrapping_sub(tens.wrapping_mul(10)) << 8)
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

    /// Shows `visit` the hits from time `from` on, oldest first, for as long as it answers true.
    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error>;

    /// The same where all hits after `since` are known to be ours with nothing missing between them, so that what is
    /// not read of one follows from the one before it.
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

    /// The same for the beginning of a window, which is asked for with every call and only ever moves on.
    fn first(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        self.seek(from)
    }
}

/// A log that can be written.
pub trait Store: Log {
    /// The number of entries, expired ones included.
    fn length(&self) -> u64;

    /// When the key expires, in milliseconds since the epoch, if it does.
    fn expires(&mut self) -> Option<u64>;

    /// Carries out what a decision asks for. `None`, with nothing appended, if the new entry's ID was not taken, because the
    /// stream's last ID is not below it.
    fn write(&mut self, write: &Write) -> Result<Option<Written>, Error>;
}

/// What is known after writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The oldest entry, if any were dropped.
    pub oldest: Option<Id>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_id() {
        let powers = (0..20).map(|digits| 10_u64.pow(digits));
        let numbers: Vec<u64> = powers.flat_map(|power| [power - 1, power, power.saturating_mul(7)]).collect();
        for (&time, &tally) in numbers.iter().zip(numbers.iter().rev()) {
            assert_eq!(Id { time, tally }.text().bytes(), format!("{time}-{tally}").as_bytes());
        }
        for number in (0..100_000_000).step_by(4_999) {
            let text = Id { time: number, tally: number }.text();
            assert_eq!(text.bytes(), format!("{number}-{number}").as_bytes());
        }
    }
}
