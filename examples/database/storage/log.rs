//! The Raft log and vote in redb, written by one thread that syncs many requests at once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use raft_autopilot::codec;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::oneshot;

use super::{Identity, blocking, failed, open_file};
use crate::types::{Entry, LogId, TypeConfig, Vote};

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const DISK: &str = "disk";

/// Requests that share one sync. Enough for any burst, few enough to answer the first soon.
const GROUP: usize = 256;

/// The log of one server. Clones share it; the last one to go closes the file.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    writer: Sender<Write>,
}

struct Shared {
    db: Database,
    disk_id: u64,
    memory: Mutex<Memory>,
}

/// What is readable already, though not yet on disk.
#[derive(Default)]
struct Memory {
    vote: Option<Vote>,
    pending: BTreeMap<u64, Entry>,
}

enum Write {
    Vote(Vote, oneshot::Sender<io::Result<()>>),
    Append(Vec<(LogId, Vec<u8>)>, IOFlushed<TypeConfig>),
    /// Removes this index and all above.
    Truncate(u64, oneshot::Sender<io::Result<()>>),
    /// Removes this log id and all below.
    Purge(LogId, oneshot::Sender<io::Result<()>>),
}

impl LogStore {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let db = open_file(path)?;
        let txn = db.begin_write().map_err(failed)?;
        txn.open_table(LOG).map_err(failed)?;
        // In the very transaction that makes the file a log: no log was ever without it.
        if txn.open_table(META).map_err(failed)?.get(DISK).map_err(failed)?.is_none() {
            put_meta(&txn, DISK, &super::random())?;
        }
        txn.commit().map_err(failed)?;
        let vote = read_meta(&db, VOTE)?;
        let disk_id = read_meta(&db, DISK)?.unwrap_or_default();
        let memory = Mutex::new(Memory { vote, ..Memory::default() });
        let shared = Arc::new(Shared { db, disk_id, memory });
        let (writer, queue) = channel();
        let thread = std::thread::Builder::new().name("log".to_owned());
        let theirs = Arc::clone(&shared);
        thread.spawn(move || write_all(&theirs, &queue))?;
        Ok(Self { shared, writer })
    }

    /// A random number that this file got when it was created; another file has another.
    pub(crate) fn disk_id(&self) -> u64 {
        self.shared.disk_id
    }

    /// The identity kept in this directory; `None` as long as it is nobody's.
    pub(crate) fn identity(&self) -> io::Result<Option<Identity>> {
        Identity::read(&self.shared.db)
    }

    /// Writes the identity; durable when this returns.
    pub(crate) fn set_identity(&self, identity: &Identity) -> io::Result<()> {
        identity.write(&self.shared.db)
    }

    /// The last index in the log, on disk or on its way there.
    pub(crate) fn last_index(&self) -> io::Result<Option<u64>> {
        if let Some(last) = self.shared.memory().pending.last_key_value() {
            return Ok(Some(*last.0));
        }
        Ok(self.shared.log_state()?.last_log_id.map(|id| id.index))
    }

    async fn write(
        &self,
        write: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Write,
    ) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.send(write(done))?;
        result.await.map_err(failed)?
    }

    fn send(&self, write: Write) -> io::Result<()> {
        self.writer.send(write).map_err(|_| io::Error::other("the log's writer has stopped"))
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_state(&self) -> io::Result<LogState<TypeConfig>> {
        let last_purged_log_id = read_meta(&self.db, PURGED)?;
        let table = self.db.begin_read().map_err(failed)?.open_table(LOG).map_err(failed)?;
        let last = table.last().map_err(failed)?;
        let last = last.map(|(_, bytes)| decode(bytes.value())).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    fn entries(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        // In this order: an entry leaves `pending` only after the disk has it.
        let (pending, txn) = {
            let memory = self.memory();
            let pending: Vec<_> =
                memory.pending.range(range.clone()).map(|(_, entry)| entry.clone()).collect();
            (pending, self.db.begin_read().map_err(failed)?)
        };
        let on_disk = range.start..pending.first().map_or(range.end, |entry| entry.log_id.index);
        let mut entries = Vec::new();
        for row in txn.open_table(LOG).map_err(failed)?.range(on_disk).map_err(failed)? {
            entries.push(decode(row.map_err(failed)?.1.value())?);
        }
        entries.extend(pending);
        Ok(entries)
    }

    /// One transaction and one sync for all of these, in their order.
    fn commit(&self, writes: &[Write]) -> io::Result<()> {
        let txn = self.db.begin_write().map_err(failed)?;
        for write in writes {
            write.put_into(&txn)?;
        }
        txn.commit().map_err(failed)?;
        let mut memory = self.memory();
        for write in writes {
            match write {
                Write::Vote(vote, _) => memory.vote = Some(*vote),
                Write::Append(entries, _) => {
                    for (id, _) in entries {
                        memory.pending.remove(&id.index);
                    }
                }
                Write::Truncate(..) | Write::Purge(..) => {}
            }
        }
        Ok(())
    }
}

impl Write {
    fn put_into(&self, txn: &WriteTransaction) -> io::Result<()> {
        match self {
            Self::Vote(vote, _) => put_meta(txn, VOTE, vote),
            Self::Append(entries, _) => {
                let mut table = txn.open_table(LOG).map_err(failed)?;
                for (id, bytes) in entries {
                    table.insert(id.index, bytes.as_slice()).map_err(failed)?;
                }
                Ok(())
            }
            Self::Truncate(first, _) => remove(txn, *first..),
            Self::Purge(last, _) => {
                put_meta(txn, PURGED, last)?;
                remove(txn, ..=last.index)
            }
        }
    }

    fn done(self, result: io::Result<()>) {
        match self {
            Self::Vote(_, done) | Self::Truncate(_, done) | Self::Purge(_, done) => {
                // Whoever asked may have gone; the write stands all the same.
                let _ = done.send(result);
            }
            Self::Append(_, flushed) => flushed.io_completed(result),
        }
    }
}

/// The writer thread. After one failed write nothing more is written: a later one that succeeded
/// would leave a hole in the log.
fn write_all(shared: &Shared, queue: &Receiver<Write>) {
    let mut broken = None;
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP - 1));
        if broken.is_none() {
            broken = shared.commit(&group).err().map(|error| error.to_string());
        }
        for write in group {
            write.done(broken.clone().map_or(Ok(()), |why| Err(io::Error::other(why))));
        }
    }
}

