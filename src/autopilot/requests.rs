//! The verbs on their way: who waits for what, what is being recorded, and what is answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    cluster::{Cluster, ClusterError, Origin, ServerId, Step},
    driver::{Autopilot, Event},
    handle::{Reply, Request, Verb, VerbError},
    plan::{Plan, Why},
    records::{Ledger, Operation, Outcome, Record, Report, ServerRecord, Task, Verdict},
    refusal::Refusal,
    state::{ServerState, State},
};
use crate::runtime::Runtime;

/// What follows a record.
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The next record of autopilot's own may be written.
    Own,
    /// The verb with this ticket is answered.
    Answer(u64),
    /// The verb with this ticket waits for the operation that began.
    Operate(u64),
}

/// A verb that waits for its answer.
struct Pending {
    reply: oneshot::Sender<Reply>,
    until: Duration,
    /// The operation that it waits for, once it is recorded.
    operation: Option<u64>,
    /// What was ordered; `None`: something that is recorded, and done with that.
    order: Option<Order>,
    /// The steps of it that were applied.
    done: Vec<String>,
    /// The step of it whose outcome is awaited.
    under_way: Option<String>,
    /// What it waits for.
    waits: String,
    /// A record is on its way, and may be written even if nobody waits for it any more.
    recording: bool,
}

/// A task, and the reason for waiving rules.
#[derive(Clone)]
struct Order {
    task: Task,
    force: Option<String>,
}

impl Pending {
    fn left_behind(&self) -> String {
        if self.recording {
            return "a record that may still be written".to_owned();
        }
        let mut text = match (self.done.is_empty(), &self.under_way) {
            (true, None) => "nothing was changed".to_owned(),
            (true, Some(step)) => format!("under way: {step}"),
            (false, None) => format!("done: {}", self.done.join(", ")),
            (false, Some(step)) => format!("done: {}; under way: {step}", self.done.join(", ")),
        };
        if !self.waits.is_empty() {
            text.push_str("; waited for: ");
            text.push_str(&self.waits);
        }
        text
    }
}

impl Order {
    /// Whether it is carried out when this server has become leader.
    fn handed_over_to(&self, leader: &ServerId) -> bool {
        match &self.task {
            Task::Transfer(Some(to)) => to == leader,
            Task::Transfer(None) => true,
            Task::Add(_)
            | Task::Remove(_)
            | Task::Replace { .. }
            | Task::Promote(_)
            | Task::Demote(_)
            | Task::Readdress { .. } => false,
        }
    }
}

/// All verbs in progress, and the pace of the records.
#[derive(Default)]
pub(super) struct Desk {
    tickets: u64,
    pending: BTreeMap<u64, Pending>,
    /// Operations whose end is on its way into the ledger.
    ending: Vec<u64>,
    /// A record of autopilot's own is on its way.
    recording: bool,
    /// When the next one may be written.
    record_at: Duration,
    /// Something waits to be recorded then.
    dirty: bool,
    /// The host keeps no records; this leadership's are in the driver.
    pub(super) records_are_local: bool,
}

/// At most one record of health a second.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);

