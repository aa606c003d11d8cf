//! What an application tells the adapter, and what a server answers to a probe.

use std::{future::Future, sync::Arc, time::Duration};

use ::openraft::{
    Raft, RaftTypeConfig, alias::CommittedLeaderIdOf, async_runtime::WatchReceiver,
    storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize};

use crate::autopilot::{Dismissal, Ledger, NodeStatus, Outcome, Record, Server, ServerId};

/// What an application tells the adapter. Only the first four are required; each of the others
/// lets autopilot see or keep more.
///
/// None of them may block; those that return a future may be slow, hang or panic, and are given up after
/// [`PROBE_DEADLINE`]. The others are called while the driver observes: one that panics ends it.
pub trait Application<C: RaftTypeConfig>: Send + Sync + 'static {
    /// The node id that a text stands for; the text of a node id is its `Display`. `None`: none.
    fn node_id(&self, text: &str) -> Option<C::NodeId>;

    /// The term in a committed leader id: its field `term`.
    fn term(&self, leader: &CommittedLeaderIdOf<C>) -> u64;

    /// What is known of a member: at least its id and address; name, version, zone and tags
    /// where the application has them. A version that is left empty is taken from the probe; for
    /// this node itself, which is not probed, say it here.
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
    /// disk goes unnoticed; with it, and without [`Answer::disk`], often.
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
    ///
    /// It speaks of members only: one more sign of death, and the word of those who leave. A
    /// server that it lists and that is no member is neither shown nor added; whoever knows where
    /// it listens, and that it belongs here, adds it with
    /// [`Handle::add`](crate::autopilot::Handle::add).
    fn discover(&self) -> impl Future<Output = Option<Vec<(ServerId, NodeStatus)>>> + Send {
        std::future::ready(None)
    }

    /// Asks whoever listens at an address for its id. `None`: nobody answers.
    fn identify(&self, address: &str) -> impl Future<Output = Option<ServerId>> + Send {
        let _ = address;
        std::future::ready(None)
    }

    /// Tells a server that it was removed, so that it stops. Default: nobody can tell it, and the
    /// log says that an operator has to stop it.
    fn dismiss(&self, server: Arc<Server>) -> impl Future<Output = Dismissal> + Send {
        let _ = server;
        std::future::ready(Dismissal::NotOffered)
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
    /// A number drawn when its log storage was created, and kept on it; `None`: none is kept.
    /// Without it a server reborn with an empty disk is unmasked only if it is probed before its
    /// log is filled again.
    pub disk: Option<u64>,
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
    /// The answer of this node, from its own metrics. `boot` is drawn once at its start; the
    /// identity of its disk is added with [`Answer::on_disk`].
    pub fn of<C, SM>(raft: &Raft<C, SM>, boot: u64, version: &str) -> Self
    where
        C: RaftTypeConfig,
        SM: RaftStateMachine<C>,
    {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        Self {
            id: ServerId::from(metrics.id.to_string()),
            boot,
            disk: None,
            last_log: metrics.last_log_index.unwrap_or_default(),
            applied: metrics.last_applied.as_ref().map_or(0, ::openraft::LogId::index),
            snapshot: None,
            version: version.to_owned(),
        }
    }

    /// The same answer with the identity of the disk: drawn at random when the log storage is
    /// created, before anything is written to it, and kept there.
    #[must_use]
    pub fn on_disk(mut self, disk: u64) -> Self {
        self.disk = Some(disk);
        self
    }
}
