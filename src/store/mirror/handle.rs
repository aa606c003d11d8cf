//! The mirror for its readers: the view, waiting for one, and what has changed since another.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::Notify;

use super::{driver::Driver, view::View};
use crate::{
    runtime::Runtime,
    store::{
        contract::Store,
        error::{Refusal, StoreError},
        kv::{Bytes, KeyRange, KeyValue},
    },
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

/// A range of keys of a store, decoded, in memory. Its clones are the same mirror; with the last
/// of them it ends.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use raft_autopilot::{
///     runtime::TokioRuntime,
///     store::{
///         Embedded, KeyRange, KeyValue, Op, Store, Txn, machine::Config,
///         mirror::{Mirror, Options},
///     },
/// };
///
/// let store = Embedded::new(Config::default(), TokioRuntime);
/// let decode = |kv: &KeyValue| String::from_utf8(kv.value.to_vec()).map_err(|e| e.to_string());
/// let range = KeyRange::prefix("members/");
/// let mirror = Mirror::open(store.clone(), TokioRuntime, range, decode, Options::default());
/// let mirror = mirror.await.unwrap();
///
/// let done = store.commit(Txn::new([Op::put("members/1", "here")])).await.unwrap();
/// let view = mirror.wait(done.revision).await.unwrap();
/// assert_eq!(**view.value(b"members/1").unwrap(), "here");
/// # });
/// ```
pub struct Mirror<T> {
    shared: Arc<Shared<T>>,
    alive: Arc<Alive>,
}

/// Whatever follows the store ends when the last reader has gone.
#[derive(Debug)]
struct Alive(Arc<Notify>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl<T> Clone for Mirror<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), alive: Arc::clone(&self.alive) }
    }
}

impl<T> fmt::Debug for Mirror<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("view", &self.shared.view()).finish_non_exhaustive()
    }
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

impl<T: Send + Sync + 'static> Mirror<T> {
    /// Reads a range, and follows it from then on, in a task of its own.
    ///
    /// Values are decoded one by one; one that does not decode leaves the last good one in its
    /// place, and is shown by [`View::undecoded`].
    ///
    /// # Errors
    /// Only what no retry helps against: [`StoreError::Refused`]; [`Refusal::Invalid`] for options
    /// that make no sense. As long as the store cannot be reached, it tries again.
    pub async fn open<S: Store, R: Runtime>(
        store: S,
        runtime: R,
        range: KeyRange,
        decode: impl Fn(&KeyValue) -> Result<T, String> + Send + Sync + 'static,
        options: Options,
    ) -> Result<Self, StoreError> {
        options.check()?;
        let demand = Arc::new(Notify::new());
        let alive = Arc::new(Alive(Arc::clone(&demand)));
        let state = State {
            view: Arc::new(View::default()),
            status: Status::default(),
            wanted: BTreeMap::new(),
            check: false,
            reload: false,
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), published: Notify::new(), demand });
        let mut driver = Driver {
            store,
            runtime: runtime.clone(),
            range,
            decode,
            options,
            shared: Arc::clone(&shared),
            readers: Arc::downgrade(&alive),
            checking: Weak::new(),
        };
        driver.load().await?;
        let mirror = Self { shared, alive };
        runtime.spawn(driver.run());
        Ok(mirror)
    }

    /// The latest view. It takes no longer, however large the mirror is.
    pub fn view(&self) -> Arc<View<T>> {
        self.shared.view()
    }

    /// What it has been through.
    pub fn status(&self) -> Status {
        self.shared.lock().status.clone()
    }

    /// Waits for a view at or after a revision of the store, whether it changed the range or not.
    ///
    /// # Errors
    /// Why the mirror has ended. As long as the store cannot be reached, it waits.
    pub async fn wait(&self, revision: u64) -> Result<Arc<View<T>>, StoreError> {
        self.shared.wait_until(revision, |view| view.revision >= revision).await
    }

    /// Waits for a view that shows anything else than `seen`, which is one of this mirror.
    ///
    /// # Errors
    /// Why the mirror has ended.
    pub async fn changed(&self, seen: &View<T>) -> Result<Arc<View<T>>, StoreError> {
        self.shared.wait_until(0, |view| view.edits != seen.edits).await
    }

    /// Asks for a full check soon; its result shows in [`Mirror::status`].
    pub fn check(&self) {
        self.shared.ask_for_check();
    }

    /// Follows the changes from now on.
    pub fn changes(&self) -> Changes<T> {
        Changes { mirror: self.clone(), seen: self.view() }
    }

    /// Follows the changes from an empty view on: what stands comes first.
    pub fn changes_from_empty(&self) -> Changes<T> {
        Changes { mirror: self.clone(), seen: Arc::new(View::default()) }
    }
}

/// The changes of a mirror, for one reader.
///
/// It holds the view that it has seen last, and no queue: a reader that is slow gets fewer and
/// larger sets of changes, and never misses what has come of them.
#[derive(Debug)]
pub struct Changes<T> {
    mirror: Mirror<T>,
    seen: Arc<View<T>>,
}

impl<T: Send + Sync + 'static> Changes<T> {
    /// Waits for the next changes; returns the view before them and the one that they lead to, of which
    /// [`View::changes`] tells at least one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why the mirror has ended, after the last changes.
    pub async fn next(&mut self) -> Result<(Arc<View<T>>, Arc<View<T>>), StoreError> {
        loop {
            let view = self.mirror.changed(&self.seen).await?;
            let seen = std::mem::replace(&mut self.seen, Arc::clone(&view));
            if seen.changes(&view).next().is_some() {
                return Ok((seen, view));
            }
        }
    }
}

/// Why a mirror ends when a store is another one than it was.
pub(super) fn went_back(from: u64, to: u64) -> StoreError {
    let what = format!("it was at revision {from} and is at {to} now: it is not the same store");
    Refusal::Closed(what).into()
}
