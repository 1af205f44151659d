//! The raw API of the server, as far as a log needs it: keys, streams, expiry, replication, events, the clock.
//!
//! All of it runs on the server's main thread, inside a command. The crate's wrappers are not used here because they have
//! none for appending, allocate for every field, and take "nothing trimmed" for an error.
//!
//! Rules of the server that this file keeps, so that nobody else has to know them:
//! * every field of an entry is read before the iterator moves on, or the iterator is stopped: otherwise the server ends
//!   on an assertion, or never returns;
//! * an iterator is stopped before the key is written;
//! * appending and setting an expiry notify nobody and replicate nothing: that is done by hand, by effect, so that a
//!   replica or an AOF without this module ends with the same data;
//! * keys are opened with implicit signals turned off (see `register`), so that a refused hit disturbs no WATCH;
//! * other modules act in events, and may do anything to any key. So events are sent by [`Server::tell`], when every key
//!   is closed, and after the first of them nothing of the command is touched. Two events cannot be put off: opening a
//!   key that has expired sends `expired`, so that keys are settled first, see [`Server::settle`]; and creating a key sends
//!   `new` before the entry is in it, so that no other key is open then, see `charge`.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_long, c_longlong};
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use redis_module::{CallOptionsBuilder, CallReply, CallResult, Context, raw};

use crate::args::units;
use crate::cursors::{Followed, Table};
use crate::error::{self, Error};
use crate::limiter::{Append, Write};
use crate::log::{Entry, Hit, Id, Log, Store, Written};
use crate::offenders::Offenders;
use crate::retention::Retention;
use crate::stats::STATS;

const OK: c_int = raw::REDISMODULE_OK as c_int;

/// A function of the server's API. The ones this module needs are checked at load, so an absent one is a bug.
fn api<F>(pointer: Option<F>) -> Result<F, Error> {
    pointer.ok_or(error::INTERNAL)
}

/// An argument of the command that is running: a string of the server, alive for as long as the command is.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Arg<'a> {
    raw: *mut raw::RedisModuleString,
    command: PhantomData<&'a ()>,
}

impl<'a> Arg<'a> {
    pub fn bytes(self) -> &'a [u8] {
        // SAFETY: the server keeps the strings of argv unchanged until the command returns, which `'a` does not outlive.
        unsafe { bytes_of(self.raw) }
    }
}

/// # Safety
/// `string` is a string of the server, and neither freed nor changed during `'a`.
unsafe fn bytes_of<'a>(string: *const raw::RedisModuleString) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: StringPtrLen accepts any string and answers with its buffer and the number of bytes in it.
    unsafe {
        match raw::RedisModule_StringPtrLen {
            Some(pointer_of) => match pointer_of(string, &raw mut length) {
                start if start.is_null() => &[],
                start => std::slice::from_raw_parts(start.cast(), length),
            },
            None => &[],
        }
    }
}

/// What commands share. The server runs one of them at a time, whichever thread it is on, so that no lock is needed; work
/// inside other work, which there is none of, is not done.
pub struct Exclusive<T> {
    value: UnsafeCell<T>,
    in_use: AtomicBool,
}

// SAFETY: the server's own lock is held by whatever runs a command or hears an event, and everything that this module does
// is one of the two; so threads take turns. Within one thread `in_use` keeps a second reference from being made.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), in_use: AtomicBool::new(false) }
    }

    /// None, without any work, inside the work of another call.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        struct Release<'a>(&'a AtomicBool);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.store(false, Relaxed);
            }
        }
        if self.in_use.load(Relaxed) {
            return None;
        }
        self.in_use.store(true, Relaxed);
        let _release = Release(&self.in_use);
        // SAFETY: as above, this is the only reference until it is released.
        Some(work(unsafe { &mut *self.value.get() }))
    }
}

pub static CURSORS: Exclusive<Table> = Exclusive::new(Table::new());
pub static OFFENDERS: Exclusive<Offenders> = Exclusive::new(Offenders::new());

/// A string of the server that we own.
struct OwnedString(*mut raw::RedisModuleString);

// SAFETY: strings of the server may be freed by any thread; only its main thread, where commands run, uses them.
unsafe impl Send for OwnedString {}

