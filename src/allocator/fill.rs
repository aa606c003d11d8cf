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
    draft::Draft,
    fair::Fair,
    keep::Keeper,
    kinds::{NOWHERE, narrow},
    level::Share,
    problem::{Holder, Problem, holds, index},
    quota::{quota, windows},
    surplus::shift_surplus,
    survey::{Cells, Standing},
    takers::Takers,
    tournament::Tournament,
};

/// A place that nobody was found for yet.
pub(super) const VACANT: Holder = Holder::VACANT;

/// The desired assignments by counting, and what is known about them.
pub(super) struct Filled<D> {
    /// Primaries are those that were it before and still hold the item.
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
    let mut first = quota(fair, cells, &windows, &standing, None);
    let mut keeper = Keeper::new(problem, fair, cells, &windows, standing, &first);
    let (unsound, rows) = keeper.rows(&draft, unsound);
    draft.replace(&unsound, rows);
    if fair.beyond == 0 && !fair.short {
        // Each item keeps as many as it may, so what is vacant now is new in any plan.
        first.lower_bound = first.lower_bound.max(keeper.vacancies);
    }
    let mut targets = first.targets;
    if keeper.chose {
        first.targets = Vec::new();
        shift_surplus(&mut keeper, &mut draft, &unsound);
        let second = quota(fair, cells, &windows, &keeper.standing, Some(&first));
        keeper.aim(&second);
        targets = second.targets;
    }
    let mut fill = Fill::new(keeper, draft, unsound, targets);
    fill.shift();
    fill.recall();
    fill.open();
    fill.fill_in();
    fill.give();
    fill.detours();
    fill.finish(first.lower_bound)
}

pub(super) struct Fill<'a, D> {
    pub(super) problem: &'a Problem,
    pub(super) fair: &'a Fair,
    pub(super) draft: D,
    targets: Vec<i64>,
    /// By member, its target beyond its load; less than zero for one that has too much.
    pub(super) room: Vec<i64>,
    primaries: Vec<u32>,
    /// By zone, those who lack something; valid from [`Fill::open`] on.
    pub(super) takers: Vec<Takers>,
    /// By class, what its zones lack.
    pub(super) zones: Vec<Tournament>,
    /// By class, how many more replicas may stand beyond the zone rule.
    beyond: Vec<i64>,
    /// By class, how many of them one item may have.
    each_beyond: Vec<i64>,
    /// Whether some of what stands is not consistent.
    raw: bool,
    /// Places that are vacant, by item.
    pub(super) vacant: Vec<u32>,
    pub(super) touched: Vec<u32>,
    /// By zone, how many replicas the item at hand has there.
    in_zone: Vec<usize>,
    /// Zones that are out of the tournament of the class at hand, for the item at hand.
    hidden: Vec<usize>,
    /// Whether a place stays vacant.
    pub(super) stuck: bool,
    /// How many items are looked at for detours before that is given up.
    pub(super) patience: usize,
    /// Where the search for detours goes on, among the touched items and among all.
    pub(super) cursors: (usize, usize),
    /// How many touched items did not help in a row.
    pub(super) barren: usize,
}

/// Who may give what to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Only replicas that are not consistent; else as the next.
    Raw,
    /// Primaries and others, as many of each as the member has too many; else as the next.
    Modest,
    /// To the replica's own zone, or as the quota of its class says.
    Planned,
    /// To any zone.
    Any,
}

impl<'a, D: Draft> Fill<'a, D> {
    fn new(keeper: Keeper<'a>, draft: D, unsound: Vec<u32>, targets: Vec<i64>) -> Self {
        let Keeper { problem, fair, standing, need, beyond, each_beyond, vacancies, .. } = keeper;
        let loads = standing.of_member.iter();
        let room = targets.iter().zip(loads).map(|(target, load)| target - i64::from(*load));
        let zones = fair.zones.len();
        let tournament = |class: usize| {
            let open = (0..zones).map(|zone| fair.is_open(class, zone));
            Tournament::new(&need[class * zones..(class + 1) * zones], open)
        };
        let vacant = if vacancies == 0 {
            Vec::new()
        } else {
            let vacant = |item: &&u32| draft.of(**item as usize).contains(&VACANT);
            unsound.iter().filter(vacant).copied().collect()
        };
        Self {
            problem,
            fair,
            room: room.collect(),
            targets,
            primaries: standing.primaries,
            takers: Vec::new(),
            zones: (0..fair.classes.list.len()).map(tournament).collect(),
            beyond,
            each_beyond,
            raw: standing.raw > 0,
            vacant,
            touched: unsound,
            in_zone: vec![0; zones],
            hidden: Vec::new(),
            stuck: false,
            patience: 100_000 + 24 * draft.len(),
            cursors: (0, 0),
            barren: 0,
            draft,
        }
    }

