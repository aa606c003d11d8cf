//! The members of one zone that should hold more, those that lack most first.

use super::problem::{Holder, holds};

/// Members by what they lack: the ones that lack most are `members[..top]`.
///
/// Whoever lacks most is taken first, because that never makes the rest impossible: it is how a
/// bipartite graph of given degrees is built. Among equals the choice is spread by a number of the
/// caller's, so that the items of one member are shared with many others.
#[derive(Clone, Debug, Default)]
pub(super) struct Takers {
    members: Vec<u32>,
    top: usize,
}

impl Takers {
    /// `room` tells what each member lacks: its target beyond its load.
    pub(super) fn new(mut members: Vec<u32>, room: &[i64]) -> Self {
        members.retain(|member| room[*member as usize] > 0);
        members.sort_by_key(|member| std::cmp::Reverse(room[*member as usize]));
        let mut takers = Self { members, top: 0 };
        takers.find_top(room);
        takers
    }

    /// Whether nobody lacks anything.
    pub(super) fn is_empty(&self) -> bool {
        self.top == 0
    }

    /// Those who lack something, most first.
    pub(super) fn members<'a>(&'a self, room: &'a [i64]) -> impl Iterator<Item = u32> + 'a {
        self.members.iter().copied().take_while(|member| room[*member as usize] > 0)
    }

    /// Takes one that does not hold the item yet.
    #[inline]
    pub(super) fn take(&mut self, room: &mut [i64], seed: u64, held: &[Holder]) -> Option<u32> {
        let start = spread(seed, self.top);
        let first = *self.members[..self.top].get(start)?;
        if !holds(held, first) {
            return Some(self.take_at(room, start));
        }
        let free = |at: &usize| !holds(held, self.members[*at]);
        let lacks = |at: &usize| room[self.members[*at] as usize] > 0;
        let equal = (start + 1..self.top).chain(0..start).find(free);
        let at = equal.or_else(|| (self.top..self.members.len()).take_while(lacks).find(free))?;
        Some(self.take_at(room, at))
    }

    /// Takes this one.
    pub(super) fn take_this(&mut self, room: &mut [i64], member: u32) {
        if let Some(at) = self.members.iter().position(|other| *other == member) {
            self.take_at(room, at);
        }
    }

    fn take_at(&mut self, room: &mut [i64], at: usize) -> u32 {
        let member = self.members[at];
        let lack = room[member as usize];
        // It becomes the last of its equals, and with one less the first of the next.
        let mut last = self.top.saturating_sub(1);
        if at >= self.top {
            last = at;
            while self.members.get(last + 1).is_some_and(|next| room[*next as usize] == lack) {
                last += 1;
            }
        }
        self.members.swap(at, last);
        room[member as usize] = lack - 1;
        if at < self.top {
            self.top -= 1;
        }
        if self.top == 0 {
            self.find_top(room);
        }
        member
    }

    fn find_top(&mut self, room: &[i64]) {
        let Some(most) = self.members.first().map(|member| room[*member as usize]) else { return };
        let equal = |member: &&u32| room[**member as usize] == most;
        self.top = if most <= 0 { 0 } else { self.members.iter().take_while(equal).count() };
    }
}

/// A number below `end`, the same for the same seed and well spread over many.
pub(super) fn spread(seed: u64, end: usize) -> usize {
    // The finisher of splitmix64: seeds that follow each other give numbers that do not.
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 32;
    usize::try_from((mixed * end as u64) >> 32).unwrap_or(0)
}
