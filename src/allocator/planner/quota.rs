//! How much goes where: each member's target load, and how many replicas of each class a zone takes.
//!
//! The network of classes and groups once more, with the fair loads as bounds, and two ways from a
//! class to a group in a zone:
//!
//! ```text
//!          within the cap      ┌─ as many as stand: free ──> kept ──> up to what members keep ─┐
//!  class ────────────────> in a zone ──> group                ↑                                ├──> sink
//!      └──> beyond it ────────>└─ new: 1 each ─────────────> new ───> up to the fair load ─────┘
//! ```
//!
//! What it costs is a lower bound on new assignments: a replica stays only if its class may stay in
//! the zone, and its member may keep it. Where items have more in a zone than it takes, a second one counts
//! what may stay of each class in a zone, item by item. (Where there are many groups, all of a zone count as one;
//! that bound is weaker, and still one.)

use std::collections::BTreeMap;

use super::{
    fair::Fair,
    flow::{Arc, Network, index},
    problem::Problem,
    survey::{Cells, Standing},
};

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    /// The load that each member is to have.
    pub targets: Vec<i64>,
    /// By class, how many replicas are placed.
    pub placed_of: Vec<i64>,
    /// By class and zone, how many replicas are to be there.
    pub of_class: Vec<i64>,
    /// By class, how many of them beyond the zone rule.
    pub beyond: Vec<i64>,
    /// How much of the loads is within the least that they should be.
    pub least: i64,
    /// No plan has fewer new assignments.
    pub lower_bound: u64,
}

const SOURCE: usize = 0;
const SINK: usize = 1;

/// The least and the greatest load of each member that the slack allows.
pub(super) fn windows(problem: &Problem, fair: &Fair) -> Vec<(i64, i64)> {
    let slack = i64::from(problem.slack);
    let window = |(member, (least, most)): (usize, &(i64, i64))| {
        ((least - slack).max(0), (most + slack).min(problem.limit(member)))
    };
    fair.loads.iter().enumerate().map(window).collect()
}

/// What is vacant once items keep what they may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vacant {
    /// By class, the places.
    pub of_class: Vec<i64>,
    /// By class, the items that nobody holds.
    pub empty: Vec<i64>,
    /// By class, how many of them could be filled in a zone where nobody holds their items.
    pub fits: Vec<i64>,
    /// By class and zone, how many fewer can, by the zone rule.
    pub crowded: Vec<i64>,
}

/// What goes where, with as little new as can be.
pub(super) fn quota(
    fair: &Fair,
    cells: &Cells,
    windows: &[(i64, i64)],
    standing: &Standing,
) -> Quota {
    let mut totals = Totals::new(fair, cells, windows, standing, None);
    for class in 0..fair.classes.list.len() {
        totals.class(fair, class, None);
    }
    totals.solve(fair.short);
    totals.quota(cells, windows, standing)
}

/// The same once items keep what they may. What stands may be what stood before, of which not all can be
/// kept: then it is a lower bound for whatever is kept.
///
/// As many are placed, and go beyond the zone rule, as by the `first` quota.
pub(super) fn second_quota(
    fair: &Fair,
    cells: &Cells,
    windows: &[(i64, i64)],
    standing: &Standing,
    first: &Quota,
    vacant: &Vacant,
) -> Quota {
    let mut totals = Totals::new(fair, cells, windows, standing, None);
    for class in 0..fair.classes.list.len() {
        if fair.beyond == 0 && fair.levels.are_none() {
            totals.refill(fair, class, first, vacant);
        } else {
            totals.class(fair, class, Some(first));
        }
    }
    totals.solve(false);
    totals.quota(cells, windows, standing)
}

