//! What stands now, counted by member and by class, and the items that cannot stay as they are.
//!
//! This is the one reading of all assignments that a plan needs, and mostly only to find those items: what
//! stands is [counted](super::tally) as it comes to stand.

use std::{cmp::Ordering, ops::Range};

use super::{
    by_member::{ByMember, Table},
    draft::pick,
    fair::Fair,
    holder::Holder,
    holdings::Holdings,
    kinds::{Class, NOWHERE, Zones, narrow},
    problem::Problem,
};

/// Members that totals are counted together for: a group, or a whole zone where there are many groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cells {
    /// By cell: its zone, and its members.
    pub list: Vec<(usize, Vec<u32>)>,
    /// By member, its cell, or [`NOWHERE`].
    pub of_member: Vec<u32>,
}

/// Classes times groups up to which each group is a cell.
const DETAIL: usize = 1 << 12;

impl Cells {
    pub(super) fn new(fair: &Fair) -> Self {
        let groups = &fair.groups.list;
        let (zones, of_member) = if fair.classes.list.len().saturating_mul(groups.len()) <= DETAIL {
            let zones = groups.iter().map(|((zone, ..), _)| *zone as usize).collect();
            (zones, fair.groups.of_member.clone())
        } else {
            ((0..fair.zones.len()).collect::<Vec<usize>>(), fair.zones.of_member.to_vec())
        };
        let mut list: Vec<(usize, Vec<u32>)> =
            zones.into_iter().map(|zone| (zone, Vec::new())).collect();
        for (member, cell) in (0..).zip(&of_member).filter(|(_, cell)| **cell != NOWHERE) {
            list[*cell as usize].1.push(member);
        }
        Self { list, of_member }
    }
}

/// What stands and may stay, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// By member.
    pub of_member: Vec<u32>,
    /// By member, those of them that are primaries.
    pub primaries: Vec<u32>,
    /// By class and cell.
    pub of_cell: Vec<u32>,
    /// Those that are not consistent.
    pub raw: u64,
}

impl Standing {
    fn of_nothing(members: usize, cells: usize) -> Self {
        Self {
            of_member: vec![0; members],
            primaries: vec![0; members],
            of_cell: vec![0; cells],
            raw: 0,
        }
    }

    /// Counts replicas, and those of them that are primaries, of a class at a member.
    #[inline]
    fn add(
        &mut self,
        cells: &Cells,
        class: usize,
        member: usize,
        (replicas, primaries): (u32, u32),
    ) {
        self.of_member[member] += replicas;
        self.primaries[member] += primaries;
        self.of_cell[class * cells.list.len() + cells.of_member[member] as usize] += replicas;
    }

    /// Counts items that lack something in their classes, where they were counted as if all stood.
    fn tell_apart(&mut self, problem: &Problem, fair: &Fair, cells: &Cells, lacking: &[u32]) {
        let classes = &fair.classes;
        let whole = |(class, _): &(Class, i64)| classes.find(class.kind()).unwrap_or(0);
        let whole: Vec<usize> = classes.list.iter().map(whole).collect();
        for item in lacking.iter().map(|item| *item as usize) {
            let class = classes.of(problem, item);
            for holder in problem.held().of(item) {
                // Without a branch, because nobody can guess who was lost.
                let stands = fair.is_legal(class, *holder);
                let cell = cells.of_member[holder.member() as usize];
                let cell = std::hint::select_unpredictable(stands, cell, 0) as usize;
                self.of_cell[whole[class] * cells.list.len() + cell] -= u32::from(stands);
                self.of_cell[class * cells.list.len() + cell] += u32::from(stands);
            }
        }
    }

    /// By class and zone.
    pub(super) fn of_zone(&self, fair: &Fair, cells: &Cells) -> Vec<u32> {
        let zones = fair.zones.len();
        let mut of_zone = vec![0; fair.classes.list.len() * zones];
        for (at, held) in self.of_cell.iter().enumerate() {
            let (class, cell) = (at / cells.list.len(), at % cells.list.len());
            of_zone[class * zones + cells.list[cell].0] += held;
        }
        of_zone
    }
}

