//! From the indexed problem to the desired assignments, with a certificate of how good they are.
//!
//! Among all assignments that give every item its replicas on different members, within the limits
//! of the members and the zones that the item is restricted to, the plan is the best by, in this
//! order:
//!
//! 1. the most replicas placed; where not all can be, healthy replicas stay, and among the missing
//!    every item's first comes before anybody's second;
//! 2. the fewest replicas beyond what the zone rule lets a zone take, and beyond the rules of what zones
//!    lie in (none, where those are required: then 1 is what can be placed within them);
//! 3. every member's load beside its fair share, which is the fairest that 1 and 2 allow (by the
//!    members' shares), or as far off as the slack says;
//! 4. the fewest new assignments, then the fewest consistent replicas given up;
//! 5. primaries as even as the placement allows, then the fewest hand-offs.
//!
//! So planning the result of a plan changes nothing.
//!
//! All of it is one network. Its arcs have limits, and what a unit of flow costs in them is asked by one
//! objective after the other, each among the flows that are best for those before it:
//!
//! ```text
//!           items            an item in a zone       members
//!           ┌───┐  cap of the zone  ┌─────┐    1     ┌───┐  limit; fair load
//!  source ──┤ i ├──────────────────>│ i,z ├─────────>│ m ├──────────────────> sink
//!   wanted  └───┘                   └─────┘          └───┘
//! ```
//!
//! What is small is planned in that network as it is: [`exact`](super::exact). In one whose items of a kind are
//! one node, and members of a kind another, the totals of any size are found: [`fair`](super::fair).

use std::{cmp::Reverse, fmt};

use serde::{Deserialize, Serialize};

use super::{
    apart::set_apart,
    certificate::{Certificate, certify, once},
    draft::Sheet,
    exact,
    fair::{Fair, cap, fair},
    fill::{Filled, fill},
    holdings::Holdings,
    kinds::{Class, NOWHERE, Zones},
    levels::Levels,
    primaries,
    problem::Problem,
    quota::windows,
    survey::{Cells, survey},
};

/// The desired assignments, and how good they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// Who should hold what. Who held it before is as consistent as it was; nobody new is.
    pub desired: Holdings,
    /// How good that is.
    pub certificate: Certificate,
}

/// Why an item does not get all its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Each replica needs a member of its own, and no more than so many may hold anything.
    TooFewMembers(u32),
    /// The same, within the zones that the item is restricted to.
    TooFewMembersInItsZones(u32),
    /// All members that might hold one more are full, and nothing can be moved to make room.
    NoRoom,
    /// The zone rule, and those of what zones lie in, are required, and let it have no more replicas than so many.
    ZoneRule(u32),
    /// One item or another could have one more replica, and the plan did not find out how: it was made by counting.
    NotFound,
}

impl Reason {
    /// Why an item does not get all its replicas; `None`: it does.
    pub fn of(problem: &Problem, solution: &Solution, item: usize) -> Option<Self> {
        Self::for_lack(problem, item, solution.desired.of(item).len(), &solution.certificate)
    }

