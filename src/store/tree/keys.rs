//! The keys of one node in one piece of memory, what they have in common written once.
//!
//! ```text
//!  4 bytes for each key           once
//! +------------------------------+----------------------+------+------+- - -+
//! | where each rest ends         | the common beginning | rest | rest | ... |
//! +------------------------------+----------------------+------+------+- - -+
//! ```
//!
//! A search reads two or three cache lines beside each other, and no key is followed to another
//! place. What is written is never changed: nodes that hold the same keys share it.

use std::{cmp::Ordering, sync::Arc};

/// Bytes of one end.
const END_LEN: usize = 4;

/// Keys in ascending order.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    block: Arc<[u8]>,
    len: u32,
    /// How long the common beginning is; it may be shorter than it could be.
    common: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self { block: Arc::from([]), len: 0, common: 0 }
    }
}

/// A key, or the rest of one, in pieces.
type Pieces<'a> = [&'a [u8]; 2];

fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// How many bytes two keys begin with alike.
fn alike(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// How many bytes they take.
    pub(super) fn size(&self) -> usize {
        self.block.len()
    }

    fn common(&self) -> &[u8] {
        let start = self.len() * END_LEN;
        self.block.get(start..start + self.common as usize).unwrap_or_default()
    }

    fn end(&self, index: usize) -> usize {
        let end = self.block.get(index * END_LEN..).and_then(<[u8]>::first_chunk);
        end.map_or(0, |end| u32::from_le_bytes(*end)) as usize
    }

    /// Where a rest begins, or all of them end.
    fn start(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            Some(before) => self.end(before),
            None => self.len() * END_LEN + self.common as usize,
        }
    }

    /// A key without the common beginning.
    fn rest(&self, index: usize) -> &[u8] {
        self.block.get(self.start(index)..self.end(index)).unwrap_or_default()
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> Vec<u8> {
        [self.common(), self.rest(index)].concat()
    }

    /// Where a key is, or where it would be.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(rest) = key.strip_prefix(self.common()) else {
            return Err(if key < self.common() { 0 } else { self.len() });
        };
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.rest(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Whether one of these is less than one of others.
    pub(super) fn order(&self, index: usize, other: &Self, at: usize) -> Ordering {
        let (common, others) = (self.common(), other.common());
        let (rest, other) = (self.rest(index), other.rest(at));
        if common == others {
            return rest.cmp(other);
        }
        common.iter().chain(rest).cmp(others.iter().chain(other))
    }

    /// The last that is not greater than a key; the first, if all are.
    pub(super) fn child(&self, key: &[u8]) -> usize {
        self.find(key).unwrap_or_else(|at| at.saturating_sub(1))
    }

    /// These and one more, which comes to stand at `at`.
    pub(super) fn with(&self, at: usize, key: &[u8]) -> Self {
        if self.len > 0
            && let Some(rest) = key.strip_prefix(self.common())
        {
            return self.patched(at, 0, Some(rest));
        }
        let shared = if self.len == 0 { key.len() } else { alike(key, self.common()) };
        let (common, rest) = key.split_at(shared);
        let more = self.common().get(shared..).unwrap_or_default();
        let before = (0..at).map(|index| [more, self.rest(index)]);
        let after = (at..self.len()).map(|index| [more, self.rest(index)]);
        Self::of([common, &[]], before.chain([[rest, &[]]]).chain(after))
    }

    /// These without the one at `at`.
    pub(super) fn without(&self, at: usize) -> Self {
        self.patched(at, 1, None)
    }

    /// These with another rest, or none, in the place of as many as go from `at` on. What stays is
    /// copied as it stands.
    fn patched(&self, at: usize, go: usize, rest: Option<&[u8]>) -> Self {
        let (start, end) = (self.start(at), self.start(at + go));
        let len = self.len() - go + usize::from(rest.is_some());
        let more = rest.map_or(0, <[u8]>::len);
        // The list of ends is longer now, or shorter.
        let moved = |place: usize| place + len * END_LEN - self.len() * END_LEN;
        let before = (0..at).map(|index| moved(self.end(index)));
        let here = rest.map(|rest| moved(start) + rest.len());
        let after = at + go..self.len();
        let after = after.map(|index| moved(self.end(index)) + more - (end - start));
        let mut block = Vec::with_capacity(moved(self.block.len()) + more - (end - start));
        let ends = before.chain(here).chain(after);
        ends.for_each(|end| block.extend_from_slice(&number(end).to_le_bytes()));
        let first = self.len() * END_LEN;
        for piece in [self.block.get(first..start), rest, self.block.get(end..)] {
            block.extend_from_slice(piece.unwrap_or_default());
        }
        Self { block: block.into(), len: number(len), common: self.common }
    }

    /// Those before `at`, and the others.
    pub(super) fn split(&self, at: usize) -> (Self, Self) {
        (self.part(0, at), self.part(at, self.len()))
    }

    fn part(&self, start: usize, end: usize) -> Self {
        let Some(last) = end.checked_sub(1).filter(|last| *last >= start) else {
            return Self::default();
        };
        let more = alike(self.rest(start), self.rest(last));
        let common = [self.common(), self.rest(start).get(..more).unwrap_or_default()];
        let rests = (start..end).map(|index| self.rest(index).get(more..).unwrap_or_default());
        Self::of(common, rests.map(|rest| [rest, &[]]))
    }

    /// These and those of another, all of which are greater.
    pub(super) fn join(&self, right: &Self) -> Self {
        if self.len == 0 || right.len == 0 {
            return if self.len == 0 { right.clone() } else { self.clone() };
        }
        let shared = alike(self.common(), right.common());
        let rests = |keys: &Self| -> Vec<Vec<u8>> {
            let more = keys.common().get(shared..).unwrap_or_default();
            (0..keys.len()).map(|index| [more, keys.rest(index)].concat()).collect()
        };
        let all = [rests(self), rests(right)].concat();
        let common = self.common().get(..shared).unwrap_or_default();
        Self::of([common, &[]], all.iter().map(|rest| [&**rest, &[]]))
    }

    fn of<'a>(common: Pieces<'a>, rests: impl Iterator<Item = Pieces<'a>> + Clone) -> Self {
        let (mut len, mut size) = (0, common.concat_len());
        for rest in rests.clone() {
            len += 1;
            size += END_LEN + rest.concat_len();
        }
        let mut block = Vec::with_capacity(size);
        let mut end = len * END_LEN + common.concat_len();
        for rest in rests.clone() {
            end += rest.concat_len();
            block.extend(number(end).to_le_bytes());
        }
        for piece in std::iter::once(common).chain(rests).flatten() {
            block.extend_from_slice(piece);
        }
        Self { block: block.into(), len: number(len), common: number(common.concat_len()) }
    }
}

