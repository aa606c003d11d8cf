//! The next transactions from what stands to what is meant, and why the rest waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    intent::Intent,
    item::Key,
    moves::cause,
    plan::{self, Step, Wanted, steps},
    progress::Doing,
    roster::Member,
    value::{ItemValue, MemberKey, MemberValue, Workload},
    world::{Assignment, Item, World},
};
use crate::store::{Bytes, Compare, KeyRange, KeyValue, Limits, Op, Txn};

/// How much of a request it takes to say that a member is as it was, in bytes: never too little.
const MEMBER_COMPARE: usize = 1_024;

/// As long a key as need not be made room for twice, in bytes.
const KEY_LEN: usize = 128;

/// How many compares a transaction holds to say that who leads still does.
const FENCE: usize = 2;

/// So many transactions go in one request: what a store does for each request, whatever is in it, etcd
/// above all, which copies what it has not written out yet, is done once for all of them.
pub(super) const JOINED: usize = 4;

/// What one round may do.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What a transaction may hold.
    pub limits: Limits,
    /// How many replicas may be on their way at once, and how many primaries may be handed over in a
    /// round. `None`: any number.
    pub moves: Option<usize>,
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

/// What is to be done with one item.
#[derive(Debug, Default)]
struct Part {
    danger: usize,
    compares: Vec<Compare>,
    ops: Vec<Op>,
    /// Members that get a replica, in ascending order; their keys must be as they were.
    takers: Vec<u32>,
    ended: Vec<u32>,
}

/// What of a round is used up.
#[derive(Debug, Default)]
struct Spent {
    /// Replicas that the round gives to members.
    given: BTreeMap<u32, u32>,
    copying: usize,
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
        let spent = Spent { copying: world.copying(), ..Spent::default() };
        let budget = bounds.moves.is_none_or(|moves| spent.copying < moves);
        Self { rest: by_danger(world, budget).into_iter(), spent, ..Self::default() }
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
        let mut parts: Vec<(Arc<str>, Part)> = Vec::new();
        for (danger, number) in self.rest.by_ref().take(items) {
            let (name, item) = world.row(number);
            let now = Now { world, intent, name, item, bounds, danger };
            match now.next(&mut self.spent) {
                Next::Settled => world.progress.settle(number),
                Next::Wait { doing, full } => {
                    let cause = cause(world, intent, item);
                    world.progress.wait(number, (doing, cause), &full);
                }
                Next::Change(part) => {
                    self.removed += part.ended.len();
                    let (name, cause) = (Arc::clone(name), cause(world, intent, item));
                    world.progress.wait(number, (Doing::Changing, cause), &[]);
                    parts.push((name, part));
                }
            }
        }
        self.added = self.spent.given.values().map(|given| *given as usize).sum();
        self.handed = self.spent.handed;
        // What goes to the same members fits into fewer transactions, because it is bound to fewer keys.
        parts.sort_by(|(_, a), (_, b)| (a.danger, &a.takers).cmp(&(b.danger, &b.takers)));
        let mut packer = Packer::new(world, bounds);
        for (name, part) in parts {
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
fn by_danger<W: Workload>(world: &mut World<W>, budget: bool) -> Vec<(usize, u32)> {
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

/// What becomes of an item in a round.
enum Next {
    Settled,
    Wait { doing: Doing, full: Vec<u32> },
    Change(Part),
}

/// An item that is looked at.
struct Now<'a, W: Workload> {
    world: &'a World<W>,
    intent: &'a Intent,
    name: &'a str,
    item: &'a Item<W>,
    bounds: &'a Bounds,
    danger: usize,
}

impl<W: Workload> Now<'_, W> {
    fn next(&self, spent: &mut Spent) -> Next {
        let Some(item) = &self.item.entry else { return Next::Change(self.bury()) };
        let (Some(value), Some(wanted)) = (self.item.value(), self.intent.wanted(self.item)) else {
            return Next::Settled;
        };
        if self.intent.is_met(self.item) {
            let copying = self.item.held.iter().any(|held| !held.consistent);
            let wait = Next::Wait { doing: Doing::Copying, full: Vec::new() };
            return if copying { wait } else { Next::Settled };
        }
        let budget = self.bounds.moves.unwrap_or(usize::MAX);
        let (mut over_budget, mut coming, mut full) = (false, 0, Vec::new());
        // What nobody holds does not wait for others, which may never become consistent.
        let nobody = self.item.held.is_empty();
        let wanted: Vec<Wanted<u32>> = wanted
            .into_iter()
            .map(|(member, primary)| {
                let mut room = false;
                if !self.item.held.iter().any(|held| held.member == member) {
                    if !self.has_room(member, spent) {
                        full.push(member);
                    } else if spent.copying + coming >= budget && !(nobody && coming == 0) {
                        over_budget = true;
                    } else {
                        room = true;
                        coming += 1;
                    }
                }
                Wanted { member, primary, room }
            })
            .collect();
        let held: Vec<plan::Held<u32>> =
            self.item.held.iter().map(|held| self.held(held)).collect();
        let mut steps = steps(value.replication() as usize, &held, &wanted);
        steps.retain(|step| {
            let hands = matches!(step, Step::Promote { instead_of: Some(_), .. });
            let allowed = !hands || spent.handed < budget;
            over_budget |= !allowed;
            spent.handed += usize::from(hands && allowed);
            allowed
        });
        if steps.is_empty() {
            let copying = self.item.held.iter().any(|held| !held.consistent);
            let doing = match (over_budget, full.is_empty()) {
                (true, _) => Doing::OverBudget,
                (false, false) => Doing::NoRoom,
                (false, true) if copying => Doing::Copying,
                (false, true) => Doing::NoPlace,
            };
            return Next::Wait { doing, full };
        }
        let Some(part) = self.fit(&item.kv, steps) else {
            return Next::Wait { doing: Doing::TooLarge, full: Vec::new() };
        };
        spent.copying += part.takers.len();
        for member in &part.takers {
            *spent.given.entry(*member).or_default() += 1;
        }
        Next::Change(part)
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
            slot: held.slot,
            consistent: held.consistent,
            load: load.checked_div(u64::from(limit)).unwrap_or(u64::MAX),
            leaving: member.load > limit || is_exiting(member),
        }
    }

