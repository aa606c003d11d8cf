//! Passing things on between members, along the shortest ways that there are, until nobody who has too
//! many finds anybody who has room.
//!
//! The network is not written down beforehand: what a member may pass on, and to whom, is asked when a search
//! gets there. At first each who has too many looks next to it, and then for the nearest who has room, which
//! is the least work where that is near. If it becomes too much, all look together: each phase measures how far
//! everybody is, up to the nearest that have room, and then follows ways of that length until none is
//! left, as blocking flows do. Whoever cannot be helped is a closed world with all whom it reaches:
//! nobody in it finds room, whatever the others do, so it is not searched again.

/// What is passed on, seen from one end: from those who have too many, or from those who lack some.
pub(super) trait Passing {
    /// The number of members.
    fn members(&self) -> usize;

    /// Whether a member still has too many.
    fn gives(&self, member: u32) -> bool;

    /// Whether a member has room.
    fn takes(&self, member: u32) -> bool;

    /// Is told whose items will be asked for next; nobody is named if it may be anybody.
    fn prepare(&mut self, members: Option<&[u32]>);

    /// Whether a member's items may be asked for.
    fn knows(&self, member: u32) -> bool;

    /// What a member may pass on: all of it, and perhaps more, and perhaps some of it twice.
    fn items(&mut self, member: u32) -> Vec<u32>;

    /// Writes down, in the place of what was there, which of some items a member may pass on, and to whom each.
    fn ways(&self, member: u32, items: &[u32], ways: &mut Vec<(u32, u32)>);

    /// Passes an item on.
    fn pass(&mut self, item: u32, from: u32, to: u32);
}

/// Passes on what can be. Returns the members that cannot get rid of what they have too many of, with
/// all whom they reach.
pub(super) fn route(passing: &mut impl Passing, sources: &[u32]) -> Vec<u32> {
    passing.prepare(Some(sources));
    let mut search = Search::new(passing.members());
    let mut helped = false;
    for (tried, source) in sources.iter().enumerate() {
        search.beside(passing, *source);
        helped |= !passing.gives(*source);
        if tried == A_FEW && !helped {
            break;
        }
    }
    let left: Vec<u32> = sources.iter().copied().filter(|source| passing.gives(*source)).collect();
    if left.is_empty() {
        return Vec::new();
    }
    if (0..).take(passing.members()).any(|member| !passing.knows(member)) {
        let near = search.near(passing, &left);
        passing.prepare(Some(&near));
    }
    let enough = ENOUGH + ENOUGH_EACH * sources.len();
    'alone: for source in sources {
        while passing.gives(*source) && search.depth[*source as usize] != CLOSED {
            if search.looks > enough {
                break 'alone;
            }
            if !search.alone(passing, *source) {
                break;
            }
        }
    }
    while search.together(passing, sources) {}
    search.closed
}

/// If so many who have too many, and one more, find nobody next to them, the others are not tried.
const A_FEW: usize = 16;

/// So often only those are prepared for who were reached.
const A_FEW_TIMES: u32 = 3;

/// How many items are looked at, in all and for each who has too many, before all look together.
const ENOUGH: usize = 30_000;
const ENOUGH_EACH: usize = 500;

/// So many items of a member are read at once, so that the memory is asked for the next while it looks for one.
pub(super) const AT_ONCE: usize = 64;

/// The depth of a member that was not reached yet, and of one that helps nobody any more.
const FAR: u32 = u32::MAX;
const CLOSED: u32 = u32::MAX - 1;

struct Search {
    /// How far everybody is from where the search began.
    depth: Vec<u32>,
    /// From whom, with which item, who was reached alone was reached.
    came: Vec<(u32, u32)>,
    /// Who was reached, in order.
    queue: Vec<u32>,
    /// What was looked through last: items, and to whom they may be passed on.
    ways: Vec<(u32, u32)>,
    closed: Vec<u32>,
    /// How often it was prepared to look further.
    prepared: u32,
    /// How many items were looked at.
    looks: usize,
}

impl Search {
    fn new(members: usize) -> Self {
        Self {
            depth: vec![FAR; members],
            came: vec![(0, 0); members],
            queue: Vec::new(),
            ways: Vec::new(),
            closed: Vec::new(),
            prepared: 0,
            looks: 0,
        }
    }

