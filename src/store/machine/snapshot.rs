//! The machine in parts that each fit a frame, and back again; foreign bytes give an error.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    apply::{Config, Machine, TIME_MAX},
    history::Cell,
};
use crate::store::{
    contract::Lease,
    kv::{Bytes, KeyValue, LeaseId},
};

/// About how many bytes a part holds; a part with one larger value holds more.
const PART_LEN: usize = 1 << 20;

/// Revisions are numbers of etcd's, which have a sign.
const REVISION_MAX: u64 = i64::MAX as u64;

/// A part of a snapshot. The parts of one machine come in a fixed order, and all are needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part(Content);

/// First what stood when the history that is remembered began, then what has happened since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    Head {
        revision: u64,
        compacted: u64,
        now: Duration,
        last_lease: LeaseId,
        config: Config,
    },
    Leases(Vec<(LeaseId, Duration, Duration)>),
    Base(Vec<Arc<KeyValue>>),
    Changes(Vec<Change>),
    /// So many parts were before it.
    End(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    revision: u64,
    at: Duration,
    key: Bytes,
    /// What was put; `None`: it was deleted.
    put: Option<(Bytes, LeaseId)>,
}

/// Why parts make no machine. Fetch or make another snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a whole snapshot: {0}; nothing was kept of it: fetch or make another")]
pub struct SnapshotError(pub(in crate::store) String);

fn wrong<T>(what: impl Into<String>) -> Result<T, SnapshotError> {
    Err(SnapshotError(what.into()))
}

impl Machine {
    /// The machine as it is now, its [`Config`] included, in parts of about 1 MiB.
    pub fn snapshot(&self) -> impl Iterator<Item = Part> {
        let history = &self.history;
        let head = Content::Head {
            revision: history.revision,
            compacted: history.compacted,
            now: self.now,
            last_lease: self.leases.last_id,
            config: self.config,
        };
        let leases =
            self.leases.standing.iter().map(|(id, lease)| (*id, lease.ttl, lease.deadline));
        let base = history.cells.iter().filter_map(|cell| history.at(cell, history.compacted));
        let changes = history.log.since(0).filter_map(|change| {
            let key = change.kv()?.key.clone();
            let put = change.new.as_ref().map(|kv| (kv.value.clone(), kv.lease));
            Some(Change { revision: change.revision, at: change.at, key, put })
        });
        let mut parts = std::iter::once(head)
            .chain(in_parts(leases, |_| 40).map(Content::Leases))
            .chain(in_parts(base.cloned(), kv_len).map(Content::Base))
            .chain(in_parts(changes, change_len).map(Content::Changes));
        let mut count = 0;
        let mut ended = false;
        std::iter::from_fn(move || {
            let part = parts.next();
            count += usize::from(part.is_some());
            let end = Some(Content::End(count))
                .filter(|_| !std::mem::replace(&mut ended, part.is_none()));
            part.or(end).map(Part)
        })
    }
}

fn kv_len(kv: &Arc<KeyValue>) -> usize {
    64 + kv.key.len() + kv.value.len()
}

