//! The state machine of the simulated database: data, ledger and a digest of its whole history.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, alias};
use raft_autopilot::autopilot::{Ledger, Record};
use raft_autopilot::codec;
use raft_autopilot::store::replicated::{self, Frozen, Replica};

use crate::dice::mix;
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::types::{Command, Entry, LogId, Reply, StoredMembership, TypeConfig, clock, sleep};

/// The state after some entry; a snapshot is one of these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) last_applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// Folds in every entry ever applied, so equal digests mean equal histories.
    pub(crate) digest: u64,
    pub(crate) data: BTreeMap<u64, u64>,
    /// The records that must outlive a leader.
    pub(crate) ledger: Arc<Ledger>,
    /// The store that the database hosts; only in a snapshot.
    pub(crate) hosted: Option<Frozen>,
}

/// One process's state machine: in memory, rebuilt after a crash from the disk's last snapshot and
/// the log. Clones are the same state machine.
#[derive(Clone)]
pub(crate) struct Store {
    id: u64,
    /// What this process's clock shows when the world's shows zero: no two clocks agree.
    epoch: Duration,
    disk: Disk,
    oracle: Arc<Oracle>,
    inner: Arc<Mutex<Inner>>,
    /// The store that the database hosts.
    pub(crate) replica: Replica,
}

#[derive(Default)]
struct Inner {
    image: Image,
    /// While it is stuck, entries are accepted and acknowledged, but none is applied.
    stuck: bool,
}

type Snap = alias::SnapshotOf<TypeConfig, Arc<Image>>;

impl Store {
    pub(crate) fn new(id: u64, boot: u64, disk: Disk, oracle: Arc<Oracle>) -> Self {
        let epoch = Duration::from_millis(mix(id, boot) % 1_000_000);
        let replica = Replica::new();
        Self { id, epoch, disk, oracle, inner: Arc::default(), replica }
    }

    /// The clock of this process, with which it applies records.
    pub(crate) fn now(&self) -> Duration {
        self.epoch + clock()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.inner().stuck = stuck;
    }

    /// Reads the present state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.inner().image)
    }

    fn apply_one(&self, entry: &Entry) -> Reply {
        let now = self.now();
        let mut reply = Reply::Nothing;
        let mut inner = self.inner();
        let image = &mut inner.image;
        let expected = image.last_applied.map_or(0, |log_id| log_id.index + 1);
        if entry.log_id.index != expected {
            self.oracle.violated(format_args!(
                "n{} was given {} to apply instead of {expected}",
                self.id, entry.log_id
            ));
        }
        let mut words = vec![entry.log_id.index, entry.log_id.leader_id.term];
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(Command::Put(key, value)) => {
                words.extend([*key, *value]);
                image.data.insert(*key, *value);
            }
            EntryPayload::Normal(Command::Record(record)) => {
                self.oracle.recorded(&entry.log_id, record);
                let ledger = Arc::make_mut(&mut image.ledger);
                let outcome = ledger.apply(entry.log_id.index, now, Record::clone(record));
                reply = Reply::Recorded(outcome);
                // Equal digests then mean equal ledgers, ages apart.
                let bytes = codec::encode(ledger).expect("a ledger has a form on disk");
                words.extend(bytes.iter().map(|byte| u64::from(*byte)));
            }
            EntryPayload::Normal(Command::Store(entry)) => {
                let applied = self.replica.apply(replicated::Entry::clone(entry));
                let bytes = codec::encode(&applied).expect("an answer has a form on the wire");
                words.extend(bytes.iter().map(|byte| u64::from(*byte)));
                reply = Reply::Stored(Box::new(applied));
            }
            EntryPayload::Membership(membership) => {
                words.extend(membership.voter_ids());
                self.oracle.membership(&entry.log_id, membership);
                image.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        image.digest = words.into_iter().fold(image.digest, mix);
        image.last_applied = Some(entry.log_id);
        self.oracle.applied(self.id, &entry.log_id, image.digest);
        reply
    }

    /// The ledger as it comes off a disk or a wire: without the ages, which start anew.
    fn restored(&self, ledger: &Ledger) -> Arc<Ledger> {
        let bytes = codec::encode(ledger).expect("a ledger has a form on disk");
        let mut ledger: Ledger = codec::decode(&bytes).expect("what was written can be read");
        ledger.restored(self.now());
        Arc::new(ledger)
    }

    fn snapshot(image: Arc<Image>) -> Snap {
        let meta = openraft::SnapshotMeta {
            last_log_id: image.last_applied,
            last_membership: image.membership.clone(),
        };
        Snapshot { meta, snapshot: image }
    }
}

impl RaftStateMachine<TypeConfig> for Store {
    type SnapshotData = Arc<Image>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let inner = self.inner();
        Ok((inner.image.last_applied, inner.image.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            while self.inner().stuck {
                sleep(Duration::from_millis(5)).await;
            }
            let reply = self.apply_one(&entry);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let inner = self.inner();
        let hosted = Some(self.replica.freeze());
        let image = Image { hosted, ..inner.image.clone() };
        Builder { image: Arc::new(image), disk: self.disk.clone() }
    }

    async fn install_snapshot(
        &mut self,
        _meta: &alias::SnapshotMetaOf<TypeConfig>,
        image: Arc<Image>,
    ) -> Result<(), io::Error> {
        if let Some(log_id) = &image.last_applied {
            self.oracle.applied(self.id, log_id, image.digest);
            self.oracle.note(format_args!("n{} installed a snapshot at {log_id}", self.id));
        }
        let ledger = self.restored(&image.ledger);
        {
            let mut inner = self.inner();
            if let Some(hosted) = &image.hosted {
                let restored = self.replica.restore(hosted.parts()).map_err(io::Error::other)?;
                self.replica.install(restored);
            }
            inner.image = Image { ledger, hosted: None, ..(*image).clone() };
        }
        self.disk.save_image(image).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snap>, io::Error> {
        Ok(self.disk.image().map(Self::snapshot))
    }
}

/// Writes the state of one moment as the disk's snapshot.
pub(crate) struct Builder {
    image: Arc<Image>,
    disk: Disk,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Arc<Image>;

    async fn build_snapshot(&mut self) -> Result<Snap, io::Error> {
        self.disk.save_image(self.image.clone()).await?;
        Ok(Store::snapshot(self.image.clone()))
    }
}