/// So many rows are a block: of each a member has one replica at most, so half a word counts them.
const BLOCK: usize = 1 << 15;

/// Up to so many classes each member is marked, and counted, in each.
const CLASSES_MAX: usize = 8;

/// Counts what stands, and lists the items that do not have exactly what they want, as far as limits
/// above zero and zones are concerned.
pub(super) fn survey(problem: &Problem, fair: &Fair, cells: &Cells) -> (Standing, Vec<u32>) {
    if fair.classes.list.len() > CLASSES_MAX {
        return survey_classes(problem, fair, cells);
    }
    let mut survey = Survey::new(problem, fair);
    if let Some(mut standing) = counted(problem, fair, cells) {
        survey.read::<false>();
        let unsound = survey.unsound();
        if fair.short && !cells.list.is_empty() {
            standing.tell_apart(problem, fair, cells, &unsound);
        }
        return (standing, unsound);
    }
    survey.read::<true>();
    (survey.standing(cells), survey.unsound())
}

/// What stands, if it was counted as it came to stand, as if of each kind all stood.
fn counted(problem: &Problem, fair: &Fair, cells: &Cells) -> Option<Standing> {
    let kinds = problem.tally().kinds()?;
    let members = problem.seats.len();
    let mut standing = Standing::of_nothing(members, fair.classes.list.len() * cells.list.len());
    standing.raw = problem.tally().raw;
    for of_kind in kinds {
        let (wanted, set) = of_kind.kind;
        let class = fair.classes.find((wanted.min(narrow(members)), set))?;
        for (member, count) in of_kind.of_member().enumerate() {
            if fair.is_legal_in(class, fair.zones.of_member[member]) {
                standing.add(cells, class, member, count);
            }
        }
    }
    Some(standing)
}

/// A survey of items of few classes.
struct Survey<'a> {
    problem: &'a Problem,
    fair: &'a Fair,
    /// By class, then by member, in a byte, so that the nearest memory holds them all: what its zone is called
    /// there, or [`OUT`], where items of the class may not be.
    marks: Vec<ByMember<u8>>,
    /// By class and member, what was counted in the block at hand: replicas in the lower half, primaries in
    /// the upper.
    both: Vec<u32>,
    /// The same of the blocks before.
    counted: Vec<(u32, u32)>,
    /// What all holders have in common.
    common: Holder,
    unsound: Vec<u32>,
    /// The same of the block at hand, as many as there are.
    block: Vec<u32>,
}

/// A mark of all bits, of which no zone's has the highest.
const OUT: u8 = u8::MAX;

impl<'a> Survey<'a> {
    fn new(problem: &'a Problem, fair: &'a Fair) -> Self {
        let marks = |class: usize| {
            let mark = |zone: &u32| {
                if fair.is_legal_in(class, *zone) {
                    zone.to_le_bytes()[0] & (OUT >> 1)
                } else {
                    OUT
                }
            };
            ByMember::new(fair.zones.of_member.iter().map(mark), OUT)
        };
        let marks = (0..fair.classes.list.len()).map(marks).collect();
        Self {
            problem,
            fair,
            marks,
            both: Vec::new(),
            counted: Vec::new(),
            common: Holder::VACANT,
            unsound: Vec::new(),
            block: vec![0; problem.held().len().min(BLOCK)],
        }
    }

    /// Reads all rows, and counts them or not.
    fn read<const COUNTS: bool>(&mut self) {
        if COUNTS {
            let all = self.marks.iter().map(|marks| marks.len()).sum();
            (self.both, self.counted) = (vec![0; all], vec![(0, 0); all]);
        }
        let held = self.problem.held();
        // Of rows whose length is known beforehand nothing has to be asked.
        match held.each() {
            Some(0) => self.all_empty(),
            Some(1) => self.read_blocks::<COUNTS, true>(sized::<1>(held)),
            Some(2) => self.read_blocks::<COUNTS, true>(sized::<2>(held)),
            Some(3) => self.read_blocks::<COUNTS, true>(sized::<3>(held)),
            Some(_) => self
                .read_blocks::<COUNTS, true>(blocks(held, |items| items.map(|item| held.of(item)))),
            None => self.read_blocks::<COUNTS, false>(blocks(held, |items| held.uneven(items))),
        }
    }

