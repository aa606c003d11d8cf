//! The replicated database of these tests, for two runtimes and two kinds of node id.

use std::fmt;

use openraft::{
    RaftTypeConfig,
    alias::{CommittedLeaderIdOf, EntryOf},
};
use raft_autopilot::autopilot::{Outcome, Record};
use serde::{Deserialize, Serialize};

/// What is written into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// A client's write.
    Write(u64),
    /// A record of autopilot's.
    Record(Box<Record>),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What the state machine answers; nothing to a client.
pub(crate) type Reply = Option<Outcome>;

/// What the membership says of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) address: String,
}

/// A node id that is no number.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Name(pub(crate) String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What these tests need of a type configuration beside what openraft does.
pub(crate) trait Types:
    RaftTypeConfig<D = Command, R = Reply, Node = Peer, Entry: Clone, Vote: Clone>
{
    fn node_id(text: &str) -> Option<Self::NodeId>;
    fn term(leader: &CommittedLeaderIdOf<Self>) -> u64;
    fn command(entry: &EntryOf<Self>) -> Option<&Command>;
}

macro_rules! types {
    ($($(#[$doc:meta])* $name:ident, $id:ty, $leader:ident, $runtime:ty, $node_id:expr;)+) => {$(
        openraft::declare_raft_types!(
            $(#[$doc])*
            pub(crate) $name:
                D = Command,
                R = Reply,
                NodeId = $id,
                Node = Peer,
                LeaderId = openraft::impls::$leader::LeaderId<u64, $id>,
                AsyncRuntime = $runtime,
        );

        impl Types for $name {
            fn node_id(text: &str) -> Option<$id> {
                ($node_id)(text)
            }

            fn term(leader: &CommittedLeaderIdOf<Self>) -> u64 {
                leader.term
            }

            fn command(entry: &EntryOf<Self>) -> Option<&Command> {
                match &entry.payload {
                    openraft::EntryPayload::Normal(command) => Some(command),
                    openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => None,
                }
            }
        }
    )+};
}

types! {
    /// Numbers as ids, simulated time.
    Sim, u64, leader_id_std, openraft_rt_sim::SimRuntime, |text: &str| text.parse().ok();
    /// The same, and a term may have several leaders, which is openraft's default.
    Several, u64, leader_id_adv, openraft_rt_sim::SimRuntime, |text: &str| text.parse().ok();
    /// Names as ids, simulated time.
    Named, Name, leader_id_std, openraft_rt_sim::SimRuntime, |text: &str| Some(Name(text.to_owned()));
    /// Numbers as ids, on tokio.
    Real, u64, leader_id_std, openraft::impls::TokioRuntime, |text: &str| text.parse().ok();
}
