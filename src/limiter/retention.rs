//! How long a log is kept when several policies share a key.
//!
//! Two routes may limit one client by different windows, such as 60 s and 10 s. The log must be kept for the longest window
//! in force, whoever calls, and for less once the long policy is given up. All the state for this is in the field name of
//! the newest entry and in the key's expiry `E`:
//!
//! * The name is `R` (`60000ms`), or `R>M` (`60000ms>10000ms`) while the policy of `R` may be on its way out. `M` is the
//!   longest window seen since.
//! * A stored hit with a window of at least `R` takes over: `R` becomes its window, and `E` is renewed if less than that
//!   window is left.
//! * A stored hit with a shorter window sees, when less than `R` is left, that nobody has renewed `R`. The waiting begins, for
//!   `R` and 9/8 `R`.
//! * When the waiting ends, `R` falls to `M`.
//! * A refused hit with a window longer than `M` shows that the long policy is still in use. The waiting begins again, at most
//!   once in an eighth of `R`.
//! * A refused hit with a window longer than `R`, told to wait longer than the key lives, sets `E` to 9/8 of its own window.
//!   So the key lives until every wait is over. A refused hit writes nothing but these two.
//!
//! So a log remembers the longest window in force while its key lives. A policy whose every call is refused does not keep the
//! key alive beyond that: what others store after the key has expired is not counted for it.
//!
//! Simpler rules fail. Trimming by the caller's window, falling when the expiry is due, or ignoring refusals forgets entries
//! that a policy still counts; never falling keeps a day of hits for a one-minute limit.
//!
//! Times and windows are milliseconds; a window is at most ten years.

use crate::duration::{MAX_MS, MIN_MS};
use crate::number::decimal;

/// The field name of a log entry: how long the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// `R`: the longest window in force.
    pub longest: u64,
    /// `M`, shorter than `R`: what `R` falls to once nobody uses it any more.
    pub fallback: Option<u64>,
}

impl Retention {
    /// Reads `60000ms` or `60000ms>10000ms`.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let mut parts = name
            .splitn(2, |&byte| byte == b'>')
            .map(|part| decimal(part.strip_suffix(b"ms")?).filter(|ms| (MIN_MS..=MAX_MS).contains(ms)));
        let longest = parts.next()??;
        let fallback = match parts.next() {
            Some(shorter) => Some(shorter.filter(|&fallback| fallback < longest)?),
            None => None,
        };
        Some(Self { longest, fallback })
    }
}

impl std::fmt::Display for Retention {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}ms", self.longest)?;
        match self.fallback {
            Some(fallback) => write!(out, ">{fallback}ms"),
            None => Ok(()),
        }
    }
}

/// After a stored hit whose longest window is `window`: the field name of its entry, and the key's expiry if it must be set.
/// `expires` is the key's current expiry. A missing one is set as if the waiting began now.
pub fn after_stored(
    current: Option<Retention>,
    expires: Option<u64>,
    now: u64,
    window: u64,
) -> (Retention, Option<u64>) {
    let lives_for = |span: u64| expires.is_some_and(|at| at >= now.saturating_add(span));
    match current {
        Some(Retention { longest, fallback: None }) if window < longest => {
            if lives_for(longest) {
                (Retention { longest, fallback: None }, None)
            } else {
                (Retention { longest, fallback: Some(window) }, Some(waiting(now, longest)))
            }
        }
        Some(Retention { longest, fallback: Some(fallback) }) if window < longest => {
            let fallback = fallback.max(window);
            match expires {
                None => (Retention { longest, fallback: Some(fallback) }, Some(waiting(now, longest))),
                Some(at) if now.saturating_add(longest) >= at => {
                    (Retention { longest: fallback, fallback: None }, Some(renewed(now, fallback)))
                }
                Some(_) => (Retention { longest, fallback: Some(fallback) }, None),
            }
        }
        _ => {
            let expire = (!lives_for(window)).then(|| renewed(now, window));
            (Retention { longest: window, fallback: None }, expire)
        }
    }
}

/// After a hit that was refused, not stored, and told to wait `until` a moment (`None` for never): the key's expiry if it must
/// be set. The current one is looked up only if it matters.
pub fn after_refused(
    current: Option<Retention>,
    expires: impl FnOnce() -> Option<u64>,
    now: u64,
    window: u64,
    until: Option<u64>,
) -> Option<u64> {
    let Retention { longest, fallback } = current?;
    let still_asked = fallback.is_some_and(|fallback| window > fallback);
    // A shorter window never waits longer than the key is kept anyway.
    let until = until.filter(|_| window > longest);
    if !still_asked && until.is_none() {
        return None;
    }
    let at = expires();
    let due = at.is_none_or(|at| at < now.saturating_add(longest.saturating_mul(2)));
    let waiting_again = (still_asked && due).then(|| waiting(now, longest));
    let lives_until = waiting_again.or(at);
    if until.is_some_and(|until| lives_until.is_some_and(|at| at < until)) {
        return Some(renewed(now, window));
    }
    waiting_again
}

