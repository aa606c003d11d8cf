//! A cluster in one process: real openraft nodes, each with autopilot beside it, and what goes wrong with them.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use openraft::{
    Instant as _, Raft, RaftMetrics, SnapshotPolicy, alias::CommittedLeaderIdOf,
    async_runtime::WatchReceiver, type_config::TypeConfigExt,
};
use raft_autopilot::{
    autopilot::{
        Applied, Autopilot, Change, Cluster, ClusterError, Config, Dismissal, Handle, Ledger,
        NodeStatus, Observation, Outcome, Plan, Promoter, Record, Server, ServerId, ServerState,
        State, Step, View,
    },
    openraft::{Answer, Application, Openraft, OpenraftError, RaftRuntime, options},
    promoters::Stable,
    runtime::Runtime,
};

pub(crate) use crate::knobs::{Knobs, TIMES, millis, secs};
use crate::{
    network::{Links, Network},
    storage::{Log, Machine},
    types::{Command, Peer, Reply, Types},
};

/// One change as it was applied, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    pub(crate) by: String,
    pub(crate) at: Duration,
    pub(crate) change: Change,
    pub(crate) result: Option<Result<(), String>>,
}

/// All there is. Clones are the same world.
pub(crate) struct World<C: Types> {
    pub(crate) network: Network<C>,
    clock: RaftRuntime<C>,
    inner: Arc<Mutex<Inner<C>>>,
    promoter: Arc<dyn Promoter>,
}

struct Inner<C: Types> {
    knobs: Knobs,
    disks: BTreeMap<String, Log<C>>,
    nodes: BTreeMap<String, Node<C>>,
    /// Where a server listens, if not where its name says.
    moved: BTreeMap<String, String>,
    boots: u64,
    deeds: Vec<Deed>,
    told: Vec<String>,
    rounds: u64,
}

/// One process.
#[derive(Clone)]
pub(crate) struct Node<C: Types> {
    pub(crate) id: String,
    pub(crate) raft: Raft<C, Machine<C>>,
    pub(crate) machine: Machine<C>,
    pub(crate) log: Log<C>,
    pub(crate) handle: Handle,
    boot: u64,
    driver: Arc<Fuse>,
}

/// How often the driver may still be polled before it is dropped.
#[derive(Debug)]
struct Fuse(AtomicU64);

impl<C: Types> Clone for World<C> {
    fn clone(&self) -> Self {
        Self {
            network: self.network.clone(),
            clock: self.clock.clone(),
            inner: Arc::clone(&self.inner),
            promoter: Arc::clone(&self.promoter),
        }
    }
}

pub(crate) fn address(id: &str) -> String {
    format!("{id}:1")
}

pub(crate) fn server(id: &str) -> Server {
    Server::new(id, address(id))
}

pub(crate) fn id(id: &str) -> ServerId {
    ServerId::from(id)
}

pub(crate) fn ids(ids: &[&str]) -> Vec<ServerId> {
    ids.iter().map(|id| ServerId::from(*id)).collect()
}

impl<C: Types> World<C> {
    pub(crate) fn new(knobs: Knobs) -> Self {
        Self::with(knobs, Stable::new())
    }

