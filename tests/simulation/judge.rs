//! Whether the calls of a history were answered and carried out as the documents promise.
//!
//! What is stored before and after each call is known, so that the oracle can check every value of every reply and every
//! write, whatever others did. No code is shared with the module.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use oracle::{Answer, Hit, Moment, Question, Tier, is_description, is_in_range};

use crate::database::{Hasher, is_same};
use crate::frame::{Frame, Known, Meaning, Part, Row, What, number};
use crate::lines::{self, Asks, Lines};
use crate::retention;
use crate::server::{self, Effect, Reply, Server, words};
use crate::stream::{Id, Text};
use crate::waiting::Event;
use crate::world::Verdict;

pub const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
pub const NOT_A_LOG: &str = "ERR the stream at this key was not written by this module, it is left as it was";
pub const LAST_ID_AHEAD: &str =
    "ERR the last ID of the empty stream at this key is too far in the future, it is left as it was";
pub const APPEND_FAILED: &str = "ERR the server did not accept the log entry";

/// Entries above which a log of which nothing counts is started again.
const LONG: usize = 1_000;

/// Entries that one hit drops at most.
const MOST_DROPPED: usize = 1_000;

/// A log of fewer entries is not looked through when its expiry is set.
const SHORT: usize = 32;

/// Hits after which something of a large backlog must have gone. It is looked for when the tally passes a multiple.
const MOST_HITS: u32 = 100;

/// What a call asks for.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: Name,
    /// For each key.
    groups: Vec<Group>,
    strict: bool,
    force: bool,
    with_tiers: bool,
    /// For how long it may wait.
    wait: Option<u64>,
}

#[derive(Clone, Debug)]
struct Group {
    tiers: Vec<Tier>,
    cost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Hit,
    Peek,
    MultiHit,
}

/// Milliseconds of `500ms`, `1.5s`, `10`, `1h`.
fn span(text: &[u8]) -> Option<u64> {
    let at = text.iter().position(|letter| !letter.is_ascii_digit() && *letter != b'.').unwrap_or(text.len());
    let unit: u64 = match &text[at..] {
        b"ms" => 1,
        b"" | b"s" => 1_000,
        b"m" => 60_000,
        b"h" => 3_600_000,
        b"d" => 86_400_000,
        b"w" => 604_800_000,
        _ => return None,
    };
    let (whole, parts) = match text[..at].iter().position(|letter| *letter == b'.') {
        None => (&text[..at], 0),
        Some(dot) => {
            let fraction = &text[dot + 1..at];
            let scale = 10_u64.checked_pow(fraction.len() as u32)?;
            let parts = number(fraction)?.checked_mul(unit)?;
            if parts % scale != 0 {
                return None;
            }
            (&text[..dot], parts / scale)
        }
    };
    let span = number(whole)?.checked_mul(unit)?.checked_add(parts)?;
    (1..=3_650 * 86_400_000).contains(&span).then_some(span)
}

impl Call {
    /// The call in these words, if they are one.
    pub fn parse(argv: &[Text], name: &server::Name) -> Option<Self> {
        let (name, keys, from) = match name.bytes() {
            b"RATELIMIT.HIT" => (Name::Hit, 1, 2),
            b"RATELIMIT.PEEK" => (Name::Peek, 1, 2),
            b"RATELIMIT.MHIT" => {
                let keys = number(argv.get(1)?)? as usize;
                let names = argv.get(2..2_usize.checked_add(keys)?)?;
                let repeats =
                    names.iter().enumerate().any(|(at, name)| names[..at].iter().any(|one| is_same(one, name)));
                if !(1..=1_024).contains(&keys) || repeats {
                    return None;
                }
                (Name::MultiHit, keys, 2 + keys)
            }
            _ => return None,
        };
        let mut call = Self { name, groups: Vec::new(), strict: false, force: false, with_tiers: false, wait: None };
        let mut group = Group { tiers: Vec::with_capacity(argv.len() / 2), cost: 1 };
        let (mut at, mut has_cost, mut is_over) = (from, false, false);
        while at < argv.len() {
            let one = &argv[at];
            let is = |word: &[u8]| one.eq_ignore_ascii_case(word);
            let is_option = !group.tiers.is_empty() && !one.first().is_some_and(u8::is_ascii_digit);
            let many = name == Name::MultiHit;
            let charges = name != Name::Peek && !call.strict && !call.force && call.wait.is_none();
            if is_option && is(b"COST") && !has_cost && !is_over {
                let least = u64::from(name != Name::Peek);
                group.cost = number(argv.get(at + 1)?).filter(|cost| (least..1 << 53).contains(cost))?;
                has_cost = true;
                at += 2;
                continue;
            } else if is_option && is(b"AND") && many && !is_over {
                call.groups.push(std::mem::replace(&mut group, Group { tiers: Vec::new(), cost: 1 }));
                has_cost = false;
            } else if is_option && is(b"STRICT") && charges {
                (call.strict, is_over) = (true, many);
            } else if is_option && is(b"FORCE") && charges {
                (call.force, is_over) = (true, many);
            } else if is_option && is(b"WAIT") && charges && !many {
                call.wait = Some(span(argv.get(at + 1)?)?);
                at += 1;
            } else if is_option && is(b"WITHTIERS") && !call.with_tiers {
                (call.with_tiers, is_over) = (true, many);
            } else if is_over {
                return None;
            } else {
                group.tiers.push((number(one).filter(|limit| *limit < 1 << 53)?, span(argv.get(at + 1)?)?));
                at += 2;
                continue;
            }
            at += 1;
        }
        call.groups.push(group);
        let fits = call.groups.iter().all(|group| (1..=8).contains(&group.tiers.len()));
        (fits && call.groups.len() == keys).then_some(call)
    }

    /// The tiers of the key at this position.
    fn tiers_of(&self, n: usize) -> &[Tier] {
        &self.groups[n].tiers
    }

    fn cost_of(&self, n: usize) -> u64 {
        self.groups[n].cost
    }

    fn question(&self, n: usize) -> Question<'_> {
        let Group { tiers, cost } = &self.groups[n];
        Question { tiers, cost: *cost, strict: self.strict, force: self.force }
    }

    fn longest(&self, n: usize) -> u64 {
        self.tiers_of(n).iter().map(|tier| tier.1).max().unwrap_or(0)
    }
}

