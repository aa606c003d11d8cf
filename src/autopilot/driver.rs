//! The loop: observe, assess, plan, judge, apply one step, and wait for the next moment that matters.
//!
//! ```text
//!            changed, verb, outcome, deadline
//!                         |
//!   Cluster::observe -> assess -> plan -> check -> Cluster::apply (a task of its own)
//!                         |         |        |
//!                       State     held    refused     -> View, for readers
//! ```

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::{
    cluster::{Change, Cluster, ClusterError, Feedback, Observation, Origin, Server, Step},
    config::{Config, ConfigError},
    desk::{Desk, Done, Then, Unrecorded, apply, dismiss, hand_over, record, within},
    guard::{Guard, PromoterPanic},
    handle::{Handle, Request, Running, View},
    history::{Begun, Chronicle, Decision, Fate, History},
    options::Options,
    plan::{Plan, plan},
    promoter::Promoter,
    records::{Ledger, Outcome, Record, Verdict},
    report::outstanding,
    retries::Retries,
    safety::check,
    state::State,
    wake,
    why::{Held, Why},
};
use crate::runtime::Runtime;

/// A step whose outcome is awaited.
struct InFlight {
    serial: u64,
    change: Change,
    begun: Begun,
    until: Duration,
}

/// What a task of the driver has come to.
pub(super) enum Event {
    Applied { serial: u64, result: Done },
    Recorded { then: Then, result: Result<Outcome, Unrecorded> },
    Identified { ticket: u64, answer: Option<super::cluster::ServerId> },
}

/// Autopilot for one node: made once, run for the node's whole life.
pub struct Autopilot<C: Cluster, R: Runtime> {
    pub(super) cluster: Arc<C>,
    pub(super) runtime: R,
    promoter: Arc<dyn Promoter>,
    pub(super) options: Options,
    default_config: Arc<Config>,
    requests: mpsc::Receiver<Box<Request>>,
    pub(super) events: mpsc::UnboundedSender<Box<Event>>,
    outcomes: mpsc::UnboundedReceiver<Box<Event>>,
    publish: watch::Sender<Arc<View>>,
    pub(super) last: Option<Arc<State>>,
    plan: Arc<Plan>,
    /// The longest pause since the last observation.
    paused: Duration,
    in_flight: Option<Box<InFlight>>,
    pub(super) serial: u64,
    retries: Retries,
    /// The records of this leadership, where the host keeps none.
    pub(super) local: Option<Arc<Ledger>>,
    pub(super) desk: Desk,
    chronicle: Chronicle,
}

impl<C: Cluster, R: Runtime> fmt::Debug for Autopilot<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Autopilot").field("promoter", &self.promoter).finish_non_exhaustive()
    }
}

impl<C: Cluster, R: Runtime> Autopilot<C, R> {
    /// An autopilot, and the handle that readers and operators use.
    ///
    /// # Errors
    /// The configuration, or one of the options, breaks a rule of validity. Nothing was started.
    pub fn new(
        cluster: C,
        runtime: R,
        promoter: impl Promoter,
        options: Options,
    ) -> Result<(Self, Handle), ConfigError> {
        options.validate()?;
        let (send, requests) = mpsc::channel(32);
        let (events, outcomes) = mpsc::unbounded_channel();
        let promoter: Arc<dyn Promoter> = Arc::new(promoter);
        let config = Arc::new(options.config.clone());
        let (publish, view) = watch::channel(Arc::new(View {
            running: Running::Stopped,
            config: Arc::clone(&config),
            create_index: 0,
            modify_index: 0,
            records_kept: false,
            state: None,
            plan: Arc::default(),
            history: History::default(),
            promoter: Arc::clone(&promoter),
            panics: Vec::new(),
        }));
        let clock = runtime.clone();
        let handle = Handle {
            requests: send,
            view,
            clock: Arc::new(move || clock.now()),
            heartbeat: options.heartbeat,
            good_for: options.good_for(),
            ttl: Duration::from_secs(30),
            force: None,
        };
        let autopilot = Self {
            cluster: Arc::new(cluster),
            runtime,
            promoter,
            default_config: config,
            options,
            requests,
            events,
            outcomes,
            publish,
            last: None,
            plan: Arc::default(),
            paused: Duration::ZERO,
            in_flight: None,
            serial: 0,
            retries: Retries::default(),
            local: None,
            desk: Desk::default(),
            chronicle: Chronicle::default(),
        };
        Ok((autopilot, handle))
    }