impl OwnedString {
    fn new(text: &str) -> Result<Self, Error> {
        // SAFETY: CreateString copies the bytes; without a context the string is ours alone to free.
        let string = unsafe { api(raw::RedisModule_CreateString)?(null_mut(), text.as_ptr().cast(), text.len()) };
        Ok(Self(string))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the string lives until `self` is dropped and nothing changes it.
        unsafe { bytes_of(self.0) }
    }
}

impl Drop for OwnedString {
    fn drop(&mut self) {
        // SAFETY: the string is ours, and is freed once.
        unsafe {
            if let (Some(free), false) = (raw::RedisModule_FreeString, self.0.is_null()) {
                free(null_mut(), self.0);
            }
        }
    }
}

/// The field and the value of an entry. Most entries are like one of those before, and need no new strings.
struct Pair {
    retention: Retention,
    cost: u64,
    field: OwnedString,
    value: OwnedString,
}

/// The pairs of the policies that were hit last.
static PAIRS: Exclusive<VecDeque<Pair>> = Exclusive::new(VecDeque::new());
const MAX_PAIRS: usize = 4;

impl Pair {
    fn new(retention: Retention, cost: u64) -> Result<Self, Error> {
        let (field, value) = (OwnedString::new(&retention.to_string())?, OwnedString::new(&cost.to_string())?);
        Ok(Self { retention, cost, field, value })
    }

    /// Takes a pair out, so that nobody else frees it: another module that hears of our hit may hit in turn. Whoever takes
    /// it puts it back.
    fn take(retention: Retention, cost: u64) -> Result<Self, Error> {
        let known = PAIRS.with(|pairs| {
            let at = pairs.iter().position(|pair| pair.retention == retention && pair.cost == cost)?;
            pairs.swap_remove_front(at)
        });
        known.flatten().map_or_else(|| Self::new(retention, cost), Ok)
    }

    fn put_back(self) {
        PAIRS.with(|pairs| {
            pairs.truncate(MAX_PAIRS.saturating_sub(1));
            pairs.push_front(self);
        });
    }
}

/// The server, during one command.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    ctx: *mut raw::RedisModuleCtx,
    command: PhantomData<&'a ()>,
}

/// What a key is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
}

impl<'a> Server<'a> {
    /// # Safety
    /// `ctx` is the context of a command that does not return during `'a`.
    pub unsafe fn new(ctx: *mut raw::RedisModuleCtx) -> Self {
        Self { ctx, command: PhantomData }
    }

    /// Milliseconds since the epoch: the time at which the command began where the server has it (7.2), so that all that
    /// happens in one step happens at one time.
    pub fn clock(self) -> u64 {
        // SAFETY: both functions take nothing and only read the clock.
        let milliseconds = unsafe {
            match (raw::RedisModule_CachedMicroseconds, raw::RedisModule_Milliseconds) {
                (Some(cached), _) => cached() / 1_000,
                (None, Some(now)) => now(),
                (None, None) => 0,
            }
        };
        let now = u64::try_from(milliseconds).unwrap_or(0);
        STATS.saw_clock(now);
        now
    }

    /// The number of the database that the client has selected.
    pub fn database(self) -> Result<i32, Error> {
        // SAFETY: the context is that of the running command.
        Ok(unsafe { api(raw::RedisModule_GetSelectedDb)?(self.ctx) })
    }

