//! The desk: who waits for what, what is being recorded, and what is answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    cluster::{
        Applied, Change, Cluster, ClusterError, Dismissal, Observation, Origin, Role, Server, Step,
    },
    handle::{Reply, VerbError},
    records::{Ledger, Outcome, Record, Report, Task},
    refusal::Refusal,
    server::ServerId,
    state::State,
};
use crate::runtime::Runtime;

/// What follows a record.
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The next record of autopilot's own may be written.
    Own,
    /// The same; if it was not written, this time still has to be recorded as not observed.
    Lapse(Duration),
    /// The verb with this ticket is answered.
    Answer(u64),
    /// The verb with this ticket waits for the operation that began.
    Operate(u64),
}

/// A verb that waits for its answer.
pub(super) struct Pending {
    pub(super) reply: oneshot::Sender<Reply>,
    pub(super) until: Duration,
    /// The operation that it waits for, once it is recorded.
    pub(super) operation: Option<u64>,
    /// What was ordered; `None`: something that is recorded, and done with that.
    pub(super) order: Option<Order>,
    /// The steps of it that were applied.
    pub(super) done: Vec<String>,
    /// The step of it whose outcome is awaited.
    pub(super) under_way: Option<String>,
    /// What it waits for.
    pub(super) waits: String,
    /// A record is on its way, and may be written even if nobody waits for it any more.
    pub(super) recording: bool,
    /// It is a pause, and is answered only when no step is under way.
    pub(super) pauses: bool,
}

/// A task, and the reason for waiving rules.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) task: Task,
    pub(super) force: Option<String>,
}

impl Pending {
    pub(super) fn left_behind(&self) -> String {
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
    pub(super) tickets: u64,
    pub(super) pending: BTreeMap<u64, Pending>,
    /// Operations whose end is on its way into the ledger.
    pub(super) ending: Vec<u64>,
    /// When the next end may be written, after one was not.
    pub(super) end_at: Duration,
    /// A record of autopilot's own is on its way.
    pub(super) recording: bool,
    /// When the next one may be written.
    pub(super) record_at: Duration,
    /// Something waits to be recorded then.
    pub(super) dirty: bool,
    /// Servers that this leadership has set out to remove, until the ledger has their ids.
    pub(super) leaving: BTreeSet<ServerId>,
    /// Time that nobody observed and that the ledger still counts.
    pub(super) lapse: Duration,
    /// The host keeps no records; this leadership's are in the driver.
    pub(super) records_are_local: bool,
}

/// At most one record of health a second.
pub(super) const RECORD_INTERVAL: Duration = Duration::from_secs(1);

impl Desk {
    /// The time until something here needs a round.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        let record = (self.dirty && !self.recording).then_some(self.record_at);
        let deadlines = self.pending.values().map(|pending| pending.until);
        deadlines.chain(record).min().map(|at| at.saturating_sub(now))
    }

    /// Adds the ids that have left and that the ledger does not know yet as removed: until it does
    /// they must not come back either.
    pub(super) fn withhold(&mut self, seen: &mut Observation) {
        let membership = seen.membership;
        let Some(ledger) = &mut seen.ledger else { return };
        self.leaving.retain(|id| !ledger.removed.contains(id));
        if self.leaving.is_empty() || !membership.committed || membership.joint {
            return;
        }
        let member = |id: &ServerId| {
            seen.servers.iter().any(|s| s.role != Role::Absent && s.server.id == *id)
        };
        let gone: Vec<ServerId> = self.leaving.iter().filter(|id| !member(id)).cloned().collect();
        if !gone.is_empty() {
            Arc::make_mut(ledger).removed.extend(gone);
        }
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

    pub(super) fn is_under_way(&self, operation: u64) -> bool {
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
            let begun = pending.operation.is_some() || !pending.done.is_empty();
            let answer = match (&leader, &pending.order) {
                _ if leads || state.is_none() => Err(VerbError::Deadline { left_behind }),
                (None, _) => Err(VerbError::Deadline { left_behind }),
                (Some(leader), Some(order)) if order.handed_over_to(leader) => Ok(()),
                (Some(leader), _) if begun => {
                    let leader = leader.clone();
                    let goes_on = !self.records_are_local;
                    Err(VerbError::LostLeadership { leader, left_behind, goes_on })
                }
                (Some(leader), _) if pending.recording => {
                    Err(VerbError::PerhapsRecorded(format!("{leader} leads now")))
                }
                (Some(leader), _) => Err(VerbError::NotLeading { leader: Some(leader.clone()) }),
            };
            ended.extend(pending.operation);
            let _ = pending.reply.send(answer);
        }
        ended
    }

