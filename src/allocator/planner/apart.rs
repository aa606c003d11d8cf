//! Takes replicas of an item apart that counting left together, by the rules of what zones lie in.
//!
//! Counting knows of zones, and of how much goes to each of what they lie in, but not item by item. Where an
//! item has too many replicas together afterwards, one of them changes places with a replica of another item, so
//! that everybody's load stays, or goes to somebody who may have more. What is new anyway changes places first, as
//! that costs nothing. Where the rules are required, what is beyond them in the end is not placed.

use super::{
    crown::Crown,
    draft::Draft,
    fair::Fair,
    fill::{Filled, VACANT, place},
    flow::index,
    holder::{Holder, holds},
    kinds::{NOWHERE, narrow},
    problem::Problem,
};

/// See the [module](self). `windows` are the least and the greatest load of each member.
pub(super) fn set_apart<D: Draft>(
    problem: &Problem,
    fair: &Fair,
    windows: &[(i64, i64)],
    filled: &mut Filled<D>,
) {
    let mut apart = Apart::new(problem, fair, windows, filled);
    let mut crowded = apart.crowded();
    // Who helped another item may be in the way of a third.
    for _ in 0..ROUNDS {
        let before = apart.beyond;
        apart.help_all(&crowded);
        if apart.beyond == fair.beyond || apart.beyond == before {
            break;
        }
        crowded = apart.crowded();
    }
    if fair.beyond == 0 && !fair.short {
        let new = (0..apart.filled.draft.len()).map(|item| apart.comes_at_least(item)).sum();
        apart.filled.lower_bound = apart.filled.lower_bound.max(new);
    }
    if problem.required {
        apart.crowded().into_iter().for_each(|item| apart.drop_beyond(item));
        apart.filled.draft.close();
    }
}

/// Which replicas change places.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    New,
    Any,
}

/// Among which items one is looked for that another one changes places with.
#[derive(Clone, Copy)]
enum Among {
    /// Those that have replicas beyond the rules themselves: both may be helped, and few others may help where the rules
    /// leave no choice.
    Crowded,
    New,
    All,
}

/// Which replicas of the one and which of the other change places, what costs nothing first.
const KINDS: [(Which, Among, Which); 5] = [
    (Which::New, Among::Crowded, Which::New),
    (Which::New, Among::New, Which::New),
    (Which::Any, Among::Crowded, Which::Any),
    (Which::Any, Among::New, Which::New),
    (Which::Any, Among::All, Which::Any),
];

/// So often all items are asked again.
const ROUNDS: usize = 8;

/// So many items are looked at for one to change places with, of each zone.
const LOOKS: usize = 1 << 10;

struct Apart<'a, D> {
    problem: &'a Problem,
    fair: &'a Fair,
    windows: &'a [(i64, i64)],
    filled: &'a mut Filled<D>,
    crown: Crown,
    /// By zone, its members.
    members: Vec<Vec<u32>>,
    /// By zone, items that are new there; some may have gone on.
    new: Vec<Vec<u32>>,
    /// By zone, the items there that have replicas beyond the rules, or had.
    crowded: Vec<Vec<u32>>,
    /// By zone, where to go on looking in each list.
    cursors: Vec<[usize; 3]>,
    /// How many replicas are beyond the rules.
    beyond: i64,
}

impl<'a, D: Draft> Apart<'a, D> {
    fn new(
        problem: &'a Problem,
        fair: &'a Fair,
        windows: &'a [(i64, i64)],
        filled: &'a mut Filled<D>,
    ) -> Self {
        let zones = fair.zones.len();
        let mut members = vec![Vec::new(); zones];
        for (member, zone) in (0..).zip(&*fair.zones.of_member) {
            if *zone != NOWHERE {
                members[*zone as usize].push(member);
            }
        }
        let mut new = vec![Vec::new(); zones];
        for item in &filled.touched {
            let held = filled.draft.held(*item as usize);
            for holder in filled.draft.of(*item as usize) {
                if *holder != VACANT && !holds(held, holder.member()) {
                    new[fair.zones.of(*holder) as usize].push(*item);
                }
            }
        }
        let (crown, cursors) = (Crown::new(problem), vec![[0; 3]; zones]);
        let crowded = vec![Vec::new(); zones];
        Self { problem, fair, windows, filled, crown, members, new, crowded, cursors, beyond: 0 }
    }

