//! The desk: which keys are wanted by whom, what stands of them, and what is to be done next.
//!
//! ```text
//!  callers --want--> slots --plan--> transactions --settle--> slots --answer--> callers
//!  handles --give back-->  |
//!                          +--> doomed references, until they are deleted or their session ends
//! ```
//!
//! A reference has a name that is used once. So letting one go and coming to use the key again may
//! overtake each other, and a request that was thought lost may still be done.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt, mem,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{broadcast, oneshot};

use crate::store::{
    Bytes, LeaseStatus,
    mirror::{Mirror, View},
};

use super::{
    config::{Caching, Creation, Options, Reclaim},
    dice::Dice,
    error::IdsError,
    forecast::Forecast,
    layout::{KeyHash, Layout, Mapping, Meta, Record, RefName},
    life::{Life, Origin},
    notices::Notice,
    shelf::Shelf,
    slot::Standing,
    source::{Known, Mirrored},
    stock::Stock,
    tenure::Tenure,
    txns::{Eager, Release},
};

/// What a caller gets.
pub(super) type Granted = (Arc<Life>, Origin);

/// Somebody who waits for a key.
pub(super) struct Waiter {
    pub(super) owner: Option<Arc<str>>,
    pub(super) answer: oneshot::Sender<Result<Granted, IdsError>>,
}

/// A key that is wanted, used, or being asked for.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) hash: Option<KeyHash>,
    pub(super) standing: Standing,
    pub(super) flying: bool,
    pub(super) queued: bool,
    /// The reference that stands or is asked for.
    pub(super) name: Option<RefName>,
    /// For the mapping that may be created; 0: none may.
    pub(super) nonce: u64,
    /// The mapping was created for those who wait.
    pub(super) created: bool,
    /// The revision at which the reference was written.
    pub(super) attached: u64,
    /// The same of the reference that stood when the store last proved to be what it was.
    pub(super) proven: u64,
    pub(super) life: Option<Arc<Life>>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) tries: u32,
    /// Who waits until it is let go.
    pub(super) leaving: Vec<oneshot::Sender<()>>,
}

impl Slot {
    /// How many use it.
    pub(super) fn uses(&self) -> usize {
        self.life.as_ref().map_or(0, |life| life.uses())
    }

    pub(super) fn wanted(&self) -> bool {
        self.uses() > 0 || self.waiters.iter().any(|waiter| !waiter.answer.is_closed())
    }
}

/// How far an instance has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Open,
    /// Nothing is granted any more.
    Closing,
    /// What was held is let go, or left to end by itself.
    Ended,
}

/// A reference that is to go.
pub(super) struct Doomed {
    pub(super) release: Release,
    pub(super) leaving: Vec<oneshot::Sender<()>>,
}

