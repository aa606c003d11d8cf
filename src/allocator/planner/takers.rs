//! The members of one zone that should hold more, those that lack most first.

use super::holder::{Holder, holds};

/// Members by what they lack: the ones that lack most are `members[..top]`, and the last of those is
/// the next.
///
/// Whoever lacks most is taken first, because that never makes the rest impossible: it is how a
/// bipartite graph of given degrees is built. Equals are shuffled, so that the items of one member
/// are shared with many others.
#[derive(Clone, Debug, Default)]
pub(super) struct Takers {
    members: Vec<u32>,
    top: usize,
    /// What the next shuffle depends on.
    seed: u64,
}

impl Takers {
    /// `room` tells what each member lacks: its target beyond its load. Of those that lack most, who
    /// is the primary of fewer items is the first to be taken.
    pub(super) fn new(mut members: Vec<u32>, room: &[i64], primaries: &[u32], seed: u64) -> Self {
        members.retain(|member| room[*member as usize] > 0);
        members.sort_by_key(|member| std::cmp::Reverse(room[*member as usize]));
        let mut takers = Self { members, top: 0, seed };
        takers.deal(room);
        let top = &mut takers.members[..takers.top];
        top.sort_by_key(|member| std::cmp::Reverse(primaries[*member as usize]));
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
    pub(super) fn take(&mut self, room: &mut [i64], held: &[Holder]) -> Option<u32> {
        let last = self.top.checked_sub(1)?;
        let member = self.members[last];
        if holds(held, member) {
            return self.take_next(room, held);
        }
        // With one less it is the first of the next ones.
        room[member as usize] -= 1;
        self.top = last;
        if last == 0 {
            self.deal(room);
        }
        Some(member)
    }

    /// The same where the next one does.
    #[inline(never)]
    fn take_next(&mut self, room: &mut [i64], held: &[Holder]) -> Option<u32> {
        let free = |at: &usize| !holds(held, self.members[*at]);
        let lacks = |at: &usize| room[self.members[*at] as usize] > 0;
        let equal = (0..self.top).rev().find(free);
        let at = equal.or_else(|| (self.top..self.members.len()).take_while(lacks).find(free))?;
        Some(self.take_at(room, at))
    }

    /// Takes this one.
    pub(super) fn take_this(&mut self, room: &mut [i64], member: u32) {
        if let Some(at) = self.members.iter().position(|other| *other == member) {
            self.take_at(room, at);
        }
    }

    /// Whoever is taken becomes the last of its equals, and with one less the first of the next.
    fn take_at(&mut self, room: &mut [i64], at: usize) -> u32 {
        let member = self.members[at];
        let lack = room[member as usize];
        room[member as usize] = lack - 1;
        if at < self.top {
            self.top -= 1;
            self.members.swap(at, self.top);
            if self.top == 0 {
                self.deal(room);
            }
        } else {
            let equal = |next: &&u32| room[**next as usize] == lack;
            let others = self.members[at + 1..].iter().take_while(equal).count();
            self.members.swap(at, at + others);
        }
        member
    }

    /// Finds those who lack most now, and shuffles them.
    fn deal(&mut self, room: &[i64]) {
        let Some(most) = self.members.first().map(|member| room[*member as usize]) else { return };
        let equal = |member: &&u32| room[**member as usize] == most;
        self.top = if most <= 0 { 0 } else { self.members.iter().take_while(equal).count() };
        let (top, mut seed) = (&mut self.members[..self.top], self.seed);
        for end in (2..=top.len()).rev() {
            seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            top.swap(end - 1, spread(seed, end));
        }
        self.seed = seed;
    }
}

/// A number below `end`, the same for the same seed and well spread over many.
#[inline]
pub(super) fn spread(seed: u64, end: usize) -> usize {
    // The finisher of splitmix64: seeds that follow each other give numbers that do not.
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 32;
    usize::try_from((mixed * end as u64) >> 32).unwrap_or(0)
}
