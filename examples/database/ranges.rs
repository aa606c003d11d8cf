//! The key ranges of this database, each held by servers that answer reads of it: all that it takes to
//! place work by health.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use raft_autopilot::allocator::plain::{PlainItem, PlainMember};
use raft_autopilot::allocator::{
    Allocator, AssignmentValue, Handle, Happening, Leading, MemberKey, Options, Replica, Route,
    Rules, Status, Task, Worker, Workload,
};
use raft_autopilot::autopilot::{self, Server, ServerId};
use raft_autopilot::http::Work;
use raft_autopilot::placement::{self, Config, Graded, Picture, Placement, member_of};
use raft_autopilot::runtime::{Runtime, TokioRuntime};
use raft_autopilot::store::Store;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::storage::StateMachine;

/// How many ranges the keys are parted into, by their hashes.
const RANGES: u32 = 48;

/// How many servers answer reads of a range.
const REPLICAS: u32 = 2;

/// The most ranges that a server holds.
const LIMIT: u32 = 60;

/// Where ranges, servers and assignments are stored, and where their standings are.
const ROOT: &str = "/ranges";
const STANDINGS: &str = "/ranges-standing";

/// How long a server's lease lives: longer than any pause that should move nothing.
const TTL: Duration = Duration::from_secs(15);

/// The pause before a server that has lost its lease joins again.
const REJOIN_PAUSE: Duration = Duration::from_millis(500);

/// What a server says of a range that it holds: where it answers, and that it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    http: String,
}

impl AssignmentValue for Holder {}

/// Ranges on servers. Who says where it answers is ready.
#[derive(Debug)]
pub(crate) struct Ranges;

impl Workload for Ranges {
    type Item = PlainItem;
    type Member = PlainMember;
    type State = Holder;

    fn is_consistent(&self, _: &PlainItem, one: usize, all: &[Replica<'_, Holder>]) -> bool {
        all[one].value.is_some()
    }
}

/// Makes a range ready to be read here.
struct Reader {
    state: StateMachine,
    http: String,
}

impl Worker<Ranges> for Reader {
    async fn happens(&self, task: Task<Ranges>) {
        let Happening::Assigned { .. } = task.happening else { return };
        let (state, range) = (self.state.clone(), task.item.to_string());
        // Its keys come from the disk into memory before anybody asks for them.
        let warm = move || state.read_all(|key| range_of(key) == range);
        let read = tokio::task::spawn_blocking(warm).await;
        if !read.is_ok_and(|read| read.is_ok()) {
            tracing::warn!(item = &*task.item, "a range cannot be read here");
            return;
        }
        // It may have gone elsewhere meanwhile.
        let _ = task.handle.publish(&task.item, &Holder { http: self.http.clone() }).await;
    }
}

/// The range that a key belongs to, by a hash that is the same for ever (FNV-1a).
fn range_of(key: &str) -> String {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("r{:02}", hash % u64::from(RANGES))
}

/// Who answers reads of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// This server.
    Here,
    /// The server at this address for clients.
    At(String),
    /// Nobody yet: the leader does.
    Leader,
}

/// What a server does for its whole life.
pub(crate) type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What this server knows of ranges and of who holds them.
#[derive(Clone)]
pub(crate) struct Placed {
    ranges: Handle<Ranges>,
    standings: placement::Handle,
    leaves: Arc<Notify>,
}

