//! Flows in a network: the largest one, and among the largest the cheapest, one objective after the other.
//!
//! It knows nodes and arcs and nothing of items. A flow is first made as large as it can be
//! ([`Network::max_flow`]), and then moved around, as a circulation, so that it costs least
//! ([`Network::minimise`]). That locks every arc whose change would cost, so that what is asked for
//! next chooses among the cheapest flows only: objectives follow each other without weights, and the
//! number of them is not limited by the size of a number.
//!
//! The method is the primal-dual one: shortest paths by reduced cost, then blocking flows on the arcs
//! that lie on them. All is exact, in integers, and the same input gives the same flow.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

/// An arc of a [`Network`], as it was named when it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arc(u32);

impl Arc {
    /// Its number: arcs are counted from zero as they are added.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// No arc, or no node, in the lists below.
const NONE: u32 = u32::MAX;

/// Nodes, arcs with capacities between them, and a flow.
///
/// Each arc is kept as two directed edges, `2a` forwards and `2a + 1` backwards; the room of an edge
/// is how much more may be sent along it.
#[derive(Clone, Debug, Default)]
pub struct Network {
    first: Vec<u32>,
    next: Vec<u32>,
    to: Vec<u32>,
    room: Vec<i64>,
    flow: Vec<i64>,
}

/// Where flow has to leave from (more than zero) and to arrive (less), by node.
type Supply = [i64];

impl Network {
    /// A network of so many nodes, numbered from zero, and no arcs.
    pub fn new(nodes: usize) -> Self {
        Self { first: vec![NONE; nodes], ..Self::default() }
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        self.first.len()
    }

    /// Adds a node, and returns its number.
    pub fn add_node(&mut self) -> usize {
        self.first.push(NONE);
        self.first.len() - 1
    }

    /// Adds an arc that may carry up to `capacity`, and carries nothing. A negative capacity counts
    /// as zero; the sum of the capacities out of a node must fit an `i64`.
    ///
    /// # Panics
    /// If a node does not exist, or there are more than 2^31 arcs.
    pub fn add_arc(&mut self, from: usize, to: usize, capacity: i64) -> Arc {
        assert!(from < self.nodes() && to < self.nodes(), "an arc joins two nodes that exist");
        let arc = u32::try_from(self.flow.len()).unwrap_or(NONE);
        assert!(arc < NONE / 2, "a network has at most 2^31 arcs");
        self.add_edge(from, to, capacity.max(0));
        self.add_edge(to, from, 0);
        self.flow.push(0);
        Arc(arc)
    }

    fn add_edge(&mut self, from: usize, to: usize, room: i64) {
        let edge = index32(self.to.len());
        self.next.push(self.first[from]);
        self.first[from] = edge;
        self.to.push(index32(to));
        self.room.push(room);
    }

    /// What `arc` carries.
    pub fn flow(&self, arc: Arc) -> i64 {
        self.flow[arc.0 as usize]
    }

    /// How much more `arc` may carry.
    pub fn room(&self, arc: Arc) -> i64 {
        self.room[2 * arc.0 as usize]
    }

    /// Sends `amount` along `arcs`, a path, as far as every arc has room; returns what was sent. So
    /// a flow is begun with what stands already, and changes little.
    pub fn send(&mut self, arcs: &[Arc], amount: i64) -> i64 {
        let room = arcs.iter().map(|arc| self.room(*arc)).min().unwrap_or(0);
        let sent = amount.min(room).max(0);
        for arc in arcs {
            self.push(2 * arc.0 as usize, sent);
        }
        sent
    }

    /// Fixes `arc` at what it carries.
    pub fn lock(&mut self, arc: Arc) {
        let edge = 2 * arc.0 as usize;
        self.room[edge] = 0;
        self.room[edge + 1] = 0;
    }

    /// Fixes all arcs from `from` to `to`.
    pub fn lock_out(&mut self, from: usize, to: usize) {
        let mut edge = self.first[from];
        while edge != NONE {
            let at = edge as usize;
            if self.to[at] as usize == to {
                self.lock(Arc(edge / 2));
            }
            edge = self.next[at];
        }
    }

