//! Primaries at scale: one of each item's holders, evenly, with few hand-offs.
//!
//! Whoever is primary stays it, items without one go to their holder with the fewest, and only then
//! are primaries handed from members that have too many to co-holders that have too few. Where no
//! such pair is left and it is still uneven, they are handed along paths, from one member's item to
//! the next, until no path leads to a member that has two fewer: then it is as even as the placement
//! allows, by every measure of that.

use std::collections::{BTreeSet, VecDeque};

use super::{
    fill::Filled,
    problem::{Holder, Primaries, Problem},
};

/// Chooses the primaries of what was filled. The items that were touched are asked first, and those
/// that are touched here are added to them.
pub(super) fn elect(problem: &Problem, filled: &mut Filled) {
    let mut election = Election::new(problem, filled);
    election.fill_empty();
    election.bound();
    for pass in [Pass::Pairs, Pass::Any] {
        if pass == Pass::Pairs && (election.off.0 == 0 || election.off.1 == 0) {
            continue;
        }
        for at in 0..election.filled.touched.len() {
            if election.is_even() {
                return;
            }
            election.hand(election.filled.touched[at] as usize, pass);
        }
        for item in 0..election.filled.desired.len() {
            if election.is_even() {
                return;
            }
            election.hand(item, pass);
        }
    }
    for way in [Way::Up, Way::Down] {
        if !election.is_even() {
            election.relay(way);
        }
    }
    if !election.is_even() {
        election.paths();
    }
}

/// Who hands to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Those with too many to those with too few.
    Pairs,
    /// One of the two may be anybody who has room, or one to spare.
    Any,
}

/// Which end of a relay is off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Members that have too few get one.
    Up,
    /// Members that have too many give one.
    Down,
}

struct Election<'a> {
    problem: &'a Problem,
    filled: &'a mut Filled,
    /// The most that each member can be primary of.
    most: Vec<u32>,
    /// The even share, rounded down and up.
    low: u32,
    high: u32,
    /// Members beyond what is even: too many, too few.
    off: (u32, u32),
    /// Items that nobody who takes primaries holds, and that had none.
    stuck: BTreeSet<u32>,
}

impl<'a> Election<'a> {
    fn new(problem: &'a Problem, filled: &'a mut Filled) -> Self {
        let most = filled.loads.clone();
        Self { problem, filled, most, low: 0, high: 0, off: (0, 0), stuck: BTreeSet::new() }
    }

    fn primaries(&self, member: usize) -> u32 {
        self.filled.primaries[member]
    }

