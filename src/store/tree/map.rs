//! The map: looking up, putting and removing one key.
//!
//! ```text
//!           branch               128 children at most
//!          /      \
//!     branch      branch
//!     /    \        |
//!  leaf    leaf    leaf          32 values at most
//! ```
//!
//! Nodes are counted references: a clone copies the root's, and a change copies the one node of
//! each level that it touches, if a clone still holds it. What such a copy costs is one count for
//! each child, each in a place of its own; what a search costs is three places for each level. With
//! a million keys these lengths were the best of 8 and 16, 16 and 16, 16 and 64, 32 and 32, 32 and
//! 64, 64 and 64, by a little.

use std::sync::Arc;

use super::{keys::Keys, row::Row};
use crate::store::kv::Bytes;

/// How many children nodes have at most.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    leaf: usize,
    branch: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { leaf: 32, branch: 128 }
    }
}

/// A value that knows its key.
pub(crate) trait Keyed {
    /// Its key, which never changes.
    fn key(&self) -> &[u8];
}

impl Keyed for Bytes {
    fn key(&self) -> &[u8] {
        self
    }
}

/// The map.
#[derive(Clone, Debug)]
pub(crate) struct Tree<V> {
    pub(super) root: Arc<Node<V>>,
    len: usize,
    sizes: Sizes,
}

/// A branch has its children each under the least key that may stand in it, in order; its first takes
/// all keys that are less, too, and then stands under the least of them. All leaves are on one level.
#[derive(Clone, Debug)]
pub(super) enum Node<V> {
    Leaf(Row<V>),
    Branch(Row<Arc<Node<V>>>),
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { root: Arc::default(), len: 0, sizes: Sizes::default() }
    }
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self::Leaf(Row::default())
    }
}

impl<V> Node<V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(row) => row.len(),
            Self::Branch(row) => row.len(),
        }
    }

    fn keys(&self) -> &Keys {
        match self {
            Self::Leaf(row) => &row.keys,
            Self::Branch(row) => &row.keys,
        }
    }

    fn max(&self, sizes: Sizes) -> usize {
        match self {
            Self::Leaf(_) => sizes.leaf,
            Self::Branch(_) => sizes.branch,
        }
    }
}

impl<V: Keyed + Clone> Tree<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Leaf(row) => return row.items.get(row.keys.find(key).ok()?),
                Node::Branch(row) => node = row.items.get(row.keys.child(key))?,
            }
        }
    }

    /// Puts a value under its key; returns the one that was there.
    pub(crate) fn insert(&mut self, value: V) -> Option<V> {
        let mut old = None;
        let kept = value.clone();
        self.update(kept.key(), |standing| match standing {
            Some(standing) => {
                old = Some(std::mem::replace(standing, value));
                None
            }
            None => Some(value),
        });
        old
    }

    /// Changes the value of a key, or puts the one that is returned where none stands.
    pub(crate) fn update(&mut self, key: &[u8], change: impl FnOnce(Option<&mut V>) -> Option<V>) {
        let (right, added) = update(&mut self.root, key, self.sizes, change);
        self.len += usize::from(added);
        if let Some(right) = right {
            let left = std::mem::take(&mut self.root);
            let mut root = Row::default();
            // The first key bounds nothing.
            root.insert(0, &[], left, self.sizes.branch);
            root.insert(1, &right.keys().get(0), right, self.sizes.branch);
            self.root = Arc::new(Node::Branch(root));
        }
    }

    /// Returns the value that the key had.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.get(key)?;
        let removed = remove(&mut self.root, key, self.sizes)?;
        self.len -= 1;
        while let Node::Branch(row) = &*self.root {
            match &row.items[..] {
                [] => self.root = Arc::default(),
                [only] => self.root = Arc::clone(only),
                _ => break,
            }
        }
        Some(removed)
    }
}