    /// Assignments whose item is gone.
    fn bury(&self) -> Part {
        let key = self.world.keys().join(&Key::Item(self.name));
        let mut part = Part { danger: self.danger, ..Part::default() };
        part.compares.push(Compare::absent(KeyRange::key(key)));
        // Where there are too many, the rest goes in the next round.
        for held in
            self.item.held.iter().take(self.bounds.limits.operations.saturating_sub(1 + FENCE))
        {
            part.compares.push(unchanged(held));
            part.ops.push(Op::delete(&held.entry.kv.key));
            part.ended.push(held.member);
        }
        part
    }

    /// The steps as a part of a transaction, or as many of them as fit into one.
    fn fit(&self, item: &KeyValue, mut steps: Vec<Step<u32>>) -> Option<Part> {
        let fits = |part: &Part| {
            let compares = part.compares.len() + part.takers.len() + FENCE;
            compares.max(part.ops.len()) <= self.bounds.limits.operations
        };
        let part = self.part(item, &steps);
        if fits(&part) {
            return Some(part);
        }
        steps.retain(|step| matches!(step, Step::Add { .. }));
        steps.truncate(self.bounds.limits.operations.saturating_sub(1 + FENCE));
        Some(self.part(item, &steps)).filter(|part| !part.ops.is_empty() && fits(part))
    }

    fn part(&self, item: &KeyValue, steps: &[Step<u32>]) -> Part {
        let mut part = Part { danger: self.danger, ..Part::default() };
        part.compares.reserve(1 + self.item.held.len());
        part.compares.push(Compare::unchanged(&item.key, item.mod_revision));
        if steps.iter().any(|step| !matches!(step, Step::Add { .. })) {
            part.compares.extend(self.item.held.iter().map(unchanged));
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
                Step::Promote { .. } | Step::Demote { .. } => {}
            }
        }
        part.takers.sort_unstable();
        // From one slot to another.
        let moves = steps.iter().flat_map(|step| match *step {
            Step::Promote { member, slot, instead_of } => {
                [Some((member, slot, 0)), instead_of.map(|old| (old, 0, slot))]
            }
            Step::Demote { member, slot } => [Some((member, 0, slot)), None],
            Step::Add { .. } | Step::Remove { .. } => [None, None],
        });
        for (member, from, to) in moves.flatten() {
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
}

fn puts(op: &Op, name: &Bytes) -> bool {
    matches!(op, Op::Put { key, .. } if key == name)
}

fn unchanged<W: Workload>(held: &Assignment<W>) -> Compare {
    Compare::unchanged(&held.entry.kv.key, held.entry.kv.mod_revision)
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
