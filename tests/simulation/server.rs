//! The server: what it holds, when keys expire, who is told of what, and how commands run.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString, c_int, c_void};
use std::hash::BuildHasherDefault;
use std::rc::Rc;

use crate::api::{self, Kind};
use crate::database::{Database, Hasher, is_same};
use crate::frame::{Frame, Known, Part, Seen, keys_of};
use crate::module::Module;
use crate::stream::{self, Bounds, Fields, Id, Stream, Text};
use crate::strings;
use crate::waiting::Waiting;

/// What servers differ in, as far as the module sees it.
#[derive(Debug)]
pub struct Flavor {
    pub name: &'static str,
    /// `0x00MMmmpp`; Valkey says that of the Redis that it began with.
    pub version: c_int,
    /// As `INFO server` shows it; None on Redis.
    pub valkey: Option<&'static str>,
    /// Functions of the API that it does not have.
    pub lacks: &'static [&'static str],
    /// `GetModuleOptionsAll`.
    pub options: c_int,
    pub streams: stream::Server,
    /// The command with which it replicates that a key has expired.
    pub expires_by: &'static str,
    /// RESTORE with REPLACE looks at what is there, so that a key that has expired is deleted first.
    pub restore_looks: bool,
    /// The module's reply to a client that it unblocks is asked for before the server sleeps, and not at once.
    pub answers_late: bool,
}

const SINCE_7_2: [&str; 4] = [
    "RedisModule_CachedMicroseconds",
    "RedisModule_SetCommandACLCategories",
    "RedisModule_AddACLCategory",
    "RedisModule_GetModuleOptionsAll",
];

pub static FLAVORS: [Flavor; 4] = [
    Flavor {
        name: "Redis 7.0",
        version: 0x07000f,
        valkey: None,
        lacks: &SINCE_7_2,
        options: 0,
        streams: stream::Server::Redis70,
        expires_by: "DEL",
        restore_looks: false,
        answers_late: false,
    },
    Flavor {
        name: "Redis 8.2",
        version: 0x080203,
        valkey: None,
        lacks: &[],
        options: 0x1f,
        streams: stream::Server::Usual,
        expires_by: "DEL",
        restore_looks: true,
        answers_late: true,
    },
    Flavor {
        name: "Valkey 8.1",
        version: 0x070204,
        valkey: Some("8.1.8"),
        lacks: &[],
        options: 0x1f,
        streams: stream::Server::Usual,
        expires_by: "UNLINK",
        restore_looks: false,
        answers_late: false,
    },
    Flavor {
        name: "Valkey 9.1",
        version: 0x070204,
        valkey: Some("9.1.2"),
        lacks: &[],
        options: 0x3f,
        streams: stream::Server::Valkey91,
        expires_by: "UNLINK",
        restore_looks: false,
        answers_late: false,
    },
];

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Stream(Stream),
    /// Of a type that the limiter has no use for.
    Other(Text),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub value: Value,
    /// Milliseconds since the epoch.
    pub expires: Option<i64>,
    /// Which value it is, of all there ever were: an open key notices that it is another one.
    pub birth: u64,
    /// What was there when somebody last looked.
    pub seen: Seen,
}

pub const DATABASES: usize = 2;

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Nil,
    Status(String),
    Error(String),
    Integer(i64),
    Text(Text),
    Array(Vec<Reply>),
}

impl Reply {
    pub fn ok() -> Self {
        Self::Status("OK".into())
    }

    pub fn error(text: &str) -> Self {
        Self::Error(text.into())
    }
}

/// One command that replicas and append-only files are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub database: usize,
    pub argv: Rc<[Text]>,
}

/// Another module, which does something when it hears of an event.
#[derive(Clone, Debug)]
pub struct Reactor {
    /// None for any.
    pub event: Option<String>,
    pub key: Option<Text>,
    pub times: u32,
    pub argv: Vec<Text>,
    is_active: bool,
}

