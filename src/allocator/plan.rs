//! The next safe steps of one item, from who holds it to who should.
//!
//! Replicas are added before any is removed; one that is consistent is removed only while more than
//! the item wants are left that are; slot 0 passes to a replica that is ready, and there is exactly
//! one. Slots between the others may have gaps: nobody is renamed to close them.
//!
//! One call gives the steps that are safe at one revision. What they leave is the next call's start,
//! and when nothing is left to do, there are no steps.

use std::collections::BTreeMap;

/// One of an item's assignments, and what is known of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held<M> {
    /// The member.
    pub member: M,
    /// The member's zone, by number.
    pub zone: u32,
    /// Its slot: zero is the primary.
    pub slot: u32,
    /// Whether the replica is consistent.
    pub consistent: bool,
    /// How loaded the member is: the most loaded lose replicas first.
    pub load: u64,
    /// Whether the member holds more than it should, or is leaving.
    pub leaving: bool,
}

/// One of the members that should hold an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted<M> {
    /// The member.
    pub member: M,
    /// The member's zone, by number.
    pub zone: u32,
    /// Whether it should be the primary.
    pub primary: bool,
    /// Whether it has room for one more item now.
    pub room: bool,
}

/// A step. Each is one or two writes, fenced by the revisions of the keys that it was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step<M> {
    /// A replica is created in a slot that is free.
    Add {
        /// Its member.
        member: M,
        /// Its slot.
        slot: u32,
    },
    /// A replica is deleted.
    Remove {
        /// Its member.
        member: M,
        /// Its slot.
        slot: u32,
    },
    /// A replica becomes the primary; if another one is it, that one takes its slot, in the same
    /// transaction.
    Promote {
        /// Its member.
        member: M,
        /// Its slot until then.
        slot: u32,
        /// Who was the primary, and stays as a replica.
        instead_of: Option<M>,
    },
    /// A second primary, which somebody else must have made, becomes a replica.
    Demote {
        /// Its member.
        member: M,
        /// Its slot from then on.
        slot: u32,
    },
}

/// How many replicas of an item zones take by the zone rule, and what they lie in by the rules of that.
#[derive(Clone, Debug)]
pub struct Caps<'a> {
    /// How many a zone takes.
    pub zone: usize,
    /// For each level, the innermost first: by the number of the zone what it lies in, and how many such a thing takes.
    pub around: Vec<(&'a [u32], usize)>,
}

/// So many in a zone, and no rules of what zones lie in.
impl From<usize> for Caps<'_> {
    fn from(zone: usize) -> Self {
        Self { zone, around: Vec::new() }
    }
}

impl Caps<'_> {
    /// How many of the replicas in these zones are within the rules.
    fn within(&self, mut zones: Vec<u32>) -> usize {
        zones.sort_unstable();
        let zones = zones.chunk_by(|one, other| one == other);
        // A zone of each thing, and how many of its replicas are within the rules so far.
        let mut things: Vec<(u32, usize)> =
            zones.map(|zone| (zone[0], zone.len().min(self.zone))).collect();
        for (lies_in, cap) in &self.around {
            let mut around: BTreeMap<Option<u32>, (u32, usize)> = BTreeMap::new();
            for (zone, within) in things {
                let thing = lies_in.get(zone as usize).copied();
                let (_, all) = around.entry(thing).or_insert((zone, 0));
                *all = (*all + within).min(*cap);
            }
            things = around.into_values().collect();
        }
        things.into_iter().map(|(_, within)| within).sum()
    }
}

/// The next safe steps of an item that wants `replication` replicas, of which zones take so many.
///
/// In this order: what is missing is added where there is room; then what is too much is removed, a
/// replica that is not consistent as soon as enough are, a consistent one only while more than
/// enough are left, and no fewer of them within the rules than before, or than there should be; members
/// that are leaving and the most loaded first; then, if there is no primary
/// left, the one that should be it, or the best there is, is promoted; and if another one should be
/// it, and is consistent, the two change places. A second slot of one member is removed like one
/// that is too much, and a second primary becomes a replica.
pub fn steps<M: Copy + Ord>(
    replication: usize,
    caps: &Caps<'_>,
    held: &[Held<M>],
    wanted: &[Wanted<M>],
) -> Vec<Step<M>> {
    let mut steps = Vec::with_capacity(wanted.len());
    let mut next = held.iter().map(|held| held.slot.saturating_add(1)).max().unwrap_or(0);
    let holds = |member: M| held.iter().any(|held| held.member == member);
    let mut new: Vec<&Wanted<M>> =
        wanted.iter().filter(|wanted| wanted.room && !holds(wanted.member)).collect();
    // The primary comes first, so that a new item has it in slot 0.
    new.sort_unstable_by_key(|wanted| (!wanted.primary, wanted.member));
    for new in new {
        steps.push(Step::Add { member: new.member, slot: next });
        next = next.saturating_add(1);
    }
    let removed = removals(replication, caps, held, wanted);
    for at in &removed {
        steps.push(Step::Remove { member: held[*at].member, slot: held[*at].slot });
    }
    let left = || (0..held.len()).filter(|at| !removed.contains(at)).map(|at| &held[at]);
    if left().filter(|held| held.slot == 0).count() > 1 {
        steps.extend(demotions(left(), wanted, next));
    } else {
        steps.extend(promotion(left, wanted));
    }
    steps
}