    /// Of items that nobody holds all lack something that want something.
    fn all_empty(&mut self) {
        let classes = &self.fair.classes;
        self.unsound = (0..narrow(self.problem.held().len())).collect();
        if classes.list.iter().any(|(class, _)| class.wanted == 0) {
            self.unsound.retain(|item| self.problem.wanted(*item as usize) > 0);
        }
    }

    /// What is counted for a member that may hold nothing is taken back in the end.
    #[inline]
    fn read_blocks<'r, const COUNTS: bool, const SIZED: bool>(
        &mut self,
        blocks: impl Iterator<Item = impl Iterator<Item = &'r [Holder]>>,
    ) {
        let asks = Asks::of(self.problem, self.fair, COUNTS);
        for (number, rows) in blocks.enumerate() {
            self.read_block::<COUNTS, SIZED>(narrow(number * BLOCK), rows, &asks);
            for (both, (replicas, primaries)) in self.both.iter_mut().zip(&mut self.counted) {
                *replicas += *both & 0xffff;
                *primaries += *both >> 16;
                *both = 0;
            }
        }
    }

    #[inline]
    fn read_block<'r, const COUNTS: bool, const SIZED: bool>(
        &mut self,
        first: u32,
        rows: impl Iterator<Item = &'r [Holder]>,
        asks: &Asks,
    ) {
        let Self { problem, fair, marks, both, common, unsound, block, .. } = self;
        let (zones, members) = (&fair.zones, fair.zones.of_member.len());
        let found = match asks {
            Asks::Same(wanted, cap) => {
                let (wanted, cap) = (*wanted, *cap);
                let marks = marks[0].read();
                // Where all rows are as long, that is not asked at each.
                let all_lack = SIZED && problem.held().each() != Some(wanted);
                let lacks = |held: &[Holder]| all_lack | (!SIZED && held.len() != wanted);
                // What the zone rule asks of all is not asked at each.
                match (cap + 1).cmp(&wanted) {
                    Ordering::Less => pick(block, first, rows, |_, held| {
                        let fits = |_, _| fits(zones, held, cap);
                        is_off::<COUNTS>(lacks(held), marks, both, common, held, fits)
                    }),
                    Ordering::Equal => pick(block, first, rows, |_, held| {
                        let apart = |any, all| any != all;
                        is_off::<COUNTS>(lacks(held), marks, both, common, held, apart)
                    }),
                    Ordering::Greater => pick(block, first, rows, |_, held| {
                        is_off::<COUNTS>(lacks(held), marks, both, common, held, |_, _| true)
                    }),
                }
            }
            Asks::ByWanted(caps) => {
                let (marks, most) = (marks[0].read(), caps.len() - 1);
                let wanted = problem.replication.get(first as usize..).unwrap_or_default();
                pick(block, first, rows.zip(wanted), |_, (held, wanted)| {
                    let wanted = (*wanted as usize).min(most);
                    let kept = |any, all| keeps(zones, held, (wanted, caps[wanted]), (any, all));
                    is_off::<COUNTS>(held.len() != wanted, marks, both, common, held, kept)
                })
            }
            Asks::ByClass => pick(block, first, rows, |item, held| {
                let class = fair.classes.of(problem, item as usize);
                let (wanted, cap) = (fair.classes.list[class].0.wanted as usize, fair.caps[class]);
                let marks = marks[class].read();
                let both = both.get_mut(class * members..).unwrap_or_default();
                let kept = |any, all| keeps(zones, held, (wanted, cap), (any, all));
                is_off::<COUNTS>(held.len() != wanted, marks, both, common, held, kept)
            }),
        };
        unsound.extend_from_slice(&block[..found]);
    }

    /// The items that do not have what they want.
    fn unsound(self) -> Vec<u32> {
        let Self { problem, fair, mut unsound, .. } = self;
        if fair.zones.len() > usize::from(OUT >> 1) {
            // Zones that are called the same were taken for one.
            unsound.retain(|item| {
                let item = *item as usize;
                let class = fair.classes.of(problem, item);
                !is_sound(fair, class, problem.wanted(item) as usize, problem.held().of(item))
            });
        }
        unsound
    }

    fn standing(&self, cells: &Cells) -> Standing {
        let members = cells.of_member.len();
        let mut standing =
            Standing::of_nothing(members, self.fair.classes.list.len() * cells.list.len());
        standing.raw = u64::from(!self.common.is_consistent());
        let marks = self.marks.iter().flat_map(|marks| marks.iter());
        for (at, (mark, count)) in marks.zip(&self.counted).enumerate() {
            if *mark != OUT {
                standing.add(cells, at / members, at % members, *count);
            }
        }
        standing
    }
}

