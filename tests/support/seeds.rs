//! Chance, and how much of it.

/// Whether tests that can run short or long run long, as `make test-long` lets them.
pub fn is_long() -> bool {
    std::env::var_os("RATELIMIT_LONG").is_some()
}
