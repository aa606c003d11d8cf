//! What autopilot has done and what it has held back lately: the last decisions, each with its reason.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    mem::discriminant,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    cluster::{Applied, Change, ClusterError, Origin, ServerId, Step},
    plan::Plan,
    state::{Reasons, State},
    why::Why,
};

/// What came of a step that was wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It was taken, and is in effect.
    Applied,
    /// It was not taken: term, leader or membership had moved. Nothing was changed; what the host
    /// said.
    Moved(String),
    /// The host refused it. Nothing was changed; what the host said.
    Failed(String),
    /// It was taken, and its outcome is not known: no answer in time, or leadership was lost.
    Unknown(String),
    /// It is not taken for now, and why. Noted once, when it began to be held.
    Held(Why),
}

impl Fate {
    /// What became of a step that the host was asked to take.
    pub(super) fn of<E: fmt::Display>(applied: &Applied<E>) -> Self {
        match applied {
            Ok(()) => Self::Applied,
            Err(ClusterError::Moved(what)) => Self::Moved(what.clone()),
            Err(ClusterError::Refused(error)) => Self::Failed(error.to_string()),
            Err(ClusterError::Unknown(error)) => Self::Unknown(error.to_string()),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("in effect"),
            Self::Moved(what) => write!(f, "not taken, planned anew: {what}"),
            Self::Failed(error) => write!(f, "the host refused it, nothing was changed: {error}"),
            Self::Unknown(error) => write!(f, "it may be in effect, the next round looks: {error}"),
            Self::Held(why) => write!(f, "held: {why}"),
        }
    }
}

/// One decision about one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its number, from 1 since this driver started; a gap before the first says how many are
    /// forgotten.
    pub number: u64,
    /// When it was made, on the clock of [`State::at`]: when the step was started, or began to be
    /// held.
    #[serde(with = "crate::duration")]
    pub at: Duration,
    /// How long the step took until its outcome was known; 0 for one that is held.
    #[serde(with = "crate::duration")]
    pub took: Duration,
    /// What was wanted.
    pub step: Step,
    /// Who wanted it, and why rules were waived if they were.
    pub origin: Origin,
    /// What was held against the servers that the step names; those without a reason are left out.
    pub reasons: BTreeMap<ServerId, Reasons>,
    /// What came of it.
    pub fate: Fate,
}

/// The last [`History::LEN`] decisions of this node, the oldest first. Cheap to clone.
///
/// It is about this node alone and lives in memory: what a leader before it did stands in that
/// leader's. A node that never led has an empty one, which takes no memory.
#[derive(Clone, Debug, Default)]
pub struct History(Option<Arc<VecDeque<Arc<Decision>>>>);

impl History {
    /// How many decisions are kept: 64 (ours: the story of an incident).
    pub const LEN: usize = 64;

    /// The decisions, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Decision> {
        self.0.iter().flat_map(|kept| kept.iter()).map(|decision| &**decision)
    }

    /// The number of the last decision; 0: there is none.
    pub(super) fn last_number(&self) -> u64 {
        self.iter().next_back().map_or(0, |last| last.number)
    }

    /// The decisions after a number.
    pub(super) fn since(&self, number: u64) -> impl Iterator<Item = &Decision> {
        self.iter().filter(move |decision| decision.number > number)
    }

    fn push(&mut self, decision: impl FnOnce(u64) -> Decision) {
        let number = self.last_number() + 1;
        let kept = Arc::make_mut(self.0.get_or_insert_default());
        if kept.len() == Self::LEN {
            kept.pop_front();
        }
        kept.push_back(Arc::new(decision(number)));
    }
}

/// Writes the history.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    pub(super) history: History,
    /// The last plan that could say what is held.
    last: Option<Arc<Plan>>,
}

impl Chronicle {
    /// Notes a step whose outcome is known, or will not be.
    pub(super) fn taken(&mut self, change: &Change, begun: &Begun, now: Duration, fate: Fate) {
        self.history.push(|number| Decision {
            number,
            at: begun.at,
            took: now.saturating_sub(begun.at),
            step: change.step.clone(),
            origin: change.origin.clone(),
            reasons: begun.reasons.clone(),
            fate,
        });
    }

    /// Notes what a plan holds and the plan before it did not, or for another reason.
    pub(super) fn planned(&mut self, plan: &Arc<Plan>, state: &State) {
        if state.leading.is_none() {
            self.last = None;
        }
        // While the membership moves, or nobody may be judged, a plan is silent about the rest.
        if !state.may_act() || !state.membership.committed || state.membership.joint {
            return;
        }
        let before = self.last.replace(Arc::clone(plan));
        let before: Vec<_> = before.iter().flat_map(|before| withheld(before)).collect();
        for (at, held) in withheld(plan).enumerate() {
            // Mostly it stands where it stood.
            let stood = before.get(at).is_some_and(|old| same(*old, held));
            if stood || before.iter().any(|old| same(*old, held)) {
                continue;
            }
            let (step, origin, why) = held;
            self.history.push(|number| Decision {
                number,
                at: state.at,
                took: Duration::ZERO,
                step: step.clone(),
                origin: origin.clone(),
                reasons: reasons(state, step),
                fate: Fate::Held(why.clone()),
            });
        }
    }
}

/// When a step was started, and what was held against its servers then.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) at: Duration,
    reasons: BTreeMap<ServerId, Reasons>,
}

impl Begun {
    pub(super) fn new(state: &State, step: &Step) -> Self {
        Self { at: state.at, reasons: reasons(state, step) }
    }
}

/// What was held against the servers that a step names.
fn reasons(state: &State, step: &Step) -> BTreeMap<ServerId, Reasons> {
    let known = step.servers().filter_map(|id| state.server(id));
    let known = known.map(|server| (server.server.id.clone(), server.health.reasons));
    known.filter(|(_, reasons)| !reasons.is_empty()).collect()
}

/// What a plan holds; all that it would do, while a person's word or the observer's part stops it.
fn withheld(plan: &Plan) -> impl Iterator<Item = (&Step, &Origin, &Why)> {
    let stopped = match &plan.idle {
        Some(why @ (Why::Paused(_) | Why::Observing)) => Some(why),
        Some(_) | None => None,
    };
    let stopped = plan.changes.iter().zip(std::iter::repeat(stopped));
    let stopped = stopped.filter_map(|(c, why)| Some((&c.step, &c.origin, why?)));
    plan.held.iter().map(|held| (&held.step, &held.origin, &held.why)).chain(stopped)
}

/// Whether two say the same, but for the numbers in their reasons.
fn same(a: (&Step, &Origin, &Why), b: (&Step, &Origin, &Why)) -> bool {
    let code = match (a.2, b.2) {
        (Why::Refused(a), Why::Refused(b)) => discriminant(a) == discriminant(b),
        (a, b) => discriminant(a) == discriminant(b),
    };
    code && a.0 == b.0 && a.1 == b.1
}
