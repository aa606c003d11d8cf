//! The next transactions from what stands to what is meant, and why the rest waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub use super::flights::Budget;
use super::{
    flights::Flights,
    intent::Intent,
    moves::cause,
    part::{FENCE, Part, Source, most_to_lose},
    plan::{self, Step, Wanted, steps},
    progress::{Doing, Waits},
    roster::Member,
    value::{ItemValue, MemberValue, Workload},
    world::{Assignment, Item, World},
};
use crate::store::{Compare, Limits, Op, Txn};

/// How much of a request it takes to say that a member is as it was, in bytes: never too little.
const MEMBER_COMPARE: usize = 1_024;

/// So many transactions go in one request: what a store does for each request, whatever is in it, etcd
/// above all, which copies what it has not written out yet, is done once for all of them.
pub(super) const JOINED: usize = 4;

/// What one round may do.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What a transaction may hold.
    pub limits: Limits,
    /// How many replicas may be on their way.
    pub budget: Budget,
    /// When the round is made: any time that does not go back from one to the next.
    pub now: Duration,
}

/// A transaction, and whom it is about.
#[derive(Debug)]
pub struct Batch {
    /// The transaction.
    pub txn: Txn,
    /// The items that it changes.
    pub items: Vec<Arc<str>>,
    /// Assignments that it ends, by item and the member's number in the world.
    pub ended: Vec<(Arc<str>, u32)>,
}

/// The transactions of one round. They are independent of each other: each may be done or not, in
/// any order.
///
/// They are made some items at a time, so that the first are on their way while the next are made;
/// the world stays as it is until all are made.
#[derive(Debug, Default)]
pub struct Round {
    /// What was made and is to be sent.
    pub batches: Vec<Batch>,
    /// How many transactions were made.
    pub made: usize,
    /// New assignments.
    pub added: usize,
    /// Assignments that end.
    pub removed: usize,
    /// Primaries that are handed from a replica that stays.
    pub handed: usize,
    rest: std::vec::IntoIter<(usize, u32)>,
    spent: Spent,
}

/// What of a round is used up.
#[derive(Debug, Default)]
struct Spent {
    /// Replicas that the round gives to members.
    given: BTreeMap<u32, u32>,
    /// How many of them are moves.
    moves: usize,
    handed: usize,
}

/// Makes the transactions that are safe now. What the items that are not settled are doing then, says
/// [`World::doing`].
///
/// Every transaction holds only while the member that leads is as it was, nobody has taken over from
/// it, and everything that its decisions used is as it was. The items of `apart` were in a transaction
/// that failed; each gets one of its own.
pub fn round<W: Workload>(
    world: &mut World<W>,
    intent: &Intent,
    bounds: &Bounds,
    apart: &BTreeSet<Arc<str>>,
) -> Round {
    let mut round = Round::begin(world, bounds);
    while round.go_on(world, intent, bounds, apart, usize::MAX) {}
    round
}

impl Round {
    /// A round of which nothing is made yet.
    pub fn begin<W: Workload>(world: &mut World<W>, bounds: &Bounds) -> Self {
        if bounds.budget.binds() {
            count_flights(world, bounds);
        }
        Self { rest: by_danger(world, &bounds.budget).into_iter(), ..Self::default() }
    }