/// A log as the oracle takes it.
#[derive(Debug, Default, PartialEq)]
struct Log {
    hits: Vec<Hit>,
    newest: Option<(Id, Meaning)>,
    /// The last ID, where a hit goes by it: it is known of an empty stream, and otherwise once an ID was not taken.
    last: Id,
    /// Where the running total of a new log begins.
    first_tally: u64,
    /// It was stamped by a clock that is no longer in use: nothing counts, and it is removed.
    is_stale: bool,
    /// Foreign entries below the top, or tallies that no module wrote: any answer in range will do.
    is_wild: bool,
}

impl Log {
    /// `longest` is the longest window of the call.
    fn of(known: &Known, now: u64, longest: u64) -> Result<Self, &'static str> {
        if known.what == What::Other {
            return Err(WRONG_TYPE);
        }
        let Some((newest, rest)) = known.rows().split_last() else {
            let last = known.last();
            return if last.ms > now + longest { Err(LAST_ID_AHEAD) } else { Ok(Self { last, ..Self::default() }) };
        };
        let meaning = newest.meaning.ok_or(NOT_A_LOG)?;
        if newest.id.ms > now + meaning.keep {
            return Ok(Self { is_stale: true, ..Self::default() });
        }
        let mut log = Self { newest: Some((newest.id, meaning)), ..Self::default() };
        log.hits.reserve(known.rows().len());
        log.hits.push((newest.id.ms, meaning.cost));
        let mut next = (newest.id, meaning.cost);
        for row in rest.iter().rev() {
            let Some(Meaning { cost, .. }) = row.meaning else {
                log.is_wild = true;
                break;
            };
            // Whatever was deleted between two entries counts until the earlier one leaves.
            let missing = next.0.seq.wrapping_sub(row.id.seq).wrapping_sub(next.1);
            log.is_wild |= missing > 1 << 56;
            log.hits.push((row.id.ms, cost.saturating_add(missing)));
            next = (row.id, cost);
        }
        log.hits.reverse();
        Ok(log)
    }

    /// As those who wait see it.
    fn for_line(&self, now: u64) -> lines::Log<'_> {
        let is_ahead = self.last.ms > now || self.newest.is_some_and(|(id, _)| id.ms > now);
        lines::Log { hits: &self.hits, is_exact: !self.is_wild && !self.is_stale && !is_ahead }
    }

    fn keep(&self) -> u64 {
        self.newest.map_or(0, |newest| newest.1.keep)
    }

    /// The ID that the next hit gets, and the moment of it.
    fn next_id(&self, clock: u64, cost: u64) -> (Id, Moment) {
        let newest = self.newest.map_or(Id::default(), |newest| newest.0);
        let now = clock.max(newest.ms).max(self.last.ms);
        let tally = if self.newest.is_some() { newest.seq } else { self.first_tally };
        let mut id = Id { ms: now, seq: tally.wrapping_add(cost) };
        let is_taken = match self.newest {
            Some(_) => id <= newest.max(self.last),
            None => self.last != Id::default() && self.last.ms == now,
        };
        id.ms += u64::from(is_taken);
        (id, Moment { clock, now, stamp: id.ms })
    }
}

/// Where a log begins to count that consists of one hit now.
fn first_tally_of(after: &Known, cost: u64) -> u64 {
    after.last().seq.wrapping_sub(cost)
}

/// One key of a call: what was there before and after it, and what was answered.
#[derive(Clone, Copy)]
struct One<'a> {
    call: &'a Call,
    /// The position of the key in the call.
    n: usize,
    before: &'a Known,
    after: &'a Known,
    /// Six integers, or six for each tier.
    answers: &'a [[i64; 6]],
    allowed: bool,
    is_stored: bool,
    /// The key was removed first.
    restarts: bool,
    /// Until when a refusal keeps the key alive.
    until: Option<u64>,
    /// Nothing may be written.
    is_paused: bool,
}

impl One<'_> {
    /// The ID of the hit and the answer, which are others than at first sight where the server refuses the ID or a refusal
    /// that counts has dropped entries.
    fn expected(&self, log: &mut Log, now: u64, mut id: Id, mut expected: Answer) -> (Id, Answer) {
        let Self { call, n, before, after, allowed, is_stored, .. } = *self;
        let cost = call.cost_of(n);
        // The server refuses an ID that is not above the last one. Then the log goes by the last one, or is started again
        // where that is further ahead than the log is kept.
        let dead_at = log.newest.map_or(u64::MAX, |(id, one)| id.ms.saturating_add(one.keep.max(call.longest(n))));
        // A long log of which nothing counts is removed first, last ID and all.
        let is_removed = before.rows().len() > LONG && dead_at <= now;
        let is_pushed =
            !is_removed && !log.is_stale && matches!(before.what, What::Stream { .. }) && id <= before.last();
        if is_pushed && is_stored && !log.is_wild {
            match before.last().ms > now + log.keep() {
                true => *log = Log { is_stale: true, first_tally: first_tally_of(after, cost), ..Log::default() },
                false => log.last = before.last(),
            }
            let next = log.next_id(now, cost);
            id = next.0;
            expected = ask(&mut log.hits, next.1, &call.question(n), allowed);
        }
        let is_spared = call.strict && wait_of(&expected.tiers) == Some(0);
        if is_stored && !is_spared && !allowed && !log.is_wild {
            // The reply describes the log after the call, which has dropped what no longer decides anything. The hit itself
            // is the last that leaves any tier.
            let oldest = after.rows().first().map_or(0, |row| row.id.ms as i64);
            for row in &mut expected.tiers {
                let window = row[4] + now as i64 - id.ms as i64;
                row[5] = row[5].max(oldest + window - now as i64);
            }
        }
        (id, expected)
    }

    /// Whether the reply is this one.
    fn is_answered(&self, expected: &Answer) -> bool {
        if self.call.with_tiers { self.answers == expected.tiers } else { self.answers == [expected.six()] }
    }

    /// Whether a call that stores nothing has written nothing, but what keeps the key alive.
    fn is_left_alone(&self, log: &Log, moment: Moment) -> Verdict {
        let Self { call, n, before, after, until, is_paused, .. } = *self;
        if call.name == Name::Peek || is_paused {
            return if before == after {
                Ok(())
            } else {
                Err("PEEK wrote, or a call while nothing may be written".into())
            };
        }
        if before.what != after.what {
            return Err("a refused hit wrote".into());
        }
        let newest = log.newest.map(|newest| newest.1);
        let expires = u64::try_from(before.expires).ok();
        let due = newest.and_then(|newest| retention::refused(newest, expires, moment.now, call.longest(n), until));
        let due = due.map_or(before.expires, |due| due as i64);
        if log.is_wild || after.expires == due { Ok(()) } else { Err(format!("the key must expire at {due}")) }
    }

    /// Whether a hit was stored as it must be, and nothing else was lost. True if the log begins with it.
    fn is_kept(&self, id: Id, log: &Log) -> Verdict<Kept> {
        let Self { call, n, before, after, allowed, restarts, .. } = *self;
        let Some((newest, rest)) = after.rows().split_last() else { return Err("nothing is stored".into()) };
        let Some(Meaning { keep, fallback, cost }) = newest.meaning else {
            return Err("a foreign entry is stored".into());
        };
        let longest = call.longest(n);
        if !log.is_wild && newest.id != id || cost != call.cost_of(n) || after.last() != newest.id {
            return Err(format!("not stored as {id:?}"));
        }
        let stamp = newest.id.ms;
        if keep < longest || after.expires < (stamp + keep) as i64 {
            return Err("it is not kept for long enough".into());
        }
        let expires = u64::try_from(before.expires).ok().filter(|_| !restarts);
        let due = retention::stored(log.newest.map(|newest| newest.1), expires, stamp, longest);
        let due_at = due.expires.map_or(before.expires, |at| at as i64);
        if !log.is_wild && ((keep, fallback) != (due.longest, due.fallback) || after.expires != due_at) {
            return Err(format!("it must be kept as {due:?} says"));
        }
        let is_first = log.is_stale || rest.is_empty() && (log.newest.is_none() || log.is_wild && restarts);
        if restarts && !log.is_stale && !log.is_wild {
            let counts =
                |row: &Row| log.newest.is_some_and(|(_, one)| row.id.ms + one.keep.max(longest) > newest.id.ms);
            if before.rows().len() <= LONG || before.rows().last().is_none_or(counts) {
                return Err("a log was started again that is not both long and dead".into());
            }
        }
        if log.is_stale && !rest.is_empty() {
            return Err("it was not started again".into());
        }
        if is_first {
            return Ok(Kept::First);
        }
        let (dropped, kept) = before.rows().split_at(before.rows().len().saturating_sub(rest.len()));
        let most = call.tiers_of(n).iter().map(|tier| tier.0).max().unwrap_or(0);
        let surplus = call.strict && !allowed && rest.len() as u64 + 1 >= most;
        let heavy = call.cost_of(n) > 1 << 32;
        if kept != rest || dropped.iter().any(|row| row.id.ms + keep > newest.id.ms && !surplus && !heavy) {
            return Err("entries that count were dropped".into());
        }
        // Calls on a key with STRICT should name the same limits, and do not here.
        Ok(if surplus && !dropped.is_empty() { Kept::WithoutSurplus } else { Kept::Added })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    First,
    Added,
    WithoutSurplus,
}

