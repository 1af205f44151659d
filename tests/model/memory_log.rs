//! A log in memory, and calls on it as the commands make them.

use limiter::answer::Answer;
use limiter::cursors::{CachedLog, Table};
use limiter::error::Error;
use limiter::hash;
use limiter::log::{self, Back, Entry, Id, Log};
use limiter::plan::{Applied, Plan, Store};
use limiter::retention::Retention;
use limiter::syntax::{Asker, Call};
use limiter::usage::Usage;

use oracle::Tier;

/// A log in memory. It drops what a plan says, but keeps `keep_expired` entries more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryLog {
    pub entries: Vec<Entry>,
    pub last_id: Option<Id>,
    pub expires_at: Option<u64>,
    pub keep_expired: usize,
}

/// A log of up to so many entries has its true length.
const SHORT: u64 = 12;

/// Each entry beyond counts as this many, so that short histories reach what happens to logs of more than a thousand.
const STANDS_FOR: u64 = 300;

/// By itself it is read by seeks alone, and nothing is known but what they say.
impl Log for &mut MemoryLog {
    fn read_back(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        let mut step = Back::Read;
        for entry in self.entries.iter().rev() {
            step = match step {
                Back::Stop => break,
                Back::Pass => visit(entry.hit.id, None),
                Back::Read => visit(entry.hit.id, Some(entry.hit.cost)),
            };
        }
        Ok(self.entries.last().copied())
    }

    fn read_all(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        let mut step = Back::Read;
        let last = self.entries.len().saturating_sub(1);
        for (at, entry) in self.entries.iter().enumerate() {
            step = visit(entry.hit.id, (at == last || step == Back::Read).then_some(entry.hit.cost));
        }
        Ok(self.entries.last().copied())
    }

    fn last_id(&mut self) -> Result<Id, Error> {
        Ok(self.last_id.unwrap_or_default())
    }

    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(log::Hit) -> bool) -> Result<(), Error> {
        let start = self.entries.partition_point(|entry| entry.hit.id.time < from);
        self.entries[start..].iter().all(|entry| visit(entry.hit));
        Ok(())
    }

    /// Checks that what is known without reading is true.
    fn walk_since(&mut self, from: u64, since: Id, visit: &mut dyn FnMut(log::Hit) -> bool) -> Result<(), Error> {
        let mut before: Option<log::Hit> = None;
        self.walk(from, &mut |hit| {
            if let Some(before) = before.filter(|before| before.id >= since) {
                assert_eq!(hit.cost, hit.id.tally.wrapping_sub(before.id.tally));
            }
            before = Some(hit);
            visit(hit)
        })
    }
}

impl Store for &mut MemoryLog {
    fn length(&self) -> u64 {
        MemoryLog::length(self)
    }

    fn expires_at(&mut self) -> Option<u64> {
        self.expires_at
    }

    fn first_tally(&mut self, _time: u64) -> u64 {
        0
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        let mut oldest = None;
        if let Plan::Append(append) = plan {
            if append.restart {
                self.clear();
            }
            if self.last_id >= Some(append.entry.hit.id) {
                return Ok(Applied::IdTooLow);
            }
            self.last_id = Some(append.entry.hit.id);
            self.entries.push(append.entry);
            let length = self.entries.len();
            if let Some(before) = append.expired_before {
                let expired = self.entries.partition_point(|entry| entry.hit.id < before);
                self.entries.drain(..expired.saturating_sub(self.keep_expired));
            }
            if let Some(before) = append.surplus_before {
                self.entries.retain(|entry| entry.hit.id >= before);
            }
            if let Some(most) = append.max_entries {
                let most = most as usize + self.keep_expired;
                self.entries.drain(..self.entries.len().saturating_sub(most));
            }
            assert!(!self.entries.is_empty(), "the newest entry is never dropped");
            oldest = (self.entries.len() < length).then(|| self.entries[0].hit.id);
        }
        self.expires_at = plan.expire_at().or(self.expires_at);
        Ok(Applied::Done { oldest })
    }
}

/// Answers as `RATELIMIT.PEEK` does. An error only for an empty stream whose last ID is in the far future.
pub fn peek(log: &mut impl Log, clock: u64, call: &Call) -> Result<Answer, Error> {
    let mut usage = Usage::new(call, clock, Id::default());
    usage.read(log)?;
    Ok(usage.peek(log)?.0)
}

