//! The verbs on their way: what becomes of a request, an answer, a record and a round.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    cluster::{Cluster, Origin},
    desk::{Order, Pending, RECORD_INTERVAL, Then, Unrecorded, record, within},
    driver::{Autopilot, Event},
    handle::{Request, Verb, VerbError},
    orders::{is_absent, stranger},
    plan::Plan,
    records::{Ledger, Operation, Outcome, Record, Task},
    refusal::Refusal,
    report::outstanding,
    server::ServerId,
    state::State,
    why::Why,
};
use crate::runtime::Runtime;

impl<C: Cluster, R: Runtime> Autopilot<C, R> {
    /// Takes a verb in.
    pub(super) fn request(&mut self, request: Request) {
        let Request { verb, until, reply } = request;
        let state = self.last.as_deref();
        if state.is_none_or(|state| state.leading.is_none()) {
            let leader = state.and_then(|state| state.leader.clone());
            let _ = reply.send(Err(VerbError::NotLeading { leader }));
            return;
        }
        if self.observes() {
            let _ = reply.send(Err(VerbError::Observing));
            return;
        }
        if until <= self.runtime.now() && !matches!(verb, Verb::CleanUp) {
            let left_behind = "nothing was changed".to_owned();
            let _ = reply.send(Err(VerbError::Deadline { left_behind }));
            return;
        }
        if let Some(server) = state.and_then(|state| missing(state, &verb)) {
            let refusal = Refusal::NotMember { server };
            let left_behind = "nothing was changed".to_owned();
            let _ = reply.send(Err(VerbError::Refused { refusal, left_behind }));
            return;
        }
        self.desk.tickets += 1;
        let ticket = self.desk.tickets;
        let mut pending = Pending {
            reply,
            until,
            operation: None,
            order: None,
            done: Vec::new(),
            under_way: None,
            waits: String::new(),
            recording: true,
            pauses: matches!(verb, Verb::Pause(_)),
        };
        let record = match verb {
            Verb::Operate { task, force } => {
                pending.order = Some(Order { task: task.clone(), force });
                if let Task::Readdress { address, .. } = task {
                    pending.waits = format!("an answer from {address}");
                    pending.recording = false;
                    self.desk.pending.insert(ticket, pending);
                    self.identify(ticket, address);
                } else {
                    self.desk.pending.insert(ticket, pending);
                    self.begin(ticket);
                }
                return;
            }
            Verb::CleanUp => {
                // The round that follows every verb is the clean-up.
                let _ = pending.reply.send(Ok(()));
                return;
            }
            Verb::Configure { config, cas } => Record::Configure { config: *config, cas },
            Verb::Pause(reason) => Record::Pause(reason),
            Verb::Resume => Record::Resume,
            Verb::Cordon { server, reason, ttl } => Record::Cordon { server, reason, ttl },
            Verb::Uncordon(server) => Record::Uncordon(server),
            Verb::Intend { server, kind, ttl } => Record::Intend { server, kind, ttl },
            Verb::Unintend(server) => Record::Unintend(server),
        };
        self.desk.pending.insert(ticket, pending);
        self.submit(record, Then::Answer(ticket));
    }

    /// Records the beginning of an operation, so that any leader goes on with it.
    fn begin(&mut self, ticket: u64) {
        let leader = self.last.as_ref().and_then(|state| state.leader.clone());
        let now = self.runtime.now();
        let Some(pending) = self.desk.pending.get_mut(&ticket) else { return };
        let Some(Order { task, force }) = pending.order.clone() else { return };
        pending.recording = true;
        let ttl = pending.until.saturating_sub(now);
        let operation = Operation { id: 0, task, force, ttl, leader, applied_at: None };
        self.submit(Record::Begin(operation), Then::Operate(ticket));
    }

    fn identify(&self, ticket: u64, address: String) {
        let (cluster, events) = (Arc::clone(&self.cluster), self.events.clone());
        let (runtime, deadline) = (self.runtime.clone(), self.options.step_deadline);
        self.runtime.spawn(async move {
            let answer = within(&runtime, deadline, cluster.identify(&address)).await.flatten();
            let _ = events.send(Box::new(Event::Identified { ticket, answer }));
        });
    }

