//! The handle: what readers see of autopilot, and the verbs of an operator.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    cluster::{Server, ServerId},
    config::{Config, ConfigError},
    explain::{Explanation, explain},
    guard::{Guard, PromoterPanic},
    history::History,
    plan::Plan,
    promoter::Promoter,
    records::{IntentKind, Task},
    refusal::Refusal,
    state::State,
    why::Held,
};

/// What autopilot is doing on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Running {
    /// This node leads, and autopilot steers.
    Leading,
    /// Another node leads, or nobody does.
    StandingBy,
    /// This node leads; an operator has paused autopilot, or it only observes.
    Paused,
    /// [`Autopilot::run`](super::Autopilot::run) has not begun, or has ended.
    Stopped,
}

impl Running {
    /// The word for people and wires.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::StandingBy => "standing-by",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// Everything that one round came to: an immutable value, cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    /// What autopilot is doing here.
    pub running: Running,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The index in the host's log that first stored a configuration; 0: none is stored.
    pub create_index: u64,
    /// The index that stored this one; 0: none is stored.
    pub modify_index: u64,
    /// Whether the host keeps the records; else the leader does, and they end with its leadership.
    pub records_kept: bool,
    /// What is thought of the cluster; `None` before the first round.
    pub state: Option<Arc<State>>,
    /// What is to be done, and what is held.
    pub plan: Arc<Plan>,
    /// What this node did and held back lately.
    pub history: History,
    /// The policy; pure, so that readers may ask it for what it says of a server. It is the
    /// application's own: where it panics, whoever asks it here hears so.
    pub promoter: Arc<dyn Promoter>,
    /// Where the promoter panicked while this plan was made, the first panic of each method. Empty is
    /// usual.
    pub panics: Vec<PromoterPanic>,
}

impl View {
    /// What is held that concerns a server.
    pub fn held(&self, id: &ServerId) -> impl Iterator<Item = &Held> {
        self.plan.held.iter().filter(move |held| held.step.servers().any(|named| named == id))
    }

    /// Why everything is as it is; `None` before the first round. A promoter that panics is warned of.
    pub fn explain(&self) -> Option<Explanation> {
        let state = self.state.as_deref()?;
        Some(self.explain_by(&self.guard(), state))
    }

    /// The promoter, for one reader.
    pub(crate) fn guard(&self) -> Guard {
        Guard::new(Arc::clone(&self.promoter), self.panics.clone())
    }

    /// The same explanation, and whoever was asked for it.
    pub(crate) fn explain_by(&self, guard: &Guard, state: &State) -> Explanation {
        let mut found = explain(&self.config, state, &self.plan, guard);
        found.warnings.extend(guard.warnings());
        found
    }
}

