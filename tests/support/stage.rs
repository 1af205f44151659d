//! The fixture of most tests: a server on a clock of its own that stands still, and a client.

use redis::Connection;

use crate::clock::{Clock, START};
use crate::servers::{Server, Setup};

pub struct Stage {
    pub client: Connection,
    pub clock: Clock,
    /// What the clock shows, as far as it was set by this.
    pub now: u64,
    pub server: Server,
}

impl Stage {
    /// None where that cannot be, see [`Clock::at`].
    pub fn new() -> Option<Self> {
        Self::of(Setup::new())
    }

    pub fn of(setup: Setup) -> Option<Self> {
        let clock = Clock::at(START)?;
        Some(Self::with(setup.clock(&clock).start(), clock))
    }

    pub fn with(server: Server, clock: Clock) -> Self {
        Self { client: server.connect(), clock, now: START, server }
    }

    /// To a moment after the start.
    pub fn at(&mut self, after_start: u64) -> &mut Self {
        self.now = START + after_start;
        self.clock.set(self.now);
        self
    }

    pub fn go(&mut self, milliseconds: i64) {
        self.now = self.now.saturating_add_signed(milliseconds);
        self.clock.set(self.now);
    }
}
