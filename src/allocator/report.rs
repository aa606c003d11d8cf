//! What the leader sees and does, for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    converge::{Bounds, Budget, Round, round},
    intent::{Intent, Lacking, Outside, Rules},
    item::Keys,
    moves::{DELETED, Move, moves, words},
    planner::{Certificate, Stays},
    progress::Doing,
    state::{Post, Standing},
    value::{Entity, MemberKey, MemberValue, Workload},
    world::World,
};
use crate::store::{Limits, mirror::View};

/// How many keys that make no sense, and how many items that move, are named.
const LISTED: usize = 100;

/// A member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its place and name.
    pub key: MemberKey,
    /// Whether it stands; otherwise only assignments are left of it.
    pub stands: bool,
    /// How many items it says that it may hold.
    pub limit: u32,
    /// How many of these it may hold now, after its standing and its wish to leave.
    pub room: u32,
    /// How many assignments it has.
    pub load: u32,
    /// How many of them are in slot 0.
    pub primaries: u32,
    /// Whether it wants to leave.
    pub exiting: bool,
    /// Why it may still hold what it should give up, by its standing or by its wish to leave. `None`: it gives
    /// up all of that.
    pub stays: Option<Stays>,
    /// What it may hold, as judged from outside.
    pub standing: Standing,
    /// Why; `None`: nobody has judged it.
    pub why: Option<Arc<str>>,
}

/// What stands, what is meant, and what is done about it, at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The revision.
    pub revision: u64,
    /// Who plans. `None`: there is no member.
    pub leader: Option<MemberKey>,
    /// The members by zone and name.
    pub members: Vec<MemberReport>,
    /// How many items there are.
    pub items: usize,
    /// How many assignments there are.
    pub assignments: usize,
    /// How many replicas are not consistent.
    pub copying: usize,
    /// What the items are doing that do not stand as they are meant to.
    pub doing: BTreeMap<Doing, usize>,
    /// The items that move, by name, at most 100 of them, and why.
    pub moves: Vec<Move>,
    /// Why items move, and how many for each reason: all of them.
    pub reasons: BTreeMap<String, usize>,
    /// How good the plan is.
    pub certificate: Certificate,
    /// Items that lack replicas, by name, and why.
    pub lacking: Arc<[Lacking]>,
    /// How many items have no value that decodes, and are left as they are.
    pub unreadable: usize,
    /// Keys that make no sense, at most 100 of them, and why.
    pub problems: Vec<(String, String)>,
    /// What was done since this member leads.
    pub done: Done,
}

/// What a leader has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Plans.
    pub plans: u64,
    /// Rounds in which something was sent.
    pub rounds: u64,
    /// Transactions.
    pub batches: u64,
    /// Transactions that were refused, because something had changed meanwhile, or failed.
    pub failed: u64,
    /// Assignments made, if all that was sent was done.
    pub added: u64,
    /// Assignments ended.
    pub removed: u64,
    /// Primaries handed from a replica that stayed.
    pub handed: u64,
}

impl Done {
    /// Counts a round, if anything of it is sent.
    pub(super) fn count(&mut self, round: &Round) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.rounds += u64::from(round.made > 0);
        self.batches += count(round.made);
        self.added += count(round.added);
        self.removed += count(round.removed);
        self.handed += count(round.handed);
    }
}

impl Report {
    /// What a world looks like under an intent, after a round.
    pub fn new<W: Workload>(
        world: &World<W>,
        view: &View<Entity<W>>,
        intent: &Intent,
        outside: &Outside,
    ) -> Self {
        let mut members: Vec<MemberReport> = world
            .members()
            .map(|(number, member)| MemberReport {
                key: member.key.clone(),
                stands: member.stands(),
                limit: member.value().map_or(0, MemberValue::limit),
                room: intent.seat(number).map_or(0, |seat| seat.limit),
                load: member.load,
                primaries: member.primaries,
                exiting: member.value().is_some_and(MemberValue::is_exiting),
                stays: intent.stays(number),
                standing: outside.standing(&member.key),
                why: outside.standings.get(&member.key).map(|judgement| Arc::clone(&judgement.why)),
            })
            .collect();
        members.sort_by(|a, b| a.key.cmp(&b.key));
        let mut reasons = BTreeMap::new();
        for (cause, count) in world.progress.causes() {
            *reasons.entry(words(world, outside, *cause)).or_default() += count;
        }
        let problems = view.undecoded().map(|entry| {
            let why = entry.error.as_ref().map_or_else(String::new, ToString::to_string);
            (entry.kv.key.to_string(), why)
        });
        let odd_shares = world.members().filter_map(|(_, member)| {
            let post = Post { share: member.value()?.share(), ..Post::default() };
            let why = || "its share is no weight; its limit counts instead".to_owned();
            (!post.has_sane_share()).then(|| (world.keys().join(&member.key.key()), why()))
        });
        Self {
            revision: world.revision(),
            leader: world.leader().map(|one| one.key.clone()),
            members,
            items: world.len(),
            assignments: world.assignments(),
            copying: world.copying(),
            doing: world.doing().clone(),
            moves: moves(world, intent, outside, LISTED),
            reasons,
            certificate: intent.certificate().clone(),
            lacking: Arc::clone(intent.lacking()),
            unreadable: intent.unreadable(),
            problems: problems.chain(odd_shares).take(LISTED).collect(),
            done: Done::default(),
        }
    }