/// How many new assignments there are at least, if of each class so many replicas in a zone cannot stay,
/// because they are beyond what it takes of their items.
pub(super) fn bound_within(
    fair: &Fair,
    cells: &Cells,
    windows: &[(i64, i64)],
    standing: &Standing,
    first: &Quota,
    excess: &[i64],
) -> u64 {
    // A member may seem to hold an item twice here. What comes before moves must not become better by that
    // than it can be, because then more would have to move for it.
    let mut totals = Totals::new(fair, cells, windows, standing, Some(first.least));
    let ranks = fair.ranks.iter().map(|(rank, placed)| {
        let node = totals.network.add_node();
        totals.arc(SOURCE, node, *placed);
        (*rank, node)
    });
    let ranks: BTreeMap<u32, usize> = ranks.collect();
    for class in 0..fair.classes.list.len() {
        totals.within(fair, class, &ranks, excess);
    }
    totals.solve(false);
    totals.lower_bound()
}

/// A member's load between its bounds.
#[derive(Clone, Copy)]
struct Load {
    low: i64,
    high: i64,
    now: i64,
}

/// Changes loads, the lowest up or the highest down, until they sum to `total`.
fn even_out(loads: &mut [Load], total: i64) {
    let sum: i64 = loads.iter().map(|load| load.now).sum();
    if sum == total {
        return;
    }
    let up = sum < total;
    // Raised to a level, or lowered to it, as far as each may.
    let at = |load: &Load, level: i64| {
        if up { load.now.max(level.min(load.high)) } else { load.now.min(level.max(load.low)) }
    };
    let sum = |level: i64| loads.iter().map(|load| at(load, level)).sum::<i64>();
    let (mut least, mut most) = (i64::MAX, 0);
    for load in &*loads {
        least = least.min(load.low);
        most = most.max(load.high);
    }
    // The last level that does not go too far.
    while least < most {
        let middle = least + (most - least + i64::from(up)).div_euclid(2);
        match (up, sum(middle)) {
            (true, sum) if sum <= total => least = middle,
            (true, _) => most = middle - 1,
            (false, sum) if sum >= total => most = middle,
            (false, _) => least = middle + 1,
        }
    }
    let mut left = total - sum(least);
    for load in loads {
        let (here, next) = (at(load, least), at(load, if up { least + 1 } else { least - 1 }));
        load.now = if left == 0 { here } else { next };
        left -= load.now - here;
    }
}

/// By zone, the load that would be everybody's if what is fair in it were spread without regard to
/// shares; those who may not hold as much are full.
fn levels(fair: &Fair, cells: &Cells, windows: &[(i64, i64)]) -> Vec<i64> {
    let mut zones = vec![(0, Vec::new()); fair.zones.len()];
    for (zone, members) in &cells.list {
        for member in members {
            let (total, loads) = &mut zones[*zone];
            *total += fair.loads[*member as usize].1;
            loads.push(Load { low: 0, high: windows[*member as usize].1, now: 0 });
        }
    }
    let level = |(total, mut loads): (i64, Vec<Load>)| {
        even_out(&mut loads, total);
        loads.iter().map(|load| load.now).max().unwrap_or(0)
    };
    zones.into_iter().map(level).collect()
}

/// Where what comes to a cell goes in.
#[derive(Clone, Copy)]
struct Node {
    zone: usize,
    members: i64,
    kept: usize,
    new: usize,
}

#[derive(Default)]
struct Totals<'a> {
    network: Network,
    arcs: usize,
    standing: Option<&'a Standing>,
    /// By zone, its members.
    in_zone: Vec<i64>,
    /// By class and zone, what stands there.
    of_zone: Vec<u32>,
    nodes: Vec<Node>,
    /// By class and zone, what comes to be there.
    zones: Vec<Vec<Arc>>,
    /// By class: all that is beyond the zone rule.
    beyond: Vec<Vec<Arc>>,
    /// What is beyond the rules of what zones lie in.
    around: Vec<Arc>,
    /// By cell: what stands up to the least load, and above it; new up to it, above it up to the zone's
    /// level, and beyond that.
    cells: Vec<[Arc; 5]>,
    /// Whether loads may be further apart than is fair.
    slack: bool,
    /// What is new.
    new: Vec<Arc>,
    /// What goes from zone to zone.
    more: Vec<Arc>,
    /// The arcs from the source, by rank and by class.
    ranks: BTreeMap<u32, Vec<Arc>>,
    classes: Vec<Vec<Arc>>,
}

