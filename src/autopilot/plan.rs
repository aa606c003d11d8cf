//! What to do next: `plan` turns wishes, orders and dead servers into ordered steps, and says what is held and why.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    cluster::{Change, Fence, NodeStatus, Origin, Role, ServerId, Step},
    config::Config,
    orders,
    promoter::{Promoter, Removals, Wishes},
    records::{IntentKind, Verdict, age},
    safety::Refusal,
    state::{Reason, ServerState, State},
};

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Why {
    /// This node does not lead, or a quorum has not answered it recently.
    NotLeading,
    /// An operator has paused autopilot.
    Paused(String),
    /// Autopilot only looks on.
    Observing,
    /// The outcome of a step is awaited.
    InFlight(Step),
    /// A change of the membership that somebody made is not committed yet.
    Uncommitted,
    /// The step has failed and waits.
    BackingOff {
        /// How often it has failed in a row.
        failures: u32,
        /// When it is tried again, on the clock of the state.
        #[serde(with = "crate::duration")]
        until: Duration,
        /// What the host said.
        error: String,
    },
    /// It would break a rule.
    Refused(Refusal),
    /// `cleanup_dead_servers` is off.
    CleanupOff,
    /// The promoter keeps the server.
    PromoterKeeps,
    /// An operator has announced this.
    Intended(IntentKind),
    /// Nobody is fit to lead.
    NoTarget,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeading => f.write_str("this node does not lead with a fresh lease"),
            Self::Paused(reason) => write!(f, "paused: {reason}"),
            Self::Observing => f.write_str("autopilot only observes here"),
            Self::InFlight(step) => write!(f, "waiting for the outcome of: {step}"),
            Self::Uncommitted => f.write_str("a change of the membership is not committed yet"),
            Self::BackingOff { failures, error, .. } => {
                write!(f, "failed {failures} times and waits: {error}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::CleanupOff => f.write_str("cleanup_dead_servers is off"),
            Self::PromoterKeeps => f.write_str("the promoter keeps it"),
            Self::Intended(kind) => write!(f, "an operator has announced a {kind:?}"),
            Self::NoTarget => f.write_str("no other voter is fit to lead"),
        }
    }
}

/// Something that is wanted and not done now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What would be done.
    pub step: Step,
    /// Who wants it.
    pub origin: Origin,
    /// Why it is not.
    pub why: Why,
}

/// The next steps, in order, and what is held.
///
/// The driver applies the first step that passes the safety check, then observes again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What to do, in order; every step was planned from the same state.
    pub changes: Vec<Change>,
    /// What is wanted and not done now.
    pub held: Vec<Held>,
    /// Set when nothing may be done at all; `changes` then say what would be.
    pub idle: Option<Why>,
    /// Operations that are done.
    pub finished: Vec<u64>,
    /// Operations whose time is over.
    pub expired: Vec<u64>,
    /// When time alone may change the plan, on the clock of the state.
    #[serde(with = "crate::duration::option")]
    pub wake: Option<Duration>,
    /// Something is being decided: look again after one heartbeat.
    pub undecided: bool,
}

/// Plans from a state. Pure and total; the same state gives the same plan.
///
/// The order of the steps is the safety argument:
///
/// 1. A joint membership that a crashed leader left is finished before anything else; nothing
///    is planned beside it (a host may refuse, and a second change would start from an
///    unknown set of voters).
/// 2. While a membership is not committed, nothing: it may still be undone.
/// 3. What a person ordered, oldest first.
/// 4. Votes, as the promoter wishes: gained and lost in one joint change, so that no
///    intermediate set of voters exists. (The reference moves them one by one and passes
///    through even sizes.)
/// 5. Dead servers whose grace has passed, one at a time: those without a vote first, because
///    they risk nothing.
/// 6. Leadership last: it ends this leader's knowledge.
#[must_use]
pub fn plan(config: &Config, state: &State, promoter: &dyn Promoter) -> Plan {
    let mut plan = Plan::default();
    let Some(fence) = state.fence().filter(|_| state.may_act()) else {
        plan.idle = Some(Why::NotLeading);
        return plan;
    };
    if !state.membership.committed {
        plan.idle = Some(Why::Uncommitted);
        plan.undecided = true;
        return plan;
    }
    let mut planner = Planner { config, state, fence, plan };
    if state.membership.joint {
        planner.push(Step::FinishJoint, Origin::Unfinished);
    } else {
        planner.orders();
        let wishes = promoter.wishes(config, state);
        planner.votes(&wishes);
        planner.cleanup(promoter);
        planner.drain();
        planner.lead(wishes.leader);
    }
    planner.finish()
}

