//! A machine in this process: who reads it, who watches it, and what wakes them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    contract::{LeaseState, Update, Watch},
    error::{Refusal, StoreError},
    kv::{Events, KeyRange, LeaseId},
    machine::{Command, Machine, Outcome},
    txn::{RangeRequest, RangeResponse, Txn, TxnResponse},
};

/// How many revisions a watch takes from the history at once.
const BATCH: usize = 256;

/// The machine, and whoever waits for it to change.
///
/// Watches hold a place in the machine's history and no queue of their own, so that a slow one
/// costs nothing, and learns that it is too late when its place is compacted.
#[derive(Debug)]
pub(super) struct Local {
    state: Mutex<State>,
    changed: Notify,
    /// The next lease ends at another time than before, or it is closed: for one who ends them.
    pub(super) due: Notify,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    closed: Option<Refusal>,
}

impl Local {
    pub(super) fn new(machine: Machine) -> Self {
        let state = Mutex::new(State { machine, closed: None });
        Self { state, changed: Notify::new(), due: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.lock();
        match &state.closed {
            Some(closed) => Err(closed.clone().into()),
            None => Ok(state),
        }
    }

    /// Fails if it is closed.
    pub(super) fn open_or_closed(&self) -> Result<(), StoreError> {
        self.open().map(drop)
    }

    /// Looks at the machine, closed or not.
    pub(super) fn look<T>(&self, at: impl FnOnce(&Machine) -> T) -> T {
        at(&self.lock().machine)
    }

    /// Applies commands, all of them before anybody reads again.
    pub(super) fn apply(
        &self,
        commands: impl IntoIterator<Item = (Duration, Command)>,
    ) -> Vec<Result<Outcome, Refusal>> {
        self.update(|machine| {
            commands.into_iter().map(|(at, command)| machine.apply(command, at)).collect()
        })
    }

    /// Applies one command, unless it is closed.
    pub(super) fn apply_one(&self, at: Duration, command: Command) -> Result<Outcome, StoreError> {
        let outcome = self.change(self.open()?, |machine| machine.apply(command, at));
        outcome.map_err(StoreError::Refused)
    }

    /// Changes the machine, before anybody reads again.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> T {
        self.change(self.lock(), change)
    }

    /// Whoever is concerned is told here, since whoever has asked for it may be gone.
    fn change<T>(
        &self,
        mut state: MutexGuard<'_, State>,
        change: impl FnOnce(&mut Machine) -> T,
    ) -> T {
        let marks = |machine: &Machine| (machine.revision(), machine.next_deadline());
        let before = marks(&state.machine);
        let done = change(&mut state.machine);
        let after = marks(&state.machine);
        drop(state);
        if after.0 != before.0 {
            self.changed.notify_waiters();
        }
        if after.1 != before.1 {
            self.due.notify_one();
        }
        done
    }

    /// From now on every call and every watch ends with [`Refusal::Closed`].
    pub(super) fn close(&self, why: &str) {
        self.lock().closed.get_or_insert_with(|| Refusal::Closed(why.to_owned()));
        self.changed.notify_waiters();
        self.due.notify_one();
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        Ok(self.open()?.machine.range(request)?)
    }

    /// Does a transaction that only reads; `None` if it may write.
    pub(super) fn read(&self, txn: &Txn) -> Result<Option<TxnResponse>, StoreError> {
        if txn.writes() {
            return Ok(None);
        }
        let done = self.open()?.machine.read(txn);
        done.transpose().map_err(StoreError::Refused)
    }

    pub(super) fn lease(&self, id: LeaseId, at: Duration) -> Result<LeaseState, StoreError> {
        Ok(self.open()?.machine.lease(id, at)?)
    }

    pub(super) fn watch(
        self: &Arc<Self>,
        range: KeyRange,
        from: u64,
    ) -> Result<LocalWatch, StoreError> {
        let state = self.open()?;
        let from = if from == 0 { state.machine.revision() + 1 } else { from };
        // Refuses a range that makes no sense at once.
        if let Err(refusal @ Refusal::Invalid(_)) = state.machine.events(&range, from, 0) {
            return Err(refusal.into());
        }
        let (local, queue) = (Arc::clone(self), VecDeque::new());
        Ok(LocalWatch { local, range, next: from, queue, asked: false, ended: None })
    }
}

/// A watch of a store whose machine is in this process.
#[derive(Debug)]
pub struct LocalWatch {
    local: Arc<Local>,
    range: KeyRange,
    /// The next revision to look at.
    next: u64,
    queue: VecDeque<Events>,
    asked: bool,
    ended: Option<StoreError>,
}

impl LocalWatch {
    /// Takes what has happened. `None`: nothing that is to be told.
    fn take(&mut self) -> Result<Option<Update>, StoreError> {
        if self.queue.is_empty() {
            let state = self.local.open()?;
            let (events, seen) = state.machine.events(&self.range, self.next, BATCH)?;
            let revision = state.machine.revision();
            drop(state);
            self.queue.extend(events);
            self.next = seen + 1;
            if self.queue.is_empty() && self.asked {
                self.asked = false;
                return Ok(Some(Update::Progress(seen.min(revision))));
            }
        }
        Ok(self.queue.pop_front().map(Update::Events))
    }
}

impl Watch for LocalWatch {
    async fn next(&mut self) -> Result<Update, StoreError> {
        loop {
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            let local = Arc::clone(&self.local);
            // Registered before looking, so that no change falls between.
            let mut changed = std::pin::pin!(local.changed.notified());
            changed.as_mut().enable();
            match self.take() {
                Ok(Some(update)) => return Ok(update),
                Ok(None) => changed.await,
                Err(error) => self.ended = Some(error),
            }
        }
    }

    fn request_progress(&mut self) {
        self.asked = true;
    }
}
