//! The words for a server: its id, its place in the membership, and what does not change of it.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// The name of a server, unique in its cluster for ever. Text, cheap to clone.
///
/// An adapter maps it to the node id of its host.
#[derive(Clone, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerId(Arc<str>);

impl PartialEq for ServerId {
    /// By the text. Ids of one cluster differ at their ends, and most comparisons are with another
    /// or with a clone of the same.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        Arc::ptr_eq(&self.0, &other.0) || (a.len() == b.len() && a.last() == b.last() && a == b)
    }
}

impl Hash for ServerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl ServerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for ServerId {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for ServerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A place in the Raft log: the term that wrote it, and its index. Ordered by term, then index.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogId {
    /// The term of the leader that wrote the entry.
    pub term: u64,
    /// The position, from 1; 0 is an empty log.
    pub index: u64,
}

/// What the application's own discovery says of a server. It must not include Raft health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Discovery knows the server and cannot tell. Counts as nothing, never as dead.
    Unknown,
    /// Discovery has heard from it.
    Alive,
    /// Discovery has lost it.
    Failed,
    /// It has said good-bye.
    Left,
}

impl NodeStatus {
    /// The word on the wire, as in Consul.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Failed => "failed",
            Self::Left => "left",
        }
    }
}

/// Who a server is: everything about it that does not change from round to round.
///
/// An adapter keeps one `Arc<Server>` a server and hands out clones of the pointer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// A name for people; empty where there is none.
    #[serde(default)]
    pub name: String,
    /// Where its Raft listens, as the membership has it.
    #[serde(default)]
    pub address: String,
    /// The version of its program; empty where it is not known.
    #[serde(default)]
    pub version: String,
    /// Its failure zone, where the application names one.
    #[serde(default)]
    pub zone: Option<String>,
    /// It must never vote: a read replica.
    #[serde(default)]
    pub read_replica: bool,
    /// Tags of the application, free text.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
}

impl Server {
    /// A server of which only the id and the address are known.
    pub fn new(id: impl Into<ServerId>, address: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: String::new(),
            address: address.into(),
            version: String::new(),
            zone: None,
            read_replica: false,
            meta: BTreeMap::new(),
        }
    }
}

/// A server's place in the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Votes; in a joint membership, in both halves.
    Voter,
    /// Receives the log and does not vote.
    Learner,
    /// Votes in the new half of a joint membership only.
    Incoming,
    /// Votes in the old half of a joint membership only.
    Outgoing,
    /// Known to the application, and not in the membership.
    Absent,
}

impl Role {
    /// Whether the server votes in any half of the membership.
    pub fn votes(self) -> bool {
        matches!(self, Self::Voter | Self::Incoming | Self::Outgoing)
    }
}
