//! Clocks of servers: set, or running beside the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tempfile::TempDir;

use crate::client::Ask;
use crate::servers::Setup;
use crate::skips::skipped;

/// Milliseconds of a day on which nothing happened: where set clocks start.
pub const START: u64 = 1_767_225_600_000;

/// Milliseconds since the epoch, by the machine's clock.
pub fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

/// A clock that stands still until it is told to move, or runs ahead of the machine's or behind it; shared by the servers
/// that are started on it.
#[derive(Clone)]
pub struct Clock {
    pub(crate) file: PathBuf,
    /// How servers are told how often to read the file: each time, or once a second.
    pub(crate) reading: (&'static str, &'static str),
    _dir: Arc<TempDir>,
}

impl Clock {
    /// None, and a word about the test that is skipped, where the server reads the processor's clock instead: builds of
    /// Valkey 9.1 do between one tick and the next.
    pub fn at(milliseconds: u64) -> Option<Self> {
        static CAN_BE_SET: OnceLock<bool> = OnceLock::new();
        let clock = Self::read(("FAKETIME_NO_CACHE", "1"));
        clock.set(milliseconds);
        if *CAN_BE_SET.get_or_init(|| clock.stands_still()) {
            return Some(clock);
        }
        skipped("the server's clock cannot be set");
        None
    }

    /// One that runs with the machine's.
    pub fn running() -> Self {
        let clock = Self::read(("FAKETIME_CACHE_DURATION", "1"));
        clock.run_ahead(0);
        clock
    }

    fn read(reading: (&'static str, &'static str)) -> Self {
        let dir = TempDir::new().unwrap();
        Self { file: dir.path().join("clock"), reading, _dir: dir.into() }
    }

    fn stands_still(&self) -> bool {
        let server = Setup::new().without_module().clock(self).start();
        let mut client = server.connect();
        (0..3).all(|_| {
            let before = client.run("TIME");
            client.run("DEBUG SLEEP 0.003");
            client.run("TIME") == before
        })
    }

    /// Half a millisecond is added because libfaketime reads the fraction as a floating-point number.
    pub fn set(&self, milliseconds: u64) {
        self.write(&format!("{}.{:03}5", milliseconds / 1000, milliseconds % 1000));
    }

    /// For one that runs: by so many milliseconds, which may be negative. Servers know it within a second.
    pub fn run_ahead(&self, milliseconds: i32) {
        self.write(&format!("{:+.3}", f64::from(milliseconds) / 1_000.0));
    }

    /// The file is replaced, not rewritten, so that a server never reads half of it.
    fn write(&self, text: &str) {
        let next = self.file.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.file).unwrap();
    }
}

pub(crate) fn faketime_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let output = Command::new("find").args(["/usr/lib", "-name", "libfaketime.so.1"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        PathBuf::from(text.lines().next().expect("libfaketime is missing, run: make test"))
    })
}
