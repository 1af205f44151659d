//! Arguments, split at blanks. What is accepted is in range, and means the same in its canonical spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use limiter::duration::{MAX_MS, MIN_MS};
use limiter::error::Error;
use limiter::number::{MAX_UNITS, units};
use limiter::retention::Retention;
use limiter::syntax::{Call, MAX_TIERS, Strict, parse_count, parse_each, parse_numkeys};

fn parse<'a>(words: impl Iterator<Item = &'a [u8]>, strict: Strict) -> Result<Call, Error> {
    let mut call = Call::default();
    call.parse(words, strict).map(|()| call)
}

fn spelled(call: &Call) -> String {
    let mut text = String::new();
    for tier in call.tiers() {
        text += &format!("{} {}ms ", tier.limit, tier.window);
    }
    text += &format!("COST {}", call.cost);
    if call.wait > 0 {
        text += &format!(" WAIT {}ms", call.wait);
    }
    text + if call.strict { " STRICT" } else { "" }
}

fn check(call: &Call) {
    assert!((1..=MAX_TIERS).contains(&call.tiers().len()));
    assert!(call.tiers().iter().all(|tier| tier.limit <= MAX_UNITS && (MIN_MS..=MAX_MS).contains(&tier.window)));
    assert!((1..=MAX_UNITS).contains(&call.cost));
    assert!(call.wait <= MAX_MS && !(call.wait > 0 && call.strict));
    assert_eq!(parse(spelled(call).split(' ').map(str::as_bytes), Strict::Known), Ok(*call));
}

fuzz_target!(|text: &[u8]| {
    let words: Vec<&[u8]> = text.split(|&byte| byte == b' ').collect();
    let hit = parse(words.iter().copied(), Strict::Known);
    let peek = parse(words.iter().copied(), Strict::Unknown);
    hit.iter().for_each(check);
    assert_eq!(peek.ok(), hit.ok().filter(|call| !call.strict && call.wait == 0));

    for keys in 1..=3 {
        let calls = parse_each(words.iter().copied(), keys);
        let calls = calls.unwrap_or_default();
        assert!(calls.is_empty() || calls.len() == keys);
        assert!(calls.iter().all(|call| call.tiers().len() == 1 && !call.strict && call.cost == calls[0].cost));
        calls.iter().for_each(check);
        if keys == 1 {
            assert_eq!(calls.first().copied(), peek.ok().filter(|call| call.tiers().len() == 1));
        }
    }

    for word in &words {
        if let Ok(keys) = parse_numkeys(word, words.len()) {
            assert!((1..=words.len()).contains(&keys) && *word == keys.to_string().as_bytes());
        }
        if let Some(units) = units(word) {
            assert!(units <= MAX_UNITS && *word == units.to_string().as_bytes());
        }
        if let Some(retention) = Retention::parse(word) {
            assert_eq!(*word, retention.to_string().as_bytes());
        }
    }
    assert!(parse_count(words.iter().copied()) != Ok(0));
});
