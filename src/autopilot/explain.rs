//! Why every server stands where it stands, who may fail next, and what autopilot does next and when, in words.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    cluster::{Role, ServerId, Step},
    config::Config,
    foresee::{Foreseen, foresee},
    plan::Plan,
    promoter::{NodeType, Promoter, StateExt, UpgradeStatus},
    records::Verdict,
    refusal::Refusal,
    state::{ServerState, State},
    why::{Held, Why},
};
use crate::duration::rounded;

/// What a server's answer is about. The words on the wire are kebab-case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// It leads.
    Leads,
    /// It votes, and nothing else is to be said.
    Votes,
    /// It votes in place of a zone that is lost.
    StandsIn,
    /// It does not vote, could, and nobody needs it to.
    StandsBy,
    /// It never votes: a read replica.
    ReadReplica,
    /// It never votes: by the promoter's word for servers of its type.
    NeverVotes,
    /// It is not a member.
    NotMember,
    /// This node does not lead with a fresh lease, and judges nobody.
    NotJudged,
    /// A step that names it comes next.
    Next,
    /// A step that names it waits behind another, or until autopilot acts again.
    Queued,
    /// A step that names it comes at a known time, if everything stays as it is.
    Due,
    /// Its vote waits until it has been stable for long enough.
    NotStable,
    /// Its vote waits until it is healthy.
    NotHealthy,
    /// Its vote waits until it has caught up.
    NotCaughtUp,
    /// It was added and has not caught up once.
    Joining,
    /// An operator keeps it from gaining anything.
    Cordoned,
    /// An operator has announced what happens to it.
    Announced,
    /// Its id was removed once and must not come back.
    RemovedId,
    /// It is sick, and stays until its grace has passed.
    GraceRuns,
    /// It is sick, and too few signs say that it is dead.
    TooFewSigns,
    /// It is sick together with too many others: more likely the observer is cut off.
    VanishedTogether,
    /// It is sick, and dead servers are not removed here.
    CleanupOff,
    /// The promoter keeps it.
    PromoterKeeps,
    /// It is sick, and its loss of the vote would break a rule.
    Needed,
    /// It is sick, and no sign of death stands.
    Sick,
    /// Nothing is known of its health.
    Unknown,
    /// A step that names it has failed, and is tried again.
    BackingOff,
    /// A step that names it is held for a reason that the words name.
    Held,
}

/// The one current answer about a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which.
    pub server: ServerId,
    /// What the answer is about.
    pub code: Code,
    /// The answer, for people.
    pub words: String,
    /// When time alone may change it, from the state's time on; `None`: time alone does not.
    #[serde(with = "crate::duration::option")]
    pub changes_in: Option<Duration>,
    /// Whether the cluster goes on if this server fails next.
    pub may_fail: bool,
}

/// What autopilot does next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// In words.
    pub words: String,
    /// In what time; zero is now. `None`: nothing until something happens.
    #[serde(with = "crate::duration::option")]
    pub after: Option<Duration>,
}

/// Why the cluster stands as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// In one sentence: whether it is healthy, who votes, how many may fail.
    pub summary: String,
    /// What autopilot does next, and when.
    pub next: Next,
    /// Every server, by id.
    pub servers: Vec<Answer>,
    /// Each zone, and whether the cluster goes on if all its servers fail next.
    pub zones: BTreeMap<String, bool>,
    /// Everything that is wanted and not done, in words.
    pub held: Vec<String>,
    /// What the state and the promoter warn of, and what a migration waits for.
    pub warnings: Vec<String>,
}

impl Explanation {
    /// The answer about a server.
    pub fn server(&self, id: &str) -> Option<&Answer> {
        self.servers.iter().find(|answer| answer.server.as_str() == id)
    }

    /// The servers that may fail next, each alone, without stopping the cluster.
    pub fn may_fail(&self) -> impl Iterator<Item = &ServerId> {
        self.servers.iter().filter(|answer| answer.may_fail).map(|answer| &answer.server)
    }
}