impl<'a> Totals<'a> {
    /// `least` says how much of the loads can be within the least that they should be, if that is known.
    fn new(
        fair: &Fair,
        cells: &Cells,
        windows: &[(i64, i64)],
        standing: &'a Standing,
        least: Option<i64>,
    ) -> Self {
        let mut totals = Self {
            network: Network::new(2),
            standing: Some(standing),
            in_zone: vec![0; fair.zones.len()],
            slack: *windows != *fair.loads,
            of_zone: standing.of_zone(fair, cells),
            ..Self::default()
        };
        let within = least.map_or(SINK, |most| {
            let node = totals.network.add_node();
            totals.arc(node, SINK, most);
            node
        });
        let levels = if totals.slack { levels(fair, cells, windows) } else { Vec::new() };
        for (zone, members) in &cells.list {
            let level = levels.get(*zone).copied().unwrap_or(i64::MAX);
            totals.in_zone[*zone] += index(members.len());
            let (kept, new) = (totals.network.add_node(), totals.network.add_node());
            let (mut least, mut least_new, mut stay) = (0, 0, 0);
            let (mut more, mut most) = (0, 0);
            for member in members {
                let (low, high) = windows[*member as usize];
                let held = i64::from(standing.of_member[*member as usize]);
                least += held.min(low);
                least_new += (low - held).max(0);
                stay += (held.min(high) - low).max(0);
                let (from, to) = (low.max(held.min(high)), level.min(high));
                more += (to - from).max(0);
                most += high - from.max(to);
            }
            totals.arc(new, kept, least + stay);
            let steps = [
                (kept, least, within),
                (kept, stay, SINK),
                (new, least_new, within),
                (new, more, SINK),
                (new, most, SINK),
            ];
            let steps = steps.map(|(node, step, to)| totals.arc(node, to, step));
            totals.cells.push(steps);
            totals.nodes.push(Node { zone: *zone, members: index(members.len()), kept, new });
        }
        totals
    }

    fn arc(&mut self, from: usize, to: usize, capacity: i64) -> Arc {
        self.arcs += 1;
        self.network.add_arc(from, to, capacity)
    }

    /// How many replicas of a class are in a zone.
    fn stands(&self, class: usize, zone: usize) -> i64 {
        i64::from(self.of_zone[class * self.in_zone.len() + zone])
    }

    /// Adds a class, placed as the first quota placed it, if that is known.
    fn class(&mut self, fair: &Fair, class: usize, first: Option<&Quota>) {
        let (kind, items) = fair.classes.list[class];
        let node = self.network.add_node();
        let mut sources = Vec::new();
        if let Some(first) = first {
            sources.push(self.arc(SOURCE, node, first.placed_of[class]));
        } else {
            for (rank, each) in kind.ranks() {
                let arc = self.arc(SOURCE, node, items * each);
                self.ranks.entry(rank).or_default().push(arc);
                sources.push(arc);
            }
        }
        self.classes.push(sources);
        let wanted = i64::from(kind.wanted);
        let cap = wanted.min(index(fair.rule[class]));
        let zones = self.in_zone.len();
        let lies_in = fair.levels.lay_out(class, node, zones, |from, cap| {
            let into = self.network.add_node();
            self.arc(from, into, items * wanted.min(index(cap)));
            if !fair.required {
                let beyond = self.arc(from, into, items * wanted);
                self.around.push(beyond);
            }
            into
        });
        // From each node that zones lie in, one arc goes beyond the zone rule.
        let mut outside = BTreeMap::new();
        if cap < wanted && !fair.required {
            let most =
                first.map_or(items * (wanted - cap) * index(zones), |first| first.beyond[class]);
            for from in &lies_in {
                let new = || {
                    let outside = self.network.add_node();
                    (outside, self.arc(*from, outside, most))
                };
                outside.entry(*from).or_insert_with(new);
            }
        }
        self.beyond.push(outside.values().map(|(_, arc)| *arc).collect());
        let mut at = vec![None; zones];
        for (zone, at) in at.iter_mut().enumerate() {
            if !fair.is_open(class, zone) {
                self.zones.push(Vec::new());
                continue;
            }
            let there = self.network.add_node();
            let most = self.in_zone[zone].min(wanted);
            // As many as are in the zone now, and more.
            let stands = self.stands(class, zone).min(items * most.min(cap));
            let from = lies_in[zone];
            let more = self.arc(from, there, items * most.min(cap) - stands);
            self.more.push(more);
            let mut arcs = vec![self.arc(from, there, stands), more];
            if let Some((outside, _)) = outside.get(&from).filter(|_| most > cap) {
                arcs.push(self.arc(*outside, there, items * (most - cap)));
            }
            self.zones.push(arcs);
            *at = Some(there);
        }
        for cell in 0..self.nodes.len() {
            let Node { zone, members, new, .. } = self.nodes[cell];
            if let Some(there) = at[zone] {
                let both = self.network.add_node();
                self.arc(there, both, items * members);
                self.keep(both, class, cell);
                let arc = self.arc(both, new, items * members);
                self.new.push(arc);
            }
        }
    }

