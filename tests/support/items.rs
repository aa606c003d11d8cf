//! Sees every revision of the items of a store, and what in it may never happen.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use raft_autopilot::{
    allocator::{
        ItemValue, MemberKey, MemberValue, Move, Report, ZoneRule,
        item::{Key, Keys},
        plain::{PlainItem, PlainMember, PlainState},
    },
    store::{Event, Events, LeaseId},
};

use crate::slots::only_the_primary_changes;

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

/// An item's replicas.
type Replicas = BTreeMap<Name, Replica>;

static NOBODY: LazyLock<Replicas> = LazyLock::new(Replicas::new);

/// What stands at one revision.
#[derive(Clone, Debug, Default)]
struct Standing {
    members: BTreeMap<Name, Seat>,
    items: BTreeMap<String, u32>,
    held: BTreeMap<String, Replicas>,
    /// Who has taken over, and under which lease.
    successor: Option<(Name, LeaseId)>,
}

impl Standing {
    fn load(&self, member: &Name) -> u32 {
        let held = self.held.values().filter(|held| held.contains_key(member));
        u32::try_from(held.count()).unwrap()
    }

    fn consistent(&self, item: &str) -> u32 {
        u32::try_from(consistent(self.held.get(item).unwrap_or(&NOBODY)).count()).unwrap()
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

/// Who has written a revision, and, if it was a leader, by which plan.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    pub(crate) member: Name,
    pub(crate) plan: Option<Arc<Report>>,
}

/// Judges every revision of the keys under a root, one after the other.
pub(crate) struct Witness {
    keys: Keys,
    now: Standing,
    /// By what rule replicas are spread over zones.
    zone_rule: ZoneRule,
    pub(crate) revisions: u64,
    /// Assignments that a person may have ended.
    pub(crate) given_back: BTreeSet<(String, Name)>,
    pub(crate) created: u64,
    pub(crate) ended: u64,
    pub(crate) promoted: u64,
    pub(crate) leaders: BTreeSet<Name>,
}

impl Witness {
    pub(crate) fn new(root: &str, zone_rule: ZoneRule) -> Self {
        Self {
            keys: Keys::new(root),
            now: Standing::default(),
            zone_rule,
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

    /// Judges what stands when nothing is left to do, and no limit keeps any item from any member.
    ///
    /// # Errors
    /// Which item is not held as it should be.
    pub(crate) fn judge_end(&self) -> Result<(), String> {
        let members = &self.now.members;
        for (item, wanted) in &self.now.items {
            let held = self.now.held.get(item).unwrap_or(&NOBODY);
            let zones: BTreeSet<&String> = members.keys().map(|(zone, _)| zone).collect();
            let cap = self.zone_rule.cap(*wanted, u32::try_from(zones.len()).unwrap());
            let within = |members| within(cap, *wanted, members);
            let all = held.len() == members.len().min(*wanted as usize);
            if !all || within(&mut held.keys()) != within(&mut members.keys()) {
                return Err(format!("{item} wants {wanted}: {held:?}, of {:?}", members.keys()));
            }
            if primaries(held) != usize::from(!held.is_empty()) {
                return Err(format!("{item} has no primary: {held:?}"));
            }
        }
        Ok(())
    }

    /// Judges what a revision did. `wrote` says who has written it; `None`: nobody can tell.
    ///
    /// # Errors
    /// What in it may never happen.
    pub(crate) fn judge(
        &mut self,
        events: &Events,
        wrote: Option<&dyn Fn(u64) -> Option<Author>>,
    ) -> Result<(), String> {
        let before = self.now.clone();
        for event in &events.events {
            self.apply(event);
        }
        self.revisions += 1;
        self.leaders.extend(self.now.leader().cloned());
        let author = wrote.map(|wrote| wrote(events.revision));
        let mut made = false;
        let items: BTreeSet<&String> = before.held.keys().chain(self.now.held.keys()).collect();
        for item in items {
            let change = Change::new(item, &before, &self.now, &self.given_back);
            change.check()?;
            if let (true, Some(author)) = (change.is_ours(), &author) {
                made = true;
                let plan = author.as_ref().and_then(|author| author.plan.as_deref());
                let plan = plan.ok_or_else(|| format!("{item} was changed by no plan"))?;
                change.check_plan(plan, self.zone_rule)?;
            }
            self.created += change.created.len() as u64;
            self.ended += change.removed.len() as u64;
            self.promoted += change.renamed.iter().filter(|renamed| renamed.2 == 0).count() as u64;
        }
        if let (true, Some(author)) = (made, author) {
            let (by, leader) = (author.map(|author| author.member), before.leader());
            if by.as_ref() != leader {
                return Err(format!("{by:?} made assignments, while {leader:?} led"));
            }
        }
        Ok(())
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

/// How many of the replicas that an item wants these are, at most so many of them in a zone.
fn within(cap: u32, wanted: u32, holders: &mut dyn Iterator<Item = &Name>) -> usize {
    let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
    for (zone, _) in holders {
        *zones.entry(zone).or_default() += 1;
    }
    zones.values().map(|held| cap.min(*held)).sum::<u32>().min(wanted) as usize
}

fn consistent(held: &Replicas) -> impl Iterator<Item = &Name> {
    held.iter().filter(|(_, replica)| replica.consistent).map(|(member, _)| member)
}

fn primaries(held: &Replicas) -> usize {
    held.values().filter(|replica| replica.slot == 0).count()
}

fn name(key: &MemberKey) -> Name {
    (key.zone.to_string(), key.member.to_string())
}

/// What a revision did to an item.
struct Change<'a> {
    item: &'a str,
    before: &'a Standing,
    now: &'a Standing,
    old: &'a Replicas,
    new: &'a Replicas,
    created: Vec<&'a Name>,
    /// Who holds it no more, and neither because it is gone nor because it has given it back.
    removed: Vec<&'a Name>,
    /// Who has another slot than before: the old one, and the new one.
    renamed: Vec<(&'a Name, u32, u32)>,
}

impl<'a> Change<'a> {
    fn new(
        item: &'a str,
        before: &'a Standing,
        now: &'a Standing,
        given_back: &BTreeSet<(String, Name)>,
    ) -> Self {
        let old = before.held.get(item).unwrap_or(&NOBODY);
        let new = now.held.get(item).unwrap_or(&NOBODY);
        // A lease takes what it had with it; a person may give back.
        let excused = |member: &Name| {
            now.members.contains_key(member) != before.members.contains_key(member)
                || given_back.contains(&(item.to_owned(), member.clone()))
        };
        let gone = old.keys().filter(|member| !new.contains_key(*member));
        let renamed = old.iter().filter_map(|(member, was)| {
            let is = new.get(member).filter(|is| is.slot != was.slot)?;
            Some((member, was.slot, is.slot))
        });
        Self {
            item,
            before,
            now,
            old,
            new,
            created: new.keys().filter(|member| !old.contains_key(*member)).collect(),
            removed: gone.filter(|member| !excused(member)).collect(),
            renamed: renamed.collect(),
        }
    }

    /// Whether it is one that only a leader may make.
    fn is_ours(&self) -> bool {
        !(self.created.is_empty() && self.removed.is_empty() && self.renamed.is_empty())
    }

    fn check(&self) -> Result<(), String> {
        if self.old == self.new {
            return Ok(());
        }
        self.check_primary()?;
        self.check_limits()?;
        self.check_replication()?;
        self.check_renames()
    }

    /// There is never more than one. Whoever is it is so until another one is, or it is lost; who
    /// removes or renames replicas knows all of them, and leaves one that is it.
    fn check_primary(&self) -> Result<(), String> {
        let Self { item, old, new, removed, renamed, .. } = self;
        let primaries = primaries(new);
        if primaries > 1 {
            return Err(format!("{item} has {primaries} primaries: {new:?}"));
        }
        let primary = old.iter().find(|(_, replica)| replica.slot == 0);
        let had = primary
            .is_some_and(|(member, _)| new.contains_key(member) || removed.contains(&member));
        let knew = !removed.is_empty() || !renamed.is_empty();
        let stands = self.now.items.contains_key(*item) && !new.is_empty();
        if stands && primaries == 0 && (had || knew) {
            return Err(format!("{item} has no primary: {old:?} became {new:?}"));
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), String> {
        let Self { item, .. } = self;
        for member in &self.created {
            let load = self.now.load(member);
            let Some(seat) = self.before.members.get(*member) else {
                return Err(format!("{item} was given to {member:?}, who is not there"));
            };
            if load > seat.limit {
                return Err(format!("{member:?} holds {load} of {}: {item}", seat.limit));
            }
        }
        Ok(())
    }

    fn check_replication(&self) -> Result<(), String> {
        let Self { item, removed, .. } = self;
        if let (false, Some(wanted)) = (removed.is_empty(), self.before.items.get(*item)) {
            let (had, has) = (self.before.consistent(item), self.now.consistent(item));
            if has < had.min(*wanted) {
                return Err(format!(
                    "{item} wants {wanted} and had {had}, now {has}: {removed:?} went"
                ));
            }
        }
        Ok(())
    }

    /// A slot is renamed only where another replica becomes the primary, and one that is consistent if
    /// there is any.
    fn check_renames(&self) -> Result<(), String> {
        let Self { item, old, new, renamed, .. } = self;
        let kept = |(member, ..): &(&Name, u32, u32)| {
            new.get(*member).map(|is| is.consistent) == old.get(*member).map(|was| was.consistent)
        };
        let slots: Vec<(u32, u32)> = renamed.iter().map(|(_, was, is)| (*was, *is)).collect();
        if !only_the_primary_changes(&slots) || !renamed.iter().all(kept) {
            return Err(format!("{item} was renamed: {old:?} became {new:?}"));
        }
        let first = renamed.iter().find(|(_, _, slot)| *slot == 0);
        let Some((member, ..)) = first else { return Ok(()) };
        let better = new.keys().any(|other| old.get(other).is_some_and(|other| other.consistent));
        if !old[*member].consistent && better {
            return Err(format!("{member:?} became the primary of {item}, and is not consistent"));
        }
        Ok(())
    }

    /// Who gets it and who loses it is what the plan says, which breaks the zone rule as little as can be.
    fn check_plan(&self, plan: &Report, rule: ZoneRule) -> Result<(), String> {
        let Self { item, .. } = self;
        let certificate = &plan.certificate;
        if certificate.beyond > certificate.beyond_least {
            return Err(format!("{item} was changed by a plan that could be better: {plan}"));
        }
        let planned = plan.moves.iter().find(|planned| &*planned.item == *item);
        let Some(planned) = planned else { return Err(format!("{item} was not to move: {plan}")) };
        let among = |keys: &[MemberKey], member: &Name| keys.iter().any(|key| name(key) == *member);
        let stray = self.created.iter().find(|member| !among(&planned.to, member));
        let stray = stray.or_else(|| self.removed.iter().find(|it| !among(&planned.from, it)));
        if let Some(member) = stray {
            return Err(format!("{item} has nothing to do with {member:?}: {planned}"));
        }
        self.check_zones(planned, plan, rule).map_err(|fault| format!("{fault}: {planned}"))
    }

    /// By what goes an item never has fewer consistent replicas within the zone rule than before, unless it
    /// is to have fewer.
    fn check_zones(&self, planned: &Move, plan: &Report, rule: ZoneRule) -> Result<(), String> {
        let Self { item, old, new, removed, .. } = self;
        let Some(wanted) = self.before.items.get(*item).filter(|_| !removed.is_empty()) else {
            return Ok(());
        };
        let open = plan.members.iter().filter(|member| member.room > 0);
        let open: BTreeSet<&str> = open.map(|member| &*member.key.zone).collect();
        let cap = rule.cap(*wanted, u32::try_from(open.len()).unwrap());
        let within = |holders: &mut dyn Iterator<Item = &Name>| within(cap, *wanted, holders);
        let to: Vec<Name> = planned.to.iter().map(name).collect();
        let stay =
            old.keys().filter(|member| !planned.from.iter().any(|key| name(key) == **member));
        let least = within(&mut stay.chain(&to)).min(within(&mut consistent(old)));
        if within(&mut consistent(new)) < least {
            return Err(format!("{item} lost its zones: {old:?} became {new:?}"));
        }
        Ok(())
    }
}
