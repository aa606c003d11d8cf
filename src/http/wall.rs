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
