//! Who holds what: the rows of all items, as a list of lists in one piece.

use std::ops::Range;

use super::holder::Holder;

/// So many rows are rewritten at once.
const PART: usize = 1 << 10;

/// How the rows of some items are written anew.
pub(super) trait Rewrite {
    /// How long all rows become, if that is known to be the same for all.
    fn same(&self) -> Option<usize>;

    /// How long the row of an item becomes, by its place among the items.
    fn length(&self, at: usize) -> u32;

    /// Writes the row of an item, given who holds it.
    fn write(&mut self, item: u32, held: &[Holder], row: &mut [Holder]);

    /// The same for several, where all rows become three places, as is known of most, and were that before.
    fn write_threes(&mut self, items: &[u32], held: &[[Holder; 3]], rows: &mut [[Holder; 3]]);
}

/// The items, each with the members that hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    len: usize,
    /// How many holders each item has, while all have as many: then where they are need not be written
    /// down, and not be read.
    each: usize,
    /// Else where each item starts, and the end; empty until then.
    first: Vec<u32>,
    holders: Vec<Holder>,
}

impl Holdings {
    /// No items, with room for so many holders altogether.
    pub fn with_capacity(holders: usize) -> Self {
        Self { holders: Vec::with_capacity(holders), ..Self::default() }
    }

    /// Adds the next item.
    ///
    /// # Panics
    /// If there are more than 2^32 holders.
    pub fn push(&mut self, holders: &[Holder]) {
        self.holders.extend_from_slice(holders);
        self.close();
    }

    /// Ends an item.
    #[inline]
    fn close(&mut self) {
        let end = u32::try_from(self.holders.len()).expect("fewer than 2^32 assignments");
        if self.len == 0 {
            self.each = self.holders.len();
        } else if self.first.is_empty() && self.holders.len() != (self.len + 1) * self.each {
            self.write_down();
        }
        if !self.first.is_empty() {
            self.first.push(end);
        }
        self.len += 1;
    }

    /// Writes down where the items start, of which not all have as many holders any more.
    #[cold]
    fn write_down(&mut self) {
        // As many as there are holders, which have been counted in 32 bits.
        let first = |item: usize| u32::try_from(item * self.each).unwrap_or(u32::MAX);
        self.first.extend((0..=self.len).map(first));
        self.each = 0;
    }

    /// Where the holders of an item are.
    #[inline]
    fn span(&self, item: usize) -> Range<usize> {
        self.start(item)..self.start(item + 1)
    }

    /// Where an item starts, or would start after the last.
    #[inline]
    fn start(&self, item: usize) -> usize {
        if self.first.is_empty() { item * self.each } else { self.first[item] as usize }
    }

    /// The same list with other rows for some items, which are in order.
    pub(super) fn rewritten(&self, items: &[u32], rewrite: &mut impl Rewrite) -> Self {
        let before = |item: u32| self.span(item as usize).len();
        let (same, each) = (rewrite.same(), self.each());
        let stays = |(at, item): (usize, &u32)| before(*item) == rewrite.length(at) as usize;
        if same.is_some() && same == each || items.iter().enumerate().all(stays) {
            return self.rewritten_in_place(items, rewrite, same == Some(3) && each == same);
        }
        let places = |all, at: usize| all + rewrite.length(at) as usize - before(items[at]);
        let all = (0..items.len()).fold(self.holders.len(), places);
        let (mut spliced, mut run) = (Self::with_capacity(all), 0);
        spliced.first.reserve(self.len + 1);
        for (at, item) in items.iter().enumerate() {
            spliced.copy(self, run..*item as usize);
            let start = spliced.holders.len();
            spliced.holders.resize(start + rewrite.length(at) as usize, Holder::VACANT);
            rewrite.write(*item, self.of(*item as usize), &mut spliced.holders[start..]);
            spliced.close();
            run = *item as usize + 1;
        }
        spliced.copy(self, run..self.len());
        spliced
    }

