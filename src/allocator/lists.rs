//! Who is to hold what, by member: lists that may be out of date, because rows are looked at anyway.
//!
//! An item stands in the list of each member that is to hold it. It may stand there twice, or without
//! being held any more; whoever reads a list looks at the item's row. So nothing needs to be found in
//! a list to be taken out.

use super::{
    kinds::narrow,
    problem::{Holder, Holdings},
};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    /// Where each member's part of `items` starts, and where the last ends; empty while there is none.
    starts: Vec<u32>,
    items: Vec<u32>,
    /// By member: what is not in `items`, and whether it is all that there is.
    more: Vec<Vec<u32>>,
    known: Vec<bool>,
    /// Whether anybody's is.
    any: bool,
}

/// Up to one in so many members is listed alone, and not with everybody.
const FEW: usize = 16;

impl Lists {
    /// No lists yet, of so many members.
    pub(super) fn of_nobody(members: usize) -> Self {
        Self { more: vec![Vec::new(); members], known: vec![false; members], ..Self::default() }
    }

    /// The lists of all members, from the rows of all items.
    pub(super) fn new(members: usize, rows: &Holdings) -> Self {
        let mut starts = vec![0u32; members + 1];
        for holder in rows.all() {
            // A place may be vacant.
            if let Some(start) = starts.get_mut(holder.member() as usize + 1) {
                *start += 1;
            }
        }
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }
        let mut ends = starts.clone();
        let mut items = vec![0; total as usize];
        for (item, holders) in (0..).zip(rows.iter()) {
            for holder in holders.iter().filter(|holder| **holder != Holder::VACANT) {
                let end = &mut ends[holder.member() as usize];
                items[*end as usize] = item;
                *end += 1;
            }
        }
        Self {
            starts,
            items,
            more: vec![Vec::new(); members],
            known: vec![true; members],
            any: true,
        }
    }

    /// Makes the lists of all members, if they are not there yet.
    pub(super) fn gather_all(&mut self, rows: &Holdings) {
        if self.known.contains(&false) {
            *self = Self::new(self.known.len(), rows);
        }
    }

    /// Makes the lists of some members, if they are not there yet.
    pub(super) fn gather(&mut self, members: &[u32], rows: &Holdings) {
        let mut wanted = vec![false; self.known.len()];
        let mut missing = 0;
        for member in members {
            let member = *member as usize;
            if !self.known[member] && !wanted[member] {
                wanted[member] = true;
                missing += 1;
            }
        }
        if missing * FEW > wanted.len() {
            self.gather_all(rows);
        } else if missing > 0 {
            for (item, holders) in (0..).zip(rows.iter()) {
                for holder in holders {
                    let member = holder.member() as usize;
                    if wanted.get(member).copied().unwrap_or(false) {
                        self.more[member].push(item);
                    }
                }
            }
            self.known.iter_mut().zip(wanted).for_each(|(known, wanted)| *known |= wanted);
            self.any = true;
        }
    }

    /// Makes room for one more member.
    pub(super) fn add_member(&mut self) {
        self.starts.push(narrow(self.items.len()));
        self.more.push(Vec::new());
        self.known.push(true);
    }

    /// Writes down that a member is to hold an item.
    #[inline]
    pub(super) fn add(&mut self, member: u32, item: usize) {
        if self.any && self.known[member as usize] {
            self.more[member as usize].push(narrow(item));
        }
    }

    /// What a member is to hold, in any order, out of date: all of it, if its list was made.
    pub(super) fn of(&self, member: u32) -> impl Iterator<Item = u32> + '_ {
        let member = member as usize;
        let part = self.starts.get(member).zip(self.starts.get(member + 1));
        let part = part.map_or(0..0, |(start, end)| *start as usize..*end as usize);
        self.items[part].iter().chain(&self.more[member]).copied()
    }
}