/// A key that is refused, as TOP counts it.
#[derive(Clone, Debug)]
struct Refused {
    count: u64,
    last: u64,
    halved_at: u64,
    /// Once a count has come down to nothing, another key may have taken its place, and its minutes begin anew.
    is_sure: bool,
}

impl Refused {
    fn decay(&mut self, now: u64) {
        let minutes = now.saturating_sub(self.halved_at) / 60_000;
        self.count = if minutes < 64 { self.count >> minutes } else { 0 };
        self.is_sure &= self.count > 0;
        self.halved_at += minutes * 60_000;
    }
}

/// The names of `INFO ratelimit`, in this order.
const COUNTERS: [&str; 7] = [
    "hits_admitted",
    "hits_refused",
    "units_admitted",
    "units_refunded",
    "keys_reset",
    "foreign_stream_errors",
    "clock_steps",
];

/// The names that follow.
const WAITING: [&str; 4] = ["waits_admitted", "waits_timed_out", "waits_disconnected", "clients_waiting"];

/// What is remembered of keys. The order of the map is not looked at.
type Keys<T> = HashMap<(usize, Text), T, BuildHasherDefault<Hasher>>;

#[derive(Default)]
pub struct Judge {
    /// Admitted hits of keys all of whose calls name the longest window, since anybody else touched them.
    admitted: Keys<Vec<Hit>>,
    /// The longest window; no key is single-minded if it is 0.
    longest: u64,
    /// How often in a row a hit on a key has dropped nothing of a large backlog.
    stuck: Keys<u32>,
    counted: [u64; 7],
    /// Steps of the clock that are not counted any more.
    clock_steps: u64,
    refused: Keys<Refused>,
    /// Whether the table of TOP has room for every key.
    top_is_exact: bool,
    /// The most entries of a node; 0 for any number.
    most_entries: usize,
    /// Where logs began to count, each with the table of cursors.
    first_tallies: HashSet<(u64, u64), BuildHasherDefault<Hasher>>,
    /// Somebody has written entries whose tallies do not fit their costs. Once what was before such an entry has gone, nothing
    /// shows that it weighs another number of units by its tally than it says.
    has_seen_wild: bool,
    /// Who waits for what.
    pub lines: Lines,
    pub calls: u64,
}

/// Keys whose names begin with this are called with the longest window alone.
const SINGLE_MINDED: u8 = b's';

impl Judge {
    pub fn new(longest: u64, top_is_exact: bool, most_entries: usize) -> Self {
        Self { longest, top_is_exact, most_entries, ..Self::default() }
    }

    /// Others have touched the key.
    pub fn forget(&mut self, database: usize, key: &Text) {
        if self.admitted.is_empty() {
            return;
        }
        self.admitted.remove(&(database, key.clone()));
    }

    pub fn forget_all(&mut self) {
        self.admitted.clear();
    }

    /// The counters belong to another server now.
    pub fn start_counting(&mut self) {
        self.counted = [0; 7];
        self.lines.counted = [0; 3];
        self.clock_steps = 0;
        self.refused.clear();
    }

    /// The next such error is another server's.
    pub fn uncount_foreign(&mut self) {
        self.counted[5] = self.counted[5].wrapping_sub(1);
    }

    pub fn judge(&mut self, frame: &Frame) -> Verdict {
        self.calls += 1;
        self.try_judge(frame).map_err(|error| {
            let told: Vec<String> = frame.effects.iter().map(|effect| words(&effect.argv)).collect();
            format!(
                "{error}\n{} in database {} at {}, by the server's clock {:?}\nreply {:?}\nbefore {:?}\nafter {:?}\nevents {:?}, told {:?}",
                words(&frame.argv),
                frame.database,
                frame.began,
                frame.clock,
                frame.reply,
                frame.before,
                frame.after,
                frame.events,
                told
            )
        })
    }

