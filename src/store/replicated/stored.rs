//! The store over a replicated log: it asks until it is answered, and ends the leases that are over.

use std::{
    collections::BTreeSet,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::{
    port::{Answer, Log, LogError, Request},
    replica::Replica,
    sessions::{Applied, Entry, Proposal, Stamp},
    watch::{CatchingUp, ReplicatedWatch},
};
use crate::{
    runtime::Runtime,
    store::{
        contract::{Lease, LeaseState, Store},
        error::{Refusal, StoreError},
        kv::{KeyRange, LeaseId},
        machine::{Command, Config, Machine, Outcome},
        txn::{Limits, RangeRequest, RangeResponse, Txn, TxnResponse},
    },
};

/// The pause before a log that could not do it is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(30);

/// How often a node looks whether it has come to lead, while leases stand.
const LEASES_INTERVAL: Duration = Duration::from_millis(250);

/// How much time passes, at most, before it is written into the log, while leases stand: so much
/// is lost for them when all nodes that have seen it pass are started anew.
const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// How a replicated store behaves. [`Options::default`] is good for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a request may take, its retries included. Default 5 s; an election has to fit in.
    pub deadline: Duration,
    /// How long one attempt may take before the next. Default 1 s.
    pub patience: Duration,
    /// A number that no other store of this log ever had, nor this one in an earlier life of its
    /// process. Default: drawn at random.
    pub client: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5), patience: Duration::from_secs(1), client: None }
    }
}

/// A store inside the host's replicated log, on one of its nodes. Its clones are the same store.
///
/// Whatever node it is on, its commands go through the log, to which the node that leads appends
/// them; a command that is sent again, because an answer did not come, is done once. Readings are
/// from this node's own copy, once it has all that was committed before they were asked for.
/// Leases end by the word of the node that leads. The next one goes on with the time that it has
/// seen pass itself, which is never more than has passed: a change of leader ends none early.
pub struct Replicated<L, R> {
    shared: Arc<Shared<L, R>>,
}

struct Shared<L, R> {
    log: L,
    replica: Replica,
    runtime: R,
    options: Options,
    client: u64,
    flight: Mutex<Flight>,
    /// One at a time takes the word.
    leading: tokio::sync::Mutex<()>,
}

impl<L, R> Drop for Shared<L, R> {
    fn drop(&mut self) {
        // Who ends the leases ends too.
        self.replica.shared.applied.notify_waiters();
    }
}

/// The numbers of the commands that wait for an answer.
#[derive(Debug, Default)]
struct Flight {
    next: u64,
    waiting: BTreeSet<u64>,
}

/// A command that waits, for as long as somebody waits for it.
struct Waiting<'a> {
    flight: &'a Mutex<Flight>,
    number: u64,
}

fn lock(flight: &Mutex<Flight>) -> MutexGuard<'_, Flight> {
    flight.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.flight).waiting.remove(&self.number);
    }
}

impl<L, R> Clone for Replicated<L, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<L, R> fmt::Debug for Replicated<L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated").field("client", &self.shared.client).finish_non_exhaustive()
    }
}

/// A number that nobody else draws, from the seed that the system gives for hash maps.
fn draw() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

impl<L: Log, R: Runtime> Replicated<L, R> {
    /// The store of one node, over its log and the replica that the host applies it to. Make one a
    /// node, and clone it. Call it from within the runtime.
    pub fn new(log: L, replica: Replica, runtime: R, options: Options) -> Self {
        let client = options.client.unwrap_or_else(draw);
        let (flight, leading) = (Mutex::default(), tokio::sync::Mutex::default());
        let shared = Shared { log, replica, runtime, options, client, flight, leading };
        let shared = Arc::new(shared);
        shared.runtime.spawn(end_leases(
            Arc::downgrade(&shared),
            shared.replica.clone(),
            shared.runtime.clone(),
        ));
        Self { shared }
    }

    /// Changes how much the store takes and remembers, on all nodes at the same place of the log.
    /// It lasts, in the log and in its snapshots; nothing changes where it stands already. What was
    /// done before it was judged by what stood then, and is when it is applied again.
    ///
    /// # Errors
    /// As [`Store::compact`], but for its refusals.
    pub async fn configure(&self, config: Config) -> Result<(), StoreError> {
        self.shared.run(Command::Configure(config)).await.map(drop)
    }

