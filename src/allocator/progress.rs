//! Which items are to be looked at, and what those wait for that do not stand as meant.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::flights::{Budget, Flights};

/// What an item is doing that does not stand as it is meant to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// It is being changed now.
    Changing,
    /// It waits until its replicas are consistent.
    Copying,
    /// It waits until a member has room.
    NoRoom,
    /// It waits until fewer replicas are on their way.
    OverBudget,
    /// It keeps replicas where they should not be, until there is another place for them.
    NoPlace,
    /// It keeps replicas that should go: it wants more than one transaction can compare, and so nobody can
    /// say that as many stay.
    TooLarge,
}

impl Doing {
    /// Whether it waits for the room or the budget that others take up.
    fn waits_for_others(self) -> bool {
        matches!(self, Self::NoRoom | Self::OverBudget)
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changing => "being changed",
            Self::Copying => "waiting until replicas are consistent",
            Self::NoRoom => "waiting until a member has room",
            Self::OverBudget => "waiting until fewer replicas are on their way",
            Self::NoPlace => "kept where they should not be, until there is another place",
            Self::TooLarge => {
                "keeping replicas that should go: too many are wanted for one transaction"
            }
        })
    }
}

/// Why an item is to be held otherwise than it is. Members go by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// It is deleted.
    Deleted,
    /// Who holds it does not stand any more.
    Gone(u32),
    /// Who holds it wants to leave.
    Leaves(u32),
    /// From who holds it, or is its primary, something is taken from outside.
    Judged(u32),
    /// Who holds it has more than it may.
    Overfull(u32),
    /// It has too few replicas.
    Lacks,
    /// So that primaries are even.
    Primaries,
    /// So that loads are even.
    Loads,
}

/// The items that are not settled. Each is looked at when it has changed, or when what it waits for
/// may be there; so a round costs what has changed, and not what is under way. Items go by their
/// numbers.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// To be looked at.
    dirty: BTreeSet<u32>,
    /// One of those is not as safe as it should be, or has waited for others already.
    pressing: bool,
    /// A replica of one of those has become consistent.
    readier: bool,
    /// Those that were looked at, and why they move, if they do.
    doing: BTreeMap<u32, (Doing, Option<Cause>)>,
    counts: BTreeMap<Doing, usize>,
    causes: BTreeMap<Cause, usize>,
    /// Who waits for a member's room.
    rooms: BTreeMap<u32, BTreeSet<u32>>,
    /// Who waits until fewer replicas are on their way to a member.
    inbound: BTreeMap<u32, BTreeSet<u32>>,
    /// Who waits until fewer moves are under way.
    moves: BTreeSet<u32>,
    /// What is on its way, where that is bounded.
    pub(super) flights: Flights,
}

/// What an item waits for that others take up.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Members that have no room.
    pub(super) rooms: Vec<u32>,
    /// Members to which as many replicas are on their way as may be.
    pub(super) inbound: Vec<u32>,
    /// As many moves are under way as may be.
    pub(super) moves: bool,
    /// As many primaries are handed over in this round as may be.
    pub(super) hands: bool,
}

impl Waits {
    /// Whether it waits for others that move.
    pub(super) fn is_over_budget(&self) -> bool {
        self.moves || self.hands || !self.inbound.is_empty()
    }
}

impl Progress {
    /// An item has changed, or has to be looked at anew.
    pub(super) fn touch(&mut self, item: u32) {
        // What it has waited for may be there: it waits for nothing else before it is looked at.
        self.pressing |= self.forget(item).is_some_and(Doing::waits_for_others);
        self.dirty.insert(item);
    }

    /// One of the items to be looked at is not as safe as it should be.
    pub(super) fn hurry(&mut self) {
        self.pressing = true;
    }

    /// A replica of one of the items to be looked at has become consistent.
    pub(super) fn ready(&mut self) {
        self.readier = true;
    }

    /// Whether there may be something to be done, because replicas have become consistent, and nothing in
    /// it, or behind it, that should not wait: no item is in danger, and none waits, or has waited, for
    /// the room or the budget of those that are done with.
    pub(super) fn may_wait(&self) -> bool {
        self.readier && !self.pressing && !self.counts.keys().any(|doing| doing.waits_for_others())
    }

