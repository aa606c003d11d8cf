//! Nodes in one process, the network between them, and a store on each.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{
    OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2, SnapshotPolicy,
    async_runtime::WatchReceiver,
    errors::{RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    impls::EmptyNode,
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    type_config::TypeConfigExt,
};
use raft_autopilot::{
    openraft::{RaftLog, RaftRuntime, StoreHost},
    store::replicated::{Answer, Applied, Entry, LogError, Options, Replicated, Request},
};

use crate::{
    storage::{Disk, Machine},
    types::{Command, Sim, Vote},
};

pub(crate) type Raft3 = Raft<Sim, Machine>;
pub(crate) type Store = Replicated<RaftLog<Sim, Machine, Host>, RaftRuntime<Sim>>;

/// How long anything of openraft's is on its way.
const HOP: Duration = Duration::from_millis(1);

/// One process.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) raft: Raft3,
    pub(crate) store: Store,
}

/// All there is. Clones are the same cluster.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

struct State {
    up: BTreeMap<u64, Node>,
    disks: BTreeMap<u64, Disk>,
    cut: BTreeSet<(u64, u64)>,
    /// Every so many answers to requests of stores are lost.
    lossy: Option<u64>,
    asked: u64,
    /// How long a request of a store, or its answer, is on its way.
    hop: Duration,
    runtime: RaftRuntime<Sim>,
}

