//! What kind of cluster a seed gets: how it begins, how it is configured, and how long it suffers.

use std::time::Duration;

use raft_autopilot::autopilot::{Config, Options};
use raft_autopilot::promoters::Stable;

use crate::dice::Dice;

/// openraft's heartbeat interval in the simulation.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);
/// The bounds of openraft's election timeout in the simulation.
pub(crate) const ELECTION: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_millis(400));

/// The choices that are made once for a whole run.
#[derive(Clone, Debug)]
pub(crate) struct Character {
    /// Who forms the cluster; the others of the first five join, and are given votes.
    pub(crate) founders: Vec<u64>,
    /// How many should vote; all where there is none.
    pub(crate) target: Option<usize>,
    /// Whether the servers have a discovery beside Raft.
    pub(crate) discovery: bool,
    /// What every process starts with.
    pub(crate) config: Config,
    /// What is stored at the beginning.
    pub(crate) stored: Config,
    /// How long the faults, the operator and the clients go on.
    pub(crate) trouble: Duration,
    /// Whether the servers hold items too, by their health.
    pub(crate) works: bool,
}

impl Character {
    /// The character of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "character");
        let config = Config {
            server_stabilization_time: dice.millis(1500, 5000),
            voter_replacement_grace: dice.millis(800, 3000),
            join_grace: dice.millis(4000, 9000),
            left_server_grace: dice.millis(500, 2000),
            dead_server_last_contact_threshold: Duration::from_secs(60),
            cleanup_dead_servers: !dice.percent(10),
            min_quorum: if dice.percent(50) { 3 } else { 0 },
            min_margin: u32::from(dice.percent(10)),
            ..Config::for_heartbeat(HEARTBEAT)
        };
        // A dead server is removed after a minute at the earliest. One seed in 25 takes so long;
        // the others store a shorter grace past the handle, which would refuse it.
        let long = seed % 25 == 24;
        let mut stored = config.clone();
        if !long {
            stored.dead_server_last_contact_threshold = dice.millis(4000, 8000);
        }
        Self {
            founders: if dice.percent(33) { vec![1] } else { vec![1, 2, 3, 4, 5] },
            target: [None, Some(3), Some(5)][usize::try_from(dice.below(3)).expect("an index")],
            discovery: dice.percent(50),
            config,
            stored,
            trouble: Duration::from_secs(if long { 110 } else { 50 }),
            works: false,
        }
    }

    /// The same with items, for a shorter time.
    pub(crate) fn working(seed: u64) -> Self {
        Self { works: true, trouble: Duration::from_secs(30), ..Self::of(seed) }
    }

    /// No trouble, one target, and the usual thresholds: a cluster to measure.
    pub(crate) fn calm(founders: &[u64], config: Config) -> Self {
        Self {
            founders: founders.to_vec(),
            target: None,
            discovery: false,
            stored: config.clone(),
            config,
            trouble: Duration::ZERO,
            works: false,
        }
    }

    /// The policy of every process.
    pub(crate) fn promoter(&self) -> Stable {
        self.target.map_or_else(Stable::new, Stable::with_target)
    }

    /// How every driver runs.
    pub(crate) fn options(&self) -> Options {
        Options { config: self.config.clone(), ..Options::for_heartbeat(HEARTBEAT) }
    }
}
