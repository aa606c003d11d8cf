//! What the last revisions did, one change after the other, and what each of them replaced.

use std::{collections::VecDeque, hint::black_box, sync::Arc, time::Duration};

use crate::store::kv::{Event, KeyValue};

/// So many changes lie together; a clone shares all of them but the last.
const CHUNK_LEN: usize = 256;

/// So many of the oldest changes are looked at before they are forgotten one by one. What they hold
/// lies where nobody has been for long; looked at side by side, it is waited for once.
const AHEAD: u64 = 16;

/// What a key was, and the place of the change that made it so. The first place is 1; 0 stands for
/// "never".
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// `None`: it did not stand.
    pub(super) kv: Option<Arc<KeyValue>>,
    pub(super) place: u64,
}

/// What happened to one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) revision: u64,
    /// The machine's time then.
    pub(super) at: Duration,
    /// `None`: it was deleted.
    pub(super) new: Option<Arc<KeyValue>>,
    pub(super) old: Past,
}

impl Change {
    pub(super) fn event(&self) -> Option<Event> {
        match (&self.new, &self.old.kv) {
            (Some(new), _) => Some(Event::Put(Arc::clone(new))),
            (None, Some(old)) => Some(Event::Delete(old.key.clone())),
            (None, None) => None,
        }
    }

    /// What it was done to, as it was afterwards or, if it is gone, before.
    pub(super) fn kv(&self) -> Option<&Arc<KeyValue>> {
        self.new.as_ref().or(self.old.kv.as_ref())
    }
}

/// The changes, each in a place of its own. Places are counted from 1 on and are never used again.
#[derive(Clone, Debug)]
pub(super) struct Log {
    chunks: VecDeque<Arc<Vec<Change>>>,
    /// The place of the first change in the first chunk.
    base: u64,
    /// The place of the first change that is remembered.
    start: u64,
    /// The place of the next one.
    end: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), base: 1, start: 1, end: 1 }
    }
}

impl Log {
    /// The place that the next change will have.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn push(&mut self, change: Change) {
        if self.chunks.back().is_none_or(|last| last.len() >= CHUNK_LEN) {
            self.chunks.push_back(Arc::new(Vec::with_capacity(CHUNK_LEN)));
        }
        if let Some(last) = self.chunks.back_mut() {
            Arc::make_mut(last).push(change);
            self.end += 1;
        }
    }

    /// The change in a place, unless it is forgotten.
    pub(super) fn get(&self, place: u64) -> Option<&Change> {
        if place < self.start {
            return None;
        }
        let offset = usize::try_from(place - self.base).ok()?;
        self.chunks.get(offset / CHUNK_LEN)?.get(offset % CHUNK_LEN)
    }

    pub(super) fn first(&self) -> Option<&Change> {
        self.get(self.start)
    }

    pub(super) fn last(&self) -> Option<&Change> {
        self.get(self.end - 1)
    }

    /// Forgets the oldest; returns it with its place.
    pub(super) fn pop(&mut self) -> Option<(u64, Change)> {
        let place = self.start;
        if place.is_multiple_of(AHEAD) {
            self.look_ahead();
        }
        let offset = usize::try_from(place - self.base).ok()?;
        let chunk = self.chunks.front_mut()?;
        let change = match Arc::get_mut(chunk) {
            Some(chunk) => std::mem::take(chunk.get_mut(offset)?),
            None => chunk.get(offset)?.clone(),
        };
        self.start += 1;
        if offset + 1 >= CHUNK_LEN {
            self.chunks.pop_front();
            self.base = self.start;
        }
        Some((place, change))
    }

    /// Has the memory that the oldest changes hold brought near.
    fn look_ahead(&self) {
        let oldest = || (self.start..self.start + AHEAD).filter_map(|place| self.get(place));
        let held = oldest().flat_map(|change| [change.new.as_ref(), change.old.kv.as_ref()]);
        black_box(held.flatten().map(Arc::strong_count).sum::<usize>());
        let last = oldest().filter_map(|change| change.old.kv.as_ref());
        black_box(last.map(|kv| kv.value.holders() + kv.key.holders()).sum::<usize>());
    }

    /// Those of a revision and later.
    pub(super) fn since(&self, revision: u64) -> impl Iterator<Item = &Change> {
        let (mut low, mut high) = (self.start, self.end);
        while low < high {
            let middle = u64::midpoint(low, high);
            if self.get(middle).is_some_and(|change| change.revision < revision) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low..self.end).filter_map(|place| self.get(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64) -> Change {
        Change { revision, ..Change::default() }
    }

    #[test]
    fn what_is_forgotten_is_gone_and_the_rest_keeps_its_place() {
        let mut log = Log::default();
        assert!(log.last().is_none() && log.pop().is_none());
        for place in 1..=3_000 {
            assert_eq!(log.end(), place);
            log.push(change(place / 3));
            // Now and then somebody holds a clone.
            let clone = (place % 100 == 0).then(|| log.clone());
            if place > 700 {
                let oldest = log.pop().map(|(place, change)| (place, change.revision));
                assert_eq!(oldest, Some((place - 700, (place - 700) / 3)));
                assert!(log.get(place - 700).is_none());
                if let Some(clone) = clone {
                    let kept = clone.get(place - 700).map(|change| change.revision);
                    assert_eq!(kept, Some((place - 700) / 3));
                }
            }
            assert_eq!(log.last().map(|change| change.revision), Some(place / 3));
        }
        assert!(log.chunks.len() <= 700 / CHUNK_LEN + 2);
        let since: Vec<u64> = log.since(999).map(|change| change.revision).collect();
        assert_eq!(since, [999, 999, 999, 1_000]);
        assert_eq!(log.since(0).count(), 700);
        assert_eq!(log.since(1_001).count(), 0);
    }
}