    /// Adds a class of which so much stays in each zone at most as is within the zone rule:
    ///
    /// ```text
    ///  class ──> in a zone ──┬─ as many as stand within the rule ──> as many as stand: free ──> kept
    ///                        └─ new: 1 each ──> new
    /// ```
    fn within(&mut self, fair: &Fair, class: usize, ranks: &BTreeMap<u32, usize>, excess: &[i64]) {
        let (kind, items) = fair.classes.list[class];
        let node = self.network.add_node();
        for (rank, each) in kind.ranks() {
            self.arc(ranks.get(&rank).copied().unwrap_or(SOURCE), node, items * each);
        }
        let zones = self.in_zone.len();
        let mut at = vec![None; zones];
        for zone in (0..zones).filter(|zone| fair.is_open(class, *zone)) {
            let (there, stays) = (self.network.add_node(), self.network.add_node());
            let most = self.in_zone[zone].min(i64::from(kind.wanted)).min(index(fair.caps[class]));
            self.arc(node, there, items * most);
            let stand = self.stands(class, zone) - excess[class * zones + zone];
            self.arc(there, stays, stand);
            at[zone] = Some((there, stays));
        }
        for cell in 0..self.nodes.len() {
            let Node { zone, members, new, .. } = self.nodes[cell];
            if let Some((there, stays)) = at[zone] {
                self.keep(stays, class, cell);
                let arc = self.arc(there, new, items * members);
                self.new.push(arc);
            }
        }
    }

    /// What stands of a class in a cell may stay.
    fn keep(&mut self, from: usize, class: usize, cell: usize) {
        let stands =
            self.standing.map_or(0, |standing| standing.of_cell[class * self.nodes.len() + cell]);
        self.arc(from, self.nodes[cell].kept, i64::from(stands));
    }

    /// Adds a class whose items keep what stands or move it, and have places to be filled:
    ///
    /// ```text
    ///          ┌──> not vacant ──> in a zone ──┬─ as many as stand: free ──> kept
    ///  source ─┤                               ├─ within the zone: 1 each ──> new
    ///          │                               └─> leaves ──> comes to a zone ──> new: 1 each
    ///          └──> vacant ── what fits there ────────────────────^
    /// ```
    fn refill(&mut self, fair: &Fair, class: usize, first: &Quota, vacant: &Vacant) {
        let (kind, items) = fair.classes.list[class];
        let (leaves, empty) = (self.network.add_node(), self.network.add_node());
        let taken = self.network.add_node();
        let places = first.placed_of[class] - vacant.of_class[class];
        let sources = [(taken, places), (empty, vacant.of_class[class])];
        let sources = sources.map(|(to, places)| self.arc(SOURCE, to, places));
        let zones = self.in_zone.len();
        let mut at = vec![None; zones];
        for (zone, at) in at.iter_mut().enumerate() {
            if !fair.is_open(class, zone) {
                self.zones.push(Vec::new());
                continue;
            }
            let (there, comes) = (self.network.add_node(), self.network.add_node());
            let stands = self.stands(class, zone);
            let most = self.in_zone[zone].min(i64::from(kind.wanted)).min(index(fair.caps[class]));
            self.arc(taken, there, stands);
            let stays = self.network.add_node();
            let stay = self.arc(there, stays, stands);
            self.arc(there, leaves, stands);
            let moves = self.arc(leaves, comes, items * most);
            self.more.push(moves);
            let fits = vacant.fits[class] - vacant.crowded[class * zones + zone];
            let fills = self.arc(empty, comes, fits);
            self.zones.push(vec![stay, moves, fills]);
            *at = Some((stays, comes));
        }
        self.classes.push(sources.to_vec());
        self.beyond.push(Vec::new());
        for cell in 0..self.nodes.len() {
            let Node { zone, members, new, .. } = self.nodes[cell];
            if let Some((stays, comes)) = at[zone] {
                self.keep(stays, class, cell);
                for from in [stays, comes] {
                    let arc = self.arc(from, new, items * members);
                    self.new.push(arc);
                }
            }
        }
    }

