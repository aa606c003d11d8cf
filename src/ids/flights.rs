//! From the desk to the store and back: which transactions to send, and what their answers change.

use std::{mem, sync::Arc};

use crate::store::{Bytes, LeaseId, LeaseStatus, Limits, Refusal, StoreError, TxnResponse};

use super::{
    desk::{Desk, Doomed, Granted, Slot, Use},
    error::IdsError,
    layout::{KeyHash, RefName},
    life::{Generation, Life, Origin},
    notices::Notice,
    slot::{Standing, Step, next},
    txns::{Acquire, Acquired, Fenced, acquired},
};

/// Keys that are asked for in one transaction.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) session: u64,
    pub(super) lease: LeaseId,
    pub(super) fence: u64,
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

/// The longest key that fits into a transaction.
pub(super) fn key_len_max(limits: &Limits) -> usize {
    // It stands in two values for one candidate, and in three more for one that rests.
    limits.bytes.saturating_sub(4_096) / 5
}

impl Desk {
    /// Takes the next batch of keys to ask for, and lets go of those that nobody wants.
    pub(super) fn plan(&mut self, limits: &Limits) -> Option<Flight> {
        let session = self.session.clone().filter(|session| session.status() != LeaseStatus::Lost);
        let (_, fence) = self.meta?;
        let mut flight = None;
        let mut bytes = 0;
        let most = self.options.candidates.clamp(1, limits.operations.saturating_sub(3).max(3) / 3);
        // What a batch leaves to those nested in it.
        let room = limits.operations.saturating_sub(3 * most + 3).clamp(1, self.options.batch);
        let mut later = Vec::new();
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(mut slot) = self.slots.remove(&key) else { continue };
            slot.queued = false;
            match next(slot.standing, slot.flying, slot.wanted()) {
                Step::Nothing => self.serve(&key, &mut slot),
                Step::Acquire => {
                    let Some(session) = session.as_ref() else {
                        later.push((key, slot));
                        break;
                    };
                    let flight = flight.get_or_insert_with(|| Flight {
                        session: session.token,
                        lease: session.lease,
                        fence,
                        batch: Vec::new(),
                    });
                    // An id that was lost, and given to another key since, waits for the next.
                    if slot.life.as_ref().is_some_and(|life| flight.has(life.id)) {
                        later.push((key, slot));
                        continue;
                    }
                    let mut acquire = self.acquire(&key, &mut slot, session.token, most);
                    for id in
                        acquire.candidates.extract_if(.., |id| !acquire.again && flight.has(*id))
                    {
                        self.stock.release(id);
                    }
                    bytes += (2 * acquire.candidates.len() + 3) * key.len() + 2_048;
                    flight.batch.push(acquire);
                }
                Step::Release => {
                    self.doom(&mut slot);
                    continue;
                }
                // Whoever waits for it to be let go learns so by the drop.
                Step::Forget => continue,
            }
            self.slots.insert(key, slot);
            let len = flight.as_ref().map_or(0, |flight| flight.batch.len());
            // The next key may be as long as any.
            if len >= room || bytes + 5 * key_len_max(limits).min(64 << 10) >= limits.bytes {
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

    fn acquire(&mut self, key: &Bytes, slot: &mut Slot, session: u64, most: usize) -> Acquire {
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
                // Every candidate carries the key along.
                let share = if key.len() > 16 << 10 { 1 } else { share };
                self.stock.lease(share)
            }
            None => Vec::new(),
        };
        let hash = slot.hash.unwrap_or_else(|| KeyHash::of(key));
        slot.hash = Some(hash);
        Acquire { key: key.clone(), hash, name, nonce: slot.nonce, candidates, again }
    }

    /// Answers those who wait for a key that is held.
    fn serve(&mut self, key: &Bytes, slot: &mut Slot) {
        if slot.flying || slot.standing != Standing::Held {
            return;
        }
        if self.session_status() != LeaseStatus::Held {
            // The next turn of the session brings it here again.
            return;
        }
        debug_assert!(slot.life.as_ref().is_some_and(|life| life.key == *key));
        self.grant(slot, false);
    }

    fn grant(&mut self, slot: &mut Slot, created: bool) {
        let (Some(life), Some(generation)) = (slot.life.clone(), slot.generation) else { return };
        let mut is_new = created;
        slot.nonce = 0;
        for waiter in mem::take(&mut slot.waiters) {
            self.serial += 1;
            let serial = self.serial;
            let first_use = slot.uses.is_empty();
            let origin = Origin { serial, generation, is_new, first_use, losses: slot.losses };
            let granted: Granted = (Arc::clone(&life), origin);
            if waiter.answer.send(Ok(granted)).is_ok() {
                slot.uses.insert(serial, Use { owner: waiter.owner, since: self.now });
                is_new = false;
            }
        }
        if !slot.uses.is_empty() {
            // Somebody uses it again, so nobody need wait any longer.
            slot.leaving.clear();
        }
    }

