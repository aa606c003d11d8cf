//! Keeps a lease alive, and says before it can have ended that it may have.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{
    contract::{Lease, Store},
    error::{Refusal, StoreError},
    kv::LeaseId,
    validity::{LeaseStatus, Validity},
};
use crate::runtime::Runtime;

/// Keeps a lease alive for as long as a clone of it is held; then the lease is left to end by
/// itself. See [`LeaseKeeper::revoke`] for ending it at once.
///
/// All is reckoned on this process' own monotonic clock, from the moment *before* a request was
/// sent, so that the answer is never too late: the store's clock started after that. A process
/// that was stopped (`SIGSTOP`) finds the lease lost by the clock when it goes on; ask
/// [`LeaseKeeper::status`] right before acting. A machine that was suspended may not: on most
/// systems the monotonic clock stands still meanwhile. There the store itself has to be asked, by
/// a compare with the lease's keys in what is done in their name.
#[derive(Clone, Debug)]
pub struct LeaseKeeper<S, R: Runtime> {
    inner: Arc<Inner<S, R>>,
    _alive: Arc<Alive>,
}

#[derive(Debug)]
struct Alive(Arc<Notify>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[derive(Debug)]
struct Inner<S, R> {
    store: S,
    runtime: R,
    id: LeaseId,
    ttl: Duration,
    validity: Arc<Validity>,
    changed: Notify,
    wake: Arc<Notify>,
}

impl<S: Store, R: Runtime> LeaseKeeper<S, R> {
    /// Grants a lease and keeps it alive, three times within its time to live, in a task of its
    /// own.
    ///
    /// # Errors
    /// Those of [`Store::grant`].
    pub async fn grant(store: S, runtime: R, ttl: Duration) -> Result<Self, StoreError> {
        Self::begin(store, runtime, ttl, None).await
    }

    /// The same with an id that the caller has drawn by chance. A store that is put back to an
    /// earlier state may give the ids that it chooses itself a second time; then two would keep,
    /// and end, one lease.
    ///
    /// # Errors
    /// Those of [`Store::grant`].
    pub async fn grant_as(
        store: S,
        runtime: R,
        ttl: Duration,
        id: LeaseId,
    ) -> Result<Self, StoreError> {
        Self::begin(store, runtime, ttl, Some(id)).await
    }

    async fn begin(
        store: S,
        runtime: R,
        ttl: Duration,
        id: Option<LeaseId>,
    ) -> Result<Self, StoreError> {
        let before = runtime.now();
        let Lease { id, ttl } = store.grant(ttl, id).await?;
        let wake = Arc::new(Notify::new());
        // For a third of its time before it may end, a lease is suspect.
        let validity = Arc::new(Validity::new(before.saturating_add(ttl), ttl / 3));
        let (changed, alive) = (Notify::new(), Arc::new(Alive(Arc::clone(&wake))));
        let inner = Arc::new(Inner { store, runtime, id, ttl, validity, changed, wake });
        let readers = Arc::downgrade(&alive);
        let keep = keep(Arc::clone(&inner), move || readers.strong_count() > 0);
        inner.runtime.spawn(keep);
        Ok(Self { inner, _alive: alive })
    }

    /// The lease.
    pub fn id(&self) -> LeaseId {
        self.inner.id
    }

    /// How long it lives without being kept alive.
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// What may be relied on at this moment.
    pub fn status(&self) -> LeaseStatus {
        self.inner.status()
    }

    /// Until when the lease surely lives, in the runtime's time; for whoever starts something that
    /// takes long.
    pub fn until(&self) -> Duration {
        self.inner.validity.until()
    }

    /// The same for whoever asks before every act. It does not keep the lease alive.
    pub fn validity(&self) -> &Arc<Validity> {
        &self.inner.validity
    }

    /// Waits until the status is another than `known`, and returns it: from
    /// [`LeaseStatus::Lost`] on, for ever.
    pub async fn changed(&self, known: LeaseStatus) -> LeaseStatus {
        loop {
            let mut changed = std::pin::pin!(self.inner.changed.notified());
            changed.as_mut().enable();
            let now = self.inner.runtime.now();
            let status = self.inner.validity.status_at(now);
            if status != known {
                return status;
            }
            if status == LeaseStatus::Lost {
                changed.await;
                continue;
            }
            let turn = self.inner.validity.next_turn(now);
            tokio::select! {
                biased;
                () = changed => {}
                () = self.inner.runtime.sleep(turn) => {}
            }
        }
    }

    /// Ends the lease and its keys now. It is [`LeaseStatus::Lost`] from the call on, whatever
    /// comes of it.
    ///
    /// # Errors
    /// Those of [`Store::revoke`], but for a lease that had ended already; then it ends by itself
    /// within its time to live.
    pub async fn revoke(&self) -> Result<(), StoreError> {
        self.inner.lose();
        match self.inner.store.revoke(self.inner.id).await {
            Err(StoreError::Refused(Refusal::LeaseNotFound(_))) => Ok(()),
            done => done,
        }
    }
}

impl<S: Store, R: Runtime> Inner<S, R> {
    fn status(&self) -> LeaseStatus {
        self.validity.status_at(self.runtime.now())
    }

    fn lose(&self) {
        self.validity.end();
        self.changed.notify_waiters();
        self.wake.notify_one();
    }

    /// Takes note that the store has answered to a request that was sent at a time.
    fn kept(&self, sent: Duration, ttl: Duration) {
        self.validity.renew(self.runtime.now(), sent.saturating_add(ttl.min(self.ttl)));
        self.changed.notify_waiters();
    }
}

async fn keep<S: Store, R: Runtime>(inner: Arc<Inner<S, R>>, held: impl Fn() -> bool) {
    let mut pause = inner.ttl / 3;
    loop {
        tokio::select! {
            biased;
            () = inner.wake.notified() => {}
            () = inner.runtime.sleep(pause) => {}
        }
        if !held() || inner.status() == LeaseStatus::Lost {
            inner.changed.notify_waiters();
            return;
        }
        let sent = inner.runtime.now();
        let answer = tokio::select! {
            biased;
            answer = inner.store.keep_alive(inner.id) => answer,
            // Another may come through where this one hangs.
            () = inner.runtime.sleep(inner.ttl / 3) => {
                Err(StoreError::Unknown("no answer came in time".to_owned()))
            }
        };
        pause = match answer {
            Ok(ttl) => {
                inner.kept(sent, ttl);
                inner.ttl / 3
            }
            Err(StoreError::Refused(refusal)) => {
                tracing::warn!("lease {} is lost: {refusal}", inner.id);
                return inner.lose();
            }
            Err(error) => {
                tracing::warn!("lease {} was not kept alive: {error}", inner.id);
                inner.ttl / 20
            }
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::{
        runtime::TokioRuntime,
        store::{Embedded, machine::Config},
    };

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_lost_lease_to_come_back_does_not_turn_in_circles() {
        let store = Embedded::new(Config::default(), TokioRuntime);
        let ttl = Duration::from_secs(60);
        let keeper = LeaseKeeper::grant(store, TokioRuntime, ttl).await.unwrap();
        keeper.revoke().await.unwrap();
        // In virtual time an hour only passes when nobody has anything to do.
        let hour = TokioRuntime.sleep(Duration::from_secs(3_600));
        tokio::select! {
            biased;
            _ = keeper.changed(LeaseStatus::Lost) => panic!("it came back"),
            () = hour => {}
        }
        assert_eq!(keeper.validity().until(), Duration::ZERO);
    }
}
