//! Clients that the module has blocked, and its timers: what the server does with both.
//!
//! A client is blocked on a key, as by BLPOP. It gets its reply from the callback for the timeout: when its time is over, by
//! CLIENT UNBLOCK, or because the module asks for that. Redis 8 calls it then before it sleeps, others at once. A client that
//! goes, or that the server sends away, is made known by another callback.

use std::ffi::c_void;

use redis_module::raw;

use crate::api::{self, Kind};
use crate::frame::{Frame, Part};
use crate::module::CommandFunc;
use crate::problems::problem;
use crate::server::{CRON, Reply, Server};
use crate::stream::Text;
use crate::strings::{self, Str};

pub type LeftFunc = unsafe extern "C" fn(*mut raw::RedisModuleCtx, *mut c_void);
pub type TimerFunc = unsafe extern "C" fn(*mut raw::RedisModuleCtx, *mut c_void);

/// Milliseconds between two ticks of the server's own timer.
const TICK: i64 = 100;

/// How often the server wakes up in one pause. For the rest of it the machine is suspended.
const MOST_WAKES: u32 = 400;

/// A client that waits.
pub struct Blocked {
    /// By which the module knows it.
    pub number: u64,
    pub database: usize,
    pub argv: Vec<Text>,
    /// The key on which it is blocked.
    pub place: Text,
    /// Its arguments, which live as long as it waits.
    pub strings: Vec<*mut Str>,
    pub on_ready: CommandFunc,
    pub on_end: CommandFunc,
    pub on_left: Option<LeftFunc>,
    pub data: *mut c_void,
    /// When its time is over.
    pub until: i64,
    /// The module has asked for its reply.
    pub is_answered: bool,
}

pub struct Timer {
    pub number: u64,
    pub at: i64,
    pub database: usize,
    pub func: TimerFunc,
    pub data: *mut c_void,
}

/// How a client has ceased to wait, unless its time was over.
#[derive(Clone, Debug)]
pub enum What {
    /// The module asks for its reply.
    Answered,
    /// It got it.
    Reply(Reply),
    /// It was gone, or sent away.
    Left,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub number: u64,
    pub what: What,
    /// In which order, together with calls.
    pub turn: u64,
    pub at: i64,
}

#[derive(Default)]
pub struct Waiting {
    pub blocked: Vec<Blocked>,
    pub timers: Vec<Timer>,
    pub events: Vec<Event>,
    /// Keys that were written while somebody was blocked on them.
    pub ready: Vec<(usize, Text)>,
    /// Numbers of clients and timers that were given.
    pub numbers: u64,
    next_tick: i64,
    /// When the machine was suspended, or had its clock set back.
    pub suspended_at: Option<i64>,
}

