//! The planner's problem with numbers for names: members, items, and who holds what now.
//!
//! It is as small as it can be, about 20 bytes an item of three replicas, because a plan reads all
//! of it. Members, zones and items are numbered from zero in the order in which they are added;
//! whoever wants the same plan from the same world adds them in the same order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// How the replicas of one item are spread over zones.
///
/// Each rule caps how many replicas of an item one zone takes. Where not all replicas can be placed
/// within it, more are placed, and the plan says how many items break the rule; it is the fewest
/// possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneRule {
    /// At least two zones: no zone takes all the replicas of an item that wants two or more.
    #[default]
    Two,
    /// As many zones as possible: no second replica in a zone while another zone has none.
    Spread,
    /// At most so many replicas in a zone, at least one.
    MaxPerZone(u32),
}

impl ZoneRule {
    /// How many of so many replicas one zone may take.
    pub fn cap(self, replication: u32) -> u32 {
        match self {
            Self::Two => replication.saturating_sub(1).max(1),
            Self::Spread => 1,
            Self::MaxPerZone(cap) => cap.max(1),
        }
    }
}

/// Whether a member may become the primary of items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Primaries {
    /// Of every item that it holds.
    #[default]
    Any,
    /// Only of those whose primary it is already, unless nobody else holds the item.
    Kept,
}

/// What the planner knows of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The number of its zone, from zero.
    pub zone: u32,
    /// How many items it may hold, after all that its standing takes away; zero for one that is gone.
    pub limit: u32,
    /// Its weight when items are shared out; zero counts as one. Usually the limit.
    pub share: u32,
    /// Whether it may become a primary.
    pub primaries: Primaries,
}

impl Seat {
    /// A member of `zone` that may hold `limit` items, and whose share is its limit.
    pub fn new(zone: u32, limit: u32) -> Self {
        Self { zone, limit, share: limit, primaries: Primaries::Any }
    }

    /// The same with at most this limit. Who gives up a part of its limit gives up as much of its share.
    #[must_use]
    pub fn lowered(self, limit: u32) -> Self {
        let limit = limit.min(self.limit);
        let share = u64::from(self.share) * u64::from(limit) / u64::from(self.limit.max(1));
        Self { limit, share: u32::try_from(share).unwrap_or(self.share), ..self }
    }
}

/// A member that holds an item, in one word: its number, whether it is the item's primary, and
/// whether it is consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(u32);

impl Holder {
    const PRIMARY: u32 = 1 << 31;
    const CONSISTENT: u32 = 1 << 30;

    /// Nobody yet.
    pub(super) const VACANT: Self = Self(u32::MAX);

    /// The largest number that a member can have.
    pub const MEMBER_MAX: u32 = Self::CONSISTENT - 2;

    /// A replica at `member`, at most [`Holder::MEMBER_MAX`], that is not consistent yet.
    pub fn new(member: u32) -> Self {
        debug_assert!(member <= Self::MEMBER_MAX);
        Self(member & (Self::CONSISTENT - 1))
    }

    /// The same as the item's primary.
    #[must_use]
    pub fn primary(self) -> Self {
        Self(self.0 | Self::PRIMARY)
    }

    /// The same as a replica that is no primary.
    #[must_use]
    pub fn replica(self) -> Self {
        Self(self.0 & !Self::PRIMARY)
    }

    /// The same, consistent.
    #[must_use]
    pub fn consistent(self) -> Self {
        Self(self.0 | Self::CONSISTENT)
    }

    /// The member's number.
    pub fn member(self) -> u32 {
        self.0 & (Self::CONSISTENT - 1)
    }

    /// Whether it is the item's primary.
    pub fn is_primary(self) -> bool {
        self.0 & Self::PRIMARY != 0
    }

    /// Whether it is consistent.
    pub fn is_consistent(self) -> bool {
        self.0 & Self::CONSISTENT != 0
    }
}