/// `now` + 9/8 of the window, so a steady client's expiry is set once in an eighth of its window.
fn renewed(now: u64, window: u64) -> u64 {
    now.saturating_add(window).saturating_add(window / 8)
}

/// `now` + 17/8 of the window: one window of waiting, then as [`renewed`].
fn waiting(now: u64, window: u64) -> u64 {
    renewed(now, window).saturating_add(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for retention in [
            Retention { longest: 60_000, fallback: None },
            Retention { longest: 60_000, fallback: Some(10_000) },
            Retention { longest: MAX_MS, fallback: Some(MIN_MS) },
        ] {
            assert_eq!(Retention::parse(retention.to_string().as_bytes()), Some(retention));
        }
        assert_eq!(Retention { longest: 60_000, fallback: Some(10_000) }.to_string(), "60000ms>10000ms");
    }

    #[test]
    fn other_names_are_foreign() {
        for name in [
            "",
            "60000",
            "ms",
            "0ms",
            "060ms",
            "60s",
            "-1ms",
            "60ms>",
            "60ms>60ms",
            "60ms>61ms",
            "60ms>0ms",
            "60ms>5ms>3ms",
            "60ms >5ms",
            ">5ms",
            "315360000001ms",
            "99999999999999999999999ms",
            "field",
        ] {
            assert_eq!(Retention::parse(name.as_bytes()), None, "{name:?}");
        }
    }
    const NOW: u64 = 1_000_000;
    const R: u64 = 64_000;
    const M: u64 = 8_000;
    const STEADY: Retention = Retention { longest: R, fallback: None };
    const FALLING: Retention = Retention { longest: R, fallback: Some(M) };

    #[test]
    fn a_stored_hit_renews_or_shortens() {
        let renewed = |window| Some(NOW + window + window / 8);
        let waiting = Some(NOW + 2 * R + R / 8);
        for (current, left, window, retention, expire) in [
            (None, None, R, STEADY, renewed(R)),
            (Some(STEADY), Some(R - 1), R, STEADY, renewed(R)),
            (Some(STEADY), Some(R), R, STEADY, None),
            (Some(STEADY), Some(R), R + 1, Retention { longest: R + 1, fallback: None }, renewed(R + 1)),
            (Some(STEADY), Some(R), M, STEADY, None),
            (Some(STEADY), Some(R - 1), M, FALLING, waiting),
            (Some(STEADY), None, M, FALLING, waiting),
            (Some(FALLING), None, M, FALLING, waiting),
            (Some(FALLING), Some(R + 1), M - 1, FALLING, None),
            (Some(FALLING), Some(R + 1), M + 1, Retention { longest: R, fallback: Some(M + 1) }, None),
            (Some(FALLING), Some(R), M - 1, Retention { longest: M, fallback: None }, renewed(M)),
            (Some(FALLING), Some(R + 1), R, STEADY, None),
            (Some(FALLING), Some(1), R, STEADY, renewed(R)),
        ] {
            let got = after_stored(current, left.map(|left| NOW + left), NOW, window);
            assert_eq!(got, (retention, expire), "{current:?} {left:?} {window}");
        }
    }

    #[test]
    fn a_refused_hit_keeps_the_key_while_somebody_waits() {
        let waiting = Some(NOW + 2 * R + R / 8);
        let long = 2 * R;
        for (current, left, window, wait, expire) in [
            // Nothing to keep, or nobody who needs it.
            (None, Some(1), R, Some(R), None),
            (Some(STEADY), Some(1), R, Some(R), None),
            (Some(STEADY), Some(1), long, None, None),
            (Some(FALLING), Some(1), M, Some(M), None),
            // The long policy is still in use. The waiting begins again, unless it has just begun.
            (Some(FALLING), Some(2 * R - 1), M + 1, Some(1), waiting),
            (Some(FALLING), Some(2 * R), M + 1, Some(1), None),
            (Some(FALLING), None, M + 1, None, waiting),
            // A longer window waits longer than the key lives, or not.
            (Some(STEADY), Some(long - 1), long, Some(long), Some(NOW + long + long / 8)),
            (Some(STEADY), Some(long), long, Some(long), None),
            (Some(STEADY), Some(R + 2), long, Some(R + 1), None),
            (Some(STEADY), None, long, Some(long), None),
            (Some(FALLING), Some(1), long + R, Some(long + R), Some(NOW + (long + R) / 8 * 9)),
            (Some(FALLING), Some(1), long, Some(long), waiting),
        ] {
            let expires = || left.map(|left| NOW + left);
            let got = after_refused(current, expires, NOW, window, wait.map(|wait| NOW + wait));
            assert_eq!(got, expire, "{current:?} {left:?} {window} {wait:?}");
        }
    }
}
