//! What stands at one revision, indexed: members, items, who holds what, and what is not settled.

use std::{collections::BTreeMap, fmt, iter::Peekable, sync::Arc};

use super::{
    item::{Key, Keys},
    leader,
    progress::{Doing, Progress},
    roster::{Kept, Member, Roster},
    table::Table,
    value::{Entity, ItemValue, MemberKey, Replica, Workload, digest, judge, key_of},
};
use crate::store::{
    Compare,
    mirror::{Change, View},
};

/// An assignment.
pub struct Assignment<W: Workload> {
    /// The number of its member, see [`World::member`].
    pub member: u32,
    /// Its slot: zero is the primary.
    pub slot: u32,
    /// Whether the replica is consistent.
    pub consistent: bool,
    pub(super) entry: Kept<W>,
}

/// An item, or what is left of one: some assignments.
pub struct Item<W: Workload> {
    pub(super) entry: Option<Kept<W>>,
    /// Its assignments, by zone, member and slot.
    pub held: Vec<Assignment<W>>,
    /// Its number in this world, and in the plan.
    pub(super) number: u32,
    /// Whether it is in the plan.
    pub(super) is_planned: bool,
    /// Whether it has changed since the last plan.
    has_changed: bool,
}

/// What stands at one revision. It follows a mirror by its changes, each at a cost that does not
/// depend on how much stands.
pub struct World<W: Workload> {
    keys: Keys,
    workload: Arc<W>,
    revision: u64,
    members: Roster<W>,
    items: Table<Item<W>>,
    pub(super) progress: Progress,
    standing: usize,
    unreadable: usize,
    fingerprint: u64,
    assignments: usize,
    copying: usize,
    /// Who has taken over the planning.
    taken: Option<Kept<W>>,
    /// The items that have changed since the last plan, or are gone.
    changed: Vec<u32>,
    /// How many plans have asked for those.
    asked: u64,
}

impl<W: Workload> Default for Item<W> {
    fn default() -> Self {
        let (number, is_planned, has_changed) = (0, false, false);
        Self { entry: None, held: Vec::new(), number, is_planned, has_changed }
    }
}

impl<W: Workload> Assignment<W> {
    /// What its member says of it.
    pub fn state(&self) -> Option<&W::State> {
        self.entry.value.as_ref()?.state()
    }
}

impl<W: Workload> Item<W> {
    /// Whether it stands, and not only assignments that it had.
    pub fn stands(&self) -> bool {
        self.entry.is_some()
    }

    /// Its value: the last that decoded. `None`: it does not stand, or never had one that decodes.
    pub fn value(&self) -> Option<&W::Item> {
        self.entry.as_ref()?.value.as_ref()?.item()
    }

    /// How many of its replicas are consistent, at most one a member.
    pub fn consistent(&self) -> usize {
        let good = self.held.iter().enumerate().filter(|(at, held)| {
            let mut earlier = self.held[..*at].iter();
            held.consistent && !earlier.any(|other| other.member == held.member && other.consistent)
        });
        good.count()
    }

    /// How many of them are not.
    fn copying(&self) -> usize {
        self.held.iter().filter(|held| !held.consistent).count()
    }

    /// Whether it stands, and never had a value that decodes.
    pub(super) fn is_unreadable(&self) -> bool {
        self.stands() && self.value().is_none()
    }

