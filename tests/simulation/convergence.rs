//! What must be so when all is mended and some time has passed: everybody has everything, is
//! healthy, votes if it should, and autopilot has nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use raft_autopilot::autopilot::{Role, Running, ServerState, State, Verdict, View};

use crate::autopilot::number;
use crate::types::{clock, sleep};
use crate::world::World;

/// For how long it must be so.
const STAYS: Duration = Duration::from_secs(1);

/// Waits until the cluster has converged and stayed so. Reports what is missing if that takes
/// longer than `patience`.
pub(crate) async fn within(world: &Arc<World>, patience: Duration) {
    let begin = clock();
    let mut since = None;
    while world.oracle.violation().is_none() {
        match missing(world) {
            None if clock().saturating_sub(*since.get_or_insert(clock())) >= STAYS => {
                return world.oracle.note("converged");
            }
            None => {}
            Some(what) if clock().saturating_sub(begin) >= patience => {
                return world.oracle.violated(format_args!("no convergence: {what}"));
            }
            Some(_) => since = None,
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The first thing that is not as it should be.
fn missing(world: &World) -> Option<String> {
    let Some((leader, raft)) = world.leader() else { return Some("no leader".into()) };
    let members: Vec<u64> = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied;
        let last = metrics.last_log_index;
        if applied.map(|log_id| log_id.index) != last {
            return Some(format!("n{leader} has applied {applied:?} of {last:?}"));
        }
        let members: Vec<u64> = metrics.membership_config.nodes().map(|(id, _)| *id).collect();
        for id in members.iter().filter(|id| world.is_up(**id)) {
            let theirs = world.store(*id).and_then(|store| store.read(|image| image.last_applied));
            if theirs != applied {
                return Some(format!("n{id} has applied {theirs:?} of {applied:?}"));
            }
        }
        members
    };
    for store in members.iter().filter(|id| world.is_up(**id)).filter_map(|id| world.store(*id)) {
        store.read(|image| world.oracle.holds_every_acked_write(leader, &image.data));
    }
    let view = world.autopilot(leader).map(|handle| handle.view());
    view.map_or_else(|| Some("no autopilot".into()), |view| undone(world, &view))
}

/// What autopilot on the leader has not done yet.
fn undone(world: &World, view: &View) -> Option<String> {
    let Some(state) = &view.state else { return Some("no state".into()) };
    if view.running != Running::Leading {
        return Some(format!("the leader's autopilot is {:?}", view.running));
    }
    if state.membership.joint || !state.membership.committed {
        return Some("the membership is joint or open".into());
    }
    if let Some(change) = view.plan.changes.first() {
        return Some(format!("planned: {}; idle: {:?}", change.step, view.plan.idle));
    }
    if let Some(ledger) = state.ledger.as_ref().filter(|ledger| !ledger.operations.is_empty()) {
        let (operations, held) = (&ledger.operations, &view.plan.held);
        let voters: Vec<_> = state.voters().collect();
        return Some(format!(
            "operations in progress: {operations:?}; held: {held:?}; voters: {voters:?}; cordons: {:?}",
            ledger.cordons
        ));
    }
    let up = |s: &&ServerState| world.is_up(number(&s.server.id));
    if let Some(sick) = state.members().filter(up).find(|s| s.health.verdict != Verdict::Healthy) {
        return Some(format!("{} is {:?}", sick.server.id, sick.health));
    }
    idle_learners(world, state, view)
}

/// Learners that could vote and should.
fn idle_learners(world: &World, state: &State, view: &View) -> Option<String> {
    let able = |s: &&ServerState| {
        let id = &s.server.id;
        s.role == Role::Learner && world.is_up(number(id)) && state.cordoned(id).is_none()
    };
    let idle = state.members().filter(able).count();
    let voters = state.num_voters();
    let replaceable = |s: &&ServerState| {
        let id = number(&s.server.id);
        let silent = s.last_contact.unwrap_or(state.at);
        // Whoever said that it restarts is waited for.
        let announced = state.intended(&s.server.id).is_some();
        !world.is_up(id) && !announced && silent > view.config.voter_replacement_grace * 2
    };
    let lost = state.voters().filter(replaceable).count();
    let wanted = match world.character.target {
        None => idle > 0,
        // An even number tolerates no more failures than one less.
        Some(target) => {
            let one = idle >= 1 && voters < target && (voters + 1) % 2 == 1;
            let two = idle >= 2 && voters + 2 <= target;
            one || two || (idle > 0 && lost > 0 && voters - lost < target)
        }
    };
    let counts = format!("{idle} learners that could vote beside {voters} voters");
    wanted.then(|| format!("{counts}; held: {:?}", view.plan.held))
}
