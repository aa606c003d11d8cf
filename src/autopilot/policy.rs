//! The ready-made policies and their settings as data, so that a moment can be saved and replayed with the policy it had.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A ready-made promoter with its settings; nested as the promoters are composed.
///
/// As JSON: `{"zones": {"target": 5}}`, or `{"upgrade": {"inner": {"stable": {}}}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Policy {
    /// Everybody stable votes, up to a target.
    Stable {
        /// How many vote; `None`: everybody.
        #[serde(default)]
        target: Option<usize>,
    },
    /// One voter a zone, or a target spread over them.
    Zones {
        /// How many vote in all; `None`: one a zone.
        #[serde(default)]
        target: Option<usize>,
    },
    /// Upgrade migration.
    Upgrade {
        /// Around which policy.
        inner: Box<Policy>,
    },
    /// A vote that only breaks ties.
    Witness {
        /// The tag that marks a witness.
        tag: String,
        /// Around which policy.
        inner: Box<Policy>,
    },
    /// A preferred leader.
    Preferred {
        /// What makes a better leader, the most important first.
        by: Vec<Liking>,
        /// How long a leader stays, and a better one must have been fit.
        #[serde(with = "crate::duration", default = "hold")]
        hold: Duration,
        /// How long nothing is tried after a transfer has failed; at most a day.
        #[serde(with = "crate::duration", default = "cool_down")]
        cool_down: Duration,
        /// Around which policy.
        inner: Box<Policy>,
    },
}

/// What makes a server a better leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Liking {
    /// It stands in this zone.
    Zone(String),
    /// It has this tag, with this value.
    Tag {
        /// The tag.
        key: String,
        /// What it must be.
        value: String,
    },
    /// The whole number in this tag; 0 where there is none.
    Weight(String),
}

fn hold() -> Duration {
    Duration::from_secs(60)
}

fn cool_down() -> Duration {
    Duration::from_secs(300)
}
