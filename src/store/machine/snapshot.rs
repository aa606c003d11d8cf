//! The machine in parts that each fit a frame, and back again; foreign bytes give an error.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    apply::{Config, Machine},
    history::{Cell, Change, Version},
};
use crate::store::kv::{Bytes, KeyValue, LeaseId};

/// About how many bytes a part holds; a part with one larger value holds more.
const PART_LEN: usize = 1 << 20;

/// A part of a snapshot. The parts of one machine come in a fixed order, and all are needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part(Content);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    Head { revision: u64, compacted: u64, now: Duration, last_lease: LeaseId },
    Leases(Vec<(LeaseId, Duration, Duration)>),
    Cells(Vec<(Bytes, Vec<Stored>)>),
    Changes(Vec<(Duration, Vec<Bytes>)>),
    End { leases: usize, cells: usize },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stored {
    Put { value: Bytes, create_revision: u64, mod_revision: u64, version: u64, lease: LeaseId },
    Gone(u64),
}

/// Why parts make no machine. Fetch or make another snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a whole snapshot: {0}; nothing was kept of it: fetch or make another")]
pub struct SnapshotError(pub(in crate::store) &'static str);

impl Machine {
    /// The machine as it is now, in parts of about 1 MiB. Its [`Config`] is not part of it.
    pub fn snapshot(&self) -> impl Iterator<Item = Part> {
        let head = Content::Head {
            revision: self.history.revision,
            compacted: self.history.compacted,
            now: self.now,
            last_lease: self.leases.last_id,
        };
        let leases =
            self.leases.standing.iter().map(|(id, lease)| (*id, lease.ttl, lease.deadline));
        let cells = self.history.cells.iter().map(|(key, cell)| {
            let versions = cell.older.iter().chain([&cell.latest]).map(stored);
            (key.clone(), versions.collect())
        });
        let changes = self.history.changes.iter().map(|change| {
            (change.at, change.events.iter().map(|event| event.key().clone()).collect())
        });
        let end =
            Content::End { leases: self.leases.standing.len(), cells: self.history.cells.len() };
        std::iter::once(head)
            .chain(in_parts(leases, |_| 40).map(Content::Leases))
            .chain(in_parts(cells, cell_len).map(Content::Cells))
            .chain(in_parts(changes, change_len).map(Content::Changes))
            .chain([end])
            .map(Part)
    }
}

fn stored(version: &Version) -> Stored {
    match version {
        Version::Put(kv) => Stored::Put {
            value: kv.value.clone(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        },
        Version::Gone(revision) => Stored::Gone(*revision),
    }
}

fn cell_len((key, versions): &(Bytes, Vec<Stored>)) -> usize {
    let values = versions.iter().map(|version| match version {
        Stored::Put { value, .. } => 48 + value.len(),
        Stored::Gone(_) => 16,
    });
    16 + key.len() + values.sum::<usize>()
}

fn change_len((_, keys): &(Duration, Vec<Bytes>)) -> usize {
    32 + keys.iter().map(|key| 16 + key.len()).sum::<usize>()
}

fn in_parts<T>(
    items: impl Iterator<Item = T>,
    len: impl Fn(&T) -> usize,
) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        let mut part = Vec::new();
        let mut filled = 0;
        while filled < PART_LEN
            && let Some(item) = items.next()
        {
            filled += len(&item);
            part.push(item);
            // A large value gets a part of its own.
            if items.peek().is_some_and(|next| filled + len(next) > 4 * PART_LEN) {
                break;
            }
        }
        (!part.is_empty()).then_some(part)
    })
}

/// Builds a machine from the parts of a snapshot.
#[derive(Debug)]
pub struct Restore {
    machine: Machine,
    started: bool,
    ended: bool,
}

