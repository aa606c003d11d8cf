//! What must outlive a leader: the records, and the ledger that the host's log makes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    config::Config,
    server::{Server, ServerId},
};

/// What is thought of a server's health. Unknown is neither good nor bad: it never promotes
/// and never removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// In contact and up to date.
    Healthy,
    /// For the reasons that stand beside it.
    Unhealthy,
    /// Not seen, or seen too long ago.
    #[default]
    Unknown,
}

impl Verdict {
    /// The word for people and wires.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

/// Independent signs that a server is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// It has stopped acknowledging replication.
    Contact,
    /// It does not answer status probes on their own connection.
    Probe,
    /// Discovery says failed, left, or does not list it while it lists most others.
    Discovery,
    /// Its boot id changed, and it has not been healthy since.
    Identity,
    /// It has lost entries that it had acknowledged, or its whole disk is another. The same sign
    /// as `Identity`, and stronger: it stands in its place.
    Shrunk,
}

/// Since when each sign has stood, on the clock of whoever holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signs {
    /// See [`Sign::Contact`].
    #[serde(with = "crate::duration::option")]
    pub contact: Option<Duration>,
    /// See [`Sign::Probe`].
    #[serde(with = "crate::duration::option")]
    pub probe: Option<Duration>,
    /// See [`Sign::Discovery`].
    #[serde(with = "crate::duration::option")]
    pub discovery: Option<Duration>,
    /// See [`Sign::Identity`].
    #[serde(with = "crate::duration::option")]
    pub identity: Option<Duration>,
    /// See [`Sign::Shrunk`].
    #[serde(with = "crate::duration::option")]
    pub shrunk: Option<Duration>,
}

impl Signs {
    /// The independent signs that stand, each with its beginning.
    pub fn iter(&self) -> impl Iterator<Item = (Sign, Duration)> {
        [
            (Sign::Contact, self.contact),
            (Sign::Probe, self.probe),
            (Sign::Discovery, self.discovery),
            // Both come from the same answers: they are one sign.
            (Sign::Identity, self.identity.filter(|_| self.shrunk.is_none())),
            (Sign::Shrunk, self.shrunk),
        ]
        .into_iter()
        .filter_map(|(sign, since)| Some((sign, since?)))
    }

    /// Since when each independent sign has stood that does.
    pub(super) fn since(&self) -> impl Iterator<Item = Duration> {
        let reborn = self.shrunk.or(self.identity);
        [self.contact, self.probe, self.discovery, reborn].into_iter().flatten()
    }

    /// Whether any sign stands.
    pub(super) fn any(&self) -> bool {
        self.since().next().is_some()
    }

    /// Since when any sign has stood; `None`: there is none.
    pub fn first(&self) -> Option<Duration> {
        self.since().min()
    }

    /// The beginnings of the earliest two independent signs, and how many stand.
    pub(super) fn begins(&self) -> Begins {
        let mut begins = Begins { first: Duration::MAX, second: Duration::MAX, count: 0 };
        for since in self.since() {
            begins.count += 1;
            if since < begins.first {
                (begins.first, begins.second) = (since, begins.first);
            } else if since < begins.second {
                begins.second = since;
            }
        }
        begins
    }

    /// The same signs, each with its beginning moved by `map`.
    #[must_use]
    pub fn map(&self, map: impl Fn(Duration) -> Duration) -> Self {
        Self {
            contact: self.contact.map(&map),
            probe: self.probe.map(&map),
            discovery: self.discovery.map(&map),
            identity: self.identity.map(&map),
            shrunk: self.shrunk.map(&map),
        }
    }

    /// Since when a sign has stood; `None`: it does not. A stronger sign in its place does not count.
    pub(super) fn of(&self, sign: Sign) -> Option<Duration> {
        self.iter().find(|(found, _)| *found == sign).map(|(_, since)| since)
    }

    fn slot(&mut self, sign: Sign) -> &mut Option<Duration> {
        match sign {
            Sign::Contact => &mut self.contact,
            Sign::Probe => &mut self.probe,
            Sign::Discovery => &mut self.discovery,
            Sign::Identity => &mut self.identity,
            Sign::Shrunk => &mut self.shrunk,
        }
    }
}

/// Since when the earliest two signs have stood; [`Duration::MAX`] where there is none.
#[derive(Clone, Copy)]
pub(super) struct Begins {
    pub(super) first: Duration,
    pub(super) second: Duration,
    /// How many signs stand.
    pub(super) count: usize,
}