/// Explains a state and the plan that was made from it. Pure and total.
#[must_use]
pub fn explain(
    config: &Config,
    state: &State,
    plan: &Plan,
    promoter: &dyn Promoter,
) -> Explanation {
    let ext = promoter.state_ext(config, state);
    let comes = foresee(config, state, plan, promoter).filter(|_| plan.idle.is_none());
    let why = Explainer { config, state, plan, promoter, ext: &ext, comes };
    let servers: Vec<Answer> = state.servers.iter().map(|server| why.answer(server)).collect();
    let mut warnings: Vec<String> = state.warnings().map(str::to_owned).collect();
    warnings.extend(ext.warnings.iter().cloned());
    if let Some(upgrade) = &ext.upgrade
        && let Some(waits) = &upgrade.waits
    {
        warnings.push(format!("upgrade ({}): {waits}", upgrade.status.as_str()));
    }
    Explanation {
        summary: summary(state),
        next: why.next(),
        zones: why.zones(),
        held: plan.held.iter().map(|held| format!("{}: {}", held.step, held.why)).collect(),
        servers,
        warnings,
    }
}

fn summary(state: &State) -> String {
    let health = match (state.may_act(), state.quorum, state.healthy) {
        (false, _, _) => "not judged: this node does not lead with a fresh lease",
        (true, false, _) => "no quorum",
        (true, true, true) => "healthy",
        (true, true, false) => "not healthy",
    };
    let leader = state
        .leader
        .as_ref()
        .map_or_else(|| "nobody leads".to_owned(), |leader| format!("{leader} leads"));
    let (voters, fails) = (state.num_voters(), state.failure_tolerance);
    format!("{health}; {leader}; {voters} of {} vote; {fails} may fail", state.members().count())
}

struct Explainer<'a> {
    config: &'a Config,
    state: &'a State,
    plan: &'a Plan,
    promoter: &'a dyn Promoter,
    ext: &'a StateExt,
    /// What time alone brings next.
    comes: Option<Foreseen>,
}

/// Code, words, and the time left.
type Said = (Code, String, Option<Duration>);

