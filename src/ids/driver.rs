//! What works for an instance: it keeps the session, sends what the desk plans, and tells it what
//! came of it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    runtime::Runtime,
    store::{
        LeaseId, LeaseKeeper, LeaseStatus, Op, Pages, RangeResponse, Store, StoreError, Txn,
        mirror::View,
    },
};

use super::{
    desk::{Desk, Doomed, Phase},
    dice::Dice,
    error::IdsError,
    flights::{Aftermath, Flight},
    handle::{Alive, Core},
    layout::{Meta, Record},
    link::Link,
    notices::Notice,
    proof::prove,
    tenure::Tenure,
    txns::{acquire, release},
};

/// The driver. All that it knows is at the desk; all that it has is a lease.
pub(super) struct Driver<S, R: Runtime> {
    pub(super) link: Link<S, R>,
    pub(super) core: Arc<Core>,
    pub(super) alive: Weak<Alive>,
    pub(super) dice: Dice,
    pub(super) keeper: Option<LeaseKeeper<S, R>>,
    /// What the session was worth when it was last looked at.
    pub(super) status: LeaseStatus,
    pub(super) lives: u64,
    pub(super) reconcile_at: Duration,
    /// What all agreed on last, and the revision of it.
    pub(super) meta: (Meta, u64),
}

impl<S: Store, R: Runtime> Driver<S, R> {
    fn done(&self) -> bool {
        self.alive.strong_count() == 0 || self.core.lock().phase != Phase::Open
    }

    /// Works until nobody uses the instance any more.
    pub(super) async fn run(mut self) {
        while !self.done() {
            let prepared = self.prepare().await;
            // It may have taken long.
            let now = self.look();
            if let Err(error) = prepared {
                tracing::warn!("the ids wait for the store: {error}");
                self.core.lock().fail_waiting(error);
                self.pause().await;
                continue;
            }
            self.launch(now);
            self.wait().await;
        }
        self.finish().await;
    }

    async fn pause(&mut self) {
        let pause = self.back_off();
        tokio::select! {
            biased;
            () = self.link.runtime.sleep(pause) => {}
            () = self.ended() => {}
        }
    }

    async fn ended(&self) {
        while !self.done() {
            self.core.wake.notified().await;
        }
    }

    fn back_off(&self) -> Duration {
        let mut desk = self.core.lock();
        desk.back_off(self.link.runtime.now())
    }

    /// Sees to it that there is a session, and that what all agree on is known.
    async fn prepare(&mut self) -> Result<(), IdsError> {
        let back = self.link.lives() != self.lives;
        if back {
            self.lives = self.link.lives();
            self.keeper = None;
            let mut desk = self.core.lock();
            desk.end_session();
            desk.meta = None;
            drop(desk);
            self.core.reopen.notify_one();
            self.core.turned.notify_waiters();
        }
        let (meta, back) = {
            let desk = self.core.lock();
            (desk.meta, back || desk.went_back)
        };
        if meta.is_none() {
            self.core.lock().went_back = back;
            let (meta, revision) = self.link.meta(None, Some(self.meta), back).await?;
            let mut desk = self.core.lock();
            desk.went_back = false;
            desk.trouble = None;
            desk.stock.set_range(meta.range);
            desk.meta = Some((meta, revision));
            if meta.epoch != self.meta.0.epoch {
                desk.doubt_all();
                desk.tell(Notice::StoreRestored { epoch: meta.epoch });
            }
            self.meta = (meta, revision);
        }
        if self.session_status() == LeaseStatus::Lost { self.open_session().await } else { Ok(()) }
    }

    fn session_status(&self) -> LeaseStatus {
        let now = self.link.runtime.now();
        self.core.lock().session_status(now)
    }

    /// Looks what the session is worth now, and returns when that was.
    fn look(&mut self) -> Duration {
        let now = self.link.runtime.now();
        let status = self.core.lock().session_status(now);
        self.turn(status);
        now
    }

    async fn open_session(&mut self) -> Result<(), IdsError> {
        if self.keeper.take().is_some() {
            self.turn(LeaseStatus::Lost);
            self.core.lock().end_session();
            self.core.turned.notify_waiters();
        }
        let ttl = self.core.lock().options.ttl;
        let (store, runtime) = (self.link.store.clone(), self.link.runtime.clone());
        let asked_at = runtime.now();
        let drawn = LeaseId(1 + self.dice.roll() % LeaseId::MAX.0);
        let granted = Box::pin(LeaseKeeper::grant_as(store, runtime, ttl, drawn));
        let keeper = self.link.bounded(granted).await?;
        let (ttl, kept) = (keeper.ttl(), Arc::clone(keeper.validity()));
        let tenure = Arc::new(Tenure::new(keeper.id(), kept, asked_at, ttl));
        let (core, proven) = (Arc::downgrade(&self.core), Arc::downgrade(&tenure));
        self.link.runtime.spawn(prove(self.link.clone(), core, proven, ttl));
        self.keeper = Some(keeper);
        self.status = LeaseStatus::Held;
        let mut desk = self.core.lock();
        desk.trouble = None;
        desk.start_session(tenure);
        drop(desk);
        self.core.turned.notify_waiters();
        Ok(())
    }

