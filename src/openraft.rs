//! The adapter for openraft: its metrics as observations, its membership changes as steps, its runtime as ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    marker::PhantomData,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::openraft::{
    ChangeMembers, Instant as _, Precondition, Raft, RaftMetrics, RaftTypeConfig,
    alias::{CommittedLeaderIdOf, InstantOf, LogIdOf, StoredMembershipOf},
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, RaftError},
    storage::RaftStateMachine,
    type_config::TypeConfigExt,
    vote::{RaftLeaderId, RaftTerm, RaftVote},
};
use serde::{Deserialize, Serialize};

use crate::{
    autopilot::{
        Applied, Change, Cluster, ClusterError, Fence, Leading, Ledger, LogId, Membership,
        NodeStatus, Observation, Options, Outcome, Probe, Record, Role, Server, ServerId, Sighting,
        Status, Step,
    },
    runtime::Runtime,
};

/// What an application tells the adapter. Only the first four are required; each of the others
/// lets autopilot see or keep more.
///
/// None of them may block; those that return a future may be slow or hang, and are given up after
/// [`PROBE_DEADLINE`].
pub trait Application<C: RaftTypeConfig>: Send + Sync + 'static {
    /// The node id that a text stands for; the text of a node id is its `Display`. `None`: none.
    fn node_id(&self, text: &str) -> Option<C::NodeId>;

    /// The term in a committed leader id: its field `term`.
    fn term(&self, leader: &CommittedLeaderIdOf<C>) -> u64;

    /// What is known of a member: at least its id and address; name, version, zone and tags
    /// where the application has them.
    fn server(&self, id: &C::NodeId, node: &C::Node) -> Server;

    /// The node to write into the membership for a server. `None`: its address is not understood.
    fn node(&self, server: &Server) -> Option<C::Node>;

    /// The ledger in the application's own state machine, and the reading now of the clock that
    /// it is applied with. `None`: no records are kept; then stability is not carried over
    /// elections, and a configuration lasts as long as a leader.
    fn ledger(&self) -> Option<(Arc<Ledger>, Duration)> {
        None
    }

    /// The command that applies a record to that ledger. `None`: no records are kept.
    fn command(&self, record: Record) -> Option<C::D> {
        let _ = record;
        None
    }

    /// What the state machine answered to such a command. `None`: the answer is to something else.
    fn outcome(&self, response: C::R) -> Option<Outcome> {
        let _ = response;
        None
    }

    /// Whether [`Application::probe`] is offered. Without it a server that is reborn with an empty
    /// disk goes unnoticed.
    fn probes(&self) -> bool {
        false
    }

    /// Asks a server for its status, on a connection of its own. `None`: no answer.
    fn probe(&self, id: C::NodeId, node: C::Node) -> impl Future<Output = Option<Answer>> + Send {
        let _ = (id, node);
        std::future::ready(None)
    }

    /// Whether [`Application::discover`] is offered.
    fn discovers(&self) -> bool {
        false
    }

    /// What discovery knows: every server that it lists, with its status. `None`: it failed.
    fn discover(&self) -> impl Future<Output = Option<Vec<(ServerId, NodeStatus)>>> + Send {
        std::future::ready(None)
    }

    /// Asks whoever listens at an address for its id. `None`: nobody answers.
    fn identify(&self, address: &str) -> impl Future<Output = Option<ServerId>> + Send {
        let _ = address;
        std::future::ready(None)
    }

    /// Tells a server that it was removed. Returns whether it has heard.
    fn dismiss(&self, server: Arc<Server>) -> impl Future<Output = bool> + Send {
        let _ = server;
        std::future::ready(true)
    }
}

/// How long an application may take to answer. Half a probe interval.
pub const PROBE_DEADLINE: Duration = Duration::from_millis(500);

/// How often a server is probed, and discovery asked.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a server answers to a status probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Its node id as text; an answer from another node counts as none.
    pub id: ServerId,
    /// A number drawn anew at every start of its process.
    pub boot: u64,
    /// The index of the last entry in its log.
    pub last_log: u64,
    /// The index of the last entry that its state machine applied.
    pub applied: u64,
    /// While it installs a snapshot: how far it is, in any unit that only grows.
    pub snapshot: Option<u64>,
    /// The version of its program; empty where it is not told.
    pub version: String,
}

