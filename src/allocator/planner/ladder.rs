//! The zones of one class of items in the order of what they lack.

/// See the [module](self). Mostly the one that lacks most is taken, and then nothing has to be compared.
#[derive(Clone, Debug)]
pub(super) struct Ladder {
    /// By zone, how many replicas are still to come there; less than none, if there are too many.
    need: Vec<i64>,
    /// First those that are hidden, then those that take part, most first.
    order: Vec<u32>,
    /// By zone, its place in that order, if it has one.
    places: Vec<usize>,
    hidden: usize,
    /// Those up to here lack most, and nobody more; the last of them is the next.
    top: usize,
    /// Decides between equals, so that zones do not take turns in an order that items follow too.
    coin: u64,
}

/// No place in the order.
const OUT: usize = usize::MAX;

impl Ladder {
    pub(super) fn new(need: &[i64], open: impl Iterator<Item = bool>) -> Self {
        let open = (0..).zip(open).filter(|(_, open)| *open);
        let mut order: Vec<u32> = open.map(|(zone, _)| zone).collect();
        order.sort_by_key(|zone| std::cmp::Reverse(need[*zone as usize]));
        let mut places = vec![OUT; need.len()];
        for (place, zone) in order.iter().enumerate() {
            places[*zone as usize] = place;
        }
        let mut ladder = Self { need: need.to_vec(), order, places, hidden: 0, top: 0, coin: 1 };
        ladder.deal();
        ladder
    }

    /// Finds those who lack most now, and shuffles them.
    fn deal(&mut self) {
        let Self { need, order, places, hidden, .. } = self;
        let rest = order.get_mut(*hidden..).unwrap_or_default();
        let most = rest.first().map(|zone| need[*zone as usize]);
        let equal = |zone: &&u32| Some(need[**zone as usize]) == most;
        let equals = rest.iter().take_while(equal).count();
        let top = &mut rest[..equals];
        for place in 1..top.len() {
            self.coin = self.coin.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            let others = (place + 1) as u64;
            let other = usize::try_from(((self.coin >> 32) * others) >> 32).unwrap_or(0);
            top.swap(place, other);
        }
        for (place, zone) in (*hidden..).zip(top) {
            places[*zone as usize] = place;
        }
        self.top = *hidden + equals;
    }

    #[inline]
    fn swap(&mut self, one: usize, other: usize) {
        self.order.swap(one, other);
        for place in [one, other] {
            self.places[self.order[place] as usize] = place;
        }
    }

    /// What the zone at a place lacks.
    fn at(&self, place: usize) -> i64 {
        self.need[self.order[place] as usize]
    }

    /// Brings the zone at a place to where it belongs, past all equals at once. Returns where that is.
    fn sift(&mut self, mut place: usize) -> usize {
        let need = self.at(place);
        while place > self.hidden && self.at(place - 1) < need {
            let next = self.at(place - 1);
            let before = &self.order[self.hidden..place];
            let first = before.partition_point(|zone| self.need[*zone as usize] > next);
            self.swap(place, self.hidden + first);
            place = self.hidden + first;
        }
        while place + 1 < self.order.len() && self.at(place + 1) > need {
            let next = self.at(place + 1);
            let behind = &self.order[place + 1..];
            let equal = behind.partition_point(|zone| self.need[*zone as usize] >= next);
            self.swap(place, place + equal);
            place += equal;
        }
        place
    }

    /// Of those that take part, the zone that lacks most.
    #[inline]
    pub(super) fn best(&self) -> Option<usize> {
        (self.top > self.hidden).then(|| self.order[self.top - 1] as usize)
    }

    /// Lets the zone that lacks most give something, which it then lacks no more, if it has anything to give.
    #[inline]
    pub(super) fn take<T>(&mut self, give: impl FnOnce(usize) -> Option<T>) -> Option<T> {
        let zone = self.best()?;
        let given = give(zone)?;
        self.need[zone] -= 1;
        // With one less it is the first of the next ones.
        self.top -= 1;
        if self.top == self.hidden {
            self.deal();
        }
        Some(given)
    }

