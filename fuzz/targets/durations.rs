//! The spelling of a window, compared with long division by hand.

#![no_main]

use libfuzzer_sys::fuzz_target;
use limiter::duration::{MAX_MS, MIN_MS, parse};

/// Milliseconds. A day has 8 digits of them, so a fraction of more than 10 digits cannot be a whole number.
fn expected(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let unit = match text.strip_prefix(number)? {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if text.len() > 32
        || whole.is_empty()
        || fraction.is_empty()
        || !(whole.to_owned() + fraction).bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 10 {
        return None;
    }
    let scaled = format!("{whole}{fraction:0<10}").parse::<u128>().ok()?.checked_mul(unit)?;
    let milliseconds = u64::try_from(scaled / 10_u128.pow(10)).ok()?;
    let fits = scaled % 10_u128.pow(10) == 0 && (MIN_MS..=MAX_MS).contains(&milliseconds);
    fits.then_some(milliseconds)
}

fuzz_target!(|text: &[u8]| {
    let parsed = parse(text);
    assert_eq!(parsed, std::str::from_utf8(text).ok().and_then(expected));
    if let Some(milliseconds) = parsed {
        assert_eq!(parse(format!("{milliseconds}ms").as_bytes()), parsed);
    }
});