    /// The same network with every room multiplied, and none larger than `most`: fractions of a unit
    /// become whole.
    #[must_use]
    pub fn scaled(&self, factor: i64, most: i64) -> Self {
        let mut scaled = self.clone();
        for room in &mut scaled.room {
            *room = room.saturating_mul(factor).min(most);
        }
        scaled
    }

    /// Makes the flow from `source` to `sink` as large as it can be, and returns what was added.
    pub fn max_flow(&mut self, source: usize, sink: usize) -> i64 {
        let most = i64::MAX / 4;
        let mut supply = vec![0; self.nodes()];
        supply[source] = most;
        supply[sink] = -most;
        self.route(&mut supply);
        most - supply[source]
    }

    /// Sends what is supplied at some nodes (positive) to those that want it (negative), as much as
    /// can be; what is left over stays in `supply`.
    pub fn route(&mut self, supply: &mut Supply) {
        while self.blocking_flow(supply, &Free) {}
    }

    /// The nodes that can be reached from those where `from` is true, along arcs with room.
    pub fn reachable(&self, from: &[bool]) -> Vec<bool> {
        let mut seen = from.to_vec();
        let mut queue: Vec<usize> = (0..seen.len()).filter(|node| seen[*node]).collect();
        while let Some(node) = queue.pop() {
            let mut edge = self.first[node];
            while edge != NONE {
                let at = edge as usize;
                let to = self.to[at] as usize;
                if self.room[at] > 0 && !seen[to] {
                    seen[to] = true;
                    queue.push(to);
                }
                edge = self.next[at];
            }
        }
        seen
    }

    /// Changes the flow, and not its value, so that the sum of `cost` by arc is least, and locks
    /// every arc whose change would cost. Returns that sum. Arcs beyond the end of `cost` are free.
    pub fn minimise(&mut self, cost: &[i64]) -> i64 {
        let mut cost = cost.to_vec();
        cost.resize(self.flow.len(), 0);
        let mut supply = vec![0; self.nodes()];
        // First every arc that is worth it is filled, or emptied. What then is missing at one node
        // and too much at another, which the way back can always carry, is sent the cheapest way.
        for (arc, cost) in cost.iter().enumerate().filter(|(_, cost)| **cost != 0) {
            let edge = if *cost < 0 { 2 * arc } else { 2 * arc + 1 };
            let room = self.room[edge];
            if room > 0 {
                let (from, to) = (self.to[edge ^ 1] as usize, self.to[edge] as usize);
                self.push(edge, room);
                supply[to] += room;
                supply[from] -= room;
            }
        }
        let mut costs = Costs { cost: &cost, potential: vec![0; self.nodes()] };
        while supply.iter().any(|amount| *amount > 0) {
            while self.blocking_flow(&mut supply, &costs) {}
            if !self.raise(&supply, &mut costs) {
                break;
            }
        }
        for arc in 0..cost.len() {
            if costs.reduced(self, 2 * arc) != 0 {
                self.room[2 * arc] = 0;
                self.room[2 * arc + 1] = 0;
            }
        }
        cost.iter().zip(&self.flow).map(|(cost, flow)| cost * flow).sum()
    }

    fn push(&mut self, edge: usize, amount: i64) {
        self.room[edge] -= amount;
        self.room[edge ^ 1] += amount;
        self.flow[edge / 2] += if edge.is_multiple_of(2) { amount } else { -amount };
    }

    /// Raises the potentials by the distance from the supplied nodes, up to that of the nearest node
    /// that wants something. False: none can be reached.
    fn raise(&self, supply: &Supply, costs: &mut Costs) -> bool {
        let mut distance = vec![i64::MAX; self.nodes()];
        let mut heap = BinaryHeap::new();
        for (node, _) in supply.iter().enumerate().filter(|(_, amount)| **amount > 0) {
            distance[node] = 0;
            heap.push(Reverse((0, node)));
        }
        let mut nearest = None;
        while let Some(Reverse((far, node))) = heap.pop() {
            if far > distance[node] {
                continue;
            }
            if supply[node] < 0 {
                nearest = Some(far);
                break;
            }
            let mut edge = self.first[node];
            while edge != NONE {
                let at = edge as usize;
                let to = self.to[at] as usize;
                if self.room[at] > 0 {
                    let there = far + costs.reduced(self, at);
                    if there < distance[to] {
                        distance[to] = there;
                        heap.push(Reverse((there, to)));
                    }
                }
                edge = self.next[at];
            }
        }
        let Some(nearest) = nearest else { return false };
        for (potential, distance) in costs.potential.iter_mut().zip(distance) {
            *potential += distance.min(nearest);
        }
        true
    }

