//! The replicated state in redb: the keys, who is a member, which ids are promised; and snapshots.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use raft_autopilot::autopilot::{Ledger, Record};
use raft_autopilot::codec;
use raft_autopilot::runtime::{Runtime, TokioRuntime};
use raft_autopilot::store::replicated::{Frozen, Part, Replica};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{blocking, failed, open_file};
use crate::types::{
    Applied, Command, Entry, FIRST_ID, LogId, SnapshotMeta, StoredMembership, TypeConfig,
};

const KEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("keys");
/// What the hosted store was given since the last snapshot, by the index of the entry.
const STORE: TableDefinition<u64, &[u8]> = TableDefinition::new("store");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const STANDING: &str = "standing";
const SNAPSHOT: &str = "snapshot";

/// Ids promised to servers that have not joined yet; beyond this the oldest promise lapses.
const MAX_RESERVED: usize = 1024;

/// Bytes of keys and values in one frame of a snapshot; a single larger pair gets its own.
const SNAPSHOT_FRAME: usize = 1 << 20;

type SnapshotOf = openraft::alias::SnapshotOf<TypeConfig, Vec<u8>>;
type Pairs = Vec<(String, ByteBuf)>;

/// A frame of a snapshot after the first.
#[derive(Debug, Serialize, Deserialize)]
enum Piece {
    Pairs(Pairs),
    Store(Part),
}

/// Everything replicated besides the keys; small, kept in memory too, written with each batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The last entry that is part of this state.
    pub(crate) applied: Option<LogId>,
    /// The last membership that was committed.
    pub(crate) membership: StoredMembership,
    /// The largest id that was ever given.
    pub(crate) last_id: u64,
    /// Ids that were promised and have not joined yet.
    pub(crate) reserved: BTreeSet<u64>,
    /// What autopilot remembers.
    pub(crate) ledger: Arc<Ledger>,
}

/// The clock that the ages in the ledger are told by.
pub(crate) fn clock() -> Duration {
    TokioRuntime.now()
}

impl Standing {
    /// Whether this id once was good and is no longer: ids are given once, in order, and those
    /// that were given are promised, members, or gone for good.
    pub(crate) fn is_removed(&self, id: u64) -> bool {
        id <= self.last_id
            && !self.reserved.contains(&id)
            && self.membership.get_node(&id).is_none()
    }

    fn apply(&mut self, keys: &mut Table<'_, &str, &[u8]>, entry: &Entry) -> io::Result<Applied> {
        self.applied = Some(entry.log_id);
        match &entry.payload {
            // What is for the hosted store, its replica is given beside this.
            EntryPayload::Blank | EntryPayload::Normal(Command::Store(_)) => {}
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.reserved.retain(|id| membership.get_node(id).is_none());
            }
            EntryPayload::Normal(Command::Set { key, value }) => {
                keys.insert(key.as_str(), value.as_slice()).map_err(failed)?;
            }
            EntryPayload::Normal(Command::Delete { key }) => {
                if keys.remove(key.as_str()).map_err(failed)?.is_none() {
                    return Ok(Applied::NoSuchKey);
                }
            }
            EntryPayload::Normal(Command::Reserve) => {
                self.last_id = self.last_id.max(FIRST_ID) + 1;
                self.reserved.insert(self.last_id);
                while self.reserved.len() > MAX_RESERVED {
                    self.reserved.pop_first();
                }
                return Ok(Applied::Reserved(self.last_id));
            }
            EntryPayload::Normal(Command::Record(record)) => {
                let ledger = Arc::make_mut(&mut self.ledger);
                let record = Record::clone(record);
                let outcome = ledger.apply(entry.log_id.index, clock(), record);
                return Ok(Applied::Recorded(outcome));
            }
        }
        Ok(Applied::Done)
    }
}

/// The state of one server. Clones share it.
#[derive(Clone)]
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
}

struct Shared {
    db: Database,
    standing: RwLock<Standing>,
    /// The hosted store. It is kept in memory; on the disk are the last snapshot and what came
    /// after.
    replica: Replica,
}

