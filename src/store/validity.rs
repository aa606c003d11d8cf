//! Until when a promise surely holds, by this process' own clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a holder of a lease may rely on. The later in this list, the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseStatus {
    /// The lease lives, and so do its keys, until the status changes.
    Held,
    /// The store has not answered for so long that the lease may end soon. It has not ended yet.
    /// Whoever acts in the name of its keys should stop to; it may be [`LeaseStatus::Held`] again.
    Suspect,
    /// The lease has ended, or may have: the time that the store has promised is over. Grant
    /// another. It never comes back.
    Lost,
}

/// A promise that holds for a time, and may be renewed before that is over, not after: whoever was
/// told once that it is lost is never told otherwise.
///
/// Asking costs one reading of a number, so it may be asked before every act.
#[derive(Debug)]
pub struct Validity {
    /// In nanoseconds of the runtime's time; 0: it is lost.
    until: AtomicU64,
    /// For so many nanoseconds before its end it is suspect.
    margin: u64,
}

impl Validity {
    /// A promise that holds until then, in the runtime's time, and is suspect for the last
    /// `margin` of it.
    pub fn new(until: Duration, margin: Duration) -> Self {
        Self { until: AtomicU64::new(nanos(until)), margin: nanos(margin) }
    }

    /// What may be relied on at a time that was just read from the runtime's clock.
    pub fn status_at(&self, now: Duration) -> LeaseStatus {
        let now = nanos(now);
        let until = self.until_at(now);
        if until == 0 {
            LeaseStatus::Lost
        } else if now.saturating_add(self.margin) >= until {
            LeaseStatus::Suspect
        } else {
            LeaseStatus::Held
        }
    }

    /// Until when it surely holds; zero if it is lost.
    pub fn until(&self) -> Duration {
        Duration::from_nanos(self.until.load(Ordering::Acquire))
    }

    /// How long until the status changes by time alone; for ever, if it is lost.
    pub fn next_turn(&self, now: Duration) -> Duration {
        if self.until_at(nanos(now)) == 0 {
            return Duration::MAX;
        }
        let left = self.until().saturating_sub(now);
        let held = left.saturating_sub(Duration::from_nanos(self.margin));
        if held.is_zero() { left } else { held }
    }

    /// Renews it, unless it is lost by now.
    pub fn renew(&self, now: Duration, until: Duration) {
        let mut before = self.until_at(nanos(now));
        while before != 0 {
            let renewed = self.until.compare_exchange(
                before,
                nanos(until).max(1),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match renewed {
                Ok(_) => return,
                Err(other) => before = other,
            }
        }
    }

    /// It is lost, from now on and for ever.
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Takes note if its time is over. Once it may have ended it stays so, whatever answer is
    /// still on its way.
    fn until_at(&self, now: u64) -> u64 {
        let mut until = self.until.load(Ordering::Acquire);
        while until != 0 && until <= now {
            let ended = self.until.compare_exchange(until, 0, Ordering::AcqRel, Ordering::Acquire);
            until = ended.map_or_else(|other| other, |_| 0);
        }
        until
    }
}

/// As far as numbers go: five centuries.
fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn it_is_suspect_before_it_is_lost_and_never_comes_back() {
        let promise = Validity::new(second(60), second(20));
        assert_eq!(promise.status_at(second(39)), LeaseStatus::Held);
        assert_eq!(promise.status_at(second(40)), LeaseStatus::Suspect);
        promise.renew(second(50), second(90));
        assert_eq!(promise.status_at(second(60)), LeaseStatus::Held);
        assert_eq!(promise.next_turn(second(60)), second(10));
        assert_eq!(promise.next_turn(second(80)), second(10));
        assert_eq!(promise.next_turn(second(90)), Duration::MAX);
        assert_eq!(promise.status_at(second(90)), LeaseStatus::Lost);
        // An answer that was on its way for too long.
        promise.renew(second(89), second(200));
        assert_eq!(promise.status_at(second(89)), LeaseStatus::Lost);
    }

    #[test]
    fn what_nobody_has_asked_about_is_not_renewed_after_its_time() {
        let promise = Validity::new(second(60), second(20));
        promise.renew(second(60), second(120));
        assert_eq!(promise.status_at(second(61)), LeaseStatus::Lost);
    }

    #[test]
    fn it_ends_at_once_when_it_is_told_to() {
        let promise = Validity::new(second(60), second(20));
        promise.end();
        assert_eq!(promise.status_at(second(1)), LeaseStatus::Lost);
        assert_eq!(promise.until(), Duration::ZERO);
    }

    #[test]
    fn one_for_ever_ends_never() {
        let promise = Validity::new(Duration::MAX, second(20));
        assert_eq!(promise.status_at(second(1 << 32)), LeaseStatus::Held);
    }
}