/// All of it.
pub(super) struct Desk {
    pub(super) layout: Layout,
    pub(super) options: Options,
    pub(super) slots: HashMap<Bytes, Slot>,
    /// The lives of the slots that have one.
    pub(super) shelf: Arc<Shelf>,
    pub(super) ready: VecDeque<Bytes>,
    pub(super) doomed: VecDeque<Doomed>,
    /// Doomed references whose deletion is on its way.
    pub(super) leaving: BTreeSet<RefName>,
    /// Keys that wait for a candidate to be given back.
    pub(super) starved: Vec<Bytes>,
    pub(super) session: Option<Arc<Tenure>>,
    /// What all agree on, and the revision of it.
    pub(super) meta: Option<(Meta, u64)>,
    pub(super) stock: Stock,
    pub(super) dice: Dice,
    /// How many references were asked for.
    pub(super) serial: u64,
    pub(super) notices: broadcast::Sender<Notice>,
    /// The store was found to be at an earlier revision than it was.
    pub(super) went_back: bool,
    pub(super) phase: Phase,
    /// How many batches are on their way.
    pub(super) flights: usize,
    /// Why the store did not do what it was asked for last.
    pub(super) trouble: Option<IdsError>,
    /// How often in a row the store has failed, and until when nothing is sent.
    pub(super) failures: u32,
    pub(super) pause_until: Duration,
    /// The runtime's time when it was last looked at.
    pub(super) now: Duration,
    pub(super) mirror: Option<Mirror<Record>>,
    pub(super) low: bool,
    pub(super) forecast: Forecast,
    /// Who waits for the end.
    pub(super) closing: Vec<oneshot::Sender<()>>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Desk {
    pub(super) fn new(layout: Layout, options: Options, meta: (Meta, u64), mut dice: Dice) -> Self {
        let stock_dice = Dice::new(Some(dice.roll()));
        let stock = Stock::new(layout.clone(), meta.0.range, stock_dice);
        Self {
            layout,
            options,
            slots: HashMap::new(),
            shelf: Arc::default(),
            ready: VecDeque::new(),
            doomed: VecDeque::new(),
            leaving: BTreeSet::new(),
            starved: Vec::new(),
            session: None,
            meta: Some(meta),
            stock,
            dice,
            serial: 0,
            notices: broadcast::Sender::new(1_024),
            went_back: false,
            phase: Phase::Open,
            flights: 0,
            trouble: None,
            failures: 0,
            pause_until: Duration::ZERO,
            now: Duration::ZERO,
            mirror: None,
            low: false,
            forecast: Forecast::default(),
            closing: Vec::new(),
        }
    }

    /// Tells whoever listens.
    pub(super) fn tell(&self, notice: Notice) {
        // Nobody listens, nobody is told.
        let _ = self.notices.send(notice);
    }

    /// What the session is worth at a time.
    pub(super) fn session_status(&self, now: Duration) -> LeaseStatus {
        self.session.as_ref().map_or(LeaseStatus::Lost, |session| session.status_at(now))
    }

    /// Asks for a key.
    pub(super) fn want(&mut self, key: &Bytes, waiter: Waiter) {
        if self.phase != Phase::Open {
            let _ = waiter.answer.send(Err(IdsError::Closed));
            return;
        }
        let slot = self.slots.entry(key.clone()).or_default();
        if slot.hash.is_none() {
            slot.hash = Some(KeyHash::of(key));
        }
        slot.waiters.push(waiter);
        self.enqueue(key);
    }

    /// Has a key looked at.
    pub(super) fn enqueue(&mut self, key: &Bytes) {
        if let Some(slot) = self.slots.get_mut(key)
            && !mem::replace(&mut slot.queued, true)
        {
            self.ready.push_back(key.clone());
        }
    }

    /// Has all keys looked at that somebody waits for.
    pub(super) fn enqueue_waiting(&mut self) {
        let waiting = self.slots.iter().filter(|(_, slot)| !slot.waiters.is_empty());
        let mut keys: Vec<Bytes> = waiting.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        for key in keys {
            self.enqueue(&key);
        }
    }

    /// Takes note that the last use of a key has ended; tells when its reference is gone.
    pub(super) fn leave(&mut self, key: &Bytes) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        if let Some(slot) = self.slots.get_mut(key) {
            slot.leaving.push(sender);
        }
        self.enqueue(key);
        receiver
    }

    /// Ends all uses of an owner. Returns how many there were.
    pub(super) fn release_owner(&mut self, owner: &str) -> usize {
        let mut keys: Vec<Bytes> = Vec::new();
        let mut count = 0;
        for (key, slot) in &self.slots {
            let ended = slot.life.as_ref().map_or(0, |life| life.release_owner(owner));
            count += ended;
            if ended > 0 {
                keys.push(key.clone());
            }
        }
        keys.sort_unstable();
        for key in keys {
            self.enqueue(&key);
        }
        count
    }

    /// Begins a session: whatever stood in the last one is to be acquired again.
    pub(super) fn start_session(&mut self, session: Arc<Tenure>) {
        self.end_session();
        self.session = Some(session);
        let mut keys: Vec<Bytes> = self.slots.keys().cloned().collect();
        keys.sort_unstable();
        for key in keys {
            self.enqueue(&key);
        }
    }

    /// Ends the session: its references are gone, or will be with its lease.
    pub(super) fn end_session(&mut self) {
        if self.session.take().is_none() {
            return;
        }
        self.doubt_all();
        for slot in self.slots.values_mut() {
            slot.standing = Standing::Absent;
            slot.name = None;
        }
        self.doomed.clear();
    }

