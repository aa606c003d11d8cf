//! Who is to hold what, by member: lists that may be out of date, because rows are looked at anyway.
//!
//! An item stands in the list of each member that is to hold it. It may stand there twice, or without
//! being held any more; whoever reads a list looks at the item's row. So nothing needs to be found in
//! a list to be taken out.

use super::{bits::ones, by_member::ByMember, holder::Holder, holdings::Holdings, kinds::narrow};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    items: Vec<u32>,
    members: Vec<List>,
    /// Whether anybody's list was made.
    any: bool,
}

/// A member's list.
#[derive(Clone, Debug, Default)]
struct List {
    /// Its part of all items, from and to.
    part: (u32, u32),
    /// What is not there.
    more: Vec<u32>,
    /// Whether the list was made.
    known: bool,
}

/// Up to one in so many members is listed alone, and not with everybody.
const FEW: usize = 8;

/// So many holders are asked at once, each answer a bit.
const WORD: usize = 64;

/// A list is put in order when it has more items beyond twice what its member holds than this.
const STALE: usize = 64;

impl Lists {
    /// No lists yet, of so many members.
    pub(super) fn of_nobody(members: usize) -> Self {
        Self { members: vec![List::default(); members], ..Self::default() }
    }

    /// The lists of all members, from the rows of all items.
    pub(super) fn new(members: usize, rows: &Holdings) -> Self {
        let mut ends = vec![0u32; members];
        for holder in rows.all() {
            // A place may be vacant.
            if let Some(end) = ends.get_mut(holder.member() as usize) {
                *end += 1;
            }
        }
        let mut total = 0;
        for end in &mut ends {
            total += std::mem::replace(end, total);
        }
        let starts = ends.clone();
        let mut items = vec![0; total as usize];
        for (item, holders) in (0..).zip(rows.iter()) {
            for holder in holders.iter().filter(|holder| **holder != Holder::VACANT) {
                let end = &mut ends[holder.member() as usize];
                items[*end as usize] = item;
                *end += 1;
            }
        }
        let list = |part| List { part, more: Vec::new(), known: true };
        Self { items, members: starts.into_iter().zip(ends).map(list).collect(), any: true }
    }

    /// Whether anybody's list was made.
    #[inline]
    pub(super) fn are_any(&self) -> bool {
        self.any
    }

    /// Whether a member's list was made.
    pub(super) fn knows(&self, member: u32) -> bool {
        self.members[member as usize].known
    }

    /// Makes the lists of all members, if they are not there yet.
    pub(super) fn gather_all(&mut self, rows: &Holdings) {
        if self.members.iter().any(|list| !list.known) {
            *self = Self::new(self.members.len(), rows);
        }
    }

    /// Makes the lists of some members, if they are not there yet.
    pub(super) fn gather(&mut self, members: &[u32], rows: &Holdings) {
        let none = std::iter::repeat_n(false, self.members.len());
        let mut wanted = ByMember::new(none, false);
        let mut missing = 0;
        for member in members {
            let member = *member as usize;
            if !self.members[member].known && !wanted[member] {
                wanted[member] = true;
                missing += 1;
            }
        }
        if missing * FEW > wanted.len() {
            self.gather_all(rows);
        } else if missing > 0 {
            let is = wanted.read();
            let mut found = Vec::new();
            if let Some(rows) = rows.threes() {
                // Of rows of three, as most are, the compiler is to know that; and of most items nobody is.
                for (item, row) in (0..).zip(rows) {
                    if row.iter().fold(false, |any, holder| any | is.of(*holder)) {
                        let those = row.iter().filter(|holder| is.of(**holder));
                        found.extend(those.map(|holder| (holder.member(), item)));
                    }
                }
            } else {
                // All holders are asked, whatever their rows, and only of those it is looked up what they hold.
                let mut item = 0;
                for (first, holders) in (0..).step_by(WORD).zip(rows.all().chunks(WORD)) {
                    let bit = |are, holder: &Holder| are << 1 | u64::from(is.of(*holder));
                    for at in ones(holders.iter().rev().fold(0, bit)) {
                        item = rows.item_at(first + at as usize, item);
                        found.push((holders[at as usize].member(), narrow(item)));
                    }
                }
            }
            let mut lengths = vec![0; wanted.len()];
            for (member, _) in &found {
                lengths[*member as usize] += 1;
            }
            for (member, item) in found {
                let list = &mut self.members[member as usize].more;
                if list.is_empty() {
                    list.reserve(lengths[member as usize]);
                }
                list.push(item);
            }
            let lists = self.members.iter_mut().zip(wanted.iter());
            lists.filter(|(_, wanted)| **wanted).for_each(|(list, _)| list.known = true);
            self.any = true;
        }
    }

    /// Makes room for one more member.
    pub(super) fn add_member(&mut self) {
        self.members.push(List { known: true, ..List::default() });
    }

    /// Writes down that a member is to hold an item.
    #[inline]
    pub(super) fn add(&mut self, member: u32, item: usize) {
        if self.any {
            let list = &mut self.members[member as usize];
            if list.known {
                list.more.push(narrow(item));
            }
        }
    }

    /// What a member is to hold, in any order, out of date: all of it, if its list was made.
    pub(super) fn of(&self, member: u32) -> impl Iterator<Item = u32> + '_ {
        let List { part: (start, end), more, .. } = &self.members[member as usize];
        self.items[*start as usize..*end as usize].iter().chain(more).copied()
    }

    /// How many entries the list of a member has, and one of them.
    pub(super) fn len(&self, member: u32) -> usize {
        let List { part: (start, end), more, .. } = &self.members[member as usize];
        (end - start) as usize + more.len()
    }

    pub(super) fn get(&self, member: u32, at: usize) -> u32 {
        let List { part: (start, end), more, .. } = &self.members[member as usize];
        let part = &self.items[*start as usize..*end as usize];
        part.get(at).copied().unwrap_or_else(|| more[at - part.len()])
    }

    /// Brings the list of a member that holds so many items up to date, if it has grown long.
    pub(super) fn tidy(&mut self, member: u32, load: usize, holds: impl Fn(u32) -> bool) {
        let List { part: (start, end), more, .. } = &self.members[member as usize];
        if more.len() + (end - start) as usize <= 2 * load + STALE {
            return;
        }
        let mut items: Vec<u32> = self.of(member).collect();
        items.sort_unstable();
        items.dedup();
        items.retain(|item| holds(*item));
        let list = &mut self.members[member as usize];
        (list.part, list.more) = ((0, 0), items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_some_are_those_of_all_whatever_the_lengths_of_rows() {
        let members = 40;
        for length in [|_| 3, |item| item % 6, |item| item % 2 * 5] as [fn(u32) -> u32; 3] {
            let mut rows = Holdings::default();
            for item in 0..150 {
                let row = (0..length(item)).map(|at| Holder::new((item * 7 + at) % members));
                rows.push(&row.collect::<Vec<Holder>>());
            }
            let all = Lists::new(members as usize, &rows);
            for some in [&[0, 39][..], &[17]] {
                let mut lists = Lists::of_nobody(members as usize);
                lists.gather(some, &rows);
                for member in 0..members {
                    assert_eq!(lists.knows(member), some.contains(&member));
                    let of = |lists: &Lists| lists.of(member).collect::<Vec<u32>>();
                    if lists.knows(member) {
                        assert!(!of(&lists).is_empty());
                        assert_eq!(of(&lists), of(&all));
                    }
                }
            }
        }
    }
}
