//! The place of a key in the tables of this module: a hash with a secret, so nobody can choose keys that collide. The table
//! of refusals also compares the keys themselves; that of cursors compares the ends of their logs.
//!
//! As in wyhash, each eight bytes are mixed in by a multiplication whose upper half is folded onto the lower one. It takes a
//! fifth of the time of the standard library's SipHash.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

/// The hash of a key in a database. Never 0.
#[inline]
pub fn of(database: i32, key: &[u8]) -> u64 {
    static SECRET: LazyLock<[u64; 2]> = LazyLock::new(|| [0, 1].map(|at| RandomState::new().hash_one(at)));
    keyed(*SECRET, database, key)
}

/// Spreads a number, without a secret: the same on every server.
pub fn of_number(number: u64) -> u64 {
    // The first digits of pi after the point.
    fold(number ^ 0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344)
}

/// The hash of a list of pairs, without a secret. Never 0.
#[inline]
pub fn of_numbers(pairs: impl Iterator<Item = [u64; 2]>) -> u64 {
    let hash = pairs.fold(0x243f_6a88_85a3_08d3, |hash, [one, other]| {
        fold(hash ^ one, 0x1319_8a2e_0370_7345 ^ other).wrapping_add(hash)
    });
    hash | 1
}

/// Which of `sets` sets a hash belongs to. `None` if there are none.
#[inline]
pub fn set_of(hash: u64, sets: usize) -> Option<usize> {
    // Use the upper half, because the lowest bit is always the same.
    usize::try_from(hash >> 32).ok()?.checked_rem(sets)
}

#[inline]
fn keyed([start, step]: [u64; 2], database: i32, key: &[u8]) -> u64 {
    let mut hash = start;
    let mut rest = key;
    while let Some((word, after)) = rest.split_first_chunk() {
        hash = fold(hash ^ u64::from_le_bytes(*word), step);
        rest = after;
    }
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
    // Last, because nobody knows what these are combined with: the first word of a key could make up for them.
    let place = (key.len() as u64).rotate_left(32).wrapping_add(database.unsigned_abs().into());
    fold(fold(hash ^ u64::from_le_bytes(last), step) ^ place, start) | 1
}

fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one).wrapping_mul(u128::from(other));
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> impl Iterator<Item = [u64; 2]> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..20).map(move |_| [rng.u64(..), rng.u64(..)])
    }

    #[test]
    fn it_is_never_zero() {
        for n in 0..100_u32 {
            assert_eq!(of(0, &n.to_le_bytes()) & 1, 1);
        }
    }

    #[test]
    fn every_bit_of_key_length_and_database_counts() {
        for secret in secrets() {
            let mut seen = std::collections::HashSet::new();
            let mut is_new =
                |database, key: &[u8]| assert!(seen.insert(keyed(secret, database, key)), "{database} {key:?}");
            (0..200).for_each(|length| is_new(0, &vec![0; length]));
            (0..31).for_each(|bit| is_new(1 << bit, &[0; 20]));
            (0..31).for_each(|bit| is_new(1 << bit, b""));
            for bit in 0..21 * 8 {
                let mut key = [0; 21];
                key[bit / 8] = 1 << (bit % 8);
                is_new(0, &key);
                key.iter_mut().for_each(|byte| *byte ^= 0xff);
                is_new(0, &key);
            }
        }
    }

    /// A bit of the key changes about half the bits of the hash, each as often as the others.
    #[test]
    fn bits_are_spread() {
        const KEYS: usize = 400;
        let mut rng = fastrand::Rng::with_seed(7);
        let secret = [rng.u64(..), rng.u64(..)];
        for bit in 0..11 * 8 {
            let mut changed = [0_usize; 64];
            for _ in 0..KEYS {
                let mut key = [0; 11].map(|_: u8| rng.u8(..));
                let before = keyed(secret, 0, &key);
                key[bit / 8] ^= 1 << (bit % 8);
                let difference = before ^ keyed(secret, 0, &key);
                (0..64).for_each(|at| changed[at] += (difference >> at & 1) as usize);
            }
            // The lowest bit is always set. Five standard deviations are 50.
            assert!(changed[1..].iter().all(|times| times.abs_diff(KEYS / 2) <= 70), "bit {bit}: {changed:?}");
        }
    }
}
