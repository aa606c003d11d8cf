//! The plan by one flow in a network with an arc for every item and member: exact, for what is small.
//!
//! ```text
//!             items       item in a zone          members
//!             ┌────┐ within the cap: free ┌──────┐  held: free   ┌────┐ up to the least fair load: 1 gained
//!   source ───┤ i1 ├─────────────────────>│ i1 a ├──────────────>│ m1 ├────────────────────────────> sink
//!     ranks   └────┘ beyond it: 1 each    └──────┘  new: 1       └────┘ beyond the greatest: 1 each
//! ```
//!
//! What zones lie in, if rules are said for that, stands between an item and its zones, each with two arcs too.
//!
//! The objectives follow each other, and each chooses among the flows that are best for those before
//! it: the most replicas; by rank, where not all fit; the fewest beyond the zone rules; loads within
//! the fair ones; the fewest new assignments; the fewest consistent replicas given up; and, where
//! slack lets loads be further apart, loads as near to the fair ones as that allows.

use std::collections::BTreeMap;

use super::{
    fair::Fair,
    flow::{Arc, Network, index},
    holder::Holder,
    holdings::Holdings,
    kinds::{NOWHERE, narrow, standing},
    problem::Problem,
    seat::Primaries,
    takers::spread,
};

const SOURCE: usize = 0;
const SINK: usize = 1;

/// The network of the drawing, and what each objective asks of its arcs.
struct Dense<'a> {
    problem: &'a Problem,
    fair: &'a Fair,
    network: Network,
    arcs: usize,
    /// By item: the arcs from the source, each with its rank.
    ranks: Vec<Vec<(u32, Arc)>>,
    /// By item and zone: the item there.
    zones: Vec<Option<usize>>,
    /// By node of an item in a zone, or in what that lies in: how it comes there.
    enters: BTreeMap<usize, Enter>,
    /// By item: its possible members.
    places: Vec<Vec<(u32, Arc)>>,
    /// By member, from the sink's end: steps of its load.
    loads: Vec<[Arc; 5]>,
}

/// How an item comes to a zone, or what that lies in: from where, within the cap and beyond it.
#[derive(Clone, Copy)]
struct Enter {
    from: usize,
    within: Arc,
    beyond: Arc,
}

/// The desired assignments; primaries are those that were primaries and are kept.
pub(super) fn place(problem: &Problem, fair: &Fair) -> Holdings {
    let mut dense = Dense::new(problem, fair);
    dense.begin_with_what_stands();
    dense.network.max_flow(SOURCE, SINK);
    if fair.short {
        dense.rank();
    }
    dense.minimise(|dense, cost| {
        for enter in dense.enters.values() {
            cost[enter.beyond.number()] = 1;
        }
    });
    dense.minimise(|dense, cost| {
        for [least, .., beyond] in &dense.loads {
            cost[least.number()] = -1;
            cost[beyond.number()] = 1;
        }
    });
    dense.minimise(|dense, cost| {
        dense.each_place(|held, arc| {
            cost[arc.number()] = i64::from(held.is_none());
        });
    });
    dense.minimise(|dense, cost| {
        dense.each_place(|held, arc| {
            cost[arc.number()] = -i64::from(held.is_some_and(Holder::is_consistent));
        });
    });
    if problem.slack > 0 {
        dense.minimise(|dense, cost| {
            for [_, little, _, much, _] in &dense.loads {
                cost[little.number()] = -1;
                cost[much.number()] = 1;
            }
        });
    }
    dense.read()
}

impl<'a> Dense<'a> {
    fn new(problem: &'a Problem, fair: &'a Fair) -> Self {
        let members = problem.seats.len();
        let network = Network::new(2 + members);
        let mut dense = Self {
            problem,
            fair,
            network,
            arcs: 0,
            ranks: Vec::new(),
            zones: Vec::new(),
            enters: BTreeMap::new(),
            places: Vec::new(),
            loads: Vec::new(),
        };
        for member in 0..members {
            dense.steps(member, fair.loads[member]);
        }
        for item in 0..problem.replication.len() {
            dense.item(item);
        }
        dense
    }

