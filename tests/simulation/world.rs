//! A world: a primary and a replica with the module, a server without it that is told the same, and others who interfere.
//!
//! Every step is checked: no rule of the API was broken, every reply is the oracle's, and whoever is told of the changes
//! holds the same data.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::database::Database;
use crate::judge::{Judge, NOT_A_LOG, is_error};
use crate::module::Module;
use crate::problems;
use crate::server::{
    ASYNC_LOAD, CRON, DATABASES, Effect, FLAVORS, Failure, LOADING, Reactor, Reply, Role, Server, Value, argv, words,
};
use crate::stream::{Bounds, Text};
use crate::strings;

/// How a history is, all of it chosen by its seed.
#[derive(Clone, Debug)]
pub struct Profile {
    pub flavor: usize,
    pub bounds: Bounds,
    pub cursors: i64,
    pub top_entries: i64,
    /// What each look at the clock takes, where the server has no other.
    pub tick: i64,
    /// The clock may be set back, or go back on its own.
    pub is_backwards: bool,
    /// How far the replica's clock is ahead.
    pub replica_ahead: i64,
    pub has_replica: bool,
    /// Other modules that hear of an event before ours does.
    pub reactors_first: usize,
    /// The longest window of all calls.
    pub longest: u64,
    /// `ratelimit.max-waiters`.
    pub max_waiters: i64,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Milliseconds pass, or the clock is set back.
    Go(i64),
    Command(usize, Vec<Text>),
    /// A transaction or a script.
    Together(usize, Vec<Vec<Text>>),
    /// Another module is told what to do in an event.
    React(Reactor),
    /// The server looks for expired keys.
    Expire(usize, Text),
    Evict(usize, Text),
    OutOfMemory(bool),
    Fail(Failure),
    /// A snapshot is loaded in place of the data.
    Reload,
    /// The append-only file is.
    Replay,
    /// Slots move away as a whole: those of a third of the keys.
    SlotsMove(u8),
    /// The server's timer.
    Tick,
    /// The replica reads so many steps.
    Feed(usize),
    AskReplica(usize, Vec<Text>),
    Promote,
    Info,
    /// Somebody who waits goes, or is sent away.
    Leave(usize),
    /// CLIENT UNBLOCK of somebody who waits.
    Unblock(usize),
    /// CLIENT PAUSE WRITE: time passes, and nothing is written.
    Pause(i64),
    /// The rights of those who are not the default user are taken or given.
    Deny(bool),
}

pub type Verdict<T = ()> = Result<T, String>;

/// The copies of the module for one flavor, which outlive a history.
pub struct Modules {
    pub primary: Box<Module>,
    pub replica: Box<Module>,
}

pub struct World {
    profile: Profile,
    /// The primary first.
    servers: [Box<Server>; 2],
    /// Without the module; it is told everything at once, as an append-only file is.
    mirror: Box<Server>,
    /// What the replica has not read yet.
    behind: VecDeque<Vec<Effect>>,
    judge: Judge,
    /// Steps that were checked.
    steps: u64,
    /// Strings that copies of the module had when this began.
    strings: i64,
    /// Whether the two have changed places.
    is_swapped: bool,
}

/// A day on which nothing happened.
pub const START: i64 = 1_767_225_600_000;