    pub(super) fn of(&mut self, origin: &Origin) -> Option<&mut Pending> {
        let Origin::Operator { operation, .. } = origin else { return None };
        self.pending.values_mut().find(|pending| pending.operation == Some(*operation))
    }

    /// Answers those whose operation is no longer in the ledger: this leadership is another than
    /// the one that it was ordered under.
    pub(super) fn forget(&mut self, ledger: &Ledger, local: &ServerId) {
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

    /// Whether a recorded verb is a pause, which from now on waits for the step under way.
    pub(super) fn drains(&mut self, ticket: u64) -> bool {
        let Some(pending) = self.pending.get_mut(&ticket).filter(|p| p.pauses) else {
            return false;
        };
        pending.recording = false;
        pending.done.push("paused".to_owned());
        "the end of the step that was under way".clone_into(&mut pending.waits);
        true
    }

    /// Answers the pauses that are recorded: no step is under way any more.
    pub(super) fn drained(&mut self) {
        let recorded = self.pending.iter().filter(|(_, p)| p.pauses && !p.recording);
        let recorded: Vec<u64> = recorded.map(|(ticket, _)| *ticket).collect();
        for ticket in recorded {
            self.answer(ticket, Ok(()));
        }
    }

    /// Answers them when nobody waits for the outcome of that step any more; it goes on.
    pub(super) fn overdue(&mut self, step: &Step) {
        let recorded = self.pending.iter_mut().filter(|(_, p)| p.pauses && !p.recording);
        let answers: Vec<(u64, String)> = recorded
            .map(|(ticket, pending)| {
                pending.under_way = Some(step.to_string());
                (*ticket, pending.left_behind())
            })
            .collect();
        for (ticket, left_behind) in answers {
            self.answer(ticket, Err(VerbError::Deadline { left_behind }));
        }
    }

    /// Notes why nothing at all is done, for whoever waits for an operation.
    pub(super) fn idle(&mut self, why: &str) {
        for pending in self.pending.values_mut() {
            if pending.operation.is_some() && pending.under_way.is_none() {
                why.clone_into(&mut pending.waits);
            }
        }
    }

    pub(super) fn answer(&mut self, ticket: u64, answer: Reply) {
        if let Some(pending) = self.pending.remove(&ticket) {
            let _ = pending.reply.send(answer);
        }
    }

    pub(super) fn answer_operation(
        &mut self,
        operation: u64,
        answer: impl FnOnce(&Pending) -> Reply,
    ) {
        let found = self.pending.iter().find(|(_, p)| p.operation == Some(operation));
        let Some(ticket) = found.map(|(ticket, _)| *ticket) else { return };
        if let Some(pending) = self.pending.remove(&ticket) {
            let answer = answer(&pending);
            let _ = pending.reply.send(answer);
        }
    }

    pub(super) fn refuse(&mut self, operation: u64, refusal: &Refusal) {
        self.answer_operation(operation, |pending| {
            let left_behind = if pending.done.is_empty() {
                "nothing was changed".to_owned()
            } else {
                pending.done.join(", ")
            };
            Err(VerbError::Refused { refusal: refusal.clone(), left_behind })
        });
    }
}

/// Why a record has no outcome.
pub(super) enum Unrecorded {
    /// Nothing was written: this node no longer leads.
    Moved(String),
    /// Nothing was written.
    Refused(String),
    /// It may still be written.
    Unknown(String),
}

impl fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Moved(why) | Self::Refused(why) | Self::Unknown(why)) = self;
        f.write_str(why)
    }
}

