//! Where there is room: the members that lack something, by zone, and what each class of items still
//! needs in each zone.

use super::{
    by_member::Table,
    columns::Columns,
    draft::RowsMut,
    fair::Fair,
    flow::index,
    holder::{Holder, places, primary, unrolled},
    ladder::Ladder,
    takers::Takers,
};

/// So many rows are filled before their primaries are chosen.
const PART: usize = 1 << 10;

/// See the [module](self). Rows are those of the item at hand; a place may be vacant.
pub(super) struct Openings<'a> {
    fair: &'a Fair,
    /// By member, its target beyond its load; less than zero for one that has too much.
    pub(super) room: Vec<i64>,
    /// By zone, those who lack something; valid from [`Openings::open`] on.
    pub(super) takers: Vec<Takers>,
    /// By class, what its zones need.
    needs: Vec<Ladder>,
    /// By class, the zones of its items that nobody holds, while those are all that need something. What they
    /// get is counted at the end.
    columns: Vec<Option<Columns>>,
    /// By class, how many more replicas may stand beyond the zone rule than its items have to have there.
    spare: Vec<i64>,
    /// By class, how many beyond the zone rule one item may have.
    each_beyond: Vec<i64>,
    /// Zones that are hidden in the ladder of the class at hand, for the item at hand.
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
        let ladder = |class: usize| {
            let open = (0..zones).map(|zone| fair.is_open(class, zone));
            Ladder::new(&need[class * zones..(class + 1) * zones], open)
        };
        Self {
            fair,
            room,
            takers: Vec::new(),
            needs: (0..fair.classes.list.len()).map(ladder).collect(),
            columns: vec![None; fair.classes.list.len()],
            spare,
            each_beyond,
            hidden: Vec::new(),
        }
    }

    /// Lets those who lack something be taken; `primaries` is by member.
    pub(super) fn open(&mut self, primaries: &[u32]) {
        let mut members = vec![Vec::new(); self.fair.zones.len()];
        for (member, zone) in (0..).zip(&*self.fair.zones.of_member) {
            if self.room[member as usize] > 0 {
                members[*zone as usize].push(member);
            }
        }
        let takers = |(zone, members)| Takers::new(members, &self.room, primaries, zone);
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

    /// Is told how many items of each class nobody holds, before their places are filled.
    pub(super) fn lay_out(&mut self, empty: &[i64]) {
        if self.fair.short || self.fair.beyond > 0 {
            return;
        }
        for (class, items) in empty.iter().enumerate() {
            let wanted = self.fair.classes.list[class].0.wanted;
            let need = (0..self.fair.zones.len()).map(|zone| self.need(class, zone));
            let cap = index(self.fair.caps[class]);
            self.columns[class] = Columns::new(*items, wanted, cap, need);
        }
    }

    /// Counts what was filled in as laid out.
    pub(super) fn count_in_columns(&mut self) {
        (0..self.columns.len()).for_each(|class| self.at_hand().end_columns(class));
    }

    /// Finds members for the vacant places of an item, as laid out if nobody holds it, within the zone rule
    /// before beyond it, in the zones that are needed most. `arrive` makes a holder of a member. False: a
    /// place stays vacant.
    #[inline]
    pub(super) fn fill(
        &mut self,
        class: usize,
        row: &mut [Holder],
        mut arrive: impl FnMut(u32) -> Holder,
    ) -> bool {
        self.at_hand().fill(class, row, &mut arrive) || self.fill_elsewhere(class, row, &mut arrive)
    }

    /// Fills the rows of items, of which `class` tells the class, with members who are all new to them, and lets
    /// `crown` see the rows that may have no primary. Leaves the items that keep a vacant place.
    #[inline]
    pub(super) fn fill_all<R: RowsMut + ?Sized>(
        &mut self,
        class: impl Fn(usize) -> usize,
        items: &mut Vec<u32>,
        rows: &mut R,
        mut crown: impl FnMut(&mut R::Row),
    ) {
        let (mut left, mut at_hand) = (Vec::new(), self.at_hand());
        let mut crownless = [0; PART];
        // A part is looked at twice while it is in the near memory.
        for part in items.chunks(PART) {
            let mut end = 0;
            for number in part {
                let item = *number as usize;
                let (row, class) = (rows.row(item), class(item));
                crownless[end] = *number;
                if at_hand.fill(class, row, &mut Holder::new) {
                    // Without a branch, because nobody can guess who has lost a primary.
                    end += usize::from(primary(row.as_ref()).is_none());
                    continue;
                }
                end += 1;
                if !self.fill_elsewhere(class, row.as_mut(), &mut Holder::new) {
                    left.push(*number);
                }
                at_hand = self.at_hand();
            }
            crownless[..end].iter().for_each(|item| crown(rows.row(*item as usize)));
        }
        *items = left;
    }

    #[inline]
    fn at_hand(&mut self) -> AtHand<'_> {
        AtHand {
            needs: &mut self.needs,
            columns: &mut self.columns,
            takers: &mut self.takers,
            room: &mut self.room,
            zones: self.fair.zones.of_member.read(),
            caps: &self.fair.caps,
        }
    }

    /// Fills the places of an item that are vacant yet: where the zone that is needed most is of no use, and
    /// those behind the first 64.
    #[inline(never)]
    fn fill_elsewhere(
        &mut self,
        class: usize,
        row: &mut [Holder],
        arrive: &mut impl FnMut(u32) -> Holder,
    ) -> bool {
        let mut filled = true;
        for at in 0..row.len() {
            if filled && row[at] == Holder::VACANT {
                let found = self.find(class, row);
                filled = found.is_some();
                row[at] = found.map_or(Holder::VACANT, &mut *arrive);
            }
        }
        while let Some(zone) = self.hidden.pop() {
            self.needs[class].show(zone);
        }
        filled
    }

    /// Finds a member for one of them.
    fn find(&mut self, class: usize, row: &[Holder]) -> Option<u32> {
        while let Some(zone) = self.needs[class].best() {
            let found = self.at_hand().find(class, row);
            if found.is_some() {
                return found;
            }
            self.needs[class].hide(zone);
            if !self.takers[zone].is_empty() {
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
        full.retain(|zone| self.count_in(row, *zone) >= cap);
        full.sort_by_key(|zone| std::cmp::Reverse(self.needs[class].need(*zone)));
        for zone in full {
            if let Some(member) = self.takers[zone].take(&mut self.room, row) {
                self.spare[class] -= i64::from(used >= self.fair.beyond_of(class, row.len()));
                self.needs[class].change(zone, -1);
                return Some(member);
            }
        }
        None
    }

    /// Finds a member that lacks something and may take an item in place of one in zone `from`, and
    /// counts it as taken; that zone is preferred, then the zone that is needed most, if it needs any
    /// or the replica may go to `any`.
    #[inline]
    pub(super) fn taker<R: AsRef<[Holder]> + ?Sized>(
        &mut self,
        class: usize,
        row: &R,
        from: usize,
        any: bool,
    ) -> Option<u32> {
        let row = row.as_ref();
        // Where the zone stays the same, nothing is to be counted.
        if self.need(class, from) >= 0
            && self.fair.is_open(class, from)
            && let Some(taker) = self.takers[from].take(&mut self.room, row)
        {
            return Some(taker);
        }
        self.taker_otherwise(class, row, from, any)
    }

    #[inline(never)]
    fn taker_otherwise(
        &mut self,
        class: usize,
        row: &[Holder],
        from: usize,
        any: bool,
    ) -> Option<u32> {
        // A class that has too many in the giver's zone wants out of it.
        if self.need(class, from) < 0 {
            return self
                .taker_elsewhere(class, row, from, any)
                .or_else(|| self.taker_in(class, row, from, from));
        }
        if any { self.taker_elsewhere(class, row, from, any) } else { None }
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

    /// The zone of a holder.
    #[inline]
    pub(super) fn zone(&self, holder: Holder) -> usize {
        self.fair.zones.of(holder) as usize
    }

    /// How many replicas are in a zone.
    #[inline]
    pub(super) fn count_in(&self, row: &[Holder], zone: usize) -> usize {
        count_in(self.fair.zones.of_member.read(), row, zone)
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

/// All that is asked at each vacant place.
struct AtHand<'o> {
    needs: &'o mut [Ladder],
    columns: &'o mut [Option<Columns>],
    takers: &'o mut [Takers],
    room: &'o mut [i64],
    zones: Table<'o, u32>,
    caps: &'o [usize],
}

impl AtHand<'_> {
    /// Finds members for the vacant places of a row while the zone that is needed most is of use. False: some
    /// are vacant yet.
    #[inline]
    fn fill<R: AsRef<[Holder]> + AsMut<[Holder]> + ?Sized>(
        &mut self,
        class: usize,
        row: &mut R,
        arrive: &mut impl FnMut(u32) -> Holder,
    ) -> bool {
        if self.columns[class].is_some() && self.fill_laid_out(class, row, arrive) {
            return true;
        }
        let mut places = places(row.as_ref(), |holder| holder == Holder::VACANT);
        while places != 0 {
            let Some(member) = self.find(class, row) else { return false };
            row.as_mut()[places.trailing_zeros() as usize] = arrive(member);
            places &= places - 1;
        }
        row.as_ref().len() <= 64
    }

    /// Finds a member for a vacant place of a row in the zone that is needed most, if that is of use.
    #[inline]
    fn find<R: AsRef<[Holder]> + ?Sized>(&mut self, class: usize, row: &R) -> Option<u32> {
        let Self { needs, takers, room, zones, caps, .. } = self;
        needs[class].take(|zone| {
            let fits = count_in(*zones, row.as_ref(), zone) < caps[class];
            if fits { takers[zone].take(room, row.as_ref()) } else { None }
        })
    }

    /// Fills a row that nobody holds, as laid out. False: it is not that, or not all can be filled so.
    #[inline]
    fn fill_laid_out<R: AsRef<[Holder]> + AsMut<[Holder]> + ?Sized>(
        &mut self,
        class: usize,
        row: &mut R,
        arrive: &mut impl FnMut(u32) -> Holder,
    ) -> bool {
        let Some(columns) = &mut self.columns[class] else { return false };
        if row.as_ref().iter().any(|holder| *holder != Holder::VACANT) {
            return false;
        }
        columns.begin();
        for at in 0..row.as_ref().len() {
            let zone = columns.next(at);
            let member = zone.and_then(|zone| self.takers[zone].take(self.room, row.as_ref()));
            let Some(member) = member else {
                if let Some(zone) = zone {
                    // It needs that still.
                    self.needs[class].change(zone, 1);
                }
                self.end_columns(class);
                return false;
            };
            row.as_mut()[at] = arrive(member);
        }
        true
    }

    /// Counts what was filled in as laid out.
    fn end_columns(&mut self, class: usize) {
        if let Some(columns) = self.columns[class].take() {
            for (zone, taken) in columns.taken().into_iter().enumerate().filter(|(_, n)| *n > 0) {
                self.needs[class].change(zone, -taken);
            }
        }
    }
}

/// How many replicas are in a zone, given the zone of each member. A vacant place is nowhere.
#[inline]
fn count_in(zones: Table<'_, u32>, row: &[Holder], zone: usize) -> usize {
    let there = |holder: &Holder| usize::from(zones.of(*holder) as usize == zone);
    unrolled(row, |row| row.iter().map(there).sum())
}
