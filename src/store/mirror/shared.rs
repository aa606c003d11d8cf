//! What a mirror's readers share with whatever follows the store: how it works, what stands, and who waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::view::View;
use crate::store::{
    error::{Refusal, StoreError},
    kv::Bytes,
};

/// How a mirror works.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many keys it reads at once. Default 1,000.
    pub page_len: usize,
    /// How often it compares all it holds with what stood in the store at the same revision.
    /// Default 10 min; `None`: never.
    pub check_interval: Option<Duration>,
    /// The longest pause before what has failed is tried again. Default 5 s; the first is 50 ms.
    pub retry_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            page_len: 1_000,
            check_interval: Some(Duration::from_secs(600)),
            retry_interval: Duration::from_secs(5),
        }
    }
}

impl Options {
    /// Fails where they make no sense.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.check_interval == Some(Duration::ZERO) {
            let what = "a mirror's `check_interval` of 0 found, more than 0 or none expected";
            return Err(Refusal::Invalid(what.to_owned()));
        }
        Ok(())
    }
}

/// What a mirror has been through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How often it had to read everything again, because its place in the history was compacted
    /// or because a check had found a drift.
    pub reloads: u64,
    /// How many full checks it has made.
    pub checks: u64,
    /// The keys that the last check found to differ from the store, at most 100 of them. Empty:
    /// none did. Drift is a fault of the store, of the connection or of the mirror; it is healed
    /// by reading everything again.
    pub drift: Vec<Bytes>,
    /// Checks that found a drift.
    pub drifts: u64,
    /// Why it does not follow the store just now; it tries again by itself.
    pub failing: Option<StoreError>,
    /// Why it has ended. Its last view remains.
    pub ended: Option<StoreError>,
}

pub(super) struct Shared<T> {
    state: Mutex<State<T>>,
    /// A view has been published, or the mirror has ended.
    published: Notify,
    /// A reader wants something: see `wanted`; or there are no more readers.
    pub(super) demand: Arc<Notify>,
}

struct State<T> {
    view: Arc<View<T>>,
    status: Status,
    /// The revisions that readers wait for, and how many wait for each.
    wanted: BTreeMap<u64, usize>,
    check: bool,
    reload: bool,
}

impl<T> Shared<T> {
    /// Before anything is read.
    pub(super) fn new(demand: Arc<Notify>) -> Self {
        let state = State {
            view: Arc::new(View::default()),
            status: Status::default(),
            wanted: BTreeMap::new(),
            check: false,
            reload: false,
        };
        Self { state: Mutex::new(state), published: Notify::new(), demand }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a view: nothing fails any more. Returns the one before, whose last holder has much to
    /// drop: after those who wait have been served.
    pub(super) fn publish(&self, view: Arc<View<T>>) -> Arc<View<T>> {
        let mut state = self.lock();
        state.status.failing = None;
        let old = std::mem::replace(&mut state.view, view);
        drop(state);
        self.published.notify_waiters();
        old
    }

    pub(super) fn report(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
        self.published.notify_waiters();
    }

    /// The highest revision that a reader waits for.
    pub(super) fn wanted(&self) -> u64 {
        self.lock().wanted.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// Waits for a view that is good enough; one of a revision from `wanted` on is.
    pub(super) async fn wait_until(
        &self,
        wanted: u64,
        enough: impl Fn(&View<T>) -> bool,
    ) -> Result<Arc<View<T>>, StoreError> {
        let mut want = None;
        loop {
            let mut published = std::pin::pin!(self.published.notified());
            published.as_mut().enable();
            {
                let state = self.lock();
                if enough(&state.view) {
                    return Ok(Arc::clone(&state.view));
                }
                if let Some(ended) = &state.status.ended {
                    return Err(ended.clone());
                }
            }
            if wanted > 0 {
                want.get_or_insert_with(|| Want::new(self, wanted));
            }
            published.await;
        }
    }

    pub(super) fn ask_for_check(&self) {
        self.lock().check = true;
        self.demand.notify_one();
    }

    /// Whether a check is asked for.
    pub(super) fn take_check(&self) -> bool {
        std::mem::take(&mut self.lock().check)
    }

    /// A check has found a drift.
    pub(super) fn ask_for_reload(&self) {
        self.lock().reload = true;
        self.demand.notify_one();
    }

    /// Whether a check has found a drift.
    pub(super) fn take_reload(&self) -> bool {
        std::mem::take(&mut self.lock().reload)
    }

    pub(super) fn status(&self) -> Status {
        self.lock().status.clone()
    }

    pub(super) fn view(&self) -> Arc<View<T>> {
        Arc::clone(&self.lock().view)
    }
}

/// A revision that is waited for, for as long as somebody does.
struct Want<'a, T> {
    shared: &'a Shared<T>,
    revision: u64,
}

impl<'a, T> Want<'a, T> {
    fn new(shared: &'a Shared<T>, revision: u64) -> Self {
        *shared.lock().wanted.entry(revision).or_default() += 1;
        shared.demand.notify_one();
        Self { shared, revision }
    }
}

impl<T> Drop for Want<'_, T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(waiting) = state.wanted.get_mut(&self.revision) {
            *waiting -= 1;
            if *waiting == 0 {
                state.wanted.remove(&self.revision);
            }
        }
    }
}

/// Why a mirror ends when a store is another one than it was.
pub(super) fn went_back(from: u64, to: u64) -> StoreError {
    let what = format!("it was at revision {from} and is at {to} now: it is not the same store");
    Refusal::Closed(what).into()
}
