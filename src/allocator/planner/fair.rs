//! Everybody's fair share: how many items each member should hold, as even as all else allows.
//!
//! Items that want the same are one class, members of a zone with the same limit and share are one
//! group, and what one of a class or a group can do, all can. So the best is known from a network
//! that is small whatever the number of items:
//!
//! ```text
//!            classes        class in a zone        hub of the zone     groups        loads
//!           ┌─────────┐  within the cap: free  ┌─────────────┐         ┌───┐  limit
//!  source ──┤ 3 of any ├──────────────────────>│ 3 of any, a ├──> a ──>│ g ├─────────> g' ──> sink
//!   ranks   └─────────┘  beyond it: 1 each     └─────────────┘         └───┘
//! ```
//!
//! What zones [lie in](super::levels), if rules are said for that, stands between a class and its zones: one more
//! node for each such thing, with the same two arcs. Where the rules are required there are none beyond them.
//!
//! A class with fewer items than a member of the zone may hold goes to each group by an arc of its
//! own, past the hub, because a member holds each item once. Where no class does, all groups of a zone are
//! one node, a pool.
//!
//! First the largest flow (the most replicas placed), then by rank (the replicas that stand stay;
//! then every item's first comes before anybody's second), then the fewest beyond the zone rule. Among
//! the flows that are left, the fairest loads are found by halving: aim at the same load by share for
//! all, within their limits; where that cannot be, a cut parts those that get too much whatever is done
//! from the others, and each part is alone with the same question. The fairest loads are fractions, and a plan in whole items whose
//! every load is one of the two numbers beside its fraction exists always, because the network is one
//! of flow.

use std::collections::BTreeMap;

use super::{
    flow::{Arc, Network, index},
    holder::Holder,
    kinds::{Class, Classes, Group, Groups, Zones, narrow},
    levels::Levels,
    problem::Problem,
};

/// What the best plans have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fair {
    /// How many replicas they place.
    pub placed: i64,
    /// Whether that is less than what is wanted.
    pub short: bool,
    /// If so, how many of them are of each rank.
    pub ranks: BTreeMap<u32, i64>,
    /// How many replicas stand beyond what the rules let zones take, and what those lie in.
    pub beyond: i64,
    /// The least and the greatest fair load, by member.
    pub loads: Vec<(i64, i64)>,
    /// The classes of items.
    pub classes: Classes,
    /// The groups of members.
    pub groups: Groups,
    /// The zones that are open.
    pub zones: Zones,
    /// What those lie in.
    pub levels: Levels,
    /// Whether nothing may be beyond the rules.
    pub required: bool,
    /// By class, how many zones are open to it.
    pub open_zones: Vec<usize>,
    /// By class, how many replicas of an item the rule says that a zone takes.
    pub rule: Vec<usize>,
    /// The same, but all where there is no other zone.
    pub caps: Vec<usize>,
    /// By class, how many replicas an item can have within that.
    within: Vec<usize>,
    /// By class, whether items may be nowhere, which they may not, and then in each zone.
    open: Vec<bool>,
}

impl Fair {
    /// With what follows when all is placed.
    fn with(mut self, problem: &Problem, mut shares: Shares) -> Self {
        self.beyond = shares.keep_the_zone_rule();
        self.levels = std::mem::take(&mut shares.levels);
        self.required = problem.required;
        let loads = shares.loads();
        let of_group = |group: &u32| loads.get(*group as usize).copied().unwrap_or((0, 0));
        self.loads = self.groups.of_member.iter().map(of_group).collect();
        let mut in_zone = vec![0; self.zones.len()];
        for zone in self.zones.of_member.iter() {
            if let Some(members) = in_zone.get_mut(*zone as usize) {
                *members += 1;
            }
        }
        for (class, _) in &self.classes.list {
            let open = self.zones.names.iter().map(|zone| problem.set_allows(class.set, *zone));
            self.open.extend([false].into_iter().chain(open.clone()));
            let (zones, rule) = rule(problem, &self.zones, *class);
            self.open_zones.push(zones);
            self.rule.push(rule);
            let cap = cap(problem, &self.zones, *class);
            let within = in_zone.iter().zip(open).filter(|(_, open)| *open);
            self.within.push(within.map(|(members, _)| cap.min(*members)).sum());
            self.caps.push(cap);
        }
        self
    }

