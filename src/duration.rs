//! How long a window is: `60`, `0.5`, `500ms`, `10s`, `1m`, `1h`, `1d`.

/// Shortest and longest window, in milliseconds (1 ms and 3650 days).
pub const MIN_MS: u64 = 1;
pub const MAX_MS: u64 = 3650 * 86_400_000;

/// A longer text cannot be a duration: the longest one in milliseconds has 14 bytes. So many digits fit into a u128.
const MAX_TEXT: usize = 32;

/// Milliseconds of a duration: digits with at most one point between them, then `ms`, `s`, `m`, `h`, `d` or nothing,
/// which is seconds. `None` unless it is a whole number of milliseconds from [`MIN_MS`] to [`MAX_MS`].
pub fn parse(text: &[u8]) -> Option<u64> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let suffix_at = text.iter().position(u8::is_ascii_lowercase).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(suffix_at)?;
    let unit: u64 = match suffix {
        b"ms" => 1,
        b"" | b"s" => 1_000,
        b"m" => 60_000,
        b"h" => 3_600_000,
        b"d" => 86_400_000,
        _ => return None,
    };
    let milliseconds = match number.iter().position(|&byte| byte == b'.') {
        None => add_digits(0, number)?.checked_mul(unit.into())?,
        // Exact arithmetic: value = digits / scale, so milliseconds = digits * unit / scale, without a remainder.
        Some(point) => {
            let (whole, rest) = number.split_at_checked(point)?;
            let fraction = rest.split_first()?.1;
            let digits = add_digits(add_digits(0, whole)?, fraction)?;
            let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let scaled = digits.checked_mul(unit.into())?;
            if scaled.checked_rem(scale)? != 0 {
                return None;
            }
            scaled.checked_div(scale)?
        }
    };
    let milliseconds = u64::try_from(milliseconds).ok()?;
    (MIN_MS..=MAX_MS).contains(&milliseconds).then_some(milliseconds)
}

/// Goes on with a decimal number by at least one digit.
fn add_digits(number: u128, digits: &[u8]) -> Option<u128> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(number, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit <= 9).then(|| number.wrapping_mul(10).wrapping_add(digit.into()))
    })
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
            ("3650d", MAX_MS),
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
}
