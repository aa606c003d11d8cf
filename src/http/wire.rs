//! Health and state on the wire: Consul's fields, and beside them what is held and why.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{durations, settings::Work, wall};
use crate::autopilot::{
    Decision, Fate, Guard, Held, IntentKind, LogId, NodeStatus, NodeType, Origin, Promoter, Reason,
    Reasons, Role, ServerId, ServerState, State, Step, UpgradeInfo, Verdict, Versions, View, Why,
    Zone,
};

/// One view, read at one moment.
pub(super) struct Reading<'a> {
    pub(super) view: &'a View,
    pub(super) state: &'a State,
    pub(super) promoter: Guard,
    /// The driver's clock now.
    pub(super) now: Duration,
    /// The wall time at which that clock began, since 1970.
    pub(super) epoch: Duration,
}

/// What `/health` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HealthReply<'a> {
    healthy: bool,
    failure_tolerance: usize,
    servers: Vec<HealthServer<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthServer<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: &'a str,
    serf_status: &'static str,
    version: &'a str,
    leader: bool,
    last_contact: String,
    last_term: u64,
    last_index: u64,
    healthy: bool,
    voter: bool,
    stable_since: String,
    #[serde(flatten)]
    beside: Beside<'a>,
}

/// What `/state` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StateReply<'a> {
    healthy: bool,
    failure_tolerance: usize,
    optimistic_failure_tolerance: usize,
    servers: BTreeMap<&'a str, StateServer<'a>>,
    leader: &'a str,
    voters: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    read_replicas: Vec<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    redundancy_zones: BTreeMap<String, ZoneReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade: Option<UpgradeReply>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    voters_healthy: bool,
    quorum: bool,
    term: u64,
    age: String,
    running: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<WhyReply>,
    planned: Vec<StepReply>,
    held: Vec<HeldReply>,
    blind_spots: Vec<BlindSpot>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ext: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    work: Option<&'a Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StateServer<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: &'a str,
    node_status: &'static str,
    version: &'a str,
    last_contact: String,
    last_term: u64,
    last_index: u64,
    healthy: bool,
    stable_since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    redundancy_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade_version: Option<String>,
    read_replica: bool,
    status: &'static str,
    meta: &'a BTreeMap<String, String>,
    node_type: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ext: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    work: Option<&'a Value>,
    #[serde(flatten)]
    beside: Beside<'a>,
}

/// What stands beside each server.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Beside<'a> {
    verdict: Verdict,
    reasons: Reasons,
    held: Vec<HeldReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cordoned: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<IntentKind>,
}

/// The migration to another version, as Consul shows it, and what it waits for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct UpgradeReply {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_version: Option<String>,
    #[serde(flatten)]
    versions: VersionsReply,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    target_version_read_replicas: Vec<ServerId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_version_read_replicas: Vec<ServerId>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    redundancy_zones: BTreeMap<String, VersionsReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the words on the wire")]
