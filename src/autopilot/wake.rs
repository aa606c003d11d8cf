//! When to look again: graces, the moments that time alone brings, and whether a verdict is near.

use std::time::Duration;

use super::{
    cluster::NodeStatus,
    config::Config,
    records::{Verdict, age},
    state::{ServerState, State},
};

/// The grace for the cause for which a server is sick.
pub(super) fn removal_grace(config: &Config, server: &ServerState) -> Duration {
    match (server.joining, server.discovery) {
        (Some(_), _) => config.join_grace,
        (None, Some(NodeStatus::Left)) => config.left_server_grace,
        (None, _) => config.dead_server_last_contact_threshold,
    }
}

/// When a state may lead to another plan.
pub(super) struct Next {
    /// When time alone may change it, on the clock of the state.
    pub(super) at: Option<Duration>,
    /// Something is being decided: look again after one heartbeat.
    pub(super) undecided: bool,
}

/// When to look at this state's cluster again.
pub(super) fn next(config: &Config, state: &State) -> Next {
    let mut wake = Wake { at: state.at, next: None };
    let feedback = state.feedback.as_deref();
    let mut undecided = feedback.is_some_and(|feedback| feedback.in_flight.is_some());
    for server in state.members() {
        undecided |= is_undecided(config, server, &mut wake);
    }
    for retry in feedback.map_or(&[][..], |feedback| &feedback.retries) {
        wake.at(retry.until);
    }
    if let Some(ledger) = state.ledger.as_deref() {
        let now = state.ledger_at;
        let mut ends = |applied_at, ttl: Duration| {
            wake.at(state.at.saturating_add(ttl.saturating_sub(age(applied_at, now))));
        };
        ledger.operations.values().for_each(|o| ends(o.applied_at, o.ttl));
        ledger.intents.values().for_each(|i| ends(i.applied_at, i.ttl));
        let cordons = ledger.cordons.values();
        cordons.filter_map(|c| Some((c, c.ttl?))).for_each(|(c, ttl)| ends(c.applied_at, ttl));
        undecided |= !ledger.operations.is_empty();
    }
    Next { at: wake.next, undecided }
}

/// Whether a server's next verdict is near; names the moments that time alone brings.
fn is_undecided(config: &Config, server: &ServerState, wake: &mut Wake) -> bool {
    let stabilization = config.server_stabilization_time;
    match server.health.verdict {
        Verdict::Unknown => true,
        Verdict::Healthy => {
            let Some(since) = server.health.healthy_since else { return false };
            let waits = !server.role.votes() && !server.server.read_replica;
            if waits {
                wake.at(since.saturating_add(server.stabilization(config)));
            }
            waits && since.saturating_add(stabilization) > wake.at
        }
        Verdict::Unhealthy => {
            let (one, other) = (config.voter_replacement_grace, removal_grace(config, server));
            // Twice a grace is long enough whoever else vanished.
            let graces = [one, other, one.saturating_add(one), other.saturating_add(other)];
            for since in server.signs.since() {
                let stood = wake.at.saturating_sub(since);
                if let Some(grace) = graces.into_iter().filter(|grace| *grace > stood).min() {
                    wake.at(since.saturating_add(grace));
                }
            }
            if let Some(progress) = server.joining {
                wake.at(progress.saturating_add(config.join_grace));
            }
            wake.at.saturating_sub(server.health.since) < stabilization
        }
    }
}

/// The earliest moment yet to come.
struct Wake {
    at: Duration,
    next: Option<Duration>,
}

impl Wake {
    fn at(&mut self, moment: Duration) {
        if moment > self.at && self.next.is_none_or(|next| moment < next) {
            self.next = Some(moment);
        }
    }
}