fn change_len(change: &Change) -> usize {
    let put = change.put.as_ref().map_or(0, |(value, _)| 16 + value.len());
    48 + change.key.len() + put
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
#[derive(Debug, Default)]
pub struct Restore {
    machine: Machine,
    /// The revision that it comes to.
    revision: u64,
    /// How many parts have come.
    count: usize,
    started: bool,
    ended: bool,
}

impl Restore {
    /// Waits for the first part.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// [`SnapshotError`] where the parts do not fit together; the whole is of no use then.
    pub fn push(&mut self, part: Part) -> Result<(), SnapshotError> {
        if self.ended {
            return wrong(format!("a part follows the last, which was the {}.", self.count));
        }
        self.count += 1;
        match part.0 {
            Content::Head { .. } if self.started => {
                wrong(format!("part {} is a head, and there was one before", self.count))
            }
            Content::Head { revision, compacted, now, last_lease, config } => {
                if !(1..=REVISION_MAX).contains(&revision) {
                    return wrong(format!(
                        "revision {revision} found, 1 to {REVISION_MAX} expected"
                    ));
                }
                if compacted > revision {
                    let what = "and at most the revision of the whole expected";
                    return wrong(format!("compacted at {compacted} of {revision} found, {what}"));
                }
                if last_lease > LeaseId::MAX {
                    let most = LeaseId::MAX;
                    return wrong(format!(
                        "a last lease {last_lease} found, at most {most} expected"
                    ));
                }
                if now > TIME_MAX {
                    return wrong(format!(
                        "a time of {now:?} found, at most {TIME_MAX:?} expected"
                    ));
                }
                self.started = true;
                self.machine.config = config;
                self.revision = revision;
                self.machine.history.compacted = compacted;
                // The first revision of all changed nothing.
                self.machine.history.revision = compacted.max(1);
                self.machine.now = now;
                self.machine.leases.last_id = last_lease;
                Ok(())
            }
            _ if !self.started => wrong("the first part is not its head"),
            Content::Leases(leases) => leases.into_iter().try_for_each(|lease| self.lease(lease)),
            Content::Base(base) => base.into_iter().try_for_each(|kv| self.base(kv)),
            Content::Changes(changes) => {
                changes.into_iter().try_for_each(|change| self.change(change))
            }
            Content::End(count) if count + 1 == self.count => self.end(),
            Content::End(count) => {
                wrong(format!("{} parts found, {count} expected", self.count - 1))
            }
        }
    }

    /// The machine, if all parts were there.
    ///
    /// # Errors
    /// [`SnapshotError`] if some are missing.
    pub fn finish(self) -> Result<Machine, SnapshotError> {
        if !self.ended {
            return wrong(format!("its last part is missing, {} parts found", self.count));
        }
        Ok(self.machine)
    }

    fn lease(
        &mut self,
        (id, ttl, deadline): (LeaseId, Duration, Duration),
    ) -> Result<(), SnapshotError> {
        if self.machine.leases.get(id).is_ok() {
            return wrong(format!("lease {id} is there twice"));
        }
        // It was granted or kept alive at the latest now.
        let most = self.machine.now.saturating_add(ttl);
        let sound = id != LeaseId::NONE && id <= LeaseId::MAX;
        if !sound || ttl.is_zero() || ttl > Lease::TTL_MAX || deadline > most {
            let what = format!("a lease {id} of {ttl:?} that ends at {deadline:?} found");
            return wrong(format!("{what}, one that ends at {most:?} or before expected"));
        }
        self.machine.leases.insert(id, ttl, deadline);
        Ok(())
    }

    fn base(&mut self, kv: Arc<KeyValue>) -> Result<(), SnapshotError> {
        let history = &mut self.machine.history;
        let sound = !kv.key.is_empty()
            && (1..=kv.mod_revision).contains(&kv.create_revision)
            && kv.mod_revision <= history.compacted
            && (1..=kv.mod_revision - kv.create_revision + 1).contains(&kv.version)
            && kv.lease <= LeaseId::MAX;
        if !sound || history.log.last().is_some() {
            let (key, revision, compacted) = (&kv.key, kv.mod_revision, history.compacted);
            let what = format!("`{key}` of revision {revision} found");
            return wrong(format!(
                "{what}, a sound key of revision {compacted} or before expected"
            ));
        }
        let key = kv.key.clone();
        match history.cells.insert(Cell::before_all(kv)) {
            None => Ok(()),
            Some(_) => wrong(format!("`{key}` is there twice")),
        }
    }

    /// Does it again.
    fn change(&mut self, change: Change) -> Result<(), SnapshotError> {
        let history = &mut self.machine.history;
        let Change { revision, at, key, put } = change;
        let known = history.log.last().map_or(history.revision, |last| last.revision);
        let later = known + 1 == revision;
        // All changes of a revision come at one time, and each key has at most one.
        let sound = match history.log.last() {
            Some(last) if last.revision == revision => last.at == at,
            Some(last) => later && last.at <= at,
            None => later,
        };
        let again = history.changed_at(&key) == Some(revision);
        if !sound || again || revision > self.revision || key.is_empty() || at > self.machine.now {
            let what = format!("a change of `{key}` at revision {revision} found");
            return wrong(format!("{what}, one of {known} or the next expected"));
        }
        history.revision = revision - 1;
        let done = match put {
            Some((value, lease)) => {
                history.put(&key, value, lease, at);
                true
            }
            None => history.delete(&key, at).is_some(),
        };
        history.commit();
        if done { Ok(()) } else { wrong(format!("`{key}` is deleted and did not stand")) }
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        let Machine { history, leases, .. } = &mut self.machine;
        if history.revision != self.revision {
            let (found, expected) = (history.revision, self.revision);
            return wrong(format!("changes up to revision {found} found, to {expected} expected"));
        }
        for kv in history.cells.iter().filter_map(Cell::standing) {
            if kv.lease != LeaseId::NONE {
                if leases.get(kv.lease).is_err() {
                    return wrong(format!("lease {} of `{}` is missing", kv.lease, kv.key));
                }
                leases.attach(kv.lease, &kv.key);
            }
        }
        self.ended = true;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn times_that_no_machine_comes_to_are_refused() {
        let head = |now| {
            let (config, last_lease) = (Config::default(), LeaseId::NONE);
            Part(Content::Head { revision: 1, compacted: 1, now, last_lease, config })
        };
        let mut restore = Restore::new();
        let error = restore.push(head(Duration::MAX)).unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
        for (ttl, deadline) in [
            (Duration::from_secs(1), Duration::MAX),
            (Duration::from_secs(1), Duration::from_secs(12)),
            (Duration::MAX, Duration::from_secs(11)),
            (Duration::ZERO, Duration::from_secs(10)),
        ] {
            let mut restore = Restore::new();
            restore.push(head(Duration::from_secs(10))).unwrap();
            let lease = Content::Leases(vec![(LeaseId(1), ttl, deadline)]);
            restore.push(Part(lease)).unwrap_err();
        }
    }
}