    /// Whether items of a class may be in a zone.
    pub(super) fn is_open(&self, class: usize, zone: usize) -> bool {
        self.open[class * (self.zones.len() + 1) + zone + 1]
    }

    /// Where an item of a class may be held: nowhere, then by zone.
    #[inline]
    pub(super) fn open_to(&self, class: usize) -> &[bool] {
        let places = self.zones.len() + 1;
        &self.open[class * places..(class + 1) * places]
    }

    /// How many of so many replicas of an item of a class are beyond the zone rule at least.
    pub(super) fn beyond_of(&self, class: usize, replicas: usize) -> i64 {
        index(replicas.saturating_sub(self.within[class]))
    }

    /// Whether a holder of an item of a class may hold it.
    #[inline]
    pub(super) fn is_legal(&self, class: usize, holder: Holder) -> bool {
        self.is_legal_in(class, self.zones.of(holder))
    }

    /// The same for a holder in a zone, or nowhere.
    #[inline]
    pub(super) fn is_legal_in(&self, class: usize, zone: u32) -> bool {
        // Without a branch, because nobody can guess where members were lost; nowhere comes round to the first.
        self.open[class * (self.zones.len() + 1) + zone.wrapping_add(1) as usize]
    }
}

/// How many replicas of an item of a class a zone takes: as the rule says, or all, if there is no other
/// zone and the rule is not required.
pub(super) fn cap(problem: &Problem, zones: &Zones, class: Class) -> usize {
    let (open, cap) = rule(problem, zones, class);
    if open > 1 || problem.required { cap } else { cap.max(class.wanted as usize) }
}

/// How many zones are open to items of a class, and how many replicas of one the rule lets each take.
fn rule(problem: &Problem, zones: &Zones, class: Class) -> (usize, usize) {
    let open = zones.names.iter().filter(|zone| problem.set_allows(class.set, **zone)).count();
    (open, problem.zone_rule.cap(class.wanted, narrow(open)) as usize)
}

/// The fair shares of all members.
pub(super) fn fair(problem: &Problem) -> Fair {
    fair_of(problem, Classes::new(problem)).unwrap_or_else(|| {
        let classes = Classes::with_standing(problem);
        let zones = Zones::new(problem);
        let groups = Groups::new(problem, &zones);
        let mut shares = Shares::new(problem, &zones, &groups.list, &classes.list);
        let placed = shares.place();
        shares.rank();
        let ranks = shares.by_rank();
        Fair { placed, short: true, ranks, classes, groups, zones, ..Fair::default() }
            .with(problem, shares)
    })
}

/// The same where the classes are known, and all that they want fits.
pub(super) fn fair_of(problem: &Problem, classes: Classes) -> Option<Fair> {
    let zones = Zones::new(problem);
    let groups = Groups::new(problem, &zones);
    let mut shares = Shares::new(problem, &zones, &groups.list, &classes.list);
    let placed = shares.place();
    let fair = Fair { placed, classes, groups, zones, ..Fair::default() };
    (placed >= fair.classes.wanted()).then(|| fair.with(problem, shares))
}

/// What is possible, and nothing of how loads are shared.
pub(super) struct Reach {
    shares: Shares,
    /// How many replicas can be placed at most.
    pub placed: i64,
}

impl Reach {
    /// `classes` are known as if all fitted.
    pub(super) fn new(problem: &Problem, classes: &Classes) -> Self {
        let zones = Zones::new(problem);
        let groups = Groups::new(problem, &zones);
        let mut shares = Shares::new(problem, &zones, &groups.list, &classes.list);
        let placed = shares.place();
        Self { shares, placed }
    }

