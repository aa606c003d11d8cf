//! What a change of the world costs the leader: to follow the view, to plan, and to make the transactions;
//! and what it keeps for that, beside the mirror.
//!
//! `cargo bench --features allocator --bench leader` prints a table: processor time of the thread, the fastest of a
//! few changes of each kind. Items have three replicas, members are in three zones, and each plan is carried out
//! before the next change. `-- 20000` takes that many items only.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, reason = "a bench")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use raft_autopilot::{
    allocator::{
        Entity, Intent, Outside, Replica, Rules, Workload, World,
        converge::{Bounds, Budget, round},
        item::Keys,
        plain::{PlainItem, PlainMember, PlainState},
    },
    runtime::TokioRuntime,
    store::{
        Embedded, KeyRange, KeyValue, LeaseId, Op, Store, Txn,
        machine::Config,
        mirror::{Mirror, Options, View},
    },
};

#[path = "account.rs"]
mod account;

const ROOT: &str = "/items";

/// Replicas are consistent from the start, so that the planner's work is all there is.
#[derive(Clone, Copy, Debug)]
struct Ready;

impl Workload for Ready {
    type Item = PlainItem;
    type Member = PlainMember;
    type State = PlainState;

    fn is_consistent(&self, _: &PlainItem, _: usize, _: &[Replica<'_, PlainState>]) -> bool {
        true
    }
}

fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let begin = account::spent();
    let done = run();
    (account::spent().saturating_sub(begin).as_secs_f64() * 1e3, done)
}

/// A leader, and the store that it plans for.
struct Leader {
    store: Embedded,
    mirror: Mirror<Entity<Ready>>,
    view: Arc<View<Entity<Ready>>>,
    world: World<Ready>,
    intent: Option<Intent>,
    limit: u32,
    leases: Vec<LeaseId>,
}

/// What a change costs, in milliseconds, and how many items it moves.
#[derive(Clone, Copy)]
struct Cost {
    follow: f64,
    plan: f64,
    round: f64,
    added: u64,
}

impl Leader {
    async fn new(items: usize, members: u32) -> Self {
        let store = Embedded::new(Config::default(), TokioRuntime);
        let limit = (items * 3 / members as usize) as u32 * 3 / 2 + 1;
        let mut leases = Vec::new();
        for member in 0..members {
            leases.push(put_member(&store, member, limit).await);
        }
        for first in (0..items).step_by(100) {
            let ops = (first..items.min(first + 100)).map(|item| put_item(item, 3));
            store.commit(Txn::new(ops)).await.unwrap();
        }
        let keys = Keys::new(ROOT);
        let decoder = keys.clone();
        let mirror = Mirror::open(
            store.clone(),
            TokioRuntime,
            KeyRange::prefix(format!("{ROOT}/")),
            move |kv: &KeyValue| Entity::decode(&decoder, kv),
            Options::default(),
        );
        let mirror = mirror.await.unwrap();
        let view = mirror.view();
        let world = World::new(keys, Arc::new(Ready), &view);
        Self { store, mirror, view, world, intent: None, limit, leases }
    }

    /// Follows, plans, and carries the plan out.
    async fn settle(&mut self, revision: u64) -> Cost {
        let later = self.mirror.wait(revision).await.unwrap();
        let (follow, _) = timed(|| self.world.follow(&self.view, &later));
        self.view = later;
        let plan = self.plan();
        let (limits, budget) = (self.store.limits(), Budget::default());
        let bounds = Bounds { limits, budget, now: Duration::ZERO };
        let added = self.intent.as_ref().unwrap().certificate().added;
        let mut first = None;
        loop {
            let intent = self.intent.as_ref().unwrap();
            let (time, next) = timed(|| round(&mut self.world, intent, &bounds, &BTreeSet::new()));
            let round = *first.get_or_insert(time);
            let mut revision = 0;
            for batch in next.batches {
                let done = self.store.commit(batch.txn).await.unwrap();
                assert!(done.succeeded);
                revision = done.revision;
            }
            if revision == 0 {
                return Cost { follow, plan, round, added };
            }
            let later = self.mirror.wait(revision).await.unwrap();
            self.world.follow(&self.view, &later);
            self.view = later;
        }
    }

