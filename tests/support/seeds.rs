//! Chance, and how much of it.

/// Whether tests that can run short or long run long, as `make test-long` lets them.
pub fn is_long() -> bool {
    std::env::var_os("RATELIMIT_LONG").is_some()
}

/// The seed of a random test, printed so that a failure can be repeated with `SEED`.
pub fn random(test: &str) -> fastrand::Rng {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{test}: SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// How many calls to make: what `FUZZ_CALLS` says, or else so many.
pub fn calls_or(default: usize) -> usize {
    std::env::var("FUZZ_CALLS").map_or(default, |calls| calls.parse().unwrap())
}