    /// Deletes those of these keys that have expired. Other modules hear of that and may do anything to any key, so it is
    /// done before the first of several keys is read. Opening them for writing tells nobody anything from then on.
    pub fn settle(self, names: &[Arg<'a>]) -> Result<(), Error> {
        names.iter().try_for_each(|name| self.open_once(*name, Mode::Write).map(drop))
    }

    /// Opens a key that holds a stream or does not exist, with its cursor if there is one.
    pub fn follow(self, name: Arg<'a>, mode: Mode) -> Result<Followed<Key<'a>>, Error> {
        let key = self.open(name, mode)?;
        let (database, length) = (self.database()?, key.length());
        let cursor = CURSORS.with(|table| match length {
            // Somebody may have deleted it without an event.
            0 => {
                table.forget(database, name.bytes());
                None
            }
            _ => table.take(database, name.bytes(), length),
        });
        let cursor = cursor.flatten();
        Ok(Followed::new(key, cursor))
    }

    /// Closes the key, and puts its cursor back into the table. What is to be told of it.
    #[inline]
    pub fn close(self, log: Followed<Key>) -> Events {
        let (key, cursor) = log.into_parts();
        if let Some(cursor) = cursor {
            CURSORS.with(|table| table.put(cursor));
        }
        key.events
    }

    /// Sends the events of a key. Anybody may do anything to any key before it returns.
    pub fn tell(self, name: Arg, events: Events) -> Result<(), Error> {
        if events == Events::default() {
            return Ok(());
        }
        for (event, class, text) in &EVENTS {
            if events.0 & event.0 != 0 {
                // SAFETY: context and name belong to the running command.
                unsafe { api(raw::RedisModule_NotifyKeyspaceEvent)?(self.ctx, *class, text.as_ptr(), name.raw) };
            }
        }
        Ok(())
    }

    /// Whether the server sends events of modules at all.
    pub fn module_events_are_on(self) -> Result<bool, Error> {
        // SAFETY: the function takes nothing and only reads the configuration.
        let turned_on = unsafe { api(raw::RedisModule_GetNotifyKeyspaceEvents)?() };
        Ok(turned_on & raw::REDISMODULE_NOTIFY_MODULE != 0)
    }

    /// Opens a key that holds a stream or does not exist.
    #[inline]
    pub fn open(self, name: Arg<'a>, mode: Mode) -> Result<Key<'a>, Error> {
        let key = self.open_once(name, mode)?;
        if mode == Mode::Write && !key.exists()? {
            // It may have expired just now, and whoever heard of that may have created it again.
            drop(key);
            return self.open_once(name, mode);
        }
        Ok(key)
    }

    #[inline]
    fn open_once(self, name: Arg<'a>, mode: Mode) -> Result<Key<'a>, Error> {
        let flags = match mode {
            Mode::Read => raw::REDISMODULE_READ,
            Mode::Write => raw::REDISMODULE_READ | raw::REDISMODULE_WRITE,
        };
        // SAFETY: context and name belong to the running command. A null key means that it does not exist, which every
        // function that takes a key accepts.
        let raw = unsafe { api(raw::RedisModule_OpenKey)?(self.ctx, name.raw, flags as c_int) };
        let key = Key { raw, name, server: self, events: Events::default() };
        match key.kind()? {
            Kind::None | Kind::Stream => Ok(key),
            Kind::Other => Err(error::WRONG_TYPE),
        }
    }
}

/// What a command did to a key, to be told when all is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u8);

impl Events {
    pub const DEL: Self = Self(1);
    pub const XADD: Self = Self(1 << 1);
    pub const XTRIM: Self = Self(1 << 2);
    pub const EXPIRE: Self = Self(1 << 3);
    pub const REFUSED: Self = Self(1 << 4);

    pub fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

/// The events as the server's own commands send them, in the order in which they are sent. Listeners are passed the very
/// pointer to the name that is sent, so that ours knows its own events by it: nobody else has these.
static EVENTS: [(Events, c_int, &CStr); 5] = [
    (Events::DEL, raw::REDISMODULE_NOTIFY_GENERIC, c"del"),
    (Events::XADD, raw::REDISMODULE_NOTIFY_STREAM, c"xadd"),
    (Events::XTRIM, raw::REDISMODULE_NOTIFY_STREAM, c"xtrim"),
    (Events::EXPIRE, raw::REDISMODULE_NOTIFY_GENERIC, c"expire"),
    (Events::REFUSED, raw::REDISMODULE_NOTIFY_MODULE, c"ratelimit.refused"),
];

#[derive(PartialEq, Eq)]
enum Kind {
    None,
    Stream,
    Other,
}

/// Most entries that one hit drops, of those that have expired and of those beyond a length, so that no hit takes long:
/// a larger backlog goes bit by bit. (The server's own bound is 100 times `stream-node-max-entries`, and none if that is 0.)
const MOST_DROPPED: u64 = 1_000;

/// Where a log is cut.
#[derive(Clone, Copy)]
struct Cut {
    before: Id,
    /// Nothing that could go is left.
    is_all: bool,
}

/// An open key that holds a stream or nothing.
pub struct Key<'a> {
    raw: *mut raw::RedisModuleKey,
    name: Arg<'a>,
    server: Server<'a>,
    /// What has been done to it since it was opened.
    pub events: Events,
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        // SAFETY: the key is open (or null, which the server accepts) and is closed once.
        unsafe {
            if let Some(close) = raw::RedisModule_CloseKey {
                close(self.raw);
            }
        }
    }
}

impl Key<'_> {
    fn kind(&self) -> Result<Kind, Error> {
        // SAFETY: the key is open or null, which KeyType accepts.
        let kind = unsafe { api(raw::RedisModule_KeyType)?(self.raw) } as isize;
        // The crate's own enum panics on types that it does not know yet.
        Ok(match kind {
            raw::REDISMODULE_KEYTYPE_EMPTY => Kind::None,
            raw::REDISMODULE_KEYTYPE_STREAM => Kind::Stream,
            _ => Kind::Other,
        })
    }

    pub fn exists(&self) -> Result<bool, Error> {
        Ok(self.kind()? != Kind::None)
    }

    /// Removes the key, here and on every replica; its memory is freed in the background.
    pub fn remove(&mut self) -> Result<(), Error> {
        // SAFETY: the key is open for writing and has no iterator; unlinking leaves it open and empty.
        unsafe { api(raw::RedisModule_UnlinkKey)?(self.raw) };
        // SAFETY: one `s` stands for one string, which lives until the command returns.
        unsafe {
            let replicate = api(raw::RedisModule_Replicate)?;
            replicate(self.server.ctx, c"UNLINK".as_ptr(), c"s".as_ptr(), self.name.raw);
        }
        self.events.add(Events::DEL);
        self.signal()
    }

    /// Appends and drops. `None` if the ID was not taken.
    fn append(&mut self, append: &Append) -> Result<Option<Written>, Error> {
        let Entry { hit, retention } = append.entry;
        // Whatever can fail comes before the first change.
        let expired = append.expired_before.map(|expired| self.bounded(expired)).transpose()?;
        let pair = Pair::take(retention, hit.cost)?;
        let mut strings = [pair.field.0, pair.value.0];
        let mut id = raw_id(hit.id);
        // SAFETY: the key is open for writing and has no iterator; one field takes two strings, which the server copies.
        let added = unsafe {
            let add = api(raw::RedisModule_StreamAdd)?;
            add(self.raw, 0, &raw mut id, strings.as_mut_ptr(), 1)
        };
        if added != OK {
            return Ok(None);
        }
        let oldest = if self.trim(append, expired)? { self.oldest(null_mut())? } else { None };

        let id = hit.id.text();
        let id = id.bytes();
        // SAFETY: each `s` stands for a string, each `c` for a C string and each `b` for a pointer and its length, all of
        // which outlive the call; the server copies or retains what it keeps.
        unsafe {
            let replicate = api(raw::RedisModule_Replicate)?;
            match oldest.map(Id::text) {
                None => replicate(
                    self.server.ctx,
                    c"XADD".as_ptr(),
                    c"sbss".as_ptr(),
                    self.name.raw,
                    id.as_ptr(),
                    id.len(),
                    pair.field.0,
                    pair.value.0,
                ),
                // Replicas drop exactly the entries that were dropped here, whatever their nodes look like.
                Some(oldest) => replicate(
                    self.server.ctx,
                    c"XADD".as_ptr(),
                    c"sccbbss".as_ptr(),
                    self.name.raw,
                    c"MINID".as_ptr(),
                    c"=".as_ptr(),
                    oldest.bytes().as_ptr(),
                    oldest.bytes().len(),
                    id.as_ptr(),
                    id.len(),
                    pair.field.0,
                    pair.value.0,
                ),
            }
        };
        pair.put_back();
        self.events.add(Events::XADD);
        if oldest.is_some() {
            self.events.add(Events::XTRIM);
        }
        Ok(Some(Written { oldest }))
    }

    /// Where to cut so that at most [`MOST_DROPPED`] entries go: at `expired`, or before it.
    fn bounded(&mut self, expired: Id) -> Result<Cut, Error> {
        let whole = Cut { before: expired, is_all: true };
        if self.length() <= MOST_DROPPED {
            return Ok(whole);
        }
        let mut start = raw_id(expired);
        if let (Some(oldest), Some(live)) = (self.oldest(null_mut())?, self.oldest(&raw mut start)?) {
            // An entry weighs at least one unit.
            if live.tally.wrapping_sub(oldest.tally) <= MOST_DROPPED {
                return Ok(whole);
            }
        }
        let entries = Entries::start(self, 0, null_mut())?;
        for _ in 0..MOST_DROPPED {
            match entries.next_id()? {
                Some((id, fields)) if id < expired => entries.pass_over(fields)?,
                _ => return Ok(whole),
            }
        }
        let next = entries.next_id()?.map(|(id, _)| id);
        Ok(next.filter(|id| *id < expired).map_or(whole, |before| Cut { before, is_all: false }))
    }

    /// Drops what the log need not keep; true if anything went. Approximate trimming drops whole nodes only, so that it
    /// costs almost nothing; what has expired does not count anyway. A node that alone holds more than may be dropped at
    /// once would stay for ever, and all behind it: its entries are deleted one by one.
    fn trim(&mut self, append: &Append, expired: Option<Cut>) -> Result<bool, Error> {
        const EXACTLY: c_int = 0;
        const APPROXIMATELY: c_int = raw::REDISMODULE_STREAM_TRIM_APPROX as c_int;

        let mut trimmed = false;
        if let Some(Cut { before, is_all }) = expired {
            trimmed = self.trim_before(APPROXIMATELY, before)? || !is_all && self.trim_before(EXACTLY, before)?;
        }
        if let Some(surplus) = append.surplus_before {
            trimmed |= self.trim_before(EXACTLY, surplus)?;
        }
        if let Some(most) = append.max_entries {
            let fewer = self.length().saturating_sub(MOST_DROPPED);
            let is_all = most >= fewer;
            let most = most.max(fewer);
            trimmed |= self.trim_to(APPROXIMATELY, most)? || !is_all && self.trim_to(EXACTLY, most)?;
        }
        Ok(trimmed)
    }

    fn trim_to(&mut self, flags: c_int, entries: u64) -> Result<bool, Error> {
        let length = c_longlong::try_from(entries).unwrap_or(c_longlong::MAX);
        // SAFETY: the key is a stream, open for writing, and has no iterator.
        let dropped = unsafe { api(raw::RedisModule_StreamTrimByLength)?(self.raw, flags, length) };
        Ok(dropped > 0)
    }

    fn trim_before(&mut self, flags: c_int, id: Id) -> Result<bool, Error> {
        let mut id = raw_id(id);
        // SAFETY: the key is a stream, open for writing, and has no iterator; the server copies the ID.
        let dropped = unsafe { api(raw::RedisModule_StreamTrimByID)?(self.raw, flags, &raw mut id) };
        Ok(dropped > 0)
    }

    fn set_expiry(&mut self, at: u64) -> Result<(), Error> {
        let at = c_longlong::try_from(at).unwrap_or(c_longlong::MAX);
        // SAFETY: the key is open for writing and exists.
        unsafe { api(raw::RedisModule_SetAbsExpire)?(self.raw, at) };
        // SAFETY: `s` stands for a string that lives until the command returns, `l` for a long long.
        unsafe {
            let replicate = api(raw::RedisModule_Replicate)?;
            replicate(self.server.ctx, c"PEXPIREAT".as_ptr(), c"sl".as_ptr(), self.name.raw, at);
        }
        self.events.add(Events::EXPIRE);
        Ok(())
    }

    /// Tells clients that WATCH the key, and client-side caches, that it has changed.
    fn signal(&self) -> Result<(), Error> {
        // SAFETY: context and name belong to the running command.
        unsafe { api(raw::RedisModule_SignalModifiedKey)?(self.server.ctx, self.name.raw) };
        Ok(())
    }

    /// The oldest entry from an ID on, or of all where that is null.
    fn oldest(&mut self, from: *mut raw::RedisModuleStreamID) -> Result<Option<Id>, Error> {
        let entries = Entries::start(self, 0, from)?;
        Ok(entries.next_id()?.map(|(id, _)| id))
    }
}

impl Log for Key<'_> {
    fn newest(&mut self) -> Result<Option<Entry>, Error> {
        if !self.exists()? {
            return Ok(None);
        }
        let reverse = raw::REDISMODULE_STREAM_ITERATOR_REVERSE as c_int;
        Entries::start(self, reverse, null_mut())?.next()
    }

    /// No function of the API tells it, so that the server is asked by XINFO; few hits need to know.
    fn last_id(&mut self) -> Result<Id, Error> {
        if !self.exists()? {
            return Ok(Id::default());
        }
        let options = CallOptionsBuilder::new().build();
        let args: [&[u8]; 2] = [b"STREAM", self.name.bytes()];
        let reply: CallResult = Context::new(self.server.ctx).call_ext("XINFO", &options, &args);
        let Ok(CallReply::Array(fields)) = reply else {
            return Ok(Id::default());
        };
        let mut fields = fields.iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match (name, value) {
                (Ok(CallReply::String(name)), Ok(CallReply::String(id))) if name.as_bytes() == b"last-generated-id" => {
                    return Ok(Id::parse(id.as_bytes()).unwrap_or_default());
                }
                _ => {}
            }
        }
        Ok(Id::default())
    }

    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        self.walk_since(from, Id { time: u64::MAX, tally: u64::MAX }, visit)
    }

    fn walk_since(&mut self, from: u64, since: Id, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        if !self.exists()? {
            return Ok(());
        }
        let mut start = raw_id(Id { time: from, tally: 0 });
        let entries = Entries::start(self, 0, &raw mut start)?;
        let mut before: Option<Hit> = None;
        loop {
            let hit = match before.filter(|before| before.id >= since) {
                Some(before) => entries.next_after(before)?,
                None => entries.next()?.map(|entry| entry.hit),
            };
            match hit {
                Some(hit) if visit(hit) => before = Some(hit),
                _ => return Ok(()),
            }
        }
    }
}

