//! How a step becomes a change of openraft's, and what its refusals mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ::openraft::{
    ChangeMembers, Instant as _, Precondition, RaftTypeConfig,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
    storage::RaftStateMachine,
    type_config::TypeConfigExt,
    vote::{RaftLeaderId, RaftTerm, RaftVote},
};

use super::{
    application::Application,
    memory::text,
    node::{Openraft, OpenraftError},
};
use crate::autopilot::{Applied, Change, ClusterError, Fence, Server, ServerId, Step};

type Failure = ClusterError<OpenraftError>;
type Members<C> = ChangeMembers<<C as RaftTypeConfig>::NodeId, <C as RaftTypeConfig>::Node>;

impl<C, SM, A> Openraft<C, SM, A>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C>,
    A: Application<C>,
{
    /// Applies a step, or hands leadership over.
    pub(super) async fn change(&self, change: Change) -> Applied<OpenraftError> {
        let Change { step, fence, .. } = change;
        let preconditions = self.preconditions(&fence)?;
        if let Step::Transfer { to } = &step {
            return self.transfer(to, fence.term).await;
        }
        let (members, retain) = self.members(&step)?;
        match self.raft.change_membership_if(members, retain, preconditions).await {
            Ok(_) => Ok(()),
            // A change of votes is two entries; whoever loses leadership between them hears the
            // same words as one who was refused at once, and has left a joint membership behind.
            Err(error) if self.membership(&self.metrics()) != fence.membership => {
                Err(ClusterError::Unknown(OpenraftError::Failed(error.to_string())))
            }
            Err(error) => Err(failure(&error)),
        }
    }

    /// The fence of a change, in openraft's terms; an error if it no longer holds.
    fn preconditions(&self, fence: &Fence) -> Result<[Precondition<C>; 2], Failure> {
        let moved = |what: &str| ClusterError::Moved(what.to_owned());
        let leader = self.raft.as_leader().map_err(|_| moved("this node no longer leads"))?;
        let term = RaftLeaderId::term(leader.leader_id());
        if term.as_u64() != Some(fence.term) {
            return Err(moved("the term is another"));
        }
        let metrics = self.metrics();
        if text(&metrics.id) != fence.leader {
            return Err(moved("another leads in the same term"));
        }
        if self.membership(&metrics) != fence.membership {
            return Err(moved("the membership is another"));
        }
        let last_membership_log_id = metrics.membership_config.log_id().clone();
        let committed_leader_id = leader.to_committed_leader_id();
        Ok([
            Precondition::CommittedLeaderId { committed_leader_id },
            Precondition::LastMembershipLogId { last_membership_log_id },
        ])
    }

    fn id(&self, id: &ServerId) -> Result<C::NodeId, Failure> {
        let found = self.application.node_id(id.as_str());
        found.ok_or_else(|| ClusterError::Refused(OpenraftError::NoNodeId(id.clone())))
    }

    fn ids(&self, ids: &[ServerId]) -> Result<BTreeSet<C::NodeId>, Failure> {
        ids.iter().map(|id| self.id(id)).collect()
    }

    fn nodes(&self, server: &Server) -> Result<BTreeMap<C::NodeId, C::Node>, Failure> {
        let node = self.application.node(server);
        let node =
            node.ok_or_else(|| ClusterError::Refused(OpenraftError::NoNode(server.id.clone())))?;
        Ok(BTreeMap::from([(self.id(&server.id)?, node)]))
    }

    /// A step as one change of openraft's, and whether voters that lose their vote stay.
    fn members(&self, step: &Step) -> Result<(Members<C>, bool), Failure> {
        Ok(match step {
            // A change that changes nothing writes the uniform half of a joint membership.
            Step::FinishJoint | Step::Transfer { .. } => {
                (ChangeMembers::AddVoterIds(BTreeSet::new()), true)
            }
            Step::Votes { promote, demote } => {
                let demote = ChangeMembers::RemoveVoters(self.ids(demote)?);
                let promote = ChangeMembers::AddVoterIds(self.ids(promote)?);
                (ChangeMembers::Batch(vec![demote, promote]), true)
            }
            Step::Remove { servers, promote, add } => {
                let metrics = self.metrics();
                let membership = metrics.membership_config.membership();
                let voters: BTreeSet<C::NodeId> = membership.voter_ids().collect();
                let (voters, learners) = self
                    .ids(servers)?
                    .into_iter()
                    .partition::<BTreeSet<_>, _>(|id| voters.contains(id));
                let mut batch = vec![ChangeMembers::RemoveNodes(learners)];
                if let Some(server) = add {
                    batch.push(ChangeMembers::AddNodes(self.nodes(server)?));
                }
                batch.push(ChangeMembers::RemoveVoters(voters));
                batch.push(ChangeMembers::AddVoterIds(self.ids(promote)?));
                (ChangeMembers::Batch(batch), false)
            }
            Step::Add(server) => (ChangeMembers::AddNodes(self.nodes(server)?), true),
            Step::Readdress { server, address } => {
                let id = self.id(server)?;
                let metrics = self.metrics();
                let node = metrics.membership_config.membership().get_node(&id).cloned();
                let node = node.ok_or_else(|| ClusterError::Moved("the server has gone".into()))?;
                let mut server = self.application.server(&id, &node);
                server.address.clone_from(address);
                (ChangeMembers::SetNodes(self.nodes(&server)?), true)
            }
        })
    }

    /// Hands leadership over. openraft checks nothing, tells nobody how it ended, and accepts no
    /// writes until the target leads or an election has followed; so the target is looked at just
    /// before, and the wait is bounded.
    async fn transfer(&self, to: &ServerId, term: u64) -> Applied<OpenraftError> {
        let id = self.id(to)?;
        let config = self.raft.config();
        if !self.is_fit_to_lead(&id, Duration::from_millis(config.election_timeout_min)) {
            return Err(ClusterError::Refused(OpenraftError::Unfit(to.clone())));
        }
        let fatal = |e| ClusterError::Unknown(OpenraftError::Failed(format!("{e}")));
        let mut metrics = self.raft.server_metrics();
        self.raft.trigger().transfer_leader(id.clone()).await.map_err(fatal)?;
        // One election timeout for the target to try, two for the election after it.
        let deadline = Duration::from_millis(config.election_timeout_max.saturating_mul(3));
        let leads_next = C::timeout(deadline, async {
            loop {
                let leader = {
                    let metrics = metrics.borrow_watched();
                    let now = RaftLeaderId::term(RaftVote::leader_id(&metrics.vote)).as_u64();
                    // One term may have several leaders.
                    let other = |leader: &C::NodeId| now > Some(term) || *leader != metrics.id;
                    metrics.current_leader.clone().filter(other)
                };
                if leader.is_some() || metrics.changed().await.is_err() {
                    return leader;
                }
            }
        });
        match leads_next.await {
            Ok(Some(leader)) if leader == id => Ok(()),
            Ok(_) | Err(_) => Err(ClusterError::Unknown(OpenraftError::NotTransferred(to.clone()))),
        }
    }

    /// Whether a server is another voter that has answered within a lease and holds some log. While
    /// a membership is joint, it must be one that goes on to vote: only such a one can end that.
    fn is_fit_to_lead(&self, id: &C::NodeId, lease: Duration) -> bool {
        let metrics = self.metrics();
        let configs = metrics.membership_config.membership().get_joint_config();
        let contact = metrics.heartbeat.as_ref().and_then(|map| map.get(id).copied().flatten());
        let matched = metrics.replication.as_ref().and_then(|map| map.get(id));
        *id != metrics.id
            && configs.last().is_some_and(|voters| voters.contains(id))
            && contact.is_some_and(|contact| contact.elapsed() < lease)
            && matched.is_some_and(Option::is_some)
    }
}

/// What openraft's refusal of one entry means for the one who asked.
pub(super) fn failure<C: RaftTypeConfig>(error: &RaftError<C, ClientWriteError<C>>) -> Failure {
    let words = error.to_string();
    match error {
        // Refused before anything was written.
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_)
            | ClientWriteError::PreconditionFailed(_)
            | ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)),
        ) => ClusterError::Moved(words),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) => {
            ClusterError::Refused(OpenraftError::Refused(words))
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_) => {
            ClusterError::Unknown(OpenraftError::Failed(words))
        }
    }
}
