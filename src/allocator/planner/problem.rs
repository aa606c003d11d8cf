//! The planner's problem with numbers for names: members, items, and who holds what now.
//!
//! It is as small as it can be, about 20 bytes an item of three replicas, because a plan reads all
//! of it. Members, zones and items are numbered from zero in the order in which they are added;
//! whoever wants the same plan from the same world adds them in the same order.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    seat::{Seat, ZoneRule},
    tally::{Held, Kind, Tally},
};

/// A member that holds an item, in one word: its number, whether it is the item's primary, and
/// whether it is consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(u32);

impl Holder {
    const PRIMARY: u32 = 1 << 31;
    const CONSISTENT: u32 = 1 << 30;

    /// Nobody yet.
    pub(super) const VACANT: Self = Self(u32::MAX);

    /// No place of a row, and a row that is elsewhere, in a list of rows of one length.
    pub(super) const NONE: Self = Self(Self::CONSISTENT - 1);
    pub(super) const ELSEWHERE: Self = Self(Self::CONSISTENT | Self::NONE.0);

    /// The largest number that a member can have.
    pub const MEMBER_MAX: u32 = Self::CONSISTENT - 2;

    /// The same if it `stays`, else nobody.
    #[inline]
    pub(super) fn or_vacant(self, stays: bool) -> Self {
        Self(self.0 | u32::from(stays).wrapping_sub(1))
    }

    /// What both have in common.
    #[inline]
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

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

    /// The same, as the item's primary if it is to `become` it.
    #[inline]
    pub(super) fn primary_if(self, become_it: bool) -> Self {
        Self(self.0 | u32::from(become_it) << 31)
    }

    /// The same at another member.
    pub(super) fn at(self, member: u32) -> Self {
        Self(self.0 & !(Self::CONSISTENT - 1) | member)
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

    /// Whether (one or zero) it is the same member as `before`, and if so, whether it is the primary no
    /// more.
    #[inline]
    pub(super) fn after(self, before: Self) -> (u32, u32) {
        // What is zero borrows.
        let same = ((self.0 ^ before.0) & (Self::CONSISTENT - 1)).wrapping_sub(1) >> 31;
        (same, same & (before.0 & !self.0) >> 31)
    }

    /// Whether it is consistent.
    pub fn is_consistent(self) -> bool {
        self.0 & Self::CONSISTENT != 0
    }
}

/// The items, each with the members that hold it; as a list of lists in one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    len: usize,
    /// How many holders each item has, while all have as many: then where they are need not be written
    /// down, and not be read.
    each: usize,
    /// Else where each item starts, and the end; empty until then.
    first: Vec<u32>,
    holders: Vec<Holder>,
}

