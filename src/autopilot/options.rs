//! How the driver runs on one node, and which numbers are refused.

use std::time::Duration;

use super::config::{Config, ConfigError};

/// How the driver runs; everything here is about one node and is not replicated.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host's heartbeat interval, at least 1 ms. While anything is undecided, rounds are this far
    /// apart.
    pub heartbeat: Duration,
    /// The configuration until one is stored. Default: [`Config::for_heartbeat`].
    pub config: Config,
    /// The longest pause between two rounds of a leader, from one heartbeat to 30 s; it is taken
    /// only while nothing is being decided, stability included. Two rounds that are further apart
    /// than twice the pause and `observe_deadline` leave time that nobody observed. Default 2 s,
    /// as the reference.
    pub update_interval: Duration,
    /// How long the outcome of a step is awaited before it counts as failed; the step itself is
    /// never cancelled. Default 10 s (ours).
    pub step_deadline: Duration,
    /// How long one observation may take. Default 1 s, half the update interval as in the
    /// reference.
    pub observe_deadline: Duration,
    /// Only look on: plan, and change and record nothing. Default false.
    pub observer: bool,
}

impl Options {
    /// The defaults for a host whose leader sends a heartbeat this often.
    pub fn for_heartbeat(heartbeat: Duration) -> Self {
        Self {
            heartbeat,
            config: Config::for_heartbeat(heartbeat),
            update_interval: Duration::from_secs(2),
            step_deadline: Duration::from_secs(10),
            observe_deadline: Duration::from_secs(1),
            observer: false,
        }
    }

    /// For how long what a round has seen is good while the next ones should follow.
    pub(super) fn good_for(&self) -> Duration {
        let round = self.update_interval.saturating_add(self.observe_deadline);
        round.saturating_mul(2)
    }

    /// Checks the configuration and the driver's own numbers.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let (least, longest) = (Duration::from_millis(1), Duration::from_secs(30));
        if self.heartbeat < least {
            let found = crate::duration::rounded(self.heartbeat).to_string();
            let expected = "must be at least 1ms".to_owned();
            return Err(ConfigError { field: "heartbeat", found, expected });
        }
        self.config.validate(self.heartbeat)?;
        let pause = self.heartbeat.min(longest);
        let allowed = [
            ("update_interval", self.update_interval, pause, longest),
            ("step_deadline", self.step_deadline, self.heartbeat, Duration::MAX),
            ("observe_deadline", self.observe_deadline, least, longest),
        ];
        for (field, found, least, most) in allowed {
            if found < least || found > most {
                let text = |value| crate::duration::rounded(value).to_string();
                let expected = format!("must be from {} to {}", text(least), text(most));
                return Err(ConfigError { field, found: text(found), expected });
            }
        }
        Ok(())
    }
}
