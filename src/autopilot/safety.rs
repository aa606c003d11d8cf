//! What may never happen: `check` judges one change against the state it was planned from, and trusts no planner.

use std::time::Duration;

use super::{
    cluster::{Change, Fence, NodeStatus, Origin, Role, Server, ServerId, Step},
    config::Config,
    records::{IntentKind, Signs, Verdict},
    refusal::Refusal,
    state::{Reason, ServerState, State},
};

/// Judges one change against the state that it was planned from: the invariants, in one place.
///
/// 1. Planned from what stands, in this term, with nothing else in flight.
/// 2. A quorum of the voters before and after answers; the margin is kept.
/// 3. The leader keeps its vote.
/// 4. No fewer voters than the floor; without a person's word, never fewer than three where no
///    `min_quorum` is set. (A healthy pair may become one: it stands no failure either.)
/// 5. Nobody gains a vote who is not caught up, healthy and stable.
/// 6. Nobody loses a vote or a place for looking sick before the grace, on two signs.
/// 7. Removed ids stay away.
/// 8. Whoever is announced to restart is not taken for dead, and leadership does not go where
///    anything is announced, unless a person orders it.
///
/// Force, a person's word with a reason, waives 4, the time of 5, 6, and the margin of 2.
///
/// # Errors
/// The first broken rule. Nothing was changed.
pub fn check(config: &Config, change: &Change, state: &State) -> Result<(), Refusal> {
    if !state.may_act() {
        return Err(Refusal::NotLeading);
    }
    let judge = Judge { config, state, origin: &change.origin };
    judge.fence(change)?;
    match &change.step {
        Step::FinishJoint => Ok(()),
        Step::Votes { promote, demote } => {
            judge.roles(promote, Role::Learner)?;
            judge.roles(demote, Role::Voter)?;
            judge.membership(promote, demote, false)
        }
        Step::Remove { servers, promote, add } => {
            judge.roles(promote, Role::Learner)?;
            if let Some(new) = add {
                judge.add(new, servers)?;
            }
            judge.membership(promote, servers, true)
        }
        Step::Add(server) => {
            judge.add(server, &[])?;
            judge.membership(&[], &[], false)
        }
        Step::Readdress { server, address } => judge.readdress(server, address),
        Step::Transfer { to } => judge.transfer(to),
    }
}

struct Judge<'a> {
    config: &'a Config,
    state: &'a State,
    origin: &'a Origin,
}

impl<'a> Judge<'a> {
    /// Rule 1.
    fn fence(&self, change: &Change) -> Result<(), Refusal> {
        let Fence { term, leader, membership } = &change.fence;
        let stands = (self.state.leading.map(|leading| leading.term), self.state.membership.log_id);
        if stands != (Some(*term), *membership) || self.state.local != *leader {
            let found = self.state.fence();
            return Err(Refusal::Moved { planned: change.fence.clone(), found });
        }
        let finishes = matches!(change.step, Step::FinishJoint);
        // A leader that the joint membership leaves without a vote hands over before it ends.
        let joint = self.state.membership.joint;
        let leaves = joint && self.role(&self.state.local) == Role::Outgoing;
        let transfers = matches!(change.step, Step::Transfer { .. });
        match (joint, finishes) {
            (true, false) if !(leaves && transfers) => return Err(Refusal::JointUnfinished),
            (true, true) if leaves => return Err(Refusal::LeaderKeepsVote),
            (false, true) => return Err(Refusal::NotJoint),
            (true, _) | (false, false) => {}
        }
        // A joint membership that is not committed yet is still being written by somebody.
        if !self.state.membership.committed {
            return Err(Refusal::ChangeInFlight);
        }
        let named = || change.step.servers();
        if !finishes && named().next().is_none() {
            return Err(Refusal::Empty);
        }
        for (i, name) in named().enumerate().skip(1) {
            if named().take(i).any(|before| before == name) {
                return Err(Refusal::Twice { server: name.clone() });
            }
        }
        Ok(())
    }

