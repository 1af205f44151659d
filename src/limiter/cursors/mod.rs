//! Cursors: a cache of what is known of the logs of busy keys.
//!
//! A hit needs two entries of a log, the newest and the first inside the window. To find the first, the server walks through
//! a node of the stream. But it is nearly always the same as before or one soon after it. So for each key used lately a table
//! keeps a cursor: the newest entry and, for each window, the hits that will leave it next, read ahead. One walk then serves
//! many hits, and a log that is read to its end needs no other.
//!
//! The log always has the last word, and nobody has to tell what happens to keys. A cursor is used only if the log has as many
//! entries as it had, and ends with the same hit: the same millisecond and the same running total. Whatever is added, trimmed
//! or deleted changes one of them, and so does another log that is put in its place, because no two logs begin to count at the
//! same number. Only a copy of it that went on by itself and was put back could have both and yet be different, if its last hit
//! came in the same millisecond and brought it to the same total. A log that begins anew is known to have begun.
//!
//! A cursor answers exactly as the log would, so the table changes no reply and no stored data.

mod births;
mod cached_log;
mod cursor;
mod look_ahead;
mod table;

pub use births::Births;
pub use cached_log::CachedLog;
pub use cursor::Cursor;
pub use table::{DEFAULT_CURSORS, MAX_CURSORS, MIN_CURSORS, Table};