impl Reactor {
    pub fn new(event: Option<String>, key: Option<Text>, times: u32, argv: Vec<Text>) -> Self {
        Self { event, key, times, argv, is_active: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    Replica,
}

/// How often the next call of a function of the API fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    StreamAdd,
    Xinfo,
    Restore,
    RestoreIsRenamed,
}

pub struct Server {
    pub flavor: &'static Flavor,
    /// The clock, in milliseconds since the epoch.
    pub now: i64,
    /// The clock when the running command began.
    pub cached: i64,
    /// What each look at the clock takes, as no clock waits for a command.
    pub tick: i64,
    /// How often the module saw an earlier time than before.
    pub clock_steps: u64,
    pub role: Role,
    pub bounds: Bounds,
    /// Classes of events for clients; modules hear of all.
    pub notify_flags: c_int,
    pub is_out_of_memory: bool,
    pub databases: [Database; DATABASES],
    pub module: Option<Box<Module>>,
    /// Those at the front hear of an event before the module does.
    pub reactors: Vec<Reactor>,
    pub reactors_first: usize,
    /// What the running command has told replicas so far.
    effects: Vec<Effect>,
    /// What they were told, a step of the server at a time.
    pub propagated: VecDeque<Vec<Effect>>,
    /// Keys that may have changed since this was read last; `all_touched` for all of them.
    pub touched: Vec<(usize, Text)>,
    pub all_touched: bool,
    /// Keys that commands of others named; `all_foreign` if they named none.
    pub foreign: Vec<(usize, Text)>,
    pub all_foreign: bool,
    /// The module's commands that are running, the outermost first.
    pub open: Vec<Box<Frame>>,
    /// Those that have ended.
    pub frames: Vec<Box<Frame>>,
    /// Values that DUMP has put aside.
    pub dumps: Rc<RefCell<Vec<Value>>>,
    /// What the server applies comes from its primary.
    pub is_fed: bool,
    pub failure: Option<Failure>,
    pub nesting: u32,
    /// Clients that wait, and timers.
    pub waiting: Waiting,
    /// The next command is a client's own, which may be blocked.
    may_block: bool,
    /// What the next command is for.
    pub part: Part,
    /// CLIENT PAUSE: nothing is written.
    pub is_paused: bool,
    /// Whoever is not the default user may do nothing any more.
    pub is_denied: bool,
    /// The event that is being sent is one of the module's.
    is_own_event: bool,
    /// The server's own commands that are running.
    pub natives: u32,
    /// Keys that are being created.
    pub born: Vec<Text>,
    /// Counts the calls of the module in the order in which they have had their effect.
    pub turns: Cell<u64>,
    /// What calls of the module have left at keys.
    pub left: RefCell<Left>,
    /// How often the module made its table of cursors anew. Another server begins with a high number.
    pub tables: u64,
    births: u64,
}

/// What was at keys. The order of the map is not looked at.
pub type Left = HashMap<(usize, Text), Known, BuildHasherDefault<Hasher>>;

impl Server {
    pub fn new(flavor: &'static Flavor, now: i64, bounds: Bounds) -> Self {
        Self {
            flavor,
            now,
            cached: now,
            tick: 0,
            clock_steps: 0,
            role: Role::Primary,
            bounds,
            notify_flags: 0,
            is_out_of_memory: false,
            databases: Default::default(),
            module: None,
            reactors: Vec::new(),
            reactors_first: 0,
            effects: Vec::new(),
            propagated: VecDeque::new(),
            touched: Vec::new(),
            all_touched: false,
            foreign: Vec::new(),
            all_foreign: false,
            open: Vec::new(),
            frames: Vec::new(),
            dumps: Rc::default(),
            is_fed: false,
            failure: None,
            nesting: 0,
            waiting: Waiting::default(),
            may_block: false,
            part: Part::Whole,
            is_paused: false,
            is_denied: false,
            is_own_event: false,
            natives: 0,
            born: Vec::new(),
            turns: Cell::new(0),
            left: RefCell::default(),
            tables: 0,
            births: 0,
        }
    }

    /// The time that the module is told: when the command began, or by a clock that goes on while a command runs.
    pub fn clock(&mut self, has_gone_on: bool) -> i64 {
        self.now += if has_gone_on { self.tick } else { 0 };
        let seen = if has_gone_on { self.now } else { self.cached };
        if let Some(module) = &mut self.module {
            let before = std::mem::replace(&mut module.saw_last, seen);
            self.clock_steps += u64::from(seen < before);
        }
        if let Some(frame) = self.open.last_mut() {
            frame.clock.get_or_insert(seen);
        }
        seen
    }

    pub fn birth(&mut self) -> u64 {
        self.births += 1;
        self.births
    }

    /// An empty stream, as XADD and the module API begin with.
    pub fn empty_stream(&self) -> Value {
        Value::Stream(Stream::of(self.flavor.streams))
    }