trait ConcatLen {
    fn concat_len(&self) -> usize;
}

impl ConcatLen for Pieces<'_> {
    fn concat_len(&self) -> usize {
        let [a, b] = self;
        a.len() + b.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let key = proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(255)], 0..7);
        proptest::collection::btree_set(key, 0..20).prop_map(|keys| keys.into_iter().collect())
    }

    fn all(keys: &Keys) -> Vec<Vec<u8>> {
        (0..keys.len()).map(|index| keys.get(index)).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_vector_of_keys(
            mut model in keys(),
            other in keys(),
            at in any::<prop::sample::Index>(),
        ) {
            // They come in an order of their own, so that the common beginning shrinks.
            let middle = model.len() / 2;
            let mut keys = Keys::default();
            for key in model[middle..].iter().chain(&model[..middle]) {
                let at = keys.find(key).unwrap_err();
                keys = keys.with(at, key);
            }
            prop_assert_eq!(&all(&keys), &model);
            for key in &other {
                prop_assert_eq!(keys.find(key), model.binary_search(key));
                let not_greater = model.partition_point(|standing| standing <= key);
                prop_assert_eq!(keys.child(key), not_greater.saturating_sub(1));
            }
            let others = other.iter().enumerate();
            let others = others.fold(Keys::default(), |all, (at, key)| all.with(at, key));
            for ((a, key), (b, other)) in
                model.iter().enumerate().flat_map(|key| std::iter::repeat(key).zip(other.iter().enumerate()))
            {
                prop_assert_eq!(keys.order(a, &others, b), key.cmp(other));
            }
            let at = at.index(model.len() + 1);
            let (left, right) = keys.split(at);
            prop_assert_eq!((&*all(&left), &*all(&right)), model.split_at(at));
            let again = left.join(&right);
            prop_assert_eq!(&all(&again), &model);
            if at < model.len() {
                let without = again.without(at);
                model.remove(at);
                prop_assert_eq!(&all(&without), &model);
                for key in &other {
                    prop_assert_eq!(without.find(key), model.binary_search(key));
                }
            }
        }
    }
}
