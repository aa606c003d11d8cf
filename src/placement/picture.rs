//! Votes and work side by side, as it is shown.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    driver::Published,
    notice::{Cause, member_of},
};
use crate::{
    allocator::{
        self, Doing, Judgement, Lacking, MemberKey, MemberReport, Outside, Report, Rules, Standing,
        Workload,
    },
    autopilot::{Server, ServerId},
};

/// The work of all servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterWork {
    /// The revision of the store that this is of.
    pub revision: u64,
    /// Who plans who holds what.
    pub planner: Option<String>,
    /// How many items there are.
    pub items: usize,
    /// How many replicas of them there are.
    pub replicas: usize,
    /// How many replicas are not consistent.
    pub copying: usize,
    /// What the items are doing that are not held as they are meant to be, and how many do.
    pub doing: BTreeMap<Doing, usize>,
    /// Items that move, from where to where, and why; at most 100.
    pub moving: Vec<String>,
    /// Why items move, and how many for each reason: all of them.
    pub reasons: BTreeMap<String, usize>,
    /// Items that lack replicas, and why.
    pub lacking: Vec<String>,
    /// Why health takes nothing from anybody now.
    pub hold: Option<String>,
    /// Servers that cannot be members, and why.
    pub nameless: Vec<String>,
    /// Servers whose votes count in another zone than their work.
    pub astray: Vec<String>,
    /// Why verdicts cannot be published or followed just now; what stands goes on.
    pub failing: Option<String>,
}

/// The work of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServerWork {
    /// Its zone and name as a member.
    pub member: String,
    /// Whether its member is there.
    pub stands: bool,
    /// How many items it holds.
    pub items: u32,
    /// Of how many it is the primary.
    pub primaries: u32,
    /// How many it may hold, by its own word.
    pub limit: u32,
    /// How many it may hold now, after its standing and its wish to leave.
    pub room: u32,
    /// Whether its member wants to leave.
    pub leaving: bool,
    /// What it may hold, as published.
    pub standing: Standing,
    /// By whose word.
    pub cause: Cause,
    /// Why, in the words of when it last changed.
    pub why: String,
}

/// Votes and work side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The whole.
    pub cluster: ClusterWork,
    /// By server.
    pub servers: BTreeMap<ServerId, ServerWork>,
}

impl Picture {
    /// What stands and what is meant, by the word of the allocator's leader, or, on another node, by a
    /// plan of the same world, which costs as much as planning does. `servers` are those that
    /// autopilot knows. `None` before the store was first read.
    pub fn new<'a, W: Workload>(
        published: &Published,
        work: &allocator::Handle<W>,
        rules: &Rules,
        servers: impl IntoIterator<Item = &'a Server>,
    ) -> Option<Self> {
        let report = match work.report() {
            Some(report) => report,
            None => Arc::new(work.look(rules, &outside(published))?),
        };
        let members: BTreeMap<&MemberKey, &MemberReport> =
            report.members.iter().map(|member| (&member.key, member)).collect();
        let servers = servers.into_iter().filter_map(|server| {
            let key = member_of(server).ok()?;
            let shown = server_work(&key, members.get(&key).copied(), published);
            Some((server.id.clone(), shown))
        });
        Some(Self { servers: servers.collect(), cluster: cluster_work(&report, published) })
    }
}

/// What an onlooker knows from outside: what is published.
fn outside(published: &Published) -> Outside {
    let judged = published.notices.iter().map(|(key, notice)| {
        let why = notice.why.as_str().into();
        (key.clone(), Judgement { standing: notice.standing, why })
    });
    Outside { standings: Arc::new(judged.collect()), ..Outside::default() }
}

fn server_work(
    key: &MemberKey,
    member: Option<&MemberReport>,
    published: &Published,
) -> ServerWork {
    let notice = published.notices.get(key);
    ServerWork {
        member: key.to_string(),
        stands: member.is_some_and(|member| member.stands),
        items: member.map_or(0, |member| member.load),
        primaries: member.map_or(0, |member| member.primaries),
        limit: member.map_or(0, |member| member.limit),
        room: member.map_or(0, |member| member.room),
        leaving: member.is_some_and(|member| member.exiting),
        standing: notice.map_or(Standing::Full, |notice| notice.standing),
        cause: notice.map_or(Cause::Health, |notice| notice.cause),
        why: notice.map_or_else(String::new, |notice| notice.why.clone()),
    }
}

fn cluster_work(report: &Report, published: &Published) -> ClusterWork {
    let lacking = |lacking: &Lacking| {
        let Lacking { item, missing, reason } = lacking;
        format!("{item} lacks {missing}: {reason}")
    };
    ClusterWork {
        revision: report.revision,
        planner: report.leader.as_ref().map(ToString::to_string),
        items: report.items,
        replicas: report.assignments,
        copying: report.copying,
        doing: report.doing.clone(),
        moving: report.moves.iter().map(ToString::to_string).collect(),
        reasons: report.reasons.clone(),
        lacking: report.lacking.iter().map(lacking).collect(),
        hold: published.hold.as_ref().map(ToString::to_string),
        nameless: published.nameless.clone(),
        astray: published.astray.clone(),
        failing: published.failing.clone(),
    }
}
