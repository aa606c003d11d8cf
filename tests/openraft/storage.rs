//! A log and a state machine in memory; the log outlives its process, the state machine is replayed from it.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{Stream, TryStreamExt};
use openraft::{
    LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
    entry::RaftEntry,
    storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine},
    type_config::TypeConfigExt,
};
use raft_autopilot::{
    autopilot::{Ledger, Record},
    openraft::RaftRuntime,
    runtime::Runtime,
};

use crate::types::{Command, Types};

/// One server's disk. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct Log<C: Types>(Arc<Mutex<Pages<C>>>, u64);

struct Pages<C: Types> {
    vote: Option<VoteOf<C>>,
    committed: Option<LogIdOf<C>>,
    purged: Option<LogIdOf<C>>,
    entries: BTreeMap<u64, EntryOf<C>>,
}

impl<C: Types> Log<C> {
    /// A new disk; its identity stays with it.
    pub(crate) fn empty(identity: u64) -> Self {
        let pages =
            Pages { vote: None, committed: None, purged: None, entries: BTreeMap::default() };
        Self(Arc::new(Mutex::new(pages)), identity)
    }

    pub(crate) fn identity(&self) -> u64 {
        self.1
    }

    fn pages(&self) -> MutexGuard<'_, Pages<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every command in the log, oldest first.
    pub(crate) fn commands(&self) -> Vec<Command> {
        self.pages().entries.values().filter_map(|entry| C::command(entry).cloned()).collect()
    }

    /// The voters and all members of every membership in the log, oldest first, as text.
    pub(crate) fn memberships(&self) -> Vec<(Vec<Vec<String>>, Vec<String>)> {
        let pages = self.pages();
        let stored = pages.entries.values().filter_map(RaftEntry::get_membership);
        let text = |id: &C::NodeId| id.to_string();
        stored
            .map(|membership| {
                let configs = membership.get_joint_config();
                let configs = configs.iter().map(|ids| ids.iter().map(text).collect()).collect();
                (configs, membership.nodes().map(|(id, _)| text(id)).collect())
            })
            .collect()
    }
}

impl<C: Types> RaftLogReader<C> for Log<C> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<C::Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.pages().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<C>>, io::Error> {
        Ok(self.pages().vote.clone())
    }
}

impl<C: Types> RaftLogStorage<C> for Log<C> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let pages = self.pages();
        let last = pages.entries.last_key_value().map(|(_, entry)| entry.log_id());
        let purged = pages.purged.clone();
        Ok(LogState { last_log_id: last.or(purged.clone()), last_purged_log_id: purged })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> Result<(), io::Error> {
        self.pages().vote = Some(vote.clone());
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        self.pages().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<C>>, io::Error> {
        Ok(self.pages().committed.clone())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.pages().entries.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        let from = last.map_or(0, |log_id| log_id.index() + 1);
        self.pages().entries.split_off(&from);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> Result<(), io::Error> {
        let mut pages = self.pages();
        pages.entries = pages.entries.split_off(&(log_id.index() + 1));
        pages.purged = Some(log_id);
        Ok(())
    }
}

/// The state after some entry; a snapshot is one of these.
#[derive(Clone)]
pub(crate) struct Image<C: Types> {
    last_applied: Option<LogIdOf<C>>,
    membership: StoredMembershipOf<C>,
    ledger: Arc<Ledger>,
    writes: u64,
}

/// One process's state machine. Clones are the same state machine.
#[derive(Clone)]
pub(crate) struct Machine<C: Types> {
    clock: RaftRuntime<C>,
    inner: Arc<Mutex<(Image<C>, bool)>>,
}

impl<C: Types> Machine<C> {
    pub(crate) fn new(clock: RaftRuntime<C>) -> Self {
        let image = Image {
            last_applied: None,
            membership: StoredMembershipOf::<C>::default(),
            ledger: Arc::default(),
            writes: 0,
        };
        Self { clock, inner: Arc::new(Mutex::new((image, false))) }
    }

    fn inner(&self) -> MutexGuard<'_, (Image<C>, bool)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger, and the reading now of the clock that it is applied with.
    pub(crate) fn ledger(&self) -> (Arc<Ledger>, Duration) {
        (Arc::clone(&self.inner().0.ledger), self.clock.now())
    }

    /// While it is stuck, entries are accepted and acknowledged, and none is applied.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.inner().1 = stuck;
    }

    fn snapshot(&self) -> SnapshotOf<C, Image<C>> {
        let image = self.inner().0.clone();
        let meta = SnapshotMeta {
            last_log_id: image.last_applied.clone(),
            last_membership: image.membership.clone(),
        };
        Snapshot { meta, snapshot: image }
    }
}

impl<C: Types> RaftStateMachine<C> for Machine<C> {
    type SnapshotData = Image<C>;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<C>>, StoredMembershipOf<C>), io::Error> {
        let inner = self.inner();
        Ok((inner.0.last_applied.clone(), inner.0.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            while self.inner().1 {
                C::sleep(Duration::from_millis(5)).await;
            }
            let now = self.clock.now();
            let reply = {
                let image = &mut self.inner().0;
                image.last_applied = Some(entry.log_id());
                if let Some(membership) = entry.get_membership() {
                    image.membership =
                        StoredMembershipOf::<C>::new(Some(entry.log_id()), membership);
                }
                match C::command(&entry) {
                    None => None,
                    Some(Command::Write(number)) => {
                        image.writes += number;
                        None
                    }
                    Some(Command::Record(record)) => {
                        let ledger = Arc::make_mut(&mut image.ledger);
                        Some(ledger.apply(entry.index(), now, Record::clone(record)))
                    }
                }
            };
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<C>,
        mut image: Image<C>,
    ) -> Result<(), io::Error> {
        Arc::make_mut(&mut image.ledger).restored(self.clock.now());
        self.inner().0 = image;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<C, Image<C>>>, io::Error> {
        let snapshot = self.snapshot();
        Ok(snapshot.meta.last_log_id.is_some().then_some(snapshot))
    }
}

impl<C: Types> RaftSnapshotBuilder<C> for Machine<C> {
    type SnapshotData = Image<C>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<C, Image<C>>, io::Error> {
        Ok(self.snapshot())
    }
}
