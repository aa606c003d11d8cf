//! What stands at each revision that is still remembered, and what each of them changed.

use std::{sync::Arc, time::Duration};

use super::log::{Change, Log, Past};
use crate::store::{
    error::Refusal,
    kv::{Bytes, Events, KeyRange, KeyValue, LeaseId},
    tree::{Keyed, Tree},
    txn::{RangeRequest, RangeResponse},
};

/// A key: what it is, or was last, and where in the log that came to be. What it was before stands
/// there.
///
/// What a put has to know of the last one stands here once more, so that it need not look it up
/// elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    kv: Arc<KeyValue>,
    place: u64,
    create_revision: u64,
    /// Zero: it stands no more, and is remembered for those who read what was.
    version: u64,
    lease: LeaseId,
}

impl Keyed for Cell {
    fn key(&self) -> &[u8] {
        &self.kv.key
    }
}

impl Cell {
    /// A key that came to be before all that is remembered.
    pub(super) fn before_all(kv: Arc<KeyValue>) -> Self {
        Self::new(kv, 0)
    }

    fn new(kv: Arc<KeyValue>, place: u64) -> Self {
        let KeyValue { create_revision, version, lease, .. } = *kv;
        Self { kv, place, create_revision, version, lease }
    }

    fn stands(&self) -> bool {
        self.version > 0
    }

    pub(super) fn standing(&self) -> Option<&Arc<KeyValue>> {
        Some(&self.kv).filter(|_| self.stands())
    }
}

#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) cells: Tree<Cell>,
    /// The changes of the revisions after `compacted`, up to `revision` and, while a command is
    /// applied, the next one.
    pub(super) log: Log,
    pub(super) compacted: u64,
    pub(super) revision: u64,
}

impl Default for History {
    fn default() -> Self {
        // An empty store is at revision 1, as etcd's is.
        Self { cells: Tree::default(), log: Log::default(), compacted: 0, revision: 1 }
    }
}