struct Planner<'a> {
    config: &'a Config,
    state: &'a State,
    fence: Fence,
    plan: Plan,
}

/// Voters, and those of them that answer.
#[derive(Clone, Copy)]
struct Count {
    voters: usize,
    live: usize,
}

impl Count {
    /// Live voters beyond the quorum; `None` below it.
    fn margin(self) -> Option<usize> {
        self.live.checked_sub(self.voters / 2 + 1)
    }
}

impl Planner<'_> {
    /// Adds a step, unless it has failed and waits.
    fn push(&mut self, step: Step, origin: Origin) {
        let feedback = self.state.feedback.as_ref();
        let retry = feedback.and_then(|feedback| {
            feedback.retries.iter().find(|retry| retry.step == step && retry.until > self.state.at)
        });
        match retry {
            Some(retry) => {
                let why = Why::BackingOff {
                    failures: retry.failures,
                    until: retry.until,
                    error: retry.error.clone(),
                };
                self.hold(step, origin, why);
            }
            None => self.plan.changes.push(Change { step, fence: self.fence.clone(), origin }),
        }
    }

    fn hold(&mut self, step: Step, origin: Origin, why: Why) {
        self.plan.held.push(Held { step, origin, why });
    }

    fn orders(&mut self) {
        let Some(ledger) = self.state.ledger.clone() else { return };
        for (id, operation) in &ledger.operations {
            let (operation_id, force) = (*id, operation.force.clone());
            let origin = Origin::Operator { operation: operation_id, force };
            match orders::next(self.state, operation, || self.best_leader()) {
                orders::Next::Done => self.plan.finished.push(*id),
                _ if age(operation.applied_at, self.state.ledger_at) >= operation.ttl => {
                    self.plan.expired.push(*id);
                }
                orders::Next::Step(step) => self.push(step, origin),
                orders::Next::NoTarget => {
                    let to = self.state.local.clone();
                    self.hold(Step::Transfer { to }, origin, Why::NoTarget);
                }
            }
        }
    }

    /// Votes in one joint change: everybody who may gain one, and as many losers as the rules
    /// allow beside them.
    fn votes(&mut self, wishes: &Wishes) {
        let promote = self.gainers(&wishes.promote);
        let mut count = self.count();
        let before = count;
        count.voters += promote.len();
        count.live += promote.len();
        let mut replacements = promote.len();
        let mut demote: Vec<ServerId> = Vec::new();
        for id in &wishes.demote {
            let Some(server) = self.state.server(id) else { continue };
            if server.role != Role::Voter || demote.contains(id) {
                continue;
            }
            match self.may_lose(server, before, count, &mut replacements) {
                Ok(after) => {
                    count = after;
                    demote.push(id.clone());
                }
                Err(refusal) => {
                    let step = Step::Votes { promote: Vec::new(), demote: vec![id.clone()] };
                    self.hold(step, Origin::Promoter, Why::Refused(refusal));
                }
            }
        }
        if !promote.is_empty() || !demote.is_empty() {
            self.push(Step::Votes { promote, demote }, Origin::Promoter);
        }
    }

    /// The wished-for learners that may vote now; the others are held.
    fn gainers(&mut self, wished: &[ServerId]) -> Vec<ServerId> {
        let mut gainers: Vec<ServerId> = Vec::new();
        for id in wished {
            let Some(server) = self.state.server(id) else { continue };
            if server.role != Role::Learner || gainers.contains(id) {
                continue;
            }
            match self.unfit(server) {
                None => gainers.push(id.clone()),
                Some(refusal) => {
                    let step = Step::Votes { promote: vec![id.clone()], demote: Vec::new() };
                    self.hold(step, Origin::Promoter, Why::Refused(refusal));
                }
            }
        }
        gainers
    }

    /// Why a learner may not vote yet.
    fn unfit(&self, server: &ServerState) -> Option<Refusal> {
        let id = || server.server.id.clone();
        let needed = self.config.server_stabilization_time;
        let healthy_for = server.healthy_for(self.state.at).unwrap_or_default();
        if server.server.read_replica {
            Some(Refusal::ReadReplica { server: id() })
        } else if self.state.removed(&server.server.id) {
            Some(Refusal::RemovedId { server: id() })
        } else if let Some(reason) = self.state.cordoned(&server.server.id) {
            Some(Refusal::Cordoned { server: id(), reason: reason.to_owned() })
        } else if server.health.verdict != Verdict::Healthy {
            Some(Refusal::NotHealthy { server: id(), verdict: server.health.verdict })
        } else if healthy_for < needed {
            Some(Refusal::NotStable { server: id(), healthy_for, needed })
        } else {
            None
        }
    }

    /// The count without a voter, or why it must stay.
    fn may_lose(
        &self,
        server: &ServerState,
        before: Count,
        now: Count,
        replacements: &mut usize,
    ) -> Result<Count, Refusal> {
        let id = &server.server.id;
        if self.state.is_leader(id) || *id == self.state.local {
            return Err(Refusal::LeaderKeepsVote);
        }
        let sick = server.health.verdict != Verdict::Healthy;
        // Sick voters leave one for one with healthy ones, or alone after the whole grace.
        let swapped = sick && *replacements > 0;
        match server.health.verdict {
            Verdict::Unknown => return Err(Refusal::NotKnown { server: id.clone() }),
            Verdict::Unhealthy if swapped => {
                self.grace(server, self.config.voter_replacement_grace, 1)?;
            }
            Verdict::Unhealthy if now.voters == before.voters => {
                self.grace(server, self.removal_grace(server), 2)?;
            }
            Verdict::Unhealthy => {
                let (passed, grace) = (Duration::ZERO, self.removal_grace(server));
                return Err(Refusal::GraceRuns { server: id.clone(), passed, grace });
            }
            Verdict::Healthy => {}
        }
        let after = Count { voters: now.voters - 1, live: now.live - usize::from(server.live) };
        self.keeps_quorum(before, after, sick && !swapped)?;
        *replacements -= usize::from(swapped);
        Ok(after)
    }

    fn keeps_quorum(&self, before: Count, after: Count, shrinks: bool) -> Result<(), Refusal> {
        let Some(margin) = after.margin() else {
            return Err(Refusal::NoQuorum { live: after.live, voters: after.voters });
        };
        let old = before.margin();
        if old.is_some_and(|old| margin < old) && margin < self.config.min_margin as usize {
            let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            let before = old.map_or(-1, signed);
            return Err(Refusal::Margin { before, after: signed(margin) });
        }
        let floor =
            if shrinks { self.config.removal_floor() } else { self.config.min_quorum as usize };
        if after.voters < before.voters && after.voters < floor {
            return Err(Refusal::MinQuorum { left: after.voters, floor });
        }
        Ok(())
    }

    /// Whether so many signs have stood for the grace.
    fn grace(&self, server: &ServerState, grace: Duration, needed: usize) -> Result<(), Refusal> {
        let id = || server.server.id.clone();
        let at = self.state.at;
        let standing = server.signs.iter().count();
        let passed_by = |age: Duration| {
            server.signs.iter().filter(|(_, since)| at.saturating_sub(*since) >= age).count()
        };
        let progress = server.joining.is_none_or(|since| at.saturating_sub(since) >= grace);
        if standing < needed {
            return Err(Refusal::TooFewSigns { server: id(), signs: standing });
        }
        if passed_by(grace) >= needed && progress {
            return Ok(());
        }
        let ages = server.signs.iter().map(|(_, since)| at.saturating_sub(since));
        let passed = if needed == 1 { ages.max() } else { ages.min() };
        Err(Refusal::GraceRuns { server: id(), passed: passed.unwrap_or_default(), grace })
    }

    fn removal_grace(&self, server: &ServerState) -> Duration {
        match (server.joining, server.discovery) {
            (Some(_), _) => self.config.join_grace,
            (None, Some(NodeStatus::Left)) => self.config.left_server_grace,
            (None, _) => self.config.dead_server_last_contact_threshold,
        }
    }

    /// Dead servers, those without a vote first.
    fn cleanup(&mut self, promoter: &dyn Promoter) {
        let state = self.state;
        let mut dead = Removals::default();
        for server in state.members() {
            let sick = server.health.verdict == Verdict::Unhealthy;
            if !sick || server.signs.iter().next().is_none() || state.is_leader(&server.server.id) {
                continue;
            }
            let grace = self.removal_grace(server);
            let id = server.server.id.clone();
            let why = if let Err(refusal) = self.grace(server, grace, 2) {
                Why::Refused(refusal)
            } else if let Some(kind) = state.intended(&id).filter(|kind| *kind != IntentKind::Drain)
            {
                Why::Intended(kind)
            } else if self.config.cleanup_dead_servers {
                let stale = server.health.reasons.contains(Reason::DiscoveryAbsent);
                let list = match (stale, server.role.votes()) {
                    (true, true) => &mut dead.stale_voters,
                    (true, false) => &mut dead.stale_learners,
                    (false, true) => &mut dead.failed_voters,
                    (false, false) => &mut dead.failed_learners,
                };
                list.push(id);
                continue;
            } else {
                Why::CleanupOff
            };
            self.hold(remove(id), Origin::Cleanup, why);
        }
        if dead.iter().next().is_some() {
            self.removals(promoter, dead);
        }
    }

    fn removals(&mut self, promoter: &dyn Promoter, dead: Removals) {
        let kept = promoter.filter_removals(self.config, self.state, dead.clone());
        let before = self.count();
        for id in dead.iter() {
            let Some(server) = self.state.server(id) else { continue };
            let after = Count {
                voters: before.voters - usize::from(server.role == Role::Voter),
                live: before.live - usize::from(server.live && server.role == Role::Voter),
            };
            let step = remove(id.clone());
            if !kept.iter().any(|kept| kept == id) {
                self.hold(step, Origin::Cleanup, Why::PromoterKeeps);
            } else if let Err(refusal) = self.keeps_quorum(before, after, true) {
                self.hold(step, Origin::Cleanup, Why::Refused(refusal));
            } else {
                self.push(step, Origin::Cleanup);
            }
        }
    }

    /// A leader that is cordoned or drained hands over.
    fn drain(&mut self) {
        let local = &self.state.local;
        let drains = self.state.intended(local).is_some() || self.state.cordoned(local).is_some();
        if !drains {
            return;
        }
        match self.best_leader() {
            Some(to) => self.push(Step::Transfer { to }, Origin::Drain),
            None => {
                let to = local.clone();
                self.hold(Step::Transfer { to }, Origin::Drain, Why::NoTarget);
            }
        }
    }

    fn lead(&mut self, wished: Option<ServerId>) {
        let Some(to) = wished.filter(|to| *to != self.state.local) else { return };
        let Some(server) = self.state.server(&to) else { return };
        let (found, expected) = (server.role, Role::Voter);
        let refusal = if found != expected {
            Some(Refusal::WrongRole { server: to.clone(), found, expected })
        } else if let Some(reason) = self.state.cordoned(&to) {
            Some(Refusal::Cordoned { server: to.clone(), reason: reason.to_owned() })
        } else if server.health.verdict == Verdict::Healthy {
            None
        } else {
            let verdict = server.health.verdict;
            Some(Refusal::NotHealthy { server: to.clone(), verdict })
        };
        match refusal {
            None => self.push(Step::Transfer { to }, Origin::Promoter),
            Some(refusal) => {
                self.hold(Step::Transfer { to }, Origin::Promoter, Why::Refused(refusal));
            }
        }
    }

    /// The best other voter that is fit to lead and not waiting after a failed transfer.
    fn best_leader(&self) -> Option<ServerId> {
        let waits = |id: &ServerId| {
            self.state.feedback.as_ref().is_some_and(|feedback| {
                feedback.retries.iter().any(|retry| {
                    retry.until > self.state.at
                        && matches!(&retry.step, Step::Transfer { to } if to == id)
                })
            })
        };
        let fit = |s: &&ServerState| {
            let id = &s.server.id;
            s.role == Role::Voter
                && s.health.verdict == Verdict::Healthy
                && s.live
                && *id != self.state.local
                && self.state.cordoned(id).is_none()
                && self.state.intended(id).is_none()
                && !waits(id)
        };
        let best = self.state.servers.iter().filter(fit).min_by(|a, b| self.state.order(a, b));
        best.map(|server| server.server.id.clone())
    }

    fn count(&self) -> Count {
        let voters = || self.state.servers.iter().filter(|s| s.role == Role::Voter);
        Count { voters: voters().count(), live: voters().filter(|s| s.live).count() }
    }

    /// Says when to look again, and whether anything may be done at all.
    fn finish(mut self) -> Plan {
        let state = self.state;
        let feedback = state.feedback.as_deref();
        let ledger = state.ledger.as_deref();
        self.plan.idle = if let Some(step) = feedback.and_then(|f| f.in_flight.clone()) {
            Some(Why::InFlight(step))
        } else if feedback.is_some_and(|feedback| feedback.observer) {
            Some(Why::Observing)
        } else {
            ledger.and_then(|ledger| ledger.paused.clone()).map(Why::Paused)
        };
        let mut wake = Wake { at: state.at, next: None };
        let mut undecided = feedback.is_some_and(|feedback| feedback.in_flight.is_some());
        for server in state.members() {
            undecided |= self.undecided(server, &mut wake);
        }
        for retry in feedback.map_or(&[][..], |feedback| &feedback.retries) {
            wake.at(retry.until);
        }
        if let Some(ledger) = ledger {
            let now = state.ledger_at;
            let mut ends = |applied_at, ttl: Duration| {
                wake.at(state.at.saturating_add(ttl.saturating_sub(age(applied_at, now))));
            };
            ledger.operations.values().for_each(|o| ends(o.applied_at, o.ttl));
            ledger.intents.values().for_each(|i| ends(i.applied_at, i.ttl));
            let cordons = ledger.cordons.values();
            cordons.filter_map(|c| Some((c, c.ttl?))).for_each(|(c, ttl)| ends(c.applied_at, ttl));
            undecided |= !ledger.operations.is_empty();
        }
        self.plan.wake = wake.next;
        self.plan.undecided = undecided || !self.plan.changes.is_empty();
        self.plan
    }

    /// Whether a server's next verdict is near; names the moments that time alone brings.
    fn undecided(&self, server: &ServerState, wake: &mut Wake) -> bool {
        let config = self.config;
        let stabilization = config.server_stabilization_time;
        match server.health.verdict {
            Verdict::Unknown => true,
            Verdict::Healthy => {
                let Some(since) = server.health.healthy_since else { return false };
                let stable = since.saturating_add(stabilization);
                let waits = !server.role.votes() && !server.server.read_replica;
                if waits {
                    wake.at(stable);
                }
                waits && stable > self.state.at
            }
            Verdict::Unhealthy => {
                let grace = self.removal_grace(server);
                for (_, since) in server.signs.iter() {
                    wake.at(since.saturating_add(config.voter_replacement_grace));
                    wake.at(since.saturating_add(grace));
                    wake.at(since.saturating_add(grace.saturating_mul(2)));
                }
                if let Some(progress) = server.joining {
                    wake.at(progress.saturating_add(config.join_grace));
                }
                self.state.at.saturating_sub(server.health.since) < stabilization
            }
        }
    }
}

/// The earliest moment yet to come.
struct Wake {
    at: Duration,
    next: Option<Duration>,
}

impl Wake {
    fn at(&mut self, moment: Duration) {
        if moment > self.at && self.next.is_none_or(|next| moment < next) {
            self.next = Some(moment);
        }
    }
}

fn remove(id: ServerId) -> Step {
    Step::Remove { servers: vec![id], promote: Vec::new(), add: None }
}
