//! Time that nobody observed: how much of it lies before a round.

use std::time::Duration;

use super::{cluster::Observation, config::Config, state::State};

/// How many paces two rounds may be apart: one round may be missed (an observation that hung). After
/// a longer pause (a stopped process, a clock that leapt) nothing is known of the time between:
/// histories begin again.
const PACES: u32 = 2;

/// Time before a round that nobody observed.
#[derive(Clone, Copy, Default)]
pub(super) struct Lapse {
    /// How much of it; 0: none that matters.
    pub(super) time: Duration,
    /// It is too long for any history to have gone on.
    pub(super) hole: bool,
}

impl Lapse {
    /// Between two rounds that judge, time is observed unless they are too far apart. Where one
    /// between them judged nobody, it is not, a moment excepted.
    pub(super) fn since(config: &Config, last: &State, seen: &Observation) -> Self {
        let time = seen.at.saturating_sub(last.observed);
        let longest = match seen.pace.saturating_mul(PACES) {
            // Without a promise: a hole as long as what it should prove proves nothing.
            Duration::ZERO => config.server_stabilization_time,
            longest => longest,
        };
        let hole = time > longest;
        let blind = last.observed != last.at && time > config.last_contact_threshold;
        Self { time: if hole || blind { time } else { Duration::ZERO }, hole }
    }

    /// A beginning without this time, at most now.
    pub(super) fn leave_out(self, since: Duration, at: Duration) -> Duration {
        since.saturating_add(self.time).min(at)
    }
}
