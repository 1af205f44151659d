//! Arguments, split at blanks: what is accepted is in range, and means the same when it is spelled as one should.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ratelimit_fuzz::args::{self, Call, MAX_TIERS, MAX_UNITS, Strict};
use ratelimit_fuzz::duration::{MAX_MS, MIN_MS};
use ratelimit_fuzz::error::Error;
use ratelimit_fuzz::retention::Retention;

fn parse<'a>(words: impl Iterator<Item = &'a [u8]>, strict: Strict) -> Result<Call, Error> {
    let mut call = Call::default();
    call.read(words, strict).map(|()| call)
}

fn spelled(call: &Call) -> String {
    let mut text = String::new();
    for tier in call.tiers() {
        text += &format!("{} {}ms ", tier.limit, tier.window);
    }
    text + &format!("COST {}", call.cost) + if call.strict { " STRICT" } else { "" }
}

fn check(call: &Call) {
    assert!((1..=MAX_TIERS).contains(&call.tiers().len()));
    assert!(call.tiers().iter().all(|tier| tier.limit <= MAX_UNITS && (MIN_MS..=MAX_MS).contains(&tier.window)));
    assert!((1..=MAX_UNITS).contains(&call.cost));
    assert_eq!(parse(spelled(call).split(' ').map(str::as_bytes), Strict::Known), Ok(*call));
}

fuzz_target!(|text: &[u8]| {
    let words: Vec<&[u8]> = text.split(|&byte| byte == b' ').collect();
    let hit = parse(words.iter().copied(), Strict::Known);
    let peek = parse(words.iter().copied(), Strict::Unknown);
    hit.iter().for_each(check);
    assert_eq!(peek.ok(), hit.ok().filter(|call| !call.strict));

    for keys in 1..=3 {
        let calls = args::parse_each(words.iter().copied(), keys);
        let calls = calls.unwrap_or_default();
        assert!(calls.is_empty() || calls.len() == keys);
        assert!(calls.iter().all(|call| call.tiers().len() == 1 && !call.strict && call.cost == calls[0].cost));
        calls.iter().for_each(check);
        if keys == 1 {
            assert_eq!(calls.first().copied(), peek.ok().filter(|call| call.tiers().len() == 1));
        }
    }

    for word in &words {
        if let Ok(keys) = args::number_of_keys(word, words.len()) {
            assert!((1..=words.len()).contains(&keys) && *word == keys.to_string().as_bytes());
        }
        if let Some(units) = args::units(word) {
            assert!(units <= MAX_UNITS && *word == units.to_string().as_bytes());
        }
        if let Some(retention) = Retention::parse(word) {
            assert_eq!(*word, retention.to_string().as_bytes());
        }
    }
    assert!(args::parse_count(words.iter().copied()) != Ok(0));
});