impl Answer {
    /// The answer of this node, from its own metrics. `boot` is drawn once at its start.
    pub fn of<C, SM>(raft: &Raft<C, SM>, boot: u64, version: &str) -> Self
    where
        C: RaftTypeConfig,
        SM: RaftStateMachine<C>,
    {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        Self {
            id: text(&metrics.id),
            boot,
            last_log: metrics.last_log_index.unwrap_or_default(),
            applied: metrics.last_applied.as_ref().map_or(0, |log_id| log_id.index()),
            snapshot: None,
            version: version.to_owned(),
        }
    }
}

/// The runtime of an openraft type configuration, as the port of our drivers.
pub struct RaftRuntime<C: RaftTypeConfig> {
    epoch: InstantOf<C>,
    config: PhantomData<C>,
}

impl<C: RaftTypeConfig> RaftRuntime<C> {
    /// A runtime whose clock starts now.
    pub fn new() -> Self {
        Self { epoch: C::now(), config: PhantomData }
    }
}

impl<C: RaftTypeConfig> Default for RaftRuntime<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: RaftTypeConfig> Clone for RaftRuntime<C> {
    fn clone(&self) -> Self {
        Self { epoch: self.epoch, config: PhantomData }
    }
}

impl<C: RaftTypeConfig> fmt::Debug for RaftRuntime<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftRuntime").finish_non_exhaustive()
    }
}

impl<C: RaftTypeConfig> Runtime for RaftRuntime<C> {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        C::sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(C::spawn(task));
    }
}

/// Why openraft, or the application, could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenraftError {
    /// openraft refused or failed; its words.
    #[error("openraft: {0}")]
    Raft(String),
    /// The application knows no node id for this text. Nothing was changed.
    #[error("`{0}` is not a node id")]
    NoNodeId(ServerId),
    /// The application can make no node of a server. Nothing was changed.
    #[error("no node can be made for {0}")]
    NoNode(ServerId),
    /// The application keeps no records. Nothing was changed.
    #[error("the application keeps no records")]
    NoRecords,
    /// The target has not become leader in time; who leads is open until the next election.
    #[error("{0} has not taken over leadership")]
    NotTransferred(ServerId),
}

/// A node of openraft as a [`Cluster`]. Contact and progress of every server come from the
/// leader's own metrics; no request is sent but the optional probe.
pub struct Openraft<C: RaftTypeConfig, SM: RaftStateMachine<C>, A> {
    raft: Raft<C, SM>,
    application: Arc<A>,
    runtime: RaftRuntime<C>,
    memory: Arc<Mutex<Memory>>,
}

impl<C: RaftTypeConfig, SM: RaftStateMachine<C>, A> fmt::Debug for Openraft<C, SM, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Openraft").finish_non_exhaustive()
    }
}

/// What is kept between observations.
#[derive(Default)]
struct Memory {
    /// The leadership being watched: its term and when it was first seen.
    leading: Option<(u64, Duration, Duration)>,
    /// Since when nobody is seen leading.
    leaderless: Option<Duration>,
    /// What `changed` compares with.
    seen: Option<Seen>,
    servers: BTreeMap<ServerId, Known>,
    discovery: Option<(Duration, BTreeMap<ServerId, NodeStatus>)>,
    asking_discovery: bool,
    discovery_due: Duration,
}

/// What wakes the driver when it moves.
#[derive(PartialEq, Eq)]
struct Seen {
    term: Option<u64>,
    leader: Option<ServerId>,
    leads: bool,
    membership: Option<u64>,
    committed: Option<u64>,
}

impl Seen {
    /// openraft publishes its whole metrics after the part that [`Cluster::changed`] waits on. What is
    /// kept must therefore be read from the very metrics that were observed: else a change that
    /// falls between the two is never noticed.
    fn of<C: RaftTypeConfig>(
        vote: &C::Vote,
        leader: Option<&C::NodeId>,
        state: ::openraft::ServerState,
        memberships: [&StoredMembershipOf<C>; 2],
    ) -> Self {
        let [membership, committed] = memberships
            .map(|stored| stored.log_id().as_ref().map(|log_id: &LogIdOf<C>| log_id.index()));
        Self {
            term: RaftLeaderId::term(RaftVote::leader_id(vote)).as_u64(),
            leader: leader.map(text),
            leads: state.is_leader(),
            membership,
            committed,
        }
    }
}