    /// How many of those are beyond the zone rule at least.
    pub(super) fn beyond(&mut self) -> i64 {
        self.shares.keep_the_zone_rule()
    }
}

const SOURCE: usize = 0;
const SINK: usize = 1;

/// Classes times groups up to which a class may have an arc to each group. Beyond that a class with
/// few items is treated like one with many; then not quite all that is aimed at may be possible.
const DETAIL: usize = 1 << 20;

/// Whether a class of so many items goes to each group by an arc of its own, where a member may hold so
/// many at most.
fn goes_past_a_hub(items: i64, most: i64, detailed: bool) -> bool {
    detailed && items < most
}

/// Members of a zone that are alike.
struct Node {
    members: i64,
    limit: i64,
    share: i64,
}

/// Groups of a zone that are one in the network: all of them, if nothing goes past the hub.
struct Pool {
    zone: usize,
    groups: Vec<usize>,
    members: i64,
    /// Where its load comes in, where it lies, and the arc between.
    enters: usize,
    lies: usize,
    load: Arc,
}

/// The network of the drawing.
struct Shares {
    network: Network,
    /// The arcs from the source by rank: rank zero are the replicas that stand.
    ranks: BTreeMap<u32, Vec<Arc>>,
    /// What the zones lie in.
    levels: Levels,
    /// The arcs beyond the rules.
    beyond: Vec<Arc>,
    groups: Vec<Node>,
    pools: Vec<Pool>,
    /// By zone: its hub, its members, and the most that one of them may hold.
    hubs: Vec<(usize, i64, i64)>,
    arcs: usize,
}

impl Shares {
    fn new(
        problem: &Problem,
        zones: &Zones,
        groups: &[(Group, i64)],
        classes: &[(Class, i64)],
    ) -> Self {
        let mut shares = Self {
            network: Network::new(2),
            ranks: BTreeMap::new(),
            levels: Levels::new(problem, zones, classes),
            beyond: Vec::new(),
            groups: Vec::new(),
            pools: Vec::new(),
            hubs: Vec::new(),
            arcs: 0,
        };
        let network = &mut shares.network;
        shares.hubs = (0..zones.len()).map(|_| (network.add_node(), 0, 0)).collect();
        for ((zone, limit, share), members) in groups {
            let share = i64::from(*share);
            shares.groups.push(Node { members: *members, limit: *limit, share });
            let (_, total, most) = &mut shares.hubs[*zone as usize];
            (*total, *most) = (*total + members, (*most).max(*limit));
        }
        let detailed = classes.len().saturating_mul(groups.len()) <= DETAIL;
        let mut in_zone = vec![Vec::new(); zones.len()];
        for (group, ((zone, ..), _)) in groups.iter().enumerate() {
            in_zone[*zone as usize].push(group);
        }
        for (zone, groups) in in_zone.into_iter().enumerate() {
            let (_, _, most) = shares.hubs[zone];
            let each = if classes.iter().any(|(_, items)| goes_past_a_hub(*items, most, detailed)) {
                1
            } else {
                groups.len().max(1)
            };
            groups.chunks(each).for_each(|pool| shares.add_pool(zone, pool.to_vec()));
        }
        for class in classes.iter().copied().enumerate() {
            shares.class(problem, zones, class, detailed);
        }
        shares
    }

    /// Adds a pool of groups of a zone.
    fn add_pool(&mut self, zone: usize, groups: Vec<usize>) {
        let of = |group: &usize| &self.groups[*group];
        let members = groups.iter().map(|group| of(group).members).sum();
        let limit = groups.iter().map(|group| of(group).limit * of(group).members).sum();
        let (enters, lies) = (self.network.add_node(), self.network.add_node());
        let load = self.arc(enters, lies, limit);
        self.arc(lies, SINK, limit);
        self.arc(self.hubs[zone].0, enters, limit);
        self.pools.push(Pool { zone, groups, members, enters, lies, load });
    }

