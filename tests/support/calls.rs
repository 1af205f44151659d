//! Random calls, and their words.

use oracle::{Question, Tier};

/// One of the spellings of a length of time.
fn spell(rng: &mut fastrand::Rng, milliseconds: u64) -> String {
    let mut spellings = vec![format!("{milliseconds}ms")];
    let decimal = |unit: u64| {
        // The value in a unit, where four decimals can say it exactly.
        let scaled = milliseconds * 10_000;
        (scaled % unit == 0).then(|| {
            let (whole, fraction) = (scaled / unit / 10_000, scaled / unit % 10_000);
            let text = format!("{whole}.{fraction:04}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        })
    };
    for (unit, suffixes) in [(1_000, &["s", ""][..]), (60_000, &["m"]), (3_600_000, &["h"]), (86_400_000, &["d"])] {
        if let Some(text) = decimal(unit) {
            spellings.extend(suffixes.iter().map(|suffix| format!("{text}{suffix}")));
        }
    }
    rng.choice(spellings).unwrap()
}

/// A word in letters of either case.
pub fn any_case(rng: &mut fastrand::Rng, word: &str) -> String {
    word.chars().map(|letter| if rng.bool() { letter.to_ascii_lowercase() } else { letter }).collect()
}

/// The words of a call, options in any place after the first tier.
pub fn words_of(rng: &mut fastrand::Rng, key: &str, question: Question) -> Vec<String> {
    let mut groups: Vec<Vec<String>> = Vec::new();
    for (limit, window) in question.tiers {
        groups.push(vec![limit.to_string(), spell(rng, *window)]);
    }
    if question.cost != 1 || rng.bool() {
        let place = rng.usize(1..=groups.len());
        groups.insert(place, vec![any_case(rng, "COST"), question.cost.to_string()]);
    }
    for (is_given, option) in [(question.strict, "STRICT"), (question.force, "FORCE")] {
        if is_given {
            let place = rng.usize(1..=groups.len());
            groups.insert(place, vec![any_case(rng, option)]);
        }
    }
    [key.to_owned()].into_iter().chain(groups.concat()).collect()
}

fn limit(rng: &mut fastrand::Rng) -> u64 {
    match rng.u8(..16) {
        0 => 0,
        1 => (1 << 53) - 1,
        2..5 => rng.u64(20..300),
        _ => rng.u64(1..20),
    }
}

/// Tiers of which one has the longest window, and a cost.
pub fn question_for(rng: &mut fastrand::Rng, longest: u64) -> (Vec<Tier>, u64) {
    let mut tiers = vec![(limit(rng), longest)];
    for _ in 0..rng.usize(..8).saturating_sub(4) {
        let window = if rng.bool() { rng.u64(20..=longest) } else { rng.u64(1..=longest.div_ceil(20)) * 20 };
        tiers.insert(rng.usize(..=tiers.len()), (limit(rng), window.min(longest)));
    }
    let cost = match rng.u8(..10) {
        0 => rng.u64(1..400),
        1..4 => rng.u64(2..10),
        _ => 1,
    };
    (tiers, cost)
}