impl Restore {
    /// Waits for the first part.
    pub fn new(config: Config) -> Self {
        let mut machine = Machine::new(config);
        machine.history.changes.clear();
        Self { machine, started: false, ended: false }
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// [`SnapshotError`] where the parts do not fit together; the whole is of no use then.
    pub fn push(&mut self, part: Part) -> Result<(), SnapshotError> {
        if self.ended {
            return Err(SnapshotError("a part follows the last"));
        }
        match part.0 {
            Content::Head { revision, compacted, now, last_lease } => {
                if self.started
                    || revision == 0
                    || compacted > revision
                    || last_lease > LeaseId::MAX
                {
                    return Err(SnapshotError("its head is wrong"));
                }
                self.started = true;
                self.machine.history.revision = revision;
                self.machine.history.compacted = compacted;
                self.machine.now = now;
                self.machine.leases.last_id = last_lease;
                Ok(())
            }
            _ if !self.started => Err(SnapshotError("its head is missing")),
            Content::Leases(leases) => leases.into_iter().try_for_each(|lease| self.lease(lease)),
            Content::Cells(cells) => {
                cells.into_iter().try_for_each(|(key, versions)| self.cell(&key, &versions))
            }
            Content::Changes(changes) => {
                changes.into_iter().try_for_each(|(at, keys)| self.change(at, &keys))
            }
            Content::End { leases, cells } => {
                let (history, standing) = (&self.machine.history, &self.machine.leases.standing);
                if (leases, cells) != (standing.len(), history.cells.len()) {
                    return Err(SnapshotError("parts are missing"));
                }
                self.ended = true;
                Ok(())
            }
        }
    }

    /// The machine, if all parts were there.
    ///
    /// # Errors
    /// [`SnapshotError`] if some are missing.
    pub fn finish(self) -> Result<Machine, SnapshotError> {
        let history = &self.machine.history;
        let changes = history.revision - history.compacted;
        if !self.ended || history.changes.len() as u64 != changes {
            return Err(SnapshotError("parts are missing"));
        }
        Ok(self.machine)
    }

    fn lease(
        &mut self,
        (id, ttl, deadline): (LeaseId, Duration, Duration),
    ) -> Result<(), SnapshotError> {
        let known = self.machine.leases.get(id).is_ok();
        if known || id == LeaseId::NONE || id > LeaseId::MAX || ttl.is_zero() {
            return Err(SnapshotError("a lease is wrong"));
        }
        self.machine.leases.insert(id, ttl, deadline);
        Ok(())
    }

    fn cell(&mut self, key: &Bytes, stored: &[Stored]) -> Result<(), SnapshotError> {
        let mut versions = Vec::with_capacity(stored.len());
        let mut before = 0;
        for stored in stored {
            let version = match stored {
                Stored::Put { value, create_revision, mod_revision, version, lease } => {
                    Version::Put(Arc::new(KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: *create_revision,
                        mod_revision: *mod_revision,
                        version: *version,
                        lease: *lease,
                    }))
                }
                Stored::Gone(revision) => Version::Gone(*revision),
            };
            let revision = version.revision();
            if revision <= before || revision > self.machine.history.revision {
                return Err(SnapshotError("the versions of a key are out of order"));
            }
            before = revision;
            versions.push(version);
        }
        let Some(latest) = versions.pop() else {
            return Err(SnapshotError("a key has no version"));
        };
        if let Version::Put(kv) = &latest
            && kv.lease != LeaseId::NONE
        {
            if self.machine.leases.get(kv.lease).is_err() {
                return Err(SnapshotError("a key has a lease that does not stand"));
            }
            self.machine.leases.attach(kv.lease, key);
        }
        let cell = Cell { older: versions, latest };
        match self.machine.history.cells.insert(key, cell) {
            None if !key.is_empty() => Ok(()),
            _ => Err(SnapshotError("a key is there twice, or empty")),
        }
    }

    fn change(&mut self, at: Duration, keys: &[Bytes]) -> Result<(), SnapshotError> {
        let history = &mut self.machine.history;
        let revision = history.compacted + history.changes.len() as u64 + 1;
        let events: Option<Vec<_>> =
            keys.iter().map(|key| history.event_at(key, revision)).collect();
        let events = events.ok_or(SnapshotError("a change has no version"))?;
        history.changes.push_back(Arc::new(Change { at, events }));
        Ok(())
    }
}
