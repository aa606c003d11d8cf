//! Whether the records of one revision agree with each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::layout::{KeyHash, Mapping, Record};

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A key has an id that is not its own by the record of the id.
    Mapping(Mapping),
    /// An id is a key's that has another by the record of the key, or none.
    Id(u64),
    /// Somebody uses a key that has no id.
    Reference(KeyHash),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapping(Mapping { key, id, .. }) => {
                write!(f, "`{key}` has the id {id}, which is not its own by the record of the id")
            }
            Self::Id(id) => {
                write!(f, "the id {id} is a key's that has another by its own record, or none")
            }
            Self::Reference(hash) => write!(f, "a key with the hash {hash} is used and has no id"),
        }
    }
}

/// Finds what does not agree.
pub fn audit<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Violation> {
    let (mut ids, mut mappings, mut used) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for record in records {
        match record {
            Record::Id { id, key, resting: false } => {
                ids.insert(*id, key);
            }
            Record::Mapping(hash, mapping) => {
                mappings.insert(*hash, mapping);
            }
            Record::Reference { hash, .. } => {
                used.insert(*hash);
            }
            Record::Id { resting: true, .. } | Record::Meta(_) | Record::Urgent => {}
        }
    }
    let mut found = Vec::new();
    for mapping in mappings.values() {
        if ids.get(&mapping.id) != Some(&&mapping.key) {
            found.push(Violation::Mapping((*mapping).clone()));
        }
    }
    for (id, key) in &ids {
        if mappings.get(&KeyHash::of(key)).is_none_or(|mapping| mapping.id != *id) {
            found.push(Violation::Id(*id));
        }
    }
    let without = used.iter().filter(|hash| !mappings.contains_key(hash));
    found.extend(without.map(|hash| Violation::Reference(*hash)));
    found
}