    /// An item is gone, or stands as it is meant to.
    pub(super) fn settle(&mut self, item: u32) {
        self.forget(item);
        self.dirty.remove(&item);
        self.flights.forget(item);
    }

    /// Only these items are not settled, and all of them are to be looked at.
    pub(super) fn restart(&mut self, unsettled: BTreeSet<u32>) {
        *self = Self { dirty: unsettled, ..Self::default() };
    }

    /// A member has one item less.
    pub(super) fn freed(&mut self, member: u32) {
        for item in self.rooms.remove(&member).unwrap_or_default() {
            self.touch(item);
        }
    }

    /// What an item that was looked at is doing, why it moves, and what it waits for.
    pub(super) fn wait(
        &mut self,
        item: u32,
        (doing, cause): (Doing, Option<Cause>),
        waits: &Waits,
    ) {
        self.dirty.remove(&item);
        let before = self.doing.insert(item, (doing, cause));
        self.uncount(item, before);
        *self.counts.entry(doing).or_default() += 1;
        if let Some(cause) = cause {
            *self.causes.entry(cause).or_default() += 1;
        }
        if waits.moves {
            self.moves.insert(item);
        }
        if waits.hands {
            // Others may be handed over in the next round.
            self.dirty.insert(item);
        }
        for member in &waits.rooms {
            self.rooms.entry(*member).or_default().insert(item);
        }
        for member in &waits.inbound {
            self.inbound.entry(*member).or_default().insert(item);
        }
    }

    /// Returns what the item was doing.
    fn forget(&mut self, item: u32) -> Option<Doing> {
        let before = self.doing.remove(&item);
        self.uncount(item, before);
        before.map(|(doing, _)| doing)
    }

    fn uncount(&mut self, item: u32, before: Option<(Doing, Option<Cause>)>) {
        let Some((doing, cause)) = before else { return };
        one_less(&mut self.counts, doing);
        if let Some(cause) = cause {
            one_less(&mut self.causes, cause);
        }
        self.moves.remove(&item);
        // Who waits for a member is found there when there is something.
    }

    /// The items to be looked at; those that wait for the budget too, as far as there is some.
    pub(super) fn take(&mut self, budget: &Budget) -> BTreeSet<u32> {
        (self.pressing, self.readier) = (false, false);
        let mut items = std::mem::take(&mut self.dirty);
        let Self { flights, inbound, moves, .. } = self;
        if budget.moves.is_none_or(|most| flights.moves() < most) {
            items.extend(&*moves);
        }
        inbound.retain(|member, waiting| {
            let waits = budget.inbound.is_some_and(|most| flights.to(*member) >= most);
            if !waits {
                items.append(waiting);
            }
            waits
        });
        items
    }

    /// When there is budget again for those that wait for it, at the latest.
    pub(super) fn budget_ends(&self, budget: &Budget) -> Option<Duration> {
        self.counts.get(&Doing::OverBudget)?;
        self.flights.oldest().map(|since| since.saturating_add(budget.counts_for))
    }

    /// The items that have changed since they were looked at.
    pub(super) fn dirty(&self) -> &BTreeSet<u32> {
        &self.dirty
    }

    /// Items that were looked at and are not settled.
    pub(super) fn doing(&self) -> &BTreeMap<u32, (Doing, Option<Cause>)> {
        &self.doing
    }

    /// How many of them move for what cause.
    pub(super) fn causes(&self) -> &BTreeMap<Cause, usize> {
        &self.causes
    }

    /// How many items are doing what.
    pub(super) fn counts(&self) -> &BTreeMap<Doing, usize> {
        &self.counts
    }
}

fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing more may be on its way, and anything.
    const FULL: Budget =
        Budget { moves: Some(0), inbound: Some(0), counts_for: Duration::from_secs(1) };
    const FREE: Budget = Budget { moves: None, inbound: None, ..FULL };

    #[test]
    fn what_is_to_be_done_waits_unless_an_item_is_in_danger_or_others_wait_for_it() {
        let mut progress = Progress::default();
        progress.touch(1);
        assert!(!progress.may_wait(), "nobody is readier than when items were last looked at");
        progress.ready();
        assert!(progress.may_wait());
        progress.hurry();
        assert!(!progress.may_wait());
        progress.take(&FULL);
        assert!(!progress.may_wait(), "all was looked at");
        progress.ready();
        assert!(progress.may_wait(), "what was in danger was looked at");
        for doing in [Doing::NoRoom, Doing::OverBudget, Doing::Copying] {
            progress.wait(2, (doing, None), &Waits::default());
            assert_eq!(progress.may_wait(), doing == Doing::Copying, "{doing}");
            progress.settle(2);
        }
    }

    #[test]
    fn what_was_on_its_way_before_a_restart_is_counted_anew() {
        let mut progress = Progress::default();
        progress.flights.recount(1, Duration::ZERO, 1, [7].into_iter());
        // It became consistent meanwhile, and nobody has looked at it since.
        progress.touch(1);
        progress.restart(BTreeSet::from([2]));
        assert_eq!((progress.flights.moves(), progress.flights.to(7)), (0, 0));
        assert_eq!(progress.take(&FREE), BTreeSet::from([2]));
    }

    #[test]
    fn who_has_waited_for_others_waits_no_longer_when_that_is_there() {
        for doing in [Doing::NoRoom, Doing::OverBudget, Doing::Copying] {
            let mut progress = Progress::default();
            progress.wait(1, (doing, None), &Waits { rooms: vec![7], ..Waits::default() });
            progress.freed(7);
            progress.ready();
            assert_eq!(progress.may_wait(), doing == Doing::Copying, "{doing}");
            progress.take(&FREE);
            progress.ready();
            assert!(progress.may_wait(), "it was looked at");
        }
    }

    #[test]
    fn who_waits_is_looked_at_when_that_may_be_there() {
        let mut progress = Progress::default();
        let [a, b, c] = [1, 2, 3];
        for item in [a, b, c] {
            progress.touch(item);
        }
        assert_eq!(progress.take(&FULL), BTreeSet::from([a, b, c]));
        let rooms = Waits { rooms: vec![1, 2], ..Waits::default() };
        progress.wait(a, (Doing::NoRoom, Some(Cause::Gone(3))), &rooms);
        let moves = Waits { moves: true, ..Waits::default() };
        progress.wait(b, (Doing::OverBudget, Some(Cause::Gone(3))), &moves);
        progress.wait(c, (Doing::Copying, None), &Waits::default());
        assert_eq!(progress.counts().len(), 3);
        assert_eq!(progress.causes(), &BTreeMap::from([(Cause::Gone(3), 2)]));
        assert_eq!(progress.take(&FULL), BTreeSet::from([]));
        assert_eq!(progress.take(&FREE), BTreeSet::from([b]));
        progress.freed(3);
        assert_eq!(progress.take(&FULL), BTreeSet::from([]));
        progress.freed(2);
        assert_eq!(progress.take(&FULL), BTreeSet::from([a]));
        progress.settle(c);
        assert_eq!(progress.counts().len(), 1, "only b waits");
        assert_eq!(progress.causes(), &BTreeMap::from([(Cause::Gone(3), 1)]));
        let inbound = Waits { inbound: vec![4, 5], hands: true, ..Waits::default() };
        progress.wait(a, (Doing::OverBudget, None), &inbound);
        assert_eq!(progress.take(&FULL), BTreeSet::from([a]), "a round later it may hand over");
        progress.wait(a, (Doing::OverBudget, None), &Waits { hands: false, ..inbound });
        progress.flights.recount(b, Duration::ZERO, 0, [4, 5].into_iter());
        let one = Budget { inbound: Some(1), ..FULL };
        assert_eq!(progress.take(&one), BTreeSet::from([]));
        progress.flights.recount(b, Duration::ZERO, 0, [4].into_iter());
        assert_eq!(progress.take(&one), BTreeSet::from([a]), "one of them is free");
        // It is dirty again because of the member that it waited for first; that costs a look.
        progress.freed(1);
        assert_eq!(progress.take(&FULL), BTreeSet::from([a]));
    }
}
