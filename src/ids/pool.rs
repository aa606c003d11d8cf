//! Which ids are free, as far as is known here: hints for candidates, never proof.
//!
//! An id is available, leased (a candidate of a transaction that is on its way) or unavailable. It
//! costs memory for the ids that are not available, so a range may be as large as numbers go.

use std::collections::{BTreeMap, BTreeSet};

use super::range::IdRange;

/// The states of a range of ids.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    range: IdRange,
    /// All that are not available.
    busy: Intervals,
    leased: BTreeSet<u64>,
}

impl Pool {
    /// A pool of a range, all of it available.
    pub fn new(range: IdRange) -> Self {
        Self { range, ..Self::default() }
    }

    /// The ids that it is about.
    pub fn range(&self) -> IdRange {
        self.range
    }

    /// How many are available.
    pub fn available(&self) -> u64 {
        self.range.total().saturating_sub(self.busy.len)
    }

    /// How many are leased.
    pub fn leased(&self) -> u64 {
        self.leased.len() as u64
    }

    /// How many are unavailable.
    pub fn unavailable(&self) -> u64 {
        self.busy.len.saturating_sub(self.leased())
    }

    /// Leases an available id: the first from a random place on, around the end of the range.
    pub fn lease(&mut self, random: u64) -> Option<u64> {
        let start = self.range.first() + random % self.range.total();
        let from = |start| self.busy.next_outside(start).filter(|id| self.range.contains(*id));
        let id = from(start).or_else(|| from(self.range.first()))?;
        self.busy.insert(id);
        self.leased.insert(id);
        Some(id)
    }

    /// Gives a leased id back. Whether it was leased.
    pub fn release(&mut self, id: u64) -> bool {
        self.leased.remove(&id) && self.busy.remove(id)
    }

    /// Makes a leased id unavailable. Whether it was leased.
    pub fn take(&mut self, id: u64) -> bool {
        self.leased.remove(&id)
    }

    /// Makes an unavailable id of the range available. Whether it was unavailable; a leased one
    /// stays leased.
    pub fn insert(&mut self, id: u64) -> bool {
        self.range.contains(id) && !self.leased.contains(&id) && self.busy.remove(id)
    }

    /// Makes an id of the range unavailable. Whether it was available.
    pub fn remove(&mut self, id: u64) -> bool {
        let leased = self.leased.remove(&id);
        self.range.contains(id) && !leased && self.busy.insert(id)
    }

    /// Makes all ids available that are not leased.
    pub fn clear(&mut self) {
        self.busy = Intervals::default();
        for id in &self.leased {
            self.busy.insert(*id);
        }
    }
}

/// A set of numbers, as the runs that it consists of.
#[derive(Clone, Debug, Default)]
struct Intervals {
    /// The first of each run, and its last.
    runs: BTreeMap<u64, u64>,
    len: u64,
}

impl Intervals {
    fn run_of(&self, number: u64) -> Option<(u64, u64)> {
        let (first, last) = self.runs.range(..=number).next_back()?;
        (*last >= number).then_some((*first, *last))
    }

    /// The least number from `start` on that is not in the set.
    fn next_outside(&self, start: u64) -> Option<u64> {
        match self.run_of(start) {
            None => Some(start),
            Some((_, last)) => last.checked_add(1),
        }
    }

    fn insert(&mut self, number: u64) -> bool {
        if self.run_of(number).is_some() {
            return false;
        }
        let before = number.checked_sub(1).and_then(|before| self.run_of(before));
        let after = number.checked_add(1).and_then(|after| self.run_of(after));
        if let Some((first, _)) = after {
            self.runs.remove(&first);
        }
        let first = before.map_or(number, |(first, _)| first);
        self.runs.insert(first, after.map_or(number, |(_, last)| last));
        self.len += 1;
        true
    }

    fn remove(&mut self, number: u64) -> bool {
        let Some((first, last)) = self.run_of(number) else { return false };
        self.runs.remove(&first);
        if first < number {
            self.runs.insert(first, number - 1);
        }
        if number < last {
            self.runs.insert(number + 1, last);
        }
        self.len -= 1;
        true
    }
}