    /// Makes sure again of everything that is held.
    pub(super) fn doubt_all(&mut self) {
        let mut held: Vec<Bytes> = self.slots.keys().cloned().collect();
        held.sort_unstable();
        for key in held {
            self.doubt(&key);
        }
    }

    /// Makes sure again of a key, if it is held.
    pub(super) fn doubt(&mut self, key: &Bytes) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.standing == Standing::Held {
            slot.standing = Standing::Unknown;
            if let Some(life) = &slot.life {
                life.lose();
            }
            self.enqueue(key);
        }
    }

    /// Dooms a slot's reference, if one was asked for.
    pub(super) fn doom(&mut self, slot: &mut Slot) {
        let leaving = mem::take(&mut slot.leaving);
        let known = slot.life.as_ref().filter(|_| slot.standing == Standing::Held);
        let eager = known.filter(|_| self.options.reclaim == Reclaim::Eager);
        let eager = eager.map(|life| {
            let (key, id, nonce) = (life.key.clone(), life.id, life.generation().nonce);
            Eager { mapping: Mapping { key, id, nonce }, attached: slot.attached }
        });
        if let (Some(name), Some(hash)) = (slot.name.take(), slot.hash) {
            self.doomed.push_back(Doomed { release: Release { hash, name, eager }, leaving });
        }
        slot.standing = Standing::Absent;
        self.forget(slot);
    }

    /// A slot is given up, with all that was known of its key.
    pub(super) fn forget(&mut self, slot: &Slot) {
        if let Some(life) = &slot.life {
            self.shelf.take(&life.key);
            self.stock.let_go(life.id);
        }
    }

    /// Whether keys without an id get one here.
    pub(super) fn creates(&self) -> bool {
        self.options.creation == Creation::Allowed
    }

    /// The mirror that the cache follows, and its life, to come back with.
    pub(super) fn followed(&self) -> Option<(Mirror<Record>, Arc<Mirrored>)> {
        let life = Arc::clone(self.stock.source().life());
        self.mirror.clone().map(|mirror| (mirror, life))
    }

    /// Goes on to a view for which somebody has waited, unless the cache follows another mirror by
    /// now: this one may know of a later revision, of a store that has been put back since.
    pub(super) fn catch_up(&mut self, life: &Arc<Mirrored>, view: &Arc<View<Record>>) {
        if Arc::ptr_eq(life, self.stock.source().life()) {
            self.advance(view);
        }
    }

    /// Goes on to a later view of the cache, and makes sure of keys that it shows to be gone.
    pub(super) fn advance(&mut self, view: &Arc<View<Record>>) {
        if !self.stock.source().is_loaded() {
            self.doubt_missing(view);
        }
        let slots = &self.slots;
        let ours = |known: &Known| {
            let slot = slots.get(&known.key).filter(|slot| slot.wanted());
            let life = slot.and_then(|slot| slot.life.as_ref());
            life.is_some_and(|life| life.generation().revision == known.revision)
        };
        for turn in self.stock.advance(view, ours) {
            let Some(before) = turn.before else { continue };
            if turn.after.is_some_and(|after| after.revision == before.revision) {
                continue;
            }
            let life = self.slots.get(&before.key).and_then(|slot| slot.life.as_ref());
            if life.is_some_and(|life| life.generation().revision == before.revision) {
                self.doubt(&before.key);
            }
        }
        self.feed();
        self.watch_level();
    }

    /// Makes sure of keys that the first view of a mirror does not show as they are held: what
    /// happened before it, nobody has told.
    fn doubt_missing(&mut self, view: &View<Record>) {
        let mut missing: Vec<(Known, bool)> = Vec::new();
        for slot in self.slots.values() {
            let Some(life) = slot.life.as_ref().filter(|_| slot.attached <= view.revision()) else {
                continue;
            };
            let entry = view.get(&self.layout.id(life.id));
            let revision = life.generation().revision;
            if entry.is_none_or(|entry| entry.kv.mod_revision != revision) {
                let known = Known { id: life.id, key: life.key.clone(), revision };
                missing.push((known, entry.is_none() && slot.wanted()));
            }
        }
        missing.sort_unstable_by_key(|(known, _)| known.id);
        for (known, keep) in missing {
            self.doubt(&known.key);
            if keep {
                self.stock.keep(known);
            }
        }
    }

    /// Warns when ids run low, once until there are clearly more again.
    fn watch_level(&mut self) {
        let pool = self.stock.pool();
        let (used, total) = (pool.unavailable(), pool.range().total());
        let percent = u128::from(used) * 100 / u128::from(total.max(1));
        let mark = u128::from(self.options.watermark_percent);
        if percent >= mark && !self.low {
            self.low = true;
            let full_in = self.forecast.full_in(self.now, used, total);
            self.tell(Notice::Low { used, total, full_in });
        } else if percent + 5 < mark {
            self.low = false;
        }
        self.forecast.note(self.now, used);
    }

    /// The names of the references that are held.
    pub(super) fn held_names(&self) -> BTreeSet<RefName> {
        let held = self.slots.values().filter(|slot| slot.standing == Standing::Held);
        held.filter_map(|slot| slot.name).collect()
    }

    /// Compares the references that stand in the store with those that should: dooms those that
    /// nobody uses, and makes sure of those that were held and are not there.
    pub(super) fn reconcile(
        &mut self,
        asked: &Arc<Tenure>,
        held: &BTreeSet<RefName>,
        standing: &[Bytes],
    ) {
        if self.session.as_ref().is_none_or(|session| !Arc::ptr_eq(session, asked)) {
            return;
        }
        let ours = standing.iter().filter_map(|key| self.layout.parse_reference(key));
        let ours: BTreeMap<RefName, KeyHash> = ours
            .filter(|(_, name)| name.session == asked.lease)
            .map(|(hash, name)| (name, hash))
            .collect();
        let mut known: BTreeSet<RefName> = self.leaving.clone();
        known.extend(self.slots.values().filter_map(|slot| slot.name));
        known.extend(self.doomed.iter().map(|doomed| doomed.release.name));
        for (name, hash) in ours.iter().filter(|(name, _)| !known.contains(name)) {
            let release = Release { hash: *hash, name: *name, eager: None };
            self.doomed.push_back(Doomed { release, leaving: Vec::new() });
        }
        let missing = |slot: &Slot| {
            slot.name.is_some_and(|name| held.contains(&name) && !ours.contains_key(&name))
        };
        let mut missing: Vec<Bytes> = self
            .slots
            .iter()
            .filter(|(_, slot)| missing(slot))
            .map(|(key, _)| key.clone())
            .collect();
        missing.sort_unstable();
        for key in missing {
            self.doubt(&key);
        }
        if self.options.caching == Caching::Lazy {
            // Nobody tells if a mapping goes, so the next proof asks for each.
            self.slots.values_mut().for_each(|slot| slot.proven = 0);
        }
    }

    /// Takes note of why nothing can be asked for, and tells all that wait if it is for good.
    pub(super) fn fail_waiting(&mut self, error: IdsError) {
        if error.is_final() {
            // Each is looked at, since nobody may want it any more.
            self.enqueue_waiting();
            for waiter in self.slots.values_mut().flat_map(|slot| slot.waiters.drain(..)) {
                let _ = waiter.answer.send(Err(error.clone()));
            }
        }
        self.trouble = Some(error);
    }

    /// Leaves what is doomed to the end of the lease.
    pub(super) fn abandon(&mut self) {
        self.doomed.clear();
        self.leaving.clear();
    }

    /// Lets everything go; nothing is granted any more. What the lease does not take along is
    /// doomed.
    pub(super) fn close(&mut self) {
        self.phase = self.phase.max(Phase::Closing);
        self.mirror = None;
        self.shelf.clear();
        let eager = self.options.reclaim == Reclaim::Eager;
        if !eager {
            self.abandon();
        }
        let mut slots: Vec<(Bytes, Slot)> = mem::take(&mut self.slots).into_iter().collect();
        slots.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (_, mut slot) in slots {
            if let Some(life) = &slot.life {
                life.close();
            }
            if eager {
                self.doom(&mut slot);
            }
        }
        self.ready.clear();
        self.starved.clear();
    }
}
