//! The members of one zone that should hold more, those that lack most first.

use super::problem::Holder;

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
    /// `lacks` tells what a member lacks.
    pub(super) fn new(mut members: Vec<u32>, lacks: &[u32]) -> Self {
        members.retain(|member| lacks[*member as usize] > 0);
        members.sort_by_key(|member| std::cmp::Reverse(lacks[*member as usize]));
        let mut takers = Self { members, top: 0 };
        takers.find_top(lacks);
        takers
    }

    /// Whether nobody lacks anything.
    pub(super) fn is_empty(&self) -> bool {
        self.top == 0
    }

    /// Those who lack something, most first.
    pub(super) fn members<'a>(&'a self, lacks: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        self.members.iter().copied().take_while(|member| lacks[*member as usize] > 0)
    }

    /// Takes one that does not hold the item yet.
    pub(super) fn take(&mut self, lacks: &mut [u32], seed: u64, held: &[Holder]) -> Option<u32> {
        let free = |member: u32| held.iter().all(|holder| holder.member() != member);
        let start = spread(seed, self.top);
        for at in (start..self.top).chain(0..start) {
            if free(self.members[at]) {
                return Some(self.take_at(lacks, at));
            }
        }
        let at = (self.top..self.members.len())
            .take_while(|at| lacks[self.members[*at] as usize] > 0)
            .find(|at| free(self.members[*at]))?;
        Some(self.take_at(lacks, at))
    }

    /// Takes this one.
    pub(super) fn take_this(&mut self, lacks: &mut [u32], member: u32) {
        if let Some(at) = self.members.iter().position(|other| *other == member) {
            self.take_at(lacks, at);
        }
    }

    fn take_at(&mut self, lacks: &mut [u32], at: usize) -> u32 {
        let member = self.members[at];
        let lack = lacks[member as usize];
        // It becomes the last of its equals, and with one less the first of the next.
        let mut last = if at < self.top { self.top - 1 } else { at };
        if at >= self.top {
            while self.members.get(last + 1).is_some_and(|next| lacks[*next as usize] == lack) {
                last += 1;
            }
        }
        self.members.swap(at, last);
        lacks[member as usize] = lack - 1;
        if at < self.top {
            self.top -= 1;
        }
        if self.top == 0 {
            self.find_top(lacks);
        }
        member
    }

    fn find_top(&mut self, lacks: &[u32]) {
        let Some(most) = self.members.first().map(|member| lacks[*member as usize]) else { return };
        let equal = |member: &u32| lacks[*member as usize] == most;
        self.top = if most == 0 { 0 } else { self.members.iter().take_while(|m| equal(m)).count() };
    }
}

/// A number below `end`, the same for the same seed and well spread over many.
pub(super) fn spread(seed: u64, end: usize) -> usize {
    // The finisher of splitmix64: seeds that follow each other give numbers that do not.
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 32;
    usize::try_from((mixed * end as u64) >> 32).unwrap_or(0)
}