    /// Answers what another node has asked with [`Log::ask`], since it thinks that this one leads.
    pub async fn answer(&self, request: Request) -> Answer {
        let done = match request {
            Request::Propose(proposal) => self.shared.append(*proposal).await.map(Answer::Done),
            Request::ReadIndex => self.shared.log.read_index().await.map(Answer::ReadIndex),
        };
        done.unwrap_or_else(|error| {
            Answer::Failed(match error {
                // Another node may soon lead in its place.
                LogError::Closed(why) => LogError::Retry(why),
                error => error,
            })
        })
    }
}

impl<L: Log, R: Runtime> Shared<L, R> {
    /// The time, told by this node. It takes the word first, if another had it last.
    async fn stamp(&self) -> Result<Stamp, LogError> {
        if let Some(stamp) = self.replica.stamp(self.runtime.now()) {
            return Ok(stamp);
        }
        let _turn = self.leading.lock().await;
        if let Some(stamp) = self.replica.stamp(self.runtime.now()) {
            return Ok(stamp);
        }
        let leader = draw();
        // Nobody else's entry is counted as stamped by it before the replica knows. A log may never
        // tell what became of an entry that another leader has overwritten.
        tokio::select! {
            biased;
            done = self.log.append(Entry::Lead(leader)) => done?,
            () = self.runtime.sleep(self.options.patience) => {
                return Err(LogError::Retry("it took too long to take the word".to_owned()));
            }
        };
        self.replica.lead(leader, self.runtime.now());
        let lost = || LogError::Retry("another node has come to lead".to_owned());
        self.replica.stamp(self.runtime.now()).ok_or_else(lost)
    }

    /// Appends a command at this node, which leads.
    async fn append(&self, mut proposal: Proposal) -> Result<Result<Outcome, Refusal>, LogError> {
        if !self.log.leads() {
            return Err(LogError::NotLeading);
        }
        // That the word could not be taken does not mean that the command was appended.
        proposal.stamp = self.stamp().await.map_err(|error| match error {
            LogError::Unknown(why) => LogError::Retry(why),
            other => other,
        })?;
        match self.log.append(Entry::Propose(proposal)).await? {
            Applied::Done(answer) => Ok(answer),
            Applied::Forgotten => Err(LogError::Forgotten),
            Applied::Stale => Err(LogError::Retry("another node has come to lead".to_owned())),
            Applied::Late => {
                Err(LogError::Retry("the asking node is too far behind the others".to_owned()))
            }
        }
    }

    async fn propose(&self, proposal: Proposal) -> Result<Result<Outcome, Refusal>, LogError> {
        if self.log.leads() {
            return self.append(proposal).await;
        }
        match self.log.ask(Request::Propose(Box::new(proposal))).await? {
            Answer::Done(answer) => Ok(answer),
            Answer::Failed(error) => Err(error),
            Answer::ReadIndex(_) => Err(LogError::Unknown("an odd answer".to_owned())),
        }
    }

    /// Tries until it is answered, or the deadline has come. An attempt is told, and so is the
    /// caller by the second value, whether any before it may have been done.
    async fn retry<T, F>(&self, mut attempt: impl FnMut(bool) -> F) -> Result<T, (LogError, bool)>
    where
        F: Future<Output = Result<T, LogError>>,
    {
        let end = self.runtime.now().saturating_add(self.options.deadline);
        let mut open = false;
        loop {
            let patience = self.options.patience.min(end.saturating_sub(self.runtime.now()));
            let done = tokio::select! {
                biased;
                done = attempt(open) => done,
                () = self.runtime.sleep(patience) => {
                    Err(LogError::Unknown("no answer within the deadline".to_owned()))
                }
            };
            let error = match done {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            open |= matches!(error, LogError::Unknown(_) | LogError::Forgotten);
            let over = self.runtime.now().saturating_add(RETRY_PAUSE) >= end;
            if over || matches!(error, LogError::Closed(_) | LogError::Forgotten) {
                return Err((error, open));
            }
            self.runtime.sleep(RETRY_PAUSE).await;
        }
    }

    /// Has a command done, once.
    async fn run(&self, command: Command) -> Result<Outcome, StoreError> {
        let waiting = {
            let mut flight = lock(&self.flight);
            let number = flight.next;
            flight.next += 1;
            flight.waiting.insert(number);
            Waiting { flight: &self.flight, number }
        };
        let number = waiting.number;
        let mut since = Duration::ZERO;
        let done = self.retry(|open| {
            // Before this none of them can have been done.
            if !open {
                since = self.replica.shared.local.look(Machine::now);
            }
            let floor = lock(&self.flight).waiting.first().copied().unwrap_or(number);
            let (stamp, command) = (Stamp::default(), command.clone());
            self.propose(Proposal { client: self.client, number, floor, since, stamp, command })
        });
        match done.await {
            Ok(answer) => answer.map_err(StoreError::Refused),
            Err((error, true)) => Err(StoreError::Unknown(error.why())),
            Err((LogError::Closed(why), false)) => Err(Refusal::Closed(why).into()),
            Err((error, false)) => Err(StoreError::Retry(error.why())),
        }
    }

    /// Waits until this node's copy has all that was committed when it was called.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let done = self.retry(|_| async {
            let index = if self.log.leads() {
                self.log.read_index().await?
            } else {
                match self.log.ask(Request::ReadIndex).await? {
                    Answer::ReadIndex(index) => index,
                    Answer::Failed(error) => return Err(error),
                    Answer::Done(_) => return Err(LogError::Retry("an odd answer".to_owned())),
                }
            };
            self.log.applied(index).await
        });
        done.await.map_err(|(error, _)| match error {
            LogError::Closed(why) => Refusal::Closed(why).into(),
            error => StoreError::Retry(error.why()),
        })
    }
}