    // Keys.

    pub fn entry(&self, database: usize, key: &[u8]) -> Option<&Entry> {
        self.databases[database].get(key)
    }

    fn has_expired(&self, entry: &Entry) -> bool {
        !self.is_fed && entry.expires.is_some_and(|at| self.cached > at)
    }

    /// Whether the key exists. One that has expired is deleted by a primary, and is absent on a replica.
    pub fn exists(&mut self, database: usize, key: &Text) -> bool {
        match self.entry(database, key) {
            None => false,
            Some(entry) if !self.has_expired(entry) => true,
            Some(_) => {
                if self.role == Role::Primary && !self.is_paused {
                    self.delete_expired(database, key);
                }
                // Another module may have created it again, but who asked is told that it is not there.
                false
            }
        }
    }

    fn delete_expired(&mut self, database: usize, key: &Text) {
        self.remove(database, key);
        self.tell(database, [text(self.flavor.expires_by), key.clone()]);
        self.notify(database, EXPIRED, c"expired", key);
    }

    /// Deletes the key if it has expired, as the server does from time to time on its own.
    pub fn expire_cycle(&mut self, database: usize, key: &Text) {
        self.begin();
        if self.role == Role::Primary && self.entry(database, key).is_some_and(|entry| self.has_expired(entry)) {
            self.delete_expired(database, key);
        }
        self.end();
    }

    pub fn evict(&mut self, database: usize, key: &Text) {
        self.begin();
        if self.role == Role::Primary && self.entry(database, key).is_some() {
            self.remove(database, key);
            self.tell(database, [text("DEL"), key.clone()]);
            self.notify(database, EVICTED, c"evicted", key);
        }
        self.end();
    }

    pub fn remove(&mut self, database: usize, key: &Text) -> Option<Entry> {
        self.touch(database, key);
        self.databases[database].remove(key)
    }

    pub fn put(&mut self, database: usize, key: &Text, value: Value, expires: Option<i64>) {
        let birth = self.birth();
        self.touch(database, key);
        // Strings wake nobody.
        let wakes = !matches!(&value, Value::Other(kind) if **kind == b"string"[..]);
        if wakes && !self.waiting.blocked.is_empty() {
            self.waiting.ready.push((database, key.clone()));
        }
        self.databases[database].insert(key.clone(), Entry { value, expires, birth, seen: Seen::default() });
    }

    pub fn touch(&mut self, database: usize, key: &Text) {
        let is_last = |last: &(usize, Text)| last.0 == database && is_same(&last.1, key);
        if !self.is_fed && !self.touched.last().is_some_and(is_last) {
            self.touched.push((database, key.clone()));
        }
    }

    // What replicas are told.

    pub fn tell(&mut self, database: usize, argv: impl Into<Rc<[Text]>>) {
        if !self.is_fed {
            self.effects.push(Effect { database, argv: argv.into() });
        }
    }

    /// Begins a step of the server, or something within one.
    pub fn begin(&mut self) {
        if self.nesting == 0 {
            self.cached = self.now;
        }
        self.nesting += 1;
    }

    pub fn end(&mut self) {
        self.nesting -= 1;
        if self.nesting == 0 && !self.effects.is_empty() {
            self.propagated.push_back(std::mem::take(&mut self.effects));
        }
    }

    // Events.

    /// Tells every module of an event.
    pub fn notify(&mut self, database: usize, class: c_int, name: &CStr, key: &Text) {
        self.notify_as(false, database, class, name, key);
    }

    /// The same of an event of the module's own, or of another. `name` is passed on as it is: listeners may go by the pointer.
    pub fn notify_as(&mut self, is_own: bool, database: usize, class: c_int, name: &CStr, key: &Text) {
        let was = std::mem::replace(&mut self.is_own_event, is_own);
        self.tell_all(database, class, name, key);
        self.is_own_event = was;
    }

    fn tell_all(&mut self, database: usize, class: c_int, name: &CStr, key: &Text) {
        if self.is_fed && self.module.is_none() {
            return;
        }
        let (before, after) = (0..self.reactors_first, self.reactors_first..usize::MAX);
        self.react(before, database, name, key);
        self.tell_module(database, class, name, key);
        self.react(after, database, name, key);
    }

