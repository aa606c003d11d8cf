//! Primaries at scale: one of each item's holders, evenly, with few hand-offs.
//!
//! Whoever is primary stays it, items without one go to their holder with the fewest, and only then
//! are primaries handed from members that have too many to co-holders that have too few. Where no
//! such pair is left and it is still uneven, they are handed along [routes](super::routes), from one
//! member's item to the next. Members that stay off, and all whom they might hand to, are then a part
//! of their own: nothing that the others do helps them, nor the other way round, and each part is
//! even in itself. So it is as even as the placement allows, by every measure of that.

use std::collections::BTreeSet;

use super::{
    by_member::{ByMember, Table},
    crown::Crown,
    draft::Draft,
    fill::Filled,
    holder::{Holder, holds, primary, said},
    kinds::narrow,
    problem::Problem,
    share::Share,
};

/// Chooses the primaries of what was filled. The items that were touched are asked first, and those
/// that are touched here are added to them.
pub(super) fn elect<D: Draft>(problem: &Problem, filled: &mut Filled<D>) {
    let mut election = Election::new(problem, filled);
    election.fill_empty();
    election.bound();
    let touched = election.filled.touched.len();
    if election.off == (0, 0) || !election.even_as_before() {
        let parts = election.make_even();
        election.take_back(touched, &parts);
        election.keep_parts(&parts);
    }
}

/// Who hands to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Those with too many to those with too few; and where there are more of the ones than of the others,
    /// those to anybody who has room, or from anybody who has one to spare.
    Pairs,
    /// One of the two may always be anybody.
    Any,
}

impl Pass {
    /// Whether it cannot make better who is off: too many, too few.
    pub(super) fn is_done(self, (over, under): (i64, i64), share: Share) -> bool {
        // Where the share is exact, whoever has room or some to spare is off.
        over == 0 && under == 0 || self == Self::Any && share.low == share.high
    }

    /// Between whom something is handed over.
    fn wants(self, (over, under): (i64, i64), members: usize) -> Wants {
        let (room, spares) = (self == Self::Any || over > under, self == Self::Any || under > over);
        Wants {
            few: (over + under).unsigned_abs() < (members / 16) as u64,
            room,
            from_over: Mark::UNDER | if room { Mark::ROOM } else { 0 },
            to_under: Mark::OVER | if spares { Mark::SPARES } else { 0 },
        }
    }
}

/// Who may take from those who have too many, and from whom those with too few may take.
#[derive(Clone, Copy)]
struct Wants {
    /// Whether few are off: then nobody of most rows is, and that is guessed well.
    few: bool,
    /// Whether that is anybody who has room.
    room: bool,
    from_over: u8,
    to_under: u8,
}

impl Wants {
    /// Whether the primary of a row may be one that is to be handed over.
    #[inline]
    fn are_in(self, row: &[Holder], marks: Table<'_, u8>) -> bool {
        if self.few && nobody_is_off(row, marks) {
            return false;
        }
        let (all, giver) = said(row, |holder| marks.of(holder));
        let over = (giver & Mark::OVER).min(1) & (all & self.from_over).min(1);
        let under = (giver & self.to_under).min(1) & (all & Mark::UNDER).min(1);
        over | under != 0
    }
}

/// Whether nobody who holds an item has too many primaries or too few.
#[inline]
fn nobody_is_off(row: &[Holder], marks: Table<'_, u8>) -> bool {
    let all = row.iter().fold(0, |all, holder| all | marks.of(*holder));
    all & (Mark::OVER | Mark::UNDER) == 0
}

/// Which end of a route is looked for: members with too many, or with too few.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Over,
    Under,
}

/// Where the even share leaves a member: it has too many primaries, one to spare at least, too few, or room
/// for one at least.
pub(super) struct Mark;

impl Mark {
    pub(super) const OVER: u8 = 1;
    pub(super) const SPARES: u8 = 2;
    pub(super) const UNDER: u8 = 4;
    pub(super) const ROOM: u8 = 8;
}

