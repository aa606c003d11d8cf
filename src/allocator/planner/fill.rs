//! The plan by counting: what stands is kept, what is too much goes, what is missing is filled in.
//!
//! This is the method for large problems. It reads all assignments once or twice and touches only what
//! changes. [`fair`](super::fair) and [`quota`](super::quota) have said how much goes where; here every
//! replica gets its member:
//!
//! 1. each item [keeps](super::keep) what it may, up to what it wants and what the zone rule allows;
//! 2. where it had a choice, what is given up is [shifted](super::surplus) to members that have too much;
//! 3. what is missing goes to the members that lack most, in the zones that the item's class lacks most;
//! 4. members above their target [give](super::give) items to those below, in the same zone where that is
//!    possible;
//! 5. what is left over takes a [detour](super::detour): somebody else's replica makes room.
//!
//! A detour costs one new assignment more than the lower bound if the replica that makes room stood
//! before; one that is new itself is asked first.

use super::{
    bits::Bits,
    crown::Crown,
    draft::Draft,
    fair::Fair,
    holder::{Holder, holds},
    keep::Keeper,
    kinds::{NOWHERE, narrow},
    openings::Openings,
    problem::Problem,
    quota::{bound_within, quota, second_quota, windows},
    surplus::shift_surplus,
    survey::{Cells, Standing},
};

/// A place that nobody was found for yet.
pub(super) const VACANT: Holder = Holder::VACANT;

/// The desired assignments by counting, and what is known about them.
pub(super) struct Filled<D> {
    /// Primaries are those that were it before and still hold the item; where there was a place to be
    /// filled, there is one.
    pub draft: D,
    /// The items that are not as they were, each at least once.
    pub touched: Vec<u32>,
    /// The first so many of them are in order, and each is there once.
    pub ordered: usize,
    /// By member, the items that it holds, and those of them whose primary it is.
    pub loads: Vec<u32>,
    pub primaries: Vec<u32>,
    /// Items that somebody holds.
    pub held: u64,
    pub lower_bound: u64,
}

/// See the [module](self). `standing` and `unsound` come from a [survey](super::survey).
pub(super) fn fill<D: Draft>(
    problem: &Problem,
    fair: &Fair,
    cells: &Cells,
    standing: Standing,
    unsound: Vec<u32>,
    mut draft: D,
) -> Filled<D> {
    let windows = windows(problem, fair);
    let first = quota(fair, cells, &windows, &standing);
    let before = standing.clone();
    let mut keeper = Keeper::new(problem, fair, cells, &windows, standing, &first);
    let unsound = keeper.begin(&mut draft, unsound);
    if keeper.chose {
        shift_surplus(&mut keeper, &mut draft, &unsound);
    }
    let (mut lower_bound, mut targets) = (first.lower_bound, Vec::new());
    if fair.beyond == 0 && keeper.excess.iter().any(|excess| *excess > 0) {
        lower_bound =
            lower_bound.max(bound_within(fair, cells, &windows, &before, &first, &keeper.excess));
    }
    if keeper.chose || keeper.vacancies() > 0 {
        let again =
            |standing| second_quota(fair, cells, &windows, standing, &first, &keeper.vacant);
        let second = again(&keeper.standing);
        if fair.beyond == 0 && !fair.short {
            let bound = if keeper.chose { again(&before).lower_bound } else { second.lower_bound };
            lower_bound = lower_bound.max(bound);
        }
        keeper.aim(&second);
        targets = second.targets;
    }
    if targets.is_empty() {
        targets = first.targets;
    }
    let mut fill = Fill::new(keeper, draft, unsound, targets);
    fill.shift();
    fill.recall();
    fill.openings.open(&fill.primaries);
    fill.fill_in();
    fill.give();
    fill.detours();
    fill.finish(lower_bound)
}

pub(super) struct Fill<'a, D> {
    pub(super) problem: &'a Problem,
    pub(super) fair: &'a Fair,
    pub(super) draft: D,
    pub(super) openings: Openings<'a>,
    pub(super) targets: Vec<i64>,
    pub(super) crown: Crown,
    pub(super) primaries: Vec<u32>,
    /// Whether an item was given up by somebody who might have kept it.
    pub(super) given_up: bool,
    /// The items that somebody comes to who does not hold them yet; known once members [give](super::give).
    pub(super) moving: Bits,
    /// Whether some of what stands is not consistent.
    pub(super) raw: bool,
    /// Items with vacant places.
    pub(super) vacant: Vec<u32>,
    pub(super) touched: Vec<u32>,
    /// The first so many of them are in order.
    ordered: usize,
    /// How often items were offered.
    pub(super) turn: u64,
    /// By class, how many items nobody holds.
    empty: Vec<i64>,
    /// Whether a place stays vacant.
    pub(super) stuck: bool,
}

