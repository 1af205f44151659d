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
            0x80..=0xfff => self.push(&[0xc0 | second, first, 2]),
            0x1000..=0x7fff => self.push(&[0xf1, first, second, 3]),
            0x8000..=0x7f_ffff => self.push(&[0xf2, first, second, third, 4]),
            0x80_0000..=0x7fff_ffff => self.push(&[0xf3, first, second, third, fourth, 5]),
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
            0x40..=0x3fff => self.push(&[0x40 | second, first]),
            0x4000..=0xffff_ffff => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duration::MAX_MS;
    use crate::log::Id;
    use crate::number::MAX_UNITS;
    use crate::retention::Retention;

    const NAME: &[u8] = b"60000ms";

    /// The CRC-64 of RDB files, bit by bit.
    fn crc64(bytes: &[u8]) -> u64 {
        let shift = |crc: u64, _| if crc & 1 == 1 { crc >> 1 ^ 0x95ac_9329_ac4b_c9b5 } else { crc >> 1 };
        bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ u64::from(*byte), shift))
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.extend(crc64(&bytes).to_le_bytes());
        bytes
    }

    fn dump(id: Id, cost: u64, name: &[u8]) -> Option<Vec<u8>> {
        Dump::of(Hit { id, cost }, name).map(|dump| dump.bytes().to_vec())
    }

    #[test]
    fn the_checksum_is_that_of_rdb_files() {
        // The value that the server's own test expects.
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn it_is_what_the_server_writes() {
        let expected = "0f 01 10 000001a21470e965 0000000000000003
            4022 22000000 0a00 0101 0001 0101 8736303030306d7308 0001 0201 0001 0001 0301 0401 ff
            01 81000001a21470e965 03 00 0900";
        let expected = hex(expected);
        assert_eq!(dump(Id { time: 1_795_639_273_829, tally: 3 }, 3, NAME), Some(with_checksum(expected)));
    }

    /// At the edges of each width that an integer can have in a listpack.
    #[test]
    fn a_cost_of_any_width() {
        for (cost, node, element) in [
            (1, "22", "01 01"),
            (127, "22", "7f 01"),
            (128, "23", "c080 02"),
            (300, "23", "c12c 02"),
            (4_095, "23", "cfff 02"),
            (4_096, "24", "f10010 03"),
            (32_767, "24", "f1ff7f 03"),
            (32_768, "25", "f2008000 04"),
            (8_388_607, "25", "f2ffff7f 04"),
            (8_388_608, "26", "f300008000 05"),
            (2_147_483_647, "26", "f3ffffff7f 05"),
            (2_147_483_648, "2a", "f40000008000000000 09"),
            (MAX_UNITS, "2a", "f4ffffffffffff1f00 09"),
        ] {
            let expected = format!(
                "0f 01 10 0000000000000007 0000000000000005
                40{node} {node}000000 0a00 0101 0001 0101 8736303030306d7308 0001 0201 0001 0001 {element} 0401 ff
                01 07 05 00 0900"
            );
            let expected = with_checksum(hex(&expected));
            assert_eq!(dump(Id { time: 7, tally: 5 }, cost, NAME), Some(expected), "{cost}");
        }
        assert_eq!(dump(Id { time: 7, tally: 5 }, 1 << 63, NAME), None);
    }

    /// At the edges of each width that a length can have in an RDB file.
    #[test]
    fn an_id_of_any_width() {
        for (number, text) in [
            (0, "00"),
            (63, "3f"),
            (64, "4040"),
            (16_383, "7fff"),
            (16_384, "8000004000"),
            (0xffff_ffff, "80ffffffff"),
            (0x1_0000_0000, "810000000100000000"),
            (u64::MAX, "81ffffffffffffffff"),
        ] {
            for (id, texts) in
                [(Id { time: number, tally: 9 }, [text, "09"]), (Id { time: 9, tally: number }, ["09", text])]
            {
                let expected = format!(
                    "0f 01 10 {:016x} {:016x}
                    4022 22000000 0a00 0101 0001 0101 8736303030306d7308 0001 0201 0001 0001 0101 0401 ff
                    01 {} {} 00 0900",
                    id.time, id.tally, texts[0], texts[1]
                );
                assert_eq!(dump(id, 1, NAME), Some(with_checksum(hex(&expected))), "{id:?}");
            }
        }
    }

    #[test]
    fn a_name_of_any_length() {
        let longest = Retention { longest: MAX_MS, fallback: Some(MAX_MS - 1) }.to_string();
        assert!(longest.len() < 64);
        for name in [b"1ms", longest.as_bytes(), &[b'x'; 63]] {
            for cost in [1, MAX_UNITS] {
                let id = Id { time: u64::MAX, tally: u64::MAX };
                let dump = dump(id, cost, name).unwrap();
                let length = name.len() as u8;
                let node = 27 + length + if cost == 1 { 0 } else { 8 };
                assert_eq!(dump.len(), 21 + usize::from(node) + 30);
                assert_eq!(dump[19..21], [0x40, node], "the length, in two bytes whatever it is");
                assert_eq!(dump[21..25], [node, 0, 0, 0]);
                assert_eq!(dump[33], 0x80 | length);
                assert_eq!(&dump[34..34 + name.len()], name);
                assert_eq!(dump[34 + name.len()], length + 1, "for walking backwards");
                assert_eq!(dump, with_checksum(dump[..dump.len() - 8].to_vec()));
            }
        }
        assert_eq!(dump(Id { time: 7, tally: 5 }, 1, &[b'x'; 64]), None);
        assert_eq!(dump(Id { time: 7, tally: 5 }, 1, &[b'x'; 320]), None);
    }
}
