//! What commands share: the tables of cursors, of refusals and of policies, and the lines of clients that wait.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use limiter::cursors::Table;
use limiter::line::Lines;
use limiter::policies::Policies;
use limiter::refusals::Refusals;

use super::blocking::Client;

pub static CURSORS: Exclusive<Table> = Exclusive::new(Table::new());
pub static REFUSALS: Exclusive<Refusals> = Exclusive::new(Refusals::new());
pub static POLICIES: Exclusive<Policies> = Exclusive::new(Policies::new());
pub static LINES: Exclusive<Lines<Client>> = Exclusive::new(Lines::new());

/// A value used by one call at a time. The server runs one command at a time, on whatever thread, so no lock is needed. Calls
/// must not nest; a nested call gets None.
pub struct Exclusive<T> {
    value: UnsafeCell<T>,
    in_use: AtomicBool,
}

// SAFETY: whatever runs a command or handles an event holds the server's own lock, and this module does nothing else; so
// threads take turns. Within one thread, `in_use` prevents a second reference.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), in_use: AtomicBool::new(false) }
    }

    /// Inside another call, returns None without calling `work`.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        struct Release<'a>(&'a AtomicBool);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.store(false, Relaxed);
            }
        }
        if self.in_use.load(Relaxed) {
            return None;
        }
        self.in_use.store(true, Relaxed);
        let _release = Release(&self.in_use);
        // SAFETY: as above, this is the only reference until the release.
        Some(work(unsafe { &mut *self.value.get() }))
    }
}
