//! The log of openraft as the log of a replicated store.

use std::{fmt, future::Future, sync::Arc};

use ::openraft::{
    Raft, RaftTypeConfig, ReadPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError},
    storage::RaftStateMachine,
};

use crate::store::replicated::{Answer, Applied, Entry, Log, LogError, Request};

/// What a database whose log holds a store tells [`RaftLog`].
pub trait StoreHost<C: RaftTypeConfig>: Send + Sync + 'static {
    /// The command of the database that stands for an entry. Its state machine gives the entry to
    /// its [`Replica`](crate::store::replicated::Replica) and answers with what that says.
    fn command(&self, entry: Entry) -> C::D;

    /// What the replica said, out of the state machine's answer. `None`: the answer is to
    /// something else.
    fn applied(&self, response: C::R) -> Option<Applied>;

    /// Sends a request to a server, on a connection of its own, and returns what
    /// [`Replicated::answer`](crate::store::replicated::Replicated::answer) says there. It may
    /// hang: it is given up in time.
    ///
    /// # Errors
    /// [`LogError::Retry`] if the request surely did not arrive, else [`LogError::Unknown`].
    fn ask(
        &self,
        id: C::NodeId,
        node: C::Node,
        request: Request,
    ) -> impl Future<Output = Result<Answer, LogError>> + Send;
}

/// A node of openraft as a [`Log`].
pub struct RaftLog<C: RaftTypeConfig, SM: RaftStateMachine<C>, H> {
    raft: Raft<C, SM>,
    host: Arc<H>,
}

impl<C: RaftTypeConfig, SM: RaftStateMachine<C>, H> Clone for RaftLog<C, SM, H> {
    fn clone(&self) -> Self {
        Self { raft: self.raft.clone(), host: Arc::clone(&self.host) }
    }
}

impl<C: RaftTypeConfig, SM: RaftStateMachine<C>, H> fmt::Debug for RaftLog<C, SM, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLog").finish_non_exhaustive()
    }
}

impl<C, SM, H> RaftLog<C, SM, H>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C>,
    H: StoreHost<C>,
{
    /// The log of one node.
    pub fn new(raft: Raft<C, SM>, host: Arc<H>) -> Self {
        Self { raft, host }
    }
}

fn closed(error: impl fmt::Display) -> LogError {
    LogError::Closed(error.to_string())
}

fn of_writing<C: RaftTypeConfig>(error: RaftError<C, ClientWriteError<C>>) -> LogError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => elsewhere(&forward),
        // It may stand in the log of another, and be committed there.
        RaftError::APIError(error) => LogError::Unknown(error.to_string()),
        // Whoever sent it may be answered by another node.
        RaftError::Fatal(fatal) => LogError::Unknown(fatal.to_string()),
    }
}

fn of_reading<C: RaftTypeConfig>(error: RaftError<C, LinearizableReadError<C>>) -> LogError {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => elsewhere(&forward),
        RaftError::APIError(error) => LogError::Retry(error.to_string()),
        RaftError::Fatal(fatal) => closed(fatal),
    }
}

fn elsewhere<C: RaftTypeConfig>(_: &ForwardToLeader<C>) -> LogError {
    LogError::NotLeading
}

impl<C, SM, H> Log for RaftLog<C, SM, H>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C> + Send + Sync,
    H: StoreHost<C>,
{
    fn leads(&self) -> bool {
        self.raft.as_leader().is_ok()
    }

    async fn append(&self, entry: Entry) -> Result<Applied, LogError> {
        let written = self.raft.client_write(self.host.command(entry)).await;
        let response = written.map_err(of_writing)?.data;
        let odd = || LogError::Unknown("the state machine answers to something else".to_owned());
        self.host.applied(response).ok_or_else(odd)
    }

    async fn read_index(&self) -> Result<u64, LogError> {
        let read = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        Ok(read.map_err(of_reading)?.read_log_id().log_id().index())
    }

    async fn applied(&self, index: u64) -> Result<(), LogError> {
        let mut metrics = self.raft.metrics();
        loop {
            let applied = {
                let seen = metrics.borrow_watched();
                seen.running_state.as_ref().map_err(closed)?;
                seen.last_applied.as_ref().map(::openraft::LogId::index)
            };
            if applied >= Some(index) {
                return Ok(());
            }
            metrics.changed().await.map_err(closed)?;
        }
    }

    async fn ask(&self, request: Request) -> Result<Answer, LogError> {
        let Err(leader) = self.raft.as_leader() else {
            // It has come to lead meanwhile.
            return Err(LogError::NotLeading);
        };
        let (Some(id), Some(node)) = (leader.leader_id, leader.leader_node) else {
            return Err(LogError::Retry("no node leads, as far as this one knows".to_owned()));
        };
        self.host.ask(id, node, request).await
    }
}
