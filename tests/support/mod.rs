//! Clusters as text: one line a server, and what autopilot makes of them as lines of text.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{sync::Arc, time::Duration};

use raft_autopilot::autopilot::{
    Change, Config, Intent, IntentKind, Leading, Ledger, LogId, Membership, NodeStatus,
    Observation, Operation, Origin, Plan, Probe, Promoter, Reason, Record, Refusal, Role, Server,
    ServerId, ServerRecord, Sighting, Sign, Signs, State, Status, Step, Task, Verdict, Wishes,
    check, plan,
};

pub(crate) const AT: Duration = Duration::from_secs(1_000 * 3_600);
pub(crate) const TERM: u64 = 5;
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);

/// An entry of the leader's term.
pub(crate) fn entry(index: u64) -> LogId {
    LogId { term: TERM, index }
}

pub(crate) fn ids(text: &str) -> Vec<ServerId> {
    text.split_whitespace().map(ServerId::from).collect()
}

pub(crate) fn time(text: &str) -> Duration {
    raft_autopilot::duration::parse(text).unwrap()
}

/// A promoter that always wishes the same.
#[derive(Debug, Default)]
pub(crate) struct Wish(pub(crate) Wishes);

impl Promoter for Wish {
    fn wishes(&self, _: &Config, _: &State) -> Wishes {
        self.0.clone()
    }
}

/// `wish("3 4", "5", "2")`: promote 3 and 4, demote 5, and 2 should lead.
pub(crate) fn wish(promote: &str, demote: &str, leader: &str) -> Wish {
    let leader = ids(leader).pop();
    Wish(Wishes { promote: ids(promote), demote: ids(demote), leader })
}

/// One moment of a cluster; `state` says what is thought of it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) seen: Observation,
    pub(crate) ledger: Option<Ledger>,
    pub(crate) last: Option<State>,
}

