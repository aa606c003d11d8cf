//! A host in memory of which everything can be turned, for the driver in paused time.

use std::{
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use raft_autopilot::{
    autopilot::{
        Applied, Autopilot, Change, Cluster, ClusterError, Handle, LogId, Observation, Options,
        Outcome, Promoter, Record, Role, Sighting, Step,
    },
    runtime::{Runtime, TokioRuntime},
};
use tokio::sync::Notify;

use crate::support::{HEARTBEAT, World, time};

/// A host of which everything can be turned.
#[derive(Clone)]
pub(crate) struct Host(pub(crate) Arc<(Mutex<Inner>, Notify)>);

pub(crate) struct Inner {
    pub(crate) world: World,
    pub(crate) index: u64,
    /// Steps that were done, as text, each with the time.
    pub(crate) done: Vec<(String, Duration)>,
    pub(crate) records: Vec<Record>,
    pub(crate) observations: u32,
    /// Observations hang.
    pub(crate) hangs: bool,
    /// How long a step takes.
    pub(crate) takes: Duration,
    /// How often the host does not remove.
    pub(crate) keeps: u32,
    /// Which records the host does not take.
    pub(crate) refuses: fn(&Record) -> bool,
    /// How often the host panics over a record.
    pub(crate) panics: u32,
    /// Records are never answered.
    pub(crate) loses: bool,
    /// Steps that were tried, and what the host says to the n-th of them.
    pub(crate) tries: u32,
    pub(crate) fails: fn(u32) -> Option<ClusterError<io::Error>>,
}

impl Host {
    pub(crate) fn new(text: &str) -> Self {
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
            keeps: 0,
            refuses: |_| false,
            panics: 0,
            loses: false,
            tries: 0,
            fails: |_| None,
        };
        Self(Arc::new((Mutex::new(inner), Notify::new())))
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap()
    }

    pub(crate) fn done(&self) -> Vec<String> {
        self.inner().done.iter().map(|(step, _)| step.clone()).collect()
    }

    pub(crate) fn removed(&self) -> Vec<String> {
        let inner = self.inner();
        inner.world.ledger.as_ref().unwrap().removed.iter().map(ToString::to_string).collect()
    }

    /// Runs autopilot over it, with a pause of a second at most.
    pub(crate) fn run(&self, promoter: impl Promoter, tune: impl FnOnce(&mut Options)) -> Handle {
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
    pub(crate) fn server(&mut self, id: &str) -> &mut Sighting {
        self.world.server(id)
    }

    fn apply(&mut self, step: &Step) {
        self.index += 1;
        self.world.seen.membership.log_id = LogId { term: 5, index: self.index };
        match step {
            Step::Votes { promote, demote } => {
                for (ids, role) in [(promote, Role::Voter), (demote, Role::Learner)] {
                    for id in ids {
                        self.server(id.as_str()).role = role;
                    }
                }
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
        inner.tries += 1;
        if let Some(error) = (inner.fails)(inner.tries) {
            return Err(error);
        }
        let found = inner.world.seen.membership.log_id;
        if change.fence.membership != found {
            return Err(ClusterError::Moved(format!("{found:?}")));
        }
        if matches!(change.step, Step::Remove { .. }) && inner.keeps > 0 {
            inner.keeps -= 1;
            return Err(ClusterError::Refused(io::Error::other("not now")));
        }
        inner.apply(&change.step);
        inner.done.push((change.step.to_string(), TokioRuntime.now()));
        self.0.1.notify_one();
        Ok(())
    }

    async fn record(&self, record: Record) -> Result<Outcome, ClusterError<io::Error>> {
        let (loses, panics) = {
            let mut inner = self.inner();
            let panics = inner.panics > 0;
            inner.panics -= u32::from(panics);
            (inner.loses, panics)
        };
        assert!(!panics, "no page has an end");
        if loses {
            std::future::pending::<()>().await;
        }
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
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = TokioRuntime.now() + time("1m");
    while !holds() {
        assert!(TokioRuntime.now() < end, "never: {what}");
        TokioRuntime.sleep(time("5ms")).await;
    }
}

pub(crate) async fn healthy(handle: &Handle) {
    until("all healthy", || handle.state().is_some_and(|state| state.healthy)).await;
}

/// Three voters and a learner.
pub(crate) const LEARNER: &str = "1 leader\n2\n3\n4 learner";