    pub(super) fn identified(&mut self, ticket: u64, answer: Option<&ServerId>) {
        let pending = self.desk.pending.get(&ticket);
        let Some(Order { task: Task::Readdress { server, address }, .. }) =
            pending.and_then(|pending| pending.order.as_ref())
        else {
            return;
        };
        if answer == Some(server) {
            self.begin(ticket);
            return;
        }
        let (server, address) = (server.clone(), address.clone());
        let answer = answer.map_or("nobody".to_owned(), ToString::to_string);
        self.desk.answer(ticket, Err(VerbError::NotProven { server, address, answer }));
    }

    /// Writes a record where the records are kept.
    pub(super) fn submit(&mut self, entry: Record, then: Then) {
        if self.desk.records_are_local {
            let now = self.runtime.now();
            self.serial += 1;
            let ledger: &mut Ledger = Arc::make_mut(self.local.get_or_insert_default());
            let outcome = ledger.apply(self.serial, now, entry);
            self.recorded(&then, Ok(outcome));
            return;
        }
        let (cluster, events) = (Arc::clone(&self.cluster), self.events.clone());
        let (runtime, deadline) = (self.runtime.clone(), self.options.step_deadline);
        let told = Told { events, then: Some(then) };
        self.runtime.spawn(async move {
            let result = record(&*cluster, &runtime, deadline, entry).await;
            told.tell(result);
        });
    }

    pub(super) fn recorded(&mut self, then: &Then, result: Result<Outcome, Unrecorded>) {
        let (ticket, begins) = match then {
            Then::Answer(ticket) => (*ticket, false),
            Then::Operate(ticket) => (*ticket, true),
            Then::Own | Then::Lapse(_) => {
                self.desk.recording = false;
                self.desk.dirty |= result.is_err();
                if let (Then::Lapse(time), Err(_)) = (then, &result) {
                    self.desk.lapse = self.desk.lapse.saturating_add(*time);
                }
                if let Err(error) = result {
                    tracing::warn!(%error, "autopilot's own record was not written; trying again");
                }
                return;
            }
            Then::Nothing => {
                if let Err(error) = result {
                    // A leader that hands over refuses at once: trying at once again would spin.
                    self.desk.ending.clear();
                    self.desk.end_at = self.runtime.now().saturating_add(RECORD_INTERVAL);
                    tracing::warn!(%error, "autopilot's own record was not written; trying again");
                }
                return;
            }
        };
        let answer = match result {
            Ok(Outcome::Recorded(index)) if begins => {
                if let Some(pending) = self.desk.pending.get_mut(&ticket) {
                    pending.operation = Some(index);
                    pending.recording = false;
                } else {
                    // Its caller was told that time is over.
                    self.end(index);
                }
                return;
            }
            Ok(Outcome::Recorded(_)) => {
                if self.is_stepping() && self.desk.drains(ticket) {
                    // A pause is answered when the step that is under way has come to its end.
                    return;
                }
                Ok(())
            }
            Ok(Outcome::Conflict { found }) => Err(VerbError::Conflict { found }),
            Err(Unrecorded::Moved(_)) => {
                let leader = self.last.as_ref().and_then(|state| state.leader.clone());
                Err(VerbError::NotLeading { leader })
            }
            Err(Unrecorded::Unknown(why)) => Err(VerbError::PerhapsRecorded(why)),
            Err(Unrecorded::Refused(why)) => Err(VerbError::NotRecorded(why)),
        };
        self.desk.answer(ticket, answer);
    }

    fn end(&mut self, operation: u64) {
        // An order that was given elsewhere is for a leader that steers.
        if !self.observes()
            && !self.desk.ending.contains(&operation)
            && self.desk.end_at <= self.runtime.now()
        {
            self.desk.ending.push(operation);
            self.submit(Record::End(operation), Then::Nothing);
        }
    }

