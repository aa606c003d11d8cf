//! What a member writes itself: its own value, what it says of its items, and the items that are fixed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    desk::{Amend, Answer, Core, Publish},
    error::AllocatorError,
    value::{Entity, MemberValue, Workload},
};
use crate::{
    runtime::Runtime,
    store::{
        Compare, KeyRange, LeaseKeeper, Op, OpResponse, Refusal, Store, StoreError, Txn,
        TxnResponse,
        mirror::{Entry, Mirror, View},
    },
};

/// How many writes go into one transaction; fewer if the store takes fewer.
const BATCH: usize = 100;

/// The first pause after the store has failed.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);

/// The longest.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

pub(super) struct Errands<S, R: Runtime, W: Workload> {
    pub(super) store: S,
    pub(super) runtime: R,
    pub(super) core: Arc<Core<W>>,
    pub(super) keeper: LeaseKeeper<S, R>,
    pub(super) mirror: Mirror<Entity<W>>,
}

/// A write to an assignment of this member.
struct Write {
    item: Arc<str>,
    /// `None`: the assignment is given back.
    publish: Option<Publish>,
    answers: Vec<Answer>,
}

impl<S: Store, R: Runtime, W: Workload> Errands<S, R, W> {
    /// Writes whatever is to be written, until that is refused for good.
    pub(super) async fn run(self) -> AllocatorError {
        loop {
            let mut errand = std::pin::pin!(self.core.errand.notified());
            errand.as_mut().enable();
            match self.next().await {
                Ok(true) => {}
                Ok(false) => errand.await,
                Err(error) => return error,
            }
        }
    }

    /// Writes something. Returns whether there was anything.
    async fn next(&self) -> Result<bool, AllocatorError> {
        let (amend, fixed) = {
            let mut desk = self.core.lock();
            (desk.errands.amend.pop_front(), std::mem::take(&mut desk.errands.fixed))
        };
        let mut any = fixed || amend.is_some();
        if let Some(amend) = amend {
            self.amend(amend).await?;
        }
        if fixed {
            self.fix().await?;
        }
        let writes = self.take();
        if !writes.is_empty() {
            any = true;
            self.write(writes).await?;
        }
        Ok(any)
    }

    fn batch(&self) -> usize {
        // One of the operations of a nested transaction counts too.
        BATCH.min(self.store.limits().operations.saturating_sub(1)).max(1)
    }

    fn take(&self) -> Vec<Write> {
        let mut desk = self.core.lock();
        let errands = &mut desk.errands;
        let mut writes = Vec::new();
        while writes.len() < self.batch() {
            if let Some((item, answers)) = errands.give_back.pop_first() {
                // What it would have said does not matter any more.
                let unsaid = errands.publish.remove(&item);
                refuse(unsaid.into_iter().flat_map(|unsaid| unsaid.answers), &item);
                writes.push(Write { item, publish: None, answers });
            } else if let Some((item, mut publish)) = errands.publish.pop_first() {
                let answers = std::mem::take(&mut publish.answers);
                writes.push(Write { item, publish: Some(publish), answers });
            } else {
                break;
            }
        }
        writes
    }

    /// Writes to assignments, each if this member has it. Who gets another slot meanwhile is tried
    /// again.
    async fn write(&self, mut writes: Vec<Write>) -> Result<(), AllocatorError> {
        while !writes.is_empty() {
            let view = self.mirror.view();
            let mut sent = Vec::new();
            let mut ops = Vec::new();
            for write in writes {
                let Some(entry) = self.assignment(&view, &write.item) else {
                    refuse(write.answers, &write.item);
                    continue;
                };
                let key = &entry.kv.key;
                let op = match &write.publish {
                    Some(publish) => Op::put_leased(key, publish.value.clone(), self.keeper.id()),
                    None => Op::delete(key),
                };
                let when = Compare::unchanged(key, entry.kv.mod_revision);
                ops.push(Op::Txn(Txn::when([when]).and_then([op])));
                sent.push(write);
            }
            if ops.is_empty() {
                return Ok(());
            }
            let done = self.commit(Txn::new(ops)).await?;
            self.mirror.wait(done.revision).await?;
            writes = Vec::new();
            for (write, response) in sent.into_iter().zip(done.responses) {
                if matches!(response, OpResponse::Txn(TxnResponse { succeeded: true, .. })) {
                    for answer in write.answers {
                        // Whoever asked may have gone.
                        let _ = answer.send(Ok(()));
                    }
                } else {
                    writes.push(write);
                }
            }
        }
        Ok(())
    }

