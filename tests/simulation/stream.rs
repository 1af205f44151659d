//! A stream as the servers keep it: nodes of bounded entries and bytes.
//!
//! What a server keeps in a radix tree of listpacks is here a queue of nodes with lists of entries; what it can see of itself
//! is the same, node by node: master IDs, bytes, live and deleted entries. The rules are those of `t_stream.c` and
//! `listpack.c` in Redis 7.0 to 8.6 and Valkey 8.0 to 9.1, read there and written anew. `tests/server/streams_agree.rs` holds
//! this to a real server.
//!
//! | file | what it is |
//! | --- | --- |
//! | `id.rs`, `fields.rs` | what an entry is made of |
//! | `sizes.rs` | bytes of integers and texts in a listpack |
//! | `node.rs` | a node: what it takes, when it is full, tombstones |
//! | `walk.rs` | finding entries, and ranges of them |
//! | `dump.rs` | what DUMP of a server shows of one |
//!
//! In nearly all of this the servers are alike; [`Server`] says what they differ in.

mod dump;
mod fields;
mod id;
mod node;
mod sizes;
mod walk;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

pub use dump::{Dump, one_entry};
pub use fields::Fields;
pub use id::Id;
use node::{Entry, Node};
pub use walk::Range;

/// A byte string.
pub type Text = Rc<[u8]>;

/// As CONFIG stream-node-max-bytes and stream-node-max-entries; 0 = as the server means 0.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes: u64,
    pub entries: u64,
}

impl Bounds {
    /// What every server has unless it is told otherwise.
    pub const DEFAULT: Self = Self { bytes: 4_096, entries: 100 };

    /// A node that would reach so many bytes is full. Without a bound it is still 1 GB.
    fn most_bytes(self) -> u64 {
        if self.bytes == 0 { sizes::LARGEST } else { self.bytes.min(sizes::LARGEST) }
    }

    /// How many entries `RM_StreamTrimByID` and `RM_StreamTrimByLength` may remove if they trim approximately: 100 full nodes.
    /// Where nodes have no bound that is 0, so no limit (it is 10000 for commands alone). An exact trim has none either.
    pub fn limit_of_module(self) -> u64 {
        self.entries.saturating_mul(100)
    }

    /// How many XADD and XTRIM may remove with `~` if they do not say LIMIT. What a primary or an append-only file sends has
    /// no limit.
    pub fn limit_of_command(self) -> u64 {
        match self.limit_of_module() {
            0 => 10_000,
            limit => limit.min(1_000_000),
        }
    }
}

/// Where an entry is, until the next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    node: usize,
    entry: usize,
}

impl Place {
    fn behind(self) -> Self {
        Self { entry: self.entry + 1, ..self }
    }
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub id: Id,
    pub fields: &'a Fields,
}

/// A node, as DUMP shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The ID of the master entry, which is the node's key.
    pub master: Id,
    /// Bytes of the listpack.
    pub bytes: u64,
    /// Live ones.
    pub entries: u64,
    pub deleted: u64,
}

/// What servers differ in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Server {
    /// XSETID may set an ID below the largest deleted one.
    Redis70,
    /// Redis 7.2 to 8.6, Valkey up to 8.1.
    #[default]
    Usual,
    /// A text that takes 16383 bytes with its head (so 16378 without), or 2097151, or 268435455, takes one byte less than
    /// elsewhere. And XTRIM MAXLEN of a stream that is no longer than that ends at once, while elsewhere it makes the recorded
    /// first ID 0-0 if the stream is empty. (It is 0-0 then anyway, unless a module has deleted the last entry or RESTORE
    /// brought it.)
    Valkey91,
}

#[derive(Clone, Debug, Default)]
pub struct Stream {
    server: Server,
    /// By master IDs.
    nodes: VecDeque<Node>,
    /// Live entries. The servers count them here too, not in the nodes.
    length: u64,
    first: Id,
    last: Id,
    max_deleted: Id,
    added: u64,
    /// Names and last-delivered IDs.
    groups: BTreeMap<Text, Id>,
    version: Version,
}

/// Two streams with the same version have the same entries and last ID. No two changes give the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version(u64);

