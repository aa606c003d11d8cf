//! An instance of the ids: what an application holds, one for each process and prefix.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{broadcast, oneshot};

use crate::{
    runtime::Runtime,
    store::{Bytes, LeaseStatus, Store, StoreError},
};

use super::{
    config::{Caching, Options},
    desk::{Desk, Phase, Slot, Waiter},
    dice::Dice,
    driver::Driver,
    error::IdsError,
    events::Events,
    flights::key_len_max,
    follow::{Fed, Follower},
    handle::{Alive, Core, Handle, Wait},
    layout::Layout,
    link::{Link, no_answer},
    notices::Notice,
    slot::Standing,
};

/// How much there is of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Ids of the range that are not free, as far as is known here.
    pub used: u64,
    /// Ids of the range.
    pub total: u64,
    /// Keys that this instance refers to.
    pub held: usize,
    /// Handles.
    pub uses: usize,
    /// References that are still to be deleted.
    pub releasing: usize,
}

/// Somebody who uses an id in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUse {
    /// The key.
    pub key: Bytes,
    /// Its id.
    pub id: u64,
    /// Who, if a name was given.
    pub owner: Option<Arc<str>>,
    /// For how long.
    pub age: Duration,
}

/// The ids below a prefix. Its clones are the same instance; with the last of them and the last
/// handle it lets all references go.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use raft_autopilot::{
///     ids::{Ids, Options},
///     runtime::TokioRuntime,
///     store::{Embedded, machine::Config},
/// };
///
/// let store = Embedded::new(Config::default(), TokioRuntime);
/// let one = Ids::open(store.clone(), TokioRuntime, "ids/", Options::default()).await.unwrap();
/// let two = Ids::open(store, TokioRuntime, "ids/", Options::default()).await.unwrap();
/// let here = one.allocate("app=web").await.unwrap();
/// let there = two.allocate("app=web").await.unwrap();
/// assert_eq!(here.id(), there.id());
/// assert!(here.is_new() && !there.is_new());
/// # });
/// ```
pub struct Ids<S, R> {
    pub(super) link: Link<S, R>,
    pub(super) alive: Arc<Alive>,
    pub(super) options: Arc<Options>,
}

impl<S: Clone, R: Clone> Clone for Ids<S, R> {
    fn clone(&self) -> Self {
        let (link, alive) = (self.link.clone(), Arc::clone(&self.alive));
        Self { link, alive, options: Arc::clone(&self.options) }
    }
}

impl<S, R> fmt::Debug for Ids<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<S: Store, R: Runtime> Ids<S, R> {
    /// Opens the ids below a prefix, which must be theirs alone.
    ///
    /// It does not wait for the cache; see [`Ids::wait_synced`]. What is allocated before is just
    /// as safe.
    ///
    /// # Errors
    /// [`IdsError::Invalid`] for options that make no sense, [`IdsError::Mismatch`] if the ids there
    /// are others than asked for, [`IdsError::Foreign`], or why the store does not answer.
    pub async fn open(
        store: S,
        runtime: R,
        prefix: impl Into<Bytes>,
        options: Options,
    ) -> Result<Self, IdsError> {
        options.check()?;
        let layout = Layout::new(prefix);
        let link = Link::new(store, runtime, layout.clone(), options.request_timeout);
        let mut dice = Dice::new(options.seed);
        let meta = patient(&link, &options, &mut dice).await?;
        if let Some(expected) = options.range.filter(|range| *range != meta.0.range) {
            return Err(IdsError::Mismatch { found: meta.0.range, expected });
        }
        let desk = Desk::new(layout, options.clone(), meta, Dice::new(Some(dice.roll())));
        let clock = link.runtime.clone();
        let core = Arc::new(Core::new(desk, Box::new(move || clock.now())));
        let alive = Arc::new(Alive(Arc::clone(&core)));
        let now = link.runtime.now();
        let driver = Driver {
            link: link.clone(),
            core,
            alive: Arc::downgrade(&alive),
            lives: link.lives(),
            dice,
            keeper: None,
            status: LeaseStatus::Lost,
            reconcile_at: now.saturating_add(options.reconcile_interval),
            meta,
        };
        link.runtime.spawn(driver.run());
        let ids = Self { link, alive, options: Arc::new(options) };
        if ids.options.caching == Caching::Full {
            ids.follow();
        }
        Ok(ids)
    }

