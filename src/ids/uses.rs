//! Who uses a key in this process: each has a place, so that coming and going cost the same however
//! many there are.

use std::{sync::Arc, time::Duration};

/// Somebody who uses a key.
#[derive(Clone, Debug)]
pub(super) struct Use {
    pub(super) owner: Option<Arc<str>>,
    /// Since when, in the runtime's time.
    pub(super) since: Duration,
}

/// Which use it is: its place, and a number that no other use of the place has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UseId {
    place: usize,
    number: u64,
}

/// All uses of a key.
#[derive(Debug, Default)]
pub(super) struct Uses {
    places: Vec<Option<(u64, Use)>>,
    free: Vec<usize>,
    /// How many there ever were.
    count: u64,
}

impl Uses {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn add(&mut self, owner: Option<Arc<str>>, since: Duration) -> UseId {
        self.count += 1;
        let (number, used) = (self.count, Use { owner, since });
        let place = self.free.pop().unwrap_or(self.places.len());
        match self.places.get_mut(place) {
            Some(free) => *free = Some((number, used)),
            None => self.places.push(Some((number, used))),
        }
        UseId { place, number }
    }

    pub(super) fn contains(&self, id: UseId) -> bool {
        let standing = self.places.get(id.place).and_then(Option::as_ref);
        standing.is_some_and(|(number, _)| *number == id.number)
    }

    /// Ends a use. Whether it had not ended before.
    pub(super) fn remove(&mut self, id: UseId) -> bool {
        let stands = self.contains(id);
        if stands {
            self.places[id.place] = None;
            self.free.push(id.place);
        }
        stands
    }

    /// Ends all uses of an owner. Returns how many there were.
    pub(super) fn remove_owner(&mut self, owner: &str) -> usize {
        let before = self.free.len();
        for (place, used) in self.places.iter_mut().enumerate() {
            if used.take_if(|(_, used)| used.owner.as_deref() == Some(owner)).is_some() {
                self.free.push(place);
            }
        }
        self.free.len() - before
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.free.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Use> {
        self.places.iter().flatten().map(|(_, used)| used)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_and_an_old_use_does_not_end_the_new_one() {
        let mut uses = Uses::default();
        let [first, second] = [1, 2].map(|second| uses.add(None, Duration::from_secs(second)));
        assert!(uses.remove(first) && !uses.remove(first));
        let third = uses.add(Some("pod".into()), Duration::from_secs(3));
        assert_eq!((third.place, uses.len()), (first.place, 2));
        assert!(!uses.contains(first) && !uses.remove(first));
        assert!(uses.contains(second) && uses.contains(third));
        assert_eq!(uses.remove_owner("pod"), 1);
        assert_eq!((uses.remove_owner("pod"), uses.remove(third), uses.len()), (0, false, 1));
        uses.clear();
        assert!(uses.is_empty() && !uses.remove(second));
        // What was cleared does not come back with a new use in its place.
        let fourth = uses.add(None, Duration::ZERO);
        assert!(!uses.contains(second) && !uses.contains(first) && uses.contains(fourth));
    }
}