struct VersionsReply {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    target_version_voters: Vec<ServerId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    target_version_non_voters: Vec<ServerId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_version_voters: Vec<ServerId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_version_non_voters: Vec<ServerId>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ZoneReply {
    servers: Vec<String>,
    voters: Vec<String>,
    failure_tolerance: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StepReply {
    step: String,
    kind: &'static str,
    origin: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WhyReply {
    code: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct HeldReply {
    #[serde(flatten)]
    step: StepReply,
    #[serde(flatten)]
    why: WhyReply,
}

/// What `/history` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HistoryReply<'a> {
    node: &'a str,
    running: &'static str,
    decisions: Vec<DecisionReply<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DecisionReply<'a> {
    number: u64,
    time: String,
    took: String,
    #[serde(flatten)]
    step: StepReply,
    #[serde(skip_serializing_if = "Option::is_none")]
    force: Option<&'a str>,
    #[serde(flatten)]
    fate: WhyReply,
    reasons: &'a BTreeMap<ServerId, Reasons>,
}

/// Something that autopilot cannot see.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct BlindSpot {
    code: &'static str,
    what: Cow<'static, str>,
}

/// What `/health` answers: the members, and servers known besides, by id.
pub(super) fn health<'a>(reading: &Reading<'a>) -> HealthReply<'a> {
    let state = reading.state;
    let server = |s: &'a ServerState| {
        let LogId { term, index } = last_log(state, s);
        HealthServer {
            id: s.server.id.as_str(),
            name: &s.server.name,
            address: &s.server.address,
            serf_status: match s.discovery {
                Some(NodeStatus::Alive) => "alive",
                Some(NodeStatus::Failed) => "failed",
                Some(NodeStatus::Left) => "left",
                Some(NodeStatus::Unknown) | None => "none",
            },
            version: &s.server.version,
            leader: state.is_leader(&s.server.id),
            last_contact: last_contact(state, s),
            last_term: term,
            last_index: index,
            healthy: s.health.verdict == Verdict::Healthy,
            voter: is_voter(s.role),
            stable_since: wall::rounded(reading.epoch, stable_since(s)),
            beside: beside(reading, s),
        }
    };
    HealthReply {
        healthy: state.healthy,
        failure_tolerance: state.failure_tolerance,
        servers: state.servers.iter().map(server).collect(),
    }
}

/// What `/history` answers, the newest first.
pub(super) fn history<'a>(reading: &Reading<'a>) -> HistoryReply<'a> {
    let decision = |decision: &'a Decision| DecisionReply {
        number: decision.number,
        time: wall::exact(reading.epoch, decision.at),
        took: durations::print(decision.took),
        step: step(&decision.step, &decision.origin),
        force: match &decision.origin {
            Origin::Operator { force, .. } => force.as_deref(),
            Origin::Unfinished | Origin::Promoter | Origin::Cleanup | Origin::Drain => None,
        },
        fate: fate(&decision.fate),
        reasons: &decision.reasons,
    };
    HistoryReply {
        node: reading.state.local.as_str(),
        running: reading.view.running.as_str(),
        decisions: reading.view.history.iter().rev().map(decision).collect(),
    }
}

/// What `/state` answers.
pub(super) fn state<'a>(reading: &Reading<'a>, told: &'a Result<Work, String>) -> StateReply<'a> {
    let (view, state) = (reading.view, reading.state);
    let work = told.as_ref().map_or(&None, |work| work);
    let ext = reading.promoter.state_ext(&view.config, state);
    let replicas = state.members().filter(|s| is_replica(reading, s));
    let voters = state.sorted_voters();
    let read_replicas = replicas.map(|s| s.server.id.as_str()).collect();
    let servers = state.servers.iter().map(|s| (s.server.id.as_str(), server(reading, s, work)));
    let servers = servers.collect();
    let is_voter = |id: &&_| state.server(id).is_some_and(|s| is_voter(s.role));
    let warnings = state.warnings().map(str::to_owned).chain(ext.warnings);
    let warnings = warnings.chain(told.as_ref().err().cloned());
    StateReply {
        healthy: state.healthy,
        failure_tolerance: state.failure_tolerance,
        optimistic_failure_tolerance: ext
            .optimistic_failure_tolerance
            .unwrap_or(state.failure_tolerance),
        servers,
        leader: state.leader.as_ref().map_or("", |leader| leader.as_str()),
        voters: voters.iter().filter(is_voter).map(ToString::to_string).collect(),
        read_replicas,
        redundancy_zones: ext.redundancy_zones.into_iter().map(|(n, z)| (n, zone(&z))).collect(),
        upgrade: ext.upgrade.map(upgrade),
        // Last: everybody has been asked.
        warnings: warnings.chain(reading.promoter.warnings()).collect(),
        voters_healthy: state.voters_healthy,
        quorum: state.quorum,
        term: state.leading.map_or(0, |leading| leading.term),
        age: durations::print(reading.now.saturating_sub(state.at)),
        running: view.running.as_str(),
        idle: view.plan.idle.as_ref().map(why),
        planned: view.plan.changes.iter().map(|c| step(&c.step, &c.origin)).collect(),
        held: view.plan.held.iter().map(held).collect(),
        blind_spots: blind_spots(view, state),
        ext: ext.other,
        work: work.as_ref().map(|(work, _)| work),
    }
}

