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
    crown::Crown,
    draft::Draft,
    fill::Filled,
    kinds::narrow,
    level::Share,
    links::Links,
    problem::{Holder, Problem, holds, primary, unrolled},
    routes::{Passing, route},
};

/// Chooses the primaries of what was filled. The items that were touched are asked first, and those
/// that are touched here are added to them.
pub(super) fn elect<D: Draft>(problem: &Problem, filled: &mut Filled<D>) {
    let mut election = Election::new(problem, filled);
    election.fill_empty();
    election.bound();
    let touched = election.filled.touched.len();
    for pass in [Pass::Pairs, Pass::Any] {
        if pass == Pass::Any && election.few_are_off() {
            election.hand_any();
        }
        for at in 0..touched {
            if pass.is_done(election.off, election.share) {
                break;
            }
            election.hand(election.filled.touched[at] as usize, pass);
        }
    }
    if election.off != (0, 0) {
        election.even_out();
    }
}

/// Who hands to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Those with too many to those with too few; and where there are more of the ones than of the others,
    /// those to anybody who has room, or from anybody who has one to spare.
    Pairs,
    /// One of the two may always be anybody.
    Any,
}

impl Pass {
    /// Whether it cannot make better who is off: too many, too few.
    fn is_done(self, (over, under): (i64, i64), share: Share) -> bool {
        // Where the share is exact, whoever has room or some to spare is off.
        over == 0 && under == 0 || self == Self::Any && share.low == share.high
    }

    /// Whether anybody may take from those who have too many, and whether those with too few may take
    /// from anybody.
    fn opens(self, (over, under): (i64, i64)) -> (bool, bool) {
        (self == Self::Any || over > under, self == Self::Any || under > over)
    }
}

/// Which end of a route is looked for: members with too many, or with too few.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Over,
    Under,
}

/// Where the even share leaves a member: it has too many primaries, one to spare at least, too few, or room
/// for one at least.
struct Mark;

impl Mark {
    const OVER: u8 = 1;
    const SPARES: u8 = 2;
    const UNDER: u8 = 4;
    const ROOM: u8 = 8;
}

struct Election<'a, D> {
    filled: &'a mut Filled<D>,
    crown: Crown,
    /// The most that each member can be primary of.
    most: Vec<i64>,
    /// The even share of the part at hand.
    share: Share,
    /// By member, the [`Mark`]s of where that leaves it.
    marks: Vec<u8>,
    /// Primaries beyond what is even: too many, too few.
    off: (i64, i64),
    /// Items that nobody who takes primaries holds, and that had none.
    stuck: BTreeSet<u32>,
    /// By member, the part that is even in itself.
    part: Vec<u32>,
    end: End,
    /// How many replicas there are.
    replicas: usize,
    /// How many items are looked at before what is uneven is left so.
    patience: usize,
}

impl<'a, D: Draft> Election<'a, D> {
    fn new(problem: &'a Problem, filled: &'a mut Filled<D>) -> Self {
        let most = filled.loads.iter().map(|load| i64::from(*load)).collect();
        let replicas: usize = filled.loads.iter().map(|load| *load as usize).sum();
        Self {
            crown: Crown::new(problem),
            most,
            share: Share::default(),
            marks: Vec::new(),
            off: (0, 0),
            stuck: BTreeSet::new(),
            part: vec![0; filled.loads.len()],
            end: End::Over,
            replicas,
            patience: 100_000 + 64 * replicas,
            filled,
        }
    }

    fn primaries(&self, member: u32) -> i64 {
        i64::from(self.filled.primaries[member as usize])
    }

    fn holders(&self, item: usize) -> &[Holder] {
        self.filled.draft.of(item)
    }