impl World {
    /// One line a server: its id, then words and settings in any order.
    ///
    /// `leader`, `voter` (the default), `learner`, `incoming`, `outgoing`, `absent`;
    /// `contact=10ms` (`never`), `matched=1000` (`never`), `healthy_for=1h` (`new`: no record),
    /// `replica`, `cordoned`, `removed`, `intent=reboot`, `addr=here`.
    /// Signs of death, each with its age: `lost=1m` (contact), `silent=1m` (probe), `wiped=1m`
    /// (a shrunken log), `failed=1m`, `left=1m`, `missing=1m` (discovery, which is on if anybody
    /// has one of these or `alive`).
    pub(crate) fn of(text: &str) -> Self {
        let mut world = Self {
            config: Config::for_heartbeat(HEARTBEAT),
            seen: Observation {
                at: AT,
                local: "1".into(),
                leader: None,
                leading: None,
                membership: Membership { log_id: entry(10), committed: true, joint: false },
                last_log: entry(1_000),
                discovery: None,
                servers: Vec::new(),
                ledger: None,
                ledger_at: AT,
                pace: Duration::from_secs(30),
                feedback: None,
            },
            ledger: Some(Ledger::default()),
            last: None,
        };
        let on = ["alive", "failed=", "left=", "missing="];
        if on.iter().any(|word| text.contains(word)) {
            world.seen.discovery = Some(Duration::ZERO);
        }
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            world.line(line);
        }
        let joint = |s: &Sighting| matches!(s.role, Role::Incoming | Role::Outgoing);
        world.seen.membership.joint = world.seen.servers.iter().any(joint);
        world
    }

    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let id = words.next().unwrap();
        let mut server = Server::new(id, format!("10.0.0.{id}"));
        let mut sighting = Sighting {
            server: Arc::new(server.clone()),
            role: Role::Voter,
            contact: Some(Duration::from_millis(10)),
            matched: Some(entry(1_000)),
            probe: Probe::Off,
            discovery: self.seen.discovery.map(|_| NodeStatus::Alive),
        };
        let mut record = Some(ServerRecord {
            verdict: Verdict::Healthy,
            joined: true,
            applied_at: Some(AT.saturating_sub(Duration::from_secs(3_600))),
            ..ServerRecord::default()
        });
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            self.word(key, value, &mut server, &mut sighting, &mut record);
        }
        let id = server.id.clone();
        sighting.server = Arc::new(server);
        if let (Some(record), Some(ledger)) = (record, &mut self.ledger) {
            ledger.servers.insert(id, record);
        }
        self.seen.servers.push(sighting);
    }

    fn word(
        &mut self,
        key: &str,
        value: &str,
        server: &mut Server,
        sighting: &mut Sighting,
        record: &mut Option<ServerRecord>,
    ) {
        let id = server.id.clone();
        let ledger = self.ledger.get_or_insert_default();
        let mut sign = |sign: Sign, set: fn(&mut Signs, Duration)| {
            let since = AT.saturating_sub(time(value));
            let record = record.get_or_insert_default();
            record.verdict = Verdict::Unhealthy;
            record.applied_at = Some(record.applied_at.unwrap_or_default().max(since));
            record.signs.push(sign);
            set(&mut record.signs_at, since);
        };
        match key {
            "leader" => {
                self.seen.local = id.clone();
                self.seen.leader = Some(id);
                let (since, gap) = (AT, Duration::ZERO);
                self.seen.leading = Some(Leading { term: TERM, since, gap, lease: true });
            }
            "voter" => sighting.role = Role::Voter,
            "learner" => sighting.role = Role::Learner,
            "incoming" => sighting.role = Role::Incoming,
            "outgoing" => sighting.role = Role::Outgoing,
            "absent" => sighting.role = Role::Absent,
            "contact" => sighting.contact = (value != "never").then(|| time(value)),
            "matched" => {
                sighting.matched = (value != "never").then(|| entry(value.parse().unwrap()));
            }
            "healthy_for" => {
                record.as_mut().unwrap().applied_at = Some(AT.saturating_sub(time(value)));
            }
            "new" => *record = None,
            "replica" => server.read_replica = true,
            "addr" => value.clone_into(&mut server.address),
            "cordoned" => {
                let reason = "maintenance".to_owned();
                ledger.apply(1, AT, Record::Cordon { server: id, reason, ttl: None });
            }
            "removed" => {
                ledger.removed.insert(id);
            }
            "intent" => {
                let intent = Intent { kind: intent(value), ttl: time("1h"), applied_at: Some(AT) };
                ledger.intents.insert(id, intent);
            }
            "lost" => {
                sighting.contact = Some(time(value));
                sign(Sign::Contact, |signs, since| signs.contact = Some(since));
            }
            "silent" => {
                sighting.probe = Probe::Silent(time(value));
                sign(Sign::Probe, |signs, since| signs.probe = Some(since));
            }
            "wiped" => {
                sighting.probe = Probe::Answered(status(7, 0, 1_000, 0));
                sign(Sign::Shrunk, |signs, since| signs.shrunk = Some(since));
            }
            "alive" => {}
            "failed" | "left" | "missing" => {
                sighting.discovery = match key {
                    "failed" => Some(NodeStatus::Failed),
                    "left" => Some(NodeStatus::Left),
                    _ => None,
                };
                sign(Sign::Discovery, |signs, since| signs.discovery = Some(since));
            }
            _ => panic!("`{key}` means nothing"),
        }
    }

    pub(crate) fn state(&self) -> State {
        let mut seen = self.seen.clone();
        seen.ledger = self.ledger.clone().map(Arc::new);
        State::assess(&self.config, self.last.as_ref(), &seen)
    }

    /// Assesses, and lets time pass until the next round.
    pub(crate) fn pass(&mut self, time: Duration) -> State {
        let state = self.state();
        self.last = Some(state.clone());
        self.seen.at = self.seen.at.saturating_add(time);
        self.seen.ledger_at = self.seen.ledger_at.saturating_add(time);
        state
    }

    pub(crate) fn server(&mut self, id: &str) -> &mut Sighting {
        self.seen.servers.iter_mut().find(|s| s.server.id.as_str() == id).unwrap()
    }

    /// The sightings, to be changed and put back.
    pub(crate) fn server_lines(&self) -> Vec<Sighting> {
        self.seen.servers.clone()
    }

    /// Puts an order into the ledger.
    pub(crate) fn order(&mut self, task: Task, force: Option<&str>) {
        let operation = Operation {
            id: 0,
            task,
            force: force.map(str::to_owned),
            ttl: Duration::from_secs(60),
            leader: self.seen.leader.clone(),
            applied_at: None,
        };
        let ledger = self.ledger.get_or_insert_default();
        ledger.apply(77, self.seen.ledger_at, Record::Begin(operation));
    }

    /// A new leadership, of the same node or another, some time after the last one.
    pub(crate) fn elect(&mut self, id: &str, gap: Duration) {
        self.seen.at = self.seen.at.saturating_add(gap);
        self.seen.ledger_at = self.seen.ledger_at.saturating_add(gap);
        let term = self.seen.leading.map_or(TERM, |leading| leading.term + 1);
        self.seen.local = id.into();
        self.seen.leader = Some(id.into());
        self.seen.leading = Some(Leading { term, since: self.seen.at, gap, lease: true });
    }

    /// What is planned, judged as the driver does it: `do` the first step that passes, `then`
    /// the others, `refused` where the safety check does not agree, `held` with the reason.
    pub(crate) fn plan(&self, promoter: &dyn Promoter) -> Vec<String> {
        let state = self.state();
        judged(&self.config, &state, &plan(&self.config, &state, promoter))
    }
}

