//! Which items move, from where to where, and why.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    intent::{Intent, Outside},
    progress::{Cause, Doing},
    value::{MemberKey, MemberValue, Workload},
    world::{Item, World},
};

/// An item that is to be held otherwise than it is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The item's name.
    pub item: Arc<str>,
    /// Who is to hold it no more.
    pub from: Vec<MemberKey>,
    /// Who is to hold it, and does not yet.
    pub to: Vec<MemberKey>,
    /// Who is to be its primary, if that changes.
    pub primary: Option<MemberKey>,
    /// What it is doing.
    pub doing: Doing,
    /// Why, for people.
    pub why: String,
}

/// Some of the items that move, at most so many, by name.
pub(super) fn moves<W: Workload>(
    world: &World<W>,
    intent: &Intent,
    outside: &Outside,
    most: usize,
) -> Vec<Move> {
    let moving = world.progress.doing().iter().filter_map(|(number, (doing, cause))| {
        let ((name, item), cause) = (world.row(*number), (*cause)?);
        let key = |number: u32| world.member(number).key.clone();
        let wanted = || intent.wanted(item).into_iter().flatten();
        let was = item.held.iter().find(|held| held.slot == 0).map(|held| held.member);
        let primary = wanted().find(|(_, primary)| *primary).map(|(member, _)| member);
        Some(Move {
            item: Arc::clone(name),
            from: leaving(intent, item).map(key).collect(),
            to: coming(intent, item).map(key).collect(),
            primary: primary.filter(|primary| Some(*primary) != was).map(key),
            doing: *doing,
            why: words(world, outside, cause),
        })
    });
    let mut moves: Vec<Move> = moving.take(most).collect();
    moves.sort_by(|a, b| a.item.cmp(&b.item));
    moves
}

/// Who is to hold an item no more.
fn leaving<W: Workload>(intent: &Intent, item: &Item<W>) -> impl Iterator<Item = u32> {
    let wants = |member: u32| {
        let mut wanted = intent.wanted(item).into_iter().flatten();
        wanted.any(|(wanted, _)| wanted == member)
    };
    item.held.iter().map(|held| held.member).filter(move |member| !wants(*member))
}

/// Who is to hold it, and does not yet.
fn coming<W: Workload>(intent: &Intent, item: &Item<W>) -> impl Iterator<Item = u32> {
    let holds = |member: u32| item.held.iter().any(|held| held.member == member);
    let wanted = intent.wanted(item).into_iter().flatten().map(|(member, _)| member);
    wanted.filter(move |member| !holds(*member))
}

/// Why an item moves. `None`: it is held by whom it is meant to.
pub(super) fn cause<W: Workload>(
    world: &World<W>,
    intent: &Intent,
    item: &Item<W>,
) -> Option<Cause> {
    if !item.stands() {
        return Some(Cause::Deleted);
    }
    if intent.is_met(item) {
        return None;
    }
    if let Some(cause) = leaving(intent, item).find_map(|number| drives(world, intent, number)) {
        return Some(cause);
    }
    if leaving(intent, item).next().is_some() {
        return Some(Cause::Loads);
    }
    if coming(intent, item).next().is_some() {
        return Some(Cause::Lacks);
    }
    let primary = item.held.iter().find(|held| held.slot == 0);
    let hands = primary.filter(|held| !intent.standing(held.member).keeps_primaries());
    Some(hands.map_or(Cause::Primaries, |held| Cause::Judged(held.member)))
}

/// What drives items away from a member.
fn drives<W: Workload>(world: &World<W>, intent: &Intent, number: u32) -> Option<Cause> {
    let member = world.member(number);
    if !member.stands() {
        Some(Cause::Gone(number))
    } else if member.value().is_some_and(MemberValue::is_exiting) {
        Some(Cause::Leaves(number))
    } else if intent.standing(number).takes() {
        Some(Cause::Judged(number))
    } else {
        let limit = intent.seat(number).map_or(0, |seat| seat.limit);
        (member.load > limit).then_some(Cause::Overfull(number))
    }
}

/// Why assignments end whose item is no more.
pub(super) const DELETED: &str = "it is deleted";

/// A cause, for people.
pub(super) fn words<W: Workload>(world: &World<W>, outside: &Outside, cause: Cause) -> String {
    let key = |number| &world.member(number).key;
    match cause {
        Cause::Deleted => DELETED.to_owned(),
        Cause::Gone(number) => format!("{} is gone", key(number)),
        Cause::Leaves(number) => format!("{} leaves", key(number)),
        Cause::Judged(number) => {
            let (key, standing) = (key(number), outside.standing(key(number)));
            let why = outside.standings.get(key).map_or("", |judgement| &judgement.why);
            format!("{key} {standing}: {why}")
        }
        Cause::Overfull(number) => format!("{} holds more than it may", key(number)),
        Cause::Lacks => "it lacks replicas".to_owned(),
        Cause::Primaries => "so that primaries are even".to_owned(),
        Cause::Loads => "so that loads are even".to_owned(),
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |members: &[MemberKey]| {
            members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        f.write_str(&self.item)?;
        if !self.from.is_empty() {
            write!(f, " from {}", list(&self.from))?;
        }
        if !self.to.is_empty() {
            write!(f, " to {}", list(&self.to))?;
        }
        if let Some(primary) = &self.primary {
            write!(f, ", its primary to {primary}")?;
        }
        write!(f, " ({}): {}", self.doing, self.why)
    }
}