    fn roles(&self, servers: &[ServerId], expected: Role) -> Result<(), Refusal> {
        for id in servers {
            let found = self.role(id);
            if found != expected {
                return Err(Refusal::WrongRole { server: id.clone(), found, expected });
            }
        }
        Ok(())
    }

    fn role(&self, id: &ServerId) -> Role {
        self.state.server(id).map_or(Role::Absent, |server| server.role)
    }

    /// Rules 2 to 6 for a change after which `gain` vote and `lose` do not; `leave`: they are
    /// not even members.
    fn membership(&self, gain: &[ServerId], lose: &[ServerId], leave: bool) -> Result<(), Refusal> {
        let mut after = Tally::default();
        for id in gain {
            after.add(self.may_gain(id)?);
        }
        let (mut sick, mut gone) = (0_usize, Tally::default());
        for id in lose {
            if self.state.is_leader(id) || *id == self.state.local {
                return Err(Refusal::LeaderKeepsVote);
            }
            let Some(server) = self.state.server(id).filter(|s| s.role != Role::Absent) else {
                let expected = if leave { Role::Learner } else { Role::Voter };
                let found = Role::Absent;
                return Err(Refusal::WrongRole { server: id.clone(), found, expected });
            };
            // Of those who leave some have no vote.
            if server.role == Role::Voter {
                gone.add(server);
                sick += usize::from(server.health.verdict != Verdict::Healthy);
            }
        }
        let replaced = sick <= gain.len();
        for server in lose.iter().filter_map(|id| self.state.server(id)) {
            self.may_lose(server, leave, replaced)?;
        }
        let mut before = Tally::default();
        self.state.servers.iter().filter(|s| s.role == Role::Voter).for_each(|s| before.add(s));
        // Nobody is named twice, and only learners gain.
        after.voters += before.voters - gone.voters;
        after.live += before.live - gone.live;
        self.count(before, after, sick > 0)
    }

    /// Rule 2, by counting both configurations, and rule 4.
    fn count(&self, before: Tally, after: Tally, sick: bool) -> Result<(), Refusal> {
        for tally in [before, after] {
            if tally.margin() < 0 {
                let (live, voters) = (size(tally.live), size(tally.voters));
                return Err(Refusal::NoQuorum { live, voters });
            }
        }
        if self.origin.is_forced() {
            return Ok(());
        }
        let lowered = after.margin() < before.margin();
        if lowered && after.margin() < i64::from(self.config.min_margin) {
            return Err(Refusal::Margin { before: before.margin(), after: after.margin() });
        }
        let left = size(after.voters);
        let set = self.config.min_quorum as usize;
        // Two voters stand no more failures than one: that loses nothing, where nobody is sick.
        let pair = set == 0 && (before.voters, after.voters, sick) == (2, 1, false);
        let floor = match self.origin {
            Origin::Operator { .. } => set,
            _ if pair => 1,
            Origin::Unfinished | Origin::Promoter | Origin::Cleanup | Origin::Drain => {
                self.config.removal_floor()
            }
        };
        if after.voters < before.voters && left < floor {
            return Err(Refusal::MinQuorum { left, floor });
        }
        Ok(())
    }

