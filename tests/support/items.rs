//! Sees every revision of the items of a store, and what in it may never happen.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use raft_autopilot::{
    allocator::{
        ItemValue, MemberValue,
        item::{Key, Keys},
        plain::{PlainItem, PlainMember, PlainState},
    },
    store::{Event, Events, LeaseId},
};

/// A member's zone and name.
pub(crate) type Name = (String, String);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    limit: u32,
    since: u64,
    lease: LeaseId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Replica {
    slot: u32,
    consistent: bool,
}

/// What stands at one revision.
#[derive(Clone, Debug, Default)]
struct Standing {
    members: BTreeMap<Name, Seat>,
    items: BTreeMap<String, u32>,
    held: BTreeMap<String, BTreeMap<Name, Replica>>,
    /// Who has taken over, and under which lease.
    successor: Option<(Name, LeaseId)>,
}

impl Standing {
    fn load(&self, member: &Name) -> u32 {
        let held = self.held.values().filter(|held| held.contains_key(member));
        u32::try_from(held.count()).unwrap()
    }

    fn consistent(&self, item: &str) -> u32 {
        let held = self.held.get(item).into_iter().flatten();
        u32::try_from(held.filter(|(_, replica)| replica.consistent).count()).unwrap()
    }

    fn leader(&self) -> Option<&Name> {
        if let Some((name, lease)) = &self.successor
            && self.members.get(name).is_some_and(|seat| seat.lease == *lease)
        {
            return Some(name);
        }
        let oldest = self.members.iter().min_by_key(|(name, seat)| (seat.since, *name));
        oldest.map(|(name, _)| name)
    }
}

/// Judges every revision of the keys under a root, one after the other.
pub(crate) struct Witness {
    keys: Keys,
    now: Standing,
    pub(crate) revisions: u64,
    /// Assignments that a person may have ended.
    pub(crate) given_back: BTreeSet<(String, Name)>,
    pub(crate) created: u64,
    pub(crate) ended: u64,
    pub(crate) promoted: u64,
    pub(crate) leaders: BTreeSet<Name>,
}

impl Witness {
    pub(crate) fn new(root: &str) -> Self {
        Self {
            keys: Keys::new(root),
            now: Standing::default(),
            revisions: 0,
            given_back: BTreeSet::new(),
            created: 0,
            ended: 0,
            promoted: 0,
            leaders: BTreeSet::new(),
        }
    }

    /// How many items the members that stand may hold, by zone and name.
    pub(crate) fn limits(&self) -> BTreeMap<Name, u32> {
        self.now.members.iter().map(|(name, seat)| (name.clone(), seat.limit)).collect()
    }

    /// Judges what a revision did. `wrote` says which member has written it; `None`: nobody can tell.
    ///
    /// # Errors
    /// What in it may never happen.
    pub(crate) fn judge(
        &mut self,
        events: &Events,
        wrote: Option<&dyn Fn(u64) -> Option<Name>>,
    ) -> Result<(), String> {
        let before = self.now.clone();
        for event in &events.events {
            self.apply(event);
        }
        self.revisions += 1;
        self.leaders.extend(self.now.leader().cloned());
        let now = self.now.clone();
        let mut made = false;
        let items: BTreeSet<&String> = before.held.keys().chain(now.held.keys()).collect();
        for item in items {
            let empty = BTreeMap::new();
            let old = before.held.get(item).unwrap_or(&empty);
            let new = now.held.get(item).unwrap_or(&empty);
            if old == new {
                continue;
            }
            let primaries = new.values().filter(|replica| replica.slot == 0).count();
            if primaries > 1 {
                return Err(format!("{item} has {primaries} primaries: {new:?}"));
            }
            for member in new.keys().filter(|member| !old.contains_key(*member)) {
                made = true;
                self.created += 1;
                let load = now.load(member);
                let Some(seat) = before.members.get(member) else {
                    return Err(format!("{item} was given to {member:?}, who is not there"));
                };
                if load > seat.limit {
                    return Err(format!("{member:?} holds {load} of {}: {item}", seat.limit));
                }
            }
            let gone = old.keys().filter(|member| !new.contains_key(*member));
            // A lease takes what it had with it; a person may give back.
            let removed: Vec<&Name> = gone
                .filter(|member| {
                    now.members.contains_key(*member) == before.members.contains_key(*member)
                        && !self.given_back.contains(&(item.clone(), (*member).clone()))
                })
                .collect();
            self.ended += removed.len() as u64;
            if let (false, Some(wanted)) = (removed.is_empty(), before.items.get(item)) {
                let (had, has) = (before.consistent(item), now.consistent(item));
                if had >= *wanted && has < *wanted {
                    return Err(format!(
                        "{item} wants {wanted} and had {had}, now {has}: {removed:?} went"
                    ));
                }
            }
            let promoted = Self::promotion(item, old, new)?;
            made |= promoted;
            self.promoted += u64::from(promoted);
        }
        if let (true, Some(wrote)) = (made, wrote) {
            let (by, leader) = (wrote(events.revision), before.leader().cloned());
            if by != leader {
                return Err(format!("{by:?} made assignments, while {leader:?} led"));
            }
        }
        Ok(())
    }

