//! One member's life: announce, hold, hand off, drain, leave.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};

use super::{
    desk::{Amend, Core, Status},
    driver::{Driver, Leading},
    errands::Errands,
    error::AllocatorError,
    handle::Handle,
    item::{Keys, check_name},
    value::{Entity, ItemValue, MemberKey, MemberValue, Workload},
    worker::{self, Worker},
};
use crate::{
    runtime::{Runtime, sleep_until},
    store::{
        Compare, KeyRange, LeaseId, LeaseKeeper, LeaseStatus, Op, OpResponse, Store, StoreError,
        Txn,
        mirror::{self, Mirror},
    },
};

/// The first pause after the store has failed.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What happens if this member's key stands already, with the lease of somebody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Former {
    /// It is a former self, whose lease will end: wait for that.
    #[default]
    Wait,
    /// It is a mistake: end with [`AllocatorError::Announced`].
    Refuse,
}

/// How a member lives.
pub struct Options<W: Workload> {
    /// What all keys begin with; the same for all members.
    pub root: String,
    /// The failure zone that the member is in.
    pub zone: String,
    /// Its name, unique within the zone.
    pub member: String,
    /// Its value.
    pub value: W::Member,
    /// How long its lease lives without being kept alive. Default 20 s, as in Gazette.
    pub ttl: Duration,
    /// What happens if somebody is this member already. Default: wait.
    pub former: Former,
    /// Items that exist from the start, by name; whoever deletes one sees it made again.
    pub fixed_items: Vec<(String, W::Item)>,
    /// For how long a member that wants to leave waits until all that it holds has gone elsewhere.
    /// Then it leaves all the same, and items may lack replicas for a while. Default: for ever.
    ///
    /// It waits in vain where the others have no room, or where fewer would be left than an item
    /// wants replicas; the leader's report says so.
    pub drain_timeout: Option<Duration>,
    /// How it works when it leads.
    pub leading: Leading,
    /// How it follows the store.
    pub mirror: mirror::Options,
}

impl<W: Workload> Options<W> {
    /// A member of that name, with all else by default.
    pub fn new(
        root: impl Into<String>,
        zone: impl Into<String>,
        member: impl Into<String>,
        value: W::Member,
    ) -> Self {
        Self {
            root: root.into(),
            zone: zone.into(),
            member: member.into(),
            value,
            ttl: Duration::from_secs(20),
            former: Former::default(),
            fixed_items: Vec::new(),
            drain_timeout: None,
            leading: Leading::default(),
            mirror: mirror::Options::default(),
        }
    }
}

/// How a member left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// What it still held when its time to drain was over, by name. Empty: nothing.
    pub abandoned: Vec<Arc<str>>,
}

impl<W: Workload> fmt::Debug for Options<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root, zone, member, .. } = self;
        f.debug_struct("Options")
            .field("root", root)
            .field("zone", zone)
            .field("member", member)
            .finish_non_exhaustive()
    }
}

/// A member, to be run: one for each process and root.
pub struct Allocator<S, R, W: Workload, K> {
    store: S,
    runtime: R,
    core: Arc<Core<W>>,
    worker: Arc<K>,
    options: Options<W>,
}

impl<S: Store, R: Runtime, W: Workload, K: Worker<W>> Allocator<S, R, W, K> {
    /// A member that is not there before it is run, and its handle.
    ///
    /// # Errors
    /// [`AllocatorError::Name`] for the zone, the member or a fixed item; [`AllocatorError::Value`]
    /// for a fixed item's. Nothing was done.
    pub fn new(
        store: S,
        runtime: R,
        workload: W,
        worker: K,
        options: Options<W>,
    ) -> Result<(Self, Handle<W>), AllocatorError> {
        check_name(&options.zone)?;
        check_name(&options.member)?;
        let mut fixed = BTreeMap::new();
        for (name, value) in &options.fixed_items {
            check_name(name)?;
            fixed.insert(name.as_str().into(), value.encode().map_err(AllocatorError::Value)?);
        }
        let keys = Keys::new(options.root.as_str());
        let me = MemberKey::new(options.zone.as_str(), options.member.as_str());
        let core = Arc::new(Core::new(keys, me, Arc::new(workload), fixed));
        let handle = Handle { core: Arc::clone(&core) };
        Ok((Self { store, runtime, core, worker: Arc::new(worker), options }, handle))
    }

