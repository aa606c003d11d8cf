//! Detours of a plan by counting: where nobody with room may take an item, somebody else's item makes
//! room.

use super::fill::{Fill, NOWHERE, VACANT, number};

/// How many touched items are looked at for one detour.
const TOUCHED_MAX: usize = 4_096;

impl Fill<'_> {
    /// Step 4 of [`fill`](super::fill::fill). Whatever is still vacant, or too much, afterwards could not be helped in this way.
    pub(super) fn detours(&mut self) {
        for item in std::mem::take(&mut self.vacant) {
            for at in 0..self.desired.of(item as usize).len() {
                if self.desired.of(item as usize)[at] == VACANT {
                    self.detour(item as usize, at);
                    self.stuck |= self.desired.of(item as usize)[at] == VACANT;
                }
            }
        }
        let above: Vec<bool> =
            self.loads.iter().zip(&self.targets).map(|(load, target)| load > target).collect();
        if above.contains(&true) {
            for item in 0..self.desired.len() {
                for at in 0..self.desired.of(item).len() {
                    let holder = self.desired.of(item)[at];
                    let member = holder.member() as usize;
                    if holder != VACANT
                        && above[member]
                        && self.loads[member] > self.targets[member]
                    {
                        self.detour(item, at);
                    }
                }
            }
        }
        if self.stuck {
            self.desired.retain(|holder| holder != VACANT);
        }
    }

    /// Gives the place `at` of `item` to a member that has what it should, and one of that member's
    /// other items to one that lacks something. The items that were touched are looked through first,
    /// because of them replicas that are new anyway can make room.
    fn detour(&mut self, item: usize, at: usize) {
        let lacking: Vec<u32> =
            self.takers.iter().flat_map(|takers| takers.members(&self.lacks).take(8)).collect();
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
        for _ in 0..self.desired.len() {
            let other = self.cursors.1 % self.desired.len();
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
        let from = self.desired.of(item)[at];
        let from = (from != VACANT).then(|| from.member());
        for place in 0..self.desired.of(other).len() {
            let between = self.desired.of(other)[place];
            if between == VACANT
                || fresh
                    && self
                        .problem
                        .held
                        .of(other)
                        .iter()
                        .any(|held| held.member() == between.member())
                || self.desired.of(item).iter().any(|held| held.member() == between.member())
            {
                continue;
            }
            let member = between.member();
            if !self.may_go(item, from, member) {
                continue;
            }
            let last = lacking.iter().copied().find(|last| {
                self.lacks[*last as usize] > 0
                    && self.desired.of(other).iter().all(|held| held.member() != *last)
                    && self.may_go(other, Some(member), *last)
            });
            if let Some(last) = last {
                self.go(other, place, Some(member), last);
                let zone = usize::from(self.zone[last as usize]);
                self.takers[zone].take_this(&mut self.lacks, last);
                self.go(item, at, from, member);
                return true;
            }
        }
        false
    }

    /// Whether the zones allow that a replica of `item` goes from a member, or from nowhere, to another.
    fn may_go(&self, item: usize, from: Option<u32>, to: u32) -> bool {
        let from = from.map(|from| usize::from(self.zone[from as usize]));
        let zone = usize::from(self.zone[to as usize]);
        zone != usize::from(NOWHERE) && self.fits(item, self.fair.classes.of(item), zone, from)
    }

    fn go(&mut self, item: usize, at: usize, from: Option<u32>, to: u32) {
        let class = self.fair.classes.of(item);
        let zone = usize::from(self.zone[to as usize]);
        let left = from.map(|from| usize::from(self.zone[from as usize]));
        self.settle(item, class, zone, left);
        self.arrive(item, at, to);
        self.touched.push(number(item));
    }
}
