//! What is wanted and not done now, and why: `Held`, `Why`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    cluster::{Origin, Step},
    records::IntentKind,
    refusal::Refusal,
};

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Why {
    /// This node does not lead, or a quorum has not answered it recently.
    NotLeading,
    /// An operator has paused autopilot.
    Paused(String),
    /// Autopilot only looks on.
    Observing,
    /// The outcome of a step is awaited.
    InFlight(Step),
    /// A change of the membership that somebody made is not committed yet.
    Uncommitted,
    /// The step has failed and waits.
    BackingOff {
        /// How often it has failed in a row.
        failures: u32,
        /// When it is tried again, on the clock of the state.
        #[serde(with = "crate::duration")]
        until: Duration,
        /// What the host said.
        error: String,
    },
    /// It would break a rule.
    Refused(Refusal),
    /// `cleanup_dead_servers` is off.
    CleanupOff,
    /// The promoter keeps the server.
    PromoterKeeps,
    /// An operator has announced this.
    Intended(IntentKind),
    /// Nobody is fit to lead.
    NoTarget,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeading => {
                f.write_str("this node does not lead with a fresh lease; ask the leader")
            }
            Self::Paused(reason) => write!(f, "paused: {reason}; resume to go on"),
            Self::Observing => {
                f.write_str("autopilot only observes here; start it without `observer`")
            }
            Self::InFlight(step) => write!(f, "waiting for the outcome of: {step}"),
            Self::Uncommitted => {
                f.write_str("a change of the membership is not committed yet; wait for its end")
            }
            Self::BackingOff { failures: 0, error, .. } => write!(f, "waits a moment: {error}"),
            Self::BackingOff { failures, error, .. } => {
                write!(f, "failed {failures} times and waits: {error}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::CleanupOff => {
                f.write_str("cleanup_dead_servers is off; switch it on, or remove it yourself")
            }
            Self::PromoterKeeps => f.write_str("the promoter keeps it; remove it yourself"),
            Self::Intended(kind) => {
                write!(f, "an operator has announced: {kind}; wait, or take that back")
            }
            Self::NoTarget => {
                f.write_str("no other voter is fit to lead; wait until one is, or uncordon one")
            }
        }
    }
}

/// Something that is wanted and not done now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What would be done.
    pub step: Step,
    /// Who wants it.
    pub origin: Origin,
    /// Why it is not.
    pub why: Why,
}