    /// Lives: announces itself, holds what it is assigned, plans for all while it leads, and,
    /// when `shutdown` completes, drains and leaves.
    ///
    /// Dropping the future ends the member at once: its workers are told, and its lease ends by
    /// itself. It can be run again, after an error too; its handles stay the same.
    ///
    /// # Errors
    /// [`AllocatorError::LeaseLost`], [`AllocatorError::Removed`], [`AllocatorError::Announced`], and
    /// [`AllocatorError::Store`] for what no retry helps against. In each case nothing is held any
    /// more, and the workers have been told.
    pub async fn run(
        &mut self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Left, AllocatorError> {
        let this = &*self;
        this.core.begin();
        let _end = End { core: &this.core, runtime: &this.runtime, worker: &this.worker };
        let mut shutdown = std::pin::pin!(shutdown);
        let (keeper, mirror) = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(Left::default()),
            joined = Box::pin(this.join()) => joined?,
        };
        this.core.turn(Status::Active);
        let left = tokio::select! {
            biased;
            error = this.watch_over(&keeper, &mirror) => Err(error),
            error = worker::follow(&this.core, &this.runtime, &this.worker, &mirror) => {
                Err(error.into())
            }
            error = Box::pin(this.errands(&keeper, &mirror).run()) => Err(error),
            error = Box::pin(this.driver(&keeper, &mirror).run()) => Err(error.into()),
            left = this.drain(shutdown) => left,
        }?;
        // What was abandoned is given up here before anybody else can have it.
        worker::lose(&this.core, &this.runtime, &this.worker);
        if let Err(error) = keeper.revoke().await {
            tracing::info!("{} ends with its lease: {error}", this.core.me);
        }
        Ok(left)
    }

    fn errands(&self, keeper: &LeaseKeeper<S, R>, mirror: &Mirror<Entity<W>>) -> Errands<S, R, W> {
        Errands {
            store: self.store.clone(),
            runtime: self.runtime.clone(),
            core: Arc::clone(&self.core),
            keeper: keeper.clone(),
            mirror: mirror.clone(),
        }
    }

    fn driver(&self, keeper: &LeaseKeeper<S, R>, mirror: &Mirror<Entity<W>>) -> Driver<S, R, W> {
        Driver {
            store: self.store.clone(),
            runtime: self.runtime.clone(),
            core: Arc::clone(&self.core),
            keeper: keeper.clone(),
            mirror: mirror.clone(),
            options: self.options.leading.clone(),
        }
    }

