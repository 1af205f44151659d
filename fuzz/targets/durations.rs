//! The spelling of a window, compared with long division by hand.

#![no_main]

use libfuzzer_sys::fuzz_target;
use limiter::duration::{MAX_MS, MIN_MS, parse};

/// The number, and the milliseconds of its unit.
fn parts(text: &str) -> Option<(&str, u128)> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let unit = match text.strip_prefix(number)? {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    Some((number, unit))
}

/// Milliseconds, if they are a whole number. A week has 9 digits of them, so a fraction of more than 11 digits cannot be one.
fn expected(text: &str) -> Option<u64> {
    let (number, unit) = parts(text)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if text.len() > 32
        || whole.is_empty()
        || fraction.is_empty()
        || !(whole.to_owned() + fraction).bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 11 {
        return None;
    }
    let scaled = format!("{whole}{fraction:0<11}").parse::<u128>().ok()?.checked_mul(unit)?;
    let milliseconds = u64::try_from(scaled / 10_u128.pow(11)).ok()?;
    let fits = scaled % 10_u128.pow(11) == 0 && (MIN_MS..=MAX_MS).contains(&milliseconds);
    fits.then_some(milliseconds)
}

fuzz_target!(|text: &[u8]| {
    let parsed = parse(text);
    let text = std::str::from_utf8(text).unwrap_or_default();
    match expected(text) {
        None => {
            // As near as programs print a number that is meant.
            if let (Some(parsed), Some((number, unit))) = (parsed, parts(text)) {
                let exact = number.parse::<f64>().unwrap() * unit as f64;
                assert!((exact / parsed as f64 - 1.0).abs() < 1e-15, "{text}");
            }
        }
        expected => assert_eq!(parsed, expected),
    }
    if let Some(milliseconds) = parsed {
        assert_eq!(parse(format!("{milliseconds}ms").as_bytes()), parsed);
    }
});
