//! What the values of items, members and assignments say: a trait each, JSON by default.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::item::{Key, Keys};
use crate::store::KeyValue;

/// The value of an item, as its application defines it.
///
/// It is written as JSON unless `encode` and `decode` say otherwise. A value that does not decode
/// is reported, the last good one stays in force, and all other items go on; without a good one the
/// item is left as it is.
pub trait ItemValue: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// How many replicas it wants, each on another member. Zero: it is held by nobody.
    fn replication(&self) -> u32;

    /// The zones that it may be held in. `None`, which is the default: any.
    fn zones(&self) -> Option<&[String]> {
        None
    }

    /// The value as bytes.
    ///
    /// # Errors
    /// Why it cannot be written; nothing was.
    fn encode(&self) -> Result<Vec<u8>, String> {
        to_json(self)
    }

    /// The value from bytes.
    ///
    /// # Errors
    /// What is wrong with them, for an operator to read.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        from_json(bytes)
    }
}

/// The value of a member, as its application defines it.
pub trait MemberValue: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// How many items it may hold.
    fn limit(&self) -> u32;

    /// Its weight when items are shared out. `None`, which is the default: its limit.
    fn share(&self) -> Option<f64> {
        None
    }

    /// Whether it wants to leave: its items go elsewhere, as far as there is room.
    fn is_exiting(&self) -> bool;

    /// Says that it wants to leave.
    fn set_exiting(&mut self);

    /// The value as bytes.
    ///
    /// # Errors
    /// Why it cannot be written; nothing was.
    fn encode(&self) -> Result<Vec<u8>, String> {
        to_json(self)
    }

    /// The value from bytes.
    ///
    /// # Errors
    /// What is wrong with them, for an operator to read.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        from_json(bytes)
    }
}

/// The value of an assignment: what the member that holds the item says of its replica.
///
/// An assignment is created without one; from then on it is the member's.
pub trait AssignmentValue: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The value as bytes, at least one.
    ///
    /// # Errors
    /// Why it cannot be written; nothing was.
    fn encode(&self) -> Result<Vec<u8>, String> {
        to_json(self)
    }

    /// The value from bytes, at least one.
    ///
    /// # Errors
    /// What is wrong with them, for an operator to read.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        from_json(bytes)
    }
}

/// One of an item's replicas, as [`Workload::is_consistent`] sees it.
#[derive(Debug)]
pub struct Replica<'a, V> {
    /// Its member's zone.
    pub zone: &'a str,
    /// Its member's name.
    pub member: &'a str,
    /// Its slot: zero is the primary.
    pub slot: u32,
    /// What its member says of it. `None`: nothing yet, or nothing that decodes.
    pub value: Option<&'a V>,
}

/// What is allocated: the types of the values, and when a replica is good.
pub trait Workload: Send + Sync + 'static {
    /// The value of an item.
    type Item: ItemValue;
    /// The value of a member.
    type Member: MemberValue;
    /// The value of an assignment.
    type State: AssignmentValue;

    /// Whether the replica `all[one]` of an item is consistent: as good as the item needs it, so that
    /// another one may go, or may hand it the primary. `all` are the item's replicas by zone, member
    /// and slot.
    ///
    /// It must be a function of its arguments alone, and quick: it is asked whenever one of them has
    /// changed. One that panics says no.
    fn is_consistent(
        &self,
        item: &Self::Item,
        one: usize,
        all: &[Replica<'_, Self::State>],
    ) -> bool;
}

/// Which of an item's replicas are consistent.
pub(super) fn judge<W: Workload>(
    workload: &W,
    item: &W::Item,
    all: &[Replica<'_, W::State>],
) -> Vec<bool> {
    let good = |one| {
        let ask = AssertUnwindSafe(|| workload.is_consistent(item, one, all));
        catch_unwind(ask).unwrap_or(false)
    };
    (0..all.len()).map(good).collect()
}

/// The decoded value of a key under the root.
pub enum Entity<W: Workload> {
    /// An item's.
    Item(W::Item),
    /// A member's.
    Member(W::Member),
    /// An assignment's. `None`: it has none yet.
    Assignment(Option<W::State>),
    /// That somebody has taken over the planning: the value is the member's key.
    Leader,
}

impl<W: Workload> std::fmt::Debug for Entity<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Item(_) => "Item",
            Self::Member(_) => "Member",
            Self::Assignment(_) => "Assignment",
            Self::Leader => "Leader",
        })
    }
}

impl<W: Workload> Entity<W> {
    /// Decodes what stands under a key.
    ///
    /// # Errors
    /// The key is none of the allocator's, or the value does not decode; for an operator to read.
    pub fn decode(keys: &Keys, kv: &KeyValue) -> Result<Self, String> {
        Ok(match key_of(keys, &kv.key)? {
            Key::Item(_) => Self::Item(W::Item::decode(&kv.value)?),
            Key::Member { .. } => Self::Member(W::Member::decode(&kv.value)?),
            Key::Assignment { .. } if kv.value.is_empty() => Self::Assignment(None),
            Key::Assignment { .. } => Self::Assignment(Some(W::State::decode(&kv.value)?)),
            Key::Leader => match key_of(keys, &kv.value) {
                Ok(Key::Member { .. }) => Self::Leader,
                _ => return Err("the value is no member's key".to_owned()),
            },
        })
    }

    /// The item's value.
    pub fn item(&self) -> Option<&W::Item> {
        if let Self::Item(item) = self { Some(item) } else { None }
    }

    /// The member's value.
    pub fn member(&self) -> Option<&W::Member> {
        if let Self::Member(member) = self { Some(member) } else { None }
    }

    /// The assignment's value, if it has one.
    pub fn state(&self) -> Option<&W::State> {
        if let Self::Assignment(state) = self { state.as_ref() } else { None }
    }
}

/// What a key of the store names.
///
/// # Errors
/// It is none of the allocator's; for an operator to read.
pub(super) fn key_of<'a>(keys: &Keys, key: &'a [u8]) -> Result<Key<'a>, String> {
    let text = std::str::from_utf8(key).map_err(|_| "the key is not UTF-8".to_owned())?;
    keys.decode(text).map_err(|error| error.to_string())
}

/// A member's place and name, in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberKey {
    /// Its zone.
    pub zone: Arc<str>,
    /// Its name, unique within the zone.
    pub member: Arc<str>,
}

impl MemberKey {
    /// What it is stored under.
    pub(super) fn key(&self) -> Key<'_> {
        Key::Member { zone: &self.zone, member: &self.member }
    }

    /// The member of that name in that zone.
    pub fn new(zone: impl Into<Arc<str>>, member: impl Into<Arc<str>>) -> Self {
        Self { zone: zone.into(), member: member.into() }
    }
}

impl std::fmt::Display for MemberKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.zone, self.member)
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// A number that differs where the facts differ. Numbers of independent facts are added up, so that
/// one of them can change alone.
pub(super) fn digest(facts: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    facts.hash(&mut hasher);
    hasher.finish()
}