fn remove(txn: &WriteTransaction, range: impl RangeBounds<u64> + Clone) -> io::Result<()> {
    let mut table = txn.open_table(LOG).map_err(failed)?;
    table.retain_in(range, |_, _| false).map_err(failed)
}

fn put_meta<T: serde::Serialize>(txn: &WriteTransaction, key: &str, value: &T) -> io::Result<()> {
    let bytes = codec::encode(value).map_err(failed)?;
    txn.open_table(META).map_err(failed)?.insert(key, bytes.as_slice()).map_err(failed)?;
    Ok(())
}

fn read_meta<T: serde::de::DeserializeOwned>(db: &Database, key: &str) -> io::Result<Option<T>> {
    let table = db.begin_read().map_err(failed)?.open_table(META).map_err(failed)?;
    let bytes = table.get(key).map_err(failed)?;
    bytes.map(|bytes| codec::decode(bytes.value()).map_err(failed)).transpose()
}

fn decode(bytes: &[u8]) -> io::Result<Entry> {
    codec::decode(bytes).map_err(failed)
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (shared, range) = (Arc::clone(&self.shared), half_open(&range));
        blocking(move || shared.entries(range)).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.memory().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.log_state()).await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write(|done| Write::Vote(*vote, done)).await
    }

    // `save_committed` is not needed: the state machine syncs before it answers, and what it has
    // applied says more than what was committed.

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded = entries.iter().map(|entry| Ok((entry.log_id, codec::encode(entry)?)));
        let encoded = encoded.collect::<Result<Vec<_>, codec::CodecError>>().map_err(failed)?;
        self.shared
            .memory()
            .pending
            .extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        self.send(Write::Append(encoded, flushed))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |id| id.index + 1);
        // Appends that are still on their way are written before this, and removed by it.
        self.write(|done| Write::Truncate(first, done)).await
    }

    async fn purge(&mut self, last: LogId) -> io::Result<()> {
        self.write(|done| Write::Purge(last, done)).await
    }
}