    fn try_judge(&mut self, frame: &Frame) -> Verdict {
        let after = frame.after.as_deref().unwrap_or_default();
        if is_error(&frame.reply, NOT_A_LOG) {
            self.counted[5] = self.counted[5].wrapping_add(1);
        }
        if let Reply::Error(text) = &frame.reply {
            let is_end = matches!(frame.part, Part::Ends { .. }) && frame.has_called;
            let is_known = text.starts_with("ERR ") || text.starts_with("WRONGTYPE ") || is_end;
            if !is_known || text.contains("internal error") && !frame.has_failed {
                return Err("an error that nobody should see".into());
            }
        }
        let call = Call::parse(&frame.argv, &frame.name);
        match frame.name.bytes() {
            b"RATELIMIT.RESET" => self.reset(frame, after)?,
            b"RATELIMIT.REFUND" => self.refund(frame, after)?,
            b"RATELIMIT.TOP" => self.top(frame)?,
            b"RATELIMIT.RESETSTAT" => {
                if frame.reply != Reply::ok() {
                    return Err("not OK".into());
                }
                self.start_counting();
                self.clock_steps = frame.clock_steps;
            }
            _ => match &call {
                Some(call) => match frame.part {
                    Part::Joins(number) => self.joins(number, frame, call, after)?,
                    Part::Ends { number, .. } if self.lines.has_reply(number) => {
                        return self.lines.ends_with(number, &frame.reply);
                    }
                    Part::Called => {
                        self.call(frame, call, after)?;
                        self.called(frame, call)?;
                    }
                    _ => self.call(frame, call, after)?,
                },
                None => {
                    let is_error = matches!(&frame.reply, Reply::Error(text) if text.starts_with("ERR "));
                    if !is_error || !frame.is_disturbed && frame.before != after || !frame.effects.is_empty() {
                        return Err("a broken call is not an error that changes nothing".into());
                    }
                }
            },
        }
        events_fit(frame, call.as_ref(), after)
    }

    fn joins(&mut self, number: u64, frame: &Frame, call: &Call, after: &[Known]) -> Verdict {
        let Some(wait) = call.wait else { return Err("a call without WAIT waits".into()) };
        if !frame.may_block {
            return Err("a call waits that may not".into());
        }
        let now = frame.clock.unwrap_or(frame.began);
        let mut log = match Log::of(&frame.before[0], now as u64, call.longest(0)) {
            // The line goes by the hits of those ahead.
            Err(LAST_ID_AHEAD) if self.lines.is_line(frame) => Log { is_wild: true, ..Log::default() },
            log => log.map_err(|error| format!("not {error}"))?,
        };
        // The key is kept alive as by a refusal.
        let moment = log.next_id(now as u64, call.cost_of(0)).1;
        let answer = ask(&mut log.hits, moment, &call.question(0), false);
        let until = wait_of(&answer.tiers).filter(|wait| *wait > 0).map(|wait| moment.clock + wait);
        let (before, after) = (&frame.before[0], &after[0]);
        let (allowed, is_stored, restarts, is_paused) = (false, false, false, false);
        let one = One { call, n: 0, before, after, answers: &[], allowed, is_stored, restarts, until, is_paused };
        if !frame.is_disturbed && !frame.has_failed {
            one.is_left_alone(&log, moment)?;
        }
        let asks = Asks { tiers: call.tiers_of(0), cost: call.cost_of(0), wait };
        self.lines.joins(number, frame, &asks, &log.for_line(now as u64), now)
    }

    /// The module has called a hit for somebody who waits.
    fn called(&mut self, frame: &Frame, call: &Call) -> Verdict {
        let question = call.question(0);
        let log = Log::of(&frame.before[0], frame.began as u64, call.longest(0));
        self.lines.called(frame, |at| {
            let exact = log.as_ref().ok().map(|log| log.for_line(at as u64 + 1)).filter(|log| log.is_exact);
            exact.is_some_and(|log| oracle::has_room(log.hits, at as u64, &question))
        })
    }

    /// What has happened to somebody who waits.
    pub fn event(&mut self, event: &Event, server: &Server) -> Verdict {
        self.lines.event(event, server).map_err(|error| format!("{error}\n{event:?}"))
    }

    /// After a step.
    pub fn look_at_lines(&mut self, server: &Server, at_once: bool, reset: Option<(usize, &[Text])>) -> Verdict {
        let now = server.now as u64;
        self.lines.look(server, at_once, reset, |known, tiers, cost| {
            let longest = tiers.iter().map(|tier| tier.1).max().unwrap_or(0);
            let log = Log::of(known, now, longest).ok()?;
            let log = log.for_line(now);
            let question = Question { tiers, cost, ..Question::default() };
            log.is_exact.then(|| oracle::has_room(log.hits, now, &question))
        })
    }