    /// Makes the transactions for so many more items, as [`round`] does. Returns whether any item is
    /// left.
    pub fn go_on<W: Workload>(
        &mut self,
        world: &mut World<W>,
        intent: &Intent,
        bounds: &Bounds,
        apart: &BTreeSet<Arc<str>>,
        items: usize,
    ) -> bool {
        let mut parts: Vec<(usize, Arc<str>, Part)> = Vec::new();
        for (danger, number) in self.rest.by_ref().take(items) {
            let (name, item) = world.row(number);
            let source = Source { world, name, item, limits: &bounds.limits };
            let now = Now { world, intent, item, bounds, source };
            match now.next(&mut self.spent) {
                Next::Settled => world.progress.settle(number),
                Next::Wait(doing, waits) => {
                    let cause = cause(world, intent, item);
                    world.progress.wait(number, (doing, cause), &waits);
                }
                Next::Change(part) => {
                    self.removed += part.ended.len();
                    let (name, cause) = (Arc::clone(name), cause(world, intent, item));
                    world.progress.wait(number, (Doing::Changing, cause), &Waits::default());
                    parts.push((danger, name, part));
                }
            }
        }
        self.added = self.spent.given.values().map(|given| *given as usize).sum();
        self.handed = self.spent.handed;
        // What goes to the same members fits into fewer transactions, because it is bound to fewer keys.
        parts.sort_by(|(one, _, a), (other, _, b)| (one, &a.takers).cmp(&(other, &b.takers)));
        let mut packer = Packer::new(world, bounds);
        for (_, name, part) in parts {
            let alone = apart.contains(&name);
            packer.add(world, name, part, alone);
        }
        let batches = packer.finish();
        self.made += batches.len();
        self.batches.extend(batches);
        !self.rest.as_slice().is_empty()
    }
}

/// The items that are to be looked at, those that may be lost first: by how many good replicas they
/// have, if these are less than wanted.
fn by_danger<W: Workload>(world: &mut World<W>, budget: &Budget) -> Vec<(usize, u32)> {
    let numbers = world.progress.take(budget);
    let danger = |number: u32| {
        let (_, item) = world.row(number);
        let wanted = item.value().map_or(0, ItemValue::replication) as usize;
        let good = item.consistent();
        (!item.is_gone()).then_some((if good < wanted { good } else { usize::MAX }, number))
    };
    let mut numbers: Vec<(usize, u32)> = numbers.into_iter().filter_map(danger).collect();
    numbers.sort_unstable();
    numbers
}

/// Counts anew what is on its way of items that have changed, and no more what is so for long.
fn count_flights<W: Workload>(world: &mut World<W>, bounds: &Bounds) {
    let mut flights = std::mem::take(&mut world.progress.flights);
    for number in world.progress.dirty() {
        let (_, item) = world.row(*number);
        let wanted = item.value().map_or(0, ItemValue::replication) as usize;
        let surplus = item.held.len().saturating_sub(wanted);
        let coming = item.held.iter().filter(|held| !held.consistent).map(|held| held.member);
        flights.recount(*number, bounds.now, surplus, coming);
    }
    if let Some(since) = bounds.now.checked_sub(bounds.budget.counts_for) {
        flights.give_up(since);
    }
    world.progress.flights = flights;
}

/// What becomes of an item in a round.
enum Next {
    Settled,
    Wait(Doing, Waits),
    Change(Part),
}

/// An item that is looked at.
struct Now<'a, W: Workload> {
    world: &'a World<W>,
    intent: &'a Intent,
    item: &'a Item<W>,
    bounds: &'a Bounds,
    source: Source<'a, W>,
}

