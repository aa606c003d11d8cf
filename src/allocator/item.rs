//! Items, members and assignments, and the keys that they are stored under.
//!
//! ```text
//! ROOT/items/<item>
//! ROOT/members/<zone>#<member>
//! ROOT/assign/<item>#<zone>#<member>#<slot>
//! ROOT/leader
//! ```
//!
//! Slot 0 is the primary. `#` and everything below it in ASCII is refused in names, so the order of
//! the keys is that of the parts they are made of.

use std::{
    cmp::Ordering,
    fmt::{self, Write},
};

/// Parts a key.
pub(super) const SEPARATOR: char = '#';

/// Why a name cannot be part of a key. Nothing was made; choose another name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It holds a character that is not above the separator.
    #[error("{name:?} holds {found:?} at byte {at}: only characters above '#' may be in a name")]
    Character {
        /// The name.
        name: String,
        /// The character.
        found: char,
        /// Where it stands, in bytes.
        at: usize,
    },
    /// It is empty.
    #[error("a name is empty")]
    Empty,
}

/// Why a key is none of the allocator's. It is skipped, and the rest goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not stand under one of the three prefixes, and is not the leader's.
    #[error("the key stands under no prefix of items, members or assignments")]
    Prefix,
    /// It has too few or too many parts.
    #[error("the key has {found} parts, not {expected}")]
    Parts {
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// Its slot is no number, or not written as numbers are.
    #[error("the slot {0:?} is no number in its shortest form")]
    Slot(String),
    /// One of its names cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Checks a name: of an item, a zone, or a member.
///
/// # Errors
/// [`NameError`], with the place of the first character that may not be in it.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    // No byte of a longer character is as small.
    match name.bytes().position(|found| char::from(found) <= SEPARATOR) {
        None => Ok(()),
        Some(at) => {
            let found = char::from(name.as_bytes()[at]);
            Err(NameError::Character { name: name.to_owned(), found, at })
        }
    }
}

/// What a key names, in the order of keys: slots as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// An assignment.
    Assignment {
        /// The item's name.
        item: &'a str,
        /// The member's zone.
        zone: &'a str,
        /// The member's name.
        member: &'a str,
        /// Zero: it is the primary.
        slot: u32,
    },
    /// An item.
    Item(&'a str),
    /// Who has taken over the planning.
    Leader,
    /// A member.
    Member {
        /// Its zone.
        zone: &'a str,
        /// Its name, unique within the zone.
        member: &'a str,
    },
}

