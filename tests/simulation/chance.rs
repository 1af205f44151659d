//! Chance that is the same in every run.
//!
//! The module hashes keys with a secret from the operating system, which decides whose place in its tables is taken. So that
//! a seed always gives the same run, everybody in this process who asks for random bytes gets these.

use std::cell::Cell;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// As `getrandom` of the C library, which the standard library looks up by its name.
#[unsafe(no_mangle)]
extern "C" fn getrandom(place: *mut u8, length: usize, _: u32) -> isize {
    let seed = ASKED.get();
    ASKED.set(seed + 1);
    let mut rng = fastrand::Rng::with_seed(seed);
    // SAFETY: the caller has room for so many bytes there.
    rng.fill(unsafe { std::slice::from_raw_parts_mut(place, length) });
    length as isize
}

/// A seed from the clock, for whoever names none.
pub fn seed() -> u64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    fastrand::Rng::with_seed(now).u64(..1 << 48)
}