    /// Whether nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        self.entry.is_none() && self.held.is_empty()
    }

    /// Counts its assignments as what no plan moves, if so, or that they are that no more.
    fn freeze(&self, members: &mut Roster<W>, more: bool) {
        if self.is_unreadable() {
            for held in &self.held {
                let frozen = &mut members.get_mut(held.member).frozen;
                *frozen = if more { *frozen + 1 } else { *frozen - 1 };
            }
        }
    }

    /// Finds out anew which of its replicas are consistent. Without its value nobody can tell, and they
    /// are what they were.
    fn judge(&mut self, workload: &W, members: &Roster<W>) {
        let Some(value) = self.value() else { return };
        let replica = |held| {
            let Assignment { member, slot, .. }: &Assignment<W> = held;
            let MemberKey { zone, member } = &members.get(*member).key;
            Replica { zone, member, slot: *slot, value: held.state() }
        };
        let all: Vec<Replica<'_, W::State>> = self.held.iter().map(replica).collect();
        let good = judge(workload, value, &all);
        for (held, good) in self.held.iter_mut().zip(good) {
            held.consistent = good;
        }
    }

    fn digest(&self, name: &str) -> u64 {
        if self.entry.is_none() {
            return 0;
        }
        let facts = self.value().map(|value| (value.replication(), value.zones()));
        // One that was deleted, and made anew, is another one.
        let since = self.entry.as_ref().map(|entry| entry.kv.create_revision);
        digest(&("item", name, facts, since))
    }

    /// Takes over an assignment as it is now, or that there is none. Returns whether one has ended.
    fn assign(
        &mut self,
        members: &mut Roster<W>,
        (member, slot): (u32, u32),
        entry: Option<Kept<W>>,
    ) -> bool {
        let place = |member: u32, slot: u32| (&members.get(member).key, slot);
        let wanted = place(member, slot);
        let at = self.held.binary_search_by(|held| place(held.member, held.slot).cmp(&wanted));
        let holder = members.get_mut(member);
        match (at, entry) {
            (Ok(at), Some(entry)) => self.held[at].entry = entry,
            (Err(at), Some(entry)) => {
                if self.held.len() < FEW {
                    // Nearly all items have few replicas: no room is kept for more.
                    self.held.reserve_exact(1);
                }
                self.held.insert(at, Assignment { member, slot, consistent: true, entry });
                holder.load += 1;
                holder.primaries += u32::from(slot == 0);
            }
            (Ok(at), None) => {
                self.held.remove(at);
                holder.load -= 1;
                holder.primaries -= u32::from(slot == 0);
                return true;
            }
            (Err(_), None) => {}
        }
        false
    }
}

/// So many assignments of an item are few.
const FEW: usize = 8;

impl<W: Workload> World<W> {
    /// What a view of a mirror shows.
    pub fn new(keys: Keys, workload: Arc<W>, view: &View<Entity<W>>) -> Self {
        let mut world = Self {
            keys,
            workload,
            revision: 0,
            members: Roster::default(),
            items: Table::default(),
            progress: Progress::default(),
            standing: 0,
            unreadable: 0,
            fingerprint: 0,
            assignments: 0,
            copying: 0,
            taken: None,
            changed: Vec::new(),
            asked: 0,
        };
        world.follow(&View::default(), view);
        world
    }

    /// Goes on from one view of a mirror to a later one. Returns the assignments that ended
    /// meanwhile, by item and the member's number, which nobody else has before this is called again.
    pub fn follow(&mut self, from: &View<Entity<W>>, to: &View<Entity<W>>) -> Vec<(Arc<str>, u32)> {
        self.members.tidy();
        let mut ended = Vec::new();
        let mut changes = from.changes(to).peekable();
        while let Some(change) = changes.next() {
            // Keys that are none of ours are shown by the mirror as such.
            match key_of(&self.keys, change.key) {
                Ok(Key::Item(item)) => self.set_item(item, change.after.cloned()),
                Ok(Key::Member { zone, member }) => {
                    self.set_member(zone, member, change.after.cloned());
                }
                Ok(Key::Leader) => self.taken = change.after.cloned(),
                Ok(Key::Assignment { item, .. }) => {
                    self.set_assignments(item, change, &mut changes, &mut ended);
                }
                Err(_) => {}
            }
        }
        self.revision = to.revision();
        ended
    }

    fn set_member(&mut self, zone: &str, member: &str, entry: Option<Kept<W>>) {
        let number = self.members.number(zone, member);
        let member = self.members.get_mut(number);
        self.fingerprint = self.fingerprint.wrapping_sub(member.digest());
        member.entry = entry;
        self.fingerprint = self.fingerprint.wrapping_add(member.digest());
        self.members.may_be_gone(number);
    }