/// The items, each with the members that hold it; as a list of lists in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    first: Vec<u32>,
    holders: Vec<Holder>,
}

impl Default for Holdings {
    fn default() -> Self {
        Self { first: vec![0], holders: Vec::new() }
    }
}

impl Holdings {
    /// No items, with room for so many, and so many holders altogether.
    pub fn with_capacity(items: usize, holders: usize) -> Self {
        let mut first = Vec::with_capacity(items + 1);
        first.push(0);
        Self { first, holders: Vec::with_capacity(holders) }
    }

    /// Adds the next item.
    ///
    /// # Panics
    /// If there are more than 2^32 holders.
    pub fn push(&mut self, holders: &[Holder]) {
        self.holders.extend_from_slice(holders);
        self.close();
    }

    /// Ends an item.
    fn close(&mut self) {
        let end = u32::try_from(self.holders.len());
        self.first.push(end.expect("fewer than 2^32 assignments"));
    }

    /// The same list with other rows for some items, which are in order and as long as `lengths` says:
    /// `write` appends each, given which it is of those items.
    pub(super) fn rewritten(
        &self,
        items: &[u32],
        lengths: &[u32],
        mut write: impl FnMut(usize, &mut Vec<Holder>),
    ) -> Self {
        let length = |item: u32| self.first[item as usize + 1] - self.first[item as usize];
        if items.iter().zip(lengths).all(|(item, new)| length(*item) == *new) {
            let mut same = self.clone();
            let mut row = Vec::new();
            for (at, item) in items.iter().enumerate() {
                row.clear();
                write(at, &mut row);
                let places = same.of_mut(*item as usize).iter_mut();
                places.zip(&row).for_each(|(place, holder)| *place = *holder);
            }
            return same;
        }
        let places: usize = lengths.iter().map(|length| *length as usize).sum();
        let places = places + self.holders.len();
        let mut spliced = Self::with_capacity(self.len(), places);
        let mut run = 0;
        for (at, item) in items.iter().enumerate() {
            spliced.copy(self, run..*item as usize);
            write(at, &mut spliced.holders);
            spliced.close();
            run = *item as usize + 1;
        }
        spliced.copy(self, run..self.len());
        spliced
    }

    /// Adds items of another list, as they are there.
    fn copy(&mut self, other: &Self, items: std::ops::Range<usize>) {
        if items.is_empty() {
            return;
        }
        let (start, end) = (other.first[items.start], other.first[items.end]);
        let here = *self.first.last().unwrap_or(&0);
        self.holders.extend_from_slice(&other.holders[start as usize..end as usize]);
        let firsts = &other.first[items.start + 1..=items.end];
        self.first.extend(firsts.iter().map(|first| first - start + here));
    }

    /// Where each item starts in the list of all holders, with its end, and that list.
    pub(super) fn into_parts(self) -> (Vec<u32>, Vec<Holder>) {
        (self.first, self.holders)
    }

    /// Takes out the holders that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(Holder) -> bool) {
        if self.holders.iter().all(|holder| keep(*holder)) {
            return;
        }
        let mut kept = Self::with_capacity(self.len(), self.holders.len());
        for item in 0..self.len() {
            kept.holders.extend(self.of(item).iter().filter(|holder| keep(**holder)));
            kept.close();
        }
        *self = kept;
    }

    /// Who holds an item.
    pub fn of(&self, item: usize) -> &[Holder] {
        &self.holders[self.first[item] as usize..self.first[item + 1] as usize]
    }

    /// Who holds an item, to be changed.
    pub(super) fn of_mut(&mut self, item: usize) -> &mut [Holder] {
        &mut self.holders[self.first[item] as usize..self.first[item + 1] as usize]
    }

    /// All holders of all items, one item after the other.
    pub fn all(&self) -> &[Holder] {
        &self.holders
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.first.len() - 1
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each item's holders.
    pub fn iter(&self) -> impl Iterator<Item = &[Holder]> + Clone {
        self.first.windows(2).map(|ends| &self.holders[ends[0] as usize..ends[1] as usize])
    }
}