    /// Plans, and returns how long it took.
    fn plan(&mut self) -> f64 {
        let (rules, outside) = (Rules::default(), Outside::default());
        let Self { world, intent, .. } = self;
        let plan = || match intent {
            Some(intent) => intent.follow(world, &rules, &outside),
            None => *intent = Some(Intent::new(world, &rules, &outside)),
        };
        timed(plan).0
    }
}

async fn put_member(store: &Embedded, member: u32, limit: u32) -> LeaseId {
    let lease = store.grant(Duration::from_secs(1 << 20), None).await.unwrap().id;
    let key = format!("{ROOT}/members/{}#m{member:05}", ["a", "b", "c"][member as usize % 3]);
    let put = Op::put_leased(key, format!(r#"{{"limit":{limit}}}"#), lease);
    store.commit(Txn::new([put])).await.unwrap();
    lease
}

fn put_item(item: usize, replication: u32) -> Op {
    let value = format!(r#"{{"replication":{replication}}}"#);
    Op::put(format!("{ROOT}/items/i{item:07}"), value)
}

fn print(case: &str, costs: &[Cost]) {
    let least = |of: fn(&Cost) -> f64| costs.iter().map(of).fold(f64::MAX, f64::min);
    println!(
        "  {case:<12} follow {:>9.3}  plan {:>9.3}  round {:>9.3}  new {}",
        least(|cost| cost.follow),
        least(|cost| cost.plan),
        least(|cost| cost.round),
        costs[0].added
    );
}

async fn cases(items: usize, members: u32, runs: u32) {
    println!("{items} items, {members} members; milliseconds");
    let mut leader = Leader::new(items, members).await;
    let first = leader.settle(0).await;
    print("from nothing", &[first]);
    let mut again = None;
    let info = allocation_counter::measure(|| {
        let keys = Keys::new(ROOT);
        let (world, mut new) = timed(|| World::new(keys, Arc::new(Ready), &leader.view));
        let rules = Rules::default();
        let (plan, intent) = timed(|| Intent::new(&mut new, &rules, &Outside::default()));
        again = Some((world, plan, new, intent));
    });
    let (world, plan, new, intent) = again.unwrap();
    println!(
        "  a new leader world {world:>9.1}  plan {plan:>9.1}  new {}",
        intent.certificate().added
    );
    println!(
        "  keeps {} B an item beside the mirror, at most {}",
        info.bytes_current.unsigned_abs() / items as u64,
        info.bytes_max / items as u64
    );
    drop((new, intent));
    let (mut lost, mut added, mut changed, mut made) = (vec![], vec![], vec![], vec![]);
    for run in 0..runs {
        let lease = leader.leases[run as usize];
        leader.store.revoke(lease).await.unwrap();
        let revision = leader.store.commit(Txn::new([])).await.unwrap().revision;
        lost.push(leader.settle(revision).await);
        put_member(&leader.store, members + run, leader.limit).await;
        let revision = leader.store.commit(Txn::new([])).await.unwrap().revision;
        added.push(leader.settle(revision).await);
        let op = put_item(run as usize, 2);
        let revision = leader.store.commit(Txn::new([op])).await.unwrap().revision;
        changed.push(leader.settle(revision).await);
        let op = put_item(items + run as usize, 3);
        let revision = leader.store.commit(Txn::new([op])).await.unwrap().revision;
        made.push(leader.settle(revision).await);
    }
    print("member lost", &lost);
    print("member added", &added);
    print("item changed", &changed);
    print("item added", &made);
}

const SIZES: [(usize, u32); 3] = [(20_000, 100), (100_000, 1_000), (1_000_000, 10_000)];

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let only: Option<usize> = words.iter().find_map(|word| word.parse().ok());
    // Else it is only to be seen that it runs.
    let full = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let sizes = if full { &SIZES[..] } else { &[(2_000, 30)] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for (items, members) in sizes {
        if only.is_none_or(|only| only == *items) {
            runtime.block_on(cases(*items, *members, if full { 5 } else { 1 }));
        }
    }
}
