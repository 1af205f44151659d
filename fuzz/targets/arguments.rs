//! Arguments, split at blanks. What is accepted is in range, and means the same in its canonical spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use limiter::duration::{MAX_MS, MIN_MS};
use limiter::error::Error;
use limiter::number::{MAX_UNITS, units};
use limiter::retention::Retention;
use limiter::syntax::{Asker, Call, MAX_TIERS, Record, parse_count, parse_groups, parse_numkeys, parse_refund};

fn parse<'a>(words: impl Iterator<Item = &'a [u8]>, asker: Asker) -> Result<Call, Error> {
    let mut call = Call::default();
    call.parse(words, asker).map(|()| call)
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
    text += match call.record {
        Record::Allowed => "",
        Record::Strict => " STRICT",
        Record::Force => " FORCE",
    };
    text + if call.with_tiers { " WITHTIERS" } else { "" }
}

fn check(call: &Call, asker: Asker) {
    assert!((1..=MAX_TIERS).contains(&call.tiers().len()));
    assert!(call.tiers().iter().all(|tier| tier.limit <= MAX_UNITS && (MIN_MS..=MAX_MS).contains(&tier.window)));
    assert!((u64::from(asker == Asker::Hit)..=MAX_UNITS).contains(&call.cost));
    assert!(call.wait <= MAX_MS && (call.wait == 0 || call.record == Record::Allowed));
    assert_eq!(parse(spelled(call).split(' ').map(str::as_bytes), asker), Ok(*call));
}

fuzz_target!(|text: &[u8]| {
    let words: Vec<&[u8]> = text.split(|&byte| byte == b' ').collect();
    let hit = parse(words.iter().copied(), Asker::Hit);
    let peek = parse(words.iter().copied(), Asker::Peek);
    hit.iter().for_each(|call| check(call, Asker::Hit));
    peek.iter().for_each(|call| check(call, Asker::Peek));
    let of_both = hit.ok().filter(|call| call.record == Record::Allowed && call.wait == 0);
    assert_eq!(peek.ok().filter(|call| call.cost > 0), of_both);

    for keys in 1..=3 {
        let calls = parse_groups(words.iter().copied(), keys).unwrap_or_default();
        assert!(calls.is_empty() || calls.len() == keys);
        let options = |call: &Call| (call.record, call.with_tiers);
        assert!(calls.iter().all(|call| options(call) == options(&calls[0])));
        calls.iter().for_each(|call| check(call, Asker::Hit));
        // A single group is a hit whose options come last.
        if let ([call], Ok(hit)) = (&calls[..], hit) {
            assert_eq!(*call, hit);
        }
    }
    assert_ne!(parse_refund(words.iter().copied()), Ok(0));

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
