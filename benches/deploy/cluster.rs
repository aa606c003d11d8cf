//! One member that leads over a real etcd, all that is written through it, and the same writes sent raw.

use std::{
    ops::{AddAssign, Sub},
    sync::Arc,
    time::{Duration, Instant},
};

use raft_autopilot::{
    allocator::{
        Allocator, Doing, Entity, Handle, Leading, Options, Report, Rules, Standings, Status,
        plain::{Plain, PlainMember},
    },
    runtime::TokioRuntime,
    store::{KeyRange, LeaseId, Op, Store, Txn, Update, Watch, mirror::View},
};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
};

use crate::{
    recorder::{ROOT, Recorder, Written},
    replay::{self, Beside},
    server::Server,
};

/// How many requests are on their way at once, of the leader's and of the raw ones.
const IN_FLIGHT: usize = 16;

/// How long etcd is given to be done with what it does behind its answers.
pub(crate) const SETTLE: Duration = Duration::from_millis(200);

async fn write(store: &impl Store, ops: impl IntoIterator<Item = Op>) -> u64 {
    let ops: Vec<Op> = ops.into_iter().collect();
    let txns = ops.chunks(store.limits().operations).map(|ops| Txn::new(ops.to_vec()));
    send(store, txns.collect()).await
}

/// Sends transactions, many at once. Returns the last revision that they made.
async fn send(store: &impl Store, txns: Vec<Txn>) -> u64 {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = Vec::new();
    for txn in txns {
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let done = store.commit(txn).await.unwrap();
            drop(permit);
            done.revision
        }));
    }
    let mut last = 0;
    for task in tasks {
        last = last.max(task.await.unwrap());
    }
    last
}

/// Seconds that passed, and that processors worked, where the system says so.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) wall: f64,
    /// In this process.
    pub(crate) ours: f64,
    pub(crate) etcd: f64,
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let (wall, ours) = (self.wall - other.wall, self.ours - other.ours);
        Self { wall, ours, etcd: self.etcd - other.etcd }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.ours += other.ours;
        self.etcd += other.etcd;
    }
}

/// How long the threads of a process have worked, in seconds. Zero where the system does not tell.
fn worked(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e9
}

/// The key of a member, of whatever zone.
pub(crate) fn member_key(zone: &str, at: usize) -> String {
    format!("{ROOT}/members/{zone}#m{at:05}")
}

pub(crate) fn member(zone: &str, at: usize, limit: usize, exiting: bool, lease: LeaseId) -> Op {
    let limit = u32::try_from(limit).unwrap();
    let value = PlainMember { limit, exiting, share: None };
    Op::put_leased(member_key(zone, at), serde_json::to_vec(&value).unwrap(), lease)
}