    /// Takes note of what the session is worth now.
    fn turn(&mut self, status: LeaseStatus) {
        if status == self.status {
            return;
        }
        self.status = status;
        let mut desk = self.core.lock();
        match status {
            LeaseStatus::Held => desk.enqueue_waiting(),
            LeaseStatus::Suspect => desk.tell(Notice::Suspect),
            LeaseStatus::Lost => desk.tell(Notice::Lost),
        }
        drop(desk);
        self.core.turned.notify_waiters();
    }

    /// Sends all that can be sent now.
    fn launch(&self, now: Duration) {
        let limits = self.link.store.limits();
        loop {
            let mut desk = self.core.lock();
            // While the store fails, one at a time finds out whether it still does.
            let most = if desk.failures > 0 { 1 } else { desk.options.in_flight.max(1) };
            if desk.flights >= most || now < desk.pause_until {
                return;
            }
            let flight = desk.plan(&limits, now);
            let doomed = desk.take_doomed(&limits);
            if desk.stock.take_turned() {
                self.core.tick();
            }
            if flight.is_none() && doomed.is_empty() {
                return;
            }
            desk.flights += usize::from(flight.is_some()) + usize::from(!doomed.is_empty());
            let node = desk.options.node.clone();
            drop(desk);
            if let Some(flight) = flight {
                let (fence, lease) = (&flight.fence, flight.session.lease);
                let txn = acquire(&self.link.layout, fence, &node, lease, &flight.batch);
                self.link.runtime.spawn(fly(
                    self.link.clone(),
                    Arc::clone(&self.core),
                    flight,
                    txn,
                ));
            }
            if !doomed.is_empty() {
                let let_go = let_go(self.link.clone(), Arc::clone(&self.core), doomed);
                self.link.runtime.spawn(let_go);
            }
        }
    }

    async fn wait(&mut self) {
        let now = self.link.runtime.now();
        if now >= self.reconcile_at {
            self.reconcile(now);
        }
        let mut pause = self.reconcile_at.saturating_sub(now);
        {
            let desk = self.core.lock();
            if desk.pause_until > now {
                pause = pause.min(desk.pause_until.saturating_sub(now));
            }
            if let Some(session) = &desk.session {
                pause = pause.min(session.next_turn(now));
            }
        }
        let Some(keeper) = self.keeper.clone() else { return };
        let kept = keeper.status();
        if kept == LeaseStatus::Lost {
            return;
        }
        tokio::select! {
            biased;
            _ = keeper.changed(kept) => {}
            () = self.core.wake.notified() => {}
            () = self.link.runtime.sleep(pause) => {}
        }
    }

    /// Compares the references that stand with those that should.
    fn reconcile(&mut self, now: Duration) {
        let mut desk = self.core.lock();
        let interval = desk.options.reconcile_interval;
        // A tenth more or less, so that not all nodes ask at once.
        let tenth = u64::try_from((interval / 5).as_millis()).unwrap_or(u64::MAX).max(1);
        let jitter = Duration::from_millis(desk.dice.roll() % tenth);
        let pause = interval.saturating_sub(interval / 10).saturating_add(jitter);
        self.reconcile_at = now.saturating_add(pause);
        let Some(session) = desk.session.clone() else { return };
        let held = desk.held_names();
        drop(desk);
        let (link, core) = (self.link.clone(), Arc::clone(&self.core));
        self.link.runtime.spawn(async move {
            match link.lease(session.lease).await {
                Ok(state) => {
                    core.lock().reconcile(&session, &held, &state.keys);
                    core.wake.notify_one();
                }
                Err(error) => tracing::info!("references were not compared: {error}"),
            }
        });
    }

    /// Ends the lease and all references with it.
    async fn finish(mut self) {
        let patience = {
            let mut desk = self.core.lock();
            desk.close();
            desk.session = None;
            desk.options.patience
        };
        self.core.turned.notify_waiters();
        self.core.ticks.end();
        if let Some(keeper) = self.keeper.take() {
            tokio::select! {
                biased;
                () = self.let_all_go() => {}
                () = self.link.runtime.sleep(patience) => {
                    tracing::info!("some ids are left to a collector: it took too long");
                }
            }
            if let Err(error) = self.link.bounded(Box::pin(keeper.revoke())).await {
                tracing::info!("the references end with their lease: {error}");
            }
        }
        let mut desk = self.core.lock();
        desk.phase = Phase::Ended;
        // Whoever waits for what is left learns so by the drop.
        desk.abandon();
        for closed in std::mem::take(&mut desk.closing) {
            let _ = closed.send(());
        }
    }

