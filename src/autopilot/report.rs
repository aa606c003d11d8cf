//! What is to be recorded of a server: what the ledger does not know yet, or knows for longer than it stands.

use std::time::Duration;

use super::{
    records::{Report, ServerRecord, StandingSign, Verdict, age},
    state::{ServerState, State},
};

/// By how much the ledger may have something for longer than it stands.
const SLACK: Duration = Duration::from_secs(1);

/// What the ledger should be told of the members.
pub(crate) fn outstanding(state: &State) -> Vec<Report> {
    // It keeps nothing of an id that was removed, and would be told again for ever.
    let removed =
        |server: &ServerState| state.ledger.iter().any(|l| l.removed.contains(&server.server.id));
    let kept = state.members().filter(|server| !removed(server));
    kept.filter_map(|server| report(state, server)).collect()
}

/// What the ledger should be told of a server; `None`: nothing.
fn report(state: &State, server: &ServerState) -> Option<Report> {
    let ledger = state.ledger.as_ref();
    let record = ledger.and_then(|ledger| ledger.servers.get(&server.server.id));
    let health = &server.health;
    let verdict = match (health.verdict, record) {
        (Verdict::Healthy | Verdict::Unhealthy, _) => health.verdict,
        // A short doubt breaks no history; a longer one does.
        (Verdict::Unknown, Some(record)) if health.healthy_since.is_some() => record.verdict,
        (Verdict::Unknown, Some(record)) if record.verdict == Verdict::Unhealthy => record.verdict,
        (Verdict::Unknown, _) => Verdict::Unknown,
    };
    let boot = server.status.map(|status| status.boot);
    let disk = server.status.and_then(|status| status.disk);
    let signs = server.signs.iter().map(|(sign, _)| sign);
    let leads = state.is_leader(&server.server.id);
    let led = ledger.is_some_and(|ledger| ledger.leader.as_ref() == Some(&server.server.id));
    let known = record.is_some_and(|record| {
        record.verdict == verdict
            && (boot.is_none() || record.boot == boot)
            && (disk.is_none() || record.disk == disk)
            && record.signs.iter().copied().eq(signs)
            && record.flaps == server.flaps
            && (led || !leads)
            && !is_overstated(state, server, record)
    });
    let age = |since: Duration| state.at.saturating_sub(since);
    let standing = |(sign, since)| StandingSign { sign, age: age(since) };
    (!known).then(|| Report {
        server: server.server.id.clone(),
        verdict,
        age: age(health.healthy_since.unwrap_or(health.since)),
        boot,
        disk,
        signs: server.signs.iter().map(standing).collect(),
        flaps: server.flaps,
        leads,
    })
}

/// Whether the ledger has a history, or a sign, for longer than it stands: it was interrupted, or
/// nobody led meanwhile.
fn is_overstated(state: &State, server: &ServerState, record: &ServerRecord) -> bool {
    let here = |applied_at| state.at.saturating_sub(age(applied_at, state.ledger_at));
    let later = |since: Duration, applied_at| since > here(applied_at).saturating_add(SLACK);
    // A history that the ledger has and the next answer of a probe confirms is not counted yet.
    let counts = record.verdict == Verdict::Healthy && server.trail.carried.is_none();
    let history = server.health.healthy_since.filter(|_| counts);
    let sign = |(sign, since)| later(since, record.signs_at.of(sign));
    history.is_some_and(|since| later(since, record.applied_at)) || server.signs.iter().any(sign)
}