    /// Sets one item's assignments: their changes come one after another.
    fn set_assignments<'a>(
        &mut self,
        name: &str,
        first: Change<'a, Entity<W>>,
        changes: &mut Peekable<impl Iterator<Item = Change<'a, Entity<W>>>>,
        ended: &mut Vec<(Arc<str>, u32)>,
    ) {
        let number = self.items.number(name);
        let (name, item) = self.items.row_mut(number);
        let ready = item.consistent();
        item.freeze(&mut self.members, false);
        self.copying -= item.copying();
        self.assignments -= item.held.len();
        let mut next = Some(first);
        while let Some(Change { key, after, .. }) = next {
            if let Ok(Key::Assignment { zone, member, slot, .. }) = key_of(&self.keys, key) {
                let member = self.members.number(zone, member);
                if item.assign(&mut self.members, (member, slot), after.cloned()) {
                    self.progress.freed(member);
                    self.members.may_be_gone(member);
                    ended.push((Arc::clone(name), member));
                }
            }
            next = changes.next_if(|next| self.keys.is_assignment_of(next.key, name));
        }
        item.judge(&*self.workload, &self.members);
        item.freeze(&mut self.members, true);
        self.copying += item.copying();
        self.assignments += item.held.len();
        if item.consistent() > ready {
            self.progress.ready();
        }
        self.touch(number);
    }

    fn set_item(&mut self, name: &str, entry: Option<Kept<W>>) {
        let number = self.items.number(name);
        let (name, item) = self.items.row_mut(number);
        self.fingerprint = self.fingerprint.wrapping_sub(item.digest(name));
        self.standing -= usize::from(item.stands());
        self.unreadable -= usize::from(item.is_unreadable());
        self.copying -= item.copying();
        item.freeze(&mut self.members, false);
        item.entry = entry;
        item.judge(&*self.workload, &self.members);
        item.freeze(&mut self.members, true);
        self.copying += item.copying();
        self.standing += usize::from(item.stands());
        self.unreadable += usize::from(item.is_unreadable());
        self.fingerprint = self.fingerprint.wrapping_add(item.digest(name));
        self.touch(number);
    }

    /// Has an item looked at of which something has changed, or forgets it.
    fn touch(&mut self, number: u32) {
        let item = self.items.row_mut(number).1;
        item.number = number;
        if !std::mem::replace(&mut item.has_changed, true) {
            self.changed.push(number);
        }
        if item.is_gone() {
            self.items.remove(number);
            return self.progress.settle(number);
        }
        if item.value().is_some_and(|value| item.consistent() < value.replication() as usize) {
            self.progress.hurry();
        }
        self.progress.touch(number);
    }

    /// The revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The keys' layout.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The members that stand, and those of which only assignments are left, each by its number.
    pub fn members(&self) -> impl Iterator<Item = (u32, &Member<W>)> {
        (0..).zip(self.members.all()).filter(|(_, member)| member.stands() || member.load > 0)
    }

    /// A member by the number that it has in this world.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn member(&self, number: u32) -> &Member<W> {
        self.members.get(number)
    }

    /// A member by its key.
    pub fn find(&self, key: &MemberKey) -> Option<&Member<W>> {
        Some(self.member(self.find_number(key)?))
    }

    pub(super) fn find_row(&self, item: &str) -> Option<u32> {
        self.items.find(item)
    }

    pub(super) fn find_number(&self, key: &MemberKey) -> Option<u32> {
        self.members.find(&key.zone, &key.member)
    }

    /// All numbers of members are below this.
    pub(super) fn numbers_end(&self) -> usize {
        self.members.all().len()
    }

    /// An item was not changed as it was meant to be.
    pub(super) fn look_again(&mut self, name: &str) {
        if let Some(number) = self.items.find(name) {
            self.progress.hurry();
            self.progress.touch(number);
        }
    }

    /// The items that have changed since this was asked last, each at least once; and how often it was asked before.
    pub(super) fn take_changed(&mut self) -> (Vec<u32>, u64) {
        let changed = std::mem::take(&mut self.changed);
        for number in &changed {
            self.row_mut(*number).has_changed = false;
        }
        self.asked += 1;
        (changed, self.asked - 1)
    }

    /// Makes these items, and no others, unsettled.
    pub(super) fn unsettle(&mut self, is_unsettled: impl Fn(&Item<W>) -> bool) {
        let unsettled = self.items.numbers().filter(|number| is_unsettled(self.row(*number).1));
        self.progress.restart(unsettled.collect());
    }

    /// Has these items looked at, and those that wait for something, if they are unsettled; or settles them.
    pub(super) fn look_at(&mut self, items: Vec<u32>, is_unsettled: impl Fn(&Item<W>) -> bool) {
        let waiting: Vec<u32> = self.progress.doing().keys().copied().collect();
        for number in items.into_iter().chain(waiting) {
            let item = self.row(number).1;
            if !item.is_gone() && is_unsettled(item) {
                self.progress.touch(number);
            } else {
                self.progress.settle(number);
            }
        }
    }

    /// The items by name, and those of which only assignments are left.
    pub fn items(&self) -> impl Iterator<Item = (&Arc<str>, &Item<W>)> {
        self.items.iter()
    }

    /// All numbers of items are below this.
    pub(super) fn rows_end(&self) -> usize {
        self.items.end()
    }

    /// An item by the number that it has in this world; it may be gone.
    pub(super) fn row(&self, number: u32) -> (&Arc<str>, &Item<W>) {
        self.items.row(number)
    }

    pub(super) fn row_mut(&mut self, number: u32) -> &mut Item<W> {
        self.items.row_mut(number).1
    }

    /// An item by its name.
    pub fn item(&self, name: &str) -> Option<&Item<W>> {
        Some(self.row(self.find_row(name)?).1)
    }

    /// How many items stand.
    pub fn len(&self) -> usize {
        self.standing
    }

    /// How many items stand without a value that decodes.
    pub(super) fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Whether no items stand.
    pub fn is_empty(&self) -> bool {
        self.standing == 0
    }

    /// How many assignments there are.
    pub fn assignments(&self) -> usize {
        self.assignments
    }

    /// How many of them are not consistent: copies on their way, as a rule.
    pub fn copying(&self) -> usize {
        self.copying
    }

    /// Whether to wait while more copies get ready, because nothing is pressing: whoever gets ready
    /// later is done with in the same round, and in fuller transactions.
    pub(super) fn may_wait(&self) -> bool {
        // Who is ready already brings nobody else with it.
        self.copying > 0 && self.progress.may_wait()
    }

    /// What the items are doing that do not stand as they are meant to, as far as they were looked at.
    pub fn doing(&self) -> &BTreeMap<Doing, usize> {
        self.progress.counts()
    }

    /// Says of what a plan depends on, and of nothing else, whether it has changed: members with
    /// limits, shares and wishes to leave, items with replication and zones, and since when each stands.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The member that plans for all: the oldest, and of those that came to be at one revision the
    /// first by zone and name; but who has taken over from it, while it stands.
    pub fn leader(&self) -> Option<&Member<W>> {
        let entries = self.members.all().iter().filter_map(|member| member.entry.as_ref());
        let taken = self.taken.as_ref().map(|taken| &*taken.kv);
        let found = leader::leader(entries.map(|entry| &*entry.kv), taken)?;
        let is_it = |member: &&Member<W>| {
            member.entry.as_ref().is_some_and(|entry| entry.kv.key == found.key)
        };
        self.members.all().iter().find(is_it)
    }

    /// Holds only while nobody else takes over the planning.
    pub(super) fn nobody_takes_over(&self) -> Compare {
        let revision = self.taken.as_ref().map_or(0, |taken| taken.kv.mod_revision);
        Compare::unchanged(self.keys.leader(), revision)
    }
}

impl<W: Workload> fmt::Debug for Assignment<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.entry.kv.key, if self.consistent { "*" } else { "" })
    }
}

impl<W: Workload> fmt::Debug for Item<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.held).finish()
    }
}

impl<W: Workload> fmt::Debug for World<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("revision", &self.revision)
            .field("members", &self.members.all().len())
            .field("items", &self.items.len())
            .field("assignments", &self.assignments)
            .finish_non_exhaustive()
    }
}