    fn arc(&mut self, from: usize, to: usize, capacity: i64) -> Arc {
        self.arcs += 1;
        self.network.add_arc(from, to, capacity)
    }

    /// The steps of a member's load: to the least that slack allows, to the least and the greatest
    /// that are fair, to the greatest that slack allows, to its limit.
    fn steps(&mut self, member: usize, (least, most): (i64, i64)) {
        let limit = self.problem.limit(member);
        let slack = i64::from(self.problem.slack);
        let ends = [(least - slack).max(0), least, most, (most + slack).min(limit), limit];
        let mut from = 0;
        let steps = ends.map(|end| {
            let arc = self.arc(2 + member, SINK, end - from);
            from = end.max(from);
            arc
        });
        self.loads.push(steps);
    }

    fn item(&mut self, item: usize) {
        let problem = self.problem;
        let wanted = problem.wanted(item);
        let node = self.network.add_node();
        let standing = standing(problem, item);
        let mut ranks = Vec::new();
        if standing > 0 {
            ranks.push((0, self.arc(SOURCE, node, i64::from(standing))));
        }
        for rank in standing + 1..=wanted {
            ranks.push((rank, self.arc(SOURCE, node, 1)));
        }
        self.ranks.push(ranks);
        let class = self.fair.classes.of(problem, item);
        let cap = self.fair.rule[class];
        let mut in_zone = vec![None; self.fair.zones.len()];
        let lies_in = self
            .fair
            .levels
            .lay_out(class, node, in_zone.len(), |from, cap| self.enter(from, wanted, cap));
        let mut places = Vec::new();
        for member in order(item, problem.seats.len()) {
            let zone = self.fair.zones.of_member[member];
            if zone == NOWHERE || !problem.allows(item, problem.seats[member].zone) {
                continue;
            }
            let from = lies_in[zone as usize];
            let at = *in_zone[zone as usize].get_or_insert_with(|| self.enter(from, wanted, cap));
            places.push((narrow(member), self.arc(at, 2 + member, 1)));
        }
        places.sort_unstable_by_key(|(member, _)| *member);
        self.places.push(places);
        self.zones.extend(in_zone);
    }

    /// Adds a node to which so many replicas of an item come from another one, and so many within a rule.
    fn enter(&mut self, from: usize, wanted: u32, cap: usize) -> usize {
        let at = self.network.add_node();
        let beyond = if self.problem.required { 0 } else { i64::from(wanted) };
        let within = self.arc(from, at, index(cap));
        let beyond = self.arc(from, at, beyond);
        self.enters.insert(at, Enter { from, within, beyond });
        at
    }

    /// The arcs by which one more replica of an item comes to a node of it, if there is room.
    fn way(&self, mut at: usize) -> Option<Vec<Arc>> {
        let mut way = Vec::new();
        while let Some(Enter { from, within, beyond }) = self.enters.get(&at) {
            let has_room = |arc: &&Arc| self.network.room(**arc) > 0;
            way.push(*[within, beyond].into_iter().find(has_room)?);
            at = *from;
        }
        way.reverse();
        Some(way)
    }

    fn begin_with_what_stands(&mut self) {
        for item in 0..self.places.len() {
            for holder in self.problem.held().of(item) {
                let member = holder.member();
                let Ok(place) = self.places[item].binary_search_by_key(&member, |place| place.0)
                else {
                    continue;
                };
                let arc = self.places[item][place].1;
                let zone = self.fair.zones.of(*holder) as usize;
                let at = self.zones[item * self.fair.zones.len() + zone];
                let Some(way) = at.and_then(|at| self.way(at)) else { continue };
                let rank = self.ranks[item].iter().find(|(_, arc)| self.network.room(*arc) > 0);
                let step =
                    self.loads[member as usize].iter().find(|arc| self.network.room(**arc) > 0);
                if let (Some((_, rank)), Some(step)) = (rank, step) {
                    let path = [&[*rank], &way[..], &[arc, *step]].concat();
                    self.network.send(&path, 1);
                }
            }
        }
    }