    pub(crate) fn with(knobs: Knobs, promoter: impl Promoter) -> Self {
        Self {
            network: Network::new(millis(1)),
            clock: RaftRuntime::new(),
            inner: Arc::new(Mutex::new(Inner {
                knobs,
                disks: BTreeMap::new(),
                nodes: BTreeMap::new(),
                moved: BTreeMap::new(),
                boots: 0,
                deeds: Vec::new(),
                told: Vec::new(),
                rounds: 0,
            })),
            promoter: Arc::new(promoter),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn knobs(&self) -> Knobs {
        self.inner().knobs.clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.inner().knobs);
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// What autopilots have applied, in the order of the beginnings.
    pub(crate) fn deeds(&self) -> Vec<Deed> {
        self.inner().deeds.clone()
    }

    /// The steps that succeeded.
    pub(crate) fn done(&self) -> Vec<Step> {
        let deeds = self.deeds().into_iter();
        deeds.filter(|deed| deed.result == Some(Ok(()))).map(|deed| deed.change.step).collect()
    }

    /// Who was told that it is removed.
    pub(crate) fn told(&self) -> Vec<String> {
        self.inner().told.clone()
    }

    /// Rounds of all autopilots so far.
    pub(crate) fn rounds(&self) -> u64 {
        self.inner().rounds
    }

    pub(crate) fn node(&self, id: &str) -> Node<C> {
        self.inner().nodes.get(id).expect("a node that is up").clone()
    }

    /// Every node that is up.
    pub(crate) fn nodes(&self) -> Vec<Node<C>> {
        self.inner().nodes.values().cloned().collect()
    }

    fn version(&self, id: &str) -> String {
        self.inner().knobs.versions.get(id).cloned().unwrap_or_else(|| "1.0".to_owned())
    }

    fn listener(&self, address: &str) -> Option<String> {
        let inner = self.inner();
        let at = |id: &&String| {
            inner.moved.get(*id).map_or_else(|| self::address(id), Clone::clone) == address
        };
        inner.nodes.keys().find(at).cloned()
    }

    pub(crate) fn move_to(&self, id: &str, address: &str) {
        self.inner().moved.insert(id.to_owned(), address.to_owned());
    }

    /// Starts a server with autopilot on it; one that ran before finds its disk.
    pub(crate) async fn start(&self, id: &str) -> Node<C> {
        let (heartbeat_interval, election_timeout_min, election_timeout_max) = TIMES;
        let knobs = self.knobs();
        let config = openraft::Config {
            heartbeat_interval,
            election_timeout_min,
            election_timeout_max,
            enable_pre_vote: Some(knobs.pre_vote),
            snapshot_policy: SnapshotPolicy::Never,
            ..openraft::Config::default()
        };
        let config = Arc::new(config.validate().expect("a valid configuration"));
        let disk = {
            let inner = &mut *self.inner();
            // No two disks were ever created at the same number of boots.
            let identity = inner.boots;
            inner.disks.entry(id.to_owned()).or_insert_with(|| Log::empty(identity)).clone()
        };
        let machine = Machine::new(self.clock.clone());
        let node_id = C::node_id(id).expect("a node id");
        let links = Links { id: node_id.clone(), network: self.network.clone() };
        let raft = Raft::new(node_id, config, links, disk.clone(), machine.clone()).await.unwrap();
        let boot = {
            let mut inner = self.inner();
            inner.boots += 1;
            inner.boots
        };
        let inner = self.openraft(&raft, id, &machine);
        let cluster = Watched { inner, world: self.clone(), by: id.to_owned() };
        let mut options = options(&raft);
        options.config = knobs.config;
        options.observer = knobs.observer;
        let promoter = Shared(Arc::clone(&self.promoter));
        let (autopilot, handle) =
            Autopilot::new(cluster, self.clock.clone(), promoter, options).unwrap();
        let driver = Arc::new(Fuse(AtomicU64::new(u64::MAX)));
        drop(C::spawn(fused(Arc::clone(&driver), autopilot.run(std::future::pending()))));
        self.network.listen(id, raft.clone());
        let node = Node { id: id.to_owned(), raft, machine, log: disk, handle, boot, driver };
        self.inner().nodes.insert(id.to_owned(), node.clone());
        node
    }

    fn openraft(&self, raft: &Raft<C, Machine<C>>, id: &str, machine: &Machine<C>) -> Adapter<C> {
        let app = App { world: self.clone(), id: id.to_owned(), machine: machine.clone() };
        Openraft::new(raft.clone(), Arc::new(app), self.clock.clone())
    }

    /// Another adapter beside a node's own.
    pub(crate) fn adapter(&self, node: &Node<C>) -> Adapter<C> {
        self.openraft(&node.raft, &node.id, &node.machine)
    }

    /// Another adapter, whose changes are written down under a name.
    pub(crate) fn watched(&self, node: &Node<C>, by: &str) -> impl Cluster + use<C> {
        Watched { inner: self.adapter(node), world: self.clone(), by: by.to_owned() }
    }

    pub(crate) fn clock(&self) -> RaftRuntime<C> {
        self.clock.clone()
    }

    /// Ends a process; its disk stays.
    pub(crate) async fn kill(&self, id: &str) {
        self.network.hang_up(id);
        let node = self.inner().nodes.remove(id);
        if let Some(node) = node {
            node.drop_driver_after(0);
            let _ = node.raft.shutdown().await;
        }
    }

    /// Replaces the disk of a server that is down by an empty one.
    pub(crate) fn wipe(&self, id: &str) {
        self.inner().disks.remove(id);
    }

    /// Cuts a server off from everybody.
    pub(crate) fn isolate(&self, id: &str) {
        let others: Vec<String> = self.inner().nodes.keys().filter(|o| *o != id).cloned().collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        self.network.cut(&[id], &others);
    }

    /// Starts servers as the first voters, and waits for a leader.
    pub(crate) async fn form(&self, ids: &[&str]) -> Node<C> {
        for id in ids {
            self.start(id).await;
        }
        let peers = ids
            .iter()
            .map(|id| (C::node_id(id).expect("a node id"), Peer { address: address(id) }));
        let peers: BTreeMap<C::NodeId, Peer> = peers.collect();
        let first = ids.first().expect("a server");
        self.node(first).raft.initialize(peers).await.unwrap();
        self.leader().await
    }

    /// Starts a server and adds it as a learner, the operator's way.
    pub(crate) async fn join(&self, id: &str) {
        self.start(id).await;
        self.leader().await.handle.add(server(id)).await.unwrap();
    }

    /// Whoever leads with a quorum, once somebody does and every voter agrees.
    pub(crate) async fn leader(&self) -> Node<C> {
        let mut found = None;
        let agreed = || {
            let nodes: Vec<Node<C>> = self.inner().nodes.values().cloned().collect();
            found = nodes.into_iter().find(|node| {
                let metrics = node.metrics();
                let fresh = |at: Duration| at < millis(100);
                let alone = metrics.membership_config.membership().voter_ids().count() == 1;
                let acked = metrics.last_quorum_acked.is_some_and(|acked| fresh(acked.elapsed()));
                metrics.state.is_leader() && (alone || acked)
            });
            found.is_some()
        };
        self.until("a leader", agreed).await;
        found.expect("a leader")
    }

    /// Waits until something holds; half a minute, then it is a failure.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = self.now() + secs(30);
        while !holds() {
            assert!(self.now() < end, "never: {what}\n{}", self.tell());
            C::sleep(millis(5)).await;
        }
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        C::sleep(duration).await;
    }

    #[expect(clippy::unused_self, reason = "it runs in this world")]
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(C::spawn(task));
    }

