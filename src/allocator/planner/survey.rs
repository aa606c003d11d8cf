//! What stands now, counted by member and by class, and the items that cannot stay as they are.
//!
//! This is the one reading of all assignments that a plan needs.

use std::cmp::Ordering;

use super::{
    fair::Fair,
    kinds::{NOWHERE, narrow},
    problem::{Holder, Problem},
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
    pub(super) fn new(problem: &Problem, fair: &Fair) -> Self {
        let groups = &fair.groups.list;
        let list = if fair.classes.list.len().saturating_mul(groups.len()) <= DETAIL {
            groups.iter().map(|((zone, ..), members)| (*zone as usize, members.clone())).collect()
        } else {
            let mut list: Vec<(usize, Vec<u32>)> =
                (0..fair.zones.len()).map(|zone| (zone, Vec::new())).collect();
            for (member, zone) in (0..).zip(&fair.zones.of_member) {
                if let Some((_, members)) = list.get_mut(*zone as usize) {
                    members.push(member);
                }
            }
            list
        };
        let mut of_member = vec![NOWHERE; problem.seats.len()];
        for (cell, (_, members)) in list.iter().enumerate() {
            for member in members {
                of_member[*member as usize] = narrow(cell);
            }
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

/// The zone of a member as far as items of a class may be there, and what was counted of it in the block at
/// hand: replicas in the lower half, primaries in the upper.
#[derive(Clone, Copy)]
struct Tally {
    zone: u32,
    both: u32,
}

/// So many rows are a block: of each a member has one replica at most, so half a word counts them.
const BLOCK: usize = 1 << 15;

/// Up to so many classes each member is counted in each.
const CLASSES_MAX: usize = 8;

/// Counts what stands, and lists the items that do not have exactly what they want, as far as limits
/// above zero and zones are concerned.
pub(super) fn survey(problem: &Problem, fair: &Fair, cells: &Cells) -> (Standing, Vec<u32>) {
    if fair.classes.list.len() > CLASSES_MAX {
        return survey_classes(problem, fair, cells);
    }
    let held = &problem.held;
    let mut survey = Survey::new(problem, fair);
    // Of rows whose length is known beforehand nothing has to be asked.
    match held.each() {
        Some(1) => survey.count_rows(held.all().as_chunks::<1>().0.iter().map(<[_; 1]>::as_slice)),
        Some(2) => survey.count_rows(held.all().as_chunks::<2>().0.iter().map(<[_; 2]>::as_slice)),
        Some(3) => survey.count_rows(held.all().as_chunks::<3>().0.iter().map(<[_; 3]>::as_slice)),
        _ => survey.count_rows(held.iter()),
    }
    survey.finish(cells)
}

/// A survey of items of few classes.
struct Survey<'a> {
    problem: &'a Problem,
    fair: &'a Fair,
    /// By class and member.
    tallies: Vec<Tally>,
    /// By class and member, replicas and primaries of the blocks before.
    counted: Vec<(u32, u32)>,
    /// What all holders have in common.
    common: Holder,
    unsound: Vec<u32>,
    /// The same of the block at hand, as many as there are.
    block: Vec<u32>,
}

impl<'a> Survey<'a> {
    fn new(problem: &'a Problem, fair: &'a Fair) -> Self {
        let mut tallies = Vec::new();
        for class in 0..fair.classes.list.len() {
            tallies.extend(fair.zones.of_member.iter().map(|zone| {
                let zone = if fair.is_legal_in(class, *zone) { *zone } else { NOWHERE };
                Tally { zone, both: 0 }
            }));
        }
        Self {
            problem,
            fair,
            counted: vec![(0, 0); tallies.len()],
            tallies,
            common: Holder::VACANT,
            unsound: Vec::new(),
            block: vec![0; problem.held.len().min(BLOCK)],
        }
    }

    /// Counts all rows. What is counted for a member that may hold nothing is taken back in the end.
    #[inline]
    fn count_rows<'r>(&mut self, mut rows: impl ExactSizeIterator<Item = &'r [Holder]>) {
        let mut item = 0;
        while rows.len() > 0 {
            self.count_block(item, rows.by_ref().take(BLOCK));
            item += narrow(BLOCK);
            for (tally, (replicas, primaries)) in self.tallies.iter_mut().zip(&mut self.counted) {
                *replicas += tally.both & 0xffff;
                *primaries += tally.both >> 16;
                tally.both = 0;
            }
        }
    }

    #[inline]
    fn count_block<'r>(&mut self, first: u32, rows: impl Iterator<Item = &'r [Holder]>) {
        let Self { problem, fair, tallies, unsound, block, .. } = self;
        let (zones, members) = (&fair.zones, fair.zones.of_member.len());
        let mut common = self.common;
        // Written one after the other, each over the one before unless that is unsound: no branch,
        // because nobody can guess where members were lost.
        let mut found = 0;
        for (item, held) in (first..).zip(rows) {
            let class = fair.classes.of(problem, item as usize);
            let (wanted, cap) = (fair.classes.list[class].0.wanted as usize, fair.caps[class]);
            let tallies = &mut tallies[class * members..][..members];
            // Zones are alike if each bit that any has, all have; and nowhere has all bits.
            let (mut any, mut all) = (0, u32::MAX);
            for holder in held {
                let tally = &mut tallies[holder.member() as usize];
                tally.both += 1 | u32::from(holder.is_primary()) << 16;
                common = common.and(*holder);
                (any, all) = (any | tally.zone, all & tally.zone);
            }
            let kept = match (cap + 1).cmp(&wanted) {
                Ordering::Less => zones.are_apart(held, cap) || zones.beyond(held, cap) == 0,
                Ordering::Equal => any != all,
                Ordering::Greater => true,
            };
            block[found] = item;
            let lacks = usize::from(held.len() != wanted);
            found += lacks | usize::from(any == NOWHERE) | usize::from(!kept);
        }
        unsound.extend_from_slice(&block[..found]);
        self.common = common;
    }

    fn finish(self, cells: &Cells) -> (Standing, Vec<u32>) {
        let mut standing = Standing {
            of_cell: vec![0; self.fair.classes.list.len() * cells.list.len()],
            raw: u64::from(!self.common.is_consistent()),
            ..Standing::default()
        };
        let members = cells.of_member.len();
        (standing.of_member, standing.primaries) = (vec![0; members], vec![0; members]);
        for (at, (tally, (replicas, primaries))) in
            self.tallies.iter().zip(self.counted).enumerate()
        {
            let (class, member) = (at / members, at % members);
            if tally.zone != NOWHERE {
                standing.of_member[member] += replicas;
                standing.primaries[member] += primaries;
                let cell = cells.of_member[member] as usize;
                standing.of_cell[class * cells.list.len() + cell] += replicas;
            }
        }
        (standing, self.unsound)
    }
}

