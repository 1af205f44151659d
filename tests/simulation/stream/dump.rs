//! What DUMP of a server shows of a stream.

use super::{Id, NodeView, Stream, Text};

/// Everything but the entries themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    pub nodes: Vec<NodeView>,
    pub length: u64,
    pub last: Id,
    pub first: Id,
    pub max_deleted: Id,
    pub added: u64,
    /// Names and last-delivered IDs, by name.
    pub groups: Vec<(Text, Id)>,
}

impl Dump {
    pub fn of(stream: &Stream) -> Self {
        Self {
            nodes: stream.nodes(),
            length: stream.len(),
            last: stream.last_id(),
            first: stream.first_id(),
            max_deleted: stream.max_deleted_id(),
            added: stream.entries_added(),
            groups: stream.groups().map(|(name, id)| (name.clone(), id)).collect(),
        }
    }

    /// Of a payload that a server has made without compression. None if it is of another type.
    pub fn read(payload: &[u8]) -> Option<Self> {
        // RDB_TYPE_STREAM_LISTPACKS and later ones; all since Redis 7.0 and Valkey 7.2 have what is read here.
        let (kind, mut rest) = payload.split_first()?;
        if !matches!(kind, 19 | 21..) {
            return None;
        }
        let rest = &mut rest;
        let many = number(rest);
        let nodes = (0..many).map(|_| node(string(rest), string(rest))).collect();
        let length = number(rest);
        let [last, first, max_deleted] = [(); 3].map(|()| id(rest));
        let added = number(rest);
        let many = number(rest);
        let mut groups: Vec<(Text, Id)> = (0..many).map(|_| group(rest)).collect();
        groups.sort();
        Some(Self { nodes, length, last, first, max_deleted, added, groups })
    }
}

/// A payload of one entry with one field, of the oldest type and version that Redis 7.0 and all later servers read: its ID,
/// its field and its value. None if a server would not take it.
pub fn one_entry(payload: &[u8]) -> Option<(Id, Text, Text)> {
    let (body, check) = payload.split_last_chunk::<8>()?;
    if checksum(body) != u64::from_le_bytes(*check) {
        return None;
    }
    let mut rest = body.strip_prefix(&[15])?.strip_suffix(&[9, 0])?;
    let rest = &mut rest;
    if number(rest) != 1 {
        return None;
    }
    let key = string(rest);
    let pack = string(rest);
    let master = node(key, pack).master;
    let [.., last] = pack else { return None };
    if *last != 0xff || number(rest) != 1 || id(rest) != master || number(rest) != 0 || !rest.is_empty() {
        return None;
    }
    let mut at = 6;
    let pieces: Vec<Text> = std::iter::from_fn(|| piece(pack, &mut at)).collect();
    let head = usize::from(u16::from_le_bytes([pack[4], pack[5]]));
    let [live, dead, fields, field, end, flags, ms, seq, value, many] = &pieces[..] else { return None };
    let says = [live, dead, fields, end, flags, ms, seq, many].map(|text| &text[..]);
    let is_whole = at + 1 == pack.len() && head == pieces.len();
    let is_one = says == [b"1", b"0", b"1", b"0", b"2", b"0", b"0", b"4"];
    (is_whole && is_one).then(|| (master, field.clone(), value.clone()))
}

/// The next piece of a listpack, as text. None at the end.
fn piece(pack: &[u8], at: &mut usize) -> Option<Text> {
    let bytes = pack.get(*at..)?;
    let integer = |size: usize| {
        let mut whole = [if bytes[size] & 0x80 == 0 { 0 } else { 0xff }; 8];
        whole[..size].copy_from_slice(&bytes[1..=size]);
        (crate::server::text(i64::from_le_bytes(whole).to_string()), 1 + size)
    };
    let (text, size) = match *bytes.first()? {
        0xff => return None,
        short @ 0..=0x7f => (crate::server::text(short.to_string()), 1),
        letters @ 0x80..=0xbf => {
            let many = usize::from(letters & 0x3f);
            (bytes.get(1..=many)?.into(), 1 + many)
        }
        middle @ 0xc0..=0xcf => {
            (crate::server::text((u16::from(middle & 0x0f) << 8 | u16::from(bytes[1])).to_string()), 2)
        }
        0xf1 => integer(2),
        0xf2 => integer(3),
        0xf3 => integer(4),
        0xf4 => integer(8),
        _ => return None,
    };
    // The size behind it, which fits into a byte here.
    if usize::from(*bytes.get(size)?) != size {
        return None;
    }
    *at += size + 1;
    Some(text)
}

/// CRC-64 of Redis: the polynomial of Jones, lowest bit first, bit by bit.
fn checksum(bytes: &[u8]) -> u64 {
    const REVERSED: u64 = 0x95ac_9329_ac4b_c9b5;
    bytes.iter().fold(0, |sum, &byte| {
        (0..8).fold(sum ^ u64::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ REVERSED } else { sum >> 1 })
    })
}

fn node(key: &[u8], pack: &[u8]) -> NodeView {
    let half = |at: usize| key[at..at + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    assert_eq!(key.len(), 16, "a key is an ID");
    let size = pack[..4].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte));
    assert_eq!(size, pack.len(), "bytes in the head");
    let mut at = 6;
    let [entries, deleted] = [(); 2].map(|()| count(pack, &mut at));
    NodeView { master: Id::new(half(0), half(8)), bytes: pack.len() as u64, entries, deleted }
}

/// A consumer group that nobody has read from.
fn group(rest: &mut &[u8]) -> (Text, Id) {
    let (name, last_delivered) = (string(rest).into(), id(rest));
    let _read = number(rest);
    let (pending, consumers) = (number(rest), number(rest));
    assert_eq!((pending, consumers), (0, 0), "readers are not looked at");
    (name, last_delivered)
}

fn id(rest: &mut &[u8]) -> Id {
    Id { ms: number(rest), seq: number(rest) }
}

/// A number of the RDB format.
fn number(rest: &mut &[u8]) -> u64 {
    let mut take = |many: usize| {
        let (bytes, behind) = rest.split_at(many);
        *rest = behind;
        bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    match take(1) {
        short @ 0..=0x3f => short,
        middle @ 0x40..=0x7f => (middle & 0x3f) << 8 | take(1),
        0x80 => take(4),
        0x81 => take(8),
        other => panic!("{other} is no length"),
    }
}

fn string<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let many = number(rest) as usize;
    // A text that is a small number is kept as one, but no node and no name here is.
    let (bytes, behind) = rest.split_at(many);
    *rest = behind;
    bytes
}

/// A number that is not negative in a listpack.
fn count(pack: &[u8], at: &mut usize) -> u64 {
    let byte = |behind: usize| u64::from(pack[*at + behind]);
    let (value, size) = match byte(0) {
        short @ 0..=0x7f => (short, 2),
        middle @ 0xc0..=0xcf => ((middle & 0x0f) << 8 | byte(1), 3),
        0xf1 => (byte(2) << 8 | byte(1), 4),
        other => panic!("{other} is no count"),
    };
    *at += size;
    value
}