impl Store for Key<'_> {
    fn length(&self) -> u64 {
        // SAFETY: the key is open, or null, which counts as empty.
        let length = unsafe { raw::RedisModule_ValueLength.map_or(0, |length| length(self.raw)) };
        u64::try_from(length).unwrap_or(u64::MAX)
    }

    fn expires(&mut self) -> Option<u64> {
        if !self.exists().unwrap_or(false) {
            return None;
        }
        // SAFETY: the key is open and exists, which later servers than 7.0 rely on. The answer is negative for "none".
        let at = unsafe { raw::RedisModule_GetAbsExpire.map_or(-1, |expire| expire(self.raw)) };
        u64::try_from(at).ok()
    }

    fn write(&mut self, write: &Write) -> Result<Option<Written>, Error> {
        let mut written = Written::default();
        if let Some(append) = &write.append {
            if append.restart {
                self.remove()?;
            }
            match self.append(append)? {
                Some(appended) => written = appended,
                None => return Ok(None),
            }
        }
        if let Some(at) = write.expire_at {
            self.set_expiry(at)?;
        }
        self.signal()?;
        Ok(Some(written))
    }
}

/// Hears of every change of a key, our own included.
///
/// # Safety
/// Called by the server alone, with the context, the name and the key of an event.
pub unsafe fn heard(ctx: *mut raw::RedisModuleCtx, event: *const c_char, key: *mut raw::RedisModuleString) {
    if EVENTS.iter().any(|(.., name)| name.as_ptr() == event) {
        return;
    }
    // SAFETY: the context and the string are those of the event, and live until it is over.
    unsafe {
        let database = raw::RedisModule_GetSelectedDb.map_or(0, |database| database(ctx));
        CURSORS.with(|table| table.forget(database, bytes_of(key)));
    }
}

