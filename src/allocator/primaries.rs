//! Primaries at scale: one of each item's holders, evenly, with few hand-offs.
//!
//! Whoever is primary stays it, items without one go to their holder with the fewest, and only then
//! are primaries handed from members that have too many to co-holders that have too few. Where no
//! such pair is left and it is still uneven, they are handed along paths, from one member's item to
//! the next, until no path leads to a member that has two fewer: then it is as even as the placement
//! allows, by every measure of that.

use std::collections::{BTreeSet, VecDeque};

use super::problem::{Holder, Holdings, Primaries, Problem};

/// Chooses the primaries of `desired`; `fresh` are the items with new holders, which are asked first.
pub(super) fn elect(problem: &Problem, desired: &mut Holdings, fresh: &[u32]) {
    let mut election = Election::new(problem, desired);
    election.fill_empty();
    election.bound();
    if election.is_even() {
        return;
    }
    for pass in [Pass::Pairs, Pass::Any] {
        for item in fresh {
            election.hand(*item as usize, pass);
        }
        if !election.is_even() {
            for item in 0..election.desired.len() {
                election.hand(item, pass);
            }
        }
        if election.is_even() {
            return;
        }
    }
    election.paths();
}

/// Who hands to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Those with too many to those with too few.
    Pairs,
    /// One of the two may be anybody who has room, or one to spare.
    Any,
}

struct Election<'a> {
    problem: &'a Problem,
    desired: &'a mut Holdings,
    primaries: Vec<u32>,
    /// The most that each member can be primary of.
    most: Vec<u32>,
    /// The even share, rounded down and up.
    low: u32,
    high: u32,
    items: u32,
    /// Members beyond what is even: too many, too few.
    off: (u32, u32),
    empty: Vec<u32>,
    /// Items that nobody who takes primaries holds, and that had none.
    stuck: BTreeSet<u32>,
}

impl<'a> Election<'a> {
    fn new(problem: &'a Problem, desired: &'a mut Holdings) -> Self {
        let members = problem.seats.len();
        let mut primaries = vec![0; members];
        let mut most = vec![0; members];
        let mut empty = Vec::new();
        let mut items = 0;
        for item in 0..desired.len() {
            let mut elected = false;
            let holders = desired.of_mut(item);
            for holder in holders.iter_mut() {
                let member = holder.member() as usize;
                most[member] += 1;
                if holder.is_primary() {
                    if elected {
                        *holder = holder.replica();
                    } else {
                        primaries[member] += 1;
                        elected = true;
                    }
                }
            }
            if !holders.is_empty() {
                items += 1;
                if !elected {
                    empty.push(u32::try_from(item).unwrap_or(u32::MAX));
                }
            }
        }
        Self {
            problem,
            desired,
            primaries,
            most,
            low: 0,
            high: 0,
            items,
            off: (0, 0),
            empty,
            stuck: BTreeSet::new(),
        }
    }

    fn takes(&self, member: usize) -> bool {
        self.problem.seats[member].primaries == Primaries::Any
    }

    /// Whether a member may become the primary of an item that it holds.
    fn may(&self, item: usize, member: usize) -> bool {
        self.takes(member)
            || !self.stuck.is_empty()
                && u32::try_from(item).is_ok_and(|item| self.stuck.contains(&item))
    }

    fn fill_empty(&mut self) {
        for item in std::mem::take(&mut self.empty) {
            let holders = self.desired.of(item as usize);
            let best = (0..holders.len()).min_by_key(|at| {
                let member = holders[*at].member() as usize;
                (!self.takes(member), self.primaries[member], !holders[*at].is_consistent())
            });
            if let Some(at) = best {
                if !self.takes(holders[at].member() as usize) {
                    self.stuck.insert(item);
                }
                let holder = &mut self.desired.of_mut(item as usize)[at];
                *holder = holder.primary();
                self.primaries[holder.member() as usize] += 1;
            }
        }
    }

    /// Finds the even share: everybody has so many, or as many as they can.
    fn bound(&mut self) {
        for member in 0..self.most.len() {
            if !self.takes(member) {
                self.most[member] = self.primaries[member];
            }
        }
        for item in &self.stuck {
            for holder in self.desired.of(*item as usize) {
                self.most[holder.member() as usize] += u32::from(!holder.is_primary());
            }
        }
        let sum =
            |level: u32| -> u64 { self.most.iter().map(|most| u64::from(level.min(*most))).sum() };
        let (mut low, mut high) = (0, self.items);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if sum(middle) <= u64::from(self.items) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        self.low = low;
        self.high = if sum(low) == u64::from(self.items) { low } else { low + 1 };
        for member in 0..self.most.len() {
            self.off.0 += self.over(member);
            self.off.1 += self.under(member);
        }
    }