/// The indexed problem: members and items by number, and who holds what now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    pub(super) zone_rule: ZoneRule,
    pub(super) slack: u32,
    pub(super) seats: Vec<Seat>,
    pub(super) replication: Vec<u32>,
    /// The number of each item's set of zones plus one, or zero; empty while no item has one.
    pub(super) zone_set: Vec<u32>,
    /// The sets, each sorted.
    pub(super) zone_sets: Vec<Vec<u32>>,
    /// Their numbers plus one.
    set_numbers: BTreeMap<Vec<u32>, u32>,
    pub(super) held: Holdings,
}

impl Problem {
    /// A problem without members and items. A member may be `slack` items off its fair share before
    /// that is a reason to move any.
    pub fn new(zone_rule: ZoneRule, slack: u32) -> Self {
        Self { zone_rule, slack, ..Self::default() }
    }

    /// The same, with room for so many items, and so many assignments.
    #[must_use]
    pub fn with_capacity(mut self, items: usize, assignments: usize) -> Self {
        self.replication.reserve(items);
        self.held = Holdings::with_capacity(items, assignments);
        self
    }

    /// Adds a member, and returns its number.
    ///
    /// # Panics
    /// If there are more than [`Holder::MEMBER_MAX`].
    pub fn add_member(&mut self, seat: Seat) -> u32 {
        let number = u32::try_from(self.seats.len()).unwrap_or(u32::MAX);
        assert!(number <= Holder::MEMBER_MAX, "at most 2^30 members");
        self.seats.push(seat);
        number
    }

    /// Adds an item that wants `replication` replicas and is held by `holders`: by each member once,
    /// by one primary at most; a second mention of a member, and a member that was not added, count
    /// for nothing. Returns its number.
    pub fn add_item(&mut self, replication: u32, holders: &[Holder]) -> usize {
        match sanitised(holders, self.seats.len()) {
            None => self.held.push(holders),
            Some(known) => self.held.push(&known),
        }
        self.replication.push(replication);
        if !self.zone_set.is_empty() {
            self.zone_set.push(0);
        }
        self.replication.len() - 1
    }

    /// Restricts the item that was added last to `zones`.
    pub fn restrict(&mut self, zones: &[u32]) {
        if let Some(last) = self.replication.len().checked_sub(1) {
            self.restrict_item(last, Some(zones));
        }
    }

    /// Restricts an item to some zones, or to none in particular.
    pub(super) fn restrict_item(&mut self, item: usize, zones: Option<&[u32]>) {
        let number = zones.map_or(0, |zones| self.set_number(zones));
        if number > 0 || !self.zone_set.is_empty() {
            self.zone_set.resize(self.replication.len(), 0);
            self.zone_set[item] = number;
        }
    }

    /// The number of a set of zones, plus one.
    fn set_number(&mut self, zones: &[u32]) -> u32 {
        let mut zones = zones.to_vec();
        zones.sort_unstable();
        zones.dedup();
        if let Some(number) = self.set_numbers.get(&zones) {
            return *number;
        }
        self.zone_sets.push(zones.clone());
        // There are no more sets than items were restricted, and those are counted in 32 bits.
        let number = u32::try_from(self.zone_sets.len()).unwrap_or(u32::MAX);
        self.set_numbers.insert(zones, number);
        number
    }

    /// The members.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// A member, to be changed: for the next plan.
    pub fn seat_mut(&mut self, member: u32) -> Option<&mut Seat> {
        self.seats.get_mut(member as usize)
    }

    /// How many replicas each item wants.
    pub fn replication(&self) -> &[u32] {
        &self.replication
    }

    /// Who holds what now.
    pub fn held(&self) -> &Holdings {
        &self.held
    }

