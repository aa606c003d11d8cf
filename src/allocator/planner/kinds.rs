//! What is alike, and need not be told apart: classes of items, groups of members, and open zones.
//!
//! However many items and members there are, there are few kinds of them, and the totals of a plan
//! follow from those.

use std::collections::BTreeMap;

use super::{
    by_member::ByMember, holder::Holder, problem::Problem, seat::Seat, takers::spread,
    tally::OfKind,
};

/// The zone of a member that may hold nothing.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Rows of more holders than this are not compared pair by pair.
const LONG: usize = 16;

/// The zones with a member that may hold something, numbered from zero in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Zones {
    /// By member: the number of its zone, or [`NOWHERE`].
    pub of_member: ByMember<u32>,
    /// What each zone is called in the problem.
    pub names: Vec<u32>,
}

impl Zones {
    pub(super) fn new(problem: &Problem) -> Self {
        let open = || problem.seats.iter().filter(|seat| seat.limit > 0);
        let mut names: Vec<u32> = open().map(|seat| seat.zone).collect();
        names.sort_unstable();
        names.dedup();
        let number = |zone| names.binary_search(&zone).map_or(NOWHERE, narrow);
        let zone = |seat: &Seat| if seat.limit == 0 { NOWHERE } else { number(seat.zone) };
        Self { of_member: ByMember::new(problem.seats.iter().map(zone), NOWHERE), names }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The zone of a holder, if that may hold anything.
    #[inline]
    pub(super) fn of(&self, holder: Holder) -> u32 {
        self.of_member[holder.member() as usize]
    }

    /// Whether it is seen at once that no zone has more than `cap`, one at least, of these holders; without
    /// a branch, because nobody can guess which those are.
    #[inline]
    pub(super) fn are_apart(&self, holders: &[Holder], cap: usize) -> bool {
        let zones = self.of_member.read();
        if let Ok(three) = <&[Holder; 3]>::try_from(holders) {
            let [one, two, three] = three.map(|holder| zones.of(holder));
            let pairs = [one == two, two == three, one == three];
            return pairs.map(usize::from).iter().sum::<usize>() <= cap * cap.saturating_sub(1) / 2;
        }
        let (mut seen, mut again) = (0u64, 0);
        for holder in holders {
            let zone = 1 << (zones.of(*holder) % 64);
            (seen, again) = (seen | zone, again | seen & zone);
        }
        let several = seen & seen.wrapping_sub(1) != 0;
        // Nor can anybody guess where two are in one zone.
        let all_fit = u8::from(several) & u8::from(cap + 1 >= holders.len());
        u8::from(again == 0) | all_fit | u8::from(cap >= holders.len()) != 0
    }

    /// How many of the holders are beyond what a zone may take.
    pub(super) fn beyond(&self, holders: &[Holder], cap: usize) -> usize {
        let zone = |holder: &Holder| self.of(*holder);
        if holders.len() <= LONG {
            let before = |at: usize| {
                holders[..at].iter().filter(|other| zone(other) == zone(&holders[at])).count()
            };
            return (0..holders.len()).filter(|at| before(*at) >= cap).count();
        }
        let mut of: Vec<u32> = holders.iter().map(zone).collect();
        of.sort_unstable();
        of.chunk_by(|one, other| one == other).map(|zone| zone.len().saturating_sub(cap)).sum()
    }
}

/// What items of one class have in common: the replicas wanted, the set of zones, and, where not
/// all fits, the replicas that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub wanted: u32,
    pub set: u32,
    pub standing: u32,
}

/// The classes, how many items are of each, and each item's class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    pub list: Vec<(Class, i64)>,
    of: Of,
}

/// How the class of an item is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Of {
    /// There is one class.
    #[default]
    One,
    /// By the replicas that it wants.
    Wanted(Vec<u32>),
    /// By the replicas that it wants, and its set of zones.
    Kind(BTreeMap<(u32, u32), u32>),
    /// By its number.
    Item(Vec<u32>),
}

impl Classes {
    /// The classes, as if all that is wanted fitted.
    pub(super) fn new(problem: &Problem) -> Self {
        if !problem.zone_set.is_empty() {
            return Self::by_item(problem, |_| 0);
        }
        if let Some(kinds) = problem.tally().kinds() {
            let kinds = kinds.iter().map(|of_kind| (of_kind.kind, i64::from(of_kind.items)));
            return Self::by_kind(problem, kinds);
        }
        let mut items = vec![0; problem.seats.len() + 1];
        for item in 0..problem.replication.len() {
            items[problem.wanted(item) as usize] += 1;
        }
        let kinds = (0..).zip(items).filter(|(_, items)| *items > 0);
        Self::by_kind(problem, kinds.map(|(wanted, items)| ((wanted, 0), items)))
    }