fn upgrade(info: UpgradeInfo) -> UpgradeReply {
    let zones = info.redundancy_zones.into_iter();
    UpgradeReply {
        status: info.status.as_str(),
        target_version: info.target_version,
        versions: versions(info.versions),
        target_version_read_replicas: info.target_version_read_replicas,
        other_version_read_replicas: info.other_version_read_replicas,
        redundancy_zones: zones.map(|(name, zone)| (name, versions(zone))).collect(),
        waits: info.waits,
    }
}

fn versions(found: Versions) -> VersionsReply {
    VersionsReply {
        target_version_voters: found.target_version_voters,
        target_version_non_voters: found.target_version_non_voters,
        other_version_voters: found.other_version_voters,
        other_version_non_voters: found.other_version_non_voters,
    }
}

fn server<'a>(reading: &Reading<'a>, s: &'a ServerState, work: &'a Work) -> StateServer<'a> {
    let (view, state) = (reading.view, reading.state);
    let LogId { term, index } = last_log(state, s);
    let ext = reading.promoter.server_ext(&view.config, state, s);
    StateServer {
        id: s.server.id.as_str(),
        name: &s.server.name,
        address: &s.server.address,
        node_status: s.discovery.unwrap_or(NodeStatus::Unknown).as_str(),
        version: &s.server.version,
        last_contact: last_contact(state, s),
        last_term: term,
        last_index: index,
        healthy: s.health.verdict == Verdict::Healthy,
        stable_since: wall::exact(reading.epoch, stable_since(s)),
        redundancy_zone: ext.redundancy_zone.filter(|zone| !zone.is_empty()),
        upgrade_version: ext.upgrade_version.filter(|version| !version.is_empty()),
        read_replica: is_replica(reading, s),
        status: match s.role {
            _ if state.is_leader(&s.server.id) => "leader",
            Role::Voter | Role::Outgoing => "voter",
            Role::Incoming => "staging",
            Role::Learner => "non-voter",
            Role::Absent => "none",
        },
        meta: &s.server.meta,
        node_type: node_type(reading, s).to_string(),
        ext: ext.other,
        work: work.as_ref().and_then(|(_, servers)| servers.get(&s.server.id)),
        beside: beside(reading, s),
    }
}

fn beside<'a>(reading: &Reading<'a>, s: &'a ServerState) -> Beside<'a> {
    let id = &s.server.id;
    Beside {
        verdict: s.health.verdict,
        reasons: s.health.reasons,
        held: reading.view.held(id).map(held).collect(),
        cordoned: reading.state.cordoned(id),
        intent: reading.state.intended(id),
    }
}

/// Whether Consul would call it a voter: not while it is only on its way to a vote.
fn is_voter(role: Role) -> bool {
    match role {
        Role::Voter | Role::Outgoing => true,
        Role::Incoming | Role::Learner | Role::Absent => false,
    }
}

fn is_replica(reading: &Reading<'_>, s: &ServerState) -> bool {
    s.server.read_replica || node_type(reading, s) == NodeType::READ_REPLICA
}

fn node_type(reading: &Reading<'_>, s: &ServerState) -> NodeType {
    reading.promoter.node_type(&reading.view.config, reading.state, s)
}

/// The age of the last contact when the state was made, which `Age` stands beside; the longest
/// there is where there was none.
fn last_contact(state: &State, s: &ServerState) -> String {
    if state.is_leader(&s.server.id) {
        return durations::print(Duration::ZERO);
    }
    durations::print(s.last_contact.unwrap_or(durations::MAX))
}

/// The leader's own log ends where the state says.
fn last_log(state: &State, s: &ServerState) -> LogId {
    if state.is_leader(&s.server.id) { state.last_log } else { s.matched.unwrap_or_default() }
}

