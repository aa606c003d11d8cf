//! An ordered map of keys whose clones share what they have in common.
//!
//! ```text
//!           root                 one vector
//!          /    \
//!     branch    branch           up to 128 leaves each
//!     /    \      |
//!  leaf   leaf   leaf            up to 32 keys each
//! ```
//!
//! Branches and leaves are counted references: a clone copies the root only, and a change copies
//! the one branch and the one leaf that it touches, if a clone still holds them.

use std::{cmp::Ordering, sync::Arc};

use super::kv::{Bytes, KeyRange};

const LEAF_LEN: usize = 32;
const BRANCH_LEN: usize = 128;

/// Children in ascending order, each under the least key that may stand in it; the first takes
/// all keys that are less, too.
type Node<T> = Vec<(Bytes, T)>;
type Leaf<V> = Node<V>;
type Branch<V> = Node<Arc<Leaf<V>>>;

/// The map.
#[derive(Clone, Debug)]
pub(crate) struct Tree<V> {
    root: Node<Arc<Branch<V>>>,
    len: usize,
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { root: Vec::new(), len: 0 }
    }
}

/// The child in which `key` stands, if it does.
fn child<T>(node: &Node<T>, key: &[u8]) -> usize {
    node.partition_point(|(least, _)| &**least <= key).saturating_sub(1)
}

fn search<V>(leaf: &Leaf<V>, key: &[u8]) -> Result<usize, usize> {
    leaf.binary_search_by(|(other, _)| (**other).cmp(key))
}

/// Makes room in a full child for one key at `at`; says in which of the two halves that is now.
fn split<T: Clone>(
    children: &mut Node<Arc<Node<T>>>,
    index: usize,
    key: &[u8],
    max: usize,
) -> usize {
    let Some((_, node)) = children.get_mut(index) else { return index };
    if node.len() < max {
        return index;
    }
    let node = Arc::make_mut(node);
    // Keys that arrive in order fill their leaves to the brim.
    let appended = node.last().is_some_and(|(last, _)| &**last < key);
    let right = node.split_off(if appended { max - 1 } else { max / 2 });
    node.shrink_to_fit();
    let Some((least, _)) = right.first() else { return index };
    let least = least.clone();
    let goes_right = *least <= *key;
    children.insert(index + 1, (least, Arc::new(right)));
    index + usize::from(goes_right)
}

/// Drops an empty child, and joins a small one with its neighbour.
fn merge<T: Clone>(children: &mut Node<Arc<Node<T>>>, index: usize, max: usize) {
    let len = |at: usize| children.get(at).map_or(max, |(_, node)| node.len());
    if len(index) == 0 {
        children.remove(index);
        return;
    }
    if len(index) >= max / 4 {
        return;
    }
    let left = if len(index + 1) <= max / 2 {
        index
    } else if index > 0 && len(index - 1) <= max / 2 {
        index - 1
    } else {
        return;
    };
    let (_, right) = children.remove(left + 1);
    if let Some((_, node)) = children.get_mut(left) {
        Arc::make_mut(node).extend(Arc::unwrap_or_clone(right));
    }
}

