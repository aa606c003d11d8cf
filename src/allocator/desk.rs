//! What a member's parts share: what it is worth, what it is to write, and what the leader reports.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::{
    error::AllocatorError,
    item::Keys,
    local::Locals,
    report::Report,
    value::{Entity, MemberKey, Workload},
};
use crate::store::mirror::Mirror;

/// What a member may rely on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It has not announced itself yet; perhaps it waits for the end of a former self.
    #[default]
    Joining,
    /// It holds what it is assigned.
    Active,
    /// The store has not answered for so long that the lease may end soon. Nothing has ended yet, but
    /// what is done in the name of an item should wait.
    Suspect,
    /// It wants to leave, and holds what nobody has taken over yet.
    Draining,
    /// It holds nothing any more, and is not there, unless it is run again.
    Ended,
}

/// The answer to somebody who waits for a write.
pub(super) type Answer = oneshot::Sender<Result<(), AllocatorError>>;

/// A value that an item's assignment is to get.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) value: Vec<u8>,
    pub(super) answers: Vec<Answer>,
}

/// A member's value, to be written over the one that stands.
#[derive(Debug)]
pub(super) struct Amend<M> {
    pub(super) value: M,
    pub(super) answer: Option<Answer>,
}

/// What there is to write.
#[derive(Debug)]
pub(super) struct Errands<M> {
    pub(super) publish: BTreeMap<Arc<str>, Publish>,
    pub(super) give_back: BTreeMap<Arc<str>, Vec<Answer>>,
    pub(super) amend: VecDeque<Amend<M>>,
    /// Fixed items that may not be there.
    pub(super) fixed: bool,
}

/// What stands at the desk.
pub(super) struct Desk<W: Workload> {
    pub(super) status: Status,
    pub(super) mirror: Option<Mirror<Entity<W>>>,
    pub(super) report: Option<Arc<Report>>,
    pub(super) errands: Errands<W::Member>,
    pub(super) locals: Locals,
    /// The last change of the store that `locals` know of.
    pub(super) seen: u64,
    draining: bool,
}

/// The desk, and whoever is to be told of what happens there.
pub(super) struct Core<W: Workload> {
    pub(super) keys: Keys,
    pub(super) me: MemberKey,
    pub(super) workload: Arc<W>,
    /// Items that exist from the start, with their values.
    pub(super) fixed: BTreeMap<Arc<str>, Vec<u8>>,
    desk: Mutex<Desk<W>>,
    /// There is something to write.
    pub(super) errand: Notify,
    /// The status, the report, the mirror, or what is held here has changed.
    pub(super) turned: Notify,
    /// Whatever is under way for an item is to be left, because nothing is held any more.
    pub(super) lost: Notify,
}

impl<W: Workload> fmt::Debug for Core<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("me", &self.me).finish_non_exhaustive()
    }
}

impl<W: Workload> Core<W> {
    /// The key of this member.
    pub(super) fn own_key(&self) -> String {
        self.keys.join(&self.me.key())
    }

    pub(super) fn new(
        keys: Keys,
        me: MemberKey,
        workload: Arc<W>,
        fixed: BTreeMap<Arc<str>, Vec<u8>>,
    ) -> Self {
        let errands = Errands {
            publish: BTreeMap::new(),
            give_back: BTreeMap::new(),
            amend: VecDeque::new(),
            fixed: false,
        };
        let desk = Desk {
            status: Status::default(),
            mirror: None,
            report: None,
            errands,
            locals: Locals::default(),
            seen: 0,
            draining: false,
        };
        let (errand, turned, lost) = (Notify::new(), Notify::new(), Notify::new());
        Self { keys, me, workload, fixed, desk: Mutex::new(desk), errand, turned, lost }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Desk<W>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns to another status.
    pub(super) fn turn(&self, status: Status) {
        let turned = std::mem::replace(&mut self.lock().status, status) != status;
        if turned {
            self.turned.notify_waiters();
        }
    }

    /// Begins a life, perhaps not the first.
    pub(super) fn begin(&self) {
        let mut desk = self.lock();
        (desk.draining, desk.seen) = (false, 0);
        desk.locals.take();
        drop(desk);
        self.turn(Status::Joining);
    }

    /// Says whether the lease can be relied on.
    pub(super) fn trust(&self, held: bool) {
        let draining = self.lock().draining;
        self.turn(match (held, draining) {
            (false, _) => Status::Suspect,
            (true, false) => Status::Active,
            (true, true) => Status::Draining,
        });
    }

    /// The member wants to leave from now on.
    pub(super) fn drain(&self) {
        self.lock().draining = true;
        self.turn(Status::Draining);
    }

    /// Waits until all that stands now is known here, and nothing of it is held any more.
    pub(super) async fn drained(&self) {
        let stands = self.lock().mirror.as_ref().map_or(0, |mirror| mirror.view().changed());
        loop {
            let mut turned = std::pin::pin!(self.turned.notified());
            turned.as_mut().enable();
            {
                let desk = self.lock();
                if desk.seen >= stands && desk.locals.is_empty() {
                    return;
                }
            }
            turned.await;
        }
    }

    /// Asks for a write, unless the member has ended.
    pub(super) fn ask(
        &self,
        errand: impl FnOnce(&mut Errands<W::Member>, Answer),
    ) -> Result<oneshot::Receiver<Result<(), AllocatorError>>, AllocatorError> {
        let (answer, answered) = oneshot::channel();
        let mut desk = self.lock();
        if desk.status == Status::Ended {
            return Err(AllocatorError::Ended);
        }
        errand(&mut desk.errands, answer);
        drop(desk);
        self.errand.notify_one();
        Ok(answered)
    }

    /// Ends: whoever waits is answered that it has.
    pub(super) fn end(&self) {
        self.turn(Status::Ended);
        let mut desk = self.lock();
        let Errands { publish, give_back, amend, .. } = &mut desk.errands;
        // An answer that is dropped says that the member has ended.
        publish.clear();
        give_back.clear();
        amend.clear();
        desk.report = None;
        drop(desk);
        self.turned.notify_waiters();
    }
}