pub(super) struct Election<'a, D> {
    pub(super) filled: &'a mut Filled<D>,
    pub(super) crown: Crown,
    /// The most that each member can be primary of.
    pub(super) most: Vec<i64>,
    /// The even share of the part at hand.
    pub(super) share: Share,
    /// By member, the [`Mark`]s of where that leaves it.
    pub(super) marks: ByMember<u8>,
    /// Primaries beyond what is even: too many, too few.
    pub(super) off: (i64, i64),
    /// Items that nobody who takes primaries holds, and that had none.
    stuck: BTreeSet<u32>,
    /// By member, the part that is even in itself.
    pub(super) part: Vec<u32>,
    pub(super) end: End,
    /// How many replicas there are.
    pub(super) replicas: usize,
    /// How many items are looked at before what is uneven is left so.
    pub(super) patience: usize,
}

impl<'a, D: Draft> Election<'a, D> {
    fn new(problem: &Problem, filled: &'a mut Filled<D>) -> Self {
        let most = filled.loads.iter().map(|load| i64::from(*load)).collect();
        Self::with(Crown::new(problem), most, filled)
    }

    /// The same, where it is known how many primaries each member can have at most.
    pub(super) fn with(crown: Crown, most: Vec<i64>, filled: &'a mut Filled<D>) -> Self {
        let replicas: usize = filled.loads.iter().map(|load| *load as usize).sum();
        Self {
            crown,
            most,
            share: Share::default(),
            marks: ByMember::new(std::iter::repeat_n(0, filled.loads.len()), 0),
            off: (0, 0),
            stuck: BTreeSet::new(),
            part: vec![0; filled.loads.len()],
            end: End::Over,
            replicas,
            patience: 100_000 + 64 * replicas,
            filled,
        }
    }

    /// Makes it as even as it can be, whatever was before. Returns the parts, in order.
    fn make_even(&mut self) -> Vec<Vec<u32>> {
        let touched = self.filled.touched.len();
        self.hand_touched(touched, Pass::Pairs);
        if self.few_are_off() {
            self.hand_any();
        } else {
            self.hand_touched(touched, Pass::Any);
        }
        if self.off == (0, 0) { Vec::new() } else { self.even_out() }
    }

    /// Gives primaries that were handed on back to whom they were of, where that changes places of the two only:
    /// who has one more gives it to who has one fewer, of the same part. `touched` were so many items before any
    /// was handed on.
    fn take_back(&mut self, touched: usize, parts: &[Vec<u32>]) {
        let mut part = vec![0; self.most.len()];
        for (number, members) in (0..).zip(parts) {
            for member in members {
                part[*member as usize] = number;
            }
        }
        let mut items = self.filled.touched[touched..].to_vec();
        let mut helped = true;
        while helped {
            helped = false;
            items.retain(|number| {
                let item = *number as usize;
                let ends = primary(self.filled.draft.held(item)).zip(primary(self.holders(item)));
                let Some((was, is)) = ends.map(|(was, is)| (was.member(), is.member())) else {
                    return false;
                };
                let may = part[was as usize] == part[is as usize] && self.may(item, was);
                if was == is || !may || !holds(self.holders(item), was) {
                    return false;
                }
                let back = self.primaries(is) > self.primaries(was);
                if back {
                    self.move_primary(item, is, was);
                    helped = true;
                }
                !back
            });
        }
    }

    pub(super) fn primaries(&self, member: u32) -> i64 {
        i64::from(self.filled.primaries[member as usize])
    }

    pub(super) fn holders(&self, item: usize) -> &[Holder] {
        self.filled.draft.of(item)
    }

    /// Whether a member may become the primary of an item that it holds.
    pub(super) fn may(&self, item: usize, member: u32) -> bool {
        self.crown.likes(member) || self.stuck.contains(&narrow(item))
    }