    /// What somebody sees who only looks: the same as the leader, if it has the same rules, and knows
    /// the same from outside, but for what is not carried out yet, where its plan is as good. It costs a plan of the
    /// whole world.
    pub fn of_view<W: Workload>(
        keys: Keys,
        workload: Arc<W>,
        view: &View<Entity<W>>,
        rules: &Rules,
        outside: &Outside,
    ) -> Self {
        let mut world = World::new(keys, workload, view);
        let intent = Intent::new(&mut world, rules, outside);
        let bounds =
            Bounds { limits: Limits::default(), budget: Budget::default(), now: Duration::ZERO };
        // What would be sent now is what is being changed.
        round(&mut world, &intent, &bounds, &BTreeSet::new());
        Self::new(&world, view, &intent, outside)
    }

    /// How many items do not stand as they are meant to.
    pub fn unsettled(&self) -> usize {
        self.doing.values().sum()
    }

    /// Whether nothing is left to do.
    pub fn is_settled(&self) -> bool {
        self.doing.is_empty()
    }

    /// An item that lacks replicas.
    pub fn lacks(&self, item: &str) -> Option<&Lacking> {
        let at = self.lacking.binary_search_by(|lacking| (*lacking.item).cmp(item)).ok()?;
        self.lacking.get(at)
    }
}

/// How long a bar is.
const BAR: u64 = 30;

/// How many items that move or lack replicas are named, and how many keys that make no sense.
const NAMED: usize = 10;

/// A table for a terminal.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, items, assignments, .. } = self;
        let nobody = || "nobody".to_owned();
        let leader = self.leader.as_ref().map_or_else(nobody, ToString::to_string);
        writeln!(
            f,
            "revision {revision}, led by {leader}: {} members, {items} items, {assignments} replicas",
            self.members.len()
        )?;
        let width = self.members.iter().map(|member| member.key.to_string().len()).max();
        let width = width.unwrap_or_default();
        for member in &self.members {
            writeln!(f, "  {:width$} {member}", member.key.to_string())?;
        }
        // Nobody knows what is meant of some, and of others nothing is left but assignments.
        let deleted = self.reasons.get(DELETED).copied().unwrap_or(0);
        let others = self.unreadable + self.unsettled().saturating_sub(deleted);
        writeln!(f, "items: {} stand as they are meant to", items.saturating_sub(others))?;
        for (doing, count) in &self.doing {
            writeln!(f, "  {count} {doing}")?;
        }
        if self.copying > 0 {
            writeln!(f, "replicas that are not consistent: {}", self.copying)?;
        }
        for moving in self.moves.iter().take(NAMED) {
            writeln!(f, "moving: {moving}")?;
        }
        if let more @ 1.. = self.unsettled().saturating_sub(NAMED) {
            writeln!(f, "moving or waiting: {more} more items")?;
            for (why, count) in &self.reasons {
                writeln!(f, "moving: {count} in all: {why}")?;
            }
        }
        for lacking in self.lacking.iter().take(NAMED) {
            let Lacking { item, missing, reason } = lacking;
            writeln!(f, "lacking: {item} lacks {missing}: {reason}")?;
        }
        if let more @ 1.. = self.lacking.len().saturating_sub(NAMED) {
            writeln!(f, "lacking: {more} more items")?;
        }
        if self.unreadable > 0 {
            writeln!(
                f,
                "items without a value that can be read, left as they are: {}",
                self.unreadable
            )?;
        }
        for (key, why) in self.problems.iter().take(NAMED) {
            writeln!(f, "ignored: `{key}`: {why}")?;
        }
        if let more @ 1.. = self.problems.len().saturating_sub(NAMED) {
            writeln!(f, "ignored: {more} more keys")?;
        }
        Ok(())
    }
}

/// Its load as a bar, of its limit or of what it holds, whichever is more.
impl fmt::Display for MemberReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = u64::from(self.limit.max(self.load).max(1));
        let filled = (u64::from(self.load) * BAR).div_ceil(whole);
        for at in 0..BAR {
            f.write_str(if at < filled { "#" } else { "." })?;
        }
        let Self { load, limit, room, primaries, .. } = self;
        write!(f, " {load:>6} of {limit}, {primaries} primaries")?;
        if !self.stands {
            return f.write_str(", gone");
        }
        if self.exiting {
            f.write_str(", leaving")?;
        }
        if self.standing != Standing::Full {
            write!(f, ", {}", self.standing)?;
        }
        if room < limit {
            write!(f, ", may hold {room}")?;
        }
        self.stays.map_or(Ok(()), |stays| write!(f, ", stays for now: {stays}"))
    }
}