impl<V: Clone> Tree<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let (_, branch) = self.root.get(child(&self.root, key))?;
        let (_, leaf) = branch.get(child(branch, key))?;
        let (_, value) = leaf.get(search(leaf, key).ok()?)?;
        Some(value)
    }

    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let at = child(&self.root, key);
        let branch = Arc::make_mut(&mut self.root.get_mut(at)?.1);
        let at = child(branch, key);
        let leaf = Arc::make_mut(&mut branch.get_mut(at)?.1);
        let at = search(leaf, key).ok()?;
        Some(&mut leaf.get_mut(at)?.1)
    }

    /// Returns the value that the key had.
    pub(crate) fn insert(&mut self, key: &Bytes, value: V) -> Option<V> {
        if self.root.is_empty() {
            self.root.push((key.clone(), Arc::new(Vec::new())));
        }
        let at = child(&self.root, key);
        let at = split(&mut self.root, at, key, BRANCH_LEN);
        let branch = Arc::make_mut(&mut self.root.get_mut(at)?.1);
        if branch.is_empty() {
            branch.push((key.clone(), Arc::new(Vec::new())));
        }
        let at = child(branch, key);
        let at = split(branch, at, key, LEAF_LEN);
        let leaf = Arc::make_mut(&mut branch.get_mut(at)?.1);
        match search(leaf, key) {
            Ok(at) => leaf.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                leaf.insert(at, (key.clone(), value));
                self.len += 1;
                None
            }
        }
    }

    /// Returns the value that the key had.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.get(key)?;
        let branch_at = child(&self.root, key);
        let branch = Arc::make_mut(&mut self.root.get_mut(branch_at)?.1);
        let leaf_at = child(branch, key);
        let leaf = Arc::make_mut(&mut branch.get_mut(leaf_at)?.1);
        let (_, value) = leaf.remove(search(leaf, key).ok()?);
        self.len -= 1;
        merge(branch, leaf_at, LEAF_LEN);
        merge(&mut self.root, branch_at, BRANCH_LEN);
        Some(value)
    }

    /// The keys in a range, in ascending order.
    pub(crate) fn range<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a Bytes, &'a V)> {
        let start = range.start();
        self.from(start).take_while(move |(key, _)| !range.ends_before(key))
    }

    /// All keys, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &V)> {
        self.from(&[])
    }

    /// The keys from `start` on, in ascending order.
    fn from<'a>(&'a self, start: &[u8]) -> impl Iterator<Item = (&'a Bytes, &'a V)> {
        let at = child(&self.root, start);
        let mut branches = self.root.get(at..).unwrap_or_default().iter();
        let mut leaves: &[(Bytes, Arc<Leaf<V>>)] = &[];
        let mut items: &[(Bytes, V)] = &[];
        if let Some((_, branch)) = branches.next() {
            leaves = branch.get(child(branch, start)..).unwrap_or_default();
        }
        if let Some(((_, leaf), rest)) = leaves.split_first() {
            leaves = rest;
            items = leaf.get(search(leaf, start).unwrap_or_else(|at| at)..).unwrap_or_default();
        }
        std::iter::from_fn(move || {
            loop {
                if let Some(((key, value), rest)) = items.split_first() {
                    items = rest;
                    return Some((key, value));
                }
                if let Some(((_, leaf), rest)) = leaves.split_first() {
                    leaves = rest;
                    items = leaf;
                } else {
                    leaves = &branches.next()?.1;
                }
            }
        })
    }
}

/// A place in a tree, between two of its keys.
struct Cursor<'a, V> {
    root: &'a Node<Arc<Branch<V>>>,
    branch: usize,
    leaf: usize,
    item: usize,
}

impl<'a, V> Cursor<'a, V> {
    fn new(tree: &'a Tree<V>) -> Self {
        Self { root: &tree.root, branch: 0, leaf: 0, item: 0 }
    }

    fn branch(&self) -> Option<&'a Arc<Branch<V>>> {
        self.root.get(self.branch).map(|(_, branch)| branch)
    }

    fn leaf(&self) -> Option<&'a Arc<Leaf<V>>> {
        self.branch()?.get(self.leaf).map(|(_, leaf)| leaf)
    }

    fn item(&self) -> Option<&'a (Bytes, V)> {
        self.leaf()?.get(self.item)
    }

    fn skip_branch(&mut self) {
        (self.branch, self.leaf, self.item) = (self.branch + 1, 0, 0);
    }

    fn skip_leaf(&mut self) {
        (self.leaf, self.item) = (self.leaf + 1, 0);
        if self.branch().is_none_or(|branch| self.leaf >= branch.len()) {
            self.skip_branch();
        }
    }

    fn skip_item(&mut self) {
        self.item += 1;
        if self.leaf().is_none_or(|leaf| self.item >= leaf.len()) {
            self.skip_leaf();
        }
    }
}

/// A key whose value differs, with what it is in either tree.
pub(crate) type Difference<'a, V> = (&'a Bytes, Option<&'a V>, Option<&'a V>);

