//! Cursors: a cache of what is known of the logs of busy keys.
//!
//! A hit needs two entries of a log, the newest and the first inside the window, and finding each costs an iterator. But the
//! newest is the last one appended, and the first is nearly always the same as before or one soon after it. So for each key
//! used lately a table keeps a cursor: the newest entry, the key's expiry and, for each window, the hits that will leave it
//! next, read ahead. One iterator then serves many hits, and small logs need none.
//!
//! The log always has the last word:
//! * A cursor is used only if the key is a stream of exactly the length it had when the cursor was put back.
//! * Any event on the key from elsewhere makes the table forget it. An event on more than one key (FLUSHDB, SWAPDB, loading,
//!   a change of role) makes it forget all.
//! * While a command uses a cursor, the cursor is out of the table. It is put back only if the command succeeds and no key
//!   changed meanwhile.
//!
//! A cursor answers exactly as the log would, so the table changes no reply and no stored data.

mod cached_log;
mod cursor;
mod look_ahead;
mod table;

pub use cached_log::CachedLog;
pub use cursor::Cursor;
pub use table::{DEFAULT_CURSORS, MAX_CURSORS, MIN_CURSORS, Table};