impl Holdings {
    /// No items, with room for so many holders altogether.
    pub fn with_capacity(holders: usize) -> Self {
        Self { holders: Vec::with_capacity(holders), ..Self::default() }
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
    #[inline]
    fn close(&mut self) {
        let end = u32::try_from(self.holders.len()).expect("fewer than 2^32 assignments");
        if self.len == 0 {
            self.each = self.holders.len();
        } else if self.first.is_empty() && self.holders.len() != (self.len + 1) * self.each {
            self.write_down();
        }
        if !self.first.is_empty() {
            self.first.push(end);
        }
        self.len += 1;
    }

    /// Writes down where the items start, of which not all have as many holders any more.
    #[cold]
    fn write_down(&mut self) {
        // As many as there are holders, which have been counted in 32 bits.
        let first = |item: usize| u32::try_from(item * self.each).unwrap_or(u32::MAX);
        self.first.extend((0..=self.len).map(first));
        self.each = 0;
    }

    /// Where the holders of an item are.
    #[inline]
    fn span(&self, item: usize) -> std::ops::Range<usize> {
        self.start(item)..self.start(item + 1)
    }

    /// Where an item starts, or would start after the last.
    #[inline]
    fn start(&self, item: usize) -> usize {
        if self.first.is_empty() { item * self.each } else { self.first[item] as usize }
    }

    /// The same list with other rows for some items, which are in order and as long as `length` says:
    /// `write` writes each, given the item and its row before.
    pub(super) fn rewritten(
        &self,
        items: &[u32],
        length: impl Fn(usize) -> u32,
        mut write: impl FnMut(u32, &[Holder], &mut [Holder]),
    ) -> Self {
        let before = |item: u32| self.span(item as usize).len();
        if items.iter().enumerate().all(|(at, item)| before(*item) == length(at) as usize) {
            let holders = Vec::with_capacity(self.holders.len());
            let mut same = Self { holders, first: self.first.clone(), ..*self };
            // A part is copied and written while it is in the near memory.
            for part in items.chunks(PART) {
                let end = part.last().map_or(0, |item| self.span(*item as usize).end);
                same.holders.extend_from_slice(&self.holders[same.holders.len()..end]);
                for item in part {
                    let span = self.span(*item as usize);
                    write(*item, &self.holders[span.clone()], &mut same.holders[span]);
                }
            }
            same.holders.extend_from_slice(&self.holders[same.holders.len()..]);
            return same;
        }
        let places = |all, at: usize| all + length(at) as usize - before(items[at]);
        let all = (0..items.len()).fold(self.holders.len(), places);
        let (mut spliced, mut run) = (Self::with_capacity(all), 0);
        spliced.first.reserve(self.len + 1);
        for (at, item) in items.iter().enumerate() {
            spliced.copy(self, run..*item as usize);
            let start = spliced.holders.len();
            spliced.holders.resize(start + length(at) as usize, Holder::VACANT);
            write(*item, self.of(*item as usize), &mut spliced.holders[start..]);
            spliced.close();
            run = *item as usize + 1;
        }
        spliced.copy(self, run..self.len());
        spliced
    }

    /// Adds items of another list, as they are there.
    fn copy(&mut self, other: &Self, mut items: std::ops::Range<usize>) {
        // One by one, as long as all have as many holders, unless these are known to.
        while !items.is_empty() && self.first.is_empty() && other.each() != Some(self.each) {
            self.push(other.of(items.start));
            items.start += 1;
        }
        let (start, here) = (other.start(items.start), self.holders.len());
        self.holders.extend_from_slice(&other.holders[start..other.start(items.end)]);
        self.len += items.len();
        if !self.first.is_empty() {
            let end = |item| u32::try_from(here + other.start(item + 1) - start);
            self.first.extend(items.map(|item| end(item).unwrap_or(u32::MAX)));
        }
    }

    /// Takes out the holders that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(Holder) -> bool) {
        if self.holders.iter().all(|holder| keep(*holder)) {
            return;
        }
        let mut kept = Self::with_capacity(self.holders.len());
        for item in 0..self.len() {
            kept.holders.extend(self.of(item).iter().filter(|holder| keep(**holder)));
            kept.close();
        }
        *self = kept;
    }

    /// Who holds an item.
    #[inline]
    pub fn of(&self, item: usize) -> &[Holder] {
        &self.holders[self.span(item)]
    }

    /// Who holds an item, to be changed.
    #[inline]
    pub(super) fn of_mut(&mut self, item: usize) -> &mut [Holder] {
        let span = self.span(item);
        &mut self.holders[span]
    }

    /// All holders of all items, one item after the other.
    pub fn all(&self) -> &[Holder] {
        &self.holders
    }

    /// How many holders each item has, if all have as many.
    pub(super) fn each(&self) -> Option<usize> {
        self.first.is_empty().then_some(self.each)
    }

    /// All rows, if each is of three holders.
    #[inline]
    pub(super) fn threes(&self) -> Option<&[[Holder; 3]]> {
        (self.each() == Some(3)).then(|| self.holders.as_chunks().0)
    }

    /// The same, to be changed.
    #[inline]
    pub(super) fn threes_mut(&mut self) -> Option<&mut [[Holder; 3]]> {
        (self.each() == Some(3)).then(|| self.holders.as_chunks_mut().0)
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each item's holders.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[Holder]> + Clone {
        (0..self.len).map(|item| self.of(item))
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
    held: Holdings,
    tally: Tally,
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
        self.held = Holdings::with_capacity(assignments);
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
        self.tally.add_member();
        number
    }