/// What a call comes to, or `None` if its time is over first.
pub(super) async fn within<T>(
    runtime: &impl Runtime,
    deadline: Duration,
    call: impl Future<Output = T>,
) -> Option<T> {
    // No clock can count to the longest time that there is.
    let deadline = deadline.min(Duration::from_secs(365 * 86_400));
    let (mut call, mut late) = (pin!(call), pin!(runtime.sleep(deadline)));
    tokio::select! {
        biased;
        outcome = &mut call => Some(outcome),
        () = &mut late => None,
    }
}

/// Writes a record into the host's log, if the host answers in time.
pub(super) async fn record<C: Cluster>(
    cluster: &C,
    runtime: &impl Runtime,
    deadline: Duration,
    record: Record,
) -> Result<Outcome, Unrecorded> {
    let Some(result) = within(runtime, deadline, cluster.record(record)).await else {
        return Err(Unrecorded::Unknown("the host did not answer in time".to_owned()));
    };
    result.map_err(|error| {
        let why = error.to_string();
        match error {
            ClusterError::Moved(_) => Unrecorded::Moved(why),
            ClusterError::Unknown(_) => Unrecorded::Unknown(why),
            ClusterError::Refused(_) => Unrecorded::Refused(why),
        }
    })
}

/// What came of a step, whatever the host's failures are.
pub(super) type Done = Applied<Box<dyn std::error::Error + Send + Sync>>;

/// Has the host take a step.
pub(super) async fn apply<C: Cluster>(cluster: &C, change: Change) -> Done {
    cluster.apply(change).await.map_err(|error| match error {
        ClusterError::Moved(what) => ClusterError::Moved(what),
        ClusterError::Refused(error) => ClusterError::Refused(error.into()),
        ClusterError::Unknown(error) => ClusterError::Unknown(error.into()),
    })
}

/// Hands leadership over once that is recorded, so that nobody takes it for lost.
pub(super) async fn hand_over<C: Cluster>(
    cluster: &C,
    runtime: &impl Runtime,
    deadline: Duration,
    change: Change,
    outstanding: Vec<Report>,
) -> Done {
    // The other half is the hand-over's own.
    match record(cluster, runtime, deadline / 2, Record::HandOver(outstanding)).await {
        // A host that does not take the record must not keep its leader for ever.
        Ok(_) | Err(Unrecorded::Refused(_)) => apply(cluster, change).await,
        Err(Unrecorded::Moved(what)) => Err(ClusterError::Moved(what)),
        Err(Unrecorded::Unknown(why)) => {
            let why = format!("whether the hand-over is recorded is not known: {why}");
            Err(ClusterError::Refused(why.into()))
        }
    }
}

/// Tells a server that it was removed, again and again for a minute until it has heard.
pub(super) async fn dismiss<C: Cluster, R: Runtime>(
    cluster: Arc<C>,
    runtime: R,
    deadline: Duration,
    server: Arc<Server>,
) {
    let id = &server.id;
    for wait in [1, 1, 2, 4, 8, 16, 28] {
        let told = within(&runtime, deadline, cluster.dismiss(Arc::clone(&server))).await;
        match told.unwrap_or(Dismissal::NoAnswer) {
            Dismissal::Heard => {
                tracing::info!(server = %id, "the removed server has been told");
                return;
            }
            Dismissal::NotOffered => {
                tracing::warn!(server = %id, "nobody tells the removed server: stop it yourself");
                return;
            }
            Dismissal::NoAnswer => runtime.sleep(Duration::from_secs(wait)).await,
        }
    }
    tracing::warn!(server = %id, "the removed server did not answer: stop it yourself");
}
