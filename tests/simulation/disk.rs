//! A simulated disk with openraft's log on it: what is not yet flushed is lost by a crash.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};

use crate::dice::Dice;
use crate::store::Image;
use crate::types::{Entry, LogId, Membership, TypeConfig, Vote, sleep};

/// One server's disk. It outlives the server's processes; clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    /// What the process reads back: everything written.
    written: Pages,
    /// What a crash leaves: everything flushed.
    flushed: Pages,
    pending: VecDeque<(Write, IOFlushed<TypeConfig>)>,
    flushing: bool,
    dice: Dice,
    latency: (Duration, Duration),
    /// While it hangs, nothing is flushed.
    hangs: bool,
}

#[derive(Clone, Default)]
struct Pages {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    log: BTreeMap<u64, Entry>,
    image: Option<Arc<Image>>,
}

enum Write {
    Vote(Vote),
    Committed(Option<LogId>),
    Append(Vec<Entry>),
    Truncate(u64),
    Purge(LogId),
    Image(Arc<Image>),
}

impl Pages {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Vote(vote) => self.vote = Some(*vote),
            Write::Committed(log_id) => self.committed = *log_id,
            Write::Append(entries) => {
                self.log.extend(entries.iter().map(|entry| (entry.index(), entry.clone())));
            }
            Write::Truncate(from) => drop(self.log.split_off(from)),
            Write::Purge(log_id) => {
                self.purged = Some(*log_id);
                self.log = self.log.split_off(&(log_id.index + 1));
            }
            Write::Image(image) => self.image = Some(image.clone()),
        }
    }

    fn last_log_id(&self) -> Option<LogId> {
        self.log.last_key_value().map(|(_, entry)| entry.log_id()).or(self.purged)
    }
}

impl Disk {
    /// An empty disk with a flush time of 0.1 to 2 ms.
    pub(crate) fn new(seed: u64, id: u64) -> Self {
        let inner = Inner {
            written: Pages::default(),
            flushed: Pages::default(),
            pending: VecDeque::new(),
            flushing: false,
            dice: Dice::new(seed, &format!("disk {id}")),
            latency: QUICK,
            hangs: false,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses what was not flushed, except for the part of it that chance wrote in time: any number
    /// of the first pending writes, and of the next one if it appends, any number of entries.
    pub(crate) fn crash(&self) {
        let mut inner = self.inner();
        let pending = std::mem::take(&mut inner.pending);
        let kept = usize::try_from(inner.dice.below(pending.len() as u64 + 1)).expect("an index");
        for (at, (mut write, _)) in pending.into_iter().enumerate() {
            if at == kept {
                let Write::Append(entries) = &mut write else { break };
                let torn = inner.dice.below(entries.len() as u64 + 1);
                entries.truncate(usize::try_from(torn).expect("an index"));
            }
            inner.flushed.apply(&write);
            if at == kept {
                break;
            }
        }
        inner.written = inner.flushed.clone();
        inner.flushing = false;
    }

    /// Replaces the disk by an empty one.
    pub(crate) fn wipe(&self) {
        let mut inner = self.inner();
        inner.pending.clear();
        inner.written = Pages::default();
        inner.flushed = Pages::default();
    }

    pub(crate) fn set_hangs(&self, hangs: bool) {
        self.inner().hangs = hangs;
    }

    /// Switches between a flush time of 0.1 to 2 ms and one of 15 to 45 ms.
    pub(crate) fn set_slow(&self, slow: bool) {
        self.inner().latency = if slow { SLOW } else { QUICK };
    }

    /// The vote and the last log index that a crash would leave.
    pub(crate) fn survives(&self) -> (Option<Vote>, Option<u64>) {
        let inner = self.inner();
        (inner.flushed.vote, inner.flushed.last_log_id().map(|log_id| log_id.index))
    }

    /// The index of the last entry written, flushed or not.
    pub(crate) fn last_written(&self) -> Option<u64> {
        self.inner().written.last_log_id().map(|log_id| log_id.index)
    }

    /// The last membership in the log or, where there is none, of the snapshot, flushed or not.
    pub(crate) fn last_membership(&self) -> Option<Membership> {
        let inner = self.inner();
        let last = inner.written.log.values().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(membership) => Some(membership.clone()),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        });
        let image = inner.written.image.as_ref();
        last.or_else(|| image.map(|image| image.membership.membership().clone()))
    }

    pub(crate) fn image(&self) -> Option<Arc<Image>> {
        self.inner().written.image.clone()
    }

    /// Writes a snapshot and waits until it is flushed.
    pub(crate) async fn save_image(&self, image: Arc<Image>) -> io::Result<()> {
        self.write_and_flush(Write::Image(image)).await
    }

    fn write(&self, write: Write, done: IOFlushed<TypeConfig>) {
        let mut inner = self.inner();
        inner.written.apply(&write);
        inner.pending.push_back((write, done));
        if !inner.flushing {
            inner.flushing = true;
            drop(TypeConfig::spawn(self.clone().flush()));
        }
    }

    async fn write_and_flush(&self, write: Write) -> io::Result<()> {
        let (done, flushed) = TypeConfig::oneshot();
        self.write(write, IOFlushed::signal(done));
        flushed.await.map_err(|_| io::Error::other("the disk is gone"))?
    }

    /// Flushes in turns: each turn takes everything that was written before it began.
    async fn flush(self) {
        loop {
            let (batch, latency) = {
                let mut inner = self.inner();
                if inner.pending.is_empty() {
                    inner.flushing = false;
                    return;
                }
                let (from, to) = inner.latency;
                (inner.pending.len(), inner.dice.between(from, to))
            };
            sleep(latency).await;
            while self.inner().hangs {
                sleep(Duration::from_millis(5)).await;
            }
            let flushed: Vec<_> = {
                let mut inner = self.inner();
                let batch: Vec<_> = inner.pending.drain(..batch).collect();
                for (write, _) in &batch {
                    inner.flushed.apply(write);
                }
                batch
            };
            for (_, done) in flushed {
                done.io_completed(Ok(()));
            }
        }
    }
}

const QUICK: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(2));
const SLOW: (Duration, Duration) = (Duration::from_millis(15), Duration::from_millis(45));

impl RaftLogReader<TypeConfig> for Disk {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.inner().written.log.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.inner().written.vote)
    }
}

impl RaftLogStorage<TypeConfig> for Disk {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let inner = self.inner();
        Ok(LogState {
            last_purged_log_id: inner.written.purged,
            last_log_id: inner.written.last_log_id(),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.write_and_flush(Write::Vote(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.write(Write::Committed(committed), IOFlushed::noop());
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.inner().written.committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.write(Write::Append(entries.into_iter().collect()), callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |log_id| log_id.index + 1);
        self.write_and_flush(Write::Truncate(from)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.write(Write::Purge(log_id), IOFlushed::noop());
        Ok(())
    }
}