/// A running iterator. While it lives the key is borrowed, so that it cannot be written.
struct Entries<'k, 'a> {
    key: &'k mut Key<'a>,
}

impl<'k, 'a> Entries<'k, 'a> {
    /// `key` holds a stream. A null `start` means the first entry, or the last one in reverse.
    fn start(key: &'k mut Key<'a>, flags: c_int, start: *mut raw::RedisModuleStreamID) -> Result<Self, Error> {
        // SAFETY: the key is open; the server copies the ID and refuses a second iterator.
        let status = unsafe {
            let start_iterator = api(raw::RedisModule_StreamIteratorStart)?;
            start_iterator(key.raw, flags, start, null_mut())
        };
        if status == OK { Ok(Self { key }) } else { Err(error::INTERNAL) }
    }

    /// The next entry's ID and number of fields.
    fn next_id(&self) -> Result<Option<(Id, c_long)>, Error> {
        let mut id = raw_id(Id { time: 0, tally: 0 });
        let mut fields: c_long = 0;
        // SAFETY: the iterator runs, and every field of the entry before has been read, or we would have stopped.
        let status = unsafe {
            let next_id = api(raw::RedisModule_StreamIteratorNextID)?;
            next_id(self.key.raw, &raw mut id, &raw mut fields)
        };
        let id = Id { time: id.ms, tally: id.seq };
        Ok((status == OK).then_some((id, fields)))
    }