    fn tell_module(&mut self, database: usize, class: c_int, name: &CStr, key: &Text) {
        let Some((classes, handler)) = self.module.as_ref().and_then(|module| module.key_events) else { return };
        if classes & class == 0 {
            return;
        }
        let ctx = api::enter(self, Kind::Event, database);
        let string = strings::lend(key);
        // SAFETY: context and string live until the handler returns; the name is a C string.
        unsafe { handler(ctx.cast(), class, name.as_ptr(), string.cast()) };
        strings::take_back(string);
        api::leave(self, ctx);
    }

    fn react(&mut self, range: std::ops::Range<usize>, database: usize, name: &CStr, key: &Text) {
        // A module is not told of what it does itself in an event.
        for at in range {
            let Some(reactor) = self.reactors.get_mut(at) else { break };
            let wants = reactor.event.as_ref().is_none_or(|event| event.as_bytes() == name.to_bytes())
                && reactor.key.as_ref().is_none_or(|wanted| is_same(wanted, key));
            if reactor.is_active || reactor.times == 0 || !wants {
                continue;
            }
            let argv = reactor.argv.clone();
            // What a command of the server does then is between that module and the server.
            if self.natives > 0 && name == c"expired" {
                continue;
            }
            // The server does not survive it if a key goes while it is being created, and replicas do not know of it yet.
            let is_born = |key: &Text| self.born.contains(key);
            if !self.born.is_empty() && keys_of(&argv).is_none_or(|keys| keys.iter().any(is_born)) {
                continue;
            }
            let Some(reactor) = self.reactors.get_mut(at) else { break };
            reactor.times -= 1;
            reactor.is_active = true;
            if let Some(frame) = self.open.last_mut() {
                frame.disturb();
            }
            // Whatever it replies: an action need not be possible.
            self.run(database, &argv);
            if let Some(reactor) = self.reactors.get_mut(at) {
                reactor.is_active = false;
            }
        }
    }

    /// Tells the module of an event of the server.
    pub fn server_event(&mut self, id: u64, subevent: u64) {
        let handlers: Vec<_> = match &self.module {
            Some(module) => module.server_events.iter().filter(|event| event.0 == id).map(|event| event.1).collect(),
            None => return,
        };
        for handler in handlers {
            let ctx = api::enter(self, Kind::Event, 0);
            let event = redis_module::raw::RedisModuleEvent { id, dataver: 1 };
            // SAFETY: the context lives until the handler returns, and the module looks at nothing else.
            unsafe { handler(ctx.cast(), event, subevent, std::ptr::null_mut::<c_void>()) };
            api::leave(self, ctx);
        }
    }

    // Commands.

    /// A command of a client.
    pub fn command(&mut self, database: usize, argv: &[Text]) -> Reply {
        self.begin();
        self.may_block = true;
        let reply = self.run(database, argv);
        self.may_block = false;
        self.end();
        reply
    }

    /// Several commands at one time: a transaction or a script.
    pub fn together(&mut self, database: usize, commands: &[Vec<Text>]) -> Vec<Reply> {
        self.begin();
        let replies = commands.iter().map(|argv| self.run(database, argv)).collect();
        self.end();
        replies
    }

    /// A command of a primary.
    pub fn apply(&mut self, effect: &Effect) -> Reply {
        let was = std::mem::replace(&mut self.is_fed, true);
        self.begin();
        let reply = self.run(effect.database, &effect.argv);
        self.end();
        self.is_fed = was;
        reply
    }

    pub fn run(&mut self, database: usize, argv: &[Text]) -> Reply {
        let may_block = std::mem::take(&mut self.may_block);
        let part = std::mem::replace(&mut self.part, Part::Whole);
        let Some(name) = argv.first() else { return Reply::error("ERR no command") };
        if !is_of_module(argv) {
            return self.native(database, argv);
        }
        let Some(module) = &self.module else { return Reply::error("ERR unknown command") };
        let filter = module.filter;
        if let Some(filter) = filter {
            api::at(self);
            // SAFETY: the module ignores the argument.
            unsafe { filter(std::ptr::null_mut()) };
        }
        let Some(command) = self.module.as_ref().and_then(|module| module.command(name)) else {
            return Reply::error("ERR unknown command");
        };
        let (func, arity, count) = (command.func, command.arity, argv.len() as i32);
        let command_writes = command.writes;
        if arity > 0 && count != arity || count < -arity {
            let name = command.name.to_string_lossy();
            return Reply::Error(format!("ERR wrong number of arguments for '{name}' command"));
        }
        if self.is_out_of_memory && command.denies_oom {
            return Reply::error("OOM command not allowed when used memory > 'maxmemory'.");
        }
        if self.role == Role::Replica && command.writes {
            return Reply::error("READONLY You can't write against a read only replica.");
        }
        let mut frame = Box::new(Frame::begin(self, database, argv));
        self.part_twins(&frame);
        frame.may_write = command_writes;
        (frame.may_block, frame.part) = (may_block, part);
        self.open.push(frame);
        let reply = api::call(self, func, database, argv);
        if let Some(mut frame) = self.open.pop() {
            frame.end(self, &reply);
            self.frames.push(frame);
        }
        reply
    }

