//! What to do next: `plan` turns wishes, orders and dead servers into ordered steps, and says what is held and why.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    cluster::{Change, Origin, Role, ServerId, Step},
    config::Config,
    orders,
    promoter::{Promoter, Removals},
    records::{Begins, IntentKind, Verdict, age},
    refusal::Refusal,
    state::{Reason, ServerState, State},
    wake::{self, removal_grace},
    why::{Held, Why},
};

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
    if !state.may_act() {
        plan.idle = Some(Why::NotLeading);
        return plan;
    }
    if !state.membership.committed {
        plan.idle = Some(Why::Uncommitted);
        plan.undecided = true;
        return plan;
    }
    let mut planner = Planner { config, state, plan };
    if state.membership.joint {
        // A leader that would lose its vote with it hands over first.
        if state.server(&state.local).is_some_and(|s| s.role == Role::Outgoing) {
            planner.hand_over(Origin::Unfinished);
        } else {
            planner.push(Step::FinishJoint, Origin::Unfinished);
        }
    } else {
        planner.orders();
        // A host may let a leader lead on that lost its vote; it should not.
        if state.server(&state.local).is_none_or(|s| s.role != Role::Voter) {
            planner.hand_over(Origin::Unfinished);
        }
        let wishes = promoter.wishes(config, state);
        if !(wishes.promote.is_empty() && wishes.demote.is_empty()) {
            planner.votes(wishes.promote, &wishes.demote);
        }
        planner.cleanup(promoter);
        planner.drain();
        planner.lead(wishes.leader);
    }
    planner.finish(promoter)
}

struct Planner<'a> {
    config: &'a Config,
    state: &'a State,
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

    /// The same without one of the voters.
    fn without(self, voter: &ServerState) -> Self {
        Self { voters: self.voters - 1, live: self.live - usize::from(voter.live) }
    }
}