    /// The items that have replicas beyond the rules. All are counted.
    fn crowded(&mut self) -> Vec<u32> {
        let mut crowded = Vec::new();
        self.beyond = 0;
        self.crowded.iter_mut().for_each(Vec::clear);
        for item in 0..self.filled.draft.len() {
            let beyond = self.beyond_of(item, self.filled.draft.of(item));
            self.beyond += beyond;
            if beyond > 0 {
                crowded.push(narrow(item));
                let row = self.filled.draft.of(item).iter().filter(|holder| **holder != VACANT);
                for holder in row {
                    self.crowded[self.fair.zones.of(*holder) as usize].push(narrow(item));
                }
            }
        }
        crowded
    }

    fn class(&self, item: usize) -> usize {
        self.fair.classes.of(self.problem, item)
    }

    /// How many of these holders of an item are beyond the rules.
    fn beyond_of(&self, item: usize, row: &[Holder]) -> i64 {
        let (class, fair) = (self.class(item), self.fair);
        let row: Vec<Holder> = row.iter().copied().filter(|holder| *holder != VACANT).collect();
        let (around, _) = fair.levels.beyond(class, &fair.zones, &row);
        index(fair.zones.beyond(&row, fair.rule[class]) + around)
    }

    /// How many replicas of an item are new in all plans that have it within the rules.
    fn comes_at_least(&self, item: usize) -> u64 {
        let (class, fair) = (self.class(item), self.fair);
        let mut in_zone = vec![0; fair.zones.len()];
        let held = self.filled.draft.held(item).iter();
        for holder in held.filter(|holder| fair.is_legal(class, **holder)) {
            in_zone[fair.zones.of(*holder) as usize] += 1;
        }
        let in_zone: Vec<usize> =
            in_zone.into_iter().map(|held: usize| held.min(fair.rule[class])).collect();
        let stays = fair.levels.within(class, &in_zone);
        (self.problem.wanted(item) as usize).saturating_sub(stays) as u64
    }

    /// How many fewer are, if a member comes to a place of an item.
    fn gain(&self, item: usize, at: usize, to: u32) -> i64 {
        let mut row = self.filled.draft.of(item).to_vec();
        let before = self.beyond_of(item, &row);
        row[at] = Holder::new(to);
        before - self.beyond_of(item, &row)
    }

    fn zone(&self, member: u32) -> usize {
        self.fair.zones.of_member[member as usize] as usize
    }

    /// Whether a replica of an item is one of which.
    fn is(&self, which: Which, item: usize, holder: Holder) -> bool {
        holder != VACANT
            && (which == Which::Any || !holds(self.filled.draft.held(item), holder.member()))
    }

    /// Helps items as long as it is known that it can be.
    fn help_all(&mut self, crowded: &[u32]) {
        for kind in KINDS {
            for item in crowded {
                while self.beyond > self.fair.beyond && self.help(*item, kind) {}
            }
        }
        // Only then, because nobody changes places any more where the totals are not as they were planned.
        for item in crowded {
            while self.beyond > self.fair.beyond && self.help_alone(*item) {}
        }
    }

    /// Where a replica of an item would better be: its place, the zone, and how much is gained by that.
    fn better(&self, item: usize, which: Which) -> Vec<(usize, usize, i64)> {
        let (class, row) = (self.class(item), self.filled.draft.of(item));
        let mut better = Vec::new();
        for at in (0..row.len()).filter(|at| self.is(which, item, row[*at])) {
            for zone in (0..self.members.len()).filter(|zone| self.fair.is_open(class, *zone)) {
                // Anybody there says what it is worth.
                let gain = self.members[zone].first().map_or(0, |any| self.gain(item, at, *any));
                if gain > 0 {
                    better.push((at, zone, gain));
                }
            }
        }
        better
    }

    /// Lets one replica of an item change places with one of another item. False: none was found.
    fn help(&mut self, item: u32, (own, among, theirs): (Which, Among, Which)) -> bool {
        let item = item as usize;
        let better = self.better(item, own);
        better
            .into_iter()
            .any(|(at, zone, gain)| self.swap((item, at), (zone, gain), among, theirs))
    }

    /// Moves one replica of an item. False: nobody may have it.
    fn help_alone(&mut self, item: u32) -> bool {
        let item = item as usize;
        let better = self.better(item, Which::Any);
        better.into_iter().any(|(at, zone, _)| self.move_to(item, at, zone))
    }

