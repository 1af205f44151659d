//! How many bytes a piece takes in a listpack: `lpEncodeIntegerGetType`, `lpEncodeGetType` and `lpEncodeBacklen` of the
//! servers' listpack.c. The size of each piece stands behind it once more, so that the list can be read backwards.

/// The head of a listpack (its bytes and its number of pieces) and the byte behind the last piece.
pub const EMPTY: u64 = 7;

/// Sums of texts above this are refused by XADD, and nodes are never let grow beyond it: `STREAM_LISTPACK_MAX_SIZE`.
pub const LARGEST: u64 = 1 << 30;

/// Bytes of an integer.
pub fn integer(value: i64) -> u64 {
    // The size behind it always fits into one byte.
    1 + match value {
        0..=127 => 1,
        -4_096..=4_095 => 2,
        -32_768..=32_767 => 3,
        -8_388_608..=8_388_607 => 4,
        -2_147_483_648..=2_147_483_647 => 5,
        _ => 9,
    }
}

/// Bytes of a text, and whether it is of one of the few lengths for which Valkey 9.1 takes a byte less. A text that is the
/// usual way to write an integer is stored as one.
pub fn text(text: &[u8]) -> (u64, bool) {
    if let Some(value) = as_integer(text) {
        return (integer(value), false);
    }
    let length = text.len() as u64;
    let head = match length {
        0..=63 => 1,
        64..=4_095 => 2,
        _ => 5,
    };
    let piece = head + length;
    // 7 bits of it fit into a byte, but the largest number of two, three or four bytes takes one more. Valkey 9.1 has
    // mended that.
    let size_of_size = match piece {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    };
    (piece + size_of_size, matches!(piece, 16_383 | 2_097_151 | 268_435_455))
}

/// A text as a 64-bit integer, if writing that gives the same text.
fn as_integer(text: &[u8]) -> Option<i64> {
    if text == b"0" {
        return Some(0);
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit);
    if !plain || !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
