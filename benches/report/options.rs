//! What a run measures, by environment variables.

use std::env::{var, var_os};
use std::path::PathBuf;

/// Parts of the report. The first three are taken on each number of keys.
pub const PARTS: [&str; 9] =
    ["new", "uniform", "zipfian", "latency", "servers", "variants", "memory", "expiry", "stall"];

#[derive(Clone)]
pub struct Options {
    pub keys: Vec<usize>,
    parts: Vec<String>,
    pub rounds: usize,
    /// An older build of the module, to run beside this one.
    pub before: Option<PathBuf>,
    pub updates: bool,
}

impl Options {
    pub fn read() -> Self {
        let is_quick = var_os("QUICK").is_some();
        let list = |name| var(name).ok().map(|text| text.split([',', ' ']).map(str::to_owned).collect::<Vec<_>>());
        let number = |text: &String| text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
        let keys = list("KEYS").map(|keys| keys.iter().map(number).collect::<Vec<_>>());
        let parts = list("ONLY");
        let updates = var_os("UPDATE").is_some();
        let is_elsewhere = var_os("RATELIMIT_SERVER").is_some();
        let is_partial = is_quick || keys.is_some() || parts.is_some() || is_elsewhere;
        assert!(!updates || !is_partial, "UPDATE=1 writes all of it, on this machine's own server");
        for part in parts.iter().flatten() {
            assert!(PARTS.contains(&part.as_str()), "ONLY={part}: there is {}", PARTS.join(", "));
        }
        let default_parts = match (is_quick, &keys) {
            (true, _) => &PARTS[..2],
            (_, Some(_)) => &PARTS[..3],
            _ => &PARTS[..],
        };
        // The others are measured beside this machine's own.
        let default_parts = default_parts.iter().filter(|&&part| part != "servers" || !is_elsewhere);
        let default_keys = if is_quick { vec![10_000] } else { vec![100, 10_000, 100_000, 1_000_000] };
        Self {
            keys: keys.unwrap_or(default_keys),
            parts: parts.unwrap_or_else(|| default_parts.map(|part| (*part).to_owned()).collect()),
            rounds: var("ROUNDS").map_or(if is_quick { 7 } else { 15 }, |text| number(&text)),
            before: var_os("BEFORE").map(PathBuf::from),
            updates,
        }
    }

    /// For the other servers: fewer rounds, on each way to take the keys.
    pub fn on_others(&self, rounds: usize) -> Self {
        let parts = PARTS[..3].iter().map(|part| (*part).to_owned()).collect();
        Self { rounds: self.rounds.min(rounds), parts, ..self.clone() }
    }

    pub fn wants(&self, part: &str) -> bool {
        self.parts.iter().any(|wanted| wanted == part)
    }
}
