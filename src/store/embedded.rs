//! A store in this process: the machine behind a lock, in memory alone or with a directory.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    contract::{Lease, LeaseState, Store},
    error::{Refusal, StoreError},
    journal::{Journal, OpenError, Queue, Recovered},
    kv::{KeyRange, LeaseId},
    local::{Local, LocalWatch},
    machine::{Command, Config, Machine, Outcome},
    txn::{Limits, RangeRequest, RangeResponse, Txn, TxnResponse},
};
use crate::runtime::{Runtime, TokioRuntime};

/// A store in this process. Its clones are the same store; with the last of them it closes.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use raft_autopilot::{
///     runtime::TokioRuntime,
///     store::{Embedded, KeyRange, Op, RangeRequest, Store, Txn, machine::Config},
/// };
///
/// let store = Embedded::new(Config::default(), TokioRuntime);
/// store.commit(Txn::new([Op::put("members/1", "here")])).await.unwrap();
/// let found = store.range(RangeRequest::new(KeyRange::prefix("members/"))).await.unwrap();
/// assert_eq!(&*found.items[0].value, b"here");
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Embedded<R: Runtime = TokioRuntime> {
    shared: Arc<Shared<R>>,
}

#[derive(Debug)]
struct Shared<R> {
    commands: Commands<R>,
    limits: Limits,
    /// The thread that writes; it ends with this.
    journal: Option<Journal>,
    recovered: Recovered,
}

/// The way to have a command done. It keeps no store open.
#[derive(Clone, Debug)]
struct Commands<R> {
    runtime: R,
    clock: Clock,
    local: Arc<Local>,
    queue: Option<Arc<Queue>>,
}

/// The machine's time at the runtime's zero, either of which may be ahead: the machine has lived
/// in other processes too.
#[derive(Clone, Copy, Debug)]
struct Clock {
    ahead: Duration,
    behind: Duration,
}

impl Clock {
    /// The machine's time now.
    fn now(self, runtime: &impl Runtime) -> Duration {
        runtime.now().saturating_add(self.ahead).saturating_sub(self.behind)
    }
}

impl<R> Drop for Shared<R> {
    fn drop(&mut self) {
        // Whatever is queued is written first.
        drop(self.journal.take());
        self.commands.local.close("its last handle is gone");
    }
}

impl<R: Runtime> Embedded<R> {
    /// An empty store in memory. Call it from within the runtime.
    pub fn new(config: Config, runtime: R) -> Self {
        let local = Arc::new(Local::new(Machine::new(config)));
        Self::start(local, None, Recovered::default(), config, runtime)
    }

    /// A store that is kept in a directory of its own, which is created if it is missing.
    ///
    /// Every change is on disk when it is answered, and seen by nobody before. What was answered
    /// survives `kill -9` at any instant, and a loss of power if the disk keeps what it synced.
    /// Leases that stood go on with the time that they had left. Another configuration than the last
    /// one is in force from now on, and is written down; what was done before was judged by the one
    /// of its time, and is again. It reads all of the directory, on the calling thread; and dropping
    /// the last clone waits until what is queued is written.
    ///
    /// # Errors
    /// [`OpenError`]; what was stored is unchanged.
    pub fn open(path: impl AsRef<Path>, config: Config, runtime: R) -> Result<Self, OpenError> {
        let (journal, local, recovered) = Journal::open(path.as_ref(), config)?;
        Ok(Self::start(local, Some(journal), recovered, config, runtime))
    }

    /// A store in memory that goes on from a backup. Whatever was done since then is undone: tell
    /// nobody that it is the same store, or let everybody find out by the revision.
    ///
    /// Leases go on with the time that they had left.
    pub fn restore(backup: Machine, runtime: R) -> Self {
        let config = *backup.config();
        Self::start(Arc::new(Local::new(backup)), None, Recovered::default(), config, runtime)
    }

