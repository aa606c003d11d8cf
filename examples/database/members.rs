//! Who belongs to the cluster: ids for new servers, and changes of the membership, all fenced.

use std::io;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use raft_autopilot::autopilot::VerbError;

use crate::autopilot::server;
use crate::service::Service;
use crate::storage::Identity;
use crate::types::{Applied, Command, Member, TypeConfig};
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
            None => Self::Because(format!(
                "{error}; it may still happen: read what stands before you repeat it"
            )),
        }
    }

    pub(crate) fn read(error: &RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> Self {
        match error.forward_to_leader() {
            Some(forward) => Self::forwarded(forward),
            None => Self::Because(format!("{error}; nothing was changed: try again")),
        }
    }

    /// What autopilot answered to an order.
    pub(crate) fn order(service: &Service, error: &VerbError) -> Self {
        // Asked again, the new leader waits for what it goes on with.
        let leader = match error {
            VerbError::NotLeading { leader } => leader.as_ref(),
            VerbError::LostLeadership { leader, .. } => Some(leader),
            _ => return Self::Because(error.to_string()),
        };
        let id = leader.and_then(|id| id.as_str().parse().ok());
        Self::Elsewhere(id.and_then(|id: u64| {
            service.state.standing(|standing| standing.membership.get_node(&id).cloned())
        }))
    }

    pub(crate) fn timeout() -> Self {
        Self::Because(format!(
            "no majority answered within {LIMIT:?}; it may still happen: read what stands before you repeat it"
        ))
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

/// Promises a new server an id, which nobody else ever had or will get.
pub(crate) async fn reserve(service: &Service) -> Response {
    let write = service.raft.client_write(Command::Reserve);
    match tokio::time::timeout(LIMIT, write).await {
        Ok(Ok(written)) => match written.data {
            Applied::Reserved(id) => Response::Reserved { cluster: service.identity.cluster, id },
            other => Response::Refused(format!("an odd answer: {other:?}")),
        },
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
            let why = format!(
                "server {id} is known as {known:?}, not as {member:?}; nothing was changed: start it as it \
                 was, or with an empty directory as a new server"
            );
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
            let why = format!(
                "server {id} does not answer at {} ({other:?}); nothing was changed: make it reachable there",
                member.addr
            );
            return Response::Refused(why);
        }
    }
    let added = service.autopilot.clone().within(LIMIT).add(server(id, &member)).await;
    added.map_or_else(|error| NotDone::order(service, &error).into(), |()| Response::Joined)
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
    answer.map_err(|_| {
        io::Error::other(format!(
            "not joined within {limit:?}; nothing was lost: start it again to go on ({last})"
        ))
    })
}
