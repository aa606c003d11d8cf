//! Passing things on between members, along the shortest ways that there are, until nobody who has too
//! many finds anybody who has room.
//!
//! The network is never written down: what a member may pass on, and to whom, is asked when a search
//! gets there. Room only shrinks, so a member next to whom there is none is passed by from then on, for
//! as long as others find some. Whoever cannot be helped is a closed world with all whom it reaches:
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

    /// What a member may pass on: all of it, and perhaps more.
    fn items(&mut self, member: u32) -> Vec<u32>;

    /// Whether a member may pass an item on, and to whom.
    fn ways(&self, item: u32, member: u32, to: &mut Vec<u32>);

    /// Passes an item on.
    fn pass(&mut self, item: u32, from: u32, to: u32);
}

/// As many steps as it takes.
pub(super) const ANY: u32 = u32::MAX;

/// Passes on what can be, in at most `steps` steps each. Returns the members that cannot get rid of
/// what they have too many of in any number of steps, with all whom they reach.
pub(super) fn route(passing: &mut impl Passing, sources: &[u32], steps: u32) -> Vec<u32> {
    let members = passing.members();
    let mut search = Search {
        seen: vec![0; members],
        now: 0,
        came: vec![(0, 0); members],
        queue: Vec::new(),
        barren: vec![false; members],
        skipped: false,
        closed: Vec::new(),
        everybody: false,
    };
    passing.prepare(Some(sources));
    for source in sources {
        while passing.gives(*source) && search.seen[*source as usize] != CLOSED {
            let near = search.find(passing, *source, steps);
            let Some(mut at) = near.or_else(|| search.find_far(passing, *source, steps)) else {
                if steps == ANY {
                    search.close();
                }
                break;
            };
            // Backwards, so that who passes something on has got something before.
            let mut path = Vec::new();
            while at != *source {
                let (from, item) = search.came[at as usize];
                path.push((item, from, at));
                at = from;
            }
            for (item, from, to) in path.into_iter().rev() {
                passing.pass(item, from, to);
            }
        }
    }
    search.closed
}

/// Seen by a search that found nothing.
const CLOSED: u32 = u32::MAX;

struct Search {
    /// By member: the last search that saw it.
    seen: Vec<u32>,
    now: u32,
    /// By member: from whom, with which item, it was reached.
    came: Vec<(u32, u32)>,
    queue: Vec<u32>,
    /// By member: whether nobody next to it has room.
    barren: Vec<bool>,
    /// Whether the last search passed somebody by for that.
    skipped: bool,
    closed: Vec<u32>,
    /// Whether everybody's items may be asked for.
    everybody: bool,
}

impl Search {
    /// Finds the nearest member that has room.
    fn find(&mut self, passing: &mut impl Passing, source: u32, steps: u32) -> Option<u32> {
        self.now += 1;
        self.skipped = false;
        self.seen[source as usize] = self.now;
        self.queue.clear();
        self.queue.push(source);
        let mut ways = Vec::new();
        let (mut at, mut layer) = (0, 0);
        while at < self.queue.len() && layer < steps {
            let end = self.queue.len();
            if layer > 0 && !self.everybody {
                passing.prepare(None);
                self.everybody = true;
            }
            for place in at..end {
                let member = self.queue[place];
                if self.barren[member as usize] && layer > 0 {
                    self.skipped = true;
                    continue;
                }
                for item in passing.items(member) {
                    ways.clear();
                    passing.ways(item, member, &mut ways);
                    for to in &ways {
                        let seen = &mut self.seen[*to as usize];
                        if *seen == self.now || *seen == CLOSED {
                            continue;
                        }
                        *seen = self.now;
                        self.came[*to as usize] = (member, item);
                        if passing.takes(*to) {
                            return Some(*to);
                        }
                        self.queue.push(*to);
                    }
                }
                self.barren[member as usize] = true;
            }
            at = end;
            layer += 1;
        }
        None
    }

    /// The same by way of those next to whom there is no room.
    fn find_far(&mut self, passing: &mut impl Passing, source: u32, steps: u32) -> Option<u32> {
        if !self.skipped {
            return None;
        }
        self.barren.fill(false);
        self.find(passing, source, steps)
    }

    /// Nobody who was seen is to be searched again.
    fn close(&mut self) {
        for member in &self.queue {
            self.seen[*member as usize] = CLOSED;
        }
        self.closed.extend_from_slice(&self.queue);
    }
}
