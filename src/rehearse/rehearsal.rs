//! A case continued until its cluster has converged: the steps in order, and what is held and why.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{case::Case, world::World};
use crate::autopilot::{
    Explanation, Held, Origin, Plan, Promoter, ServerId, State, Step, Why, explain, plan,
};

/// More steps than any cluster needs.
const STEPS_MAX: usize = 1000;

/// How often a rehearsal looks, where nothing happens.
const LOOK: Duration = Duration::from_secs(20);

/// One step of a rehearsal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// How long after the moment of the case.
    #[serde(with = "crate::duration")]
    pub after: Duration,
    /// What is done.
    pub step: Step,
    /// Who wants it.
    pub origin: Origin,
    /// Who votes then.
    pub voters: Vec<ServerId>,
    /// Who leads then.
    pub leader: Option<ServerId>,
}

/// How a rehearsal ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Nothing is left to do.
    Converged,
    /// Nothing more was done until the horizon, and time may still change that.
    Horizon,
    /// Nothing may be done at all.
    Idle(Why),
    /// The steps do not end.
    Endless,
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// What is thought of the cluster at the moment of the case.
    pub state: State,
    /// Why it stands as it stands.
    pub explanation: Explanation,
    /// What would be done, in order.
    pub steps: Vec<Rehearsed>,
    /// How it ends.
    pub end: End,
    /// What is held then, and why.
    pub held: Vec<Held>,
}

/// Continues a case on an ideal host, for as long as `horizon` at most: every change is committed
/// at once, whoever was seen sick stays as it was seen, and whoever was not holds the whole log.
/// Total; the same case gives the same rehearsal.
#[must_use]
pub fn rehearse(case: &Case, promoter: &dyn Promoter, horizon: Duration) -> Rehearsal {
    let case = case.restored();
    let state = State::assess(&case.config, case.history.as_ref(), &case.observation);
    let first = plan(&case.config, &state, promoter);
    let explanation = explain(&case.config, &state, &first, promoter);
    let mut rehearsal =
        Rehearsal { state, explanation, steps: Vec::new(), end: End::Endless, held: Vec::new() };
    let mut world = World::resume(&case);
    world.update_interval = LOOK;
    let begin = world.at();
    let end = begin.saturating_add(horizon);
    while rehearsal.steps.len() < STEPS_MAX {
        let (plan, step) = world.round(promoter);
        if let Some(step) = &step {
            let found = plan.changes.iter().find(|change| change.step == *step);
            rehearsal.steps.push(Rehearsed {
                after: world.at().saturating_sub(begin),
                step: step.clone(),
                origin: found.map_or(Origin::Promoter, |change| change.origin.clone()),
                voters: world.voters(),
                leader: world.leader().cloned(),
            });
        }
        let waits = plan.undecided || plan.wake.is_some() || plan.idle.is_some();
        rehearsal.held.clone_from(&plan.held);
        // What is on its way has ended by the next round, and whoever only looked on acts then.
        let passes =
            |idle: &Why| matches!(idle, Why::Uncommitted | Why::InFlight(_) | Why::Observing);
        if let Some(idle) = plan.idle.clone().filter(|idle| !passes(idle)) {
            rehearsal.end = End::Idle(idle);
            return rehearsal;
        }
        if step.is_none() && !waits {
            rehearsal.end = End::Converged;
            return rehearsal;
        }
        if world.at() >= end {
            let quiet = plan.changes.is_empty() && plan.held.is_empty() && !plan.undecided;
            let done = quiet && !brings_more(&mut world, &plan, promoter);
            rehearsal.end = if done { End::Converged } else { End::Horizon };
            return rehearsal;
        }
        world.wait(&plan, step.is_some(), end);
    }
    rehearsal
}

/// Whether time alone still brings a step.
fn brings_more(world: &mut World, plan: &Plan, promoter: &dyn Promoter) -> bool {
    let state = world.assess();
    explain(&world.config, &state, plan, promoter).next.after.is_some()
}