/// Since when it has been as it is; a short doubt does not interrupt its health.
fn stable_since(s: &ServerState) -> Duration {
    match s.health.verdict {
        Verdict::Healthy => s.health.healthy_since.unwrap_or(s.health.since),
        Verdict::Unhealthy | Verdict::Unknown => s.health.since,
    }
}

fn zone(zone: &Zone) -> ZoneReply {
    let names = |ids: &[_]| ids.iter().map(ToString::to_string).collect();
    ZoneReply {
        servers: names(&zone.servers),
        voters: names(&zone.voters),
        failure_tolerance: zone.failure_tolerance,
    }
}

fn held(held: &Held) -> HeldReply {
    HeldReply { step: step(&held.step, &held.origin), why: why(&held.why) }
}

fn step(step: &Step, origin: &impl Serialize) -> StepReply {
    StepReply { step: step.to_string(), kind: step.kind(), origin: code(origin) }
}

fn why(why: &Why) -> WhyReply {
    let code = match why {
        Why::Refused(refusal) => code(refusal),
        Why::NotLeading
        | Why::Paused(_)
        | Why::Observing
        | Why::InFlight(_)
        | Why::Uncommitted
        | Why::BackingOff { .. }
        | Why::CleanupOff
        | Why::PromoterKeeps
        | Why::Intended(_)
        | Why::NoTarget => code(why),
    };
    WhyReply { code, why: why.to_string() }
}

fn fate(fate: &Fate) -> WhyReply {
    match fate {
        Fate::Held(held) => why(held),
        Fate::Applied | Fate::Moved(_) | Fate::Failed(_) | Fate::Unknown(_) => {
            WhyReply { code: code(fate), why: fate.to_string() }
        }
    }
}

/// The name that a variant has where it is serialized: its tag, or itself.
fn code(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        Ok(Value::Object(fields)) => match (fields.get("code"), fields.keys().next()) {
            (Some(Value::String(tag)), _) => tag.clone(),
            (_, Some(name)) => name.clone(),
            (_, None) => String::new(),
        },
        Ok(_) | Err(_) => String::new(),
    }
}

/// What autopilot cannot see here, and what follows from it.
fn blind_spots(view: &View, state: &State) -> Vec<BlindSpot> {
    let others = || state.members().filter(|s| !state.is_leader(&s.server.id));
    let alone = others().next().is_none();
    let probed =
        |s: &ServerState| s.status.is_some() || s.health.reasons.contains(Reason::ProbeSilent);
    let mut spots = Vec::new();
    let mut add = |blind: bool, code, what: &'static str| {
        if blind {
            spots.push(BlindSpot { code, what: what.into() });
        }
    };
    add(
        !alone && !others().any(probed),
        "no-status-probe",
        "no server answers status probes: one that was reborn with an empty disk, or that applies \
         nothing, can look healthy",
    );
    let mut told = others().filter_map(|s| s.status).peekable();
    add(
        told.peek().is_some() && told.all(|status| status.disk.is_none()),
        "no-disk-identity",
        "no server tells the identity of its disk: one that was reborn with an empty disk is unmasked \
         only if it is probed before its log is filled again",
    );
    add(
        !alone && others().all(|s| s.discovery.is_none()),
        "no-discovery",
        "no discovery: a server that says good-bye looks like one that failed, and one sign of \
         death is missing",
    );
    add(
        state.discovery_shrunken,
        "discovery-shrunken",
        "discovery lists too few of the members to be believed: a member missing from it is no sign",
    );
    add(
        !view.records_kept,
        "no-records",
        "the host keeps no records: health, configuration, cordons and orders are forgotten when \
         leadership moves",
    );
    let silent = |s: &&ServerState| {
        s.live && s.role.votes() && s.health.reasons.contains(Reason::ProbeSilent)
    };
    spots.extend(others().filter(silent).map(|s| {
        BlindSpot {
        code: "silent-probe",
        what: format!(
            "{} counts as a live voter and answers no status probe: if it was reborn with an empty \
             disk, or applies nothing, it can look healthy",
            s.server.id
        )
        .into(),
    }
    }));
    spots
}
