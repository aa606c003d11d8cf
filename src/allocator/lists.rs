//! Who is to hold what, by member: lists that may be out of date, and are put right when they are read.
//!
//! An item stands in the list of each member that is to hold it. It may stand there twice, or without
//! being held any more; whoever reads a list looks at the item's row anyway. So nothing needs to be
//! found in a list to be taken out.

use super::{kinds::narrow, problem::Holder};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    /// By member, where its part of `items` starts and ends.
    parts: Vec<(u32, u32)>,
    items: Vec<u32>,
    /// By member, what came since.
    since: Vec<Vec<u32>>,
}

impl Lists {
    /// The lists of so many members, from the rows of all items.
    pub(super) fn new<'a>(members: usize, rows: impl Iterator<Item = &'a [Holder]> + Clone) -> Self {
        let mut ends = vec![0u32; members];
        for holder in rows.clone().flatten() {
            // A place may be vacant.
            if let Some(end) = ends.get_mut(holder.member() as usize) {
                *end += 1;
            }
        }
        let mut total = 0;
        for end in &mut ends {
            let count = *end;
            *end = total;
            total += count;
        }
        let starts = ends.clone();
        let mut items = vec![0; total as usize];
        for (item, holders) in (0..).zip(rows) {
            for holder in holders {
                if let Some(end) = ends.get_mut(holder.member() as usize) {
                    items[*end as usize] = item;
                    *end += 1;
                }
            }
        }
        let parts = starts.into_iter().zip(ends).collect();
        Self { parts, items, since: vec![Vec::new(); members] }
    }

    /// Makes room for one more member.
    pub(super) fn add_member(&mut self) {
        self.parts.push((0, 0));
        self.since.push(Vec::new());
    }

    /// Writes down that a member is to hold an item.
    pub(super) fn add(&mut self, member: u32, item: usize) {
        self.since[member as usize].push(narrow(item));
    }

    /// What a member is to hold, out of date, in any order.
    pub(super) fn rough(&self, member: u32) -> impl Iterator<Item = u32> + '_ {
        let (start, end) = self.parts[member as usize];
        let part = &self.items[start as usize..end as usize];
        part.iter().chain(&self.since[member as usize]).copied()
    }

    /// What a member is to hold, each item once and in order; `holds` tells what it does.
    pub(super) fn of(&mut self, member: u32, holds: impl Fn(u32) -> bool) -> &[u32] {
        let (start, end) = self.parts[member as usize];
        let since = &mut self.since[member as usize];
        since.extend_from_slice(&self.items[start as usize..end as usize]);
        self.parts[member as usize] = (0, 0);
        since.sort_unstable();
        since.dedup();
        since.retain(|item| holds(*item));
        since
    }

    /// How many entries there are beyond the first ones.
    pub(super) fn grown(&self, member: u32) -> usize {
        self.since[member as usize].len()
    }
}
