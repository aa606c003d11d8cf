//! The plan by counting: what stands is kept, what is too much goes, what is missing is filled in.
//!
//! This is the method for large problems. It reads all assignments twice and touches only what
//! changes. [`fair`](super::fair) and [`quota`](super::quota) have said how much goes where; here every
//! replica gets its member:
//!
//! 1. each item keeps what it may, up to what it wants and what the zone rule allows;
//! 2. what is missing goes to the members that lack most, in the zones that the item's class lacks most;
//! 3. members above their target give items to those below, in the same zone where that is possible;
//! 4. what is left over takes a detour: somebody else's replica makes room.
//!
//! A detour costs one new assignment more than the lower bound if the replica that makes room stood
//! before; one that is new itself is asked first.

use super::{
    fair::{Class, Fair},
    problem::{Holder, Holdings, Problem, index},
    quota::{Quota, Standing, count, quota},
    takers::Takers,
};

/// A place that nobody was found for yet.
pub(super) const VACANT: Holder = Holder::VACANT;

/// The desired assignments by counting, and what is known about them.
pub(super) struct Filled {
    /// Primaries are those that were it before and still hold the item.
    pub desired: Holdings,
    /// The items that are not as they were, each at least once.
    pub touched: Vec<u32>,
    /// By member, the items that it holds, and those of them whose primary it is.
    pub loads: Vec<u32>,
    pub primaries: Vec<u32>,
    /// Items that nobody holds.
    pub empty: usize,
    pub lower_bound: u64,
}

/// See the [module](self).
pub(super) fn fill(problem: &Problem, fair: &Fair) -> Filled {
    let standing = count(problem, fair);
    let quota = quota(problem, fair, &standing);
    let mut lower_bound = quota.lower_bound;
    let mut fill = Fill::new(problem, fair, quota, standing);
    fill.keep_all();
    if fair.beyond == 0 && !fair.short {
        // Each item keeps as many as it may, so what is vacant now is new in any plan.
        lower_bound = lower_bound.max(fill.vacancies);
    }
    fill.shift();
    fill.open();
    fill.fill_in();
    fill.give();
    fill.detours();
    let stuck = fill.stuck;
    let Fill { desired, touched, loads, primaries, placed_of, .. } = fill;
    // Whether an item is empty depends on how many replicas its class gets.
    let few = fair.classes.list.iter().zip(&placed_of).any(|((_, items), placed)| placed < items);
    let empty =
        if few || stuck { desired.iter().filter(|held| held.is_empty()).count() } else { 0 };
    Filled { desired, touched, loads, primaries, empty, lower_bound }
}

pub(super) struct Fill<'a> {
    pub(super) problem: &'a Problem,
    pub(super) fair: &'a Fair,
    pub(super) desired: Holdings,
    /// By class, how many replicas of an item a zone takes; all, where there is no other zone.
    pub(super) caps: Vec<usize>,
    /// By member: its zone, or none for one that may hold nothing.
    pub(super) zone: Vec<u16>,
    pub(super) loads: Vec<u32>,
    pub(super) primaries: Vec<u32>,
    pub(super) targets: Vec<u32>,
    /// By member, what it lacks; valid from [`Fill::open`] on.
    pub(super) lacks: Vec<u32>,
    pub(super) takers: Vec<Takers>,
    /// By class and zone, how many replicas are still to come there.
    pub(super) need: Vec<i64>,
    /// By class, how many more replicas may stand beyond the zone rule.
    pub(super) beyond: Vec<i64>,
    /// By class, how many of them one item may have.
    pub(super) each_beyond: Vec<usize>,
    /// By class, how many replicas are placed.
    pub(super) placed_of: Vec<i64>,
    /// By class, how many items get one replica more than the others, where not all fit.
    pub(super) more: Vec<i64>,
    /// By member above its target, how many of its items are still to be written down in `givers`.
    pub(super) offers: Vec<u32>,
    pub(super) givers: Vec<u32>,
    pub(super) vacant: Vec<u32>,
    pub(super) vacancies: u64,
    pub(super) touched: Vec<u32>,
    /// Whether a place stays vacant.
    pub(super) stuck: bool,
    /// How many items are looked at for detours before that is given up.
    pub(super) patience: usize,
    /// Where the search for detours goes on, among the touched items and among all.
    pub(super) cursors: (usize, usize),
    /// How many touched items did not help in a row.
    pub(super) barren: usize,
}

