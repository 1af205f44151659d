//! Figures by policy: how many hits were admitted and refused under which limits, and how many waited.
//!
//! A policy is the tiers of a call, in the order in which they were called. The table has a fixed size. A policy that is new to
//! a full table takes the place of the one that was used least, whose figures then count as those of others; so the sums stay
//! right.

use std::fmt::{self, Write};

use crate::duration;
use crate::hash;
use crate::syntax::{MAX_TIERS, Tier};

/// Policies with figures of their own.
const MOST: usize = 64;

/// Where a policy was found last, by eight bits of its hash.
const PLACES: usize = 256;

/// What became of hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Hits, one for each key that was charged.
    pub admitted: u64,
    /// Hits, one for each key that refused.
    pub refused: u64,
    /// Units of the admitted hits.
    pub units: u64,
    /// Those of the admitted hits that had waited in line.
    pub waited: u64,
}

impl Figures {
    const NONE: Self = Self { admitted: 0, refused: 0, units: 0, waited: 0 };

    fn add(&mut self, other: Self) {
        self.admitted = self.admitted.wrapping_add(other.admitted);
        self.refused = self.refused.wrapping_add(other.refused);
        self.units = self.units.wrapping_add(other.units);
        self.waited = self.waited.wrapping_add(other.waited);
    }

    /// An admitted hit of so many units.
    pub fn admitted(units: u64) -> Self {
        Self { admitted: 1, units, ..Self::NONE }
    }

    pub fn refused() -> Self {
        Self { refused: 1, ..Self::NONE }
    }

    /// A hit that is counted as admitted already has waited before.
    pub fn waited() -> Self {
        Self { waited: 1, ..Self::NONE }
    }

    fn hits(self) -> u64 {
        self.admitted.wrapping_add(self.refused)
    }
}

impl fmt::Display for Figures {
    /// As INFO shows it: `admitted=5,refused=0,units=5,waited=2`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { admitted, refused, units, waited } = self;
        write!(out, "admitted={admitted},refused={refused},units={units},waited={waited}")
    }
}

#[derive(Clone, Copy)]
struct Slot {
    /// 0 if nobody is here.
    hash: u64,
    tiers: [Tier; MAX_TIERS],
    count: usize,
    figures: Figures,
}

impl Slot {
    const EMPTY: Self =
        Self { hash: 0, tiers: [Tier { limit: 0, window: 0 }; MAX_TIERS], count: 0, figures: Figures::NONE };

    fn tiers(&self) -> &[Tier] {
        self.tiers.get(..self.count).unwrap_or_default()
    }
}

pub struct Policies {
    slots: [Slot; MOST],
    places: [u8; PLACES],
    other: Figures,
}

impl Default for Policies {
    fn default() -> Self {
        Self::new()
    }
}

impl Policies {
    pub const fn new() -> Self {
        Self { slots: [Slot::EMPTY; MOST], places: [0; PLACES], other: Figures::NONE }
    }

    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Counts hits under these tiers.
    #[inline]
    pub fn record(&mut self, tiers: &[Tier], figures: Figures) {
        let hash = hash::of_numbers(tiers.iter().map(|tier| [tier.limit, tier.window]));
        let place = self.places.get((hash >> 56) as usize).copied().unwrap_or(0);
        match self.slots.get_mut(usize::from(place)) {
            Some(slot) if slot.hash == hash => slot.figures.add(figures),
            _ => self.find(hash, tiers).add(figures),
        }
    }

    /// The figures of a policy that is not where it would be found at once.
    #[cold]
    fn find(&mut self, hash: u64, tiers: &[Tier]) -> &mut Figures {
        let at = self.slots.iter().position(|slot| slot.hash == hash || slot.hash == 0);
        let least = || self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.figures.hits()).map(|(at, _)| at);
        let at = at.or_else(least).unwrap_or(0);
        if let Some(place) = self.places.get_mut((hash >> 56) as usize) {
            *place = u8::try_from(at).unwrap_or(0);
        }
        let Some(slot) = self.slots.get_mut(at) else { return &mut self.other };
        if slot.hash != hash {
            self.other.add(slot.figures);
            *slot = Slot { hash, count: tiers.len().min(MAX_TIERS), ..Slot::EMPTY };
            slot.tiers.iter_mut().zip(tiers).for_each(|(place, tier)| *place = *tier);
        }
        &mut slot.figures
    }

    /// Passes each policy's tiers and figures to `visit`, and at last those of all others, if there are any, with no tiers.
    pub fn each(&self, mut visit: impl FnMut(&[Tier], Figures)) {
        let used = self.slots.iter().take_while(|slot| slot.hash != 0);
        used.for_each(|slot| visit(slot.tiers(), slot.figures));
        if self.other != Figures::NONE {
            visit(&[], self.other);
        }
    }
}

