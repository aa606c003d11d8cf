//! Walking through a map: its keys in order, and what differs between two of its clones.

use std::{cmp::Ordering, slice, sync::Arc};

use super::{
    map::{Keyed, Node, Tree},
    row::Row,
};
use crate::store::kv::KeyRange;

/// The values from some key on, in ascending order.
struct Iter<'a, V> {
    above: Vec<slice::Iter<'a, Arc<Node<V>>>>,
    items: slice::Iter<'a, V>,
}

impl<'a, V> Iter<'a, V> {
    fn from(tree: &'a Tree<V>, start: &[u8]) -> Self {
        let mut above = Vec::new();
        let mut node = &*tree.root;
        loop {
            match node {
                Node::Leaf(row) => {
                    let at = row.keys.find(start).unwrap_or_else(|at| at);
                    let items = row.items.get(at..).unwrap_or_default().iter();
                    return Self { above, items };
                }
                Node::Branch(row) => {
                    let mut nodes =
                        row.items.get(row.keys.child(start)..).unwrap_or_default().iter();
                    let Some(next) = nodes.next() else {
                        return Self { above, items: [].iter() };
                    };
                    above.push(nodes);
                    node = next;
                }
            }
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = &'a V;

    fn next(&mut self) -> Option<&'a V> {
        loop {
            if let Some(item) = self.items.next() {
                return Some(item);
            }
            match self.above.last_mut()?.next().map(|node| &**node) {
                Some(Node::Leaf(row)) => self.items = row.items.iter(),
                Some(Node::Branch(row)) => self.above.push(row.items.iter()),
                None => {
                    self.above.pop();
                }
            }
        }
    }
}

impl<V: Keyed> Tree<V> {
    /// The values of the keys in a range, in ascending order.
    pub(crate) fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a V> {
        let items = Iter::from(self, range.start());
        items.take_while(move |value| !range.ends_before(value.key()))
    }

    /// All values, in ascending order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        Iter::from(self, &[])
    }

    /// What this map and another have under the keys in which they differ, in ascending order.
    /// What the two share is skipped unseen. `same`: of the same key, and no different. The values are
    /// left where they are: whose key is less, the rows tell.
    pub(crate) fn differences<'a>(
        &'a self,
        other: &'a Self,
        same: impl Fn(&V, &V) -> bool,
    ) -> impl Iterator<Item = (Option<&'a V>, Option<&'a V>)> {
        let (mut old, mut new) = (Cursor::new(self), Cursor::new(other));
        std::iter::from_fn(move || {
            loop {
                skip_shared(&mut old, &mut new);
                let (a, b) = (old.items(), new.items());
                let alike = a.iter().zip(b).take_while(|(a, b)| same(a, b)).count();
                if alike > 0 {
                    old.skip_items(alike);
                    new.skip_items(alike);
                    continue;
                }
                let order = match (old.row(), new.row()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((old, at)), Some((new, to))) => old.keys.order(at, &new.keys, to),
                };
                if order.is_le() {
                    old.skip_items(1);
                }
                if order.is_ge() {
                    new.skip_items(1);
                }
                let (a, b) = (a.first(), b.first());
                return Some((a.filter(|_| order.is_le()), b.filter(|_| order.is_ge())));
            }
        })
    }
}

/// A place in a map: the way from the root to a leaf, with the place in each of its nodes.
struct Cursor<'a, V> {
    way: Vec<(&'a Arc<Node<V>>, usize)>,
}

impl<'a, V> Cursor<'a, V> {
    fn new(tree: &'a Tree<V>) -> Self {
        let mut cursor = Self { way: Vec::new() };
        if tree.root.len() > 0 {
            cursor.descend(&tree.root);
        }
        cursor
    }

    fn descend(&mut self, mut node: &'a Arc<Node<V>>) {
        loop {
            self.way.push((node, 0));
            match &**node {
                Node::Branch(row) if let Some(first) = row.items.first() => node = first,
                Node::Branch(_) | Node::Leaf(_) => return,
            }
        }
    }

    /// The leaf, and the place in it; `None` at the end.
    fn row(&self) -> Option<(&'a Row<V>, usize)> {
        match self.way.last().map(|(node, at)| (&***node, *at)) {
            Some((Node::Leaf(row), at)) => Some((row, at)),
            _ => None,
        }
    }

    /// From this place to the end of its leaf.
    fn items(&self) -> &'a [V] {
        self.row().and_then(|(row, at)| row.items.get(at..)).unwrap_or_default()
    }

    /// The node of a height above the leaves, if this place is its first.
    fn begins(&self, height: usize) -> Option<&'a Arc<Node<V>>> {
        let level = self.way.len().checked_sub(height + 1)?;
        self.way.get(level).filter(|(_, at)| *at == 0).map(|(node, _)| *node)
    }

    /// Goes on in the leaf, or to the next.
    fn skip_items(&mut self, count: usize) {
        if let Some((node, at)) = self.way.last_mut() {
            *at += count;
            if *at >= node.len() {
                self.skip_node(0);
            }
        }
    }

    /// Goes to what is behind the node of a height above the leaves.
    fn skip_node(&mut self, height: usize) {
        self.way.truncate(self.way.len().saturating_sub(height + 1));
        while let Some((node, at)) = self.way.last_mut() {
            *at += 1;
            let next = match &***node {
                Node::Branch(row) => row.items.get(*at),
                Node::Leaf(_) => None,
            };
            if let Some(next) = next {
                return self.descend(next);
            }
            self.way.pop();
        }
    }
}

fn skip_shared<V>(old: &mut Cursor<'_, V>, new: &mut Cursor<'_, V>) {
    loop {
        // If two nodes are one, so are their first children.
        let shared = (0..).take_while(|height| match (old.begins(*height), new.begins(*height)) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            _ => false,
        });
        let Some(highest) = shared.last() else { return };
        old.skip_node(highest);
        new.skip_node(highest);
    }
}