impl StateMachine {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let db = open_file(path)?;
        let txn = db.begin_write().map_err(failed)?;
        txn.open_table(KEYS).map_err(failed)?;
        txn.open_table(META).map_err(failed)?;
        txn.open_table(STORE).map_err(failed)?;
        txn.commit().map_err(failed)?;
        let view = db.begin_read().map_err(failed)?;
        let standing = RwLock::new(restored(read_standing(&view)?));
        let replica = read_replica(&view)?;
        drop(view);
        Ok(Self { shared: Arc::new(Shared { db, standing, replica }) })
    }

    /// The hosted store, as far as this server has applied the log.
    pub(crate) fn replica(&self) -> Replica {
        self.shared.replica.clone()
    }

    /// The value under a key, as far as this server has applied the log.
    pub(crate) fn get(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let table =
            self.shared.db.begin_read().map_err(failed)?.open_table(KEYS).map_err(failed)?;
        Ok(table.get(key).map_err(failed)?.map(|value| value.value().to_vec()))
    }

    /// Reads all values whose keys are wanted, and says how many that were.
    pub(crate) fn read_all(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<usize> {
        let table =
            self.shared.db.begin_read().map_err(failed)?.open_table(KEYS).map_err(failed)?;
        let mut read = 0;
        for entry in table.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            if is_wanted(key.value()) {
                read += usize::from(!value.value().is_empty());
            }
        }
        Ok(read)
    }

    /// Looks at everything besides the keys, without touching the disk.
    pub(crate) fn standing<T>(&self, look: impl FnOnce(&Standing) -> T) -> T {
        look(&self.shared.standing.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    fn current(&self) -> Standing {
        self.standing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, standing: Standing) {
        *self.standing.write().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// Applies entries in one synced transaction; nobody is answered before it stands.
    fn apply(&self, entries: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let mut standing = self.current();
        let mut answers = Vec::new();
        let txn = self.db.begin_write().map_err(failed)?;
        {
            let mut keys = txn.open_table(KEYS).map_err(failed)?;
            let mut store = txn.open_table(STORE).map_err(failed)?;
            for (entry, responder) in entries {
                let mut applied = standing.apply(&mut keys, &entry)?;
                if let EntryPayload::Normal(Command::Store(stored)) = entry.payload {
                    let bytes = codec::encode(&stored).map_err(failed)?;
                    store.insert(entry.log_id.index, bytes.as_slice()).map_err(failed)?;
                    applied = Applied::Stored(Box::new(self.replica.apply(*stored)));
                }
                answers.extend(responder.map(|responder| (responder, applied)));
            }
            put_standing(&mut txn.open_table(META).map_err(failed)?, &standing)?;
        }
        txn.commit().map_err(failed)?;
        self.replace(standing);
        for (responder, applied) in answers {
            responder.send(applied);
        }
        Ok(())
    }

    fn install(&self, bytes: &[u8]) -> io::Result<()> {
        let (standing, mut rest) = read_frame::<Standing>(bytes)?;
        let mut parts = Vec::new();
        let txn = self.db.begin_write().map_err(failed)?;
        {
            txn.open_table(STORE).map_err(failed)?.retain(|_, _| false).map_err(failed)?;
            let mut keys = txn.open_table(KEYS).map_err(failed)?;
            keys.retain(|_, _| false).map_err(failed)?;
            while !rest.is_empty() {
                let (piece, next) = read_frame::<Piece>(rest)?;
                match piece {
                    Piece::Pairs(pairs) => {
                        for (key, value) in pairs {
                            keys.insert(key.as_str(), value.as_slice()).map_err(failed)?;
                        }
                    }
                    Piece::Store(part) => parts.push(part),
                }
                rest = next;
            }
            let mut meta = txn.open_table(META).map_err(failed)?;
            put_standing(&mut meta, &standing)?;
            meta.insert(SNAPSHOT, bytes).map_err(failed)?;
        }
        let store = self.replica.restore(parts).map_err(failed)?;
        txn.commit().map_err(failed)?;
        self.replace(restored(standing));
        self.replica.install(store);
        Ok(())
    }

    /// Keeps a snapshot that was built here, unless a newer one has come in the meantime.
    fn keep(&self, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
        let txn = self.db.begin_write().map_err(failed)?;
        {
            let mut table = txn.open_table(META).map_err(failed)?;
            let kept = table.get(SNAPSHOT).map_err(failed)?;
            let kept = kept.map(|bytes| read_frame::<Standing>(bytes.value()).map(|head| head.0));
            if kept.transpose()?.is_some_and(|kept| kept.applied > meta.last_log_id) {
                return Ok(());
            }
            table.insert(SNAPSHOT, bytes).map_err(failed)?;
            let last = meta.last_log_id.map_or(0, |last| last.index);
            let mut store = txn.open_table(STORE).map_err(failed)?;
            store.retain(|index, _| index > last).map_err(failed)?;
        }
        txn.commit().map_err(failed)
    }
}

fn read_standing(txn: &ReadTransaction) -> io::Result<Standing> {
    let table = txn.open_table(META).map_err(failed)?;
    let bytes = table.get(STANDING).map_err(failed)?;
    bytes.map_or_else(|| Ok(Standing::default()), |b| codec::decode(b.value()).map_err(failed))
}

/// The hosted store as it was when the server stopped: its last snapshot, and what came after.
fn read_replica(txn: &ReadTransaction) -> io::Result<Replica> {
    let replica = Replica::new();
    let meta = txn.open_table(META).map_err(failed)?;
    if let Some(snapshot) = meta.get(SNAPSHOT).map_err(failed)? {
        let mut rest = read_frame::<Standing>(snapshot.value())?.1;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (piece, next) = read_frame::<Piece>(rest)?;
            if let Piece::Store(part) = piece {
                parts.push(part);
            }
            rest = next;
        }
        replica.install(replica.restore(parts).map_err(failed)?);
    }
    for row in txn.open_table(STORE).map_err(failed)?.iter().map_err(failed)? {
        replica.apply(codec::decode(row.map_err(failed)?.1.value()).map_err(failed)?);
    }
    Ok(replica)
}

/// Ages are told by each process for itself; on the disk and in snapshots there are none.
fn restored(mut standing: Standing) -> Standing {
    Arc::make_mut(&mut standing.ledger).restored(clock());
    standing
}

fn put_standing(meta: &mut Table<'_, &str, &[u8]>, standing: &Standing) -> io::Result<()> {
    let bytes = codec::encode(standing).map_err(failed)?;
    meta.insert(STANDING, bytes.as_slice()).map_err(failed)?;
    Ok(())
}

/// A snapshot is one frame of `Standing`, then frames of pieces until it ends.
fn read_frame<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<(T, &[u8])> {
    let (payload, rest) = codec::split(bytes).map_err(failed)?;
    Ok((codec::decode_payload(payload).map_err(failed)?, rest))
}

fn meta_of(standing: &Standing) -> SnapshotMeta {
    SnapshotMeta { last_log_id: standing.applied, last_membership: standing.membership.clone() }
}

/// Reads a snapshot from end to end, so that a torn or foreign one is refused while the state
/// here is still whole.
pub(crate) fn check_snapshot(meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
    let (standing, mut rest) = read_frame::<Standing>(bytes)?;
    if meta_of(&standing) != *meta {
        let found = standing.applied;
        return Err(io::Error::other(format!(
            "snapshot at {found:?} found, {:?} expected",
            meta.last_log_id
        )));
    }
    while !rest.is_empty() {
        rest = read_frame::<Piece>(rest)?.1;
    }
    Ok(())
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok(self.standing(|standing| (standing.applied, standing.membership.clone())))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let entries: Vec<_> = entries.try_collect().await?;
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.apply(entries)).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        // The transaction is the snapshot: what is applied later does not show in it.
        let shared = Arc::clone(&self.shared);
        let (view, store) = (shared.db.begin_read().map_err(failed), shared.replica.freeze());
        SnapshotBuilder { view: Some((view, store)), shared }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Vec<u8>) -> io::Result<()> {
        let (shared, meta) = (Arc::clone(&self.shared), meta.clone());
        blocking(move || {
            check_snapshot(&meta, &bytes)?;
            shared.install(&bytes)
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let table = shared.db.begin_read().map_err(failed)?.open_table(META).map_err(failed)?;
            let Some(bytes) = table.get(SNAPSHOT).map_err(failed)? else { return Ok(None) };
            let snapshot = bytes.value().to_vec();
            let meta = meta_of(&read_frame::<Standing>(&snapshot)?.0);
            Ok(Some(Snapshot { meta, snapshot }))
        })
        .await
    }
}

