//! The members that a world knows, by number: a number is given again when nothing is left of its member.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::value::{Entity, MemberKey, MemberValue, Workload, digest};
use crate::store::{LeaseId, mirror::Entry};

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
    /// How many of them are of items that nobody can read, and no plan moves.
    pub(super) frozen: u32,
}

/// The members by the numbers that they have in a world.
pub(super) struct Roster<W: Workload> {
    members: Vec<Member<W>>,
    /// By zone and name.
    numbers: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    /// The numbers of members of whom nothing is left, to be given again.
    free: Vec<u32>,
    /// Members of whom nothing was left.
    gone: Vec<u32>,
}

impl<W: Workload> Default for Roster<W> {
    fn default() -> Self {
        let (free, gone) = (Vec::new(), Vec::new());
        Self { members: Vec::new(), numbers: BTreeMap::new(), free, gone }
    }
}

impl<W: Workload> Roster<W> {
    /// The number of a member; a new one if it was not heard of.
    pub(super) fn number(&mut self, zone: &str, member: &str) -> u32 {
        if let Some(number) = self.find(zone, member) {
            return number;
        }
        let key = MemberKey::new(zone, member);
        let new = Member { key: key.clone(), entry: None, load: 0, primaries: 0, frozen: 0 };
        let number = if let Some(number) = self.free.pop() {
            self.members[number as usize] = new;
            number
        } else {
            self.members.push(new);
            u32::try_from(self.members.len() - 1).unwrap_or(u32::MAX)
        };
        self.numbers.entry(key.zone).or_default().insert(key.member, number);
        number
    }

    /// Has it looked whether anything is left of a member, of which something has ended.
    pub(super) fn may_be_gone(&mut self, number: u32) {
        if self.get(number).is_gone() {
            self.gone.push(number);
        }
    }

    /// Forgets the members of whom nothing is left: until then their numbers are theirs.
    pub(super) fn tidy(&mut self) {
        for number in std::mem::take(&mut self.gone) {
            let member = self.get(number);
            let (key, is_gone) = (member.key.clone(), member.is_gone());
            let Some(of_zone) = self.numbers.get_mut(&key.zone).filter(|_| is_gone) else {
                continue;
            };
            if of_zone.remove(&key.member).is_some() {
                self.free.push(number);
            }
            if of_zone.is_empty() {
                self.numbers.remove(&key.zone);
            }
        }
    }

    pub(super) fn find(&self, zone: &str, member: &str) -> Option<u32> {
        self.numbers.get(zone)?.get(member).copied()
    }

    /// All, by number; of some nothing is left.
    pub(super) fn all(&self) -> &[Member<W>] {
        &self.members
    }

    pub(super) fn get(&self, number: u32) -> &Member<W> {
        &self.members[number as usize]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Member<W> {
        &mut self.members[number as usize]
    }
}

impl<W: Workload> Member<W> {
    /// Whether it stands, and not only assignments that it had.
    pub fn stands(&self) -> bool {
        self.entry.is_some()
    }

    /// Whether nothing is left of it.
    fn is_gone(&self) -> bool {
        self.entry.is_none() && self.load == 0
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

    pub(super) fn digest(&self) -> u64 {
        if self.entry.is_none() {
            return 0;
        }
        let value = self.value();
        let share = value.and_then(MemberValue::share).map(f64::to_bits);
        let facts = value.map(|value| (value.limit(), share, value.is_exiting()));
        digest(&("member", &self.key, facts, self.since()))
    }
}

impl<W: Workload> fmt::Debug for Member<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, load, primaries, .. } = self;
        write!(f, "{key}: {load}, primary of {primaries}")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::plain::Plain, *};

    #[test]
    fn a_number_is_given_again_when_nothing_is_left_of_its_member() {
        let mut roster = Roster::<Plain>::default();
        let [one, two] = ["one", "two"].map(|member| roster.number("a", member));
        roster.get_mut(two).load = 1;
        for number in [one, two] {
            roster.may_be_gone(number);
        }
        assert_eq!(
            roster.find("a", "one"),
            Some(one),
            "until it is tidied up its number is its own"
        );
        roster.tidy();
        assert_eq!((roster.find("a", "one"), roster.find("a", "two")), (None, Some(two)));
        assert_eq!((roster.number("b", "three"), roster.number("a", "one")), (one, 2));
    }
}
