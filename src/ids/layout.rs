//! The keys and values of the ids in a store, and how they are read back.
//!
//! ```text
//! P/m                         the range and the epoch, which every transaction is fenced by
//! P/k/<hash>                  key -> id        } always written and deleted together
//! P/i/<id>                    id -> key        }
//! P/r/<hash>/<session>-<n>    somebody uses the key; ends with the session's lease
//! P/u                         ids have run out: collect at once
//! ```
//!
//! All segments have a fixed width, so that no key of a user can reach into another's, whatever
//! bytes it is made of. References stand under the hash and not under the id, so that a node can
//! write its own without knowing the id.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::store::{Bytes, KeyRange, KeyValue, LeaseId};

use super::range::IdRange;

/// The version of the layout, and the only one that is read.
const VERSION: &str = "1";

/// The first 128 bits of a key's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 16]);

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (high, low) = text.split_at_checked(16)?;
        let number = u128::from(number(high)?) << 64 | u128::from(number(low)?);
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What all users of a prefix agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The ids that may be given out.
    pub range: IdRange,
    /// Counts the lives of the store: one more whenever it was found to have gone back in time, or
    /// to have been emptied.
    pub epoch: u64,
}

/// That a key has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The key.
    pub key: Bytes,
    /// Its id.
    pub id: u64,
    /// Drawn by whoever created it; no two mappings share one.
    pub nonce: u64,
}

/// The name of a reference: a session, and a number that the session never uses twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName {
    /// The lease of the session, whose id is drawn by chance.
    pub session: LeaseId,
    /// One for each time that the session came to use a key.
    pub number: u64,
}

/// What a key of the layout says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// `P/m`.
    Meta(Meta),
    /// `P/k/<hash>`.
    Mapping(KeyHash, Mapping),
    /// `P/i/<id>`.
    Id {
        /// The id.
        id: u64,
        /// The key that has it.
        key: Bytes,
        /// Whether the key has it no more, and it only rests until others may have it.
        resting: bool,
    },
    /// `P/r/<hash>/<session>-<n>`.
    Reference {
        /// The hash of the key that is used.
        hash: KeyHash,
        /// Which reference it is.
        name: RefName,
        /// The node that uses it, by its own word.
        node: Bytes,
    },
    /// `P/u`.
    Urgent,
}

/// The keys below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    prefix: Bytes,
}

impl Layout {
    /// The layout below a prefix; it gets a `/` at its end if it has none.
    pub fn new(prefix: impl Into<Bytes>) -> Self {
        let mut prefix = prefix.into().to_vec();
        if prefix.last() != Some(&b'/') {
            prefix.push(b'/');
        }
        Self { prefix: prefix.into() }
    }

    fn key(&self, kind: &[u8], name: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut key = Vec::with_capacity(self.name_len_max());
        key.extend_from_slice(&self.prefix);
        key.extend_from_slice(kind);
        name(&mut key);
        key.into()
    }

    /// How long the longest name of a key is.
    pub(super) fn name_len_max(&self) -> usize {
        // `r/<hash>/<session>-<n>`
        self.prefix.len() + 2 + 32 + 1 + 16 + 1 + 16
    }

    /// Everything below the prefix.
    pub fn everything(&self) -> KeyRange {
        KeyRange::prefix(&self.prefix)
    }

    /// Where the range and the epoch stand.
    pub fn meta(&self) -> Bytes {
        self.key(b"m", |_| ())
    }

    /// What asks for a collection at once.
    pub fn urgent(&self) -> Bytes {
        self.key(b"u", |_| ())
    }

    /// Where a key's id stands.
    pub fn mapping(&self, hash: KeyHash) -> Bytes {
        self.key(b"k/", |key| push(key, &hash.0))
    }

    /// Where all keys' ids stand.
    pub fn mappings(&self) -> KeyRange {
        KeyRange::prefix(self.key(b"k/", |_| ()))
    }

    /// Where an id's key stands.
    pub fn id(&self, id: u64) -> Bytes {
        self.key(b"i/", |key| push(key, &id.to_be_bytes()))
    }

    /// Where all ids' keys stand.
    pub fn ids(&self) -> KeyRange {
        KeyRange::prefix(self.key(b"i/", |_| ()))
    }

    /// One reference to a key.
    pub fn reference(&self, hash: KeyHash, name: RefName) -> Bytes {
        self.key(b"r/", |key| {
            push(key, &hash.0);
            key.push(b'/');
            push(key, &name.session.0.to_be_bytes());
            key.push(b'-');
            push(key, &name.number.to_be_bytes());
        })
    }

    /// All references to a key.
    pub fn references_to(&self, hash: KeyHash) -> KeyRange {
        KeyRange::prefix(self.key(b"r/", |key| {
            push(key, &hash.0);
            key.push(b'/');
        }))
    }

    /// All references.
    pub fn references(&self) -> KeyRange {
        KeyRange::prefix(self.key(b"r/", |_| ()))
    }

