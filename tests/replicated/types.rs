//! A database whose log holds nothing but a store; on openraft's simulated runtime.

use std::fmt;

use raft_autopilot::store::replicated::{Applied, Entry};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// openraft, told about this database.
    pub(crate) Sim:
        D = Command,
        R = Option<Applied>,
        NodeId = u64,
        Node = openraft::impls::EmptyNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft_rt_sim::SimRuntime,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Sim>;
pub(crate) type LogEntry = openraft::alias::EntryOf<Sim>;
pub(crate) type Vote = openraft::alias::VoteOf<Sim>;
pub(crate) type Membership = openraft::alias::StoredMembershipOf<Sim>;

/// What stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command(pub(crate) Box<Entry>);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