    /// Whether a member may become the primary of an item that it holds.
    fn may(&self, item: usize, member: u32) -> bool {
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
        let held = usize::try_from(self.filled.held).unwrap_or(usize::MAX);
        self.share = Share::of(&self.most, held);
        self.marks = (0..narrow(self.most.len())).map(|member| self.mark(member)).collect();
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
            let chosen = super::problem::primary(row);
            if chosen.is_some_and(|chosen| !self.crown.likes(chosen.member())) {
                self.stuck.insert(narrow(item));
            }
        }
    }

    fn over(&self, member: u32) -> i64 {
        (self.primaries(member) - self.share.high.min(self.most[member as usize])).max(0)
    }

    fn under(&self, member: u32) -> i64 {
        (self.share.low.min(self.most[member as usize]) - self.primaries(member)).max(0)
    }

    fn has_room(&self, member: u32) -> bool {
        self.primaries(member) < self.share.high.min(self.most[member as usize])
    }

    fn mark(&self, member: u32) -> u8 {
        let mark = |is: bool, mark: u8| if is { mark } else { 0 };
        mark(self.over(member) > 0, Mark::OVER)
            | mark(self.primaries(member) > self.share.low, Mark::SPARES)
            | mark(self.under(member) > 0, Mark::UNDER)
            | mark(self.has_room(member), Mark::ROOM)
    }

    /// Hands over the primary of `item`, if that makes it more even.
    #[inline]
    fn hand(&mut self, item: usize, pass: Pass) {
        // Without a branch, because nobody can guess whose it is: mostly that is all.
        let marks = &self.marks;
        let (most, all) = unrolled(self.filled.draft.of(item), |row| {
            row.iter().fold((Holder::new(0), 0), |(most, all), holder| {
                (most.max(*holder), all | marks[holder.member() as usize])
            })
        });
        let giver = marks[most.member() as usize];
        let (room, spares) = pass.opens(self.off);
        let from_over = if room { Mark::UNDER | Mark::ROOM } else { Mark::UNDER };
        let to_under = if spares { Mark::OVER | Mark::SPARES } else { Mark::OVER };
        if giver & Mark::OVER != 0 && all & from_over != 0
            || giver & to_under != 0 && all & Mark::UNDER != 0
        {
            self.hand_over(item, room);
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
        for item in 0..self.filled.draft.len() / 8 {
            if Pass::Any.is_done(self.off, self.share) {
                return;
            }
            self.hand(item, Pass::Any);
        }
    }

    fn move_primary(&mut self, item: usize, giver: u32, taker: u32) {
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

    /// The items of a list with their primaries. They are read at once, so that the memory is asked for the
    /// next while it looks for one.
    fn crowned(&self, items: &[u32]) -> Vec<(u32, Option<u32>)> {
        let crowned = |item| primary(self.holders(item as usize)).map(Holder::member);
        items.iter().map(|item| (*item, crowned(*item))).collect()
    }

    /// Hands primaries from members with too many to members with too few, directly or by way of one or
    /// two that are even: those near the ones are looked up, and met from the others.
    fn meet(&mut self) {
        let all = || 0..narrow(self.most.len());
        let over: Vec<u32> = all().filter(|member| self.over(*member) > 0).collect();
        let under: Vec<u32> = all().filter(|member| self.under(*member) > 0).collect();
        let items = |members: &[u32]| -> usize {
            members.iter().map(|member| self.filled.loads[*member as usize] as usize).sum()
        };
        if over.is_empty() || under.is_empty() || 8 * (items(&over) + items(&under)) > self.replicas
        {
            return;
        }
        self.filled.draft.prepare(Some(&[&over[..], &under].concat()));
        let mut links = Links::new(self.most.len());
        for member in under {
            for items in self.filled.draft.items_of(member).chunks(AT_ONCE) {
                for (item, from) in self.crowned(items) {
                    let Some(from) = from.filter(|from| *from != member) else { continue };
                    if self.under(member) == 0 || self.over(from) == 0 {
                        links.push(from, item, member);
                    } else if self.giver(item, member) == Some(from) {
                        self.move_primary(item as usize, from, member);
                    }
                }
                if self.under(member) == 0 {
                    break;
                }
            }
        }
        // First by way of one, then by way of two, as long as that helps.
        for steps in [0, 1] {
            let mut helped = false;
            for (tried, member) in over.iter().enumerate() {
                let over = self.over(*member);
                let handed = self.hand_on((*member, *member), over, steps, &mut links);
                helped |= handed > 0;
                if handed < over && (steps > 0 || tried == A_FEW && !helped) {
                    return;
                }
            }
        }
    }

    /// Hands up to so many primaries of a member on, not to `before`, by way of somebody who has a link,
    /// or after so many more steps. Returns how many.
    fn hand_on(
        &mut self,
        (before, giver): (u32, u32),
        most: i64,
        steps: u32,
        links: &mut Links,
    ) -> i64 {
        let mut handed = 0;
        for items in self.filled.draft.items_of(giver).chunks(AT_ONCE) {
            if handed == most {
                break;
            }
            for (item, primary) in self.crowned(items) {
                if primary == Some(giver) && handed < most {
                    handed += i64::from(self.meet_at(item, (before, giver), steps, links));
                }
            }
        }
        handed
    }

    /// Hands the primary of an item to somebody who hands one on.
    fn meet_at(
        &mut self,
        item: u32,
        (before, giver): (u32, u32),
        steps: u32,
        links: &mut Links,
    ) -> bool {
        for at in 0..self.holders(item as usize).len() {
            let between = self.holders(item as usize)[at].member();
            if between != before
                && self.giver(item, between) == Some(giver)
                && (self.use_link(between, links)
                    || steps > 0 && self.hand_on((giver, between), 1, steps - 1, links) > 0)
            {
                self.move_primary(item as usize, giver, between);
                return true;
            }
        }
        false
    }

    /// Hands a primary of a member to somebody who has too few.
    fn use_link(&mut self, between: u32, links: &mut Links) -> bool {
        while let Some((item, taker)) = links.pop(between) {
            if self.under(taker) > 0 && self.giver(item, taker) == Some(between) {
                self.move_primary(item as usize, between, taker);
                return true;
            }
        }
        false
    }

    /// Who is the primary of an item that a member holds, and may hand it to that member.
    fn giver(&self, item: u32, member: u32) -> Option<u32> {
        let holders = self.holders(item as usize);
        let primary = primary(holders)?.member();
        let may = holds(holders, member) && self.may(item as usize, member);
        (may && primary != member).then_some(primary)
    }

    /// Makes it as even as it can be, part by part.
    fn even_out(&mut self) {
        self.meet();
        if self.off == (0, 0) {
            return;
        }
        let all: Vec<u32> = (0..narrow(self.most.len())).collect();
        let mut parts = vec![all];
        let mut names = 1;
        while let Some(part) = parts.pop() {
            for member in &part {
                self.part[*member as usize] = names;
            }
            let most: Vec<i64> = part.iter().map(|member| self.most[*member as usize]).collect();
            let total: i64 = part.iter().map(|member| self.primaries(*member)).sum();
            self.share = Share::of(&most, usize::try_from(total).unwrap_or(0));
            for end in self.ends(&part) {
                let stuck = self.route(&part, end);
                for member in &stuck {
                    self.part[*member as usize] = names + 1;
                }
                let rest = |member: &u32| self.part[*member as usize] == names;
                let rest: Vec<u32> = part.iter().copied().filter(rest).collect();
                if !stuck.is_empty() && !rest.is_empty() {
                    parts.push(stuck);
                    parts.push(rest);
                    break;
                }
            }
            names += 2;
        }
    }

    /// The ends at which members of a part may be off, the one with fewer items first.
    fn ends(&self, part: &[u32]) -> [End; 2] {
        let items = |off: &dyn Fn(u32) -> i64| -> u64 {
            let off = part.iter().filter(|member| off(**member) > 0);
            off.map(|member| u64::from(self.filled.loads[*member as usize])).sum()
        };
        let over = items(&|member| self.over(member));
        let under = items(&|member| self.under(member));
        if over <= under { [End::Over, End::Under] } else { [End::Under, End::Over] }
    }

    /// Some members with all whom they reach, if nobody of those takes anything; nothing, if somebody does,
    /// or if it is less work to look at their lists. This reads all rows in order, a few times, and so
    /// needs no lists, and does not wait for the memory.
    fn closed(&self, off: &[u32]) -> Option<Vec<u32>> {
        let items = |member: &u32| self.filled.loads[*member as usize] as usize;
        if off.iter().map(items).sum::<usize>() < self.filled.draft.len() / 16 {
            return None;
        }
        let mut reached = vec![false; self.most.len()];
        for member in off {
            reached[*member as usize] = true;
        }
        let (mut all, mut ways) = (off.to_vec(), Vec::new());
        for _ in 0..CLOSED_IN {
            let before = all.len();
            for item in 0..self.filled.draft.len() {
                self.reach(item, &mut reached, &mut ways);
                for to in ways.drain(..) {
                    if self.takes(to) {
                        return None;
                    }
                    all.push(to);
                }
            }
            if all.len() == before {
                return Some(all);
            }
        }
        None
    }

    /// Finds those whom members who are `reached` reach by an item, each once.
    fn reach(&self, item: usize, reached: &mut [bool], to: &mut Vec<u32>) {
        let holders = self.holders(item);
        let is = |holder: &Holder| reached[holder.member() as usize];
        // Of most items nobody is, and by most others nobody reaches anybody else.
        if !unrolled(holders, |holders| holders.iter().fold(false, |any, holder| any | is(holder)))
        {
            return;
        }
        let crowned = holders.iter().any(|holder| holder.is_primary() && is(holder));
        let all = holders.iter().all(is);
        if all || (self.end == End::Over) != crowned {
            return;
        }
        for holder in holders.iter().filter(|holder| is(holder)) {
            self.ways(narrow(item), holder.member(), to);
        }
        to.retain(|to| !std::mem::replace(&mut reached[*to as usize], true));
    }

    /// Routes from those of `part` who are off at one end. Returns those who stay so, with all whom
    /// they reach.
    fn route(&mut self, part: &[u32], end: End) -> Vec<u32> {
        self.end = end;
        let off: Vec<u32> = part.iter().copied().filter(|member| self.gives(*member)).collect();
        if off.is_empty() || self.patience == 0 {
            return Vec::new();
        }
        self.closed(&off).unwrap_or_else(|| route(self, &off))
    }
}

/// So often all rows are read to see that nobody can be helped.
const CLOSED_IN: usize = 4;

/// If so many, and one more, cannot be helped, the others are not tried.
const A_FEW: usize = 16;

/// So many items are read at once.
const AT_ONCE: usize = 64;

impl<D: Draft> Passing for Election<'_, D> {
    fn members(&self) -> usize {
        self.most.len()
    }

    fn gives(&self, member: u32) -> bool {
        match self.end {
            End::Over => self.over(member) > 0,
            End::Under => self.under(member) > 0,
        }
    }

    fn takes(&self, member: u32) -> bool {
        match self.end {
            End::Over => self.has_room(member),
            End::Under => self.primaries(member) > self.share.low,
        }
    }

    fn prepare(&mut self, members: Option<&[u32]>) {
        self.filled.draft.prepare(members);
    }

    fn knows(&self, member: u32) -> bool {
        self.filled.draft.lists().knows(member)
    }

    fn items(&mut self, member: u32) -> Vec<u32> {
        let items = self.filled.draft.items_of(member);
        self.patience = self.patience.saturating_sub(items.len());
        if self.patience == 0 { Vec::new() } else { items }
    }

    fn ways(&self, item: u32, member: u32, to: &mut Vec<u32>) {
        let holders = self.holders(item as usize);
        let Some(primary) = primary(holders).map(Holder::member) else { return };
        let near = |other: u32| self.part[other as usize] == self.part[member as usize];
        match self.end {
            End::Over if primary == member => {
                let others = holders.iter().map(|holder| holder.member());
                to.extend(others.filter(|other| {
                    *other != member && near(*other) && self.may(item as usize, *other)
                }));
            }
            End::Under if near(primary) => to.extend(self.giver(item, member)),
            _ => {}
        }
    }

    fn pass(&mut self, item: u32, from: u32, to: u32) {
        let (giver, taker) = if self.end == End::Over { (from, to) } else { (to, from) };
        self.move_primary(item as usize, giver, taker);
    }
}
