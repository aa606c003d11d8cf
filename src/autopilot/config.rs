//! The thresholds, each with its unit, its default, the source of the default, and its rule of validity.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::version::parse_version;

/// All the numbers that autopilot decides by. The names that Consul, Nomad and Vault share are kept.
///
/// [`Config::for_heartbeat`] gives the defaults; [`Config::validate`] names what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether dead servers are removed once their grace has passed. Default true, as in Consul.
    pub cleanup_dead_servers: bool,
    /// A server that has acknowledged nothing for longer is unhealthy. At least three heartbeats.
    /// Default: the larger of 200 ms (Consul) and four heartbeats (contact ages reach one
    /// heartbeat and a fifth on an idle, healthy server).
    #[serde(with = "crate::duration")]
    pub last_contact_threshold: Duration,
    /// An unhealthy server is in contact again at this age or below. At most
    /// `last_contact_threshold`. Default three quarters of it (ours: two thresholds, so that one
    /// late packet does not swing the verdict).
    #[serde(with = "crate::duration")]
    pub last_contact_recovery: Duration,
    /// A server further behind than this many entries is trailing. Any number: with 0 whoever
    /// lacks one entry is, with the largest nobody is. Default 250, as in Consul.
    pub max_trailing_logs: u64,
    /// A trailing server has caught up at this many entries or fewer. At most
    /// `max_trailing_logs`. Default half of it (ours).
    pub trailing_logs_recovery: u64,
    /// A server further behind than `max_trailing_logs` is not trailing yet if, at its measured
    /// rate, it catches up within this time. 0 judges by entries alone, as the reference. At most
    /// a day.
    /// Default 1 s (ours: on a busy cluster 250 entries are a few milliseconds).
    #[serde(with = "crate::duration")]
    pub max_catch_up_time: Duration,
    /// A server that lacks entries and has gained none for this long is stalled, however fresh
    /// its contact. At least `last_contact_threshold`. Default: the larger of 2 s and ten
    /// thresholds (ours).
    #[serde(with = "crate::duration")]
    pub stall_threshold: Duration,
    /// A status answer older than this says nothing any more. At least 2 s, two probes (or no
    /// answer would ever be young enough), and `last_contact_threshold`. Default 10 s (ours: five
    /// rounds).
    #[serde(with = "crate::duration")]
    pub status_max_age: Duration,
    /// No step leaves fewer voters. 0: not set; then, without a person's order, none leaves fewer
    /// than three, whoever died and whatever a promoter wishes, except that a healthy two may
    /// become one. At most 99. Default 0, as in Consul.
    pub min_quorum: u32,
    /// How long a server must have been healthy before it may vote. 0: not at all, as the
    /// reference takes it; at most a day. Default 10 s, as in Consul.
    #[serde(with = "crate::duration")]
    pub server_stabilization_time: Duration,
    /// Grace of a failed server before it is removed. At least 1 min while
    /// `cleanup_dead_servers` is on. Default 24 h; both numbers as in Vault.
    #[serde(with = "crate::duration")]
    pub dead_server_last_contact_threshold: Duration,
    /// Grace of a server that said good-bye. Default 10 s (ours: long enough for a restart that
    /// announces itself wrongly).
    #[serde(with = "crate::duration")]
    pub left_server_grace: Duration,
    /// Grace of a server that was added and never caught up, counted from its last sign of
    /// progress, snapshots included. Default 10 min (ours).
    #[serde(with = "crate::duration")]
    pub join_grace: Duration,
    /// A voter out of contact for this long may give its vote to a stable server that is ready
    /// for it. At least `last_contact_threshold`. Default 10 s (ours: as long as stability).
    #[serde(with = "crate::duration")]
    pub voter_replacement_grace: Duration,
    /// The number of live voters beyond the quorum that no step may go below. At most 99.
    /// Default 0.
    pub min_margin: u32,
    /// The key in [`Server::meta`](super::Server::meta) that names the zone; empty: the server's
    /// own zone. Read by promoters. Default empty, as in Consul.
    pub redundancy_zone_tag: String,
    /// Turns upgrade migration off. Read by promoters. Default false, as in Consul.
    pub disable_upgrade_migration: bool,
    /// The key in `meta` that names the version to migrate by; empty: the server's own version.
    /// Read by promoters. Default empty, as in Consul.
    pub upgrade_version_tag: String,
    /// The version to migrate to, whatever else is there: an older one is a downgrade, and the one
    /// that was left calls a migration off. `X`, `X.Y`, `X.Y.Z` or a full semantic version, and nothing
    /// else, so a promoter of your own with another format has its target elsewhere; empty: the
    /// highest. Read by promoters. Default empty.
    pub upgrade_target_version: String,
}

/// A configuration that must not be used: which relation is broken, and by what. Nothing was
/// changed; correct the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, and {expected}; nothing was changed: correct it, and try again")]
pub struct ConfigError {
    /// The field, as it is spelled in [`Config`].
    pub field: &'static str,
    /// Its value.
    pub found: String,
    /// What it must be, as the end of a sentence: `must be at least 150ms (three heartbeats)`.
    pub expected: String,
}

/// The defaults for a heartbeat of 50 ms; what is left out where a configuration is read.
impl Default for Config {
    fn default() -> Self {
        Self::for_heartbeat(Duration::from_millis(50))
    }
}

