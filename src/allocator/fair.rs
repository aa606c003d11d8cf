//! Everybody's fair share: how many items each member should hold, as even as all else allows.
//!
//! Items that want the same are one class, members of a zone with the same limit and share are one
//! group, and what one of a class or a group can do, all can. So the best is known from a network
//! that is small whatever the number of items:
//!
//! ```text
//!            classes        class in a zone         groups        loads
//!           ┌─────────┐  within the cap: free  ┌─────────────┐  limit
//!  source ──┤ 3 of any ├──────────────────────>│ 3 of any, a ├──> a ──> a' ──> sink
//!   ranks   └─────────┘  beyond it: 1 each     └─────────────┘
//! ```
//!
//! First the largest flow (the most replicas placed), then by rank (the replicas that stand stay;
//! then every item's first comes before anybody's second), then the fewest beyond the zone rule. Among the flows that are left, the fairest
//! loads are found by halving: aim at the same load by share for all; where that cannot be, a cut
//! parts those that get too much whatever is done from the others, and each part is alone with the
//! same question. The fairest loads are fractions, and a plan in whole items whose every load is one
//! of the two numbers beside its fraction exists always, because the network is one of flow.

use std::collections::BTreeMap;

use super::{
    flow::{Arc, Network},
    problem::{Problem, index},
};

/// What the best plans have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fair {
    /// How many replicas they place.
    pub placed: i64,
    /// Whether that is less than what is wanted.
    pub short: bool,
    /// How many replicas stand beyond the cap of the zone rule.
    pub beyond: i64,
    /// The least and the greatest fair load, by member.
    pub loads: Vec<(i64, i64)>,
    /// The classes of items.
    pub classes: Classes,
    /// The groups of members.
    pub groups: Groups,
}

/// What items of one class have in common: the replicas wanted, the set of zones, and, where not
/// all fits, the replicas that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub wanted: u32,
    pub set: u16,
    pub standing: u32,
}

/// The classes, how many items are of each, and each item's class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    pub list: Vec<(Class, i64)>,
    /// By item, where there is more than one class.
    of: Vec<u32>,
}

impl Classes {
    pub(super) fn new(problem: &Problem, short: bool) -> Self {
        let items = problem.replication.len();
        let mut classes = Self::default();
        if !short && items > 0 && problem.is_uniform() {
            let class = Class { wanted: problem.wanted(0), set: 0, standing: 0 };
            return Self { list: vec![(class, index(items))], of: Vec::new() };
        }
        let mut known: BTreeMap<Class, usize> = BTreeMap::new();
        let mut last = 0;
        for item in 0..items {
            let wanted = problem.wanted(item);
            let set = problem.zone_set.get(item).copied().unwrap_or(0);
            let standing = if short { standing(problem, item) } else { 0 };
            let class = Class { wanted, set, standing };
            if classes.list.get(last).is_none_or(|(other, _)| *other != class) {
                // A few classes are found faster by looking at each than in a tree.
                let near = classes.list.iter().take(8).position(|(other, _)| *other == class);
                last = near.unwrap_or_else(|| {
                    *known.entry(class).or_insert_with(|| {
                        classes.list.push((class, 0));
                        classes.list.len() - 1
                    })
                });
                if classes.list.len() > 1 && classes.of.is_empty() {
                    classes.of.reserve(items);
                    classes.of.resize(item, 0);
                }
            }
            classes.list[last].1 += 1;
            if classes.list.len() > 1 {
                classes.of.push(u32::try_from(last).unwrap_or(u32::MAX));
            }
        }
        classes
    }

    /// The class of an item.
    pub(super) fn of(&self, item: usize) -> usize {
        self.of.get(item).map_or(0, |class| *class as usize)
    }

    fn wanted(&self) -> i64 {
        self.list.iter().map(|(class, items)| i64::from(class.wanted) * items).sum()
    }
}

/// Zone, limit and share.
pub(super) type Group = (u32, i64, u32);

/// The groups of members with a limit above zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    pub list: Vec<(Group, Vec<u32>)>,
}

impl Groups {
    pub(super) fn new(problem: &Problem) -> Self {
        let mut groups = Self::default();
        let mut known: BTreeMap<Group, usize> = BTreeMap::new();
        for (member, seat) in (0..).zip(&problem.seats) {
            let limit = problem.limit(member as usize);
            if limit > 0 {
                let key = (seat.zone, limit, seat.share.max(1));
                let near = groups.list.iter().take(8).position(|(other, _)| *other == key);
                let group = near.unwrap_or_else(|| {
                    *known.entry(key).or_insert_with(|| {
                        groups.list.push((key, Vec::new()));
                        groups.list.len() - 1
                    })
                });
                groups.list[group].1.push(member);
            }
        }
        groups
    }
}