impl Cluster {
    /// Three nodes, one of which leads.
    pub(crate) async fn start() -> Self {
        let state = State {
            up: BTreeMap::new(),
            disks: BTreeMap::new(),
            cut: BTreeSet::new(),
            lossy: None,
            asked: 0,
            hop: HOP,
            runtime: RaftRuntime::new(),
        };
        let cluster = Self(Arc::new(Mutex::new(state)));
        for id in 1..=3 {
            cluster.boot(id).await;
        }
        cluster.node(1).raft.initialize(BTreeSet::from([1, 2, 3])).await.unwrap();
        cluster.leader().await;
        cluster
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn runtime(&self) -> RaftRuntime<Sim> {
        self.state().runtime.clone()
    }

    /// Starts a node with what is on its disk.
    pub(crate) async fn boot(&self, id: u64) {
        let config = openraft::Config {
            heartbeat_interval: 50,
            election_timeout_min: 200,
            election_timeout_max: 400,
            enable_pre_vote: Some(true),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(50),
            max_in_snapshot_log_to_keep: 10,
            ..openraft::Config::default()
        };
        let config = Arc::new(config.validate().unwrap());
        let (disk, runtime) = {
            let mut state = self.state();
            (state.disks.entry(id).or_default().clone(), state.runtime.clone())
        };
        let machine = Machine::new(disk.clone());
        let replica = machine.replica.clone();
        let wires = Wires { from: id, cluster: self.clone() };
        let raft = Raft::new(id, config, wires, disk, machine).await.unwrap();
        let host = Host { id, cluster: self.clone() };
        let log = RaftLog::new(raft.clone(), Arc::new(host));
        let store = Replicated::new(log, replica, runtime, Options::default());
        self.state().up.insert(id, Node { raft, store });
    }

    /// Ends a process; its disk stays.
    pub(crate) async fn kill(&self, id: u64) {
        let node = self.state().up.remove(&id);
        if let Some(node) = node {
            node.raft.shutdown().await.unwrap();
        }
    }

    /// Leaders die for a while, one after the other, for as long as the simulation lasts. The node
    /// `here` lives: it is cut off instead.
    pub(crate) fn kill_leaders(&self, here: u64, every: Duration) {
        let cluster = self.clone();
        drop(Sim::spawn(async move {
            loop {
                Sim::sleep(every).await;
                let leader = cluster.leader().await;
                if leader == here {
                    cluster.isolate(here);
                    Sim::sleep(Duration::from_secs(1)).await;
                    cluster.heal();
                } else {
                    cluster.kill(leader).await;
                    Sim::sleep(Duration::from_millis(700)).await;
                    cluster.boot(leader).await;
                }
            }
        }));
    }

    /// Nothing passes between a node and the others.
    pub(crate) fn isolate(&self, id: u64) {
        for other in (1..=3).filter(|other| *other != id) {
            self.state().cut.extend([(id, other), (other, id)]);
        }
    }

    pub(crate) fn heal(&self) {
        self.state().cut.clear();
    }

    pub(crate) fn lose_every(&self, answers: Option<u64>) {
        self.state().lossy = answers;
    }

    /// From now on requests of stores, and their answers, take so long.
    pub(crate) fn slow_down(&self, hop: Duration) {
        self.state().hop = hop;
    }

    pub(crate) fn node(&self, id: u64) -> Node {
        self.state().up[&id].clone()
    }

    /// Who leads with a quorum.
    pub(crate) async fn leader(&self) -> u64 {
        loop {
            let leads = self.state().up.iter().find_map(|(id, node)| {
                let metrics = node.raft.metrics().borrow_watched().clone();
                let fresh = metrics.last_quorum_acked.is_some_and(|at| {
                    openraft::Instant::elapsed(&*at) < Duration::from_millis(150)
                });
                (metrics.state.is_leader() && fresh).then_some(*id)
            });
            if let Some(id) = leads {
                return id;
            }
            Sim::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Somebody who does not.
    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        self.state().up.keys().copied().find(|id| *id != leader).unwrap()
    }

    /// Whoever is up at `to`, if the wire is not cut.
    async fn reach(&self, from: u64, to: u64, hop: Duration) -> Option<Node> {
        Sim::sleep(hop).await;
        let state = self.state();
        if state.cut.contains(&(from, to)) { None } else { state.up.get(&to).cloned() }
    }
}

/// What a node tells the log of the store.
pub(crate) struct Host {
    id: u64,
    cluster: Cluster,
}

impl StoreHost<Sim> for Host {
    fn command(&self, entry: Entry) -> Command {
        Command(Box::new(entry))
    }

    fn applied(&self, response: Option<Applied>) -> Option<Applied> {
        response
    }

    async fn ask(&self, id: u64, _: EmptyNode, request: Request) -> Result<Answer, LogError> {
        let unreachable = || LogError::Retry("nobody listens there".to_owned());
        let hop = self.cluster.state().hop;
        let node = self.cluster.reach(self.id, id, hop).await.ok_or_else(unreachable)?;
        let answer = node.store.answer(request).await;
        let lost = {
            let mut state = self.cluster.state();
            state.asked += 1;
            let asked = state.asked;
            state.lossy.is_some_and(|every| asked.is_multiple_of(every))
        };
        if lost || self.cluster.reach(id, self.id, hop).await.is_none() {
            return Err(LogError::Unknown("the answer was lost".to_owned()));
        }
        Ok(answer)
    }
}

/// The wires of one node, and one of them.
pub(crate) struct Wires {
    from: u64,
    cluster: Cluster,
}

pub(crate) struct Wire {
    from: u64,
    to: u64,
    cluster: Cluster,
}

impl RaftNetworkFactory<Sim> for Wires {
    type Network = Wire;

    async fn new_client(&mut self, to: u64, _: &EmptyNode) -> Wire {
        Wire { from: self.from, to, cluster: self.cluster.clone() }
    }
}

fn unreachable() -> RPCError<Sim> {
    RPCError::Unreachable(Unreachable::from_string("nobody listens there"))
}

impl Wire {
    async fn call<T, F>(&self, ask: impl FnOnce(Raft3) -> F + Send) -> Result<T, RPCError<Sim>>
    where
        T: Send,
        F: Future<Output = Result<T, RaftError<Sim>>> + Send,
    {
        let node = self.cluster.reach(self.from, self.to, HOP).await.ok_or_else(unreachable)?;
        let answer = ask(node.raft).await.map_err(|_| unreachable())?;
        self.cluster.reach(self.to, self.from, HOP).await.ok_or_else(unreachable)?;
        Ok(answer)
    }
}

impl RaftNetworkV2<Sim> for Wire {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Sim>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Sim>, RPCError<Sim>> {
        self.call(|raft| async move { raft.append_entries(rpc).await }).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Sim>,
        _: RPCOption,
    ) -> Result<VoteResponse<Sim>, RPCError<Sim>> {
        self.call(|raft| async move { raft.vote(rpc).await }).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Sim>,
        _: RPCOption,
    ) -> Result<VoteResponse<Sim>, RPCError<Sim>> {
        self.call(|raft| async move { raft.pre_vote(rpc).await }).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Sim, Vec<u8>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Sim>, StreamingError<Sim>> {
        let install = |raft: Raft3| async move {
            raft.install_full_snapshot(vote, snapshot).await.map_err(RaftError::Fatal)
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            answer = self.call(install) => answer.map_err(StreamingError::from),
        }
    }
}
