//! What a test may turn: what the application offers, and what goes wrong with it.

use std::{collections::BTreeMap, time::Duration};

use raft_autopilot::autopilot::{Config, NodeStatus, ServerId};

/// Heartbeat and the two ends of the election timeout, in milliseconds.
pub(crate) const TIMES: (u64, u64, u64) = (50, 200, 400);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What the application offers, and which of its callbacks never return.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Knobs {
    pub(crate) records: bool,
    pub(crate) probes: bool,
    pub(crate) discovery: Option<Vec<(ServerId, NodeStatus)>>,
    pub(crate) hangs: bool,
    /// Probes and discovery panic.
    pub(crate) panics: bool,
    pub(crate) observer: bool,
    pub(crate) pre_vote: bool,
    pub(crate) config: Config,
    /// Servers answer probes with somebody else's id.
    pub(crate) impostors: bool,
    /// How long an answer to a probe is under way.
    pub(crate) probe_delay: Duration,
    /// What servers run; those that are not named run 1.0.
    pub(crate) versions: BTreeMap<String, String>,
}

impl Default for Knobs {
    fn default() -> Self {
        let config =
            Config { server_stabilization_time: secs(1), ..Config::for_heartbeat(millis(TIMES.0)) };
        Self {
            records: true,
            probes: true,
            discovery: None,
            hangs: false,
            panics: false,
            observer: false,
            pre_vote: true,
            config,
            impostors: false,
            probe_delay: Duration::ZERO,
            versions: BTreeMap::new(),
        }
    }
}
