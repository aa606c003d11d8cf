//! The replicated database of the simulation: its commands, its types, its clock.

use std::fmt;
use std::time::Duration;

use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::TypeConfigExt;
use raft_autopilot::autopilot::{Outcome, Record};
use raft_autopilot::store::replicated;
use serde::{Deserialize, Serialize};

use crate::process::Processes;
use crate::store::Store;

/// What clients, the operator and the autopilot write into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// A client's write: a key that is never written twice, and its value.
    Put(u64, u64),
    /// A record of autopilot's ledger, which lives beside the data.
    Record(Box<Record>),
    /// An entry of the store that the database hosts.
    Store(Box<replicated::Entry>),
}

/// What the state machine answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Reply {
    #[default]
    Nothing,
    Recorded(Outcome),
    Stored(Box<replicated::Applied>),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, value) => write!(f, "put {key}={value}"),
            Self::Record(record) => write!(f, "record {record:?}"),
            Self::Store(entry) => write!(f, "store {entry:?}"),
        }
    }
}

/// What the membership says of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// Where it listens; in the simulation a name only.
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn of(id: u64) -> Self {
        Self { address: address(id) }
    }
}

/// The address of a server's machine.
pub(crate) fn address(id: u64) -> String {
    format!("server-{id}:1")
}

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Command,
        R = Reply,
        Node = Server,
        LeaderId = LeaderId<u64, u64>,
        AsyncRuntime = Processes,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, Store>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Server>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;

/// Simulated time since the world began.
pub(crate) fn clock() -> Duration {
    TypeConfig::now().elapsed_since_start()
}

/// Waits in simulated time.
pub(crate) async fn sleep(duration: Duration) {
    TypeConfig::sleep(duration).await;
}
