//! Detours of a plan by counting: where nobody with room may take an item, somebody else's item makes
//! room.

use super::{
    draft::Draft,
    fill::{Fill, VACANT},
    kinds::{NOWHERE, narrow},
    problem::holds,
};

/// How many touched items are looked at for one detour.
const TOUCHED_MAX: usize = 4_096;

impl<D: Draft> Fill<'_, D> {
    /// Step 5 of [`fill`](super::fill::fill). Whatever is still vacant, or too much, afterwards could not be helped in this way.
    pub(super) fn detours(&mut self) {
        for item in std::mem::take(&mut self.vacant) {
            for at in 0..self.draft.of(item as usize).len() {
                if self.draft.of(item as usize)[at] == VACANT {
                    self.detour(item as usize, at);
                    self.stuck |= self.draft.of(item as usize)[at] == VACANT;
                }
            }
        }
        for member in 0..narrow(self.room.len()) {
            if self.room[member as usize] >= 0 {
                continue;
            }
            for item in self.draft.items_of(member) {
                let row = self.draft.of(item as usize).iter();
                let at = row.clone().position(|holder| holder.member() == member);
                if let Some(at) = at.filter(|_| self.room[member as usize] < 0) {
                    self.detour(item as usize, at);
                }
            }
        }
    }

    /// Gives the place `at` of `item` to a member that has what it should, and one of that member's
    /// other items to one that lacks something. The items that were touched are looked through first,
    /// because of them replicas that are new anyway can make room.
    fn detour(&mut self, item: usize, at: usize) {
        let lacking: Vec<u32> =
            self.takers.iter().flat_map(|takers| takers.members(&self.room).take(8)).collect();
        if lacking.is_empty() {
            return;
        }
        // What did not help before does hardly help now: each search goes on where the last ended, and
        // the touched items are left alone when none of them did.
        for _ in 0..TOUCHED_MAX {
            if self.barren >= self.touched.len() {
                break;
            }
            let other = self.touched[self.cursors.0 % self.touched.len()] as usize;
            if self.try_other(item, at, other, true, &lacking) {
                self.barren = 0;
                return;
            }
            self.cursors.0 += 1;
            self.barren += 1;
        }
        for _ in 0..self.draft.len() {
            let other = self.cursors.1 % self.draft.len();
            if self.try_other(item, at, other, false, &lacking) {
                return;
            }
            self.cursors.1 += 1;
        }
    }

    fn try_other(
        &mut self,
        item: usize,
        at: usize,
        other: usize,
        fresh: bool,
        lacking: &[u32],
    ) -> bool {
        if self.patience == 0 || other == item {
            return false;
        }
        self.patience -= 1;
        self.swap(item, at, other, fresh, lacking)
    }

    /// Tries one other item for [`Fill::detour`].
    fn swap(&mut self, item: usize, at: usize, other: usize, fresh: bool, lacking: &[u32]) -> bool {
        let from = self.draft.of(item)[at];
        let from = (from != VACANT).then(|| from.member());
        for place in 0..self.draft.of(other).len() {
            let between = self.draft.of(other)[place];
            if between == VACANT
                || fresh && holds(self.draft.held(other), between.member())
                || holds(self.draft.of(item), between.member())
            {
                continue;
            }
            let member = between.member();
            if !self.may_go(item, from, member) {
                continue;
            }
            let last = lacking.iter().copied().find(|last| {
                self.room[*last as usize] > 0
                    && !holds(self.draft.of(other), *last)
                    && self.may_go(other, Some(member), *last)
            });
            if let Some(last) = last {
                let zone = self.fair.zones.of_member[last as usize] as usize;
                self.takers[zone].take_this(&mut self.room, last);
                self.go(other, place, Some(member), last);
                self.room[member as usize] -= 1;
                self.go(item, at, from, member);
                return true;
            }
        }
        false
    }

    /// Whether the zones allow that a replica of `item` goes from a member, or from nowhere, to another.
    fn may_go(&self, item: usize, from: Option<u32>, to: u32) -> bool {
        let zone_of = |member: u32| self.fair.zones.of_member[member as usize] as usize;
        let zone = zone_of(to);
        zone != NOWHERE as usize && self.fits(item, self.class(item), zone, from.map(zone_of))
    }

    /// Gives a place to a member whose room is counted already.
    fn go(&mut self, item: usize, at: usize, from: Option<u32>, to: u32) {
        let zone_of = |member: u32| self.fair.zones.of_member[member as usize] as usize;
        let class = self.class(item);
        self.settle(item, class, zone_of(to), from.map(zone_of));
        let left = self.draft.of(item)[at];
        if left != VACANT {
            self.leave(left);
        }
        self.arrive(item, at, to);
        self.touched.push(narrow(item));
    }
}