/// Where a replica that is given may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To its own zone, or as the quota of its class says.
    Planned,
    /// To any zone.
    Any,
}

pub(super) const NOWHERE: u16 = u16::MAX;

impl<'a> Fill<'a> {
    fn new(problem: &'a Problem, fair: &'a Fair, quota: Quota, standing: Standing) -> Self {
        let zone = |seat: &super::problem::Seat| {
            if seat.limit == 0 { NOWHERE } else { u16::try_from(seat.zone).unwrap_or(NOWHERE) }
        };
        let excess = |(load, target): (&u32, &u32)| load.saturating_sub(*target);
        let offers = standing.of_member.iter().zip(&quota.targets).map(excess);
        // A few more than needed, because some are not wanted where there is room.
        let offers = offers.map(|excess| if excess == 0 { 0 } else { 2 * excess + 8 }).collect();
        let need = quota.of_class.iter().zip(&standing.of_class);
        let need = need.map(|(wanted, held)| wanted - i64::from(*held)).collect();
        let each = fair.classes.list.iter().zip(&quota.beyond);
        let each =
            each.map(|((_, items), beyond)| beyond.unsigned_abs().div_ceil(items.unsigned_abs()));
        let each_beyond = each.map(|each| usize::try_from(each).unwrap_or(usize::MAX)).collect();
        let more = fair.classes.list.iter().zip(&quota.placed_of);
        let more = more.map(|((_, items), placed)| placed % items.max(&1)).collect();
        Self {
            problem,
            fair,
            desired: Holdings::with_capacity(
                problem.held.len(),
                usize::try_from(fair.placed).unwrap_or(0),
            ),
            caps: caps(problem, fair),
            zone: problem.seats.iter().map(zone).collect(),
            loads: standing.of_member,
            primaries: standing.primaries,
            targets: quota.targets,
            lacks: Vec::new(),
            takers: Vec::new(),
            need,
            each_beyond,
            beyond: quota.beyond,
            more,
            placed_of: quota.placed_of,
            offers,
            givers: Vec::new(),
            vacant: Vec::new(),
            vacancies: 0,
            touched: Vec::new(),
            stuck: false,
            patience: 100_000 + 24 * problem.held.len(),
            cursors: (0, 0),
            barren: 0,
        }
    }

    /// How many replicas an item gets.
    fn goal(&mut self, item: usize, class: usize) -> usize {
        if !self.fair.short {
            return self.problem.wanted(item) as usize;
        }
        let items = self.fair.classes.list[class].1.max(1);
        let one_more = i64::from(self.more[class] > 0);
        self.more[class] -= one_more;
        usize::try_from(self.placed_of[class] / items + one_more).unwrap_or(0)
    }

    fn cap(&self, class: usize) -> usize {
        self.caps[class]
    }

    /// Step 1.
    fn keep_all(&mut self) {
        let problem = self.problem;
        let offering = self.offers.iter().any(|offers| *offers > 0);
        let mut kept = Vec::new();
        // Items that stay as they are, up to the one at hand, are copied together.
        let mut run = 0;
        for (item, held) in problem.held.iter().enumerate() {
            let class = self.fair.classes.of(item);
            let goal = self.goal(item, class);
            if held.len() == goal && self.is_sound(item, class, held) {
                if offering {
                    self.offer(item, held);
                }
                continue;
            }
            self.desired.copy(&problem.held, run..item);
            run = item + 1;
            self.keep(item, class, goal, &mut kept);
            if offering {
                self.offer(item, &kept);
            }
            if kept.len() < goal {
                self.vacant.push(number(item));
                self.vacancies += (goal - kept.len()) as u64;
                kept.resize(goal, VACANT);
            }
            self.desired.push(&kept);
            self.touched.push(number(item));
        }
        self.desired.copy(&problem.held, run..problem.held.len());
    }

    /// Writes an item down that a member above its target holds.
    fn offer(&mut self, item: usize, holders: &[Holder]) {
        let mut offered = false;
        for holder in holders {
            let offers = &mut self.offers[holder.member() as usize];
            offered |= *offers > 0;
            *offers = offers.saturating_sub(1);
        }
        if offered {
            self.givers.push(number(item));
        }
    }