/// What is kept of one server between observations.
#[derive(Default)]
struct Known {
    server: Option<Arc<Server>>,
    asking: bool,
    due: Duration,
    /// Since when it was asked without an answer.
    silent: Option<Duration>,
    /// The latest answer, when it was asked for, and what it was known to hold then.
    answer: Option<(Answer, Duration, u64)>,
}

fn text(id: &impl fmt::Display) -> ServerId {
    ServerId::from(id.to_string())
}

/// The defaults of the driver for a node of openraft: its heartbeat decides.
pub fn options<C: RaftTypeConfig, SM: RaftStateMachine<C>>(raft: &Raft<C, SM>) -> Options {
    Options::for_heartbeat(Duration::from_millis(raft.config().heartbeat_interval))
}

impl<C, SM, A> Openraft<C, SM, A>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C>,
    A: Application<C>,
{
    /// An adapter for one node. `runtime` must be the one that the driver gets.
    pub fn new(raft: Raft<C, SM>, application: Arc<A>, runtime: RaftRuntime<C>) -> Self {
        Self { raft, application, runtime, memory: Arc::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metrics(&self) -> RaftMetrics<C> {
        self.raft.metrics().borrow_watched().deref().clone()
    }

    fn log_id(&self, log_id: &LogIdOf<C>) -> LogId {
        LogId { term: self.application.term(log_id.committed_leader_id()), index: log_id.index() }
    }


    /// Whether this node leads, since when, and whether a quorum has answered lately.
    fn leading(&self, at: Duration, metrics: &RaftMetrics<C>) -> Option<Leading> {
        let mut memory = self.memory();
        let led = metrics.current_leader.is_some();
        if !metrics.state.is_leader() {
            memory.leading = None;
            memory.leaderless = if led { None } else { memory.leaderless.or(Some(at)) };
            return None;
        }
        let term = metrics.current_term.as_u64().unwrap_or_default();
        let config = self.raft.config();
        let lease = Duration::from_millis(config.election_timeout_min);
        let (since, gap) = match memory.leading {
            Some((known, since, gap)) if known == term => (since, gap),
            _ => {
                let gap =
                    memory.leaderless.map_or(Duration::ZERO, |since| at.saturating_sub(since));
                // The last leader may have been gone for an election timeout before it was missed.
                let unseen = Duration::from_millis(config.election_timeout_max);
                (at, gap.saturating_add(unseen))
            }
        };
        memory.leading = Some((term, since, gap));
        memory.leaderless = None;
        let membership = metrics.membership_config.membership();
        let alone = membership.voter_ids().all(|id| id == metrics.id);
        let acked = metrics.last_quorum_acked.map(|acked| acked.elapsed());
        let lease = alone || acked.is_some_and(|age| age < lease);
        Some(Leading { term, since, gap, lease })
    }

    fn sightings(&self, at: Duration, metrics: &RaftMetrics<C>) -> Vec<Sighting> {
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        let leads = metrics.state.is_leader();
        let mut memory = self.memory();
        let discovered = memory.discovery.as_ref().map(|(_, known)| known.clone());
        let mut sightings: Vec<Sighting> = membership
            .nodes()
            .map(|(id, node)| {
                let name = text(id);
                let known = memory.servers.entry(name.clone()).or_default();
                let mut server = self.application.server(id, node);
                if server.version.is_empty()
                    && let Some((answer, _, _)) = &known.answer
                {
                    server.version.clone_from(&answer.version);
                }
                let server = match &known.server {
                    Some(old) if **old == server => Arc::clone(old),
                    _ => Arc::new(server),
                };
                known.server = Some(Arc::clone(&server));
                let contact = metrics.heartbeat.as_ref().and_then(|map| map.get(id));
                let matched = metrics.replication.as_ref().and_then(|map| map.get(id));
                Sighting {
                    server,
                    role: role::<C>(id, configs),
                    contact: contact.and_then(|time| time.map(|time| time.elapsed())),
                    matched: matched.and_then(|log_id| log_id.as_ref().map(|l| self.log_id(l))),
                    probe: if leads { known.probe(at) } else { Probe::Off },
                    discovery: discovered.as_ref().and_then(|known| known.get(&name).copied()),
                }
            })
            .collect();
        sightings.sort_by(|a, b| a.server.id.cmp(&b.server.id));
        let members: BTreeSet<&ServerId> = sightings.iter().map(|s| &s.server.id).collect();
        memory.servers.retain(|id, _| members.contains(id));
        sightings
    }

    /// Sends the probes that are due, one in flight a server, each in a task of its own.
    fn send_probes(&self, at: Duration, metrics: &RaftMetrics<C>) {
        let mut memory = self.memory();
        if self.application.discovers() && !memory.asking_discovery && memory.discovery_due <= at {
            memory.asking_discovery = true;
            memory.discovery_due = at.saturating_add(PROBE_INTERVAL);
            self.ask_discovery();
        }
        if !self.application.probes() {
            return;
        }
        for (id, node) in metrics.membership_config.membership().nodes() {
            let known = memory.servers.entry(text(id)).or_default();
            if *id == metrics.id || known.asking || known.due > at {
                continue;
            }
            known.asking = true;
            known.due = at.saturating_add(PROBE_INTERVAL);
            let matched = metrics.replication.as_ref().and_then(|map| map.get(id));
            let held = matched.and_then(|m| m.as_ref()).map_or(0, |log_id| log_id.index());
            self.ask(id.clone(), node.clone(), at, held);
        }
    }

    fn ask(&self, id: C::NodeId, node: C::Node, at: Duration, held: u64) {
        let (application, memory) = (Arc::clone(&self.application), Arc::clone(&self.memory));
        self.runtime.spawn(async move {
            let name = text(&id);
            let asked = C::timeout(PROBE_DEADLINE, application.probe(id, node)).await;
            let answer = asked.ok().flatten().filter(|answer| answer.id == name);
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(known) = memory.servers.get_mut(&name) else { return };
            known.asking = false;
            if let Some(answer) = answer {
                known.silent = None;
                known.answer = Some((answer, at, held));
            } else {
                known.silent.get_or_insert(at);
            }
        });
    }

    fn ask_discovery(&self) {
        let (application, memory) = (Arc::clone(&self.application), Arc::clone(&self.memory));
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            let asked = C::timeout(PROBE_DEADLINE, application.discover()).await;
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.asking_discovery = false;
            if let Ok(Some(listed)) = asked {
                memory.discovery = Some((runtime.now(), listed.into_iter().collect()));
            }
        });
    }

    /// The fence of a change, in openraft's terms; an error if it no longer holds.
    fn preconditions(
        &self,
        fence: &Fence,
    ) -> Result<[Precondition<C>; 2], ClusterError<OpenraftError>> {
        let moved = |what: &str| ClusterError::Moved(what.to_owned());
        let leader = self.raft.as_leader().map_err(|_| moved("this node no longer leads"))?;
        let term = RaftLeaderId::term(leader.leader_id());
        if term.as_u64() != Some(fence.term) {
            return Err(moved("the term is another"));
        }
        let metrics = self.metrics();
        let last_membership_log_id = metrics.membership_config.log_id().clone();
        let found = last_membership_log_id.as_ref().map(|log_id| self.log_id(log_id));
        if found.unwrap_or_default() != fence.membership {
            return Err(moved("the membership is another"));
        }
        let committed_leader_id = leader.to_committed_leader_id();
        Ok([
            Precondition::CommittedLeaderId { committed_leader_id },
            Precondition::LastMembershipLogId { last_membership_log_id },
        ])
    }

    fn id(&self, id: &ServerId) -> Result<C::NodeId, ClusterError<OpenraftError>> {
        let found = self.application.node_id(id.as_str());
        found.ok_or_else(|| ClusterError::Refused(OpenraftError::NoNodeId(id.clone())))
    }

    fn ids(&self, ids: &[ServerId]) -> Result<BTreeSet<C::NodeId>, ClusterError<OpenraftError>> {
        ids.iter().map(|id| self.id(id)).collect()
    }

    fn nodes(
        &self,
        server: &Server,
    ) -> Result<BTreeMap<C::NodeId, C::Node>, ClusterError<OpenraftError>> {
        let node = self.application.node(server);
        let node =
            node.ok_or_else(|| ClusterError::Refused(OpenraftError::NoNode(server.id.clone())))?;
        Ok(BTreeMap::from([(self.id(&server.id)?, node)]))
    }

    /// A step as one change of openraft's, and whether voters that lose their vote stay.
    fn members(
        &self,
        step: &Step,
    ) -> Result<(ChangeMembers<C::NodeId, C::Node>, bool), ClusterError<OpenraftError>> {
        Ok(match step {
            // A change that changes nothing writes the uniform half of a joint membership.
            Step::FinishJoint | Step::Transfer { .. } => {
                (ChangeMembers::AddVoterIds(BTreeSet::new()), true)
            }
            Step::Votes { promote, demote } => {
                let demote = ChangeMembers::RemoveVoters(self.ids(demote)?);
                let promote = ChangeMembers::AddVoterIds(self.ids(promote)?);
                (ChangeMembers::Batch(vec![demote, promote]), true)
            }
            Step::Remove { servers, promote, add } => {
                let metrics = self.metrics();
                let membership = metrics.membership_config.membership();
                let voters: BTreeSet<C::NodeId> = membership.voter_ids().collect();
                let (voters, learners) = self
                    .ids(servers)?
                    .into_iter()
                    .partition::<BTreeSet<_>, _>(|id| voters.contains(id));
                let mut batch = vec![ChangeMembers::RemoveNodes(learners)];
                if let Some(server) = add {
                    batch.push(ChangeMembers::AddNodes(self.nodes(server)?));
                }
                batch.push(ChangeMembers::RemoveVoters(voters));
                batch.push(ChangeMembers::AddVoterIds(self.ids(promote)?));
                (ChangeMembers::Batch(batch), false)
            }
            Step::Add(server) => (ChangeMembers::AddNodes(self.nodes(server)?), true),
            Step::Readdress { server, address } => {
                let id = self.id(server)?;
                let metrics = self.metrics();
                let node = metrics.membership_config.membership().get_node(&id).cloned();
                let node = node.ok_or_else(|| ClusterError::Moved("the server has gone".into()))?;
                let mut server = self.application.server(&id, &node);
                server.address.clone_from(address);
                (ChangeMembers::SetNodes(self.nodes(&server)?), true)
            }
        })
    }

    async fn transfer(&self, to: &ServerId, fence: &Fence) -> Applied<OpenraftError> {
        let _ = self.preconditions(fence)?;
        let id = self.id(to)?;
        let fatal = |e| ClusterError::Unknown(OpenraftError::Raft(format!("{e}")));
        self.raft.trigger().transfer_leader(id.clone()).await.map_err(fatal)?;
        // openraft tells nobody how it ended: the target leads, or an election follows.
        let deadline = Duration::from_millis(self.raft.config().election_timeout_max * 3);
        let mut metrics = self.raft.server_metrics();
        let handed_over = C::timeout(deadline, async {
            loop {
                let leader = metrics.borrow_watched().current_leader.clone();
                if leader.is_some_and(|leader| leader == id) || metrics.changed().await.is_err() {
                    return;
                }
            }
        });
        match handed_over.await {
            Ok(()) => Ok(()),
            Err(_) => Err(ClusterError::Refused(OpenraftError::NotTransferred(to.clone()))),
        }
    }
}