impl<V> Tree<V> {
    /// The keys in which this tree and another differ, in ascending order. What the two share is
    /// skipped unseen.
    pub(crate) fn differences<'a>(
        &'a self,
        other: &'a Self,
        same: impl Fn(&V, &V) -> bool,
    ) -> impl Iterator<Item = Difference<'a, V>> {
        let (mut old, mut new) = (Cursor::new(self), Cursor::new(other));
        std::iter::from_fn(move || {
            loop {
                skip_shared(&mut old, &mut new);
                let order = match (old.item(), new.item()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((old, _)), Some((new, _))) => old.cmp(new),
                };
                let before = if order.is_le() { old.item() } else { None };
                let after = if order.is_ge() { new.item() } else { None };
                if order.is_le() {
                    old.skip_item();
                }
                if order.is_ge() {
                    new.skip_item();
                }
                match (before, after) {
                    (Some((_, a)), Some((_, b))) if same(a, b) => {}
                    (Some((key, a)), b) => return Some((key, Some(a), b.map(|(_, b)| b))),
                    (None, Some((key, b))) => return Some((key, None, Some(b))),
                    (None, None) => return None,
                }
            }
        })
    }
}

fn skip_shared<V>(old: &mut Cursor<'_, V>, new: &mut Cursor<'_, V>) {
    fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
        a.zip(b).is_some_and(|(a, b)| Arc::ptr_eq(a, b))
    }
    while (old.item, new.item) == (0, 0) {
        if (old.leaf, new.leaf) == (0, 0) && same(old.branch(), new.branch()) {
            old.skip_branch();
            new.skip_branch();
        } else if same(old.leaf(), new.leaf()) {
            old.skip_leaf();
            new.skip_leaf();
        } else {
            break;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> Bytes {
        format!("{number:04x}").into()
    }

    fn check(tree: &Tree<u32>, model: &BTreeMap<Bytes, u32>) {
        assert_eq!(tree.len(), model.len());
        assert!(tree.iter().eq(model.iter()));
        for (_, branch) in &tree.root {
            assert!((1..=BRANCH_LEN).contains(&branch.len()));
            assert!(branch.iter().all(|(_, leaf)| (1..=LEAF_LEN).contains(&leaf.len())));
        }
    }

    #[test]
    fn keys_in_order_fill_their_leaves() {
        let mut tree = Tree::default();
        for number in 0..10_000 {
            tree.insert(&key(number), u32::from(number));
        }
        let leaves: usize = tree.root.iter().map(|(_, branch)| branch.len()).sum();
        assert!(leaves <= 10_000 / (LEAF_LEN - 1) + 1, "{leaves} leaves");
        for number in (0..10_000).rev() {
            assert_eq!(tree.remove(&key(number)), Some(u32::from(number)));
        }
        check(&tree, &BTreeMap::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_map_and_its_clones_stay_as_they_were(
            spread in prop_oneof![Just(30_u16), Just(3_000), Just(60_000)],
            steps in proptest::collection::vec((any::<u16>(), 0..5_u8, any::<u32>()), 1..6_000),
        ) {
            let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
            let mut clones = Vec::new();
            for (at, (number, verb, value)) in steps.into_iter().enumerate() {
                let key = key(number % spread);
                match verb {
                    0 | 1 => prop_assert_eq!(tree.insert(&key, value), model.insert(key, value)),
                    2 => prop_assert_eq!(tree.remove(&key), model.remove(&key)),
                    3 => {
                        if let Some(old) = tree.get_mut(&key) {
                            *old = value;
                            model.insert(key, value);
                        }
                    }
                    _ => prop_assert_eq!(tree.get(&key), model.get(&key)),
                }
                if at % 1_000 == 0 {
                    clones.push((tree.clone(), model.clone()));
                }
            }
            clones.push((tree, model));
            for pair in clones.windows(2) {
                let ((old, before), (new, after)) = (&pair[0], &pair[1]);
                let found: Vec<_> = old.differences(new, |a, b| a == b).collect();
                let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
                let expected: Vec<_> = keys
                    .into_iter()
                    .map(|key| (key, before.get(key), after.get(key)))
                    .filter(|(_, a, b)| a != b)
                    .collect();
                prop_assert_eq!(found, expected);
            }
            for (tree, model) in &clones {
                check(tree, model);
                let range = KeyRange::span(key(spread / 3), key(spread / 2 + 1));
                let within = model.range(key(spread / 3)..key(spread / 2 + 1));
                prop_assert!(tree.range(&range).eq(within));
            }
        }
    }
}
