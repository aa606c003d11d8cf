//! The driver over a host in memory, in paused time: what hangs, what is slow, what is refused, and what is recorded.

use std::{
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use raft_autopilot::{
    autopilot::{
        Applied, Autopilot, Change, Cluster, ClusterError, Handle, LogId, Observation, Options,
        Outcome, Record, Refusal, Role, Running, Server, Sighting, Step, VerbError,
    },
    promoters::Stable,
    runtime::{Runtime, TokioRuntime},
};
use tokio::sync::Notify;

use crate::support::{HEARTBEAT, World, time};

/// A host of which everything can be turned.
#[derive(Clone)]
struct Host(Arc<(Mutex<Inner>, Notify)>);

struct Inner {
    world: World,
    index: u64,
    /// Steps that were done, as text, each with the time.
    done: Vec<(String, Duration)>,
    records: Vec<Record>,
    observations: u32,
    /// Observations hang.
    hangs: bool,
    /// How long a step takes.
    takes: Duration,
    /// Which records the host does not take.
    refuses: fn(&Record) -> bool,
}

impl Host {
    fn new(text: &str) -> Self {
        let mut world = World::of(text);
        // The driver's clock counts from the start of the process.
        let now = TokioRuntime.now();
        (world.seen.at, world.seen.ledger_at) = (now, now);
        world.seen.leading.as_mut().unwrap().since = now;
        world.ledger.as_mut().unwrap().servers.clear();
        let inner = Inner {
            world,
            index: 100,
            done: Vec::new(),
            records: Vec::new(),
            observations: 0,
            hangs: false,
            takes: Duration::from_millis(1),
            refuses: |_| false,
        };
        Self(Arc::new((Mutex::new(inner), Notify::new())))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap()
    }

    fn done(&self) -> Vec<String> {
        self.inner().done.iter().map(|(step, _)| step.clone()).collect()
    }

    fn removed(&self) -> Vec<String> {
        let inner = self.inner();
        inner.world.ledger.as_ref().unwrap().removed.iter().map(ToString::to_string).collect()
    }

    /// Runs autopilot over it, with a pause of a second at most.
    fn run(&self, promoter: Stable, tune: impl FnOnce(&mut Options)) -> Handle {
        let mut options = Options::for_heartbeat(HEARTBEAT);
        options.update_interval = time("1s");
        tune(&mut options);
        let (autopilot, handle) =
            Autopilot::new(self.clone(), TokioRuntime, promoter, options).unwrap();
        TokioRuntime.spawn(autopilot.run(std::future::pending()));
        handle
    }
}

impl Inner {
    fn server(&mut self, id: &str) -> &mut Sighting {
        self.world.server(id)
    }

    fn apply(&mut self, step: &Step) {
        self.index += 1;
        self.world.seen.membership.log_id = LogId { term: 5, index: self.index };
        match step {
            Step::Votes { promote, demote } => {
                promote.iter().for_each(|id| self.server(id.as_str()).role = Role::Voter);
                demote.iter().for_each(|id| self.server(id.as_str()).role = Role::Learner);
            }
            Step::Remove { servers, .. } => {
                self.world.seen.servers.retain(|s| !servers.contains(&s.server.id));
            }
            Step::Add(server) => {
                let contact = Some(Duration::ZERO);
                let like = self.server("1").clone();
                let server = Arc::clone(server);
                let new = Sighting { server, role: Role::Learner, contact, ..like };
                self.world.seen.servers.push(new);
            }
            Step::FinishJoint | Step::Readdress { .. } | Step::Transfer { .. } => {}
        }
    }
}

impl Cluster for Host {
    type Error = io::Error;

    async fn observe(&self, at: Duration) -> Observation {
        let hangs = {
            let mut inner = self.inner();
            inner.observations += 1;
            inner.hangs
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let inner = self.inner();
        let mut seen = inner.world.seen.clone();
        (seen.at, seen.ledger_at) = (at, at);
        seen.ledger = inner.world.ledger.clone().map(Arc::new);
        seen
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        self.0.1.notified()
    }

    async fn apply(&self, change: Change) -> Applied<io::Error> {
        let takes = self.inner().takes;
        TokioRuntime.sleep(takes).await;
        let mut inner = self.inner();
        let found = inner.world.seen.membership.log_id;
        if change.fence.membership != found {
            return Err(ClusterError::Moved(format!("{found:?}")));
        }
        inner.apply(&change.step);
        inner.done.push((change.step.to_string(), TokioRuntime.now()));
        self.0.1.notify_one();
        Ok(())
    }

    async fn record(&self, record: Record) -> Result<Outcome, ClusterError<io::Error>> {
        let mut inner = self.inner();
        if (inner.refuses)(&record) {
            return Err(ClusterError::Refused(io::Error::other("not now")));
        }
        inner.records.push(record.clone());
        inner.index += 1;
        let index = inner.index;
        let ledger = inner.world.ledger.as_mut().unwrap();
        let outcome = ledger.apply(index, TokioRuntime.now(), record);
        self.0.1.notify_one();
        Ok(outcome)
    }
}

/// Waits until something holds; a minute, then it is a failure.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = TokioRuntime.now() + time("1m");
    while !holds() {
        assert!(TokioRuntime.now() < end, "never: {what}");
        TokioRuntime.sleep(time("5ms")).await;
    }
}

async fn healthy(handle: &Handle) {
    until("all healthy", || handle.state().is_some_and(|state| state.healthy)).await;
}

const LEARNER: &str = "1 leader\n2\n3\n4 learner";

// Orders about nobody, and removals that are not recorded.

#[tokio::test(start_paused = true)]
async fn an_order_about_a_server_that_nobody_knows_is_refused_and_leaves_nothing() {
    let host = Host::new("1 leader\n2\n3\n8 absent contact=never matched=never");
    let handle = host.run(Stable::new(), |_| {});
    until("it steers", || handle.running() == Running::Leading).await;
    for id in ["9", "8"] {
        let refusal = Refusal::NotMember { server: id.into() };
        let refused =
            Err(VerbError::Refused { refusal, left_behind: "nothing was changed".to_owned() });
        assert_eq!(handle.demote(id).await, refused);
        assert_eq!(handle.promote(id).await, refused);
        assert_eq!(handle.replace(id, Server::new("5", "there")).await, refused);
    }
    let orders = |record: &Record| matches!(record, Record::Begin(_) | Record::Cordon { .. });
    assert!(!host.inner().records.iter().any(orders), "{:?}", host.inner().records);
    assert!(host.inner().world.ledger.as_ref().unwrap().cordons.is_empty());
    assert_eq!(host.done(), [""; 0]);
    // One that is no member is removed already.
    assert_eq!(handle.remove("9").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_could_not_be_recorded_is_recorded_later_and_the_id_stays_away_meanwhile() {
    let host = Host::new(LEARNER);
    host.inner().refuses = |record| matches!(record, Record::Removed(_) | Record::Health(_));
    let handle = host.run(Stable::with_target(3), |_| {});
    until("it steers", || handle.running() == Running::Leading).await;
    handle.remove("4").await.unwrap();
    TokioRuntime.sleep(time("10s")).await;
    assert_eq!(host.removed(), [""; 0]);
    let again = handle.add(Server::new("4", "there")).await;
    let refusal = Refusal::RemovedId { server: "4".into() };
    assert_eq!(
        again,
        Err(VerbError::Refused { refusal, left_behind: "nothing was changed".to_owned() })
    );
    host.inner().refuses = |_| false;
    until("it is recorded", || host.removed() == ["4"]).await;
    TokioRuntime.sleep(time("10s")).await;
    let removals = |record: &&Record| matches!(record, Record::Removed(_));
    assert_eq!(host.inner().records.iter().filter(removals).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_recorded_once() {
    let host = Host::new(LEARNER);
    let handle = host.run(Stable::with_target(3), |_| {});
    healthy(&handle).await;
    TokioRuntime.sleep(time("3s")).await;
    handle.remove("4").await.unwrap();
    TokioRuntime.sleep(time("3s")).await;
    let removals = |record: &&Record| matches!(record, Record::Removed(_));
    assert_eq!(host.inner().records.iter().filter(removals).count(), 1);
    assert_eq!(host.removed(), ["4"]);
}
