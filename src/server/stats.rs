//! Counters since the module was loaded or `RATELIMIT.RESETSTAT`, shown by `INFO ratelimit`.
//!
//! Commands run one at a time, so counting needs no atomic addition. The counters are atomic because a crash handler may write
//! INFO, on any thread.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One counter. It wraps after a few hundred years of hits.
pub struct Counter {
    name: &'static CStr,
    value: AtomicU64,
}

impl Counter {
    const fn new(name: &'static CStr) -> Self {
        Self { name, value: AtomicU64::new(0) }
    }

    pub fn set(&self, value: u64) {
        self.value.store(value, Relaxed);
    }

    pub fn add(&self, count: u64) {
        self.value.store(self.value.load(Relaxed).wrapping_add(count), Relaxed);
    }
}

pub struct Stats {
    /// Hits that were admitted, one for each key that was charged.
    pub hits_admitted: Counter,
    /// Hits that were refused, one for each key that refused. PEEK does not count.
    pub hits_refused: Counter,
    /// Units of the admitted hits.
    pub units_admitted: Counter,
    /// Units that REFUND gave back.
    pub units_refunded: Counter,
    /// Clients that wait for their turn now. It is no counter, and is not reset.
    pub clients_waiting: Counter,
    /// Clients whose hit was admitted after they had waited.
    pub waits_admitted: Counter,
    /// Clients whose time was over before their turn came.
    pub waits_timed_out: Counter,
    /// Clients that were gone before, or were sent away by the server.
    pub waits_disconnected: Counter,
    /// Keys that RESET deleted.
    pub keys_reset: Counter,
    /// Commands that found a stream which this module did not write.
    pub foreign_stream_errors: Counter,
    /// How often the server's clock was earlier than at the command before.
    pub clock_steps: Counter,
    /// The clock at the last command, in milliseconds since the epoch.
    last_clock: AtomicU64,
}

pub static STATS: Stats = Stats {
    hits_admitted: Counter::new(c"hits_admitted"),
    hits_refused: Counter::new(c"hits_refused"),
    units_admitted: Counter::new(c"units_admitted"),
    units_refunded: Counter::new(c"units_refunded"),
    clients_waiting: Counter::new(c"clients_waiting"),
    waits_admitted: Counter::new(c"waits_admitted"),
    waits_timed_out: Counter::new(c"waits_timed_out"),
    waits_disconnected: Counter::new(c"waits_disconnected"),
    keys_reset: Counter::new(c"keys_reset"),
    foreign_stream_errors: Counter::new(c"foreign_stream_errors"),
    clock_steps: Counter::new(c"clock_steps"),
    last_clock: AtomicU64::new(0),
};

impl Stats {
    fn all(&self) -> [&Counter; 10] {
        [
            &self.hits_admitted,
            &self.hits_refused,
            &self.units_admitted,
            &self.units_refunded,
            &self.keys_reset,
            &self.foreign_stream_errors,
            &self.clock_steps,
            &self.waits_admitted,
            &self.waits_timed_out,
            &self.waits_disconnected,
        ]
    }

    /// Every counter with its name.
    pub fn counters(&self) -> impl Iterator<Item = (&'static CStr, u64)> {
        let all = self.all().into_iter().chain([&self.clients_waiting]);
        all.map(|counter| (counter.name, counter.value.load(Relaxed)))
    }

    pub fn reset(&self) {
        self.all().into_iter().for_each(|counter| counter.value.store(0, Relaxed));
    }

    /// Records the time of a command, in milliseconds since the epoch.
    pub fn saw_clock(&self, now: u64) {
        if self.last_clock.load(Relaxed) > now {
            self.clock_steps.add(1);
        }
        self.last_clock.store(now, Relaxed);
    }
}
