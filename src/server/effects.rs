//! Writes a log, and tells replicas.
//!
//! Appending, trimming and setting an expiry do not replicate by themselves. This file replicates the effects, as RESTORE,
//! XADD, XDEL, PEXPIREAT and UNLINK, so a replica or an append-only file without this module ends up with the same data.

use std::ffi::{c_int, c_longlong};

use limiter::dump::Dump;
use limiter::error::{self, Error};
use limiter::log::{Entry, Id};
use limiter::plan::{Append, Applied, Plan, Store};
use limiter::refund::Refund;
use redis_module::raw;

use super::api::{OK, api};
use super::entries::{Entries, raw_id};
use super::events::Events;
use super::key::{Key, Mode};
use super::shared::CURSORS;
use super::strings::{EntryStrings, OwnedString};

impl Store for Key<'_> {
    fn length(&self) -> u64 {
        Key::length(self)
    }

    fn expires_at(&mut self) -> Option<u64> {
        Key::expires_at(self)
    }

    fn first_tally(&mut self, time: u64) -> u64 {
        CURSORS.with(|table| table.births.first_tally(time)).unwrap_or(0)
    }

    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        let mut applied = Applied::Done { oldest: None };
        match plan {
            Plan::Nothing => return Ok(applied),
            Plan::Expire(_) => {}
            Plan::Append(append) => {
                if append.restart {
                    self.remove()?;
                }
                if !self.exists() {
                    if let Some(applied) = self.create(append)? {
                        return Ok(applied);
                    }
                    // Another module may have put something there when the key expired.
                    if Key::open(self.server(), self.name(), Mode::Write)?.exists() {
                        return Ok(Applied::KeyExists);
                    }
                }
                applied = self.append(append)?;
                if applied == Applied::IdTooLow {
                    return Ok(applied);
                }
            }
        }
        if let Some(at) = plan.expire_at() {
            self.set_expiry(at)?;
        }
        self.signal()?;
        Ok(applied)
    }
}

/// Most entries that one hit drops, expired ones and those beyond a length, so that no hit takes long. A larger backlog goes
/// bit by bit. (The server's own bound is 100 times `stream-node-max-entries`, and none if that is 0.)
const MOST_DROPPED: u64 = 1_000;

/// Where a log is cut.
#[derive(Clone, Copy)]
struct Cut {
    before: Id,
    /// Nothing else is left to drop.
    is_all: bool,
}

