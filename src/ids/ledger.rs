//! Which keys nobody uses, and since when; and how fast their ids may be taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    layout::{KeyHash, Mapping},
    txns::Dead,
};

#[derive(Clone, Debug, Default)]
struct Count {
    mapping: Option<Mapping>,
    references: usize,
    /// Since when there is no reference, if there is a mapping and it is so.
    unused_since: Option<Duration>,
}

/// The references to each key, counted as they come and go.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    keys: BTreeMap<KeyHash, Count>,
    unused: BTreeSet<(Duration, KeyHash)>,
    mappings: usize,
}

impl Ledger {
    /// A key has a mapping, or has it no more.
    pub(super) fn mapping(&mut self, hash: KeyHash, mapping: Option<Mapping>, now: Duration) {
        let count = self.keys.entry(hash).or_default();
        self.mappings -= usize::from(count.mapping.is_some());
        self.mappings += usize::from(mapping.is_some());
        // Another mapping has another life, and so another grace.
        if let Some(since) = count.unused_since.take() {
            self.unused.remove(&(since, hash));
        }
        count.mapping = mapping;
        self.settle(hash, now);
    }

    /// A reference has come or gone.
    pub(super) fn reference(&mut self, hash: KeyHash, came: bool, now: Duration) {
        let count = self.keys.entry(hash).or_default();
        count.references =
            if came { count.references + 1 } else { count.references.saturating_sub(1) };
        self.settle(hash, now);
    }

    fn settle(&mut self, hash: KeyHash, now: Duration) {
        let Some(count) = self.keys.get_mut(&hash) else { return };
        let unused = count.mapping.is_some() && count.references == 0;
        match (unused, count.unused_since) {
            (true, None) => {
                count.unused_since = Some(now);
                self.unused.insert((now, hash));
            }
            (false, Some(since)) => {
                count.unused_since = None;
                self.unused.remove(&(since, hash));
            }
            (true, Some(_)) | (false, None) => {}
        }
        if count.mapping.is_none() && count.references == 0 {
            self.keys.remove(&hash);
        }
    }

    /// The mappings that nobody has used for the grace, the oldest first.
    pub(super) fn due(&self, now: Duration, grace: Duration, most: usize) -> Vec<Dead> {
        let due = self.unused.iter().take_while(|(since, _)| since.saturating_add(grace) <= now);
        let dead = due.filter_map(|(_, hash)| {
            Some(Dead { hash: *hash, mapping: self.keys.get(hash)?.mapping.clone()? })
        });
        dead.take(most).collect()
    }

    /// Since when the oldest is unused.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.unused.first().map(|(since, _)| *since)
    }

    /// How many mappings there are, and how many of them nobody uses.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.mappings, self.unused.len())
    }
}

/// How many may be taken back: so many in an interval, and no more at once.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    limit: u32,
    interval: Duration,
    /// How many have been taken in this interval, which began then.
    taken: u32,
    since: Duration,
}

impl Rate {
    pub(super) fn new(limit: u32, interval: Duration) -> Self {
        Self { limit: limit.max(1), interval, taken: 0, since: Duration::ZERO }
    }

    /// How many may be taken now.
    pub(super) fn allowed(&mut self, now: Duration) -> usize {
        if now.saturating_sub(self.since) >= self.interval {
            self.since = now;
            self.taken = 0;
        }
        self.limit.saturating_sub(self.taken) as usize
    }

    /// Takes note of an attempt, successful or not.
    pub(super) fn take(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// When more may be taken.
    pub(super) fn next(&self) -> Duration {
        self.since.saturating_add(self.interval)
    }
}
