//! A node of openraft with what the adapter keeps beside it, and what can go wrong there.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::openraft::{
    Raft, RaftMetrics, RaftTypeConfig, alias::LogIdOf, async_runtime::WatchReceiver,
    storage::RaftStateMachine,
};

use super::{application::Application, memory::Memory, runtime::RaftRuntime};
use crate::autopilot::{LogId, Options, ServerId};

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
    /// The target of a transfer is no voter, or has not answered lately. Nothing was changed.
    #[error("{0} is not fit to take over leadership")]
    Unfit(ServerId),
    /// The target has not become leader in time; who leads is open until the next election.
    #[error("{0} has not taken over leadership")]
    NotTransferred(ServerId),
}
/// A node of openraft as a [`Cluster`](crate::autopilot::Cluster). Contact and progress of every server come from the
/// leader's own metrics; no request is sent but the optional probe.
pub struct Openraft<C: RaftTypeConfig, SM: RaftStateMachine<C>, A> {
    pub(super) raft: Raft<C, SM>,
    pub(super) application: Arc<A>,
    pub(super) runtime: RaftRuntime<C>,
    pub(super) memory: Arc<Mutex<Memory>>,
}

impl<C: RaftTypeConfig, SM: RaftStateMachine<C>, A> fmt::Debug for Openraft<C, SM, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Openraft").finish_non_exhaustive()
    }
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

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn metrics(&self) -> RaftMetrics<C> {
        self.raft.metrics().borrow_watched().deref().clone()
    }

    pub(super) fn log_id(&self, log_id: &LogIdOf<C>) -> LogId {
        LogId { term: self.application.term(log_id.committed_leader_id()), index: log_id.index() }
    }

    /// The log entry that holds the membership in effect.
    pub(super) fn membership(&self, metrics: &RaftMetrics<C>) -> LogId {
        let log_id = metrics.membership_config.log_id().as_ref();
        log_id.map(|log_id| self.log_id(log_id)).unwrap_or_default()
    }
}
