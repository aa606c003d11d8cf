//! Who of an item's holders becomes its primary, when it has none.

use super::problem::{Holder, Primaries, Problem};

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Crown {
    /// By member, whether it becomes the primary of nothing new; empty if nobody minds.
    reluctant: Vec<bool>,
}

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
        let mut best = (u64::MAX, 0);
        for (at, holder) in row.iter().enumerate() {
            let member = holder.member();
            // A place may be vacant.
            let Some(has) = primaries.get(member as usize) else { continue };
            if holder.is_primary() {
                return None;
            }
            let rank = u64::from(!self.likes(member)) << 33 | u64::from(*has) << 1;
            let rank = rank | u64::from(!holder.is_consistent());
            if rank < best.0 {
                best = (rank, at);
            }
        }
        let holder = row.get_mut(best.1).filter(|_| best.0 != u64::MAX)?;
        *holder = holder.primary();
        primaries[holder.member() as usize] += 1;
        Some(holder.member())
    }
}