thread_local! {
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

impl Version {
    fn next() -> Self {
        CHANGES.set(CHANGES.get() + 1);
        Self(CHANGES.get())
    }
}

impl Stream {
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream of this server.
    pub fn of(server: Server) -> Self {
        Self { server, ..Self::default() }
    }

    /// Appends an entry, as XADD with an explicit ID. False, and nothing is done, if the ID is not above the last one (0-0 never
    /// is), or if the fields have more than 1 GB.
    ///
    /// The fields are shared with the entry before where they are equal.
    pub fn append(&mut self, id: Id, mut fields: Fields, bounds: Bounds) -> bool {
        if id <= self.last || fields.text_bytes() > sizes::LARGEST {
            return false;
        }
        self.version = Version::next();
        match self.nodes.back_mut() {
            Some(node) => {
                let before = &node.last().fields;
                if *before == fields {
                    fields = before.clone();
                }
                if node.has_room(&fields, bounds) {
                    node.push(Entry { id, fields }, self.server);
                } else {
                    self.insert(Node::new(Entry { id, fields }, self.server));
                }
            }
            None => self.insert(Node::new(Entry { id, fields }, self.server)),
        }
        self.length += 1;
        self.added = self.added.wrapping_add(1);
        self.last = id;
        if self.length == 1 {
            self.first = id;
        }
        true
    }

    /// The same, and the fields are made only if the entry before has others.
    pub fn append_texts(&mut self, id: Id, texts: &[&[u8]], bounds: Bounds) -> bool {
        let before = self.nodes.back().map(|node| &node.last().fields).filter(|before| before.are(texts));
        let fields = before.cloned().unwrap_or_else(|| Fields::new(texts));
        self.append(id, fields, bounds)
    }

    /// The tree of nodes is ordered by their keys, and holds one for each. A new node comes last, unless all that is left of the
    /// last node is tombstones and the last ID was lowered below that node's key. If it has the very key, that node is lost,
    /// while the length stays.
    fn insert(&mut self, node: Node) {
        let at = walk::masters_up_to(&self.nodes, node.master());
        match at.checked_sub(1) {
            Some(same) if self.nodes[same].master() == node.master() => self.nodes[same] = node,
            _ => self.nodes.insert(at, node),
        }
    }

    /// It is another after each change of entries or last ID.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The number of live entries: XLEN.
    pub fn len(&self) -> u64 {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// last-generated-id.
    pub fn last_id(&self) -> Id {
        self.last
    }

    /// recorded-first-entry-id: of the first live entry, or 0-0 if there is none. Entries that a module deletes are not noticed.
    pub fn first_id(&self) -> Id {
        self.first
    }

    /// max-deleted-entry-id: the largest that XDEL has deleted. Trimming does not count, nor does a module's deleting.
    pub fn max_deleted_id(&self) -> Id {
        self.max_deleted
    }

    /// entries-added: how many there ever were.
    pub fn entries_added(&self) -> u64 {
        self.added
    }

    /// XSETID, with the server's error if it refuses. A larger `max_deleted` than `id` is refused even where there is no key.
    pub fn set_id(&mut self, id: Id, added: Option<u64>, max_deleted: Option<Id>) -> Result<(), &'static str> {
        if max_deleted.is_some_and(|max_deleted| id < max_deleted) {
            return Err("ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id");
        }
        if self.server != Server::Redis70 && id < self.max_deleted {
            return Err("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id");
        }
        if self.length > 0 {
            if self.last().is_some_and(|last| id < self.at(last).id) {
                return Err("ERR The ID specified in XSETID is smaller than the target stream top item");
            }
            if added.is_some_and(|added| added < self.length) {
                return Err("ERR The entries_added specified in XSETID is smaller than the target stream length");
            }
        }
        self.version = Version::next();
        self.last = id;
        self.added = added.unwrap_or(self.added);
        // 0-0 as if it had not been given.
        self.max_deleted = max_deleted.filter(|&max_deleted| max_deleted != Id::MIN).unwrap_or(self.max_deleted);
        Ok(())
    }

    /// Removes entries below an ID, and says how many. Approximately is whole nodes only; `limit` is a number of entries that
    /// is not exceeded, and 0 is none. See [`Bounds::limit_of_module`] and [`Bounds::limit_of_command`].
    pub fn trim_min_id(&mut self, min: Id, approximately: bool, limit: u64) -> u64 {
        self.trim(approximately, limit, |_, _| false, |node, _| node.last().id < min, |entry, _| entry.id >= min)
    }

    /// Removes entries from the oldest on until so many are left, and says how many. The rest is as with
    /// [`Stream::trim_min_id`].
    pub fn trim_length(&mut self, max: u64, approximately: bool, limit: u64) -> u64 {
        if self.server == Server::Valkey91 && self.length <= max {
            return 0;
        }
        self.trim(
            approximately,
            limit,
            |_, length| length <= max,
            |node, length| length.saturating_sub(node.live() as u64) >= max,
            |_, length| length <= max,
        )
    }

    /// `streamTrim`. The conditions are told how many entries there are: whether all is done; whether a whole node can go;
    /// whether the entries from this one on stay.
    fn trim(
        &mut self,
        approximately: bool,
        limit: u64,
        is_done: impl Fn(&Node, u64) -> bool,
        can_go: impl Fn(&Node, u64) -> bool,
        stays: impl Fn(&Entry, u64) -> bool,
    ) -> u64 {
        let mut removed = 0;
        while let Some(node) = self.nodes.front_mut() {
            let live = node.live() as u64;
            if is_done(node, self.length) || limit > 0 && removed + live > limit {
                break;
            }
            if can_go(node, self.length) {
                self.nodes.pop_front();
                self.length -= live;
                removed += live;
                continue;
            }
            if !approximately {
                for at in 0..node.entries().len() {
                    if stays(&node.entries()[at], self.length) {
                        break;
                    }
                    if !node.is_dead(at) {
                        node.kill(at);
                        self.length -= 1;
                        removed += 1;
                    }
                }
            }
            break;
        }
        if removed > 0 {
            self.version = Version::next();
        }
        if self.length == 0 {
            self.first = Id::MIN;
        } else if removed > 0 {
            self.first = self.edge();
        }
        removed
    }

    /// The ID of the first live entry, as `streamGetEdgeID` has it where there is none.
    fn edge(&self) -> Id {
        self.first_at_or_after(Id::MIN).map_or(Id::MAX, |place| self.at(place).id)
    }

    /// XDEL of one.
    pub fn delete(&mut self, id: Id) -> bool {
        if !self.remove(id) {
            return false;
        }
        self.max_deleted = self.max_deleted.max(id);
        if self.length == 0 {
            self.first = Id::MIN;
        } else if id == self.first {
            self.first = self.edge();
        }
        true
    }

    /// `RM_StreamDelete` and `RM_StreamIteratorDelete`: as [`Stream::delete`], but the first and the largest deleted ID stay
    /// what they were.
    pub fn remove(&mut self, id: Id) -> bool {
        let found = self.first_at_or_after(id).filter(|&place| self.at(place).id == id);
        let Some(Place { node: index, entry }) = found else { return false };
        self.version = Version::next();
        let node = &mut self.nodes[index];
        if node.live() == 1 {
            self.nodes.remove(index);
        } else {
            node.kill(entry);
        }
        self.length -= 1;
        true
    }

    /// The nodes, for comparison.
    pub fn nodes(&self) -> Vec<NodeView> {
        let view = |node: &Node| NodeView {
            master: node.master(),
            bytes: node.bytes(),
            entries: node.live() as u64,
            deleted: node.deleted() as u64,
        };
        self.nodes.iter().map(view).collect()
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The ID of the first entry there ever was in the first node.
    pub fn first_master(&self) -> Option<Id> {
        self.nodes.front().map(Node::master)
    }

    /// False if there is a group of this name.
    pub fn create_group(&mut self, name: &[u8], last_delivered: Id) -> bool {
        if self.groups.contains_key(name) {
            return false;
        }
        self.groups.insert(name.into(), last_delivered);
        true
    }

    /// False if there is none of this name.
    pub fn destroy_group(&mut self, name: &[u8]) -> bool {
        self.groups.remove(name).is_some()
    }

    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Names and last-delivered IDs, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&Text, Id)> {
        self.groups.iter().map(|(name, &id)| (name, id))
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        self.same_entries(other)
    }
}

impl Eq for Stream {}
