//! Whether clients that wait are served as the documents promise: in order, when there is room, and never in vain.
//!
//! It knows every line from what the server has seen: who was blocked, who got which reply, and who has left.

use std::collections::{BTreeMap, HashMap};

use oracle::{Hit, InLine, Tier};

use crate::frame::{Frame, Known, Part};
use crate::server::{Reply, Server, words};
use crate::stream::Text;
use crate::waiting::{Event, What};
use crate::world::Verdict;

/// Milliseconds that a client waits longer than asked, at most.
const GRACE: i64 = 3;

/// What others do to a key is seen within this time.
const SEEN_WITHIN: i64 = 101;

/// `RESET` and `REFUND` are seen at once: the timer comes a millisecond later.
const AT_ONCE: i64 = 1;

/// A client that waits.
#[derive(Clone, Debug)]
struct Waiter {
    number: u64,
    argv: Vec<Text>,
    tiers: Vec<Tier>,
    cost: u64,
    deadline: i64,
}

impl Waiter {
    fn in_line(&self) -> InLine {
        InLine { tiers: self.tiers.clone(), cost: self.cost, deadline: self.deadline as u64 }
    }
}

#[derive(Debug)]
struct Line {
    waiters: Vec<Waiter>,
    /// Since when the first one is the first.
    first_since: i64,
    /// What was there after the last step.
    seen: Option<Known>,
    /// Until then, the module need not know what has happened.
    excused: i64,
    /// Until then, it need not even know that the turns are others.
    blind: i64,
}

/// What a call with WAIT says: which limits, and for how long.
pub struct Asks<'a> {
    pub tiers: &'a [Tier],
    pub cost: u64,
    pub wait: u64,
}

/// What the log says.
pub struct Log<'a> {
    pub hits: &'a [Hit],
    /// None of it is ahead of the clock, or foreign.
    pub is_exact: bool,
}

#[derive(Default)]
pub struct Lines {
    lines: BTreeMap<(usize, Text), Line>,
    /// Replies that clients have coming.
    replies: HashMap<u64, Reply>,
    /// Clients that have an error coming.
    errors: Vec<u64>,
    /// Admitted, timed out, and gone.
    pub counted: [u64; 3],
    /// All clients that ever waited, and those that were served.
    pub joined: u64,
    pub served: u64,
    /// Calls that were refused because they would wait in vain.
    pub in_vain: u64,
    /// `ratelimit.max-waiters`.
    pub most: usize,
    /// Milliseconds by which the clock may go on within a step.
    pub slack: i64,
}

fn key_of(frame: &Frame) -> (usize, Text) {
    (frame.database, frame.argv[1].clone())
}

/// Whether a call with WAIT is this one without it.
fn is_same_call(with_wait: &[Text], without: &[Text]) -> bool {
    let at =
        with_wait.iter().skip(2).position(|word| word.eq_ignore_ascii_case(b"WAIT")).map_or(usize::MAX, |at| at + 2);
    let kept = with_wait.iter().enumerate().filter(|(place, _)| *place != at && *place != at.saturating_add(1));
    kept.skip(1).map(|(_, word)| word).eq(without.iter().skip(1))
}

impl Lines {
    pub fn waiting(&self) -> usize {
        self.lines.values().map(|line| line.waiters.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.replies.is_empty() && self.errors.is_empty()
    }

    /// They are another server's now.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.replies.clear();
        self.errors.clear();
        self.counted = [0; 3];
    }

    fn find(&self, number: u64) -> Option<((usize, Text), usize)> {
        self.lines.iter().find_map(|(key, line)| {
            let at = line.waiters.iter().position(|one| one.number == number)?;
            Some((key.clone(), at))
        })
    }

    fn take(&mut self, key: &(usize, Text), at: usize, now: i64) -> Option<Waiter> {
        let line = self.lines.get_mut(key)?;
        let waiter = line.waiters.remove(at);
        if at == 0 {
            line.first_since = now;
            line.excused = line.excused.max(now + AT_ONCE + self.slack);
        }
        if line.waiters.is_empty() {
            self.lines.remove(key);
        }
        Some(waiter)
    }

    fn is_blind(&self, key: &(usize, Text), now: i64) -> bool {
        if self.slack > 0 {
            return true;
        }
        // Whose time is just over may not have left yet.
        let is_over = |one: &Waiter| one.deadline < now;
        self.lines.get(key).is_some_and(|line| now <= line.blind || line.waiters.iter().any(is_over))
    }

    /// When a call would be admitted behind those who wait.
    fn turn(&self, key: &(usize, Text), ahead: usize, asks: &Asks, log: &Log, now: i64) -> Option<u64> {
        let waiters = self.lines.get(key).map_or(&[][..], |line| &line.waiters);
        let ahead: Vec<InLine> = waiters.iter().take(ahead).map(Waiter::in_line).collect();
        oracle::turn(log.hits, now as u64, &ahead, (asks.tiers, asks.cost))
    }