impl World {
    pub fn new(profile: Profile, modules: Modules) -> Self {
        let flavor = &FLAVORS[profile.flavor];
        let server = |now: i64| Box::new(Server::new(flavor, now, profile.bounds));
        let [mut primary, mut replica, mut mirror] = [START, START + profile.replica_ahead, START].map(server);
        primary.module = Some(modules.primary);
        replica.module = Some(modules.replica);
        primary.tick = profile.tick;
        replica.tick = profile.tick;
        replica.tables = 1 << 32;
        primary.reactors_first = profile.reactors_first;
        for server in [&mut replica, &mut mirror] {
            server.role = Role::Replica;
            server.dumps = Rc::clone(&primary.dumps);
        }
        let mut judge = Judge::new(
            profile.longest,
            profile.top_entries >= 1_000 && !profile.is_backwards,
            profile.bounds.entries as usize,
        );
        (judge.lines.most, judge.lines.slack) = (profile.max_waiters as usize, 64 * profile.tick);
        for server in [&mut primary, &mut replica] {
            // Whatever the last history left.
            server.flush_all();
            server.all_touched = false;
            // Also where the number of cursors stays: the numbers at which logs begin must not depend on the last history.
            server.set_config("cursors", profile.cursors).unwrap_or_else(problems::problem);
            server.set_config("max-waiters", profile.max_waiters).unwrap_or_else(problems::problem);
            if server.get_config("top-entries") != Some(profile.top_entries) {
                server.set_config("top-entries", profile.top_entries).unwrap_or_else(problems::problem);
            }
            server.command(0, &argv("RATELIMIT.RESETSTAT"));
            server.frames.clear();
            server.clock_steps = 0;
        }
        let servers = [primary, replica];
        Self {
            profile,
            servers,
            mirror,
            behind: VecDeque::new(),
            judge,
            steps: 0,
            strings: strings::owned(),
            is_swapped: false,
        }
    }

    pub fn primary(&self) -> &Server {
        &self.servers[0]
    }

    /// Whether TOP says the same wherever the module's table has its keys, which depends on a secret.
    pub fn is_top_sure(&self) -> bool {
        self.judge.is_top_sure(self.servers[0].now)
    }

    /// What the replica has not read yet, a step of the server at a time.
    pub fn unread(&self) -> &VecDeque<Vec<Effect>> {
        &self.behind
    }

    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Clients that waited, those of them that were served, and calls that were refused because they would have waited in vain.
    pub fn waits(&self) -> [u64; 3] {
        let lines = &self.judge.lines;
        [lines.joined, lines.served, lines.in_vain]
    }

    pub fn calls(&self) -> u64 {
        self.judge.calls
    }

