//! Children of a node under their keys: what a leaf and a branch have in common.

use super::keys::Keys;

/// A row whose keys take more bytes than this takes no more children, so that a change never
/// copies much.
const KEYS_LEN: usize = 1 << 16;

/// Children in ascending order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Row<T> {
    pub(super) keys: Keys,
    pub(super) items: Vec<T>,
}

impl<T> Default for Row<T> {
    fn default() -> Self {
        Self { keys: Keys::default(), items: Vec::new() }
    }
}

impl<T> Row<T> {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it takes another row in beside its own.
    pub(super) fn has_room_for(&self, other: &Self, max: usize) -> bool {
        self.len() + other.len() <= max && self.keys.size() + other.keys.size() <= KEYS_LEN
    }

    /// Takes a child in at its place. A row that is full keeps the lower half, and returns the
    /// other.
    pub(super) fn insert(&mut self, at: usize, key: &[u8], item: T, max: usize) -> Option<Self> {
        let full = self.len() >= max || (self.len() > 1 && self.keys.size() > KEYS_LEN);
        if !full {
            self.put(at, key, item);
            return None;
        }
        // Keys that arrive in order fill their rows to the brim.
        let cut = if at == self.len() { at } else { self.len() / 2 };
        let (left, right) = self.keys.split(cut);
        let mut right = Self { keys: right, items: self.items.split_off(cut) };
        self.keys = left;
        self.items.shrink_to_fit();
        match at.checked_sub(cut) {
            Some(at) => right.put(at, key, item),
            None => self.put(at, key, item),
        }
        Some(right)
    }

    fn put(&mut self, at: usize, key: &[u8], item: T) {
        self.keys = self.keys.with(at, key);
        self.items.insert(at, item);
    }

    pub(super) fn remove(&mut self, at: usize) -> T {
        self.keys = self.keys.without(at);
        self.items.remove(at)
    }

    /// Takes in what is behind it.
    pub(super) fn join(&mut self, right: Self) {
        self.keys = self.keys.join(&right.keys);
        self.items.extend(right.items);
    }
}