    /// Runs until `shutdown` completes: leads while this node leads, stands by otherwise.
    ///
    /// Start it once, on every node. Dropping it is safe at any moment: a step on its way is a
    /// task of its own, and what a crash leaves half done the next leader finishes first.
    #[expect(clippy::manual_async_fn, reason = "an async fn would hold this autopilot twice")]
    pub fn run(mut self, shutdown: impl Future<Output = ()>) -> impl Future<Output = ()> {
        async move {
            let mut shutdown = pin!(shutdown);
            let mut open = true;
            loop {
                let round = self.round();
                tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    () = round => {}
                }
                let (cluster, runtime, pause) =
                    (Arc::clone(&self.cluster), self.runtime.clone(), self.pause());
                self.paused = self.paused.max(pause);
                tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    Some(event) = self.outcomes.recv() => self.event(*event),
                    request = self.requests.recv(), if open => match request {
                        Some(request) => self.request(*request),
                        None => open = false,
                    },
                    () = cluster.changed() => {}
                    () = runtime.sleep(pause) => {}
                }
                self.drain();
            }
        }
    }

    /// Takes in all that waits: a round may take as long as an observation may hang.
    fn drain(&mut self) {
        while let Ok(event) = self.outcomes.try_recv() {
            self.event(*event);
        }
        for _ in 0..self.requests.len() {
            let Ok(request) = self.requests.try_recv() else { break };
            self.request(*request);
        }
    }

    /// One turn: observe, assess, plan, judge, publish, and start at most one step.
    async fn round(&mut self) {
        let at = self.runtime.now();
        let deadline = self.options.observe_deadline;
        let observed = within(&self.runtime, deadline, self.cluster.observe(at)).await;
        let Some(mut seen) = observed else {
            tracing::warn!("the host did not answer an observation in time");
            self.desk.expire(self.runtime.now(), self.last.as_deref());
            return;
        };
        self.prepare(&mut seen);
        let (config, create_index, modify_index) = self.config(&seen);
        let state = Arc::new(State::assess(&config, self.last.as_deref(), &seen));
        let guard = Guard::new(Arc::clone(&self.promoter), Vec::new());
        let mut plan = plan(&config, &state, &guard);
        let panics = guard.panics();
        let known = |panic: &PromoterPanic| {
            self.publish.borrow().panics.iter().any(|known| known.asked == panic.asked)
        };
        for panic in panics.iter().filter(|panic| !known(panic)) {
            tracing::error!("{panic}");
        }
        let next = judge(&config, &state, &mut plan);
        self.plan = Arc::new(plan);
        self.tell(&state);
        let view = View {
            running: running(&state, &self.plan),
            config,
            create_index,
            modify_index,
            records_kept: seen.ledger.is_some() && !self.desk.records_are_local,
            state: Some(Arc::clone(&state)),
            plan: Arc::clone(&self.plan),
            history: self.chronicle.history.clone(),
            promoter: Arc::clone(&self.promoter),
            panics,
        };
        self.publish.send_replace(Arc::new(view));
        self.last = Some(Arc::clone(&state));
        let plan = Arc::clone(&self.plan);
        self.settle(&state, &plan);
        if let Some(change) = next {
            self.launch(change, &state);
        }
        if !self.options.observer {
            self.remember(&state);
        }
    }

    /// Forgets what belonged to another leadership, and adds what only the driver knows.
    fn prepare(&mut self, seen: &mut Observation) {
        let paused = std::mem::take(&mut self.paused);
        seen.pace = paused.saturating_add(self.options.observe_deadline);
        let leadership = seen.leading.map(|leading| (leading.term, leading.since));
        let last = self.last.as_ref().and_then(|last| last.leading);
        if leadership != last.map(|leading| (leading.term, leading.since)) {
            // A transfer that fails ends in an election; its outcome still counts, or the next
            // leadership would try the same at once.
            let transfer = |step: &Step| matches!(step, Step::Transfer { .. });
            if let Some(flight) = self.in_flight.take_if(|f| !transfer(&f.change.step)) {
                self.give_up(&flight, seen.at, "leadership was lost before its end".to_owned());
            }
            self.retries.of_a_new_leadership();
            self.local = None;
            self.desk.lapse = Duration::ZERO;
            self.desk.leaving.clear();
            self.desk.recording = false;
        }
        if self.in_flight.as_ref().is_some_and(|flight| flight.until <= seen.at)
            && let Some(flight) = self.in_flight.take()
        {
            let error = "no outcome in time".to_owned();
            self.give_up(&flight, seen.at, error.clone());
            self.back_off(flight.change.step, error);
        }
        self.retries.forget(seen.at);
        let in_flight = self.in_flight.as_ref().map(|flight| flight.change.step.clone());
        let (observer, failed) = (self.options.observer, self.retries.feedback());
        if in_flight.is_some() || observer || failed.is_some() {
            let failed = failed.unwrap_or_default();
            seen.feedback = Some(Arc::new(Feedback { in_flight, observer, ..failed }));
        }
        self.desk.records_are_local = seen.ledger.is_none();
        if self.desk.records_are_local && seen.leading.is_some() {
            seen.ledger = Some(Arc::clone(self.local.get_or_insert_default()));
            seen.ledger_at = seen.at;
        }
        self.desk.withhold(seen);
    }

    /// The stored configuration with its indexes, or this node's own.
    fn config(&self, seen: &Observation) -> (Arc<Config>, u64, u64) {
        match seen.ledger.as_ref().and_then(|ledger| ledger.config.as_ref()) {
            None => (Arc::clone(&self.default_config), 0, 0),
            Some(stored) => {
                let view = self.publish.borrow();
                let config = if *view.config == stored.config {
                    Arc::clone(&view.config)
                } else {
                    Arc::new(stored.config.clone())
                };
                (config, stored.create_index, stored.modify_index)
            }
        }
    }

    /// Whether autopilot only looks on here.
    pub(super) fn observes(&self) -> bool {
        self.options.observer
    }

    /// Whether the outcome of a step is awaited.
    pub(super) fn is_stepping(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether leadership is being handed over; its records end with that it is.
    pub(super) fn hands_over(&self) -> bool {
        let transfer = |flight: &InFlight| matches!(flight.change.step, Step::Transfer { .. });
        self.in_flight.as_deref().is_some_and(transfer)
    }

    /// Logs what has changed since the last round.
    fn tell(&mut self, state: &State) {
        let known = self.chronicle.history.last_number();
        self.chronicle.planned(&self.plan, state);
        for Decision { step, fate, .. } in self.chronicle.history.since(known) {
            if let Fate::Held(why) = fate {
                tracing::info!(%step, %why, "held");
            }
        }
        let (last, true) = (&self.last, state.may_act()) else { return };
        let before = last.iter().filter(|last| last.may_act());
        let stood = |new| before.clone().flat_map(|last| last.warnings()).any(|old| old == new);
        for warning in state.warnings().filter(|new| !stood(*new)) {
            tracing::warn!("{warning}");
        }
        let Some(last) = last else { return };
        for server in &state.servers {
            let id = &server.server.id;
            let Some(before) = last.server(id) else { continue };
            if before.health.verdict != server.health.verdict
                && server.health.verdict != Verdict::Unknown
            {
                let (verdict, reasons) = (server.health.verdict.as_str(), server.health.reasons);
                tracing::info!(server = %id, verdict, ?reasons, "health has changed");
            }
        }
    }

    /// Starts a step in a task of its own, which is never cancelled.
    fn launch(&mut self, change: Change, state: &State) {
        self.serial += 1;
        let serial = self.serial;
        tracing::info!(step = %change.step, origin = ?change.origin, "applying");
        let (cluster, events) = (Arc::clone(&self.cluster), self.events.clone());
        let until = state.at.saturating_add(self.options.step_deadline);
        let begun = Begun::new(state, &change.step);
        self.in_flight = Some(Box::new(InFlight { serial, change: change.clone(), begun, until }));
        self.desk.under_way(&change.origin, Some(&change.step));
        let removed = match &change.step {
            Step::Remove { servers, .. } => servers.clone(),
            Step::FinishJoint
            | Step::Votes { .. }
            | Step::Add(_)
            | Step::Readdress { .. }
            | Step::Transfer { .. } => Vec::new(),
        };
        self.desk.leaving.extend(removed.iter().cloned());
        let leavers = removed.iter().filter_map(|id| state.server(id));
        let leavers: Vec<Arc<Server>> = leavers.map(|found| Arc::clone(&found.server)).collect();
        let records = !self.desk.records_are_local;
        let hands_over = (records && self.hands_over()).then(|| outstanding(state));
        let (runtime, deadline) = (self.runtime.clone(), self.options.step_deadline);
        self.runtime.spawn(async move {
            let result = match hands_over {
                Some(reports) => hand_over(&*cluster, &runtime, deadline, change, reports).await,
                None => apply(&*cluster, change).await,
            };
            // Here and not where the outcome is heard: the driver may be gone by then, and before
            // anything else is applied the ids must be known as removed.
            if result.is_ok() && !removed.is_empty() {
                for server in leavers {
                    let told = dismiss(Arc::clone(&cluster), runtime.clone(), deadline, server);
                    runtime.spawn(told);
                }
                if records
                    && let Err(error) =
                        record(&*cluster, &runtime, deadline, Record::Removed(removed)).await
                {
                    tracing::warn!(%error, "a removal is not recorded yet");
                }
            }
            let _ = events.send(Box::new(Event::Applied { serial, result }));
        });
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Applied { serial, result } => {
                if self.in_flight.as_ref().is_some_and(|flight| flight.serial == serial)
                    && let Some(flight) = self.in_flight.take()
                {
                    self.applied(&flight, result);
                }
            }
            Event::Recorded { then, result } => self.recorded(&then, result),
            Event::Identified { ticket, answer } => self.identified(ticket, answer.as_ref()),
        }
    }

    fn applied(&mut self, flight: &InFlight, result: Done) {
        let InFlight { change, begun, .. } = flight;
        let step = change.step.clone();
        self.chronicle.taken(change, begun, self.runtime.now(), Fate::of(&result));
        self.desk.under_way(&change.origin, None);
        match result {
            Ok(()) => {
                tracing::info!(%step, "applied");
                self.retries.done(&step);
                self.desk.done(&change.origin, &step);
                if change.origin == Origin::Promoter {
                    self.pace(step.clone());
                }
                if let Step::Remove { servers, .. } = step
                    && self.desk.records_are_local
                {
                    self.submit(Record::Removed(servers), Then::Nothing);
                }
            }
            Err(ClusterError::Moved(what)) => {
                tracing::info!(%step, what, "planning anew");
                let until = self.runtime.now().saturating_add(self.options.heartbeat);
                self.retries.pause(step, until, what);
            }
            Err(error) => self.back_off(step, error.to_string()),
        }
    }

    /// Keeps a promoter that changes its mind every round from moving the same votes to and fro:
    /// what was done as it wished is not done again within the stabilization time.
    fn pace(&mut self, step: Step) {
        let config = Arc::clone(&self.publish.borrow().config);
        let until = self.runtime.now().saturating_add(config.server_stabilization_time);
        self.retries.pause(step, until, "it was just done".to_owned());
    }

    /// Waits no more for what becomes of a step.
    fn give_up(&mut self, flight: &InFlight, at: Duration, error: String) {
        let InFlight { change, begun, .. } = flight;
        self.desk.under_way(&change.origin, None);
        self.desk.overdue(&change.step);
        self.chronicle.taken(change, begun, at, Fate::Unknown(error));
    }

    /// Lets a failed step wait.
    fn back_off(&mut self, step: Step, error: String) {
        let state = self.last.as_deref();
        let term = state.and_then(|state| state.leading).map_or(0, |leading| leading.term);
        let local = state.map_or("", |state| state.local.as_str());
        let (salt, now) = (format!("{local} {term}"), self.runtime.now());
        tracing::warn!(%step, error, "failed; waiting");
        self.retries.failed(step, now, error, &salt);
    }

    /// How long nothing needs to be looked at.
    fn pause(&self) -> Duration {
        let now = self.runtime.now();
        let state = self.last.as_deref();
        let leads = state.is_some_and(|state| state.leading.is_some());
        let lease = state.is_some_and(State::may_act);
        let mut pause = if !leads {
            // Standing by: a change of leadership wakes it.
            Duration::from_secs(60)
        } else if self.plan.undecided || !lease {
            self.options.heartbeat
        } else {
            self.options.update_interval
        };
        if let Some(wake) = self.plan.wake {
            // Not a moment later than the deadline, also while rounds are a heartbeat apart.
            pause = pause.min(wake.saturating_sub(now));
        }
        if let Some(flight) = &self.in_flight {
            pause = pause.min(flight.until.saturating_sub(now));
        }
        if let Some(due) = self.desk.due(now) {
            pause = pause.min(due);
        }
        pause
    }
}

