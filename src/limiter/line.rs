//! Who waits in line for which key, and when their turns come.
//!
//! A line is strict: whoever came first is served first, whatever the hits weigh. So the turn of the last one follows from the
//! log and from those ahead. It is found as any wait is: the hits of those ahead, each at its own turn, are read as if they were
//! in the log already ([`Ahead`]). Each turn is found once, when its client joins, and stays known until something else happens:
//! somebody leaves, or others change the log. Then all turns are found anew, when the next client asks; in a long line not at
//! once, so that clients who come and leave do not keep the server busy. Until then nobody is told that waiting is in vain.
//!
//! Times are milliseconds since the epoch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::Error;
use crate::log::{Back, Entry, Hit, Id, Log};
use crate::plan::Store;
use crate::retention::Retention;
use crate::syntax::Call;
use crate::usage::Usage;

/// Most clients that wait at once: `ratelimit.max-waiters`.
pub const DEFAULT_WAITERS: i64 = 10_000;
pub const MIN_WAITERS: i64 = 0;
pub const MAX_WAITERS: i64 = 1_000_000;

/// A line in which nothing is due is looked at after this time, because others may have changed its key.
pub const LOOK_AFTER: u64 = 100;

/// Turns that are found anew in each millisecond that has passed since the last time.
const REPLANNED: u64 = 50;

/// When a hit could be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Never: it is too heavy for a limit.
    Never,
    /// Not known, because the line was disturbed a moment ago.
    Unknown,
    /// At a time, if nothing else happens.
    At {
        time: u64,
        /// The hit that is stored then.
        hit: Hit,
    },
}

impl Turn {
    pub fn time(self) -> Option<u64> {
        match self {
            Self::At { time, .. } => Some(time),
            Self::Never | Self::Unknown => None,
        }
    }
}

/// One client in a line.
struct Waiter<T> {
    id: u64,
    /// When it gives up.
    deadline: u64,
    /// None once it has left: taking it out of the middle of a long line would take long.
    held: Option<Box<Held<T>>>,
}

/// What is kept of a client that waits.
pub struct Held<T> {
    pub call: Call,
    pub client: T,
}

/// The hit of a client that waits, and its turn. (The hit may be stamped later, if the clock was set back.)
struct Planned {
    id: u64,
    time: u64,
    hit: Hit,
}

/// The line of one key.
struct Line<T> {
    waiters: VecDeque<Waiter<T>>,
    /// How many of them have not left.
    waiting: usize,
    /// Their hits, one for each.
    planned: VecDeque<Planned>,
    /// Whether the turns are right, if the log is as it was.
    is_planned: bool,
    /// When they were found anew.
    planned_at: u64,
    /// The newest entry and the number of entries when the log was seen last.
    seen: Option<(Option<Id>, u64)>,
    /// The log has got this hit since then.
    expected: Option<Id>,
    /// A client that asked saw another log. The first one was not looked at since.
    has_missed: bool,
    /// The log's newest hit, if its hits count at all.
    counted: Option<Id>,
}

/// A log that holds the first hits of a line already.
struct Ahead<'a, L> {
    log: &'a mut L,
    planned: &'a VecDeque<Planned>,
    /// How many of them.
    count: usize,
    /// The newest hit of the log itself, if its hits count.
    counted: Option<Id>,
}

impl<L> Ahead<'_, L> {
    fn last(&self) -> Option<&Planned> {
        self.planned.get(self.count.checked_sub(1)?)
    }
}

impl<L: Log> Log for Ahead<'_, L> {
    fn newest(&mut self, clock: u64, window: u64) -> Result<Option<Entry>, Error> {
        match self.last() {
            // However far ahead a turn is, it counts.
            Some(last) => Ok(Some(Entry { hit: last.hit, retention: Retention { longest: u64::MAX, fallback: None } })),
            None => self.log.newest(clock, window),
        }
    }

    fn read_back(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        self.log.read_back(visit)
    }

    fn last_id(&mut self) -> Result<Id, Error> {
        self.log.last_id()
    }

    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        let mut goes_on = true;
        if self.count == 0 || self.counted.is_some_and(|newest| newest.time >= from) {
            self.log.walk(from, &mut |hit| {
                goes_on = visit(hit);
                goes_on
            })?;
        }
        let start = self.planned.partition_point(|planned| planned.hit.id.time < from);
        if goes_on && start < self.count {
            self.planned.range(start..self.count).all(|planned| visit(planned.hit));
        }
        Ok(())
    }

    fn window_start(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        // The log may remember where windows start, but only as far as they have come.
        if self.count == 0 { self.log.window_start(from) } else { self.seek(from) }
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiters: VecDeque::new(),
            waiting: 0,
            planned: VecDeque::new(),
            is_planned: true,
            planned_at: 0,
            seen: None,
            expected: None,
            has_missed: false,
            counted: None,
        }
    }
}