    /// What the range and the epoch are written as.
    pub fn meta_value(meta: &Meta) -> Bytes {
        let (first, last) = (meta.range.first(), meta.range.last());
        format!("{VERSION} sha256/128 {first} {last} {}", meta.epoch).into()
    }

    /// What a key's id is written as.
    pub fn mapping_value(mapping: &Mapping) -> Bytes {
        let mut value = Vec::with_capacity(34 + mapping.key.len());
        push(&mut value, &mapping.id.to_be_bytes());
        value.push(b' ');
        push(&mut value, &mapping.nonce.to_be_bytes());
        value.push(b' ');
        value.extend_from_slice(&mapping.key);
        value.into()
    }

    /// What an id's key is written as.
    pub fn id_value(key: &[u8]) -> Bytes {
        [b"k ", key].concat().into()
    }

    /// What the last key of an id is written as, while the id rests.
    pub fn resting_value(key: &[u8]) -> Bytes {
        [b"t ", key].concat().into()
    }

    /// Reads a key of the layout.
    ///
    /// # Errors
    /// What is wrong with it. Whoever finds such a key leaves it alone: it is another release's, or
    /// a stranger's.
    pub fn read(&self, kv: &KeyValue) -> Result<Record, String> {
        let rest = kv.key.strip_prefix(&*self.prefix).ok_or("it is not below the prefix")?;
        let kind = rest.get(..2).unwrap_or(rest);
        let name = rest.get(2..).unwrap_or_default();
        match kind {
            b"m" => read_meta(&kv.value).map(Record::Meta),
            b"u" => Ok(Record::Urgent),
            b"k/" => {
                let hash = KeyHash::parse(name).ok_or("its name is not a hash")?;
                let mapping = read_mapping(&kv.value).ok_or("its value is not a mapping")?;
                Ok(Record::Mapping(hash, mapping))
            }
            b"i/" => {
                let id = number(name).ok_or("its name is not an id")?;
                let resting = match kv.value.get(..2) {
                    Some(b"k ") => false,
                    Some(b"t ") => true,
                    _ => return Err("its value names no key".to_owned()),
                };
                Ok(Record::Id { id, key: kv.value[2..].into(), resting })
            }
            b"r/" => {
                let (hash, name) = read_reference(name).ok_or("its name is not a reference")?;
                Ok(Record::Reference { hash, name, node: kv.value.clone() })
            }
            _ => Err("it is not a key of this layout".to_owned()),
        }
    }

    /// The reference that a key is, if it is one.
    pub fn parse_reference(&self, key: &[u8]) -> Option<(KeyHash, RefName)> {
        read_reference(key.strip_prefix(&*self.prefix)?.strip_prefix(b"r/")?)
    }

    /// The id that a key is about, if it is about one.
    pub fn parse_id(&self, key: &[u8]) -> Option<u64> {
        number(key.strip_prefix(&*self.prefix)?.strip_prefix(b"i/")?)
    }
}

/// Writes bytes in lower-case hexadecimal digits.
fn push(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// A number in exactly 16 lower-case hexadecimal digits.
fn number(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(u64::from(byte - b'0')),
        b'a'..=b'f' => Some(u64::from(byte - b'a') + 10),
        _ => None,
    };
    let mut digits = text.iter().map(digit);
    (text.len() == 16).then(|| digits.try_fold(0, |number, digit| Some(number << 4 | digit?)))?
}

fn read_meta(value: &[u8]) -> Result<Meta, String> {
    let text = std::str::from_utf8(value).map_err(|_| "it is not text")?;
    let parts: Vec<&str> = text.split(' ').collect();
    let [VERSION, "sha256/128", first, last, epoch] = parts[..] else {
        return Err(format!("`{text}` is of another version"));
    };
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a number"));
    let range = IdRange::new(number(first)?, number(last)?).map_err(|error| error.to_string())?;
    let meta = Meta { range, epoch: number(epoch)? };
    // Transactions are fenced by the very bytes; another spelling would be read again without end.
    let same = *Layout::meta_value(&meta) == *value;
    same.then_some(meta).ok_or_else(|| format!("`{text}` is not how it is written"))
}

/// Reads the value of a mapping.
pub fn read_mapping(value: &[u8]) -> Option<Mapping> {
    let (id, rest) = (value.get(..16)?, value.get(16..)?);
    let rest = rest.strip_prefix(b" ")?;
    let (nonce, rest) = (rest.get(..16)?, rest.get(16..)?);
    let key = rest.strip_prefix(b" ")?.into();
    Some(Mapping { id: number(id)?, nonce: number(nonce)?, key })
}

fn read_reference(name: &[u8]) -> Option<(KeyHash, RefName)> {
    let hash = KeyHash::parse(name.get(..32)?)?;
    let name = name.get(32..)?.strip_prefix(b"/")?;
    let session = LeaseId(number(name.get(..16)?)?);
    let number = number(name.get(16..)?.strip_prefix(b"-")?)?;
    Some((hash, RefName { session, number }))
}
