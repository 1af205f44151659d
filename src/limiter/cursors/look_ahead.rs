//! The hits that will leave a window next, read ahead and packed into few bytes.

use crate::log::{Hit, Id};

/// Bytes of packed hits: a thousand hits of a frequent client, at least fifty of any.
const MAX_BYTES: usize = 1_000;

/// Bytes of the longest packed hit: two numbers.
const LONGEST_HIT: usize = 20;

/// Most hits to read ahead at a time.
const MAX_AHEAD: usize = 64;

/// Consecutive hits of a log, all but the first stored as differences.
#[derive(Default)]
pub struct LookAhead {
    /// There is no hit between this time and the first hit.
    from: u64,
    first: Option<Hit>,
    /// The last hit pushed, whether or not it is still here.
    last: Hit,
    /// For each hit after the first, the time since the one before, doubled, as LEB128. If it is odd, the hit's cost follows;
    /// otherwise the cost is that of the hit before.
    bytes: Vec<u8>,
    /// Where the second hit begins in `bytes`.
    start: usize,
    /// How many hits were read when it was last filled.
    ahead: usize,
}

impl LookAhead {
    /// The time from which on it may know the hits.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// The ID of the last hit pushed.
    pub fn last_id(&self) -> Id {
        self.last.id
    }

    /// Forgets the hits before `oldest`, which are no longer in the log.
    pub fn drop_before(&mut self, oldest: Id) {
        while self.first.is_some_and(|hit| hit.id < oldest) {
            self.pop();
        }
    }

    /// Forgets the first hit.
    fn pop(&mut self) {
        let mut next = None;
        if let (Some(before), Some(rest)) = (self.first, self.bytes.get(self.start..)) {
            let mut rest = rest.iter();
            next = Self::unpack(before, &mut rest);
            self.start = self.bytes.len().saturating_sub(rest.len());
        }
        self.first = next;
    }

    fn unpack<'b>(before: Hit, bytes: &mut impl Iterator<Item = &'b u8>) -> Option<Hit> {
        let gap = take_varint(bytes)?;
        let cost = if gap & 1 == 0 { before.cost } else { take_varint(bytes)? };
        let Id { time, tally } = before.id;
        Some(Hit { id: Id { time: time.wrapping_add(gap >> 1), tally: tally.wrapping_add(cost) }, cost })
    }

    /// Adds the next hit of the log. False if there is no room, or if its tally does not follow from the hit before because an
    /// entry between them was deleted.
    pub fn push(&mut self, hit: Hit) -> bool {
        let follows = hit.id.tally == self.last.id.tally.wrapping_add(hit.cost);
        let gap = hit.id.time.checked_sub(self.last.id.time).filter(|gap| *gap < 1 << 63);
        if self.bytes.len().saturating_add(LONGEST_HIT) > MAX_BYTES && self.start > MAX_BYTES / 4 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let room = self.bytes.len().saturating_add(LONGEST_HIT) <= MAX_BYTES;
        let (true, true, Some(gap)) = (follows, room, gap) else {
            return false;
        };
        if self.first.is_none() {
            self.first = Some(hit);
        } else {
            push_varint(&mut self.bytes, gap << 1 | u64::from(hit.cost != self.last.cost));
            if hit.cost != self.last.cost {
                push_varint(&mut self.bytes, hit.cost);
            }
        }
        self.last = hit;
        true
    }

    /// The first hit from time `from` on, if it is known. Forgets the hits before.
    pub fn first(&mut self, from: u64) -> Option<Hit> {
        if from < self.from {
            return None;
        }
        while self.first?.id.time < from {
            self.pop();
            self.from = from;
        }
        self.first
    }

    /// Starts over with the next hit pushed, and says how many hits to read: few while it is not clear that reading ahead
    /// pays.
    pub fn begin(&mut self, from: u64) -> usize {
        let ahead = self.ahead.saturating_mul(4).clamp(2, MAX_AHEAD);
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        *self = Self { from, ahead, bytes, ..Self::default() };
        ahead
    }

    pub fn push_first(&mut self, hit: Hit) {
        self.first = Some(hit);
        self.last = hit;
    }
}

/// Takes one number in LEB128: seven bits a byte, lowest first; the eighth bit is set if more follow.
fn take_varint<'b>(bytes: &mut impl Iterator<Item = &'b u8>) -> Option<u64> {
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

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