/// What an operator announces about a server, so that it is not taken for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentKind {
    /// It is emptied: it hands leadership over and is not chosen for it.
    Drain,
    /// It restarts and comes back.
    Reboot,
    /// It restarts with another version.
    Upgrade,
}

impl fmt::Display for IntentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain => "drain",
            Self::Reboot => "reboot",
            Self::Upgrade => "upgrade",
        })
    }
}

/// A task that a person gave, carried out in as many steps as it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Add a server, as a learner.
    Add(Arc<Server>),
    /// Take a server out: hand leadership over if it leads, take its vote, remove it.
    Remove(ServerId),
    /// Put a new server in an old one's place: add it, wait until it may vote, and swap them.
    Replace {
        /// Who goes.
        old: ServerId,
        /// Who comes.
        new: Arc<Server>,
    },
    /// Give a learner a vote.
    Promote(ServerId),
    /// Take a voter's vote; beginning it cordons the server, or the promoter gives the vote back.
    Demote(ServerId),
    /// Hand leadership to a server, or to the best one.
    Transfer(Option<ServerId>),
    /// A server has moved; its id was asked for and answered at the new address.
    Readdress {
        /// Who moved.
        server: ServerId,
        /// Where it is now.
        address: String,
    },
}

/// A task in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number: the index of the record that began it, whatever was set before.
    pub id: u64,
    /// What is to be done.
    pub task: Task,
    /// The reason given for waiving rules; `None`: none is waived.
    pub force: Option<String>,
    /// For how long it is pursued, from when it was recorded.
    #[serde(with = "crate::duration")]
    pub ttl: Duration,
    /// Whoever led when it was ordered; a transfer to the best is done when another leads.
    pub leader: Option<ServerId>,
    /// When this node applied it, on its own clock; not part of what is replicated.
    #[serde(skip)]
    pub applied_at: Option<Duration>,
}

/// A sign of death that stands, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingSign {
    /// Which.
    pub sign: Sign,
    /// For how long it has stood without a break.
    #[serde(with = "crate::duration")]
    pub age: Duration,
}

/// What is to be remembered of one server's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    pub server: ServerId,
    /// The verdict that stands now.
    pub verdict: Verdict,
    /// For how long it has stood without a break. A ledger that has it for longer corrects that;
    /// one that has it for less does not.
    #[serde(with = "crate::duration")]
    pub age: Duration,
    /// The boot id that it holds for, where a probe told one.
    pub boot: Option<u64>,
    /// The identity of its disk, where a probe told one.
    pub disk: Option<u64>,
    /// The signs of death that stand now, each with its age, which counts like that of the verdict.
    pub signs: Vec<StandingSign>,
    /// How often it has failed after having been stable, without a quiet day since.
    #[serde(default)]
    pub flaps: u8,
    /// Whether it leads.
    #[serde(default)]
    pub leads: bool,
}

/// One thing to remember, as it is written into the host's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Verdicts or signs that have changed.
    Health(Vec<Report>),
    /// A new configuration; with `cas`, only if the stored modify index is that.
    Configure {
        /// The whole configuration.
        config: Config,
        /// The modify index that it replaces.
        cas: Option<u64>,
    },
    /// Stop changing anything, with the reason.
    Pause(String),
    /// Go on.
    Resume,
    /// Keep a server from gaining a vote or leadership.
    Cordon {
        /// Which.
        server: ServerId,
        /// Why.
        reason: String,
        /// Until when, from now; `None`: until it is lifted.
        #[serde(with = "crate::duration::option")]
        ttl: Option<Duration>,
    },
    /// Lift a cordon.
    Uncordon(ServerId),
    /// Announce what is about to happen to a server.
    Intend {
        /// Which.
        server: ServerId,
        /// What.
        kind: IntentKind,
        /// For how long.
        #[serde(with = "crate::duration")]
        ttl: Duration,
    },
    /// The intent is over.
    Unintend(ServerId),
    /// A task begins.
    Begin(Operation),
    /// A task is over, done or given up.
    End(u64),
    /// Servers that are no longer members; their ids never come back.
    Removed(Vec<ServerId>),
    /// For this long nobody observed the cluster: no grace counts it, and whoever was healthy
    /// before has to prove it anew.
    Lapse(#[serde(with = "crate::duration")] Duration),
    /// Whoever leads is about to hand leadership over, and what it has not recorded of health yet.
    /// A leader that another follows without this has lost it.
    HandOver(Vec<Report>),
}