impl<T> Line<T> {
    /// The turn of a client in the line, or of one that joins now. Finds all turns anew if they may be wrong.
    fn turn(&mut self, log: &mut impl Store, id: u64, call: &Call, clock: u64) -> Result<Turn, Error> {
        self.has_missed |= !self.look(log)?;
        if !self.is_planned {
            let most = (self.waiting as u64).checked_div(REPLANNED).unwrap_or(0);
            // A clock that was set back must not stop it.
            let may_plan = clock >= self.planned_at.saturating_add(most) || clock < self.planned_at;
            if !may_plan {
                let is_possible = Usage::new(call, clock, Id::default()).ever_has_room();
                return Ok(if is_possible { Turn::Unknown } else { Turn::Never });
            }
            self.plan(log, clock);
        }
        let ahead = self.planned.partition_point(|planned| planned.id < id);
        self.turn_after(ahead, log, call, clock)
    }

    /// Sees whether the log is as it was.
    fn look(&mut self, log: &mut impl Store) -> Result<bool, Error> {
        let newest = log.newest_id()?;
        let seen = Some((newest, log.length()));
        let is_same = match self.expected.take() {
            Some(expected) => newest == Some(expected),
            None => seen == self.seen,
        };
        self.is_planned &= is_same || self.waiting == 0;
        self.seen = seen;
        self.counted = if self.counted.is_some() || self.planned.is_empty() { newest } else { None };
        Ok(is_same)
    }

    /// Finds all turns.
    fn plan(&mut self, log: &mut impl Store, clock: u64) {
        self.planned_at = clock;
        self.planned.clear();
        self.counted = self.seen.and_then(|(newest, _)| newest);
        for at in 0..self.waiters.len() {
            let Some(Waiter { id, deadline, held: Some(held) }) = self.waiters.get(at) else { continue };
            let (id, deadline, call) = (*id, *deadline, held.call);
            // Whoever will get an error is not ahead of anybody. An error of the log itself is that of the caller as well.
            if let Ok(Turn::At { time, hit }) = self.turn_after(self.planned.len(), log, &call, clock) {
                self.planned.push_back(match time <= deadline {
                    true => Planned { id, time, hit },
                    false => self.gap(id, deadline.saturating_add(1).max(clock), hit),
                });
            }
        }
        self.is_planned = true;
    }

    /// Stands for a client that will have given up by a time, before its hit would be admitted. Until then nobody passes it.
    fn gap(&self, id: u64, time: u64, hit: Hit) -> Planned {
        let before = self.planned.back().map_or((0, 0), |last| (last.time, last.hit.id.time));
        let (time, stamp) = (time.max(before.0), time.max(before.1));
        let tally = hit.id.tally.wrapping_sub(hit.cost);
        Planned { id, time, hit: Hit { id: Id { time: stamp, tally }, cost: 0 } }
    }

    /// The turn after so many that are known.
    fn turn_after(&mut self, count: usize, log: &mut impl Store, call: &Call, clock: u64) -> Result<Turn, Error> {
        let mut ahead = Ahead { log, planned: &self.planned, count, counted: self.counted };
        let earliest = ahead.last().map_or(clock, |last| last.time.max(clock));
        let mut usage = Usage::new(call, clock, Id::default());
        usage.read(&mut ahead)?;
        let tally = usage.newest.map_or(0, |newest| newest.hit.id.tally).wrapping_add(call.cost);
        let (time, stamp) = if usage.has_room() {
            (earliest, usage.now)
        } else {
            match usage.answer(&mut ahead, false, None)?.0.retry_after {
                Some(wait) => (clock.saturating_add(wait), clock.saturating_add(wait)),
                None => return Ok(Turn::Never),
            }
        };
        if count == 0 && usage.is_stale {
            self.counted = None;
        }
        let hit = Hit { id: Id { time: stamp, tally }, cost: call.cost };
        Ok(Turn::At { time: time.max(earliest), hit })
    }

    fn join(&mut self, id: u64, deadline: u64, turn: Turn, held: Held<T>) {
        self.waiters.push_back(Waiter { id, deadline, held: Some(Box::new(held)) });
        self.waiting = self.waiting.saturating_add(1);
        match turn {
            Turn::At { time, hit } if self.is_planned => {
                self.planned.push_back(Planned { id, time, hit });
            }
            _ => self.is_planned = false,
        }
    }

