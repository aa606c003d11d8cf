//! The words of the store: bytes, keys and ranges of them, values with their revisions, and events.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How many bytes need no memory of their own.
const SHORT_LEN: usize = 22;

/// A key or a value: bytes that are cheap to clone, compared byte by byte. Up to 22 of them stand
/// in place, more are counted and shared.
#[derive(Clone)]
pub struct Bytes(Repr);

#[derive(Clone)]
enum Repr {
    Short(u8, [u8; SHORT_LEN]),
    Long(Arc<[u8]>),
}

impl Bytes {
    fn short(bytes: &[u8]) -> Option<Self> {
        let mut short = [0; SHORT_LEN];
        short.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Repr::Short(u8::try_from(bytes.len()).ok()?, short)))
    }

    /// Whether they need memory of their own.
    pub(super) fn is_long(&self) -> bool {
        matches!(self.0, Repr::Long(_))
    }

    /// How many share that memory, which is read for it.
    pub(super) fn holders(&self) -> usize {
        match &self.0 {
            Repr::Short(..) => 1,
            Repr::Long(bytes) => Arc::strong_count(bytes),
        }
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self(Repr::Short(0, [0; SHORT_LEN]))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self::short(bytes).unwrap_or_else(|| Self(Repr::Long(bytes.into())))
    }
}

impl<const N: usize> From<&[u8; N]> for Bytes {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::short(&bytes).unwrap_or_else(|| Self(Repr::Long(bytes.into())))
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&Bytes> for Bytes {
    fn from(bytes: &Bytes) -> Self {
        bytes.clone()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The bytes as ASCII text; all others are escaped.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.escape_ascii().fmt(f)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(bytes.into())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(bytes.into())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes.into())
            }
        }

        from.deserialize_byte_buf(Visitor)
    }
}

/// A lease's name: positive, and below 2^63, as etcd's are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LeaseId(pub u64);

impl LeaseId {
    /// No lease: a key with it stays until it is deleted.
    pub const NONE: Self = Self(0);

    /// The largest id that a lease can have.
    pub const MAX: Self = Self(i64::MAX as u64);
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The keys that a read, a compare, a delete or a watch is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyRange {
    /// One key.
    Key(Bytes),
    /// The keys from `start` on, up to and without `end`; without an end, to the last key.
    Span {
        /// The first key.
        start: Bytes,
        /// The first key that does not belong to it any more.
        end: Option<Bytes>,
    },
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::Key(key.into())
    }

    /// All keys that begin with `prefix`; with an empty one, all keys.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self::Span { start, end: Some(end.into()) };
            }
        }
        Self::Span { start, end: None }
    }

    /// The keys from `start` on, up to and without `end`.
    pub fn span(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self::Span { start: start.into(), end: Some(end.into()) }
    }

    /// `start`, and all keys after it.
    pub fn from_key(start: impl Into<Bytes>) -> Self {
        Self::Span { start: start.into(), end: None }
    }

    /// All keys.
    pub fn all() -> Self {
        Self::from_key("")
    }

    /// The first key that may belong to it.
    pub fn start(&self) -> &Bytes {
        match self {
            Self::Key(key) => key,
            Self::Span { start, .. } => start,
        }
    }

    /// Whether `key` belongs to it.
    pub fn contains(&self, key: &[u8]) -> bool {
        *key >= **self.start() && !self.ends_before(key)
    }

    /// Whether it ends at or before `key`, which is not below its start.
    pub fn ends_before(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => *key > **only,
            Self::Span { end, .. } => end.as_ref().is_some_and(|end| *key >= **end),
        }
    }

    /// What is left of it after `key`, for the next page.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        let mut start = key.to_vec();
        start.push(0);
        let end = match self {
            Self::Key(only) => {
                let mut end = only.to_vec();
                end.push(0);
                Some(end.into())
            }
            Self::Span { end, .. } => end.clone(),
        };
        Self::Span { start: start.into(), end }
    }
}

/// A key, its value, and when it got it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// The value; may be empty.
    pub value: Bytes,
    /// The revision at which the key came to be.
    pub create_revision: u64,
    /// The revision of the last change.
    pub mod_revision: u64,
    /// How often it was put since it came to be, from 1.
    pub version: u64,
    /// The lease with which it ends, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// What happened to one key at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// It was created or changed; its `mod_revision` is the revision.
    Put(Arc<KeyValue>),
    /// It was deleted, by a transaction or with its lease.
    Delete(Bytes),
}

impl Event {
    /// The key that it happened to.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete(key) => key,
        }
    }
}

/// A revision's events in a watched range: all of them, and at most one for each key. Their order
/// among themselves means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The revision.
    pub revision: u64,
    /// What happened; never empty.
    pub events: Vec<Event>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_bytes_and_long_ones_are_compared_alike() {
        let texts: Vec<Vec<u8>> =
            (0..60_u8).map(|len| (0..len / 2).chain([len % 2]).collect()).collect();
        for a in &texts {
            for b in &texts {
                let (x, y) = (Bytes::from(&**a), Bytes::from(b.clone()));
                assert_eq!((x == y, x.cmp(&y)), (a == b, a.cmp(b)), "{x} and {y}");
            }
            let bytes = Bytes::from(&**a);
            assert_eq!((&*bytes, &*bytes.clone()), (&**a, &**a));
            let set = std::collections::HashSet::from([bytes]);
            assert!(set.contains(&**a), "it hashes like its bytes");
        }
    }

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(KeyRange::prefix("ab"), KeyRange::span("ab", "ac"));
        assert_eq!(KeyRange::prefix(b"a\xff\xff"), KeyRange::span(b"a\xff\xff", "b"));
        assert_eq!(KeyRange::prefix(b"\xff\xff"), KeyRange::from_key(b"\xff\xff"));
        assert_eq!(KeyRange::prefix(""), KeyRange::all());
    }

    #[test]
    fn a_range_knows_its_keys() {
        let range = KeyRange::prefix("a/");
        assert!(range.contains(b"a/") && range.contains(b"a/\xff"));
        assert!(!range.contains(b"a") && !range.contains(b"a0"));
        assert!(KeyRange::key("k").contains(b"k") && !KeyRange::key("k").contains(b"k0"));
        assert!(!KeyRange::span("b", "a").contains(b"a"));
        assert!(!range.after(b"a/1").contains(b"a/1") && range.after(b"a/1").contains(b"a/10"));
        assert!(!KeyRange::key("k").after(b"k").contains(b"k"));
    }
}