    /// Replaces who holds what; the next plan starts from there. What makes no sense counts for
    /// nothing, as in [`Problem::add_item`].
    ///
    /// # Panics
    /// If it is about another number of items.
    pub fn hold(&mut self, held: Holdings) {
        assert!(held.len() == self.replication.len(), "as many items as before");
        let members = self.seats.len();
        if held.iter().all(|holders| sanitised(holders, members).is_none()) {
            self.held = held;
            return;
        }
        self.held = Holdings::with_capacity(held.len(), held.all().len());
        for holders in held.iter() {
            match sanitised(holders, members) {
                None => self.held.push(holders),
                Some(known) => self.held.push(&known),
            }
        }
    }

    /// The zone rule.
    pub fn zone_rule(&self) -> ZoneRule {
        self.zone_rule
    }

    /// How far from its fair share a member may be, in items.
    pub fn slack(&self) -> u32 {
        self.slack
    }

    /// Whether an item may be held in a zone.
    pub fn allows(&self, item: usize, zone: u32) -> bool {
        self.zone_set.get(item).is_none_or(|set| self.set_allows(*set, zone))
    }

    /// Whether a set of zones, named by its number plus one, or zero for any, has a zone.
    pub(super) fn set_allows(&self, set: u32, zone: u32) -> bool {
        let Some(set) = (set as usize).checked_sub(1) else { return true };
        self.zone_sets[set].binary_search(&zone).is_ok()
    }

    /// How many replicas of an item can be placed at best: each on its own member.
    pub(super) fn wanted(&self, item: usize) -> u32 {
        self.replication[item].min(u32::try_from(self.seats.len()).unwrap_or(u32::MAX))
    }

    /// How many items a member may hold: never more than there are.
    pub(super) fn limit(&self, member: usize) -> i64 {
        i64::from(self.seats[member].limit).min(index(self.replication.len()))
    }

    /// Whether `holder` may go on holding `item`, as far as the two are concerned.
    pub(super) fn legal(&self, item: usize, holder: Holder) -> bool {
        let seat = self.seats[holder.member() as usize];
        seat.limit > 0 && self.allows(item, seat.zone)
    }
}

/// Rows of at most so many holders are compared pair by pair.
const SHORT: usize = 32;

/// The holders without a second mention of a member, a member that is not there, and a second
/// primary. `None`: there is nothing of that.
pub(super) fn sanitised(holders: &[Holder], members: usize) -> Option<Vec<Holder>> {
    let known = |holder: &Holder| (holder.member() as usize) < members;
    let primaries = holders.iter().filter(|holder| holder.is_primary()).count();
    let distinct = if holders.len() <= SHORT {
        let differs = |(at, holder): (usize, &Holder)| {
            holders[..at].iter().all(|earlier| earlier.member() != holder.member())
        };
        holders.iter().enumerate().all(differs)
    } else {
        let mut members: Vec<u32> = holders.iter().map(|holder| holder.member()).collect();
        members.sort_unstable();
        members.windows(2).all(|pair| pair[0] != pair[1])
    };
    if distinct && primaries <= 1 && holders.iter().all(known) {
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut sane: Vec<Holder> = Vec::new();
    for holder in holders.iter().filter(|holder| known(holder)) {
        if seen.insert(holder.member()) {
            let second = holder.is_primary() && sane.iter().any(|other| other.is_primary());
            sane.push(if second { holder.replica() } else { *holder });
        }
    }
    Some(sane)
}

/// The item's primary, among its holders; found without a branch, because nobody can guess where it is.
#[inline]
pub(super) fn primary(holders: &[Holder]) -> Option<Holder> {
    let most = holders.iter().fold(0, |most, holder| holder.0.max(most));
    (most & Holder::PRIMARY != 0).then_some(Holder(most))
}

/// Whether a member is among the holders.
pub(super) fn holds(holders: &[Holder], member: u32) -> bool {
    holders.iter().any(|holder| holder.member() == member)
}

/// A count as the solver counts.
pub(super) fn index(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
