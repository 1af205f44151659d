//! The hits that will leave a window next, read ahead and packed into few bytes.

use crate::log::{Hit, Id};

/// Bytes of packed hits in the record itself: those of a frequent client take one each, and of any other few.
const MAX_BYTES: usize = 64;

/// Bytes of those that follow, for clients with many hits.
const MAX_MORE: usize = 1_000;

/// Bytes of the longest packed hit: two numbers.
const LONGEST_HIT: usize = 20;

/// Most hits to read ahead at a time.
const MAX_AHEAD: u8 = 64;

/// Consecutive hits of a log, all but the first stored as differences.
#[derive(Clone, Debug)]
pub struct LookAhead {
    /// There is no hit between this time and the first hit.
    from: u64,
    /// Of no cost if there is none.
    first: Hit,
    /// The last hit pushed, whether or not it is still here.
    last: Hit,
    /// For each hit after the first, the time since the one before, doubled, as LEB128. If it is odd, the hit's cost follows;
    /// otherwise the cost is that of the hit before.
    bytes: [u8; MAX_BYTES],
    /// Where the second hit begins in `bytes`.
    start: u8,
    /// Where the last hit ends.
    end: u8,
    /// How many hits were read when it was last filled; 0 if it never was.
    ahead: u8,
    /// What had no room in `bytes`. It moves there as room is made.
    more: Vec<u8>,
}

impl Default for LookAhead {
    fn default() -> Self {
        Self {
            from: 0,
            first: Hit::default(),
            last: Hit::default(),
            bytes: [0; MAX_BYTES],
            start: 0,
            end: 0,
            ahead: 0,
            more: Vec::new(),
        }
    }
}

impl LookAhead {
    /// The time from which on it may know the hits.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Whether it was ever filled.
    pub fn is_used(&self) -> bool {
        self.ahead > 0
    }

    /// Nothing is known any more, as if it had never been filled.
    pub fn clear(&mut self) {
        self.begin(0);
        self.ahead = 0;
        self.more = Vec::new();
    }

    /// The ID of the last hit pushed.
    pub fn last_id(&self) -> Id {
        self.last.id
    }

    fn known(&self) -> Option<Hit> {
        (self.first.cost > 0).then_some(self.first)
    }

    /// Forgets the hits before `oldest`, which are no longer in the log.
    pub fn drop_before(&mut self, oldest: Id) {
        while self.known().is_some_and(|hit| hit.id < oldest) {
            self.pop();
        }
    }

    /// Forgets the first hit.
    fn pop(&mut self) {
        if !self.more.is_empty() && usize::from(self.end.saturating_sub(self.start)) < LONGEST_HIT {
            self.refill();
        }
        let bytes = self.bytes.get(..self.end.into()).unwrap_or_default();
        let mut rest = bytes.get(self.start.into()..).unwrap_or_default().iter();
        self.first = Self::unpack(self.first, &mut rest).unwrap_or_default();
        self.start = self.end.saturating_sub(u8::try_from(rest.len()).unwrap_or(0));
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
        let (true, Some(gap)) = (follows, gap) else {
            return false;
        };
        if self.known().is_none() {
            self.first = hit;
        } else {
            let is_like_last = hit.cost == self.last.cost;
            let mut packed = Packed::default();
            packed.push(gap << 1 | u64::from(!is_like_last));
            if !is_like_last {
                packed.push(hit.cost);
            }
            if !self.append(packed.bytes()) {
                return false;
            }
        }
        self.last = hit;
        true
    }

    /// False if there is no room.
    fn append(&mut self, packed: &[u8]) -> bool {
        if self.more.is_empty() {
            if self.room() < packed.len() && usize::from(self.start) > MAX_BYTES / 4 {
                self.make_room();
            }
            if self.room() >= packed.len() {
                self.write(packed);
                return true;
            }
        }
        let fits = self.more.len().saturating_add(packed.len()) <= MAX_MORE;
        if fits {
            self.more.extend_from_slice(packed);
        }
        fits
    }

    fn room(&self) -> usize {
        MAX_BYTES.saturating_sub(self.end.into())
    }

    /// Moves what is left to the beginning.
    fn make_room(&mut self) {
        self.bytes.copy_within(usize::from(self.start)..usize::from(self.end), 0);
        (self.start, self.end) = (0, self.end.saturating_sub(self.start));
    }

