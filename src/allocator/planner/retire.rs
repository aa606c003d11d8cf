//! What members give up now of what they should: all that the others can take over, and no more.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{fair::Reach, kinds::Classes, problem::Problem, seat::Seat};

/// How many members are tried one by one where not all can give up what they should.
const TRIES: usize = 32;

/// What must not get worse because a member gives something up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The number of replicas that can be placed.
    Replicas,
    /// That, and the number of those that are within the zone rule.
    ZoneRule,
}

/// What a member should give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Less {
    /// Its number.
    pub member: u32,
    /// The limit that it should go down to.
    pub limit: u32,
    /// The limit down to which its share shrinks with it.
    pub share: u32,
    /// What must not get worse for that.
    pub keep: Keep,
}

impl Less {
    /// Whether it is less than the member may hold.
    fn is_less(&self, problem: &Problem) -> bool {
        problem.seats().get(self.member as usize).is_some_and(|seat| seat.limit > self.limit)
    }

    /// What becomes of a seat whose limit goes down so far.
    fn of(self, seat: Seat, limit: u32) -> Seat {
        seat.lowered(limit.max(self.share)).limited(limit)
    }
}

/// Why a member does not give up yet what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stays {
    /// Fewer replicas could be placed without it.
    NoRoom,
    /// More replicas would be beyond the zone rule without it.
    ZoneRule,
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "the others have no room for what it holds",
            Self::ZoneRule => "without it the zone rule would be broken",
        })
    }
}

/// Lowers the limits of members to what is named, the first of them first, as far as no fewer
/// replicas can be placed than before, and no more of them are beyond the zone rule. Who gives up a part
/// of its limit gives up as much of its share.
///
/// Who cannot give it up yet goes on working, and is asked again when the picture changes. It is returned
/// by its number, in the order of `lower`, with the reason.
pub fn retire(problem: &mut Problem, lower: &[(u32, u32)]) -> Vec<(u32, Stays)> {
    let keep = Keep::ZoneRule;
    let less = lower.iter().map(|(member, limit)| (*member, *limit));
    let less = less.map(|(member, limit)| Less { member, limit, share: 0, keep });
    retire_to(problem, Classes::new, &less.collect::<Vec<Less>>())
}

/// The same, where not every share shrinks, and it is known how items are counted. A member may be named again
/// with less. Those for whom fewer things must not get worse come first.
pub(super) fn retire_to(
    problem: &mut Problem,
    classes: impl FnOnce(&Problem) -> Classes,
    lower: &[Less],
) -> Vec<(u32, Stays)> {
    if !lower.iter().any(|less| less.is_less(problem)) {
        return Vec::new();
    }
    let classes = classes(problem);
    let alike = lower.chunk_by(|one, other| one.keep == other.keep);
    alike.flat_map(|lower| retire_alike(problem, &classes, lower)).collect()
}

fn retire_alike(problem: &mut Problem, classes: &Classes, lower: &[Less]) -> Vec<(u32, Stays)> {
    let lower: Vec<Less> = lower.iter().filter(|less| less.is_less(problem)).copied().collect();
    let Some(Less { keep, .. }) = lower.first().copied() else { return Vec::new() };
    let bounds = Bounds::new(problem, classes, keep);
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
        bounds.are_kept(problem)
    });
    set_first(problem, count);
    // The next gives up what it can, and of the others some may be dispensable as a whole.
    let mut stays = Vec::new();
    for (turn, less) in lower[count..].iter().enumerate() {
        let before = problem.seats()[less.member as usize];
        let last = stays.last().map_or(Stays::NoRoom, |(_, why)| *why);
        set(problem, less.member, less.of(before, less.limit));
        let why = if turn > TRIES { Some(last) } else { bounds.broken(problem) };
        if let Some(why) = why {
            stays.push((less.member, why));
            set(problem, less.member, before);
        }
        if turn == 0 {
            give_some(problem, *less, &bounds);
        }
    }
    stays
}

/// Has a member give up as much of what it should as it can.
fn give_some(problem: &mut Problem, less: Less, bounds: &Bounds<'_>) {
    let before = problem.seats()[less.member as usize];
    let items = u32::try_from(problem.replication().len()).unwrap_or(u32::MAX);
    let fill = before.limit.min(items);
    let kept =
        |given: usize| fill.saturating_sub(u32::try_from(given).unwrap_or(fill)).max(less.limit);
    let given = most(fill.saturating_sub(less.limit) as usize, |given| {
        set(problem, less.member, less.of(before, kept(given)));
        bounds.are_kept(problem)
    });
    let seat = if given == 0 { before } else { less.of(before, kept(given)) };
    set(problem, less.member, seat);
}

/// What is possible before anybody gives anything up.
struct Bounds<'a> {
    classes: &'a Classes,
    placed: i64,
    /// Replicas beyond the zone rule. `None`: nobody asks.
    beyond: Option<i64>,
}

impl<'a> Bounds<'a> {
    fn new(problem: &Problem, classes: &'a Classes, keep: Keep) -> Self {
        let mut reach = Reach::new(problem, classes);
        let beyond = (keep == Keep::ZoneRule).then(|| reach.beyond());
        Self { placed: reach.placed, classes, beyond }
    }

    /// What of it is not possible any more.
    fn broken(&self, problem: &Problem) -> Option<Stays> {
        let mut reach = Reach::new(problem, self.classes);
        if reach.placed < self.placed {
            return Some(Stays::NoRoom);
        }
        let is_broken = self.beyond.is_some_and(|beyond| reach.beyond() > beyond);
        is_broken.then_some(Stays::ZoneRule)
    }

    fn are_kept(&self, problem: &Problem) -> bool {
        self.broken(problem).is_none()
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
