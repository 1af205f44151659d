//! The server's own commands, as far as others use them on the keys of a limiter.
//!
//! They are what the real ones are to the module: what they leave at a key, which events they send, and what they tell
//! replicas. No other module acts in the middle of them: that is between that module and the server.

use crate::frame::keys_of;
use crate::server::{
    DATABASES, Entry, GENERIC, LIST, NEW, Reply, STREAM, STRING, SWAPDB, Server, Value, fields, id_text, name_of, text,
};
use crate::stream::{Bounds, Id, Stream, Text, one_entry};

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
const NO_KEY: &str = "ERR no such key";
const SYNTAX: &str = "ERR syntax error";

/// How XADD and XTRIM trim.
#[derive(Clone, Copy)]
struct Trim {
    by_length: Option<u64>,
    before: Option<Id>,
    approximately: bool,
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, Reply> {
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Reply::error("ERR value is not an integer or out of range"))
}

fn is(word: &[u8], other: &str) -> bool {
    word.eq_ignore_ascii_case(other.as_bytes())
}

/// An ID, which may lack its second half.
fn id(bytes: &[u8], missing: u64) -> Result<Id, Reply> {
    let whole = Id::parse(bytes);
    let half = || std::str::from_utf8(bytes).ok()?.parse().ok().map(|ms| Id { ms, seq: missing });
    whole.or_else(half).ok_or_else(|| Reply::error("ERR Invalid stream ID specified as stream command argument"))
}

/// A command's words, in upper case for the first of them.
type Words<'a> = &'a [Text];

impl Server {
    pub fn native(&mut self, database: usize, argv: &[Text]) -> Reply {
        // Others hear that keys have expired, but do not act.
        self.natives += 1;
        // What comes from a primary is nobody's doing here, and nothing has expired.
        if !self.is_fed {
            let keys = keys_of(argv);
            for (database, key) in self.looked_at(database, argv, keys.unwrap_or_default()) {
                if !self.finds(database, &key) && needs_its_first_key(argv) {
                    break;
                }
            }
            match keys {
                // MOVE brings them to the other database.
                Some(keys) => {
                    for key in keys {
                        self.foreign.extend((0..DATABASES).map(|database| (database, key.clone())));
                    }
                }
                None => self.all_foreign = true,
            }
        }
        let result = self.try_native(database, argv);
        self.natives -= 1;
        match result {
            Ok(reply) | Err(reply) => reply,
        }
    }

    /// The keys that a command looks at, in this order, which deletes those that have expired.
    fn looked_at(&self, db: usize, argv: Words, keys: &[Text]) -> Vec<(usize, Text)> {
        let here = || keys.iter().map(|key| (db, key.clone())).collect();
        match name_of(argv).bytes() {
            // What was there goes without a look at it.
            b"RESTORE" if !self.flavor.restore_looks => Vec::new(),
            b"COPY" if argv.get(1) == argv.get(2) => Vec::new(),
            b"MOVE" => match argv.get(2).map(|to| number::<usize>(to)) {
                Some(Ok(to)) if to != db && to < DATABASES => {
                    keys.iter().flat_map(|key| [(db, key.clone()), (to, key.clone())]).collect()
                }
                _ => Vec::new(),
            },
            _ => here(),
        }
    }

    fn try_native(&mut self, database: usize, argv: &[Text]) -> Result<Reply, Reply> {
        let name = name_of(argv);
        let db = database;
        let too_few = || Reply::error("ERR wrong number of arguments");
        let key = argv.get(1).ok_or_else(too_few);
        match name.bytes() {
            b"XADD" => self.xadd(db, key?, argv),
            b"XDEL" => self.xdel(db, key?, argv),
            b"XTRIM" => self.xtrim(db, key?, argv),
            b"XSETID" => self.xsetid(db, key?, argv),
            b"XGROUP" => self.xgroup(db, argv),
            b"DEL" | b"UNLINK" => self.del(db, argv),
            b"SET" => self.set(db, key?, argv),
            b"RPUSH" => self.rpush(db, key?, argv),
            b"PEXPIRE" | b"EXPIRE" | b"PEXPIREAT" => self.expire(db, key?, argv),
            b"PERSIST" => self.persist(db, key?, argv),
            b"RENAME" => self.rename(db, key?, argv),
            b"COPY" => self.copy(db, key?, argv),
            b"MOVE" => self.move_key(db, key?, argv),
            b"DUMP" => self.dump(db, key?),
            b"RESTORE" => self.restore(db, key?, argv),
            b"EXISTS" => Ok(Reply::Integer(argv[1..].iter().filter(|&key| self.finds(db, key)).count() as i64)),
            b"FLUSHALL" => {
                self.flush_all();
                self.tell(db, argv);
                Ok(Reply::ok())
            }
            b"SWAPDB" => {
                if DATABASES == 2 {
                    self.databases.swap(0, 1);
                }
                self.all_touched = true;
                self.server_event(SWAPDB, 0);
                self.tell(db, argv);
                Ok(Reply::ok())
            }
            b"CONFIG" => self.config(argv),
            _ => Err(Reply::error("ERR unknown command")),
        }
    }