impl Explainer<'_> {
    fn answer(&self, server: &ServerState) -> Answer {
        let id = &server.server.id;
        let (code, words, changes_in) = self.say(server);
        let may_fail = self.survives(|other| other == id);
        Answer { server: id.clone(), code, words, changes_in, may_fail }
    }

    fn say(&self, server: &ServerState) -> Said {
        let id = &server.server.id;
        if server.role == Role::Absent {
            return (Code::NotMember, "is known and not a member".to_owned(), None);
        }
        if !self.state.may_act() {
            let words = "is not judged: this node does not lead with a fresh lease".to_owned();
            return (Code::NotJudged, words, None);
        }
        let stands = self.stands(server);
        if let Some(said) = self.planned(id) {
            return prefixed(&stands, said);
        }
        let said = if let Some(held) = self.held(id) {
            prefixed(&stands, self.waits(server, held))
        } else if server.role.votes() {
            self.votes(server, stands.clone())
        } else {
            self.reserve(server, &stands)
        };
        match self.due(id) {
            // Where its own time is over no later, that says more.
            Some(due) if said.2.is_none_or(|left| Some(left) > due.2) => prefixed(&stands, due),
            Some(_) | None => said,
        }
    }

    /// Its place, and its health where that is not good.
    fn stands(&self, server: &ServerState) -> String {
        let place = match server.role {
            _ if self.state.is_leader(&server.server.id) => "leads",
            Role::Voter => "votes",
            Role::Incoming => "is about to vote",
            Role::Outgoing => "is about to lose its vote",
            Role::Learner | Role::Absent => "does not vote",
        };
        let age = rounded(self.state.at.saturating_sub(server.health.since));
        match server.health.verdict {
            Verdict::Healthy => place.to_owned(),
            Verdict::Unhealthy | Verdict::Unknown => {
                let reasons: Vec<&str> =
                    server.health.reasons.iter().map(super::state::Reason::as_str).collect();
                let verdict = server.health.verdict.as_str();
                format!("{place}; {verdict} for {age} ({})", reasons.join(", "))
            }
        }
    }

    /// A step that is planned and names it.
    fn planned(&self, id: &ServerId) -> Option<Said> {
        let names = |step: &Step| step.servers().any(|named| named == id);
        let found = self.plan.changes.iter().position(|change| names(&change.step))?;
        let step = &self.plan.changes[found].step;
        Some(match (&self.plan.idle, found) {
            (Some(idle), _) => (Code::Queued, format!("would come next: {step}; but {idle}"), None),
            (None, 0) => (Code::Next, format!("comes next: {step}"), Some(Duration::ZERO)),
            (None, _) => (Code::Queued, format!("comes later: {step}"), None),
        })
    }

    /// A step that time alone brings and that names it.
    fn due(&self, id: &ServerId) -> Option<Said> {
        let Foreseen { step, after } = self.comes.as_ref()?;
        let named = step.servers().any(|named| named == id);
        let words = || format!("in {}: {step}", rounded(*after));
        named.then(|| (Code::Due, words(), Some(*after)))
    }

    /// What is held and names it: best a reason that is about the server itself.
    fn held(&self, id: &ServerId) -> Option<&Held> {
        let mut held = self.plan.held.iter().filter(|held| held.step.servers().any(|n| n == id));
        held.clone().find(|held| about(&held.why) == Some(id)).or_else(|| held.next())
    }

    fn waits(&self, server: &ServerState, held: &Held) -> Said {
        let id = &server.server.id;
        let not = match &held.step {
            Step::Votes { promote, .. } if promote.contains(id) => "is not promoted",
            Step::Votes { .. } => "keeps its vote",
            Step::Remove { servers, .. } if servers.contains(id) => "is not removed",
            Step::Remove { .. } | Step::FinishJoint | Step::Add(_) | Step::Readdress { .. } => {
                "waits"
            }
            Step::Transfer { .. } if self.state.is_leader(id) => "keeps the leadership",
            Step::Transfer { .. } => "is not given the leadership",
        };
        let (code, why, left) = self.because(&held.why);
        (code, format!("{not}: {why}"), left)
    }

    fn because(&self, why: &Why) -> Said {
        match why {
            Why::Refused(refusal) => refused(refusal),
            Why::BackingOff { until, .. } => {
                let left = until.saturating_sub(self.state.at);
                let words = format!("{why}, tried again in {}", rounded(left));
                (Code::BackingOff, words, Some(left))
            }
            Why::CleanupOff => (Code::CleanupOff, why.to_string(), None),
            Why::PromoterKeeps => (Code::PromoterKeeps, why.to_string(), None),
            Why::Intended(_) => (Code::Announced, why.to_string(), None),
            Why::NotLeading
            | Why::Paused(_)
            | Why::Observing
            | Why::InFlight(_)
            | Why::Uncommitted
            | Why::NoTarget => (Code::Held, why.to_string(), None),
        }
    }

    fn votes(&self, server: &ServerState, stands: String) -> Said {
        let (id, at) = (&server.server.id, self.state.at);
        match server.health.verdict {
            Verdict::Unknown => return (Code::Unknown, stands, None),
            Verdict::Unhealthy => {
                let words = format!("{stands}; no sign of death, so it stays");
                return (Code::Sick, words, None);
            }
            Verdict::Healthy => {}
        }
        let age = server.healthy_for(at).unwrap_or_default();
        let mut words = format!("{stands}, healthy for {}", rounded(age));
        if let Some(reason) = self.state.cordoned(id) {
            words = format!("{words}; cordoned ({reason}): it gains no leadership");
            return (Code::Cordoned, words, None);
        }
        if let Some(kind) = self.state.intended(id) {
            words = format!("{words}; an operator has announced: {kind}");
            return (Code::Announced, words, None);
        }
        if self.promoter.node_type(self.config, self.state, server) == NodeType::ZONE_EXTRA_VOTER {
            words.push_str("; beside another of its zone, in place of one that is lost");
            return (Code::StandsIn, words, None);
        }
        if self.state.is_leader(id) {
            return (Code::Leads, format!("{words}: the promoter wishes no other leader"), None);
        }
        let node_type = self.promoter.node_type(self.config, self.state, server);
        (Code::Votes, format!("{words}: the promoter leaves it the vote ({node_type})"), None)
    }

    /// A member without a vote, of which nothing is planned or held.
    fn reserve(&self, server: &ServerState, stands: &str) -> Said {
        let id = &server.server.id;
        let needed = server.stabilization(self.config);
        let age = server.healthy_for(self.state.at).unwrap_or_default();
        let said = |code, words: &str| (code, format!("{stands}; {words}"), None);
        if server.server.read_replica {
            return said(Code::ReadReplica, "it is a read replica and never will");
        }
        let node_type = self.promoter.node_type(self.config, self.state, server);
        if !self.promoter.is_potential_voter(&node_type) {
            return said(Code::NeverVotes, &format!("servers of its type ({node_type}) never do"));
        }
        if self.state.removed(id) {
            return said(Code::RemovedId, "its id was removed once; join with a new one");
        }
        if let Some(reason) = self.state.cordoned(id) {
            return said(Code::Cordoned, &format!("cordoned: {reason}"));
        }
        if let Some(kind) = self.state.intended(id) {
            return said(Code::Announced, &format!("an operator has announced: {kind}"));
        }
        if server.joining.is_some() {
            return said(Code::Joining, &format!("it has yet to catch up {} entries", server.lag));
        }
        match server.health.verdict {
            Verdict::Unknown => said(Code::Unknown, "it is not promoted before that is known"),
            Verdict::Unhealthy => said(Code::NotHealthy, "it is not promoted before it is healthy"),
            Verdict::Healthy if age < needed => {
                let wait = Refusal::NotStable { server: id.clone(), healthy_for: age, needed };
                let (code, words, left) = refused(&wait);
                (code, format!("{stands}; is not promoted: {words}"), left)
            }
            Verdict::Healthy if server.matched.is_none() => {
                said(Code::NotCaughtUp, "how much of the log it holds is not known")
            }
            Verdict::Healthy => said(Code::StandsBy, &self.not_needed(server, &node_type)),
        }
    }

    /// Why a server that could vote does not.
    fn not_needed(&self, server: &ServerState, node_type: &NodeType) -> String {
        let upgrade = self.ext.upgrade.as_ref();
        let migrates = upgrade.filter(|u| {
            let lists = &u.versions;
            let id = &server.server.id;
            lists.target_version_non_voters.contains(id)
                && !lists.other_version_voters.is_empty()
                && u.status == UpgradeStatus::AwaitNewVoters
        });
        if let Some(waits) = migrates.and_then(|upgrade| upgrade.waits.as_ref()) {
            return format!("it stands by for the upgrade: {waits}");
        }
        let (voters, word) = (self.state.num_voters(), node_type.as_str());
        format!("it stands by ({word}): the promoter wants no vote beside the {voters} there are")
    }

    /// Whether live voters make a quorum without some servers, in both halves.
    fn survives(&self, lost: impl Fn(&ServerId) -> bool) -> bool {
        let half = |votes: fn(Role) -> bool| {
            let voters = || self.state.servers.iter().filter(|s| votes(s.role));
            let live = voters().filter(|s| s.live && !lost(&s.server.id)).count();
            live > voters().count() / 2
        };
        half(|role| matches!(role, Role::Voter | Role::Incoming))
            && half(|role| matches!(role, Role::Voter | Role::Outgoing))
    }

    fn zones(&self) -> BTreeMap<String, bool> {
        let zone = |server: &ServerState| {
            let ext = self.promoter.server_ext(self.config, self.state, server);
            ext.redundancy_zone.or_else(|| server.server.zone.clone())
        };
        let of: BTreeMap<&ServerId, String> = self
            .state
            .members()
            .filter_map(|server| Some((&server.server.id, zone(server)?)))
            .collect();
        let lost = |name: &String| self.survives(|id| of.get(id) == Some(name));
        let names: BTreeSet<&String> = of.values().collect();
        names.into_iter().map(|name| (name.clone(), lost(name))).collect()
    }

    fn next(&self) -> Next {
        let said = |words: String, after| Next { words, after };
        if let Some(idle) = &self.plan.idle {
            return said(format!("nothing: {idle}"), None);
        }
        if let Some(change) = self.plan.changes.first() {
            return said(change.step.to_string(), Some(Duration::ZERO));
        }
        match &self.comes {
            Some(Foreseen { step, after }) => said(step.to_string(), Some(*after)),
            None if self.plan.undecided => {
                said("nothing yet: looks again every heartbeat until all is decided".into(), None)
            }
            None if self.plan.held.is_empty() => {
                said("nothing: everything is as it should be".into(), None)
            }
            None => said("nothing, until what is held can be done".into(), None),
        }
    }
}