    fn call(&mut self, frame: &Frame, call: &Call, after: &[Known]) -> Verdict {
        if let (Part::Ends { number, .. }, Reply::Error(_)) = (frame.part, &frame.reply) {
            self.lines.times_out(number, frame.began)?;
        }
        let Some(now) = frame.clock.map(|now| now as u64) else {
            // It must have looked at a key before it needs to know the time.
            let is_error = matches!(frame.reply, Reply::Error(_));
            return if is_error {
                self.error(frame, call, after, frame.began as u64)
            } else {
                Err("it has not looked at the clock".into())
            };
        };
        if frame.knows_beginning && now as i64 != frame.began {
            return Err("it goes by another time than that at which the command began".into());
        }
        if let Reply::Error(_) = frame.reply {
            return self.error(frame, call, after, now);
        }
        let answers = answers_of(&frame.reply, call)?;
        let allowed = answers[0][0][0] == 1;
        let verdicts = || answers.iter().flatten().map(|answer| answer[0]);
        if answers.len() != frame.keys().len() || verdicts().any(|verdict| verdict != i64::from(allowed)) {
            return Err("not one verdict for each key".into());
        }
        self.count(frame, call, &answers, now);
        let longest_known =
            |n: usize| frame.before[n].rows().last().and_then(|row| row.meaning).map_or(0, |one| one.keep);
        for (n, answers) in answers.iter().enumerate() {
            let longest = match call.wait {
                None => 2 * call.longest(n).max(longest_known(n)) + 1,
                // Behind any number of others.
                Some(_) => i64::MAX as u64,
            };
            let is_alone = call.name != Name::MultiHit && !call.with_tiers;
            let most = if frame.is_disturbed { oracle::LONGEST_WAIT } else { longest as i64 };
            let is_fine = |answer: &[i64; 6]| match call.cost_of(n) {
                0 => is_description(*answer, most),
                _ => is_in_range(*answer, most, is_alone),
            };
            if !answers.iter().all(is_fine) {
                return Err(format!("{answers:?} is out of range, or a wait longer than two windows"));
            }
        }
        if frame.is_disturbed || frame.has_failed {
            frame.keys().iter().for_each(|key| self.forget(frame.database, key));
            if let Part::Ends { number, .. } = frame.part {
                self.lines.times_out(number, now as i64)?;
            }
            return Ok(());
        }
        let logs = frame.before.iter().enumerate().map(|(n, known)| Log::of(known, now, call.longest(n)));
        let mut logs = logs.collect::<Result<Vec<_>, _>>().map_err(|expected| format!("not {expected}"))?;
        let is_wild = logs.iter().any(|log| log.is_wild);
        self.has_seen_wild |= is_wild;
        for (n, log) in logs.iter_mut().enumerate().filter(|(_, log)| log.newest.is_none()) {
            log.first_tally = first_tally_of(&after[n], call.cost_of(n));
        }
        let moments: Vec<(Id, Moment)> =
            logs.iter().enumerate().map(|(n, log)| log.next_id(now, call.cost_of(n))).collect();
        let mut expected = expected_of(call, &mut logs, &moments);
        let mut least = None;
        if let Some(wait) = call.wait {
            let asks = Asks { tiers: call.tiers_of(0), cost: call.cost_of(0), wait };
            if allowed {
                self.lines.passes(frame)?;
            } else {
                expected = vec![ask(&mut logs[0].hits, moments[0].1, &call.question(0), false)];
                least = self.lines.refused(frame, &asks, &logs[0].for_line(now), now as i64)?;
            }
        }
        for (n, log) in logs.iter_mut().enumerate() {
            let restarts =
                frame.effects.iter().any(|told| *told.argv[0] == b"UNLINK"[..] && is_at(told, &frame.keys()[n]));
            let (before, after) = (&frame.before[n], &after[n]);
            let is_possible = call.tiers_of(n).iter().all(|(limit, _)| call.cost_of(n) <= *limit);
            let refuses = wait_of(if is_wild { &answers[n] } else { &expected[n].tiers }) != Some(0);
            let is_stored = call.name != Name::Peek && (allowed || call.force || call.strict && refuses && is_possible);
            let is_refused_in_line = call.wait.is_some() && !allowed;
            // What is told of the line keeps nothing alive.
            let wait = if is_refused_in_line { wait_of(&expected[n].tiers) } else { wait_of(&answers[n]) };
            let until = wait.filter(|wait| *wait > 0).map(|wait| moments[n].1.clock + wait);
            let is_paused = frame.is_paused;
            let one =
                One { call, n, before, after, answers: &answers[n], allowed, is_stored, restarts, until, is_paused };
            let (id, mut expected) = one.expected(log, now, moments[n].0, expected[n].clone());
            if is_refused_in_line {
                let told =
                    answers[n].iter().map(|answer| answer[3]).filter(|wait| *wait >= 0).min().unwrap_or(1).max(1);
                expected
                    .tiers
                    .iter_mut()
                    .filter(|row| row[3] >= 0)
                    .for_each(|row| row[3] = row[3].max(least.unwrap_or(told)));
            }
            if !is_wild && !one.is_answered(&expected) {
                if self.has_seen_wild
                    && (is_refused_in_line || one.is_answered(&as_if_it_weighed_one(log, &one, moments[n].1)))
                {
                    self.forget(frame.database, &frame.keys()[n]);
                    continue;
                }
                return Err(format!("the answer {:?} is not {expected:?}", one.answers));
            }
            // A last ID ahead is found out when the verdict stands. By the time of that ID the key may have room, and then a
            // strict call stores nothing there. (If the entries are foreign, MHIT cannot go back either.)
            let is_spared =
                is_stored && call.strict && !allowed && wait_of(&answers[n]) == Some(0) && before.what == after.what;
            let is_lost = call.name == Name::MultiHit && log.is_wild && id <= before.last() && before == after;
            if is_stored && is_lost || is_spared {
                self.forget(frame.database, &frame.keys()[n]);
            } else if is_stored {
                let kept = one.is_kept(id, log)?;
                if kept == Kept::First && !log.is_wild {
                    self.is_new(frame, log.first_tally)?;
                }
                self.drops(frame, &one, log, kept)?;
                match log.is_wild {
                    true => self.forget(frame.database, &frame.keys()[n]),
                    false => self.admit(frame, &one, kept)?,
                }
            } else {
                one.is_left_alone(log, moments[n].1)?;
            }
        }
        Ok(())
    }

    /// No other log began to count at this number.
    fn is_new(&mut self, frame: &Frame, first_tally: u64) -> Verdict {
        let is_fit = first_tally % 1_000_000 == 0 && first_tally < 1 << 53;
        match is_fit && self.first_tallies.insert((frame.tables, first_tally)) {
            true => Ok(()),
            false => Err(format!("a log begins to count at {first_tally}")),
        }
    }

    fn error(&self, frame: &Frame, call: &Call, after: &[Known], now: u64) -> Verdict {
        let Reply::Error(error) = &frame.reply else { return Ok(()) };
        if frame.is_disturbed || frame.has_failed {
            return Ok(());
        }
        let may_fail = |(n, known): (usize, &Known)| match Log::of(known, now, call.longest(n)) {
            Err(expected) => expected == error,
            Ok(log) => log.is_wild && error == NOT_A_LOG,
        };
        let is_expected = frame.before.iter().enumerate().any(may_fail);
        if !is_expected || frame.before != after || !frame.effects.is_empty() {
            return Err("an error without a reason, or one that wrote".into());
        }
        Ok(())
    }

    fn count(&mut self, frame: &Frame, call: &Call, answers: &[Vec<[i64; 6]>], now: u64) {
        if call.name == Name::Peek {
            return;
        }
        for (n, (answers, key)) in answers.iter().zip(frame.keys()).enumerate() {
            let allowed = answers[0][0];
            let refuses = allowed == 0 && wait_of(answers) != Some(0);
            self.counted[0] += allowed as u64;
            self.counted[1] += u64::from(refuses);
            self.counted[2] += if allowed == 1 { call.cost_of(n) } else { 0 };
            if refuses {
                let fresh = Refused { count: 1, last: now, halved_at: now, is_sure: true };
                let counted = self.refused.entry((frame.database, key.clone()));
                counted
                    .and_modify(|refused| {
                        refused.decay(now);
                        refused.count = refused.count.saturating_add(1);
                        refused.last = now;
                    })
                    .or_insert(fresh);
            }
        }
    }