/// What the ledger answered to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is in the ledger, at this index of the host's log.
    Recorded(u64),
    /// The modify index is not the one compared with. Nothing was changed.
    Conflict {
        /// The one that stands; 0: nothing is stored.
        found: u64,
    },
}

/// The stored configuration with its indexes in the host's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredConfig {
    /// The configuration.
    pub config: Config,
    /// The index that first stored one.
    pub create_index: u64,
    /// The index that stored this one.
    pub modify_index: u64,
}

/// What is remembered of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// The last recorded verdict.
    pub verdict: Verdict,
    /// The boot id that it holds for, where a probe told one.
    pub boot: Option<u64>,
    /// The identity of its disk, where a probe told one.
    pub disk: Option<u64>,
    /// Whether the server was ever healthy; until then it is joining.
    pub joined: bool,
    /// The signs of death that stood when it was recorded.
    pub signs: Vec<Sign>,
    /// How often it has failed after having been stable, without a quiet day since.
    #[serde(default)]
    pub flaps: u8,
    /// Since when each of them is in the ledger, on this node's clock; not replicated.
    #[serde(skip)]
    pub signs_at: Signs,
    /// When this node applied the verdict, on its own clock; not replicated.
    #[serde(skip)]
    pub applied_at: Option<Duration>,
}

/// Why a server may gain neither vote nor leadership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cordon {
    /// In the operator's words.
    pub reason: String,
    /// For how long; `None`: until it is lifted.
    #[serde(with = "crate::duration::option")]
    pub ttl: Option<Duration>,
    /// When this node applied it, on its own clock; not part of what is replicated.
    #[serde(skip)]
    pub applied_at: Option<Duration>,
}

/// What an operator has announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What.
    pub kind: IntentKind,
    /// For how long.
    #[serde(with = "crate::duration")]
    pub ttl: Duration,
    /// When this node applied it, on its own clock; not part of what is replicated.
    #[serde(skip)]
    pub applied_at: Option<Duration>,
}

/// All records, as a deterministic state machine inside the host's own.
///
/// The host applies each [`Record`] with [`Ledger::apply`] in the order of its log and keeps the
/// ledger in its snapshots. Ages are local: they count, on each node, from when that node applied
/// the record, on that node's monotonic clock, so that no clock is ever compared with another's.
/// After a restart they start over: an age is at worst too short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The stored configuration, where one was stored.
    pub config: Option<StoredConfig>,
    /// Set while paused, with the reason.
    pub paused: Option<String>,
    /// What is remembered of each member.
    pub servers: BTreeMap<ServerId, ServerRecord>,
    /// The cordons, at most one a member. One that has run out stays until it is replaced or
    /// lifted, or the server removed: ages are local, so dropping by age would make ledgers differ.
    pub cordons: BTreeMap<ServerId, Cordon>,
    /// The intents announced; kept as the cordons are.
    pub intents: BTreeMap<ServerId, Intent>,
    /// The tasks in progress, by number.
    pub operations: BTreeMap<u64, Operation>,
    /// Ids that were removed and never come back.
    pub removed: BTreeSet<ServerId>,
    /// Whoever leads, as far as is recorded; `None` while leadership is handed over.
    #[serde(default)]
    pub leader: Option<ServerId>,
}

impl Ledger {
    /// Applies the record at `index` of the host's log; `now` is any monotonic clock of this
    /// node, always the same one.
    ///
    /// Total and deterministic, the ages apart: the same records give the same ledger everywhere.
    pub fn apply(&mut self, index: u64, now: Duration, record: Record) -> Outcome {
        match record {
            Record::Health(reports) => self.apply_health(now, reports),
            Record::Configure { config, cas } => return self.configure(index, config, cas),
            Record::Pause(reason) => self.paused = Some(reason),
            Record::Resume => self.paused = None,
            Record::Cordon { server, reason, ttl } => {
                self.cordon(server, Cordon { reason, ttl, applied_at: Some(now) });
            }
            Record::Uncordon(server) => {
                self.cordons.remove(&server);
            }
            Record::Intend { server, kind, ttl } => {
                if !self.removed.contains(&server) {
                    self.intents.insert(server, Intent { kind, ttl, applied_at: Some(now) });
                }
            }
            Record::Unintend(server) => {
                self.intents.remove(&server);
            }
            Record::Begin(operation) => {
                // In one entry: nobody may act between the two, in either order.
                if let Task::Demote(server) = &operation.task {
                    let reason = "demoted by an operator".to_owned();
                    let cordon = Cordon { reason, ttl: None, applied_at: Some(now) };
                    self.cordon(server.clone(), cordon);
                }
                let operation = Operation { id: index, applied_at: Some(now), ..operation };
                self.operations.insert(index, operation);
            }
            Record::End(operation) => {
                self.operations.remove(&operation);
            }
            Record::Removed(servers) => {
                for server in servers {
                    self.servers.remove(&server);
                    self.cordons.remove(&server);
                    self.intents.remove(&server);
                    self.removed.insert(server);
                }
            }
            Record::Lapse(time) => {
                let later = |since: Duration| since.saturating_add(time).min(now);
                for server in self.servers.values_mut() {
                    server.signs_at = server.signs_at.map(later);
                    let healthy = server.verdict == Verdict::Healthy;
                    server.applied_at =
                        if healthy { Some(now) } else { server.applied_at.map(later) };
                }
            }
            Record::HandOver(reports) => {
                self.apply_health(now, reports);
                self.leader = None;
            }
        }
        Outcome::Recorded(index)
    }