/// Returns the new node behind this one, if it had to be split, and whether a key was added.
fn update<V: Keyed + Clone>(
    node: &mut Arc<Node<V>>,
    key: &[u8],
    sizes: Sizes,
    change: impl FnOnce(Option<&mut V>) -> Option<V>,
) -> (Option<Arc<Node<V>>>, bool) {
    match Arc::make_mut(node) {
        Node::Leaf(row) => match row.keys.find(key) {
            Ok(at) => {
                change(row.items.get_mut(at));
                (None, false)
            }
            Err(at) => match change(None) {
                Some(value) => {
                    let right = row.insert(at, key, value, sizes.leaf);
                    (right.map(|right| Arc::new(Node::Leaf(right))), true)
                }
                None => (None, false),
            },
        },
        Node::Branch(row) => {
            let at = row.keys.child(key);
            let Some(child) = row.items.get_mut(at) else { return (None, false) };
            let (right, added) = update(child, key, sizes, change);
            // A child split off it may stand under less than it did, and rows are in order.
            if added && at == 0 && *key < *row.keys.get(0) {
                row.keys = row.keys.without(0).with(0, key);
            }
            let right = right.and_then(|right| {
                let least = right.keys().get(0);
                row.insert(at + 1, &least, right, sizes.branch)
            });
            (right.map(|right| Arc::new(Node::Branch(right))), added)
        }
    }
}

fn remove<V: Keyed + Clone>(node: &mut Arc<Node<V>>, key: &[u8], sizes: Sizes) -> Option<V> {
    match Arc::make_mut(node) {
        Node::Leaf(row) => row.keys.find(key).ok().map(|at| row.remove(at)),
        Node::Branch(row) => {
            let at = row.keys.child(key);
            let removed = remove(row.items.get_mut(at)?, key, sizes)?;
            tidy(row, at, sizes);
            Some(removed)
        }
    }
}

/// Drops an empty child, and joins a small one with its neighbour.
fn tidy<V: Clone>(row: &mut Row<Arc<Node<V>>>, at: usize, sizes: Sizes) {
    let Some(child) = row.items.get(at) else { return };
    if child.len() == 0 {
        row.remove(at);
        return;
    }
    let max = child.max(sizes);
    if child.len() >= max / 4 {
        return;
    }
    // Not filled to the brim, or the next key would split it again.
    let fits = |left: usize| match row.items.get(left..) {
        Some([left, right, ..]) => has_room_for(left, right, max * 3 / 4),
        _ => false,
    };
    let before = at.checked_sub(1).filter(|left| fits(*left));
    let Some(left) = Some(at).filter(|left| fits(*left)).or(before) else { return };
    let least = row.keys.get(left + 1);
    let right = Arc::unwrap_or_clone(row.remove(left + 1));
    if let Some(left) = row.items.get_mut(left) {
        join(Arc::make_mut(left), right, &least);
    }
}

fn has_room_for<V>(left: &Node<V>, right: &Node<V>, max: usize) -> bool {
    match (left, right) {
        (Node::Leaf(left), Node::Leaf(right)) => left.has_room_for(right, max),
        (Node::Branch(left), Node::Branch(right)) => left.has_room_for(right, max),
        _ => false,
    }
}

