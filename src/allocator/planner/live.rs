//! Rows that are kept from plan to plan, so that the next one touches only what has to change.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    draft::{Draft, UNPLACED},
    holder::{Holder, holds},
    holdings::{Holdings, Rewrite},
    kinds::narrow,
    lists::Lists,
};

/// Who is to hold each item, and who holds those that are not yet so.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    rows: Rows,
    /// Who holds the items that are, or may be, not as they are to be.
    moving: BTreeMap<u32, Vec<Holder>>,
    /// Those of them that are to be looked at even if they are held as they were to be.
    touched: BTreeSet<u32>,
    /// Who was to hold them by the last plan.
    wishes: BTreeMap<u32, Vec<Holder>>,
    /// Everybody's lists, from the rows.
    lists: Lists,
    /// By member, its part of the primaries, in the order of the [parts](super::parts); empty if they are not
    /// known, or all are one.
    parts: Vec<u32>,
}

impl Live {
    /// From a plan that was made at once, and who held the items then.
    pub(super) fn new(members: usize, desired: &Holdings, held: &Holdings) -> Self {
        let lists = Lists::new(members, desired);
        let both = (0..).zip(desired.iter().zip(held.iter()));
        let moving = both.filter(|(_, (row, held))| !is_same(row, held));
        let moving = moving.map(|(item, (_, held))| (item, held.to_vec())).collect();
        Self { rows: Rows::new(desired), moving, lists, ..Self::default() }
    }

    /// From who holds the items, while there is no plan.
    pub(super) fn unplanned(members: usize, held: &Holdings) -> Self {
        let lists = Lists::of_nobody(members);
        Self { rows: Rows::new(held), lists, ..Self::default() }
    }

    /// Makes room for one more member.
    pub(super) fn add_member(&mut self) {
        self.lists.add_member();
        if !self.parts.is_empty() {
            self.parts.push(UNPLACED);
        }
    }

    /// Adds an item that nobody is to hold yet.
    pub(super) fn add_item(&mut self, held: Vec<Holder>) {
        let item = narrow(self.rows.len);
        self.touched.insert(item);
        self.moving.insert(item, held);
        self.rows.push();
    }

    /// Says who holds an item now.
    pub(super) fn hold(&mut self, item: u32, held: Vec<Holder>) {
        if self.is_done(item, &held) {
            self.moving.remove(&item);
            self.rows.set(item as usize, &held);
        } else {
            self.moving.insert(item, held);
        }
    }

    /// Whether an item that these hold is done with: they are those who were to hold it.
    pub(super) fn is_done(&self, item: u32, held: &[Holder]) -> bool {
        is_same(self.rows.of(item as usize), held) && !self.touched.contains(&item)
    }

    /// Has an item looked at by the next plan.
    pub(super) fn touch(&mut self, item: u32) {
        self.touched.insert(item);
        self.hold_as_before(item);
    }

    fn hold_as_before(&mut self, item: u32) {
        let row = self.rows.of(item as usize);
        self.moving.entry(item).or_insert_with(|| row.to_vec());
    }

    /// Has all items looked at that a member is to hold.
    pub(super) fn touch_all_of(&mut self, member: u32) {
        self.of_member(member).into_iter().for_each(|item| self.touch(item));
    }

    /// The items that a member is to hold, each at least once.
    pub(super) fn of_member(&self, member: u32) -> Vec<u32> {
        let is = |item: &u32| holds(self.rows.of(*item as usize), member);
        self.lists.of(member).filter(is).collect()
    }

    /// The items that are, or may be, not as they are to be, in order.
    pub(super) fn moving(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.moving.keys().copied()
    }

    /// Sets an item back to who holds it.
    pub(super) fn reset(&mut self, item: u32) {
        if let Some(held) = self.moving.get(&item) {
            for holder in held {
                self.lists.add(holder.member(), item as usize);
            }
            self.rows.set(item as usize, held);
        }
    }

    /// Remembers who was to hold an item.
    pub(super) fn wish_as_before(&mut self, item: u32) {
        self.wishes.insert(item, self.rows.of(item as usize).to_vec());
    }