impl Desk {
    /// The time until something here needs a round.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        let record = (self.dirty && !self.recording).then_some(self.record_at);
        let deadlines = self.pending.values().map(|pending| pending.until);
        deadlines.chain(record).min().map(|at| at.saturating_sub(now))
    }

    /// Notes that a step of an operation was applied.
    pub(super) fn done(&mut self, origin: &Origin, step: &Step) {
        if let Some(pending) = self.of(origin) {
            pending.done.push(step.to_string());
        }
    }

    /// Notes which step of an operation is under way.
    pub(super) fn under_way(&mut self, origin: &Origin, step: Option<&Step>) {
        if let Some(pending) = self.of(origin) {
            pending.under_way = step.map(ToString::to_string);
        }
    }

    fn is_under_way(&self, operation: u64) -> bool {
        let mut of = self.pending.values().filter(|pending| pending.operation == Some(operation));
        of.any(|pending| pending.under_way.is_some())
    }

    /// Answers the verbs whose time is over and, once another leads, all of them; returns the
    /// operations that nobody waits for any more. While nobody leads it is open who will, and a
    /// transfer may be about to succeed.
    pub(super) fn expire(&mut self, now: Duration, state: Option<&State>) -> Vec<u64> {
        let leads = state.is_some_and(|state| state.leading.is_some());
        let elsewhere = |state: &&State| !leads && state.leader.as_ref() != Some(&state.local);
        let leader = state.filter(elsewhere).and_then(|state| state.leader.clone());
        let over: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.until <= now || leader.is_some())
            .map(|(ticket, _)| *ticket)
            .collect();
        let mut ended = Vec::new();
        for ticket in over {
            let Some(pending) = self.pending.remove(&ticket) else { continue };
            let left_behind = pending.left_behind();
            let begun = pending.operation.is_some() || pending.recording;
            let answer = match (&leader, &pending.order) {
                _ if leads || state.is_none() => Err(VerbError::Deadline { left_behind }),
                (None, _) => Err(VerbError::Deadline { left_behind }),
                (Some(leader), Some(order)) if order.handed_over_to(leader) => Ok(()),
                (Some(leader), Some(_)) if begun => {
                    let leader = leader.clone();
                    let goes_on = !self.records_are_local;
                    Err(VerbError::LostLeadership { leader, left_behind, goes_on })
                }
                (Some(leader), _) => Err(VerbError::NotLeading { leader: Some(leader.clone()) }),
            };
            ended.extend(pending.operation);
            let _ = pending.reply.send(answer);
        }
        ended
    }

    fn of(&mut self, origin: &Origin) -> Option<&mut Pending> {
        let Origin::Operator { operation, .. } = origin else { return None };
        self.pending.values_mut().find(|pending| pending.operation == Some(*operation))
    }

    /// Answers those whose operation is no longer in the ledger: this leadership is another than
    /// the one that it was ordered under.
    fn forget(&mut self, ledger: &Ledger, local: &ServerId) {
        let gone = |pending: &Pending| {
            pending.operation.is_some_and(|id| !ledger.operations.contains_key(&id))
        };
        let gone: Vec<u64> =
            self.pending.iter().filter(|(_, p)| gone(p)).map(|(ticket, _)| *ticket).collect();
        for ticket in gone {
            let Some(pending) = self.pending.remove(&ticket) else { continue };
            let (leader, left_behind) = (local.clone(), pending.left_behind());
            let answer = VerbError::LostLeadership { leader, left_behind, goes_on: false };
            let _ = pending.reply.send(Err(answer));
        }
    }

    fn answer(&mut self, ticket: u64, answer: Reply) {
        if let Some(pending) = self.pending.remove(&ticket) {
            let _ = pending.reply.send(answer);
        }
    }

    fn answer_operation(&mut self, operation: u64, answer: impl FnOnce(&Pending) -> Reply) {
        let found = self.pending.iter().find(|(_, p)| p.operation == Some(operation));
        let Some(ticket) = found.map(|(ticket, _)| *ticket) else { return };
        if let Some(pending) = self.pending.remove(&ticket) {
            let answer = answer(&pending);
            let _ = pending.reply.send(answer);
        }
    }
}