    /// Takes a client out of the line.
    fn leave(&mut self, id: u64) -> Option<Box<Held<T>>> {
        let at = self.waiters.binary_search_by_key(&id, |waiter| waiter.id).ok()?;
        let held = self.waiters.get_mut(at)?.held.take()?;
        self.waiting = self.waiting.saturating_sub(1);
        self.is_planned = false;
        while self.waiters.front().is_some_and(|waiter| waiter.held.is_none()) {
            self.waiters.pop_front();
        }
        // As many as have left may stay behind in the line.
        if self.waiters.len() > self.waiting.saturating_mul(2) {
            self.waiters.retain(|waiter| waiter.held.is_some());
        }
        Some(held)
    }

    /// Takes out the first one, whose hit was admitted.
    fn serve(&mut self, id: u64) -> Option<Box<Held<T>>> {
        let was_planned = self.is_planned;
        let held = self.leave(id)?;
        self.is_planned = match self.planned.front() {
            Some(planned) if was_planned && planned.id == id => {
                self.expected = Some(planned.hit.id);
                self.planned.pop_front();
                true
            }
            _ => false,
        };
        Some(held)
    }

    fn waiter(&self, id: u64) -> Option<&Waiter<T>> {
        let at = self.waiters.binary_search_by_key(&id, |waiter| waiter.id).ok()?;
        self.waiters.get(at)
    }

    fn held(&self, id: u64) -> Option<&Held<T>> {
        self.waiter(id)?.held.as_deref()
    }

    fn deadline(&self, id: u64) -> Option<u64> {
        self.waiter(id).map(|waiter| waiter.deadline)
    }

    fn first(&self) -> Option<(u64, &Held<T>)> {
        self.waiters.iter().find_map(|waiter| Some((waiter.id, waiter.held.as_deref()?)))
    }
}

/// A line, and the key for which it waits.
struct Place<T> {
    database: i32,
    name: Box<[u8]>,
    line: Line<T>,
    /// When there will be room for the first one, if nothing else happens.
    turn: u64,
    /// When it is looked at next, which is no later.
    next: u64,
}

/// All lines. `T` is what the caller needs to know of a client.
pub struct Lines<T> {
    numbers: BTreeMap<i32, BTreeMap<Box<[u8]>, u64>>,
    places: BTreeMap<u64, Place<T>>,
    /// In which line a client is.
    places_of: BTreeMap<u64, u64>,
    /// When each line is looked at next.
    due: BTreeSet<(u64, u64)>,
    /// When each client gives up.
    deadlines: BTreeSet<(u64, u64)>,
    last_number: u64,
    last_id: u64,
    /// Most clients that may wait.
    pub most: usize,
}

