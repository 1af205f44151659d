//! What does not run on every server.

use std::io::Write;

/// Says that the test, or a part of it, does not run on this server. `make test-all` fails unless tests/server/skips.txt lists
/// it with the same reason.
pub fn skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    // Not by `eprintln`, which shows failed tests only. In one piece, or else other lines get in between.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
