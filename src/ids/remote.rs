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
    follow::{Fed, Follower},
    handle::Alive,
    instance::Ids,
    layout::Layout,
    source::{Mirrored, Source},
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
        let mut shown = self.shown();
        if let Some(shown) = shown.as_ref()
            && remotes.get(&self.name).is_none_or(|other| !Arc::ptr_eq(shown, other.life()))
        {
            // Another has taken its place.
            return false;
        }
        if self.anew.swap(false, Ordering::Relaxed) {
            let mut source = Source::default();
            source.advance(view, &id);
            *shown = Some(Arc::clone(source.life()));
            remotes.insert(Arc::clone(&self.name), source);
        } else if let Some(source) = remotes.get_mut(&self.name) {
            source.advance(view, &id);
        }
        drop((shown, remotes));
        instance.0.tick();
        true
    }
}

impl Drop for RemoteCache {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        let Some(instance) = self.shared.instance.upgrade() else { return };
        if self.is_synced() {
            instance.0.remotes().remove(&self.shared.name);
            instance.0.tick();
        }
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
        let source = remotes.get(&self.shared.name)?;
        let shown = self.shared.shown();
        shown.as_ref().filter(|shown| Arc::ptr_eq(shown, source.life())).map(|_| at(source))
    }

    /// Waits until all of it has been read.
    pub async fn wait_synced(&self) {
        let instance = self.shared.instance.upgrade();
        let Some(ticks) = instance.map(|instance| Arc::clone(&instance.0.ticks)) else { return };
        loop {
            let seen = ticks.count();
            if self.shared.shown().is_some() || !ticks.changed(seen).await {
                return;
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
