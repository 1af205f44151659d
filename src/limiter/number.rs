//! Numbers as text: what is accepted, and how they are spelled.

/// Largest limit and largest cost: every client language holds integers up to here exactly.
pub const MAX_UNITS: u64 = (1 << 53) - 1;

/// An integer from 0 to [`MAX_UNITS`], spelled as the server spells integers: digits, no sign, no leading zero.
pub fn units(text: &[u8]) -> Option<u64> {
    decimal(text).filter(|&units| units <= MAX_UNITS)
}

/// A canonical decimal number below 10^19: at most 19 digits, no leading zero.
pub fn decimal(text: &[u8]) -> Option<u64> {
    let (first, more) = text.split_first()?;
    if more.len() > 18 || *first == b'0' && !more.is_empty() {
        return None;
    }
    // So few digits do not overflow.
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit <= 9).then(|| value.wrapping_mul(10).wrapping_add(digit.into()))
    })
}

/// Two numbers with a dash between them, without the cost of formatting. Filled from its end.
pub struct PairText {
    bytes: [u8; Self::LONGEST],
    start: usize,
}

impl PairText {
    /// Two numbers of 20 digits, the dash, and room for leading zeros up to a multiple of eight.
    const LONGEST: usize = 45;

    /// `first-second`.
    pub fn new(first: u64, second: u64) -> Self {
        let mut text = Self { bytes: [0; Self::LONGEST], start: Self::LONGEST };
        text.prepend_number(second);
        text.prepend_dash();
        text.prepend_number(first);
        text
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn prepend_dash(&mut self) {
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.bytes.get_mut(self.start) {
            *place = b'-';
        }
    }

    fn prepend_number(&mut self, mut number: u64) {
        const EIGHT_DIGITS: u64 = 100_000_000;
        let mut free = self.bytes.get_mut(..self.start).unwrap_or_default();
        while let Some((before, place)) = free.split_last_chunk_mut() {
            let digits = eight_digits(number % EIGHT_DIGITS);
            *place = (digits | 0x3030_3030_3030_3030).to_le_bytes();
            (number, free) = (number / EIGHT_DIGITS, before);
            if number == 0 {
                let leading_zeros = (digits.trailing_zeros() / 8).min(7);
                self.start = free.len().saturating_add(leading_zeros as usize);
                return;
            }
        }
    }
}

/// The digits of a number below 10^8, one a byte, the first one lowest. All are computed at once: a word is divided into
/// halves of four digits each, these into quarters of two, and these into bytes of one.
fn eight_digits(number: u64) -> u64 {
    let halves = (number / 10_000) | ((number % 10_000) << 32);
    // 10486 / 2^20 is close enough to 1/100 below 10^4, and 103 / 2^10 to 1/10 below 100.
    let hundreds = (halves.wrapping_mul(10_486) >> 20) & 0x0000_007f_0000_007f;
    let quarters = hundreds | (halves.wrapping_sub(hundreds.wrapping_mul(100)) << 16);
    let tens = (quarters.wrapping_mul(103) >> 10) & 0x000f_000f_000f_000f;
    tens | (quarters.wrapping_sub(tens.wrapping_mul(10)) << 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_units() {
        assert_eq!(units(b"0"), Some(0));
        assert_eq!(units(b"9007199254740991"), Some(MAX_UNITS));
        assert_eq!(units(b"9007199254740992"), None);
        assert_eq!(decimal(b"9999999999999999999"), Some(9_999_999_999_999_999_999));
        assert_eq!(decimal(b"10000000000000000000"), None);
    }

    #[test]
    fn the_text_of_a_pair() {
        let powers = (0..20).map(|digits| 10_u64.pow(digits));
        let numbers: Vec<u64> = powers.flat_map(|power| [power - 1, power, power.saturating_mul(7)]).collect();
        for (&first, &second) in numbers.iter().zip(numbers.iter().rev()) {
            assert_eq!(PairText::new(first, second).bytes(), format!("{first}-{second}").as_bytes());
        }
        for number in (0..100_000_000).step_by(4_999) {
            assert_eq!(PairText::new(number, number).bytes(), format!("{number}-{number}").as_bytes());
        }
    }
}
