//! A log of one hit, as `DUMP` would write it and `RESTORE` reads it.
//!
//! A stream that XADD creates allocates `stream-node-max-bytes` in advance, 4 kB by default. One that RESTORE creates has
//! exactly the bytes it needs, and grows when it must.
//!
//! The format is that of an RDB file: type, value, RDB version, CRC-64. Type and version are the oldest that describe the
//! stream of Redis 7.0; every later server, Valkey too, reads them. The value is one node, which is a listpack: the fields
//! that its entries have in common, then the entries.

use crc::{CRC_64_REDIS, Crc};

use crate::log::Hit;

/// `RDB_TYPE_STREAM_LISTPACKS`, of Redis 5.0.
const STREAM: u8 = 15;

/// That of Redis 5.0.
const RDB_VERSION: u16 = 9;

/// The flag of an entry that has the node's own fields.
const SAME_FIELDS: i64 = 2;

/// More than is ever needed: 79 bytes, and a field name of at most 63.
const CAPACITY: usize = 160;

static CHECKSUM: Crc<u64> = Crc::<u64>::new(&CRC_64_REDIS);

/// A payload for `RESTORE`.
pub struct Dump {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl Dump {
    /// A log of this hit, whose entry has the field `name`. None if the name is longer than any that this module writes.
    pub fn of(hit: Hit, name: &[u8]) -> Option<Self> {
        let id = hit.id;
        let mut dump = Self { bytes: [0; CAPACITY], length: 0 };
        dump.push(&[STREAM]);
        // One node. Its key is the ID of its first entry.
        dump.push(&[1, 16]);
        dump.push(&id.time.to_be_bytes());
        dump.push(&id.tally.to_be_bytes());
        // The node's length, in two bytes, follows when it is known.
        let length_at = dump.length;
        dump.push(&[0, 0]);
        let node_at = dump.length;
        dump.push_node(hit, name)?;
        let node = dump.length.saturating_sub(node_at);
        let [high, low] = u16::try_from(node).ok()?.to_be_bytes();
        dump.put(length_at, &[high | 0x40, low]);
        dump.put(node_at, &u32::try_from(node).ok()?.to_le_bytes());
        // One entry, the last ID, and no consumer groups.
        dump.push(&[1]);
        dump.push_length(id.time);
        dump.push_length(id.tally);
        dump.push(&[0]);
        dump.push(&RDB_VERSION.to_le_bytes());
        let checksum = CHECKSUM.checksum(dump.bytes());
        dump.push(&checksum.to_le_bytes());
        (dump.length < CAPACITY).then_some(dump)
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The listpack: how many entries there are, how many are deleted, the fields; then an entry and the number of its
    /// elements, to walk backwards.
    fn push_node(&mut self, hit: Hit, name: &[u8]) -> Option<()> {
        const ELEMENTS: u16 = 10;
        // Bytes in all, which are filled in later.
        self.push(&[0; 4]);
        self.push(&ELEMENTS.to_le_bytes());
        for number in [1, 0, 1] {
            self.push_integer(number);
        }
        let length = u8::try_from(name.len()).ok().filter(|length| *length < 64)?;
        self.push(&[0x80 | length]);
        self.push(name);
        self.push(&[length.saturating_add(1)]);
        // The end of the fields. The entry's ID is that of the node, and it has one value.
        for number in [0, SAME_FIELDS, 0, 0, i64::try_from(hit.cost).ok()?, 4] {
            self.push_integer(number);
        }
        self.push(&[0xff]);
        Some(())
    }

    /// An integer that is not negative, and the length of that, to walk backwards.
    fn push_integer(&mut self, number: i64) {
        let bytes = number.to_le_bytes();
        let [first, second, third, fourth, ..] = bytes;
        match number {
            ..=0x7f => self.push(&[first, 1]),
            ..=0xfff => self.push(&[0xc0 | second, first, 2]),
            ..=0x7fff => self.push(&[0xf1, first, second, 3]),
            ..=0x7f_ffff => self.push(&[0xf2, first, second, third, 4]),
            ..=0x7fff_ffff => self.push(&[0xf3, first, second, third, fourth, 5]),
            _ => {
                self.push(&[0xf4]);
                self.push(&bytes);
                self.push(&[9]);
            }
        }
    }

    /// A number as an RDB file spells lengths.
    fn push_length(&mut self, number: u64) {
        let bytes = number.to_be_bytes();
        let [.., second, first] = bytes;
        match number {
            ..=0x3f => self.push(&[first]),
            ..=0x3fff => self.push(&[0x40 | second, first]),
            ..=0xffff_ffff => {
                self.push(&[0x80]);
                self.push(bytes.split_at(4).1);
            }
            _ => {
                self.push(&[0x81]);
                self.push(&bytes);
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.put(self.length, bytes);
        self.length = self.length.saturating_add(bytes.len());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let places = self.bytes.get_mut(at..).unwrap_or_default();
        places.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    }
}
