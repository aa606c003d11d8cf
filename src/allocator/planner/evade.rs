//! Keeps an item away from a member that has just given it back, as far as the plan loses nothing.

use std::collections::BTreeSet;

use super::{
    holder::{Holder, holds},
    holdings::Holdings,
    problem::Problem,
    seat::Primaries,
};

/// Sends the items named, each with the number of a member that is avoided, elsewhere.
///
/// Another member of the same zone takes the item: one that gets another item by the plan, and lets
/// the avoided member have that; or else the least loaded one with room. Where there is neither, the
/// plan stays as it is. Who holds an item goes on holding it.
pub(crate) fn evade(
    problem: &Problem,
    desired: &mut Holdings,
    avoided: impl Iterator<Item = (usize, u32)>,
) {
    let avoided: BTreeSet<(usize, u32)> = avoided.collect();
    let is_avoided = |item: usize, member: u32| avoided.contains(&(item, member));
    for (item, member) in avoided.iter().copied() {
        let wanted = desired.of(item).iter().any(|holder| holder.member() == member);
        if !wanted || holds(problem.held().of(item), member) {
            continue;
        }
        let zone = problem.seats()[member as usize].zone;
        let fits = |other: u32| {
            problem.seats()[other as usize].zone == zone
                && !holds(desired.of(item), other)
                && !is_avoided(item, other)
        };
        let swap = (0..desired.len()).find_map(|at| {
            let new = desired.of(at).iter().map(|holder| holder.member()).find(|other| {
                fits(*other)
                    && !holds(problem.held().of(at), *other)
                    && !holds(desired.of(at), member)
                    && !is_avoided(at, member)
            })?;
            Some((at, new))
        });
        if let Some((at, other)) = swap {
            replace(problem, desired.of_mut(at), other, member);
            replace(problem, desired.of_mut(item), member, other);
        } else if let Some(other) = least_loaded(problem, desired, fits) {
            replace(problem, desired.of_mut(item), member, other);
        }
    }
}

/// Puts one member in the place of another, and makes it the primary if that one was; but another holder,
/// if the new one takes none.
fn replace(problem: &Problem, holders: &mut [Holder], member: u32, by: u32) {
    let Some(at) = holders.iter().position(|holder| holder.member() == member) else { return };
    let was_primary = holders[at].is_primary();
    holders[at] = Holder::new(by);
    if was_primary {
        let likes =
            |holder: &Holder| problem.seats()[holder.member() as usize].primaries == Primaries::Any;
        let other = holders.iter().position(likes).filter(|_| !likes(&holders[at]));
        let primary = &mut holders[other.unwrap_or(at)];
        *primary = primary.primary();
    }
}

/// The member with room that has the smallest part of its limit filled.
fn least_loaded(problem: &Problem, desired: &Holdings, fits: impl Fn(u32) -> bool) -> Option<u32> {
    let mut loads = vec![0u64; problem.seats().len()];
    for holder in desired.all() {
        loads[holder.member() as usize] += 1;
    }
    let limit = |member: u32| u64::from(problem.seats()[member as usize].limit);
    let load = |member: u32| loads[member as usize];
    let open = (0..).take(loads.len()).filter(|other| load(*other) < limit(*other) && fits(*other));
    open.min_by(|a, b| (load(*a) * limit(*b), a).cmp(&(load(*b) * limit(*a), b)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::seat::{Seat, ZoneRule},
        *,
    };

    #[test]
    fn who_takes_no_primaries_gets_none_in_the_place_of_who_is_avoided() {
        let mut problem = Problem::new(ZoneRule::Two, 0);
        for primaries in [Primaries::Any, Primaries::Any, Primaries::Kept] {
            problem.add_member(Seat { primaries, ..Seat::new(0, 1) });
        }
        problem.add_item(2, &[Holder::new(1).consistent()]);
        let plan = |row: &[Holder]| {
            let mut desired = Holdings::default();
            desired.push(row);
            evade(&problem, &mut desired, [(0, 0)].into_iter());
            desired.of(0).to_vec()
        };
        let (first, second, third) = (Holder::new(0), Holder::new(1), Holder::new(2));
        assert_eq!(plan(&[second, first.primary()]), [second.primary(), third]);
        assert_eq!(plan(&[second.primary(), first]), [second.primary(), third]);
    }
}