/// Why a verb was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerbError {
    /// This node does not lead. Nothing was changed; ask the leader.
    #[error("this node does not lead; nothing was changed: {}", ask(.leader.as_ref()))]
    NotLeading {
        /// Whoever does, as far as is known.
        leader: Option<ServerId>,
    },
    /// Another node has become leader while the order was carried out.
    #[error(
        "{leader} leads now; left behind: {left_behind}; {}",
        if *.goes_on { "watch it there: it goes on with the order" }
        else { "give the order again there: nobody goes on with it" }
    )]
    LostLeadership {
        /// Who leads.
        leader: ServerId,
        /// What the steps that were applied here have done.
        left_behind: String,
        /// Whether the order was recorded, so that the leader goes on with it. Else give it
        /// again there.
        goes_on: bool,
    },
    /// It would break a rule. Nothing was changed, unless `left_behind` says so; the refusal says
    /// what to do.
    #[error("refused: {refusal}; left behind: {left_behind}")]
    Refused {
        /// Which.
        refusal: Refusal,
        /// What earlier steps of the same operation have done.
        left_behind: String,
    },
    /// Time is over. The operation was given up where it stood; look at the state, then give the
    /// order again with more time ([`Handle::within`]).
    #[error(
        "the time is over; left behind: {left_behind}; look at the state, and give it more time"
    )]
    Deadline {
        /// What was done, and what was being waited for.
        left_behind: String,
    },
    /// The stored configuration is not the one compared with. Nothing was changed; read it and
    /// try again.
    #[error(
        "the stored configuration has modify index {found}; nothing was changed: read it, and try again"
    )]
    Conflict {
        /// The modify index that stands; 0: nothing is stored.
        found: u64,
    },
    /// The configuration must not be used. Nothing was changed; correct the field that it names.
    #[error("invalid configuration: {0}")]
    Invalid(#[from] ConfigError),
    /// Nobody at the new address answers with the server's id. Nothing was changed; start the
    /// server there first, or correct the address.
    #[error(
        "{server} has not proven its id at {address}, where {answer} answered; nothing was changed: \
         start it there first, or correct the address"
    )]
    NotProven {
        /// Who should be there.
        server: ServerId,
        /// Where.
        address: String,
        /// Who answered; `nobody` if nobody did.
        answer: String,
    },
    /// The host did not record it; its words. Nothing was changed; mend what they name, and give
    /// the order again.
    #[error("the host did not record it; nothing was changed: give the order again ({0})")]
    NotRecorded(String),
    /// Whether the host recorded it is not known, in its words: it may still take effect. Look at
    /// the state before you repeat it.
    #[error(
        "the host did not say whether it recorded it, and may have; look at the state before you repeat it ({0})"
    )]
    PerhapsRecorded(String),
    /// Autopilot only observes on this node. Nothing was changed.
    #[error(
        "autopilot only observes here; nothing was changed: start it without `Options::observer`"
    )]
    Observing,
    /// Autopilot has stopped on this node. What was recorded goes on under another leader, and a
    /// step on its way is finished; look at the state there.
    #[error(
        "autopilot has stopped on this node; an order that was recorded goes on under the next \
         leader, another was not begun: look at the state there"
    )]
    Stopped,
}

/// Whom to ask instead.
fn ask(leader: Option<&ServerId>) -> String {
    match leader {
        Some(leader) => format!("ask {leader}, which leads"),
        None => "wait for a leader, and ask it".to_owned(),
    }
}

/// What a verb came to.
pub(super) type Reply = Result<(), VerbError>;

/// A verb on its way to the driver.
pub(super) struct Request {
    pub(super) verb: Verb,
    /// When its time is over, on the driver's clock.
    pub(super) until: Duration,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// What an operator can ask for.
pub(super) enum Verb {
    Operate { task: Task, force: Option<String> },
    Configure { config: Box<Config>, cas: Option<u64> },
    Pause(String),
    Resume,
    Cordon { server: ServerId, reason: String, ttl: Option<Duration> },
    Uncordon(ServerId),
    Intend { server: ServerId, kind: IntentKind, ttl: Duration },
    Unintend(ServerId),
    CleanUp,
}

/// Readers and operators hold this. Cheap to clone; every clone is the same autopilot.
///
/// Every verb is judged like autopilot's own steps, waits until it is done or its time is over,
/// and says what it left behind. Verbs work on the leader only.
#[derive(Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Box<Request>>,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    pub(super) heartbeat: Duration,
    pub(super) good_for: Duration,
    pub(super) ttl: Duration,
    pub(super) force: Option<Arc<str>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.view.borrow().running;
        f.debug_struct("Handle").field("running", &running).finish_non_exhaustive()
    }
}

impl Handle {
    /// The latest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// What is thought of the cluster; `None` before the first round.
    pub fn state(&self) -> Option<Arc<State>> {
        self.view.borrow().state.clone()
    }

    /// What this node did and held back lately, each with its reason; kept while it stands by.
    pub fn history(&self) -> History {
        self.view.borrow().history.clone()
    }

    /// What autopilot is doing here.
    pub fn running(&self) -> Running {
        self.view.borrow().running
    }

    /// A channel with the latest view; a slow reader misses views and blocks nobody.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Why everything is as it is, as of the latest view; `None` before the first round.
    pub fn explain(&self) -> Option<Explanation> {
        self.view().explain()
    }

    /// The number of voters, as of the latest view.
    pub fn num_voters(&self) -> usize {
        self.view.borrow().state.as_ref().map_or(0, |state| state.num_voters())
    }