impl<C: Cluster, R: Runtime> Drop for Autopilot<C, R> {
    /// The handle outlives the task, and must not go on saying that it leads.
    fn drop(&mut self) {
        let mut view = View::clone(&self.publish.borrow());
        view.running = Running::Stopped;
        self.publish.send_replace(Arc::new(view));
    }
}

/// Takes the first step that passes the safety check out of the plan; steps before it that do
/// not pass are held, with the rule that they would break.
fn judge(config: &Config, state: &State, plan: &mut Plan) -> Option<Change> {
    let mut next = None;
    let Plan { changes, held, .. } = &mut *plan;
    let planned = !changes.is_empty();
    changes.retain(|change| {
        if next.is_some() {
            return true;
        }
        match check(config, change, state) {
            Ok(()) => {
                next = Some(change.clone());
                true
            }
            Err(refusal) => {
                held.push(Held {
                    step: change.step.clone(),
                    origin: change.origin.clone(),
                    why: Why::Refused(refusal),
                });
                false
            }
        }
    });
    if planned && changes.is_empty() {
        plan.undecided = wake::next(config, state).undecided;
    }
    if plan.idle.is_some() { None } else { next }
}

fn running(state: &State, plan: &Plan) -> Running {
    match &plan.idle {
        _ if !state.may_act() => Running::StandingBy,
        Some(Why::Paused(_) | Why::Observing) => Running::Paused,
        _ => Running::Leading,
    }
}
