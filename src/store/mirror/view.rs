//! A range of keys as it stood at one revision, decoded.

use std::{fmt, sync::Arc};

use crate::store::{
    kv::{Bytes, KeyRange, KeyValue},
    tree::{Keyed, Tree},
};

/// A key of a mirror.
pub struct Entry<T> {
    /// The key as it stands in the store.
    pub kv: Arc<KeyValue>,
    /// Its value, decoded. If it does not decode: the last that did, if ever one did.
    pub value: Option<Arc<T>>,
    /// Why the value that stands does not decode.
    pub error: Option<Arc<str>>,
}

impl<T> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("kv", &self.kv)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<T> Keyed for Arc<Entry<T>> {
    fn key(&self) -> &[u8] {
        &self.kv.key
    }
}

/// What stood in the range at one revision. It never changes, and is shared, not copied.
pub struct View<T> {
    pub(super) revision: u64,
    pub(super) changed: u64,
    /// How many changes the mirror has made so far; two views with the same are the same.
    pub(super) edits: u64,
    pub(super) entries: Tree<Arc<Entry<T>>>,
    /// Those of them whose value does not decode.
    pub(super) undecoded: Tree<Arc<Entry<T>>>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self {
            revision: self.revision,
            changed: self.changed,
            edits: self.edits,
            entries: self.entries.clone(),
            undecoded: self.undecoded.clone(),
        }
    }
}

impl<T> Default for View<T> {
    fn default() -> Self {
        let (entries, undecoded) = (Tree::default(), Tree::default());
        Self { revision: 0, changed: 0, edits: 0, entries, undecoded }
    }
}

impl<T> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (revision, len) = (self.revision, self.len());
        f.debug_struct("View")
            .field("revision", &revision)
            .field("len", &len)
            .finish_non_exhaustive()
    }
}

/// A key in which two views differ.
#[derive(Debug)]
pub struct Change<'a, T> {
    /// The key.
    pub key: &'a Bytes,
    /// What it was. `None`: it did not stand.
    pub before: Option<&'a Arc<Entry<T>>>,
    /// What it is. `None`: it stands no more.
    pub after: Option<&'a Arc<Entry<T>>>,
}

impl<T> Clone for Change<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Change<'_, T> {}

impl<T> View<T> {
    /// The revision: all that happened in the range up to it is seen here, and nothing later.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The last revision that changed anything in the range, as far as the mirror has seen it: no
    /// later than [`View::revision`]. Two mirrors that have watched the same changes say the same.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A key, whether its value decodes or not.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Entry<T>>> {
        self.entries.get(key)
    }

    /// The last value of a key that decoded.
    pub fn value(&self, key: &[u8]) -> Option<&Arc<T>> {
        self.get(key)?.value.as_ref()
    }

    /// All keys, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Arc<Entry<T>>)> {
        self.entries.iter().map(|entry| (&entry.kv.key, entry))
    }

    /// The keys in a range, in ascending order.
    pub fn range<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Arc<Entry<T>>)> {
        self.entries.range(range).map(|entry| (&entry.kv.key, entry))
    }

    /// The keys whose value does not decode, in ascending order.
    pub fn undecoded(&self) -> impl Iterator<Item = &Arc<Entry<T>>> {
        self.undecoded.iter()
    }

    /// In which keys a later view differs from this one, in ascending order.
    ///
    /// It costs as much as there are changes, and not as there are keys, if both views are of the
    /// same mirror.
    pub fn changes<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = Change<'a, T>> {
        self.entries.differences(&later.entries, Arc::ptr_eq).filter_map(|(before, after)| {
            let revision = |entry: Option<&Arc<Entry<T>>>| entry.map(|entry| entry.kv.mod_revision);
            if revision(before) == revision(after) {
                // It was read again.
                return None;
            }
            Some(Change { key: &before.or(after)?.kv.key, before, after })
        })
    }

    pub(super) fn put(
        &mut self,
        kv: &Arc<KeyValue>,
        decode: &impl Fn(&KeyValue) -> Result<T, String>,
    ) {
        let (value, error) = match decode(kv) {
            Ok(value) => (Some(Arc::new(value)), None),
            Err(error) => {
                tracing::warn!(
                    "`{}` at revision {} does not decode: {error}",
                    kv.key,
                    kv.mod_revision
                );
                // One that was deleted meanwhile, perhaps unseen, had another life.
                let last = self
                    .get(&kv.key)
                    .filter(|entry| entry.kv.create_revision == kv.create_revision)
                    .and_then(|entry| entry.value.clone());
                (last, Some(error.into()))
            }
        };
        self.edits += 1;
        let entry = Arc::new(Entry { kv: Arc::clone(kv), value, error });
        if entry.error.is_some() {
            self.undecoded.insert(Arc::clone(&entry));
        } else if self.undecoded.len() > 0 {
            self.undecoded.remove(&kv.key);
        }
        self.entries.insert(entry);
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.edits += 1;
        self.entries.remove(key);
        if self.undecoded.len() > 0 {
            self.undecoded.remove(key);
        }
    }
}