    /// Reads the store, gets a lease, and announces itself under it.
    async fn join(&self) -> Result<(LeaseKeeper<S, R>, Mirror<Entity<W>>), AllocatorError> {
        let keys = self.core.keys.clone();
        let range = KeyRange::prefix(format!("{}/", keys.root()));
        let mirror = Mirror::open(
            self.store.clone(),
            self.runtime.clone(),
            range,
            move |kv: &_| Entity::decode(&keys, kv),
            self.options.mirror.clone(),
        )
        .await?;
        {
            let mut desk = self.core.lock();
            desk.mirror = Some(mirror.clone());
            desk.errands.fixed = true;
        }
        self.core.turned.notify_waiters();
        let value = self.options.value.encode().map_err(AllocatorError::Value)?;
        let mut pause = BACKOFF_FIRST;
        loop {
            let (store, runtime) = (self.store.clone(), self.runtime.clone());
            match LeaseKeeper::grant(store, runtime, self.options.ttl).await {
                Ok(keeper) => {
                    if let Some(revision) = self.announce(&keeper, &mirror, &value).await? {
                        mirror.wait(revision).await?;
                        return Ok((keeper, mirror));
                    }
                }
                Err(error @ StoreError::Refused(_)) => return Err(error.into()),
                Err(error) => tracing::warn!("{} joins later: {error}", self.core.me),
            }
            self.runtime.sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Makes this member's key, and returns the revision that it stands at. `None`: the lease ended
    /// before that.
    async fn announce(
        &self,
        keeper: &LeaseKeeper<S, R>,
        mirror: &Mirror<Entity<W>>,
        value: &[u8],
    ) -> Result<Option<u64>, AllocatorError> {
        let key = self.core.own_key();
        let mut pause = BACKOFF_FIRST;
        while keeper.status() != LeaseStatus::Lost {
            let txn = Txn::when([Compare::absent(KeyRange::key(key.as_str()))])
                .and_then([Op::put_leased(key.as_str(), value, keeper.id())])
                .or_else([Op::get(key.as_str())]);
            let done = match self.store.commit(txn).await {
                Ok(done) => done,
                Err(error) => {
                    tracing::warn!("{} announces itself later: {error}", self.core.me);
                    self.runtime.sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF_MAX);
                    continue;
                }
            };
            let former = done.responses.into_iter().find_map(|response| match response {
                OpResponse::Range(found) => found.items.into_iter().next(),
                _ => None,
            });
            match former {
                None => return Ok(Some(done.revision)),
                // An answer of this very lease was lost.
                Some(kv) if kv.lease == keeper.id() => return Ok(Some(done.revision)),
                Some(_) if self.options.former == Former::Refuse => {
                    return Err(AllocatorError::Announced(self.core.me.clone()));
                }
                Some(kv) => {
                    let me = &self.core.me;
                    if kv.lease == LeaseId::NONE {
                        tracing::warn!("{me} waits until `{key}`, which has no lease, is deleted");
                    } else {
                        tracing::info!("{me} waits for the end of a former self");
                    }
                    let mut view = mirror.wait(done.revision).await?;
                    while view.get(key.as_bytes()).is_some() {
                        view = mirror.changed(&view).await?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Watches the lease and the own key, until one of them has ended.
    async fn watch_over(
        &self,
        keeper: &LeaseKeeper<S, R>,
        mirror: &Mirror<Entity<W>>,
    ) -> AllocatorError {
        let key = self.core.own_key();
        let (mut view, mut status) = (mirror.view(), LeaseStatus::Held);
        loop {
            tokio::select! {
                biased;
                now = keeper.changed(status) => status = now,
                later = mirror.changed(&view) => match later {
                    Ok(later) => view = later,
                    Err(error) => return error.into(),
                },
            }
            match status {
                LeaseStatus::Held => self.core.trust(true),
                LeaseStatus::Suspect => self.core.trust(false),
                LeaseStatus::Lost => return AllocatorError::LeaseLost,
            }
            if view.get(key.as_bytes()).is_none_or(|entry| entry.kv.lease != keeper.id()) {
                return AllocatorError::Removed(self.core.me.clone());
            }
        }
    }

    /// Waits for the shutdown, and then until nothing is held any more.
    async fn drain(&self, shutdown: impl Future<Output = ()>) -> Result<Left, AllocatorError> {
        shutdown.await;
        let until = self.options.drain_timeout.map(|wait| self.runtime.now().saturating_add(wait));
        self.core.drain();
        let drained = async {
            let handle = Handle { core: Arc::clone(&self.core) };
            let mut value = handle.value().unwrap_or_else(|| self.options.value.clone());
            value.set_exiting();
            let answered = self.core.ask(|errands, answer| {
                errands.amend.push_back(Amend { value, answer: Some(answer) });
            })?;
            answered.await.unwrap_or(Err(AllocatorError::Ended))?;
            self.core.drained().await;
            Ok(Left::default())
        };
        tokio::select! {
            biased;
            drained = drained => drained,
            () = sleep_until(&self.runtime, until) => {
                let held = self.core.lock().locals.held();
                Ok(Left { abandoned: held.into_iter().map(|held| held.item).collect() })
            }
        }
    }
}

impl<S, R, W: Workload, K> fmt::Debug for Allocator<S, R, W, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator").field("options", &self.options).finish_non_exhaustive()
    }
}

/// However a member ends, its workers are told, and whoever waits for it.
struct End<'a, R: Runtime, W: Workload, K: Worker<W>> {
    core: &'a Arc<Core<W>>,
    runtime: &'a R,
    worker: &'a Arc<K>,
}

impl<R: Runtime, W: Workload, K: Worker<W>> Drop for End<'_, R, W, K> {
    fn drop(&mut self) {
        worker::lose(self.core, self.runtime, self.worker);
        self.core.end();
    }
}