impl Key<'_> {
    /// What decides the order: the prefix, the names, and a slot as it is written.
    fn parts(&self) -> (u8, [&str; 3], Option<String>) {
        match self {
            Self::Assignment { item, zone, member, slot } => {
                (0, [item, zone, member], Some(slot.to_string()))
            }
            Self::Item(item) => (1, [item, "", ""], None),
            Self::Leader => (2, [""; 3], None),
            Self::Member { zone, member } => (3, [zone, member, ""], None),
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The keys under one root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// The keys under `root`; a slash at its end counts for nothing.
    pub fn new(root: impl Into<String>) -> Self {
        let mut root = root.into();
        root.truncate(root.trim_end_matches('/').len());
        Self { root }
    }

    /// The root.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The prefix of all items.
    pub fn items(&self) -> String {
        format!("{}/items/", self.root)
    }

    /// The prefix of all members.
    pub fn members(&self) -> String {
        format!("{}/members/", self.root)
    }

    /// The prefix of all assignments.
    pub fn assignments(&self) -> String {
        format!("{}/assign/", self.root)
    }

    /// The key of who has taken over the planning from the oldest member: its value is a member's key.
    pub fn leader(&self) -> String {
        format!("{}/leader", self.root)
    }

    /// The prefix of an item's assignments, and of no other item's.
    ///
    /// # Errors
    /// The item's name cannot be one.
    pub fn assignments_of(&self, item: &str) -> Result<String, NameError> {
        check_name(item)?;
        Ok(self.assignments_below(item))
    }

    /// The same for an item whose name can be one.
    pub(super) fn assignments_below(&self, item: &str) -> String {
        format!("{}{item}{SEPARATOR}", self.assignments())
    }

    /// The key as text.
    ///
    /// # Errors
    /// One of its names cannot be one.
    pub fn encode(&self, key: &Key<'_>) -> Result<String, NameError> {
        let names: &[&str] = match key {
            Key::Item(item) => &[item],
            Key::Leader => &[],
            Key::Member { zone, member } => &[zone, member],
            Key::Assignment { item, zone, member, .. } => &[item, zone, member],
        };
        names.iter().try_for_each(|name| check_name(name))?;
        Ok(self.join(key))
    }

    /// The key as text, of names that can be one.
    pub(super) fn join(&self, key: &Key<'_>) -> String {
        let mut text = String::new();
        self.write(key, &mut text);
        text
    }

    /// The same, written over another text, whose memory is used again.
    pub(super) fn write(&self, key: &Key<'_>, text: &mut String) {
        text.clear();
        text.push_str(&self.root);
        let push = |text: &mut String, names: &[&str]| {
            for (at, name) in names.iter().enumerate() {
                if at > 0 {
                    text.push(SEPARATOR);
                }
                text.push_str(name);
            }
        };
        match key {
            Key::Item(item) => {
                text.push_str("/items/");
                text.push_str(item);
            }
            Key::Leader => text.push_str("/leader"),
            Key::Member { zone, member } => {
                text.push_str("/members/");
                push(text, &[zone, member]);
            }
            Key::Assignment { item, zone, member, slot } => {
                text.push_str("/assign/");
                push(text, &[item, zone, member, ""]);
                // Text takes whatever is written to it.
                let _ = write!(text, "{slot}");
            }
        }
    }

    /// What a key names.
    ///
    /// # Errors
    /// [`KeyError`]: it is none of the allocator's.
    pub fn decode<'a>(&self, key: &'a str) -> Result<Key<'a>, KeyError> {
        let rest = key.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/'));
        let rest = rest.ok_or(KeyError::Prefix)?;
        if rest == "leader" {
            return Ok(Key::Leader);
        }
        let behind = |prefix| rest.strip_prefix(prefix);
        if let Some(rest) = behind("assign/") {
            let [item, zone, member, slot] = parts(rest, 3)?;
            // A slot in another form would be encoded as another key.
            let plain = slot == "0" || !slot.starts_with(['0', '+']);
            let number = slot.parse().ok().filter(|_| plain);
            let slot = number.ok_or_else(|| KeyError::Slot(slot.to_owned()))?;
            Ok(Key::Assignment { item, zone, member, slot })
        } else if let Some(rest) = behind("items/") {
            let [item] = parts(rest, 1)?;
            Ok(Key::Item(item))
        } else if let Some(rest) = behind("members/") {
            let [zone, member] = parts(rest, 2)?;
            Ok(Key::Member { zone, member })
        } else {
            Err(KeyError::Prefix)
        }
    }

    /// Whether a key may be an item's, or that of an assignment to a member, as far as its ends show.
    pub(super) fn may_concern(&self, key: &[u8], zone: &str, member: &str) -> bool {
        let rest = key.strip_prefix(self.root.as_bytes());
        let slot = key.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let own = before(&key[..key.len() - slot], member).and_then(|rest| before(rest, zone));
        rest.is_some_and(|rest| rest.starts_with(b"/items/"))
            || own.is_some_and(|rest| before(rest, "").is_some())
    }

    /// Whether a key is one of an item's assignments, if it is an assignment at all.
    pub(super) fn is_assignment_of(&self, key: &[u8], item: &str) -> bool {
        let rest = key.strip_prefix(self.root.as_bytes());
        let rest = rest.and_then(|rest| rest.strip_prefix(b"/assign/"));
        let rest = rest.and_then(|rest| rest.strip_prefix(item.as_bytes()));
        rest.and_then(<[u8]>::first).is_some_and(|next| char::from(*next) == SEPARATOR)
    }
}

/// What stands before a name and the separator behind it.
fn before<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (last, rest) = text.split_last()?;
    rest.strip_suffix(name.as_bytes()).filter(|_| char::from(*last) == SEPARATOR)
}

/// The parts of a text between separators: so many, no fewer and no more, the first of them names.
fn parts<const EXPECTED: usize>(text: &str, names: usize) -> Result<[&str; EXPECTED], KeyError> {
    let mut parts = [""; EXPECTED];
    let (mut found, mut start, mut doubtful) = (0, 0, false);
    let mut end_at = |end: usize| {
        if let Some(part) = parts.get_mut(found) {
            *part = &text[start..end];
        }
        doubtful |= start == end;
        (found, start) = (found + 1, end + 1);
    };
    // Every key that changes comes by here: one pass, byte by byte, is cheaper than searchers.
    let mut lowest = u8::MAX;
    for (at, byte) in text.bytes().enumerate() {
        if char::from(byte) == SEPARATOR {
            end_at(at);
        } else {
            lowest = lowest.min(byte);
        }
    }
    end_at(text.len());
    if found != EXPECTED {
        return Err(KeyError::Parts { found, expected: EXPECTED });
    }
    if doubtful || char::from(lowest) < SEPARATOR {
        parts[..names].iter().try_for_each(|name| check_name(name))?;
    }
    Ok(parts)
}

/// The parts after the prefix.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(item) => f.write_str(item),
            Self::Leader => f.write_str("leader"),
            Self::Member { zone, member } => write!(f, "{zone}{SEPARATOR}{member}"),
            Self::Assignment { item, zone, member, slot } => {
                write!(f, "{item}{SEPARATOR}{zone}{SEPARATOR}{member}{SEPARATOR}{slot}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_concerns_a_member_if_it_is_an_item_or_held_by_it() {
        let keys = Keys::new("/root");
        let concerns = |key: &Key<'_>| keys.may_concern(keys.join(key).as_bytes(), "z", "7");
        let held = |zone, member, slot| Key::Assignment { item: "i", zone, member, slot };
        assert!([Key::Item("i"), held("z", "7", 0), held("z", "7", 12)].iter().all(concerns));
        let others = [held("z", "17", 0), held("yz", "7", 0), held("7", "z", 7), Key::Leader];
        assert!(!others.iter().any(concerns));
        assert!(!concerns(&Key::Member { zone: "z", member: "7" }));
    }
}
