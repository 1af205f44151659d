//! Reads a log with the server's stream iterator.
//!
//! Every field of an entry must be read before the iterator moves on, or the iterator must stop. Otherwise the server fails an
//! assertion, or never returns. An iterator must be stopped before the key is written, so it borrows the key.

use std::ffi::{c_int, c_long};
use std::ptr::null_mut;

use limiter::error::{self, Error};
use limiter::log::{Back, Entry, Hit, Id, Log};
use limiter::number::units;
use limiter::retention::Retention;
use redis_module::{CallOptionsBuilder, CallReply, CallResult, Context, raw};

use super::api::{OK, api};
use super::key::Key;
use super::strings::OwnedString;

/// A running iterator. It borrows the key, so the key cannot be written meanwhile.
pub struct Entries<'k, 'a> {
    key: &'k mut Key<'a>,
}

impl<'k, 'a> Entries<'k, 'a> {
    /// Oldest first, from an ID or the first entry on. `key` holds a stream.
    pub fn from(key: &'k mut Key<'a>, from: Option<Id>) -> Result<Self, Error> {
        let mut start = from.map(raw_id);
        Self::start(key, 0, start.as_mut().map_or(null_mut(), |id| &raw mut *id))
    }

    /// Newest first. `key` holds a stream.
    pub fn backwards(key: &'k mut Key<'a>) -> Result<Self, Error> {
        Self::start(key, raw::REDISMODULE_STREAM_ITERATOR_REVERSE as c_int, null_mut())
    }

    fn start(key: &'k mut Key<'a>, flags: c_int, start: *mut raw::RedisModuleStreamID) -> Result<Self, Error> {
        // SAFETY: the key is open; the server copies the ID and refuses a second iterator.
        let status = unsafe {
            let start_iterator = api(raw::RedisModule_StreamIteratorStart)?;
            start_iterator(key.as_raw(), flags, start, null_mut())
        };
        if status == OK { Ok(Self { key }) } else { Err(error::INTERNAL) }
    }

    /// The next entry's ID and number of fields.
    pub fn next_id(&self) -> Result<Option<(Id, c_long)>, Error> {
        let mut id = raw_id(Id { time: 0, tally: 0 });
        let mut fields: c_long = 0;
        // SAFETY: the iterator runs, and every field of the entry before was read, or we would have stopped.
        let status = unsafe {
            let next_id = api(raw::RedisModule_StreamIteratorNextID)?;
            next_id(self.key.as_raw(), &raw mut id, &raw mut fields)
        };
        let id = Id { time: id.ms, tally: id.seq };
        Ok((status == OK).then_some((id, fields)))
    }

    /// Skips the fields of the entry that [`Self::next_id`] reached.
    pub fn pass_over(&self, fields: c_long) -> Result<(), Error> {
        for _ in 0..fields {
            // SAFETY: the iterator is at an entry; for a null pointer the server returns no string.
            let status =
                unsafe { api(raw::RedisModule_StreamIteratorNextField)?(self.key.as_raw(), null_mut(), null_mut()) };
            if status != OK {
                return Err(error::INTERNAL);
            }
        }
        Ok(())
    }

    /// The next entry, which is known to be ours and to follow `before`. Skips its field and value, because reading them costs
    /// more than the rest.
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

    /// The next entry. Do not use the iterator after an error.
    fn next(&self) -> Result<Option<Entry>, Error> {
        self.next_id()?.map(|(id, fields)| self.read(id, fields)).transpose()
    }

    /// The entry that [`Self::next_id`] reached.
    fn read(&self, id: Id, fields: c_long) -> Result<Entry, Error> {
        let mut field = null_mut();
        let cost = self.read_cost(fields, &raw mut field)?;
        // SAFETY: the string is ours.
        let field = unsafe { OwnedString::from_raw(field) };
        let retention = Retention::parse(field.bytes()).ok_or(error::NOT_A_LOG)?;
        Ok(Entry { hit: Hit { id, cost: cost.ok_or(error::NOT_A_LOG)? }, retention })
    }

