//! Primaries as even as the placement allows, part by part.
//!
//! Members that stay off, and all whom they might hand to, are a part of their own: see
//! [primaries](super::primaries). While it is a large one, its primaries are handed over in the rows of all.
//! Of a small part few items have a choice: those that two of it hold, one of whom is the primary. They
//! are taken out of the rows of all, and the part is evened out as a world of its own, whose parts are
//! taken out of that again, so that parts within parts cost little.

use super::{
    by_member::ByMember,
    crown::Crown,
    draft::{Draft, Sheet},
    fill::Filled,
    holder::{Holder, primary},
    holdings::Holdings,
    kinds::narrow,
    primaries::{Election, End, Mark, Pass},
    problem::Problem,
    reach::Reading,
    routes::{Passing, route},
    share::Share,
};

impl<D: Draft> Election<'_, D> {
    /// Makes it as even as it can be. Returns the parts, in order: whoever holds an item is in no part before
    /// that of its primary.
    pub(super) fn even_out(&mut self) -> Vec<Vec<u32>> {
        self.even_parts(vec![(0..narrow(self.most.len())).collect()])
    }

    /// Makes parts, the last first, each as even as it can be. Returns the parts of these, in order.
    pub(super) fn even_parts(&mut self, parts: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
        // Beside each, if that is known, the items that have a choice in it, and perhaps others.
        let mut parts: Vec<(Vec<u32>, Option<Vec<u32>>)> =
            parts.into_iter().map(|part| (part, None)).collect();
        let mut even = Vec::new();
        let mut names = 0;
        while let Some((part, items)) = parts.pop() {
            names += 1;
            self.take_up(&part, names);
            if self.off == (0, 0) {
                even.push(part);
                continue;
            }
            if self.is_apart(&part) {
                even.extend(self.even_apart(&part, items));
                continue;
            }
            self.ask_around(part.len() == self.most.len());
            let (stuck, items) = self.even_part(&part);
            for member in &stuck {
                self.part[*member as usize] = 0;
            }
            let rest = |member: &u32| self.part[*member as usize] != 0;
            let rest: Vec<u32> = part.iter().copied().filter(rest).collect();
            if stuck.is_empty() || rest.is_empty() {
                even.push(part);
            } else if self.end == End::Over {
                // Nobody holds what these are primaries of, but they themselves.
                parts.extend([(stuck, items), (rest, None)]);
            } else {
                // They are the primaries of all that they hold.
                parts.extend([(rest, None), (stuck, items)]);
            }
        }
        even
    }

    /// Whether a part is taken out of the rows of all: it is small, and not only few items of it are to be
    /// looked at.
    fn is_apart(&self, part: &[u32]) -> bool {
        let items = |mark: u8| -> usize {
            let marked = part.iter().filter(|member| self.marks[**member as usize] & mark == mark);
            marked.map(|member| self.filled.loads[*member as usize] as usize).sum()
        };
        let few = || 8 * (items(Mark::OVER) + items(Mark::UNDER)) <= items(0);
        part.len() <= self.most.len() / 2 && !(self.filled.draft.has_lists() && few())
    }

    /// Takes up a part: its even share, and where that leaves its members.
    fn take_up(&mut self, part: &[u32], name: u32) {
        let most: Vec<i64> = part.iter().map(|member| self.most[*member as usize]).collect();
        let total: i64 = part.iter().map(|member| self.primaries(*member)).sum();
        self.share = Share::of(&most, usize::try_from(total).unwrap_or(0));
        self.marks.fill(0);
        self.off = (0, 0);
        for member in part {
            self.part[*member as usize] = name;
            self.marks[*member as usize] = self.mark(*member);
            self.off.0 += self.over(*member);
            self.off.1 += self.under(*member);
        }
    }

    /// Asks the items that were touched, unless that `is_done` as far as it pays, and then others, as long as
    /// that helps: of the few who are left those have most.
    fn ask_around(&mut self, is_done: bool) {
        let touched = if is_done { 0 } else { self.filled.touched.len() };
        for pass in [Pass::Pairs, Pass::Any] {
            self.hand_touched(touched, pass);
            if pass.is_done(self.off, self.share) {
                return;
            }
            self.ask_any(pass);
        }
    }

    /// Asks any items, as long as that helps.
    fn ask_any(&mut self, pass: Pass) {
        // Where it is known which items somebody has, only those are asked, later.
        let end = if self.filled.draft.has_lists() { 0 } else { self.filled.draft.len() };
        for from in (0..end).step_by(end / BLOCKS + 1) {
            let before = self.off.0 + self.off.1;
            self.hand_all(from, end.min(from + end / BLOCKS + 1), pass);
            if pass.is_done(self.off, self.share) {
                return;
            }
            let left = self.off.0 + self.off.1;
            if left * HELPS > before * (HELPS - 1) {
                return;
            }
        }
    }

    /// Evens out a part in the rows of all. Returns members of it that stay off, with all whom they reach, and
    /// the items that have a choice among these, if that is known.
    fn even_part(&mut self, part: &[u32]) -> (Vec<u32>, Option<Vec<u32>>) {
        let ends = self.ends(part);
        for end in ends {
            self.end = end;
            if let Reading::Closed(closed, items) = self.read_rows(part) {
                return (closed, items);
            }
        }
        self.meet();
        for end in ends {
            self.end = end;
            let off: Vec<u32> = part.iter().copied().filter(|member| self.gives(*member)).collect();
            if !off.is_empty() && self.patience > 0 {
                let stuck = route(self, &off);
                if !stuck.is_empty() {
                    return (stuck, None);
                }
            }
        }
        (Vec::new(), None)
    }

    /// The ends at which members of a part may be off, the one with fewer items first.
    fn ends(&self, part: &[u32]) -> [End; 2] {
        let items = |mark: u8| -> u64 {
            let off = part.iter().filter(|member| self.marks[**member as usize] & mark != 0);
            off.map(|member| u64::from(self.filled.loads[*member as usize])).sum()
        };
        if items(Mark::OVER) <= items(Mark::UNDER) {
            [End::Over, End::Under]
        } else {
            [End::Under, End::Over]
        }
    }

    /// Evens out a small part as a world of its own. Returns the parts of it, in order.
    fn even_apart(&mut self, part: &[u32], known: Option<Vec<u32>>) -> Vec<Vec<u32>> {
        let mut number = vec![u32::MAX; self.most.len()];
        for (at, member) in (0..).zip(part) {
            number[*member as usize] = at;
        }
        let (mut items, mut held, mut row) = (Vec::new(), Holdings::default(), Vec::new());
        let mut loads = vec![0; part.len()];
        self.with_choice(part, known, |election, item| {
            row.clear();
            for holder in election.holders(item) {
                let at = number[holder.member() as usize];
                if at != u32::MAX && (holder.is_primary() || election.may(item, holder.member())) {
                    row.push(holder.at(at));
                    loads[at as usize] += 1;
                }
            }
            items.push(narrow(item));
            held.push(&row);
        });
        let problem = Problem::of_rows(part.len(), held);
        let primaries = part.iter().map(|member| self.filled.primaries[*member as usize]).collect();
        let mut filled = Filled {
            draft: Sheet::with(&problem, problem.held().clone()),
            touched: Vec::new(),
            ordered: 0,
            loads,
            primaries,
            held: 0,
            lower_bound: 0,
        };
        let most = part.iter().map(|member| self.most[*member as usize]).collect();
        let mut apart = Election::with(Crown::default(), most, &mut filled);
        let mut parts = apart.even_out();
        for row in filled.touched {
            let Some(taker) = primary(filled.draft.of(row as usize)) else { continue };
            let taker = part[taker.member() as usize];
            let item = items[row as usize] as usize;
            if let Some(giver) = self.giver(narrow(item), taker) {
                self.move_primary(item, giver, taker);
            }
        }
        parts.iter_mut().flatten().for_each(|member| *member = part[*member as usize]);
        parts
    }

    /// Finds the items whose primary is in a part, and somebody else of it could be; all are among those that
    /// are `known`.
    fn with_choice(
        &self,
        part: &[u32],
        known: Option<Vec<u32>>,
        mut found: impl FnMut(&Self, usize),
    ) {
        let mut inside = ByMember::new(std::iter::repeat_n(0u8, self.most.len()), 0);
        for member in part {
            inside[*member as usize] = 1;
        }
        // Without a branch, because nobody can guess who is inside.
        let inside = inside.read();
        let is = |row: &[Holder]| {
            let (_, two, crowned) = row.iter().fold((0, 0, 0), |(one, two, crowned), holder| {
                let inside = inside.of(*holder);
                let crowns = if holder.is_primary() { inside } else { 0 };
                (one | inside, two | one & inside, crowned | crowns)
            });
            two & crowned != 0
        };
        let draft = &self.filled.draft;
        let loads = part.iter().map(|member| self.filled.loads[*member as usize] as usize);
        let lists = draft.lists();
        let listed = || {
            part.iter().all(|member| lists.knows(*member)) && loads.sum::<usize>() < draft.len() / 8
        };
        let known = known.or_else(|| {
            listed().then(|| {
                let mut items: Vec<u32> =
                    part.iter().flat_map(|member| draft.items_of(*member)).collect();
                items.sort_unstable();
                items.dedup();
                items
            })
        });
        if let Some(items) = known {
            let items = items.into_iter().map(|item| item as usize);
            items.filter(|item| is(draft.of(*item))).for_each(|item| found(self, item));
            return;
        }
        let mut those = [0; BLOCK];
        for from in (0..draft.len()).step_by(BLOCK) {
            let are = draft.pick(from..draft.len().min(from + BLOCK), is, &mut those);
            those[..are].iter().for_each(|item| found(self, *item as usize));
        }
    }
}

/// So many rows are asked at once who is inside.
const BLOCK: usize = 1 << 10;

/// All rows are asked in so many blocks, as long as one helps one in so many of those who are off.
const BLOCKS: usize = 8;
const HELPS: i64 = 16;

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

    fn ways(&self, member: u32, items: &[u32], ways: &mut Vec<(u32, u32)>) {
        ways.clear();
        for (item, crowned) in self.crowned(items) {
            match self.end {
                End::Under if crowned != Some(member) => {
                    ways.extend(self.giver(item, member).map(|giver| (item, giver)));
                }
                End::Over if crowned == Some(member) => {
                    let others = self.holders(item as usize).iter().map(|holder| holder.member());
                    let takers = others.filter(|other| self.giver(item, *other) == Some(member));
                    ways.extend(takers.map(|taker| (item, taker)));
                }
                End::Under | End::Over => {}
            }
        }
    }

    fn pass(&mut self, item: u32, from: u32, to: u32) {
        let (giver, taker) = if self.end == End::Over { (from, to) } else { (to, from) };
        self.move_primary(item as usize, giver, taker);
    }
}