impl<C: Cluster, R: Runtime> Autopilot<C, R> {
    /// Takes a verb in.
    pub(super) fn request(&mut self, request: Request) {
        let Request { verb, ttl, reply } = request;
        let state = self.last.as_deref();
        if state.is_none_or(|state| state.leading.is_none()) {
            let leader = state.and_then(|state| state.leader.clone());
            let _ = reply.send(Err(VerbError::NotLeading { leader }));
            return;
        }
        self.desk.tickets += 1;
        let ticket = self.desk.tickets;
        let until = self.runtime.now().saturating_add(ttl);
        let mut pending = Pending {
            reply,
            until,
            operation: None,
            order: None,
            done: Vec::new(),
            under_way: None,
            waits: String::new(),
            recording: true,
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
            Verb::Configure { config, cas } => Record::Configure { config, cas },
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
        self.runtime.spawn(async move {
            let answer = cluster.identify(&address).await;
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
    pub(super) fn submit(&mut self, record: Record, then: Then) {
        if self.desk.records_are_local {
            let now = self.runtime.now();
            self.serial += 1;
            let ledger: &mut Ledger = Arc::make_mut(self.local.get_or_insert_default());
            let outcome = ledger.apply(self.serial, now, record);
            self.recorded(&then, Ok(outcome));
            return;
        }
        let (cluster, events) = (Arc::clone(&self.cluster), self.events.clone());
        self.runtime.spawn(async move {
            let result = cluster.record(record).await;
            let _ = events.send(Box::new(Event::Recorded { then, result }));
        });
    }

    pub(super) fn recorded(
        &mut self,
        then: &Then,
        result: Result<Outcome, ClusterError<C::Error>>,
    ) {
        let (ticket, begins) = match then {
            Then::Answer(ticket) => (*ticket, false),
            Then::Operate(ticket) => (*ticket, true),
            Then::Own | Then::Nothing => {
                if matches!(then, Then::Own) {
                    self.desk.recording = false;
                    self.desk.dirty |= result.is_err();
                } else if result.is_err() {
                    self.desk.ending.clear();
                }
                if let Err(error) = result {
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
            Ok(Outcome::Recorded(_)) => Ok(()),
            Ok(Outcome::Conflict { found }) => Err(VerbError::Conflict { found }),
            Err(ClusterError::Moved(_)) => {
                let leader = self.last.as_ref().and_then(|state| state.leader.clone());
                Err(VerbError::NotLeading { leader })
            }
            Err(error) => Err(VerbError::NotRecorded(error.to_string())),
        };
        self.desk.answer(ticket, answer);
    }

    fn end(&mut self, operation: u64) {
        if !self.desk.ending.contains(&operation) {
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
                    self.refuse(operation, refusal);
                    over.push(operation);
                }
                why => {
                    if let Some(pending) = self.desk.of(&held.origin) {
                        pending.waits = why.to_string();
                    }
                }
            }
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

    fn refuse(&mut self, operation: u64, refusal: &Refusal) {
        self.desk.answer_operation(operation, |pending| {
            let left_behind = if pending.done.is_empty() {
                "nothing".to_owned()
            } else {
                pending.done.join(", ")
            };
            Err(VerbError::Refused { refusal: refusal.clone(), left_behind })
        });
    }

    /// Records what the ledger does not know yet: verdicts, signs, and members that are gone.
    pub(super) fn remember(&mut self, state: &State) {
        let Some(ledger) = state.ledger.clone().filter(|_| state.may_act()) else {
            // Nothing can be recorded before the lease is back; the round then decides anew.
            self.desk.dirty = false;
            return;
        };
        let reports: Vec<Report> =
            state.members().filter_map(|s| report(s, ledger.servers.get(&s.server.id))).collect();
        let settled = state.membership.committed && !state.membership.joint;
        let is_member = |id: &ServerId| {
            state.server(id).is_some_and(|s| s.role != super::cluster::Role::Absent)
        };
        let gone: Vec<ServerId> =
            ledger.servers.keys().filter(|id| settled && !is_member(id)).cloned().collect();
        self.desk.dirty = !reports.is_empty() || !gone.is_empty();
        if !self.desk.dirty || self.desk.recording || state.at < self.desk.record_at {
            return;
        }
        self.desk.dirty = !reports.is_empty() && !gone.is_empty();
        self.desk.recording = true;
        self.desk.record_at = state.at.saturating_add(RECORD_INTERVAL);
        let record = if gone.is_empty() { Record::Health(reports) } else { Record::Removed(gone) };
        self.submit(record, Then::Own);
    }
}

/// What the ledger should say of a server and does not.
fn report(server: &ServerState, record: Option<&ServerRecord>) -> Option<Report> {
    let health = &server.health;
    let verdict = match (health.verdict, record) {
        (Verdict::Healthy | Verdict::Unhealthy, _) => health.verdict,
        // A short doubt breaks no history; a longer one does.
        (Verdict::Unknown, Some(record)) if health.healthy_since.is_some() => record.verdict,
        (Verdict::Unknown, Some(record)) if record.verdict == Verdict::Unhealthy => record.verdict,
        (Verdict::Unknown, _) => Verdict::Unknown,
    };
    let boot = server.status.map(|status| status.boot);
    let signs: Vec<_> = server.signs.iter().map(|(sign, _)| sign).collect();
    let known = record.is_some_and(|record| {
        record.verdict == verdict
            && (boot.is_none() || record.boot == boot)
            && record.signs == signs
    });
    (!known).then(|| Report { server: server.server.id.clone(), verdict, boot, signs })
}