    /// Takes a step, and checks it. What was replied is in the order of the commands.
    pub fn step(&mut self, step: &Step) -> Verdict<Vec<Reply>> {
        let mut replies = Vec::new();
        let primary = &mut self.servers[0];
        match step {
            Step::Go(milliseconds) => {
                let is_quiet = self.servers.iter().all(|server| server.waiting.is_idle());
                for server in &mut self.servers {
                    server.go(*milliseconds);
                }
                self.mirror.now = self.servers[0].now;
                if is_quiet {
                    return Ok(replies);
                }
            }
            Step::Command(database, argv) => replies.push(primary.command(*database, argv)),
            Step::Together(database, commands) => replies = primary.together(*database, commands),
            Step::React(reactor) => {
                if primary.reactors.len() > 3 {
                    primary.reactors.remove(0);
                }
                primary.reactors.push(reactor.clone());
            }
            Step::Expire(database, key) => primary.expire_cycle(*database, key),
            Step::Evict(database, key) => primary.evict(*database, key),
            Step::OutOfMemory(is_so) => primary.is_out_of_memory = *is_so,
            Step::Fail(failure) => primary.failure = Some(*failure),
            Step::Reload => {
                let data = primary.databases.clone();
                self.start_again(data, LOADING);
            }
            Step::Replay => {
                let data = self.mirror.databases.clone();
                self.start_again(data, LOADING);
            }
            Step::SlotsMove(third) => {
                let third = *third;
                let leaves =
                    move |key: &[u8]| key.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 3 == u32::from(third);
                self.feed(usize::MAX)?;
                self.servers.iter_mut().chain([&mut self.mirror]).for_each(|server| server.slots_move(leaves));
                self.judge.forget_all();
            }
            Step::Tick => primary.server_event(CRON, 0),
            Step::Feed(steps) => self.feed(*steps)?,
            Step::AskReplica(database, argv) => {
                if self.profile.has_replica {
                    replies.push(self.servers[1].command(*database, argv));
                }
            }
            Step::Promote => self.promote()?,
            Step::Leave(at) => {
                if let Some(at) = at.checked_rem(primary.waiting.blocked.len()) {
                    primary.leaves(at);
                }
            }
            Step::Unblock(at) => {
                if let Some(at) = at.checked_rem(primary.waiting.blocked.len()) {
                    primary.time_is_over(at, true);
                }
            }
            Step::Pause(milliseconds) => {
                primary.is_paused = true;
                for server in &mut self.servers {
                    server.go(*milliseconds);
                }
                self.mirror.now = self.servers[0].now;
                self.check()?;
                self.servers[0].is_paused = false;
                let now = self.servers[0].now;
                self.judge.lines.excuse_all(now);
            }
            Step::Deny(is_so) => primary.is_denied = *is_so,
            Step::Info => {
                let steps = self.servers[0].clock_steps;
                let fields = self.servers[0].info();
                self.judge.info(&fields, steps)?;
                let line = |(name, value): &(String, String)| Reply::Status(format!("{name}:{value}"));
                replies.push(Reply::Array(fields.iter().map(line).collect()));
            }
        }
        if !self.servers[0].waiting.blocked.is_empty() {
            self.servers[0].go(0);
        }
        if self.is_replica_step(step) {
            self.check_replica()?
        } else {
            self.check()?;
            // The module knows of what it does itself.
            let is_own = match step {
                // A refusal that counts may drop entries that others count.
                Step::Command(_, argv) => {
                    let is_strict = argv.iter().any(|word| word.eq_ignore_ascii_case(b"STRICT"));
                    !is_strict && argv[0].to_ascii_uppercase().starts_with(b"RATELIMIT.")
                }
                step => matches!(step, Step::Go(_) | Step::Leave(_) | Step::Unblock(_) | Step::Deny(_)),
            };
            let at_once = is_own && self.servers[0].reactors.is_empty();
            let reset = match step {
                Step::Command(database, argv) if *argv[0] == b"RATELIMIT.RESET"[..] => Some((*database, &argv[1..])),
                _ => None,
            };
            self.judge.look_at_lines(&self.servers[0], at_once, reset)?;
        }
        Ok(replies)
    }

    fn is_replica_step(&self, step: &Step) -> bool {
        matches!(step, Step::AskReplica(..))
    }

    fn start_again(&mut self, data: [Database; DATABASES], event: u64) {
        self.servers[0].load(data, event);
        self.mirror.databases = self.servers[0].databases.clone();
        self.resync(event);
    }

    /// The replica gets all the data at once.
    fn resync(&mut self, event: u64) {
        self.behind.clear();
        let data = self.servers[0].databases.clone();
        let replica = &mut self.servers[1];
        if event == LOADING {
            replica.flush_all();
        }
        replica.load(data, event);
        replica.all_touched = false;
        replica.touched.clear();
    }

    fn feed(&mut self, steps: usize) -> Verdict {
        let replica = &mut self.servers[1];
        for _ in 0..steps {
            let Some(step) = self.behind.pop_front() else { break };
            for effect in step {
                if let Reply::Error(error) = replica.apply(&effect) {
                    return Err(format!("the replica does not take {}: {error}", words(&effect.argv)));
                }
            }
        }
        replica.touched.clear();
        replica.all_touched = false;
        replica.frames.clear();
        if self.behind.is_empty() && self.profile.has_replica {
            let (primary, replica) = (&self.servers[0], &self.servers[1]);
            for database in 0..DATABASES {
                same_data(primary, replica, database, "the replica")?;
            }
        }
        Ok(())
    }