    fn follow(&self) {
        let (alive, link, life) =
            (Arc::downgrade(&self.alive), self.link.clone(), AtomicU64::new(0));
        let follower = Follower {
            store: self.link.store.clone(),
            runtime: self.link.runtime.clone(),
            layout: self.link.layout.clone(),
            validators: self.options.validators.clone(),
            options: self.options.mirror.clone(),
            reopen: Arc::clone(&self.alive.0.reopen),
            listener: move |fed: Option<&Fed<'_>>| {
                match fed {
                    // The life of the store that the mirror is about to be opened in.
                    None => life.store(link.lives(), Ordering::Relaxed),
                    Some(Fed::Opened(_)) => {}
                    Some(Fed::View(view)) => {
                        link.note(life.load(Ordering::Relaxed), view.revision());
                    }
                }
                feed(&alive, fed)
            },
        };
        self.link.runtime.spawn(follower.run());
    }

    /// The id of a key, new or known, for as long as the handle is kept.
    ///
    /// A key that is held here already costs nothing; any other one round trip. Calls that come
    /// together go together. Dropping the future lets go of whatever it has led to.
    ///
    /// # Errors
    /// [`IdsError`], of which none leaves a reference behind.
    pub async fn allocate(&self, key: impl Into<Bytes>) -> Result<Handle, IdsError> {
        self.allocate_as(None, key.into()).await
    }

    /// The same in the name of an owner; see [`Ids::release_owner`].
    ///
    /// # Errors
    /// As [`Ids::allocate`].
    pub async fn allocate_for(
        &self,
        owner: &str,
        key: impl Into<Bytes>,
    ) -> Result<Handle, IdsError> {
        self.allocate_as(Some(owner.into()), key.into()).await
    }

    /// The ids of many keys, in as few transactions as they fit into.
    ///
    /// # Errors
    /// That of the first key that fails; the others are let go.
    pub async fn allocate_many<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Handle>, IdsError> {
        self.allocate_all(None, keys).await
    }

    /// The same in the name of an owner; see [`Ids::release_owner`].
    ///
    /// # Errors
    /// As [`Ids::allocate_many`].
    pub async fn allocate_many_for<K: Into<Bytes>>(
        &self,
        owner: &str,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Handle>, IdsError> {
        self.allocate_all(Some(owner.into()), keys).await
    }

    async fn allocate_all<K: Into<Bytes>>(
        &self,
        owner: Option<Arc<str>>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Handle>, IdsError> {
        let mut waits = Vec::new();
        for key in keys {
            waits.push(self.ask(owner.clone(), key.into())?);
        }
        self.alive.0.wake.notify_one();
        let end = self.end();
        let mut handles = Vec::with_capacity(waits.len());
        for wait in waits {
            handles.push(match wait {
                Asked::Held(handle) => handle,
                Asked::Wait(mut wait) => self.in_time(&mut wait, end).await?,
            });
        }
        Ok(handles)
    }

    /// A handle for a key that this instance holds already, without asking anybody.
    pub fn held(&self, key: &[u8]) -> Option<Handle> {
        self.hit(key, None)
    }

    fn hit(&self, key: &[u8], owner: Option<&Arc<str>>) -> Option<Handle> {
        let life = self.alive.0.shelf.get(key)?;
        let origin = life.hit(owner, self.link.runtime.now())?;
        Some(Handle::new(Arc::clone(&self.alive), life, origin))
    }

    async fn allocate_as(&self, owner: Option<Arc<str>>, key: Bytes) -> Result<Handle, IdsError> {
        match self.ask(owner, key)? {
            Asked::Held(handle) => Ok(handle),
            Asked::Wait(mut wait) => {
                self.alive.0.wake.notify_one();
                self.in_time(&mut wait, self.end()).await
            }
        }
    }

    fn ask(&self, owner: Option<Arc<str>>, key: Bytes) -> Result<Asked, IdsError> {
        if let Some(handle) = self.hit(&key, owner.as_ref()) {
            return Ok(Asked::Held(handle));
        }
        let (found, limit) = (key.len(), self.key_len_max());
        if found > limit {
            return Err(IdsError::KeyTooLong { found, limit });
        }
        let (answer, receiver) = oneshot::channel();
        self.alive.0.lock().want(&key, Waiter { owner, answer });
        Ok(Asked::Wait(Wait::new(Arc::clone(&self.alive), key, receiver)))
    }

    fn key_len_max(&self) -> usize {
        key_len_max(&self.link.store.limits(), &self.link.layout, &self.options.node)
    }

    /// Until when a call that begins now waits.
    pub(super) fn end(&self) -> Duration {
        self.link.runtime.now().saturating_add(self.options.patience)
    }

    async fn in_time(&self, wait: &mut Wait, end: Duration) -> Result<Handle, IdsError> {
        let patience = end.saturating_sub(self.link.runtime.now());
        tokio::select! {
            biased;
            answer = wait.next() => answer,
            () = self.link.runtime.sleep(patience) => Err(self.trouble()),
        }
    }

    /// Why a call has waited in vain.
    fn trouble(&self) -> IdsError {
        match self.alive.0.lock().trouble.clone() {
            Some(IdsError::Store(why @ (StoreError::Retry(_) | StoreError::Unknown(_)))) => {
                IdsError::Unavailable(why)
            }
            Some(other) => other,
            None => IdsError::Unavailable(no_answer()),
        }
    }

    /// Ends all uses of an owner; its handles are [`Status::Released`](super::Status::Released)
    /// from now on. Returns how many there were.
    pub fn release_owner(&self, owner: &str) -> usize {
        let count = self.alive.0.lock().release_owner(owner);
        self.alive.0.wake.notify_one();
        self.alive.0.turned.notify_waiters();
        count
    }

    /// What happens to the ids from now on; what stands comes first.
    pub fn subscribe(&self) -> Events {
        Events::new(&self.alive)
    }

    /// What the instance has to say about itself. A reader that falls far behind misses some.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.alive.0.lock().notices.subscribe()
    }

    /// Waits until the cache holds all that stood when it was opened, for as long as that takes.
    ///
    /// # Errors
    /// [`IdsError::NoCache`] with [`Caching::Lazy`]; [`IdsError::Closed`] if it is closed before.
    pub async fn wait_synced(&self) -> Result<(), IdsError> {
        self.wait_revision(0).await
    }

    /// Waits until the cache has come to a revision of the store, for as long as that takes.
    ///
    /// # Errors
    /// As [`Ids::wait_synced`].
    pub async fn wait_revision(&self, revision: u64) -> Result<(), IdsError> {
        if self.options.caching == Caching::Lazy {
            return Err(IdsError::NoCache);
        }
        let ticks = &self.alive.0.ticks;
        loop {
            let seen = ticks.count();
            let followed = {
                let desk = self.alive.0.lock();
                let source = desk.stock.source();
                if source.is_loaded() && source.revision() >= revision {
                    return Ok(());
                }
                desk.followed()
            };
            let view = async {
                match followed {
                    Some((mirror, life)) => Some((mirror.wait(revision).await.ok()?, life)),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                view = view => match view {
                    Some((view, life)) => {
                        self.alive.0.lock().catch_up(&life, &view);
                        self.alive.0.tick();
                    }
                    // Another mirror is on its way.
                    None => self.link.runtime.sleep(Duration::from_millis(50)).await,
                },
                goes_on = ticks.changed(seen) => if !goes_on {
                    return Err(IdsError::Closed);
                },
            }
        }
    }

    /// How much there is of what.
    pub fn stats(&self) -> Stats {
        let desk = self.alive.0.lock();
        let pool = desk.stock.pool();
        Stats {
            used: pool.unavailable(),
            total: pool.range().total(),
            held: desk.slots.values().filter(|slot| slot.standing == Standing::Held).count(),
            uses: desk.slots.values().map(Slot::uses).sum(),
            releasing: desk.doomed.len() + desk.leaving.len(),
        }
    }

    /// Who uses what in this process, the longest first: where leaks show.
    pub fn local_uses(&self) -> Vec<LocalUse> {
        let now = self.link.runtime.now();
        let desk = self.alive.0.lock();
        let mut uses = Vec::new();
        for life in desk.slots.values().filter_map(|slot| slot.life.as_ref()) {
            life.each_use(|used| {
                uses.push(LocalUse {
                    key: life.key.clone(),
                    id: life.id,
                    owner: used.owner.clone(),
                    age: now.saturating_sub(used.since),
                });
            });
        }
        drop(desk);
        uses.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.key.cmp(&b.key)));
        uses
    }

    /// Lets all references go at once, and waits until the store has done so, whoever has closed it;
    /// or until it has not answered, and they end with their lease. All handles are released.
    pub async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        {
            let mut desk = self.alive.0.lock();
            match desk.phase {
                Phase::Open => desk.close(),
                Phase::Closing => {}
                Phase::Ended => return,
            }
            desk.closing.push(sender);
        }
        self.alive.0.wake.notify_one();
        self.alive.0.reopen.notify_one();
        let _ = receiver.await;
    }
}

