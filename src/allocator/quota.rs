//! How much goes where: each member's target load, and how many replicas of each class a zone takes.
//!
//! The network of classes and groups once more, with the fair loads as bounds, and two ways from a
//! class to a group in a zone:
//!
//! ```text
//!                                 ┌─ as many as stand: free ──> kept ──> up to what members keep ─┐
//!  class ──> in a zone ──> group ─┤                              ↑                                ├──> sink
//!                                 └─ new: 1 each ─────────────> new ───> up to the fair load ─────┘
//! ```
//!
//! What it costs is a lower bound on new assignments: a replica stays only if its class may stay in
//! the zone, and its member may keep it.

use std::collections::BTreeMap;

use super::{
    fair::{Class, Fair},
    flow::{Arc, Network},
    problem::{Holder, Problem, index},
};

/// What stands and may stay, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// By member.
    pub of_member: Vec<u32>,
    /// By member, those of them that are primaries.
    pub primaries: Vec<u32>,
    /// By class and zone.
    pub of_class: Vec<u32>,
    /// By class and group.
    pub of_group: Vec<u32>,
}

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    /// The load that each member is to have.
    pub targets: Vec<u32>,
    /// By class, how many replicas are placed.
    pub placed_of: Vec<i64>,
    /// By class and zone, how many replicas are to be there.
    pub of_class: Vec<i64>,
    /// By class, how many of them beyond the zone rule.
    pub beyond: Vec<i64>,
    /// No plan has fewer new assignments.
    pub lower_bound: u64,
}

/// Counts what stands, by member and by class.
pub(super) fn count(problem: &Problem, fair: &Fair) -> Standing {
    let (classes, groups) = (fair.classes.list.len(), fair.groups.list.len());
    let mut group_of = vec![0; problem.seats.len()];
    for (group, (_, members)) in fair.groups.list.iter().enumerate() {
        for member in members {
            group_of[*member as usize] = group;
        }
    }
    let mut of_group = vec![0; classes * groups];
    // Replicas in the lower half of each word, primaries in the upper: one pass, one place each.
    let mut counts = vec![0u64; problem.seats.len()];
    let single = problem.zone_set.is_empty() && classes == 1;
    let mut add = |holder: Holder| {
        counts[holder.member() as usize] += 1 + (u64::from(holder.is_primary()) << 32);
    };
    if single {
        problem.held.all().iter().for_each(|holder| add(*holder));
    } else {
        for (item, held) in problem.held.iter().enumerate() {
            let row = fair.classes.of(item) * groups;
            for holder in held.iter().filter(|holder| problem.legal(item, **holder)) {
                add(*holder);
                of_group[row + group_of[holder.member() as usize]] += 1;
            }
        }
    }
    let low = |count: u64| u32::try_from(count & u64::from(u32::MAX)).unwrap_or(0);
    for (count, (seat, group)) in counts.iter_mut().zip(problem.seats.iter().zip(&group_of)) {
        if seat.limit == 0 {
            *count = 0;
        } else if single {
            of_group[*group] += low(*count);
        }
    }
    let mut of_class = vec![0; classes * problem.zones];
    for (at, held) in of_group.iter().enumerate() {
        let ((zone, ..), _) = fair.groups.list[at % groups];
        of_class[at / groups * problem.zones + zone as usize] += held;
    }
    let of_member = counts.iter().map(|count| low(*count)).collect();
    let primaries = counts.iter().map(|count| low(*count >> 32)).collect();
    Standing { of_member, primaries, of_class, of_group }
}

const SOURCE: usize = 0;
const SINK: usize = 1;

pub(super) fn quota(problem: &Problem, fair: &Fair, standing: &Standing) -> Quota {
    let bounds = |member: u32| bounds(problem, fair, member as usize);
    let mut plan = Totals { network: Network::new(2), ..Totals::default() };
    let mut nodes = Vec::new();
    let mut in_zone = vec![0; problem.zones];
    for ((zone, ..), members) in &fair.groups.list {
        let (kept, new) = (plan.network.add_node(), plan.network.add_node());
        let (mut least, mut stay, mut more) = ([0, 0], 0, 0);
        for member in members {
            let (low, high) = bounds(*member);
            let held = i64::from(standing.of_member[*member as usize]);
            least[0] += held.min(low);
            least[1] += (low - held).max(0);
            stay += (held.min(high) - low).max(0);
            more += high - low.max(held.min(high));
        }
        plan.arc(new, kept, least[0] + stay);
        let steps = [(kept, least[0]), (kept, stay), (new, least[1]), (new, more)];
        let steps = steps.map(|(node, step)| plan.arc(node, SINK, step));
        plan.groups.push(steps);
        nodes.push((*zone as usize, index(members.len()), kept, new));
        in_zone[*zone as usize] += index(members.len());
    }
    for class in 0..fair.classes.list.len() {
        plan.class(problem, fair, standing, class, &in_zone, &nodes);
    }
    plan.solve(fair.short);
    let mut targets = vec![0; problem.seats.len()];
    for ((_, members), arcs) in fair.groups.list.iter().zip(&plan.groups) {
        let total = arcs.iter().map(|arc| plan.network.flow(*arc)).sum();
        let mut loads: Vec<(u32, i64)> = Vec::with_capacity(members.len());
        for member in members {
            let (low, high) = bounds(*member);
            let held = i64::from(standing.of_member[*member as usize]);
            loads.push((*member, held.clamp(low, high)));
        }
        even_out(&mut loads, total, bounds);
        for (member, load) in loads {
            targets[member as usize] = u32::try_from(load).unwrap_or(0);
        }
    }
    let sum = |arcs: &[Arc]| arcs.iter().map(|arc| plan.network.flow(*arc)).sum::<i64>();
    let of_class = plan.zones.iter().map(|arcs| sum(arcs)).collect();
    let beyond_of = |zones: &[Vec<Arc>]| {
        zones.iter().filter_map(|arcs| arcs.get(1)).map(|arc| sum(&[*arc])).sum()
    };
    let beyond = plan.zones.chunks(problem.zones.max(1)).map(beyond_of).collect();
    let lower_bound = sum(&plan.new).unsigned_abs();
    let placed_of = plan.classes.iter().map(|arcs| sum(arcs)).collect();
    Quota { targets, placed_of, of_class, beyond, lower_bound }
}