    /// A hit drops no more than a bounded number of entries, and yet what has expired goes, bit by bit.
    fn drops(&mut self, frame: &Frame, one: &One, log: &Log, kept: Kept) -> Verdict {
        let (before, after) = (one.before.rows(), one.after.rows());
        let key = &frame.keys()[one.n];
        let newest = log.newest.map_or(0, |(id, meaning)| id.ms + meaning.keep.max(one.call.longest(one.n)));
        if before.len() > LONG
            && newest <= one.after.last().ms
            && !one.restarts
            && !log.is_wild
            && log.last == Id::default()
        {
            return Err("a long log of which nothing counts is not removed as a whole".into());
        }
        if kept == Kept::First || one.restarts {
            return Ok(());
        }
        let dropped = (before.len() + 1).saturating_sub(after.len());
        if dropped > MOST_DROPPED {
            return Err(format!("{dropped} entries are dropped at once"));
        }
        let is_cut =
            |effect: &Effect| is_at(effect, key) && effect.argv.get(2).is_some_and(|word| **word == b"MINID"[..]);
        if frame.effects.iter().any(is_cut) != (dropped > 0) {
            return Err(format!("replicas are told to drop entries, or not, and {dropped} are dropped"));
        }
        let keep = after.last().and_then(|row| row.meaning).map_or(0, |meaning| meaning.keep);
        // A hit that sets the expiry looks for what has expired. Whole nodes of it go, and something of a larger node.
        let expired = before.iter().take_while(|row| row.id.ms + keep < one.after.last().ms).count();
        let least = if self.most_entries > 0 { self.most_entries.max(SHORT) } else { MOST_DROPPED + 1 };
        if one.before.expires != one.after.expires && dropped == 0 && expired >= least {
            return Err(format!("none of {expired} expired entries are dropped"));
        }
        let dead = after.iter().take_while(|row| row.id.ms + keep <= one.after.last().ms).count();
        // A node that is not dead as a whole stays. One that is too large to be dropped at once goes bit by bit.
        let may_stay = if self.most_entries == 0 { MOST_DROPPED } else { self.most_entries };
        let stuck = self.stuck.entry((frame.database, key.clone())).or_default();
        *stuck = if dropped == 0 && dead > may_stay { *stuck + 1 } else { 0 };
        if *stuck > MOST_HITS { Err(format!("{dead} expired entries stay for ever")) } else { Ok(()) }
    }

    /// No more was admitted in any window than the limit of this call.
    fn admit(&mut self, frame: &Frame, one: &One, kept: Kept) -> Verdict {
        let key = &frame.keys()[one.n];
        let is_single_minded = key.first() == Some(&SINGLE_MINDED) && self.longest > 0;
        if !is_single_minded {
            return Ok(());
        }
        let hits = self.admitted.entry((frame.database, key.clone())).or_default();
        if kept != Kept::Added {
            hits.clear();
        }
        if !one.allowed {
            return Ok(());
        }
        let stamp = one.after.last().ms;
        hits.push((stamp, one.call.cost_of(one.n)));
        for (limit, window) in one.call.tiers_of(one.n) {
            let used =
                hits.iter().filter(|hit| hit.0 + window > stamp).fold(0_u64, |sum, hit| sum.saturating_add(hit.1));
            if used > *limit {
                return Err(format!("{used} units in {window} ms, {limit} are allowed"));
            }
        }
        let longest = self.longest;
        hits.retain(|hit| hit.0 + longest > stamp);
        Ok(())
    }

    fn reset(&mut self, frame: &Frame, after: &[Known]) -> Verdict {
        let fails = |known: &Known| match (&known.what, known.rows().last()) {
            (What::Other, _) => Some(WRONG_TYPE),
            (_, Some(Row { meaning: None, .. })) => Some(NOT_A_LOG),
            _ => None,
        };
        let expected = frame.before.iter().find_map(fails);
        match (&frame.reply, expected) {
            _ if frame.is_disturbed => {
                if let Reply::Integer(count) = frame.reply {
                    self.counted[4] += count as u64;
                }
                return Ok(());
            }
            (Reply::Error(error), Some(_)) => {
                let is_possible = frame.before.iter().any(|known| fails(known) == Some(error));
                return if is_possible && frame.before == after {
                    Ok(())
                } else {
                    Err("another error, or one that wrote".into())
                };
            }
            (Reply::Integer(count), None) => {
                self.counted[4] += *count as u64;
                let is_log =
                    |at: usize| !frame.before[at].rows().is_empty() && !frame.keys()[..at].contains(&frame.keys()[at]);
                let expected = (0..frame.keys().len()).filter(|&at| is_log(at)).count() as i64;
                if *count != expected {
                    return Err(format!("not {expected} keys"));
                }
            }
            _ => return Err(format!("not what was expected: {expected:?}")),
        }
        for (before, after) in frame.before.iter().zip(after) {
            let expected = if before.rows().is_empty() { before } else { &Known::ABSENT };
            if after != expected {
                return Err("not deleted, or not left alone".into());
            }
        }
        frame.keys().iter().for_each(|key| self.forget(frame.database, key));
        Ok(())
    }

    fn refund(&mut self, frame: &Frame, after: &[Known]) -> Verdict {
        let units = match &frame.argv[1..] {
            [_] => Some(1),
            [_, word, units] if word.eq_ignore_ascii_case(b"COST") => {
                number(units).filter(|units| (1..1 << 53).contains(units))
            }
            _ => None,
        };
        if let Reply::Integer(given) = frame.reply {
            self.counted[3] = self.counted[3].wrapping_add(given as u64);
        }
        frame.keys().iter().for_each(|key| self.forget(frame.database, key));
        if units.is_some() && (frame.is_disturbed || frame.has_failed) {
            return Ok(());
        }
        let clock = frame.clock.unwrap_or(frame.began) as u64;
        let (reply, expected) = match (units, frame.before.first()) {
            (Some(units), Some(before)) => refunded(before, clock, units, Id::default()),
            _ if matches!(&frame.reply, Reply::Error(text) if text.starts_with("ERR ")) && frame.before == after => {
                return Ok(());
            }
            _ => return Err("a broken call is not an error that changes nothing".into()),
        };
        if frame.reply != reply || after[0] != expected {
            return Err(format!("not {reply:?}, or not left as {expected:?}"));
        }
        Ok(())
    }