    /// Ends a plan: forgets items that are as they are to be, and puts in order what has grown.
    pub(super) fn settle(&mut self, loads: &[u32]) {
        self.wishes.clear();
        self.touched.clear();
        let Self { rows, moving, lists, .. } = self;
        for item in moving.keys() {
            for holder in rows.of(*item as usize) {
                let member = holder.member();
                let load = loads[member as usize] as usize;
                lists.tidy(member, load, |item| holds(rows.of(item as usize), member));
            }
        }
        moving.retain(|item, held| !is_same(rows.of(*item as usize), held));
        rows.tidy();
    }

    /// Who holds the items now.
    pub(super) fn all_held(&self) -> Holdings {
        let mut held = Holdings::with_capacity(self.rows.places.len());
        (0..self.len()).for_each(|item| held.push(self.held(item)));
        held
    }

    /// Who is to hold the items.
    pub(super) fn all_desired(&self) -> Holdings {
        let mut desired = Holdings::with_capacity(self.rows.places.len());
        (0..self.len()).for_each(|item| desired.push(self.of(item)));
        desired
    }
}

impl Draft for Live {
    fn len(&self) -> usize {
        self.rows.len
    }

    fn held(&self, item: usize) -> &[Holder] {
        match self.moving.get(&narrow(item)) {
            Some(held) => held,
            None => self.rows.of(item),
        }
    }

    fn of(&self, item: usize) -> &[Holder] {
        self.rows.of(item)
    }

    fn both(&mut self, item: usize) -> (&[Holder], &mut [Holder]) {
        let row = self.rows.of_mut(item);
        (self.moving.entry(narrow(item)).or_insert_with(|| row.to_vec()), row)
    }

    fn begin(&mut self, items: &[u32], rewrite: &mut impl Rewrite) {
        let mut row = Vec::new();
        for (at, item) in items.iter().enumerate() {
            self.hold_as_before(*item);
            row.resize(rewrite.length(at) as usize, Holder::VACANT);
            rewrite.write(*item, &self.moving[item], &mut row);
            // Who holds it now need not be whom the last plan wanted.
            for holder in row.iter().filter(|holder| **holder != Holder::VACANT) {
                if !holds(self.rows.of(*item as usize), holder.member()) {
                    self.lists.add(holder.member(), *item as usize);
                }
            }
            self.rows.set(*item as usize, &row);
        }
    }

    fn wish(&self, item: usize) -> &[Holder] {
        self.wishes.get(&narrow(item)).map_or(&[], |wish| wish)
    }

    fn close(&mut self) {
        let items: Vec<u32> = self.moving.keys().copied().collect();
        for item in items {
            let row = self.rows.of(item as usize);
            if row.contains(&Holder::VACANT) {
                let row: Vec<Holder> =
                    row.iter().copied().filter(|holder| *holder != Holder::VACANT).collect();
                self.rows.set(item as usize, &row);
            }
        }
    }

    fn lists(&self) -> &Lists {
        &self.lists
    }

    fn lists_mut(&mut self) -> &mut Lists {
        &mut self.lists
    }

    fn prepare(&mut self, _members: Option<&[u32]>) {}

    fn has_lists(&self) -> bool {
        true
    }

    fn parts(&self) -> Option<(Vec<u32>, Vec<u32>)> {
        (!self.parts.is_empty()).then(|| (self.parts.clone(), self.moving().collect()))
    }

    fn keep_parts(&mut self, of_member: Vec<u32>) {
        self.parts = of_member;
    }
}

/// Rows that can be changed, each at a place that follows from its number: a row that is read out of
/// turn, from anywhere in the memory, is waited for once, and not first for where it is.
#[derive(Clone, Debug, Default)]
struct Rows {
    len: usize,
    /// How many places each has here, what is left of them being [`Holder::NONE`].
    stride: usize,
    places: Vec<Holder>,
    /// The rows that are longer; their first place is [`Holder::ELSEWHERE`].
    long: BTreeMap<u32, Vec<Holder>>,
}

/// Up to one in so many rows may be longer than the others.
const LONG: usize = 64;