/// The same where items are of many classes.
fn survey_classes(problem: &Problem, fair: &Fair, cells: &Cells) -> (Standing, Vec<u32>) {
    let members = problem.seats.len();
    let mut standing = Standing {
        of_member: vec![0; members],
        primaries: vec![0; members],
        of_cell: vec![0; fair.classes.list.len() * cells.list.len()],
        raw: 0,
    };
    let mut unsound = Vec::new();
    for (item, held) in problem.held.iter().enumerate() {
        let class = fair.classes.of(problem, item);
        let row = class * cells.list.len();
        for holder in held.iter().filter(|holder| fair.is_legal(class, **holder)) {
            let member = holder.member() as usize;
            standing.of_member[member] += 1;
            standing.primaries[member] += u32::from(holder.is_primary());
            standing.raw += u64::from(!holder.is_consistent());
            standing.of_cell[row + cells.of_member[member] as usize] += 1;
        }
        if !is_sound(fair, class, problem.wanted(item) as usize, held) {
            unsound.push(narrow(item));
        }
    }
    (standing, unsound)
}

/// Whether an item has as many replicas as it should, all of them may stay, and no zone has too many.
pub(super) fn is_sound(fair: &Fair, class: usize, goal: usize, held: &[Holder]) -> bool {
    let cap = fair.caps[class];
    let fits = |held| fair.zones.are_apart(held, cap) || fair.zones.beyond(held, cap) == 0;
    held.len() == goal && held.iter().all(|holder| fair.is_legal(class, *holder)) && fits(held)
}