    /// How many replicas are still to come to a zone.
    pub(super) fn need(&self, zone: usize) -> i64 {
        self.need[zone]
    }

    /// Changes that.
    #[inline]
    pub(super) fn change(&mut self, zone: usize, by: i64) {
        self.need[zone] += by;
        let place = self.places[zone];
        if by == -1 && place + 1 == self.top && place >= self.hidden {
            // With one less it is the first of the next ones.
            self.top = place;
            if self.top == self.hidden {
                self.deal();
            }
        } else {
            self.change_any(place, by);
        }
    }

    /// The same of the zone at any place.
    fn change_any(&mut self, mut place: usize, by: i64) {
        if place == OUT || place < self.hidden || by == 0 {
            return;
        }
        if place < self.top {
            self.top -= 1;
            self.swap(place, self.top);
            place = self.top;
        }
        let place = self.sift(place);
        if self.top == self.hidden || self.at(place) == self.at(self.hidden) {
            self.deal();
        }
    }

    /// Takes a zone out.
    pub(super) fn hide(&mut self, zone: usize) {
        let mut place = self.places[zone];
        if place == OUT || place < self.hidden {
            return;
        }
        // Mostly it is one of those that lack most.
        while place > self.top {
            self.swap(place, place - 1);
            place -= 1;
        }
        self.top += usize::from(place == self.top);
        self.swap(place, self.hidden);
        self.hidden += 1;
        if self.hidden == self.top {
            self.deal();
        }
    }

    /// Brings it back.
    pub(super) fn show(&mut self, zone: usize) {
        let place = self.places[zone];
        if place < self.hidden {
            self.hidden -= 1;
            self.swap(place, self.hidden);
            self.sift(self.hidden);
            self.deal();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_lacks_most_wins_however_many_take_part() {
        for zones in [1, 2, 3, 4, 5, 16, 17, 70] {
            let mut needs: Vec<i64> = (0..zones).map(|zone| zone * 7 % 5).collect();
            let open = |zone: usize| zone % 4 != 3;
            let mut ladder = Ladder::new(&needs, (0..needs.len()).map(open));
            let mut hidden: Option<usize> = None;
            for turn in 0..200 {
                let takes_part = |zone: &usize| open(*zone) && Some(*zone) != hidden;
                let most = (0..needs.len()).filter(takes_part).map(|zone| needs[zone]).max();
                let best = ladder.best();
                assert_eq!(best.map(|zone| needs[zone]), most, "{zones} zones, turn {turn}");
                assert!(best.iter().all(takes_part), "{zones} zones, turn {turn}");
                if let Some(zone) = hidden.take() {
                    ladder.show(zone);
                } else if let Some(zone) = best {
                    let mut other = ladder.clone();
                    assert_eq!(other.take(Some), Some(zone));
                    ladder.change(zone, -1);
                    assert_eq!((&other.need, &other.order), (&ladder.need, &ladder.order));
                    assert_eq!((&other.places, other.top), (&ladder.places, ladder.top));
                    needs[zone] -= 1;
                    if turn % 3 == 0 {
                        ladder.hide(zone);
                        hidden = Some(zone);
                    }
                }
            }
        }
    }

    #[test]
    fn equals_do_not_win_in_turns() {
        let mut ladder = Ladder::new(&[1_000; 3], [true; 3].into_iter());
        let mut after = [[0; 3]; 3];
        let mut last = 0;
        while let Some(zone) = ladder.best().filter(|zone| ladder.need(*zone) > 0) {
            ladder.change(zone, -1);
            after[last][zone] += 1;
            last = zone;
        }
        assert!((0..3).all(|zone| after[zone].iter().all(|times| *times > 50)), "{after:?}");
    }
}