/// Ends each lease in its time, while this node leads and the store is used.
async fn end_leases<L: Log, R: Runtime>(store: Weak<Shared<L, R>>, replica: Replica, runtime: R) {
    loop {
        let mut applied = std::pin::pin!(replica.shared.applied.notified());
        applied.as_mut().enable();
        replica.hear(&runtime);
        let look = |machine: &Machine| (machine.next_deadline(), machine.now());
        let (deadline, told) = replica.shared.local.look(look);
        let tell = told.saturating_add(TELL_INTERVAL);
        let wait = {
            let Some(shared) = store.upgrade() else { return };
            match deadline {
                // A store that is dropped meanwhile is noticed with the next entry.
                None => None,
                Some(_) if !shared.log.leads() => Some(LEASES_INTERVAL),
                Some(deadline) => match shared.stamp().await {
                    Ok(stamp) if stamp.at >= deadline.min(tell) => {
                        let done = shared.run(Command::Tick).await;
                        done.err().map(|_| LEASES_INTERVAL).or(Some(Duration::ZERO))
                    }
                    Ok(stamp) => Some(deadline.min(tell).saturating_sub(stamp.at)),
                    Err(_) => Some(LEASES_INTERVAL),
                },
            }
        };
        match wait {
            None => applied.await,
            Some(Duration::ZERO) => {}
            Some(wait) => tokio::select! {
                biased;
                () = applied => {}
                () = runtime.sleep(wait) => {}
            },
        }
    }
}

impl<L: Log, R: Runtime> Store for Replicated<L, R> {
    type Watch = ReplicatedWatch;

    fn limits(&self) -> Limits {
        self.shared.replica.limits()
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.shared.catch_up().await?;
        self.shared.replica.shared.local.range(&request)
    }

    async fn commit(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        txn.check(&self.limits())?;
        if !txn.writes() {
            self.shared.catch_up().await?;
            if let Some(done) = self.shared.replica.shared.local.read(&txn)? {
                return Ok(done);
            }
        }
        self.shared.run(Command::Txn(txn)).await?.txn()
    }

    async fn watch(&self, range: KeyRange, from: u64) -> Result<ReplicatedWatch, StoreError> {
        // What was answered before is not told as if it came now, and a compaction is known.
        self.shared.catch_up().await?;
        let local = self.shared.replica.shared.local.watch(range, from)?;
        let shared = Arc::downgrade(&self.shared);
        let catch_up = move || -> CatchingUp {
            let shared = shared.upgrade();
            Box::pin(async move {
                let Some(shared) = shared else {
                    return Err(Refusal::Closed("its last handle is gone".to_owned()).into());
                };
                match shared.catch_up().await {
                    Err(closed @ StoreError::Refused(_)) => Err(closed),
                    // Without the others the progress is that of this node alone.
                    Ok(()) | Err(_) => Ok(()),
                }
            })
        };
        Ok(ReplicatedWatch::new(local, catch_up))
    }

    async fn grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<Lease, StoreError> {
        self.shared.run(Command::Grant { id, ttl }).await?.lease()
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<Duration, StoreError> {
        Ok(self.shared.run(Command::KeepAlive(id)).await?.lease()?.ttl)
    }

    async fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.shared.run(Command::Revoke(id)).await.map(drop)
    }

    async fn time_to_live(&self, id: LeaseId) -> Result<LeaseState, StoreError> {
        // The node that leads tells all copies the time.
        self.shared.run(Command::Tick).await?;
        self.shared.catch_up().await?;
        let local = &self.shared.replica.shared.local;
        let now = local.look(Machine::now);
        local.lease(id, now)
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.shared.run(Command::Compact(revision)).await.map(drop)
    }
}
