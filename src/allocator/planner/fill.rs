//! The plan by counting: what stands is kept, what is too much goes, what is missing is filled in.
//!
//! This is the method for large problems. It reads all assignments once or twice and touches only what
//! changes. [`fair`](super::fair) and [`quota`](super::quota) have said how much goes where; here every
//! replica gets its member:
//!
//! 1. each item [keeps](super::keep) what it may, up to what it wants and what the zone rule allows;
//! 2. where it had a choice, what is given up is [shifted](super::surplus) to members that have too much;
//! 3. what is missing goes to the members that lack most, in the zones that the item's class lacks most;
//! 4. members above their target give items to those below, in the same zone where that is possible;
//! 5. what is left over takes a [detour](super::detour): somebody else's replica makes room.
//!
//! A detour costs one new assignment more than the lower bound if the replica that makes room stood
//! before; one that is new itself is asked first.

use super::{
    crown::Crown,
    draft::Draft,
    fair::Fair,
    keep::Keeper,
    kinds::{NOWHERE, narrow},
    level::Share,
    openings::Openings,
    problem::{Holder, Problem, holds},
    quota::{quota, second_quota, windows},
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
    fill.openings.open();
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
    targets: Vec<i64>,
    crown: Crown,
    primaries: Vec<u32>,
    /// Whether some of what stands is not consistent.
    raw: bool,
    /// Items with vacant places.
    pub(super) vacant: Vec<u32>,
    pub(super) touched: Vec<u32>,
    /// How often items were offered.
    turn: u64,
    /// Whether a place stays vacant.
    pub(super) stuck: bool,
}

/// Who may give what to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Only replicas that are not consistent; else as planned.
    Raw,
    /// Only primaries, of members that have more than so many; else as planned.
    Primaries(i64),
    /// Only replicas that are no primaries, of members that have more of those too many than
    /// primaries beyond so many; else as planned.
    Others(i64),
    /// To the replica's own zone, or as the quota of its class says.
    Planned,
    /// To any zone.
    Any,
}