    /// Sends as much as the shortest paths over admitted edges carry. False: nothing could be sent.
    fn blocking_flow(&mut self, supply: &mut Supply, admits: &impl Admits) -> bool {
        let Some(level) = self.levels(supply, admits) else { return false };
        let mut current = self.first.clone();
        let mut path: Vec<usize> = Vec::new();
        let mut sent_any = false;
        for start in 0..supply.len() {
            while supply[start] > 0 {
                path.clear();
                let mut node = start;
                // Walks towards any node that wants something, and back out of dead ends.
                let found = loop {
                    if supply[node] < 0 {
                        break true;
                    }
                    let step = self.advance(node, &level, &mut current, admits);
                    if let Some(edge) = step {
                        path.push(edge);
                        node = self.to[edge] as usize;
                    } else if let Some(edge) = path.pop() {
                        node = self.to[edge ^ 1] as usize;
                        current[node] = self.next[edge];
                    } else {
                        break false;
                    }
                };
                if !found {
                    break;
                }
                let room = path.iter().map(|edge| self.room[*edge]).min().unwrap_or(0);
                let amount = room.min(supply[start]).min(-supply[node]);
                for edge in &path {
                    self.push(*edge, amount);
                }
                supply[start] -= amount;
                supply[node] += amount;
                sent_any = true;
            }
        }
        sent_any
    }

    /// The next edge out of `node` that leads one level on.
    fn advance(
        &self,
        node: usize,
        level: &[u32],
        current: &mut [u32],
        admits: &impl Admits,
    ) -> Option<usize> {
        while current[node] != NONE {
            let edge = current[node] as usize;
            let to = self.to[edge] as usize;
            if self.room[edge] > 0 && level[to] == level[node] + 1 && admits.admits(self, edge) {
                return Some(edge);
            }
            current[node] = self.next[edge];
        }
        None
    }

    /// How many admitted edges each node is away from the nearest supplied one. `None`: no node that
    /// wants something can be reached.
    fn levels(&self, supply: &Supply, admits: &impl Admits) -> Option<Vec<u32>> {
        let mut level = vec![NONE; self.nodes()];
        let mut queue = VecDeque::new();
        for (node, _) in supply.iter().enumerate().filter(|(_, amount)| **amount > 0) {
            level[node] = 0;
            queue.push_back(node);
        }
        let mut reached = false;
        while let Some(node) = queue.pop_front() {
            reached |= supply[node] < 0;
            let mut edge = self.first[node];
            while edge != NONE {
                let at = edge as usize;
                let to = self.to[at] as usize;
                if self.room[at] > 0 && level[to] == NONE && admits.admits(self, at) {
                    level[to] = level[node] + 1;
                    queue.push_back(to);
                }
                edge = self.next[at];
            }
        }
        reached.then_some(level)
    }
}

/// Which edges a path may use, besides having room.
trait Admits {
    fn admits(&self, network: &Network, edge: usize) -> bool;
}

/// All of them.
struct Free;

impl Admits for Free {
    fn admits(&self, _: &Network, _: usize) -> bool {
        true
    }
}

/// Those that lie on a shortest path.
struct Costs<'a> {
    cost: &'a [i64],
    potential: Vec<i64>,
}

impl Costs<'_> {
    fn reduced(&self, network: &Network, edge: usize) -> i64 {
        let cost = self.cost[edge / 2];
        let cost = if edge.is_multiple_of(2) { cost } else { -cost };
        let (from, to) = (network.to[edge ^ 1] as usize, network.to[edge] as usize);
        cost + self.potential[from] - self.potential[to]
    }
}

impl Admits for Costs<'_> {
    fn admits(&self, network: &Network, edge: usize) -> bool {
        self.reduced(network, edge) == 0
    }
}

fn index32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}

/// A count as the solver counts.
pub(super) fn index(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