/// The least and the greatest load of a member that the slack allows.
pub(super) fn bounds(problem: &Problem, fair: &Fair, member: usize) -> (i64, i64) {
    let (least, most) = fair.loads[member];
    let slack = i64::from(problem.slack);
    ((least - slack).max(0), (most + slack).min(problem.limit(member)))
}

/// Changes loads, the lowest up and the highest down, until they sum to `total`.
fn even_out(loads: &mut [(u32, i64)], total: i64, bounds: impl Fn(u32) -> (i64, i64)) {
    let mut sum: i64 = loads.iter().map(|(_, load)| load).sum();
    while sum != total {
        let up = sum < total;
        let movable = |(member, load): &&mut (u32, i64)| {
            let (low, high) = bounds(*member);
            if up { *load < high } else { *load > low }
        };
        let edge = loads.iter_mut().filter(movable).map(|(_, load)| *load);
        let edge = if up { edge.min() } else { edge.max() };
        let Some(edge) = edge else { return };
        for (_, load) in loads.iter_mut().filter(movable).filter(|(_, load)| *load == edge) {
            if sum == total {
                return;
            }
            *load += if up { 1 } else { -1 };
            sum += if up { 1 } else { -1 };
        }
    }
}

#[derive(Default)]
struct Totals {
    network: Network,
    arcs: usize,
    /// By class and zone: within the zone rule, beyond it.
    zones: Vec<Vec<Arc>>,
    /// By group: what stands up to the least load, and above it; new up to it, and above it.
    groups: Vec<[Arc; 4]>,
    /// What is new.
    new: Vec<Arc>,
    /// The arcs from the source, by rank and by class.
    ranks: BTreeMap<u32, Vec<Arc>>,
    classes: Vec<Vec<Arc>>,
}

impl Totals {
    fn arc(&mut self, from: usize, to: usize, capacity: i64) -> Arc {
        self.arcs += 1;
        self.network.add_arc(from, to, capacity)
    }

    fn class(
        &mut self,
        problem: &Problem,
        fair: &Fair,
        standing: &Standing,
        class: usize,
        in_zone: &[i64],
        groups: &[(usize, i64, usize, usize)],
    ) {
        let (kind, items) = fair.classes.list[class];
        let node = self.network.add_node();
        let Class { wanted, standing: stands, .. } = kind;
        let stands = if stands > 0 { Some((0, i64::from(stands))) } else { None };
        let ranks = stands.into_iter().chain((kind.standing + 1..=wanted).map(|rank| (rank, 1)));
        let mut sources = Vec::new();
        for (rank, each) in ranks {
            let arc = self.arc(SOURCE, node, items * each);
            self.ranks.entry(rank).or_default().push(arc);
            sources.push(arc);
        }
        self.classes.push(sources);
        let cap = i64::from(problem.zone_rule.cap(kind.wanted));
        let mut at = vec![None; in_zone.len()];
        for (zone, members) in in_zone.iter().enumerate() {
            if !problem.set_allows(kind.set, zone) || *members == 0 {
                self.zones.push(Vec::new());
                continue;
            }
            let there = self.network.add_node();
            let most = (*members).min(i64::from(kind.wanted));
            let mut arcs = vec![self.arc(node, there, items * most.min(cap))];
            if most > cap {
                arcs.push(self.arc(node, there, items * (most - cap)));
            }
            self.zones.push(arcs);
            at[zone] = Some(there);
        }
        for (group, (zone, members, kept, new)) in groups.iter().enumerate() {
            if let Some(there) = at[*zone] {
                let both = self.network.add_node();
                let stands = standing.of_group[class * groups.len() + group];
                self.arc(there, both, items * members);
                self.arc(both, *kept, i64::from(stands));
                let arc = self.arc(both, *new, items * members);
                self.new.push(arc);
            }
        }
    }

    fn solve(&mut self, short: bool) {
        self.network.max_flow(SOURCE, SINK);
        let last = self.ranks.keys().copied().max().filter(|_| short);
        for rank in 0..=last.unwrap_or(0) {
            self.minimise(|totals, cost| {
                for arc in totals.ranks.get(&rank).filter(|_| short).into_iter().flatten() {
                    cost[arc.number()] = -1;
                }
            });
        }
        self.minimise(|totals, cost| {
            for arc in totals.zones.iter().filter_map(|arcs| arcs.get(1)) {
                cost[arc.number()] = 1;
            }
        });
        self.minimise(|totals, cost| {
            for [least, _, least_new, _] in &totals.groups {
                cost[least.number()] = -1;
                cost[least_new.number()] = -1;
            }
        });
        self.minimise(|totals, cost| {
            for arc in &totals.new {
                cost[arc.number()] = 1;
            }
        });
    }

    fn minimise(&mut self, objective: impl Fn(&Self, &mut Vec<i64>)) {
        let mut cost = vec![0; self.arcs];
        objective(self, &mut cost);
        self.network.minimise(&cost);
    }
}
