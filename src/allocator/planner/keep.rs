//! What an item keeps of what it has: as much as it wants, and as the zone rule allows.

use super::{
    by_member::Table,
    draft::Draft,
    fair::Fair,
    flow::index,
    holder::Holder,
    holdings::Rewrite,
    kinds::{Class, narrow},
    problem::Problem,
    quota::{Quota, Vacant},
    survey::{Cells, Standing, is_sound},
};

/// Chooses what items keep, and counts what then stands.
pub(super) struct Keeper<'a> {
    pub problem: &'a Problem,
    pub fair: &'a Fair,
    pub cells: &'a Cells,
    pub windows: &'a [(i64, i64)],
    pub standing: Standing,
    /// By class and zone, how many replicas are still to come there.
    pub need: Vec<i64>,
    /// By class, how many more replicas may stand beyond the zone rule than its items have to have there.
    pub spare: Vec<i64>,
    /// By class, how many beyond the zone rule one item may have.
    pub each_beyond: Vec<i64>,
    /// By class, how many replicas are placed, and how many items get one more than the others.
    goals: Vec<(i64, i64)>,
    /// What is vacant of what items want, or get where not all fits.
    pub vacant: Vacant,
    /// The items with vacant places.
    pub vacant_items: Vec<u32>,
    /// Whether something was given up that might have stayed instead of something else.
    pub chose: bool,
    /// By class and zone, how many replicas stood there beyond what the zone takes of their items.
    pub excess: Vec<i64>,
    /// By zone, how many replicas the item at hand has there.
    in_zone: Vec<usize>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        problem: &'a Problem,
        fair: &'a Fair,
        cells: &'a Cells,
        windows: &'a [(i64, i64)],
        standing: Standing,
        quota: &Quota,
    ) -> Self {
        let mut keeper = Self {
            problem,
            fair,
            cells,
            windows,
            standing,
            need: Vec::new(),
            spare: Vec::new(),
            each_beyond: Vec::new(),
            goals: Vec::new(),
            vacant: Vacant {
                of_class: vec![0; fair.classes.list.len()],
                empty: vec![0; fair.classes.list.len()],
                fits: vec![0; fair.classes.list.len()],
                crowded: vec![0; fair.classes.list.len() * fair.zones.len()],
            },
            excess: vec![0; fair.classes.list.len() * fair.zones.len()],
            vacant_items: Vec::new(),
            chose: false,
            in_zone: vec![0; fair.zones.len()],
        };
        keeper.share_out(quota);
        keeper.aim(quota);
        keeper
    }

    /// What each class gets, by item.
    fn share_out(&mut self, quota: &Quota) {
        let each = quota.placed_of.iter().zip(&quota.beyond).zip(&self.fair.classes.list);
        for (class, ((placed, beyond), (_, items))) in each.enumerate() {
            let items = (*items).max(1);
            let (goal, more) = (placed / items, placed % items);
            let least = |goal: i64| self.fair.beyond_of(class, usize::try_from(goal).unwrap_or(0));
            self.spare.push(beyond - more * least(goal + 1) - (items - more) * least(goal));
            self.each_beyond.push((beyond + items - 1) / items);
            self.goals.push((goal, more));
        }
    }

    /// Begins a draft with what all items keep. `unsound` are those that do not have what they want;
    /// where not all fits, those that change are found here. Returns them.
    pub(super) fn begin(&mut self, draft: &mut impl Draft, mut unsound: Vec<u32>) -> Vec<u32> {
        let fair = self.fair;
        let goals = if fair.short { self.find_changes(draft, &mut unsound) } else { Vec::new() };
        let same = fair.classes.list.len() == 1 && goals.is_empty();
        let same = same.then(|| fair.classes.list[0].0.wanted as usize);
        draft.begin(&unsound, &mut Keeping { keeper: self, items: &unsound, goals, same });
        unsound
    }

    /// Finds the items that change where not all fits, and how many replicas they get.
    fn find_changes(&mut self, draft: &impl Draft, unsound: &mut Vec<u32>) -> Vec<u32> {
        // Who has all stays so if all of its class do: then only those that lack something are asked.
        let has_all = |class: &Class| class.standing == class.wanted;
        let stays = |((class, _), goal): (&(Class, i64), &(i64, i64))| {
            !has_all(class) || *goal == (i64::from(class.wanted), 0)
        };
        if !self.fair.classes.list.iter().zip(&self.goals).all(stays) {
            unsound.clear();
            unsound.extend(0..narrow(draft.len()));
        }
        let mut goals = Vec::with_capacity(unsound.len());
        unsound.retain(|item| {
            let class = self.fair.classes.of(self.problem, *item as usize);
            let goal = self.goal(class);
            let held = draft.held(*item as usize);
            let changes = held.len() != goal || !is_sound(self.fair, class, goal, held);
            if changes {
                goals.push(narrow(goal));
            }
            changes
        });
        goals
    }

    /// How many replicas the next item of a class gets, where not all fits.
    fn goal(&mut self, class: usize) -> usize {
        let (each, more) = &mut self.goals[class];
        let one_more = i64::from(*more > 0);
        *more -= one_more;
        usize::try_from(*each + one_more).unwrap_or(0)
    }

    /// Chooses what an item of a class keeps of what it has, and writes its row, as long as its goal, with
    /// vacant places. Returns how many those are.
    ///
    /// Where all stay who may, each stays in its place if there are as many: if no more stay than a zone takes,
    /// or each is in a zone of its own, no rule can be broken. All of it without a branch, because nobody can
    /// guess where somebody was lost.
    #[inline]
    fn keep(&mut self, held: &[Holder], class: usize, row: &mut [Holder]) -> usize {
        if held.is_empty() {
            self.vacant.of_class[class] += index(row.len());
            self.vacant.empty[class] += 1;
            self.vacant.fits[class] += index(row.len().min(self.fair.caps[class]));
            row.fill(Holder::VACANT);
            return row.len();
        }
        let rule = ClassRule::of(self.fair, class);
        let kept = rule.keep(held, row);
        if let Some(vacancies) = kept.seen_to_fit(row.len(), rule.cap) {
            self.vacant.of_class[class] += index(vacancies);
            self.vacant.fits[class] += index(vacancies);
            return vacancies;
        }
        self.keep_otherwise(&kept, held, class, row)
    }

    /// The same where it is not seen at once that all who may stay do, and that every zone takes what is vacant.
    #[inline(never)]
    fn keep_otherwise(
        &mut self,
        Kept { stay, again, .. }: &Kept,
        held: &[Holder],
        class: usize,
        row: &mut [Holder],
    ) -> usize {
        let cap = self.fair.caps[class];
        if *stay > row.len() || *stay > cap && *again != 0 {
            return self.keep_best(held, class, row);
        }
        let vacancies = row.len() - stay;
        if *again != 0 {
            self.count_vacant(class, vacancies, row);
            return vacancies;
        }
        // Each is in a zone of its own, which then takes all that is missing, or all of it but one.
        let fits = vacancies.min(cap);
        self.vacant.of_class[class] += index(vacancies);
        self.vacant.fits[class] += index(fits);
        let crowded = fits - fits.min(cap - 1);
        if crowded > 0 {
            for holder in row.iter().filter(|holder| **holder != Holder::VACANT) {
                let zone = self.fair.zones.of(*holder) as usize;
                self.vacant.crowded[class * self.fair.zones.len() + zone] += index(crowded);
            }
        }
        vacancies
    }

    /// Chooses what items of one class keep, all of three places before and after, and lists those with vacant
    /// places.
    fn keep_threes(
        &mut self,
        class: usize,
        items: &[u32],
        held: &[[Holder; 3]],
        rows: &mut [[Holder; 3]],
    ) {
        let rule = ClassRule::of(self.fair, class);
        let mut vacant_items = std::mem::take(&mut self.vacant_items);
        let mut vacant = 0;
        for item in items {
            let (held, row) = (&held[*item as usize], &mut rows[*item as usize]);
            let kept = rule.keep(held, row);
            let vacancies = if let Some(vacancies) = kept.seen_to_fit(row.len(), rule.cap) {
                vacant += vacancies;
                vacancies
            } else {
                self.keep_otherwise(&kept, held, class, row)
            };
            if vacancies > 0 {
                vacant_items.push(*item);
            }
        }
        self.vacant_items = vacant_items;
        self.vacant.of_class[class] += index(vacant);
        self.vacant.fits[class] += index(vacant);
    }

    /// Chooses what an item keeps where there is a choice.
    #[inline(never)]
    fn keep_best(&mut self, held: &[Holder], class: usize, row: &mut [Holder]) -> usize {
        let goal = row.len();
        let legal = |holder: &Holder| self.fair.is_legal(class, *holder);
        let mut kept: Vec<Holder> = held.iter().copied().filter(legal).collect();
        if kept.len() > self.fair.caps[class] {
            self.keep_the_zone_rule(class, goal, &mut kept);
        }
        while kept.len() > goal {
            self.drop_worst(class, &mut kept, |_| true);
        }
        let vacancies = goal - kept.len();
        if vacancies > 0 {
            self.count_vacant(class, vacancies, &kept);
        }
        kept.resize(goal, Holder::VACANT);
        row.copy_from_slice(&kept);
        vacancies
    }

    /// How many places are vacant.
    pub(super) fn vacancies(&self) -> u64 {
        self.vacant.of_class.iter().map(|vacant| vacant.unsigned_abs()).sum()
    }

    /// Counts vacant places of an item, and the zones where not all of them can be filled.
    #[inline(never)]
    fn count_vacant(&mut self, class: usize, vacancies: usize, kept: &[Holder]) {
        let cap = self.fair.caps[class];
        let fits = vacancies.min(cap);
        self.vacant.of_class[class] += index(vacancies);
        self.vacant.fits[class] += index(fits);
        let kept = kept.iter().filter(|holder| **holder != Holder::VACANT);
        if cap >= vacancies + kept.clone().count() {
            return;
        }
        let zone = |holder: &Holder| self.fair.zones.of(*holder) as usize;
        for holder in kept.clone() {
            self.in_zone[zone(holder)] += 1;
        }
        for zone in kept.map(zone) {
            let there = std::mem::take(&mut self.in_zone[zone]);
            let crowded = fits - vacancies.min(cap.saturating_sub(there)).min(fits);
            if there > 0 {
                self.vacant.crowded[class * self.fair.zones.len() + zone] += index(crowded);
            }
        }
    }

    fn keep_the_zone_rule(&mut self, class: usize, goal: usize, row: &mut Vec<Holder>) {
        let cap = self.fair.caps[class];
        let zone = |holder: &Holder| self.fair.zones.of(*holder) as usize;
        for holder in &*row {
            self.in_zone[zone(holder)] += 1;
        }
        let mut crowded: Vec<(usize, usize)> = Vec::new();
        for zone in row.iter().map(zone) {
            if self.in_zone[zone] > cap {
                let excess = self.in_zone[zone] - cap;
                self.excess[class * self.fair.zones.len() + zone] += index(excess);
                crowded.push((zone, excess));
            }
            self.in_zone[zone] = 0;
        }
        let (mut used, least) = (0, self.fair.beyond_of(class, goal));
        for (zone, mut excess) in crowded {
            while excess > 0 {
                let after = used + index(excess);
                let spare = (after - least).max(0) - (used - least).max(0);
                if after <= self.each_beyond[class].max(least)
                    && spare <= self.spare[class].max(0)
                    && row.len() <= goal
                {
                    used = after;
                    self.spare[class] -= spare;
                    break;
                }
                let zones = &self.fair.zones;
                self.drop_worst(class, row, |holder| zones.of(holder) as usize == zone);
                excess -= 1;
            }
        }
    }

    /// Drops the replica whose member is most above its bounds, or can best spare it; then rather
    /// one that is not consistent, and no primary.
    fn drop_worst(
        &mut self,
        class: usize,
        row: &mut Vec<Holder>,
        candidate: impl Fn(Holder) -> bool,
    ) {
        let zones = self.fair.zones.len();
        let worst = (0..row.len()).filter(|at| candidate(row[*at])).max_by_key(|at| {
            let holder = row[*at];
            let member = holder.member() as usize;
            let (low, high) = self.windows[member];
            let load = i64::from(self.standing.of_member[member]);
            let spare = i32::from(load > low) + i32::from(load > high);
            let crowded = self.need[class * zones + self.fair.zones.of(holder) as usize] < 0;
            (spare, crowded, !holder.is_consistent(), !holder.is_primary(), load - low)
        });
        let Some(worst) = worst else { return };
        let holder = row.remove(worst);
        self.leave(class, holder);
        self.chose = true;
    }

    /// Counts that a replica of an item of a class does not stand any more.
    pub(super) fn leave(&mut self, class: usize, holder: Holder) {
        let member = holder.member() as usize;
        self.standing.of_member[member] -= 1;
        self.standing.primaries[member] -= u32::from(holder.is_primary());
        let (cell, zone) = self.places(class, holder);
        self.standing.of_cell[cell] -= 1;
        self.need[zone] += 1;
    }

    /// Counts that one stands after all.
    pub(super) fn stay(&mut self, class: usize, holder: Holder) {
        let member = holder.member() as usize;
        self.standing.of_member[member] += 1;
        self.standing.primaries[member] += u32::from(holder.is_primary());
        let (cell, zone) = self.places(class, holder);
        self.standing.of_cell[cell] += 1;
        self.need[zone] -= 1;
    }

    /// Where a replica is counted: by class and cell, and by class and zone.
    fn places(&self, class: usize, holder: Holder) -> (usize, usize) {
        let cell = self.cells.of_member[holder.member() as usize] as usize;
        let zone = self.fair.zones.of(holder) as usize;
        (class * self.cells.list.len() + cell, class * self.fair.zones.len() + zone)
    }

    /// Counts anew what is still to come, to another quota.
    pub(super) fn aim(&mut self, quota: &Quota) {
        let of_zone = self.standing.of_zone(self.fair, self.cells);
        let need = quota.of_class.iter().zip(of_zone);
        self.need = need.map(|(wanted, held)| wanted - i64::from(held)).collect();
    }
}