    fn top(&mut self, frame: &Frame) -> Verdict {
        let count = match &frame.argv[1..] {
            [] => Some(10),
            [word, count] if word.eq_ignore_ascii_case(b"COUNT") => {
                number(count).filter(|count| (1..=i64::MAX as u64).contains(count))
            }
            _ => None,
        };
        let (rows, count) = match (&frame.reply, count) {
            (Reply::Error(error), None) if error.starts_with("ERR ") => return Ok(()),
            (Reply::Array(rows), Some(count)) => (rows, count as usize),
            _ => return Err("neither a list nor an error where one is due".into()),
        };
        let now = frame.clock.ok_or("it has not looked at the clock")? as u64;
        let mut listed = Vec::new();
        for row in rows {
            let Reply::Array(parts) = row else { return Err("a row is no array".into()) };
            let [Reply::Text(key), Reply::Integer(refused), Reply::Integer(last)] = &parts[..] else {
                return Err("a row is not a key and two numbers".into());
            };
            listed.push((key.clone(), *refused as u64, *last as u64));
        }
        if listed.windows(2).any(|pair| pair[0].1 < pair[1].1) {
            return Err("not the worst first".into());
        }
        if !self.top_is_exact {
            return if listed.len() <= count { Ok(()) } else { Err("more rows than asked for".into()) };
        }
        let (mut expected, mut unsure) = (Vec::new(), Vec::new());
        for ((database, key), refused) in &self.refused {
            let mut refused = refused.clone();
            refused.decay(now);
            match *database == frame.database {
                true if !refused.is_sure => unsure.push(key.clone()),
                true => expected.push((key.clone(), refused.count, refused.last)),
                false => {}
            }
        }
        let is_right = |row: &(Text, u64, u64)| unsure.contains(&row.0) || expected.contains(row);
        let least = listed.last().map_or(0, |row| row.1);
        let is_listed = |row: &(Text, u64, u64)| listed.contains(row) || listed.len() >= count && row.1 <= least;
        let is_whole = listed.len() <= count && expected.iter().all(is_listed);
        if is_whole && listed.iter().all(is_right) { Ok(()) } else { Err(format!("not of {expected:?}")) }
    }

    /// Whether TOP says the same now wherever the module's table of counts has its keys.
    pub fn is_top_sure(&self, now: i64) -> bool {
        let is_sure = |refused: &Refused| {
            let mut refused = refused.clone();
            refused.decay(now as u64);
            refused.is_sure
        };
        self.top_is_exact && self.refused.values().all(is_sure)
    }

    /// Whether `INFO ratelimit` says what was counted.
    pub fn info(&self, fields: &[(String, String)], clock_steps: u64) -> Verdict {
        let mut counted = self.counted;
        counted[6] = clock_steps - self.clock_steps;
        let mut expected =
            vec![("section", String::new()), ("version", env!("CARGO_PKG_VERSION_OF_MODULE").to_owned())];
        expected.extend(COUNTERS.iter().zip(counted).map(|(name, value)| (*name, value.to_string())));
        let (policies, fields): (Vec<_>, Vec<_>) = fields.iter().partition(|(name, _)| name.starts_with("policy_"));
        // The figures of the policies sum up to those of all.
        let mut sums = [0_u64; 3];
        for (name, value) in &policies {
            let parts = value.split(',').zip(["admitted=", "refused=", "units="]).zip(&mut sums);
            for ((part, expected), sum) in parts {
                let figure = part.strip_prefix(expected).and_then(|figure| figure.parse::<u64>().ok());
                *sum = sum.wrapping_add(figure.ok_or_else(|| format!("INFO says {name}:{value}"))?);
            }
        }
        if sums != counted[..3] || policies.len() > 65 {
            return Err(format!("the policies {policies:?} are not all of {counted:?}"));
        }
        let [admitted, over, left] = self.lines.counted;
        let waits = [admitted, over, left, self.lines.waiting() as u64];
        expected.extend(WAITING.iter().zip(waits).map(|(name, value)| (*name, value.to_string())));
        let is_same = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .eq(expected.iter().map(|(name, value)| (*name, value)));
        if is_same { Ok(()) } else { Err(format!("INFO says {fields:?}, not {expected:?}")) }
    }
}

/// The reply to a refund, and what is at the key after it. `floor` is what is known of the stream's last ID.
fn refunded(before: &Known, clock: u64, units: u64, floor: Id) -> (Reply, Known) {
    const MOST_GONE: usize = 1_024;
    let unchanged = |reply| (reply, before.clone());
    let (rows, last) = (before.rows(), before.last());
    let What::Stream { .. } = &before.what else {
        return unchanged(if before.what == What::Other { Reply::error(WRONG_TYPE) } else { Reply::Integer(0) });
    };
    let Some(newest) = rows.last() else { return unchanged(Reply::Integer(0)) };
    let Some(meaning) = newest.meaning else { return unchanged(Reply::error(NOT_A_LOG)) };
    let floor = floor.max(newest.id);
    if floor.ms > clock + meaning.keep {
        return unchanged(Reply::Integer(0));
    }
    let now = clock.max(floor.ms);
    let mut rest: Vec<Row> = rows.to_vec();
    let (mut given, mut gone, mut left) = (0, 0, None);
    while let Some(row) = rest.last().filter(|row| row.id.ms + meaning.keep > now).cloned() {
        if given == units || gone == MOST_GONE {
            break;
        }
        let Some(Meaning { cost, .. }) = row.meaning else { return unchanged(Reply::error(NOT_A_LOG)) };
        rest.pop();
        gone += 1;
        let owed = (units - given).min(cost);
        given += owed;
        if owed < cost {
            left = Some((row.id.seq.wrapping_sub(owed), cost - owed));
            break;
        }
    }
    let reply = Reply::Integer(given as i64);
    if given == 0 {
        return unchanged(reply);
    }
    let mut known = before.clone();
    if let Some((seq, cost)) = left {
        // Its rest, now, or at the next ID that the stream takes.
        let id = Id { ms: now, seq };
        let id = if id > floor { id } else { Id { ms: now + 1, seq } };
        if id <= last {
            return refunded(before, clock, units, last);
        }
        let expires = u64::try_from(before.expires).ok();
        let due = retention::stored(Some(meaning), expires, id.ms, meaning.keep);
        let meaning = Meaning { keep: due.longest, fallback: due.fallback, cost };
        rest.push(Row { id, meaning: Some(meaning) });
        known.expires = due.expires.map_or(before.expires, |at| at as i64);
        known.what = What::Stream { rows: rest.into(), last: id };
    } else if rest.last().is_none_or(|row| row.id.ms + meaning.keep <= now) {
        known = Known::ABSENT;
    } else {
        known.what = What::Stream { rows: rest.into(), last };
    }
    (reply, known)
}