    /// The replica takes over, with what it has read. The other one becomes its replica.
    fn promote(&mut self) -> Verdict {
        if !self.profile.has_replica {
            return Ok(());
        }
        self.behind.clear();
        self.servers.swap(0, 1);
        self.is_swapped = !self.is_swapped;
        let [primary, replica] = &mut self.servers;
        primary.reactors = std::mem::take(&mut replica.reactors);
        primary.reactors_first = replica.reactors_first;
        primary.notify_flags = replica.notify_flags;
        primary.is_out_of_memory = replica.is_out_of_memory;
        primary.bounds = replica.bounds;
        primary.failure = replica.failure.take();
        (primary.is_denied, primary.is_paused) = (replica.is_denied, false);
        primary.become_primary();
        replica.become_replica();
        replica.waiting.events.clear();
        replica.frames.clear();
        self.judge.lines.clear();
        primary.all_touched = false;
        primary.touched.clear();
        self.mirror.databases = primary.databases.clone();
        self.mirror.now = primary.now;
        primary.command(0, &argv("RATELIMIT.RESETSTAT"));
        primary.frames.clear();
        primary.clock_steps = 0;
        self.judge.start_counting();
        self.judge.forget_all();
        let event = if self.profile.replica_ahead % 2 == 0 { LOADING } else { ASYNC_LOAD };
        self.resync(event);
        Ok(())
    }

    fn check_replica(&mut self) -> Verdict {
        let replica = &mut self.servers[1];
        for frame in std::mem::take(&mut replica.frames) {
            if is_error(&frame.reply, NOT_A_LOG) {
                // Counted by the replica.
                self.judge.uncount_foreign();
            }
            self.judge.judge(&frame)?;
        }
        if !replica.propagated.is_empty() {
            return Err("a replica tells of changes".into());
        }
        problems::first().map_or(Ok(()), Err)
    }

    fn check(&mut self) -> Verdict {
        if let Some(problem) = problems::first() {
            return Err(problem);
        }
        let primary = &mut self.servers[0];
        let foreign = std::mem::take(&mut primary.foreign);
        let is_all_foreign = std::mem::take(&mut primary.all_foreign);
        let mut frames = std::mem::take(&mut primary.frames);
        frames.sort_by_key(|frame| frame.turn);
        let mut touched = foreign;
        for frame in frames.iter().filter(|frame| frame.is_disturbed) {
            touched.extend(frame.keys().iter().map(|key| (frame.database, key.clone())));
        }
        // Who acted first within the step does not matter.
        let forget = |judge: &mut Judge| match is_all_foreign {
            true => judge.forget_all(),
            false => touched.iter().for_each(|(database, key)| judge.forget(*database, key)),
        };
        forget(&mut self.judge);
        let events = std::mem::take(&mut primary.waiting.events);
        let mut events = events.iter().peekable();
        for frame in &frames {
            while let Some(event) = events.next_if(|event| event.turn < frame.turn) {
                self.judge.event(event, primary)?;
            }
            self.judge.judge(frame)?;
            forget(&mut self.judge);
        }
        events.try_for_each(|event| self.judge.event(event, primary))?;
        // The name of each who waits, and what the first one asks for.
        let strings = strings::owned() - self.strings - primary.waiting.blocked.len() as i64;
        if strings > 2 * MOST_STRINGS {
            return Err(format!("the module keeps {strings} strings more than at first"));
        }
        while let Some(step) = primary.propagated.pop_front() {
            for effect in &step {
                if let Reply::Error(error) = self.mirror.apply(effect) {
                    return Err(format!("a server without the module does not take {}: {error}", words(&effect.argv)));
                }
            }
            if self.profile.has_replica {
                self.behind.push_back(step);
            }
        }
        let touched = std::mem::take(&mut primary.touched);
        self.mirror.touched.clear();
        self.mirror.foreign.clear();
        let all = std::mem::take(&mut primary.all_touched);
        self.mirror.all_touched = false;
        if all {
            for database in 0..DATABASES {
                same_data(&self.servers[0], &self.mirror, database, "a server without the module")?;
            }
            return Ok(());
        }
        // Long ones now and then, and when the history ends.
        self.steps += 1;
        let is_turn = self.steps % 16 == 0;
        let is_short =
            |server: &Server, database: usize, key: &Text| match server.entry(database, key).map(|one| &one.value) {
                Some(Value::Stream(stream)) => stream.len() < 256,
                _ => true,
            };
        for (database, key) in &touched {
            if !is_turn && !is_short(&self.servers[0], *database, key) {
                continue;
            }
            same_key(&self.servers[0], &self.mirror, *database, key, "a server without the module")?;
        }
        Ok(())
    }

