//! Upgrade migration: votes and leadership move to servers on a new version, and back if those fail.

use std::collections::BTreeSet;

use semver::Version;

use super::{
    electorate::{Ballot, Candidate, Electorate, Standing, wishes},
    version,
    wrapper::Wrapper,
};
use crate::autopilot::{
    Config, Policy, Role, ServerExt, ServerId, ServerState, State, StateExt, UpgradeInfo,
    UpgradeStatus, Verdict, Versions, Wishes, parse_version,
};

/// Adds upgrade migration to another policy.
///
/// New servers on a higher version stand by until there are enough of them for the inner policy
/// to fill every seat, in as many zones. Then they get the votes of the old ones in one change,
/// leadership moves to one of them, and the old leader gives up its vote. The old servers stay,
/// without votes, until somebody removes them. Nothing of this is stored: it is a function of the
/// state, so that any leader goes on with it.
///
/// - The **target** is the highest version that enough servers run to take over; while there is
///   none, the highest of all. A server on a version that nobody votes with is a canary: it gets
///   no vote, and the others replace each other as ever. With
///   [`Config::upgrade_target_version`] the target is that one, higher or lower.
/// - **Roll-back**: if new voters are lost before leadership has moved and the old servers would
///   make the better cluster, the votes go back to those.
/// - **Abort**: set `upgrade_target_version` to the version that is to stay, or
///   `disable_upgrade_migration` to leave the votes as they are.
/// - A voter whose **version is not known** is never demoted, and nothing migrates beside it.
/// - A lost voter that no server of the right version follows is followed by one of another, yet
///   never by one that is newer than every voter. So the votes of new servers that fail one after
///   another return to the old ones, while those are there.
/// - **Restarting in place** is no migration: a vote is not taken from an old server while the
///   new ones alone would not fill the seats.
///
/// A version is the tag that [`Config::upgrade_version_tag`] names, or the server's own where
/// that is empty: `X`, `X.Y`, `X.Y.Z` or a full semantic version. Pre-releases come before their
/// release; build metadata makes no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upgrade<E> {
    inner: E,
}

/// What is to be done now.
struct Migration {
    status: UpgradeStatus,
    target: Option<Version>,
    elected: Vec<ServerId>,
    /// How many may follow those who are lost.
    reserve: usize,
    waits: Option<String>,
}

impl<E: Electorate> Upgrade<E> {
    /// Adds upgrade migration to `inner`.
    pub fn new(inner: E) -> Self {
        Self { inner }
    }

    fn migration(&self, ballot: &Ballot<'_>) -> Migration {
        let config = ballot.config;
        let plain = |status| {
            let (elected, reserve) = (self.inner.elect(ballot), self.inner.reserve(ballot));
            Migration { status, target: None, elected, reserve, waits: None }
        };
        if config.disable_upgrade_migration {
            return plain(UpgradeStatus::Disabled);
        }
        let (known, unknown): (Vec<_>, Vec<_>) = ballot
            .state
            .members()
            .map(|server| (server, version::of(config, server)))
            .partition(|(_, version)| version.is_some());
        let versions: BTreeSet<Version> = known.into_iter().filter_map(|(_, v)| v).collect();
        let Some(highest) = versions.last().cloned() else {
            return plain(UpgradeStatus::Idle);
        };
        let wanted = config.upgrade_target_version.as_str();
        let (target, explicit) = match (wanted, parse_version(wanted)) {
            ("", _) => (highest, false),
            (_, Some(wanted)) => (wanted, true),
            (text, None) => {
                let problem = format!("upgrade_target_version is no version: {text}");
                return Course::new(self, ballot, highest, true).waits(problem);
            }
        };
        let blocked = unknown.iter().find(|(server, _)| server.role.votes());
        if let Some((server, _)) = blocked {
            let problem = format!("the version of {} is not known", server.server.id);
            return Course::new(self, ballot, target, explicit).waits(problem);
        }
        if explicit {
            return Course::new(self, ballot, target, true).take();
        }
        let courses = versions.into_iter().rev().map(|v| Course::new(self, ballot, v, false));
        let mut courses: Vec<Course<E>> = courses.collect();
        let open = courses.iter().position(|c| c.leaves_lower() && c.missing().is_none());
        courses.swap_remove(open.unwrap_or(0)).take()
    }
}

/// One version that the votes may go to.
struct Course<'a, E> {
    inner: &'a E,
    ballot: &'a Ballot<'a>,
    target: Version,
    /// Voters on the target.
    new: Vec<&'a ServerState>,
    /// Voters that are to be replaced: on lower versions, or on any where the target was named.
    old: Vec<&'a ServerState>,
    /// Voters that are left alone: on higher versions, or on one that is not known.
    kept: Vec<&'a ServerState>,
    /// The leader is on the target.
    led: bool,
    /// The newest version that votes.
    newest: Option<Version>,
}