impl<W: Workload> Now<'_, W> {
    fn next(&self, spent: &mut Spent) -> Next {
        if !self.item.stands() {
            return Next::Change(self.source.bury());
        }
        let (Some(value), Some(wanted)) = (self.item.value(), self.intent.wanted(self.item)) else {
            return Next::Settled;
        };
        let copying = self.item.held.iter().any(|held| !held.consistent);
        if self.intent.is_met(self.item) {
            let wait = Next::Wait(Doing::Copying, Waits::default());
            return if copying { wait } else { Next::Settled };
        }
        let replication = value.replication() as usize;
        let (wanted, moves, mut waits) = self.coming(replication, wanted, spent);
        let held: Vec<plan::Held<u32>> =
            self.item.held.iter().map(|held| self.held(held)).collect();
        // Where nothing can go it is as if all were wanted.
        let loses = replication <= most_to_lose(&self.bounds.limits);
        let keeps = if loses { replication } else { usize::MAX };
        let mut steps = steps(keeps, &self.intent.caps(value), &held, &wanted);
        let hands = self.bounds.budget.moves.is_none_or(|most| spent.handed < most);
        steps.retain(|step| {
            let refused = !hands && matches!(step, Step::Promote { instead_of: Some(_), .. });
            waits.hands |= refused;
            !refused
        });
        if steps.is_empty() {
            let doing = match (waits.is_over_budget(), waits.rooms.is_empty()) {
                (true, _) => Doing::OverBudget,
                (false, false) => Doing::NoRoom,
                (false, true) if copying => Doing::Copying,
                (false, true) if !loses => Doing::TooLarge,
                (false, true) => Doing::NoPlace,
            };
            return Next::Wait(doing, waits);
        }
        let Some(part) = self.source.fit(steps) else {
            return Next::Wait(Doing::TooLarge, Waits::default());
        };
        spent.moves += moves.min(part.takers.len());
        spent.handed += part.handed;
        for member in &part.takers {
            *spent.given.entry(*member).or_default() += 1;
        }
        Next::Change(part)
    }

    /// Who is wanted, and may get a replica now if it has none; how many of these are moves, because the
    /// item has enough without them; and what the others wait for.
    fn coming(
        &self,
        replication: usize,
        wanted: impl Iterator<Item = (u32, bool)>,
        spent: &Spent,
    ) -> (Vec<Wanted<u32>>, usize, Waits) {
        let wanted: Vec<(u32, bool)> = wanted.collect();
        let is_wanted = |member| wanted.iter().any(|(wanted, _)| *wanted == member);
        let held = self.item.held.iter();
        let stay = held.filter(|held| held.consistent || is_wanted(held.member)).count();
        let (mut lacking, mut moves) = (replication.saturating_sub(stay), 0);
        let mut waits = Waits::default();
        let coming = wanted.iter().map(|(member, primary)| {
            let mut room = false;
            if !self.item.held.iter().any(|held| held.member == *member) {
                if !self.has_room(*member, spent) {
                    waits.rooms.push(*member);
                } else if !self.may_receive(*member, spent) {
                    waits.inbound.push(*member);
                } else if lacking > 0 {
                    (room, lacking) = (true, lacking - 1);
                } else if self.may_move(moves, spent) {
                    (room, moves) = (true, moves + 1);
                } else {
                    waits.moves = true;
                }
            }
            let zone = self.intent.zone(*member);
            Wanted { member: *member, zone, primary: *primary, room }
        });
        (coming.collect(), moves, waits)
    }

    /// Whether one more replica may be on its way to a member.
    fn may_receive(&self, member: u32, spent: &Spent) -> bool {
        let given = spent.given.get(&member).copied().unwrap_or(0) as usize;
        let coming = self.flights().to(member) + given;
        self.bounds.budget.inbound.is_none_or(|most| coming < most)
    }

    /// Whether one more move may be under way beside these.
    fn may_move(&self, beside: usize, spent: &Spent) -> bool {
        let moves = self.flights().moves() + spent.moves + beside;
        self.bounds.budget.moves.is_none_or(|most| moves < most)
    }

    fn flights(&self) -> &Flights {
        &self.world.progress.flights
    }

    fn has_room(&self, member: u32, spent: &Spent) -> bool {
        let given = spent.given.get(&member).copied().unwrap_or(0);
        let limit = self.intent.seat(member).map_or(0, |seat| seat.limit);
        self.world.member(member).load.saturating_add(given) < limit
    }

    fn held(&self, held: &Assignment<W>) -> plan::Held<u32> {
        let member = self.world.member(held.member);
        let seat = self.intent.seat(held.member);
        let limit = seat.map_or(0, |seat| seat.limit);
        let load = u64::from(member.load) << 20;
        plan::Held {
            member: held.member,
            zone: self.intent.zone(held.member),
            slot: held.slot,
            consistent: held.consistent,
            load: load.checked_div(u64::from(limit)).unwrap_or(u64::MAX),
            leaving: member.load > limit || is_exiting(member),
        }
    }
}

