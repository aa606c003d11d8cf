//! Where an item is held: its replicas in order, the primary first.

use std::sync::Arc;

use super::{
    item::{Key, Keys, NameError, check_name},
    value::{Entity, ItemValue, MemberKey, Replica, Workload, judge, key_of},
};
use crate::store::{KeyRange, mirror::View};

/// One of an item's replicas.
#[derive(Debug)]
pub struct Hop<W: Workload> {
    /// Who holds it.
    pub member: MemberKey,
    /// Its slot: zero is the primary.
    pub slot: u32,
    /// Whether it is consistent.
    pub consistent: bool,
    /// When it was assigned: the revision at which its key came to be.
    pub since: u64,
    entity: Option<Arc<Entity<W>>>,
}

impl<W: Workload> Hop<W> {
    /// What its member says of it; an address, as a rule, and how far it is.
    pub fn state(&self) -> Option<&W::State> {
        self.entity.as_ref()?.state()
    }
}

/// An item's replicas at one revision.
#[derive(Debug)]
pub struct Route<W: Workload> {
    /// The item's name.
    pub item: Arc<str>,
    /// The revision.
    pub revision: u64,
    /// The replicas by slot; the primary, if there is one, is the first.
    pub hops: Vec<Hop<W>>,
    /// Whether the primary could be handed over now: there are as many replicas as the item wants,
    /// and all beside the primary are consistent.
    pub ready: bool,
}

impl<W: Workload> Route<W> {
    /// Where an item is held in a view. An item that is not held, or not there, has no replicas.
    ///
    /// # Errors
    /// The item's name cannot be one.
    pub fn new(
        keys: &Keys,
        workload: &W,
        view: &View<Entity<W>>,
        item: &str,
    ) -> Result<Self, NameError> {
        check_name(item)?;
        let range = KeyRange::prefix(keys.assignments_of(item)?);
        let mut hops: Vec<Hop<W>> = view
            .range(&range)
            .filter_map(|(key, entry)| {
                let Key::Assignment { zone, member, slot, .. } = key_of(keys, key).ok()? else {
                    return None;
                };
                let (member, since) = (MemberKey::new(zone, member), entry.kv.create_revision);
                Some(Hop { member, slot, consistent: false, since, entity: entry.value.clone() })
            })
            .collect();
        let value = view.value(format!("{}{item}", keys.items()).as_bytes());
        let value = value.and_then(|entity| entity.item());
        if let Some(value) = value {
            let all: Vec<Replica<'_, W::State>> = hops.iter().map(replica).collect();
            let good = judge(workload, value, &all);
            for (hop, good) in hops.iter_mut().zip(good) {
                hop.consistent = good;
            }
        }
        hops.sort_by_key(|hop| hop.slot);
        let wanted = value.map_or(0, ItemValue::replication) as usize;
        let ready = value.is_some()
            && hops.len() >= wanted
            && hops.iter().skip(1).all(|hop| hop.consistent);
        Ok(Self { item: item.into(), revision: view.revision(), hops, ready })
    }

    /// The primary.
    pub fn primary(&self) -> Option<&Hop<W>> {
        self.hops.first().filter(|hop| hop.slot == 0)
    }
}

fn replica<W: Workload>(hop: &Hop<W>) -> Replica<'_, W::State> {
    let MemberKey { zone, member } = &hop.member;
    Replica { zone, member, slot: hop.slot, value: hop.state() }
}
