//! A plan in the making: who is to hold each item, beside who holds it now.

use super::{
    kinds::narrow,
    lists::Lists,
    problem::{Holder, Holdings, Problem, holds},
    takers::spread,
};

/// The rows that a plan changes. All of them once, or only those that must: see
/// [`Sheet`] and [`Planner`](super::planner::Planner).
pub(super) trait Draft {
    /// The number of items.
    fn len(&self) -> usize;

    /// Who holds an item now.
    fn held(&self, item: usize) -> &[Holder];

    /// Who is to hold it; a place may be [vacant](Holder::VACANT).
    fn of(&self, item: usize) -> &[Holder];

    /// The same, to be changed.
    fn of_mut(&mut self, item: usize) -> &mut [Holder];

    /// Replaces the rows of some items, in order.
    fn replace(&mut self, items: &[u32], rows: Holdings);

    /// Who was to hold an item by the last plan, if anything is known of it.
    fn wish(&self, _item: usize) -> &[Holder] {
        &[]
    }

    /// Drops the places that are still vacant.
    fn close(&mut self);

    /// Is told that `member` came into the row of `item`.
    fn came(&mut self, item: usize, member: u32);

    /// The items that `member` is to hold, each once and in order.
    fn items_of(&mut self, member: u32) -> Vec<u32>;

    /// Items, each at least once, among them as many of each member's as are asked for.
    fn offers(&mut self, asked: &mut [u32]) -> Vec<u32>;
}

/// All rows, for a plan that is made at once.
pub(super) struct Sheet<'a> {
    problem: &'a Problem,
    pub desired: Holdings,
    /// Made when it is asked for.
    lists: Option<Lists>,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        Self { problem, desired: Holdings::default(), lists: None }
    }
}

impl Draft for Sheet<'_> {
    fn len(&self) -> usize {
        self.problem.held.len()
    }

    fn held(&self, item: usize) -> &[Holder] {
        self.problem.held.of(item)
    }

    fn of(&self, item: usize) -> &[Holder] {
        self.desired.of(item)
    }

    fn of_mut(&mut self, item: usize) -> &mut [Holder] {
        self.desired.of_mut(item)
    }

    fn replace(&mut self, items: &[u32], rows: Holdings) {
        self.desired = self.problem.held.with(items, rows);
    }

    fn close(&mut self) {
        self.desired.retain(|holder| holder != Holder::VACANT);
    }

    fn came(&mut self, item: usize, member: u32) {
        if let Some(lists) = &mut self.lists {
            lists.add(member, item);
        }
    }

    fn items_of(&mut self, member: u32) -> Vec<u32> {
        let Self { problem, desired, lists } = self;
        let lists = lists.get_or_insert_with(|| Lists::new(problem.seats.len(), desired.iter()));
        lists.of(member, |item| holds(desired.of(item as usize), member)).to_vec()
    }

    /// One reading of the rows, from a place that depends on the world, so that it is not always the
    /// same items that move.
    fn offers(&mut self, asked: &mut [u32]) -> Vec<u32> {
        let mut left = asked.iter().filter(|asked| **asked > 0).count();
        let len = self.desired.len();
        let start = spread((self.problem.seats.len() as u64) << 32 ^ len as u64, len);
        let mut offered = Vec::new();
        for item in (start..len).chain(0..start) {
            if left == 0 {
                break;
            }
            let mut wanted = false;
            for holder in self.desired.of(item) {
                if let Some(asked) = asked.get_mut(holder.member() as usize).filter(|n| **n > 0) {
                    wanted = true;
                    *asked -= 1;
                    left -= usize::from(*asked == 0);
                }
            }
            if wanted {
                offered.push(narrow(item));
            }
        }
        offered
    }
}