impl<'a, D: Draft> Fill<'a, D> {
    fn new(keeper: Keeper<'a>, draft: D, unsound: Vec<u32>, targets: Vec<i64>) -> Self {
        let Keeper { problem, fair, standing, need, spare, each_beyond, chose, .. } = keeper;
        let loads = standing.of_member.iter();
        let room = targets.iter().zip(loads).map(|(target, load)| target - i64::from(*load));
        Self {
            problem,
            fair,
            openings: Openings::new(fair, room.collect(), &need, spare, each_beyond),
            targets,
            crown: Crown::new(problem),
            primaries: standing.primaries,
            given_up: chose,
            moving: Bits::default(),
            raw: standing.raw > 0,
            vacant: keeper.vacant_items,
            empty: keeper.vacant.empty,
            ordered: unsound.len(),
            touched: unsound,
            turn: 0,
            stuck: false,
            draft,
        }
    }

    pub(super) fn class(&self, item: usize) -> usize {
        self.fair.classes.of(self.problem, item)
    }

    /// By member, its target beyond its load.
    pub(super) fn room(&self, member: u32) -> i64 {
        self.openings.room[member as usize]
    }

    pub(super) fn zone(&self, member: u32) -> usize {
        self.fair.zones.of_member[member as usize] as usize
    }

    /// Takes replicas of classes out of zones that others of their replicas should leave room in,
    /// where members above their target, who give anyway, are not enough for that.
    fn shift(&mut self) {
        let mut excess = vec![0; self.fair.zones.len()];
        for class in 0..self.fair.classes.list.len() {
            for (zone, excess) in excess.iter_mut().enumerate() {
                *excess += (-self.openings.need(class, zone)).max(0);
            }
        }
        for (room, zone) in self.openings.room.iter().zip(&*self.fair.zones.of_member) {
            if let Some(excess) = excess.get_mut(*zone as usize) {
                *excess -= (-room).max(0);
            }
        }
        let mut left: i64 = excess.iter().map(|excess| *excess.max(&0)).sum();
        for item in 0..self.draft.len() {
            if left <= 0 {
                return;
            }
            let class = self.class(item);
            for at in 0..self.draft.of(item).len() {
                let holder = self.draft.of(item)[at];
                if holder == VACANT {
                    continue;
                }
                let zone = self.zone(holder.member());
                if excess[zone] > 0
                    && self.openings.need(class, zone) < 0
                    && self.room(holder.member()) >= 0
                    && self.may_leave(item, class, zone)
                {
                    excess[zone] -= 1;
                    left -= 1;
                    self.openings.left(class, zone);
                    self.leave(holder);
                    self.given_up = true;
                    self.draft.of_mut(item)[at] = VACANT;
                    self.vacant.push(narrow(item));
                    self.touched.push(narrow(item));
                }
            }
        }
    }

    /// Whether a replica of `item` has a zone to go to that its class needs more.
    fn may_leave(&self, item: usize, class: usize, from: usize) -> bool {
        let row = self.draft.of(item);
        // What is vacant already may go to the same zone.
        let vacant = row.iter().filter(|holder| **holder == VACANT).count();
        (0..self.fair.zones.len()).any(|zone| {
            zone != from
                && self.fair.is_open(class, zone)
                && self.openings.need(class, zone) > 0
                && self.openings.count_in(row, zone) + vacant < self.fair.caps[class]
        })
    }

    /// Gives vacant places to whom the last plan gave them, so that two plans in a row, with nothing
    /// but their own steps between, want the same.
    fn recall(&mut self) {
        for at in 0..self.vacant.len() {
            let item = self.vacant[at] as usize;
            let class = self.class(item);
            for wish in 0..self.draft.wish(item).len() {
                let member = self.draft.wish(item)[wish].member();
                let row = self.draft.of(item);
                let zone = self.fair.zones.of_member[member as usize];
                if zone == NOWHERE || self.room(member) <= 0 || holds(row, member) {
                    continue;
                }
                let zone = zone as usize;
                let Some(place) = row.iter().position(|holder| *holder == VACANT) else { break };
                if self.openings.fits(class, row, zone, None) {
                    self.openings.settle(class, row, zone, None);
                    self.openings.room[member as usize] -= 1;
                    self.arrive(item, place, member);
                }
            }
        }
    }

    /// Where little changes, those who lack most come to items that lost their primary before they come to
    /// others: who lacks a primary too gets it there, and nobody has to hand one over.
    fn crownless_first(&mut self) {
        if self.vacant.len() <= self.targets.len() {
            let crowned = |holder: &Holder| *holder != VACANT && holder.is_primary();
            let draft = &self.draft;
            self.vacant.sort_by_key(|item| draft.of(*item as usize).iter().any(crowned));
        }
    }