    /// Rule 5, and rule 7 for those who never left.
    fn may_gain(&self, id: &ServerId) -> Result<&'a ServerState, Refusal> {
        let server = self.fit(id)?;
        if server.server.read_replica {
            return Err(Refusal::ReadReplica { server: id.clone() });
        }
        let needed = server.stabilization(self.config);
        let healthy_for = server.healthy_for(self.state.at);
        if !self.origin.is_forced() && healthy_for.is_none_or(|age| age < needed) {
            let healthy_for = healthy_for.unwrap_or_default();
            return Err(Refusal::NotStable { server: id.clone(), healthy_for, needed });
        }
        Ok(server)
    }

    /// Whether a server is fit for a vote or for leadership, the time apart.
    fn fit(&self, id: &ServerId) -> Result<&'a ServerState, Refusal> {
        let Some(server) = self.state.server(id).filter(|s| s.role != Role::Absent) else {
            let (found, expected) = (Role::Absent, Role::Learner);
            return Err(Refusal::WrongRole { server: id.clone(), found, expected });
        };
        if self.state.removed_member(server) {
            return Err(Refusal::RemovedId { server: id.clone() });
        }
        let verdict = server.health.verdict;
        if verdict != Verdict::Healthy || !server.live {
            return Err(Refusal::NotHealthy { server: id.clone(), verdict });
        }
        let trails = server.health.reasons.contains(Reason::Trailing) || server.matched.is_none();
        if trails {
            return Err(Refusal::NotCaughtUp { server: id.clone(), lag: server.lag });
        }
        match self.state.cordoned(id) {
            Some(reason) => {
                Err(Refusal::Cordoned { server: id.clone(), reason: reason.to_owned() })
            }
            None => Ok(server),
        }
    }

    /// Rule 6.
    fn may_lose(&self, server: &ServerState, leave: bool, replaced: bool) -> Result<(), Refusal> {
        let id = &server.server.id;
        if self.origin.is_forced() {
            return Ok(());
        }
        let votes = server.role == Role::Voter;
        if self.origin.is_operator() {
            // A person may take any learner out, and any vote; a live vote only by demotion.
            return match (leave && votes, server.live, server.health.verdict) {
                (true, true, _) => Err(Refusal::LiveVoter { server: id.clone() }),
                // Who has only not been heard of yet may be as well as ever.
                (true, false, Verdict::Unknown) => Err(Refusal::NotKnown { server: id.clone() }),
                (true, false, _) | (false, _, _) => Ok(()),
            };
        }
        match server.health.verdict {
            Verdict::Unknown => Err(Refusal::NotKnown { server: id.clone() }),
            Verdict::Healthy if !leave && *self.origin == Origin::Promoter => Ok(()),
            Verdict::Healthy => Err(Refusal::LiveVoter { server: id.clone() }),
            // What still acknowledges is not dead, whatever else is said of it.
            Verdict::Unhealthy if leave && votes && server.live => {
                Err(Refusal::LiveVoter { server: id.clone() })
            }
            Verdict::Unhealthy => {
                if !leave && replaced {
                    self.grace(server, self.config.voter_replacement_grace, 1)?;
                } else {
                    self.grace(server, self.removal_grace(server), 2)?;
                }
                match self.state.intended(id) {
                    Some(kind @ (IntentKind::Reboot | IntentKind::Upgrade)) => {
                        Err(Refusal::Intended { server: id.clone(), kind })
                    }
                    Some(IntentKind::Drain) | None => Ok(()),
                }
            }
        }
    }

    /// The grace for the cause.
    fn removal_grace(&self, server: &ServerState) -> Duration {
        if server.joining.is_some() {
            self.config.join_grace
        } else if server.discovery == Some(NodeStatus::Left) {
            self.config.left_server_grace
        } else {
            self.config.dead_server_last_contact_threshold
        }
    }

    /// Whether `needed` signs have stood for the grace, and the server did not vanish together
    /// with too many others.
    fn grace(&self, server: &ServerState, grace: Duration, needed: usize) -> Result<(), Refusal> {
        let id = &server.server.id;
        let age = |since: Duration| self.state.at.saturating_sub(since);
        let mut begins = begins(&server.signs);
        begins.sort_unstable();
        let signs = begins.iter().filter(|since| **since != NEVER).count();
        if signs < needed {
            return Err(Refusal::TooFewSigns { server: id.clone(), signs });
        }
        let mut passed = age(begins[needed - 1]);
        // Replication heard from it no longer ago than that; of a wiped one that proves nothing.
        if server.signs.shrunk.is_none() && needed > 1 {
            let silent = server.signs.contact.map_or(NEVER, age);
            passed = passed.min(silent).min(server.last_contact.unwrap_or(NEVER));
        }
        let passed = match server.joining {
            // What has just made progress is not dead, however long it has been silent.
            Some(progress) => passed.min(age(progress)),
            None => passed,
        };
        if passed < grace {
            return Err(Refusal::GraceRuns { server: id.clone(), passed, grace });
        }
        let [own, second, ..] = begins;
        if second != NEVER && age(second) >= grace.saturating_mul(2) {
            return Ok(());
        }
        self.together(own, grace)
    }

    /// Refuses while more than a third of the members, and at least two, vanished within one
    /// grace of `own`.
    fn together(&self, own: Duration, grace: Duration) -> Result<(), Refusal> {
        let begin = |s: &ServerState| begins(&s.signs).into_iter().min().unwrap_or(NEVER);
        let near = |s: &&ServerState| {
            let other = begin(s);
            other != NEVER && other.abs_diff(own) <= grace
        };
        let members = self.state.members().count();
        let vanished = self.state.members().filter(near).count();
        if vanished >= 2 && vanished * 3 > members {
            return Err(Refusal::VanishedTogether { vanished, members });
        }
        Ok(())
    }

    /// A new server: its id is new, and its address is nobody's who stays.
    fn add(&self, server: &Server, leaving: &[ServerId]) -> Result<(), Refusal> {
        let found = self.role(&server.id);
        if found != Role::Absent {
            let expected = Role::Absent;
            return Err(Refusal::WrongRole { server: server.id.clone(), found, expected });
        }
        if self.state.removed(&server.id) {
            return Err(Refusal::RemovedId { server: server.id.clone() });
        }
        self.address_free(&server.address, &server.id, leaving)
    }

    fn readdress(&self, id: &ServerId, address: &str) -> Result<(), Refusal> {
        let found = self.role(id);
        if found == Role::Absent {
            let expected = Role::Voter;
            return Err(Refusal::WrongRole { server: id.clone(), found, expected });
        }
        self.address_free(address, id, &[])?;
        self.membership(&[], &[], false)
    }

    fn address_free(
        &self,
        address: &str,
        id: &ServerId,
        leaving: &[ServerId],
    ) -> Result<(), Refusal> {
        let taken = self.state.members().find(|other| {
            !address.is_empty()
                && other.server.address == address
                && other.server.id != *id
                && !leaving.contains(&other.server.id)
        });
        match taken {
            Some(other) => Err(Refusal::AddressInUse {
                server: other.server.id.clone(),
                address: address.to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn transfer(&self, to: &ServerId) -> Result<(), Refusal> {
        let found = self.role(to);
        let stays =
            found == Role::Voter || (self.state.membership.joint && found == Role::Incoming);
        if !stays || *to == self.state.local {
            let expected = Role::Voter;
            return Err(Refusal::WrongRole { server: to.clone(), found, expected });
        }
        if let Some(kind) = self.state.intended(to).filter(|_| !self.origin.is_operator()) {
            return Err(Refusal::Intended { server: to.clone(), kind });
        }
        self.fit(to).map(drop)
    }
}

/// Voters, and those of them that answer.
#[derive(Clone, Copy, Default)]
struct Tally {
    voters: i64,
    live: i64,
}

impl Tally {
    fn add(&mut self, voter: &ServerState) {
        self.voters += 1;
        self.live += i64::from(voter.live);
    }

    /// Live voters beyond the quorum; negative below it.
    fn margin(self) -> i64 {
        self.live - (self.voters / 2 + 1)
    }
}

/// The beginning of a sign that does not stand.
const NEVER: Duration = Duration::MAX;

/// Since when each independent sign has stood. Counted here, not by what the plan counts with. A
/// boot id and a log come from the same answers: one sign.
fn begins(signs: &Signs) -> [Duration; 4] {
    let reborn = signs.shrunk.or(signs.identity);
    [signs.contact, signs.probe, signs.discovery, reborn].map(|since| since.unwrap_or(NEVER))
}

fn size(n: i64) -> usize {
    usize::try_from(n).unwrap_or_default()
}
