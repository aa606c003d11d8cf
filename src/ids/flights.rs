//! From the desk to the store and back: which transactions to send, and what their answers change.

use std::{mem, sync::Arc, time::Duration};

use crate::store::{Bytes, LeaseId, LeaseStatus, Limits, Refusal, StoreError, TxnResponse};

use super::{
    desk::{Desk, Doomed, Granted, Slot},
    error::IdsError,
    layout::{KeyHash, Layout, Meta, RefName},
    life::{Generation, Life},
    notices::Notice,
    slot::{Standing, Step, next},
    tenure::Tenure,
    txns::{Acquire, Acquired, Fenced, acquired},
};

/// Keys that are asked for in one transaction.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) session: Arc<Tenure>,
    pub(super) fence: Meta,
    pub(super) batch: Vec<Acquire>,
}

impl Flight {
    /// Whether a key of the batch may get this id. No transaction may write one twice: the store
    /// would refuse the whole.
    fn has(&self, id: u64) -> bool {
        self.batch.iter().any(|acquire| acquire.candidates.contains(&id))
    }
}

/// What is left to do after an answer.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// These found no free id; look again once the cache has come to the revision.
    pub(super) taken: Vec<Bytes>,
    pub(super) revision: u64,
    /// The range or the epoch is another.
    pub(super) moved: bool,
    /// Nothing came of it.
    pub(super) failed: Option<StoreError>,
}

/// Every candidate carries the key along, so a key longer than this gets one only.
const LONG: usize = 16 << 10;

/// How many bytes a key takes of a transaction, at most.
fn cost(layout: &Layout, node: &Bytes, key: &Bytes, candidates: usize) -> usize {
    let candidates = if key.len() > LONG { 1 } else { candidates };
    // It stands in two values for each candidate, and in three more for one that rests.
    (2 * candidates + 3) * key.len()
        + (candidates + 2) * (node.len() + 5 * layout.name_len_max() + 512)
}

/// How many bytes a transaction has for its keys: all but the fence.
fn room(limits: &Limits, layout: &Layout) -> usize {
    limits.bytes.saturating_sub(layout.name_len_max() + 512)
}

/// The longest key that fits into a transaction.
pub(super) fn key_len_max(limits: &Limits, layout: &Layout, node: &Bytes) -> usize {
    room(limits, layout).saturating_sub(cost(layout, node, &Bytes::default(), 1)) / 5
}