impl Config {
    /// The defaults for a host whose leader sends a heartbeat this often.
    pub fn for_heartbeat(heartbeat: Duration) -> Self {
        let contact = Duration::from_millis(200).max(heartbeat.saturating_mul(4));
        let config = Self {
            cleanup_dead_servers: true,
            last_contact_threshold: Duration::ZERO,
            last_contact_recovery: Duration::ZERO,
            max_trailing_logs: 250,
            trailing_logs_recovery: 125,
            max_catch_up_time: Duration::from_secs(1),
            stall_threshold: Duration::from_secs(2).max(contact.saturating_mul(10)),
            status_max_age: Duration::from_secs(10),
            min_quorum: 0,
            server_stabilization_time: Duration::from_secs(10),
            dead_server_last_contact_threshold: Duration::from_secs(24 * 60 * 60),
            left_server_grace: Duration::from_secs(10),
            join_grace: Duration::from_secs(10 * 60),
            voter_replacement_grace: Duration::from_secs(10),
            min_margin: 0,
            redundancy_zone_tag: String::new(),
            disable_upgrade_migration: false,
            upgrade_version_tag: String::new(),
            upgrade_target_version: String::new(),
        };
        config.with_last_contact_threshold(contact)
    }

    /// Sets `last_contact_threshold` and moves what must not be below it: the recovery to three
    /// quarters, the stall threshold, `status_max_age` and every grace to at least as much.
    #[must_use]
    pub fn with_last_contact_threshold(mut self, threshold: Duration) -> Self {
        self.last_contact_threshold = threshold;
        self.last_contact_recovery = threshold / 4 * 3;
        for other in [
            &mut self.stall_threshold,
            &mut self.status_max_age,
            &mut self.dead_server_last_contact_threshold,
            &mut self.left_server_grace,
            &mut self.join_grace,
            &mut self.voter_replacement_grace,
        ] {
            *other = threshold.max(*other);
        }
        self
    }

    /// Sets `max_trailing_logs`, and its recovery to half.
    #[must_use]
    pub fn with_max_trailing_logs(mut self, entries: u64) -> Self {
        self.max_trailing_logs = entries;
        self.trailing_logs_recovery = entries / 2;
        self
    }

    /// The fewest voters that a step may leave which takes votes without a person's order and
    /// without replacement: `min_quorum`, or three where that is not set.
    pub fn removal_floor(&self) -> usize {
        match self.min_quorum {
            0 => 3,
            n => n as usize,
        }
    }

    /// Checks every rule of validity against the host's heartbeat.
    ///
    /// # Errors
    /// The first broken rule. Nothing is changed.
    pub fn validate(&self, heartbeat: Duration) -> Result<(), ConfigError> {
        let contact = self.last_contact_threshold;
        let least = heartbeat.saturating_mul(3);
        at_least("last_contact_threshold", contact, least, "three heartbeats")?;
        at_most(
            "last_contact_recovery",
            self.last_contact_recovery,
            contact,
            "last_contact_threshold",
        )?;
        at_least("last_contact_recovery", self.last_contact_recovery, heartbeat, "a heartbeat")?;
        at_least("stall_threshold", self.stall_threshold, contact, "last_contact_threshold")?;
        at_least(
            "voter_replacement_grace",
            self.voter_replacement_grace,
            contact,
            "last_contact_threshold",
        )?;
        at_least("join_grace", self.join_grace, contact, "last_contact_threshold")?;
        at_least("left_server_grace", self.left_server_grace, contact, "last_contact_threshold")?;
        at_least("status_max_age", self.status_max_age, contact, "last_contact_threshold")?;
        at_least("status_max_age", self.status_max_age, Duration::from_secs(2), "two probes")?;
        if self.trailing_logs_recovery > self.max_trailing_logs {
            return Err(ConfigError {
                field: "trailing_logs_recovery",
                found: self.trailing_logs_recovery.to_string(),
                expected: format!("must be at most max_trailing_logs ({})", self.max_trailing_logs),
            });
        }
        few("min_quorum", self.min_quorum)?;
        few("min_margin", self.min_margin)?;
        let target = &self.upgrade_target_version;
        if !target.is_empty() && parse_version(target).is_none() {
            return Err(ConfigError {
                field: "upgrade_target_version",
                found: format!("`{target}`"),
                expected: "must be a version like `1`, `1.2` or `1.2.3-rc.1`, or empty".to_owned(),
            });
        }
        let day = Duration::from_secs(24 * 60 * 60);
        at_most("server_stabilization_time", self.server_stabilization_time, day, "a day")?;
        at_most("max_catch_up_time", self.max_catch_up_time, day, "a day")?;
        let grace = self.dead_server_last_contact_threshold;
        if self.cleanup_dead_servers {
            let minute = Duration::from_secs(60);
            at_least(
                "dead_server_last_contact_threshold",
                grace,
                minute,
                "the least while cleanup_dead_servers is on",
            )?;
        }
        at_least("dead_server_last_contact_threshold", grace, contact, "last_contact_threshold")
    }
}

fn at_least(
    field: &'static str,
    found: Duration,
    least: Duration,
    what: &str,
) -> Result<(), ConfigError> {
    if found >= least {
        return Ok(());
    }
    let found = humantime::format_duration(found).to_string();
    let least = humantime::format_duration(least);
    Err(ConfigError { field, found, expected: format!("must be at least {least} ({what})") })
}

/// More voters than any cluster has: a slip of the pen that would hold every step for good.
fn few(field: &'static str, found: u32) -> Result<(), ConfigError> {
    if found <= 99 {
        return Ok(());
    }
    let expected = "must be at most 99 (no cluster has more voters)".to_owned();
    Err(ConfigError { field, found: found.to_string(), expected })
}

fn at_most(
    field: &'static str,
    found: Duration,
    most: Duration,
    what: &str,
) -> Result<(), ConfigError> {
    if found <= most {
        return Ok(());
    }
    let found = humantime::format_duration(found).to_string();
    let most = humantime::format_duration(most);
    let expected = format!("must be at most {most} ({what})");
    Err(ConfigError { field, found, expected })
}
