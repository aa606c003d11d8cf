//! Detours of a plan by counting: where nobody with room may take an item, another item makes room.
//!
//! The way is searched from zone to zone. An item that comes to a zone takes the place of another one
//! there, which goes on to the next zone, and so on to one where somebody has room; shorter ways come
//! first. Replicas that are new anyway are asked first to go on, because that costs nothing; only then
//! those that stand.

use std::collections::BTreeMap;

use super::{
    draft::Draft,
    fill::{Fill, VACANT},
    holder::holds,
    kinds::{NOWHERE, narrow},
    openings::Openings,
};

impl<D: Draft> Fill<'_, D> {
    /// Step 5 of [`fill`](super::fill::fill). Whatever is still vacant, or too much, afterwards could not
    /// be helped in this way, nor by letting loads be less fair.
    pub(super) fn detours(&mut self) {
        let vacant = std::mem::take(&mut self.vacant);
        let above = |member: &u32| self.room(*member) < 0;
        let above: Vec<u32> = (0..narrow(self.openings.room.len())).filter(above).collect();
        if vacant.is_empty() && above.is_empty() {
            return;
        }
        let mut detours = Detours::new(self);
        for item in vacant {
            for at in 0..detours.fill.draft.of(item as usize).len() {
                if detours.fill.draft.of(item as usize)[at] == VACANT {
                    detours.help(item, at);
                }
                if detours.fill.draft.of(item as usize)[at] == VACANT {
                    detours.fill.stuck |= !detours.fill.place_anywhere(item, at);
                }
            }
        }
        detours.fill.draft.prepare(Some(&above));
        for member in &above {
            for item in detours.fill.draft.items_of(*member) {
                let mut row = detours.fill.draft.of(item as usize).iter();
                let at = row.position(|holder| holder.member() == *member);
                if let Some(at) = at.filter(|_| detours.fill.room(*member) < 0) {
                    detours.help(item, at);
                }
            }
        }
        for member in above {
            self.drop_beyond_limit(member);
        }
    }

    /// Drops what a member has beyond its limit, as nobody could be found to take it: what is new before
    /// what stands, and primaries last.
    fn drop_beyond_limit(&mut self, member: u32) {
        let beyond = i64::from(self.load(member as usize)) - self.problem.limit(member as usize);
        let Some(beyond) = usize::try_from(beyond).ok().filter(|beyond| *beyond > 0) else {
            return;
        };
        let mut places = Vec::new();
        for item in self.draft.items_of(member) {
            let row = self.draft.of(item as usize);
            if let Some(at) = row.iter().position(|holder| holder.member() == member) {
                let (holder, held) = (row[at], self.draft.held(item as usize));
                let stands = usize::from(holds(held, member)) + usize::from(holder.is_consistent());
                places.push((stands, holder.is_primary(), item, at));
            }
        }
        places.sort_unstable();
        places.dedup();
        for (_, _, item, at) in places.into_iter().take(beyond) {
            let holder = std::mem::replace(&mut self.draft.of_mut(item as usize)[at], VACANT);
            self.leave(holder);
            self.touched.push(item);
            self.stuck |= !self.place_anywhere(item, at);
        }
    }

    /// Gives a vacant place to anybody within its limit, rather within the zone rule, and to who lacks most:
    /// that it is held by somebody counts for more than both. False: there is nobody.
    fn place_anywhere(&mut self, item: u32, at: usize) -> bool {
        let class = self.class(item as usize);
        let row = self.draft.of(item as usize);
        let has_room = |member: &u32| {
            let number = *member as usize;
            i64::from(self.load(number)) < self.problem.limit(number)
                && self.fair.is_open(class, self.zone(*member))
                && !holds(row, *member)
        };
        let rank = |member: &u32| {
            let crowds = !self.openings.fits(class, row, self.zone(*member), None);
            (crowds, -self.room(*member))
        };
        let members = 0..narrow(self.targets.len());
        let Some(member) = members.filter(has_room).min_by_key(rank) else { return false };
        let zone = self.zone(member);
        self.openings.settle(class, row, zone, None);
        let Openings { takers, room, .. } = &mut self.openings;
        let before = room[member as usize];
        takers[zone].take_this(room, member);
        // Who lacks nothing is no taker.
        room[member as usize] = before - 1;
        self.arrive(item as usize, at, member);
        self.touched.push(item);
        true
    }
}