/// What came of asking for a key.
enum Asked {
    Held(Handle),
    Wait(Wait),
}

/// Tells the desk what the follower has to tell; whether anybody still reads.
fn feed(alive: &Weak<Alive>, fed: Option<&Fed<'_>>) -> bool {
    let Some(alive) = alive.upgrade() else { return false };
    let core = &alive.0;
    let mut desk = core.lock();
    if desk.phase != Phase::Open {
        return false;
    }
    match fed {
        None => return true,
        Some(Fed::Opened(mirror)) => {
            let range = desk.stock.pool().range();
            desk.stock.restart(range);
            desk.mirror = Some((*mirror).clone());
        }
        Some(Fed::View(view)) => desk.advance(view),
    }
    drop(desk);
    core.tick();
    core.wake.notify_one();
    true
}

/// Reads what all agree on, again and again for as long as a caller waits.
async fn patient<S: Store, R: Runtime>(
    link: &Link<S, R>,
    options: &Options,
    dice: &mut Dice,
) -> Result<(super::layout::Meta, u64), IdsError> {
    let end = link.runtime.now().saturating_add(options.patience);
    loop {
        let left = end.saturating_sub(link.runtime.now());
        let read = tokio::select! {
            biased;
            read = link.meta(options.range, None, false) => read,
            () = link.runtime.sleep(left) => Err(no_answer().into()),
        };
        match read {
            Err(IdsError::Store(error @ (StoreError::Retry(_) | StoreError::Unknown(_)))) => {
                let left = end.saturating_sub(link.runtime.now());
                let most = u64::try_from(options.backoff_max.as_millis()).unwrap_or(u64::MAX);
                let pause = Duration::from_millis(dice.roll() % most.max(1));
                link.runtime.sleep(pause.min(left)).await;
                if pause >= left {
                    return Err(IdsError::Unavailable(error));
                }
            }
            done => return done,
        }
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
    async fn what_a_mirror_of_an_earlier_life_of_the_store_shows_is_not_believed() {
        let store = Embedded::new(Config::default(), TokioRuntime);
        let ids = Ids::open(store, TokioRuntime, "ids/", Options::default()).await.unwrap();
        ids.wait_synced().await.unwrap();
        let _kept = ids.allocate("key").await.unwrap();
        let mut desk = ids.alive.0.lock();
        let (mirror, life) = desk.followed().unwrap();
        // Somebody has waited for this view, and the cache begins anew before he comes with it.
        let range = desk.stock.pool().range();
        desk.stock.restart(range);
        desk.catch_up(&life, &mirror.view());
        assert!(!desk.stock.source().is_loaded());
    }
}
