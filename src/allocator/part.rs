//! What one item adds to a transaction: its steps as writes, and the compares that these rest on.

use super::{
    item::Key,
    plan::Step,
    value::{ItemValue, MemberKey, Workload},
    world::{Assignment, Item, World},
};
use crate::store::{Bytes, Compare, KeyRange, Limits, Op, Relation, Target};

/// How many compares a transaction holds to say that who leads still does.
pub(super) const FENCE: usize = 2;

/// As long a key as need not be made room for twice, in bytes.
const KEY_LEN: usize = 128;

/// What is to be done with one item.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) compares: Vec<Compare>,
    pub(super) ops: Vec<Op>,
    /// Members that get a replica, in ascending order; their keys must be as they were.
    pub(super) takers: Vec<u32>,
    pub(super) ended: Vec<u32>,
    /// How many primaries are handed from a replica that stays.
    pub(super) handed: usize,
}

/// How many replicas an item may want and still lose one: as many that are consistent have to stay as
/// they were, and so have the leader, the item, who loses the replica, and all others.
pub(super) fn most_to_lose(limits: &Limits) -> usize {
    limits.operations.saturating_sub(FENCE + 3)
}

/// An item of which parts are made.
pub(super) struct Source<'a, W: Workload> {
    pub(super) world: &'a World<W>,
    pub(super) name: &'a str,
    pub(super) item: &'a Item<W>,
    pub(super) limits: &'a Limits,
}

impl<W: Workload> Source<'_, W> {
    /// Assignments whose item is gone.
    pub(super) fn bury(&self) -> Part {
        let mut part = Part::default();
        let key = self.world.keys().join(&Key::Item(self.name));
        part.compares.push(Compare::absent(KeyRange::key(key)));
        // Where there are too many, the rest goes in the next round.
        for held in self.item.held.iter().take(self.limits.operations.saturating_sub(1 + FENCE)) {
            part.compares.push(unchanged(held));
            part.ops.push(Op::delete(&held.entry.kv.key));
            part.ended.push(held.member);
        }
        part
    }

    /// The steps, or as many of them as fit into a transaction; the rest goes in later rounds.
    /// `None`: none do.
    pub(super) fn fit(&self, mut steps: Vec<Step<u32>>) -> Option<Part> {
        let part = self.part(&steps);
        if self.fits(&part) {
            return Some(part);
        }
        // The primary goes last, and together with whoever takes its place.
        steps.sort_by_key(|step| match step {
            Step::Remove { slot: 0, .. } => 1,
            Step::Promote { .. } => 2,
            _ => 0,
        });
        let takes_place = matches!(steps.last(), Some(Step::Promote { instead_of: None, .. }));
        let cuts: Vec<usize> = (1..steps.len() - usize::from(takes_place)).collect();
        let fitting = cuts.partition_point(|at| self.fits(&self.part(&steps[..*at])));
        let most = cuts[..fitting].last()?;
        Some(self.part(&steps[..*most]))
    }

    fn fits(&self, part: &Part) -> bool {
        let compares = part.compares.len() + part.takers.len() + FENCE;
        compares.max(part.ops.len()) <= self.limits.operations
    }

    fn part(&self, steps: &[Step<u32>]) -> Part {
        let mut part = Part::default();
        let Some(item) = &self.item.entry else { return part };
        part.compares.reserve(2 + self.item.held.len());
        part.compares.push(Compare::unchanged(&item.kv.key, item.kv.mod_revision));
        if steps.iter().any(|step| !matches!(step, Step::Add { .. })) {
            self.bind(steps, &mut part.compares);
        }
        let mut text = String::with_capacity(KEY_LEN);
        let mut key = |member: u32, slot: u32| {
            let MemberKey { zone, member } = &self.world.member(member).key;
            let key = Key::Assignment { item: self.name, zone, member, slot };
            self.world.keys().write(&key, &mut text);
            Bytes::from(text.as_str())
        };
        let find = |member: u32, slot: u32| {
            self.item.held.iter().find(|held| (held.member, held.slot) == (member, slot))
        };
        let mut gone: Vec<&Assignment<W>> = Vec::new();
        part.ops.reserve(2 * steps.len());
        for step in steps {
            match *step {
                Step::Add { member, slot } => {
                    part.takers.push(member);
                    let lease = self.world.member(member).lease();
                    part.ops.push(Op::put_leased(key(member, slot), "", lease));
                }
                Step::Remove { member, slot } => {
                    gone.extend(find(member, slot));
                    part.ended.push(member);
                }
                Step::Promote { instead_of, .. } => {
                    part.handed += usize::from(instead_of.is_some());
                }
                Step::Demote { .. } => {}
            }
        }
        part.takers.sort_unstable();
        for (member, from, to) in steps.iter().flat_map(|step| renames(*step)).flatten() {
            let Some(held) = find(member, from) else { continue };
            let kv = &held.entry.kv;
            gone.push(held);
            part.ops.push(Op::put_leased(key(member, to), &kv.value, kv.lease));
        }
        for Assignment { entry, .. } in gone {
            // A key is changed once: who gets a slot that the same member leaves writes over it.
            if !part.ops.iter().any(|op| puts(op, &entry.kv.key)) {
                part.ops.push(Op::delete(&entry.kv.key));
            }
        }
        part
    }

    /// The compares of assignments that these steps rest on.
    ///
    /// Whoever loses a replica or changes its slot must be as it was, and where a replica goes, so must
    /// as many consistent ones that stay as the item wants. That no other has changed, so that all
    /// are as consistent as they were, is one compare for all of them; whether others have ended, no
    /// step depends on.
    fn bind(&self, steps: &[Step<u32>], compares: &mut Vec<Compare>) {
        let held = &self.item.held;
        let change = Change::of(steps);
        let mut bound: Vec<bool> =
            held.iter().map(|held| change.members.binary_search(&held.member).is_ok()).collect();
        if steps.iter().any(|step| matches!(step, Step::Demote { .. }))
            && let Some(at) = (0..held.len()).find(|at| held[*at].slot == 0 && !bound[*at])
        {
            bound[at] = true;
        }
        // Those that stay and are consistent, one for each member.
        let stays = |at: &usize| held[*at].consistent && !change.takes(&held[*at]);
        let mut good: Vec<usize> = (0..held.len()).filter(stays).collect();
        good.dedup_by_key(|at| held[*at].member);
        if change.loses(held) {
            let wanted = self.item.value().map_or(0, ItemValue::replication) as usize;
            let known = good.iter().filter(|at| bound[**at]).count();
            let mut others: Vec<usize> = good.into_iter().filter(|at| !bound[*at]).collect();
            others.truncate(wanted.saturating_sub(known));
            for at in others {
                bound[at] = true;
            }
        }
        compares.extend(
            held.iter().zip(&bound).filter(|(_, bound)| **bound).map(|(held, _)| unchanged(held)),
        );
        if bound.contains(&false) {
            let range = KeyRange::prefix(self.world.keys().assignments_below(self.name));
            let target = Target::ModRevision(self.world.revision() + 1);
            compares.push(Compare { range, relation: Relation::Less, target });
        }
    }
}