    /// What follows from the flow.
    fn quota(&self, cells: &Cells, windows: &[(i64, i64)], standing: &Standing) -> Quota {
        let mut targets = vec![0; windows.len()];
        for ((_, members), arcs) in cells.list.iter().zip(&self.cells) {
            let total = arcs.iter().map(|arc| self.network.flow(*arc)).sum();
            let mut loads: Vec<Load> = Vec::with_capacity(members.len());
            for member in members {
                let (low, high) = windows[*member as usize];
                let held = i64::from(standing.of_member[*member as usize]);
                loads.push(Load { low, high, now: held.clamp(low, high) });
            }
            even_out(&mut loads, total);
            for (member, load) in members.iter().zip(loads) {
                targets[*member as usize] = load.now;
            }
        }
        let sum = |arcs: &[Arc]| arcs.iter().map(|arc| self.network.flow(*arc)).sum::<i64>();
        let least = |[least, _, least_new, ..]: &[Arc; 5]| sum(&[*least, *least_new]);
        Quota {
            targets,
            least: self.cells.iter().map(least).sum(),
            placed_of: self.classes.iter().map(|arcs| sum(arcs)).collect(),
            of_class: self.zones.iter().map(|arcs| sum(arcs)).collect(),
            beyond: self.beyond.iter().map(|arcs| sum(arcs)).collect(),
            lower_bound: self.lower_bound(),
        }
    }

    fn lower_bound(&self) -> u64 {
        self.new.iter().map(|arc| self.network.flow(*arc)).sum::<i64>().unsigned_abs()
    }

    fn solve(&mut self, short: bool) {
        self.network.max_flow(SOURCE, SINK);
        if short {
            for rank in self.ranks.keys().copied().collect::<Vec<u32>>() {
                self.minimise(|totals, cost| {
                    totals.ranks[&rank].iter().for_each(|arc| cost[arc.number()] = -1);
                });
            }
        }
        self.minimise(|totals, cost| {
            let beyond = totals.beyond.iter().flatten().chain(&totals.around);
            beyond.for_each(|arc| cost[arc.number()] = 1);
        });
        self.minimise(|totals, cost| {
            for [least, _, least_new, ..] in &totals.cells {
                cost[least.number()] = -1;
                cost[least_new.number()] = -1;
            }
        });
        self.minimise(|totals, cost| {
            totals.new.iter().for_each(|arc| cost[arc.number()] = 1);
        });
        // Of what moves, the least goes from zone to zone.
        self.minimise(|totals, cost| {
            totals.more.iter().for_each(|arc| cost[arc.number()] = 1);
        });
        if self.slack {
            // Whoever has least gets it first: that will have to move again the latest.
            self.minimise(|totals, cost| {
                totals.cells.iter().for_each(|[.., most]| cost[most.number()] = 1);
            });
        }
    }

    fn minimise(&mut self, objective: impl Fn(&Self, &mut Vec<i64>)) {
        let mut cost = vec![0; self.arcs];
        objective(self, &mut cost);
        self.network.minimise(&cost);
    }
}
