//! Waiting for something, with patience that ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything in a test may take before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Threads that run until this goes out of scope, which they would otherwise do for ever after a failure.
pub struct Running<'a>(pub &'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// Waits until something is so, and fails where it takes too long.
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until a counter has grown by so much from now on.
pub fn wait_for_more(what: &str, counter: &AtomicUsize, more: usize) {
    let from = counter.load(Relaxed);
    wait_for(what, || counter.load(Relaxed) >= from + more);
}