impl<'a, D: Draft> Fill<'a, D> {
    fn new(keeper: Keeper<'a>, draft: D, unsound: Vec<u32>, targets: Vec<i64>) -> Self {
        let Keeper { problem, fair, standing, need, spare, each_beyond, .. } = keeper;
        let loads = standing.of_member.iter();
        let room = targets.iter().zip(loads).map(|(target, load)| target - i64::from(*load));
        Self {
            problem,
            fair,
            openings: Openings::new(fair, room.collect(), &need, spare, each_beyond),
            targets,
            crown: Crown::new(problem),
            primaries: standing.primaries,
            raw: standing.raw > 0,
            vacant: keeper.vacant_items,
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

    fn zone(&self, member: u32) -> usize {
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
        for (room, zone) in self.openings.room.iter().zip(&self.fair.zones.of_member) {
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

    /// Step 3.
    fn fill_in(&mut self) {
        let mut came = Vec::new();
        for number in std::mem::take(&mut self.vacant) {
            let item = number as usize;
            let class = self.fair.classes.of(self.problem, item);
            let (held, row) = self.draft.both(item);
            let filled = self.openings.fill(class, row, |member| {
                let holder = as_before(held, member);
                self.primaries[member as usize] += u32::from(holder.is_primary());
                came.push(member);
                holder
            });
            self.crown.choose(row, &mut self.primaries);
            for member in came.drain(..) {
                self.draft.came(item, member);
            }
            if !filled {
                self.vacant.push(number);
            }
        }
    }

    /// Step 4: first with as few items as seem to be enough, each of which gives a single replica, then
    /// with all. What is not consistent goes before all else, and then primaries go to those who will
    /// want some, so that few have to be handed over afterwards.
    fn give(&mut self) {
        if self.openings.room.iter().all(|room| *room >= 0) {
            return;
        }
        let few = |excess: u32| excess.saturating_add(excess / 2 + 4);
        let all = |_: u32| u32::MAX;
        if self.raw {
            self.give_of(&[Way::Raw], all, |holder| !holder.is_consistent());
        }
        let share = Share::of(&self.targets, self.draft.len());
        let kept = self.keep_room(&share);
        let primaries = [Way::Primaries(share.high), Way::Primaries(share.low)];
        self.give_of(&primaries, few, Holder::is_primary);
        self.openings.room.iter_mut().zip(kept).for_each(|(room, kept)| *room += kept);
        self.openings.open();
        self.give_of(&[Way::Others(share.high)], few, |holder| !holder.is_primary());
        self.give_of(&[Way::Others(share.high), Way::Planned, Way::Any], all, |_| true);
    }

    /// Leaves those who lack something room for the primaries only that they will want. Returns, by
    /// member, what else there is room for.
    fn keep_room(&mut self, share: &Share) -> Vec<i64> {
        let mut kept = vec![0; self.targets.len()];
        let rooms = self.openings.room.iter_mut().enumerate();
        for (member, room) in rooms.filter(|(_, room)| **room > 0) {
            let wanted = share.low - i64::from(self.primaries[member]);
            kept[member] = *room - wanted.clamp(0, *room);
            *room -= kept[member];
        }
        self.openings.open();
        kept
    }

    /// Lets members above their target give replicas that suit, one way after the other. `ask` tells
    /// for how many too many how many replicas are asked for.
    fn give_of(&mut self, ways: &[Way], ask: impl Fn(u32) -> u32, suits: impl Fn(Holder) -> bool) {
        let mut asked = vec![0; self.targets.len()];
        let mut above = false;
        for (member, asked) in asked.iter_mut().enumerate() {
            let mut excess = -self.openings.room[member];
            if let Some(Way::Primaries(share)) = ways.last() {
                excess = excess.min(i64::from(self.primaries[member]) - share);
            }
            if excess > 0 {
                let excess = u32::try_from(excess).unwrap_or(u32::MAX);
                *asked = ask(excess).min(self.load(member));
                above = true;
            }
        }
        if !above || self.openings.is_empty() {
            return;
        }
        self.turn += 1;
        let all = ways.contains(&Way::Any);
        let places = self.draft.offers(&mut asked, self.turn, all, suits);
        for way in ways {
            for (item, at) in &places {
                self.give_place(*item as usize, *at as usize, *way);
            }
        }
    }

    fn give_place(&mut self, item: usize, at: usize, way: Way) {
        let row = self.draft.of(item);
        let holder = row[at];
        if holder == VACANT || self.room(holder.member()) >= 0 {
            return;
        }
        let excess = -self.room(holder.member());
        let primaries = i64::from(self.primaries[holder.member() as usize]);
        let suits = match way {
            Way::Raw => !holder.is_consistent(),
            Way::Primaries(share) => holder.is_primary() && primaries > share,
            Way::Others(share) => !holder.is_primary() && excess > primaries - share,
            Way::Planned | Way::Any => true,
        };
        // Where there is a choice, an item does not give two replicas at once.
        if !suits || !matches!(way, Way::Planned | Way::Any) && self.is_moving(item) {
            return;
        }
        let (class, from) = (self.class(item), self.zone(holder.member()));
        if let Some(taker) = self.openings.taker(class, row, from, way == Way::Any) {
            self.leave(holder);
            self.arrive(item, at, taker);
            self.touched.push(narrow(item));
        }
    }

    /// Whether somebody comes to an item who does not hold it yet.
    fn is_moving(&self, item: usize) -> bool {
        let (held, row) = (self.draft.held(item), self.draft.of(item));
        held != row && row.iter().any(|holder| *holder == VACANT || !holds(held, holder.member()))
    }

    /// Gives a place of an item to a member whose room is counted already.
    pub(super) fn arrive(&mut self, item: usize, at: usize, member: u32) {
        let (held, row) = self.draft.both(item);
        row[at] = as_before(held, member);
        if row[at].is_primary() {
            // Somebody may have become it meanwhile.
            let others = row.iter_mut().enumerate().filter(|(place, _)| *place != at);
            for (_, other) in others.filter(|(_, other)| **other != VACANT && other.is_primary()) {
                *other = other.replica();
                self.primaries[other.member() as usize] -= 1;
            }
            self.primaries[member as usize] += 1;
        }
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
        let Self { draft, touched, primaries, .. } = self;
        Filled { draft, touched, loads, primaries, held: held as u64, lower_bound }
    }
}

/// A member that comes to an item is what it was if it held the item before.
#[inline]
fn as_before(held: &[Holder], member: u32) -> Holder {
    held.iter().copied().find(|held| held.member() == member).unwrap_or(Holder::new(member))
}