    fn arc(&mut self, from: usize, to: usize, capacity: i64) -> Arc {
        self.arcs += 1;
        self.network.add_arc(from, to, capacity)
    }

    /// Adds a class: its ranks, the zones that it may use, and the groups there.
    fn class(
        &mut self,
        problem: &Problem,
        zones: &Zones,
        (number, (class, items)): (usize, (Class, i64)),
        detailed: bool,
    ) {
        let node = self.network.add_node();
        for (rank, each) in class.ranks() {
            let arc = self.arc(SOURCE, node, items * each);
            self.ranks.entry(rank).or_default().push(arc);
        }
        let levels = std::mem::take(&mut self.levels);
        let wanted = i64::from(class.wanted);
        let lies_in = levels.lay_out(number, node, zones.len(), |from, cap| {
            let into = self.network.add_node();
            self.enter(problem, (from, into), items, (wanted, index(cap)));
            into
        });
        self.levels = levels;
        let cap = index(rule(problem, zones, class).1);
        let mut past_the_hub = vec![None; zones.len()];
        for (zone, name) in zones.names.iter().enumerate() {
            if !problem.set_allows(class.set, *name) {
                continue;
            }
            let (hub, members, limit) = self.hubs[zone];
            let at = self.network.add_node();
            let most = members.min(wanted);
            self.enter(problem, (lies_in[zone], at), items, (most, cap));
            if goes_past_a_hub(items, limit, detailed) {
                past_the_hub[zone] = Some(at);
            } else {
                self.arc(at, hub, items * most);
            }
        }
        if past_the_hub.iter().all(Option::is_none) {
            return;
        }
        for pool in 0..self.pools.len() {
            let Pool { zone, members, enters, .. } = self.pools[pool];
            if let Some(at) = past_the_hub[zone] {
                self.arc(at, enters, items * members);
            }
        }
    }