/// Six integers for each key, or six for each tier of each key.
fn answers_of(reply: &Reply, call: &Call) -> Verdict<Vec<Vec<[i64; 6]>>> {
    fn array(reply: &Reply) -> Verdict<&[Reply]> {
        match reply {
            Reply::Array(items) => Ok(items),
            _ => Err("no array".to_owned()),
        }
    }
    let six = |reply: &Reply| {
        let mut six = [0; 6];
        let items = array(reply)?;
        if items.len() != 6 {
            return Err("not six integers".to_owned());
        }
        for (place, item) in six.iter_mut().zip(items) {
            let Reply::Integer(value) = item else { return Err("not an integer".to_owned()) };
            *place = *value;
        }
        Ok(six)
    };
    let keys = if call.name == Name::MultiHit { array(reply)? } else { std::slice::from_ref(reply) };
    let of_key = |(n, reply): (usize, &Reply)| {
        let tiers = if call.with_tiers { array(reply)? } else { std::slice::from_ref(reply) };
        let many = if call.with_tiers { call.groups.get(n).map_or(0, |group| group.tiers.len()) } else { 1 };
        if tiers.len() == many {
            tiers.iter().map(six).collect()
        } else {
            Err("not an answer for each tier".to_owned())
        }
    };
    keys.iter().enumerate().map(of_key).collect()
}

/// How long to wait, by the tier that takes longest. None for ever.
fn wait_of(answers: &[[i64; 6]]) -> Option<u64> {
    answers.iter().try_fold(0, |longest: u64, answer| Some(longest.max(u64::try_from(answer[3]).ok()?)))
}

pub fn is_error(reply: &Reply, text: &str) -> bool {
    matches!(reply, Reply::Error(error) if error == text)
}

/// Whether a command that replicas are told is about this key.
fn is_at(effect: &Effect, key: &[u8]) -> bool {
    effect.argv.get(1).is_some_and(|one| is_same(one, key))
}

/// The answer if the oldest entry weighs one unit, whatever it says.
fn as_if_it_weighed_one(log: &Log, one: &One, moment: Moment) -> Answer {
    let mut hits = log.hits.clone();
    if let Some(oldest) = hits.first_mut() {
        oldest.1 = 1;
    }
    oracle::answer_at(&mut hits, moment, &one.call.question(one.n), one.allowed)
}

/// Asks the oracle, and leaves the hits as they were.
fn ask(hits: &mut Vec<Hit>, moment: Moment, question: &Question, allowed: bool) -> Answer {
    let before = hits.len();
    let answer = oracle::answer_at(hits, moment, question, allowed);
    hits.truncate(before);
    answer
}

/// What the oracle answers for each key.
fn expected_of(call: &Call, logs: &mut [Log], moments: &[(Id, Moment)]) -> Vec<Answer> {
    let questions: Vec<Question> = (0..logs.len()).map(|n| call.question(n)).collect();
    let allowed = (0..logs.len()).all(|n| oracle::has_room(&logs[n].hits, moments[n].1.now, &questions[n]));
    let keys = logs.iter_mut().zip(moments).zip(&questions);
    keys.map(|((log, moment), question)| ask(&mut log.hits, moment.1, question, allowed)).collect()
}

/// Whether others hear of what was done, in the order of the server's own commands, and of nothing else.
fn events_fit(frame: &Frame, call: Option<&Call>, after: &[Known]) -> Verdict {
    const ORDER: [&str; 5] = ["del", "xadd", "xtrim", "expire", "ratelimit.refused"];
    let may_refuse = call.is_some_and(|call| call.name != Name::Peek);
    for (n, key) in frame.keys().iter().enumerate() {
        if frame.keys()[..n].iter().any(|one| is_same(one, key)) {
            continue;
        }
        let effects = frame.effects.iter().filter(|effect| is_at(effect, key));
        let mut due = [false; 5];
        // The server's own XDEL has sent its event.
        let mut has_deleted = false;
        for effect in effects {
            let is_trim = effect.argv.get(2).is_some_and(|word| **word == b"MINID"[..]);
            match &effect.argv[0][..] {
                b"UNLINK" => due[0] = true,
                b"XADD" => (due[1], due[2]) = (true, due[2] || is_trim),
                b"PEXPIREAT" => due[3] = true,
                b"XDEL" => has_deleted = true,
                b"RESTORE" => (due[1], due[3]) = (true, true),
                _ => return Err("replicas are told of another command".into()),
            }
        }
        let is_changed = due[..4].contains(&true) || has_deleted;
        if frame.signalled.iter().any(|one| is_same(one, key)) != is_changed {
            return Err(format!(
                "whoever watches the key is told {}",
                if is_changed { "nothing" } else { "of nothing" }
            ));
        }
        if !frame.is_disturbed && (frame.before[n] != after[n]) != is_changed {
            return Err("replicas are not told exactly what has changed".into());
        }
        let refuses = |call: &Call| {
            let answers = answers_of(&frame.reply, call).ok().and_then(|all| all.into_iter().nth(n));
            answers.is_some_and(|answers| answers[0][0] == 0 && wait_of(&answers) != Some(0))
        };
        due[4] = frame.sends_module_events && may_refuse && call.is_some_and(refuses);
        // An error comes before anybody is told. What a disturbed call did before that is known to nobody.
        let is_error = matches!(frame.reply, Reply::Error(_));
        let expected = || ORDER.iter().zip(due).filter(|(_, due)| *due).map(|one| *one.0);
        let sent = || frame.events.iter().filter(|event| event.0 == n).map(|event| event.1);
        let may_differ = frame.has_failed || frame.changes_events || is_error && frame.is_disturbed;
        if !may_differ && !sent().eq(expected()) {
            let (sent, expected): (Vec<&str>, Vec<&str>) = (sent().collect(), expected().collect());
            return Err(format!("the events {sent:?} are sent, not {expected:?}"));
        }
    }
    let is_known = |at: &usize| *at < frame.keys().len();
    if frame.events.iter().all(|event| is_known(&event.0)) {
        Ok(())
    } else {
        Err("an event for a key that is not of this call".into())
    }
}