    /// What everybody thinks, for a failed test.
    fn tell(&self) -> String {
        let inner = self.inner();
        let nodes = inner.nodes.values().map(|node| {
            let view = node.handle.view();
            let servers = view.state.as_ref().map_or(String::new(), |state| {
                let line = |s: &ServerState| {
                    format!("\n    {} {:?} {:?} {:?}", s.server.id, s.role, s.health, s.signs)
                };
                state.servers.iter().map(line).collect()
            });
            format!("\n{}: {:?} {:#?}{servers}", node.id, view.running, view.plan)
        });
        let deeds = inner.deeds.iter().map(|deed| {
            format!("\n{} at {:?}: {} -> {:?}", deed.by, deed.at, deed.change.step, deed.result)
        });
        nodes.chain(deeds).collect()
    }
}

impl<C: Types> Node<C> {
    pub(crate) fn metrics(&self) -> RaftMetrics<C> {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(crate) fn leads(&self) -> bool {
        self.metrics().state.is_leader()
    }

    /// The voters of the only or both halves of the membership, and the learners, as text.
    pub(crate) fn voters(&self) -> Vec<Vec<String>> {
        let metrics = self.metrics();
        let configs = metrics.membership_config.membership().get_joint_config().clone();
        let text = |id: &C::NodeId| id.to_string();
        configs.iter().map(|ids| ids.iter().map(text).collect()).collect()
    }

    pub(crate) fn learners(&self) -> Vec<String> {
        let metrics = self.metrics();
        metrics.membership_config.membership().learner_ids().map(|id| id.to_string()).collect()
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.handle.view()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.handle.state().expect("a state")
    }

    pub(crate) fn server(&self, id: &str) -> Option<ServerState> {
        self.handle.state()?.server(&ServerId::from(id)).cloned()
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.view().plan)
    }

    /// Drops the driver's future when it is polled the n-th time from now.
    pub(crate) fn drop_driver_after(&self, polls: u64) {
        self.driver.0.store(polls, Ordering::SeqCst);
    }

    pub(crate) async fn write(&self, number: u64) -> bool {
        self.raft.client_write(Command::Write(number)).await.is_ok()
    }
}

/// Runs a future until its fuse has burnt down, then drops it.
async fn fused(fuse: Arc<Fuse>, run: impl Future<Output = ()>) {
    let mut run = Box::pin(run);
    std::future::poll_fn(|cx| {
        let left = fuse.0.load(Ordering::SeqCst);
        if left == 0 {
            return Poll::Ready(());
        }
        if left < u64::MAX {
            fuse.0.store(left - 1, Ordering::SeqCst);
        }
        run.as_mut().poll(cx)
    })
    .await;
}

/// One promoter for all servers.
#[derive(Debug)]
struct Shared(Arc<dyn Promoter>);

impl Promoter for Shared {
    fn wishes(&self, config: &Config, state: &State) -> raft_autopilot::autopilot::Wishes {
        self.0.wishes(config, state)
    }