impl<'a, E: Electorate> Course<'a, E> {
    fn new(
        upgrade: &'a Upgrade<E>,
        ballot: &'a Ballot<'a>,
        target: Version,
        explicit: bool,
    ) -> Self {
        let (mut new, mut old, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for server in ballot.state.voters() {
            match version::of(ballot.config, server) {
                Some(version) if version == target => new.push(server),
                Some(version) if version < target || explicit => old.push(server),
                _ => kept.push(server),
            }
        }
        let led = new.iter().any(|s| ballot.state.is_leader(&s.server.id));
        let voters = ballot.state.voters();
        let newest = voters.filter_map(|s| version::of(ballot.config, s)).max();
        Self { inner: &upgrade.inner, ballot, target, new, old, kept, led, newest }
    }

    /// Leadership has moved together with the votes; one new server that happens to lead is not it.
    fn moved(&self) -> bool {
        self.led && self.new.len() >= self.old.len()
    }

    fn version(&self, candidate: &Candidate<'_>) -> Option<Version> {
        version::of(self.ballot.config, candidate.server)
    }

    fn is_new(&self, candidate: &Candidate<'_>) -> bool {
        self.version(candidate).as_ref() == Some(&self.target)
    }

    /// Whether voters on lower versions are left.
    fn leaves_lower(&self) -> bool {
        self.old.iter().any(|s| version::of(self.ballot.config, s) < Some(self.target.clone()))
    }

    /// Whether a candidate that does not vote is on a version that the old voters have.
    fn is_old_reserve(&self, candidate: &Candidate<'_>) -> bool {
        let own = self.version(candidate);
        let same = |s: &&ServerState| version::of(self.ballot.config, s) == own;
        candidate.standing == Standing::Ready && own.is_some() && self.old.iter().any(same)
    }

    /// Whether a candidate may vote where nobody else can.
    fn is_last_resort(&self, candidate: &Candidate<'_>) -> bool {
        let known = self.version(candidate).filter(|own| Some(own) <= self.newest.as_ref());
        known.is_some() && !self.inner.is_unlimited()
    }

    /// Who would vote of some; in the place of the lost, whom none of those follows, others.
    fn elect_or_older(&self, some: impl Fn(&Candidate) -> bool) -> Vec<ServerId> {
        let elected = self.inner.elect(&self.ballot.only(&some));
        let fit = self.worth(&elected).0;
        if fit == elected.len() {
            return elected;
        }
        // As many of them as are lost, and those that the policy would choose.
        let wider = self.ballot.only(|c| some(c) || self.is_last_resort(c));
        let mut chosen = self.inner.elect(&wider);
        chosen.retain(|id| !self.ballot.candidates.iter().any(|c| c.id() == id && some(c)));
        chosen.truncate(elected.len() - fit);
        let swapped = self.inner.elect(&self.ballot.only(|c| some(c) || chosen.contains(c.id())));
        let better = swapped.len() <= elected.len() && self.worth(&swapped).0 > fit;
        if better { swapped } else { elected }
    }

    /// How many could follow the elected that are lost: some, and whoever is a last resort, where
    /// the policy would not have those vote beside the others.
    fn reserve(&self, elected: &[ServerId], some: impl Fn(&Candidate) -> bool) -> usize {
        let follows = |c: &&Candidate| c.is_fit() && !elected.contains(c.id());
        let own = self.ballot.only(&some);
        let other = |c: &Candidate| !some(c) && self.is_last_resort(c);
        let one = self.ballot.candidates.iter().find(|c| follows(c) && other(c)).map(Candidate::id);
        let with_one = self.ballot.only(|c| some(c) || Some(c.id()) == one);
        let grows = self.inner.elect(&with_one).len() > self.inner.elect(&own).len();
        let pool = self.ballot.only(|c| some(c) || (!grows && other(c)));
        pool.candidates.iter().filter(follows).count().min(self.inner.reserve(&pool))
    }

    /// Who would vote if only the new ones could.
    fn elect_new(&self) -> Vec<ServerId> {
        self.inner.elect(&self.ballot.only(|c| self.is_new(c)))
    }

    /// Who would vote if only the old ones could.
    fn elect_old(&self) -> Vec<ServerId> {
        let votes = |c: &Candidate| self.old.iter().any(|s| s.server.id == *c.id());
        self.inner.elect(&self.ballot.only(|c| votes(c) || self.is_old_reserve(c)))
    }

    /// Seats, and domains of failure, that servers fill which would serve well.
    fn worth(&self, elected: &[ServerId]) -> (usize, usize) {
        let fit = self.ballot.fit(elected);
        (fit.len(), self.inner.spread(self.ballot, &fit))
    }

    /// What the new servers must be worth to take over: as much as everybody together, or as
    /// the old servers where those set the number of votes.
    fn needed(&self) -> (usize, usize) {
        let reserve = self.ballot.candidates.iter().filter(|c| self.is_old_reserve(c)).count();
        if self.inner.is_unlimited() {
            let seats = self.seats(reserve);
            return (seats, seats);
        }
        let may = |c: &Candidate| {
            c.standing != Standing::Ready || self.is_new(c) || self.is_old_reserve(c)
        };
        let (mut seats, spread) = self.worth(&self.inner.elect(&self.ballot.only(may)));
        if reserve > 0 || self.new.is_empty() {
            seats = seats.min(self.old.len() + reserve);
        }
        // The last of an even number of seats is worth nothing.
        seats = if seats > 2 { seats - 1 + seats % 2 } else { seats };
        (seats, spread.min(seats))
    }

    /// How many new servers stand for the old ones, where everybody votes. While no old one
    /// stands by, old and new voters may be one cluster that is being restarted in place.
    fn seats(&self, reserve: usize) -> usize {
        let (new, mut old) = (self.new.len(), self.old.len());
        if new >= old {
            // Behind a majority of new voters nobody waits for the sick ones among the old.
            let well = |s: &&&ServerState| s.health.verdict == Verdict::Healthy;
            old = self.old.iter().filter(well).count();
        }
        let whole = |c: &Candidate| c.is_fit() || !self.is_new(c);
        match (new, old) {
            (3.., 0..=1) if self.ballot.candidates.iter().all(whole) => new,
            _ if reserve > 0 => old + reserve,
            (3.., 0..=1) => new,
            _ if new == old => new,
            _ => new + old,
        }
    }

    /// What is missing before the new servers may take over, in words.
    fn missing(&self) -> Option<String> {
        let (found, needed) = (self.worth(&self.elect_new()), self.needed());
        let (target, spread) = (&self.target, found.1);
        if found.0 < needed.0.max(1) {
            return Some(format!("{} of {} voters could run {target}", found.0, needed.0.max(1)));
        }
        let short = spread < needed.1;
        short.then(|| format!("voters on {target} would be in {spread} of {} zones", needed.1))
    }

    fn take(self) -> Migration {
        if self.old.is_empty() {
            return self.migrated();
        }
        if let Some(missing) = self.missing() {
            return self.waits(missing);
        }
        let mut elected = self.elect_new();
        let floor = self.ballot.config.removal_floor();
        let (stay, old) = (self.new.len() + self.kept.len(), self.old.len());
        let pair = self.ballot.config.min_quorum == 0 && (stay, old) == (1, 1);
        let few = elected.len() + self.kept.len() < floor && stay + old <= floor;
        if self.led && few && !pair {
            return self.last_old(floor);
        }
        let votes = |id: &ServerId| self.new.iter().any(|s| s.server.id == *id);
        let leads = |s: &&ServerState| self.ballot.state.is_leader(&s.server.id);
        let status = if self.led {
            UpgradeStatus::Demoting
        } else if !elected.iter().all(votes) {
            UpgradeStatus::Promoting
        } else if self.old.iter().all(leads) {
            UpgradeStatus::LeaderTransfer
        } else {
            UpgradeStatus::Demoting
        };
        elected.extend(self.kept.iter().map(|s| s.server.id.clone()));
        let reserve = self.reserve(&elected, |c| self.is_new(c));
        Migration { status, target: Some(self.target), elected, reserve, waits: None }
    }

    /// The votes have moved, and some of the old ones stay: without them there were too few.
    fn last_old(self, floor: usize) -> Migration {
        let ids: Vec<&str> = self.old.iter().map(|s| s.server.id.as_str()).collect();
        let few = format!("without {} fewer than {floor} would vote", ids.join(", "));
        let some = |c: &Candidate| c.standing != Standing::Ready || self.is_new(c);
        let mut elected = self.elect_or_older(some);
        for candidate in self.ballot.candidates.iter().filter(|c| c.standing == Standing::Holds) {
            if !elected.contains(candidate.id()) {
                elected.push(candidate.id().clone());
            }
        }
        let reserve = self.reserve(&elected, some);
        let status = UpgradeStatus::AwaitServerRemoval;
        Migration { status, target: Some(self.target), elected, reserve, waits: Some(few) }
    }

    /// No vote is left to move.
    fn migrated(self) -> Migration {
        let some = |c: &Candidate| c.standing != Standing::Ready || self.is_new(c);
        let elected = self.elect_or_older(some);
        let reserve = self.reserve(&elected, some);
        let (mut new, mut others, mut replicas) = (0, 0, 0);
        for server in self.ballot.state.members() {
            let Some(version) = version::of(self.ballot.config, server) else { continue };
            match (version == self.target, server.server.read_replica) {
                (true, false) => new += 1,
                (false, false) => others += 1,
                (false, true) => replicas += 1,
                (true, true) => {}
            }
        }
        let status = match (new, others) {
            (_, 0) if replicas == 0 => UpgradeStatus::Idle,
            (new, others) if new < others => UpgradeStatus::AwaitNewServers,
            _ => UpgradeStatus::AwaitServerRemoval,
        };
        Migration { status, target: Some(self.target), elected, reserve, waits: None }
    }

    /// The votes stay with those who have them, or return to the old servers.
    fn waits(self, waits: String) -> Migration {
        let lost = |c: &Candidate| c.standing == Standing::Lost && self.is_new(c);
        let (new, old) = (self.elect_new(), self.elect_old());
        let (new, old) = (self.worth(&new), (self.worth(&old), old));
        let better = old.0.0 >= new.0 && old.0.1 >= new.1 && old.0 != new;
        let back = !self.led && better && self.ballot.candidates.iter().any(lost);
        let (led, moved) = (self.led, self.moved());
        let some = |c: &Candidate| {
            c.standing != Standing::Ready
                || (led && self.is_new(c))
                || (!moved && self.is_old_reserve(c))
        };
        let mut elected = if back { old.1 } else { self.elect_or_older(some) };
        for server in &self.kept {
            if !elected.contains(&server.server.id) {
                elected.push(server.server.id.clone());
            }
        }
        let reserve = self.reserve(&elected, some);
        let status =
            if moved { UpgradeStatus::AwaitNewServers } else { UpgradeStatus::AwaitNewVoters };
        let waits = if back { format!("rolled back: {waits}") } else { waits };
        Migration { status, target: Some(self.target), elected, reserve, waits: Some(waits) }
    }
}

impl<E: Electorate> Electorate for Upgrade<E> {
    fn elect(&self, ballot: &Ballot<'_>) -> Vec<ServerId> {
        self.migration(ballot).elected
    }

