//! A simulated cluster: time, servers that fail and return, and a host that does what it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::case::Case;
use crate::autopilot::{
    Change, Config, Leading, Ledger, LogId, Membership, NodeStatus, Observation, Plan, Probe,
    Promoter, Record, Retries, Role, Server, ServerId, ServerState, Sighting, State, Status, Step,
    Verdict, check, outstanding, plan,
};

/// How long after a step the driver looks again.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// A cluster on an ideal host: every change is committed at once, a failed leader is replaced at
/// once by the first voter that is up, and what is up holds the whole log.
///
/// It is a value without threads or clocks; the same calls give the same history. Every step
/// passes the safety check before it is applied, as in the driver.
///
/// ```
/// use std::time::Duration;
/// use raft_autopilot::{autopilot::{Config, Role, Server}, promoters::Stable, rehearse::World};
///
/// let mut world = World::new(Config::for_heartbeat(Duration::from_millis(50)));
/// world.insert(Server::new("a", "a:1"), Role::Voter);
/// world.insert(Server::new("b", "b:1"), Role::Learner);
/// world.run(&Stable::new(), Duration::from_secs(30));
/// assert_eq!(world.voters(), ["a".into(), "b".into()]);
/// ```
#[derive(Clone, Debug)]
pub struct World {
    /// The thresholds; may be changed between rounds.
    pub config: Config,
    /// What has been recorded; records may be applied between rounds.
    pub ledger: Ledger,
    /// Transfers of leadership to these fail, as they do to whoever is down.
    pub refuses_leadership: BTreeSet<ServerId>,
    /// The longest time between two rounds. 2 s at first, the driver's default.
    pub update_interval: Duration,
    at: Duration,
    term: u64,
    since: Duration,
    index: u64,
    leader: Option<ServerId>,
    servers: BTreeMap<ServerId, Place>,
    retries: Retries,
    last: Option<State>,
    /// What the next round sees instead, where a case was given.
    given: Option<Observation>,
    discovers: bool,
    /// When discovery answered last, where it has fallen silent.
    discovered: Option<Duration>,
    records: bool,
    steps: Vec<(Duration, Step)>,
}

#[derive(Clone, Debug)]
struct Place {
    server: Arc<Server>,
    role: Role,
    /// Since when it is down.
    down: Option<Duration>,
    /// The end of its log.
    holds: u64,
    boot: u64,
    disk: Option<u64>,
    probed: bool,
    discovery: Option<NodeStatus>,
    /// It is seen like that, since then: only ages grow.
    stuck: Option<(Duration, Sighting)>,
}

impl Place {
    /// Up, and with the log up to `holds`.
    fn new(server: Arc<Server>, role: Role, holds: u64) -> Self {
        let (down, discovery, stuck) = (None, None, None);
        let (boot, disk) = (1, Some(1));
        Self { server, role, down, holds, boot, disk, probed: true, discovery, stuck }
    }
}

