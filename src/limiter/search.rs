//! When enough units have left a log.

use crate::error::Error;
use crate::log::{Hit, Log};

/// Entries to look at one by one before searching by time.
const WALK: u32 = 16;

/// The time of the entry with which `needed` units have left, counted from `first`. A refused call waits until that time has
/// left the window. A short walk, then a bisection over time: at most 40 seeks, however long the log is.
pub fn time_of_unit(log: &mut impl Log, first: &Hit, newest: &Hit, needed: u64) -> Result<u64, Error> {
    if first.cost >= needed {
        return Ok(first.id.time);
    }
    let mut found = None;
    let mut walked_to = first.id.time;
    let mut left = WALK;
    log.walk(first.id.time, &mut |hit| {
        // Entries deleted before this hit left with the hit before it.
        if hit.units_since(first).saturating_sub(hit.cost) >= needed {
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
    // The entries up to `low` weigh too little, those up to `high` enough.
    let mut low = walked_to.saturating_sub(1);
    let mut high = newest.id.time;
    while high.saturating_sub(low) > 1 {
        let middle = low.midpoint(high);
        let next = log.seek(middle.saturating_add(1))?;
        match next.filter(|next| next.units_since(first).saturating_sub(next.cost) < needed) {
            Some(next) => {
                let last_too_early = next.id.time.saturating_sub(1);
                low = last_too_early.clamp(middle, high.saturating_sub(1));
            }
            None => high = middle,
        }
    }
    Ok(high)
}