    /// The driver's clock now, to compare with [`State::at`].
    pub fn now(&self) -> Duration {
        (self.clock)()
    }

    /// The host's heartbeat interval, which configurations are validated against.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// For how long the state of a leader is good, from [`State::at`] on: twice the longest pause
    /// between two rounds and the longest observation. An older one says that its host does not answer,
    /// or that its driver hangs.
    pub fn good_for(&self) -> Duration {
        self.good_for
    }

    /// The same handle, whose verbs have this long, counted from the call. Default 30 s. One whose
    /// time is over hears so within a round, which takes as long as an observation may. It is the
    /// driver that answers: before [`Autopilot::run`](super::Autopilot::run) has begun a verb waits.
    #[must_use]
    pub fn within(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The same handle, whose operations waive what a person may waive: the floor of voters, the
    /// time of stability, the grace and signs of the sick, and the margin. Never the quorum.
    #[must_use]
    pub fn forced(mut self, reason: &str) -> Self {
        self.force = Some(reason.into());
        self
    }

    /// Adds a server, as a learner; the promoter decides whether it votes. Whoever had its
    /// address and no longer answers there is removed in the same change.
    ///
    /// # Errors
    /// Before anything is done: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). Under way:
    /// [`Refused`](VerbError::Refused), [`Deadline`](VerbError::Deadline) and
    /// [`LostLeadership`](VerbError::LostLeadership), which say what was done until then;
    /// [`PerhapsRecorded`](VerbError::PerhapsRecorded) and [`Stopped`](VerbError::Stopped), after
    /// which it may go on: look at the state. A server that was added stays a learner.
    pub async fn add(&self, server: Server) -> Result<(), VerbError> {
        self.operate(Task::Add(Arc::new(server))).await
    }

    /// Removes a server: leadership and vote first, where it has them. One that is no member is
    /// removed already.
    ///
    /// Its id never comes back, as far as that is recorded: where the host keeps no records, this
    /// leader alone knows it, for as long as it leads. Where it does, the id is recorded right
    /// after the change, and until it is this leader refuses the id and tries again; if it loses
    /// leadership before that, the next one knows the id as removed only if the server's health
    /// had been recorded.
    ///
    /// # Errors
    /// Before anything is done: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). Under way:
    /// [`Refused`](VerbError::Refused), [`Deadline`](VerbError::Deadline) and
    /// [`LostLeadership`](VerbError::LostLeadership), which say what was done until then;
    /// [`PerhapsRecorded`](VerbError::PerhapsRecorded) and [`Stopped`](VerbError::Stopped), after
    /// which it may go on: look at the state. After a demotion the vote is gone and the server still
    /// is a member.
    pub async fn remove(&self, id: impl Into<ServerId>) -> Result<(), VerbError> {
        self.operate(Task::Remove(id.into())).await
    }

    /// Puts `new` in the place of `old`: adds it, waits until it may vote, and swaps them. Refused
    /// where `old` is no member.
    ///
    /// # Errors
    /// Before anything is done: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). Under way:
    /// [`Refused`](VerbError::Refused), [`Deadline`](VerbError::Deadline) and
    /// [`LostLeadership`](VerbError::LostLeadership), which say what was done until then;
    /// [`PerhapsRecorded`](VerbError::PerhapsRecorded) and [`Stopped`](VerbError::Stopped), after
    /// which it may go on: look at the state. The new server may
    /// have been added as a learner.
    pub async fn replace(&self, old: impl Into<ServerId>, new: Server) -> Result<(), VerbError> {
        self.operate(Task::Replace { old: old.into(), new: Arc::new(new) }).await
    }

    /// Gives a learner a vote. Refused where it is no member.
    ///
    /// # Errors
    /// Before anything is done: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). Under way:
    /// [`Refused`](VerbError::Refused), [`Deadline`](VerbError::Deadline) and
    /// [`LostLeadership`](VerbError::LostLeadership), which say what was done until then;
    /// [`PerhapsRecorded`](VerbError::PerhapsRecorded) and [`Stopped`](VerbError::Stopped), after
    /// which it may go on: look at the state.
    pub async fn promote(&self, id: impl Into<ServerId>) -> Result<(), VerbError> {
        self.operate(Task::Promote(id.into())).await
    }

    /// Takes a voter's vote, and cordons it so that the promoter does not give it back. Refused,
    /// and nothing is cordoned, where it is no member.
    ///
    /// # Errors
    /// Before anything is done: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). Under way:
    /// [`Refused`](VerbError::Refused), [`Deadline`](VerbError::Deadline) and
    /// [`LostLeadership`](VerbError::LostLeadership), which say what was done until then;
    /// [`PerhapsRecorded`](VerbError::PerhapsRecorded) and [`Stopped`](VerbError::Stopped), after
    /// which it may go on: look at the state. The cordon
    /// stays after any of these.
    pub async fn demote(&self, id: impl Into<ServerId>) -> Result<(), VerbError> {
        self.operate(Task::Demote(id.into())).await
    }

    /// Hands leadership to a server, or to the best one.
    ///
    /// # Errors
    /// Before anything is done: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). Under way:
    /// [`Refused`](VerbError::Refused), [`Deadline`](VerbError::Deadline) and
    /// [`LostLeadership`](VerbError::LostLeadership), which say what was done until then;
    /// [`PerhapsRecorded`](VerbError::PerhapsRecorded) and [`Stopped`](VerbError::Stopped), after
    /// which it may go on: look at the state.
    pub async fn transfer(&self, to: Option<ServerId>) -> Result<(), VerbError> {
        self.operate(Task::Transfer(to)).await
    }

    /// Changes a server's address, after whoever listens there has answered with its id.
    ///
    /// # Errors
    /// Before anything is done: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotProven`](VerbError::NotProven),
    /// [`NotRecorded`](VerbError::NotRecorded). Under way:
    /// [`Refused`](VerbError::Refused), [`Deadline`](VerbError::Deadline) and
    /// [`LostLeadership`](VerbError::LostLeadership), which say what was done until then;
    /// [`PerhapsRecorded`](VerbError::PerhapsRecorded) and [`Stopped`](VerbError::Stopped), after
    /// which it may go on: look at the state.
    pub async fn readdress(
        &self,
        id: impl Into<ServerId>,
        address: impl Into<String>,
    ) -> Result<(), VerbError> {
        self.operate(Task::Readdress { server: id.into(), address: address.into() }).await
    }

    /// Stops all automatic changes; health is still tracked, and orders are still carried out
    /// after [`Handle::resume`]. Answered when the step that is under way has ended; one whose outcome
    /// is given up ([`Options::step_deadline`](super::Options::step_deadline)) may still take effect,
    /// and is named by [`Deadline`](VerbError::Deadline).
    ///
    /// # Errors
    /// Nothing was changed: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). It may still
    /// take effect, so look before you repeat it: [`PerhapsRecorded`](VerbError::PerhapsRecorded),
    /// [`Deadline`](VerbError::Deadline), [`LostLeadership`](VerbError::LostLeadership),
    /// [`Stopped`](VerbError::Stopped).
    pub async fn pause(&self, reason: &str) -> Result<(), VerbError> {
        self.ask(Verb::Pause(reason.to_owned())).await
    }

    /// Lifts a pause.
    ///
    /// # Errors
    /// Nothing was changed: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). It may still
    /// take effect, so look before you repeat it: [`PerhapsRecorded`](VerbError::PerhapsRecorded),
    /// [`Deadline`](VerbError::Deadline), [`LostLeadership`](VerbError::LostLeadership),
    /// [`Stopped`](VerbError::Stopped).
    pub async fn resume(&self) -> Result<(), VerbError> {
        self.ask(Verb::Resume).await
    }

    /// Keeps a server from gaining a vote or leadership, for a time or until it is lifted; a
    /// leader hands over.
    ///
    /// # Errors
    /// Nothing was changed: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`Refused`](VerbError::Refused) where it is no member,
    /// [`NotRecorded`](VerbError::NotRecorded). It may still take effect, so look before you
    /// repeat it: [`PerhapsRecorded`](VerbError::PerhapsRecorded), [`Deadline`](VerbError::Deadline), [`LostLeadership`](VerbError::LostLeadership),
    /// [`Stopped`](VerbError::Stopped).
    pub async fn cordon(
        &self,
        id: impl Into<ServerId>,
        reason: &str,
        ttl: Option<Duration>,
    ) -> Result<(), VerbError> {
        self.ask(Verb::Cordon { server: id.into(), reason: reason.to_owned(), ttl }).await
    }

    /// Lifts a cordon.
    ///
    /// # Errors
    /// Nothing was changed: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). It may still
    /// take effect, so look before you repeat it: [`PerhapsRecorded`](VerbError::PerhapsRecorded),
    /// [`Deadline`](VerbError::Deadline), [`LostLeadership`](VerbError::LostLeadership),
    /// [`Stopped`](VerbError::Stopped).
    pub async fn uncordon(&self, id: impl Into<ServerId>) -> Result<(), VerbError> {
        self.ask(Verb::Uncordon(id.into())).await
    }

    /// Announces what is about to happen to a server, so that it is not taken for a failure.
    ///
    /// # Errors
    /// Nothing was changed: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`Refused`](VerbError::Refused) where it is no member,
    /// [`NotRecorded`](VerbError::NotRecorded). It may still take effect, so look before you
    /// repeat it: [`PerhapsRecorded`](VerbError::PerhapsRecorded), [`Deadline`](VerbError::Deadline), [`LostLeadership`](VerbError::LostLeadership),
    /// [`Stopped`](VerbError::Stopped).
    pub async fn intend(
        &self,
        id: impl Into<ServerId>,
        kind: IntentKind,
        ttl: Duration,
    ) -> Result<(), VerbError> {
        self.ask(Verb::Intend { server: id.into(), kind, ttl }).await
    }

    /// Takes an announcement back.
    ///
    /// # Errors
    /// Nothing was changed: [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). It may still
    /// take effect, so look before you repeat it: [`PerhapsRecorded`](VerbError::PerhapsRecorded),
    /// [`Deadline`](VerbError::Deadline), [`LostLeadership`](VerbError::LostLeadership),
    /// [`Stopped`](VerbError::Stopped).
    pub async fn unintend(&self, id: impl Into<ServerId>) -> Result<(), VerbError> {
        self.ask(Verb::Unintend(id.into())).await
    }

    /// Looks for dead servers now instead of at the next deadline. What may be removed is; what
    /// may not stands in the plan, with the reason.
    ///
    /// # Errors
    /// [`NotLeading`](VerbError::NotLeading), [`Observing`](VerbError::Observing) or
    /// [`Stopped`](VerbError::Stopped); nothing was changed by any of them.
    pub async fn remove_dead_servers(&self) -> Result<(), VerbError> {
        self.ask(Verb::CleanUp).await
    }

    /// Stores a configuration; with `cas`, only over the one with that modify index.
    ///
    /// # Errors
    /// Nothing was changed: [`Invalid`](VerbError::Invalid), [`Conflict`](VerbError::Conflict),
    /// [`NotLeading`](VerbError::NotLeading),
    /// [`Observing`](VerbError::Observing), [`NotRecorded`](VerbError::NotRecorded). It may still
    /// take effect, so look before you repeat it: [`PerhapsRecorded`](VerbError::PerhapsRecorded),
    /// [`Deadline`](VerbError::Deadline), [`LostLeadership`](VerbError::LostLeadership),
    /// [`Stopped`](VerbError::Stopped).
    pub async fn configure(&self, config: Config, cas: Option<u64>) -> Result<(), VerbError> {
        config.validate(self.heartbeat)?;
        self.ask(Verb::Configure { config: Box::new(config), cas }).await
    }

    async fn operate(&self, task: Task) -> Result<(), VerbError> {
        let force = self.force.as_deref().map(str::to_owned);
        self.ask(Verb::Operate { task, force }).await
    }

    async fn ask(&self, verb: Verb) -> Result<(), VerbError> {
        let (reply, answer) = oneshot::channel();
        let until = self.now().saturating_add(self.ttl);
        let request = Box::new(Request { verb, until, reply });
        self.requests.send(request).await.map_err(|_| VerbError::Stopped)?;
        answer.await.unwrap_or(Err(VerbError::Stopped))
    }
}