    /// The classes where not all that is wanted fits: those that have something are told from those
    /// that lack it.
    pub(super) fn with_standing(problem: &Problem) -> Self {
        if !problem.zone_set.is_empty() {
            return Self::by_item(problem, |item| standing(problem, item));
        }
        // Counted without a branch, because nobody can guess where members were lost.
        let open: Vec<u8> = problem.seats.iter().map(|seat| u8::from(seat.limit > 0)).collect();
        let is_open = |holder: &Holder| u32::from(open[holder.member() as usize]);
        let count = |row: &[Holder]| row.iter().map(is_open).sum::<u32>();
        let held = problem.held();
        match (problem.tally().kinds(), held.threes()) {
            (Some(kinds), Some(rows)) => {
                Self::by_lack(problem, kinds, rows.iter().map(|row| count(row)))
            }
            (Some(kinds), None) => Self::by_lack(problem, kinds, held.iter().map(count)),
            (None, _) => {
                Self::by_item(problem, |item| count(held.of(item)).min(problem.wanted(item)))
            }
        }
    }

    /// The classes of items of few kinds, in any zones.
    fn by_lack(problem: &Problem, kinds: &[OfKind], standing: impl Iterator<Item = u32>) -> Self {
        let most = narrow(problem.seats.len());
        // By the replicas wanted, the class of those of which nothing stands; behind it are the others.
        let mut first = vec![0; problem.seats.len() + 1];
        let mut list: Vec<(Class, i64)> = Vec::new();
        for wanted in kinds.iter().map(|of_kind| of_kind.kind.0.min(most)) {
            if list.last().is_none_or(|(class, _)| class.wanted != wanted) {
                first[wanted as usize] = narrow(list.len());
                list.extend((0..=wanted).map(|standing| (Class { wanted, set: 0, standing }, 0)));
            }
        }
        let of = problem.replication.iter().zip(standing).map(|(wanted, standing)| {
            let wanted = *wanted.min(&most);
            let class = first[wanted as usize] + standing.min(wanted);
            list[class as usize].1 += 1;
            class
        });
        let mut of: Vec<u32> = of.collect();
        if list.iter().any(|(_, items)| *items == 0) {
            let number = |next: &mut u32, (_, items): &(Class, i64)| {
                let number = *next;
                *next += u32::from(*items > 0);
                Some(number)
            };
            let numbers: Vec<u32> = list.iter().scan(0, number).collect();
            for class in &mut of {
                *class = numbers[*class as usize];
            }
            list.retain(|(_, items)| *items > 0);
        }
        let of = if list.len() > 1 { Of::Item(of) } else { Of::One };
        Self { list, of }
    }

    /// The classes of items that are counted already, by the replicas wanted and the set of zones.
    pub(super) fn by_kind(
        problem: &Problem,
        kinds: impl Iterator<Item = ((u32, u32), i64)>,
    ) -> Self {
        let mut list: Vec<(Class, i64)> = Vec::new();
        let mut numbers = BTreeMap::new();
        for ((replication, set), items) in kinds {
            let wanted = replication.min(narrow(problem.seats.len()));
            let number = *numbers.entry((wanted, set)).or_insert_with(|| {
                list.push((Class { wanted, set, standing: 0 }, 0));
                narrow(list.len() - 1)
            });
            list[number as usize].1 += items;
        }
        let of = if list.len() <= 1 {
            Of::One
        } else if numbers.keys().all(|(_, set)| *set == 0) {
            let mut of = vec![0; problem.seats.len() + 1];
            for ((wanted, _), number) in numbers {
                of[wanted as usize] = number;
            }
            Of::Wanted(of)
        } else {
            Of::Kind(numbers)
        };
        Self { list, of }
    }

    fn by_item(problem: &Problem, standing: impl Fn(usize) -> u32) -> Self {
        let items = problem.replication.len();
        let mut list: Vec<(Class, i64)> = Vec::new();
        let mut of = Vec::with_capacity(items);
        let mut known: BTreeMap<Class, usize> = BTreeMap::new();
        // Of those that share a place the last is found at once; mostly none do.
        let mut recent = [usize::MAX; RECENT];
        for item in 0..items {
            let set = problem.zone_set.get(item).copied().unwrap_or(0);
            let class = Class { wanted: problem.wanted(item), set, standing: standing(item) };
            let place = &mut recent[class.place()];
            if list.get(*place).is_none_or(|(other, _)| *other != class) {
                *place = *known.entry(class).or_insert_with(|| {
                    list.push((class, 0));
                    list.len() - 1
                });
            }
            list[*place].1 += 1;
            of.push(narrow(*place));
        }
        let of = if list.len() <= 1 { Of::One } else { Of::Item(of) };
        Self { list, of }
    }

