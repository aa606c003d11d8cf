//! Who plans for all: the oldest member, or another that has taken over because something is taken
//! from all that are older.
//!
//! Who takes over writes its own member's key under `ROOT/leader`, with its own lease, and only if
//! nobody else did meanwhile; the oldest deletes that key when it is well again. Every transaction of
//! a plan holds only while that key is as it was: so what a member sends that cannot see, because its
//! view of the store stands still, that it leads no more is refused.

use super::{
    item::{Key, Keys},
    value::{Entity, MemberKey, Workload, key_of},
};
use crate::store::{Bytes, Compare, KeyRange, KeyValue, Op, Txn, mirror::View};

/// The member that leads: of those that stand the oldest, and of those that came to be at one revision
/// the first by key; but who has taken over, while it stands.
pub(super) fn leader<'a>(
    members: impl Iterator<Item = &'a KeyValue> + Clone,
    taken: Option<&KeyValue>,
) -> Option<&'a KeyValue> {
    let successor = taken.and_then(|taken| members.clone().find(|kv| is_successor(kv, taken)));
    successor.or_else(|| oldest(members))
}

fn is_successor(member: &KeyValue, taken: &KeyValue) -> bool {
    member.key == taken.value && member.lease == taken.lease
}

fn oldest<'a>(members: impl Iterator<Item = &'a KeyValue>) -> Option<&'a KeyValue> {
    members.min_by_key(|kv| (kv.create_revision, &kv.key))
}

/// The key of the oldest member of some view, and when it came to be: it is the oldest until that key
/// ends, because none can come to be that is older.
pub(super) type Oldest = (Bytes, u64);

/// The same in a view. `known` is kept from view to view.
pub(super) fn find<'a, W: Workload>(
    keys: &Keys,
    view: &'a View<Entity<W>>,
    known: &mut Option<Oldest>,
) -> Option<&'a KeyValue> {
    let successor = taken(keys, view).and_then(|taken| {
        let kv = &*view.get(&taken.value)?.kv;
        (is_member(keys, kv) && is_successor(kv, taken)).then_some(kv)
    });
    if successor.is_some() {
        return successor;
    }
    let stands = known.as_ref().and_then(|(key, since)| {
        view.get(key).map(|entry| &*entry.kv).filter(|kv| kv.create_revision == *since)
    });
    if stands.is_some() {
        return stands;
    }
    let range = KeyRange::prefix(keys.members());
    let found = oldest(members(keys, view, &range).into_iter());
    *known = found.map(|kv| (kv.key.clone(), kv.create_revision));
    // It is in the view, which outlives the range.
    view.get(&known.as_ref()?.0).map(|entry| &*entry.kv)
}

/// The transaction with which the member `me` takes over from who leads, if it is for it to do so: it is
/// the oldest of those that are well, and another leads.
pub(super) fn take_over<W: Workload>(
    keys: &Keys,
    view: &View<Entity<W>>,
    leads: &KeyValue,
    me: &MemberKey,
    is_well: impl Fn(&MemberKey) -> bool,
) -> Option<Txn> {
    let well = |kv: &KeyValue| {
        let Ok(Key::Member { zone, member }) = key_of(keys, &kv.key) else { return false };
        is_well(&MemberKey::new(zone, member))
    };
    let taken = taken(keys, view);
    if taken.is_none() && well(leads) {
        return None;
    }
    let own = view.get(keys.join(&me.key()).as_bytes())?;
    let range = KeyRange::prefix(keys.members());
    let members = members(keys, view, &range);
    let fit = oldest(members.iter().copied().filter(|kv| well(kv)))?.key == own.kv.key;
    if !fit || leads.key == own.kv.key {
        return None;
    }
    let key = keys.leader();
    let op = if oldest(members.into_iter())?.key == own.kv.key {
        Op::delete(key.as_str())
    } else {
        Op::put_leased(key.as_str(), &own.kv.key, own.kv.lease)
    };
    let unchanged = Compare::unchanged(key, taken.map_or(0, |kv| kv.mod_revision));
    let stands = Compare::unchanged(&own.kv.key, own.kv.mod_revision);
    Some(Txn::when([unchanged, stands]).and_then([op]))
}

/// The members that stand, in the range of their keys.
fn members<'a, W: Workload>(
    keys: &Keys,
    view: &'a View<Entity<W>>,
    range: &'a KeyRange,
) -> Vec<&'a KeyValue> {
    let entries = view.range(range).map(|(_, entry)| &*entry.kv);
    entries.filter(|kv| is_member(keys, kv)).collect()
}

fn is_member(keys: &Keys, kv: &KeyValue) -> bool {
    matches!(key_of(keys, &kv.key), Ok(Key::Member { .. }))
}

/// What says who has taken over.
fn taken<'a, W: Workload>(keys: &Keys, view: &'a View<Entity<W>>) -> Option<&'a KeyValue> {
    view.get(keys.leader().as_bytes()).map(|entry| &*entry.kv)
}
