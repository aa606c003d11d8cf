//! Which replica an item with too many gives up, shifted so that members stay within their bounds.
//!
//! An item that has more than it wants, as while it moves, has a choice that costs nothing. Made one
//! item at a time it leaves some members with too much, and others with too little, of what would
//! have to be moved then. Here members that keep too much pass an item on to one that has just given
//! it up, and so on, until that helps nobody any more.

use super::{
    draft::Draft,
    holder::{Holder, holds},
    holdings::Holdings,
    keep::Keeper,
    kinds::narrow,
    lists::Lists,
    routes::{Passing, route},
};

/// See the [module](self). `items` are those whose rows were just chosen.
pub(super) fn shift_surplus(keeper: &mut Keeper<'_>, draft: &mut impl Draft, items: &[u32]) {
    let mut surplus = Surplus::new(keeper, draft, items);
    for end in [End::TooMuch, End::TooLittle] {
        surplus.end = end;
        let members = 0..narrow(surplus.keeper.windows.len());
        let off: Vec<u32> = members.filter(|member| surplus.gives(*member)).collect();
        if !off.is_empty() {
            route(&mut surplus, &off);
        }
    }
}

/// Who is looked at: members above their bounds, or below.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    TooMuch,
    TooLittle,
}

struct Surplus<'a, 'b, D> {
    keeper: &'a mut Keeper<'b>,
    draft: &'a mut D,
    /// The items with a choice.
    items: Vec<u32>,
    /// By member, which of those it keeps, and which it has given up.
    kept: Lists,
    given_up: Lists,
    end: End,
}

impl<'a, 'b, D: Draft> Surplus<'a, 'b, D> {
    fn new(keeper: &'a mut Keeper<'b>, draft: &'a mut D, items: &[u32]) -> Self {
        let mut choice = Vec::new();
        let (mut kept, mut given_up) = (Holdings::default(), Holdings::default());
        let mut dropped: Vec<Holder> = Vec::new();
        for item in items {
            let class = keeper.fair.classes.of(keeper.problem, *item as usize);
            let row = draft.of(*item as usize);
            dropped.clear();
            dropped.extend(draft.held(*item as usize).iter().copied().filter(|holder| {
                keeper.fair.is_legal(class, *holder) && !holds(row, holder.member())
            }));
            if !dropped.is_empty() {
                choice.push(*item);
                given_up.push(&dropped);
                kept.push(row);
            }
        }
        let members = keeper.windows.len();
        Self {
            keeper,
            draft,
            items: choice,
            kept: Lists::new(members, &kept),
            given_up: Lists::new(members, &given_up),
            end: End::TooMuch,
        }
    }

    fn class(&self, item: usize) -> usize {
        self.keeper.fair.classes.of(self.keeper.problem, item)
    }

    /// Whether `to`, who has given it up, may keep an item instead of `from`.
    fn may(&self, item: usize, from: u32, to: u32) -> bool {
        let row = self.draft.of(item);
        let zones = &self.keeper.fair.zones;
        let zone = |member: u32| zones.of_member[member as usize];
        let there = |holder: &&Holder| **holder != Holder::VACANT && zones.of(**holder) == zone(to);
        holds(row, from)
            && !holds(row, to)
            && (zone(from) == zone(to)
                || row.iter().filter(there).count() < self.keeper.fair.caps[self.class(item)])
    }

    /// Who held an item, and may go on.
    fn held(&self, item: usize) -> impl Iterator<Item = Holder> + '_ {
        let class = self.class(item);
        let held = self.draft.held(item).iter().copied();
        held.filter(move |holder| self.keeper.fair.is_legal(class, *holder))
    }

    fn load(&self, member: u32) -> (i64, (i64, i64)) {
        let load = i64::from(self.keeper.standing.of_member[member as usize]);
        (load, self.keeper.windows[member as usize])
    }
}

impl<D: Draft> Passing for Surplus<'_, '_, D> {
    fn members(&self) -> usize {
        self.keeper.windows.len()
    }

    fn gives(&self, member: u32) -> bool {
        let (load, (low, high)) = self.load(member);
        if self.end == End::TooMuch { load > high } else { load < low }
    }

    fn takes(&self, member: u32) -> bool {
        let (load, (low, high)) = self.load(member);
        if self.end == End::TooMuch { load < high } else { load > low }
    }

    fn prepare(&mut self, _members: Option<&[u32]>) {}

    fn knows(&self, _member: u32) -> bool {
        true
    }

    fn items(&mut self, member: u32) -> Vec<u32> {
        let lists = if self.end == End::TooMuch { &self.kept } else { &self.given_up };
        lists.of(member).map(|number| self.items[number as usize]).collect()
    }

    fn ways(&self, member: u32, items: &[u32], ways: &mut Vec<(u32, u32)>) {
        let may = |item: u32, other: u32| match self.end {
            End::TooMuch => self.may(item as usize, member, other),
            End::TooLittle => self.may(item as usize, other, member),
        };
        ways.clear();
        for item in items {
            let others = self.held(*item as usize).map(Holder::member);
            ways.extend(others.filter(|other| may(*item, *other)).map(|other| (*item, other)));
        }
    }

    fn pass(&mut self, item: u32, from: u32, to: u32) {
        let (from, to) = if self.end == End::TooMuch { (from, to) } else { (to, from) };
        let number = narrow(self.items.partition_point(|other| *other < item));
        let item = item as usize;
        let class = self.class(item);
        let came = self.held(item).find(|holder| holder.member() == to);
        let at = self.draft.of(item).iter().position(|holder| holder.member() == from);
        let (Some(came), Some(at)) = (came, at) else { return };
        let left = std::mem::replace(&mut self.draft.of_mut(item)[at], came);
        self.keeper.leave(class, left);
        self.keeper.stay(class, came);
        self.draft.came(item, to);
        self.kept.add(to, number as usize);
        self.given_up.add(from, number as usize);
    }
}