    /// A client waits from now on.
    pub fn joins(&mut self, number: u64, frame: &Frame, asks: &Asks, log: &Log, now: i64) -> Verdict {
        let key = key_of(frame);
        let turn = self.turn(&key, usize::MAX, asks, log, now);
        let is_exact = log.is_exact && !self.is_blind(&key, now);
        let is_empty = !self.lines.contains_key(&key);
        match turn {
            _ if self.waiting() >= self.most => return Err("more clients wait than may".into()),
            None => return Err("it waits for ever".into()),
            Some(turn) if !is_exact || turn <= now as u64 + asks.wait => {
                if is_exact && is_empty && turn <= now as u64 {
                    return Err("it waits although there is room".into());
                }
            }
            Some(turn) => return Err(format!("it waits in vain until {turn}")),
        }
        let deadline = now.saturating_add(asks.wait as i64);
        let waiter = Waiter { number, argv: frame.argv.clone(), tiers: asks.tiers.to_vec(), cost: asks.cost, deadline };
        let fresh = || Line { waiters: Vec::new(), first_since: now, seen: None, excused: now, blind: now - 1 };
        self.lines.entry(key).or_insert_with(fresh).waiters.push(waiter);
        self.joined += 1;
        Ok(())
    }

    /// Whether somebody waits for the key of a call.
    pub fn is_line(&self, frame: &Frame) -> bool {
        self.lines.contains_key(&key_of(frame))
    }

    /// A call with WAIT was admitted at once.
    pub fn passes(&self, frame: &Frame) -> Verdict {
        match self.lines.contains_key(&key_of(frame)) {
            true => Err("it passes those who wait".into()),
            false => Ok(()),
        }
    }

    /// A call with WAIT is refused, at once or at the end of its time. Returns the least time to wait that it must be told,
    /// if that is known.
    pub fn refused(&mut self, frame: &Frame, asks: &Asks, log: &Log, now: i64) -> Verdict<Option<i64>> {
        let key = key_of(frame);
        let mut ahead = usize::MAX;
        let mut must_be_in_vain = frame.may_block && self.waiting() < self.most;
        if let Part::Ends { number, by_command } = frame.part {
            let Some((key, at)) = self.find(number) else { return Err("it waits in no line".into()) };
            let waiter = self.lines[&key].waiters[at].clone();
            if !by_command && now <= waiter.deadline {
                return Err("its time is not over".into());
            }
            ahead = at;
            must_be_in_vain = false;
        }
        let turn = self.turn(&key, ahead, asks, log, now);
        let is_exact = log.is_exact && !self.is_blind(&key, now);
        let is_alone = !self.lines.contains_key(&key);
        let is_direct = frame.may_block || matches!(frame.part, Part::Ends { .. });
        if let Part::Ends { number, .. } = frame.part {
            self.times_out(number, now)?;
        }
        if !is_exact || !is_direct {
            return Ok(None);
        }
        let Some(turn) = turn else { return Ok(Some(1)) };
        if must_be_in_vain && turn <= now as u64 + asks.wait {
            return Err(format!("it is refused although its turn comes at {turn}"));
        }
        if is_alone && turn <= now as u64 && frame.may_block {
            return Err("it is refused although there is room".into());
        }
        self.in_vain += u64::from(must_be_in_vain);
        Ok(Some((turn as i64 - now).max(1)))
    }

    /// A client waits no longer, because its time is over.
    pub fn times_out(&mut self, number: u64, now: i64) -> Verdict {
        let Some((key, at)) = self.find(number) else { return Err("it waits in no line".into()) };
        self.take(&key, at, now);
        self.counted[1] += 1;
        Ok(())
    }

    pub fn has_reply(&self, number: u64) -> bool {
        self.replies.contains_key(&number)
    }

    /// The reply that was called for a client at the end of its time.
    pub fn ends_with(&mut self, number: u64, reply: &Reply) -> Verdict {
        match self.replies.remove(&number) {
            Some(due) if due == *reply => Ok(()),
            due => Err(format!("the reply is not {due:?}")),
        }
    }

