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

/// Why openraft, or the application, could not do it. Each says what was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenraftError {
    /// openraft refused; its words. Nothing was changed; mend what they name.
    #[error("openraft refused; nothing was changed: mend what it names ({0})")]
    Refused(String),
    /// openraft failed on the way; its words. It may have been done, or half of it as a joint
    /// membership; look before you repeat it, and restart a node whose openraft has stopped.
    #[error(
        "openraft failed, and may have done it; look at the membership before you repeat it ({0})"
    )]
    Failed(String),
    /// The application knows no node id for this text. Nothing was changed; use an id that
    /// [`Application::node_id`] understands.
    #[error(
        "`{0}` is not a node id; nothing was changed: use an id that the application understands"
    )]
    NoNodeId(ServerId),
    /// The application can make no node of a server. Nothing was changed; give the server what
    /// [`Application::node`] needs, its address at least.
    #[error(
        "no node can be made for {0}; nothing was changed: give it an address that the application \
         understands"
    )]
    NoNode(ServerId),
    /// [`Application::ledger`] offers a ledger, and [`Application::command`] no way to write into
    /// it. Nothing was changed; offer all of them or none.
    #[error(
        "the application offers no command for a record; nothing was changed: implement \
         `Application::command` beside `ledger`"
    )]
    NoRecords,
    /// The record was written, and [`Application::outcome`] found no outcome in the answer. Return
    /// there what `Ledger::apply` has returned.
    #[error(
        "the record was written, and its outcome is not known; implement `Application::outcome` \
         beside `command`"
    )]
    NoOutcome,
    /// The target of a transfer is no voter, or has not answered lately. Nothing was changed;
    /// choose another, or wait until it answers.
    #[error(
        "{0} is not fit to take over leadership, as it does not vote or not answer; nothing was \
         changed: choose another, or wait until it answers"
    )]
    Unfit(ServerId),
    /// The target has not become leader in time. Who leads is open until the next election; wait
    /// for it, then look who does.
    #[error(
        "{0} has not taken over leadership in time; who leads is open until the next election: wait \
         for it, and look who leads"
    )]
    NotTransferred(ServerId),
}
/// A node of openraft as a [`Cluster`](crate::autopilot::Cluster). Contact and progress of every server come from the
/// leader's own metrics; no request is sent but the optional probe. Leader ids may be of either of openraft's
/// kinds: one leader a term (`leader_id_std`), or several (`leader_id_adv`).
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
