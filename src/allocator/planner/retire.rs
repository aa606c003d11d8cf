//! What members give up now of what they should: all that the others can take over, and no more.

use super::{fair::placeable, kinds::Classes, problem::Problem, seat::Seat};

/// How many members are tried one by one where not all can give up what they should.
const TRIES: usize = 32;

/// Lowers the limits of members to what is named, the first of them first, as far as no fewer
/// replicas can be placed than before. Who gives up a part of its limit gives up as much of its share.
///
/// Who cannot give it up yet goes on working, and is asked again when the picture changes.
pub fn retire(problem: &mut Problem, lower: &[(u32, u32)]) {
    let limit = |problem: &Problem, member: u32| {
        problem.seats().get(member as usize).map_or(0, |seat| seat.limit)
    };
    let mut lower: Vec<(u32, u32)> = lower.to_vec();
    lower.retain(|(member, to)| limit(problem, *member) > *to);
    if lower.is_empty() {
        return;
    }
    let classes = Classes::new(problem);
    let all = placeable(problem, &classes);
    let stands = problem.seats().to_vec();
    let fits = |problem: &Problem| placeable(problem, &classes) == all;
    let set_first = |problem: &mut Problem, count: usize| {
        for (at, (member, to)) in lower.iter().enumerate() {
            set(problem, &stands, *member, if at < count { *to } else { u32::MAX });
        }
    };
    // The first so many do it together.
    let count = most(lower.len(), |count| {
        set_first(problem, count);
        fits(problem)
    });
    set_first(problem, count);
    // The next gives up what it can, and of the others some may be dispensable as a whole.
    let mut rest = lower[count..].iter();
    if let Some((member, to)) = rest.next() {
        let limit = stands[*member as usize].limit;
        let fill = limit.min(u32::try_from(problem.replication().len()).unwrap_or(u32::MAX));
        let kept =
            |given: usize| fill.saturating_sub(u32::try_from(given).unwrap_or(fill)).max(*to);
        let given = most(fill.saturating_sub(*to) as usize, |given| {
            set(problem, &stands, *member, kept(given));
            fits(problem)
        });
        set(problem, &stands, *member, if given == 0 { limit } else { kept(given) });
    }
    for (member, to) in rest.take(TRIES) {
        set(problem, &stands, *member, *to);
        if !fits(problem) {
            set(problem, &stands, *member, u32::MAX);
        }
    }
}

fn set(problem: &mut Problem, stands: &[Seat], member: u32, limit: u32) {
    if let Some(seat) = problem.seat_mut(member) {
        *seat = stands[member as usize].lowered(limit);
    }
}

/// The largest number up to `end` of which something is true that is true of zero and of all numbers
/// below it.
fn most(end: usize, mut is_true: impl FnMut(usize) -> bool) -> usize {
    if end == 0 || is_true(end) {
        return end;
    }
    let (mut good, mut bad) = (0, end);
    while bad - good > 1 {
        let middle = usize::midpoint(good, bad);
        if is_true(middle) { good = middle } else { bad = middle }
    }
    good
}
