//! Replicas that are on their way: to whom, since when, and how many of them are moves.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

/// How many replicas may be on their way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of those that an item has besides as many others as it wants; and how many primaries may be
    /// handed over in a round. `None`: any number.
    pub moves: Option<usize>,
    /// Of all that go to one member. `None`: any number.
    pub inbound: Option<usize>,
    /// For how long one that does not become consistent counts. Default 10 min.
    pub counts_for: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { moves: None, inbound: None, counts_for: Duration::from_secs(600) }
    }
}

impl Budget {
    /// Whether anything is bounded.
    pub(super) fn binds(&self) -> bool {
        self.moves.is_some() || self.inbound.is_some()
    }
}

/// The replicas that are not consistent, of items and to members by their numbers.
#[derive(Debug, Default)]
pub(super) struct Flights {
    items: BTreeMap<u32, Flight>,
    /// Those that count, the oldest first.
    oldest: BTreeSet<(Duration, u32, u32)>,
    to: BTreeMap<u32, usize>,
    moves: usize,
}

/// Those of one item.
#[derive(Debug, Default)]
struct Flight {
    /// How many replicas it has beyond those that it wants, consistent or not.
    surplus: usize,
    legs: BTreeMap<u32, Leg>,
}

#[derive(Clone, Copy, Debug)]
struct Leg {
    since: Duration,
    counts: bool,
}

impl Flight {
    fn counting(&self) -> impl Iterator<Item = (u32, Duration)> + '_ {
        self.legs.iter().filter(|(_, leg)| leg.counts).map(|(member, leg)| (*member, leg.since))
    }

    fn moves(&self) -> usize {
        self.counting().count().min(self.surplus)
    }
}

impl Flights {
    /// Takes over to whom replicas of an item are on their way; who is new there is so from now on.
    pub(super) fn recount(
        &mut self,
        item: u32,
        now: Duration,
        surplus: usize,
        members: impl Iterator<Item = u32>,
    ) {
        let before = self.take(item);
        let leg = |member| before.legs.get(&member).copied();
        let legs = members
            .map(|member| (member, leg(member).unwrap_or(Leg { since: now, counts: true })))
            .collect();
        self.put(item, Flight { surplus, legs });
    }

    /// None of an item's is on its way any more.
    pub(super) fn forget(&mut self, item: u32) {
        self.take(item);
    }

    /// What is on its way since then, or for longer, counts no more.
    pub(super) fn give_up(&mut self, since: Duration) {
        while let Some((_, item, member)) =
            self.oldest.first().filter(|first| first.0 <= since).copied()
        {
            let mut flight = self.take(item);
            if let Some(leg) = flight.legs.get_mut(&member) {
                leg.counts = false;
            }
            self.put(item, flight);
        }
    }

    /// Since when the oldest that counts is on its way.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.oldest.first().map(|(since, ..)| *since)
    }

    /// How many of those that count are moves.
    pub(super) fn moves(&self) -> usize {
        self.moves
    }

    /// How many of those that count go to a member.
    pub(super) fn to(&self, member: u32) -> usize {
        self.to.get(&member).copied().unwrap_or(0)
    }

    fn take(&mut self, item: u32) -> Flight {
        let flight = self.items.remove(&item).unwrap_or_default();
        self.moves -= flight.moves();
        for (member, since) in flight.counting() {
            self.oldest.remove(&(since, item, member));
            if let Entry::Occupied(mut to) = self.to.entry(member) {
                *to.get_mut() -= 1;
                if *to.get() == 0 {
                    to.remove();
                }
            }
        }
        flight
    }

    fn put(&mut self, item: u32, flight: Flight) {
        if flight.legs.is_empty() {
            return;
        }
        self.moves += flight.moves();
        for (member, since) in flight.counting() {
            self.oldest.insert((since, item, member));
            *self.to.entry(member).or_default() += 1;
        }
        self.items.insert(item, flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// How many are moves, and how many go to the members 1 and 2.
    fn counts(flights: &Flights) -> (usize, usize, usize) {
        (flights.moves(), flights.to(1), flights.to(2))
    }

    #[test]
    fn what_an_item_has_beyond_what_it_wants_are_moves_as_far_as_they_are_on_their_way() {
        let mut flights = Flights::default();
        flights.recount(7, MINUTE, 0, [1, 2].into_iter());
        assert_eq!(counts(&flights), (0, 1, 1), "the item lacks both");
        flights.recount(8, MINUTE, 1, [1, 2].into_iter());
        assert_eq!(counts(&flights), (1, 2, 2), "one of two is a move");
        flights.recount(7, MINUTE, 2, [1].into_iter());
        assert_eq!(
            counts(&flights),
            (2, 2, 1),
            "the other one is consistent, and stays beside one"
        );
        flights.forget(8);
        flights.recount(7, MINUTE, 2, [].into_iter());
        assert_eq!(counts(&flights), (0, 0, 0));
        assert!(flights.items.is_empty() && flights.to.is_empty() && flights.oldest.is_empty());
    }

    #[test]
    fn what_is_on_its_way_for_long_counts_no_more() {
        let mut flights = Flights::default();
        flights.recount(7, MINUTE, 2, [1].into_iter());
        // Whoever was there before is on its way since then.
        flights.recount(7, 2 * MINUTE, 2, [1, 2].into_iter());
        assert_eq!((counts(&flights), flights.oldest()), ((2, 1, 1), Some(MINUTE)));
        flights.give_up(MINUTE);
        assert_eq!((counts(&flights), flights.oldest()), ((1, 0, 1), Some(2 * MINUTE)));
        flights.recount(7, 3 * MINUTE, 2, [1, 2].into_iter());
        assert_eq!(
            counts(&flights),
            (1, 0, 1),
            "what counts no more does not begin to count again"
        );
        flights.give_up(3 * MINUTE);
        assert_eq!((counts(&flights), flights.oldest()), ((0, 0, 0), None));
        // It was consistent, or gone, meanwhile.
        flights.recount(7, 4 * MINUTE, 2, [2].into_iter());
        flights.recount(7, 5 * MINUTE, 2, [1, 2].into_iter());
        assert_eq!((counts(&flights), flights.oldest()), ((1, 1, 0), Some(5 * MINUTE)));
    }
}
