//! Which items move, from where to where, and why.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    intent::{Intent, Outside},
    progress::Doing,
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

/// The items that move, by name, at most so many.
pub(super) fn moves<W: Workload>(
    world: &World<W>,
    intent: &Intent,
    outside: &Outside,
    most: usize,
) -> Vec<Move> {
    let moving = world.progress.doing().iter().filter_map(|(name, doing)| {
        let item = world.item(name)?;
        let moving = Moving::new(intent, item)?;
        let key = |number: &u32| world.member(*number).key.clone();
        Some(Move {
            item: Arc::clone(name),
            from: moving.from.iter().map(key).collect(),
            to: moving.to.iter().map(key).collect(),
            primary: moving.primary.as_ref().map(key),
            doing: *doing,
            why: why(world, intent, outside, item, &moving),
        })
    });
    moving.take(most).collect()
}

/// The members' numbers.
struct Moving {
    from: Vec<u32>,
    to: Vec<u32>,
    primary: Option<u32>,
    was: Option<u32>,
}

impl Moving {
    /// `None`: it is held by whom it is meant to.
    fn new<W: Workload>(intent: &Intent, item: &Item<W>) -> Option<Self> {
        if item.stands() && intent.is_met(item) {
            return None;
        }
        let wanted = intent.wanted(item).into_iter().flatten();
        let wanted: Vec<(u32, bool)> = wanted.collect();
        let wants = |member: u32| wanted.iter().any(|(wanted, _)| *wanted == member);
        let holds = |member: u32| item.held.iter().any(|held| held.member == member);
        let from = item.held.iter().map(|held| held.member).filter(|member| !wants(*member));
        let to = wanted.iter().map(|(member, _)| *member).filter(|member| !holds(*member));
        let was = item.held.iter().find(|held| held.slot == 0).map(|held| held.member);
        let primary = wanted.iter().find(|(_, primary)| *primary).map(|(member, _)| *member);
        Some(Self {
            from: from.collect(),
            to: to.collect(),
            primary: primary.filter(|primary| Some(*primary) != was),
            was,
        })
    }
}

fn why<W: Workload>(
    world: &World<W>,
    intent: &Intent,
    outside: &Outside,
    item: &Item<W>,
    moving: &Moving,
) -> String {
    if !item.stands() {
        return "it is deleted".to_owned();
    }
    let leaves = moving.from.iter().find_map(|number| {
        let member = world.member(*number);
        let key = &member.key;
        let judged = outside.standings.get(key).filter(|judgement| judgement.standing.takes());
        let limit = intent.seat(*number).map_or(0, |seat| seat.limit);
        if !member.stands() {
            Some(format!("{key} is gone"))
        } else if member.value().is_some_and(MemberValue::is_exiting) {
            Some(format!("{key} leaves"))
        } else if let Some(judgement) = judged {
            Some(format!("{key} {}: {}", judgement.standing, judgement.why))
        } else if member.load > limit {
            Some(format!("{key} holds more than it may"))
        } else {
            None
        }
    });
    if let Some(why) = leaves {
        return why;
    }
    if moving.from.is_empty() && !moving.to.is_empty() {
        return "it lacks replicas".to_owned();
    }
    if moving.from.is_empty() {
        let judged = moving.was.and_then(|was| {
            let key = &world.member(was).key;
            let judgement = outside.standings.get(key)?;
            let hands = !judgement.standing.keeps_primaries();
            hands.then(|| format!("{key} {}: {}", judgement.standing, judgement.why))
        });
        return judged.unwrap_or_else(|| "so that primaries are even".to_owned());
    }
    "so that loads are even".to_owned()
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