    /// What the entry that [`Self::next_id`] reached weighs, if it is one of ours. `field` gets the name of its field, unless
    /// it is null.
    fn read_cost(&self, fields: c_long, field: *mut *mut raw::RedisModuleString) -> Result<Option<u64>, Error> {
        if fields != 1 {
            return Err(error::NOT_A_LOG);
        }
        let mut value = null_mut();
        // SAFETY: the iterator is at an entry with one field; the strings become ours, and a null pointer gets none.
        let (status, value) = unsafe {
            let status = api(raw::RedisModule_StreamIteratorNextField)?(self.key.as_raw(), field, &raw mut value);
            (status, OwnedString::from_raw(value))
        };
        if status != OK {
            return Err(error::INTERNAL);
        }
        Ok(units(value.bytes()).filter(|&cost| cost > 0))
    }
}

impl Drop for Entries<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: the iterator runs, and is stopped once.
        unsafe {
            if let Some(stop) = raw::RedisModule_StreamIteratorStop {
                stop(self.key.as_raw());
            }
        }
    }
}

pub fn raw_id(id: Id) -> raw::RedisModuleStreamID {
    raw::RedisModuleStreamID { ms: id.time, seq: id.tally }
}

impl Key<'_> {
    /// The oldest entry, of all or from an ID on.
    pub fn oldest(&mut self, from: Option<Id>) -> Result<Option<Id>, Error> {
        let entries = Entries::from(self, from)?;
        Ok(entries.next_id()?.map(|(id, _)| id))
    }
}

impl Log for Key<'_> {
    fn read_back(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        if !self.exists() {
            return Ok(None);
        }
        let entries = Entries::backwards(self)?;
        let Some(newest) = entries.next()? else {
            return Ok(None);
        };
        let mut step = visit(newest.hit.id, Some(newest.hit.cost));
        while step != Back::Stop {
            let Some((id, fields)) = entries.next_id()? else {
                break;
            };
            if step == Back::Read {
                // What is read is what decides; the name of its field does not.
                let cost = entries.read_cost(fields, null_mut()).ok().flatten();
                step = visit(id, cost);
                if cost.is_none() {
                    break;
                }
            } else {
                step = visit(id, None);
                if step != Back::Stop {
                    entries.pass_over(fields)?;
                }
            }
        }
        Ok(Some(newest))
    }

    fn read_all(&mut self, visit: &mut dyn FnMut(Id, Option<u64>) -> Back) -> Result<Option<Entry>, Error> {
        let length = self.length();
        if length == 0 {
            return Ok(None);
        }
        let entries = Entries::from(self, None)?;
        let mut step = Back::Read;
        for _ in 1..length {
            let Some((id, fields)) = entries.next_id()? else {
                return Ok(None);
            };
            let mut cost = None;
            if step == Back::Read && fields == 1 {
                cost = entries.read_cost(fields, null_mut())?;
            } else {
                entries.pass_over(fields)?;
            }
            step = visit(id, cost);
        }
        let Some(newest) = entries.next()? else {
            return Ok(None);
        };
        // A stream that was restored may hold more entries than it says.
        if entries.next_id()?.is_some() {
            return Ok(None);
        }
        visit(newest.hit.id, Some(newest.hit.cost));
        Ok(Some(newest))
    }

    fn newest_id(&mut self) -> Result<Option<Id>, Error> {
        if !self.exists() {
            return Ok(None);
        }
        Ok(Entries::backwards(self)?.next_id()?.map(|(id, _)| id))
    }

    /// The API has no function for it, so this calls XINFO. Few hits need it.
    fn last_id(&mut self) -> Result<Id, Error> {
        if !self.exists() {
            return Ok(Id::default());
        }
        let options = CallOptionsBuilder::new().build();
        let args: [&[u8]; 2] = [b"STREAM", self.name().bytes()];
        let reply: CallResult = Context::new(self.server().ctx()).call_ext("XINFO", &options, &args);
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
        if !self.exists() {
            return Ok(());
        }
        let entries = Entries::from(self, Some(Id { time: from, tally: 0 }))?;
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