    /// The module takes a log for the one it knows if both end with the same hit and have the same number of entries, as
    /// docs/reliability.md says. Only a copy, made by others, that went on by itself and was put back can do so and differ, if
    /// its last hit came in the same millisecond. Then the module has to forget what it knows.
    fn part_twins(&mut self, frame: &Frame) {
        let is_twin = |(key, before): (&Text, &Known)| {
            let left = self.left.borrow();
            let Some(left) = left.get(&(frame.database, key.clone())) else { return false };
            let (old, new) = (left.rows(), before.rows());
            old.len() == new.len() && old.last().map(|row| row.id) == new.last().map(|row| row.id) && old != new
        };
        if frame.keys().iter().zip(&frame.before).any(is_twin) {
            let cursors = self.get_config("cursors").unwrap_or(0);
            let _ = self.set_config("cursors", cursors);
        }
    }

    /// What is at a key.
    pub fn known(&self, database: usize, key: &[u8]) -> Known {
        match self.entry(database, key) {
            Some(entry) if self.has_expired(entry) => Known::ABSENT,
            entry => Known::of(entry),
        }
    }

    // The whole.

    pub fn flush_all(&mut self) {
        self.server_event(FLUSHDB, 0);
        self.databases.iter_mut().for_each(Database::clear);
        self.all_touched = true;
        self.server_event(FLUSHDB, 1);
    }

    /// Loads a data set in place of its own. Expired keys are left out by a primary.
    pub fn load(&mut self, mut databases: [Database; DATABASES], id: u64) {
        self.server_event(id, 0);
        for database in &mut databases {
            if self.role == Role::Primary {
                let now = self.now;
                database.retain(|_, entry| entry.expires.is_none_or(|at| at >= now));
            }
            for entry in database.values_mut() {
                self.births += 1;
                entry.birth = self.births;
            }
        }
        self.databases = databases;
        self.all_touched = true;
        self.server_event(id, if id == LOADING { 3 } else { 2 });
    }

    pub fn become_primary(&mut self) {
        self.role = Role::Primary;
        self.server_event(ROLE_CHANGED, 0);
    }

    pub fn become_replica(&mut self) {
        self.role = Role::Replica;
        // They are sent away with UNBLOCKED.
        self.all_leave();
        self.server_event(ROLE_CHANGED, 1);
    }

    /// Slots have moved away as a whole: their keys go without an event for each.
    pub fn slots_move(&mut self, leaves: impl Fn(&[u8]) -> bool) {
        self.databases[0].retain(|key, _| !leaves(key));
        // They are sent away with MOVED.
        let is_moved =
            |one: &crate::waiting::Blocked| one.database == 0 && one.argv.get(1).is_some_and(|key| leaves(key));
        while let Some(at) = self.waiting.blocked.iter().position(is_moved) {
            self.leaves(at);
        }
        self.all_touched = true;
        self.server_event(SLOTS_TRIMMED, 1);
    }

    pub fn info(&mut self) -> Vec<(String, String)> {
        api::info(self)
    }

    /// `CONFIG SET ratelimit.*`.
    pub fn set_config(&mut self, name: &str, value: i64) -> Result<(), &'static str> {
        let Some(setting) = self.module.as_ref().and_then(|module| module.setting(name)) else {
            return Err("ERR unknown option");
        };
        if value < setting.min || value > setting.max {
            return Err("ERR argument must be between");
        }
        let setting = setting.clone();
        self.tables += u64::from(name == "cursors");
        let name = CString::new(name).map_err(|_| "ERR unknown option")?;
        api::at(self);
        let mut error = std::ptr::null_mut();
        // SAFETY: the name is a C string; the module ignores the rest.
        let status = unsafe { (setting.set)(name.as_ptr(), value, std::ptr::null_mut(), &raw mut error) };
        if status == 0 { Ok(()) } else { Err("ERR the module did not accept it") }
    }