    /// All who wait go. Then no timer is left, and nothing is kept of them.
    fn nobody_waits(&mut self) -> Verdict {
        self.servers.iter_mut().for_each(|server| server.all_leave());
        self.check()?;
        if !self.judge.lines.is_empty() {
            return Err("somebody still waits, or has a reply coming".into());
        }
        for server in &mut self.servers {
            server.go(1_000);
            if !server.waiting.is_idle() {
                return Err("a timer is left although nobody waits".into());
            }
        }
        Ok(())
    }

    /// All that must be true when a history is over. Gives the copies of the module back.
    pub fn end(mut self) -> Verdict<Modules> {
        self.nobody_waits()?;
        self.step(&Step::Info)?;
        for database in 0..DATABASES {
            same_data(&self.servers[0], &self.mirror, database, "a server without the module")?;
        }
        if self.profile.has_replica {
            self.feed(usize::MAX)?;
        }
        if self.is_swapped {
            self.servers.swap(0, 1);
        }
        for server in &mut self.servers {
            server.reactors.clear();
            server.is_out_of_memory = false;
            server.flush_all();
            // Large tables take long.
            if server.turns.get() % 8 != 0 {
                continue;
            }
            for name in ["cursors", "top-entries"] {
                server.set_config(name, 0)?;
            }
            let memory = server.module.as_ref().map_or(0, |module| module.memory);
            if !(0..=MOST_MEMORY).contains(&memory) {
                return Err(format!("the module keeps {memory} bytes of memory"));
            }
        }
        problems::first().map_or(Ok(()), Err)?;
        let [primary, replica] = self.servers;
        match (primary.module, replica.module) {
            (Some(primary), Some(replica)) => Ok(Modules { primary, replica }),
            _ => Err("a module is gone".into()),
        }
    }
}

/// Entries whose strings the module keeps for the next hit; a copy of it on each server.
const MOST_STRINGS: i64 = 2 * 4;

/// Bytes that the module holds when its tables are empty: a list of those strings, and once somebody has waited, one empty node
/// of each table of lines.
const MOST_MEMORY: i64 = 256 + 5_120;

fn same_key(one: &Server, other: &Server, database: usize, key: &Text, name: &str) -> Verdict {
    let (mine, theirs) = (one.entry(database, key), other.entry(database, key));
    let is_same = match (mine, theirs) {
        (None, None) => true,
        (Some(mine), Some(theirs)) if mine.expires == theirs.expires => match (&mine.value, &theirs.value) {
            (Value::Stream(mine), Value::Stream(theirs)) => mine.same_entries(theirs),
            (mine, theirs) => mine == theirs,
        },
        _ => false,
    };
    if is_same {
        return Ok(());
    }
    let key = String::from_utf8_lossy(key);
    Err(format!("{name} holds {theirs:?}\nnot {mine:?}\nat {key} of database {database}"))
}

fn same_data(one: &Server, other: &Server, database: usize, name: &str) -> Verdict {
    let (mine, theirs) = (&one.databases[database], &other.databases[database]);
    let others = theirs.keys().filter(|key| mine.find(key).is_none());
    mine.keys().chain(others).try_for_each(|key| same_key(one, other, database, key, name))
}