pub(super) fn fair(problem: &Problem) -> Fair {
    fair_of(problem, Classes::new(problem, false))
}

/// The same where the classes, as if all fitted, are known.
pub(super) fn fair_of(problem: &Problem, mut classes: Classes) -> Fair {
    let groups = Groups::new(problem);
    let mut shares = Shares::new(problem, &groups.list, &classes.list);
    let mut placed = shares.place();
    let short = placed < classes.wanted();
    if short {
        classes = Classes::new(problem, true);
        shares = Shares::new(problem, &groups.list, &classes.list);
        placed = shares.place();
        shares.rank();
    }
    let beyond = shares.keep_the_zone_rule();
    let mut loads = vec![(0, 0); problem.seats.len()];
    for (group, load) in shares.loads().into_iter().enumerate() {
        for member in &groups.list[group].1 {
            loads[*member as usize] = load;
        }
    }
    Fair { placed, short, beyond, loads, classes, groups }
}

/// How many replicas can be placed at most; `classes` are known as if all fitted.
pub(super) fn placeable(problem: &Problem, classes: &Classes) -> i64 {
    Shares::new(problem, &Groups::new(problem).list, &classes.list).place()
}

/// How many replicas of an item stand and may stay, of those that it wants.
pub(super) fn standing(problem: &Problem, item: usize) -> u32 {
    let legal = problem.held.of(item).iter().filter(|holder| problem.legal(item, **holder));
    u32::try_from(legal.count()).unwrap_or(u32::MAX).min(problem.wanted(item))
}

const SOURCE: usize = 0;
const SINK: usize = 1;

/// The network of the drawing.
struct Shares {
    network: Network,
    /// The arcs from the source by rank: rank zero are the replicas that stand.
    ranks: BTreeMap<u32, Vec<Arc>>,
    /// The arcs beyond the zone rule.
    beyond: Vec<Arc>,
    /// By group: its members, their share, and the arc that carries its load.
    groups: Vec<(i64, i64, Arc)>,
    /// By group, the node where its load lies.
    loads: Vec<usize>,
    arcs: usize,
}

impl Shares {
    fn new(problem: &Problem, groups: &[(Group, Vec<u32>)], classes: &[(Class, i64)]) -> Self {
        let mut shares = Self {
            network: Network::new(2),
            ranks: BTreeMap::new(),
            beyond: Vec::new(),
            groups: Vec::new(),
            loads: Vec::new(),
            arcs: 0,
        };
        let mut nodes = Vec::new();
        let mut zones = vec![0; problem.zones];
        for ((zone, limit, share), members) in groups {
            let members = index(members.len());
            let node = shares.network.add_node();
            let load = shares.network.add_node();
            let arc = shares.arc(node, load, limit * members);
            shares.arc(load, SINK, limit * members);
            shares.groups.push((members, i64::from(*share), arc));
            shares.loads.push(load);
            nodes.push((*zone, members, node));
            zones[*zone as usize] += members;
        }
        for (class, items) in classes {
            shares.class(problem, *class, *items, &zones, &nodes);
        }
        shares
    }

    fn arc(&mut self, from: usize, to: usize, capacity: i64) -> Arc {
        self.arcs += 1;
        self.network.add_arc(from, to, capacity)
    }

    /// Adds a class: its ranks, the zones that it may use, and the groups there.
    fn class(
        &mut self,
        problem: &Problem,
        class: Class,
        items: i64,
        zones: &[i64],
        groups: &[(u32, i64, usize)],
    ) {
        let Class { wanted, set, standing } = class;
        let node = self.network.add_node();
        if standing > 0 {
            let arc = self.arc(SOURCE, node, items * i64::from(standing));
            self.ranks.entry(0).or_default().push(arc);
        }
        for rank in standing + 1..=wanted {
            let arc = self.arc(SOURCE, node, items);
            self.ranks.entry(rank).or_default().push(arc);
        }
        let cap = i64::from(problem.zone_rule.cap(wanted));
        let mut in_zone = vec![None; zones.len()];
        for (zone, members) in zones.iter().enumerate() {
            if !problem.set_allows(set, zone) || *members == 0 {
                continue;
            }
            let at = self.network.add_node();
            let most = (*members).min(i64::from(wanted));
            self.arc(node, at, items * most.min(cap));
            if most > cap {
                let arc = self.arc(node, at, items * (most - cap));
                self.beyond.push(arc);
            }
            in_zone[zone] = Some(at);
        }
        for (zone, members, group) in groups {
            if let Some(at) = in_zone[*zone as usize] {
                self.arc(at, *group, items * members);
            }
        }
    }

