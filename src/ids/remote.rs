//! The ids of other stores, looked up along with the own ones.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

use crate::{
    runtime::Runtime,
    store::{Bytes, Store},
};

use super::{
    config::Validator,
    error::IdsError,
    follow::{Fed, Follower},
    handle::{Alive, Remotes},
    instance::Ids,
    layout::Layout,
    source::{Mirrored, Remote, Source},
};

/// The ids of another store, in the lookups and events of an instance for as long as this is kept.
///
/// They show once all of them are read; where another cache of the same name shows already, that
/// one is replaced in one step. Dropping it takes them out again, unless it was replaced.
#[derive(Debug)]
pub struct RemoteCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    instance: Weak<Alive>,
    layout: Layout,
    stop: Arc<Notify>,
    /// The cache that is shown, or was. `None`: not all of it is read yet.
    shown: Mutex<Option<Arc<Mirrored>>>,
    /// The next view is of another mirror than what is shown.
    anew: AtomicBool,
    /// Nothing is shown any more. It changes while the remote caches are locked.
    closed: AtomicBool,
}

impl Shared {
    fn shown(&self) -> MutexGuard<'_, Option<Arc<Mirrored>>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what there is; whether to go on.
    fn feed(&self, fed: Option<&Fed<'_>>) -> bool {
        let Some(instance) = self.instance.upgrade() else { return false };
        let view = match fed {
            None => return true,
            Some(Fed::Opened(_)) => {
                self.anew.store(true, Ordering::Relaxed);
                return true;
            }
            Some(Fed::View(view)) => view,
        };
        let id = |name: &[u8]| self.layout.parse_id(name);
        let mut remotes = instance.0.remotes();
        if self.closed.load(Ordering::Relaxed) {
            return false;
        }
        let mut shown = self.shown();
        if shown.is_some() && !is_shown(&remotes, &self.name, shown.as_ref()) {
            // Another has taken its place.
            return false;
        }
        if self.anew.swap(false, Ordering::Relaxed) {
            let mut source = Source::default();
            source.advance(view, &id);
            *shown = Some(Arc::clone(source.life()));
            let remote = Remote { layout: self.layout.clone(), source };
            remotes.insert(Arc::clone(&self.name), remote);
        } else if let Some(remote) = remotes.get_mut(&self.name) {
            remote.source.advance(view, &id);
        }
        drop((shown, remotes));
        instance.0.tick();
        true
    }
}

/// Whether what is shown under a name is this.
fn is_shown(remotes: &Remotes, name: &str, shown: Option<&Arc<Mirrored>>) -> bool {
    remotes
        .get(name)
        .zip(shown)
        .is_some_and(|(remote, shown)| Arc::ptr_eq(shown, remote.source.life()))
}

impl Drop for RemoteCache {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        let Some(instance) = self.shared.instance.upgrade() else { return };
        let mut remotes = instance.0.remotes();
        self.shared.closed.store(true, Ordering::Relaxed);
        if is_shown(&remotes, &self.shared.name, self.shared.shown().as_ref()) {
            remotes.remove(&self.shared.name);
        }
        drop(remotes);
        instance.0.tick();
    }
}

impl RemoteCache {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Whether all of it has been read, and no other of its name has taken its place.
    pub fn is_synced(&self) -> bool {
        self.look(|_| ()).is_some()
    }

    /// How many ids it shows.
    pub fn len(&self) -> usize {
        self.look(|source| source.ids().len()).unwrap_or_default()
    }

    /// Whether it shows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn look<T>(&self, at: impl FnOnce(&Source) -> T) -> Option<T> {
        let instance = self.shared.instance.upgrade()?;
        let remotes = instance.0.remotes();
        is_shown(&remotes, &self.shared.name, self.shared.shown().as_ref())
            .then(|| remotes.get(&self.shared.name).map(|remote| at(&remote.source)))?
    }

    /// Waits until all of it has been read, for as long as that takes.
    ///
    /// # Errors
    /// [`IdsError::Closed`] if the instance is closed, or gone, before.
    pub async fn wait_synced(&self) -> Result<(), IdsError> {
        let instance = self.shared.instance.upgrade();
        let ticks = instance.map(|instance| Arc::clone(&instance.0.ticks));
        let ticks = ticks.ok_or(IdsError::Closed)?;
        loop {
            let seen = ticks.count();
            if self.shared.shown().is_some() {
                return Ok(());
            }
            if !ticks.changed(seen).await {
                return Err(IdsError::Closed);
            }
        }
    }
}

impl<S: Store, R: Runtime> Ids<S, R> {
    /// Follows the ids of another store, or below another prefix, and shows them under a name in
    /// lookups with remotes, in [`Ids::cached`] and in [`Ids::subscribe`]. They are never written
    /// to, and never asked when a lookup misses.
    pub fn watch_remote<T: Store>(
        &self,
        name: &str,
        store: T,
        prefix: impl Into<Bytes>,
        validators: Vec<Validator>,
    ) -> RemoteCache {
        let layout = Layout::new(prefix);
        let shared = Arc::new(Shared {
            name: name.into(),
            layout: layout.clone(),
            instance: Arc::downgrade(&self.alive),
            stop: Arc::default(),
            shown: Mutex::default(),
            anew: AtomicBool::new(true),
            closed: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&shared);
        let follower = Follower {
            store,
            runtime: self.link.runtime.clone(),
            layout,
            validators,
            options: self.options.mirror.clone(),
            reopen: Arc::clone(&shared.stop),
            listener: move |fed: Option<&Fed<'_>>| {
                weak.upgrade().is_some_and(|shared| shared.feed(fed))
            },
        };
        self.link.runtime.spawn(follower.run());
        RemoteCache { shared }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::{
        ids::config::Options,
        runtime::TokioRuntime,
        store::{Embedded, machine::Config},
    };

    #[tokio::test(start_paused = true)]
    async fn what_is_read_while_it_is_closed_is_not_shown_for_ever() {
        let store = Embedded::new(Config::default(), TokioRuntime);
        let [here, there] =
            ["a/", "b/"].map(|at| Ids::open(store.clone(), TokioRuntime, at, Options::default()));
        let (here, there) = (here.await.unwrap(), there.await.unwrap());
        let _kept = there.allocate("key").await.unwrap();
        let remote = here.watch_remote("remote", store, "b/", Vec::new());
        remote.wait_synced().await.unwrap();
        let shared = Arc::clone(&remote.shared);
        let view = Arc::clone(here.alive.0.remotes()["remote"].source.view());
        drop(remote);
        // As if it were the first that was read, on its way since before.
        *shared.shown() = None;
        shared.anew.store(true, Ordering::Relaxed);
        assert!(!shared.feed(Some(&Fed::View(&view))));
        assert!(here.alive.0.remotes().is_empty());
    }
}
