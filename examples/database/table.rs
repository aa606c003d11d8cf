//! The live table: what autopilot on the leader thinks of every server, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use raft_autopilot::allocator::Standing;
use raft_autopilot::http::durations;
use raft_autopilot::placement::{ClusterWork, ServerWork};
use serde::Deserialize;

/// How many ranges that move are shown.
const SHOWN: usize = 3;

/// What `GET /v1/operator/autopilot/state` tells, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Picture {
    healthy: bool,
    quorum: bool,
    failure_tolerance: usize,
    leader: String,
    term: u64,
    voters: Vec<String>,
    servers: BTreeMap<String, Server>,
    held: Vec<Held>,
    idle: Option<Idle>,
    work: Option<ClusterWork>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    name: String,
    status: String,
    verdict: String,
    reasons: Vec<String>,
    last_contact: String,
    last_index: u64,
    stable_since: String,
    version: String,
    meta: BTreeMap<String, String>,
    cordoned: Option<String>,
    intent: Option<String>,
    work: Option<ServerWork>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Held {
    step: String,
    code: String,
    why: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Idle {
    code: String,
    why: String,
}

impl Server {
    fn http(&self) -> &str {
        self.meta.get("http").map_or("", String::as_str)
    }

    fn role(&self) -> &str {
        if self.status == "non-voter" { "learner" } else { &self.status }
    }

    /// The ranges that it holds, and of how many of them it is the primary.
    fn ranges(&self) -> String {
        self.work
            .as_ref()
            .map_or_else(|| "-".to_owned(), |work| format!("{} ({})", work.items, work.primaries))
    }

    /// What its standing takes from it, and why.
    fn standing(&self) -> Option<String> {
        let work = self.work.as_ref()?;
        let lowered = work.standing != Standing::Full;
        let leaving = work.leaving.then(|| "hands its ranges over and leaves".to_owned());
        lowered.then(|| format!("{}: {}", work.standing, work.why)).or(leaving)
    }

    /// The reasons of the verdict and what an operator has said, in words.
    fn why(&self) -> String {
        let reasons = self.reasons.iter().map(|reason| reason.replace('-', " "));
        let cordoned = self.cordoned.iter().map(|reason| format!("cordoned: {reason}"));
        let intent = self.intent.iter().map(|intent| format!("told to {intent}"));
        reasons.chain(cordoned).chain(intent).collect::<Vec<_>>().join(", ")
    }
}

impl Picture {
    /// Where the members answer clients.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.servers.values().map(Server::http)
    }

    /// All that is worth a new table; ages, contacts and lags change all the time.
    pub(crate) fn key(&self) -> String {
        let Self { leader, term, held, .. } = self;
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(|(id, s)| {
                // How many ranges it has on the way is not worth a table each.
                let ranges = if self.moves() { String::new() } else { s.ranges() };
                let standing = s.work.as_ref().map(|work| work.standing);
                let Server { status, verdict, version, .. } = s;
                format!("{id} {status} {verdict} {} {version} {ranges} {standing:?}", s.why())
            })
            .collect();
        let held: Vec<_> = held.iter().map(|held| (&held.step, &held.code)).collect();
        let frozen = self.work.as_ref().and_then(|work| work.hold.as_ref());
        format!(
            "{leader} {term} {servers:?} {held:?} {:?} {} {frozen:?}",
            self.stands_still(),
            self.moves()
        )
    }

    /// Whether ranges are on their way.
    fn moves(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.doing.is_empty())
    }

    /// Why nothing will be done for a while; a step on its way is no such reason.
    fn stands_still(&self) -> Option<&str> {
        let idle = self.idle.as_ref()?;
        matches!(idle.code.as_str(), "paused" | "observing").then_some(&idle.why)
    }

    /// The table; `pids` tells the processes that are known, by their address for clients.
    pub(crate) fn text(&self, pids: &BTreeMap<&str, u32>) -> String {
        let leader = self.servers.get(&self.leader);
        let (name, end) = leader.map_or(("?", 0), |leader| (&*leader.name, leader.last_index));
        let mut text = format!(
            "{name} leads in term {}; {} vote, {} more may fail; {}{}\n",
            self.term,
            self.voters.len(),
            self.failure_tolerance,
            if self.healthy { "all healthy" } else { "NOT all healthy" },
            if self.quorum { "" } else { "; NO QUORUM" },
        );
        let _ = writeln!(
            text,
            "  {:<5} {:>4} {:<7} {:<9} {:>6} {:>7} {:>5} {:>8} {:>7} {:<15} why",
            "name", "id", "role", "verdict", "for", "contact", "lag", "ranges", "pid", "http"
        );
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|(_, server)| (server.name.len(), &server.name));
        for (id, server) in servers {
            let pid = pids.get(server.http()).map_or_else(|| "-".to_owned(), ToString::to_string);
            let lag = end.saturating_sub(server.last_index);
            // Writing into a String does not fail.
            let _ = writeln!(
                text,
                "  {:<5} {id:>4} {:<7} {:<9} {:>6} {:>7} {lag:>5} {:>8} {pid:>7} {:<15} {}",
                server.name,
                server.role(),
                server.verdict,
                since(&server.stable_since),
                contact(&server.last_contact),
                server.ranges(),
                server.http(),
                server.why()
            );
        }
        for held in &self.held {
            let _ = writeln!(text, "  held: {} ({})", held.step, held.why);
        }
        if let Some(why) = self.stands_still() {
            let _ = writeln!(text, "  nothing is changed now: {why}");
        }
        self.show_ranges(&mut text);
        text
    }
}

impl Picture {
    /// What becomes of the ranges, and why.
    fn show_ranges(&self, text: &mut String) {
        for server in self.servers.values() {
            if let Some(standing) = server.standing() {
                let _ = writeln!(text, "  {} {standing}", server.name);
            }
        }
        let Some(work) = &self.work else { return };
        let moving = work.doing.values().sum::<usize>();
        for range in work.moving.iter().take(SHOWN) {
            let _ = writeln!(text, "  range {range}");
        }
        if moving > SHOWN {
            let _ = writeln!(text, "  and {} more ranges", moving - SHOWN);
            for (why, count) in &work.reasons {
                let _ = writeln!(text, "  in all {count}: {why}");
            }
        }
        for words in work.lacking.iter().take(SHOWN).chain(&work.hold).chain(&work.failing) {
            let _ = writeln!(text, "  {words}");
        }
    }
}

/// For how long a moment of the wall clock has passed, in seconds.
fn since(moment: &str) -> String {
    let since = humantime::parse_rfc3339(moment).ok();
    let age = since.and_then(|since| SystemTime::now().duration_since(since).ok());
    age.map_or_else(|| "-".to_owned(), seconds)
}

/// How old the contact was when the leader last judged.
fn contact(told: &str) -> String {
    match durations::parse(told) {
        // The leader's own.
        Ok(Duration::ZERO) => "-".to_owned(),
        Ok(durations::MAX) => "never".to_owned(),
        Err(_) => "?".to_owned(),
        Ok(told) if told < Duration::from_secs(1) => format!("{}ms", told.as_millis()),
        Ok(told) => seconds(told),
    }
}

/// `59s`, `2m5s`.
fn seconds(age: Duration) -> String {
    durations::print(Duration::from_secs(age.as_secs()))
}