/// Which assignments steps change, other than by adding some.
struct Change {
    /// Members, in ascending order.
    members: Vec<u32>,
    /// Who goes, and from which slot, in ascending order.
    gone: Vec<(u32, u32)>,
}

impl Change {
    fn of(steps: &[Step<u32>]) -> Self {
        let (mut members, mut gone) = (Vec::new(), Vec::new());
        for step in steps {
            match *step {
                Step::Add { .. } => {}
                Step::Remove { member, slot } => {
                    members.push(member);
                    gone.push((member, slot));
                }
                Step::Promote { member, instead_of, .. } => {
                    members.push(member);
                    members.extend(instead_of);
                }
                Step::Demote { member, .. } => members.push(member),
            }
        }
        members.sort_unstable();
        gone.sort_unstable();
        Self { members, gone }
    }

    fn takes<W: Workload>(&self, held: &Assignment<W>) -> bool {
        self.gone.binary_search(&(held.member, held.slot)).is_ok()
    }

    /// Whether a member goes, or keeps a worse slot, and does not only lose a second one.
    fn loses<W: Workload>(&self, all: &[Assignment<W>]) -> bool {
        let is_as_good = |gone: &Assignment<W>, held: &Assignment<W>| {
            held.member == gone.member && held.consistent >= gone.consistent && !self.takes(held)
        };
        let mut gone = all.iter().filter(|held| self.takes(held));
        gone.any(|gone| !all.iter().any(|held| is_as_good(gone, held)))
    }
}

/// Who goes from one slot to another in a step.
fn renames(step: Step<u32>) -> [Option<(u32, u32, u32)>; 2] {
    match step {
        Step::Promote { member, slot, instead_of } => {
            [Some((member, slot, 0)), instead_of.map(|old| (old, 0, slot))]
        }
        Step::Demote { member, slot } => [Some((member, 0, slot)), None],
        Step::Add { .. } | Step::Remove { .. } => [None, None],
    }
}

fn puts(op: &Op, name: &Bytes) -> bool {
    matches!(op, Op::Put { key, .. } if key == name)
}

fn unchanged<W: Workload>(held: &Assignment<W>) -> Compare {
    Compare::unchanged(&held.entry.kv.key, held.entry.kv.mod_revision)
}