/// Which primaries become replicas, in slots from `next` on: all but the best of them.
fn demotions<'a, M: Copy + Ord + 'a>(
    left: impl Iterator<Item = &'a Held<M>>,
    wanted: &[Wanted<M>],
    next: u32,
) -> Vec<Step<M>> {
    let wish = wish(wanted);
    let mut primaries: Vec<&Held<M>> = left.filter(|held| held.slot == 0).collect();
    primaries.sort_by_key(|held| (!held.consistent, Some(held.member) != wish, held.member));
    let seconds = primaries.iter().skip(1).zip(next..);
    seconds.map(|(held, slot)| Step::Demote { member: held.member, slot }).collect()
}

/// Who should be the primary.
fn wish<M: Copy>(wanted: &[Wanted<M>]) -> Option<M> {
    wanted.iter().find(|wanted| wanted.primary).map(|wanted| wanted.member)
}

/// Which assignments go now.
fn removals<M: Copy + Ord>(
    replication: usize,
    caps: &Caps<'_>,
    held: &[Held<M>],
    wanted: &[Wanted<M>],
) -> Vec<usize> {
    // Of two slots of one member the consistent one stays, then the lower.
    let rank = |held: &Held<M>| (!held.consistent, held.slot);
    let second = |at: usize| {
        let better =
            |other: &Held<M>| other.member == held[at].member && rank(other) < rank(&held[at]);
        held.iter().any(better)
    };
    let surplus =
        |at: &usize| second(*at) || wanted.iter().all(|wanted| wanted.member != held[*at].member);
    let mut candidates: Vec<usize> = (0..held.len()).filter(surplus).collect();
    if candidates.is_empty() {
        return candidates;
    }
    candidates.sort_by_key(|at| {
        let held = &held[*at];
        (!held.leaving, std::cmp::Reverse(held.load), held.member, held.slot)
    });
    // A member's second slot is no replica more.
    let consistent = |at: &usize| held[*at].consistent && !second(*at);
    let mut left: Vec<usize> = (0..held.len()).filter(consistent).collect();
    let apart = |left: &[usize], but: Option<usize>| {
        let zones = left.iter().filter(|at| Some(**at) != but).map(|at| held[*at].zone);
        caps.within(zones.collect()).min(replication)
    };
    let least = caps.within(wanted.iter().map(|wanted| wanted.zone).collect());
    let least = apart(&left, None).min(least);
    let mut removed = Vec::new();
    for at in candidates {
        let goes = if consistent(&at) {
            left.len() > replication && apart(&left, Some(at)) >= least
        } else {
            second(at) || left.len() >= replication
        };
        if goes {
            left.retain(|other| *other != at);
            removed.push(at);
        }
    }
    removed
}

/// Who becomes the primary of those who are left.
fn promotion<'a, M: Copy + Ord + 'a, I: Iterator<Item = &'a Held<M>>>(
    left: impl Fn() -> I,
    wanted: &[Wanted<M>],
) -> Option<Step<M>> {
    let wish = wish(wanted);
    if let Some(primary) = left().find(|held| held.slot == 0) {
        // A hand-off goes to a replica that is ready, and never from one to the other and back.
        let wished = left().filter(|held| Some(held.member) == wish).min_by_key(|held| held.slot);
        let to = wished.filter(|to| to.slot != 0 && to.consistent)?;
        let instead_of = Some(primary.member);
        return Some(Step::Promote { member: to.member, slot: to.slot, instead_of });
    }
    let best = left().min_by_key(|held| {
        let wished = Some(held.member) == wish;
        (!held.consistent, held.leaving, !wished, held.load, held.slot, held.member)
    })?;
    Some(Step::Promote { member: best.member, slot: best.slot, instead_of: None })
}
