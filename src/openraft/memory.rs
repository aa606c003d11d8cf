//! What the adapter keeps between observations: leadership, servers, answers to probes, discovery.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::openraft::{
    RaftTypeConfig,
    alias::{CommittedLeaderIdOf, LogIdOf, StoredMembershipOf},
    vote::{RaftLeaderId, RaftTerm, RaftVote},
};

use super::application::Answer;
use crate::autopilot::{NodeStatus, Probe, Server, ServerId, Status};

/// What is kept between observations.
#[derive(Default)]
pub(super) struct Memory {
    /// The leadership being watched: its term and when it was first seen.
    pub(super) leading: Option<(u64, Duration, Duration)>,
    /// When a leader, this node included, was last heard of.
    pub(super) heard: Option<Duration>,
    /// What `changed` compares with.
    pub(super) seen: Option<Seen>,
    pub(super) servers: BTreeMap<ServerId, Known>,
    pub(super) discovery: Option<(Duration, BTreeMap<ServerId, NodeStatus>)>,
    pub(super) asking_discovery: bool,
    pub(super) discovery_due: Duration,
}

/// What wakes the driver when it moves.
#[derive(PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) term: Option<u64>,
    pub(super) leader: Option<ServerId>,
    pub(super) leads: bool,
    /// It leads, and an entry of its own is applied.
    pub(super) applied: bool,
    pub(super) membership: Option<u64>,
    pub(super) committed: Option<u64>,
}

impl Seen {
    /// openraft publishes its whole metrics after the part that [`Cluster::changed`] waits on. What is
    /// kept must therefore be read from the very metrics that were observed: else a change that
    /// falls between the two is never noticed.
    pub(super) fn of<C: RaftTypeConfig>(
        vote: &C::Vote,
        leader: Option<&C::NodeId>,
        state: ::openraft::ServerState,
        memberships: [&StoredMembershipOf<C>; 2],
        applied: Option<&CommittedLeaderIdOf<C>>,
    ) -> Self {
        let [membership, committed] = memberships
            .map(|stored| stored.log_id().as_ref().map(|log_id: &LogIdOf<C>| log_id.index()));
        let term = RaftLeaderId::term(RaftVote::leader_id(vote)).as_u64();
        Self {
            term,
            leader: leader.map(text),
            leads: state.is_leader(),
            applied: state.is_leader() && has_applied::<C>(vote, applied),
            membership,
            committed,
        }
    }
}

/// Whether the entry that was applied last is of the leader that a vote names: its term alone would not
/// tell, where a term may have several leaders.
pub(super) fn has_applied<C: RaftTypeConfig>(
    vote: &C::Vote,
    applied: Option<&CommittedLeaderIdOf<C>>,
) -> bool {
    applied == Some(&RaftVote::leader_id(vote).to_committed())
}

/// What is kept of one server between observations.
#[derive(Default)]
pub(super) struct Known {
    pub(super) server: Option<Arc<Server>>,
    pub(super) asking: bool,
    pub(super) due: Duration,
    /// Since when it was asked without an answer.
    pub(super) silent: Option<Duration>,
    /// The latest answer, when it was asked for, and what it was known to hold then.
    pub(super) answer: Option<(Answer, Duration, u64)>,
}
impl Known {
    /// What the probe knows of it.
    pub(super) fn probe(&self, at: Duration) -> Probe {
        match (&self.silent, &self.answer) {
            (Some(since), _) => Probe::Silent(at.saturating_sub(*since)),
            (None, Some((answer, asked, held))) => Probe::Answered(Status {
                age: at.saturating_sub(*asked),
                boot: answer.boot,
                disk: answer.disk,
                last_log: answer.last_log,
                acknowledged: *held,
                applied: answer.applied,
                snapshot: answer.snapshot,
            }),
            // An answer to a question of an earlier leadership is on its way, and will not count.
            (None, None) if self.asking => Probe::Silent(Duration::ZERO),
            (None, None) => Probe::Off,
        }
    }
}

/// A question to the application on its way; over when dropped, also where the application panics.
pub(super) struct Asking {
    pub(super) memory: Arc<Mutex<Memory>>,
    /// Who is probed; `None`: discovery is asked.
    pub(super) server: Option<ServerId>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.server {
            None => memory.asking_discovery = false,
            Some(id) => {
                if let Some(known) = memory.servers.get_mut(id) {
                    known.asking = false;
                }
            }
        }
    }
}

/// A node id as the core knows it.
pub(super) fn text(id: &impl fmt::Display) -> ServerId {
    ServerId::from(id.to_string())
}
