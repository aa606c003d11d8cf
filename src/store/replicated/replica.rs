//! One node's copy of the store: what the host applies, and what its readers see.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::sessions::{self, Applied, Entry, Part, Sessions, Stamp};
use crate::{
    runtime::Runtime,
    store::{
        local::Local,
        machine::{Machine, SnapshotError},
        txn::Limits,
    },
};

/// One node's copy of the store. Its clones are the same copy.
///
/// The host's state machine holds it: it applies the entries of the log to it, one after the
/// other, and makes it part of its snapshots. The host's own state and this one have to stand at
/// the same entry after a restart: either the entries since the last snapshot are kept and applied
/// again, or the log is.
///
/// ```
/// use raft_autopilot::store::replicated::Replica;
///
/// let (here, there) = (Replica::new(), Replica::new());
/// // A snapshot, taken at some entry here, becomes the state there.
/// let parts: Vec<_> = here.freeze().parts().collect();
/// there.install(there.restore(parts).unwrap());
/// ```
#[derive(Clone)]
pub struct Replica {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) local: Arc<Local>,
    sessions: Mutex<Sessions>,
    clock: Mutex<Clock>,
    /// How many proposals and snapshots were applied here.
    count: AtomicU64,
    /// Told when something was applied, for who ends the leases.
    pub(super) applied: Notify,
}

/// What this node says the time is while it leads.
///
/// Whatever the machine's time is, so much of it has really passed since any lease was granted or
/// kept alive; so it may go on from there with the time that passes here after it was applied.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    /// How much was applied at some time of the runtime's, or before.
    heard: (u64, Duration),
    /// The number that this node has drawn; zero: none.
    leader: u64,
    /// The machine's time when that was applied, and the runtime's.
    since: Option<(Duration, Duration)>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.shared.local.look(Machine::revision);
        f.debug_struct("Replica").field("revision", &revision).finish_non_exhaustive()
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}

impl Replica {
    /// An empty store. All nodes begin with the same configuration, the default one; whatever
    /// changes it stands in the log: see [`Replicated::configure`](super::Replicated::configure).
    pub fn new() -> Self {
        let shared = Shared {
            local: Arc::new(Local::new(Machine::default())),
            sessions: Mutex::default(),
            clock: Mutex::default(),
            count: AtomicU64::new(0),
            applied: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Applies the next entry of the log. Call it for every entry, in the log's order, once for
    /// each time that the entry becomes part of the host's state; the answer goes to whoever
    /// appended it.
    pub fn apply(&self, entry: Entry) -> Applied {
        let mut sessions = lock(&self.shared.sessions);
        self.shared
            .count
            .fetch_add(u64::from(matches!(entry, Entry::Propose(_))), Ordering::SeqCst);
        let applied = self.shared.local.update(|machine| sessions.apply(entry, machine));
        drop(sessions);
        self.shared.applied.notify_waiters();
        applied
    }

    /// What stands now, to be written into a snapshot while more is applied.
    pub fn freeze(&self) -> Frozen {
        let sessions = lock(&self.shared.sessions);
        let machine = self.shared.local.look(Clone::clone);
        Frozen { machine, sessions: sessions.clone() }
    }

    /// Reads a snapshot; nothing is changed.
    ///
    /// # Errors
    /// [`SnapshotError`] where the parts do not fit together.
    pub fn restore(&self, parts: impl IntoIterator<Item = Part>) -> Result<Frozen, SnapshotError> {
        let (machine, sessions) = sessions::restore(parts)?;
        Ok(Frozen { machine, sessions })
    }

    /// Replaces what stands by a snapshot. Those who watch go on where they were, or learn that
    /// their place is compacted.
    pub fn install(&self, frozen: Frozen) {
        let mut sessions = lock(&self.shared.sessions);
        *sessions = frozen.sessions;
        self.shared.count.fetch_add(1, Ordering::SeqCst);
        self.shared.local.update(|machine| *machine = frozen.machine);
        drop(sessions);
        self.shared.applied.notify_waiters();
    }

    /// What the store takes in one transaction.
    pub(super) fn limits(&self) -> Limits {
        self.shared.local.look(|machine| machine.config().limits)
    }

    /// The time as this node tells it, if it is the one that tells it. `now` is the runtime's.
    pub(super) fn stamp(&self, now: Duration) -> Option<Stamp> {
        let leader = lock(&self.shared.sessions).leader;
        let machine = self.shared.local.look(Machine::now);
        let mut clock = lock(&self.shared.clock);
        if leader == 0 || leader != clock.leader {
            return None;
        }
        let (base, since) = clock.since?;
        let at = base.saturating_add(now.saturating_sub(since));
        if at < machine {
            clock.since = Some((machine, now));
        }
        Some(Stamp { leader, at: at.max(machine) })
    }

    /// Notes when this node had applied what it has.
    pub(super) fn hear(&self, runtime: &impl Runtime) {
        let count = self.shared.count.load(Ordering::SeqCst);
        let mut clock = lock(&self.shared.clock);
        if count != clock.heard.0 {
            // Read after the count, so that it is never too early.
            clock.heard = (count, runtime.now());
        }
    }

    /// From now on this node tells the time by that number, as soon as it is the last in the log.
    pub(super) fn lead(&self, leader: u64, now: Duration) {
        let sessions = lock(&self.shared.sessions);
        let machine = self.shared.local.look(Machine::now);
        let count = self.shared.count.load(Ordering::SeqCst);
        drop(sessions);
        let mut clock = lock(&self.shared.clock);
        let heard = (clock.heard.0 == count && count > 0).then_some(clock.heard.1);
        clock.leader = leader;
        clock.since = Some((machine, heard.unwrap_or(now)));
    }
}

/// A store at one entry of the log. A clone of the machine: it shares all keys and values with it.
#[derive(Clone, Debug)]
pub struct Frozen {
    machine: Machine,
    sessions: Sessions,
}

impl Frozen {
    /// It in parts of about 1 MiB, each for a frame of [`codec`](crate::codec) or the like.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        sessions::parts(&self.machine, &self.sessions)
    }
}