/// The name of a policy in INFO: `policy_10/1s+500/1h`, or `policy_other`.
pub fn write_name(tiers: &[Tier], out: &mut impl Write) -> fmt::Result {
    out.write_str("policy_")?;
    for (at, tier) in tiers.iter().enumerate() {
        let (number, unit) = duration::shortest(tier.window);
        let and = if at > 0 { "+" } else { "" };
        write!(out, "{and}{}/{number}{unit}", tier.limit)?;
    }
    if tiers.is_empty() { out.write_str("other") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn tier(limit: u64, window: u64) -> Tier {
        Tier { limit, window }
    }

    fn shown(policies: &Policies) -> Vec<(String, Figures)> {
        let mut all = Vec::new();
        policies.each(|tiers, figures| {
            let mut name = String::new();
            write_name(tiers, &mut name).unwrap();
            all.push((name, figures));
        });
        all
    }

    #[test]
    fn each_policy_has_its_figures() {
        let mut policies = Policies::new();
        assert_eq!(shown(&policies), []);
        let (minute, two) = ([tier(100, 60_000)], [tier(10, 1_000), tier(500, 3_600_000)]);
        policies.record(&minute, Figures::admitted(5));
        policies.record(&two, Figures::refused());
        policies.record(&minute, Figures::admitted(1));
        policies.record(&minute, Figures::refused());
        policies.record(&[two[1], two[0]], Figures::refused());
        policies.record(&minute, Figures::waited());
        let all: Vec<String> =
            shown(&policies).into_iter().map(|(name, figures)| format!("{name}:{figures}")).collect();
        let expected = [
            "policy_100/1m:admitted=2,refused=1,units=6,waited=1",
            "policy_10/1s+500/1h:admitted=0,refused=1,units=0,waited=0",
            "policy_500/1h+10/1s:admitted=0,refused=1,units=0,waited=0",
        ];
        assert_eq!(all, expected);
        policies.reset();
        assert_eq!(shown(&policies), []);
    }

    /// However many there are, nothing is lost; and those used most keep their figures.
    #[test]
    fn the_least_used_makes_room() {
        let mut policies = Policies::new();
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut hits, mut counts) = (0, HashMap::new());
        for _ in 0..20_000 {
            let limit = if rng.bool() { rng.u64(..20) } else { rng.u64(20..3_000) };
            policies.record(&[tier(limit, 60_000)], Figures::admitted(2));
            policies.record(&[tier(limit, 60_000)], Figures::waited());
            hits += 1;
            *counts.entry(limit).or_insert(0_u64) += 1;
        }
        let all = shown(&policies);
        assert_eq!(all.len(), MOST + 1);
        assert_eq!(all.last().unwrap().0, "policy_other");
        assert_eq!(all.iter().map(|(_, figures)| figures.admitted).sum::<u64>(), hits);
        assert_eq!(all.iter().map(|(_, figures)| figures.units).sum::<u64>(), 2 * hits);
        assert_eq!(all.iter().map(|(_, figures)| figures.waited).sum::<u64>(), hits);
        for limit in 0..20 {
            let name = format!("policy_{limit}/1m");
            let found = all.iter().find(|(one, _)| *one == name).unwrap();
            assert!(found.1.admitted * 20 >= counts[&limit] * 19, "{name}: {found:?} of {}", counts[&limit]);
        }
    }

    #[test]
    fn names_are_short() {
        for (window, expected) in [
            (1, "1ms"),
            (1_500, "1500ms"),
            (2_000, "2s"),
            (90_000, "90s"),
            (3_600_000, "1h"),
            (86_400_000, "1d"),
            (604_800_000, "1w"),
        ] {
            let mut name = String::new();
            write_name(&[tier(0, window)], &mut name).unwrap();
            assert_eq!(name, format!("policy_0/{expected}"));
        }
    }
}
