//! Keeps an item away from a member that has just given it back, as far as the plan loses nothing.

use super::problem::{Holder, Holdings, Problem};

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
    let avoided: Vec<(usize, u32)> = avoided.collect();
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
            replace(desired.of_mut(at), other, member);
            replace(desired.of_mut(item), member, other);
        } else if let Some(other) = least_loaded(problem, desired, fits) {
            replace(desired.of_mut(item), member, other);
        }
    }
}

fn holds(holders: &[Holder], member: u32) -> bool {
    holders.iter().any(|holder| holder.member() == member)
}

fn replace(holders: &mut [Holder], member: u32, by: u32) {
    for holder in holders.iter_mut().filter(|holder| holder.member() == member) {
        let new = Holder::new(by);
        *holder = if holder.is_primary() { new.primary() } else { new };
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
