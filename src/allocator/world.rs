//! What stands at one revision, indexed: members, items, who holds what, and what is not settled.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    iter::Peekable,
    sync::Arc,
};

use super::{
    item::{Key, Keys},
    leader,
    progress::{Doing, Progress},
    table::Table,
    value::{Entity, ItemValue, MemberKey, MemberValue, Replica, Workload, judge, key_of},
};
use crate::store::{
    Compare, LeaseId,
    mirror::{Change, Entry, View},
};

/// A key as the mirror has it.
pub(super) type Kept<W> = Arc<Entry<Entity<W>>>;

/// A member, or what is left of one: some assignments.
pub struct Member<W: Workload> {
    /// Its place and name.
    pub key: MemberKey,
    pub(super) entry: Option<Kept<W>>,
    /// How many assignments it has.
    pub load: u32,
    /// How many of them are in slot 0.
    pub primaries: u32,
}

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
    /// Its number in the plan.
    pub(super) number: Option<u32>,
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
}

impl<W: Workload> Default for Item<W> {
    fn default() -> Self {
        Self { entry: None, held: Vec::new(), number: None }
    }
}

/// The members by the numbers that they have in a world.
struct Roster<W: Workload> {
    members: Vec<Member<W>>,
    /// By zone and name.
    numbers: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
}

impl<W: Workload> Roster<W> {
    /// The number of a member; a new one if it was not heard of.
    fn number(&mut self, zone: &str, member: &str) -> u32 {
        if let Some(number) = self.find(zone, member) {
            return number;
        }
        let number = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let key = MemberKey::new(zone, member);
        let zone = self.numbers.entry(Arc::clone(&key.zone)).or_default();
        zone.insert(Arc::clone(&key.member), number);
        self.members.push(Member { key, entry: None, load: 0, primaries: 0 });
        number
    }

    fn find(&self, zone: &str, member: &str) -> Option<u32> {
        self.numbers.get(zone)?.get(member).copied()
    }

    fn get(&self, number: u32) -> &Member<W> {
        &self.members[number as usize]
    }

    fn get_mut(&mut self, number: u32) -> &mut Member<W> {
        &mut self.members[number as usize]
    }
}

impl<W: Workload> Member<W> {
    /// Whether it stands, and not only assignments that it had.
    pub fn stands(&self) -> bool {
        self.entry.is_some()
    }

    /// Its value: the last that decoded. `None`: it does not stand, or never had one that decodes.
    pub fn value(&self) -> Option<&W::Member> {
        self.entry.as_ref()?.value.as_ref()?.member()
    }

    /// The lease with which it, and all that it holds, ends.
    pub fn lease(&self) -> LeaseId {
        self.entry.as_ref().map_or(LeaseId::NONE, |entry| entry.kv.lease)
    }

    /// The revision at which it came to be; zero if it does not stand.
    pub fn since(&self) -> u64 {
        self.entry.as_ref().map_or(0, |entry| entry.kv.create_revision)
    }

