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
        if self.is_full() && self.start > MAX_BYTES / 4 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let (true, false, Some(gap)) = (follows, self.is_full(), gap) else {
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

    fn is_full(&self) -> bool {
        self.bytes.len().saturating_add(LONGEST_HIT) > MAX_BYTES
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(time: u64, tally: u64, cost: u64) -> Hit {
        Hit { id: Id { time, tally }, cost }
    }

    /// Hits of cost 1, one a millisecond from `from` on, until there is no room.
    fn full(from: u64) -> (LookAhead, u64) {
        let mut ahead = LookAhead::default();
        ahead.begin(from);
        ahead.push_first(hit(from, 1, 1));
        let mut pushed = 1;
        while ahead.push(hit(from + pushed, 1 + pushed, 1)) {
            pushed += 1;
        }
        (ahead, pushed)
    }

    #[test]
    fn hits_of_a_frequent_client_take_a_byte_each() {
        let (mut ahead, pushed) = full(5);
        // The first takes none.
        assert_eq!(pushed, (MAX_BYTES - LONGEST_HIT + 1) as u64 + 1);
        assert_eq!((ahead.from(), ahead.last_id()), (5, Id { time: 5 + pushed - 1, tally: pushed }));
        for nth in 0..pushed {
            assert_eq!(ahead.first(5 + nth), Some(hit(5 + nth, 1 + nth, 1)));
        }
        assert_eq!(ahead.first(5 + pushed), None);
    }

    #[test]
    fn room_is_made_when_a_quarter_is_forgotten() {
        let (mut ahead, pushed) = full(0);
        let next = hit(pushed, 1 + pushed, 1);
        ahead.first(250);
        assert!(!ahead.push(next));
        ahead.first(251);
        assert!(ahead.push(next));
        assert_eq!(ahead.first(pushed), Some(next));
    }

    #[test]
    fn any_gap_and_cost_is_read_as_it_was_pushed() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut ahead = LookAhead::default();
        for _ in 0..200 {
            let mut hits = vec![hit(rng.u64(..) >> 8, rng.u64(..), 1)];
            ahead.begin(0);
            ahead.push_first(hits[0]);
            for _ in 0..48 {
                let before = *hits.last().unwrap();
                let cost = if rng.bool() { before.cost } else { rng.u64(..) >> rng.u32(0..64) };
                let gap = rng.u64(..) >> rng.u32(8..64);
                let next = hit(before.id.time + gap, before.id.tally.wrapping_add(cost), cost);
                assert!(ahead.push(next));
                hits.push(next);
            }
            hits.dedup_by_key(|hit| hit.id.time);
            for hit in hits {
                assert_eq!(ahead.first(hit.id.time), Some(hit));
            }
        }
    }

    #[test]
    fn only_a_hit_that_follows_is_taken() {
        let start = || {
            let mut ahead = LookAhead::default();
            ahead.begin(100);
            ahead.push_first(hit(100, 7, 2));
            ahead
        };
        assert!(start().push(hit(100, 8, 1)) && start().push(hit(101, 12, 5)));
        for missing in [hit(101, 9, 1), hit(101, 7, 1), hit(99, 8, 1)] {
            assert!(!start().push(missing), "{missing:?}");
        }
        assert!(!start().push(hit(100 + (1 << 63), 8, 1)));
        let far = hit(100 + (1 << 63) - 1, 8, 1);
        let mut ahead = start();
        assert!(ahead.push(far));
        assert_eq!((ahead.first(101), ahead.last_id()), (Some(far), far.id));
    }

    #[test]
    fn what_is_before_its_beginning_is_not_known() {
        let (mut ahead, _) = full(100);
        assert_eq!(ahead.first(99), None);
        assert_eq!(ahead.first(100), Some(hit(100, 1, 1)));
        assert_eq!((ahead.first(110), ahead.from()), (Some(hit(110, 11, 1)), 110));
        assert_eq!(ahead.first(109), None);
        ahead.drop_before(Id { time: 120, tally: 22 });
        assert_eq!(ahead.first(110), Some(hit(121, 22, 1)));
    }

    #[test]
    fn it_reads_further_ahead_each_time() {
        let (mut ahead, _) = full(0);
        let bytes = ahead.bytes.capacity();
        assert_eq!([8, 32, 64, 64], [1, 2, 3, 4].map(|from| ahead.begin(from)));
        assert_eq!((ahead.first(4), ahead.bytes.capacity()), (None, bytes), "the memory is used again");
        assert_eq!(LookAhead::default().begin(0), 2);
    }
}