/// The first client of a line.
pub struct First<'a, T> {
    pub number: u64,
    pub id: u64,
    pub database: i32,
    /// There should be room for it, or something has happened.
    pub is_turn: bool,
    pub held: &'a Held<T>,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Lines<T> {
    pub const fn new() -> Self {
        Self {
            numbers: BTreeMap::new(),
            places: BTreeMap::new(),
            places_of: BTreeMap::new(),
            due: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            last_number: 0,
            last_id: 0,
            most: DEFAULT_WAITERS as usize,
        }
    }

    /// How many clients wait.
    pub fn waiting(&self) -> usize {
        self.places_of.len()
    }

    fn number(&self, database: i32, name: &[u8]) -> Option<u64> {
        self.numbers.get(&database)?.get(name).copied()
    }

    /// When a hit of a client that asks now would be admitted; whether anybody waits for its key.
    pub fn turn(
        &mut self,
        database: i32,
        name: &[u8],
        log: &mut impl Store,
        call: &Call,
        clock: u64,
    ) -> Result<(Turn, bool), Error> {
        let number = self.number(database, name);
        match number.and_then(|number| self.places.get_mut(&number)) {
            Some(place) => Ok((place.line.turn(log, u64::MAX, call, clock)?, true)),
            None => Ok((Line::<T>::default().turn(log, u64::MAX, call, clock)?, false)),
        }
    }

    /// The turn of a client that waits.
    pub fn turn_of(&mut self, id: u64, log: &mut impl Store, clock: u64) -> Result<Turn, Error> {
        let place = self.places_of.get(&id).and_then(|number| self.places.get_mut(number));
        let Some(line) = place.map(|place| &mut place.line) else { return Ok(Turn::Unknown) };
        let Some(call) = line.held(id).map(|held| held.call) else { return Ok(Turn::Unknown) };
        line.turn(log, id, &call, clock)
    }

    /// Whether one more may wait.
    pub fn has_place(&self) -> bool {
        self.waiting() < self.most
    }

    /// The number of the client that joins next.
    pub fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    /// A client joins the line of a key. Its turn was found a moment ago, in the same command.
    pub fn join(&mut self, database: i32, name: &[u8], id: u64, clock: u64, turn: Turn, held: Held<T>) {
        let deadline = clock.saturating_add(held.call.wait);
        let number = self.number(database, name).unwrap_or_else(|| {
            self.last_number = self.last_number.saturating_add(1);
            self.numbers.entry(database).or_default().insert(name.into(), self.last_number);
            self.last_number
        });
        let place = self.places.entry(number).or_insert_with(|| {
            let turn = turn.time().unwrap_or(clock);
            let next = turn.min(clock.saturating_add(LOOK_AFTER));
            self.due.insert((next, number));
            Place { database, name: name.into(), line: Line::default(), turn, next }
        });
        place.line.join(id, deadline, turn, held);
        self.places_of.insert(id, number);
        self.deadlines.insert((deadline, id));
    }

    /// A client that is the first of its line.
    pub fn first(&self, id: u64) -> Option<&Held<T>> {
        let (first, held) = self.places.get(self.places_of.get(&id)?)?.line.first()?;
        (first == id).then_some(held)
    }

    /// A client leaves its line. None if it is in none.
    pub fn leave(&mut self, id: u64) -> Option<Box<Held<T>>> {
        self.take(id, false)
    }

    /// A client leaves its line because its hit was admitted.
    pub fn serve(&mut self, id: u64) -> Option<Box<Held<T>>> {
        self.take(id, true)
    }

    fn take(&mut self, id: u64, is_served: bool) -> Option<Box<Held<T>>> {
        let number = self.places_of.remove(&id)?;
        let line = &mut self.places.get_mut(&number)?.line;
        let was_first = line.first().is_some_and(|(first, _)| first == id);
        if let Some(deadline) = line.deadline(id) {
            self.deadlines.remove(&(deadline, id));
        }
        let held = if is_served { line.serve(id) } else { line.leave(id) };
        if line.waiting == 0 {
            self.close(number);
        } else if was_first {
            // The next one may have room.
            self.look_at(number, 0, 0);
        }
        held
    }

    fn close(&mut self, number: u64) {
        let Some(place) = self.places.remove(&number) else { return };
        self.due.remove(&(place.next, number));
        if let Some(names) = self.numbers.get_mut(&place.database) {
            names.remove(&place.name);
            if names.is_empty() {
                self.numbers.remove(&place.database);
            }
        }
    }

    /// The first client of a line that is to be looked at by now; the line that has waited longest comes first.
    pub fn first_due(&self, now: u64) -> Option<First<'_, T>> {
        let &(_, number) = self.due.first().filter(|(at, _)| *at <= now)?;
        let place = self.places.get(&number)?;
        let (id, held) = place.line.first()?;
        Some(First { number, id, database: place.database, is_turn: place.turn <= now, held })
    }

    /// When a line is to be looked at next.
    pub fn next_look(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// When the next client gives up.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The log of a line was opened: sees whether it is as it was.
    pub fn see(&mut self, number: u64, log: &mut impl Store) -> Result<bool, Error> {
        let Some(place) = self.places.get_mut(&number) else { return Ok(false) };
        let has_missed = std::mem::take(&mut place.line.has_missed);
        Ok(place.line.look(log)? && !has_missed)
    }

    /// Nothing has happened: the line is looked at again a little later, or when its turn comes.
    pub fn look_again(&mut self, number: u64, now: u64) {
        if let Some(turn) = self.places.get(&number).map(|place| place.turn) {
            self.look_at(number, now, turn);
        }
    }

    /// There will be room at a moment. The line is looked at again then, or a little later than now if that is far.
    pub fn look_at(&mut self, number: u64, now: u64, at: u64) {
        let Some(place) = self.places.get_mut(&number) else { return };
        self.due.remove(&(place.next, number));
        place.turn = at;
        place.next = at.min(now.saturating_add(LOOK_AFTER));
        self.due.insert((place.next, number));
    }

    /// The line of a key, if there is one, is looked at as soon as possible.
    pub fn wake(&mut self, database: i32, name: &[u8], now: u64) -> bool {
        let Some(number) = self.number(database, name) else { return false };
        self.look_at(number, now, now);
        true
    }

    /// No line is looked at later than it should be, also if the clock was set back.
    pub fn mind_the_clock(&mut self, now: u64) {
        let latest = (now.saturating_add(LOOK_AFTER), u64::MAX);
        let late: Vec<u64> = self.due.range(latest..).map(|(_, number)| *number).collect();
        for number in late {
            self.look_at(number, now, now);
        }
    }
}