fn join<V>(left: &mut Node<V>, right: Node<V>, least: &[u8]) {
    match (left, right) {
        (Node::Leaf(left), Node::Leaf(right)) => left.join(right),
        (Node::Branch(left), Node::Branch(mut right)) => {
            // Its first child may hold less than the key that it stands under, as long as it is
            // the first.
            right.keys = right.keys.without(0).with(0, least);
            left.join(right);
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::store::kv::KeyRange;

    /// A key and what stands under it.
    type Pair = (Bytes, u32);

    impl Keyed for Pair {
        fn key(&self) -> &[u8] {
            &self.0
        }
    }

    fn key(number: u16) -> Bytes {
        format!("{number:04x}").into()
    }

    fn leaf_len() -> usize {
        Sizes::default().leaf
    }

    /// Checks the nodes below one, and returns their height. Its keys are at least `low`, and less
    /// than `high`.
    fn check_node(node: &Node<Pair>, sizes: Sizes, low: &[u8], high: Option<&[u8]>) -> usize {
        assert!((1..=node.max(sizes)).contains(&node.len()));
        assert_eq!(node.keys().len(), node.len());
        let bounds: Vec<Vec<u8>> = (0..node.len()).map(|at| node.keys().get(at)).collect();
        assert!(bounds.is_sorted_by(|a, b| a < b));
        match node {
            Node::Leaf(row) => {
                let keys = row.items.iter().map(|(key, _)| key.to_vec());
                assert!(keys.eq(bounds.iter().cloned()));
                assert!(bounds.iter().all(|key| **key >= *low));
                assert!(bounds.iter().all(|key| high.is_none_or(|high| **key < *high)));
                0
            }
            Node::Branch(row) => {
                let heights: BTreeSet<usize> = (0..row.len())
                    .map(|at| {
                        let low = if at == 0 { low } else { &bounds[at] };
                        let high = bounds.get(at + 1).map(|next| &**next).or(high);
                        check_node(&row.items[at], sizes, low, high)
                    })
                    .collect();
                assert_eq!(heights.len(), 1, "all leaves are on one level");
                heights.first().unwrap() + 1
            }
        }
    }

    fn check(tree: &Tree<Pair>, model: &BTreeMap<Bytes, u32>) {
        assert_eq!(tree.len(), model.len());
        assert!(tree.iter().map(|(key, value)| (key, value)).eq(model.iter()));
        assert!(
            model.iter().all(|(key, value)| tree.get(key).map(|found| found.1) == Some(*value))
        );
        if tree.len() > 0 {
            check_node(&tree.root, tree.sizes, &[], None);
        }
    }

    #[test]
    fn keys_in_order_fill_their_leaves() {
        let mut tree = Tree::default();
        for number in 0..10_000 {
            tree.insert((key(number), u32::from(number)));
        }
        let mut leaves = 0;
        let mut row = vec![&tree.root];
        while let Some(node) = row.pop() {
            match &**node {
                Node::Leaf(_) => leaves += 1,
                Node::Branch(branch) => row.extend(&branch.items),
            }
        }
        assert!(leaves <= 10_000 / (leaf_len() - 1) + 1, "{leaves} leaves");
        for number in (0..10_000).rev() {
            assert_eq!(tree.remove(&key(number)), Some((key(number), u32::from(number))));
        }
        check(&tree, &BTreeMap::new());
    }

    #[test]
    fn a_key_below_the_first_of_its_branch_outlives_a_join() {
        // The first leaf of a branch goes, a key comes back into its gap, and so stands in a leaf
        // whose key is greater; then the branch is joined to the one before it.
        let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
        for number in 0..10_000 {
            tree.insert((key(number), 0));
            model.insert(key(number), 0);
        }
        let Node::Branch(root) = &*tree.root else { panic!() };
        let bounds: Vec<Bytes> = (1..root.len()).map(|at| root.keys.get(at).into()).collect();
        for bound in bounds {
            let gap: Vec<Bytes> =
                model.range(bound.clone()..).take(leaf_len() * 2).map(|(k, _)| k.clone()).collect();
            for key in &gap {
                assert_eq!(tree.remove(key).map(|pair| pair.1), model.remove(key));
            }
            tree.insert((bound.clone(), 7));
            model.insert(bound, 7);
        }
        // Leaf after leaf goes from all branches alike, until they are joined.
        let others = model.iter().filter(|(_, value)| **value == 0).enumerate();
        let mut others: Vec<_> =
            others.map(|(at, (key, _))| (at / leaf_len(), key.clone())).collect();
        others.sort_by_key(|(leaf, _)| (leaf % 7, *leaf));
        for (count, (_, key)) in others.iter().enumerate() {
            tree.remove(key);
            model.remove(key);
            if count % 100 == 0 {
                check(&tree, &model);
            }
        }
        check(&tree, &model);
    }

    #[test]
    fn keys_below_the_first_of_a_branch_split_it_in_order() {
        // The keys at the beginning of a branch go, and some of them come back, in rows of their own
        // before what is now the first; then its lower half grows until it is split. All in that half
        // but those few begin alike.
        let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
        for number in (0..60_000).step_by(4) {
            tree.insert((key(number), 0));
            model.insert(key(number), 0);
        }
        let Node::Branch(root) = &*tree.root else { panic!() };
        let bounds: Vec<Bytes> = (1..root.len()).map(|at| root.keys.get(at).into()).collect();
        assert!(bounds.len() > 1);
        for bound in bounds {
            let first = u16::from_str_radix(std::str::from_utf8(&bound).unwrap(), 16).unwrap();
            let turn = first.next_multiple_of(0x1000);
            let leaf = u16::try_from(leaf_len() * 4).unwrap();
            for number in first..turn + leaf {
                tree.remove(&key(number));
                model.remove(&key(number));
            }
            for number in (first..turn).take(leaf_len() * 3).chain(turn..turn | 0xfff) {
                tree.insert((key(number), 1));
                model.insert(key(number), 1);
            }
            check(&tree, &model);
        }
    }

    #[test]
    fn large_keys_make_short_rows() {
        let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
        for number in 0..60_u8 {
            let key = Bytes::from(vec![number * 4; 100_000 + usize::from(number)]);
            tree.insert((key.clone(), number.into()));
            model.insert(key, number.into());
        }
        check(&tree, &model);
        let mut rows = vec![&tree.root];
        while let Some(node) = rows.pop() {
            assert!(node.len() <= 2);
            if let Node::Branch(branch) = &**node {
                rows.extend(&branch.items);
            }
        }
        for number in 0..60_u8 {
            let key = Bytes::from(vec![number * 4; 100_000 + usize::from(number)]);
            assert_eq!(tree.remove(&key).map(|pair| pair.1), model.remove(&key));
        }
        check(&tree, &model);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_is_a_map_and_its_clones_stay_as_they_were(
            spread in prop_oneof![Just(30_u16), Just(3_000), Just(60_000)],
            steps in proptest::collection::vec((any::<u16>(), 0..60_u8, any::<u32>()), 1..4_000),
        ) {
            let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
            let mut clones = Vec::new();
            for (at, (number, verb, value)) in steps.into_iter().enumerate() {
                let key = key(number % spread);
                match verb {
                    0..25 => {
                        let old = tree.insert((key.clone(), value));
                        prop_assert_eq!(old.map(|pair| pair.1), model.insert(key, value));
                    }
                    25..45 => prop_assert_eq!(tree.remove(&key).map(|pair| pair.1), model.remove(&key)),
                    45..59 => {
                        tree.update(&key, |pair| {
                            if let Some((_, old)) = pair {
                                *old = value;
                            }
                            None
                        });
                        model.entry(key).and_modify(|old| *old = value);
                    }
                    // A whole stretch goes, so that nodes are joined.
                    _ => {
                        let end = number.saturating_add(spread / 8);
                        for number in number % spread..end % spread {
                            let key = self::key(number);
                            prop_assert_eq!(tree.remove(&key).is_some(), model.remove(&key).is_some());
                        }
                    }
                }
                if at % 1_000 == 0 {
                    clones.push((tree.clone(), model.clone()));
                }
            }
            clones.push((tree, model));
            for pair in clones.windows(2) {
                let ((old, before), (new, after)) = (&pair[0], &pair[1]);
                let found: Vec<_> = old.differences(new, |a, b| a == b).collect();
                let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
                let pair = |(key, value): (&Bytes, &u32)| (key.clone(), *value);
                let expected: Vec<_> = keys
                    .into_iter()
                    .map(|key| (before.get_key_value(key).map(pair), after.get_key_value(key).map(pair)))
                    .filter(|(a, b)| a != b)
                    .collect();
                let found: Vec<_> = found.into_iter().map(|(a, b)| (a.cloned(), b.cloned())).collect();
                prop_assert_eq!(found, expected);
            }
            for (tree, model) in &clones {
                check(tree, model);
                let range = KeyRange::span(key(spread / 3), key(spread / 2 + 1));
                let within = model.range(key(spread / 3)..key(spread / 2 + 1));
                prop_assert!(tree.range(&range).map(|(key, value)| (key, value)).eq(within));
            }
        }

        /// Small nodes make high trees, in which whole leaves and branches go and come back.
        #[test]
        fn whatever_goes_and_comes_back_it_is_a_map(
            (leaf, branch) in prop_oneof![Just((2, 3)), Just((4, 8)), Just((8, 8)), Just((9, 13)), Just((32, 128))],
            spread in prop_oneof![Just(60_u16), Just(900), Just(4_000)],
            padded in any::<bool>(),
            steps in proptest::collection::vec((any::<u16>(), 0..12_u8, any::<u8>()), 1..150),
        ) {
            let sizes = Sizes { leaf, branch };
            // Without zeros in front a key may be the beginning of another.
            let key = |number: u16| if padded { key(number) } else { format!("{number:x}").into() };
            let mut tree = Tree { sizes, ..Tree::default() };
            let mut model = BTreeMap::new();
            let mut before = (tree.clone(), model.clone());
            for (at, (number, verb, len)) in (0_u32..).zip(steps) {
                let start = number % spread;
                // Short stretches mostly, and now and then a quarter of all.
                let len = if len % 8 == 0 { spread / 4 } else { u16::from(len % 70) };
                let stretch = start..start.saturating_add(len).min(spread);
                let mut put = |tree: &mut Tree<Pair>, number| {
                    let old = tree.insert((key(number), at)).map(|pair| pair.1);
                    assert_eq!(old, model.insert(key(number), at));
                };
                match verb {
                    0..3 => stretch.for_each(|number| put(&mut tree, number)),
                    3 => stretch.rev().for_each(|number| put(&mut tree, number)),
                    4..6 => stretch.step_by(5).for_each(|number| put(&mut tree, number)),
                    6..10 => {
                        let ends = [stretch.start, stretch.end.saturating_sub(1)];
                        for number in stretch {
                            let removed = tree.remove(&key(number)).map(|pair| pair.1);
                            prop_assert_eq!(removed, model.remove(&key(number)));
                        }
                        // One of them stands in a gap again, at its beginning or its end.
                        if verb > 7 {
                            let number = ends[usize::from(verb) % 2];
                            let old = tree.insert((key(number), at)).map(|pair| pair.1);
                            prop_assert_eq!(old, model.insert(key(number), at));
                        }
                    }
                    _ => {
                        check(&before.0, &before.1);
                        check(&tree, &model);
                        let (old, new) = (&before, &(tree.clone(), model.clone()));
                        let keys: BTreeSet<_> = old.1.keys().chain(new.1.keys()).collect();
                        let changed = keys.into_iter().filter(|key| old.1.get(*key) != new.1.get(*key));
                        let found = old.0.differences(&new.0, |a, b| a == b);
                        let found = found.map(|(old, new)| &old.or(new).unwrap().0);
                        prop_assert!(found.eq(changed));
                        before = (tree.clone(), model.clone());
                    }
                }
            }
            check(&before.0, &before.1);
            check(&tree, &model);
            for number in [0, spread / 3, spread / 2] {
                let (range, from) = (KeyRange::from_key(key(number)), key(number));
                prop_assert!(tree.range(&range).map(|pair| &pair.0).eq(model.range(from..).map(|(key, _)| key)));
            }
        }
    }
}
