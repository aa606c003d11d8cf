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
    /// Nothing: it was autopilot's own.
    Nothing,
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
    /// The order, until the address it names is proven.
    unproven: Option<(Task, Option<String>)>,
    /// The steps of it that were applied.
    done: Vec<String>,
    /// What it waits for.
    waits: String,
}

impl Pending {
    fn left_behind(&self) -> String {
        match (self.done.is_empty(), self.waits.is_empty()) {
            (true, true) => "nothing was changed".to_owned(),
            (true, false) => format!("nothing was changed; waited for: {}", self.waits),
            (false, true) => format!("done: {}", self.done.join(", ")),
            (false, false) => format!("done: {}; waited for: {}", self.done.join(", "), self.waits),
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

    /// Answers the verbs whose time is over, and, on a node that does not lead, all that wait
    /// for more than a leader.
    pub(super) fn expire(&mut self, now: Duration, state: Option<&State>) {
        let leads = state.is_some_and(|state| state.leading.is_some());
        let leader = state.and_then(|state| state.leader.clone());
        let over: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.until <= now || (!leads && state.is_some()))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in over {
            let Some(pending) = self.pending.remove(&ticket) else { continue };
            let answer = if leads || state.is_none() {
                Err(VerbError::Deadline { left_behind: pending.left_behind() })
            } else {
                Err(VerbError::NotLeading { leader: leader.clone() })
            };
            let _ = pending.reply.send(answer);
        }
    }

    fn of(&mut self, origin: &Origin) -> Option<&mut Pending> {
        let Origin::Operator { operation, .. } = origin else { return None };
        self.pending.values_mut().find(|pending| pending.operation == Some(*operation))
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
        if !state.is_some_and(|state| state.leading.is_some()) {
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
            unproven: None,
            done: Vec::new(),
            waits: "the record of the order".to_owned(),
        };
        let record = match verb {
            Verb::Operate { task: Task::Readdress { server, address }, force } => {
                pending.waits = format!("an answer from {address}");
                pending.unproven =
                    Some((Task::Readdress { server, address: address.clone() }, force));
                self.desk.pending.insert(ticket, pending);
                self.identify(ticket, address);
                return;
            }
            Verb::Operate { task, force } => {
                self.desk.pending.insert(ticket, pending);
                self.begin(ticket, task, force, ttl);
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

    fn begin(&mut self, ticket: u64, task: Task, force: Option<String>, ttl: Duration) {
        let leader = self.last.as_ref().and_then(|state| state.leader.clone());
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

    pub(super) fn identified(&mut self, ticket: u64, answer: Option<ServerId>) {
        let now = self.runtime.now();
        let Some(pending) = self.desk.pending.get_mut(&ticket) else { return };
        let Some((Task::Readdress { server, address }, force)) = pending.unproven.take() else {
            return;
        };
        if answer.as_ref() == Some(&server) {
            let ttl = pending.until.saturating_sub(now);
            self.begin(ticket, Task::Readdress { server, address }, force, ttl);
            return;
        }
        let answer = answer.map_or("nobody".to_owned(), |id| id.to_string());
        self.desk.answer(ticket, Err(VerbError::NotProven { server, address, answer }));
    }

    /// Writes a record where the records are kept.
    fn submit(&mut self, record: Record, then: Then) {
        if self.desk.records_are_local {
            let now = self.runtime.now();
            self.serial += 1;
            let ledger: &mut Ledger = Arc::make_mut(self.local.get_or_insert_default());
            let outcome = ledger.apply(self.serial, now, record);
            self.recorded(then, Ok(outcome));
            return;
        }
        let (cluster, events) = (Arc::clone(&self.cluster), self.events.clone());
        self.runtime.spawn(async move {
            let result = cluster.record(record).await;
            let _ = events.send(Box::new(Event::Recorded { then, result }));
        });
    }

    pub(super) fn recorded(&mut self, then: Then, result: Result<Outcome, ClusterError<C::Error>>) {
        let (Then::Answer(ticket) | Then::Operate(ticket)) = then else {
            self.desk.recording = false;
            if let Err(error) = result {
                tracing::warn!(%error, "autopilot's own record was not written; trying again");
                self.desk.ending.clear();
                self.desk.dirty = true;
            }
            return;
        };
        let answer = match result {
            Ok(Outcome::Recorded(index)) => match then {
                Then::Operate(_) => {
                    if let Some(pending) = self.desk.pending.get_mut(&ticket) {
                        pending.operation = Some(index);
                        pending.waits = String::new();
                    }
                    return;
                }
                Then::Answer(_) | Then::Nothing => Ok(()),
            },
            Ok(Outcome::Conflict { found }) => Err(VerbError::Conflict { found }),
            Err(ClusterError::Moved(_)) => {
                let leader = self.last.as_ref().and_then(|state| state.leader.clone());
                Err(VerbError::NotLeading { leader })
            }
            Err(error) => Err(VerbError::NotRecorded(error.to_string())),
        };
        self.desk.answer(ticket, answer);
    }

    /// Answers the verbs whose operations this round has decided, and ends those operations.
    pub(super) fn settle(&mut self, state: &State, plan: &Plan) {
        if state.leading.is_none() {
            self.transferred(state);
            self.desk.expire(self.runtime.now(), Some(state));
            return;
        }
        let ledger = state.ledger.clone().unwrap_or_default();
        self.desk.ending.retain(|id| ledger.operations.contains_key(id));
        let mut over: Vec<u64> = Vec::new();
        for id in &plan.finished {
            self.desk.answer_operation(*id, |_| Ok(()));
            over.push(*id);
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
        for id in over {
            if !self.desk.ending.contains(&id) {
                self.desk.ending.push(id);
                self.submit(Record::End(id), Then::Nothing);
            }
        }
        self.desk.expire(self.runtime.now(), Some(state));
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

    /// A transfer that was ordered here is done when another leads.
    fn transferred(&mut self, state: &State) {
        let (Some(last), Some(leader)) = (self.ledger(state), &state.leader) else { return };
        let done = |task: &Task| match task {
            Task::Transfer(Some(to)) => to == leader,
            Task::Transfer(None) => *leader != state.local,
            _ => false,
        };
        let done: Vec<u64> =
            last.operations.iter().filter(|(_, o)| done(&o.task)).map(|(id, _)| *id).collect();
        for id in done {
            self.desk.answer_operation(id, |_| Ok(()));
        }
    }

    fn ledger(&self, state: &State) -> Option<Arc<Ledger>> {
        state.ledger.clone().or_else(|| self.local.clone())
    }

    /// Records what the ledger does not know yet: verdicts, signs, and members that are gone.
    pub(super) fn remember(&mut self, state: &State) {
        let Some(ledger) = state.ledger.clone().filter(|_| state.may_act()) else { return };
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
        self.submit(record, Then::Nothing);
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