    fn over(&self, member: usize) -> u32 {
        self.primaries[member].saturating_sub(self.high.min(self.most[member]))
    }

    fn under(&self, member: usize) -> u32 {
        self.low.min(self.most[member]).saturating_sub(self.primaries[member])
    }

    fn is_even(&self) -> bool {
        self.off == (0, 0)
    }

    /// Hands over the primary of `item`, if that makes it more even.
    fn hand(&mut self, item: usize, pass: Pass) {
        if self.is_even() {
            return;
        }
        let holders = self.desired.of(item);
        let Some(from) = holders.iter().position(|holder| holder.is_primary()) else { return };
        let giver = holders[from].member() as usize;
        let too_many = self.over(giver) > 0;
        if !too_many && (pass == Pass::Pairs || self.primaries[giver] <= self.low) {
            return;
        }
        let taker = (0..holders.len())
            .filter(|at| *at != from)
            .filter(|at| {
                let member = holders[*at].member() as usize;
                let too_few = self.under(member) > 0;
                let room = self.primaries[member] < self.high.min(self.most[member]);
                self.may(item, member) && (too_few || pass == Pass::Any && too_many && room)
            })
            .min_by_key(|at| {
                (self.primaries[holders[*at].member() as usize], !holders[*at].is_consistent())
            });
        if let Some(to) = taker {
            self.move_primary(item, from, to);
        }
    }

    fn move_primary(&mut self, item: usize, from: usize, to: usize) {
        let holders = self.desired.of(item);
        let (giver, taker) = (holders[from].member() as usize, holders[to].member() as usize);
        for member in [giver, taker] {
            self.off.0 -= self.over(member);
            self.off.1 -= self.under(member);
        }
        self.primaries[giver] -= 1;
        self.primaries[taker] += 1;
        for member in [giver, taker] {
            self.off.0 += self.over(member);
            self.off.1 += self.under(member);
        }
        let holders = self.desired.of_mut(item);
        holders[from] = holders[from].replica();
        holders[to] = holders[to].primary();
    }

    /// Hands primaries along paths, from the members with the most down.
    fn paths(&mut self) {
        let mut items = vec![Vec::new(); self.most.len()];
        for (item, holders) in (0..).zip(self.desired.iter()) {
            if let Some(primary) = holders.iter().find(|holder| holder.is_primary()) {
                items[primary.member() as usize].push(item);
            }
        }
        let mut settled = vec![false; self.most.len()];
        let mut level = self.primaries.iter().copied().max().unwrap_or(0);
        while level >= 2 {
            let reached = self.path(level, &mut items, &settled);
            match reached {
                None => level -= 1,
                Some(reached) if reached.is_empty() => {}
                Some(reached) => {
                    for member in reached {
                        settled[member] = true;
                    }
                    level -= 1;
                }
            }
        }
    }

    /// Looks for a path from the members with `level` primaries to one with two fewer, and follows
    /// it: nothing is returned in it. If there is none: all that can be reached. `None`: there is
    /// nobody to begin with.
    fn path(&mut self, level: u32, items: &mut [Vec<u32>], settled: &[bool]) -> Option<Vec<usize>> {
        let mut came: Vec<Option<(usize, u32)>> = vec![None; settled.len()];
        let mut seen = settled.to_vec();
        let mut queue = VecDeque::new();
        for member in 0..settled.len() {
            if !settled[member] && self.primaries[member] == level {
                seen[member] = true;
                queue.push_back(member);
            }
        }
        if queue.is_empty() {
            return None;
        }
        let mut reached = Vec::new();
        while let Some(member) = queue.pop_front() {
            reached.push(member);
            if self.primaries[member] + 2 <= level {
                self.follow(member, &came, items);
                return Some(Vec::new());
            }
            for item in &items[member] {
                for holder in self.desired.of(*item as usize) {
                    let next = holder.member() as usize;
                    if !seen[next] && self.may(*item as usize, next) {
                        seen[next] = true;
                        came[next] = Some((member, *item));
                        queue.push_back(next);
                    }
                }
            }
        }
        Some(reached)
    }

    fn follow(&mut self, end: usize, came: &[Option<(usize, u32)>], items: &mut [Vec<u32>]) {
        let mut to = end;
        while let Some((from, item)) = came[to] {
            let place = |holders: &[Holder], member: usize| {
                holders.iter().position(|holder| holder.member() as usize == member)
            };
            let holders = self.desired.of(item as usize);
            if let (Some(giver), Some(taker)) = (place(holders, from), place(holders, to)) {
                self.move_primary(item as usize, giver, taker);
            }
            items[from].retain(|other| *other != item);
            items[to].push(item);
            to = from;
        }
    }
}