    /// Whether the key exists, after others have acted upon its expiry.
    fn finds(&mut self, database: usize, key: &Text) -> bool {
        self.exists(database, key) || self.known(database, key).expires != -2
    }

    /// The stream at a key, if there is one.
    fn stream(&mut self, database: usize, key: &Text) -> Result<Option<&mut Stream>, Reply> {
        if !self.is_fed && !self.finds(database, key) {
            return Ok(None);
        }
        match self.databases[database].get_mut(key) {
            Some(Entry { value: Value::Stream(stream), .. }) => Ok(Some(stream)),
            Some(_) => Err(Reply::error(WRONG_TYPE)),
            None => Ok(None),
        }
    }

    fn xadd(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let (trim, at) = trim_of(argv, 2)?;
        let (Some(wanted), Some(pairs)) = (argv.get(at), argv.get(at + 1..)) else { return Err(Reply::error(SYNTAX)) };
        if pairs.is_empty() || pairs.len() % 2 != 0 {
            return Err(Reply::error("ERR wrong number of arguments for 'xadd' command"));
        }
        let now = self.cached;
        let stream = self.stream(db, key)?;
        let is_new = stream.is_none();
        let last = stream.map_or(Id::default(), |stream| stream.last_id());
        let id = match &wanted[..] {
            b"*" if now as u64 > last.ms => Id { ms: now as u64, seq: 0 },
            b"*" => last.next().ok_or_else(|| Reply::error("ERR The stream has exhausted the last possible ID"))?,
            text => id(text, 0)?,
        };
        if id <= last || id == Id::default() {
            return Err(Reply::error(
                "ERR The ID specified in XADD is equal or smaller than the target stream top item",
            ));
        }
        let fields = fields(pairs);
        let bounds = self.bounds;
        if is_new && self.entry(db, key).is_none() {
            let empty = self.empty_stream();
            self.put(db, key, empty, None);
        }
        self.touch(db, key);
        let Some(stream) = self.stream(db, key)? else { return Err(Reply::Nil) };
        stream.append(id, fields, bounds);
        let (trimmed, exact) = match trim {
            Some(trim) => trim.apply(stream, bounds),
            None => (0, None),
        };
        let id = id_text(id);
        if !self.is_fed {
            let mut told = argv.to_vec();
            told[at] = id.clone();
            if let (Some(exact), Some(trim)) = (exact, trim) {
                told.splice(2..at, trim.words(&exact));
            }
            self.tell(db, told);
        }
        self.notify(db, STREAM, c"xadd", key);
        if trimmed > 0 {
            self.notify(db, STREAM, c"xtrim", key);
        }
        Ok(Reply::Text(id))
    }

    fn xtrim(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let (Some(trim), _) = trim_of(argv, 2)? else { return Err(Reply::error(SYNTAX)) };
        let bounds = self.bounds;
        self.touch(db, key);
        let Some(stream) = self.stream(db, key)? else { return Ok(Reply::Integer(0)) };
        let (trimmed, exact) = trim.apply(stream, bounds);
        if trimmed > 0 {
            let mut told = argv[..2].to_vec();
            told.extend(exact.map_or(argv[2..].to_vec(), |exact| trim.words(&exact)));
            self.tell(db, told);
            self.notify(db, STREAM, c"xtrim", key);
        }
        Ok(Reply::Integer(trimmed as i64))
    }

    fn xdel(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let ids = argv[2..].iter().map(|text| id(text, 0)).collect::<Result<Vec<_>, _>>()?;
        self.touch(db, key);
        let Some(stream) = self.stream(db, key)? else { return Ok(Reply::Integer(0)) };
        let deleted = ids.into_iter().filter(|&id| stream.delete(id)).count();
        if deleted > 0 {
            self.tell(db, argv);
            self.notify(db, STREAM, c"xdel", key);
        }
        Ok(Reply::Integer(deleted as i64))
    }