    fn reserve(&self, ballot: &Ballot<'_>) -> usize {
        self.migration(ballot).reserve
    }

    fn is_unlimited(&self) -> bool {
        self.inner.is_unlimited()
    }

    fn spread(&self, ballot: &Ballot<'_>, servers: &[ServerId]) -> usize {
        self.inner.spread(ballot, servers)
    }
}

impl<E: Electorate> Upgrade<E> {
    fn info(&self, config: &Config, state: &State) -> UpgradeInfo {
        let ballot = Ballot::new(config, state);
        let Migration { status, target, waits, .. } = self.migration(&ballot);
        let mut info = UpgradeInfo { status, waits, ..UpgradeInfo::default() };
        let Some(target) = target else { return info };
        for server in state.members() {
            let id = server.server.id.clone();
            let is_new = version::of(config, server).as_ref() == Some(&target);
            if is_new && info.target_version.is_none() {
                info.target_version = version::text(config, server).map(str::to_owned);
            }
            if server.server.read_replica {
                let replicas = if is_new {
                    &mut info.target_version_read_replicas
                } else {
                    &mut info.other_version_read_replicas
                };
                replicas.push(id);
                continue;
            }
            let zone = self.inner.server_ext(config, state, server).redundancy_zone;
            if let Some(zone) = zone {
                let versions = info.redundancy_zones.entry(zone).or_default();
                list(versions, is_new, server.role).push(id.clone());
            }
            list(&mut info.versions, is_new, server.role).push(id);
        }
        info.target_version.get_or_insert_with(|| target.to_string());
        info
    }
}

fn list(versions: &mut Versions, is_new: bool, role: Role) -> &mut Vec<ServerId> {
    match (is_new, role.votes()) {
        (true, true) => &mut versions.target_version_voters,
        (true, false) => &mut versions.target_version_non_voters,
        (false, true) => &mut versions.other_version_voters,
        (false, false) => &mut versions.other_version_non_voters,
    }
}

impl<E: Electorate> Wrapper for Upgrade<E> {
    type Inner = E;

    fn inner(&self) -> &E {
        &self.inner
    }

    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        wishes(self, config, state)
    }

    fn server_ext(&self, config: &Config, state: &State, server: &ServerState) -> ServerExt {
        let upgrade_version = version::text(config, server).map(str::to_owned);
        ServerExt { upgrade_version, ..self.inner.server_ext(config, state, server) }
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        let mut ext = self.inner.state_ext(config, state);
        ext.upgrade = Some(self.info(config, state));
        let tolerance = self.optimistic_failure_tolerance(&Ballot::new(config, state));
        ext.optimistic_failure_tolerance = Some(tolerance);
        ext
    }

    fn policy(&self) -> Option<Policy> {
        Some(Policy::Upgrade { inner: Box::new(self.inner.policy()?) })
    }
}
