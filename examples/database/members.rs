//! Who belongs to the cluster: ids for new servers, and changes of the membership, all fenced.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::{ChangeMembers, Precondition, ReadPolicy};

use crate::service::Service;
use crate::storage::Identity;
use crate::types::{Command, Member, TypeConfig};
use crate::wire::{Connection, Envelope, Request, Response};

/// How long anything that needs a majority may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// How long a server that wants to join, or to answer for itself, may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Why something was not done here.
#[derive(Debug)]
pub(crate) enum NotDone {
    /// This server does not lead; the one that does, if known.
    Elsewhere(Option<Member>),
    /// What stands in the way, in words.
    Because(String),
}

impl NotDone {
    fn forwarded(forward: &ForwardToLeader<TypeConfig>) -> Self {
        Self::Elsewhere(forward.leader_node.clone())
    }

    pub(crate) fn write(error: &RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Self {
        match error.forward_to_leader() {
            Some(forward) => Self::forwarded(forward),
            None => Self::Because(error.to_string()),
        }
    }

    pub(crate) fn read(error: &RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> Self {
        match error.forward_to_leader() {
            Some(forward) => Self::forwarded(forward),
            None => Self::Because(error.to_string()),
        }
    }

    pub(crate) fn timeout() -> Self {
        Self::Because(format!("no majority answered within {LIMIT:?}; it may still happen"))
    }
}

impl From<NotDone> for Response {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Elsewhere(leader) => Self::Redirect(leader.map(|leader| leader.addr)),
            NotDone::Because(why) => Self::Refused(why),
        }
    }
}

/// Promises a new server an id: the index of an entry written for it, which nobody else can get.
pub(crate) async fn reserve(service: &Service) -> Response {
    let write = service.raft.client_write(Command::Reserve);
    match tokio::time::timeout(LIMIT, write).await {
        Ok(Ok(written)) => {
            Response::Reserved { cluster: service.identity.cluster, id: written.log_id.index }
        }
        Ok(Err(error)) => NotDone::write(&error).into(),
        Err(_) => NotDone::timeout().into(),
    }
}

/// Takes a server in as a learner, once, and only after it has answered at its address.
pub(crate) async fn join(service: &Service, id: u64, member: Member) -> Response {
    if let Err(not_done) = confirm_leadership(service).await {
        return not_done.into();
    }
    let (known, reserved) = service.state.standing(|standing| {
        (standing.membership.get_node(&id).cloned(), standing.reserved.contains(&id))
    });
    match known {
        Some(known) if known == member => return Response::Joined,
        Some(known) => {
            let why = format!("server {id} is known as {known:?}, not as {member:?}");
            return Response::Refused(why);
        }
        None if !reserved => return Response::Removed,
        None => {}
    }
    let Identity { cluster, id: from, .. } = service.identity;
    let proof = Envelope { cluster, from, to: id, request: Request::Status };
    match Connection::new(&member.addr).ask(&proof, ANSWER_LIMIT).await {
        Ok(Response::Status(status)) if status.id == id => {}
        other => {
            let why = format!("server {id} does not answer at {}: {other:?}", member.addr);
            return Response::Refused(why);
        }
    }
    let add = ChangeMembers::AddNodes(BTreeMap::from([(id, member)]));
    change(service, add, true).await.map_or_else(Into::into, |()| Response::Joined)
}

/// Makes sure that this server leads now, and has applied all that was committed before.
pub(crate) async fn confirm_leadership(service: &Service) -> Result<(), NotDone> {
    let read = service.raft.ensure_linearizable(ReadPolicy::ReadIndex);
    match tokio::time::timeout(LIMIT, read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(NotDone::read(&error)),
        Err(_) => Err(NotDone::timeout()),
    }
}

/// Changes the membership that stands now, as the leader of now; with anything else in between,
/// nothing is done. One at a time: a second change between the two steps of the first would be
/// mixed up with it.
pub(crate) async fn change(
    service: &Service,
    members: ChangeMembers<u64, Member>,
    retain: bool,
) -> Result<(), NotDone> {
    let raft = service.raft.clone();
    let alone = Arc::clone(&service.changing).lock_owned().await;
    let leader = raft.as_leader().map_err(|forward| NotDone::forwarded(&forward))?;
    let standing = raft.metrics().borrow_watched().membership_config.clone();
    if standing.get_joint_config().len() > 1 {
        return Err(NotDone::Because("the membership is being changed".to_owned()));
    }
    let membership = *standing.log_id();
    let fence = [
        Precondition::CommittedLeaderId { committed_leader_id: leader.to_committed_leader_id() },
        Precondition::LastMembershipLogId { last_membership_log_id: membership },
    ];
    // In a task of its own: a change whose caller goes away half-way would stay half done.
    let change = tokio::spawn(async move {
        let _alone = alone;
        raft.change_membership_if(members, retain, fence).await
    });
    match tokio::time::timeout(LIMIT, change).await {
        Ok(Ok(Ok(_))) => Ok(()),
        Ok(Ok(Err(error))) => Err(NotDone::write(&error)),
        Ok(Err(error)) => Err(NotDone::Because(error.to_string())),
        Err(_) => Err(NotDone::timeout()),
    }
}

/// Asks the cluster behind a seed, from server to server until the leader is found, until it
/// gives an answer that is final.
pub(crate) async fn ask_leader(
    seed: &str,
    cluster: u64,
    from: u64,
    request: impl Fn() -> Request,
    limit: Duration,
) -> io::Result<Response> {
    let mut last = "no answer".to_owned();
    let asking = async {
        let mut addr = seed.to_owned();
        loop {
            let envelope = Envelope { cluster, from, to: 0, request: request() };
            match Connection::new(&addr).ask(&envelope, LIMIT + ANSWER_LIMIT).await {
                Ok(Response::Redirect(Some(leader))) if leader != addr => {
                    addr = leader;
                    continue;
                }
                Ok(Response::Redirect(_)) => last = format!("{addr} knows no leader yet"),
                Ok(Response::Refused(why)) => last = format!("{addr} says: {why}"),
                Ok(response) => return response,
                Err(error) => last = format!("{addr} does not answer: {error}"),
            }
            tracing::info!(last, "not joined yet");
            tokio::time::sleep(Duration::from_millis(300)).await;
            seed.clone_into(&mut addr);
        }
    };
    let answer = tokio::time::timeout(limit, asking).await;
    answer.map_err(|_| io::Error::other(format!("not joined within {limit:?}: {last}")))
}