fn intent(word: &str) -> IntentKind {
    match word {
        "drain" => IntentKind::Drain,
        "reboot" => IntentKind::Reboot,
        _ => IntentKind::Upgrade,
    }
}

pub(crate) fn status(boot: u64, last_log: u64, acknowledged: u64, applied: u64) -> Status {
    let (age, disk, snapshot) = (Duration::ZERO, None, None);
    Status { age, boot, disk, last_log, acknowledged, applied, snapshot }
}

/// What stands in the way, without what to do about it.
fn what(reason: &impl std::fmt::Display) -> String {
    let text = reason.to_string();
    text.split_once("; ").map_or(text.clone(), |(what, _)| what.to_owned())
}

pub(crate) fn judged(config: &Config, state: &State, plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(why) = &plan.idle {
        lines.push(format!("idle: {}", what(why)));
    }
    let mut first = true;
    for change in &plan.changes {
        match check(config, change, state) {
            Ok(()) => {
                lines.push(format!("{} {}", if first { "do" } else { "then" }, change.step));
                first = false;
            }
            Err(refusal) => lines.push(format!("refused {}: {}", change.step, what(&refusal))),
        }
    }
    lines.extend(plan.held.iter().map(|held| format!("held {}: {}", held.step, what(&held.why))));
    lines.extend(plan.finished.iter().map(|id| format!("finished {id}")));
    lines.extend(plan.expired.iter().map(|id| format!("expired {id}")));
    lines
}

/// Asserts what is planned for a cluster, line by line.
#[track_caller]
pub(crate) fn check_plan(world: &World, promoter: &dyn Promoter, expected: &[&str]) {
    assert_eq!(world.plan(promoter), expected);
}

/// A change that is bound to what stands.
pub(crate) fn change(state: &State, step: Step, origin: Origin) -> Change {
    Change { step, fence: state.fence().unwrap(), origin }
}

pub(crate) fn votes(promote: &str, demote: &str) -> Step {
    Step::Votes { promote: ids(promote), demote: ids(demote) }
}

pub(crate) fn remove(servers: &str) -> Step {
    Step::Remove { servers: ids(servers), promote: Vec::new(), add: None }
}

pub(crate) fn health(state: &State, id: &str) -> Verdict {
    state.server(&id.into()).unwrap().health.verdict
}

pub(crate) fn reasons(state: &State, id: &str) -> Vec<Reason> {
    state.server(&id.into()).unwrap().health.reasons.iter().collect()
}

pub(crate) fn refusal(world: &World, step: Step, origin: Origin) -> Option<Refusal> {
    let state = world.state();
    check(&world.config, &change(&state, step, origin), &state).err()
}

pub(crate) fn nobody() -> impl Promoter {
    wish("", "", "")
}
