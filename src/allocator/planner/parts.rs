//! The parts of the primaries of the last plan, and what they say of the next one.
//!
//! The parts stand in an order: whoever holds an item is in no part before that of its primary. So primaries
//! are handed on to later parts only, and if nobody of a later part has fewer by two than somebody of an
//! earlier one, nothing between parts can be made more even. For rows that did not change that holds as
//! before; the primaries of those that did are put into the first part that holds them. Then each part is
//! evened out alone, and most of them are even.

use super::{
    draft::{Draft, UNPLACED},
    holder::{Holder, primary},
    kinds::narrow,
    primaries::Election,
};

impl<D: Draft> Election<'_, D> {
    /// Keeps the parts, in order.
    pub(super) fn keep_parts(&mut self, parts: &[Vec<u32>]) {
        let mut of_member = Vec::new();
        if parts.len() > 1 && self.crown.is_easy() {
            of_member.resize(self.most.len(), UNPLACED);
            for (number, part) in (0..).zip(parts) {
                for member in part {
                    of_member[*member as usize] = number;
                }
            }
        }
        self.filled.draft.keep_parts(of_member);
    }

    /// Makes it as even as it can be, by the parts of the last plan. False: that cannot be said.
    pub(super) fn even_as_before(&mut self) -> bool {
        let Some((mut of_member, changed)) = self.filled.draft.parts() else { return false };
        let new = of_member.iter().filter(|part| **part == UNPLACED).count();
        if !self.crown.is_easy() || new.saturating_mul(changed.len()) > self.filled.draft.len() {
            return false;
        }
        self.place(&mut of_member, &changed);
        for item in changed {
            let row = self.holders(item as usize);
            let Some(giver) = primary(row).map(Holder::member) else { continue };
            let part = |holder: &&Holder| of_member[holder.member() as usize];
            let Some(taker) = row.iter().min_by_key(part).map(|holder| holder.member()) else {
                continue;
            };
            if of_member[taker as usize] < of_member[giver as usize] {
                self.move_primary(item as usize, giver, taker);
            }
        }
        let last = of_member.iter().max().map_or(0, |last| *last as usize);
        let mut parts = vec![Vec::new(); last + 1];
        for (member, part) in (0..).zip(&of_member) {
            parts[last - *part as usize].push(member);
        }
        let parts = self.even_parts(parts);
        if self.are_in_order(&parts) {
            self.keep_parts(&parts);
            return true;
        }
        self.weigh();
        false
    }

    /// Finds the part of members that are in none yet: the first that has more primaries than such a
    /// member, if it is the primary of what nobody of an earlier part holds.
    fn place(&self, of_member: &mut [u32], changed: &[u32]) {
        let last = of_member.iter().copied().filter(|part| *part != UNPLACED).max().unwrap_or(0);
        let mut levels = vec![0; last as usize + 1];
        for (member, part) in (0..).zip(&*of_member) {
            if let Some(level) = levels.get_mut(*part as usize) {
                *level = self.primaries(member).max(*level);
            }
        }
        for member in 0..of_member.len() {
            if of_member[member] != UNPLACED {
                continue;
            }
            // By part, how many of its items nobody of an earlier part holds.
            let mut first = vec![0; levels.len() + 1];
            for item in changed {
                let row = self.holders(*item as usize);
                let others = row.iter().filter(|holder| holder.member() as usize != member);
                if others.clone().count() < row.len() {
                    let parts = others.map(|holder| of_member[holder.member() as usize].min(last));
                    first[parts.min().unwrap_or(last) as usize] += 1;
                }
            }
            let mut items: i64 = first.iter().sum();
            let mut part = 0;
            while part + 1 < levels.len() && items > levels[part] {
                items -= first[part];
                part += 1;
            }
            // Who would have fewer there than those before is one of those.
            part -= usize::from(part > 0 && items + 1 < levels[part - 1]);
            of_member[member] = narrow(part);
        }
    }

    /// Whether nobody of a later part has fewer primaries by two than somebody of an earlier one, and could
    /// have more.
    fn are_in_order(&self, parts: &[Vec<u32>]) -> bool {
        let mut most = 0;
        parts.iter().all(|part| {
            let may = |member: &&u32| self.primaries(**member) < self.most[**member as usize];
            let least = part.iter().filter(may).map(|member| self.primaries(*member)).min();
            let sound = least.is_none_or(|least| least + 1 >= most);
            most = part.iter().map(|member| self.primaries(*member)).fold(most, i64::max);
            sound
        })
    }
}