/// The rows of items whose replicas are kept or not.
struct Keeping<'k, 'a> {
    keeper: &'k mut Keeper<'a>,
    items: &'k [u32],
    /// How many replicas each gets, where not all fits.
    goals: Vec<u32>,
    /// How many all get, if that is all that is to be known.
    same: Option<usize>,
}

impl Rewrite for Keeping<'_, '_> {
    fn same(&self) -> Option<usize> {
        self.same
    }

    #[inline]
    fn length(&self, at: usize) -> u32 {
        if let Some(same) = self.same {
            return narrow(same);
        }
        let wanted = || self.keeper.problem.wanted(self.items[at] as usize);
        self.goals.get(at).copied().unwrap_or_else(wanted)
    }

    #[inline]
    fn write(&mut self, item: u32, held: &[Holder], row: &mut [Holder]) {
        let class = self.keeper.fair.classes.of(self.keeper.problem, item as usize);
        if self.keeper.keep(held, class, row) > 0 {
            self.keeper.vacant_items.push(item);
        }
    }

    fn write_threes(&mut self, items: &[u32], held: &[[Holder; 3]], rows: &mut [[Holder; 3]]) {
        // What all get is known beforehand only where there is one class.
        self.keeper.keep_threes(0, items, held, rows);
    }
}

