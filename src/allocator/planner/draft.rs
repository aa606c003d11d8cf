//! A plan in the making: who is to hold each item, beside who holds it now.

use super::{
    kinds::narrow,
    lists::Lists,
    problem::{Holder, Holdings, Problem},
    takers::spread,
};

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

    /// Begins with who holds the items now, but for some: `write` appends the row of each, given its
    /// place among them and who holds it. They are in order, and their rows as long as `lengths` says.
    fn begin(
        &mut self,
        items: &[u32],
        lengths: &[u32],
        write: impl FnMut(usize, &[Holder], &mut Vec<Holder>),
    );

    /// Who was to hold an item by the last plan, if anything is known of it.
    fn wish(&self, _item: usize) -> &[Holder] {
        &[]
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

    /// Replicas that suit, as items and places in their rows: of each member as many as are asked for,
    /// and of an item one, or several if `all`. Another `turn` begins elsewhere.
    fn offers(
        &mut self,
        asked: &mut [u32],
        turn: u64,
        all: bool,
        suits: impl Fn(Holder) -> bool,
    ) -> Vec<(u32, u32)>;
}

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
        self.problem.held.len()
    }

    fn held(&self, item: usize) -> &[Holder] {
        self.problem.held.of(item)
    }

    fn of(&self, item: usize) -> &[Holder] {
        self.desired.of(item)
    }

    #[inline]
    fn both(&mut self, item: usize) -> (&[Holder], &mut [Holder]) {
        (self.problem.held.of(item), self.desired.of_mut(item))
    }

    fn begin(
        &mut self,
        items: &[u32],
        lengths: &[u32],
        mut write: impl FnMut(usize, &[Holder], &mut Vec<Holder>),
    ) {
        let held = &self.problem.held;
        self.desired = held.rewritten(items, lengths, |at, row| {
            write(at, held.of(items[at] as usize), row);
        });
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

    /// One reading of the rows, from a place that depends on the world, so that it is not always the
    /// same items that move.
    fn offers(
        &mut self,
        asked: &mut [u32],
        turn: u64,
        all: bool,
        suits: impl Fn(Holder) -> bool,
    ) -> Vec<(u32, u32)> {
        let mut left = asked.iter().filter(|asked| **asked > 0).count();
        let len = self.desired.len();
        let seed = (self.problem.seats.len() as u64) << 32 ^ len as u64;
        let start = spread(seed.wrapping_add(turn), len);
        let mut offered = Vec::new();
        for item in (start..len).chain(0..start) {
            if left == 0 {
                break;
            }
            for (at, holder) in (0..).zip(self.desired.of(item)) {
                let Some(asked) = asked.get_mut(holder.member() as usize) else { continue };
                if *asked > 0 && suits(*holder) {
                    *asked -= 1;
                    left -= usize::from(*asked == 0);
                    offered.push((narrow(item), at));
                    if !all {
                        break;
                    }
                }
            }
        }
        offered
    }
}