impl World {
    /// Without servers; an hour after the start of its clock.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ledger: Ledger::default(),
            refuses_leadership: BTreeSet::new(),
            update_interval: Duration::from_secs(2),
            at: Duration::from_secs(3600),
            term: 1,
            since: Duration::from_secs(3600),
            index: 1,
            leader: None,
            servers: BTreeMap::new(),
            retries: Retries::default(),
            last: None,
            given: None,
            discovers: false,
            discovered: None,
            records: true,
            steps: Vec::new(),
        }
    }

    /// A cluster as it was seen. Whoever is judged sick stays as it was seen; everybody else is up.
    pub fn resume(case: &Case) -> Self {
        let seen = &case.observation;
        let state = State::assess(&case.config, case.history.as_ref(), seen);
        let mut world = Self::new(case.config.clone());
        world.at = seen.at;
        world.index = seen.last_log.index;
        world.term = seen.last_log.term;
        world.since = seen.at;
        if let Some(leading) = seen.leading {
            (world.term, world.since) = (leading.term, leading.since);
        }
        world.leader.clone_from(&seen.leader);
        world.ledger = seen.ledger.as_deref().cloned().unwrap_or_default();
        world.records = seen.ledger.is_some();
        world.retries = seen.feedback.as_deref().map_or_else(Retries::default, Retries::from);
        world.discovers = seen.discovery.is_some();
        let silent = seen.discovery.filter(|age| *age > case.config.status_max_age);
        world.discovered = silent.map(|age| seen.at.saturating_sub(age));
        for sighting in &seen.servers {
            let id = &sighting.server.id;
            let judged = state.server(id);
            let sick = judged.is_some_and(|s| s.health.verdict == Verdict::Unhealthy);
            let silent = judged.is_some_and(|s| !s.live && sick);
            let mut place = Place::new(Arc::clone(&sighting.server), sighting.role, world.index);
            place.probed = sighting.probe != Probe::Off;
            // Whatever is known of them stays: another number would be another disk.
            if let Some((boot, disk)) = judged.map(ServerState::identity) {
                (place.boot, place.disk) = (boot.unwrap_or(place.boot), disk);
            }
            place.discovery = sighting.discovery;
            place.stuck = sick.then(|| (seen.at, sighting.clone()));
            let age = sighting.contact.unwrap_or_default();
            place.down = silent.then(|| seen.at.saturating_sub(age));
            world.servers.insert(id.clone(), place);
        }
        world.last.clone_from(&case.history);
        world.given = Some(seen.clone());
        world
    }

    /// Adds a server, up and with the whole log; the first voter leads. One that is there already
    /// gets the new description and role.
    pub fn insert(&mut self, server: Server, role: Role) {
        let (id, holds) = (server.id.clone(), self.index);
        if role.votes() && self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        let mut place = Place::new(Arc::new(server), role, holds);
        place.discovery = self.discovers.then_some(NodeStatus::Alive);
        self.servers.insert(id, place);
        self.index += 1;
    }

    /// Changes what a server says of itself, as a restart does.
    pub fn describe(&mut self, id: &str, edit: impl FnOnce(&mut Server)) {
        if let Some(place) = self.servers.get_mut(id) {
            edit(Arc::make_mut(&mut place.server));
        }
    }

    /// Takes a server away, as an operator would who has drained it.
    pub fn remove(&mut self, id: &str) {
        self.servers.remove(id);
        self.index += 1;
        self.elect();
    }

    /// A server goes silent, now or some time ago.
    pub fn kill(&mut self, id: &str, silent: Duration) {
        let since = self.at.saturating_sub(silent);
        if let Some(place) = self.servers.get_mut(id) {
            place.down.get_or_insert(since);
        }
        self.elect();
    }

    /// A server answers again and holds the whole log.
    pub fn heal(&mut self, id: &str) {
        if let Some(place) = self.servers.get_mut(id) {
            (place.down, place.stuck) = (None, None);
        }
        self.elect();
    }

    /// A server restarts so quickly that nobody misses it, except that it leads no more.
    pub fn restart(&mut self, id: &str) {
        self.kill(id, Duration::ZERO);
        if let Some(place) = self.servers.get_mut(id) {
            place.boot += 1;
        }
        self.heal(id);
    }

    /// Records something, as an operator or the driver does.
    pub fn record(&mut self, record: Record) {
        self.index += 1;
        self.ledger.apply(self.index, self.at, record);
    }

    /// Lets time pass without a round.
    pub fn pass(&mut self, time: Duration) {
        self.at = self.at.saturating_add(time);
    }

    /// One round: observe, assess, plan, judge, apply at most one step, and record what must
    /// outlive the leader. Returns the plan and what was applied.
    pub fn round(&mut self, promoter: &dyn Promoter) -> (Plan, Option<Step>) {
        let (plan, next) = self.look(promoter);
        // Leadership that is handed over has its records with it.
        if !next.as_ref().is_some_and(|next| matches!(next.step, Step::Transfer { .. })) {
            self.remember();
        }
        for operation in plan.finished.iter().chain(&plan.expired) {
            self.index += 1;
            self.ledger.apply(self.index, self.at, Record::End(*operation));
        }
        let step = next.map(|change| change.step);
        if let Some(step) = &step {
            self.apply(step.clone());
        }
        (plan, step)
    }

    /// Rounds until `time` has passed; returns the steps that were applied.
    pub fn run(&mut self, promoter: &dyn Promoter, time: Duration) -> Vec<Step> {
        let (end, before) = (self.at.saturating_add(time), self.steps.len());
        loop {
            let (plan, step) = self.round(promoter);
            if self.at >= end {
                break;
            }
            self.wait(&plan, step.is_some(), end);
        }
        self.steps[before..].iter().map(|(_, step)| step.clone()).collect()
    }

    /// Lets time pass until the driver would look again, and not beyond `end`.
    pub fn wait(&mut self, plan: &Plan, moved: bool, end: Duration) {
        let mut next = self.at.saturating_add(self.update_interval);
        if moved {
            next = self.at.saturating_add(HEARTBEAT);
        }
        let late = self.config.last_contact_threshold.saturating_add(Duration::from_millis(1));
        let down = self.servers.values().filter_map(|place| place.down);
        let due = down.map(|since| since.saturating_add(late)).filter(|due| *due > self.at);
        self.at = due.chain(plan.wake).fold(next.min(end), Duration::min);
    }

    /// Every step that was applied, with its time.
    pub fn steps(&self) -> &[(Duration, Step)] {
        &self.steps
    }

    /// What is thought of the cluster now. The next round goes on from it.
    pub fn assess(&mut self) -> State {
        let state = State::assess(&self.config, self.last.as_ref(), &self.observe());
        self.last = Some(state.clone());
        state
    }

    /// Whoever leads; `None`: too few voters are up.
    pub fn leader(&self) -> Option<&ServerId> {
        self.leader.as_ref().filter(|_| self.has_quorum())
    }

    /// Who votes, by id.
    pub fn voters(&self) -> Vec<ServerId> {
        let voters = self.servers.iter().filter(|(_, place)| place.role.votes());
        voters.map(|(id, _)| id.clone()).collect()
    }

    /// Whether a server is there and down.
    pub fn is_down(&self, id: &str) -> bool {
        self.servers.get(id).is_some_and(|place| place.down.is_some())
    }

    /// Whether a majority of the voters is up.
    pub fn has_quorum(&self) -> bool {
        let voters = || self.servers.values().filter(|place| place.role.votes());
        voters().filter(|place| place.down.is_none()).count() > voters().count() / 2
    }

    /// The time now.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// Reads the cluster, as a leader's host would.
    pub fn observe(&self) -> Observation {
        if let Some(given) = self.given.as_ref().filter(|given| given.at == self.at) {
            return given.clone();
        }
        let leads = self.leader().is_some();
        let last_log = LogId { term: self.term, index: self.index };
        let halves = [Role::Incoming, Role::Outgoing];
        let joint = self.servers.values().any(|place| halves.contains(&place.role));
        Observation {
            at: self.at,
            local: self.leader.clone().unwrap_or_else(|| "nobody".into()),
            leader: self.leader().cloned(),
            leading: leads.then_some(Leading {
                term: self.term,
                since: self.since,
                gap: Duration::ZERO,
                lease: true,
            }),
            membership: Membership { log_id: last_log, committed: true, joint },
            last_log,
            discovery: self.discovery(),
            servers: self.servers.iter().map(|(id, place)| self.sighting(id, place)).collect(),
            ledger: self.records.then(|| Arc::new(self.ledger.clone())),
            ledger_at: self.at,
            pace: Duration::from_secs(30),
            feedback: self.retries.feedback().map(Arc::new),
        }
    }

    /// The age of the last answer of discovery, where there is one.
    fn discovery(&self) -> Option<Duration> {
        let silent = self.discovered.map(|answered| self.at.saturating_sub(answered));
        self.discovers.then(|| silent.unwrap_or_default())
    }

    fn sighting(&self, id: &ServerId, place: &Place) -> Sighting {
        if let Some((since, seen)) = &place.stuck {
            return self.later(seen, place, self.at.saturating_sub(*since));
        }
        let silent = place.down.map(|since| self.at.saturating_sub(since));
        let index = if silent.is_none() { self.index } else { place.holds };
        // A new leader has not heard of those that were down before it.
        let heard = place.down.is_none_or(|since| since >= self.since);
        let heard = heard && place.role != Role::Absent;
        let status = Status {
            age: Duration::ZERO,
            boot: place.boot,
            disk: place.disk,
            last_log: index,
            acknowledged: index,
            applied: index,
            snapshot: None,
        };
        let known = heard || Some(id) == self.leader.as_ref();
        Sighting {
            server: Arc::clone(&place.server),
            role: place.role,
            contact: heard.then_some(silent.unwrap_or_default()),
            matched: known.then_some(LogId { term: self.term, index }),
            probe: match silent {
                _ if !place.probed => Probe::Off,
                None => Probe::Answered(status),
                Some(silent) => Probe::Silent(silent),
            },
            discovery: place.discovery,
        }
    }

    /// What was seen, some time later: silence has lasted longer.
    fn later(&self, seen: &Sighting, place: &Place, later: Duration) -> Sighting {
        let lost = |age: &Duration| *age > self.config.last_contact_threshold;
        let older = |age: Duration| age.saturating_add(later);
        let probe = match seen.probe {
            Probe::Silent(age) => Probe::Silent(older(age)),
            Probe::Answered(_) | Probe::Off => seen.probe,
        };
        let contact = seen.contact.map(|age| if lost(&age) { older(age) } else { age });
        Sighting { role: place.role, contact, probe, ..seen.clone() }
    }

    fn look(&mut self, promoter: &dyn Promoter) -> (Plan, Option<Change>) {
        self.retries.forget(self.at);
        let state = self.assess();
        let plan = plan(&self.config, &state, promoter);
        let free = plan.idle.is_none();
        let passes = |change: &&Change| free && check(&self.config, change, &state).is_ok();
        let next = plan.changes.iter().find(passes).cloned();
        (plan, next)
    }

    /// A leader that is down, or gone, is followed by the first voter that is up.
    fn elect(&mut self) {
        let up = |id: &ServerId| {
            self.servers.get(id).is_some_and(|place| place.down.is_none() && place.role.votes())
        };
        if self.leader.as_ref().is_some_and(up) {
            return;
        }
        if let Some(next) = self.servers.keys().find(|id| up(id)).cloned() {
            self.lead(next);
        }
    }

    fn lead(&mut self, leader: ServerId) {
        self.leader = Some(leader);
        self.term += 1;
        self.index += 1;
        self.since = self.at;
        self.retries = Retries::default();
    }

    fn apply(&mut self, step: Step) {
        self.given = None;
        self.steps.push((self.at, step.clone()));
        self.index += 1;
        let mut set = |ids: &[ServerId], role| {
            for id in ids {
                if let Some(place) = self.servers.get_mut(id) {
                    place.role = role;
                }
            }
        };
        match step {
            Step::Votes { promote, demote } => {
                set(&promote, Role::Voter);
                set(&demote, Role::Learner);
            }
            Step::Remove { servers, promote, add } => {
                set(&promote, Role::Voter);
                self.servers.retain(|id, _| !servers.contains(id));
                self.ledger.apply(self.index, self.at, Record::Removed(servers));
                if let Some(server) = add {
                    self.insert(Server::clone(&server), Role::Learner);
                }
            }
            Step::Add(server) => self.insert(Server::clone(&server), Role::Learner),
            Step::Readdress { server, address } => {
                if let Some(place) = self.servers.get_mut(&server) {
                    Arc::make_mut(&mut place.server).address = address;
                }
            }
            Step::Transfer { ref to }
                if self.refuses_leadership.contains(to) || self.is_down(to.as_str()) =>
            {
                let error = "it does not stand for election".to_owned();
                let salt = self.leader.as_ref().map_or("", ServerId::as_str);
                self.retries.failed(step, self.at, error, salt);
            }
            Step::Transfer { to } => {
                let reports = self.last.as_ref().map(outstanding).unwrap_or_default();
                self.ledger.apply(self.index, self.at, Record::HandOver(reports));
                self.lead(to);
            }
            Step::FinishJoint => {
                for place in self.servers.values_mut() {
                    place.role = match place.role {
                        Role::Incoming => Role::Voter,
                        Role::Outgoing => Role::Learner,
                        role @ (Role::Voter | Role::Learner | Role::Absent) => role,
                    };
                }
            }
        }
    }

    /// Writes the verdicts and signs that the ledger does not know yet.
    fn remember(&mut self) {
        let Some(state) = self.last.as_ref().filter(|state| state.may_act()) else { return };
        let reports = outstanding(state);
        if !reports.is_empty() {
            self.ledger.apply(self.index, self.at, Record::Health(reports));
        }
    }
}