/// Makes what places ranges on this server: a future to run for the server's whole life, and what it
/// knows.
pub(crate) fn new(
    store: impl Store,
    server: &Server,
    state: &StateMachine,
    autopilot: &autopilot::Handle,
) -> Result<(Life, Placed), Box<dyn std::error::Error>> {
    let MemberKey { zone, member } = member_of(server)?;
    let http = crate::autopilot::http(server).unwrap_or_default();
    let policy = Graded::new(times())?;
    let (placement, standings) =
        Placement::new(store.clone(), TokioRuntime, policy, placement::Options::new(STANDINGS))?;
    let item = PlainItem { replication: REPLICAS, zones: None };
    let value = PlainMember { limit: LIMIT, ..PlainMember::default() };
    let options = Options {
        ttl: TTL,
        fixed_items: (0..RANGES).map(|range| (format!("r{range:02}"), item.clone())).collect(),
        leading: Leading { standings: Some(standings.standings()), ..Leading::default() },
        ..Options::new(ROOT, &*zone, &*member, value)
    };
    let reader = Reader { state: state.clone(), http };
    let (mut member, ranges) = Allocator::new(store, TokioRuntime, Ranges, reader, options)?;
    let leaves = Arc::new(Notify::new());
    let placed = Placed { ranges: ranges.clone(), standings, leaves: Arc::clone(&leaves) };
    let lives = async move {
        let mut leaves = std::pin::pin!(leaves.notified());
        // Who was stopped for longer than its lease lives begins anew.
        while let Err(error) = member.run(&mut leaves).await {
            tracing::warn!(%error, "this server holds no ranges any more");
            TokioRuntime.sleep(REJOIN_PAUSE).await;
        }
    };
    let autopilot = autopilot.clone();
    let follows = async move {
        let error = placement.run(autopilot, ranges).await;
        tracing::error!(%error, "nobody's standing follows its health any more");
    };
    let both = async move {
        tokio::join!(lives, follows);
    };
    Ok((Box::pin(both), placed))
}

/// Short times, for watching: the defaults are 15 s, 10 s, 1 min, 30 s and 10 s.
fn times() -> Config {
    Config {
        shed_after: Duration::from_secs(8),
        shed_interval: Duration::from_secs(3),
        dead_after: Duration::from_secs(30),
        return_after: Duration::from_secs(10),
        return_interval: Duration::from_secs(3),
        ..Config::default()
    }
}

impl Placed {
    /// Hands all ranges over, and leaves, if that takes no longer than `limit`.
    pub(crate) async fn leave(&self, limit: Duration) {
        self.leaves.notify_one();
        let left = async {
            let mut status = self.ranges.status();
            while status != Status::Ended {
                status = self.ranges.changed(status).await;
            }
        };
        if tokio::time::timeout(limit, left).await.is_err() {
            tracing::warn!("ranges are left behind: their replicas take over");
        }
    }

    /// What this server knows of a server's work, for whoever decides who leads.
    pub(crate) fn tag(&self, server: &mut Server) {
        if let Some(view) = self.ranges.view() {
            placement::tag(server, self.ranges.keys(), &view);
        }
    }

    /// Who answers reads of a key; the primary of its range, if this server holds it not.
    pub(crate) fn answers(&self, key: &str) -> Answers {
        // Whoever may have lost its lease does not know who holds what, either.
        if !matches!(self.ranges.status(), Status::Active | Status::Draining) {
            return Answers::Leader;
        }
        let Ok(route) = self.ranges.route(&range_of(key)) else { return Answers::Leader };
        let Route { hops, .. } = &route;
        if hops.iter().any(|hop| hop.consistent && hop.member == *self.ranges.member()) {
            return Answers::Here;
        }
        let mut others = hops.iter().filter(|hop| hop.member != *self.ranges.member());
        let at = others.find_map(|hop| hop.state());
        at.map_or(Answers::Leader, |holder| Answers::At(holder.http.clone()))
    }

    /// Ranges beside votes, to be shown.
    pub(crate) fn work(&self, servers: &[&Server]) -> Work {
        let published = self.standings.published();
        let servers = servers.iter().copied();
        let picture = Picture::new(&published, &self.ranges, &Rules::default(), servers)?;
        let shown = |(id, work): (ServerId, placement::ServerWork)| {
            Some((id, serde_json::to_value(work).ok()?))
        };
        let servers = picture.servers.into_iter().filter_map(shown).collect();
        Some((serde_json::to_value(picture.cluster).ok()?, servers))
    }
}
