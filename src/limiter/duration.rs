//! How long a window is: `60`, `0.5`, `500ms`, `10s`, `1m`, `1h`, `1d`, `1w`.

/// Shortest and longest window, in milliseconds (1 ms and 3650 days).
pub const MIN_MS: u64 = 1;
pub const MAX_MS: u64 = 3650 * 86_400_000;

/// Longer texts are not durations: the longest one in milliseconds has 14 bytes. This many digits fit into a u128.
const MAX_TEXT: usize = 32;

/// Milliseconds of a duration: digits with at most one point between them, then `ms`, `s`, `m`, `h`, `d`, `w`, or nothing for
/// seconds. `None` unless it is a whole number of milliseconds from [`MIN_MS`] to [`MAX_MS`], or off by so little as programs
/// print numbers of 64 bits: Lua passes 0.3 as `0.29999999999999999`.
pub fn parse(text: &[u8]) -> Option<u64> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let (mut number, mut rest) = add_digits(0, text)?;
    // The value is number / scale, exactly.
    let mut scale: u128 = 1;
    if let Some((b'.', fraction)) = rest.split_first() {
        (number, rest) = add_digits(number, fraction)?;
        scale = 10_u128.checked_pow(u32::try_from(fraction.len().checked_sub(rest.len())?).ok()?)?;
    }
    let unit: u128 = match rest {
        b"ms" => 1,
        b"" | b"s" => 1_000,
        b"m" => 60_000,
        b"h" => 3_600_000,
        b"d" => 86_400_000,
        b"w" => 604_800_000,
        _ => return None,
    };
    let mut milliseconds = number.checked_mul(unit)?;
    if scale != 1 {
        let nearest = milliseconds.checked_add(scale >> 1)?.checked_div(scale)?;
        let off = milliseconds.abs_diff(nearest.checked_mul(scale)?);
        // A number is off by 2^-53 of itself at most, and by half as much again if it is printed with 17 digits.
        if off.checked_mul(1 << 52)? > milliseconds {
            return None;
        }
        milliseconds = nearest;
    }
    let milliseconds = u64::try_from(milliseconds).ok()?;
    (MIN_MS..=MAX_MS).contains(&milliseconds).then_some(milliseconds)
}

/// A duration in the largest unit that says it in whole numbers: 90 and `s` for 90,000 milliseconds.
pub fn shortest(milliseconds: u64) -> (u64, &'static str) {
    let units = [(604_800_000, "w"), (86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let in_unit = |(unit, name): (u64, _)| Some((milliseconds.checked_div(unit)?, name));
    let unit = units.into_iter().find(|(unit, _)| milliseconds.checked_rem(*unit) == Some(0));
    unit.and_then(in_unit).unwrap_or((milliseconds, "ms"))
}

/// Continues a decimal number by at least one digit, and returns what follows.
fn add_digits(mut number: u128, text: &[u8]) -> Option<(u128, &[u8])> {
    let mut rest = text;
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        number = number.wrapping_mul(10).wrapping_add(digit.wrapping_sub(b'0').into());
        rest = after;
    }
    (rest.len() < text.len()).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_minute() {
        for text in ["60", "60s", "1m", "60000ms", "60.0", "60.000s", "1.0m", "060"] {
            assert_eq!(parse(text.as_bytes()), Some(60_000), "{text}");
        }
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("0.5", 500),
            ("0.001", 1),
            ("1ms", 1),
            ("20ms", 20),
            ("1.5m", 90_000),
            ("0.25h", 900_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1w", 604_800_000),
            ("0.5w", 302_400_000),
            ("521w", 521 * 604_800_000),
            ("3650d", MAX_MS),
            ("0.29999999999999999", 300),
            ("0.10000000000000001", 100),
            ("1.0009999999999999", 1_001),
            ("86400.123000000007", 86_400_123),
            ("315359999.99900001", MAX_MS - 1),
            ("0.0010000000000000000208s", 1),
            ("315360000", MAX_MS),
            ("315360000000ms", MAX_MS),
            ("0.00000000001157407407407407407d", 0),
        ] {
            let wanted = (expected != 0).then_some(expected);
            assert_eq!(parse(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            " ",
            "0",
            "0ms",
            "0.0s",
            "-1",
            "+1",
            "1e3",
            "1 s",
            " 1",
            "1 ",
            "1S",
            "1M",
            "1MS",
            "1sec",
            "s",
            "ms",
            ".",
            ".5",
            "5.",
            "1.2.3",
            "1..2",
            "0.5ms",
            "0.0001",
            "1.0005s",
            "0.3333",
            "0.299999999999",
            "0.3000000000000003",
            "0.2999999999999995",
            "1.0000000000001",
            "522w",
            "1W",
            "3650.1d",
            "3651d",
            "315360000001ms",
            "inf",
            "nan",
            "0x10",
            "1_000",
            "1,5",
            "1s1",
            "99999999999999999999999999999999",
            "999999999999999999999999999999999",
            "60\0",
            "1\u{b5}s",
            "\u{661}s",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(&[b'0'; 1 << 20]), None);
        assert_eq!(parse(b"\xff\xfe"), None);
    }

    /// As Lua and JavaScript print them, every number of milliseconds is taken for what it is.
    #[test]
    fn numbers_as_programs_print_them() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100_000 {
            let milliseconds = (rng.u64(..MAX_MS) >> rng.u32(..38)).max(1);
            let seconds = milliseconds as f64 / 1_000.0;
            let whole = format!("{seconds:.0}").len().saturating_sub(usize::from(seconds < 1.0));
            for text in [format!("{seconds}"), format!("{seconds:.*}", 17_usize.saturating_sub(whole))] {
                assert_eq!(parse(text.as_bytes()), Some(milliseconds), "{text}");
            }
        }
    }

    #[test]
    fn a_text_has_at_most_32_bytes() {
        assert_eq!(parse(format!("{:0>32}", "60s").as_bytes()), Some(60_000));
        assert_eq!(parse(format!("{:0>33}", "60s").as_bytes()), None);
        assert_eq!(parse(format!("{:0>40}", "60s").as_bytes()), None);
    }
}
