//! Where a key belongs in the tables of this module: a hash with a secret, so that nobody can choose keys that fall into one
//! place.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

/// The hash of a key of a database. Never 0.
pub fn of(database: i32, key: &[u8]) -> u64 {
    static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut hasher = SECRET.build_hasher();
    hasher.write(key);
    (hasher.finish() ^ u64::from(database.unsigned_abs())) | 1
}