fn prefixed(stands: &str, (code, words, left): Said) -> Said {
    (code, format!("{stands}; {words}"), left)
}

/// Whom a reason is about.
fn about(why: &Why) -> Option<&ServerId> {
    let Why::Refused(refusal) = why else { return None };
    subject(refusal).1
}

fn refused(refusal: &Refusal) -> Said {
    let (words, left) = match refusal {
        Refusal::NotStable { healthy_for, needed, .. } => {
            let words = format!("{} of {} stable", rounded(*healthy_for), rounded(*needed));
            (words, Some(needed.saturating_sub(*healthy_for)))
        }
        Refusal::GraceRuns { passed, grace, .. } => {
            let left = grace.saturating_sub(*passed);
            let words = format!("the grace of {} ends in {}", rounded(*grace), rounded(left));
            (words, Some(left))
        }
        _ => (refusal.to_string(), None),
    };
    (subject(refusal).0, words, left)
}

/// The code of a refusal, and the server that it is about, where it is about one.
fn subject(refusal: &Refusal) -> (Code, Option<&ServerId>) {
    match refusal {
        Refusal::NotStable { server, .. } => (Code::NotStable, Some(server)),
        Refusal::GraceRuns { server, .. } => (Code::GraceRuns, Some(server)),
        Refusal::NotHealthy { server, .. } => (Code::NotHealthy, Some(server)),
        Refusal::NotCaughtUp { server, .. } => (Code::NotCaughtUp, Some(server)),
        Refusal::Cordoned { server, .. } => (Code::Cordoned, Some(server)),
        Refusal::ReadReplica { server } => (Code::ReadReplica, Some(server)),
        Refusal::NotKnown { server } => (Code::Unknown, Some(server)),
        Refusal::Intended { server, .. } => (Code::Announced, Some(server)),
        Refusal::TooFewSigns { server, .. } => (Code::TooFewSigns, Some(server)),
        Refusal::RemovedId { server } => (Code::RemovedId, Some(server)),
        Refusal::LiveVoter { server } => (Code::Needed, Some(server)),
        Refusal::Twice { server }
        | Refusal::WrongRole { server, .. }
        | Refusal::NotMember { server }
        | Refusal::AddressInUse { server, .. } => (Code::Held, Some(server)),
        Refusal::VanishedTogether { .. } => (Code::VanishedTogether, None),
        Refusal::NoQuorum { .. } | Refusal::Margin { .. } | Refusal::MinQuorum { .. } => {
            (Code::Needed, None)
        }
        Refusal::NotLeading
        | Refusal::Moved { .. }
        | Refusal::ChangeInFlight
        | Refusal::JointUnfinished
        | Refusal::NotJoint
        | Refusal::Empty
        | Refusal::LeaderKeepsVote => (Code::Held, None),
    }
}