    /// Begins a search.
    fn begin(&mut self, sources: impl Iterator<Item = u32>) {
        for member in self.queue.drain(..) {
            let depth = &mut self.depth[member as usize];
            *depth = if *depth == CLOSED { CLOSED } else { FAR };
        }
        for source in sources {
            self.depth[source as usize] = 0;
            self.queue.push(source);
        }
    }

    /// Prepares for those in the queue from one on, who were reached and may be looked at next; for
    /// everybody, if that was not enough a few times.
    fn look_further(&mut self, passing: &mut impl Passing, next: usize) {
        self.prepared += 1;
        let queue = &self.queue[next..];
        passing.prepare((self.prepared <= A_FEW_TIMES).then_some(queue));
    }

    /// Passes on from a member to those next to it that have room.
    fn beside(&mut self, passing: &mut impl Passing, source: u32) {
        for items in passing.items(source).chunks(AT_ONCE) {
            if !passing.gives(source) {
                return;
            }
            let mut ways = Vec::new();
            passing.ways(source, items, &mut ways);
            for (item, to) in ways {
                if passing.gives(source)
                    && passing.takes(to)
                    && self.is_way(passing, source, (item, to))
                {
                    passing.pass(item, source, to);
                }
            }
        }
    }

    /// Whether a member may pass an item on still: it may have done so meanwhile.
    fn is_way(&mut self, passing: &impl Passing, member: u32, way: (u32, u32)) -> bool {
        passing.ways(member, &[way.0], &mut self.ways);
        self.ways.contains(&way)
    }

    /// Those next to some members.
    fn near(&mut self, passing: &mut impl Passing, sources: &[u32]) -> Vec<u32> {
        self.begin(sources.iter().copied());
        for source in sources {
            let items = passing.items(*source);
            self.look(passing, &items, *source, 1, false);
        }
        let near = self.queue[sources.len()..].to_vec();
        self.looks = 0;
        near
    }

    /// Passes one thing on from a member to the nearest that has room. False: there is none.
    fn alone(&mut self, passing: &mut impl Passing, source: u32) -> bool {
        self.begin(std::iter::once(source));
        let mut next = 0;
        while let Some(member) = self.queue.get(next).copied() {
            let depth = self.depth[member as usize];
            if !passing.knows(member) {
                self.look_further(passing, next);
            }
            next += 1;
            for items in passing.items(member).chunks(AT_ONCE) {
                if let Some(to) = self.look(passing, items, member, depth + 1, true) {
                    self.go_back(passing, source, to);
                    return true;
                }
            }
        }
        self.close();
        false
    }

    /// Reaches those whom items of a member may be passed on to; at last one that has room, if `nearest` is
    /// looked for.
    fn look(
        &mut self,
        passing: &impl Passing,
        items: &[u32],
        member: u32,
        depth: u32,
        nearest: bool,
    ) -> Option<u32> {
        self.looks += items.len();
        passing.ways(member, items, &mut self.ways);
        for (item, to) in &self.ways {
            if self.depth[*to as usize] == FAR {
                self.depth[*to as usize] = depth;
                self.came[*to as usize] = (member, *item);
                self.queue.push(*to);
                if nearest && passing.takes(*to) {
                    return Some(*to);
                }
            }
        }
        None
    }

    /// Passes things on along the way that led to a member, from its end, so that who passes something
    /// on has got something before.
    fn go_back(&mut self, passing: &mut impl Passing, source: u32, mut at: u32) {
        let mut path = Vec::new();
        while at != source {
            let (from, item) = self.came[at as usize];
            path.push((item, from, at));
            at = from;
        }
        for (item, from, to) in path.into_iter().rev() {
            passing.pass(item, from, to);
        }
    }

    /// Nobody who was reached is to be searched again.
    fn close(&mut self) {
        for member in &self.queue {
            self.depth[*member as usize] = CLOSED;
        }
        self.closed.append(&mut self.queue);
    }

