//! Passing things on between members, along the shortest ways that there are, until nobody who has too
//! many finds anybody who has room.
//!
//! The network is never written down: what a member may pass on, and to whom, is asked when a search
//! gets there. Each phase measures how many steps everybody is away, up to the nearest that has room,
//! and then follows ways of that length only until none is left, as blocking flows do.

use std::collections::VecDeque;

/// What is passed on, seen from one end: from those who have too many, or from those who lack some.
pub(super) trait Passing {
    /// The number of members.
    fn members(&self) -> usize;

    /// Whether a member still has too many.
    fn gives(&self, member: u32) -> bool;

    /// Whether a member has room.
    fn takes(&self, member: u32) -> bool;

    /// What a member may pass on: all of it, and perhaps more.
    fn items(&mut self, member: u32) -> Vec<u32>;

    /// Whether a member may pass an item on, and to whom.
    fn ways(&self, item: u32, member: u32, to: &mut Vec<u32>);

    /// Passes an item on.
    fn pass(&mut self, item: u32, from: u32, to: u32);
}

/// The depth of a member that cannot be reached, or leads nowhere.
pub(super) const FAR: u32 = u32::MAX;

/// Passes on what can be, in at most `steps` steps each. Returns, by member, how far it is from those
/// who cannot get rid of what they have too many of, or [`FAR`].
pub(super) fn route(passing: &mut impl Passing, sources: &[u32], steps: u32) -> Vec<u32> {
    loop {
        let mut layers = Layers::search(passing, sources, steps);
        if !layers.found {
            return layers.depth;
        }
        for source in sources {
            while passing.gives(*source) && layers.follow(passing, *source) {}
        }
    }
}

/// How far everybody is from those who have too many, and what those who are near may pass on.
struct Layers {
    depth: Vec<u32>,
    items: Vec<Vec<u32>>,
    /// By member, which of its items is to be passed on next.
    cursors: Vec<usize>,
    found: bool,
    ways: Vec<u32>,
}

impl Layers {
    fn search(passing: &mut impl Passing, sources: &[u32], steps: u32) -> Self {
        let members = passing.members();
        let mut layers = Self {
            depth: vec![FAR; members],
            items: vec![Vec::new(); members],
            cursors: vec![0; members],
            found: false,
            ways: Vec::new(),
        };
        let mut queue = VecDeque::new();
        for source in sources.iter().filter(|source| passing.gives(**source)) {
            layers.depth[*source as usize] = 0;
            queue.push_back(*source);
        }
        let mut end = steps;
        while let Some(member) = queue.pop_front() {
            let next = layers.depth[member as usize] + 1;
            if next > end {
                break;
            }
            let items = passing.items(member);
            for item in &items {
                layers.ways.clear();
                passing.ways(*item, member, &mut layers.ways);
                for to in &layers.ways {
                    if layers.depth[*to as usize] == FAR {
                        layers.depth[*to as usize] = next;
                        queue.push_back(*to);
                        if passing.takes(*to) {
                            end = next;
                            layers.found = true;
                        }
                    }
                }
            }
            layers.items[member as usize] = items;
        }
        layers
    }

    /// Follows one way from a member to one that has room. False: there is none left.
    fn follow(&mut self, passing: &mut impl Passing, source: u32) -> bool {
        // Each step: the item, and who has it afterwards.
        let mut path: Vec<(u32, u32)> = Vec::new();
        let mut at = source;
        while path.is_empty() || !passing.takes(at) {
            if let Some(step) = self.step(passing, at) {
                path.push(step);
                at = step.1;
            } else {
                // A dead end is one for all who come later too.
                self.depth[at as usize] = FAR;
                if path.pop().is_none() {
                    return false;
                }
                at = path.last().map_or(source, |(_, member)| *member);
            }
        }
        let mut from = source;
        for (item, to) in path {
            passing.pass(item, from, to);
            from = to;
        }
        true
    }

    /// What a member may pass on next, and to whom, one layer on.
    fn step(&mut self, passing: &impl Passing, member: u32) -> Option<(u32, u32)> {
        let next = self.depth[member as usize].checked_add(1)?;
        let items = &self.items[member as usize];
        while let Some(item) = items.get(self.cursors[member as usize]) {
            self.ways.clear();
            passing.ways(*item, member, &mut self.ways);
            if let Some(to) = self.ways.iter().find(|to| self.depth[**to as usize] == next) {
                return Some((*item, *to));
            }
            self.cursors[member as usize] += 1;
        }
        None
    }
}
