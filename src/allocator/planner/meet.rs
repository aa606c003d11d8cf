//! Handing primaries over by way of one or two who are even, where few members are off.

use super::{
    draft::Draft,
    holder::{Holder, primary},
    kinds::narrow,
    links::Links,
    primaries::{Election, Mark},
    routes::AT_ONCE,
};

impl<D: Draft> Election<'_, D> {
    /// The items of a list with their primaries. They are read at once, so that the memory is asked for the
    /// next while it looks for one.
    pub(super) fn crowned(&self, items: &[u32]) -> Vec<(u32, Option<u32>)> {
        let crowned = |item| primary(self.holders(item as usize)).map(Holder::member);
        items.iter().map(|item| (*item, crowned(*item))).collect()
    }

    /// Hands primaries from members with too many to members with too few, directly or by way of one or
    /// two that are even: those near the ones are looked up, and met from the others.
    pub(super) fn meet(&mut self) {
        let all = || 0..narrow(self.most.len());
        let marked = |mark: u8| -> Vec<u32> {
            all().filter(|member| self.marks[*member as usize] & mark != 0).collect()
        };
        let (over, under) = (marked(Mark::OVER), marked(Mark::UNDER));
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
}

/// If so many, and one more, cannot be helped, the others are not tried.
const A_FEW: usize = 16;
