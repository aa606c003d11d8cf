//! Who of an item's holders becomes its primary, when it has none.

use super::problem::{Holder, Primaries, Problem};

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Crown {
    /// By member, whether it becomes the primary of nothing new; empty if nobody minds.
    reluctant: Vec<bool>,
}

/// Bits of a place in a row: an item has no more replicas than there are members.
const PLACES: u32 = 30;

impl Crown {
    pub(super) fn new(problem: &Problem) -> Self {
        let kept = problem.seats.iter().map(|seat| seat.primaries == Primaries::Kept);
        let reluctant = if kept.clone().any(|kept| kept) { kept.collect() } else { Vec::new() };
        Self { reluctant }
    }

    /// Whether anybody minds.
    pub(super) fn is_easy(&self) -> bool {
        self.reluctant.is_empty()
    }

    /// Whether a member takes primaries.
    #[inline]
    pub(super) fn likes(&self, member: u32) -> bool {
        !self.reluctant.get(member as usize).copied().unwrap_or(false)
    }

    /// Makes the holder that has the fewest primaries the primary, one that takes primaries before
    /// others; of equals one that is consistent. Returns it; nobody, if there is a primary, or no
    /// holder.
    #[inline]
    pub(super) fn choose(&self, row: &mut [Holder], primaries: &mut [u32]) -> Option<u32> {
        // A place may be vacant.
        let none = |holder: &Holder| !holder.is_primary() || *holder == Holder::VACANT;
        if !row.iter().fold(true, |all, holder| all & none(holder)) {
            return None;
        }
        // In one number, and so without a branch, because nobody can guess who it will be.
        let rank = |(at, holder): (u64, &Holder)| {
            let has = primaries.get(holder.member() as usize)?;
            let reluctant = u64::from(!self.likes(holder.member()));
            let raw = u64::from(!holder.is_consistent());
            Some((reluctant << 33 | u64::from(*has) << 1 | raw) << PLACES | at)
        };
        let best = (0..).zip(&*row).filter_map(rank).min()?;
        let holder = row.get_mut(usize::try_from(best & ((1 << PLACES) - 1)).ok()?)?;
        *holder = holder.primary();
        primaries[holder.member() as usize] += 1;
        Some(holder.member())
    }
}
