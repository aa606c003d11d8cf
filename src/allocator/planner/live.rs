//! Rows that are kept from plan to plan, so that the next one touches only what has to change.

use std::collections::BTreeMap;

use super::{
    draft::Draft,
    kinds::narrow,
    lists::Lists,
    problem::{Holder, Holdings, holds},
    takers::spread,
};

/// Who is to hold each item, and who holds those that are not yet so.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    rows: Rows,
    /// Who holds the items that are, or may be, not as they are to be.
    moving: BTreeMap<u32, Vec<Holder>>,
    /// Who was to hold them by the last plan.
    wishes: BTreeMap<u32, Vec<Holder>>,
    /// Everybody's lists, from the rows.
    lists: Lists,
}

impl Live {
    /// From a plan that was made at once, and who held the items then.
    pub(super) fn new(members: usize, desired: Holdings, held: &Holdings) -> Self {
        let lists = Lists::new(members, &desired);
        let mut moving = BTreeMap::new();
        for (item, (row, held)) in (0..).zip(desired.iter().zip(held.iter())) {
            if !is_same(row, held) {
                moving.insert(item, held.to_vec());
            }
        }
        Self { rows: Rows::new(desired), moving, wishes: BTreeMap::new(), lists }
    }

    /// From who holds the items, while there is no plan.
    pub(super) fn unplanned(members: usize, held: Holdings) -> Self {
        let lists = Lists::of_nobody(members);
        Self { rows: Rows::new(held), moving: BTreeMap::new(), wishes: BTreeMap::new(), lists }
    }

    /// Makes room for one more member.
    pub(super) fn add_member(&mut self) {
        self.lists.add_member();
    }

    /// Adds an item that nobody is to hold yet.
    pub(super) fn add_item(&mut self, held: Vec<Holder>) {
        self.moving.insert(narrow(self.rows.spans.len()), held);
        self.rows.spans.push((0, 0));
    }

    /// Says who holds an item now.
    pub(super) fn hold(&mut self, item: u32, held: Vec<Holder>) {
        self.moving.insert(item, held);
    }

    /// Has an item looked at by the next plan.
    pub(super) fn touch(&mut self, item: u32) {
        let row = self.rows.of(item as usize);
        self.moving.entry(item).or_insert_with(|| row.to_vec());
    }

    /// Has all items looked at that a member is to hold.
    pub(super) fn touch_all_of(&mut self, member: u32) {
        let items: Vec<u32> = self.lists.of(member).collect();
        for item in items {
            if holds(self.rows.of(item as usize), member) {
                self.touch(item);
            }
        }
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
        let mut held = Holdings::with_capacity(self.len(), self.rows.holders.len());
        (0..self.len()).for_each(|item| held.push(self.held(item)));
        held
    }

    /// Who is to hold the items.
    pub(super) fn all_desired(&self) -> Holdings {
        let mut desired = Holdings::with_capacity(self.len(), self.rows.holders.len());
        (0..self.len()).for_each(|item| desired.push(self.of(item)));
        desired
    }
}

impl Draft for Live {
    fn len(&self) -> usize {
        self.rows.spans.len()
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

    fn begin(
        &mut self,
        items: &[u32],
        _lengths: &[u32],
        mut write: impl FnMut(usize, &[Holder], &mut Vec<Holder>),
    ) {
        let mut row = Vec::new();
        for (at, item) in items.iter().enumerate() {
            self.touch(*item);
            row.clear();
            write(at, &self.moving[item], &mut row);
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

    /// From the lists of those who are asked.
    fn offers(
        &mut self,
        asked: &mut [u32],
        turn: u64,
        _all: bool,
        suits: impl Fn(Holder) -> bool,
    ) -> Vec<(u32, u32)> {
        let mut offered = Vec::new();
        for (member, asked) in (0..).zip(asked).filter(|(_, asked)| **asked > 0) {
            let count = self.lists.of(member).count();
            let start = spread(turn << 32 ^ u64::from(member), count);
            let items = self.lists.of(member).skip(start).chain(self.lists.of(member).take(start));
            for item in items {
                let row = self.rows.of(item as usize);
                let at = row.iter().position(|holder| holder.member() == member);
                let Some(at) = at.filter(|at| suits(row[*at])) else { continue };
                offered.push((item, narrow(at)));
                *asked -= 1;
                if *asked == 0 {
                    break;
                }
            }
        }
        offered
    }
}

/// Rows of any length, one after the other, with holes.
#[derive(Clone, Debug, Default)]
struct Rows {
    /// Where each starts, and how long it is.
    spans: Vec<(u32, u32)>,
    holders: Vec<Holder>,
    /// Places that belong to no row.
    holes: usize,
}

impl Rows {
    fn new(rows: Holdings) -> Self {
        let (first, holders) = rows.into_parts();
        let spans = first.windows(2).map(|ends| (ends[0], ends[1] - ends[0])).collect();
        Self { spans, holders, holes: 0 }
    }

    fn of(&self, item: usize) -> &[Holder] {
        let (start, len) = self.spans[item];
        &self.holders[start as usize..(start + len) as usize]
    }

    fn of_mut(&mut self, item: usize) -> &mut [Holder] {
        let (start, len) = self.spans[item];
        &mut self.holders[start as usize..(start + len) as usize]
    }

    fn set(&mut self, item: usize, row: &[Holder]) {
        let (start, len) = &mut self.spans[item];
        let new = narrow(row.len());
        if new > *len {
            self.holes += *len as usize;
            *start = narrow(self.holders.len());
            self.holders.extend_from_slice(row);
        } else {
            self.holes += (*len - new) as usize;
            self.holders[*start as usize..(*start + new) as usize].copy_from_slice(row);
        }
        *len = new;
    }

    /// Closes the holes, if they are many.
    fn tidy(&mut self) {
        if self.holes * 4 <= self.holders.len() {
            return;
        }
        let mut holders = Vec::with_capacity(self.holders.len() - self.holes);
        for (start, len) in &mut self.spans {
            let row = *start as usize..(*start + *len) as usize;
            *start = narrow(holders.len());
            holders.extend_from_slice(&self.holders[row]);
        }
        (self.holders, self.holes) = (holders, 0);
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
