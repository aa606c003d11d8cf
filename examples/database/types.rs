//! What the database replicates: its commands, its members, and the names of openraft's types.

use std::fmt;

use raft_autopilot::autopilot::{Outcome, Record};
use raft_autopilot::codec;
use raft_autopilot::store::replicated;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// openraft, told about this database. One leader a term, as in standard Raft.
    pub(crate) TypeConfig:
        D            = Command,
        R            = Applied,
        NodeId       = u64,
        Node         = Member,
        LeaderId     = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::storage::StateMachine>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;

/// The id of the server that begins a cluster; others get the next ones, in order.
pub(crate) const FIRST_ID: u64 = 1;

/// A server as the membership knows it: where it listens, and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where the other servers reach it, `host:port`.
    pub(crate) addr: String,
    /// Where clients reach it, `host:port`.
    pub(crate) http: String,
    /// What an operator calls it.
    pub(crate) name: String,
    /// The zone that it would fail together with; empty when none was given.
    pub(crate) zone: String,
}

/// One change of the replicated state. Variants are encoded by position: append, never reorder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Puts a value under a key.
    Set {
        key: String,
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
    },
    /// Removes a key.
    Delete { key: String },
    /// Promises a node id, which no other server ever had, to one that wants to join.
    Reserve,
    /// Something that autopilot remembers.
    Record(Box<Record>),
    /// Something for the store that this database hosts.
    Store(Box<replicated::Entry>),
}

impl Command {
    /// About how many bytes this takes on the wire.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Set { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
            Self::Reserve => 0,
            Self::Store(entry) => entry.size(),
            Self::Record(record) => codec::encode(record).map_or(0, |bytes| bytes.len()),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { key, value } => write!(f, "set {key:?} ({} bytes)", value.len()),
            Self::Delete { key } => write!(f, "delete {key:?}"),
            Self::Reserve => f.write_str("promise an id"),
            Self::Record(record) => write!(f, "record {record:?}"),
            Self::Store(entry) => write!(f, "store {} bytes", entry.size()),
        }
    }
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Applied {
    /// It was applied.
    Done,
    /// The key to delete was not there.
    NoSuchKey,
    /// This id is promised.
    Reserved(u64),
    /// It was a record, and this is what the ledger says to it.
    Recorded(Outcome),
    /// It was for the store, and this is what the store says to it.
    Stored(Box<replicated::Applied>),
}
