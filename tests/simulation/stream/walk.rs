//! Finding entries and walking over them, as the servers' stream iterator does.
//!
//! It seeks the last node whose master ID is not above the bound, or else the first node (backwards, the last), and from there
//! takes each live entry that is on the right side of the bound, until one is beyond the other bound. While IDs rise, that is
//! all entries between the bounds. They need not: if all entries of the last node are tombstones and the last ID was lowered
//! (XSETID), entries are appended behind larger tombstones, and then into nodes before that node. The servers miss some of
//! them, and so does this.

use std::collections::VecDeque;

use super::node::Node;
use super::{Id, Place, Row, Stream};

impl Stream {
    /// The first live entry that is not below the ID.
    pub fn first_at_or_after(&self, id: Id) -> Option<Place> {
        let node = masters_up_to(&self.nodes, id).saturating_sub(1);
        let entry = match self.nodes.get(node) {
            Some(node) if node.rises() => node.entries().partition_point(|entry| entry.id < id),
            _ => 0,
        };
        self.not_below(Place { node, entry }, id)
    }

    /// The last live entry that is not above the ID.
    pub fn last_at_or_before(&self, id: Id) -> Option<Place> {
        let nodes = match masters_up_to(&self.nodes, id) {
            0 => self.nodes.len(),
            nodes => nodes,
        };
        let node = self.nodes.get(nodes.checked_sub(1)?)?;
        let entry =
            if node.rises() { node.entries().partition_point(|entry| entry.id <= id) } else { node.entries().len() };
        self.not_above(Place { node: nodes - 1, entry }, id)
    }

    /// The last live entry.
    pub fn last(&self) -> Option<Place> {
        self.not_above(Place { node: self.nodes.len(), entry: 0 }, Id::MAX)
    }

    /// The live entry behind a place.
    pub fn after(&self, place: Place) -> Option<Place> {
        self.not_below(place.behind(), Id::MIN)
    }

    /// The live entry before a place.
    pub fn before(&self, place: Place) -> Option<Place> {
        self.not_above(place, Id::MAX)
    }

    /// The entry at a place. Panics if there is none.
    pub fn at(&self, place: Place) -> Row<'_> {
        let entry = &self.nodes[place.node].entries()[place.entry];
        Row { id: entry.id, fields: &entry.fields }
    }

    /// Live entries, the oldest first.
    pub fn iter(&self) -> Range<'_> {
        self.range(Id::MIN, Id::MAX)
    }

    /// Live entries from one ID to another, both included.
    pub fn range(&self, from: Id, to: Id) -> Range<'_> {
        Range { stream: self, from, to, front: End::default(), back: End::default() }
    }

    fn id_at(&self, place: Place) -> Id {
        self.nodes[place.node].entries()[place.entry].id
    }

    /// The first live entry at a place or behind it that is not below the ID.
    fn not_below(&self, mut place: Place, id: Id) -> Option<Place> {
        loop {
            match self.nodes.get(place.node)?.live_from(place.entry) {
                Some(entry) => {
                    place.entry = entry;
                    if self.id_at(place) >= id {
                        return Some(place);
                    }
                    place.entry += 1;
                }
                None => place = Place { node: place.node + 1, entry: 0 },
            }
        }
    }

    /// The last live entry before a place that is not above the ID.
    fn not_above(&self, mut place: Place, id: Id) -> Option<Place> {
        loop {
            // No node at the place behind the last one.
            match self.nodes.get(place.node).and_then(|node| node.live_before(place.entry)) {
                Some(entry) => {
                    place.entry = entry;
                    if self.id_at(place) <= id {
                        return Some(place);
                    }
                }
                None => {
                    let node = place.node.checked_sub(1)?;
                    place = Place { node, entry: self.nodes[node].entries().len() };
                }
            }
        }
    }
}

impl Stream {
    /// Whether the entries are in order, as they are unless the last ID was lowered.
    fn is_in_order(&self) -> bool {
        let nodes = || self.nodes.iter();
        nodes().all(Node::rises) && nodes().zip(nodes().skip(1)).all(|(one, next)| one.last().id < next.master())
    }

    /// The live entries of a stream that is in order.
    fn live(&self) -> impl Iterator<Item = Row<'_>> {
        self.nodes.iter().flat_map(|node| {
            let live = node.entries().iter().enumerate().filter(|(at, _)| !node.is_dead(*at));
            live.map(|(_, entry)| Row { id: entry.id, fields: &entry.fields })
        })
    }

    /// Passes every entry to `visit`, oldest first. It takes less than [`Stream::iter`].
    pub fn each<'a>(&'a self, mut visit: impl FnMut(Row<'a>)) {
        if !self.is_in_order() {
            return self.iter().for_each(visit);
        }
        for node in &self.nodes {
            for (at, entry) in node.entries().iter().enumerate() {
                if !node.is_dead(at) {
                    visit(Row { id: entry.id, fields: &entry.fields });
                }
            }
        }
    }

    /// Whether all nodes have the same entries, none of them deleted.
    fn same_nodes(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Node, &Node)| {
            one.deleted() == 0 && other.deleted() == 0 && one.entries() == other.entries()
        };
        self.nodes.len() == other.nodes.len() && self.nodes.iter().zip(&other.nodes).all(is_same)
    }

    /// Equal live entries and last ID, whatever the nodes.
    pub fn same_entries(&self, other: &Self) -> bool {
        self.last_id() == other.last_id()
            && self.len() == other.len()
            && (self.same_nodes(other) || self.same_rows(other))
    }

    fn same_rows(&self, other: &Self) -> bool {
        match self.is_in_order() && other.is_in_order() {
            true => self.live().eq(other.live()),
            false => self.iter().eq(other.iter()),
        }
    }
}

/// How many nodes, from the first, have a master ID that is not above this one.
pub(super) fn masters_up_to(nodes: &VecDeque<Node>, id: Id) -> usize {
    nodes.partition_point(|node| node.master() <= id)
}

/// Entries of a range, from both ends.
#[derive(Clone, Debug)]
pub struct Range<'a> {
    stream: &'a Stream,
    from: Id,
    to: Id,
    front: End,
    back: End,
}

/// How far one end of a range has come.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// The entry that was taken last.
    taken: Option<Place>,
    is_done: bool,
}

impl End {
    fn take<'a>(&mut self, next: Option<(Place, Row<'a>)>) -> Option<Row<'a>> {
        match next {
            Some((place, row)) => {
                self.taken = Some(place);
                Some(row)
            }
            None => {
                self.is_done = true;
                None
            }
        }
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        if self.front.is_done {
            return None;
        }
        let next = match self.front.taken {
            None => self.stream.first_at_or_after(self.from),
            Some(place) => self.stream.not_below(place.behind(), self.from),
        };
        let next = next.filter(|&place| self.back.taken.is_none_or(|taken| place < taken));
        let next = next.map(|place| (place, self.stream.at(place)));
        self.front.take(next.filter(|(_, row)| row.id <= self.to))
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.is_done {
            return None;
        }
        let next = match self.back.taken {
            None => self.stream.last_at_or_before(self.to),
            Some(place) => self.stream.not_above(place, self.to),
        };
        let next = next.filter(|&place| self.front.taken.is_none_or(|taken| place > taken));
        let next = next.map(|place| (place, self.stream.at(place)));
        self.back.take(next.filter(|(_, row)| row.id >= self.from))
    }
}

impl std::iter::FusedIterator for Range<'_> {}
