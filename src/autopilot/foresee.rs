//! What time alone brings: the first step that comes if everything stays as it is seen.

use std::time::Duration;

use super::{
    cluster::{Change, Step},
    config::Config,
    plan::{Plan, plan},
    promoter::Promoter,
    safety::check,
    state::{Reason, State},
};

/// How many moments are looked at: each sick server brings a handful.
const MOMENTS: usize = 64;

/// A step that comes of itself, and in what time.
pub(super) struct Foreseen {
    pub(super) step: Step,
    pub(super) after: Duration,
}

/// Plans again at each moment that the plan before names, until a step could be taken.
pub(super) fn foresee(
    config: &Config,
    state: &State,
    now: &Plan,
    promoter: &dyn Promoter,
) -> Option<Foreseen> {
    let mut then = state.clone();
    let mut wake = now.wake;
    for _ in 0..MOMENTS {
        let at = wake?;
        let time = at.saturating_sub(then.at);
        pass(&mut then, time);
        let plan = plan(config, &then, promoter);
        wake = plan.wake;
        let passes = |change: &Change| check(config, change, &then).is_ok();
        let step = plan.changes.into_iter().find(passes).map(|change| change.step);
        if let Some(step) = step.filter(|_| plan.idle.is_none()) {
            return Some(Foreseen { step, after: at.saturating_sub(state.at) });
        }
    }
    None
}

/// Lets time pass: whoever is silent stays so.
fn pass(state: &mut State, time: Duration) {
    state.at = state.at.saturating_add(time);
    state.ledger_at = state.ledger_at.saturating_add(time);
    for server in &mut state.servers {
        if server.health.reasons.contains(Reason::ContactLost) {
            server.last_contact = server.last_contact.map(|age| age.saturating_add(time));
        }
    }
}