/// What items of one class have to keep to.
struct ClassRule<'a> {
    /// By member, its zone.
    zones: Table<'a, u32>,
    /// Whether items may be nowhere, and by zone, whether they may be there.
    open: &'a [bool],
    /// How many a zone takes.
    cap: usize,
}

/// What an item keeps: how many replicas, their zones, and zones with more than one, each a bit, some of them
/// alike.
struct Kept {
    stay: usize,
    seen: u64,
    again: u64,
}

impl Kept {
    /// How many places of so many are vacant, if it is seen at once that all these may stay, and that every zone
    /// takes what is vacant.
    #[inline]
    fn seen_to_fit(&self, places: usize, cap: usize) -> Option<usize> {
        let vacancies = places.wrapping_sub(self.stay);
        // Each is in a zone of its own; or they are in several, and none of those has more than all but one.
        let several = || self.seen & self.seen.wrapping_sub(1) != 0;
        let fit = self.stay <= places
            && (self.again == 0 && vacancies < cap || places <= cap + 1 && several());
        fit.then_some(vacancies)
    }
}

impl<'a> ClassRule<'a> {
    #[inline]
    fn of(fair: &'a Fair, class: usize) -> Self {
        Self {
            zones: fair.zones.of_member.read(),
            open: fair.open_to(class),
            cap: fair.caps[class],
        }
    }

