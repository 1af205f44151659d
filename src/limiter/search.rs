//! When enough units have left a log.

use crate::error::Error;
use crate::log::{Hit, Log};

/// Entries to look at one by one, which is cheaper than one search by time.
const WALK: u64 = 16;

/// The time of the entry with which `needed` units have left, counted from `first`. A refused call waits until that time has
/// left the window.
///
/// The place is guessed from the units on both sides of it, as hits come more or less evenly, and a short walk goes the rest.
/// Every second step halves the time instead, so there are never more than 84 searches, however long the log is.
pub fn time_of_unit(log: &mut impl Log, first: &Hit, newest: &Hit, needed: u64) -> Result<u64, Error> {
    if first.cost >= needed {
        return Ok(first.id.time);
    }
    // Entries deleted before a hit left with the hit before it.
    let units_before = |hit: &Hit| hit.units_since(first).saturating_sub(hit.cost);
    // The entries up to `low` weigh too little, those up to `high` enough.
    let (mut low, mut low_units, mut cost) = (first.id.time.saturating_sub(1), 0_u64, first.cost);
    let (mut high, mut high_units) = (newest.id.time, newest.units_since(first));
    let (mut walks, mut halves) = (true, false);
    while high.saturating_sub(low) > 1 {
        if walks && needed.saturating_sub(low_units) <= cost.saturating_mul(WALK) {
            let mut left = WALK;
            let mut walked_to = low;
            let mut found = None;
            log.walk(low.saturating_add(1), &mut |hit| {
                if units_before(&hit) >= needed {
                    found = Some(walked_to);
                    return false;
                }
                walked_to = hit.id.time;
                left = left.saturating_sub(1);
                left > 0
            })?;
            if let Some(time) = found {
                return Ok(time);
            }
            low = walked_to.saturating_sub(1).clamp(low, high.saturating_sub(1));
            walks = false;
            continue;
        }
        // A little too early is best, because walks go forward.
        let aim = needed.saturating_sub(cost.saturating_mul(WALK / 2));
        let middle = match halves {
            true => low.midpoint(high),
            false => low.saturating_add(part(
                high.saturating_sub(low),
                aim.saturating_sub(low_units),
                high_units.saturating_sub(low_units),
            )),
        };
        let middle = middle.clamp(low.saturating_add(1), high.saturating_sub(1));
        halves = !halves;
        match log.seek(middle.saturating_add(1))? {
            Some(next) if units_before(&next) < needed => {
                let last_too_early = next.id.time.saturating_sub(1);
                low = last_too_early.clamp(middle, high.saturating_sub(1));
                (low_units, cost, walks) = (units_before(&next), next.cost, true);
            }
            Some(next) => (high, high_units) = (middle, units_before(&next)),
            None => high = middle,
        }
    }
    Ok(high)
}

/// `whole * share / all`.
fn part(whole: u64, share: u64, all: u64) -> u64 {
    let product = u128::from(whole).wrapping_mul(u128::from(share));
    u64::try_from(product.checked_div(u128::from(all)).unwrap_or(0)).unwrap_or(u64::MAX)
}
