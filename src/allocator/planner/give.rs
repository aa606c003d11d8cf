//! Who has too much gives it to who lacks something.
//!
//! First with as few items as seem to be enough, each of which gives a single replica, then with all.
//! What is not consistent goes before all else, and then primaries go to those who will want some, so
//! that few have to be handed over afterwards.

use super::{
    bits::Bits,
    by_member::ByMember,
    crown::Crown,
    draft::Draft,
    fill::{Fill, VACANT, place},
    holder::{Holder, first, holds, stays},
    kinds::narrow,
    openings::Openings,
    share::Share,
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

impl<'a, D: Draft> Fill<'a, D> {
    /// Step 4 of [`fill`](super::fill::fill).
    pub(super) fn give(&mut self) {
        if self.openings.room.iter().all(|room| *room >= 0) {
            return;
        }
        self.moving = Bits::none(self.draft.len());
        for item in &self.touched {
            let item = *item as usize;
            if is_moving(self.draft.held(item), self.draft.of(item)) {
                self.moving.add(item);
            }
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
        let asked = ByMember::new(asked.into_iter(), 0);
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
        asked: ByMember<u32>,
        ways: &[Way],
        suits: impl Fn(Holder) -> bool,
    ) -> Vec<(u32, u32)> {
        let Some((way, others)) = ways.split_first() else { return Vec::new() };
        let left = asked.iter().filter(|asked| **asked > 0).count();
        let len = self.draft.len();
        let seed = (asked.len() as u64) << 32 ^ len as u64;
        let start = spread(seed.wrapping_add(self.turn), len);
        let (problem, fair) = (self.problem, self.fair);
        let class = |item: usize| fair.classes.of(problem, item);
        let (draft, giving) = self.giving();
        let mut offer = Offer {
            giving,
            asked,
            left,
            way: *way,
            alone: others.is_empty(),
            all: ways.contains(&Way::Any),
            suits,
            offered: Vec::new(),
            taken: Vec::new(),
        };
        let mut found = [0; BLOCK];
        let blocks = |from: usize, end: usize| {
            (from..end).step_by(BLOCK).map(move |at| at..end.min(at + BLOCK))
        };
        for block in blocks(start, len).chain(blocks(0, start)) {
            if offer.left == 0 {
                break;
            }
            // What suits now, and when its turn comes still may.
            let asked = offer.asked.read();
            let suits = |holder: Holder| (asked.of(holder) > 0) & (offer.suits)(holder);
            let any = |row: &[Holder]| row.iter().fold(false, |any, one| any | suits(*one));
            let end = draft.pick(block, any, &mut found);
            let items = found[..end].iter().map(|item| *item as usize);
            // Of rows of three, as most are, the compiler is to know that.
            if let Some((held, rows)) = draft.threes_mut() {
                for item in items {
                    offer.give(item, class(item), &held[item], &mut rows[item]);
                }
            } else {
                for item in items {
                    let (held, row) = draft.both(item);
                    offer.give(item, class(item), held, row);
                }
            }
        }
        let Offer { offered, taken, .. } = offer;
        for (item, taker) in &taken {
            draft.came(*item as usize, *taker);
        }
        self.touched.extend(taken.into_iter().map(|(item, _)| item));
        offered
    }

    /// The draft, and what giving takes beside it.
    fn giving(&mut self) -> (&mut D, Giving<'_, 'a>) {
        let Self { draft, openings, crown, primaries, moving, given_up, .. } = self;
        (draft, Giving { openings, crown, primaries, moving, given_up: *given_up })
    }

    /// Whether a member has too much, and may give it in this way.
    fn gives(&self, member: u32, way: Way) -> bool {
        way.gives(&self.openings.room, &self.primaries, member)
    }

    /// Gives a place of an item in this way, if it can be.
    fn give_place(&mut self, item: usize, at: usize, way: Way) {
        let (draft, giving) = self.giving();
        if giving.may(item, draft.of(item)[at], way) {
            self.pass_on(item, at, way == Way::Any);
        }
    }

    /// Gives a place of an item to somebody who lacks something. Returns who that is.
    fn pass_on(&mut self, item: usize, at: usize, any: bool) -> Option<u32> {
        let class = self.class(item);
        let (draft, mut giving) = self.giving();
        let taker = giving.taker(class, draft.of(item), at, any)?;
        // A draft keeps in mind whose rows it gave out to be changed.
        let (held, row) = draft.both(item);
        giving.hand(item, held, row, at, taker);
        draft.came(item, taker);
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
        let Some((crowned, giver)) = beside.filter(|_| !self.moving.has(item)) else { return };
        let Some(taker) = self.pass_on(item, giver, false) else { return };
        if self.crown.likes(taker) {
            let row = self.draft.of_mut(item);
            self.primaries[row[crowned].member() as usize] -= 1;
            self.primaries[taker as usize] += 1;
            (row[crowned], row[giver]) = (row[crowned].replica(), row[giver].primary());
        }
    }
}

impl Way {
    /// Whether a member has too much, and may give it so.
    #[inline]
    fn gives(self, room: &[i64], primaries: &[u32], member: u32) -> bool {
        let excess = -room[member as usize];
        let primaries = i64::from(primaries[member as usize]);
        excess > 0
            && match self {
                Self::Primaries(share) => primaries > share,
                Self::Others(share) => excess > primaries - share,
                Self::Raw | Self::Planned | Self::Any => true,
            }
    }

    /// Whether a replica may be given so.
    #[inline]
    fn suits(self, holder: Holder) -> bool {
        match self {
            Self::Raw => !holder.is_consistent(),
            Self::Primaries(_) => holder.is_primary(),
            Self::Others(_) => !holder.is_primary(),
            Self::Planned | Self::Any => true,
        }
    }
}

/// What is offered of the items that are looked at, one after the other.
struct Offer<'g, 'o, F> {
    giving: Giving<'g, 'o>,
    /// By member, how many replicas are asked for yet.
    asked: ByMember<u32>,
    /// How many members are asked for any.
    left: usize,
    way: Way,
    /// Whether there is no other way.
    alone: bool,
    /// Whether an item may give several.
    all: bool,
    suits: F,
    /// What was offered, as items and places in their rows, if there are other ways.
    offered: Vec<(u32, u32)>,
    /// The items that were given, and to whom.
    taken: Vec<(u32, u32)>,
}

impl<F: Fn(Holder) -> bool> Offer<'_, '_, F> {
    /// Gives what suits of an item.
    #[inline]
    fn give<R>(&mut self, item: usize, class: usize, held: &R, row: &mut R)
    where
        R: AsRef<[Holder]> + AsMut<[Holder]> + ?Sized,
    {
        let mut from = 0;
        while self.left > 0 {
            let asked = self.asked.read();
            let suits = |holder: Holder| (asked.of(holder) > 0) & (self.suits)(holder);
            let Some(at) = first(row.as_ref(), from, suits) else { return };
            let member = row.as_ref()[at].member();
            if self.giving.may(item, row.as_ref()[at], self.way)
                && let Some(taker) = self.giving.taker(class, row, at, self.way == Way::Any)
            {
                self.giving.hand(item, held, row, at, taker);
                self.taken.push((narrow(item), taker));
            }
            let asked = &mut self.asked[member as usize];
            *asked -= 1;
            if self.alone {
                let Giving { openings, primaries, .. } = &self.giving;
                *asked *= u32::from(self.way.gives(&openings.room, primaries, member));
            } else {
                self.offered.push((narrow(item), narrow(at)));
            }
            self.left -= usize::from(*asked == 0);
            if !self.all {
                return;
            }
            from = at + 1;
        }
    }
}

/// What giving takes.
struct Giving<'g, 'o> {
    openings: &'g mut Openings<'o>,
    crown: &'g Crown,
    primaries: &'g mut [u32],
    moving: &'g mut Bits,
    /// Whether somebody who comes to an item may have given it up before.
    given_up: bool,
}

impl Giving<'_, '_> {
    /// Whether a holder of an item may give it in this way.
    #[inline]
    fn may(&self, item: usize, holder: Holder, way: Way) -> bool {
        // Where there is a choice, an item does not give two replicas at once.
        let may = matches!(way, Way::Planned | Way::Any) || !self.moving.has(item);
        holder != VACANT
            && way.gives(&self.openings.room, self.primaries, holder.member())
            && way.suits(holder)
            && may
    }

    /// Finds somebody who lacks something, for a place of an item of a class, and counts it as taken.
    #[inline]
    fn taker<R>(&mut self, class: usize, row: &R, at: usize, any: bool) -> Option<u32>
    where
        R: AsRef<[Holder]> + ?Sized,
    {
        let from = self.openings.zone(row.as_ref()[at]);
        self.openings.taker(class, row, from, any)
    }

    /// Hands a place of an item to who takes it.
    #[inline]
    fn hand<R>(&mut self, item: usize, held: &R, row: &mut R, at: usize, taker: u32)
    where
        R: AsRef<[Holder]> + AsMut<[Holder]> + ?Sized,
    {
        let holder = row.as_ref()[at];
        self.openings.room[holder.member() as usize] += 1;
        self.primaries[holder.member() as usize] -= u32::from(holder.is_primary());
        // Who held the item is not read where nobody can have left it: of many items that is far away.
        let held = if self.given_up { held.as_ref() } else { &[] };
        place(held, row.as_mut(), at, taker, self.primaries);
        self.moving.set(item, !self.given_up || is_moving(held, row.as_ref()));
        if holder.is_primary() {
            self.crown.choose(row, self.primaries);
        }
    }
}

/// Whether somebody comes to an item who does not hold it yet.
#[inline]
fn is_moving(held: &[Holder], row: &[Holder]) -> bool {
    let comes = |holder: &Holder| *holder == VACANT || !holds(held, holder.member());
    !stays(row, held) && row.iter().any(comes)
}