    /// Gives a primary to the items that have none yet: those that were touched, and if those are not
    /// all, whichever they are.
    fn fill_empty(&mut self) {
        let elected = |election: &Self| -> u64 {
            election.filled.primaries.iter().map(|primaries| u64::from(*primaries)).sum()
        };
        if elected(self) < self.filled.held {
            for at in 0..self.filled.touched.len() {
                self.fill_item(self.filled.touched[at] as usize);
            }
        }
        if elected(self) < self.filled.held {
            for item in 0..self.filled.draft.len() {
                if self.fill_item(item) {
                    self.filled.touched.push(narrow(item));
                }
            }
        }
    }

    /// Whether the item had no primary, and has one now.
    fn fill_item(&mut self, item: usize) -> bool {
        if primary(self.holders(item)).is_some() {
            return false;
        }
        let row = self.filled.draft.of_mut(item);
        self.crown.choose(row, &mut self.filled.primaries);
        primary(row).is_some()
    }

    /// Finds the even share: everybody has so many, or as many as they can.
    fn bound(&mut self) {
        if !self.crown.is_easy() {
            self.find_stuck();
            for member in 0..narrow(self.most.len()) {
                if !self.crown.likes(member) {
                    self.most[member as usize] = self.primaries(member);
                }
            }
            for item in &self.stuck {
                for holder in self.filled.draft.of(*item as usize) {
                    self.most[holder.member() as usize] += i64::from(!holder.is_primary());
                }
            }
        }
        self.weigh();
    }

    /// Finds where the even share of all leaves everybody.
    pub(super) fn weigh(&mut self) {
        let held = usize::try_from(self.filled.held).unwrap_or(usize::MAX);
        self.off = (0, 0);
        self.part.fill(0);
        self.share = Share::of(&self.most, held);
        let marks = (0..narrow(self.most.len())).map(|member| self.mark(member));
        self.marks = ByMember::new(marks, 0);
        for member in 0..narrow(self.most.len()) {
            self.off.0 += self.over(member);
            self.off.1 += self.under(member);
        }
    }

    /// Finds the items whose primary takes none otherwise, and was not theirs before; where somebody
    /// else is there now, that one becomes it.
    fn find_stuck(&mut self) {
        for at in 0..self.filled.touched.len() {
            let item = self.filled.touched[at] as usize;
            let (held, row) = self.filled.draft.both(item);
            let Some(primary) = row.iter_mut().find(|holder| holder.is_primary()) else { continue };
            let member = primary.member();
            let was = held.iter().any(|held| held.is_primary() && held.member() == member);
            if was || self.crown.likes(member) {
                continue;
            }
            *primary = primary.replica();
            self.filled.primaries[member as usize] -= 1;
            self.crown.choose(row, &mut self.filled.primaries);
            let chosen = super::holder::primary(row);
            if chosen.is_some_and(|chosen| !self.crown.likes(chosen.member())) {
                self.stuck.insert(narrow(item));
            }
        }
    }

    pub(super) fn over(&self, member: u32) -> i64 {
        (self.primaries(member) - self.share.high.min(self.most[member as usize])).max(0)
    }

    pub(super) fn under(&self, member: u32) -> i64 {
        (self.share.low.min(self.most[member as usize]) - self.primaries(member)).max(0)
    }

    pub(super) fn has_room(&self, member: u32) -> bool {
        self.primaries(member) < self.share.high.min(self.most[member as usize])
    }

    pub(super) fn mark(&self, member: u32) -> u8 {
        let mark = |is: bool, mark: u8| if is { mark } else { 0 };
        mark(self.over(member) > 0, Mark::OVER)
            | mark(self.primaries(member) > self.share.low, Mark::SPARES)
            | mark(self.under(member) > 0, Mark::UNDER)
            | mark(self.has_room(member), Mark::ROOM)
    }