impl<'a> Planner<'a> {
    /// Adds a step, unless it has failed and waits.
    fn push(&mut self, step: Step, origin: Origin) {
        let feedback = self.state.feedback.as_ref();
        let retry = feedback.and_then(|feedback| {
            feedback.retries.iter().find(|retry| retry.step == step && retry.until > self.state.at)
        });
        if let Some(retry) = retry {
            let why = Why::BackingOff {
                failures: retry.failures,
                until: retry.until,
                error: retry.error.clone(),
            };
            self.hold(step, origin, why);
        } else if let Some(fence) = self.state.fence() {
            self.plan.changes.push(Change { step, fence, origin });
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
                orders::Next::Member(server) => {
                    let why = Why::Refused(Refusal::NotMember { server: server.clone() });
                    self.hold(remove(server), origin, why);
                }
                orders::Next::NoTarget => {
                    let to = self.state.local.clone();
                    self.hold(Step::Transfer { to }, origin, Why::NoTarget);
                }
            }
        }
    }

    /// Votes: gained and lost in one joint change; then, as a step of their own, those of the
    /// dead for whom there is no replacement.
    fn votes(&mut self, promote: Vec<ServerId>, demote: &[ServerId]) {
        let mut promote = self.gainers(promote);
        let losers = self.losers(demote);
        let (dead, well): (Vec<&ServerState>, Vec<&ServerState>) =
            losers.into_iter().partition(|s| s.health.verdict != Verdict::Healthy);
        let mut swapped: Vec<&ServerState> = Vec::new();
        let mut alone: Vec<&ServerState> = Vec::new();
        for server in dead {
            if swapped.len() == promote.len() {
                alone.push(server);
            } else if let Err(refusal) =
                self.may_lose(server, self.config.voter_replacement_grace, 1)
            {
                self.hold_votes(&[], &[server], refusal.clone());
                // The vote that was to take its place waits with it; else the voters would
                // become more than was wished.
                if let Some(waits) = promote.pop().and_then(|id| self.state.server(&id)) {
                    self.hold_votes(&[waits], &[], refusal);
                }
            } else {
                swapped.push(server);
            }
        }
        let before = self.count();
        let live = before.live + promote.len() - swapped.iter().filter(|s| s.live).count();
        let mut after = Count { voters: before.voters + promote.len() - swapped.len(), live };
        let mut demote = swapped;
        for server in well {
            let without = after.without(server);
            match self.keeps_quorum(before, without, true) {
                Ok(()) => {
                    after = without;
                    demote.push(server);
                }
                Err(refusal) => self.hold_votes(&[], &[server], refusal),
            }
        }
        let moves = !promote.is_empty() || !demote.is_empty();
        if moves {
            // The same change is the same step, in whatever order it is wished.
            promote.sort_unstable();
            demote.sort_unstable_by(|a, b| a.server.id.cmp(&b.server.id));
            self.push(Step::Votes { promote, demote: ids(&demote) }, Origin::Promoter);
        }
        self.unreplaced(&alone);
    }

    /// Dead voters that nobody takes the place of go one by one, after the whole grace.
    fn unreplaced(&mut self, dead: &[&ServerState]) {
        let before = self.count();
        for server in dead {
            let refusal = self
                .may_lose(server, removal_grace(self.config, server), 2)
                .and_then(|()| self.keeps_quorum(before, before.without(server), false));
            match refusal {
                Ok(()) => {
                    let step = Step::Votes { promote: Vec::new(), demote: ids(&[server]) };
                    self.push(step, Origin::Promoter);
                }
                Err(refusal) => self.hold_votes(&[], &[server], refusal),
            }
        }
    }

    fn hold_votes(&mut self, promote: &[&ServerState], demote: &[&ServerState], why: Refusal) {
        let step = Step::Votes { promote: ids(promote), demote: ids(demote) };
        self.hold(step, Origin::Promoter, Why::Refused(why));
    }

    /// The voters among those who should lose their vote, without the leader.
    fn losers(&mut self, wished: &[ServerId]) -> Vec<&'a ServerState> {
        let state = self.state;
        let mut losers: Vec<&ServerState> = Vec::new();
        for server in wished.iter().filter_map(|id| state.server(id)) {
            let id = &server.server.id;
            if server.role != Role::Voter || losers.iter().any(|s| s.server.id == *id) {
                continue;
            }
            if state.is_leader(id) || *id == state.local {
                self.hold_votes(&[], &[server], Refusal::LeaderKeepsVote);
            } else {
                losers.push(server);
            }
        }
        losers
    }

    /// The wished-for learners that may vote now; the others are held.
    fn gainers(&mut self, mut wished: Vec<ServerId>) -> Vec<ServerId> {
        let mut kept = 0;
        for i in 0..wished.len() {
            let Some(server) = self.state.server(&wished[i]) else { continue };
            let again = wished[..kept].contains(&wished[i]);
            // What an order has demoted on its way out is not promoted before its next step.
            if server.role != Role::Learner || again || orders::leaves(self.state, &wished[i]) {
                continue;
            }
            if let Some(refusal) = self.unfit(server) {
                self.hold_votes(&[server], &[], refusal);
            } else {
                wished.swap(kept, i);
                kept += 1;
            }
        }
        wished.truncate(kept);
        wished
    }

    /// Why a learner may not vote yet.
    fn unfit(&self, server: &ServerState) -> Option<Refusal> {
        let id = || server.server.id.clone();
        let needed = server.stabilization(self.config);
        let healthy_for = server.healthy_for(self.state.at).unwrap_or_default();
        if server.server.read_replica {
            Some(Refusal::ReadReplica { server: id() })
        } else if self.state.removed_member(server) {
            Some(Refusal::RemovedId { server: id() })
        } else if let Some(reason) = self.state.cordoned(&server.server.id) {
            Some(Refusal::Cordoned { server: id(), reason: reason.to_owned() })
        } else if server.health.verdict != Verdict::Healthy {
            Some(Refusal::NotHealthy { server: id(), verdict: server.health.verdict })
        } else if healthy_for < needed {
            Some(Refusal::NotStable { server: id(), healthy_for, needed })
        } else if server.matched.is_none() {
            Some(Refusal::NotCaughtUp { server: id(), lag: server.lag })
        } else {
            None
        }
    }

    /// Whether a voter that is not healthy may lose its vote for that: it may be taken for dead,
    /// and nobody has announced that it restarts.
    fn may_lose(&self, server: &ServerState, grace: Duration, signs: usize) -> Result<(), Refusal> {
        self.may_go(server, grace, signs)?;
        let id = &server.server.id;
        match self.state.intended(id).filter(|kind| *kind != IntentKind::Drain) {
            Some(kind) => Err(Refusal::Intended { server: id.clone(), kind }),
            None => Ok(()),
        }
    }

    /// Whether a server that is not healthy may be taken for dead: its grace has passed, and it
    /// did not vanish together with too many others.
    fn may_go(&self, server: &ServerState, grace: Duration, signs: usize) -> Result<(), Refusal> {
        if server.health.verdict == Verdict::Unknown {
            return Err(Refusal::NotKnown { server: server.server.id.clone() });
        }
        let begins = server.signs.begins();
        self.grace(server, begins, grace, signs)?;
        self.alone(begins, grace)
    }

    /// Whether a server vanished alone. Where a third of the members and more went silent within
    /// one grace it is rather the observer that is cut off, until twice the grace has passed.
    fn alone(&self, begins: Begins, grace: Duration) -> Result<(), Refusal> {
        let long = self.state.at.saturating_sub(begins.second).saturating_sub(grace);
        if begins.count == 0 || (begins.count > 1 && long >= grace) {
            return Ok(());
        }
        let (mut members, mut vanished) = (0, 0);
        for other in self.state.members() {
            members += 1;
            let begin = other.signs.first();
            let together = begin.is_some_and(|begin| begin.abs_diff(begins.first) <= grace);
            vanished += usize::from(together);
        }
        if vanished > 1 && vanished > members / 3 {
            return Err(Refusal::VanishedTogether { vanished, members });
        }
        Ok(())
    }

    fn keeps_quorum(&self, before: Count, after: Count, well: bool) -> Result<(), Refusal> {
        let no_quorum = |c: Count| Refusal::NoQuorum { live: c.live, voters: c.voters };
        let old = before.margin().ok_or_else(|| no_quorum(before))?;
        let margin = after.margin().ok_or_else(|| no_quorum(after))?;
        if margin < old && margin < self.config.min_margin as usize {
            let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            return Err(Refusal::Margin { before: signed(old), after: signed(margin) });
        }
        let floor = self.config.removal_floor();
        // One stands as many failures as two do.
        let halves = self.config.min_quorum == 0 && well && before.voters == 2;
        if after.voters < before.voters && after.voters < floor && !halves {
            return Err(Refusal::MinQuorum { left: after.voters, floor });
        }
        Ok(())
    }

    /// Whether so many signs have stood for the grace.
    fn grace(
        &self,
        server: &ServerState,
        begins: Begins,
        grace: Duration,
        needed: usize,
    ) -> Result<(), Refusal> {
        let id = || server.server.id.clone();
        if begins.count < needed {
            return Err(Refusal::TooFewSigns { server: id(), signs: begins.count });
        }
        let heard = || self.heard(server);
        let begin = if needed > 1 { begins.second.max(heard()) } else { begins.first };
        // A joining server that has just made progress is not dead, however silent it is.
        let begin = server.joining.map_or(begin, |progress| begin.max(progress));
        let passed = self.state.at.saturating_sub(begin);
        if passed < grace {
            return Err(Refusal::GraceRuns { server: id(), passed, grace });
        }
        Ok(())
    }

    /// When replication heard from a server last: it was alive then, whatever else is silent. One
    /// that is wiped may be heard of, and is of no use.
    fn heard(&self, server: &ServerState) -> Duration {
        if server.signs.shrunk.is_some() {
            return Duration::ZERO;
        }
        let heard = server.last_contact.map(|age| self.state.at.saturating_sub(age));
        heard.max(server.signs.contact).unwrap_or_default()
    }

    /// Dead servers, those without a vote first.
    fn cleanup(&mut self, promoter: &dyn Promoter) {
        let state = self.state;
        let mut dead = Removals::default();
        for server in state.members() {
            let sick = server.health.verdict == Verdict::Unhealthy;
            if !sick || !server.signs.any() || state.is_leader(&server.server.id) {
                continue;
            }
            let grace = removal_grace(self.config, server);
            let id = server.server.id.clone();
            let why = if let Err(refusal) = self.may_go(server, grace, 2) {
                Why::Refused(refusal)
            } else if let Some(kind) = state.intended(&id).filter(|kind| *kind != IntentKind::Drain)
            {
                Why::Intended(kind)
            } else if self.config.cleanup_dead_servers {
                let absent = server.health.reasons.contains(Reason::DiscoveryAbsent);
                let list = match (absent, server.role.votes()) {
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
        let kept = promoter.keeps(self.config, self.state, &dead);
        let before = self.count();
        for mut list in dead.lists() {
            let Some(last) = list.len().checked_sub(1) else { continue };
            for id in list.drain(..last) {
                self.removal(vec![id], &kept, before);
            }
            // Mostly it is the only one: its step takes the list, and nothing is allocated.
            self.removal(list, &kept, before);
        }
    }

    /// Removes one dead server, the only one of the list.
    fn removal(&mut self, dead: Vec<ServerId>, kept: &[ServerId], before: Count) {
        let Some(server) = dead.first().and_then(|id| self.state.server(id)) else { return };
        let votes = server.role == Role::Voter;
        let after = if votes { before.without(server) } else { before };
        let is_kept = kept.contains(&server.server.id);
        let step = Step::Remove { servers: dead, promote: Vec::new(), add: None };
        if is_kept {
            self.hold(step, Origin::Cleanup, Why::PromoterKeeps);
        } else if let Err(refusal) = self.keeps_quorum(before, after, false) {
            self.hold(step, Origin::Cleanup, Why::Refused(refusal));
        } else {
            self.push(step, Origin::Cleanup);
        }
    }

    /// A leader that is cordoned or drained hands over.
    fn drain(&mut self) {
        let local = &self.state.local;
        if self.state.intended(local).is_some() || self.state.cordoned(local).is_some() {
            self.hand_over(Origin::Drain);
        }
    }

    fn hand_over(&mut self, origin: Origin) {
        if let Some(to) = self.best_leader() {
            self.push(Step::Transfer { to }, origin);
        } else {
            let to = self.state.local.clone();
            self.hold(Step::Transfer { to }, origin, Why::NoTarget);
        }
    }

    fn lead(&mut self, wished: Option<ServerId>) {
        let Some(to) = wished.filter(|to| *to != self.state.local) else { return };
        let Some(server) = self.state.server(&to) else { return };
        let (found, expected) = (server.role, Role::Voter);
        let why = if found != expected {
            Some(Why::Refused(Refusal::WrongRole { server: to.clone(), found, expected }))
        } else if let Some(reason) = self.state.cordoned(&to) {
            let reason = reason.to_owned();
            Some(Why::Refused(Refusal::Cordoned { server: to.clone(), reason }))
        } else if let Some(kind) = self.state.intended(&to) {
            Some(Why::Intended(kind))
        } else if server.health.verdict == Verdict::Healthy {
            None
        } else {
            let verdict = server.health.verdict;
            Some(Why::Refused(Refusal::NotHealthy { server: to.clone(), verdict }))
        };
        match why {
            None => self.push(Step::Transfer { to }, Origin::Promoter),
            Some(why) => self.hold(Step::Transfer { to }, Origin::Promoter, why),
        }
    }

    /// The best other voter that is fit to lead and not waiting after a failed transfer; one that
    /// gains its vote with a joint membership only where there is no other.
    fn best_leader(&self) -> Option<ServerId> {
        let fit = |s: &&ServerState| {
            let id = &s.server.id;
            matches!(s.role, Role::Voter | Role::Incoming)
                && s.health.verdict == Verdict::Healthy
                && s.live
                && s.matched.is_some()
                && *id != self.state.local
                && self.state.cordoned(id).is_none()
                && self.state.intended(id).is_none()
                && !self.state.refused_leadership(id)
        };
        let gains = |s: &ServerState| s.role == Role::Incoming;
        let best = self.state.servers.iter().filter(fit);
        let best = best.min_by(|a, b| gains(a).cmp(&gains(b)).then_with(|| self.state.order(a, b)));
        best.map(|server| server.server.id.clone())
    }

    fn count(&self) -> Count {
        let mut count = Count { voters: 0, live: 0 };
        for voter in self.state.servers.iter().filter(|s| s.role == Role::Voter) {
            count.voters += 1;
            count.live += usize::from(voter.live);
        }
        count
    }

    /// Whether anything may be done at all, and when to look again.
    fn finish(mut self, promoter: &dyn Promoter) -> Plan {
        let feedback = self.state.feedback.as_deref();
        let ledger = self.state.ledger.as_deref();
        self.plan.idle = if let Some(step) = feedback.and_then(|f| f.in_flight.clone()) {
            Some(Why::InFlight(step))
        } else if feedback.is_some_and(|feedback| feedback.observer) {
            Some(Why::Observing)
        } else {
            ledger.and_then(|ledger| ledger.paused.clone()).map(Why::Paused)
        };
        // While it idles no step is taken, and looking more often would change nothing.
        let idles = matches!(self.plan.idle, Some(Why::Paused(_) | Why::Observing));
        let next = wake::next(self.config, self.state);
        let own = promoter.wake(self.config, self.state).filter(|at| *at > self.state.at);
        self.plan.wake = [next.at, own].into_iter().flatten().min();
        self.plan.undecided = next.undecided || !(idles || self.plan.changes.is_empty());
        self.plan
    }
}

fn ids(servers: &[&ServerState]) -> Vec<ServerId> {
    servers.iter().map(|server| server.server.id.clone()).collect()
}

fn remove(id: ServerId) -> Step {
    Step::Remove { servers: vec![id], promote: Vec::new(), add: None }
}
