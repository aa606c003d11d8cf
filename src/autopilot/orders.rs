//! A person's orders: the next step of each operation, derived anew from every state, so that any leader goes on with it.

use super::{
    cluster::{Role, Server, ServerId, Step},
    records::{Operation, Task, Verdict},
    state::{ServerState, State},
};

/// What an operation needs next.
pub(super) enum Next {
    /// Nothing: it is done.
    Done,
    /// This step.
    Step(Step),
    /// A leader to hand over to, and there is none.
    NoTarget,
    /// This server, which is no member.
    Member(ServerId),
}

/// Whether a server is no member.
pub(super) fn is_absent(state: &State, id: &ServerId) -> bool {
    state.server(id).is_none_or(|server| server.role == Role::Absent)
}

/// Whether an order that is not over takes a server out.
pub(super) fn leaves(state: &State, id: &ServerId) -> bool {
    let ledger = state.ledger.iter().filter(|ledger| !ledger.operations.is_empty());
    let tasks = ledger.flat_map(|ledger| ledger.operations.values());
    tasks.map(|operation| &operation.task).any(|task| match task {
        Task::Remove(old) | Task::Replace { old, .. } => old == id,
        Task::Add(_)
        | Task::Promote(_)
        | Task::Demote(_)
        | Task::Transfer(_)
        | Task::Readdress { .. } => false,
    })
}

/// Whoever a task is about and is no member: it is refused before it is recorded.
pub(super) fn stranger(state: &State, task: &Task) -> Option<ServerId> {
    let absent = |id: &ServerId| is_absent(state, id);
    match task {
        Task::Promote(id) | Task::Demote(id) => absent(id).then(|| id.clone()),
        // With the new one there already, the old one has gone as it was meant to.
        Task::Replace { old, new } if absent(&new.id) => absent(old).then(|| old.clone()),
        Task::Add(_)
        | Task::Remove(_)
        | Task::Replace { .. }
        | Task::Transfer(_)
        | Task::Readdress { .. } => None,
    }
}

/// The next step of an operation; `best` names the best other leader.
pub(super) fn next(
    state: &State,
    operation: &Operation,
    best: impl Fn() -> Option<ServerId>,
) -> Next {
    let role = |id: &ServerId| state.server(id).map_or(Role::Absent, |server| server.role);
    let hand_over = || best().map_or(Next::NoTarget, |to| Next::Step(Step::Transfer { to }));
    let live = |id: &ServerId| state.server(id).is_some_and(|server| server.live);
    let forced = operation.force.is_some();
    match &operation.task {
        Task::Add(server) if role(&server.id) == Role::Absent => Next::Step(add(state, server)),
        // An id that is a member at another address is refused: an address changes by its own
        // order, which asks for the id there.
        Task::Add(server) if moved(state, server) => Next::Step(Step::Add(server.clone())),
        Task::Add(_) => Next::Done,
        Task::Remove(id) => match role(id) {
            Role::Absent => Next::Done,
            _ if state.is_leader(id) => hand_over(),
            Role::Voter if live(id) && !forced => Next::Step(votes(&[], &[id])),
            _ => Next::Step(remove(id, &[])),
        },
        Task::Replace { old, new } => match (role(old), role(&new.id)) {
            (Role::Absent, Role::Absent) => Next::Member(old.clone()),
            (Role::Absent, _) => Next::Done,
            _ if state.is_leader(old) => hand_over(),
            (_, Role::Absent) => Next::Step(add(state, new)),
            (Role::Voter, Role::Learner) if live(old) && !forced => {
                Next::Step(votes(&[&new.id], &[old]))
            }
            (Role::Voter, Role::Learner) => Next::Step(remove(old, &[&new.id])),
            (Role::Voter, _) if live(old) && !forced => Next::Step(votes(&[], &[old])),
            _ => Next::Step(remove(old, &[])),
        },
        Task::Promote(id) if role(id) == Role::Voter => Next::Done,
        Task::Promote(id) => Next::Step(votes(&[id], &[])),
        Task::Demote(id) => match role(id) {
            Role::Learner | Role::Absent => Next::Done,
            _ if state.is_leader(id) => hand_over(),
            _ => Next::Step(votes(&[], &[id])),
        },
        Task::Transfer(Some(to)) if state.is_leader(to) => Next::Done,
        Task::Transfer(Some(to)) => Next::Step(Step::Transfer { to: to.clone() }),
        Task::Transfer(None) if state.leader != operation.leader => Next::Done,
        Task::Transfer(None) => hand_over(),
        Task::Readdress { server, address } => match state.server(server) {
            Some(found) if found.server.address == *address => Next::Done,
            _ => {
                let (server, address) = (server.clone(), address.clone());
                Next::Step(Step::Readdress { server, address })
            }
        },
    }
}

fn moved(state: &State, server: &Server) -> bool {
    let known = state.server(&server.id);
    !server.address.is_empty() && known.is_some_and(|s| s.server.address != server.address)
}

/// Adds a server; whoever had its address and no longer answers there leaves in the same change.
fn add(state: &State, server: &std::sync::Arc<Server>) -> Step {
    let gone = |s: &&ServerState| {
        let lost = s.health.verdict == Verdict::Unhealthy && s.signs.contact.is_some();
        !server.address.is_empty() && s.server.address == server.address && lost && !s.live
    };
    let servers: Vec<ServerId> =
        state.members().filter(gone).map(|old| old.server.id.clone()).collect();
    if servers.is_empty() {
        return Step::Add(server.clone());
    }
    Step::Remove { servers, promote: Vec::new(), add: Some(server.clone()) }
}

fn votes(promote: &[&ServerId], demote: &[&ServerId]) -> Step {
    let own = |ids: &[&ServerId]| ids.iter().map(|id| (*id).clone()).collect();
    Step::Votes { promote: own(promote), demote: own(demote) }
}

fn remove(id: &ServerId, promote: &[&ServerId]) -> Step {
    let promote = promote.iter().map(|id| (*id).clone()).collect();
    Step::Remove { servers: vec![id.clone()], promote, add: None }
}