    /// Whether all holders may stay, as far as limits above zero and zones are concerned.
    fn is_sound(&self, item: usize, class: usize, held: &[Holder]) -> bool {
        let zone = |holder: &Holder| self.zone[holder.member() as usize];
        if held.iter().any(|holder| zone(holder) == NOWHERE) {
            return false;
        }
        let problem = self.problem;
        if !problem.zone_set.is_empty()
            && !held.iter().all(|holder| problem.allows(item, u32::from(zone(holder))))
        {
            return false;
        }
        let cap = self.cap(class);
        if cap >= held.len() {
            return true;
        }
        if cap + 1 == held.len() {
            return held.iter().any(|holder| zone(holder) != zone(&held[0]));
        }
        held.iter()
            .all(|holder| held.iter().filter(|other| zone(other) == zone(holder)).count() <= cap)
    }

    /// Chooses what an item keeps of what it has.
    fn keep(&mut self, item: usize, class: usize, goal: usize, kept: &mut Vec<Holder>) {
        let problem = self.problem;
        kept.clear();
        let legal = problem.held.of(item).iter().filter(|holder| problem.legal(item, **holder));
        kept.extend(legal);
        let cap = self.cap(class);
        let mut used = 0;
        for zone in 0..problem.zones {
            let there = |fill: &Self, kept: &[Holder]| {
                kept.iter().filter(|holder| fill.is_in(**holder, zone)).count()
            };
            while there(self, kept) > cap {
                let excess = index(there(self, kept) - cap);
                let beyond = &mut self.beyond[class];
                let each = index(self.each_beyond[class]) - used;
                if excess <= each.min(*beyond) && kept.len() <= goal {
                    used += excess;
                    *beyond -= excess;
                    break;
                }
                self.drop_worst(class, kept, |fill, holder| fill.is_in(holder, zone));
            }
        }
        while kept.len() > goal {
            self.drop_worst(class, kept, |_, _| true);
        }
    }

    fn is_in(&self, holder: Holder, zone: usize) -> bool {
        usize::from(self.zone[holder.member() as usize]) == zone
    }

    /// Drops the replica whose member is most above its target; then rather one that is not
    /// consistent, and no primary.
    fn drop_worst(
        &mut self,
        class: usize,
        kept: &mut Vec<Holder>,
        candidate: impl Fn(&Self, Holder) -> bool,
    ) {
        let worst = (0..kept.len()).filter(|at| candidate(self, kept[*at])).max_by_key(|at| {
            let (member, holder) = (kept[*at].member() as usize, kept[*at]);
            let above = i64::from(self.loads[member]) - i64::from(self.targets[member]);
            (above.signum(), !holder.is_consistent(), !holder.is_primary(), above)
        });
        let Some(worst) = worst else { return };
        let holder = kept.remove(worst);
        let member = holder.member() as usize;
        self.leave(holder);
        self.need[class * self.problem.zones + usize::from(self.zone[member])] += 1;
    }

    /// Takes replicas of classes out of zones that others of their replicas should leave room in,
    /// where members above their target, who give anyway, are not enough for that.
    fn shift(&mut self) {
        let zones = self.problem.zones;
        let mut excess = vec![0; zones];
        for (need, zone) in self.need.iter().zip((0..zones).cycle()) {
            excess[zone] += (-need).max(0);
        }
        for ((load, target), zone) in self.loads.iter().zip(&self.targets).zip(&self.zone) {
            if let Some(excess) = excess.get_mut(usize::from(*zone)) {
                *excess -= i64::from(load.saturating_sub(*target));
            }
        }
        let mut left: i64 = excess.iter().map(|excess| *excess.max(&0)).sum();
        for item in 0..self.desired.len() {
            if left <= 0 {
                return;
            }
            let row = self.fair.classes.of(item) * zones;
            for at in 0..self.desired.of(item).len() {
                let holder = self.desired.of(item)[at];
                if holder == VACANT {
                    continue;
                }
                let member = holder.member() as usize;
                let zone = usize::from(self.zone[member]);
                let gives = self.loads[member] > self.targets[member];
                if excess[zone] > 0
                    && self.need[row + zone] < 0
                    && !gives
                    && self.may_leave(item, zone)
                {
                    excess[zone] -= 1;
                    left -= 1;
                    self.need[row + zone] += 1;
                    self.leave(holder);
                    self.desired.of_mut(item)[at] = VACANT;
                    self.vacant.push(number(item));
                    self.touched.push(number(item));
                }
            }
        }
    }