    fn xsetid(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let id = id(argv.get(2).ok_or_else(|| Reply::error(SYNTAX))?, 0)?;
        self.touch(db, key);
        let Some(stream) = self.stream(db, key)? else { return Err(Reply::error(NO_KEY)) };
        stream.set_id(id, None, None).map_err(Reply::error)?;
        self.tell(db, argv);
        self.notify(db, STREAM, c"xsetid", key);
        Ok(Reply::ok())
    }

    /// `XGROUP CREATE key group $ MKSTREAM` and `XGROUP DESTROY key group`.
    fn xgroup(&mut self, db: usize, argv: Words) -> Result<Reply, Reply> {
        let (Some(verb), Some(key), Some(group)) = (argv.get(1), argv.get(2), argv.get(3)) else {
            return Err(Reply::error(SYNTAX));
        };
        let creates = is(verb, "CREATE");
        if self.stream(db, key)?.is_none() {
            if !creates || argv.len() < 6 {
                return Err(Reply::error("ERR The XGROUP subcommand requires the key to exist"));
            }
            let empty = self.empty_stream();
            self.put(db, key, empty, None);
        }
        self.touch(db, key);
        let Some(stream) = self.stream(db, key)? else { return Err(Reply::Nil) };
        let done = match creates {
            true => stream.create_group(group, stream.last_id()),
            false => stream.destroy_group(group),
        };
        if !done {
            return if creates {
                Err(Reply::error("BUSYGROUP Consumer Group name already exists"))
            } else {
                Ok(Reply::Integer(0))
            };
        }
        self.tell(db, argv);
        self.notify(db, STREAM, if creates { c"xgroup-create" } else { c"xgroup-destroy" }, key);
        Ok(if creates { Reply::ok() } else { Reply::Integer(1) })
    }

    fn del(&mut self, db: usize, argv: Words) -> Result<Reply, Reply> {
        let mut deleted = Vec::new();
        for key in &argv[1..] {
            if self.finds(db, key) && self.remove(db, key).is_some() {
                deleted.push(key);
            }
        }
        if !deleted.is_empty() {
            self.tell(db, argv);
        }
        for key in &deleted {
            self.notify(db, GENERIC, c"del", key);
        }
        Ok(Reply::Integer(deleted.len() as i64))
    }

    /// `SET key value` and `SET key value PX ms` or `PXAT`.
    fn set(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let expires = match argv.get(3) {
            Some(word) if is(word, "PX") => Some(self.cached + number::<i64>(&argv[4])?),
            Some(word) if is(word, "PXAT") => Some(number::<i64>(&argv[4])?),
            _ => None,
        };
        self.finds(db, key);
        self.put(db, key, Value::Other(text("string")), expires);
        let mut told = argv[..3].to_vec();
        told.extend(expires.iter().flat_map(|at| [text("PXAT"), text(at.to_string())]));
        self.tell(db, told);
        self.notify(db, STRING, c"set", key);
        if expires.is_some() {
            self.notify(db, GENERIC, c"expire", key);
        }
        Ok(Reply::ok())
    }

    fn rpush(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        match self.finds(db, key).then(|| self.entry(db, key)).flatten() {
            None => self.put(db, key, Value::Other(text("list")), None),
            Some(Entry { value: Value::Other(kind), .. }) if **kind == b"list"[..] => {}
            Some(_) => return Err(Reply::error(WRONG_TYPE)),
        }
        self.tell(db, argv);
        self.notify(db, LIST, c"rpush", key);
        Ok(Reply::Integer(1))
    }

    fn expire(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let given: i64 = number(argv.get(2).ok_or_else(|| Reply::error(SYNTAX))?)?;
        let at = match name_of(argv).bytes() {
            b"PEXPIRE" => self.cached.saturating_add(given),
            b"EXPIRE" => self.cached.saturating_add(given.saturating_mul(1_000)),
            _ => given,
        };
        if !self.finds(db, key) {
            return Ok(Reply::Integer(0));
        }
        if !self.is_fed && at <= self.cached {
            self.remove(db, key);
            self.tell(db, [text(self.flavor.expires_by), key.clone()]);
            self.notify(db, GENERIC, c"del", key);
            return Ok(Reply::Integer(1));
        }
        self.touch(db, key);
        if let Some(entry) = self.databases[db].get_mut(key) {
            entry.expires = Some(at);
        }
        if !self.is_fed {
            self.tell(db, [text("PEXPIREAT"), key.clone(), text(at.to_string())]);
        }
        self.notify(db, GENERIC, c"expire", key);
        Ok(Reply::Integer(1))
    }