    /// All that stands, with its history. It shares what does not change with the store, so it
    /// costs next to nothing; [`Machine::snapshot`] makes parts of it that fit a file.
    pub fn backup(&self) -> Machine {
        self.shared.commands.local.look(Machine::clone)
    }

    /// What was found in the directory when it was opened.
    pub fn recovered(&self) -> Recovered {
        self.shared.recovered
    }

    fn start(
        local: Arc<Local>,
        journal: Option<Journal>,
        recovered: Recovered,
        config: Config,
        runtime: R,
    ) -> Self {
        let (then, now) = (local.look(Machine::now), runtime.now());
        let clock = Clock { ahead: then.saturating_sub(now), behind: now.saturating_sub(then) };
        let queue = journal.as_ref().map(Journal::queue);
        let commands = Commands { runtime, clock, local, queue };
        commands.runtime.spawn(end_leases(commands.clone()));
        let limits = config.limits;
        Self { shared: Arc::new(Shared { commands, limits, journal, recovered }) }
    }
}

/// Ends each lease in its time, for as long as the store is open.
async fn end_leases<R: Runtime>(commands: Commands<R>) {
    let wake = &commands.local.due;
    while commands.local.open_or_closed().is_ok() {
        let deadline = commands.local.look(Machine::next_deadline);
        match deadline.map(|deadline| deadline.saturating_sub(commands.now())) {
            Some(Duration::ZERO) => {
                if commands.run(Command::Tick).await.is_err() {
                    return;
                }
            }
            None => wake.notified().await,
            Some(wait) => tokio::select! {
                biased;
                () = wake.notified() => {}
                () = commands.runtime.sleep(wait) => {}
            },
        }
    }
}

/// What is in memory answers at once: a task that asks in a loop would never let its thread go, nor
/// a timer on it fire.
async fn let_others_run() {
    tokio::task::coop::consume_budget().await;
}

impl<R: Runtime> Commands<R> {
    /// The machine's time now.
    fn now(&self) -> Duration {
        self.clock.now(&self.runtime)
    }

    async fn run(&self, command: Command) -> Result<Outcome, StoreError> {
        let_others_run().await;
        let Some(queue) = &self.queue else {
            return self.local.apply_one(self.now(), command);
        };
        let closed = || StoreError::Unknown("the store has closed".to_owned());
        let Some(answer) = queue.submit(command, || self.now()) else {
            // Why stands there.
            return Err(self.local.open_or_closed().err().unwrap_or_else(closed));
        };
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl<R: Runtime> Store for Embedded<R> {
    type Watch = LocalWatch;

    fn limits(&self) -> Limits {
        self.shared.limits
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let_others_run().await;
        self.shared.commands.local.range(&request)
    }

    async fn commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        txn.check(&self.shared.limits)?;
        if let Some(done) = self.shared.commands.local.read(&txn)? {
            let_others_run().await;
            return Ok(done);
        }
        self.shared.commands.run(Command::Txn(txn)).await?.txn()
    }

    async fn watch(&self, range: KeyRange, from: u64) -> Result<LocalWatch, StoreError> {
        self.shared.commands.local.watch(range, from)
    }

    async fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<Lease, StoreError> {
        self.shared.commands.run(Command::Grant { id, ttl }).await?.lease()
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Duration, StoreError> {
        Ok(self.shared.commands.run(Command::KeepAlive(id)).await?.lease()?.ttl)
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.shared.commands.run(Command::Revoke(id)).await.map(drop)
    }

    async fn time_to_live(&self, id: LeaseId) -> Result<LeaseState, StoreError> {
        let_others_run().await;
        let now = self.shared.commands.now();
        let lease = self.shared.commands.local.lease(id, now)?;
        // Its time is over, only nobody has said so yet.
        if lease.remaining.is_zero() {
            return Err(Refusal::LeaseNotFound(id).into());
        }
        Ok(lease)
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.shared.commands.run(Command::Compact(revision)).await.map(drop)
    }
}