    /// Whether a replica of `item` has a zone to go to that its class needs more.
    fn may_leave(&self, item: usize, from: usize) -> bool {
        let class = self.fair.classes.of(item);
        let row = class * self.problem.zones;
        // What is vacant already may go to the same zone.
        let vacant = self.desired.of(item).iter().filter(|holder| **holder == VACANT).count();
        (0..self.problem.zones).any(|zone| {
            let room = self.in_zone(item, zone) + vacant < self.cap(class);
            zone != from
                && self.need[row + zone] > 0
                && room
                && self.problem.allows(item, number(zone))
        })
    }

    /// Lets those who lack something be taken.
    fn open(&mut self) {
        let lack = |(load, target): (&u32, &u32)| target.saturating_sub(*load);
        self.lacks = self.loads.iter().zip(&self.targets).map(lack).collect();
        let mut members = vec![Vec::new(); self.problem.zones];
        for (member, zone) in (0..).zip(&self.zone) {
            if let Some(members) = members.get_mut(usize::from(*zone)) {
                members.push(member);
            }
        }
        self.takers =
            members.into_iter().map(|members| Takers::new(members, &self.lacks)).collect();
    }

    /// Step 2.
    fn fill_in(&mut self) {
        let mut in_zone = vec![0; self.problem.zones];
        for item in std::mem::take(&mut self.vacant) {
            for holder in self.desired.of(item as usize).iter().filter(|holder| **holder != VACANT)
            {
                in_zone[usize::from(self.zone[holder.member() as usize])] += 1;
            }
            for at in 0..self.desired.of(item as usize).len() {
                if self.desired.of(item as usize)[at] == VACANT
                    && !self.fill_place(item as usize, at, &mut in_zone)
                {
                    self.vacant.push(item);
                    break;
                }
            }
            in_zone.fill(0);
        }
    }

    /// Finds a member for a place of `item`, of which so many replicas are in each zone. False: there
    /// is none.
    fn fill_place(&mut self, item: usize, at: usize, in_zone: &mut [usize]) -> bool {
        let problem = self.problem;
        let class = self.fair.classes.of(item);
        let row = class * problem.zones;
        let cap = self.cap(class);
        let mut below = (true, i64::MAX, usize::MAX);
        let used: usize = in_zone.iter().map(|there| there.saturating_sub(cap)).sum();
        loop {
            // Of those that were not tried: the zone needed most, within the rule before beyond it.
            let mut best: Option<(bool, i64, usize)> = None;
            for (zone, there) in in_zone.iter().enumerate() {
                let rank = (*there < cap, self.need[row + zone], zone);
                if rank < below
                    && best.is_none_or(|best| rank > best)
                    && !self.takers[zone].is_empty()
                    && (*there < cap || self.beyond[class] > 0 && used < self.each_beyond[class])
                    && problem.allows(item, number(zone))
                {
                    best = Some(rank);
                }
            }
            let Some(rank) = best else { return false };
            below = rank;
            let zone = rank.2;
            let seed = item as u64 ^ ((zone as u64) << 40);
            let held = self.desired.of(item);
            if let Some(member) = self.takers[zone].take(&mut self.lacks, seed, held) {
                self.beyond[class] -= i64::from(in_zone[zone] >= cap);
                self.need[row + zone] -= 1;
                in_zone[zone] += 1;
                self.arrive(item, at, member);
                return true;
            }
        }
    }

    /// Finds a member that lacks something and may take `item` in place of `giver`, and counts it as
    /// taken; the giver's zone is preferred, then the zone that is needed most.
    fn taker(&mut self, item: usize, giver: u32, way: Way) -> Option<u32> {
        let class = self.fair.classes.of(item);
        let row = class * self.problem.zones;
        let from = Some(usize::from(self.zone[giver as usize]));
        // A class that has too many in the giver's zone wants out of it.
        let stay = from.filter(|from| self.need[row + from] >= 0);
        let mut tried = [false; 64];
        for _ in 0..self.problem.zones.min(64) {
            let open = (0..self.problem.zones)
                .filter(|zone| !tried.get(*zone).copied().unwrap_or(true))
                .filter(|zone| !self.takers[*zone].is_empty());
            let zone = open.max_by_key(|zone| (Some(*zone) == stay, self.need[row + zone]))?;
            tried[zone] = true;
            let planned = self.need[row + zone] > 0 && stay.is_none();
            if way == Way::Planned && from != Some(zone) && !planned
                || !self.fits(item, class, zone, from)
            {
                continue;
            }
            let seed = item as u64 ^ ((zone as u64) << 40);
            let held = self.desired.of(item);
            let found = self.takers[zone].take(&mut self.lacks, seed, held);
            if let Some(member) = found {
                self.settle(item, class, zone, from);
                return Some(member);
            }
        }
        None
    }