fn is_exiting<W: Workload>(member: &Member<W>) -> bool {
    member.value().is_none_or(MemberValue::is_exiting)
}

/// How many operations a transaction may have, to go with others in one request.
fn room(limits: &Limits) -> usize {
    // What is nested in a list counts beside what stands in it. Where the limit is low, that would be missed more.
    let own = limits.operations.saturating_sub(JOINED);
    if own < 4 * JOINED { limits.operations } else { own }
}

/// Puts parts together into transactions that are as large as they may be.
struct Packer<'a> {
    limits: &'a Limits,
    /// Of every transaction, and how many bytes it takes.
    fence: ([Compare; FENCE], usize),
    open: Open,
    done: Vec<Batch>,
}

#[derive(Default)]
struct Open {
    compares: Vec<Compare>,
    takers: BTreeSet<u32>,
    ops: Vec<Op>,
    bytes: usize,
    items: Vec<Arc<str>>,
    ended: Vec<(Arc<str>, u32)>,
}

impl<'a> Packer<'a> {
    fn new<W: Workload>(world: &World<W>, bounds: &'a Bounds) -> Self {
        // Where nobody stands nobody leads, and nothing is done.
        let nobody = || Compare::unchanged(world.keys().members(), u64::MAX);
        let leader = world.leader().map_or_else(nobody, |leader| member_unchanged(world, leader));
        let fence = [leader, world.nobody_takes_over()];
        let fence = (fence.clone(), Txn::when(fence).size());
        Self { limits: &bounds.limits, fence, open: Open::default(), done: Vec::new() }
    }

    fn add<W: Workload>(&mut self, world: &World<W>, name: Arc<str>, part: Part, alone: bool) {
        let Part { compares, ops, takers, ended, .. } = part;
        let txn = Txn { compares, success: ops, failure: Vec::new() };
        let bytes = txn.size() + takers.len() * MEMBER_COMPARE;
        let open = &self.open;
        let more = takers.iter().filter(|member| !open.takers.contains(member)).count();
        // What binds the takers of the open one stands among its compares already.
        let compares = FENCE + open.compares.len() + txn.compares.len() + more;
        let ops = open.ops.len() + txn.success.len();
        let too_many = compares.max(ops) > room(self.limits);
        let too_large = self.fence.1 + open.bytes + bytes > self.limits.bytes;
        if alone || too_many || too_large {
            self.close();
        }
        let open = &mut self.open;
        for member in takers {
            if open.takers.insert(member) {
                open.compares.push(member_unchanged(world, world.member(member)));
            }
        }
        open.compares.extend(txn.compares);
        open.ops.extend(txn.success);
        open.bytes += bytes;
        open.ended.extend(ended.into_iter().map(|member| (Arc::clone(&name), member)));
        open.items.push(name);
        if alone {
            self.close();
        }
    }

    fn close(&mut self) {
        let Open { mut compares, ops, items, ended, .. } = std::mem::take(&mut self.open);
        if ops.is_empty() {
            return;
        }
        compares.extend(self.fence.0.clone());
        let txn = Txn { compares, success: ops, failure: Vec::new() };
        self.done.push(Batch { txn, items, ended });
    }

    fn finish(mut self) -> Vec<Batch> {
        self.close();
        self.done
    }
}

fn member_unchanged<W: Workload>(world: &World<W>, member: &Member<W>) -> Compare {
    match &member.entry {
        Some(entry) => Compare::unchanged(&entry.kv.key, entry.kv.mod_revision),
        None => Compare::unchanged(world.keys().join(&member.key.key()), 0),
    }
}
