//! The planner's problem with numbers for names: members, items, and who holds what now.
//!
//! It is as small as it can be, about 20 bytes an item of three replicas, because a plan reads all
//! of it. Members, zones and items are numbered from zero in the order in which they are added;
//! whoever wants the same plan from the same world adds them in the same order.

use std::collections::BTreeMap;

use super::{
    around::Around,
    flow::index,
    holder::{Holder, sanitised},
    holdings::Holdings,
    seat::{Seat, ZoneRule},
    tally::{Held, Kind, Tally},
};

/// The indexed problem: members and items by number, and who holds what now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    pub(super) zone_rule: ZoneRule,
    /// The rules of what zones lie in.
    pub(super) around: Around,
    /// Whether no rule may be broken.
    pub(super) required: bool,
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

    /// Requires the zone rule, and those of what zones lie in: a replica that no zone may take by them is rather not
    /// placed. Otherwise it is, and counted.
    pub fn require_zones(&mut self, required: bool) {
        self.required = required;
    }

    /// Adds a rule of what zones lie in, inside all that were added before: first that of regions, then that of rooms
    /// in a region. What a zone lies in says [`Problem::place_zone`].
    pub fn add_level(&mut self, rule: ZoneRule) {
        self.around.rules.push(rule);
    }

    /// Says what a zone lies in: for each level that was added a number, the first of the outermost. What has the
    /// same number within the same thing is the same. A zone of which nothing is said lies in things of its own.
    pub fn place_zone(&mut self, zone: u32, lies_in: &[u32]) {
        self.around.place(zone, lies_in);
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
        self.set_zone_set(item, number);
    }

    /// The same, where the number of the set is known.
    pub(super) fn set_zone_set(&mut self, item: usize, number: u32) {
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
    pub(super) fn set_number(&mut self, zones: &[u32]) -> u32 {
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

    /// The rules of what zones lie in, the outermost first.
    pub fn levels(&self) -> &[ZoneRule] {
        &self.around.rules
    }

    /// What a zone lies in, as [`Problem::place_zone`] was told.
    pub fn lies_in(&self, zone: u32) -> &[u32] {
        self.around.of_zone(zone)
    }

    /// Whether no rule may be broken.
    pub fn requires_zones(&self) -> bool {
        self.required
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
