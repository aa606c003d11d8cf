//! The mirror for its readers: the view, waiting for one, and what has changed since another.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use tokio::sync::Notify;

use super::{
    driver::Driver,
    shared::{Options, Shared, Status},
    view::View,
};
use crate::{
    runtime::Runtime,
    store::{
        contract::Store,
        error::StoreError,
        kv::{KeyRange, KeyValue},
    },
};

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

impl<T: Send + Sync + 'static> Mirror<T> {
    /// Reads a range, and follows it from then on, in a task of its own.
    ///
    /// Values are decoded one by one; one that does not decode leaves the last good one in its
    /// place, and is shown by [`View::undecoded`].
    ///
    /// # Errors
    /// Only what no retry helps against: [`StoreError::Refused`]; [`Refusal::Invalid`](crate::store::error::Refusal::Invalid) for options
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
        let shared = Arc::new(Shared::new(demand));
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
        self.shared.status()
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