    /// Writes who stays into the row, as far as there are places.
    #[inline]
    fn keep(&self, held: &[Holder], row: &mut [Holder]) -> Kept {
        let (mut stay, mut seen, mut again) = (0, 0u64, 0);
        let mut count = |holder: Holder| {
            let zone = self.zones.of(holder);
            // Nowhere comes round to the first.
            let stays = self.open[zone.wrapping_add(1) as usize];
            let zone = u64::from(stays) << (zone % 64);
            (seen, again) = (seen | zone, again | seen & zone);
            let place = stay;
            stay += usize::from(stays);
            (place, holder.or_vacant(stays))
        };
        if held.len() <= row.len() {
            let (places, behind) = row.split_at_mut(held.len());
            for (place, holder) in places.iter_mut().zip(held) {
                *place = count(*holder).1;
            }
            behind.fill(Holder::VACANT);
        } else {
            // Those who stay move up.
            row.fill(Holder::VACANT);
            for holder in held {
                let (at, holder) = count(*holder);
                if let Some(place) = row.get_mut(at) {
                    *place = holder;
                }
            }
        }
        Kept { stay, seen, again }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::by_member::ByMember, *};

    #[test]
    fn what_is_seen_to_fit_fits_in_whatever_zones_and_whoever_is_lost() {
        let (open, nowhere) = ([false, true, true, true], u32::MAX);
        let mut seen = 0;
        for held in 1..=5usize {
            // Each is lost, or in one of three zones.
            for world in 0..4u32.pow(narrow(held)) {
                let zone = |member: usize| world / 4u32.pow(narrow(member)) % 4;
                let zone_of = |member| zone(member).checked_sub(1).unwrap_or(nowhere);
                let zones = ByMember::new((0..held).map(zone_of), nowhere);
                let holders: Vec<Holder> = (0..narrow(held)).map(Holder::new).collect();
                for (places, cap) in
                    (1..=6).flat_map(|places| (1..=6).map(move |cap| (places, cap)))
                {
                    let rule = ClassRule { zones: zones.read(), open: &open, cap };
                    let mut row = vec![Holder::VACANT; places];
                    let kept = rule.keep(&holders, &mut row);
                    let stay = |zone: u32| (0..held).filter(|m| zone_of(*m) == zone).count();
                    let all = stay(0) + stay(1) + stay(2);
                    let placed = row.iter().filter(|holder| **holder != Holder::VACANT).count();
                    assert_eq!(placed, all.min(places));
                    if let Some(vacancies) = kept.seen_to_fit(places, cap) {
                        assert_eq!(vacancies + all, places);
                        assert!((0..3).all(|zone| stay(zone) <= cap));
                        let takes = |zone| vacancies <= cap - stay(zone);
                        assert!((0..3).all(takes), "{held} {world} {places} {cap}");
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 1_000);
    }
}