    pub(super) fn class(&self, item: usize) -> usize {
        self.fair.classes.of(self.problem, item)
    }

    fn zone(&self, member: u32) -> usize {
        self.fair.zones.of_member[member as usize] as usize
    }

    /// Takes replicas of classes out of zones that others of their replicas should leave room in,
    /// where members above their target, who give anyway, are not enough for that.
    fn shift(&mut self) {
        let zones = self.fair.zones.len();
        let mut excess = vec![0; zones];
        for class in &self.zones {
            for (zone, excess) in excess.iter_mut().enumerate() {
                *excess += (-class.need(zone)).max(0);
            }
        }
        for (room, zone) in self.room.iter().zip(&self.fair.zones.of_member) {
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
                let gives = self.room[holder.member() as usize] < 0;
                if excess[zone] > 0
                    && self.zones[class].need(zone) < 0
                    && !gives
                    && self.may_leave(item, class, zone)
                {
                    excess[zone] -= 1;
                    left -= 1;
                    self.zones[class].change(zone, 1);
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
        // What is vacant already may go to the same zone.
        let vacant = self.draft.of(item).iter().filter(|holder| **holder == VACANT).count();
        (0..self.fair.zones.len()).any(|zone| {
            zone != from
                && self.fair.is_open(class, zone)
                && self.zones[class].need(zone) > 0
                && self.count_in(item, zone) + vacant < self.fair.caps[class]
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
                if zone == NOWHERE || self.room[member as usize] <= 0 || holds(row, member) {
                    continue;
                }
                let Some(place) = row.iter().position(|holder| *holder == VACANT) else { break };
                if self.fits(item, class, zone as usize, None) {
                    self.settle(item, class, zone as usize, None);
                    self.room[member as usize] -= 1;
                    self.arrive(item, place, member);
                }
            }
        }
    }

    /// Lets those who lack something be taken.
    fn open(&mut self) {
        let mut members = vec![Vec::new(); self.fair.zones.len()];
        for (member, zone) in (0..).zip(&self.fair.zones.of_member) {
            if let Some(members) = members.get_mut(*zone as usize) {
                members.push(member);
            }
        }
        self.takers = members.into_iter().map(|members| Takers::new(members, &self.room)).collect();
    }

    /// Step 3.
    fn fill_in(&mut self) {
        let mut row = Vec::new();
        for number in std::mem::take(&mut self.vacant) {
            let item = number as usize;
            let class = self.class(item);
            row.clear();
            row.extend_from_slice(self.draft.of(item));
            for holder in row.iter().filter(|holder| **holder != VACANT) {
                self.in_zone[self.fair.zones.of(*holder) as usize] += 1;
            }
            for at in 0..row.len() {
                if row[at] != VACANT {
                    continue;
                }
                let Some(member) = self.find(item, class, &row) else {
                    self.vacant.push(number);
                    break;
                };
                row[at] = self.arrival(item, member);
            }
            while let Some(zone) = self.hidden.pop() {
                self.zones[class].show(zone);
            }
            for holder in row.iter().filter(|holder| **holder != VACANT) {
                self.in_zone[self.fair.zones.of(*holder) as usize] = 0;
            }
            self.draft.of_mut(item).copy_from_slice(&row);
        }
    }

    /// Finds a member for a place of `item`, within the zone rule before beyond it, in the zone that
    /// is needed most.
    fn find(&mut self, item: usize, class: usize, row: &[Holder]) -> Option<u32> {
        let cap = self.fair.caps[class];
        while let Some(zone) = self.zones[class].best() {
            if self.takers[zone].is_empty() {
                self.zones[class].hide(zone);
                continue;
            }
            if self.in_zone[zone] < cap {
                if let Some(member) = self.take(item, zone, row) {
                    self.zones[class].change(zone, -1);
                    self.in_zone[zone] += 1;
                    return Some(member);
                }
            }
            self.zones[class].hide(zone);
            self.hidden.push(zone);
        }
        let used: usize = self.in_zone.iter().map(|there| there.saturating_sub(cap)).sum();
        if self.beyond[class] <= 0 || index(used) >= self.each_beyond[class] {
            return None;
        }
        let mut full: Vec<usize> = self.hidden.clone();
        full.retain(|zone| self.in_zone[*zone] >= cap);
        full.sort_by_key(|zone| std::cmp::Reverse(self.zones[class].need(*zone)));
        for zone in full {
            if let Some(member) = self.take(item, zone, row) {
                self.beyond[class] -= 1;
                self.zones[class].change(zone, -1);
                self.in_zone[zone] += 1;
                return Some(member);
            }
        }
        None
    }

    /// Takes a member of a zone that lacks something and does not hold the item yet.
    fn take(&mut self, item: usize, zone: usize, row: &[Holder]) -> Option<u32> {
        let seed = item as u64 ^ ((zone as u64) << 40);
        self.takers[zone].take(&mut self.room, seed, row)
    }

    /// Step 4: first with as few items as seem to be enough, then with all. What is not consistent
    /// goes before all else.
    fn give(&mut self) {
        let few = |excess: u32| excess.saturating_add(excess / 2 + 4);
        let all = |_: u32| u32::MAX;
        if self.raw {
            self.give_of(all, &[Way::Raw]);
        }
        self.give_of(few, &[Way::Modest, Way::Planned]);
        self.give_of(all, &[Way::Planned, Way::Any]);
    }

    fn give_of(&mut self, ask: impl Fn(u32) -> u32, ways: &[Way]) {
        let mut asked = vec![0; self.room.len()];
        let mut above = false;
        for (member, room) in self.room.iter().enumerate().filter(|(_, room)| **room < 0) {
            let excess = u32::try_from(-room).unwrap_or(u32::MAX);
            asked[member] = ask(excess).min(self.load(member));
            above = true;
        }
        if !above || self.takers.iter().all(Takers::is_empty) {
            return;
        }
        let items = self.draft.offers(&mut asked);
        let share = Share::of(&self.targets, self.draft.len());
        for way in ways {
            for item in &items {
                self.give_item(*item as usize, *way, &share);
            }
        }
    }

    fn give_item(&mut self, item: usize, way: Way, share: &Share) {
        for at in 0..self.draft.of(item).len() {
            let holder = self.draft.of(item)[at];
            if holder == VACANT {
                continue;
            }
            let member = holder.member() as usize;
            let excess = -self.room[member];
            if excess <= 0 {
                continue;
            }
            let primaries = i64::from(self.primaries[member]) - share.low;
            let suits = match way {
                Way::Raw => !holder.is_consistent(),
                Way::Modest if holder.is_primary() => primaries > 0,
                Way::Modest => excess > primaries,
                Way::Planned | Way::Any => true,
            };
            if !suits {
                continue;
            }
            if let Some(taker) = self.taker(item, holder.member(), way == Way::Any) {
                self.leave(holder);
                self.arrive(item, at, taker);
                self.touched.push(narrow(item));
            }
        }
    }

    /// Finds a member that lacks something and may take `item` in place of `giver`, and counts it as
    /// taken; the giver's zone is preferred, then the zone that is needed most.
    fn taker(&mut self, item: usize, giver: u32, any: bool) -> Option<u32> {
        let class = self.class(item);
        let from = self.zone(giver);
        // A class that has too many in the giver's zone wants out of it.
        let stays = self.zones[class].need(from) >= 0;
        let mut found = if stays { self.taker_in(item, class, from, from) } else { None };
        if found.is_none() && (any || !stays) {
            found = self.taker_elsewhere(item, class, from, any);
            if found.is_none() && !stays {
                found = self.taker_in(item, class, from, from);
            }
        }
        found
    }

    fn taker_elsewhere(
        &mut self,
        item: usize,
        class: usize,
        from: usize,
        any: bool,
    ) -> Option<u32> {
        let mut found = None;
        while let Some(zone) = self.zones[class].best() {
            if !any && self.zones[class].need(zone) <= 0 {
                break;
            }
            self.zones[class].hide(zone);
            if self.takers[zone].is_empty() {
                continue;
            }
            self.hidden.push(zone);
            if zone != from {
                found = self.taker_in(item, class, zone, from);
                if found.is_some() {
                    break;
                }
            }
        }
        while let Some(zone) = self.hidden.pop() {
            self.zones[class].show(zone);
        }
        found
    }

    fn taker_in(&mut self, item: usize, class: usize, zone: usize, from: usize) -> Option<u32> {
        if self.takers[zone].is_empty() || !self.fits(item, class, zone, Some(from)) {
            return None;
        }
        let seed = item as u64 ^ ((zone as u64) << 40);
        let row = self.draft.of(item);
        let member = self.takers[zone].take(&mut self.room, seed, row)?;
        self.settle(item, class, zone, Some(from));
        Some(member)
    }

    /// Whether one more replica of `item` may go to `zone`, after one left `from`.
    pub(super) fn fits(&self, item: usize, class: usize, zone: usize, from: Option<usize>) -> bool {
        self.fair.is_open(class, zone)
            && (from == Some(zone)
                || self.count_in(item, zone) < self.fair.caps[class]
                || self.beyond[class] > 0
                    && self.used_beyond(item, class, from) < self.each_beyond[class])
    }

    /// How many replicas of `item` stand beyond the zone rule, after one left `from`.
    fn used_beyond(&self, item: usize, class: usize, from: Option<usize>) -> i64 {
        let row = self.draft.of(item).iter().filter(|holder| **holder != VACANT);
        let mut zones: Vec<u32> = row.map(|holder| self.fair.zones.of(*holder)).collect();
        zones.sort_unstable();
        let beyond = |zone: &[u32]| {
            let left = usize::from(from == Some(zone[0] as usize));
            (zone.len() - left).saturating_sub(self.fair.caps[class])
        };
        index(zones.chunk_by(|one, other| one == other).map(beyond).sum())
    }

    fn count_in(&self, item: usize, zone: usize) -> usize {
        let row = self.draft.of(item).iter();
        row.filter(|holder| **holder != VACANT && self.zone(holder.member()) == zone).count()
    }

    /// Writes down that a replica of `item`, not yet in its row, comes to a zone from another one.
    pub(super) fn settle(&mut self, item: usize, class: usize, zone: usize, from: Option<usize>) {
        if from == Some(zone) {
            return;
        }
        let cap = self.fair.caps[class];
        if self.count_in(item, zone) >= cap {
            self.beyond[class] -= 1;
        }
        self.zones[class].change(zone, -1);
        if let Some(from) = from {
            if self.count_in(item, from) > cap {
                self.beyond[class] += 1;
            }
            self.zones[class].change(from, 1);
        }
    }

    /// Gives a place of an item to a member whose room is counted already.
    pub(super) fn arrive(&mut self, item: usize, at: usize, member: u32) {
        let holder = self.arrival(item, member);
        self.draft.of_mut(item)[at] = holder;
    }

    /// A member that comes to an item is what it was if it held the item before.
    fn arrival(&mut self, item: usize, member: u32) -> Holder {
        let before = self.draft.held(item).iter().find(|held| held.member() == member);
        let holder = before.copied().unwrap_or(Holder::new(member));
        self.primaries[member as usize] += u32::from(holder.is_primary());
        self.draft.came(item, member);
        holder
    }

    /// Counts that a replica leaves its member.
    pub(super) fn leave(&mut self, holder: Holder) {
        self.room[holder.member() as usize] += 1;
        self.primaries[holder.member() as usize] -= u32::from(holder.is_primary());
    }

    fn load(&self, member: usize) -> u32 {
        u32::try_from(self.targets[member] - self.room[member]).unwrap_or(0)
    }

    fn finish(mut self, lower_bound: u64) -> Filled<D> {
        if self.stuck {
            self.draft.close();
        }
        let loads = (0..self.room.len()).map(|member| self.load(member)).collect();
        // Whether somebody holds an item is only in question where some items are given no replica.
        let none = self.fair.classes.list.iter().any(|(class, _)| class.wanted == 0);
        let few = self.fair.short || self.stuck || none;
        let len = self.draft.len();
        let held = |item: &usize| !self.draft.of(*item).is_empty();
        let held = if few { (0..len).filter(held).count() } else { len };
        let Self { draft, touched, primaries, .. } = self;
        Filled { draft, touched, loads, primaries, held: held as u64, lower_bound }
    }
}