    /// Takes up what follows, as far as there is room.
    fn refill(&mut self) {
        self.make_room();
        let moved = self.more.len().min(self.room());
        let places = self.bytes.get_mut(self.end.into()..).unwrap_or_default();
        places.iter_mut().zip(&self.more).for_each(|(place, byte)| *place = *byte);
        self.end = self.end.saturating_add(u8::try_from(moved).unwrap_or(0));
        self.more.drain(..moved);
    }

    /// Adds bytes for which there is room.
    fn write(&mut self, bytes: &[u8]) {
        let places = self.bytes.get_mut(self.end.into()..).unwrap_or_default();
        places.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.end = self.end.saturating_add(u8::try_from(bytes.len()).unwrap_or(0));
    }

    /// The first hit from time `from` on, if it is known. Forgets the hits before.
    pub fn first(&mut self, from: u64) -> Option<Hit> {
        if from < self.from {
            return None;
        }
        while self.known()?.id.time < from {
            self.pop();
            self.from = from;
        }
        self.known()
    }

    /// Starts over with the next hit pushed, and says how many hits to read: few while it is not clear that reading ahead
    /// pays.
    pub fn begin(&mut self, from: u64) -> u8 {
        let ahead = self.ahead.saturating_mul(4).clamp(2, MAX_AHEAD);
        (self.from, self.ahead, self.start, self.end) = (from, ahead, 0, 0);
        (self.first, self.last) = (Hit::default(), Hit::default());
        self.more.clear();
        ahead
    }

    pub fn push_first(&mut self, hit: Hit) {
        self.first = hit;
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

/// At most two numbers in LEB128.
#[derive(Default)]
struct Packed {
    bytes: [u8; 20],
    length: usize,
}

impl Packed {
    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push_byte((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.push_byte(value as u8);
    }

    fn push_byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length = self.length.saturating_add(1);
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
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
        assert_eq!(pushed, (MAX_BYTES + MAX_MORE) as u64 + 1);
        assert_eq!((ahead.from(), ahead.last_id()), (5, Id { time: 5 + pushed - 1, tally: pushed }));
        for nth in 0..pushed {
            assert_eq!(ahead.first(5 + nth), Some(hit(5 + nth, 1 + nth, 1)));
        }
        assert_eq!(ahead.first(5 + pushed), None);
    }

    #[test]
    fn room_is_made_as_hits_are_forgotten() {
        let (mut ahead, pushed) = full(0);
        let next = hit(pushed, 1 + pushed, 1);
        let spare = (MAX_BYTES - LONGEST_HIT) as u64 + 1;
        ahead.first(spare);
        assert!(!ahead.push(next));
        ahead.first(spare + 1);
        assert!(ahead.push(next));
        assert_eq!(ahead.first(pushed), Some(next));
    }

    /// Hits that are read in the order in which they come, with any number of them known.
    #[test]
    fn what_does_not_fit_into_the_record_follows() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut ahead = LookAhead::default();
        let mut known = std::collections::VecDeque::from([hit(1 << 40, 5, 1)]);
        ahead.begin(0);
        ahead.push_first(known[0]);
        let (mut most, mut refused) = (0, 0);
        for _ in 0..20_000 {
            if rng.u8(..100) < 53 {
                let before = *known.back().unwrap();
                let cost = if rng.u8(..4) > 0 { before.cost } else { 1 + (rng.u64(..) >> rng.u32(24..64)) };
                let id =
                    Id { time: before.id.time + 1 + (rng.u64(..) >> rng.u32(44..64)), tally: before.id.tally + cost };
                match ahead.push(Hit { id, cost }) {
                    true => known.push_back(Hit { id, cost }),
                    false => refused += 1,
                }
            } else if known.len() > 1 {
                known.pop_front();
            }
            most = most.max(known.len());
            assert_eq!(ahead.first(known[0].id.time), Some(known[0]));
        }
        assert!(most > MAX_BYTES && refused > 0, "{most} {refused}");
    }

    #[test]
    fn any_gap_and_cost_is_read_as_it_was_pushed() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut ahead = LookAhead::default();
        for _ in 0..200 {
            let mut hits = vec![hit(rng.u64(..) >> 8, rng.u64(..), 1)];
            ahead.begin(0);
            ahead.push_first(hits[0]);
            for _ in 0..4 {
                let before = *hits.last().unwrap();
                let cost = if rng.bool() { before.cost } else { (rng.u64(..) >> rng.u32(0..64)).max(1) };
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
        assert_eq!([8, 32, 64, 64], [1, 2, 3, 4].map(|from| ahead.begin(from)));
        assert_eq!(ahead.first(4), None);
        assert!(!LookAhead::default().is_used());
        assert_eq!(LookAhead::default().begin(0), 2);
    }
}
