//! Follows what was written, transaction by transaction, and counts what must never happen.

use std::collections::{BTreeMap, BTreeSet};

use raft_autopilot::{
    allocator::{
        ItemValue, MemberValue,
        item::{Key, Keys},
        plain::{PlainItem, PlainMember},
    },
    store::{Bytes, KeyRange, Op},
};

use crate::{recorder::ROOT, slots::only_the_primary_changes};

/// What never happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// An item had as many consistent replicas as it wants, and then fewer.
    pub(crate) under_replicated: usize,
    /// A member got more than its limit.
    pub(crate) over_limit: usize,
    /// An item had no primary or several, beside other replicas.
    pub(crate) primaries: usize,
    /// A replica got another slot, and that was no part of a change of the primary.
    pub(crate) renamed: usize,
}

/// A replica.
#[derive(Clone, Copy)]
struct Replica {
    slot: u32,
    consistent: bool,
}

/// What stands.
#[derive(Default)]
pub(crate) struct Ledger {
    wanted: BTreeMap<String, usize>,
    limits: BTreeMap<String, usize>,
    loads: BTreeMap<String, usize>,
    held: BTreeMap<String, BTreeMap<String, Replica>>,
    pub(crate) renames: usize,
    pub(crate) crowned: usize,
    pub(crate) faults: Faults,
}

impl Ledger {
    /// Enters what one transaction did.
    pub(crate) fn enter(&mut self, ops: &[Op]) {
        let keys = Keys::new(ROOT);
        let (mut before, mut gave) = (BTreeMap::new(), BTreeSet::new());
        // A replica that changes its slot is written under one key and deleted under another.
        let (puts, deletes): (Vec<&Op>, Vec<&Op>) =
            ops.iter().partition(|op| matches!(op, Op::Put { .. }));
        for op in deletes.into_iter().chain(puts) {
            let (key, value) = match op {
                Op::Put { key, value, .. } => (key, Some(value)),
                Op::Delete(KeyRange::Key(key)) => (key, None),
                other => panic!("nobody writes {other:?} here"),
            };
            let text = std::str::from_utf8(key).unwrap();
            match keys.decode(text).unwrap() {
                Key::Item(item) => {
                    let value = value.map(|value| PlainItem::decode(value).unwrap());
                    let wanted = value.map_or(0, |value| value.replication() as usize);
                    self.wanted.insert(item.to_owned(), wanted);
                }
                Key::Leader => {}
                Key::Member { zone, member } => {
                    let limit = value.map(|value| PlainMember::decode(value).unwrap().limit());
                    self.limits.insert(format!("{zone}#{member}"), limit.unwrap_or(0) as usize);
                }
                Key::Assignment { item, zone, member, slot } => {
                    let member = format!("{zone}#{member}");
                    let standing = self.held.get(item).cloned().unwrap_or_default();
                    before.entry(item.to_owned()).or_insert(standing);
                    gave.insert(member.clone());
                    self.assign(item, member, slot, value);
                }
            }
        }
        self.judge(&before, &gave);
    }

    fn assign(&mut self, item: &str, member: String, slot: u32, value: Option<&Bytes>) {
        let row = self.held.entry(item.to_owned()).or_default();
        let load = self.loads.entry(member.clone()).or_default();
        match value {
            Some(value) => {
                let replica = Replica { slot, consistent: !value.is_empty() };
                *load += usize::from(row.insert(member, replica).is_none());
            }
            None if row.get(&member).is_some_and(|replica| replica.slot == slot) => {
                row.remove(&member);
                *load -= 1;
            }
            None => {}
        }
    }

    /// Judges the items and the members that a transaction has changed.
    fn judge(
        &mut self,
        before: &BTreeMap<String, BTreeMap<String, Replica>>,
        gave: &BTreeSet<String>,
    ) {
        let good =
            |row: &BTreeMap<String, Replica>| row.values().filter(|one| one.consistent).count();
        let primary = |row: &BTreeMap<String, Replica>| {
            row.iter().find(|(_, one)| one.slot == 0).map(|(member, _)| member.clone())
        };
        for (item, before) in before {
            let (row, wanted) = (&self.held[item], self.wanted[item]);
            let enough = |row| good(row) >= wanted;
            self.faults.under_replicated += usize::from(enough(before) && !enough(row));
            let primaries = row.values().filter(|one| one.slot == 0).count();
            self.faults.primaries += usize::from(primaries != 1 && !row.is_empty());
            let renamed = before.iter().filter_map(|(member, old)| {
                let new = row.get(member).filter(|new| new.slot != old.slot)?;
                Some((old.slot, new.slot))
            });
            let renamed: Vec<(u32, u32)> = renamed.collect();
            self.renames += renamed.len();
            self.faults.renamed += usize::from(!only_the_primary_changes(&renamed));
            self.crowned += usize::from(!before.is_empty() && primary(before) != primary(row));
        }
        for member in gave {
            let limit = self.limits.get(member).copied().unwrap_or(0);
            self.faults.over_limit += usize::from(self.loads[member] > limit);
        }
    }
}