    /// Passes over the fields of the entry that [`Self::next_id`] came to.
    fn pass_over(&self, fields: c_long) -> Result<(), Error> {
        for _ in 0..fields {
            // SAFETY: the iterator stands on an entry; the server returns no string for a null pointer.
            let status =
                unsafe { api(raw::RedisModule_StreamIteratorNextField)?(self.key.raw, null_mut(), null_mut()) };
            if status != OK {
                return Err(error::INTERNAL);
            }
        }
        Ok(())
    }

    /// The next entry, which is known to be ours and to follow `before`: its field and value, which cost more than the
    /// rest, are passed over.
    fn next_after(&self, before: Hit) -> Result<Option<Hit>, Error> {
        let Some((id, fields)) = self.next_id()? else {
            return Ok(None);
        };
        if fields != 1 {
            return Err(error::INTERNAL);
        }
        self.pass_over(fields)?;
        Ok(Some(Hit { id, cost: id.tally.wrapping_sub(before.id.tally) }))
    }

    /// The next entry. After an error the iterator must not be used again.
    fn next(&self) -> Result<Option<Entry>, Error> {
        let Some((id, fields)) = self.next_id()? else {
            return Ok(None);
        };
        if fields != 1 {
            return Err(error::NOT_A_LOG);
        }
        let (mut field, mut value) = (null_mut(), null_mut());
        // SAFETY: the iterator stands on an entry with one field; both strings become ours.
        let (status, field, value) = unsafe {
            let next_field = api(raw::RedisModule_StreamIteratorNextField)?;
            let status = next_field(self.key.raw, &raw mut field, &raw mut value);
            (status, OwnedString(field), OwnedString(value))
        };
        if status != OK {
            return Err(error::INTERNAL);
        }
        let retention = Retention::parse(field.bytes()).ok_or(error::NOT_A_LOG)?;
        let cost = units(value.bytes()).filter(|&cost| cost > 0).ok_or(error::NOT_A_LOG)?;
        Ok(Some(Entry { hit: Hit { id, cost }, retention }))
    }
}