/// So many items of three replicas.
pub(crate) fn items(count: usize) -> impl Iterator<Item = Op> {
    (0..count).map(|at| Op::put(format!("{ROOT}/items/i{at:06}"), r#"{"replication":3}"#))
}

/// An etcd, and the member that leads.
pub(crate) struct Cluster {
    server: Server,
    store: Recorder,
    pub(crate) handle: Handle<Plain>,
    /// One for whoever is to be lost.
    pub(crate) lease: LeaseId,
    /// What stood when replicas were last made consistent.
    marked: Arc<View<Entity<Plain>>>,
    /// What the leader had planned when it was last looked at.
    plans: u64,
    /// The fewest new assignments that each plan could do with, added up.
    pub(crate) bound: u64,
    started: Instant,
    /// What this process had worked before.
    before: f64,
    /// Dropped, it ends the member.
    _shutdown: oneshot::Sender<()>,
}

impl Cluster {
    /// A leader that can hold `limit` items itself, and begins to plan when `ops` are done.
    pub(crate) async fn start<I: IntoIterator<Item = Op>>(
        limit: u32,
        balance_slack: u32,
        ops: impl FnOnce(LeaseId) -> I,
    ) -> Self {
        let server = Server::start().await;
        let store = Recorder::new(server.store().await);
        let (started, before) = (Instant::now(), worked(std::process::id()));
        let lease = store.grant(Duration::from_secs(300), None).await.unwrap().id;
        let rules = Rules { balance_slack, ..Rules::default() };
        let (judge, standings) = watch::channel(None);
        let standings = Some(standings);
        let leading =
            Leading { rules, batches_in_flight: IN_FLIGHT, standings, ..Leading::default() };
        let value = PlainMember { limit, ..PlainMember::default() };
        let options = Options {
            ttl: Duration::from_secs(300),
            leading,
            ..Options::new(ROOT, "zone-a", "leader", value)
        };
        let made = Allocator::new(store.clone(), TokioRuntime, Plain, (), options);
        let (mut allocator, handle) = made.unwrap();
        let (shutdown, asked) = oneshot::channel::<()>();
        tokio::spawn(async move { allocator.run(async { drop(asked.await) }).await });
        while handle.status() != Status::Active {
            handle.changed(handle.status()).await;
        }
        let revision = write(&store, ops(lease)).await;
        handle.mirror().unwrap().wait(revision).await.unwrap();
        judge.send(Some(Standings::default())).unwrap();
        handle.report_when(|_| true).await.unwrap();
        Self {
            server,
            store,
            handle,
            lease,
            marked: Arc::default(),
            plans: 0,
            bound: 0,
            started,
            before,
            _shutdown: shutdown,
        }
    }

    /// What was spent since it was started.
    pub(crate) fn spent(&self) -> Spent {
        let wall = self.started.elapsed().as_secs_f64();
        let ours = worked(std::process::id()) - self.before;
        Spent { wall, ours, etcd: worked(self.server.id()) }
    }

    /// Writes in transactions that are as large as they may be.
    pub(crate) async fn write(&self, ops: impl IntoIterator<Item = Op>) -> u64 {
        write(&self.store, ops).await
    }

    pub(crate) async fn grant(&self) -> LeaseId {
        self.store.grant(Duration::from_secs(300), None).await.unwrap().id
    }

    pub(crate) async fn revoke(&self, lease: LeaseId) {
        self.store.revoke(lease).await.unwrap();
    }

    /// Waits until nothing more can be done, makes everything consistent that is new, and so on until
    /// nothing is new. Returns in how many rounds.
    pub(crate) async fn settle(&mut self, mut revision: u64) -> (u64, Arc<Report>) {
        let before = self.handle.report().map_or(0, |report| report.done.rounds);
        loop {
            let idle = |report: &Report| {
                report.revision >= revision && !report.doing.contains_key(&Doing::Changing)
            };
            let report = self.handle.report_when(idle).await.unwrap();
            if report.done.plans != self.plans {
                self.plans = report.done.plans;
                self.bound += report.certificate.lower_bound;
            }
            if report.copying == 0 {
                return (report.done.rounds - before, report);
            }
            revision = self.mark().await;
        }
    }

    /// Makes everything consistent that is new.
    async fn mark(&mut self) -> u64 {
        let view = self.handle.view().unwrap();
        let marked = std::mem::replace(&mut self.marked, Arc::clone(&view));
        let new = marked.changes(&view).filter_map(|change| change.after);
        let new =
            new.filter(|entry| matches!(entry.value.as_deref(), Some(Entity::Assignment(None))));
        let ops: Vec<Op> = new
            .map(|entry| Op::put_leased(&entry.kv.key, r#"{"consistent":true}"#, entry.kv.lease))
            .collect();
        assert!(!ops.is_empty(), "what is marked is consistent");
        self.write(ops).await
    }

    /// What was written since this was last asked, in the order of revisions.
    pub(crate) fn written(&self) -> Vec<Written> {
        self.store.take()
    }

    /// What was written, sent again to the same etcd; what it deletes stands before.
    pub(crate) async fn replay(&self, written: &[Written], beside: Beside) -> Spent {
        let store = &self.store.store;
        write(store, replay::standing(written, beside)).await;
        let stages = replay::stages(written, beside);
        let (tell, mut seen) = watch::channel(u64::MAX);
        // It ends before the next replay, which nobody is to watch.
        let mut watcher = JoinSet::new();
        if let Beside::Fences { lost } = beside {
            let lease = self.grant().await;
            let stood = write(store, replay::leased(lost, beside, lease)).await;
            tell.send_replace(stood);
            let mut events = store.watch(KeyRange::prefix(beside.root()), stood + 1).await.unwrap();
            watcher.spawn(async move {
                while let Ok(update) = events.next().await {
                    if let Update::Events(events) = update {
                        tell.send_replace(events.revision);
                    }
                }
            });
            tokio::time::sleep(SETTLE).await;
            store.revoke(lease).await.unwrap();
        } else {
            tokio::time::sleep(SETTLE).await;
        }
        let before = self.spent();
        let mut last = 0;
        for stage in stages {
            last = send(store, stage).await;
        }
        seen.wait_for(|seen| *seen >= last).await.unwrap();
        let spent = self.spent() - before;
        watcher.shutdown().await;
        let all = Op::Delete(KeyRange::prefix(beside.root()));
        store.commit(Txn::new([all])).await.unwrap();
        spent
    }
}
