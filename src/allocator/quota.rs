//! How much goes where: each member's target load, and how many replicas of each class a zone takes.
//!
//! The network of classes and groups once more, with the fair loads as bounds. What stands is free and
//! the rest costs, so it says which of the members that are off their fair share by a fraction keep the odd item:
//! those that have it. What it costs is a lower bound on new assignments.

use super::{
    fair::Fair,
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
}

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    /// The load that each member is to have.
    pub targets: Vec<u32>,
    /// By class and zone, how many replicas are to be there.
    pub of_class: Vec<i64>,
    /// By class, how many of them beyond the zone rule.
    pub beyond: Vec<i64>,
    /// No plan has fewer new assignments.
    pub lower_bound: u64,
}

/// Counts what stands, by member and by class.
pub(super) fn count(problem: &Problem, fair: &Fair) -> Standing {
    let zones = problem.zones;
    let mut of_class = vec![0; fair.classes.list.len() * zones];
    // Replicas in the lower half of each word, primaries in the upper: one pass, one place each.
    let mut counts = vec![0u64; problem.seats.len()];
    let single = problem.zone_set.is_empty() && fair.classes.list.len() == 1;
    let mut add = |holder: Holder| {
        counts[holder.member() as usize] += 1 + (u64::from(holder.is_primary()) << 32);
    };
    if single {
        problem.held.all().iter().for_each(|holder| add(*holder));
    } else {
        for (item, held) in problem.held.iter().enumerate() {
            let class = fair.classes.of(item);
            for holder in held.iter().filter(|holder| problem.legal(item, **holder)) {
                add(*holder);
                let zone = problem.seats[holder.member() as usize].zone as usize;
                of_class[class * zones + zone] += 1;
            }
        }
    }
    let low = |count: u64| u32::try_from(count & u64::from(u32::MAX)).unwrap_or(0);
    for (count, seat) in counts.iter_mut().zip(&problem.seats) {
        if seat.limit == 0 {
            *count = 0;
        } else if single {
            of_class[seat.zone as usize] += low(*count);
        }
    }
    let of_member = counts.iter().map(|count| low(*count)).collect();
    let primaries = counts.iter().map(|count| low(*count >> 32)).collect();
    Standing { of_member, primaries, of_class }
}

const SOURCE: usize = 0;
const SINK: usize = 1;

pub(super) fn quota(problem: &Problem, fair: &Fair, standing: &Standing) -> Quota {
    let bounds = |member: u32| bounds(problem, fair, member as usize);
    let mut plan =
        Totals { network: Network::new(2), arcs: 0, zones: Vec::new(), groups: Vec::new() };
    let mut nodes = Vec::new();
    let mut in_zone = vec![0; problem.zones];
    for ((zone, ..), members) in &fair.groups.list {
        let node = plan.network.add_node();
        let (mut least, mut kept, mut most) = (0, 0, 0);
        for member in members {
            let (low, high) = bounds(*member);
            let held = i64::from(standing.of_member[*member as usize]);
            least += low;
            kept += (held.min(high) - low).max(0);
            most += high;
        }
        let steps = [least, kept, most - least - kept];
        let steps = steps.map(|step| plan.arc(node, SINK, step));
        plan.groups.push(steps);
        nodes.push((*zone as usize, index(members.len()), node));
        in_zone[*zone as usize] += index(members.len());
    }
    for class in 0..fair.classes.list.len() {
        plan.class(problem, fair, standing, class, &in_zone, &nodes);
    }
    plan.solve();
    let mut targets = vec![0; problem.seats.len()];
    let mut lower_bound = 0;
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
            let held = i64::from(standing.of_member[member as usize]);
            lower_bound += (load - held).max(0).unsigned_abs();
            targets[member as usize] = u32::try_from(load).unwrap_or(0);
        }
    }
    let sum = |arcs: &[Arc]| arcs.iter().map(|arc| plan.network.flow(*arc)).sum::<i64>();
    let of_class = plan.zones.iter().map(|arcs| sum(arcs)).collect();
    let beyond_of = |zones: &[Vec<Arc>]| {
        zones.iter().filter_map(|arcs| arcs.get(2)).map(|arc| sum(&[*arc])).sum()
    };
    let beyond = plan.zones.chunks(problem.zones.max(1)).map(beyond_of).collect();
    Quota { targets, of_class, beyond, lower_bound }
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

struct Totals {
    network: Network,
    arcs: usize,
    /// By class and zone: what stands, more within the zone rule, beyond it.
    zones: Vec<Vec<Arc>>,
    /// By group: to the least load, what stands above it, more.
    groups: Vec<[Arc; 3]>,
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
        groups: &[(usize, i64, usize)],
    ) {
        let (kind, items) = fair.classes.list[class];
        let node = self.network.add_node();
        self.arc(SOURCE, node, fair.placed_of[class]);
        let cap = i64::from(problem.zone_rule.cap(kind.wanted));
        let mut at = vec![None; in_zone.len()];
        for (zone, members) in in_zone.iter().enumerate() {
            if !problem.set_allows(kind.set, zone) || *members == 0 {
                self.zones.push(Vec::new());
                continue;
            }
            let there = self.network.add_node();
            let most = (*members).min(i64::from(kind.wanted));
            let within = items * most.min(cap);
            let stands = i64::from(standing.of_class[class * problem.zones + zone]).min(within);
            let mut arcs =
                vec![self.arc(node, there, stands), self.arc(node, there, within - stands)];
            if most > cap {
                arcs.push(self.arc(node, there, items * (most - cap)));
            }
            self.zones.push(arcs);
            at[zone] = Some(there);
        }
        for (zone, members, group) in groups {
            if let Some(there) = at[*zone] {
                self.arc(there, *group, items * members);
            }
        }
    }

    fn solve(&mut self) {
        self.network.max_flow(SOURCE, SINK);
        self.minimise(|totals, cost| {
            for arc in totals.zones.iter().filter_map(|arcs| arcs.get(2)) {
                cost[arc.number()] = 1;
            }
        });
        self.minimise(|totals, cost| {
            for [least, ..] in &totals.groups {
                cost[least.number()] = -1;
            }
        });
        self.minimise(|totals, cost| {
            for [.., more] in &totals.groups {
                cost[more.number()] = 1;
            }
        });
        self.minimise(|totals, cost| {
            for arc in totals.zones.iter().filter_map(|arcs| arcs.get(1)) {
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