/// What is asked of items.
enum Asks {
    /// All want as many replicas, and of those a zone takes so many.
    Same(usize, usize),
    /// All may be in the same zones; by the replicas wanted, how many of those a zone takes.
    ByWanted(Vec<usize>),
    /// What its class wants.
    ByClass,
}

impl Asks {
    /// Where replicas are counted, classes are told apart.
    fn of(problem: &Problem, fair: &Fair, counts: bool) -> Self {
        let classes = &fair.classes.list;
        let Some((first, _)) = classes.first() else { return Self::ByClass };
        let alike = |is: fn(Class) -> (u32, u32)| {
            classes.len() == 1
                || !counts && classes.iter().all(|(class, _)| is(*class) == is(*first))
        };
        if alike(Class::kind) {
            return Self::Same(first.wanted as usize, fair.caps[0]);
        }
        if !alike(|class| (0, class.set)) {
            return Self::ByClass;
        }
        let mut caps = vec![0; problem.seats.len() + 1];
        for ((class, _), cap) in classes.iter().zip(&fair.caps) {
            caps[class.wanted as usize] = *cap;
        }
        Self::ByWanted(caps)
    }
}

/// Whether zones that take `cap` of the `wanted` replicas take these: `any` and `all` are as in [`is_off`].
#[inline]
fn keeps(
    zones: &Zones,
    held: &[Holder],
    (wanted, cap): (usize, usize),
    (any, all): (u8, u8),
) -> bool {
    if cap + 1 < wanted { fits(zones, held, cap) } else { any != all || cap >= wanted }
}

/// Whether an item does not have what it wants: it `lacks` replicas or has too many, or zones whose marks, all
/// bits that `any` and that `all` have, are not `kept` apart; `marks` and what is counted in `both` are those of
/// its class.
#[inline]
fn is_off<const COUNTS: bool>(
    lacks: bool,
    marks: Table<'_, u8>,
    both: &mut [u32],
    common: &mut Holder,
    held: &[Holder],
    kept: impl FnOnce(u8, u8) -> bool,
) -> bool {
    // Zones are alike if each bit that any has, all have; and who is out has all bits.
    let (mut any, mut all) = (0, OUT);
    for holder in held {
        let mark = marks.of(*holder);
        (any, all) = (any | mark, all & mark);
        if COUNTS {
            both[holder.member() as usize] += 1 | u32::from(holder.is_primary()) << 16;
            *common = common.and(*holder);
        }
    }
    let off = |is: bool| u8::from(is);
    off(lacks) | off(any > OUT >> 1) | off(!kept(any, all)) != 0
}

/// Rows that are all of this length, by block.
fn sized<const LEN: usize>(
    rows: &Holdings,
) -> impl Iterator<Item = impl Iterator<Item = &[Holder]>> {
    let blocks = rows.all().as_chunks::<LEN>().0.chunks(BLOCK);
    blocks.map(|rows| rows.iter().map(<[_; LEN]>::as_slice))
}

/// The rows of all items, by block.
fn blocks<'r, R: Iterator<Item = &'r [Holder]>>(
    rows: &Holdings,
    of: impl Fn(Range<usize>) -> R,
) -> impl Iterator<Item = R> {
    let end = rows.len();
    (0..end).step_by(BLOCK).map(move |first| of(first..end.min(first + BLOCK)))
}