impl Rows {
    fn new(rows: &Holdings) -> Self {
        let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
        for row in rows.iter() {
            *lengths.entry(row.len()).or_default() += 1;
        }
        let mut longer = rows.len();
        let stride = lengths.into_iter().find(|(_, rows_of_it)| {
            longer -= rows_of_it;
            longer * LONG <= rows.len()
        });
        let stride = stride.map_or(1, |(length, _)| length.max(1));
        let mut all = Self { stride, ..Self::default() };
        all.places.reserve(rows.len() * stride);
        for (item, row) in rows.iter().enumerate() {
            all.push();
            all.set(item, row);
        }
        all
    }

    fn push(&mut self) {
        self.len += 1;
        self.places.resize(self.len * self.stride, Holder::NONE);
    }

    #[inline]
    fn of(&self, item: usize) -> &[Holder] {
        let row = &self.places[item * self.stride..(item + 1) * self.stride];
        // Nearly all have all places.
        if row[self.stride - 1] != Holder::NONE && row[0] != Holder::ELSEWHERE {
            return row;
        }
        match row.iter().position(|holder| *holder == Holder::NONE) {
            None if row[0] != Holder::ELSEWHERE => row,
            Some(len) if row[0] != Holder::ELSEWHERE => &row[..len],
            _ => &self.long[&narrow(item)],
        }
    }

    fn of_mut(&mut self, item: usize) -> &mut [Holder] {
        let len = self.of(item).len();
        let row = &mut self.places[item * self.stride..(item + 1) * self.stride];
        match self.long.get_mut(&narrow(item)).filter(|_| row[0] == Holder::ELSEWHERE) {
            Some(long) => long,
            None => &mut row[..len],
        }
    }

    fn set(&mut self, item: usize, row: &[Holder]) {
        let places = &mut self.places[item * self.stride..(item + 1) * self.stride];
        if places[0] == Holder::ELSEWHERE {
            self.long.remove(&narrow(item));
        }
        places.fill(Holder::NONE);
        if row.len() <= places.len() {
            places[..row.len()].copy_from_slice(row);
        } else {
            places[0] = Holder::ELSEWHERE;
            self.long.insert(narrow(item), row.to_vec());
        }
    }

    /// Gives more places to all, if many rows have become longer.
    fn tidy(&mut self) {
        if self.long.len() > LONG + self.len * 4 / LONG {
            let mut rows = Holdings::with_capacity(self.places.len());
            (0..self.len).for_each(|item| rows.push(self.of(item)));
            *self = Self::new(&rows);
        }
    }
}

/// Whether two rows name the same members, with the same primary.
fn is_same(row: &[Holder], held: &[Holder]) -> bool {
    row.len() == held.len()
        && row.iter().all(|holder| {
            held.iter().any(|held| {
                held.member() == holder.member() && held.is_primary() == holder.is_primary()
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(item: usize, len: usize) -> Vec<Holder> {
        (0..len).map(|at| Holder::new(narrow(item + at))).collect()
    }

    #[test]
    fn rows_of_any_length_are_found_again_as_they_grow_and_shrink() {
        let mut held = Holdings::default();
        let mut expected: Vec<Vec<Holder>> = Vec::new();
        for item in 0..300 {
            // One in a hundred is longer than the others.
            expected.push(row(item, if item % 100 == 7 { 9 } else { item % 4 }));
            held.push(&expected[item]);
        }
        let mut rows = Rows::new(&held);
        assert_eq!((rows.stride, rows.long.len()), (3, 3));
        for turn in 1..2_000 {
            let item = turn * 7 % expected.len();
            expected[item] = row(turn, turn * turn % 6);
            rows.set(item, &expected[item]);
            if turn % 50 == 0 {
                rows.tidy();
                rows.push();
                expected.push(Vec::new());
            }
            rows.of_mut(item).iter_mut().for_each(|holder| *holder = holder.consistent());
            expected[item].iter_mut().for_each(|holder| *holder = holder.consistent());
            assert!((0..expected.len()).all(|item| rows.of(item) == expected[item]), "turn {turn}");
        }
        // When many are longer, all get more places.
        assert_eq!(rows.stride, 4);
    }
}