/// A replica: an item, and its place in the item's row.
type Place = (u32, usize);

struct Detours<'f, 'a, D> {
    fill: &'f mut Fill<'a, D>,
    /// By zone, items that are new there; some may have gone on.
    fresh: Vec<Vec<u32>>,
    /// Where to go on looking for an item that goes from one zone to another: those before never will.
    cursors: BTreeMap<Step, usize>,
    /// How many items are looked at before it is given up.
    patience: usize,
}

/// What is asked of an item: to go from a zone to a zone, to somebody who has `room` or wherever, if
/// it is `fresh` or in any case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    from: usize,
    to: usize,
    room: bool,
    fresh: bool,
}

/// What an item answers.
enum Answer {
    /// It can, from this place of its row; to this member, if it was asked for one.
    Yes(usize, u32),
    NotNow,
    Never,
}

/// The item that would come to a zone, and, if that makes room elsewhere, its place in its row and the
/// zone where that is.
type Coming = (u32, Option<(usize, usize)>);

/// What a search has found so far, by zone.
struct Search {
    came: Vec<Option<Coming>>,
    queue: Vec<usize>,
}

impl<'f, 'a, D: Draft> Detours<'f, 'a, D> {
    fn new(fill: &'f mut Fill<'a, D>) -> Self {
        let mut fresh = vec![Vec::new(); fill.fair.zones.len()];
        for item in &fill.touched {
            let held = fill.draft.held(*item as usize);
            for holder in fill.draft.of(*item as usize) {
                if *holder != VACANT && !holds(held, holder.member()) {
                    fresh[fill.fair.zones.of(*holder) as usize].push(*item);
                }
            }
        }
        let patience = 100_000 + 24 * fill.draft.len();
        Self { fill, fresh, cursors: BTreeMap::new(), patience }
    }

    /// Finds a member for a place of an item: one that is vacant, or whose member has too much.
    fn help(&mut self, item: u32, at: usize) {
        if self.fill.openings.is_empty() {
            return;
        }
        for fresh in [true, false] {
            if self.search((item, at), fresh) {
                return;
            }
        }
    }

    /// Looks for a way on which only replicas that are new make room, or any.
    fn search(&mut self, first: Place, fresh: bool) -> bool {
        let zones = self.fresh.len();
        let mut search = Search { came: vec![None; zones], queue: Vec::new() };
        for zone in (0..zones).filter(|zone| self.may_go(first, *zone)) {
            search.came[zone] = Some((first.0, None));
            search.queue.push(zone);
        }
        let mut next = 0;
        while let Some(from) = search.queue.get(next).copied() {
            next += 1;
            self.patience = self.patience.saturating_sub(zones);
            for to in 0..zones {
                if self.fill.openings.takers[to].is_empty() {
                    continue;
                }
                let step = Step { from, to, room: true, fresh };
                if let Some((last, taker)) = self.ask(&search, step) {
                    self.go(&search, first, last, from, taker);
                    return true;
                }
            }
            for to in 0..zones {
                if search.came[to].is_some() {
                    continue;
                }
                let step = Step { from, to, room: false, fresh };
                if let Some(((item, at), _)) = self.ask(&search, step) {
                    search.came[to] = Some((item, Some((at, from))));
                    search.queue.push(to);
                }
            }
        }
        false
    }

