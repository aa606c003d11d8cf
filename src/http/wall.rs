//! Wall time for readers: where the driver's monotonic clock began, kept steady between requests.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// How far the wall clock may drift from the monotonic one before it counts as set anew.
const DRIFT: Duration = Duration::from_secs(1);

/// The last second that RFC 3339 can write, 9999-12-31T23:59:59Z.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// Turns moments of the driver's clock into wall time.
///
/// The beginning is kept, so that the same moment reads the same in every answer; it moves only
/// when the wall clock has been set.
#[derive(Debug, Default)]
pub(super) struct Wall(Mutex<Option<Duration>>);

impl Wall {
    /// The wall time at which the driver's clock, which reads `now`, began: since 1970.
    #[expect(clippy::disallowed_methods, reason = "this room speaks wall time")]
    pub(super) fn epoch(&self, now: Duration) -> Duration {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let fresh = wall.saturating_sub(now);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *kept {
            Some(kept) if kept.abs_diff(fresh) <= DRIFT => kept,
            Some(_) | None => *kept.insert(fresh),
        }
    }
}

/// A moment of the driver's clock as RFC 3339 in UTC.
pub(super) fn exact(epoch: Duration, moment: Duration) -> String {
    text(epoch.saturating_add(moment))
}

/// The same, rounded to the nearest second.
pub(super) fn rounded(epoch: Duration, moment: Duration) -> String {
    let at = epoch.saturating_add(moment).saturating_add(Duration::from_millis(500));
    text(Duration::from_secs(at.as_secs()))
}

fn text(since_1970: Duration) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(since_1970.min(LAST));
    humantime::format_rfc3339(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests {
    use super::{DRIFT, Duration, Wall, exact, rounded};

    #[test]
    fn no_moment_is_too_far_to_write() {
        let first = exact(Duration::ZERO, Duration::ZERO);
        assert_eq!(first, "1970-01-01T00:00:00Z");
        for last in [exact(Duration::MAX, Duration::MAX), rounded(Duration::MAX, Duration::ZERO)] {
            assert_eq!(last, "9999-12-31T23:59:59Z");
        }
    }

    #[test]
    fn seconds_are_rounded_to_the_nearest() {
        let text = |millis| rounded(Duration::from_secs(60), Duration::from_millis(millis));
        assert_eq!(text(499), "1970-01-01T00:01:00Z");
        assert_eq!(text(500), "1970-01-01T00:01:01Z");
    }

    #[test]
    fn the_beginning_stays_until_the_clock_is_set() {
        let wall = Wall::default();
        let now = Duration::from_secs(1000);
        let kept = wall.epoch(now);
        assert_eq!(wall.epoch(now + DRIFT / 2), kept);
        // As if the wall clock had been set back by an hour.
        let moved = wall.epoch(now + Duration::from_secs(3600));
        assert!(kept.abs_diff(moved) > Duration::from_secs(3590));
    }
}