    fn promotion(
        item: &str,
        old: &BTreeMap<Name, Replica>,
        new: &BTreeMap<Name, Replica>,
    ) -> Result<bool, String> {
        let Some((member, _)) = new.iter().find(|(_, replica)| replica.slot == 0) else {
            return Ok(false);
        };
        let Some(was) = old.get(member).filter(|was| was.slot != 0) else { return Ok(false) };
        let better = new.keys().any(|other| old.get(other).is_some_and(|other| other.consistent));
        if !was.consistent && better {
            return Err(format!("{member:?} became the primary of {item}, and is not consistent"));
        }
        Ok(true)
    }

    fn apply(&mut self, event: &Event) {
        let Ok(key) = std::str::from_utf8(event.key()) else { return };
        let Ok(key) = self.keys.decode(key) else { return };
        let kv = if let Event::Put(kv) = event { Some(kv) } else { None };
        match key {
            Key::Item(item) => match kv {
                None => drop(self.now.items.remove(item)),
                Some(kv) => {
                    if let Ok(value) = PlainItem::decode(&kv.value) {
                        self.now.items.insert(item.to_owned(), value.replication);
                    }
                }
            },
            Key::Member { zone, member } => {
                let name = (zone.to_owned(), member.to_owned());
                let Some(kv) = kv else {
                    self.now.members.remove(&name);
                    return;
                };
                let limit = PlainMember::decode(&kv.value).map_or(0, |value| value.limit());
                let seat = Seat { limit, since: kv.create_revision, lease: kv.lease };
                self.now.members.insert(name, seat);
            }
            Key::Leader => {
                self.now.successor = kv.map(|kv| {
                    let key = std::str::from_utf8(&kv.value).unwrap();
                    let Key::Member { zone, member } = self.keys.decode(key).unwrap() else {
                        panic!("{key} is no member's key")
                    };
                    ((zone.to_owned(), member.to_owned()), kv.lease)
                });
            }
            Key::Assignment { item, zone, member, slot } => {
                let name = (zone.to_owned(), member.to_owned());
                let held = self.now.held.entry(item.to_owned()).or_default();
                match kv {
                    // A rename puts another slot, before or after.
                    None if held.get(&name).is_some_and(|replica| replica.slot == slot) => {
                        held.remove(&name);
                    }
                    None => {}
                    Some(kv) => {
                        let state: Option<PlainState> = serde_json::from_slice(&kv.value).ok();
                        let consistent = state.is_some_and(|state| state.consistent);
                        held.insert(name, Replica { slot, consistent });
                    }
                }
                if held.is_empty() {
                    self.now.held.remove(item);
                }
            }
        }
    }
}
