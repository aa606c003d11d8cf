//! When the ids will have run out, if it goes on as it did.

use std::{collections::VecDeque, time::Duration};

/// How far back it looks.
const WINDOW: Duration = Duration::from_secs(3_600);
/// How far apart the readings are that it keeps.
const STEP: Duration = Duration::from_secs(60);

/// How many ids were used, over the last hour.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    readings: VecDeque<(Duration, u64)>,
}

impl Forecast {
    /// Takes note of a reading.
    pub fn note(&mut self, now: Duration, used: u64) {
        let due = self.readings.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= STEP);
        if due {
            self.readings.push_back((now, used));
        }
        while self.readings.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.readings.pop_front();
        }
    }

    /// How long until all are used, if the use grows as it did since the oldest reading. `None`: it
    /// does not grow, or nothing is known of it.
    pub fn full_in(&self, now: Duration, used: u64, total: u64) -> Option<Duration> {
        let (since, before) = *self.readings.front()?;
        let grown = used.checked_sub(before).filter(|grown| *grown > 0)?;
        let passed = now.saturating_sub(since).as_millis();
        let left = u128::from(total.saturating_sub(used));
        let millis = (left * passed).checked_div(u128::from(grown)).filter(|_| passed > 0)?;
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}