    /// Takes note of the answer to a flight.
    pub(super) fn settle(
        &mut self,
        flight: &Flight,
        answer: Result<TxnResponse, StoreError>,
    ) -> Aftermath {
        let mut aftermath = Aftermath::default();
        let session = self.session.as_ref().is_some_and(|s| s.token == flight.session && !s.dead);
        // What was done under another fence is asked for again.
        let current = session && self.meta.is_some_and(|(_, fence)| fence == flight.fence);
        let outcome = match answer {
            Ok(response) => acquired(&flight.batch, &response),
            Err(error) => {
                self.fail(flight, session, &error);
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
                again = self.settle_one(acquire, &mut slot, outcome, revision, &mut aftermath);
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
        acquire: &Acquire,
        slot: &mut Slot,
        outcome: Acquired,
        revision: u64,
        aftermath: &mut Aftermath,
    ) -> bool {
        let epoch = self.meta.map_or(0, |(meta, _)| meta.epoch);
        let (id, created) = match outcome {
            Acquired::Attached { mapping, revision: at } => {
                if mapping.key != acquire.key {
                    let (key, other) = (acquire.key.clone(), mapping.key);
                    slot.life = None;
                    answer_all(slot, &IdsError::HashCollision { key, other });
                    return true;
                }
                slot.generation = Some(Generation { epoch, revision: at, nonce: mapping.nonce });
                (mapping.id, mapping.nonce == acquire.nonce && slot.life.is_none())
            }
            Acquired::Created(index) => {
                slot.generation = Some(Generation { epoch, revision, nonce: acquire.nonce });
                (acquire.candidates.get(index).copied().unwrap_or_default(), !acquire.again)
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
                let what = format!("what stands at `{}` is not a mapping", acquire.key);
                answer_all(slot, &IdsError::Foreign(what));
                return true;
            }
        };
        slot.standing = Standing::Held;
        slot.attached = revision;
        match slot.life.clone() {
            Some(life) if life.id == id => {
                let (key, generation) = (life.key.clone(), slot.generation);
                if let Some(generation) = generation {
                    self.tell(Notice::Restored { key, id, generation });
                }
            }
            Some(_) => self.change(slot, Some(id)),
            None => {}
        }
        if slot.life.is_none() {
            slot.life = Some(Life::new(acquire.key.clone(), id));
        }
        if self.session_status() == LeaseStatus::Held {
            self.grant(slot, created);
        }
        true
    }

    /// The key has lost its id.
    fn change(&mut self, slot: &mut Slot, new: Option<u64>) {
        if let Some(life) = slot.life.take() {
            life.mark_changed();
            self.tell(Notice::Changed { key: life.key.clone(), old: life.id, new });
        }
        slot.uses.clear();
        slot.losses = 0;
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

    fn fail(&mut self, flight: &Flight, current: bool, error: &StoreError) {
        self.unfly(flight);
        if let StoreError::Refused(Refusal::LeaseNotFound(_)) = error {
            if let Some(session) = self.session.as_mut().filter(|_| current) {
                session.dead = true;
            }
            return;
        }
        let attempts = self.options.attempts;
        let refused = matches!(error, StoreError::Refused(_));
        for acquire in &flight.batch {
            let Some(slot) = self.slots.get_mut(&acquire.key) else { continue };
            slot.tries += 1;
            let alone = refused && (flight.batch.len() == 1 || !is_too_large(error));
            if alone {
                answer_all(slot, &IdsError::Store(error.clone()));
            } else if slot.tries >= attempts {
                slot.tries = 0;
                answer_all(slot, &IdsError::Unavailable(error.clone()));
            }
        }
        if refused && is_too_large(error) {
            self.options.batch = (flight.batch.len() / 2).max(1);
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
        let room = limits.operations.saturating_sub(4).clamp(1, self.options.batch);
        let doomed: Vec<Doomed> = self.doomed.drain(..room.min(self.doomed.len())).collect();
        self.leaving.extend(doomed.iter().map(|doomed| doomed.release.name));
        doomed
    }

    /// Takes note that references were deleted, or were not.
    pub(super) fn settle_doomed(&mut self, doomed: Vec<Doomed>, done: bool) {
        let current = self.session.as_ref().map(|session| session.token);
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

fn is_too_large(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Refused(Refusal::TooLarge { .. } | Refusal::TooManyOperations { .. })
    )
}
