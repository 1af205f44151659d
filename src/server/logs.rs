//! The log of a key, opened with its cursor.

use limiter::cursors::CachedLog;
use limiter::error::Error;
use limiter::hash;

use super::context::{Arg, Server};
use super::events::Events;
use super::key::{Key, Mode};
use super::shared::CURSORS;

/// Opens a key that holds a stream or does not exist, with its cursor if there is one.
#[inline]
pub fn open<'a>(server: Server<'a>, name: Arg<'a>, mode: Mode) -> Result<CachedLog<Key<'a>>, Error> {
    with_cursor(Key::open(server, name, mode)?)
}

/// The log of an open key, with its cursor if there is one.
pub fn with_cursor(key: Key) -> Result<CachedLog<Key>, Error> {
    let (database, length) = (key.server().database()?, key.length());
    let hash = hash::of(database, key.name().bytes());
    let cursor = CURSORS.with(|table| match length {
        0 => table.take_new(hash),
        _ => table.take(hash, length),
    });
    Ok(CachedLog::new(key, cursor.unwrap_or_default()))
}

/// Closes the key and puts its cursor back into the table. Returns the events to send.
#[inline]
pub fn close(log: CachedLog<Key>) -> Events {
    let (key, cursor) = log.into_parts();
    CURSORS.with(|table| table.put(cursor));
    key.events
}
