//! What members that want to leave give up now: all that the others can take over, and no more.

use super::{
    fair::{Classes, placeable},
    problem::{Problem, Seat},
};

/// How many members are tried one by one where not all can leave.
const TRIES: usize = 32;

/// Lowers the limits of the members of these numbers, the first of them first, as far as no fewer
/// replicas can be placed than before. Who gives up a part of its limit gives up as much of its share.
///
/// Who cannot leave yet goes on working, and is asked again when the picture changes.
pub fn retire(problem: &mut Problem, exiting: &[u32]) {
    let limit = |problem: &Problem, member: u32| {
        problem.seats().get(member as usize).map_or(0, |seat| seat.limit)
    };
    let mut exiting: Vec<u32> = exiting.to_vec();
    exiting.retain(|member| limit(problem, *member) > 0);
    if exiting.is_empty() {
        return;
    }
    let classes = Classes::new(problem, false);
    let all = placeable(problem, &classes);
    let stands = problem.seats().to_vec();
    let fits = |problem: &Problem| placeable(problem, &classes) == all;
    // The first so many leave together.
    let leave = most(exiting.len(), |leave| {
        for (at, member) in exiting.iter().enumerate() {
            lower(problem, *member, &stands, if at < leave { 0 } else { u32::MAX });
        }
        fits(problem)
    });
    for (at, member) in exiting.iter().enumerate() {
        lower(problem, *member, &stands, if at < leave { 0 } else { u32::MAX });
    }
    // The next gives up what it can, and of the others some may be dispensable as a whole.
    let mut rest = exiting[leave..].iter();
    if let Some(member) = rest.next() {
        let limit = stands[*member as usize].limit;
        let fill = limit.min(u32::try_from(problem.replication().len()).unwrap_or(u32::MAX));
        let given = most(fill as usize, |given| {
            lower(problem, *member, &stands, fill - u32::try_from(given).unwrap_or(fill));
            fits(problem)
        });
        let kept = fill - u32::try_from(given).unwrap_or(fill);
        lower(problem, *member, &stands, if given == 0 { limit } else { kept });
    }
    for member in rest.take(TRIES) {
        lower(problem, *member, &stands, 0);
        if !fits(problem) {
            lower(problem, *member, &stands, u32::MAX);
        }
    }
}

/// Gives a member at most this limit.
fn lower(problem: &mut Problem, member: u32, stands: &[Seat], limit: u32) {
    let stood = stands[member as usize];
    let limit = limit.min(stood.limit);
    if let Some(seat) = problem.seat_mut(member) {
        let share = u64::from(stood.share) * u64::from(limit) / u64::from(stood.limit.max(1));
        seat.limit = limit;
        seat.share = u32::try_from(share).unwrap_or(stood.share);
    }
}

/// The largest number up to `end` of which something is true that is true of zero and of all numbers
/// below it.
fn most(end: usize, mut is_true: impl FnMut(usize) -> bool) -> usize {
    if is_true(end) {
        return end;
    }
    let (mut good, mut bad) = (0, end);
    while bad - good > 1 {
        let middle = usize::midpoint(good, bad);
        if is_true(middle) { good = middle } else { bad = middle }
    }
    good
}