    fn digest(&self) -> u64 {
        if self.entry.is_none() {
            return 0;
        }
        let value = self.value();
        let share = value.and_then(MemberValue::share).map(f64::to_bits);
        let facts = value.map(|value| (value.limit(), share, value.is_exiting()));
        digest(&("member", &self.key, facts, self.since()))
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
        digest(&("item", name, facts))
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

/// A number that differs where the facts differ. Numbers of independent facts are added up, so that
/// one of them can change alone.
pub(super) fn digest(facts: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    facts.hash(&mut hasher);
    hasher.finish()
}

impl<W: Workload> World<W> {
    /// What a view of a mirror shows.
    pub fn new(keys: Keys, workload: Arc<W>, view: &View<Entity<W>>) -> Self {
        let mut world = Self {
            keys,
            workload,
            revision: 0,
            members: Roster { members: Vec::new(), numbers: BTreeMap::new() },
            items: Table::default(),
            progress: Progress::default(),
            standing: 0,
            unreadable: 0,
            fingerprint: 0,
            assignments: 0,
            copying: 0,
            taken: None,
        };
        world.follow(&View::default(), view);
        world
    }

    /// Goes on from one view of a mirror to a later one. Returns the assignments that ended
    /// meanwhile, by item and the member's number.
    pub fn follow(&mut self, from: &View<Entity<W>>, to: &View<Entity<W>>) -> Vec<(Arc<str>, u32)> {
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
        self.copying -= item.copying();
        self.assignments -= item.held.len();
        let mut next = Some(first);
        while let Some(Change { key, after, .. }) = next {
            if let Ok(Key::Assignment { zone, member, slot, .. }) = key_of(&self.keys, key) {
                let member = self.members.number(zone, member);
                if item.assign(&mut self.members, (member, slot), after.cloned()) {
                    self.progress.freed(member);
                    ended.push((Arc::clone(name), member));
                }
            }
            next = changes.next_if(|next| self.keys.is_assignment_of(next.key, name));
        }
        item.judge(&*self.workload, &self.members);
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
        item.entry = entry;
        item.judge(&*self.workload, &self.members);
        self.copying += item.copying();
        self.standing += usize::from(item.stands());
        self.unreadable += usize::from(item.is_unreadable());
        self.fingerprint = self.fingerprint.wrapping_add(item.digest(name));
        self.touch(number);
    }

    /// Has an item looked at of which something has changed, or forgets it.
    fn touch(&mut self, number: u32) {
        let item = self.items.row(number).1;
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
        (0..).zip(&self.members.members).filter(|(_, member)| member.stands() || member.load > 0)
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

    pub(super) fn find_number(&self, key: &MemberKey) -> Option<u32> {
        self.members.find(&key.zone, &key.member)
    }

    /// All numbers of members are below this.
    pub(super) fn numbers_end(&self) -> usize {
        self.members.members.len()
    }

    /// An item was not changed as it was meant to be.
    pub(super) fn look_again(&mut self, name: &str) {
        if let Some(number) = self.items.find(name) {
            self.progress.hurry();
            self.progress.touch(number);
        }
    }

    /// Makes these items, and no others, unsettled.
    pub(super) fn unsettle(&mut self, is_unsettled: impl Fn(&Item<W>) -> bool) {
        let unsettled = self.items.numbers().filter(|number| is_unsettled(self.row(*number).1));
        self.progress.restart(unsettled.collect());
    }

    /// The items by name, and those of which only assignments are left.
    pub fn items(&self) -> impl Iterator<Item = (&Arc<str>, &Item<W>)> {
        self.items.iter()
    }

    /// The items' numbers, by name.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> {
        self.items.numbers()
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
        Some(self.row(self.items.find(name)?).1)
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
    /// limits, shares and wishes to leave, items with replication and zones.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The member that plans for all: the oldest, and of those that came to be at one revision the
    /// first by zone and name; but who has taken over from it, while it stands.
    pub fn leader(&self) -> Option<&Member<W>> {
        let entries = self.members.members.iter().filter_map(|member| member.entry.as_ref());
        let taken = self.taken.as_ref().map(|taken| &*taken.kv);
        let found = leader::leader(entries.map(|entry| &*entry.kv), taken)?;
        let is_it = |member: &&Member<W>| {
            member.entry.as_ref().is_some_and(|entry| entry.kv.key == found.key)
        };
        self.members.members.iter().find(is_it)
    }

    /// Holds only while nobody else takes over the planning.
    pub(super) fn nobody_takes_over(&self) -> Compare {
        let revision = self.taken.as_ref().map_or(0, |taken| taken.kv.mod_revision);
        Compare::unchanged(self.keys.leader(), revision)
    }
}

impl<W: Workload> fmt::Debug for Member<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, load, primaries, .. } = self;
        write!(f, "{key}: {load}, primary of {primaries}")
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
            .field("members", &self.members.members.len())
            .field("items", &self.items.len())
            .field("assignments", &self.assignments)
            .finish_non_exhaustive()
    }
}
