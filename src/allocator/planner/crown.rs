//! Who of an item's holders becomes its primary, when it has none.

use super::{
    holder::{Holder, unrolled},
    problem::Problem,
    seat::Primaries,
};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Crown {
    /// By member, whether it becomes the primary of nothing new; empty if nobody minds.
    reluctant: Vec<bool>,
}

/// Bits of a place in a row: an item has no more replicas than there are members.
const PLACES: u32 = 30;

/// More primaries than anybody has.
const NOBODY: u64 = 1 << 32;

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
    /// others; of equals one that is consistent. Nothing, if there is a primary, or no holder.
    #[inline]
    pub(super) fn choose<R: AsMut<[Holder]> + ?Sized>(&self, row: &mut R, primaries: &mut [u32]) {
        let row = row.as_mut();
        // Chosen whether it is asked for or not, and in one number, and so without a branch: nobody can
        // guess who has lost a primary, nor who comes next.
        let crowned = |holder: &Holder| {
            usize::from(holder.is_primary()) & usize::from(*holder != Holder::VACANT)
        };
        let none = unrolled(row, |row| row.iter().map(crowned).sum::<usize>()) == 0;
        let best = self.best(row, primaries);
        let Some(holder) = row.get_mut(best) else { return };
        if let Some(has) = primaries.get_mut(holder.member() as usize) {
            *holder = holder.primary_if(none);
            *has += u32::from(none);
        }
    }

    /// The place of who becomes it.
    #[inline]
    fn best(&self, row: &[Holder], primaries: &[u32]) -> usize {
        // A place may be vacant: rather anybody else.
        let has = |holder: &Holder| {
            primaries.get(holder.member() as usize).map_or(NOBODY, |n| (*n).into())
        };
        let raw = |holder: &Holder| u64::from(!holder.is_consistent());
        let rank = |(at, holder): (u64, &Holder)| (has(holder) << 1 | raw(holder)) << PLACES | at;
        let best = if self.is_easy() {
            unrolled(row, |row| (0..).zip(row).map(rank).fold(u64::MAX, u64::min))
        } else {
            let reluctant = |holder: &Holder| u64::from(!self.likes(holder.member()));
            let rank = |(at, holder): (u64, &Holder)| reluctant(holder) << 63 | rank((at, holder));
            unrolled(row, |row| (0..).zip(row).map(rank).fold(u64::MAX, u64::min))
        };
        usize::try_from(best & ((1 << PLACES) - 1)).unwrap_or(usize::MAX)
    }
}
