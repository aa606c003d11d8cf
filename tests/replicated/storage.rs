//! A log that outlives its process, and a state machine that holds the replica and is lost with it.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta,
    entry::RaftEntry,
    storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine},
};
use raft_autopilot::{
    codec,
    store::replicated::{Part, Replica},
};

use crate::types::{LogEntry, LogId, Membership, Sim, Vote};

type SnapshotOf = openraft::alias::SnapshotOf<Sim, Vec<u8>>;
type MetaOf = openraft::alias::SnapshotMetaOf<Sim>;

/// One node's disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, LogEntry>,
    snapshot: Option<SnapshotOf>,
}

impl Disk {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<Sim> for Disk {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.pages().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.pages().vote)
    }
}

impl RaftLogStorage<Sim> for Disk {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Sim>, io::Error> {
        let pages = self.pages();
        let last = pages.entries.last_key_value().map(|(_, entry)| entry.log_id());
        Ok(LogState { last_log_id: last.or(pages.purged), last_purged_log_id: pages.purged })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.pages().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.pages().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.pages().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Sim>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.pages().entries.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.pages().entries.split_off(&last.map_or(0, |log_id| log_id.index + 1));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut pages = self.pages();
        pages.entries = pages.entries.split_off(&(log_id.index + 1));
        pages.purged = Some(log_id);
        Ok(())
    }
}

/// One process's state machine. Clones are the same.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) replica: Replica,
    disk: Disk,
    meta: Arc<Mutex<(Option<LogId>, Membership)>>,
}

impl Machine {
    /// What the last snapshot on the disk holds; the log brings the rest.
    pub(crate) fn new(disk: Disk) -> Self {
        let machine = Self { replica: Replica::new(), disk, meta: Arc::default() };
        let snapshot = machine.disk.pages().snapshot.clone();
        if let Some(snapshot) = snapshot {
            machine.load(&snapshot.meta, &snapshot.snapshot).unwrap();
        }
        machine
    }

    fn load(&self, meta: &MetaOf, mut bytes: &[u8]) -> io::Result<()> {
        let mut parts: Vec<Part> = Vec::new();
        while !bytes.is_empty() {
            let (payload, rest) = codec::split(bytes).map_err(io::Error::other)?;
            parts.push(codec::decode_payload(payload).map_err(io::Error::other)?);
            bytes = rest;
        }
        self.replica.install(self.replica.restore(parts).map_err(io::Error::other)?);
        *self.meta() = (meta.last_log_id, meta.last_membership.clone());
        Ok(())
    }

    fn meta(&self) -> MutexGuard<'_, (Option<LogId>, Membership)> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftStateMachine<Sim> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok(self.meta().clone())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Sim>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.meta().0 = Some(entry.log_id);
            let applied = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Membership(membership) => {
                    self.meta().1 = Membership::new(Some(entry.log_id), membership);
                    None
                }
                EntryPayload::Normal(command) => Some(self.replica.apply(*command.0)),
            };
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &MetaOf, bytes: Vec<u8>) -> Result<(), io::Error> {
        self.load(meta, &bytes)?;
        self.disk.pages().snapshot = Some(Snapshot { meta: meta.clone(), snapshot: bytes });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf>, io::Error> {
        Ok(self.disk.pages().snapshot.clone())
    }
}

impl RaftSnapshotBuilder<Sim> for Machine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf, io::Error> {
        let (last_log_id, last_membership) = self.meta().clone();
        let frozen = self.replica.freeze();
        let parts = frozen.parts().map(|part| codec::encode(&part).map_err(io::Error::other));
        let snapshot = parts.collect::<Result<Vec<_>, _>>()?.concat();
        let snapshot = Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot };
        self.disk.pages().snapshot = Some(snapshot.clone());
        Ok(snapshot)
    }
}