    pub fn get_config(&mut self, name: &str) -> Option<i64> {
        let setting = self.module.as_ref()?.setting(name)?.clone();
        api::at(self);
        let name = CString::new(name).ok()?;
        // SAFETY: the name is a C string; the module ignores the rest.
        Some(unsafe { (setting.get)(name.as_ptr(), std::ptr::null_mut()) })
    }
}

fn is_of_module(argv: &[Text]) -> bool {
    const BEGINNING: &[u8; 10] = b"RATELIMIT.";
    let begins = |name: &[u8; 10]| name == BEGINNING || name.eq_ignore_ascii_case(BEGINNING);
    argv.first().is_some_and(|name| name.len() > BEGINNING.len() && name.first_chunk().is_some_and(begins))
}

/// The fields of an entry with these texts. Most entries have those of others, on every server, and share them.
pub fn fields(texts: &[Text]) -> Fields {
    let hash = texts.iter().fold(texts.len(), |hash, text| {
        let (first, last) = (text.first().copied().unwrap_or(0), text.last().copied().unwrap_or(0));
        let middle = text.get(text.len() / 2).copied().unwrap_or(0);
        let word = u32::from_le_bytes([first, middle, last, text.len() as u8]) as usize;
        (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    RECENT.with_borrow_mut(|recent| {
        let place = &mut recent[hash >> (usize::BITS - PLACES.ilog2())];
        match place {
            Some(known) if are(known, texts) => known.clone(),
            _ => place.insert(Fields::of(texts)).clone(),
        }
    })
}

fn are(known: &Fields, texts: &[Text]) -> bool {
    let known = known.texts();
    known.len() == texts.len() && known.iter().zip(texts).all(|(known, text)| is_same(known, text))
}

/// How many fields are remembered.
const PLACES: usize = 256;

thread_local! {
    static RECENT: RefCell<[Option<Fields>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

pub fn text(bytes: impl AsRef<[u8]>) -> Text {
    Rc::from(bytes.as_ref())
}

pub fn argv(line: &str) -> Vec<Text> {
    line.split(' ').map(text).collect()
}

/// The name of a command in upper case.
pub fn name_of(argv: &[Text]) -> Name {
    let mut name = Name { letters: [0; 20], length: 0 };
    let given = argv.first().map_or(&[][..], |name| name);
    if given.len() <= name.letters.len() {
        name.length = given.len();
        name.letters[..given.len()].copy_from_slice(given);
        name.letters.make_ascii_uppercase();
    }
    name
}

/// The name of a command; an empty one if it is longer than any.
#[derive(Clone, Copy)]
pub struct Name {
    letters: [u8; 20],
    length: usize,
}

impl Name {
    pub fn bytes(&self) -> &[u8] {
        &self.letters[..self.length]
    }
}

/// A command as one would type it.
pub fn words(argv: &[Text]) -> String {
    argv.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ")
}

pub fn id_text(id: Id) -> Text {
    // Two numbers of at most 20 digits, written from the right, and a dash between them.
    let mut digits = [b'-'; 41];
    let write = |digits: &mut [u8; 41], mut at: usize, mut number: u64| loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break at;
        }
    };
    let dash = write(&mut digits, 41, id.seq) - 1;
    let start = write(&mut digits, dash, id.ms);
    text(&digits[start..])
}

// Classes of keyspace events, and events of the server.
pub const GENERIC: c_int = 1 << 2;
pub const STRING: c_int = 1 << 3;
pub const LIST: c_int = 1 << 4;
pub const EXPIRED: c_int = 1 << 8;
pub const EVICTED: c_int = 1 << 9;
pub const STREAM: c_int = 1 << 10;
pub const MODULE: c_int = 1 << 13;
pub const NEW: c_int = 1 << 14;
pub const ROLE_CHANGED: u64 = 0;
pub const FLUSHDB: u64 = 2;
pub const LOADING: u64 = 3;
pub const CRON: u64 = 8;
pub const SWAPDB: u64 = 11;
pub const ASYNC_LOAD: u64 = 14;
pub const SLOTS_TRIMMED: u64 = 19;