    /// Whether one more replica of `item` may go to `zone`, after one left `from`.
    pub(super) fn fits(&self, item: usize, class: usize, zone: usize, from: Option<usize>) -> bool {
        let allowed = u32::try_from(zone).is_ok_and(|zone| self.problem.allows(item, zone));
        allowed
            && (from == Some(zone)
                || self.in_zone(item, zone) < self.cap(class)
                || self.beyond[class] > 0 && self.used_beyond(item, from) < self.each_beyond[class])
    }

    /// How many replicas of `item` stand beyond the zone rule, after one left `from`.
    fn used_beyond(&self, item: usize, from: Option<usize>) -> usize {
        let cap = self.cap(self.fair.classes.of(item));
        let there = |zone| self.in_zone(item, zone) - usize::from(from == Some(zone));
        (0..self.problem.zones).map(|zone| there(zone).saturating_sub(cap)).sum()
    }

    fn in_zone(&self, item: usize, zone: usize) -> usize {
        let held = self.desired.of(item).iter();
        held.filter(|holder| **holder != VACANT && self.is_in(**holder, zone)).count()
    }

    /// Writes down that a replica of `item`, not yet in its list, comes to a zone from another one.
    pub(super) fn settle(&mut self, item: usize, class: usize, zone: usize, from: Option<usize>) {
        if from == Some(zone) {
            return;
        }
        let row = class * self.problem.zones;
        let cap = self.cap(class);
        if self.in_zone(item, zone) >= cap {
            self.beyond[class] -= 1;
        }
        self.need[row + zone] -= 1;
        if let Some(from) = from {
            if self.in_zone(item, from) > cap {
                self.beyond[class] += 1;
            }
            self.need[row + from] += 1;
        }
    }

    /// Step 3, first with the items that were written down, then with all; and first only between the
    /// zones that the quota of the class says.
    fn give(&mut self) {
        let givers = std::mem::take(&mut self.givers);
        for way in [Way::Planned, Way::Any] {
            for item in &givers {
                self.give_item(*item as usize, way);
            }
            let above = self.loads.iter().zip(&self.targets).any(|(load, target)| load > target);
            if !above || self.takers.iter().all(Takers::is_empty) {
                return;
            }
            for item in 0..self.desired.len() {
                self.give_item(item, way);
            }
        }
    }

    fn give_item(&mut self, item: usize, way: Way) {
        for at in 0..self.desired.of(item).len() {
            let holder = self.desired.of(item)[at];
            if holder == VACANT {
                continue;
            }
            let member = holder.member() as usize;
            if self.loads[member] <= self.targets[member] {
                continue;
            }
            if let Some(taker) = self.taker(item, holder.member(), way) {
                self.arrive(item, at, taker);
                self.touched.push(number(item));
            }
        }
    }

    /// Gives a place of an item to a member, which is again what it was if it held the item before.
    pub(super) fn arrive(&mut self, item: usize, at: usize, member: u32) {
        self.leave(self.desired.of(item)[at]);
        let before =
            self.problem.held.of(item).iter().copied().find(|held| held.member() == member);
        let holder = before.unwrap_or(Holder::new(member));
        self.loads[member as usize] += 1;
        self.primaries[member as usize] += u32::from(holder.is_primary());
        self.desired.of_mut(item)[at] = holder;
    }

    pub(super) fn leave(&mut self, holder: Holder) {
        if holder != VACANT {
            self.loads[holder.member() as usize] -= 1;
            self.primaries[holder.member() as usize] -= u32::from(holder.is_primary());
        }
    }
}

fn caps(problem: &Problem, fair: &Fair) -> Vec<usize> {
    let mut open = vec![false; problem.zones];
    for ((zone, ..), _) in &fair.groups.list {
        open[*zone as usize] = true;
    }
    let cap = |class: &(Class, i64)| {
        let zones = (0..problem.zones).filter(|zone| open[*zone]);
        let zones = zones.filter(|zone| problem.set_allows(class.0.set, *zone)).count();
        let cap = problem.zone_rule.cap(class.0.wanted);
        if zones > 1 { cap as usize } else { cap.max(class.0.wanted) as usize }
    };
    fair.classes.list.iter().map(cap).collect()
}

pub(super) fn number(item: usize) -> u32 {
    u32::try_from(item).unwrap_or(u32::MAX)
}
