//! What happens to the ids, as a stream for one reader: without a gap, and without a queue.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Weak},
};

use crate::store::{Bytes, mirror::View};

use super::{
    handle::{Alive, Core},
    layout::Record,
    source::{Kept, Known, Mirrored, Source, ids, known},
    ticks::Ticks,
};

/// What happened to an id. `origin` is the name of the remote cache; `None`: the own store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is a key's now.
    Upsert {
        /// Where.
        origin: Option<Arc<str>>,
        /// The id.
        id: u64,
        /// The key that has it.
        key: Bytes,
        /// The key that had it before, as far as this reader was told.
        before: Option<Bytes>,
        /// The revision at which it was given to the key.
        revision: u64,
    },
    /// It is nobody's any more. One that was deleted while it is in use here, and comes back with
    /// the same key, is not told to have been gone.
    Delete {
        /// Where.
        origin: Option<Arc<str>>,
        /// The id.
        id: u64,
        /// The key that had it.
        key: Bytes,
        /// A revision at which it had it no more; 0 if the remote cache that showed it is gone, for
        /// then it may still have it.
        revision: u64,
    },
    /// All that stood at a revision of the own store has been told. It comes once.
    Sync {
        /// The revision.
        revision: u64,
    },
}

/// What a reader has seen of a source.
#[derive(Clone)]
struct Seen {
    view: Arc<View<Record>>,
    life: Arc<Mirrored>,
    kept: Kept,
}

/// The events for one reader, what stands first. A reader that is slow is told less, and never
/// misses what has come of it; nobody waits for it.
pub struct Events {
    core: Weak<Core>,
    ticks: Arc<Ticks>,
    seen: BTreeMap<Option<Arc<str>>, Seen>,
    queue: VecDeque<Event>,
    /// Ids of the own store that do not stand, and are not told to be gone yet.
    kept: BTreeMap<u64, Known>,
    synced: bool,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("queued", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(alive: &Arc<Alive>) -> Self {
        let (core, ticks) = (Arc::downgrade(&alive.0), Arc::clone(&alive.0.ticks));
        let (seen, queue, kept) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new());
        Self { core, ticks, seen, queue, kept, synced: false }
    }

    /// Waits for the next event. `None`: the instance is gone. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            let ticks = Arc::clone(&self.ticks);
            let seen = ticks.count();
            self.collect()?;
            if self.queue.is_empty() && !ticks.changed(seen).await {
                return None;
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        if self.queue.is_empty() {
            self.collect()?;
        }
        self.queue.pop_front()
    }

    fn collect(&mut self) -> Option<()> {
        let core = self.core.upgrade()?;
        let mut now: BTreeMap<Option<Arc<str>>, Seen> = BTreeMap::new();
        let seen = |source: &Source| {
            let (view, life) = (Arc::clone(source.view()), Arc::clone(source.life()));
            Seen { view, life, kept: Arc::clone(source.kept()) }
        };
        {
            let desk = core.lock();
            if desk.stock.source().is_loaded() {
                now.insert(None, seen(desk.stock.source()));
            } else if let Some(last) = self.seen.get(&None) {
                // It begins anew; until then what was told stands.
                now.insert(None, last.clone());
            }
        }
        for (name, remote) in core.remotes().iter() {
            now.insert(Some(Arc::clone(name)), seen(&remote.source));
        }
        let gone: Vec<_> =
            self.seen.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(Seen { view, .. }) = self.seen.remove(&name) {
                let view: Vec<Known> = ids(&view).into_values().collect();
                self.queue.extend(view.into_iter().map(|known| deletion(name.as_ref(), known, 0)));
            }
        }
        for (name, seen) in now {
            let before = self.seen.insert(name.clone(), seen.clone());
            self.compare(name.as_ref(), before.as_ref(), &seen);
            if name.is_none() {
                self.give_up(&seen);
                if !self.synced {
                    self.synced = true;
                    self.queue.push_back(Event::Sync { revision: seen.view.revision() });
                }
            }
        }
        Some(())
    }

    /// Tells what is gone for good.
    fn give_up(&mut self, seen: &Seen) {
        if !self.synced {
            self.kept.clone_from(&seen.kept);
        }
        let revision = seen.view.revision();
        self.kept.retain(|id, known| {
            let kept = seen.kept.contains_key(id);
            if !kept {
                self.queue.push_back(deletion(None, known.clone(), revision));
            }
            kept
        });
    }

    fn compare(&mut self, name: Option<&Arc<str>>, before: Option<&Seen>, after: &Seen) {
        let revision = after.view.revision();
        let mut pairs: Vec<(Option<Known>, Option<Known>)> = Vec::new();
        match before {
            Some(Seen { view, life, .. }) if Arc::ptr_eq(life, &after.life) => {
                pairs.extend(
                    view.changes(&after.view).map(|change| {
                        (change.before.and_then(known), change.after.and_then(known))
                    }),
                );
            }
            Some(Seen { view, .. }) => {
                let (mut old, new) = (ids(view), ids(&after.view));
                pairs.extend(new.into_iter().map(|(id, known)| (old.remove(&id), Some(known))));
                pairs.extend(old.into_values().map(|known| (Some(known), None)));
            }
            None => {
                let kept = after.kept.values().cloned();
                let all = ids(&after.view).into_values().chain(kept);
                pairs.extend(all.map(|known| (None, Some(known))));
            }
        }
        let mut deletions = Vec::new();
        for pair in pairs {
            match pair {
                (before, Some(Known { id, key, revision })) => {
                    let origin = name.cloned();
                    let kept = if name.is_none() { self.kept.remove(&id) } else { None };
                    let before = before.or(kept).map(|known| known.key);
                    self.queue.push_back(Event::Upsert { origin, id, key, before, revision });
                }
                (Some(known), None) if after.kept.contains_key(&known.id) => {
                    self.kept.insert(known.id, known);
                }
                (Some(known), None) => deletions.push(deletion(name, known, revision)),
                (None, None) => {}
            }
        }
        self.queue.extend(deletions);
    }
}

fn deletion(name: Option<&Arc<str>>, known: Known, revision: u64) -> Event {
    Event::Delete { origin: name.cloned(), id: known.id, key: known.key, revision }
}