    /// Moves a replica to somebody in a zone who may have one more, if its member may have one fewer.
    fn move_to(&mut self, item: usize, at: usize, zone: usize) -> bool {
        let row = self.filled.draft.of(item);
        let from = row[at].member();
        let may = |to: &&u32| self.load(**to) < self.windows[**to as usize].1 && !holds(row, **to);
        let Some(to) = self.members[zone].iter().find(may).copied() else { return false };
        if self.load(from) <= self.windows[from as usize].0 {
            return false;
        }
        self.filled.loads[from as usize] -= 1;
        self.filled.loads[to as usize] += 1;
        self.hand(item, at, to);
        true
    }

    fn load(&self, member: u32) -> i64 {
        i64::from(self.filled.loads[member as usize])
    }

    /// Lets a replica change places with one of another item in a zone, which gains so much for the first.
    fn swap(
        &mut self,
        (item, at): (usize, usize),
        (zone, gain): (usize, i64),
        among: Among,
        theirs: Which,
    ) -> bool {
        let (kind, list) = match among {
            Among::Crowded => (0, Some(&self.crowded[zone])),
            Among::New => (1, Some(&self.new[zone])),
            Among::All => (2, None),
        };
        let end = list.map_or(self.filled.draft.len(), Vec::len);
        let mut cursor = self.cursors[zone][kind];
        let mut found = None;
        for _ in 0..end.min(LOOKS) {
            cursor = (cursor + 1) % end;
            let other = list.map_or(cursor, |list| list[cursor] as usize);
            found =
                self.partner((item, at), (zone, gain), other, theirs).map(|place| (other, place));
            if found.is_some() {
                break;
            }
        }
        self.cursors[zone][kind] = cursor;
        let Some((other, place)) = found else { return false };
        let (one, two) = (self.filled.draft.of(item)[at], self.filled.draft.of(other)[place]);
        self.hand(item, at, two.member());
        self.hand(other, place, one.member());
        true
    }

    /// The place of another item in a zone with which a replica may change places.
    fn partner(
        &self,
        (item, at): (usize, usize),
        (zone, gain): (usize, i64),
        other: usize,
        which: Which,
    ) -> Option<usize> {
        let (row, others) = (self.filled.draft.of(item), self.filled.draft.of(other));
        let from = row[at].member();
        if other == item
            || holds(others, from)
            || !self.fair.is_open(self.class(other), self.zone(from))
        {
            return None;
        }
        (0..others.len()).find(|place| {
            let holder = others[*place];
            self.is(which, other, holder)
                && self.zone(holder.member()) == zone
                && !holds(row, holder.member())
                && self.gain(other, *place, from) + gain > 0
        })
    }

    /// Gives a place of an item to another member.
    fn hand(&mut self, item: usize, at: usize, to: u32) {
        self.beyond -= self.gain(item, at, to);
        let Filled { draft, primaries, touched, .. } = &mut *self.filled;
        let (held, row) = draft.both(item);
        primaries[row[at].member() as usize] -= u32::from(row[at].is_primary());
        place(held, row, at, to, primaries);
        self.crown.choose(row, primaries);
        draft.came(item, to);
        touched.push(narrow(item));
        let zone = self.zone(to);
        self.new[zone].push(narrow(item));
    }

    /// Leaves out what of an item is beyond the rules: what is new before what stands, primaries last.
    fn drop_beyond(&mut self, item: u32) {
        let number = item as usize;
        while self.beyond_of(number, self.filled.draft.of(number)) > 0 {
            let (row, held) = (self.filled.draft.of(number), self.filled.draft.held(number));
            let rank = |at: usize| {
                let mut left = row.to_vec();
                left[at] = VACANT;
                let holder = row[at];
                let stands = holds(held, holder.member());
                (self.beyond_of(number, &left), stands, holder.is_consistent(), holder.is_primary())
            };
            let places = (0..row.len()).filter(|at| row[*at] != VACANT);
            let Some(at) = places.min_by_key(|at| rank(*at)) else { return };
            let Filled { draft, primaries, touched, loads, .. } = &mut *self.filled;
            let row = draft.of_mut(number);
            let holder = std::mem::replace(&mut row[at], VACANT);
            loads[holder.member() as usize] -= 1;
            primaries[holder.member() as usize] -= u32::from(holder.is_primary());
            self.crown.choose(row, primaries);
            touched.push(item);
        }
    }
}