    fn persist(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        if !self.finds(db, key) {
            return Ok(Reply::Integer(0));
        }
        self.touch(db, key);
        let was = self.databases[db].get_mut(key).and_then(|entry| entry.expires.take());
        if was.is_none() {
            return Ok(Reply::Integer(0));
        }
        self.tell(db, argv);
        self.notify(db, GENERIC, c"persist", key);
        Ok(Reply::Integer(1))
    }

    fn rename(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let to = argv.get(2).ok_or_else(|| Reply::error(SYNTAX))?;
        if !self.finds(db, key) {
            return Err(Reply::error(NO_KEY));
        }
        if key == to {
            return Ok(Reply::ok());
        }
        self.finds(db, to);
        self.remove(db, to);
        if let Some(entry) = self.remove(db, key) {
            self.put(db, to, entry.value, entry.expires);
        }
        self.tell(db, argv);
        self.notify(db, GENERIC, c"rename_from", key);
        self.notify(db, GENERIC, c"rename_to", to);
        Ok(Reply::ok())
    }

    /// `COPY source destination [REPLACE]`, which always replaces.
    fn copy(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let to = argv.get(2).ok_or_else(|| Reply::error(SYNTAX))?;
        if key == to {
            return Err(Reply::error("ERR source and destination objects are the same"));
        }
        if !self.finds(db, key) {
            return Ok(Reply::Integer(0));
        }
        let Some(Entry { value, expires, .. }) = self.entry(db, key).cloned() else { return Ok(Reply::Integer(0)) };
        self.finds(db, to);
        self.remove(db, to);
        self.put(db, to, value, expires);
        self.tell(db, argv);
        self.notify(db, GENERIC, c"copy_to", to);
        Ok(Reply::Integer(1))
    }

    fn move_key(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let to: usize = number(argv.get(2).ok_or_else(|| Reply::error(SYNTAX))?)?;
        if to >= DATABASES || to == db {
            return Err(Reply::error("ERR source and destination objects are the same"));
        }
        if !self.finds(db, key) || self.finds(to, key) {
            return Ok(Reply::Integer(0));
        }
        if let Some(entry) = self.entry(db, key).cloned() {
            self.put(to, key, entry.value, entry.expires);
            self.remove(db, key);
        }
        self.tell(db, argv);
        self.notify(db, GENERIC, c"move_from", key);
        self.notify(to, GENERIC, c"move_to", key);
        Ok(Reply::Integer(1))
    }

    /// Puts a value aside, and replies its number.
    fn dump(&mut self, db: usize, key: &Text) -> Result<Reply, Reply> {
        if !self.finds(db, key) {
            return Ok(Reply::Nil);
        }
        let Some(entry) = self.entry(db, key) else { return Ok(Reply::Nil) };
        let value = entry.value.clone();
        let mut dumps = self.dumps.borrow_mut();
        dumps.push(value);
        Ok(Reply::Integer(dumps.len() as i64 - 1))
    }

    /// What the module calls, and what replicas are told of that: `RESTORE key expiry payload ABSTTL`. The payload is one that
    /// a server reads.
    pub fn restore_entry(&mut self, db: usize, argv: Words) -> Result<Reply, Reply> {
        let [_, key, expires, payload, absolute] = argv else { return Err(Reply::error(SYNTAX)) };
        if !is(absolute, "ABSTTL") {
            return Err(Reply::error(SYNTAX));
        }
        let expires: i64 = number(expires)?;
        if !self.is_fed && self.finds(db, key) || self.is_fed && self.entry(db, key).is_some() {
            return Err(Reply::error("BUSYKEY Target key name already exists."));
        }
        let Some((id, field, value)) = one_entry(payload) else {
            return Err(Reply::error("ERR DUMP payload version or checksum are wrong"));
        };
        if !self.is_fed && expires != 0 && expires <= self.cached {
            return Ok(Reply::ok());
        }
        let mut made = self.empty_stream();
        let Value::Stream(stream) = &mut made else { return Err(Reply::Nil) };
        stream.append(id, fields(&[field, value]), self.bounds);
        self.put(db, key, made, (expires != 0).then_some(expires));
        self.born.push(key.clone());
        self.notify(db, NEW, c"new", key);
        self.born.pop();
        self.tell(db, argv.to_vec());
        Ok(Reply::ok())
    }