/// A frozen view of the state, and where to keep the snapshot made of it.
pub(crate) struct SnapshotBuilder {
    shared: Arc<Shared>,
    view: Option<(io::Result<ReadTransaction>, Frozen)>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let view = self.view.take();
        let (view, store) = view.ok_or_else(|| io::Error::other("this snapshot was built"))?;
        let view = view?;
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let standing = read_standing(&view)?;
            let meta = meta_of(&standing);
            let mut snapshot = codec::encode(&standing).map_err(failed)?;
            let mut pairs = Pairs::new();
            let mut len = 0;
            for row in view.open_table(KEYS).map_err(failed)?.iter().map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                len += key.value().len() + value.value().len();
                pairs.push((key.value().to_owned(), ByteBuf::from(value.value())));
                if len >= SNAPSHOT_FRAME {
                    let piece = Piece::Pairs(std::mem::take(&mut pairs));
                    snapshot.extend(codec::encode(&piece).map_err(failed)?);
                    len = 0;
                }
            }
            for piece in [Piece::Pairs(pairs)].into_iter().chain(store.parts().map(Piece::Store)) {
                snapshot.extend(codec::encode(&piece).map_err(failed)?);
            }
            shared.keep(&meta, &snapshot)?;
            Ok(Snapshot { meta, snapshot })
        })
        .await
    }
}