    /// Hands over the primaries of the first so many items that were touched where that makes it more even,
    /// until that cannot make it better.
    pub(super) fn hand_touched(&mut self, touched: usize, pass: Pass) {
        let mut from = 0;
        while !pass.is_done(self.off, self.share) {
            let wants = pass.wants(self.off, self.most.len());
            let (filled, marks) = (&*self.filled, self.marks.read());
            let items = &filled.touched[from..touched];
            let found = if let Some((_, rows)) = filled.draft.threes() {
                items.iter().position(|item| wants.are_in(&rows[*item as usize], marks))
            } else {
                let row = |item: &u32| filled.draft.of(*item as usize);
                items.iter().position(|item| wants.are_in(row(item), marks))
            };
            let Some(found) = found else { return };
            self.hand_over(items[found] as usize, wants.room);
            from += found + 1;
        }
    }

    /// The same for all items from one on and before another one, until that cannot make it better.
    pub(super) fn hand_all(&mut self, mut from: usize, end: usize, pass: Pass) {
        while !pass.is_done(self.off, self.share) {
            let wants = pass.wants(self.off, self.most.len());
            let (draft, marks) = (&self.filled.draft, self.marks.read());
            let Some(item) = draft.find(from, end, |row| wants.are_in(row, marks)) else { return };
            self.hand_over(item, wants.room);
            from = item + 1;
        }
    }

    fn hand_over(&mut self, item: usize, room: bool) {
        let holders = self.holders(item);
        let Some(giver) = primary(holders).map(Holder::member) else { return };
        let too_many = self.over(giver) > 0;
        let suits = |holder: &&Holder| {
            let member = holder.member();
            let too_few = self.under(member) > 0;
            member != giver
                && (too_few || room && too_many && self.has_room(member))
                && self.is_near(member, giver)
                && self.may(item, member)
        };
        let rank = |holder: &&Holder| (self.primaries(holder.member()), !holder.is_consistent());
        if let Some(taker) = holders.iter().filter(suits).min_by_key(rank) {
            self.move_primary(item, giver, taker.member());
        }
    }

    /// Whether few are off, and it is not known which items they have.
    fn few_are_off(&self) -> bool {
        let replicas = |(mark, load): (&u8, &u32)| {
            if mark & (Mark::OVER | Mark::UNDER) == 0 { 0 } else { *load as usize }
        };
        let off: usize = self.marks.iter().zip(&self.filled.loads).map(replicas).sum();
        8 * off <= self.replicas && !self.filled.draft.has_lists()
    }

    /// Asks other items than those that were touched, because of few who are off those have most. Who can
    /// be helped so is helped by a part of them.
    fn hand_any(&mut self) {
        self.hand_all(0, self.filled.draft.len() / 8, Pass::Any);
    }

    pub(super) fn move_primary(&mut self, item: usize, giver: u32, taker: u32) {
        for member in [giver, taker] {
            self.off.0 -= self.over(member);
            self.off.1 -= self.under(member);
        }
        self.filled.primaries[giver as usize] -= 1;
        self.filled.primaries[taker as usize] += 1;
        for member in [giver, taker] {
            self.off.0 += self.over(member);
            self.off.1 += self.under(member);
            self.marks[member as usize] = self.mark(member);
        }
        for holder in self.filled.draft.of_mut(item) {
            let is_it = holder.member() == taker;
            *holder = if is_it { holder.primary() } else { holder.replica() };
        }
        self.filled.touched.push(narrow(item));
    }

    /// Who is the primary of an item that a member holds, and may hand it to that member.
    pub(super) fn giver(&self, item: u32, member: u32) -> Option<u32> {
        let holders = self.holders(item as usize);
        let primary = primary(holders)?.member();
        let may = holds(holders, member) && self.may(item as usize, member);
        (may && primary != member && self.is_near(primary, member)).then_some(primary)
    }

    /// Whether two members are of the same part.
    pub(super) fn is_near(&self, one: u32, other: u32) -> bool {
        self.part[one as usize] == self.part[other as usize]
    }
}