    /// One phase of all together. False: nobody was helped.
    fn together(&mut self, passing: &mut impl Passing, sources: &[u32]) -> bool {
        let open = |source: &u32| passing.gives(*source) && self.depth[*source as usize] != CLOSED;
        let sources: Vec<u32> = sources.iter().copied().filter(open).collect();
        if sources.is_empty() {
            return false;
        }
        self.begin(sources.iter().copied());
        passing.prepare(None);
        let mut ways: Vec<Vec<(u32, u32)>> = vec![Vec::new(); self.depth.len()];
        let (mut next, mut end) = (0, FAR);
        while let Some(member) = self.queue.get(next).copied() {
            let depth = self.depth[member as usize] + 1;
            if depth > end {
                break;
            }
            next += 1;
            let before = self.queue.len();
            let items = passing.items(member);
            self.look(passing, &items, member, depth, false);
            let on = self.ways.iter().filter(|(_, to)| self.depth[*to as usize] == depth);
            ways[member as usize] = on.copied().collect();
            if self.queue[before..].iter().any(|to| passing.takes(*to)) {
                end = depth;
            }
        }
        if end == FAR {
            self.close();
            return false;
        }
        let mut cursors = vec![0; self.depth.len()];
        for source in sources {
            while passing.gives(source) && self.follow(passing, &ways, &mut cursors, source) {}
        }
        true
    }

    /// Follows one way from a member to one that has room, each step a layer on. False: there is none
    /// left.
    fn follow(
        &mut self,
        passing: &mut impl Passing,
        ways: &[Vec<(u32, u32)>],
        cursors: &mut [usize],
        source: u32,
    ) -> bool {
        // Each step: the item, and who has it afterwards.
        let mut path: Vec<(u32, u32)> = Vec::new();
        let mut at = source;
        while path.is_empty() || !passing.takes(at) {
            let step = self.step(passing, &ways[at as usize], &mut cursors[at as usize], at);
            if let Some(step) = step {
                path.push(step);
                at = step.1;
            } else if path.pop().is_some() {
                // A dead end is one for all who come later too.
                self.depth[at as usize] = FAR;
                at = path.last().map_or(source, |(_, member)| *member);
            } else {
                return false;
            }
        }
        let mut from = source;
        for (item, to) in path {
            passing.pass(item, from, to);
            cursors[from as usize] += 1;
            from = to;
        }
        true
    }

    /// What a member may pass on next, from its cursor on, and to whom, one layer on.
    fn step(
        &mut self,
        passing: &impl Passing,
        ways: &[(u32, u32)],
        cursor: &mut usize,
        member: u32,
    ) -> Option<(u32, u32)> {
        let next = self.depth[member as usize] + 1;
        while let Some(way) = ways.get(*cursor) {
            if self.depth[way.1 as usize] == next && self.is_way(passing, member, *way) {
                return Some(*way);
            }
            *cursor += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who has each item, and who else may have it; everybody should have one.
    struct Hands {
        has: Vec<u32>,
        others: Vec<Vec<u32>>,
        count: Vec<i32>,
    }

    impl Passing for Hands {
        fn members(&self) -> usize {
            self.count.len()
        }

        fn gives(&self, member: u32) -> bool {
            self.count[member as usize] > 1
        }

        fn takes(&self, member: u32) -> bool {
            self.count[member as usize] < 1
        }

        fn prepare(&mut self, _members: Option<&[u32]>) {}

        fn knows(&self, _member: u32) -> bool {
            true
        }

        fn items(&mut self, member: u32) -> Vec<u32> {
            let all = || (0..).zip(&self.has).filter(|(_, has)| **has == member);
            let items = all().chain(all()).map(|(item, _)| item);
            items.collect()
        }

        fn ways(&self, member: u32, items: &[u32], ways: &mut Vec<(u32, u32)>) {
            ways.clear();
            for item in items.iter().filter(|item| self.has[**item as usize] == member) {
                ways.extend(self.others[*item as usize].iter().map(|other| (*item, *other)));
            }
        }

        fn pass(&mut self, item: u32, from: u32, to: u32) {
            assert_eq!(self.has[item as usize], from, "who does not have it cannot pass it on");
            self.has[item as usize] = to;
            self.count[from as usize] -= 1;
            self.count[to as usize] += 1;
        }
    }

    #[test]
    fn what_is_listed_twice_is_passed_on_once() {
        // The first item may go to two who take one, the second to a third.
        let others = vec![vec![1, 2], vec![3], vec![], vec![]];
        let mut hands = Hands { has: vec![0; 4], others, count: vec![4, 0, 0, 0] };
        let closed = route(&mut hands, &[0]);
        assert_eq!(hands.has, [1, 3, 0, 0]);
        assert_eq!(hands.count, [2, 1, 0, 1]);
        assert!(closed.contains(&0));
    }
}
