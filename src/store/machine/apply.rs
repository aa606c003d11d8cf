//! The machine: one command at a time, each with the time at which it is applied.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{history::History, leases::Leases};
use crate::store::{
    contract::{Lease, LeaseState},
    error::{Refusal, StoreError},
    kv::{Bytes, Events, KeyRange, LeaseId},
    txn::{
        Compare, Limits, Op, OpResponse, RangeRequest, RangeResponse, Target, Txn, TxnResponse,
        check_range,
    },
};

/// The latest time that there is: nobody comes to it, and what is reckoned from it overflows nowhere.
pub(super) const TIME_MAX: Duration = Duration::from_secs(1 << 62);

/// What a machine is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Does a transaction.
    Txn(Txn),
    /// Grants a lease, with this id or one of the machine's choice.
    Grant {
        /// The id.
        id: Option<LeaseId>,
        /// How long it lives without being kept alive.
        ttl: Duration,
    },
    /// Lets a lease live for its whole time again.
    KeepAlive(LeaseId),
    /// Ends a lease and deletes its keys.
    Revoke(LeaseId),
    /// Forgets the history up to and including a revision.
    Compact(u64),
    /// Lets time pass.
    Tick,
    /// From now on so much is remembered, and taken.
    Configure(Config),
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// What the transaction did.
    Txn(TxnResponse),
    /// The lease that was granted, or kept alive.
    Lease {
        /// Its id.
        id: LeaseId,
        /// How long it lives without being kept alive.
        ttl: Duration,
    },
    /// It was done, and there is nothing to say about it.
    Done,
}

impl Outcome {
    /// What the transaction did, that was asked for.
    pub(in crate::store) fn txn(self) -> Result<TxnResponse, StoreError> {
        match self {
            Self::Txn(done) => Ok(done),
            other => Err(other.unexpected()),
        }
    }

    /// The lease that was asked for.
    pub(in crate::store) fn lease(self) -> Result<Lease, StoreError> {
        match self {
            Self::Lease { id, ttl } => Ok(Lease { id, ttl }),
            other => Err(other.unexpected()),
        }
    }

    /// Whoever hosts the machine has broken his word.
    fn unexpected(self) -> StoreError {
        StoreError::Unknown(format!("the machine answered {self:?}"))
    }
}

/// What a machine keeps, and how much it takes.
///
/// What comes of a command depends on it, so it is part of the machine's state and of its
/// snapshots, and only [`Command::Configure`] changes it: commands that are applied again are
/// judged by what was in force when they were applied first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// What a transaction may hold.
    pub limits: Limits,
    /// The most revisions that are remembered. Default 100,000: a page of a long reading or a
    /// watch that resumes may lag behind by so many changes.
    pub history_len: usize,
    /// The oldest revision that is remembered. Default 10 min, for the same in a quiet store;
    /// twice etcd's usual 5 min.
    pub history_age: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            history_len: 100_000,
            history_age: Duration::from_secs(600),
        }
    }
}

/// The store's whole state. The same commands with the same times give the same state and the
/// same outcomes, everywhere.
///
/// A clone shares all keys and values with the machine; it costs some milliseconds at most.
///
/// ```
/// use std::time::Duration;
/// use raft_autopilot::store::{Compare, KeyRange, Op, Txn, machine::{Command, Machine, Outcome}};
///
/// let mut machine = Machine::default();
/// let take = Txn::when([Compare::absent(KeyRange::key("lock"))]).and_then([Op::put("lock", "me")]);
/// for expected in [true, false] {
///     let outcome = machine.apply(Command::Txn(take.clone()), Duration::ZERO).unwrap();
///     assert!(matches!(outcome, Outcome::Txn(done) if done.succeeded == expected));
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub(super) config: Config,
    pub(super) history: History,
    pub(super) leases: Leases,
    pub(super) now: Duration,
}