impl History {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.cells.get(key).and_then(Cell::standing)
    }

    /// What stands in a range, changes of the next revision included.
    pub(super) fn standing<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> {
        let single = match range {
            KeyRange::Key(key) => Some(self.get(key)),
            KeyRange::Span { .. } => None,
        };
        let many = single.is_none().then(|| self.cells.range(range));
        let many = many.into_iter().flatten().filter_map(Cell::standing);
        single.flatten().into_iter().chain(many)
    }

    /// What a key was at a revision that can be read.
    pub(super) fn at<'a>(&'a self, cell: &'a Cell, revision: u64) -> Option<&'a Arc<KeyValue>> {
        let (mut kv, mut place) = (cell.standing(), cell.place);
        loop {
            match kv {
                Some(kv) if kv.mod_revision <= revision => return Some(kv),
                // A deletion that is forgotten was before everything that can be read.
                None if self.log.get(place).is_none_or(|change| change.revision <= revision) => {
                    return None;
                }
                Some(_) | None => {}
            }
            let before = &self.log.get(place)?.old;
            (kv, place) = (before.kv.as_ref(), before.place);
        }
    }

    /// The revision of a key's last change, if that is remembered.
    pub(super) fn changed_at(&self, key: &[u8]) -> Option<u64> {
        let cell = self.cells.get(key)?;
        self.log.get(cell.place).map(|change| change.revision)
    }

    /// Whether a revision can be read.
    pub(super) fn check(&self, revision: Option<u64>) -> Result<(), Refusal> {
        match revision {
            Some(requested) if requested > self.revision => {
                Err(Refusal::Ahead { requested, current: self.revision })
            }
            Some(revision) if revision < self.compacted => {
                Err(Refusal::Compacted { compacted: self.compacted })
            }
            _ => Ok(()),
        }
    }

    /// Reads at a revision that was checked.
    pub(super) fn range(&self, request: &RangeRequest) -> RangeResponse {
        let limit = request.limit.unwrap_or(usize::MAX);
        let (items, more) = match request.revision {
            None => page(self.standing(&request.range), limit, request.keys_only),
            Some(revision) => {
                let cells = self.cells.range(&request.range);
                let items = cells.filter_map(|cell| self.at(cell, revision));
                page(items, limit, request.keys_only)
            }
        };
        RangeResponse { revision: self.revision, items, more }
    }

    /// Puts a key at the next revision; returns the lease that it had.
    pub(super) fn put(
        &mut self,
        key: &Bytes,
        value: Bytes,
        lease: LeaseId,
        at: Duration,
    ) -> LeaseId {
        let (revision, place, log) = (self.revision + 1, self.log.end(), &mut self.log);
        let mut had = LeaseId::NONE;
        self.cells.update(key, |cell| {
            let old = cell.as_deref().filter(|cell| cell.stands());
            had = old.map_or(LeaseId::NONE, |old| old.lease);
            let (create_revision, version) =
                old.map_or((revision, 1), |old| (old.create_revision, old.version + 1));
            // One copy of the key serves all its versions, where it needs memory of its own.
            let key = cell.as_deref().filter(|_| key.is_long()).map_or(key, |cell| &cell.kv.key);
            let (key, mod_revision) = (key.clone(), revision);
            let new = KeyValue { key, value, create_revision, mod_revision, version, lease };
            let new = Arc::new(new);
            let next = Cell::new(Arc::clone(&new), place);
            let (old, added) = match cell {
                Some(cell) => (std::mem::replace(cell, next).into(), None),
                None => (Past::default(), Some(next)),
            };
            log.push(Change { revision, at, new: Some(new), old });
            added
        });
        had
    }

    /// Deletes a key at the next revision; returns the lease that it had.
    pub(super) fn delete(&mut self, key: &[u8], at: Duration) -> Option<LeaseId> {
        let (revision, place, log) = (self.revision + 1, self.log.end(), &mut self.log);
        let mut had = None;
        self.cells.update(key, |cell| {
            if let Some(cell) = cell.filter(|cell| cell.stands()) {
                had = Some(cell.lease);
                let next = Cell { place, version: 0, ..cell.clone() };
                let old = std::mem::replace(cell, next).into();
                log.push(Change { revision, at, new: None, old });
            }
            None
        });
        had
    }

    /// Ends the next revision, if it has changed anything.
    pub(super) fn commit(&mut self) {
        if self.log.last().is_some_and(|last| last.revision > self.revision) {
            self.revision += 1;
        }
    }

    /// Forgets the revisions that are more than `count` or older than `age`.
    pub(super) fn trim(&mut self, now: Duration, count: usize, age: Duration) {
        while self.compacted < self.revision {
            // The first revision of all changed nothing, and was at the beginning.
            let oldest = self.log.first().filter(|first| first.revision == self.compacted + 1);
            let old = oldest.map_or(Duration::ZERO, |first| first.at).saturating_add(age) < now;
            if !old && self.revision - self.compacted <= count as u64 {
                break;
            }
            self.compact_next();
        }
    }

    pub(super) fn compact(&mut self, revision: u64) -> Result<(), Refusal> {
        if revision > self.revision {
            return Err(Refusal::Ahead { requested: revision, current: self.revision });
        }
        if revision <= self.compacted {
            return Err(Refusal::Compacted { compacted: self.compacted });
        }
        while self.compacted < revision {
            self.compact_next();
        }
        Ok(())
    }

    fn compact_next(&mut self) {
        self.compacted += 1;
        while self.log.first().is_some_and(|first| first.revision <= self.compacted) {
            let Some((place, change)) = self.log.pop() else { return };
            if let (None, Some(old)) = (&change.new, &change.old.kv) {
                let last = self.cells.get(&old.key).is_some_and(|cell| cell.place == place);
                if last {
                    self.cells.remove(&old.key);
                }
            }
        }
    }

    /// What happened in a range from a revision on: at most `limit` revisions that changed
    /// anything there, and the last revision that was looked at.
    pub(super) fn events(
        &self,
        range: &KeyRange,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<Events>, u64), Refusal> {
        if from <= self.compacted {
            return Err(Refusal::Compacted { compacted: self.compacted });
        }
        let mut found: Vec<Events> = Vec::new();
        if from > self.revision {
            return Ok((found, from - 1));
        }
        for change in self.log.since(from) {
            let revision = change.revision;
            let begun = found.last().is_some_and(|last| last.revision == revision);
            if !begun && found.len() >= limit {
                return Ok((found, revision - 1));
            }
            if change.kv().is_some_and(|kv| range.contains(&kv.key))
                && let Some(event) = change.event()
            {
                match found.last_mut().filter(|_| begun) {
                    Some(last) => last.events.push(event),
                    None => found.push(Events { revision, events: vec![event] }),
                }
            }
        }
        Ok((found, self.revision))
    }
}

impl From<Cell> for Past {
    fn from(cell: Cell) -> Self {
        let stands = cell.stands();
        Self { kv: Some(cell.kv).filter(|_| stands), place: cell.place }
    }
}

fn page<'a>(
    mut items: impl Iterator<Item = &'a Arc<KeyValue>>,
    limit: usize,
    keys_only: bool,
) -> (Vec<Arc<KeyValue>>, bool) {
    let whole = items.by_ref().take(limit);
    let page = if keys_only {
        whole.map(|kv| Arc::new(KeyValue { value: Bytes::default(), ..(**kv).clone() })).collect()
    } else {
        whole.cloned().collect()
    };
    (page, items.next().is_some())
}
