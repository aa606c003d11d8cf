//! What members give up now of what they should: all that the others can take over, and no more.

use super::{fair::placeable, kinds::Classes, problem::Problem, seat::Seat};

/// How many members are tried one by one where not all can give up what they should.
const TRIES: usize = 32;

/// What a member should give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Less {
    /// Its number.
    pub member: u32,
    /// The limit that it should go down to.
    pub limit: u32,
    /// The limit down to which its share shrinks with it.
    pub share: u32,
}

impl Less {
    /// What becomes of a seat whose limit goes down so far.
    fn of(self, seat: Seat, limit: u32) -> Seat {
        seat.lowered(limit.max(self.share)).limited(limit)
    }
}

/// Lowers the limits of members to what is named, the first of them first, as far as no fewer
/// replicas can be placed than before. Who gives up a part of its limit gives up as much of its share.
///
/// Who cannot give it up yet goes on working, and is asked again when the picture changes.
pub fn retire(problem: &mut Problem, lower: &[(u32, u32)]) {
    let lower =
        lower.iter().map(|(member, limit)| Less { member: *member, limit: *limit, share: 0 });
    retire_to(problem, Classes::new, lower);
}

/// The same, where not every share shrinks, and it is known how items are counted. A member may be named
/// again with less.
pub(super) fn retire_to(
    problem: &mut Problem,
    classes: impl FnOnce(&Problem) -> Classes,
    lower: impl Iterator<Item = Less>,
) {
    let seat = |problem: &Problem, member: u32| problem.seats().get(member as usize).copied();
    let is_less =
        |less: &Less| seat(problem, less.member).is_some_and(|seat| seat.limit > less.limit);
    let lower: Vec<Less> = lower.filter(is_less).collect();
    if lower.is_empty() {
        return;
    }
    let classes = classes(problem);
    let all = placeable(problem, &classes);
    let fits = |problem: &Problem| placeable(problem, &classes) == all;
    let stands = problem.seats().to_vec();
    let set_first = |problem: &mut Problem, count: usize| {
        for less in &lower {
            set(problem, less.member, stands[less.member as usize]);
        }
        for less in &lower[..count] {
            set(problem, less.member, less.of(problem.seats()[less.member as usize], less.limit));
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
    if let Some(less) = rest.next() {
        let before = problem.seats()[less.member as usize];
        let items = u32::try_from(problem.replication().len()).unwrap_or(u32::MAX);
        let fill = before.limit.min(items);
        let kept = |given: usize| {
            fill.saturating_sub(u32::try_from(given).unwrap_or(fill)).max(less.limit)
        };
        let given = most(fill.saturating_sub(less.limit) as usize, |given| {
            set(problem, less.member, less.of(before, kept(given)));
            fits(problem)
        });
        let seat = if given == 0 { before } else { less.of(before, kept(given)) };
        set(problem, less.member, seat);
    }
    for less in rest.take(TRIES) {
        let before = problem.seats()[less.member as usize];
        set(problem, less.member, less.of(before, less.limit));
        if !fits(problem) {
            set(problem, less.member, before);
        }
    }
}

fn set(problem: &mut Problem, member: u32, to: Seat) {
    if let Some(seat) = problem.seat_mut(member) {
        *seat = to;
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