impl Desk {
    /// Takes the next batch of keys to ask for, and lets go of those that nobody wants.
    pub(super) fn plan(&mut self, limits: &Limits, now: Duration) -> Option<Flight> {
        self.now = now;
        let session =
            self.session.clone().filter(|session| session.status_at(now) != LeaseStatus::Lost);
        let (fence, _) = self.meta?;
        let mut flight = None;
        let mut bytes = 0;
        let most = self.options.candidates.clamp(1, limits.operations.saturating_sub(3).max(3) / 3);
        // What a batch leaves to those nested in it.
        let keys =
            limits.operations.saturating_sub(3 * most + 3).clamp(1, self.options.batch.max(1));
        let mut later = Vec::new();
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            let cost = cost(&self.layout, &self.options.node, &key, most);
            if flight.is_some() && bytes + cost > room(limits, &self.layout) {
                self.ready.push_front(key);
                break;
            }
            let Some(mut slot) = self.slots.remove(&key) else { continue };
            slot.queued = false;
            match next(slot.standing, slot.flying, slot.wanted()) {
                Step::Nothing => self.serve(&mut slot),
                Step::Acquire => {
                    let Some(session) = session.as_ref() else {
                        later.push((key, slot));
                        break;
                    };
                    let flight = flight.get_or_insert_with(|| Flight {
                        session: Arc::clone(session),
                        fence,
                        batch: Vec::new(),
                    });
                    // An id that was lost, and given to another key since, waits for the next.
                    if slot.life.as_ref().is_some_and(|life| flight.has(life.id)) {
                        later.push((key, slot));
                        continue;
                    }
                    let mut acquire = self.acquire(&key, &mut slot, session.lease, most);
                    for id in
                        acquire.candidates.extract_if(.., |id| !acquire.again && flight.has(*id))
                    {
                        self.stock.release(id);
                    }
                    bytes += cost;
                    flight.batch.push(acquire);
                }
                // Somebody came to use it just now.
                Step::Release if slot.life.as_ref().is_some_and(|life| !life.leave()) => {
                    slot.leaving.clear();
                }
                Step::Release => {
                    self.doom(&mut slot);
                    continue;
                }
                // Whoever waits for it to be let go learns so by the drop.
                Step::Forget => {
                    self.forget(&slot);
                    continue;
                }
            }
            self.slots.insert(key, slot);
            if flight.as_ref().is_some_and(|flight| flight.batch.len() >= keys) {
                break;
            }
        }
        for (key, mut slot) in later {
            slot.queued = true;
            self.ready.push_front(key.clone());
            self.slots.insert(key, slot);
        }
        flight
    }

    fn acquire(&mut self, key: &Bytes, slot: &mut Slot, session: LeaseId, most: usize) -> Acquire {
        if slot.nonce == 0 {
            slot.nonce = self.dice.roll();
        }
        self.serial += 1;
        let name = *slot.name.get_or_insert(RefName { session, number: self.serial });
        slot.standing = Standing::Unknown;
        slot.flying = true;
        let again = slot.life.is_some();
        let candidates = match &slot.life {
            // An id that is out of range by now is not given out again.
            Some(life) => {
                let range = self.stock.pool().range();
                Some(life.id).filter(|id| range.contains(*id)).into_iter().collect()
            }
            None if self.creates() => {
                let available = self.stock.pool().available();
                let share = available / (self.ready.len() as u64 + 1);
                let share = usize::try_from(share).unwrap_or(most).clamp(1, most);
                // Where there are so many that are free, others hardly ever choose the same.
                let plenty = self.stock.source().is_loaded() && available >= 10_000;
                let share = if plenty || available >= 1 << 40 { 1 } else { share };
                let share = if key.len() > LONG { 1 } else { share };
                self.stock.lease(share)
            }
            None => Vec::new(),
        };
        let hash = slot.hash.unwrap_or_else(|| KeyHash::of(key));
        slot.hash = Some(hash);
        Acquire { key: key.clone(), hash, name, nonce: slot.nonce, candidates, again }
    }

    /// Answers those who wait for a key that is held.
    fn serve(&mut self, slot: &mut Slot) {
        // If the session is not what it should be, its next turn brings the key here again.
        if !slot.flying
            && slot.standing == Standing::Held
            && self.session_status(self.now) == LeaseStatus::Held
        {
            self.grant(slot);
        }
        if slot.uses() > 0 {
            // Somebody uses it again, so nobody need wait any longer for it to be let go.
            slot.leaving.clear();
        }
    }

    fn grant(&self, slot: &mut Slot) {
        let Some(life) = slot.life.clone() else { return };
        for waiter in mem::take(&mut slot.waiters) {
            let origin = life.add(waiter.owner, self.now, slot.created);
            let granted: Granted = (Arc::clone(&life), origin);
            match waiter.answer.send(Ok(granted)) {
                Ok(()) => slot.created = false,
                Err(_) => drop(life.give_back(&origin)),
            }
        }
    }

    /// Takes note of the answer to a flight.
    pub(super) fn settle(
        &mut self,
        flight: &Flight,
        answer: Result<TxnResponse, StoreError>,
        now: Duration,
    ) -> Aftermath {
        self.now = now;
        let mut aftermath = Aftermath::default();
        let session = self.session.as_ref().is_some_and(|s| Arc::ptr_eq(s, &flight.session))
            && flight.session.status_at(now) != LeaseStatus::Lost;
        // What was done under another fence is asked for again.
        let current = session && self.meta.is_some_and(|(meta, _)| meta == flight.fence);
        let outcome = match answer {
            Ok(response) => acquired(&flight.batch, &response),
            Err(error) => {
                self.fail(flight, &error);
                aftermath.failed = Some(error);
                return aftermath;
            }
        };
        let (outcomes, revision) = match outcome {
            Fenced::Moved => {
                self.unfly(flight);
                aftermath.moved = true;
                return aftermath;
            }
            Fenced::Done(outcomes, revision) => (outcomes, revision),
        };
        aftermath.revision = revision;
        for (acquire, outcome) in flight.batch.iter().zip(outcomes) {
            self.settle_candidates(acquire, &outcome, revision);
            let Some(mut slot) = self.slots.remove(&acquire.key) else { continue };
            slot.flying = false;
            let mut again = true;
            if current && slot.name == Some(acquire.name) {
                slot.tries = 0;
                again = self.settle_one(flight, acquire, &mut slot, outcome, &mut aftermath);
            }
            self.slots.insert(acquire.key.clone(), slot);
            if again {
                self.enqueue(&acquire.key);
            }
        }
        self.feed();
        aftermath
    }

    fn settle_candidates(&mut self, acquire: &Acquire, outcome: &Acquired, revision: u64) {
        let met = match outcome {
            Acquired::Created(index) => index + 1,
            Acquired::Taken => acquire.candidates.len(),
            Acquired::Attached { .. } | Acquired::Strange => 0,
        };
        for (index, id) in acquire.candidates.iter().enumerate() {
            if index < met {
                self.stock.settle(*id, revision);
            } else if !acquire.again {
                self.stock.release(*id);
            }
        }
    }

    /// Takes note of what came of one key; whether it is to be looked at again.
    fn settle_one(
        &mut self,
        flight: &Flight,
        acquire: &Acquire,
        slot: &mut Slot,
        outcome: Acquired,
        aftermath: &mut Aftermath,
    ) -> bool {
        let (epoch, revision) = (flight.fence.epoch, aftermath.revision);
        let (id, generation) = match outcome {
            Acquired::Attached { mapping, revision: at } => {
                if mapping.key != acquire.key {
                    let (key, other) = (acquire.key.clone(), mapping.key);
                    self.change(slot, None);
                    answer_all(slot, &IdsError::HashCollision { key, other });
                    return true;
                }
                (mapping.id, Generation { epoch, revision: at, nonce: mapping.nonce })
            }
            Acquired::Created(index) => {
                let id = acquire.candidates.get(index).copied().unwrap_or_default();
                (id, Generation { epoch, revision, nonce: acquire.nonce_for(id) })
            }
            Acquired::Taken if slot.life.is_some() => {
                self.change(slot, None);
                slot.name = None;
                slot.standing = Standing::Absent;
                return true;
            }
            Acquired::Taken => {
                slot.standing = Standing::Absent;
                slot.name = None;
                // Until the cache has caught up there is no use in asking again.
                slot.flying = true;
                aftermath.taken.push(acquire.key.clone());
                return false;
            }
            Acquired::Strange => {
                let what = format!("the record of `{}` is not a mapping", acquire.key);
                // Which id it is now, nobody can tell; who uses it would ask without end.
                self.change(slot, None);
                answer_all(slot, &IdsError::Foreign(what));
                return true;
            }
        };
        // It may have been created by an attempt whose answer was lost.
        slot.created |= generation.nonce == acquire.nonce_for(id) && !acquire.again;
        slot.nonce = 0;
        slot.standing = Standing::Held;
        (slot.attached, slot.proven) = (revision, 0);
        match slot.life.clone() {
            Some(life) if life.id == id => {
                self.tell(Notice::Restored { key: life.key.clone(), id, generation });
            }
            Some(_) => self.change(slot, Some(id)),
            None => {}
        }
        let life = slot.life.get_or_insert_with(|| {
            let life = Life::new(acquire.key.clone(), id, generation);
            self.shelf.put(&life);
            life
        });
        life.hold(&flight.session, generation);
        if self.session_status(self.now) == LeaseStatus::Held {
            self.grant(slot);
        }
        true
    }

    /// The key has lost its id.
    fn change(&mut self, slot: &mut Slot, new: Option<u64>) {
        slot.created = false;
        if let Some(life) = slot.life.take() {
            life.change();
            self.shelf.take(&life.key);
            self.stock.let_go(life.id);
            self.tell(Notice::Changed { key: life.key.clone(), old: life.id, new });
        }
    }

    fn unfly(&mut self, flight: &Flight) {
        for acquire in &flight.batch {
            if !acquire.again {
                for id in &acquire.candidates {
                    self.stock.release(*id);
                }
            }
            if let Some(slot) = self.slots.get_mut(&acquire.key) {
                slot.flying = false;
            }
            self.enqueue(&acquire.key);
        }
        self.feed();
    }

    fn fail(&mut self, flight: &Flight, error: &StoreError) {
        self.unfly(flight);
        if let StoreError::Refused(Refusal::LeaseNotFound(_)) = error {
            return flight.session.end();
        }
        let attempts = self.options.attempts;
        for acquire in &flight.batch {
            let Some(slot) = self.slots.get_mut(&acquire.key) else { continue };
            slot.tries += 1;
            if let StoreError::Refused(_) = error {
                answer_all(slot, &IdsError::Store(error.clone()));
            } else if slot.tries >= attempts {
                slot.tries = 0;
                answer_all(slot, &IdsError::Unavailable(error.clone()));
            }
        }
    }

    /// Looks again at a key for which no candidate was free, now that the cache has caught up.
    /// Whether ids have run out.
    pub(super) fn retry_taken(&mut self, key: &Bytes) -> bool {
        let creates = self.creates();
        let pool = self.stock.pool();
        let (available, leased) = (pool.available(), pool.leased());
        let (used, total) = (pool.unavailable(), pool.range().total());
        let Some(slot) = self.slots.get_mut(key) else { return false };
        slot.flying = false;
        if !creates {
            answer_all(slot, &IdsError::Unassigned(key.clone()));
        } else if available == 0 && leased > 0 {
            self.starved.push(key.clone());
            return false;
        } else if available == 0 {
            answer_all(slot, &IdsError::Exhausted { used, total });
            self.tell(Notice::Exhausted { used, total });
            self.enqueue(key);
            return true;
        }
        self.enqueue(key);
        false
    }

    /// Has those looked at that wait for a candidate.
    pub(super) fn feed(&mut self) {
        for key in mem::take(&mut self.starved) {
            self.enqueue(&key);
        }
    }

    /// Takes the next references to delete.
    pub(super) fn take_doomed(&mut self, limits: &Limits) -> Vec<Doomed> {
        let room = limits.operations.saturating_sub(4).clamp(1, self.options.batch.max(1));
        let mut bytes = 0;
        let fits = self.doomed.iter().take(room).take_while(|doomed| {
            // One that takes the mapping along names its key.
            let eager = doomed.release.eager.as_ref();
            bytes += eager.map_or(0, |eager| eager.mapping.key.len());
            bytes += 8 * self.layout.name_len_max() + 512;
            bytes <= limits.bytes
        });
        let count = fits.count();
        let doomed: Vec<Doomed> = self.doomed.drain(..count).collect();
        self.leaving.extend(doomed.iter().map(|doomed| doomed.release.name));
        doomed
    }

    /// Takes note that references were deleted, or were not.
    pub(super) fn settle_doomed(&mut self, doomed: Vec<Doomed>, done: bool) {
        let current = self.session.as_ref().map(|session| session.lease);
        for doomed in doomed {
            self.leaving.remove(&doomed.release.name);
            if !done && current == Some(doomed.release.name.session) {
                self.doomed.push_back(doomed);
                continue;
            }
            for leaving in doomed.leaving {
                let _ = leaving.send(());
            }
        }
    }
}