    /// `RESTORE key ttl n REPLACE [ABSTTL]`, where n is the number of a value that was put aside.
    fn restore(&mut self, db: usize, key: &Text, argv: Words) -> Result<Reply, Reply> {
        let (Some(ttl), Some(at)) = (argv.get(2), argv.get(3)) else { return Err(Reply::error(SYNTAX)) };
        if argv.len() == 5 && is(&argv[4], "ABSTTL") {
            let restored = self.restore_entry(db, argv)?;
            self.notify(db, GENERIC, c"restore", key);
            return Ok(restored);
        }
        let (ttl, at): (i64, usize) = (number(ttl)?, number(at)?);
        let Some(value) = self.dumps.borrow().get(at).cloned() else { return Err(Reply::error("ERR Bad data format")) };
        let absolute = argv.len() > 5;
        let expires = if absolute { ttl } else { self.cached.saturating_add(ttl) };
        self.remove(db, key);
        self.put(db, key, value, (ttl > 0).then_some(expires));
        let mut told = argv.to_vec();
        if ttl > 0 && !absolute {
            told[2] = text(expires.to_string());
            told.push(text("ABSTTL"));
        }
        self.tell(db, told);
        self.notify(db, GENERIC, c"restore", key);
        Ok(Reply::ok())
    }

    /// `CONFIG SET name value`.
    fn config(&mut self, argv: Words) -> Result<Reply, Reply> {
        let (Some(name), Some(value)) = (argv.get(2), argv.get(3)) else { return Err(Reply::error(SYNTAX)) };
        match &name[..] {
            b"stream-node-max-entries" => self.bounds.entries = number(value)?,
            b"stream-node-max-bytes" => self.bounds.bytes = number(value)?,
            b"notify-keyspace-events" => {
                self.notify_flags = if value.contains(&b'd') { crate::server::MODULE } else { 0 };
            }
            name => {
                let name = name.strip_prefix(b"ratelimit.").and_then(|name| std::str::from_utf8(name).ok());
                let Some(name) = name else { return Err(Reply::error("ERR Unknown option")) };
                let value = number(value)?;
                // What is set to the same is not passed on.
                if self.get_config(name) != Some(value) {
                    self.set_config(name, value).map_err(Reply::error)?;
                }
            }
        }
        Ok(Reply::ok())
    }
}

/// Whether a command ends at once if its first key is not there.
fn needs_its_first_key(argv: Words) -> bool {
    ["COPY", "MOVE", "RENAME"].iter().any(|name| is(&argv[0], name))
}

/// The trimming that a command asks for, and where its words end.
fn trim_of(argv: Words, mut at: usize) -> Result<(Option<Trim>, usize), Reply> {
    let Some(by_length) = argv.get(at).map(|word| is(word, "MAXLEN")) else { return Ok((None, at)) };
    if !by_length && !is(&argv[at], "MINID") {
        return Ok((None, at));
    }
    at += 1;
    let sign = argv.get(at).filter(|word| ***word == b"~"[..] || ***word == b"="[..]);
    let approximately = sign.is_some_and(|sign| **sign == b"~"[..]);
    at += usize::from(sign.is_some());
    let bound = argv.get(at).ok_or_else(|| Reply::error(SYNTAX))?;
    let trim = match by_length {
        true => Trim { by_length: Some(number(bound)?), before: None, approximately },
        false => Trim { by_length: None, before: Some(id(bound, 0)?), approximately },
    };
    Ok((Some(trim), at + 1))
}

impl Trim {
    /// How many entries went, and for replicas, whose nodes may be others, where exactly the stream was cut.
    fn apply(&self, stream: &mut Stream, bounds: Bounds) -> (u64, Option<Text>) {
        let limit = if self.approximately { bounds.limit_of_command() } else { 0 };
        let trimmed = match (self.by_length, self.before) {
            (Some(length), _) => stream.trim_length(length, self.approximately, limit),
            (None, Some(before)) => stream.trim_min_id(before, self.approximately, limit),
            (None, None) => 0,
        };
        let exact = self.approximately.then(|| match self.by_length {
            Some(_) => text(stream.len().to_string()),
            // Of the first entry there ever was in the first node.
            None => id_text(stream.first_master().unwrap_or(Id::MAX)),
        });
        (trimmed, exact)
    }

    fn words(&self, exact: &Text) -> Vec<Text> {
        vec![text(if self.by_length.is_some() { "MAXLEN" } else { "MINID" }), text("="), exact.clone()]
    }
}