    /// The module has called a hit for the first one of a line. `had_room` says so of a moment.
    pub fn called(&mut self, frame: &Frame, had_room: impl Fn(i64) -> bool) -> Verdict {
        let key = key_of(frame);
        let now = frame.clock.unwrap_or(frame.began);
        let Some(line) = self.lines.get(&key) else { return Err("a hit for nobody".into()) };
        let first = &line.waiters[0];
        if !is_same_call(&first.argv, &frame.argv) {
            return Err(format!("a hit for another one than the first, {}", words(&first.argv)));
        }
        let is_refused = match &frame.reply {
            Reply::Array(items) => match items.first() {
                Some(Reply::Array(tier)) => tier.first() != Some(&Reply::Integer(1)),
                first => first != Some(&Reply::Integer(1)),
            },
            _ => false,
        };
        if is_refused {
            // Another module was faster.
            return if frame.is_disturbed || frame.has_failed {
                Ok(())
            } else {
                Err("a hit is called without room".into())
            };
        }
        let is_admitted = matches!(frame.reply, Reply::Array(_));
        // A key that has expired tells nothing of before.
        let is_known = line.seen.as_ref() == frame.before.first() && line.seen != Some(Known::ABSENT);
        if is_admitted
            && is_known
            && self.slack == 0
            && now > line.excused
            && line.first_since < now
            && had_room(now - 1)
        {
            return Err(format!("its turn came before {now}, and the line was disturbed until {}", line.excused));
        }
        if is_admitted && now > first.deadline + GRACE + self.slack && now > line.excused {
            return Err("it is served after its time".into());
        }
        let slack = self.slack;
        if let Some(waiter) = self.take(&key, 0, now) {
            self.replies.insert(waiter.number, frame.reply.clone());
        }
        // Those behind have their turn in the same step.
        if let Some(line) = self.lines.get_mut(&key) {
            line.excused = line.excused.max(now + AT_ONCE + slack);
        }
        if is_admitted {
            (self.counted[0], self.served) = (self.counted[0] + 1, self.served + 1);
        }
        Ok(())
    }

    /// What has happened to a client.
    pub fn event(&mut self, event: &Event, server: &Server) -> Verdict {
        let place = self.find(event.number);
        let errors = self.errors.len();
        self.errors.retain(|number| *number != event.number || matches!(event.what, What::Answered));
        let had_error = self.errors.len() < errors;
        match (&event.what, place) {
            (What::Left, place) => {
                let had_reply = self.replies.remove(&event.number).is_some() || had_error;
                self.counted[2] += u64::from(place.is_some() || had_reply);
                if let Some((key, at)) = place {
                    self.take(&key, at, event.at);
                }
                Ok(())
            }
            (What::Answered, None) => Ok(()),
            (What::Answered, Some((key, 0))) => {
                self.take(&key, 0, event.at);
                self.errors.push(event.number);
                Ok(())
            }
            // It was told that its hit would be an error.
            (What::Reply(Reply::Error(error)), None) if had_error => {
                let is_due = match error.split(' ').next() {
                    Some("OOM") => server.is_out_of_memory,
                    Some("NOPERM") => server.is_denied,
                    Some("ERR" | "WRONGTYPE") => true,
                    _ => false,
                };
                if is_due { Ok(()) } else { Err(format!("an error without a reason: {error}")) }
            }
            (What::Reply(reply), None) => self.ends_with(event.number, reply),
            (_, Some((key, at))) => {
                Err(format!("a reply to number {at} of a line: {:?}", self.lines[&key].waiters[at]))
            }
        }
    }

    /// After a step: nobody waits who could be served, or whose time is over. `has_room` says whether the log of a key has room
    /// for this hit; None if that cannot be said. `reset` is what RESET was asked to delete.
    pub fn look(
        &mut self,
        server: &Server,
        at_once: bool,
        reset: Option<(usize, &[Text])>,
        has_room: impl Fn(&Known, &[Tier], u64) -> Option<bool>,
    ) -> Verdict {
        let now = server.now;
        let suspended = server.waiting.suspended_at == Some(now);
        for ((database, key), line) in &mut self.lines {
            let known = server.known(*database, key);
            if line.seen.as_ref() != Some(&known) {
                // A key may have expired.
                let is_reset = reset.is_some_and(|(place, keys)| place == *database && keys.contains(key));
                let is_gone = known == Known::ABSENT && !is_reset;
                let at_once = at_once && !is_gone;
                let within = if at_once { AT_ONCE } else { SEEN_WITHIN };
                line.excused = line.excused.max(now + within + self.slack);
                if !at_once {
                    line.blind = line.excused;
                }
                line.seen = Some(known.clone());
            }
            if suspended {
                line.excused = line.excused.max(now + SEEN_WITHIN + self.slack);
                line.blind = line.excused;
            }
            let Some(first) = line.waiters.first() else { continue };
            // A clock that goes on within the step may have passed the turn since.
            let is_late = now > line.excused && !server.is_paused && self.slack == 0;
            if is_late && has_room(&known, &first.tiers, first.cost) == Some(true) {
                return Err(format!("{} waits at {now}, although there is room\n{line:?}", words(&first.argv)));
            }
            let over = |one: &&Waiter| now > one.deadline + GRACE + self.slack;
            if let Some(late) = line.waiters.iter().find(over).filter(|_| now > line.excused) {
                return Err(format!("{} waits until {now}, after {}", words(&late.argv), late.deadline));
            }
        }
        Ok(())
    }

    /// Nothing may be written for a while, or others had to be waited for.
    pub fn excuse_all(&mut self, until: i64) {
        for line in self.lines.values_mut() {
            line.excused = line.excused.max(until + SEEN_WITHIN + self.slack);
            line.blind = line.excused;
        }
    }
}