/// Tells all that wait for a key why they do not get it.
fn answer_all(slot: &mut Slot, error: &IdsError) {
    for waiter in slot.waiters.drain(..) {
        let _ = waiter.answer.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{range::IdRange, txns::acquire},
        store::KeyRange,
    };

    #[test]
    fn a_key_takes_no_more_of_a_transaction_than_it_is_reckoned_with() {
        let fence = Meta { range: IdRange::default(), epoch: u64::MAX };
        let limits = Limits::default();
        for prefix in [1, 50, 5_000] {
            let layout = Layout::new(vec![b'p'; prefix]);
            let everything = layout.everything();
            let KeyRange::Span { start, .. } = &everything else { panic!("{everything:?}") };
            assert_eq!(start.len(), prefix + 1);
            for (node, key) in [(0, 0), (300, 0), (20, 100), (20, LONG), (20, 100_000)] {
                let (node, key): (Bytes, Bytes) = (vec![b'n'; node].into(), vec![b'k'; key].into());
                for (candidates, again) in [(1, true), (1, false), (4, false), (8, false)] {
                    let count = if key.len() > LONG { 1 } else { candidates };
                    let acquire_one = Acquire {
                        hash: KeyHash::of(&key),
                        key: key.clone(),
                        name: RefName { session: LeaseId::MAX, number: u64::MAX },
                        nonce: u64::MAX,
                        candidates: (0..count).map(|n| u64::MAX - n as u64).collect(),
                        again,
                    };
                    let txn = acquire(&layout, &fence, &node, LeaseId::MAX, &[acquire_one]);
                    let bare = acquire(&layout, &fence, &node, LeaseId::MAX, &[]).size();
                    let cost = cost(&layout, &node, &key, candidates);
                    assert!(txn.size() - bare <= cost, "{} of {cost}", txn.size() - bare);
                    assert!(bare <= limits.bytes - room(&limits, &layout), "{bare}");
                }
                let longest = key_len_max(&limits, &layout, &node);
                assert!(
                    cost(&layout, &node, &vec![0; longest].into(), 4) <= room(&limits, &layout)
                );
            }
        }
    }
}
