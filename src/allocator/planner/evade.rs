//! Keeps an item away from a member that has just given it back, as far as the plan loses nothing.

use std::collections::BTreeSet;

use super::{
    draft::Draft,
    holder::{Holder, holds},
    problem::Problem,
    seat::Primaries,
};

/// Sends the items named, each with the number of a member that is avoided, elsewhere.
///
/// Another member of the same zone takes the item: one that gets another item by the plan, and lets
/// the avoided member have that; or else the least loaded one with room. Where there is neither, the
/// plan stays as it is. Who holds an item goes on holding it. `moving` are all items that get somebody new, and
/// `loads` say how many each member is to hold.
pub(super) fn evade(
    problem: &Problem,
    draft: &mut impl Draft,
    moving: &[u32],
    loads: &mut [u64],
    avoided: &BTreeSet<(u32, u32)>,
) {
    let is_avoided = |item: u32, member: u32| avoided.contains(&(item, member));
    for (item, member) in avoided.iter().copied() {
        if item as usize >= draft.len() || !is_new(draft, item, member) {
            continue;
        }
        let zone = problem.seats()[member as usize].zone;
        let row = draft.of(item as usize);
        let fits = |other: u32| {
            problem.seats()[other as usize].zone == zone
                && !holds(row, other)
                && !is_avoided(item, other)
        };
        let swap = moving.iter().find_map(|at| {
            let row = draft.of(*at as usize);
            if holds(row, member) || is_avoided(*at, member) {
                return None;
            }
            let mut members = row.iter().map(|holder| holder.member());
            let new = members.find(|other| fits(*other) && is_new(draft, *at, *other))?;
            Some((*at, new))
        });
        if let Some((at, other)) = swap {
            replace(problem, draft, at, other, member);
            replace(problem, draft, item, member, other);
        } else if let Some(other) = least_loaded(problem, loads, fits) {
            replace(problem, draft, item, member, other);
            loads[member as usize] -= 1;
            loads[other as usize] += 1;
        }
    }
}

/// Whether an item gets a member that it did not have.
fn is_new(draft: &impl Draft, item: u32, member: u32) -> bool {
    holds(draft.of(item as usize), member) && !holds(draft.held(item as usize), member)
}

/// Puts one member in the place of another, and makes it the primary if that one was; but another holder,
/// if the new one takes none.
fn replace(problem: &Problem, draft: &mut impl Draft, item: u32, member: u32, by: u32) {
    let holders = draft.of_mut(item as usize);
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
    draft.came(item as usize, by);
}

/// The member with room that has the smallest part of its limit filled.
fn least_loaded(problem: &Problem, loads: &[u64], fits: impl Fn(u32) -> bool) -> Option<u32> {
    let limit = |member: u32| u64::from(problem.seats()[member as usize].limit);
    let load = |member: u32| loads[member as usize];
    let open = (0..).take(loads.len()).filter(|other| load(*other) < limit(*other) && fits(*other));
    open.min_by(|a, b| (load(*a) * limit(*b), a).cmp(&(load(*b) * limit(*a), b)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            draft::Sheet,
            holdings::Holdings,
            seat::{Seat, ZoneRule},
        },
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
            let mut sheet = Sheet::with(&problem, desired);
            evade(&problem, &mut sheet, &[0], &mut [1, 1, 0], &BTreeSet::from([(0, 0)]));
            sheet.of(0).to_vec()
        };
        let (first, second, third) = (Holder::new(0), Holder::new(1), Holder::new(2));
        assert_eq!(plan(&[second, first.primary()]), [second.primary(), third]);
        assert_eq!(plan(&[second.primary(), first]), [second.primary(), third]);
    }
}