    /// Asks one item after the other.
    fn ask(&mut self, search: &Search, step: Step) -> Option<(Place, u32)> {
        let mut at = self.cursors.get(&step).copied().unwrap_or(0);
        let mut begin = at;
        let found = loop {
            let item = if step.fresh {
                self.fresh[step.from].get(at).copied()
            } else {
                Some(narrow(at)).filter(|_| at < self.fill.draft.len())
            };
            let Some(item) = item.filter(|_| self.patience > 0) else { break None };
            self.patience -= 1;
            match self.answer(search, step, item) {
                Answer::Yes(place, taker) => break Some(((item, place), taker)),
                Answer::Never if begin == at => begin += 1,
                Answer::Never | Answer::NotNow => {}
            }
            at += 1;
        };
        self.cursors.insert(step, begin);
        found
    }

    fn answer(&self, search: &Search, step: Step, item: u32) -> Answer {
        let fill = &*self.fill;
        let row = fill.draft.of(item as usize);
        let Some((comes, _)) = search.came[step.from] else { return Answer::NotNow };
        let mut answer = Answer::Never;
        for (at, holder) in row.iter().enumerate() {
            if *holder == VACANT
                || fill.fair.zones.of(*holder) as usize != step.from
                || step.fresh && holds(fill.draft.held(item as usize), holder.member())
                || !self.may_go((item, at), step.to)
            {
                continue;
            }
            let room = |taker: &u32| !holds(row, *taker);
            let takers = &fill.openings.takers[step.to];
            let taker = takers.members(&fill.openings.room).take(8).find(room);
            if step.room && taker.is_none() {
                continue;
            }
            if !holds(fill.draft.of(comes as usize), holder.member())
                && !search.is_on_the_way(step.from, item)
            {
                return Answer::Yes(at, taker.unwrap_or(0));
            }
            answer = Answer::NotNow;
        }
        answer
    }

    /// Whether the zones allow that a replica goes to one.
    fn may_go(&self, (item, at): Place, zone: usize) -> bool {
        let fill = &*self.fill;
        let row = fill.draft.of(item as usize);
        let from = Some(row[at]).filter(|holder| *holder != VACANT);
        let from = from.map(|holder| fill.fair.zones.of(holder)).filter(|zone| *zone != NOWHERE);
        let class = fill.class(item as usize);
        fill.openings.fits(class, row, zone, from.map(|zone| zone as usize))
    }

    /// Goes the way, from its end: `last`, in `zone`, to the taker, who it was there before to where
    /// that was, and at last `first`.
    fn go(&mut self, search: &Search, first: Place, last: Place, mut zone: usize, taker: u32) {
        let there = self.fill.fair.zones.of_member[taker as usize] as usize;
        let openings = &mut self.fill.openings;
        openings.takers[there].take_this(&mut openings.room, taker);
        let mut to = taker;
        let mut place = last;
        loop {
            let left = self.fill.draft.of(place.0 as usize)[place.1];
            self.step(place, to);
            if place == first {
                break;
            }
            // Whoever comes next takes the room that this one left.
            self.fill.openings.room[left.member() as usize] -= 1;
            to = left.member();
            match search.came[zone] {
                Some((item, Some((at, from)))) => (place, zone) = ((item, at), from),
                _ => place = first,
            }
        }
    }

    /// One step of it, to a member whose room is counted already.
    fn step(&mut self, (item, at): Place, to: u32) {
        let zone_of = |member: u32| self.fill.fair.zones.of_member[member as usize] as usize;
        let class = self.fill.class(item as usize);
        let row = self.fill.draft.of(item as usize);
        let left = row[at];
        let from = (left != VACANT).then(|| zone_of(left.member()));
        self.fill.openings.settle(class, row, zone_of(to), from);
        if left != VACANT {
            self.fill.leave(left);
        }
        self.fill.arrive(item as usize, at, to);
        self.fill.touched.push(item);
        if !holds(self.fill.draft.held(item as usize), to) {
            self.fresh[zone_of(to)].push(item);
        }
    }
}

impl Search {
    /// Whether an item goes on the way to a zone.
    fn is_on_the_way(&self, mut zone: usize, item: u32) -> bool {
        while let Some((comes, before)) = self.came[zone] {
            if comes == item {
                return true;
            }
            let Some((_, from)) = before else { return false };
            zone = from;
        }
        false
    }
}