/// Decides and writes as `RATELIMIT.HIT` does.
pub fn hit(log: &mut impl Store, clock: u64, call: &Call) -> Result<Answer, Error> {
    let mut last_id = Id::default();
    for _ in 0..2 {
        let mut usage = Usage::new(call, clock, last_id);
        usage.read(log)?;
        let mut decision = usage.decide(log, usage.has_room())?;
        if let Applied::Done { oldest } = log.apply(&decision.plan)? {
            decision.adjust(oldest);
            return Ok(decision.answer);
        }
        last_id = log.last_id()?;
    }
    panic!("an ID above the last one is taken");
}

impl MemoryLog {
    pub fn length(&self) -> u64 {
        let entries = self.entries.len() as u64;
        entries + entries.saturating_sub(SHORT) * (STANDS_FOR - 1)
    }

    pub fn clear(&mut self) {
        *self = Self { keep_expired: self.keep_expired, ..Self::default() };
    }

    fn expire(&mut self, clock: u64) {
        if self.expires_at.is_some_and(|at| at <= clock) {
            self.clear();
        }
    }

    /// Answers as `RATELIMIT.PEEK` does, without a cursor.
    pub fn peek(&mut self, clock: u64, call: &Call) -> Result<Answer, Error> {
        self.expire(clock);
        peek(&mut &mut *self, clock, call)
    }

    /// Decides and writes as `RATELIMIT.HIT` does, without a cursor.
    pub fn hit(&mut self, clock: u64, call: &Call) -> Result<Answer, Error> {
        self.expire(clock);
        hit(&mut &mut *self, clock, call)
    }
}

/// Works on the log of a key with its cursor, as the commands do. Returns the log as well.
pub fn open<S: Store, R>(table: &mut Table, key: &[u8], log: S, work: impl FnOnce(&mut CachedLog<S>) -> R) -> (R, S) {
    let hash = hash::of(0, key);
    let cursor = match log.length() {
        0 => table.take_new(hash),
        length => table.take(hash, length),
    };
    let mut log = CachedLog::new(log, cursor);
    let result = work(&mut log);
    let (log, cursor) = log.into_parts();
    table.put(cursor);
    (result, log)
}

/// A log and the table that holds its cursor.
pub struct Subject {
    pub log: MemoryLog,
    pub table: Table,
}

impl Subject {
    pub fn new(log: MemoryLog, cursors: usize) -> Self {
        let mut table = Table::new();
        table.resize(cursors);
        Self { log, table }
    }

    pub fn open<R>(&mut self, clock: u64, work: impl FnOnce(&mut CachedLog<&mut MemoryLog>) -> R) -> R {
        self.log.expire(clock);
        open(&mut self.table, b"key", &mut self.log, work).0
    }

    pub fn peek(&mut self, clock: u64, call: &Call) -> Result<Answer, Error> {
        self.open(clock, |log| peek(log, clock, call))
    }

    pub fn hit(&mut self, clock: u64, call: &Call) -> Result<Answer, Error> {
        self.open(clock, |log| hit(log, clock, call))
    }
}

pub fn call_of(tiers: &[Tier], cost: u64, strict: bool) -> Call {
    let mut words: Vec<String> = Vec::new();
    for (limit, window) in tiers {
        words.extend([limit.to_string(), format!("{window}ms")]);
    }
    words.extend(["COST".to_owned(), cost.to_string()]);
    if strict {
        words.push("STRICT".to_owned());
    }
    let mut call = Call::default();
    call.parse(words.iter().map(String::as_bytes), Asker::Hit).unwrap();
    call
}

/// Where set clocks start, in milliseconds since the epoch.
pub const START: u64 = 1_767_225_600_000;

/// A log with any tally, perhaps about to wrap, and nothing alive in it.
pub fn old_log(tally: u64, longest: u64, keep_expired: usize) -> MemoryLog {
    let id = Id { time: START - 2 * longest, tally };
    let retention = Retention { longest, fallback: None };
    let entries = vec![Entry { hit: log::Hit { id, cost: 1 }, retention }];
    MemoryLog { entries, last_id: Some(id), expires_at: None, keep_expired }
}