    /// Starts the ages of what a snapshot or a restart brought without any.
    pub fn restored(&mut self, now: Duration) {
        for server in self.servers.values_mut() {
            server.applied_at.get_or_insert(now);
            for sign in &server.signs {
                server.signs_at.slot(*sign).get_or_insert(now);
            }
        }
        for cordon in self.cordons.values_mut() {
            cordon.applied_at.get_or_insert(now);
        }
        for intent in self.intents.values_mut() {
            intent.applied_at.get_or_insert(now);
        }
        for operation in self.operations.values_mut() {
            operation.applied_at.get_or_insert(now);
        }
    }

    /// The reason of the cordon on a server, if one is in force at `now`.
    pub fn cordoned(&self, server: &ServerId, now: Duration) -> Option<&str> {
        let cordon = self.cordons.get(server)?;
        let over = cordon.ttl.is_some_and(|ttl| age(cordon.applied_at, now) >= ttl);
        (!over).then_some(cordon.reason.as_str())
    }

    /// What is announced about a server at `now`.
    pub fn intended(&self, server: &ServerId, now: Duration) -> Option<IntentKind> {
        let intent = self.intents.get(server)?;
        (age(intent.applied_at, now) < intent.ttl).then_some(intent.kind)
    }

    /// A removed id never comes back: nothing is kept of it.
    fn cordon(&mut self, server: ServerId, cordon: Cordon) {
        if !self.removed.contains(&server) {
            self.cordons.insert(server, cordon);
        }
    }

    fn apply_health(&mut self, now: Duration, reports: Vec<Report>) {
        for report in reports {
            if self.removed.contains(&report.server) {
                continue;
            }
            if report.leads {
                self.leader = Some(report.server.clone());
            }
            let server = self.servers.entry(report.server).or_default();
            let old = std::mem::take(&mut server.signs_at);
            // An age is never too long: neither than what is known here, nor than was reported.
            let latest = |known: Duration, age| known.max(now.saturating_sub(age));
            for StandingSign { sign, age } in &report.signs {
                let since = old.of(*sign).map_or(now, |known| latest(known, *age));
                *server.signs_at.slot(*sign) = Some(since);
            }
            server.signs = report.signs.into_iter().map(|standing| standing.sign).collect();
            server.flaps = report.flaps;
            // A restart ends a history, whatever came of it.
            let restarted =
                matches!((server.boot, report.boot), (Some(old), Some(new)) if old != new);
            server.applied_at = match server.applied_at {
                Some(known) if server.verdict == report.verdict && !restarted => {
                    Some(latest(known, report.age))
                }
                _ => Some(now),
            };
            server.verdict = report.verdict;
            server.boot = report.boot.or(server.boot);
            server.disk = report.disk.or(server.disk);
            server.joined |= report.verdict == Verdict::Healthy;
        }
    }

    fn configure(&mut self, index: u64, config: Config, cas: Option<u64>) -> Outcome {
        let stored = self.config.as_ref();
        let found = stored.map_or(0, |stored| stored.modify_index);
        // As in Consul: a compare against a configuration that was never stored fails.
        if cas.is_some_and(|cas| cas != found || stored.is_none()) {
            return Outcome::Conflict { found };
        }
        let create_index = stored.map_or(index, |stored| stored.create_index);
        self.config = Some(StoredConfig { config, create_index, modify_index: index });
        Outcome::Recorded(index)
    }
}

/// How long ago something was applied; 0 where this node does not know.
pub(super) fn age(applied_at: Option<Duration>, now: Duration) -> Duration {
    applied_at.map_or(Duration::ZERO, |at| now.saturating_sub(at))
}
