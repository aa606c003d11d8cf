//! Who has too much gives it to who lacks something.
//!
//! First with as few items as seem to be enough, each of which gives a single replica, then with all.
//! What is not consistent goes before all else, and then primaries go to those who will want some, so
//! that few have to be handed over afterwards.

use super::{
    draft::Draft,
    fill::{Fill, VACANT, place},
    holder::{Holder, holds, places, stays},
    kinds::narrow,
    level::Share,
    takers::spread,
};

/// Who may give what to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Only replicas that are not consistent; else as planned.
    Raw,
    /// Only primaries, of members that have more than so many; else as planned.
    Primaries(i64),
    /// Only replicas that are no primaries, of members that have more of those too many than
    /// primaries beyond so many; else as planned.
    Others(i64),
    /// To the replica's own zone, or as the quota of its class says.
    Planned,
    /// To any zone.
    Any,
}

/// Where the items of a list are looked at first.
#[derive(Clone, Copy)]
enum Order {
    /// Anywhere, so that it is not always the same that move.
    Spread,
    /// At those that came last.
    Newest,
}

/// So many items of a list are read at once.
const EACH: usize = 4;

/// So many rows are asked what suits before any of it is given.
const BLOCK: usize = 1 << 10;

impl<D: Draft> Fill<'_, D> {
    /// Step 4 of [`fill`](super::fill::fill).
    pub(super) fn give(&mut self) {
        if self.openings.room.iter().all(|room| *room >= 0) {
            return;
        }
        let few = |excess: u32| excess.saturating_add(excess / 2 + 4);
        let all = |_: u32| u32::MAX;
        if self.raw {
            self.give_of(&[Way::Raw], all, |holder| !holder.is_consistent());
        }
        let share = Share::of(&self.targets, self.draft.len());
        let kept = self.keep_room(&share);
        let primaries = [Way::Primaries(share.high), Way::Primaries(share.low)];
        self.give_of(&primaries[..1], few, Holder::is_primary);
        self.give_beside(&share);
        self.give_of(&primaries[1..], few, Holder::is_primary);
        self.openings.room.iter_mut().zip(kept).for_each(|(room, kept)| *room += kept);
        self.openings.open(&self.primaries);
        self.give_of(&[Way::Others(share.high)], few, |holder| !holder.is_primary());
        let rest = [Way::Others(share.high), Way::Planned, Way::Any];
        self.give_of(&rest, few, |_| true);
        self.give_of(&rest, all, |_| true);
    }

    /// Leaves those who lack something room for the primaries only that they will want. Returns, by
    /// member, what else there is room for.
    fn keep_room(&mut self, share: &Share) -> Vec<i64> {
        let mut kept = vec![0; self.targets.len()];
        let rooms = self.openings.room.iter_mut().enumerate();
        for (member, room) in rooms.filter(|(_, room)| **room > 0) {
            let wanted = share.low - i64::from(self.primaries[member]);
            kept[member] = *room - wanted.clamp(0, *room);
            *room -= kept[member];
        }
        self.openings.open(&self.primaries);
        kept
    }

    /// Lets members above their target give replicas that suit, one way after the other. `ask` tells
    /// for how many too many how many replicas are asked for.
    fn give_of(&mut self, ways: &[Way], ask: impl Fn(u32) -> u32, suits: impl Fn(Holder) -> bool) {
        if self.openings.is_empty() {
            return;
        }
        let mut asked = vec![0; self.targets.len()];
        let mut above = Vec::new();
        for member in 0..narrow(self.targets.len()) {
            let mut excess = -self.room(member);
            if let Some(Way::Primaries(share)) = ways.last() {
                excess = excess.min(i64::from(self.primaries[member as usize]) - share);
            }
            if excess > 0 {
                let excess = u32::try_from(excess).unwrap_or(u32::MAX);
                asked[member as usize] = ask(excess).min(self.load(member as usize));
                above.push(member);
            }
        }
        if above.is_empty() {
            return;
        }
        self.turn += 1;
        if self.draft.has_lists() {
            // About one in three suits.
            let most = |member: &u32| match asked[*member as usize] {
                asked if asked == self.load(*member as usize) => u32::MAX,
                asked => asked.saturating_mul(4),
            };
            let above: Vec<(u32, u32)> =
                above.iter().map(|member| (*member, most(member))).collect();
            for way in ways {
                self.give_listed(above.clone(), *way, &suits);
            }
            return;
        }
        let places = self.offer(asked, ways, suits);
        for way in ways.get(1..).unwrap_or_default() {
            for (item, at) in &places {
                self.give_place(*item as usize, *at as usize, *way);
            }
        }
    }

    /// Lets members give of their lists, in one way.
    fn give_listed(&mut self, above: Vec<(u32, u32)>, way: Way, suits: impl Fn(Holder) -> bool) {
        let gives = |fill: &Self, member: u32| fill.gives(member, way);
        let suits = |_: &Self, row: &[Holder], member: u32| {
            row.iter().any(|holder| (holder.member() == member) & suits(*holder))
        };
        self.in_turns(above, Order::Spread, gives, suits, |fill, item, member| {
            let mut row = fill.draft.of(item).iter();
            if let Some(at) = row.position(|holder| holder.member() == member) {
                fill.give_place(item, at, way);
            }
        });
    }

    /// Lets members do something with items of theirs that suit, each with a few at a time for as long as it
    /// `gives`, and asked for no more than so many. Of all members at once the lists are read first, then
    /// the rows, so that the memory is asked for the next while it looks for one.
    fn in_turns(
        &mut self,
        mut members: Vec<(u32, u32)>,
        order: Order,
        gives: impl Fn(&Self, u32) -> bool,
        suits: impl Fn(&Self, &[Holder], u32) -> bool,
        mut act: impl FnMut(&mut Self, usize, u32),
    ) {
        let mut read: Vec<(u32, u32)> = Vec::new();
        let mut begin = 0;
        loop {
            members.retain(|(member, asked)| {
                let most = self.draft.lists().len(*member).min(*asked as usize);
                begin < most && gives(self, *member)
            });
            if members.is_empty() || self.openings.is_empty() {
                return;
            }
            read.clear();
            for (member, _) in &members {
                let lists = self.draft.lists();
                let len = lists.len(*member);
                let start = match order {
                    Order::Newest => len,
                    Order::Spread => spread(self.turn << 32 ^ u64::from(*member), len),
                };
                for at in begin..len.min(begin + EACH) {
                    let at = if at < start { start - 1 - at } else { start + len - 1 - at };
                    read.push((lists.get(*member, at), *member));
                }
            }
            read.retain(|(item, member)| suits(self, self.draft.of(*item as usize), *member));
            for (item, member) in &read {
                if gives(self, *member) {
                    act(self, *item as usize, *member);
                }
            }
            begin += EACH;
        }
    }

    /// Offers replicas that suit: of each member as many as are asked for, and of an item one, or several if
    /// they may go anywhere. What is offered is given in the first way at once, if it can be, until nobody
    /// gives anything more. Returns what was offered, as items and places in their rows, if there are other
    /// ways.
    ///
    /// One reading of the rows, from a place that depends on the world and on the turn, so that it is not
    /// always the same items that move.
    fn offer(
        &mut self,
        mut asked: Vec<u32>,
        ways: &[Way],
        suits: impl Fn(Holder) -> bool,
    ) -> Vec<(u32, u32)> {
        let Some((way, others)) = ways.split_first() else { return Vec::new() };
        let (all, alone) = (ways.contains(&Way::Any), others.is_empty());
        let mut left = asked.iter().filter(|asked| **asked > 0).count();
        let len = self.draft.len();
        let seed = (asked.len() as u64) << 32 ^ len as u64;
        let start = spread(seed.wrapping_add(self.turn), len);
        let mut offered = Vec::new();
        // A place may be vacant.
        let suits = |asked: &[u32], holder: Holder| {
            asked.get(holder.member() as usize).is_some_and(|asked| *asked > 0) & suits(holder)
        };
        let mut found = [0; BLOCK];
        let blocks = |from: usize, end: usize| {
            (from..end).step_by(BLOCK).map(move |at| at..end.min(at + BLOCK))
        };
        for block in blocks(start, len).chain(blocks(0, start)) {
            if left == 0 {
                break;
            }
            // What suits now, and when its turn comes still may.
            let any = |row: &[Holder]| row.iter().fold(false, |any, one| any | suits(&asked, *one));
            let end = self.draft.pick(block, any, &mut found);
            for item in &found[..end] {
                if left == 0 {
                    break;
                }
                let item = *item as usize;
                'places: for start in (0..self.draft.of(item).len()).step_by(64) {
                    let row = &self.draft.of(item)[start..];
                    let mut places = places(row, |holder| suits(&asked, holder));
                    while places != 0 {
                        let at = start + places.trailing_zeros() as usize;
                        places &= places - 1;
                        let member = self.draft.of(item)[at].member();
                        let asked = &mut asked[member as usize];
                        *asked -= 1;
                        self.give_place(item, at, *way);
                        if alone {
                            *asked *= u32::from(self.gives(member, *way));
                        } else {
                            offered.push((narrow(item), narrow(at)));
                        }
                        left -= usize::from(*asked == 0);
                        if !all {
                            break 'places;
                        }
                    }
                }
            }
        }
        offered
    }

    /// Whether a member has too much, and may give it in this way.
    fn gives(&self, member: u32, way: Way) -> bool {
        let excess = -self.room(member);
        let primaries = i64::from(self.primaries[member as usize]);
        excess > 0
            && match way {
                Way::Primaries(share) => primaries > share,
                Way::Others(share) => excess > primaries - share,
                Way::Raw | Way::Planned | Way::Any => true,
            }
    }

    fn give_place(&mut self, item: usize, at: usize, way: Way) {
        let row = self.draft.of(item);
        let holder = row[at];
        if holder == VACANT || !self.gives(holder.member(), way) {
            return;
        }
        let suits = match way {
            Way::Raw => !holder.is_consistent(),
            Way::Primaries(_) => holder.is_primary(),
            Way::Others(_) => !holder.is_primary(),
            Way::Planned | Way::Any => true,
        };
        // Where there is a choice, an item does not give two replicas at once.
        if suits && (matches!(way, Way::Planned | Way::Any) || !self.is_moving(item)) {
            self.pass_on(item, at, way == Way::Any);
        }
    }

    /// Gives a place of an item to somebody who lacks something. Returns who that is.
    fn pass_on(&mut self, item: usize, at: usize, any: bool) -> Option<u32> {
        let row = self.draft.of(item);
        let holder = row[at];
        let (class, from) = (self.class(item), self.zone(holder.member()));
        let taker = self.openings.taker(class, row, from, any)?;
        self.leave(holder);
        let (held, row) = self.draft.both(item);
        place(held, row, at, taker, &mut self.primaries);
        if holder.is_primary() {
            self.crown.choose(row, &mut self.primaries);
        }
        self.draft.came(item, taker);
        self.touched.push(narrow(item));
        Some(taker)
    }

    /// Where one who has too much gives an item whose primary has too many of those, whoever comes becomes
    /// the primary: one hand-off, where else two members would hand one on. Only from lists, because it
    /// looks at many items: those first that came last to who has too much, as what was lost once may
    /// have brought them both.
    fn give_beside(&mut self, share: &Share) {
        if !self.draft.has_lists() {
            return;
        }
        let over =
            |fill: &Self, member: u32| i64::from(fill.primaries[member as usize]) > share.high;
        let above = |fill: &Self, member: u32| fill.room(member) < 0;
        let all = || 0..narrow(self.targets.len());
        let crowned: Vec<u32> = all().filter(|member| over(self, *member)).collect();
        if crowned.is_empty() {
            return;
        }
        let above_now: Vec<u32> = all().filter(|member| above(self, *member)).collect();
        let suits = |fill: &Self, row: &[Holder], _: u32| fill.giver_beside(row, over).is_some();
        let give = |fill: &mut Self, item: usize, _: u32| fill.give_crown(item, over);
        let asked = |members: &[u32], asked: u32| {
            members.iter().map(|member| (*member, asked)).collect::<Vec<(u32, u32)>>()
        };
        self.in_turns(asked(&above_now, narrow(EACH)), Order::Newest, above, suits, give);
        // All such items are with the ones and with the others.
        let items = |members: &[u32]| -> u64 {
            members.iter().map(|member| u64::from(self.load(*member as usize))).sum()
        };
        if items(&crowned) <= items(&above_now) {
            self.in_turns(asked(&crowned, u32::MAX), Order::Newest, over, suits, give);
        } else {
            self.in_turns(asked(&above_now, u32::MAX), Order::Newest, above, suits, give);
        }
    }

    /// The place of an item's primary, if that is `over`, and of somebody else who has too much.
    fn giver_beside(
        &self,
        row: &[Holder],
        over: impl Fn(&Self, u32) -> bool,
    ) -> Option<(usize, usize)> {
        let places = || row.iter().enumerate().filter(|(_, holder)| **holder != VACANT);
        let is_it = |holder: &Holder| holder.is_primary() && over(self, holder.member());
        let above = |holder: &Holder| !holder.is_primary() && self.room(holder.member()) < 0;
        let (crowned, _) = places().find(|(_, holder)| is_it(holder))?;
        let (giver, _) = places().find(|(_, holder)| above(holder))?;
        Some((crowned, giver))
    }

    /// Gives a place of an item together with its primary.
    fn give_crown(&mut self, item: usize, over: impl Fn(&Self, u32) -> bool) {
        let beside = self.giver_beside(self.draft.of(item), over);
        let Some((crowned, giver)) = beside.filter(|_| !self.is_moving(item)) else { return };
        let Some(taker) = self.pass_on(item, giver, false) else { return };
        if self.crown.likes(taker) {
            let row = self.draft.of_mut(item);
            self.primaries[row[crowned].member() as usize] -= 1;
            self.primaries[taker as usize] += 1;
            (row[crowned], row[giver]) = (row[crowned].replica(), row[giver].primary());
        }
    }

    /// Whether somebody comes to an item who does not hold it yet.
    fn is_moving(&self, item: usize) -> bool {
        let (held, row) = (self.draft.held(item), self.draft.of(item));
        let comes = |holder: &Holder| *holder == VACANT || !holds(held, holder.member());
        !stays(row, held) && row.iter().any(comes)
    }
}