impl Waiting {
    pub fn is_idle(&self) -> bool {
        self.blocked.is_empty() && self.timers.is_empty()
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

impl Server {
    /// Time passes. The server wakes up for its timers.
    pub fn go(&mut self, milliseconds: i64) {
        let end = self.now.saturating_add(milliseconds);
        if self.waiting.is_idle() {
            self.now = end;
            return;
        }
        if milliseconds < 0 {
            self.waiting.suspended_at = Some(end);
        }
        // A tick comes by a clock that nobody sets.
        let latest = self.now.min(end) + TICK;
        self.waiting.next_tick = self.waiting.next_tick.clamp(self.now.min(end), latest);
        let mut wakes = 0;
        while !self.waiting.is_idle() {
            let timer = self.waiting.timers.iter().map(|timer| timer.at).min();
            let next = timer.map_or(self.waiting.next_tick, |at| at.min(self.waiting.next_tick));
            if next > end {
                break;
            }
            wakes += 1;
            if wakes > MOST_WAKES {
                self.waiting.suspended_at = Some(end);
                self.now = end;
            }
            self.now = self.now.max(next);
            if milliseconds < 0 {
                self.now = end;
            }
            self.wake();
        }
        self.now = self.now.max(end);
        self.before_sleep();
    }

    fn wake(&mut self) {
        let now = self.now;
        while let Some(at) = self.waiting.timers.iter().position(|timer| timer.at <= now) {
            let Timer { database, func, data, .. } = self.waiting.timers.remove(at);
            self.begin();
            let ctx = api::enter(self, Kind::Event, database);
            // SAFETY: the context lives until the function returns; the data are what the module gave.
            unsafe { func(ctx.cast(), data) };
            api::leave(self, ctx);
            self.end();
        }
        if self.waiting.next_tick <= now {
            self.waiting.next_tick = now + TICK;
            self.begin();
            self.server_event(CRON, 0);
            self.end();
        }
        self.before_sleep();
    }

    /// What the server does with those who wait, before it sleeps.
    pub fn before_sleep(&mut self) {
        for (database, key) in std::mem::take(&mut self.waiting.ready) {
            self.key_is_ready(database, &key);
        }
        while let Some(at) = self.waiting.blocked.iter().position(|one| one.until < self.now) {
            self.time_is_over(at, false);
        }
        while let Some(at) = self.waiting.blocked.iter().position(|one| one.is_answered) {
            self.reply_to(at);
        }
    }

    fn key_is_ready(&mut self, database: usize, key: &Text) {
        let is_there = |one: &Blocked| one.database == database && one.place == *key && !one.is_answered;
        let ready: Vec<u64> = self.waiting.blocked.iter().filter(|one| is_there(one)).map(|one| one.number).collect();
        for number in ready {
            let Some(one) = self.waiting.blocked.iter().find(|one| one.number == number) else { continue };
            let (func, data, mut args) = (one.on_ready, one.data, one.strings.clone());
            self.begin();
            let ctx = api::enter_for(self, Kind::Command, database, data);
            // SAFETY: context and strings live until the function returns.
            let status = unsafe { func(ctx.cast(), args.as_mut_ptr().cast(), args.len() as i32) };
            api::leave(self, ctx);
            self.end();
            if status == 0 {
                problem("a client is served because somebody has written another key");
            }
        }
    }

    /// Asks the module for the reply to a client whose time is over, or that is unblocked by command.
    pub fn time_is_over(&mut self, at: usize, by_command: bool) {
        if self.waiting.blocked[at].is_answered {
            return self.reply_to(at);
        }
        let one = self.waiting.blocked.remove(at);
        self.begin();
        let mut frame = Box::new(Frame::begin(self, one.database, &one.argv));
        frame.may_write = true;
        frame.part = Part::Ends { number: one.number, by_command };
        frame.is_paused = self.is_paused;
        self.open.push(frame);
        let reply = self.ask_for_reply(&one);
        if let Some(mut frame) = self.open.pop() {
            frame.end(self, &reply);
            self.frames.push(frame);
        }
        self.end();
        one.strings.into_iter().for_each(strings::release);
    }

    /// Asks for the reply that the module has for a client.
    pub fn reply_to(&mut self, at: usize) {
        let one = self.waiting.blocked.remove(at);
        self.begin();
        let reply = self.ask_for_reply(&one);
        self.end();
        self.has_happened(one.number, What::Reply(reply));
        one.strings.into_iter().for_each(strings::release);
    }

    fn ask_for_reply(&mut self, one: &Blocked) -> Reply {
        let ctx = api::enter_for(self, Kind::Command, one.database, one.data);
        let mut args = one.strings.clone();
        // SAFETY: context and strings live until the function returns.
        unsafe { (one.on_end)(ctx.cast(), args.as_mut_ptr().cast(), args.len() as i32) };
        api::leave(self, ctx).unwrap_or_else(|| {
            problem("a client that waits gets no reply");
            Reply::Nil
        })
    }

    /// A client disconnects, or is sent away by the server.
    pub fn leaves(&mut self, at: usize) {
        let one = self.waiting.blocked.remove(at);
        self.has_happened(one.number, What::Left);
        if let Some(func) = one.on_left {
            self.begin();
            let ctx = api::enter_for(self, Kind::Event, one.database, one.data);
            // SAFETY: the context lives until the function returns.
            unsafe { func(ctx.cast(), one.number as *mut c_void) };
            api::leave(self, ctx);
            self.end();
        }
        one.strings.into_iter().for_each(strings::release);
    }

    pub fn all_leave(&mut self) {
        while !self.waiting.blocked.is_empty() {
            self.leaves(0);
        }
    }

    pub fn has_happened(&mut self, number: u64, what: What) {
        self.turns.set(self.turns.get() + 1);
        self.waiting.events.push(Event { number, what, turn: self.turns.get(), at: self.now });
    }
}
