//! What stands at each revision that is still remembered, and what each of them changed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::store::{
    error::Refusal,
    kv::{Bytes, Event, Events, KeyRange, KeyValue, LeaseId},
    tree::Tree,
    txn::{RangeRequest, RangeResponse},
};

/// What a key was from one revision on.
#[derive(Clone, Debug)]
pub(super) enum Version {
    Put(Arc<KeyValue>),
    Gone(u64),
}

impl Version {
    pub(super) fn revision(&self) -> u64 {
        match self {
            Self::Put(kv) => kv.mod_revision,
            Self::Gone(revision) => *revision,
        }
    }

    pub(super) fn standing(&self) -> Option<&Arc<KeyValue>> {
        match self {
            Self::Put(kv) => Some(kv),
            Self::Gone(_) => None,
        }
    }

    fn event(&self, key: &Bytes) -> Event {
        match self {
            Self::Put(kv) => Event::Put(Arc::clone(kv)),
            Self::Gone(_) => Event::Delete(key.clone()),
        }
    }
}

/// A key's versions, oldest first; the last one apart, because most keys have no other.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) older: Vec<Version>,
    pub(super) latest: Version,
}

impl Cell {
    /// What stood at a revision.
    fn at(&self, revision: u64) -> Option<&Arc<KeyValue>> {
        self.version_at(revision).and_then(Version::standing)
    }

    fn version_at(&self, revision: u64) -> Option<&Version> {
        if self.latest.revision() <= revision {
            return Some(&self.latest);
        }
        self.older.iter().rev().find(|version| version.revision() <= revision)
    }

    fn push(&mut self, version: Version) {
        self.older.push(std::mem::replace(&mut self.latest, version));
    }

    /// Forgets what is not needed to know what stood at `revision` and later.
    /// Returns whether nothing is left.
    fn compact(&mut self, revision: u64) -> bool {
        if self.latest.revision() <= revision {
            self.older = Vec::new();
            return matches!(self.latest, Version::Gone(_));
        }
        let later = self.older.partition_point(|version| version.revision() <= revision);
        let last = later.saturating_sub(1);
        let gone = matches!(self.older.get(last), Some(Version::Gone(_)));
        self.older.drain(..if gone { later } else { last });
        if self.older.is_empty() {
            self.older = Vec::new();
        }
        false
    }
}

/// What one revision changed.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The machine's time then.
    pub(super) at: Duration,
    pub(super) events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) cells: Tree<Cell>,
    /// The changes of the revisions after `compacted`, up to `revision`.
    pub(super) changes: VecDeque<Arc<Change>>,
    pub(super) compacted: u64,
    pub(super) revision: u64,
    /// What the next revision has changed so far.
    pub(super) pending: Vec<Event>,
}

impl Default for History {
    fn default() -> Self {
        // An empty store is at revision 1, as etcd's is.
        let first = Change { at: Duration::ZERO, events: Vec::new() };
        Self {
            cells: Tree::default(),
            changes: VecDeque::from([Arc::new(first)]),
            compacted: 0,
            revision: 1,
            pending: Vec::new(),
        }
    }
}

impl History {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.cells.get(key).and_then(|cell| cell.latest.standing())
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
        let many = many.into_iter().flatten().filter_map(|(_, cell)| cell.latest.standing());
        single.flatten().into_iter().chain(many)
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
                let items = cells.filter_map(|(_, cell)| cell.at(revision));
                page(items, limit, request.keys_only)
            }
        };
        RangeResponse { revision: self.revision, items, more }
    }

    pub(super) fn put(&mut self, key: &Bytes, value: Bytes, lease: LeaseId) {
        let revision = self.revision + 1;
        let cell = self.cells.get_mut(key);
        let old = cell.as_ref().and_then(|cell| cell.latest.standing());
        let kv = Arc::new(KeyValue {
            // One copy of the key serves all its versions.
            key: old.map_or_else(|| key.clone(), |old| old.key.clone()),
            value,
            create_revision: old.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.map_or(1, |old| old.version + 1),
            lease,
        });
        self.pending.push(Event::Put(Arc::clone(&kv)));
        if let Some(cell) = cell {
            cell.push(Version::Put(kv));
        } else {
            let latest = Version::Put(Arc::clone(&kv));
            self.cells.insert(&kv.key, Cell { older: Vec::new(), latest });
        }
    }

    /// Deletes a key; returns what it was.
    pub(super) fn delete(&mut self, key: &[u8]) -> Option<Arc<KeyValue>> {
        let revision = self.revision + 1;
        let cell = self.cells.get_mut(key)?;
        let old = Arc::clone(cell.latest.standing()?);
        cell.push(Version::Gone(revision));
        self.pending.push(Event::Delete(old.key.clone()));
        Some(old)
    }

    /// Ends the next revision, if it has changed anything.
    pub(super) fn commit(&mut self, at: Duration) {
        if !self.pending.is_empty() {
            self.revision += 1;
            let events = std::mem::take(&mut self.pending);
            self.changes.push_back(Arc::new(Change { at, events }));
        }
    }

    /// Forgets the revisions that are more than `count` or older than `age`.
    pub(super) fn trim(&mut self, now: Duration, count: usize, age: Duration) {
        while let Some(oldest) = self.changes.front() {
            let old = oldest.at.saturating_add(age) < now;
            if !old && self.changes.len() <= count {
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
        let Some(change) = self.changes.pop_front() else { return };
        self.compacted += 1;
        for event in &change.events {
            let key = event.key();
            // Looked at first: most often nothing is to be forgotten, and nothing need be copied.
            let idle = self
                .cells
                .get(key)
                .is_none_or(|cell| cell.older.is_empty() && matches!(cell.latest, Version::Put(_)));
            if idle {
                continue;
            }
            let compacted = self.compacted;
            if self.cells.get_mut(key).is_some_and(|cell| cell.compact(compacted)) {
                self.cells.remove(key);
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
        let skip = usize::try_from(from - self.compacted - 1).unwrap_or(usize::MAX);
        let mut seen = from - 1;
        let mut found = Vec::new();
        for change in self.changes.iter().skip(skip) {
            if found.len() >= limit {
                return Ok((found, seen));
            }
            seen += 1;
            let events = change.events.iter().filter(|event| range.contains(event.key()));
            let events: Vec<Event> = events.cloned().collect();
            if !events.is_empty() {
                found.push(Events { revision: seen, events });
            }
        }
        Ok((found, seen))
    }

    /// The event that a key's version at exactly this revision was.
    pub(super) fn event_at(&self, key: &Bytes, revision: u64) -> Option<Event> {
        let version = self.cells.get(key)?.version_at(revision)?;
        (version.revision() == revision).then(|| version.event(key))
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
