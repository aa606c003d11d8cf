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
use crate::store::{Compare, KeyRange, KeyValue, Op, Txn, mirror::View};

/// The member that leads: of those that stand the oldest, and of those that came to be at one revision
/// the first by key; but who has taken over, while it stands.
pub(super) fn leader<'a>(
    members: impl Iterator<Item = &'a KeyValue> + Clone,
    taken: Option<&KeyValue>,
) -> Option<&'a KeyValue> {
    let successor = taken.and_then(|taken| {
        members.clone().find(|kv| kv.key == taken.value && kv.lease == taken.lease)
    });
    successor.or_else(|| oldest(members))
}

fn oldest<'a>(members: impl Iterator<Item = &'a KeyValue>) -> Option<&'a KeyValue> {
    members.min_by_key(|kv| (kv.create_revision, &kv.key))
}

/// Who leads in a view, kept so that the next view is only asked for what may have changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leads {
    member: KeyValue,
    taken: u64,
}

impl Leads {
    /// Who leads in a view.
    pub(super) fn find<W: Workload>(keys: &Keys, view: &View<Entity<W>>) -> Option<Self> {
        let taken = taken(keys, view);
        let range = KeyRange::prefix(keys.members());
        let member = leader(members(keys, view, &range), taken)?.clone();
        Some(Self { member, taken: taken.map_or(0, |kv| kv.mod_revision) })
    }

    /// Whether the same leads in another view: the member stands, and nobody took over or gave back. No
    /// member can come to be that is older.
    pub(super) fn holds<W: Workload>(&self, keys: &Keys, view: &View<Entity<W>>) -> bool {
        let stands = view.get(&self.member.key).is_some_and(|entry| {
            entry.kv.create_revision == self.member.create_revision
                && entry.kv.lease == self.member.lease
        });
        stands && taken(keys, view).map_or(0, |kv| kv.mod_revision) == self.taken
    }

    /// Whether it is the member with this key.
    pub(super) fn is(&self, key: &str) -> bool {
        *self.member.key == *key.as_bytes()
    }

    /// Whether another might have to take over: something was taken from this one, or it has taken
    /// over itself.
    fn may_end(&self, well: impl Fn(&KeyValue) -> bool) -> bool {
        self.taken > 0 || !well(&self.member)
    }
}

/// The transaction with which the member `me` takes over, if it is for it to do so: it is the oldest of
/// those that are well, and another leads.
pub(super) fn take_over<W: Workload>(
    keys: &Keys,
    view: &View<Entity<W>>,
    leads: &Leads,
    me: &MemberKey,
    is_well: impl Fn(&MemberKey) -> bool,
) -> Option<Txn> {
    let well = |kv: &KeyValue| {
        let Ok(Key::Member { zone, member }) = key_of(keys, &kv.key) else { return false };
        is_well(&MemberKey::new(zone, member))
    };
    if !leads.may_end(well) {
        return None;
    }
    let key = keys.leader();
    let own = view.get(keys.join(&me.key()).as_bytes())?;
    let range = KeyRange::prefix(keys.members());
    let members = members(keys, view, &range);
    let fit = oldest(members.clone().filter(|kv| well(kv)))?.key == own.kv.key;
    if !fit || leads.member.key == own.kv.key {
        return None;
    }
    let first = oldest(members)?.key == own.kv.key;
    let op = if first {
        Op::delete(key.as_str())
    } else {
        Op::put_leased(key.as_str(), &own.kv.key, own.kv.lease)
    };
    let unchanged = Compare::unchanged(key, leads.taken);
    let stands = Compare::unchanged(&own.kv.key, own.kv.mod_revision);
    Some(Txn::when([unchanged, stands]).and_then([op]))
}

/// The members that stand, in the range of their keys.
fn members<'a, W: Workload>(
    keys: &'a Keys,
    view: &'a View<Entity<W>>,
    range: &'a KeyRange,
) -> impl Iterator<Item = &'a KeyValue> + Clone {
    let entries = view.range(range).map(|(_, entry)| &*entry.kv);
    let members = entries.filter(|kv| matches!(key_of(keys, &kv.key), Ok(Key::Member { .. })));
    members.collect::<Vec<_>>().into_iter()
}

/// What says who has taken over.
fn taken<'a, W: Workload>(keys: &Keys, view: &'a View<Entity<W>>) -> Option<&'a KeyValue> {
    view.get(keys.leader().as_bytes()).map(|entry| &*entry.kv)
}
