//! What zones lie in, such as racks in rooms and those in regions, and how many replicas of an item each takes.
//!
//! What is the same thing on one level is the same on all levels around it, so the caps lie within each other,
//! and a network in which each is an arc is still one of flow.

use std::collections::BTreeMap;

use super::{
    holder::Holder,
    kinds::{Class, Zones, narrow},
    problem::Problem,
    seat::ZoneRule,
};

/// What the zones that are open lie in, and what of an item each such thing takes, by the items' classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Levels {
    /// The outermost first.
    list: Vec<Level>,
}

/// Things of one level, numbered from zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Level {
    rule: ZoneRule,
    /// By zone, in which thing it lies.
    of_zone: Vec<u32>,
    /// By thing, in which thing of the level around it lies.
    lies_in: Vec<u32>,
    /// By class, how many things are open to it, and how many replicas of an item each takes.
    open: Vec<usize>,
    caps: Vec<usize>,
}

impl Levels {
    pub(super) fn new(problem: &Problem, zones: &Zones, classes: &[(Class, i64)]) -> Self {
        let mut levels = Self::default();
        for (number, rule) in problem.around.rules.iter().enumerate() {
            let mut level = Level { rule: *rule, ..Level::default() };
            let mut known = BTreeMap::new();
            for (zone, name) in zones.names.iter().enumerate() {
                let next = narrow(known.len());
                let thing = *known.entry(problem.around.path(*name, number)).or_insert(next);
                level.of_zone.push(thing);
                if thing == next {
                    level.lies_in.push(levels.list.last().map_or(0, |around| around.of_zone[zone]));
                }
            }
            for (class, _) in classes {
                let allowed = |zone: &usize| problem.set_allows(class.set, zones.names[*zone]);
                let mut open: Vec<u32> =
                    (0..zones.len()).filter(allowed).map(|zone| level.of_zone[zone]).collect();
                open.sort_unstable();
                open.dedup();
                level.open.push(open.len());
                level.caps.push(rule.cap(class.wanted, narrow(open.len())) as usize);
            }
            levels.list.push(level);
        }
        levels
    }

    /// Whether there are none.
    pub(super) fn are_none(&self) -> bool {
        self.list.is_empty()
    }

    /// Lays out the things around the zones of a class in a network, from a node on: `enter` makes a way from a
    /// node to a new one that takes so many replicas of an item by its rule. Returns the node that each zone lies in.
    pub(super) fn lay_out(
        &self,
        class: usize,
        node: usize,
        zones: usize,
        mut enter: impl FnMut(usize, usize) -> usize,
    ) -> Vec<usize> {
        let mut nodes = vec![node];
        for level in &self.list {
            let cap = level.caps[class];
            nodes =
                level.lies_in.iter().map(|around| enter(nodes[*around as usize], cap)).collect();
        }
        let of_zone = |zone: usize| {
            self.list.last().map_or(node, |level| nodes[level.of_zone[zone] as usize])
        };
        (0..zones).map(of_zone).collect()
    }

    /// How many replicas of an item of a class are within the rules at most, of so many in each zone.
    pub(super) fn within(&self, class: usize, in_zone: &[usize]) -> usize {
        // Things of the level within, and how many replicas they take.
        let mut inner: Vec<(u32, usize)> = (0..).zip(in_zone.iter().copied()).collect();
        for (number, level) in self.list.iter().enumerate().rev() {
            let innermost = number + 1 == self.list.len();
            let mut things = vec![0; level.lies_in.len()];
            for (thing, replicas) in inner {
                let around = if innermost {
                    level.of_zone[thing as usize]
                } else {
                    self.list[number + 1].lies_in[thing as usize]
                };
                things[around as usize] += replicas;
            }
            inner = (0..)
                .zip(things.into_iter().map(|all: usize| all.min(level.caps[class])))
                .collect();
        }
        inner.into_iter().map(|(_, replicas)| replicas).sum()
    }

    /// By level, how many of the holders of an item are beyond what its things take.
    fn counts<'l>(
        &'l self,
        class: usize,
        zones: &'l Zones,
        holders: &'l [Holder],
    ) -> impl Iterator<Item = (&'l Level, usize)> + 'l {
        self.list.iter().map(move |level| {
            let thing = |holder: &Holder| level.of_zone[zones.of(*holder) as usize];
            let mut things: Vec<u32> =
                holders.iter().filter(|holder| **holder != Holder::VACANT).map(thing).collect();
            things.sort_unstable();
            let cap = level.caps[class];
            let there = things.chunk_by(|one, other| one == other);
            (level, there.map(|there| there.len().saturating_sub(cap)).sum())
        })
    }

    /// How many of the holders of an item are beyond what things take, summed over the levels; and whether a rule
    /// is broken by that.
    pub(super) fn beyond(&self, class: usize, zones: &Zones, holders: &[Holder]) -> (usize, bool) {
        let mut sum = (0, false);
        for (level, beyond) in self.counts(class, zones, holders) {
            let within = level.caps[class].saturating_mul(level.open[class]);
            let broken = level.rule.is_broken(beyond as u64, holders.len() as u64, within as u64);
            sum = (sum.0 + beyond, sum.1 | broken);
        }
        sum
    }
}
