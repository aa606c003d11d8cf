//! A moment of a cluster as data: everything that a plan is made from.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::autopilot::{
    Config, Ledger, Observation, Policy, Probe, Promoter, Reason, ServerState, Sighting, State,
    View,
};

/// Configuration, policy, what is seen, and what was thought before: enough to plan, and to plan
/// the same again elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The thresholds. What is left out has its default for a heartbeat of 50 ms.
    #[serde(default)]
    pub config: Config,
    /// The policy; `None`: one of the application's own, or not known.
    #[serde(default)]
    pub promoter: Option<Policy>,
    /// What is seen of the cluster.
    pub observation: Observation,
    /// What was thought of it in the round before, histories and graces included; `None`: nothing,
    /// so that every history begins with this round.
    #[serde(default)]
    pub history: Option<State>,
}

impl Case {
    /// The moment of a view; `None` before the first round.
    ///
    /// Assessed again, it gives the same verdicts, ages and signs.
    pub fn saved(view: &View) -> Option<Self> {
        let state = view.state.as_deref()?;
        let policy = view.guard().policy();
        Some(Self::of(Config::clone(&view.config), policy, state))
    }

    /// The moment that a state was made from, with a configuration and a policy.
    pub fn of(config: Config, promoter: Option<Policy>, state: &State) -> Self {
        let ledger = state.ledger.as_deref().map(|ledger| Arc::new(left(ledger, state.ledger_at)));
        let mut history = state.clone();
        history.ledger.clone_from(&ledger);
        Self { config, promoter, observation: seen(state, ledger), history: Some(history) }
    }

    /// Starts the ages that are not part of the text.
    pub(super) fn restored(&self) -> Self {
        let mut case = self.clone();
        if let Some(ledger) = &mut case.observation.ledger {
            Arc::make_mut(ledger).restored(case.observation.ledger_at);
        }
        case
    }
}

/// The ledger with the times that are left in place of those that were given: when a record was
/// applied is not part of the text.
fn left(ledger: &Ledger, now: Duration) -> Ledger {
    let rest = |ttl: Duration, applied: Option<Duration>| {
        ttl.saturating_sub(applied.map_or(Duration::ZERO, |at| now.saturating_sub(at)))
    };
    let mut left = ledger.clone();
    for cordon in left.cordons.values_mut() {
        cordon.ttl = cordon.ttl.map(|ttl| rest(ttl, cordon.applied_at));
    }
    for intent in left.intents.values_mut() {
        intent.ttl = rest(intent.ttl, intent.applied_at);
    }
    for operation in left.operations.values_mut() {
        operation.ttl = rest(operation.ttl, operation.applied_at);
    }
    left.restored(now);
    left
}

/// What was seen, as far as a state tells.
fn seen(state: &State, ledger: Option<Arc<Ledger>>) -> Observation {
    Observation {
        at: state.at,
        local: state.local.clone(),
        leader: state.leader.clone(),
        leading: state.leading,
        membership: state.membership,
        last_log: state.last_log,
        discovery: state.discovery,
        servers: state.servers.iter().map(|server| sighting(state, server)).collect(),
        ledger,
        ledger_at: state.ledger_at,
        pace: Duration::ZERO,
        feedback: state.feedback.clone(),
    }
}

fn sighting(state: &State, server: &ServerState) -> Sighting {
    let silent =
        || server.signs.probe.map_or(Duration::ZERO, |since| state.at.saturating_sub(since));
    let probe = match server.status {
        Some(status) => Probe::Answered(status),
        None if server.health.reasons.contains(Reason::ProbeSilent) => Probe::Silent(silent()),
        None => Probe::Off,
    };
    Sighting {
        server: Arc::clone(&server.server),
        role: server.role,
        contact: server.last_contact,
        matched: server.matched,
        probe,
        discovery: server.discovery,
    }
}
