//! The fields of an entry.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use super::{Server, Text, sizes};
use crate::frame::Meaning;

/// The fields of an entry: name, value, name, value. Shared between entries that have the same ones.
///
/// All of it is in one piece of memory: how many pairs; the names, as a block; the values, as a block. A block is the bytes
/// that its texts take in a listpack, how many bytes less in Valkey 9.1, where each text ends, and the texts. So two entries
/// have the same names if they begin with the same bytes.
#[derive(Clone)]
pub struct Fields(Rc<Shared>);

struct Shared {
    packed: Box<[u8]>,
    /// Name, value, name, value, once somebody has asked for them.
    texts: OnceCell<Box<[Text]>>,
    /// What they mean to a limiter, if anything, once somebody has read them.
    meaning: OnceCell<Option<Meaning>>,
}

const COUNT: usize = size_of::<u32>();
const SIZES: usize = 2 * size_of::<u64>();
const END: usize = size_of::<u32>();

impl Fields {
    /// Panics at an odd number of texts: the last would be a name without a value.
    pub fn new(texts: &[&[u8]]) -> Self {
        assert!(texts.len() % 2 == 0, "a name without a value");
        let pairs = texts.len() / 2;
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let mut packed = Vec::with_capacity(COUNT + 2 * SIZES + texts.len() * END + bytes);
        packed.extend(narrow(pairs));
        for first in [0, 1] {
            let block = || texts.iter().skip(first).step_by(2);
            let (mut size, mut less) = (0, 0);
            for text in block() {
                let (bytes, is_less) = sizes::text(text);
                size += bytes;
                less += u64::from(is_less);
            }
            packed.extend(size.to_le_bytes());
            packed.extend(less.to_le_bytes());
            let mut end = 0;
            for text in block() {
                end += text.len();
                packed.extend(narrow(end));
            }
            for text in block() {
                packed.extend_from_slice(text);
            }
        }
        let packed = packed.into_boxed_slice();
        Self(Rc::new(Shared { packed, texts: OnceCell::new(), meaning: OnceCell::new() }))
    }

    /// The same of texts that are shared.
    pub fn of(texts: &[Text]) -> Self {
        let fields = Self::new(&texts.iter().map(|text| &**text).collect::<Vec<_>>());
        fields.0.texts.get_or_init(|| texts.into());
        fields
    }

    /// Name, value, name, value.
    pub fn texts(&self) -> &[Text] {
        self.0
            .texts
            .get_or_init(|| self.iter().flat_map(|(name, value)| [Text::from(name), Text::from(value)]).collect())
    }

    pub fn meaning(&self) -> Option<Meaning> {
        *self.0.meaning.get_or_init(|| Meaning::of(self))
    }

    /// The number of pairs.
    #[expect(clippy::len_without_is_empty, reason = "XADD takes none, a module may append such an entry: nobody asks")]
    pub fn len(&self) -> usize {
        self.narrow(0)
    }

    /// A name and its value. Panics beyond the last.
    pub fn get(&self, at: usize) -> (&[u8], &[u8]) {
        (self.text(COUNT, at), self.text(self.values(), at))
    }

    /// Whether they are shared, and so the same without a look.
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// The pairs in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let values = self.values();
        (0..self.len()).map(move |at| (self.text(COUNT, at), self.text(values, at)))
    }

    /// Whether they were made of these texts.
    pub fn are(&self, texts: &[&[u8]]) -> bool {
        2 * self.len() == texts.len()
            && self.iter().zip(texts.chunks_exact(2)).all(|((name, value), pair)| pair == [name, value])
    }

    /// The sum of the lengths of all texts.
    pub(super) fn text_bytes(&self) -> u64 {
        (self.0.packed.len() - COUNT - 2 * (SIZES + self.len() * END)) as u64
    }

    /// What the names take in a listpack.
    pub(super) fn size_of_names(&self, server: Server) -> u64 {
        self.size(COUNT, server)
    }

    /// What the values take in a listpack.
    pub(super) fn size_of_values(&self, server: Server) -> u64 {
        self.size(self.values(), server)
    }

    fn size(&self, block: usize, server: Server) -> u64 {
        let size = self.wide(block);
        if server == Server::Valkey91 { size - self.wide(block + SIZES / 2) } else { size }
    }

    /// Whether the names are the same, in the same order.
    pub(super) fn same_names(&self, other: &Self) -> bool {
        self.is_same(other) || other.0.packed.starts_with(&self.0.packed[..self.values()])
    }

    /// Where the block of the values begins.
    fn values(&self) -> usize {
        let pairs = self.len();
        let texts = COUNT + SIZES + pairs * END;
        if pairs == 0 { texts } else { texts + self.narrow(texts - END) }
    }

    fn text(&self, block: usize, at: usize) -> &[u8] {
        assert!(at < self.len(), "no field {at}");
        let ends = block + SIZES;
        let texts = ends + self.len() * END;
        let start = if at == 0 { 0 } else { self.narrow(ends + (at - 1) * END) };
        &self.0.packed[texts + start..texts + self.narrow(ends + at * END)]
    }

    fn narrow(&self, at: usize) -> usize {
        let (bytes, _) = self.0.packed[at..].split_first_chunk().expect("a number is there");
        u32::from_le_bytes(*bytes) as usize
    }

    fn wide(&self, at: usize) -> u64 {
        let (bytes, _) = self.0.packed[at..].split_first_chunk().expect("a number is there");
        u64::from_le_bytes(*bytes)
    }
}

fn narrow(number: usize) -> [u8; COUNT] {
    u32::try_from(number).expect("fields of less than 4 GB").to_le_bytes()
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.0.packed == other.0.packed
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(name, value)| write!(f, "{}: {} ", name.escape_ascii(), value.escape_ascii()))
    }
}
