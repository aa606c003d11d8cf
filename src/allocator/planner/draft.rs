//! A plan in the making: who is to hold each item, beside who holds it now.

use std::ops::Range;

use super::{
    holder::{Holder, unrolled},
    holdings::{Holdings, Rewrite},
    kinds::narrow,
    lists::Lists,
    problem::Problem,
};

/// The rows of all items, to be changed.
pub(super) trait RowsMut {
    type Row: AsRef<[Holder]> + AsMut<[Holder]> + ?Sized;

    /// The row of an item.
    fn row(&mut self, item: usize) -> &mut Self::Row;
}

impl RowsMut for [[Holder; 3]] {
    type Row = [Holder; 3];

    #[inline]
    fn row(&mut self, item: usize) -> &mut [Holder; 3] {
        &mut self[item]
    }
}

impl<D: Draft> RowsMut for D {
    type Row = [Holder];

    #[inline]
    fn row(&mut self, item: usize) -> &mut [Holder] {
        self.of_mut(item)
    }
}

/// Rows of three places, before and after.
pub(super) type Threes<'a> = (&'a [[Holder; 3]], &'a [[Holder; 3]]);

/// The same, the latter to be changed.
pub(super) type ThreesMut<'a> = (&'a [[Holder; 3]], &'a mut [[Holder; 3]]);

/// The rows that a plan changes: all of them once, as a [`Sheet`], or only those that must, as in a
/// [`Planner`](super::Planner).
pub(super) trait Draft {
    /// The number of items.
    fn len(&self) -> usize;

    /// Who holds an item now.
    fn held(&self, item: usize) -> &[Holder];

    /// Who is to hold it; a place may be [vacant](Holder::VACANT).
    fn of(&self, item: usize) -> &[Holder];

    /// The same, to be changed.
    fn of_mut(&mut self, item: usize) -> &mut [Holder] {
        self.both(item).1
    }

    /// Who holds an item, and who is to hold it, to be changed.
    fn both(&mut self, item: usize) -> (&[Holder], &mut [Holder]);

    /// Who holds the items now, and who is to hold them, if all rows are of three places, as most are: so that
    /// the compiler knows their number.
    fn threes(&self) -> Option<Threes<'_>> {
        None
    }

    /// The same, to be changed.
    fn threes_mut(&mut self) -> Option<ThreesMut<'_>> {
        None
    }

    /// Who is to hold them, to be changed, if all rows will be of three places, whatever they were.
    fn new_threes(&mut self) -> Option<&mut [[Holder; 3]]> {
        None
    }

    /// Begins with who holds the items now, but for some, in order, whose rows are written anew.
    fn begin(&mut self, items: &[u32], rewrite: &mut impl Rewrite);

    /// Who was to hold an item by the last plan, if anything is known of it.
    fn wish(&self, _item: usize) -> &[Holder] {
        &[]
    }

    /// The first item from one on, and before another one, whose row `is` what is looked for.
    fn find(&self, from: usize, end: usize, is: impl Fn(&[Holder]) -> bool) -> Option<usize> {
        (from..end).find(|item| unrolled(self.of(*item), &is))
    }

    /// Writes down the items of a range whose rows are what is looked for. Returns how many those are.
    fn pick(
        &self,
        items: Range<usize>,
        is: impl Fn(&[Holder]) -> bool,
        found: &mut [u32],
    ) -> usize {
        let first = narrow(items.start);
        if let Some((_, rows)) = self.threes() {
            let rows = rows[items].iter().map(<[_; 3]>::as_slice);
            return pick(found, first, rows, |_, row| is(row));
        }
        pick(found, first, items.map(|item| self.of(item)), |_, row| is(row))
    }

    /// Drops the places that are still vacant.
    fn close(&mut self);

    /// Which items each member may be to hold.
    fn lists(&self) -> &Lists;

    /// The same, to be changed.
    fn lists_mut(&mut self) -> &mut Lists;

    /// Is told that `member` came into the row of `item`.
    fn came(&mut self, item: usize, member: u32) {
        self.lists_mut().add(member, item);
    }

    /// Is told whose items will be asked for; nobody is named if it may be anybody.
    fn prepare(&mut self, members: Option<&[u32]>);

    /// The items that `member` is to hold, each at least once, and perhaps others.
    fn items_of(&self, member: u32) -> Vec<u32> {
        self.lists().of(member).collect()
    }

    /// By member, the [part](super::parts) of the last plan, and the items that may have changed since.
    fn parts(&self) -> Option<(Vec<u32>, Vec<u32>)> {
        None
    }

    /// Keeps the parts of this plan.
    fn keep_parts(&mut self, _of_member: Vec<u32>) {}

    /// Whether everybody's items are known without asking for them.
    fn has_lists(&self) -> bool {
        false
    }
}