    /// Why an item gets so many replicas only.
    pub(super) fn for_lack(
        problem: &Problem,
        item: usize,
        placed: usize,
        plan: &Certificate,
    ) -> Option<Self> {
        let wanted = u64::from(problem.replication[item]);
        if count(placed) >= wanted {
            return None;
        }
        let open = || problem.seats.iter().filter(|seat| seat.limit > 0);
        let members = count(open().count());
        let in_zones = count(open().filter(|seat| problem.allows(item, seat.zone)).count());
        let small = |members: u64| u32::try_from(members).unwrap_or(u32::MAX);
        Some(if members < wanted {
            Self::TooFewMembers(small(members))
        } else if in_zones < wanted {
            Self::TooFewMembersInItsZones(small(in_zones))
        } else if let Some(within) = within(problem, item).filter(|within| count(*within) < wanted)
        {
            Self::ZoneRule(small(count(within)))
        } else if plan.placed < plan.placeable {
            Self::NotFound
        } else {
            Self::NoRoom
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewMembers(0) => f.write_str("no member may hold anything"),
            Self::TooFewMembers(1) => {
                f.write_str("only one member may hold anything, and it holds one replica")
            }
            Self::TooFewMembers(members) => {
                write!(f, "only {members} members may hold anything, and each holds one replica")
            }
            Self::TooFewMembersInItsZones(0) => {
                f.write_str("no member in its zones may hold anything")
            }
            Self::TooFewMembersInItsZones(1) => {
                f.write_str("only one member is in its zones, and it holds one replica")
            }
            Self::TooFewMembersInItsZones(members) => {
                write!(f, "only {members} members are in its zones, and each holds one replica")
            }
            Self::ZoneRule(1) => {
                f.write_str("the zone rule is required, and lets it have one replica")
            }
            Self::ZoneRule(most) => {
                write!(f, "the zone rule is required, and lets it have {most} replicas")
            }
            Self::NoRoom => f.write_str("all members that might hold it are full"),
            Self::NotFound => f.write_str("no place was found, though not all that fits is placed"),
        }
    }
}

/// How many replicas an item may have within the rules, if those are required.
fn within(problem: &Problem, item: usize) -> Option<usize> {
    if !problem.required {
        return None;
    }
    let (wanted, set) = problem.kind(item);
    let (class, zones) = (Class { wanted, set, standing: 0 }, Zones::new(problem));
    let levels = Levels::new(problem, &zones, &[(class, 1)]);
    let mut members = vec![0; zones.len()];
    for zone in zones.of_member.iter().filter(|zone| **zone != NOWHERE) {
        members[*zone as usize] +=
            usize::from(problem.set_allows(set, zones.names[*zone as usize]));
    }
    let cap = cap(problem, &zones, class);
    let in_zone: Vec<usize> = members.into_iter().map(|members: usize| members.min(cap)).collect();
    Some(levels.within(0, &in_zone))
}

/// Items times members up to which the plan is made by one flow, which is exact in every objective.
const SMALL: usize = 1 << 13;

/// Items times members up to which that is still bearable where counting did not find the best.
const BEARABLE: usize = 1 << 20;

/// Whether a problem is planned by one flow.
pub(super) fn is_small(problem: &Problem) -> bool {
    problem.replication.len().saturating_mul(problem.seats.len()) <= SMALL
}

/// Plans: decides for every item who is to hold it, by the objectives of [`Problem`] in their order.
pub fn solve(problem: &Problem) -> Solution {
    let size = problem.replication.len().saturating_mul(problem.seats.len());
    let fair = fair(problem);
    if is_small(problem) {
        return by_flow(problem, &fair);
    }
    let counted = by_counting(problem, &fair);
    if size <= BEARABLE && !counted.certificate.is_best() {
        return by_flow(problem, &fair);
    }
    counted
}

/// Plans by counting whatever the size: what [`solve`] does where problems are large.
pub fn solve_by_counting(problem: &Problem) -> Solution {
    by_counting(problem, &fair(problem))
}

fn by_flow(problem: &Problem, fair: &Fair) -> Solution {
    let mut desired = exact::place(problem, fair);
    exact::elect(problem, &mut desired);
    let mut loads = vec![0; problem.seats.len()];
    for holder in desired.all() {
        loads[holder.member() as usize] += 1;
    }
    let items: Vec<u32> = (0..).take(desired.len()).collect();
    finish(problem, fair, Sheet::with(problem, desired), &items, &loads)
}

fn by_counting(problem: &Problem, fair: &Fair) -> Solution {
    let (solution, loads) = counted(problem, fair);
    let certificate = &solution.certificate;
    if certificate.is_best() || certificate.added + certificate.removed == 0 {
        return solution;
    }
    // What is not known to be the best must be better than what stands: nothing moves from one plan to another
    // that is as good.
    let rank = |certificate: &Certificate, loads: &[u32]| {
        let Certificate { placed, out_of_turn, beyond, .. } = certificate;
        (Reverse(*placed), *out_of_turn, *beyond, off(problem, fair, loads))
    };
    let best = rank(certificate, &loads);
    match as_it_stands(problem, fair) {
        Some((stands, loads)) if rank(&stands.certificate, &loads) <= best => stands,
        _ => solution,
    }
}

/// How many items the members are off their fair loads, beyond the slack.
fn off(problem: &Problem, fair: &Fair, loads: &[u32]) -> i64 {
    let windows = windows(problem, fair);
    let off = |(load, (least, most)): (&u32, &(i64, i64))| {
        let load = i64::from(*load);
        (least - load).max(load - most).max(0)
    };
    loads.iter().zip(&windows).map(off).sum()
}

/// What stands, if all of it may go on, with primaries as even as they can be; and what members hold.
fn as_it_stands(problem: &Problem, fair: &Fair) -> Option<(Solution, Vec<u32>)> {
    let held = problem.held();
    let is_legal = |item: usize| {
        let row = held.of(item);
        row.len() <= problem.wanted(item) as usize
            && row.iter().all(|holder| problem.legal(item, *holder))
    };
    if !(0..held.len()).all(is_legal) {
        return None;
    }
    let mut loads = vec![0; problem.seats.len()];
    let mut primaries = loads.clone();
    for holder in held.all() {
        loads[holder.member() as usize] += 1;
        primaries[holder.member() as usize] += u32::from(holder.is_primary());
    }
    if loads.iter().zip(&problem.seats).any(|(load, seat)| *load > seat.limit) {
        return None;
    }
    let mut filled = Filled {
        draft: Sheet::with(problem, held.clone()),
        touched: Vec::new(),
        ordered: 0,
        loads,
        primaries,
        held: count(held.iter().filter(|row| !row.is_empty()).count()),
        lower_bound: 0,
    };
    primaries::elect(problem, &mut filled);
    let Filled { draft, loads, .. } = filled;
    let items: Vec<u32> = (0..).take(held.len()).collect();
    let stands = finish(problem, fair, draft, &items, &loads);
    (stands.certificate.beyond == 0 || !problem.required).then_some((stands, loads))
}

/// Plans by counting, and says what members hold then.
fn counted(problem: &Problem, fair: &Fair) -> (Solution, Vec<u32>) {
    let cells = Cells::new(fair);
    let (standing, unsound) = survey(problem, fair, &cells);
    let mut filled = fill(problem, fair, &cells, standing, unsound, Sheet::new(problem));
    if !fair.levels.are_none() || fair.required {
        set_apart(problem, fair, &windows(problem, fair), &mut filled);
    }
    primaries::elect(problem, &mut filled);
    let Filled { draft, touched, ordered, loads, lower_bound, .. } = filled;
    let touched = once(touched, ordered, problem.replication.len());
    let mut solution = finish(problem, fair, draft, &touched, &loads);
    solution.certificate.bound_from_below(lower_bound);
    (solution, loads)
}

/// The solution, with as many new assignments as if there could be no fewer.
fn finish(
    problem: &Problem,
    fair: &Fair,
    draft: Sheet<'_>,
    touched: &[u32],
    loads: &[u32],
) -> Solution {
    let count_wanted = || problem.replication.iter().map(|wanted| u64::from(*wanted)).sum();
    let wanted = problem.tally().wanted().unwrap_or_else(count_wanted);
    let mut certificate = certify(problem, fair, &draft, wanted, touched, loads);
    certificate.lower_bound = certificate.added;
    Solution { desired: draft.desired, certificate }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