    fn place(&mut self) -> i64 {
        self.network.max_flow(SOURCE, SINK)
    }

    /// The fewest left out of rank zero, then of rank one, and so on.
    fn rank(&mut self) {
        for arcs in self.ranks.values() {
            let mut cost = vec![0; self.arcs];
            for arc in arcs {
                cost[arc.number()] = -1;
            }
            self.network.minimise(&cost);
        }
    }

    fn keep_the_zone_rule(&mut self) -> i64 {
        let carried = |shares: &Self| -> i64 {
            shares.beyond.iter().map(|arc| shares.network.flow(*arc)).sum()
        };
        if self.beyond.is_empty() {
            return 0;
        }
        let mut cost = vec![0; self.arcs];
        for arc in &self.beyond {
            cost[arc.number()] = 1;
        }
        self.network.minimise(&cost);
        carried(self)
    }

    /// The least and the greatest fair load of a member, by group.
    fn loads(mut self) -> Vec<(i64, i64)> {
        let mut fair = vec![(0, 0); self.groups.len()];
        // From here on loads are moved between the groups, never through the sink.
        for load in &self.loads {
            self.network.lock_out(*load, SINK);
        }
        let mut parts = vec![(0..self.groups.len()).collect::<Vec<usize>>()];
        while let Some(part) = parts.pop() {
            let total: i64 = part.iter().map(|group| self.load(*group)).sum();
            let shares: i128 = part.iter().map(|group| self.weight(*group)).sum();
            match self.cut(&part, total, shares) {
                None => {
                    for group in part {
                        let exact = i128::from(self.groups[group].1) * i128::from(total);
                        let least = exact.div_euclid(shares.max(1));
                        let even = exact.rem_euclid(shares.max(1)) == 0;
                        let most = if even { least } else { least + 1 };
                        fair[group] = (small(least), small(most));
                    }
                }
                Some((much, little)) => {
                    self.pour(&much, &little);
                    parts.push(much);
                    parts.push(little);
                }
            }
        }
        fair
    }

    fn load(&self, group: usize) -> i64 {
        self.network.flow(self.groups[group].2)
    }

    fn weight(&self, group: usize) -> i128 {
        i128::from(self.groups[group].0) * i128::from(self.groups[group].1)
    }

    /// Tries to give each group of `part` the same load by share. If that cannot be, the groups that
    /// keep too much, and those that cannot have more.
    fn cut(&self, part: &[usize], total: i64, shares: i128) -> Option<(Vec<usize>, Vec<usize>)> {
        // In units of one replica divided by the sum of shares everything is whole; where that does
        // not fit 62 bits, which takes shares beyond anything real, the last bits are let go.
        let mut scale = shares.max(1);
        let mut lost = 0;
        while scale.saturating_mul(i128::from(total.max(1))) > i128::from(i64::MAX / 8) {
            scale >>= 1;
            lost += 1;
        }
        let mut supply = vec![0; self.network.nodes()];
        let mut balance = 0;
        for group in part {
            let want = (self.weight(*group) * i128::from(total)) >> lost;
            let extra = small(i128::from(self.load(*group)) * scale - want);
            supply[self.loads[*group]] = extra;
            balance += extra;
        }
        if let Some(first) = part.first() {
            supply[self.loads[*first]] -= balance;
        }
        if supply.iter().all(|extra| *extra == 0) {
            return None;
        }
        let mut network = self.network.scaled(small(scale), small(scale) * total);
        network.route(&mut supply);
        let left: Vec<bool> = supply.iter().map(|extra| *extra > 0).collect();
        if left.iter().all(|left| !left) {
            return None;
        }
        let reached = network.reachable(&left);
        let (much, little): (Vec<usize>, Vec<usize>) =
            part.iter().partition(|group| reached[self.loads[**group]]);
        (!much.is_empty() && !little.is_empty()).then_some((much, little))
    }

    /// Moves as much load as can be from some groups to others.
    fn pour(&mut self, from: &[usize], to: &[usize]) {
        let mut supply = vec![0; self.network.nodes()];
        for group in from {
            supply[self.loads[*group]] = self.load(*group);
        }
        for group in to {
            supply[self.loads[*group]] = i64::MIN / 4;
        }
        self.network.route(&mut supply);
    }
}

fn small(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(i64::MAX)
}