    /// Chooses by one objective among the flows that are left.
    fn minimise(&mut self, objective: impl Fn(&Self, &mut Vec<i64>)) {
        let mut cost = vec![0; self.arcs];
        objective(self, &mut cost);
        self.network.minimise(&cost);
    }

    fn rank(&mut self) {
        let most = self.ranks.iter().flatten().map(|(rank, _)| *rank).max().unwrap_or(0);
        for rank in 0..=most {
            self.minimise(|dense, cost| {
                for (_, arc) in dense.ranks.iter().flatten().filter(|(other, _)| *other == rank) {
                    cost[arc.number()] = -1;
                }
            });
        }
    }

    /// Tells of each place of each item whether it holds the item now.
    fn each_place(&self, mut tell: impl FnMut(Option<Holder>, Arc)) {
        for (places, held) in self.places.iter().zip(self.problem.held().iter()) {
            for (member, arc) in places {
                tell(held.iter().copied().find(|holder| holder.member() == *member), *arc);
            }
        }
    }

    fn read(&self) -> Holdings {
        let mut desired = Holdings::default();
        let mut holders = Vec::new();
        for (places, held) in self.places.iter().zip(self.problem.held().iter()) {
            holders.clear();
            for (member, arc) in places {
                if self.network.flow(*arc) > 0 {
                    let kept = held.iter().copied().find(|holder| holder.member() == *member);
                    holders.push(kept.unwrap_or(Holder::new(*member)));
                }
            }
            desired.push(&holders);
        }
        desired
    }
}

/// The order in which an item looks for members. Of flows that are equally good the first found is
/// taken; as each item has an order of its own, any two members share few items, and many take over
/// from one that is lost.
fn order(item: usize, members: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..members).collect();
    order.sort_by_cached_key(|member| spread((item * members + member) as u64, u32::MAX as usize));
    order
}

/// Chooses the primaries of `desired`, by a flow from the items over their holders: the fewest at
/// members that should get none; as even as can be, for which a member's first costs one, its second
/// two, and so on; the fewest hand-offs; and the fewest to replicas that are not consistent.
pub(super) fn elect(problem: &Problem, desired: &mut Holdings) {
    let members = problem.seats.len();
    let mut network = Network::new(2 + members);
    let mut costs: [Vec<i64>; 4] = Default::default();
    let mut arcs = Vec::new();
    let mut loads = vec![0; members];
    for item in 0..desired.len() {
        let node = network.add_node();
        let mut add = |network: &mut Network, from, to, asked: [i64; 4]| {
            for (costs, cost) in costs.iter_mut().zip(asked) {
                costs.push(cost);
            }
            network.add_arc(from, to, 1)
        };
        add(&mut network, SOURCE, node, [0; 4]);
        for holder in desired.of(item) {
            let member = holder.member() as usize;
            loads[member] += 1;
            let unwanted =
                problem.seats[member].primaries == Primaries::Kept && !holder.is_primary();
            let asked = [
                i64::from(unwanted),
                0,
                i64::from(!holder.is_primary()),
                i64::from(!holder.is_primary() && !holder.is_consistent()),
            ];
            arcs.push(add(&mut network, node, 2 + member, asked));
        }
    }
    // Each primary takes one step: with the mean taken off all of them what is best stays the same,
    // though another of equally good choices may be found; and where loads are alike the search begins
    // near where it ends.
    let holding = loads.iter().filter(|load| **load > 0).count();
    let mean = index(desired.len() / holding.max(1));
    for (member, load) in loads.iter().enumerate() {
        for step in 1..=*load {
            network.add_arc(2 + member, SINK, 1);
            for (objective, costs) in costs.iter_mut().enumerate() {
                costs.push(if objective == 1 { index(step) - mean } else { 0 });
            }
        }
    }
    network.max_flow(SOURCE, SINK);
    for cost in &costs {
        network.minimise(cost);
    }
    let mut arcs = arcs.into_iter();
    for item in 0..desired.len() {
        for holder in desired.of_mut(item) {
            let chosen = arcs.next().is_some_and(|arc| network.flow(arc) > 0);
            *holder = if chosen { holder.primary() } else { holder.replica() };
        }
    }
}
