//! Where there is room: the members that lack something, by zone, and what each class of items still
//! needs in each zone.

use super::{
    fair::Fair,
    problem::{Holder, index},
    takers::Takers,
    tournament::Tournament,
};

/// See the [module](self). Rows are those of the item at hand; a place may be vacant.
pub(super) struct Openings<'a> {
    fair: &'a Fair,
    /// By member, its target beyond its load; less than zero for one that has too much.
    pub(super) room: Vec<i64>,
    /// By zone, those who lack something; valid from [`Openings::open`] on.
    pub(super) takers: Vec<Takers>,
    /// By class, what its zones need.
    needs: Vec<Tournament>,
    /// By class, how many more replicas may stand beyond the zone rule than its items have to have there.
    spare: Vec<i64>,
    /// By class, how many beyond the zone rule one item may have.
    each_beyond: Vec<i64>,
    /// The zones of the replicas of the item at hand.
    there: Vec<usize>,
    /// Zones that are out of the tournament of the class at hand, for the item at hand.
    hidden: Vec<usize>,
}

impl<'a> Openings<'a> {
    /// `need` is by class and zone.
    pub(super) fn new(
        fair: &'a Fair,
        room: Vec<i64>,
        need: &[i64],
        spare: Vec<i64>,
        each_beyond: Vec<i64>,
    ) -> Self {
        let zones = fair.zones.len();
        let tournament = |class: usize| {
            let open = (0..zones).map(|zone| fair.is_open(class, zone));
            Tournament::new(&need[class * zones..(class + 1) * zones], open)
        };
        Self {
            fair,
            room,
            takers: Vec::new(),
            needs: (0..fair.classes.list.len()).map(tournament).collect(),
            spare,
            each_beyond,
            there: Vec::new(),
            hidden: Vec::new(),
        }
    }

    /// Lets those who lack something be taken.
    pub(super) fn open(&mut self) {
        let mut members = vec![Vec::new(); self.fair.zones.len()];
        for (member, zone) in (0..).zip(&self.fair.zones.of_member) {
            if self.room[member as usize] > 0 {
                members[*zone as usize].push(member);
            }
        }
        let takers = |(zone, members)| Takers::new(members, &self.room, zone);
        self.takers = (0..).zip(members).map(takers).collect();
        // Zones where nobody lacked anything were left out.
        for (class, needs) in self.needs.iter_mut().enumerate() {
            for zone in (0..self.takers.len()).filter(|zone| self.fair.is_open(class, *zone)) {
                needs.show(zone);
            }
        }
    }

    /// Whether nobody lacks anything.
    pub(super) fn is_empty(&self) -> bool {
        self.takers.iter().all(Takers::is_empty)
    }

    /// How many replicas of a class are still to come to a zone; less than none, if too many are there.
    pub(super) fn need(&self, class: usize, zone: usize) -> i64 {
        self.needs[class].need(zone)
    }

    /// Counts that a replica of a class left a zone.
    pub(super) fn left(&mut self, class: usize, zone: usize) {
        self.needs[class].change(zone, 1);
    }

    /// Finds members for the vacant places of an item, within the zone rule before beyond it, in the
    /// zones that are needed most. `arrive` makes a holder of a member. False: a place stays vacant.
    #[inline]
    pub(super) fn fill(
        &mut self,
        class: usize,
        row: &mut [Holder],
        mut arrive: impl FnMut(u32) -> Holder,
    ) -> bool {
        self.there.clear();
        for holder in row.iter().filter(|holder| **holder != Holder::VACANT) {
            self.there.push(self.fair.zones.of(*holder) as usize);
        }
        let mut filled = true;
        for at in 0..row.len() {
            if row[at] == Holder::VACANT {
                let Some(member) = self.find(class, row) else {
                    filled = false;
                    break;
                };
                row[at] = arrive(member);
            }
        }
        while let Some(zone) = self.hidden.pop() {
            self.needs[class].show(zone);
        }
        filled
    }

    #[inline]
    fn find(&mut self, class: usize, row: &[Holder]) -> Option<u32> {
        let cap = self.fair.caps[class];
        let needs = &mut self.needs[class];
        while let Some(zone) = needs.best() {
            let takers = &mut self.takers[zone];
            if self.there.iter().filter(|there| **there == zone).count() < cap
                && let Some(member) = takers.take(&mut self.room, row)
            {
                self.there.push(zone);
                needs.change(zone, -1);
                return Some(member);
            }
            needs.hide(zone);
            if !takers.is_empty() {
                self.hidden.push(zone);
            }
        }
        self.find_beyond(class, row)
    }

    /// The same where the item has as many as it may in every zone that has anybody.
    fn find_beyond(&mut self, class: usize, row: &[Holder]) -> Option<u32> {
        let cap = self.fair.caps[class];
        let used = self.used_beyond(class, row, None);
        if !self.may_use(class, row, used, 0) {
            return None;
        }
        let mut full: Vec<usize> = self.hidden.clone();
        full.retain(|zone| self.there.iter().filter(|there| *there == zone).count() >= cap);
        full.sort_by_key(|zone| std::cmp::Reverse(self.needs[class].need(*zone)));
        for zone in full {
            if let Some(member) = self.takers[zone].take(&mut self.room, row) {
                self.spare[class] -= i64::from(used >= self.fair.beyond_of(class, row.len()));
                self.needs[class].change(zone, -1);
                self.there.push(zone);
                return Some(member);
            }
        }
        None
    }

