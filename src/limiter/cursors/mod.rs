//! Cursors: what need not be looked up again in the log of a key that is hit often.
//!
//! A hit needs two entries of a log, the newest one and the first one inside the window, and each costs an iterator. But the
//! newest is the one that was appended last, and the first one is, nearly always, the same as before or one soon after it.
//! So for each of the keys used lately a table keeps a cursor: the newest entry, the key's expiry, and for each window the
//! hits that will leave it next, read ahead. One iterator then serves many hits, and small logs need none.
//!
//! It is a cache and never the truth:
//! * A cursor is used only if the key is a stream of just the length it had when the cursor was put back.
//! * Every event on the key from elsewhere makes the table forget it. Whatever concerns more than one key (FLUSHDB, SWAPDB,
//!   loading, a change of role) makes it forget all.
//! * While a command works with a cursor, the cursor is out of the table. It is put back only if the command succeeds and
//!   the table has heard of no change meanwhile, on any key.
//!
//! A cursor answers exactly what the log would, so that the table changes no reply and nothing that is stored.

mod cached_log;
mod cursor;
mod look_ahead;
mod table;

pub use cached_log::CachedLog;
pub use cursor::Cursor;
pub use table::{DEFAULT_CURSORS, MAX_CURSORS, MIN_CURSORS, Table};