    fn holders(&self, item: usize) -> &[Holder] {
        self.filled.desired.of(item)
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

    /// Gives a primary to the items that have none: those that were touched, and if those are not
    /// all, whichever they are.
    fn fill_empty(&mut self) {
        let items = self.filled.desired.len() - self.filled.empty;
        let elected =
            |election: &Self| election.filled.primaries.iter().map(|n| *n as usize).sum::<usize>();
        for at in 0..self.filled.touched.len() {
            self.fill_item(self.filled.touched[at] as usize);
        }
        if elected(self) < items {
            for item in 0..self.filled.desired.len() {
                if self.fill_item(item) {
                    self.filled.touched.push(u32::try_from(item).unwrap_or(u32::MAX));
                }
            }
        }
    }

    /// Whether the item had no primary, and has one now.
    fn fill_item(&mut self, item: usize) -> bool {
        let holders = self.holders(item);
        if holders.iter().any(|holder| holder.is_primary()) {
            return false;
        }
        let best = (0..holders.len()).min_by_key(|at| {
            let member = holders[*at].member() as usize;
            (!self.takes(member), self.primaries(member), !holders[*at].is_consistent())
        });
        let Some(best) = best else { return false };
        let member = holders[best].member() as usize;
        if !self.takes(member) {
            self.stuck.insert(u32::try_from(item).unwrap_or(u32::MAX));
        }
        let holder = &mut self.filled.desired.of_mut(item)[best];
        *holder = holder.primary();
        self.filled.primaries[member] += 1;
        true
    }

    /// Finds the even share: everybody has so many, or as many as they can.
    fn bound(&mut self) {
        for member in 0..self.most.len() {
            if !self.takes(member) {
                self.most[member] = self.primaries(member);
            }
        }
        for item in &self.stuck {
            for holder in self.filled.desired.of(*item as usize) {
                self.most[holder.member() as usize] += u32::from(!holder.is_primary());
            }
        }
        let sum =
            |level: u32| -> u64 { self.most.iter().map(|most| u64::from(level.min(*most))).sum() };
        let items = self.filled.desired.len() - self.filled.empty;
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        let (mut low, mut high) = (0, items);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if sum(middle) <= u64::from(items) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        self.low = low;
        self.high = if sum(low) == u64::from(items) { low } else { low + 1 };
        for member in 0..self.most.len() {
            self.off.0 += self.over(member);
            self.off.1 += self.under(member);
        }
    }

    fn over(&self, member: usize) -> u32 {
        self.primaries(member).saturating_sub(self.high.min(self.most[member]))
    }

    fn under(&self, member: usize) -> u32 {
        self.low.min(self.most[member]).saturating_sub(self.primaries(member))
    }

    fn is_even(&self) -> bool {
        self.off == (0, 0)
    }

    /// Hands over the primary of `item`, if that makes it more even.
    fn hand(&mut self, item: usize, pass: Pass) {
        let holders = self.holders(item);
        let Some(from) = holders.iter().position(|holder| holder.is_primary()) else { return };
        let giver = holders[from].member() as usize;
        let too_many = self.over(giver) > 0;
        if !too_many && (pass == Pass::Pairs || self.primaries(giver) <= self.low) {
            return;
        }
        let taker = (0..holders.len())
            .filter(|at| *at != from)
            .filter(|at| {
                let member = holders[*at].member() as usize;
                let too_few = self.under(member) > 0;
                let room = self.primaries(member) < self.high.min(self.most[member]);
                self.may(item, member) && (too_few || pass == Pass::Any && too_many && room)
            })
            .min_by_key(|at| {
                (self.primaries(holders[*at].member() as usize), !holders[*at].is_consistent())
            });
        if let Some(to) = taker {
            self.move_primary(item, from, to);
        }
    }

    fn move_primary(&mut self, item: usize, from: usize, to: usize) {
        let holders = self.holders(item);
        let (giver, taker) = (holders[from].member() as usize, holders[to].member() as usize);
        for member in [giver, taker] {
            self.off.0 -= self.over(member);
            self.off.1 -= self.under(member);
        }
        self.filled.primaries[giver] -= 1;
        self.filled.primaries[taker] += 1;
        for member in [giver, taker] {
            self.off.0 += self.over(member);
            self.off.1 += self.under(member);
        }
        let holders = self.filled.desired.of_mut(item);
        holders[from] = holders[from].replica();
        holders[to] = holders[to].primary();
        self.filled.touched.push(u32::try_from(item).unwrap_or(u32::MAX));
    }

    /// Hands over by two: somebody who is even passes one on, and gets another. The first reading of
    /// all items finds who may pass what on to, or from, a member that is off; the second finds the
    /// other half.
    fn relay(&mut self, way: Way) {
        let is_off = |election: &Self, member: usize| match way {
            Way::Up => election.under(member) > 0,
            Way::Down => election.over(member) > 0,
        };
        let mut links: Vec<Option<u32>> = vec![None; self.most.len()];
        for item in 0..self.filled.desired.len() {
            let holders = self.holders(item);
            let Some(from) = holders.iter().find(|holder| holder.is_primary()) else { continue };
            let from = from.member() as usize;
            for holder in holders {
                let to = holder.member() as usize;
                let (off, between) = if way == Way::Up { (to, from) } else { (from, to) };
                if from != to && is_off(self, off) && self.may(item, to) {
                    links[between] = u32::try_from(item).ok();
                }
            }
        }
        for item in 0..self.filled.desired.len() {
            if self.is_even() {
                return;
            }
            self.relay_item(item, way, &mut links);
        }
    }

    /// Tries one item as the other half of a relay.
    fn relay_item(&mut self, item: usize, way: Way, links: &mut [Option<u32>]) {
        let holders = self.holders(item);
        let Some(from) = holders.iter().position(|holder| holder.is_primary()) else { return };
        let giver = holders[from].member() as usize;
        let spare = self.primaries(giver) > self.low;
        for to in (0..holders.len()).filter(|to| *to != from) {
            let taker = holders[to].member() as usize;
            let room = self.primaries(taker) < self.high.min(self.most[taker]);
            let (fits, between) = match way {
                Way::Up => (spare, taker),
                Way::Down => (room, giver),
            };
            let Some(link) = links[between].filter(|link| fits && *link as usize != item) else {
                continue;
            };
            if !self.may(item, taker) {
                continue;
            }
            links[between] = None;
            if let Some((from_link, to_link)) = self.half(link as usize, between, way) {
                self.move_primary(item, from, to);
                self.move_primary(link as usize, from_link, to_link);
                return;
            }
        }
    }

    /// The places of `item` that the first half of a relay hands between, if that still helps.
    fn half(&self, item: usize, between: usize, way: Way) -> Option<(usize, usize)> {
        let holders = self.holders(item);
        let from = holders.iter().position(|holder| holder.is_primary())?;
        let giver = holders[from].member() as usize;
        let to = holders.iter().position(|holder| {
            let taker = holder.member() as usize;
            taker != giver
                && match way {
                    Way::Up => giver == between && self.under(taker) > 0,
                    Way::Down => taker == between && self.over(giver) > 0,
                }
                && self.may(item, taker)
        })?;
        Some((from, to))
    }

    /// Hands primaries along paths, from the members with the most down.
    fn paths(&mut self) {
        let mut items = vec![Vec::new(); self.most.len()];
        for (item, holders) in (0..).zip(self.filled.desired.iter()) {
            if let Some(primary) = holders.iter().find(|holder| holder.is_primary()) {
                items[primary.member() as usize].push(item);
            }
        }
        let mut settled = vec![false; self.most.len()];
        let mut level = self.filled.primaries.iter().copied().max().unwrap_or(0);
        while level >= 2 {
            let layers = self.layers(level, &items, &settled);
            if layers.found {
                self.blocking(level, layers, &mut items);
                continue;
            }
            for (settled, depth) in settled.iter_mut().zip(&layers.depth) {
                *settled |= *depth != FAR;
            }
            level -= 1;
        }
    }

    /// How many hand-offs each member is away from those with `level` primaries, up to the nearest
    /// that has two fewer.
    fn layers(&self, level: u32, items: &[Vec<u32>], settled: &[bool]) -> Layers {
        let mut depth = vec![FAR; settled.len()];
        let mut queue = VecDeque::new();
        for member in 0..settled.len() {
            if !settled[member] && self.primaries(member) == level {
                depth[member] = 0;
                queue.push_back(member);
            }
        }
        let mut end = FAR;
        while let Some(member) = queue.pop_front() {
            if depth[member] >= end {
                break;
            }
            for item in &items[member] {
                for holder in self.holders(*item as usize) {
                    let next = holder.member() as usize;
                    if depth[next] == FAR && !settled[next] && self.may(*item as usize, next) {
                        depth[next] = depth[member] + 1;
                        if self.primaries(next) + 2 <= level {
                            end = depth[next];
                        }
                        queue.push_back(next);
                    }
                }
            }
        }
        Layers { depth, found: end != FAR }
    }

    /// Follows paths through the layers until there is none left.
    fn blocking(&mut self, level: u32, mut layers: Layers, items: &mut [Vec<u32>]) {
        // By member, which of its items is to be handed on next.
        let mut current = vec![0; items.len()];
        let depth = &layers.depth;
        let starts: Vec<usize> = (0..items.len()).filter(|member| depth[*member] == 0).collect();
        for start in starts {
            let mut path: Vec<usize> = vec![start];
            while let Some(member) = path.last().copied() {
                if self.primaries(member) + 2 <= level {
                    self.follow(&path, &current, items);
                    break;
                }
                if let Some(next) = self.step(member, &layers, &mut current, items) {
                    path.push(next);
                } else {
                    // A dead end is one for all who come later too.
                    layers.depth[member] = FAR;
                    path.pop();
                }
            }
        }
    }

    /// The next member, one layer on, that the item of `member` in hand, or a later one, may go to.
    fn step(
        &self,
        member: usize,
        layers: &Layers,
        current: &mut [usize],
        items: &[Vec<u32>],
    ) -> Option<usize> {
        while let Some(item) = items[member].get(current[member]) {
            let item = *item as usize;
            let holders = self.holders(item).iter().map(|holder| holder.member() as usize);
            let mut open = holders.filter(|next| {
                layers.depth[*next] == layers.depth[member].saturating_add(1)
                    && layers.depth[*next] != FAR
                    && self.may(item, *next)
            });
            if let Some(next) = open.next() {
                return Some(next);
            }
            current[member] += 1;
        }
        None
    }

    /// Hands each member's item in hand to the next one of the path.
    fn follow(&mut self, path: &[usize], current: &[usize], items: &mut [Vec<u32>]) {
        for step in path.windows(2) {
            let (from, to) = (step[0], step[1]);
            let item = items[from].swap_remove(current[from]);
            items[to].push(item);
            let place = |holders: &[Holder], member: usize| {
                holders.iter().position(|holder| holder.member() as usize == member)
            };
            let holders = self.holders(item as usize);
            if let (Some(giver), Some(taker)) = (place(holders, from), place(holders, to)) {
                self.move_primary(item as usize, giver, taker);
            }
        }
    }
}

/// A member that cannot be reached.
const FAR: u32 = u32::MAX;

/// How far members are from those that have too many.
struct Layers {
    depth: Vec<u32>,
    found: bool,
}