    /// Answers the verbs whose operations this round has decided, and ends those operations.
    pub(super) fn settle(&mut self, state: &State, plan: &Plan) {
        let now = self.runtime.now();
        if state.leading.is_none() {
            self.desk.expire(now, Some(state));
            return;
        }
        if !self.is_stepping() {
            self.desk.drained();
        }
        let ledger = state.ledger.clone().unwrap_or_default();
        self.desk.ending.retain(|id| ledger.operations.contains_key(id));
        let mut over: Vec<u64> = Vec::new();
        // A membership is seen before its change is done: what belongs to it may still be missing.
        over.extend(plan.finished.iter().filter(|id| !self.desk.is_under_way(**id)));
        for id in &over {
            self.desk.answer_operation(*id, |_| Ok(()));
        }
        for held in &plan.held {
            let Origin::Operator { operation, .. } = held.origin else { continue };
            match &held.why {
                Why::Refused(refusal) if !refusal.may_pass() => {
                    self.desk.refuse(operation, refusal);
                    over.push(operation);
                }
                why => {
                    if let Some(pending) = self.desk.of(&held.origin) {
                        pending.waits = why.to_string();
                    }
                }
            }
        }
        if let Some(idle) = &plan.idle {
            self.desk.idle(&idle.to_string());
        }
        for id in &plan.expired {
            self.desk.answer_operation(*id, |pending| {
                Err(VerbError::Deadline { left_behind: pending.left_behind() })
            });
            over.push(*id);
        }
        over.extend(self.desk.expire(now, Some(state)));
        for id in over {
            self.end(id);
        }
        self.desk.forget(&ledger, &state.local);
    }

    /// Records what the ledger does not know yet: verdicts, signs, who leads, and members that are
    /// gone.
    pub(super) fn remember(&mut self, state: &State) {
        self.desk.lapse = self.desk.lapse.saturating_add(state.lapse);
        // Whoever may not act has nothing due either; the round that may again looks again.
        self.desk.dirty = false;
        let acts = state.may_act() && !self.hands_over();
        let Some(ledger) = state.ledger.clone().filter(|_| acts) else { return };
        let reports = outstanding(state);
        // Whoever carries out a removal records it; what is left of that is done here.
        let settled = state.membership.committed && !state.membership.joint && !self.is_stepping();
        let is_member = |id: &ServerId| {
            state.server(id).is_some_and(|s| s.role != super::cluster::Role::Absent)
        };
        let unknown = self.desk.leaving.iter().filter(|id| !ledger.servers.contains_key(*id));
        let known = ledger.servers.keys().chain(unknown);
        let gone: Vec<ServerId> = known.filter(|id| settled && !is_member(id)).cloned().collect();
        let lapse = std::mem::take(&mut self.desk.lapse);
        let due = [!lapse.is_zero(), !gone.is_empty(), !reports.is_empty()];
        let due = due.into_iter().filter(|due| *due).count();
        self.desk.dirty = due > 0;
        if !self.desk.dirty || self.desk.recording || state.at < self.desk.record_at {
            self.desk.lapse = lapse;
            return;
        }
        self.desk.dirty = due > 1;
        self.desk.recording = true;
        self.desk.record_at = state.at.saturating_add(RECORD_INTERVAL);
        match (lapse.is_zero(), gone.is_empty()) {
            (false, _) => self.submit(Record::Lapse(lapse), Then::Lapse(lapse)),
            (true, false) => self.submit(Record::Removed(gone), Then::Own),
            (true, true) => self.submit(Record::Health(reports), Then::Own),
        }
    }
}

/// A record on its way, of which the driver hears also where the host panics over it.
struct Told {
    events: mpsc::UnboundedSender<Box<Event>>,
    then: Option<Then>,
}

impl Told {
    fn tell(mut self, result: Result<Outcome, Unrecorded>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<Outcome, Unrecorded>) {
        if let Some(then) = self.then.take() {
            let _ = self.events.send(Box::new(Event::Recorded { then, result }));
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.send(Err(Unrecorded::Unknown("the host panicked over it".to_owned())));
    }
}

/// Whoever a verb is about and is no member.
fn missing(state: &State, verb: &Verb) -> Option<ServerId> {
    match verb {
        Verb::Operate { task, .. } => stranger(state, task),
        // A mistyped id: whoever was meant would be neither kept from a vote nor waited for.
        Verb::Cordon { server, .. } | Verb::Intend { server, .. } => {
            is_absent(state, server).then(|| server.clone())
        }
        // Nothing is lifted by what there is nothing of.
        Verb::Uncordon(_)
        | Verb::Unintend(_)
        | Verb::Configure { .. }
        | Verb::Pause(_)
        | Verb::Resume
        | Verb::CleanUp => None,
    }
}