impl Drop for Entries<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: the iterator runs, and is stopped once.
        unsafe {
            if let Some(stop) = raw::RedisModule_StreamIteratorStop {
                stop(self.key.raw);
            }
        }
    }
}

fn raw_id(id: Id) -> raw::RedisModuleStreamID {
    raw::RedisModuleStreamID { ms: id.time, seq: id.tally }
}

/// The first function of the API that this module needs and this server does not have.
pub fn missing_api() -> Option<&'static CStr> {
    macro_rules! first_missing {
        ($($name:ident)*) => {
            // SAFETY: the pointers are set once, before the module's load function runs; they are copied, not borrowed.
            $(if unsafe { raw::$name.map(|_| ()) }.is_none() {
                return Some(c_name(concat!(stringify!($name), "\0")));
            })*
        };
    }
    first_missing! {
        RedisModule_StringPtrLen RedisModule_CreateString RedisModule_FreeString
        RedisModule_Milliseconds RedisModule_GetSelectedDb
        RedisModule_OpenKey RedisModule_CloseKey RedisModule_KeyType RedisModule_ValueLength
        RedisModule_UnlinkKey RedisModule_GetAbsExpire RedisModule_SetAbsExpire
        RedisModule_StreamAdd RedisModule_StreamTrimByID RedisModule_StreamTrimByLength
        RedisModule_StreamIteratorStart RedisModule_StreamIteratorStop
        RedisModule_StreamIteratorNextID RedisModule_StreamIteratorNextField
        RedisModule_Replicate RedisModule_SignalModifiedKey
        RedisModule_NotifyKeyspaceEvent RedisModule_GetNotifyKeyspaceEvents
    }
    None
}

fn c_name(text: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(text.as_bytes()).unwrap_or_default()
}