    /// Adds a way into a zone, or what zones lie in, that takes at most so many replicas of each item, and by its rule
    /// so many.
    fn enter(
        &mut self,
        problem: &Problem,
        (from, to): (usize, usize),
        items: i64,
        (most, cap): (i64, i64),
    ) {
        self.arc(from, to, items * most.min(cap));
        if most > cap && !problem.required {
            let arc = self.arc(from, to, items * (most - cap));
            self.beyond.push(arc);
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

    /// How many replicas of each rank are placed.
    fn by_rank(&self) -> BTreeMap<u32, i64> {
        let flow = |arcs: &Vec<Arc>| arcs.iter().map(|arc| self.network.flow(*arc)).sum();
        self.ranks.iter().map(|(rank, arcs)| (*rank, flow(arcs))).collect()
    }

    fn keep_the_zone_rule(&mut self) -> i64 {
        if self.beyond.is_empty() {
            return 0;
        }
        let mut cost = vec![0; self.arcs];
        for arc in &self.beyond {
            cost[arc.number()] = 1;
        }
        self.network.minimise(&cost)
    }

    /// The least and the greatest fair load of a member, by group.
    fn loads(mut self) -> Vec<(i64, i64)> {
        let mut fair = vec![(0, 0); self.groups.len()];
        // From here on loads are moved between the pools, never through the sink.
        for pool in &self.pools {
            self.network.lock_out(pool.lies, SINK);
        }
        let mut parts = vec![(0..self.pools.len()).collect::<Vec<usize>>()];
        while let Some(part) = parts.pop() {
            let aim = self.aim(&part);
            match self.cut(&part, &aim) {
                None => {
                    let groups = part.iter().flat_map(|pool| &self.pools[*pool].groups);
                    groups.for_each(|group| fair[*group] = aim.of(&self.groups[*group]));
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

    /// The same load by share for all of `part`, but for those that it would bring above their limit.
    fn aim(&self, part: &[usize]) -> Aim {
        let pools = part.iter().map(|pool| &self.pools[*pool]);
        let groups = pools.clone().flat_map(|pool| &pool.groups);
        let mut open: Vec<&Node> = groups.map(|group| &self.groups[*group]).collect();
        let total = pools.map(|pool| self.network.flow(pool.load)).sum();
        let shares = open.iter().map(|group| group.weight()).sum();
        let mut aim = Aim { total, shares };
        // Whoever is full leaves more to each of the others.
        let mut before = usize::MAX;
        while open.len() < before {
            before = open.len();
            open.retain(|group| {
                let full = aim.is_full(group);
                if full {
                    aim.total -= group.limit * group.members;
                    aim.shares -= group.weight();
                }
                !full
            });
        }
        aim
    }

    /// Tries to give each pool of `part` what is aimed at. If that cannot be, the pools that keep
    /// too much, and those that cannot have more.
    fn cut(&self, part: &[usize], aim: &Aim) -> Option<(Vec<usize>, Vec<usize>)> {
        // In units of one replica divided by the sum of shares everything is whole; where that does
        // not fit 62 bits, which takes shares beyond anything real, the last bits are let go.
        let all: i64 = part.iter().map(|pool| self.network.flow(self.pools[*pool].load)).sum();
        let mut scale = aim.shares.max(1);
        let mut lost = 0;
        while scale.saturating_mul(i128::from(all.max(1))) > i128::from(i64::MAX / 8) {
            scale >>= 1;
            lost += 1;
        }
        let mut supply = vec![0; self.network.nodes()];
        let mut balance = 0;
        let want = |group: &usize| {
            let group = &self.groups[*group];
            if aim.is_full(group) {
                i128::from(group.limit * group.members) * scale
            } else {
                (group.weight() * i128::from(aim.total)) >> lost
            }
        };
        for pool in part.iter().map(|pool| &self.pools[*pool]) {
            let want: i128 = pool.groups.iter().map(want).sum();
            let extra = small(i128::from(self.network.flow(pool.load)) * scale - want);
            supply[pool.lies] = extra;
            balance += extra;
        }
        if let Some(first) = part.first() {
            supply[self.pools[*first].lies] -= balance;
        }
        if supply.iter().all(|extra| *extra == 0) {
            return None;
        }
        let mut network = self.network.scaled(small(scale), small(scale) * all);
        network.route(&mut supply);
        let left: Vec<bool> = supply.iter().map(|extra| *extra > 0).collect();
        if left.iter().all(|left| !left) {
            return None;
        }
        let reached = network.reachable(&left);
        let (much, little): (Vec<usize>, Vec<usize>) =
            part.iter().partition(|pool| reached[self.pools[**pool].lies]);
        (!much.is_empty() && !little.is_empty()).then_some((much, little))
    }

    /// Moves as much load as can be from some pools to others.
    fn pour(&mut self, from: &[usize], to: &[usize]) {
        let mut supply = vec![0; self.network.nodes()];
        for pool in from {
            let pool = &self.pools[*pool];
            supply[pool.lies] = self.network.flow(pool.load);
        }
        for pool in to {
            supply[self.pools[*pool].lies] = i64::MIN / 4;
        }
        self.network.route(&mut supply);
    }
}

/// What the members of a part should have by share: so much in all, by so many shares, those left
/// out whose limit is less than that.
struct Aim {
    total: i64,
    shares: i128,
}

impl Aim {
    fn is_full(&self, group: &Node) -> bool {
        i128::from(group.limit) * self.shares <= i128::from(group.share) * i128::from(self.total)
    }

    /// Rounded down and up.
    fn of(&self, group: &Node) -> (i64, i64) {
        if self.is_full(group) {
            return (group.limit, group.limit);
        }
        let exact = i128::from(group.share) * i128::from(self.total);
        let shares = self.shares.max(1);
        let least = exact.div_euclid(shares);
        let most = least + i128::from(exact.rem_euclid(shares) != 0);
        (small(least), small(most))
    }
}

impl Node {
    fn weight(&self) -> i128 {
        i128::from(self.members) * i128::from(self.share)
    }
}

fn small(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(i64::MAX)
}