/// The same where items are of many classes.
fn survey_classes(problem: &Problem, fair: &Fair, cells: &Cells) -> (Standing, Vec<u32>) {
    let members = problem.seats.len();
    let mut standing = Standing::of_nothing(members, fair.classes.list.len() * cells.list.len());
    let mut unsound = Vec::new();
    for (item, held) in problem.held().iter().enumerate() {
        let class = fair.classes.of(problem, item);
        for holder in held.iter().filter(|holder| fair.is_legal(class, **holder)) {
            let primaries = u32::from(holder.is_primary());
            standing.add(cells, class, holder.member() as usize, (1, primaries));
            standing.raw += u64::from(!holder.is_consistent());
        }
        if !is_sound(fair, class, problem.wanted(item) as usize, held) {
            unsound.push(narrow(item));
        }
    }
    (standing, unsound)
}

/// Whether an item has as many replicas as it should, all of them may stay, and no zone has too many.
pub(super) fn is_sound(fair: &Fair, class: usize, goal: usize, held: &[Holder]) -> bool {
    held.len() == goal
        && held.iter().all(|holder| fair.is_legal(class, *holder))
        && fits(&fair.zones, held, fair.caps[class])
}

/// Whether no zone has more than so many of the holders.
#[inline]
fn fits(zones: &Zones, held: &[Holder], cap: usize) -> bool {
    zones.are_apart(held, cap) || zones.beyond(held, cap) == 0
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            fair::fair,
            seat::{Seat, ZoneRule},
        },
        *,
    };

    #[test]
    fn what_was_counted_as_it_came_to_stand_is_what_stands() {
        for (restricted, rule) in
            [(true, ZoneRule::Two), (false, ZoneRule::Two), (false, ZoneRule::Spread)]
        {
            is_counted_as_it_stands(problem(restricted, rule));
        }
    }

    fn problem(restricted: bool, rule: ZoneRule) -> Problem {
        let mut problem = Problem::new(rule, 0);
        for member in 0..12 {
            problem.add_member(Seat::new(member % 4, 200));
        }
        for item in 0..90 {
            let replicas =
                (0..item % 4).map(|at| Holder::new((item * 5 + at * (1 + item % 5)) % 12));
            let mut row: Vec<Holder> = replicas.collect();
            row.iter_mut().step_by(2).for_each(|holder| *holder = holder.consistent());
            if let Some(first) = row.first_mut().filter(|_| item % 3 > 0) {
                *first = first.primary();
            }
            problem.add_item(1 + item % 2, &row);
            if restricted && item % 7 == 0 {
                problem.restrict(&[0, 1, 3]);
            }
        }
        problem.add_member(Seat::new(0, 200));
        problem
    }

    fn is_counted_as_it_stands(mut problem: Problem) {
        let held = problem.held().clone();
        for (again, limit) in [(false, 200), (true, 200), (true, 5)] {
            problem.seats.iter_mut().for_each(|seat| seat.limit = limit);
            problem.seats[2].limit = 0;
            if again {
                problem.hold(held.clone());
            }
            let fair = fair(&problem);
            assert_eq!(fair.short, limit == 5);
            let cells = Cells::new(&fair);
            let mut survey = Survey::new(&problem, &fair);
            survey.read::<true>();
            let read = survey.standing(&cells);
            let unsound = survey.unsound();
            let mut counted = counted(&problem, &fair, &cells).unwrap_or_default();
            assert!(counted.raw > 0);
            counted.raw = read.raw;
            assert_eq!(counted == read, !fair.short);
            counted.tell_apart(&problem, &fair, &cells, &unsound);
            assert_eq!(counted, read);
            let (by_class, lacking) = survey_classes(&problem, &fair, &cells);
            assert_eq!(Standing { raw: read.raw, ..by_class }, read);
            assert_eq!(unsound, lacking);
            let mut quick = Survey::new(&problem, &fair);
            quick.read::<false>();
            assert_eq!(quick.unsound(), lacking);
        }
    }
}
