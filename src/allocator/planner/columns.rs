//! The zones of items that nobody holds, so many for each zone, without asking for each which lacks most.
//!
//! The places of all rows are one long line, the first places of all items, then the second ones, and so
//! on; the zones take theirs from it one after the other. The places of an item are as far apart in that
//! line as there are items, so a zone that needs no more than `cap` times the items comes to each of them
//! `cap` times at most, and to none twice before it has come to all.

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Columns {
    items: i64,
    /// By zone, where its part of the line ends.
    ends: Vec<i64>,
    /// By place of a row, the zone at hand, and where the next item is in the line.
    at: Vec<(usize, i64)>,
    /// The place of the line that comes first in the row of the item at hand: another one for each item,
    /// because where all else is equal the first replica becomes the primary.
    turn: usize,
}

impl Columns {
    /// For so many items of so many places, of which each zone is to get what it needs. Nothing, if that
    /// is not all of them, or more than `cap` for an item.
    pub(super) fn new(
        items: i64,
        places: u32,
        cap: i64,
        need: impl Iterator<Item = i64>,
    ) -> Option<Self> {
        let mut end = 0;
        let mut ends = Vec::new();
        for need in need {
            if need < 0 || need > items.saturating_mul(cap) {
                return None;
            }
            end += need;
            ends.push(end);
        }
        let at: Vec<(usize, i64)> =
            (0..i64::from(places)).map(|place| (0, place * items)).collect();
        (items > 0 && end == i64::from(places) * items).then_some(Self {
            items,
            ends,
            turn: at.len(),
            at,
        })
    }

    /// Begins with the next item.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.turn = if self.turn + 1 < self.at.len() { self.turn + 1 } else { 0 };
    }

    /// The zone of this place of it.
    #[inline]
    pub(super) fn next(&mut self, place: usize) -> Option<usize> {
        let place = place + self.turn;
        let place = if place < self.at.len() { place } else { place - self.at.len() };
        let (zone, at) = self.at.get_mut(place)?;
        while *at >= *self.ends.get(*zone)? {
            *zone += 1;
        }
        *at += 1;
        Some(*zone)
    }

    /// How many places each zone has got.
    pub(super) fn taken(&self) -> Vec<i64> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let taken = |(start, end): (&i64, &i64)| {
            let of_place = |(place, (_, at)): (i64, &(usize, i64))| {
                ((*at).min(*end) - (place * self.items).max(*start)).max(0)
            };
            (0..).zip(&self.at).map(of_place).sum()
        };
        starts.zip(&self.ends).map(taken).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::flow::index, *};

    /// How many places each zone gets of each item, by item and zone.
    fn dealt(items: i64, places: u32, cap: i64, need: &[i64]) -> Option<Vec<Vec<i64>>> {
        let mut columns = Columns::new(items, places, cap, need.iter().copied())?;
        let mut dealt = Vec::new();
        for _ in 0..items {
            let mut of = vec![0; need.len()];
            columns.begin();
            for place in 0..places as usize {
                of[columns.next(place)?] += 1;
            }
            dealt.push(of);
        }
        assert_eq!(columns.taken(), need);
        Some(dealt)
    }

    #[test]
    fn each_zone_gets_what_it_needs_and_no_item_more_than_the_cap() {
        for (items, places, cap, need) in [
            (7, 3, 1, [7, 7, 7]),
            (7, 3, 2, [8, 6, 7]),
            (7, 3, 2, [14, 0, 7]),
            (5, 2, 1, [5, 1, 4]),
            (1, 5, 2, [2, 2, 1]),
        ] {
            let dealt = dealt(items, places, cap, &need).unwrap_or_default();
            assert_eq!(index(dealt.len()), items);
            for (zone, need) in need.iter().enumerate() {
                assert_eq!(dealt.iter().map(|of| of[zone]).sum::<i64>(), *need);
            }
            assert!(dealt.iter().flatten().all(|there| *there <= cap), "{dealt:?}");
        }
    }

    #[test]
    fn a_zone_comes_to_each_item_before_it_comes_to_one_twice() {
        let dealt = dealt(7, 3, 3, &[7, 6, 8]).unwrap_or_default();
        assert_eq!(dealt.len(), 7);
        assert!(dealt.iter().all(|of| of[0] == 1 && of[1] <= 1 && of[2] >= 1), "{dealt:?}");
    }

    #[test]
    fn what_cannot_be_dealt_so_is_not() {
        assert_eq!(dealt(7, 3, 2, &[15, 0, 6]), None);
        assert_eq!(dealt(7, 3, 2, &[7, 7, 6]), None);
        assert_eq!(dealt(7, 3, 2, &[14, 8, -1]), None);
        assert_eq!(dealt(0, 3, 2, &[0, 0, 0]), None);
    }
}