    /// The class of an item.
    #[inline]
    pub(super) fn of(&self, problem: &Problem, item: usize) -> usize {
        match &self.of {
            Of::One => 0,
            Of::Wanted(of) => of[problem.wanted(item) as usize] as usize,
            Of::Item(of) => of[item] as usize,
            Of::Kind(of) => {
                let set = problem.zone_set.get(item).copied().unwrap_or(0);
                of.get(&(problem.wanted(item), set)).map_or(0, |class| *class as usize)
            }
        }
    }

    /// The class of items that want so many replicas, in a set of zones: of several the one that lacks least.
    pub(super) fn find(&self, kind: (u32, u32)) -> Option<usize> {
        let alike = (0..self.list.len()).filter(|class| self.list[*class].0.kind() == kind);
        alike.max_by_key(|class| self.list[*class].0.standing)
    }

    /// How many replicas are wanted, each on a member of its own.
    pub(super) fn wanted(&self) -> i64 {
        self.list.iter().map(|(class, items)| i64::from(class.wanted) * items).sum()
    }
}

impl Class {
    /// What its items want.
    pub(super) fn kind(self) -> (u32, u32) {
        (self.wanted, self.set)
    }

    /// Where it is looked for first.
    fn place(self) -> usize {
        (self.standing % 8 + self.wanted % 8 * 8 + self.set % 4 * 64) as usize % RECENT
    }

    /// The ranks of its replicas, and how many of each rank an item wants: rank zero are those that
    /// stand, then come the first, the second, and so on. Beyond [`RANKS`] a rank has twice as many
    /// replicas as the one before, because nobody minds and each rank costs.
    pub(super) fn ranks(self) -> Vec<(u32, i64)> {
        let mut ranks = Vec::new();
        if self.standing > 0 {
            ranks.push((0, i64::from(self.standing)));
        }
        for replica in self.standing + 1..=self.wanted {
            let rank = if replica <= RANKS { replica } else { replica.next_power_of_two() };
            match ranks.last_mut() {
                Some((last, replicas)) if *last == rank => *replicas += 1,
                _ => ranks.push((rank, 1)),
            }
        }
        ranks
    }
}

/// So many classes are found at once.
const RECENT: usize = 256;

/// Up to so many replicas of an item are each a rank.
const RANKS: u32 = 64;

/// Zone, limit and share.
pub(super) type Group = (u32, i64, u32);

/// The groups of members that may hold something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    /// Each with how many members it has.
    pub list: Vec<(Group, i64)>,
    /// By member, its group, or [`NOWHERE`].
    pub of_member: Vec<u32>,
}

impl Groups {
    pub(super) fn new(problem: &Problem, zones: &Zones) -> Self {
        let mut list: Vec<(Group, i64)> = Vec::new();
        // Each group stands at a place that follows from what it is, or at the next that was free.
        let mut table = vec![NOWHERE; 2 * problem.seats.len() + 1];
        let members = problem.seats.iter().enumerate().zip(&*zones.of_member);
        let of_member = members.map(|((member, seat), zone)| {
            if *zone == NOWHERE {
                return NOWHERE;
            }
            let key = (*zone, problem.limit(member), seat.share.max(1));
            let place = place_of(&table, &list, key);
            if let Some((_, members)) = list.get_mut(table[place] as usize) {
                *members += 1;
            } else {
                table[place] = narrow(list.len());
                list.push((key, 1));
            }
            table[place]
        });
        let of_member = of_member.collect();
        Self { list, of_member }
    }
}

/// Where a group stands in the table, or would.
fn place_of(table: &[u32], list: &[(Group, i64)], key: Group) -> usize {
    let (zone, limit, share) = key;
    let seed = limit.unsigned_abs() << 32 ^ u64::from(zone) << 16 ^ u64::from(share);
    let mut place = spread(seed, table.len());
    while list.get(table[place] as usize).is_some_and(|(other, _)| *other != key) {
        place = place.checked_sub(1).unwrap_or(table.len() - 1);
    }
    place
}

/// How many replicas of an item stand and may stay, of those that it wants.
pub(super) fn standing(problem: &Problem, item: usize) -> u32 {
    let legal = problem.held().of(item).iter().filter(|holder| problem.legal(item, **holder));
    narrow(legal.count()).min(problem.wanted(item))
}

/// A number of items, members, zones or classes.
pub(super) fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
