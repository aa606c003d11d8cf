//! What the store needs of a replicated log, and what its nodes ask the one that leads.

use std::future::Future;

use serde::{Deserialize, Serialize};

use super::sessions::{Applied, Entry, Proposal};
use crate::store::{error::Refusal, machine::Outcome};

/// The host's replicated log, as one node sees it. Its clones are the same log.
///
/// The host applies every [`Entry`] of the log, in its order and on every node, to that node's
/// [`Replica`](super::Replica), and answers with what that returns.
pub trait Log: Clone + Send + Sync + 'static {
    /// Whether this node leads, as far as it knows. It may be wrong: only what it appends counts.
    fn leads(&self) -> bool;

    /// Appends an entry here, and waits until this node has applied it. Returns what the replica
    /// said to it. Dropping the future leaves it open whether the entry is appended.
    ///
    /// # Errors
    /// [`LogError::NotLeading`] and [`LogError::Retry`] only if the entry is surely not appended,
    /// nor ever will be by this call.
    fn append(&self, entry: Entry) -> impl Future<Output = Result<Applied, LogError>> + Send;

    /// Makes sure that this node leads, and returns the index of the last entry that may have
    /// been committed by any node when this was called.
    ///
    /// # Errors
    /// [`LogError::NotLeading`] or [`LogError::Retry`].
    fn read_index(&self) -> impl Future<Output = Result<u64, LogError>> + Send;

    /// Waits until this node has applied the entry of that index, or a snapshot that holds it.
    ///
    /// # Errors
    /// [`LogError::Closed`].
    fn applied(&self, index: u64) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Sends a request to the node that leads, which answers with
    /// [`Replicated::answer`](super::Replicated::answer). What is not answered may be asked again:
    /// a proposal that arrives twice is done once.
    ///
    /// # Errors
    /// [`LogError::Retry`] if the request surely did not arrive, else [`LogError::Unknown`].
    fn ask(&self, request: Request) -> impl Future<Output = Result<Answer, LogError>> + Send;
}

/// Why a log did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LogError {
    /// Another node leads, or none. Nothing was appended.
    #[error("this node does not lead; nothing was changed: ask the one that does")]
    NotLeading,
    /// Nothing was appended, and it may well be in a moment.
    #[error("{0}; nothing was changed: send it again in a moment")]
    Retry(String),
    /// It may have been appended.
    #[error("{0}; it may have been appended: send the same again, it is done once")]
    Unknown(String),
    /// It was done when it was appended first, and the answer was too large to be kept.
    #[error("its answer is not kept; it was done when it came first: read what stands")]
    Forgotten,
    /// This node's log has stopped for good. Nothing was appended.
    #[error("{0}; nothing was changed: start the node anew")]
    Closed(String),
}

impl LogError {
    /// What happened, for whoever says himself what that means.
    pub(super) fn why(self) -> String {
        match self {
            Self::NotLeading => "no node that could be asked leads".to_owned(),
            Self::Forgotten => "its answer is not kept".to_owned(),
            Self::Retry(why) | Self::Unknown(why) | Self::Closed(why) => why,
        }
    }
}

/// What a node asks the one that leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// To append a command.
    Propose(Box<Proposal>),
    /// How far the log is.
    ReadIndex,
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// What the command did, or why it was refused.
    Done(Result<Outcome, Refusal>),
    /// How far the log is.
    ReadIndex(u64),
    /// Why there is no answer.
    Failed(LogError),
}