    /// Deletes what the end of the lease would leave behind, for as long as the store does it, and
    /// waits for what is on its way: the end of the lease would overtake it.
    async fn let_all_go(&self) {
        let limits = self.link.store.limits();
        loop {
            let (doomed, waits) = {
                let mut desk = self.core.lock();
                let waits = !desk.leaving.is_empty();
                (desk.take_doomed(&limits), waits)
            };
            if doomed.is_empty() {
                if !waits {
                    return;
                }
                self.core.wake.notified().await;
                continue;
            }
            let batch: Vec<_> = doomed.iter().map(|doomed| doomed.release.clone()).collect();
            let answer = self.link.commit(release(&self.link.layout, &batch)).await;
            self.core.lock().settle_doomed(doomed, answer.is_ok());
            if let Err(error) = answer {
                return tracing::info!("some ids are left to a collector: {error}");
            }
        }
    }
}

impl Desk {
    /// Waits longer and longer while the store fails, each time by chance.
    pub(super) fn back_off(&mut self, now: Duration) -> Duration {
        let (first, max) = (self.options.backoff_first, self.options.backoff_max);
        let most = first.saturating_mul(1 << self.failures.min(20)).min(max);
        self.failures = self.failures.saturating_add(1);
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
        let pause = Duration::from_micros(self.dice.roll() % micros);
        self.pause_until = now.saturating_add(pause);
        pause
    }
}

/// Asks for keys.
async fn fly<S: Store, R: Runtime>(link: Link<S, R>, core: Arc<Core>, flight: Flight, txn: Txn) {
    let answer = link.commit(txn).await;
    let aftermath = {
        let mut desk = core.lock();
        desk.flights -= 1;
        let aftermath = desk.settle(&flight, answer, link.runtime.now());
        follow_up(&mut desk, &flight, &aftermath);
        if desk.stock.take_turned() {
            core.tick();
        }
        aftermath
    };
    core.turned.notify_waiters();
    core.wake.notify_one();
    let Aftermath { taken, revision, .. } = aftermath;
    if !taken.is_empty() {
        catch_up(&link, &core, revision).await;
        let exhausted = {
            let mut desk = core.lock();
            // Each of them is looked at.
            taken.iter().filter(|key| desk.retry_taken(key)).count() > 0
        };
        core.wake.notify_one();
        if exhausted {
            // It asks for help; if it fails, the next one that finds no id asks again.
            let _ = link.commit(Txn::new([Op::put(link.layout.urgent(), "")])).await;
        }
    }
}

fn follow_up(desk: &mut Desk, flight: &Flight, aftermath: &Aftermath) {
    desk.trouble = aftermath.failed.clone().map(IdsError::Store);
    if aftermath.failed.is_some() {
        let now = desk.now;
        desk.back_off(now);
    } else {
        desk.failures = 0;
    }
    if aftermath.moved && desk.meta.is_some_and(|(meta, _)| meta == flight.fence) {
        desk.meta = None;
    }
}

/// Lets the cache come to a revision, or reads which ids are used if there is none.
async fn catch_up<S: Store, R: Runtime>(link: &Link<S, R>, core: &Core, revision: u64) {
    let followed = core.lock().followed();
    let caught_up: Result<(), StoreError> = match followed {
        Some((mirror, life)) => {
            let view: Option<Arc<View<Record>>> = tokio::select! {
                biased;
                view = mirror.wait(revision) => view.ok(),
                () = link.runtime.sleep(Duration::from_secs(5)) => None,
            };
            if let Some(view) = view {
                core.lock().catch_up(&life, &view);
            }
            Ok(())
        }
        None => list(link, core).await,
    };
    if let Err(error) = caught_up {
        tracing::warn!("the ids could not be listed: {error}");
    }
}

async fn list<S: Store, R: Runtime>(link: &Link<S, R>, core: &Core) -> Result<(), StoreError> {
    let mut pages = Pages::new(&link.store, link.layout.ids()).keys_only();
    let mut used = Vec::new();
    while let Some(page) = link.bounded(Box::pin(pages.next())).await? {
        let RangeResponse { items, .. } = page;
        used.extend(items.iter().filter_map(|kv| link.layout.parse_id(&kv.key)));
    }
    let mut desk = core.lock();
    let range = desk.stock.pool().range();
    desk.stock.refill(range, used);
    Ok(())
}

/// Deletes references.
async fn let_go<S: Store, R: Runtime>(link: Link<S, R>, core: Arc<Core>, doomed: Vec<Doomed>) {
    let batch: Vec<_> = doomed.iter().map(|doomed| doomed.release.clone()).collect();
    let answer = link.commit(release(&link.layout, &batch)).await;
    let mut desk = core.lock();
    desk.now = link.runtime.now();
    desk.flights -= 1;
    if let Err(error) = &answer {
        tracing::info!("references are let go later: {error}");
        let now = desk.now;
        desk.back_off(now);
    } else {
        desk.failures = 0;
    }
    desk.settle_doomed(doomed, answer.is_ok());
    drop(desk);
    core.wake.notify_one();
}
