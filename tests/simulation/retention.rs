//! How long a log must be kept, as docs/how-it-works.md says, in a few lines. It shares no code with the module.

use crate::frame::Meaning;

/// What the next entry's name says, and when the key must expire if that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub longest: u64,
    pub fallback: Option<u64>,
    pub expires: Option<u64>,
}

/// After a hit that is stored at `now`, whose longest window is `window`. `expires` is when the key expired so far.
pub fn stored(newest: Option<Meaning>, expires: Option<u64>, now: u64, window: u64) -> Kept {
    let lives = |span: u64| expires.is_some_and(|at| now + span <= at);
    let lone = |longest: u64, fallback, expires| Kept { longest, fallback, expires };
    let Some(Meaning { keep, fallback, .. }) = newest.filter(|newest| newest.keep > window) else {
        return lone(window, None, (!lives(window)).then_some(now + window + window / 8));
    };
    let waiting = now + 2 * keep + keep / 8;
    match fallback {
        None if lives(keep) => lone(keep, None, None),
        None => lone(keep, Some(window), Some(waiting)),
        Some(fallback) => {
            let fallback = fallback.max(window);
            match expires {
                None => lone(keep, Some(fallback), Some(waiting)),
                Some(at) if at > now + keep => lone(keep, Some(fallback), None),
                Some(_) => lone(fallback, None, Some(now + fallback + fallback / 8)),
            }
        }
    }
}

/// After a hit that is refused and not stored, and told to wait until then: when the key must expire, if that changes.
pub fn refused(newest: Meaning, expires: Option<u64>, now: u64, window: u64, until: Option<u64>) -> Option<u64> {
    let Meaning { keep, fallback, .. } = newest;
    let is_asked = fallback.is_some_and(|fallback| window > fallback);
    let begins = is_asked && expires.is_none_or(|at| at < now + 2 * keep);
    let waiting = begins.then_some(now + 2 * keep + keep / 8);
    let dies = |until: u64| waiting.or(expires).is_some_and(|at| at < until);
    match until {
        Some(until) if window > keep && dies(until) => Some(now + window + window / 8),
        _ => waiting,
    }
}
