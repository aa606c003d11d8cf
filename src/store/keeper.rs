//! Keeps a lease alive, and says before it can have ended that it may have.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    contract::{Lease, Store},
    error::{Refusal, StoreError},
    kv::LeaseId,
};
use crate::runtime::Runtime;

/// What a holder of a lease may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    state: Mutex<State>,
    changed: Notify,
    wake: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    /// Until when the lease surely lives.
    until: Duration,
    lost: bool,
}

impl<S: Store, R: Runtime> LeaseKeeper<S, R> {
    /// Grants a lease and keeps it alive, three times within its time to live, in a task of its
    /// own.
    ///
    /// # Errors
    /// Those of [`Store::grant`].
    pub async fn grant(store: S, runtime: R, ttl: Duration) -> Result<Self, StoreError> {
        let before = runtime.now();
        let Lease { id, ttl } = store.grant(ttl, None).await?;
        let wake = Arc::new(Notify::new());
        let state = Mutex::new(State { until: before.saturating_add(ttl), lost: false });
        let (changed, alive) = (Notify::new(), Arc::new(Alive(Arc::clone(&wake))));
        let inner = Arc::new(Inner { store, runtime, id, ttl, state, changed, wake });
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

    /// The same for who has just read the runtime's clock, and need not read it again.
    pub fn status_at(&self, now: Duration) -> LeaseStatus {
        self.inner.status_at(now)
    }

    /// Until when the lease surely lives, in the runtime's time; for whoever starts something that
    /// takes long.
    pub fn until(&self) -> Duration {
        self.inner.lock().until
    }

    /// Waits until the status is another than `known`, and returns it.
    pub async fn changed(&self, known: LeaseStatus) -> LeaseStatus {
        loop {
            let mut changed = std::pin::pin!(self.inner.changed.notified());
            changed.as_mut().enable();
            let now = self.inner.runtime.now();
            let status = self.status_at(now);
            if status != known {
                return status;
            }
            match self.inner.next_turn(status, now) {
                Some(turn) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = self.inner.runtime.sleep(turn) => {}
                },
                None => changed.await,
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A third of its time before it may end, a lease is suspect.
    fn margin(&self) -> Duration {
        self.ttl / 3
    }

    fn status(&self) -> LeaseStatus {
        self.status_at(self.runtime.now())
    }

    fn status_at(&self, now: Duration) -> LeaseStatus {
        let mut state = self.lock();
        // Once it may have ended it stays so, whatever answer is still on its way.
        state.lost |= now >= state.until;
        if state.lost {
            LeaseStatus::Lost
        } else if now.saturating_add(self.margin()) >= state.until {
            LeaseStatus::Suspect
        } else {
            LeaseStatus::Held
        }
    }

    /// How long until a status changes by time alone; `None`: it never will.
    fn next_turn(&self, status: LeaseStatus, now: Duration) -> Option<Duration> {
        let left = self.lock().until.saturating_sub(now);
        match status {
            LeaseStatus::Held => Some(left.saturating_sub(self.margin())),
            LeaseStatus::Suspect => Some(left),
            LeaseStatus::Lost => None,
        }
    }

    fn lose(&self) {
        self.lock().lost = true;
        self.changed.notify_waiters();
        self.wake.notify_one();
    }

    /// Takes note that the store has answered to a request that was sent at a time.
    fn kept(&self, sent: Duration, ttl: Duration) {
        if self.status() != LeaseStatus::Lost {
            self.lock().until = sent.saturating_add(ttl.min(self.ttl));
            self.changed.notify_waiters();
        }
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