impl Known {
    fn probe(&self, at: Duration) -> Probe {
        match (&self.silent, &self.answer) {
            (Some(since), _) => Probe::Silent(at.saturating_sub(*since)),
            (None, Some((answer, asked, held))) => Probe::Answered(Status {
                age: at.saturating_sub(*asked),
                boot: answer.boot,
                last_log: answer.last_log,
                acknowledged: *held,
                applied: answer.applied,
                snapshot: answer.snapshot,
            }),
            (None, None) => Probe::Off,
        }
    }
}

fn role<C: RaftTypeConfig>(id: &C::NodeId, configs: &[BTreeSet<C::NodeId>]) -> Role {
    let incoming = configs.last().is_some_and(|new| new.contains(id));
    let older = configs.len().saturating_sub(1);
    let outgoing = configs[..older].iter().any(|old| old.contains(id));
    match (incoming, outgoing) {
        (true, true) => Role::Voter,
        (true, false) if older == 0 => Role::Voter,
        (true, false) => Role::Incoming,
        (false, true) => Role::Outgoing,
        (false, false) => Role::Learner,
    }
}

impl<C, SM, A> Cluster for Openraft<C, SM, A>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C> + Send + Sync,
    A: Application<C>,
{
    type Error = OpenraftError;

    async fn observe(&self, at: Duration) -> Observation {
        let metrics = self.metrics();
        self.memory().seen = Some(Seen::of::<C>(
            &metrics.vote,
            metrics.current_leader.as_ref(),
            metrics.state,
            [&metrics.membership_config, &metrics.committed_membership_config],
        ));
        let leading = self.leading(at, &metrics);
        let servers = self.sightings(at, &metrics);
        if leading.is_some() {
            self.send_probes(at, &metrics);
        }
        let stored = &metrics.membership_config;
        let log_id = |log_id: &Option<LogIdOf<C>>| {
            log_id.as_ref().map(|log_id| self.log_id(log_id)).unwrap_or_default()
        };
        let discovery = self.memory().discovery.as_ref().map(|(when, _)| at.saturating_sub(*when));
        let (ledger, ledger_at) = self.application.ledger().unzip();
        Observation {
            at,
            local: text(&metrics.id),
            leader: metrics.current_leader.as_ref().map(text),
            leading,
            membership: Membership {
                log_id: log_id(stored.log_id()),
                committed: metrics.committed_membership_config.log_id() == stored.log_id(),
                joint: stored.membership().get_joint_config().len() > 1,
            },
            last_log: LogId {
                term: metrics.current_term.as_u64().unwrap_or_default(),
                index: metrics.last_log_index.unwrap_or_default(),
            },
            discovery,
            servers,
            ledger,
            ledger_at: ledger_at.unwrap_or_default(),
            feedback: None,
        }
    }

    async fn changed(&self) {
        // This channel moves with leadership and membership, not with heartbeats.
        let mut metrics = self.raft.server_metrics();
        loop {
            let seen = {
                let metrics = metrics.borrow_watched();
                Seen::of::<C>(
                    &metrics.vote,
                    metrics.current_leader.as_ref(),
                    metrics.state,
                    [&metrics.membership_config, &metrics.committed_membership_config],
                )
            };
            if self.memory().seen.as_ref() != Some(&seen) {
                return;
            }
            if metrics.changed().await.is_err() {
                // The node has stopped; nothing will ever change again.
                return std::future::pending().await;
            }
        }
    }

    async fn apply(&self, change: Change) -> Applied<OpenraftError> {
        if let Step::Transfer { to } = &change.step {
            return self.transfer(to, &change.fence).await;
        }
        let preconditions = self.preconditions(&change.fence)?;
        let (members, retain) = self.members(&change.step)?;
        let written = self.raft.change_membership_if(members, retain, preconditions).await;
        written.map(drop).map_err(failure)
    }

    async fn record(&self, record: Record) -> Result<Outcome, ClusterError<OpenraftError>> {
        let no_records = || ClusterError::Refused(OpenraftError::NoRecords);
        let command = self.application.command(record).ok_or_else(no_records)?;
        let written = self.raft.client_write(command).await.map_err(failure)?;
        self.application.outcome(written.data).ok_or_else(no_records)
    }

    async fn identify(&self, address: &str) -> Option<ServerId> {
        C::timeout(PROBE_DEADLINE, self.application.identify(address)).await.ok().flatten()
    }

    async fn dismiss(&self, server: Arc<Server>) -> bool {
        let told = C::timeout(PROBE_DEADLINE, self.application.dismiss(server)).await;
        told.unwrap_or_default()
    }
}

/// What openraft's refusal means for the one who asked.
fn failure<C: RaftTypeConfig>(
    error: RaftError<C, ClientWriteError<C>>,
) -> ClusterError<OpenraftError> {
    let words = OpenraftError::Raft(error.to_string());
    match error {
        // Refused before anything was written.
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_) | ClientWriteError::PreconditionFailed(_),
        ) => ClusterError::Moved(words.to_string()),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) => {
            ClusterError::Refused(words)
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_) => {
            ClusterError::Unknown(words)
        }
    }
}