    /// Finds a member that lacks something and may take an item in place of one in zone `from`, and
    /// counts it as taken; that zone is preferred, then the zone that is needed most, if it needs any
    /// or the replica may go to `any`.
    pub(super) fn taker(
        &mut self,
        class: usize,
        row: &[Holder],
        from: usize,
        any: bool,
    ) -> Option<u32> {
        // A class that has too many in the giver's zone wants out of it.
        let stays = self.need(class, from) >= 0;
        let mut found = if stays { self.taker_in(class, row, from, from) } else { None };
        if found.is_none() && (any || !stays) {
            found = self.taker_elsewhere(class, row, from, any);
            if found.is_none() && !stays {
                found = self.taker_in(class, row, from, from);
            }
        }
        found
    }

    fn taker_elsewhere(
        &mut self,
        class: usize,
        row: &[Holder],
        from: usize,
        any: bool,
    ) -> Option<u32> {
        let mut found = None;
        while let Some(zone) = self.needs[class].best() {
            if !any && self.need(class, zone) <= 0 {
                break;
            }
            self.needs[class].hide(zone);
            if self.takers[zone].is_empty() {
                continue;
            }
            self.hidden.push(zone);
            if zone != from {
                found = self.taker_in(class, row, zone, from);
                if found.is_some() {
                    break;
                }
            }
        }
        while let Some(zone) = self.hidden.pop() {
            self.needs[class].show(zone);
        }
        found
    }

    fn taker_in(&mut self, class: usize, row: &[Holder], zone: usize, from: usize) -> Option<u32> {
        if self.takers[zone].is_empty() || !self.fits(class, row, zone, Some(from)) {
            return None;
        }
        let member = self.takers[zone].take(&mut self.room, row)?;
        self.settle(class, row, zone, Some(from));
        Some(member)
    }

    /// Whether one more replica may go to `zone`, after one left `from`.
    pub(super) fn fits(
        &self,
        class: usize,
        row: &[Holder],
        zone: usize,
        from: Option<usize>,
    ) -> bool {
        self.fair.is_open(class, zone)
            && (from == Some(zone)
                || self.count_in(row, zone) < self.fair.caps[class]
                || self.fits_beyond(class, row, from))
    }

    fn fits_beyond(&self, class: usize, row: &[Holder], from: Option<usize>) -> bool {
        let (before, used) =
            (self.used_beyond(class, row, None), self.used_beyond(class, row, from));
        // Who leaves a zone that has too many leaves its right to that.
        let freed = self.spared(class, row, before) - self.spared(class, row, used);
        self.may_use(class, row, used, freed)
    }

    /// How many of so many replicas of an item beyond the zone rule are more than it has to have there.
    fn spared(&self, class: usize, row: &[Holder], used: i64) -> i64 {
        (used - self.fair.beyond_of(class, row.len())).max(0)
    }

    /// Whether an item with so many beyond the zone rule may have one more, if so many are freed.
    fn may_use(&self, class: usize, row: &[Holder], used: i64, freed: i64) -> bool {
        let least = self.fair.beyond_of(class, row.len());
        used < least || used < self.each_beyond[class] && self.spare[class] + freed > 0
    }

    /// How many replicas stand beyond the zone rule, after one left `from`.
    fn used_beyond(&self, class: usize, row: &[Holder], from: Option<usize>) -> i64 {
        let row = row.iter().filter(|holder| **holder != Holder::VACANT);
        let mut zones: Vec<u32> = row.map(|holder| self.fair.zones.of(*holder)).collect();
        zones.sort_unstable();
        let beyond = |zone: &[u32]| {
            let left = usize::from(from == Some(zone[0] as usize));
            (zone.len() - left).saturating_sub(self.fair.caps[class])
        };
        index(zones.chunk_by(|one, other| one == other).map(beyond).sum())
    }

    /// How many replicas are in a zone.
    pub(super) fn count_in(&self, row: &[Holder], zone: usize) -> usize {
        let there = |holder: &&Holder| {
            **holder != Holder::VACANT && self.fair.zones.of(**holder) as usize == zone
        };
        row.iter().filter(there).count()
    }

    /// Counts that a replica, not yet in the row, comes to a zone from another one, or from nowhere.
    pub(super) fn settle(
        &mut self,
        class: usize,
        row: &[Holder],
        zone: usize,
        from: Option<usize>,
    ) {
        if from == Some(zone) {
            return;
        }
        let cap = self.fair.caps[class];
        let crowds = self.count_in(row, zone) >= cap;
        if crowds || from.is_some_and(|from| self.count_in(row, from) > cap) {
            let before = self.used_beyond(class, row, None);
            let after = self.used_beyond(class, row, from) + i64::from(crowds);
            self.spare[class] += self.spared(class, row, before) - self.spared(class, row, after);
        }
        self.needs[class].change(zone, -1);
        if let Some(from) = from {
            self.needs[class].change(from, 1);
        }
    }
}