    /// This member's assignment of an item, the primary's slot first.
    fn assignment(&self, view: &View<Entity<W>>, item: &str) -> Option<Arc<Entry<Entity<W>>>> {
        let own = format!("{}{item}#{}#", self.core.keys.assignments(), self.core.me);
        let range = KeyRange::prefix(own);
        view.range(&range).next().map(|(_, entry)| Arc::clone(entry))
    }

    /// Replaces this member's value.
    async fn amend(&self, amend: Amend<W::Member>) -> Result<(), AllocatorError> {
        let value = match amend.value.encode() {
            Ok(value) => value,
            Err(error) => {
                answer(amend.answer, Err(AllocatorError::Value(error)));
                return Ok(());
            }
        };
        let key = self.core.own_key();
        loop {
            let view = self.mirror.view();
            let Some(entry) = view.get(key.as_bytes()) else {
                return Err(AllocatorError::Removed(self.core.me.clone()));
            };
            let txn = Txn::when([Compare::unchanged(key.as_str(), entry.kv.mod_revision)]);
            let put = Op::put_leased(key.as_str(), value.as_slice(), self.keeper.id());
            let done = self.commit(txn.and_then([put])).await?;
            self.mirror.wait(done.revision).await?;
            if done.succeeded {
                answer(amend.answer, Ok(()));
                return Ok(());
            }
        }
    }

    /// Makes the fixed items that are not there.
    async fn fix(&self) -> Result<(), AllocatorError> {
        let view = self.mirror.view();
        let key = |item: &Arc<str>| format!("{}{item}", self.core.keys.items());
        let fixed: &BTreeMap<Arc<str>, Vec<u8>> = &self.core.fixed;
        let missing = fixed.iter().filter(|(item, _)| view.get(key(item).as_bytes()).is_none());
        let ops: Vec<Op> = missing
            .map(|(item, value)| {
                let absent = Compare::absent(KeyRange::key(key(item)));
                Op::Txn(Txn::when([absent]).and_then([Op::put(key(item), value.as_slice())]))
            })
            .collect();
        for ops in ops.chunks(self.batch()) {
            let done = self.commit(Txn::new(ops.iter().cloned())).await?;
            self.mirror.wait(done.revision).await?;
        }
        Ok(())
    }

    /// Does a transaction that may be done twice, as often as it takes.
    async fn commit(&self, txn: Txn) -> Result<TxnResponse, AllocatorError> {
        let mut pause = BACKOFF_FIRST;
        loop {
            match self.store.commit(txn.clone()).await {
                Ok(done) => return Ok(done),
                Err(StoreError::Refused(Refusal::LeaseNotFound(_))) => {
                    return Err(AllocatorError::LeaseLost);
                }
                Err(error @ StoreError::Refused(_)) => return Err(error.into()),
                Err(error) => tracing::info!("{} writes later: {error}", self.core.me),
            }
            self.runtime.sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }
}

fn answer(to: Option<Answer>, what: Result<(), AllocatorError>) {
    if let Some(to) = to {
        // Whoever asked may have gone.
        let _ = to.send(what);
    }
}

fn refuse(answers: impl IntoIterator<Item = Answer>, item: &str) {
    for one in answers {
        answer(Some(one), Err(AllocatorError::NotHeld(item.to_owned())));
    }
}
