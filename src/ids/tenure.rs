//! A session: the lease that references stand with, and how long both it and the store are known to
//! be what they were.

use std::{sync::Arc, time::Duration};

use crate::store::{LeaseId, LeaseStatus, Validity};

/// A session. It ends with its lease; and it ends when for the length of a lease nothing has
/// proven that the store is the one that it was, with all that the session has written.
#[derive(Debug)]
pub(super) struct Tenure {
    /// Drawn anew for each; references are named after it.
    pub(super) lease: LeaseId,
    kept: Arc<Validity>,
    proven: Validity,
    ttl: Duration,
}

impl Tenure {
    /// The session of a lease that was asked for at a time.
    pub(super) fn new(
        lease: LeaseId,
        kept: Arc<Validity>,
        asked_at: Duration,
        ttl: Duration,
    ) -> Self {
        let proven = Validity::new(asked_at.saturating_add(ttl), ttl / 3);
        Self { lease, kept, proven, ttl }
    }

    /// What it is worth at a time that was just read from the clock.
    pub(super) fn status_at(&self, now: Duration) -> LeaseStatus {
        self.kept.status_at(now).max(self.proven.status_at(now))
    }

    /// How long until that changes by time alone.
    pub(super) fn next_turn(&self, now: Duration) -> Duration {
        self.kept.next_turn(now).min(self.proven.next_turn(now))
    }

    /// The store has proven to be what it was, to a question that was asked at a time.
    pub(super) fn prove(&self, now: Duration, asked_at: Duration) {
        self.proven.renew(now, asked_at.saturating_add(self.ttl));
    }

    /// The store has said that the lease is gone.
    pub(super) fn end(&self) {
        self.proven.end();
    }
}