impl Machine {
    /// An empty store at revision 1. Machines that apply the same commands begin with the same
    /// configuration.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.history.revision
    }

    /// The last revision whose change is forgotten; what stood at it can still be read.
    pub fn compacted(&self) -> u64 {
        self.history.compacted
    }

    /// How much a transaction may hold now, and how much is remembered.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The latest time that a command came with. It starts at zero and never runs back.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// When the next lease ends: a [`Command::Tick`] is due then.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.leases.next().map(|(deadline, _)| deadline)
    }

    /// Applies a command at a time; an earlier time than the last counts as that one.
    ///
    /// Leases that have ended by then are ended first, each at a revision of its own, in the order
    /// of their deadlines; so nothing is ever done with a lease that has ended.
    ///
    /// # Errors
    /// Why the command is refused. Nothing of it was done; time has passed nevertheless.
    pub fn apply(&mut self, command: Command, at: Duration) -> Result<Outcome, Refusal> {
        self.now = self.now.max(at.min(TIME_MAX));
        while let Some((deadline, id)) = self.leases.next()
            && deadline <= self.now
        {
            self.end_lease(id)?;
        }
        let outcome = match command {
            Command::Txn(txn) => self.txn(txn).map(Outcome::Txn),
            Command::Grant { id, ttl } => {
                self.leases.grant(id, ttl, self.now).map(|id| Outcome::Lease { id, ttl })
            }
            Command::KeepAlive(id) => {
                self.leases.keep_alive(id, self.now).map(|ttl| Outcome::Lease { id, ttl })
            }
            Command::Revoke(id) => self.end_lease(id).map(|()| Outcome::Done),
            Command::Compact(revision) => self.history.compact(revision).map(|()| Outcome::Done),
            Command::Configure(config) => {
                self.config = config;
                Ok(Outcome::Done)
            }
            Command::Tick => Ok(Outcome::Done),
        };
        self.history.trim(self.now, self.config.history_len, self.config.history_age);
        outcome
    }

    fn end_lease(&mut self, id: LeaseId) -> Result<(), Refusal> {
        let lease = self.leases.remove(id)?;
        for key in lease.keys.iter() {
            self.history.delete(key, self.now);
        }
        self.history.commit();
        Ok(())
    }

    /// Reads a range of keys.
    ///
    /// # Errors
    /// [`Refusal::Compacted`], [`Refusal::Ahead`] or [`Refusal::Invalid`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        request.check()?;
        self.history.check(request.revision)?;
        Ok(self.history.range(request))
    }

    /// Does a transaction that only reads, without a command; `None` if it may write.
    ///
    /// # Errors
    /// As if it had been applied.
    pub fn read(&self, txn: &Txn) -> Option<Result<TxnResponse, Refusal>> {
        if txn.writes() {
            return None;
        }
        let mut nested = Vec::new();
        let checked = txn.check(&self.config.limits).and_then(|()| self.choose(txn, &mut nested));
        Some(checked.map(|succeeded| self.execute_reads(txn, succeeded, &mut nested.into_iter())))
    }

    fn execute_reads(
        &self,
        txn: &Txn,
        succeeded: bool,
        nested: &mut impl Iterator<Item = bool>,
    ) -> TxnResponse {
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut responses = Vec::new();
        for op in ops {
            match op {
                Op::Range(read) => responses.push(OpResponse::Range(self.history.range(read))),
                Op::Txn(txn) => {
                    let succeeded = nested.next().unwrap_or_default();
                    responses.push(OpResponse::Txn(self.execute_reads(txn, succeeded, nested)));
                }
                Op::Put { .. } | Op::Delete(_) => {}
            }
        }
        TxnResponse { revision: self.history.revision, succeeded, responses }
    }

    /// What stands of a lease at a time.
    ///
    /// # Errors
    /// [`Refusal::LeaseNotFound`].
    pub fn lease(&self, id: LeaseId, at: Duration) -> Result<LeaseState, Refusal> {
        let lease = self.leases.get(id)?;
        Ok(LeaseState {
            ttl: lease.ttl,
            remaining: lease.deadline.saturating_sub(self.now.max(at)),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// What happened in a range from a revision on: at most `limit` revisions that changed
    /// anything there, and the last revision that was looked at.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] if `from` is forgotten, or [`Refusal::Invalid`].
    pub fn events(
        &self,
        range: &KeyRange,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<Events>, u64), Refusal> {
        check_range(range)?;
        self.history.events(range, from, limit)
    }

    fn txn(&mut self, txn: Txn) -> Result<TxnResponse, Refusal> {
        txn.check(&self.config.limits)?;
        let mut nested = Vec::new();
        let succeeded = self.choose(&txn, &mut nested)?;
        let mut response = self.execute(txn, succeeded, &mut nested.into_iter());
        self.history.commit();
        stamp(&mut response, self.history.revision);
        Ok(response)
    }

    /// Judges all compares on the way that the transaction takes, before any of it is done, and
    /// refuses what cannot be done there. Returns whether its own hold; `nested` gets the same of
    /// those nested in it, in the order in which they are met.
    fn choose(&self, txn: &Txn, nested: &mut Vec<bool>) -> Result<bool, Refusal> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        for op in if succeeded { &txn.success } else { &txn.failure } {
            match op {
                Op::Range(read) => self.history.check(read.revision)?,
                Op::Put { lease, .. } if *lease != LeaseId::NONE => {
                    self.leases.get(*lease)?;
                }
                Op::Put { .. } | Op::Delete(_) => {}
                Op::Txn(txn) => {
                    let place = nested.len();
                    nested.push(false);
                    let succeeded = self.choose(txn, nested)?;
                    if let Some(chosen) = nested.get_mut(place) {
                        *chosen = succeeded;
                    }
                }
            }
        }
        Ok(succeeded)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let relation = compare.relation;
        let mut standing = self.history.standing(&compare.range).peekable();
        if standing.peek().is_none() {
            return match &compare.target {
                Target::CreateRevision(named)
                | Target::ModRevision(named)
                | Target::Version(named)
                | Target::Lease(LeaseId(named)) => relation.holds(&0, named),
                Target::Value(_) => false,
            };
        }
        standing.all(|kv| match &compare.target {
            Target::CreateRevision(named) => relation.holds(&kv.create_revision, named),
            Target::ModRevision(named) => relation.holds(&kv.mod_revision, named),
            Target::Version(named) => relation.holds(&kv.version, named),
            Target::Value(named) => relation.holds(&kv.value, named),
            Target::Lease(named) => relation.holds(&kv.lease, named),
        })
    }

    fn execute(
        &mut self,
        txn: Txn,
        succeeded: bool,
        nested: &mut impl Iterator<Item = bool>,
    ) -> TxnResponse {
        let ops = if succeeded { txn.success } else { txn.failure };
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                Op::Range(read) => OpResponse::Range(self.history.range(&read)),
                Op::Put { key, value, lease } => {
                    self.put(&key, value, lease);
                    OpResponse::Put
                }
                Op::Delete(range) => OpResponse::Delete(self.delete(&range)),
                Op::Txn(txn) => {
                    let succeeded = nested.next().unwrap_or_default();
                    OpResponse::Txn(self.execute(txn, succeeded, nested))
                }
            });
        }
        TxnResponse { responses, succeeded, revision: 0 }
    }

    fn put(&mut self, key: &Bytes, value: Bytes, lease: LeaseId) {
        let old = self.history.put(key, value, lease, self.now);
        if old != lease {
            self.leases.detach(old, key);
            self.leases.attach(lease, key);
        }
    }

    fn delete(&mut self, range: &KeyRange) -> u64 {
        let keys: Vec<Bytes> = self.history.standing(range).map(|kv| kv.key.clone()).collect();
        for key in &keys {
            if let Some(lease) = self.history.delete(key, self.now) {
                self.leases.detach(lease, key);
            }
        }
        keys.len() as u64
    }
}

/// Writes the revision of the whole into all its parts.
fn stamp(response: &mut TxnResponse, revision: u64) {
    response.revision = revision;
    for part in &mut response.responses {
        match part {
            OpResponse::Range(read) => read.revision = revision,
            OpResponse::Txn(nested) => stamp(nested, revision),
            OpResponse::Put | OpResponse::Delete(_) => {}
        }
    }
}
