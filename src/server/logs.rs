//! The log of a key, opened with its cursor.

use limiter::cursors::CachedLog;
use limiter::error::Error;

use super::context::{Arg, Server};
use super::events::Events;
use super::key::{Key, Mode};
use super::shared::CURSORS;

/// Opens a key that holds a stream or does not exist, with its cursor if there is one.
pub fn open<'a>(server: Server<'a>, name: Arg<'a>, mode: Mode) -> Result<CachedLog<Key<'a>>, Error> {
    let key = Key::open(server, name, mode)?;
    let (database, length) = (server.database()?, key.length());
    let cursor = CURSORS.with(|table| match length {
        // It may have been deleted without an event.
        0 => {
            table.forget(database, name.bytes());
            None
        }
        _ => table.take(database, name.bytes(), length),
    });
    Ok(CachedLog::new(key, cursor.flatten()))
}

/// Closes the key and puts its cursor back into the table. Returns the events to send.
#[inline]
pub fn close(log: CachedLog<Key>) -> Events {
    let (key, cursor) = log.into_parts();
    if let Some(cursor) = cursor {
        CURSORS.with(|table| table.put(cursor));
    }
    key.events
}