/// The part of a member that is in none yet.
pub(super) const UNPLACED: u32 = u32::MAX;

/// All rows, for a plan that is made at once.
pub(super) struct Sheet<'a> {
    problem: &'a Problem,
    pub desired: Holdings,
    lists: Lists,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        Self::with(problem, Holdings::default())
    }

    /// A plan that is made.
    pub(super) fn with(problem: &'a Problem, desired: Holdings) -> Self {
        Self { problem, desired, lists: Lists::of_nobody(problem.seats.len()) }
    }
}

impl Draft for Sheet<'_> {
    fn len(&self) -> usize {
        self.problem.held().len()
    }

    fn held(&self, item: usize) -> &[Holder] {
        self.problem.held().of(item)
    }

    fn of(&self, item: usize) -> &[Holder] {
        self.desired.of(item)
    }

    #[inline]
    fn of_mut(&mut self, item: usize) -> &mut [Holder] {
        self.desired.of_mut(item)
    }

    #[inline]
    fn both(&mut self, item: usize) -> (&[Holder], &mut [Holder]) {
        (self.problem.held().of(item), self.desired.of_mut(item))
    }

    fn threes(&self) -> Option<Threes<'_>> {
        Some((self.problem.held().threes()?, self.desired.threes()?))
    }

    fn threes_mut(&mut self) -> Option<ThreesMut<'_>> {
        Some((self.problem.held().threes()?, self.desired.threes_mut()?))
    }

    fn new_threes(&mut self) -> Option<&mut [[Holder; 3]]> {
        self.desired.threes_mut()
    }

    fn begin(&mut self, items: &[u32], rewrite: &mut impl Rewrite) {
        self.desired = self.problem.held().rewritten(items, rewrite);
    }

    fn find(&self, from: usize, end: usize, is: impl Fn(&[Holder]) -> bool) -> Option<usize> {
        // Of rows of three, as most are, the compiler is to know that; of others, what is known of all is not
        // asked at each.
        match (self.desired.threes(), self.desired.each()) {
            (Some(rows), _) => rows[from..end].iter().position(|row| is(row)).map(|at| from + at),
            (None, Some(_)) => (from..end).find(|item| is(self.of(*item))),
            (None, None) => {
                let mut rows = (from..end).zip(self.desired.uneven(from..end));
                rows.find(|(_, row)| is(row)).map(|(item, _)| item)
            }
        }
    }

    fn close(&mut self) {
        self.desired.retain(|holder| holder != Holder::VACANT);
    }

    fn lists(&self) -> &Lists {
        &self.lists
    }

    fn lists_mut(&mut self) -> &mut Lists {
        &mut self.lists
    }

    fn prepare(&mut self, members: Option<&[u32]>) {
        match members {
            Some(members) => self.lists.gather(members, &self.desired),
            None => self.lists.gather_all(&self.desired),
        }
    }
}

/// Writes down the items, from the first on, whose rows are what is looked for. Returns how many those are.
#[inline]
pub(super) fn pick<R>(
    found: &mut [u32],
    first: u32,
    mut rows: impl Iterator<Item = R>,
    mut is: impl FnMut(u32, R) -> bool,
) -> usize {
    // So many are asked, and each answer is a bit, without a branch, because nobody can guess which are.
    let (mut next, mut end) = (first, 0);
    loop {
        let (from, mut are) = (next, 0u64);
        for row in rows.by_ref().take(64) {
            are = are << 1 | u64::from(is(next, row));
            next += 1;
        }
        if next == from {
            return end;
        }
        while are != 0 {
            let behind = are.ilog2();
            found[end] = next - 1 - behind;
            end += 1;
            are ^= 1 << behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_looked_for_are_found_in_order_however_many_rows_there_are() {
        for rows in [0, 1, 63, 64, 65, 200] {
            let row = [Holder::new(1)];
            let is = |item: u32| item % 3 == 1 || item.is_multiple_of(64);
            let mut found = vec![0; rows];
            let all = (0..rows).map(|_| &row[..]);
            let are = pick(&mut found, 5, all, |item, _| is(item));
            let expected: Vec<u32> = (5..).take(rows).filter(|item| is(*item)).collect();
            assert_eq!(found[..are], expected);
        }
    }
}