    /// Step 3.
    fn fill_in(&mut self) {
        self.crownless_first();
        self.openings.lay_out(&self.empty);
        let mut vacant = std::mem::take(&mut self.vacant);
        if self.draft.lists().are_any() {
            vacant.retain(|item| !self.fill_listed(*item as usize));
        } else if self.given_up {
            vacant.retain(|item| !self.fill_item(*item as usize));
        } else {
            self.fill_new(&mut vacant);
        }
        self.vacant = vacant;
        self.openings.count_in_columns();
    }

    /// Fills the vacant places of items, whose new members held none of theirs before. Leaves those that keep
    /// some vacant.
    fn fill_new(&mut self, vacant: &mut Vec<u32>) {
        let Self { problem, fair, draft, openings, crown, primaries, .. } = self;
        let class = |item: usize| fair.classes.of(problem, item);
        match draft.new_threes() {
            // Of rows of three of one class, as most are, the compiler is to know that.
            Some(rows) if fair.classes.list.len() == 1 => {
                openings.fill_all(|_| 0, vacant, rows, |row| crown.choose(row, primaries));
            }
            _ => openings.fill_all(class, vacant, draft, |row| crown.choose(row, primaries)),
        }
    }

    /// Fills the vacant places of an item. False: some stay vacant.
    fn fill_item(&mut self, item: usize) -> bool {
        let class = self.class(item);
        let Self { draft, openings, crown, primaries, given_up, .. } = self;
        let (held, row) = draft.both(item);
        let held = if *given_up { held } else { &[] };
        fill_row(openings, crown, primaries, class, held, row)
    }

    /// The same, and writes down who came.
    fn fill_listed(&mut self, item: usize) -> bool {
        let before = self.draft.of(item).to_vec();
        let filled = self.fill_item(item);
        for (before, now) in before.iter().zip(self.draft.of(item).to_vec()) {
            if *before == VACANT && now != VACANT {
                self.draft.came(item, now.member());
            }
        }
        filled
    }

    /// Gives a place of an item to a member whose room is counted already.
    pub(super) fn arrive(&mut self, item: usize, at: usize, member: u32) {
        let (held, row) = self.draft.both(item);
        place(held, row, at, member, &mut self.primaries);
        self.draft.came(item, member);
    }

    /// Counts that a replica leaves its member.
    pub(super) fn leave(&mut self, holder: Holder) {
        self.openings.room[holder.member() as usize] += 1;
        self.primaries[holder.member() as usize] -= u32::from(holder.is_primary());
    }

    /// How many items a member is to hold.
    pub(super) fn load(&self, member: usize) -> u32 {
        u32::try_from(self.targets[member] - self.openings.room[member]).unwrap_or(0)
    }

    fn finish(mut self, lower_bound: u64) -> Filled<D> {
        if self.stuck {
            self.draft.close();
        }
        let loads = (0..self.targets.len()).map(|member| self.load(member)).collect();
        let held = if self.fair.short || self.stuck {
            (0..self.draft.len()).filter(|item| !self.draft.of(*item).is_empty()).count()
        } else {
            // Who wants something has it.
            let classes = self.fair.classes.list.iter().filter(|(class, _)| class.wanted > 0);
            usize::try_from(classes.map(|(_, items)| items).sum::<i64>()).unwrap_or(0)
        };
        let Self { draft, touched, ordered, primaries, .. } = self;
        Filled { draft, touched, ordered, loads, primaries, held: held as u64, lower_bound }
    }
}

#[inline]
fn fill_row(
    openings: &mut Openings<'_>,
    crown: &Crown,
    primaries: &mut [u32],
    class: usize,
    held: &[Holder],
    row: &mut [Holder],
) -> bool {
    let filled = openings.fill(class, row, |member| {
        let holder = as_before(held, member);
        if holder.is_primary() {
            primaries[member as usize] += 1;
        }
        holder
    });
    crown.choose(row, primaries);
    filled
}

/// Writes a member into a place of a row.
#[inline]
pub(super) fn place(
    held: &[Holder],
    row: &mut [Holder],
    at: usize,
    member: u32,
    primaries: &mut [u32],
) {
    row[at] = as_before(held, member);
    if row[at].is_primary() {
        // Somebody may have become it meanwhile.
        let others = row.iter_mut().enumerate().filter(|(place, _)| *place != at);
        for (_, other) in others.filter(|(_, other)| **other != VACANT && other.is_primary()) {
            *other = other.replica();
            primaries[other.member() as usize] -= 1;
        }
        primaries[member as usize] += 1;
    }
}

/// A member that comes to an item is what it was if it held the item before.
#[inline]
fn as_before(held: &[Holder], member: u32) -> Holder {
    held.iter().copied().find(|held| held.member() == member).unwrap_or(Holder::new(member))
}