    fn state_ext(&self, config: &Config, state: &State) -> raft_autopilot::autopilot::StateExt {
        self.0.state_ext(config, state)
    }
}

/// The application beside one node.
pub(crate) struct App<C: Types> {
    world: World<C>,
    id: String,
    machine: Machine<C>,
}

impl<C: Types> App<C> {
    /// A callback that hangs never returns.
    async fn hang(&self) {
        if self.world.knobs().hangs {
            std::future::pending::<()>().await;
        }
        let panics = self.world.knobs().panics;
        assert!(!panics, "a callback that panics");
    }
}

impl<C: Types> Application<C> for App<C> {
    fn node_id(&self, text: &str) -> Option<C::NodeId> {
        C::node_id(text)
    }

    fn term(&self, leader: &CommittedLeaderIdOf<C>) -> u64 {
        C::term(leader)
    }

    fn server(&self, id: &C::NodeId, node: &Peer) -> Server {
        let mut server = Server::new(id.to_string(), node.address.clone());
        // Nobody probes itself.
        if server.id.as_str() == self.id {
            server.version = self.world.version(&self.id);
        }
        server
    }

    fn node(&self, server: &Server) -> Option<Peer> {
        (!server.address.is_empty()).then(|| Peer { address: server.address.clone() })
    }

    fn ledger(&self) -> Option<(Arc<Ledger>, Duration)> {
        self.world.knobs().records.then(|| self.machine.ledger())
    }

    fn command(&self, record: Record) -> Option<Command> {
        self.world.knobs().records.then_some(Command::Record(Box::new(record)))
    }

    fn outcome(&self, reply: Reply) -> Option<Outcome> {
        reply
    }

    fn probes(&self) -> bool {
        self.world.knobs().probes
    }

    async fn probe(&self, id: C::NodeId, _node: Peer) -> Option<Answer> {
        self.hang().await;
        let id = id.to_string();
        self.world.network.reach(&self.id, &id)?;
        let node = self.world.inner().nodes.get(&id).cloned()?;
        let version = self.world.version(&id);
        let mut answer = Answer::of(&node.raft, node.boot, &version).on_disk(node.log.identity());
        if self.world.knobs().impostors {
            answer.id = ServerId::from("impostor");
        }
        C::sleep(self.world.knobs().probe_delay).await;
        Some(answer)
    }

    fn discovers(&self) -> bool {
        self.world.knobs().discovery.is_some()
    }

    async fn discover(&self) -> Option<Vec<(ServerId, NodeStatus)>> {
        self.hang().await;
        self.world.knobs().discovery
    }

    async fn identify(&self, address: &str) -> Option<ServerId> {
        self.hang().await;
        let id = self.world.listener(address)?;
        self.world.network.reach(&self.id, &id).map(|_| ServerId::from(id))
    }

    async fn dismiss(&self, server: Arc<Server>) -> Dismissal {
        self.hang().await;
        let id = server.id.as_str();
        if self.world.network.reach(&self.id, id).is_none() {
            return Dismissal::NoAnswer;
        }
        self.world.inner().told.push(id.to_owned());
        self.world.kill(id).await;
        Dismissal::Heard
    }
}

pub(crate) type Adapter<C> = Openraft<C, Machine<C>, App<C>>;

/// A cluster whose changes and rounds are written down.
struct Watched<C: Types, T> {
    inner: T,
    world: World<C>,
    by: String,
}

impl<C: Types, T: Cluster<Error = OpenraftError>> Cluster for Watched<C, T> {
    type Error = OpenraftError;

    async fn observe(&self, at: Duration) -> Observation {
        self.world.inner().rounds += 1;
        self.inner.observe(at).await
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }

    async fn apply(&self, change: Change) -> Applied<OpenraftError> {
        let deed = Deed {
            by: self.by.clone(),
            at: self.world.now(),
            change: change.clone(),
            result: None,
        };
        let number = {
            let mut inner = self.world.inner();
            inner.deeds.push(deed);
            inner.deeds.len() - 1
        };
        let result = self.inner.apply(change).await;
        let text = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        self.world.inner().deeds[number].result = Some(text);
        result
    }

    async fn record(&self, record: Record) -> Result<Outcome, ClusterError<OpenraftError>> {
        self.inner.record(record).await
    }

    async fn identify(&self, address: &str) -> Option<ServerId> {
        self.inner.identify(address).await
    }

    async fn dismiss(&self, server: Arc<Server>) -> Dismissal {
        self.inner.dismiss(server).await
    }
}