    /// Adds an item that wants `replication` replicas and is held by `holders`: by each member once,
    /// by one primary at most; a second mention of a member, and a member that was not added, count
    /// for nothing. Returns its number.
    pub fn add_item(&mut self, replication: u32, holders: &[Holder]) -> usize {
        let known = sanitised(holders, self.seats.len());
        let holders = known.as_deref().unwrap_or(holders);
        self.held.push(holders);
        self.tally.add((replication, 0), counted(holders));
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
            let before = self.kind(item);
            self.zone_set[item] = number;
            if self.tally.kinds().is_some() {
                self.tally.change(before, self.kind(item), counted(self.held.of(item)));
            }
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
            self.hold_sane(held);
            return;
        }
        let mut sane = Holdings::with_capacity(held.all().len());
        for holders in held.iter() {
            match sanitised(holders, members) {
                None => sane.push(holders),
                Some(known) => sane.push(&known),
            }
        }
        self.hold_sane(sane);
    }

    /// The same, if all of it makes sense.
    pub(super) fn hold_sane(&mut self, held: Holdings) {
        self.tally = Tally::of_nothing(self.seats.len());
        for (item, row) in held.iter().enumerate() {
            self.tally.add(self.kind(item), counted(row));
        }
        self.held = held;
    }

    /// Rows among members of no limits, of which only the primaries are asked for: nothing is counted.
    pub(super) fn of_rows(members: usize, held: Holdings) -> Self {
        let seats = vec![Seat::new(0, 0); members];
        Self { seats, held, tally: Tally::unknown(), ..Self::default() }
    }

    /// Gives away who holds what, which is not known until somebody says so again.
    pub(super) fn release(&mut self) -> Holdings {
        self.tally = Tally::unknown();
        std::mem::take(&mut self.held)
    }

    /// That, counted.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What an item is like, as far as who holds it is counted.
    pub(super) fn kind(&self, item: usize) -> Kind {
        (self.replication[item], self.zone_set.get(item).copied().unwrap_or(0))
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

/// A row as it is counted.
fn counted(row: &[Holder]) -> impl Iterator<Item = Held> + Clone {
    row.iter().map(|holder| Held {
        member: holder.member(),
        is_primary: holder.is_primary(),
        is_consistent: holder.is_consistent(),
    })
}

/// So many rows are rewritten at once.
const PART: usize = 1 << 10;

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

/// Does something with a row; with one of three places, as most have, so that the compiler knows their
/// number, and loops over them ask nothing at each.
#[inline]
pub(super) fn unrolled<R>(row: &[Holder], act: impl Fn(&[Holder]) -> R) -> R {
    match row {
        [one, two, three] => act(&[*one, *two, *three]),
        row => act(row),
    }
}

/// What `of` says of any holder of a row, all together, and what it says of the primary; without a branch,
/// because nobody can guess who that is.
#[inline]
pub(super) fn said(row: &[Holder], of: impl Fn(u32) -> u8) -> (u8, u8) {
    row.iter().fold((0, 0), |(any, crowned), holder| {
        let said = of(holder.member());
        (any | said, crowned | if holder.is_primary() { said } else { 0 })
    })
}

/// The places of a row that suit, of the first 64, each a bit: all are found before anything is done with
/// one, because nobody can guess where they are.
#[inline]
pub(super) fn places(row: &[Holder], suits: impl Fn(Holder) -> bool) -> u64 {
    unrolled(row, |row| {
        let places = row.iter().take(64).zip(0..);
        places.fold(0, |all, (holder, at)| all | u64::from(suits(*holder)) << at)
    })
}

/// The item's primary, among its holders; found without a branch, because nobody can guess where it is.
#[inline]
pub(super) fn primary(holders: &[Holder]) -> Option<Holder> {
    let most =
        unrolled(holders, |holders| holders.iter().fold(0, |most, holder| holder.0.max(most)));
    (most & Holder::PRIMARY != 0).then_some(Holder(most))
}

/// Whether it is seen at once that all in a row held the item before, each in its place.
#[inline]
pub(super) fn stays(row: &[Holder], held: &[Holder]) -> bool {
    let stays = |(holder, before): (&Holder, &Holder)| holder.after(*before).0;
    let all = |row: &[Holder], held: &[Holder]| {
        row.iter().zip(held).map(stays).fold(1, |all, one| all & one) != 0
    };
    match (<&[_; 3]>::try_from(row), <&[_; 3]>::try_from(held)) {
        (Ok(row), Ok(held)) => all(row, held),
        _ => row.len() <= held.len() && all(row, held),
    }
}

/// Whether a member is among the holders.
pub(super) fn holds(holders: &[Holder], member: u32) -> bool {
    unrolled(holders, |holders| {
        holders.iter().fold(false, |any, holder| any | (holder.member() == member))
    })
}

/// A count as the solver counts.
pub(super) fn index(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