    /// The same where all rows stay as long as they are, three places if it `is_threes`.
    fn rewritten_in_place(
        &self,
        items: &[u32],
        rewrite: &mut impl Rewrite,
        is_threes: bool,
    ) -> Self {
        let holders = Vec::with_capacity(self.holders.len());
        let mut same = Self { holders, first: self.first.clone(), ..*self };
        // A part is copied and written while it is in the near memory.
        for part in items.chunks(PART) {
            let end = part.last().map_or(0, |item| self.span(*item as usize).end);
            same.holders.extend_from_slice(&self.holders[same.holders.len()..end]);
            if is_threes {
                let (held, rows) = (self.holders.as_chunks().0, same.holders.as_chunks_mut().0);
                rewrite.write_threes(part, held, rows);
                continue;
            }
            for item in part {
                let span = self.span(*item as usize);
                rewrite.write(*item, &self.holders[span.clone()], &mut same.holders[span]);
            }
        }
        same.holders.extend_from_slice(&self.holders[same.holders.len()..]);
        same
    }

    /// Adds items of another list, as they are there.
    fn copy(&mut self, other: &Self, mut items: Range<usize>) {
        // One by one, as long as all have as many holders, unless these are known to.
        while !items.is_empty() && self.first.is_empty() && other.each() != Some(self.each) {
            self.push(other.of(items.start));
            items.start += 1;
        }
        let (start, here) = (other.start(items.start), self.holders.len());
        self.holders.extend_from_slice(&other.holders[start..other.start(items.end)]);
        self.len += items.len();
        if !self.first.is_empty() {
            let end = |item| u32::try_from(here + other.start(item + 1) - start);
            self.first.extend(items.map(|item| end(item).unwrap_or(u32::MAX)));
        }
    }

    /// Takes out the holders that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(Holder) -> bool) {
        if self.holders.iter().all(|holder| keep(*holder)) {
            return;
        }
        let mut kept = Self::with_capacity(self.holders.len());
        for item in 0..self.len() {
            kept.holders.extend(self.of(item).iter().filter(|holder| keep(**holder)));
            kept.close();
        }
        *self = kept;
    }

    /// Who holds an item.
    #[inline]
    pub fn of(&self, item: usize) -> &[Holder] {
        &self.holders[self.span(item)]
    }

    /// Who holds an item, to be changed.
    #[inline]
    pub(super) fn of_mut(&mut self, item: usize) -> &mut [Holder] {
        let span = self.span(item);
        &mut self.holders[span]
    }

    /// All holders of all items, one item after the other.
    pub fn all(&self) -> &[Holder] {
        &self.holders
    }

    /// How many holders each item has, if all have as many.
    pub(super) fn each(&self) -> Option<usize> {
        self.first.is_empty().then_some(self.each)
    }

    /// All rows, if each is of three holders.
    #[inline]
    pub(super) fn threes(&self) -> Option<&[[Holder; 3]]> {
        (self.each() == Some(3)).then(|| self.holders.as_chunks().0)
    }

    /// The same, to be changed.
    #[inline]
    pub(super) fn threes_mut(&mut self) -> Option<&mut [[Holder; 3]]> {
        (self.each() == Some(3)).then(|| self.holders.as_chunks_mut().0)
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who holds the items of a range, where not all have as many holders: then each end is read once.
    #[inline]
    pub(super) fn uneven(&self, items: Range<usize>) -> impl Iterator<Item = &[Holder]> {
        debug_assert!(!self.first.is_empty());
        let ends = self.first.get(items.start..=items.end).unwrap_or_default().windows(2);
        let all = self.holders.as_slice();
        ends.map(|ends| &all[ends[0] as usize..ends[1] as usize])
    }

    /// The item that the holder at a place of [all](Self::all) holds, which is not before `item`.
    #[inline]
    pub(super) fn item_at(&self, place: usize, mut item: usize) -> usize {
        if self.first.is_empty() {
            return place / self.each;
        }
        while self.start(item + 1) <= place {
            item += 1;
        }
        item
    }

    /// Each item's holders.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[Holder]> + Clone {
        (0..self.len).map(|item| self.of(item))
    }
}