impl Key<'_> {
    /// Removes the key, here and on every replica; its memory is freed in the background.
    pub fn remove(&mut self) -> Result<(), Error> {
        // SAFETY: the key is open for writing and has no iterator; unlinking leaves it open and empty.
        unsafe { api(raw::RedisModule_UnlinkKey)?(self.as_raw()) };
        self.set_exists(false);
        // SAFETY: one `s` stands for one string, which lives until the command returns.
        unsafe {
            let replicate = api(raw::RedisModule_Replicate)?;
            replicate(self.server().ctx(), c"UNLINK".as_ptr(), c"s".as_ptr(), self.name().as_raw());
        }
        self.events.add(Events::DEL);
        self.signal()
    }

    /// Creates the log with its first entry and its expiry, by the server's own RESTORE: see [`Dump`]. That is one command for
    /// replicas as well. None if the server does not do it, because RESTORE is renamed for example; then nothing has changed.
    ///
    /// Other modules hear of it at once, so what is at the key afterwards is not known. This key counts as empty.
    fn create(&mut self, append: &Append) -> Result<Option<Applied>, Error> {
        // Redis 8.2 and later forget that they have to expire what is restored on a replica that may be written.
        if self.server().is_replica()? {
            return Ok(None);
        }
        let Entry { hit, retention } = append.entry;
        let strings = EntryStrings::take(retention, hit.cost)?;
        let Some(dump) = Dump::of(hit, strings.field.bytes()) else { return Ok(None) };
        strings.put_back();
        let expire_at = c_longlong::try_from(append.expire_at.unwrap_or(0)).unwrap_or(c_longlong::MAX);
        // SAFETY: `!` replicates the call, `s` stands for a string, `l` for a long long, `b` for a pointer and its length, `c`
        // for a C string. All of them outlive the call. The reply is null if the server has no such command; it is freed once.
        let outcome = unsafe {
            let call = api(raw::RedisModule_Call)?;
            let reply = call(
                self.server().ctx(),
                c"RESTORE".as_ptr(),
                c"!slbc".as_ptr(),
                self.name().as_raw(),
                expire_at,
                dump.bytes().as_ptr(),
                dump.bytes().len(),
                c"ABSTTL".as_ptr(),
            );
            if reply.is_null() {
                return Ok(None);
            }
            let failed = api(raw::RedisModule_CallReplyType)?(reply) as isize == raw::REDISMODULE_REPLY_ERROR;
            let mut length = 0;
            let text = api(raw::RedisModule_CallReplyStringPtr)?(reply, &raw mut length);
            let is_busy = failed && !text.is_null() && {
                let text = std::slice::from_raw_parts(text.cast::<u8>(), length);
                text.starts_with(b"BUSYKEY")
            };
            api(raw::RedisModule_FreeCallReply)?(reply);
            (failed, is_busy)
        };
        match outcome {
            (true, true) => return Ok(Some(Applied::KeyExists)),
            (true, false) => return Ok(None),
            (false, _) => {}
        }
        self.events.add(Events::XADD);
        self.events.add(Events::EXPIRE);
        Ok(Some(Applied::Done { oldest: None }))
    }

    /// Appends an entry and drops old ones.
    fn append(&mut self, append: &Append) -> Result<Applied, Error> {
        // Do everything that can fail before the first change.
        let expired = append.expired_before.map(|expired| self.cut(expired)).transpose()?;
        let Some(strings) = self.add(append.entry)? else {
            return Ok(Applied::IdTooLow);
        };
        let oldest = if self.trim(append, expired)? { self.oldest(None)? } else { None };
        self.replicate_xadd(append.entry.hit.id, oldest, strings)?;
        if oldest.is_some() {
            self.events.add(Events::XTRIM);
        }
        Ok(Applied::Done { oldest })
    }

    /// Lets hits leave, as a [`Refund`] says, and closes the key. Returns the events to send, or None if the stream's last ID
    /// is not below that of the rest; then nothing has changed.
    ///
    /// The server's own XDEL does it, because the API's function forgets to note the largest ID that was deleted, which XINFO
    /// shows. It sends its event at once, so it comes last.
    pub fn give_back(mut self, refund: &Refund) -> Result<Option<Events>, Error> {
        if refund.is_all {
            self.remove()?;
            return Ok(Some(self.events));
        }
        let ids: Vec<_> = refund.gone.iter().map(|id| OwnedString::new(id.text().bytes())).collect::<Result<_, _>>()?;
        let raw_ids: Vec<_> = ids.iter().map(OwnedString::as_raw).collect();
        if let Some(rest) = refund.rest {
            let Some(strings) = self.add(rest)? else {
                return Ok(None);
            };
            self.replicate_xadd(rest.hit.id, None, strings)?;
        }
        if let Some(at) = refund.expire_at {
            self.set_expiry(at)?;
        }
        let (server, name, events) = (self.server(), self.name(), self.events);
        drop(self);
        // SAFETY: `!` replicates the call, `s` stands for a string, `v` for a list of strings and its length. All of them
        // outlive the call. The reply is null if the server has no such command; it is freed once.
        unsafe {
            let call = api(raw::RedisModule_Call)?;
            let (name, list) = (name.as_raw(), raw_ids.as_ptr());
            let reply = call(server.ctx(), c"XDEL".as_ptr(), c"!sv".as_ptr(), name, list, raw_ids.len());
            if reply.is_null() {
                return Err(error::INTERNAL);
            }
            api(raw::RedisModule_FreeCallReply)?(reply);
        }
        Ok(Some(events))
    }

    /// Adds an entry to the stream. None if its ID is not above the stream's last one.
    #[inline]
    fn add(&mut self, entry: Entry) -> Result<Option<EntryStrings>, Error> {
        let strings = EntryStrings::take(entry.retention, entry.hit.cost)?;
        let mut id = raw_id(entry.hit.id);
        // SAFETY: the key is open for writing and has no iterator; one field takes two strings, which the server copies.
        let added = unsafe {
            let add = api(raw::RedisModule_StreamAdd)?;
            add(self.as_raw(), 0, &raw mut id, [strings.field.as_raw(), strings.value.as_raw()].as_mut_ptr(), 1)
        };
        if added != OK {
            return Ok(None);
        }
        self.set_exists(true);
        self.events.add(Events::XADD);
        Ok(Some(strings))
    }

    /// Tells replicas of an entry that was added, and of the oldest one left if any were dropped.
    #[inline]
    fn replicate_xadd(&self, id: Id, oldest: Option<Id>, strings: EntryStrings) -> Result<(), Error> {
        let (field, value) = (strings.field.as_raw(), strings.value.as_raw());
        let id = id.text();
        let id = id.bytes();
        // SAFETY: each `s` stands for a string, each `c` for a C string, each `b` for a pointer and its length. All of them
        // outlive the call; the server copies or retains what it keeps.
        unsafe {
            let replicate = api(raw::RedisModule_Replicate)?;
            match oldest.map(Id::text) {
                None => replicate(
                    self.server().ctx(),
                    c"XADD".as_ptr(),
                    c"sbss".as_ptr(),
                    self.name().as_raw(),
                    id.as_ptr(),
                    id.len(),
                    field,
                    value,
                ),
                // Replicas drop exactly the entries dropped here, whatever their nodes look like.
                Some(oldest) => replicate(
                    self.server().ctx(),
                    c"XADD".as_ptr(),
                    c"sccbbss".as_ptr(),
                    self.name().as_raw(),
                    c"MINID".as_ptr(),
                    c"=".as_ptr(),
                    oldest.bytes().as_ptr(),
                    oldest.bytes().len(),
                    id.as_ptr(),
                    id.len(),
                    field,
                    value,
                ),
            }
        };
        strings.put_back();
        Ok(())
    }

    /// Where to cut so that at most [`MOST_DROPPED`] entries go: at `expired` or before.
    fn cut(&mut self, expired: Id) -> Result<Cut, Error> {
        let whole = Cut { before: expired, is_all: true };
        if self.length() <= MOST_DROPPED {
            return Ok(whole);
        }
        if let (Some(oldest), Some(live)) = (self.oldest(None)?, self.oldest(Some(expired))?) {
            // An entry weighs at least one unit.
            if live.tally.wrapping_sub(oldest.tally) <= MOST_DROPPED {
                return Ok(whole);
            }
        }
        let entries = Entries::from(self, None)?;
        for _ in 0..MOST_DROPPED {
            match entries.next_id()? {
                Some((id, fields)) if id < expired => entries.pass_over(fields)?,
                _ => return Ok(whole),
            }
        }
        let next = entries.next_id()?.map(|(id, _)| id);
        Ok(next.filter(|id| *id < expired).map_or(whole, |before| Cut { before, is_all: false }))
    }

    /// Drops what the log need not keep; true if anything went. Approximate trimming drops whole nodes only, so it costs
    /// almost nothing; expired entries that stay do not count anyway. A node with more entries than may be dropped at once
    /// would stay forever, with everything behind it, so its entries are deleted one by one.
    fn trim(&mut self, append: &Append, expired: Option<Cut>) -> Result<bool, Error> {
        const EXACTLY: c_int = 0;
        const APPROXIMATELY: c_int = raw::REDISMODULE_STREAM_TRIM_APPROX as c_int;

        let mut trimmed = false;
        // What has expired and what is beyond a length count together.
        let fewest = self.length().saturating_sub(MOST_DROPPED);
        if let Some(Cut { before, is_all }) = expired {
            trimmed = self.trim_before(APPROXIMATELY, before)? || !is_all && self.trim_before(EXACTLY, before)?;
        }
        if let Some(surplus) = append.surplus_before {
            trimmed |= self.trim_before(EXACTLY, surplus)?;
        }
        if let Some(most) = append.max_entries {
            let is_all = most >= fewest;
            let most = most.max(fewest);
            trimmed |= self.trim_to(APPROXIMATELY, most)? || !is_all && self.trim_to(EXACTLY, most)?;
        }
        Ok(trimmed)
    }

    fn trim_to(&mut self, flags: c_int, entries: u64) -> Result<bool, Error> {
        let length = c_longlong::try_from(entries).unwrap_or(c_longlong::MAX);
        // SAFETY: the key is a stream, open for writing, and has no iterator.
        let dropped = unsafe { api(raw::RedisModule_StreamTrimByLength)?(self.as_raw(), flags, length) };
        Ok(dropped > 0)
    }

    fn trim_before(&mut self, flags: c_int, id: Id) -> Result<bool, Error> {
        let mut id = raw_id(id);
        // SAFETY: the key is a stream, open for writing, and has no iterator; the server copies the ID.
        let dropped = unsafe { api(raw::RedisModule_StreamTrimByID)?(self.as_raw(), flags, &raw mut id) };
        Ok(dropped > 0)
    }

    fn set_expiry(&mut self, at: u64) -> Result<(), Error> {
        let at = c_longlong::try_from(at).unwrap_or(c_longlong::MAX);
        // SAFETY: the key is open for writing and exists.
        unsafe { api(raw::RedisModule_SetAbsExpire)?(self.as_raw(), at) };
        // SAFETY: `s` stands for a string that lives until the command returns, `l` for a long long.
        unsafe {
            let replicate = api(raw::RedisModule_Replicate)?;
            replicate(self.server().ctx(), c"PEXPIREAT".as_ptr(), c"sl".as_ptr(), self.name().as_raw(), at);
        }
        self.events.add(Events::EXPIRE);
        Ok(())
    }

    /// Tells clients that WATCH the key, and client-side caches, that it changed.
    fn signal(&self) -> Result<(), Error> {
        // SAFETY: context and name belong to the running command.
        unsafe { api(raw::RedisModule_SignalModifiedKey)?(self.server().ctx(), self.name().as_raw()) };
        Ok(())
    }
}
