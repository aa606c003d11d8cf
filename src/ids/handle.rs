//! A handle: a reference to an id, for as long as it is kept.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use crate::store::Bytes;

use super::{
    desk::{Desk, Granted},
    error::IdsError,
    life::{Generation, Life, Origin, Status},
    shelf::Shelf,
    source::Remote,
    ticks::Ticks,
};

/// The runtime's clock, for handles, which do not know their runtime.
type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// What the driver, the callers and the handles of an instance share.
pub(super) struct Core {
    desk: Mutex<Desk>,
    pub(super) shelf: Arc<Shelf>,
    clock: Clock,
    /// There is something to do for the driver.
    pub(super) wake: Notify,
    /// Some handle's status may have changed.
    pub(super) turned: Notify,
    /// The cache is to be read anew.
    pub(super) reopen: Arc<Notify>,
    pub(super) ticks: Arc<Ticks>,
    remotes: Mutex<Remotes>,
}

/// The caches of other stores, by their names.
pub(super) type Remotes = BTreeMap<Arc<str>, Remote>;

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("desk", &self.desk).finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn new(desk: Desk, clock: Clock) -> Self {
        let (wake, turned, reopen) = (Notify::new(), Notify::new(), Arc::new(Notify::new()));
        let (ticks, remotes) = (Arc::default(), Mutex::default());
        let (shelf, desk) = (Arc::clone(&desk.shelf), Mutex::new(desk));
        Self { desk, shelf, clock, wake, turned, reopen, ticks, remotes }
    }

    pub(super) fn remotes(&self) -> MutexGuard<'_, Remotes> {
        self.remotes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cache has changed.
    pub(super) fn tick(&self) {
        self.ticks.tick();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever works for an instance ends when the last handle and the last clone have gone.
#[derive(Debug)]
pub(super) struct Alive(pub(super) Arc<Core>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.wake.notify_one();
        self.0.reopen.notify_one();
    }
}

/// A reference to an id. Dropping it releases it, in the background.
///
/// As long as it is [`Status::Held`], the key has this id on every node, and no other key has it.
pub struct Handle {
    alive: Arc<Alive>,
    life: Arc<Life>,
    origin: Origin,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("key", &self.life.key)
            .field("id", &self.life.id)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        (self.id(), self.key()) == (other.id(), other.key())
    }
}

impl Eq for Handle {}

impl PartialOrd for Handle {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Handle {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.id(), self.key()).cmp(&(other.id(), other.key()))
    }
}

impl Handle {
    pub(super) fn new(alive: Arc<Alive>, life: Arc<Life>, origin: Origin) -> Self {
        Self { alive, life, origin }
    }

    /// The id.
    pub fn id(&self) -> u64 {
        self.life.id
    }

    /// The key.
    pub fn key(&self) -> &Bytes {
        &self.life.key
    }

    /// The fencing token as it stands, or stood last: another after the id had to be given to the
    /// key anew.
    pub fn generation(&self) -> Generation {
        self.life.generation()
    }

    /// Whether the key had no id before.
    pub fn is_new(&self) -> bool {
        self.origin.is_new
    }

    /// Whether nobody else on this node was using the key.
    pub fn first_use(&self) -> bool {
        self.origin.first_use
    }

    /// What it is worth at this moment, judged by this process' own clock; ask right before acting.
    pub fn status(&self) -> Status {
        self.life.status(&self.origin, (self.alive.0.clock)())
    }

    /// Waits until the status is another than `known`, and returns it.
    pub async fn changed(&self, known: Status) -> Status {
        loop {
            let mut turned = std::pin::pin!(self.alive.0.turned.notified());
            turned.as_mut().enable();
            let status = self.status();
            if status != known {
                return status;
            }
            turned.await;
        }
    }

    /// Releases it, and waits until the store has done so if it was the last on this node. Returns
    /// whether it was.
    ///
    /// Dropping the future leaves it to the background, which does not rest before it is done.
    pub async fn release(self) -> bool {
        let last = self.life.give_back(&self.origin);
        if last {
            let done = self.alive.0.lock().leave(&self.life.key);
            self.alive.0.wake.notify_one();
            // An error is the end of the session, and with it of the reference.
            let _ = done.await;
        }
        last
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.life.give_back(&self.origin) {
            self.alive.0.lock().enqueue(&self.life.key);
            self.alive.0.wake.notify_one();
        }
    }
}

/// A caller that waits for a key. Dropping it lets go of what was granted meanwhile.
pub(super) struct Wait {
    alive: Arc<Alive>,
    key: Bytes,
    answered: bool,
    answer: oneshot::Receiver<Result<Granted, IdsError>>,
}

impl Wait {
    pub(super) fn new(
        alive: Arc<Alive>,
        key: Bytes,
        answer: oneshot::Receiver<Result<Granted, IdsError>>,
    ) -> Self {
        Self { alive, key, answered: false, answer }
    }

    pub(super) async fn next(&mut self) -> Result<Handle, IdsError> {
        let answer = (&mut self.answer).await;
        self.answered = true;
        match answer {
            Ok(Ok((life, origin))) => Ok(Handle::new(Arc::clone(&self.alive), life, origin)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(IdsError::Closed),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        self.answer.close();
        if let Ok(Ok((life, origin))) = self.answer.try_recv() {
            drop(Handle::new(Arc::clone(&self.alive), life, origin));
        }
        // Whatever it waited for may be wanted by nobody now.
        self.alive.0.lock().enqueue(&self.key);
        self.alive.0.wake.notify_one();
    }
}
