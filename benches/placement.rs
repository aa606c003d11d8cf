//! How soon work follows health: from a verdict to the first item that moves, and until every item has
//! all its replicas again, as the number of items grows.
//!
//! `cargo bench --features placement,etcd --bench placement` prints a table of medians and draws
//! `docs/placement.svg`. Ten members in one process, over a store in memory and over a real etcd; one
//! server falls silent, without any grace, and its member's lease lives on.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![allow(dead_code, reason = "the tests use more of what is shared with them")]

#[path = "chart.rs"]
mod chart;
#[path = "../tests/autopilot/host.rs"]
mod host;
#[path = "../tests/etcd/server.rs"]
mod server;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use host::Host;
use raft_autopilot::{
    allocator::{
        Allocator, Handle, Happening, Leading, Options, Report, Task, Worker,
        plain::{Plain, PlainItem, PlainMember, PlainState},
    },
    autopilot::{self, Probe, Verdict},
    placement::{self, Config, Graded, Placement},
    promoters::Stable,
    runtime::TokioRuntime,
    store::{Embedded, KeyRange, Op, Store, Txn, Update, Watch, machine},
};
use tokio::task::JoinSet;

const ROOT: &str = "/work";
const MEMBERS: usize = 10;
const REPLICAS: u32 = 3;
const SICK: &str = "10";

/// For how long a run is waited for before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a server is found to be.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    /// Unhealthy: it hands its primaries over.
    Suspect,
    /// Dead: its replicas are made anew.
    Dead,
}

impl Found {
    fn config(self) -> Config {
        let never = Duration::from_secs(3_600);
        let (shed_after, dead_after) = match self {
            Self::Suspect => (never, never),
            Self::Dead => (Duration::ZERO, Duration::ZERO),
        };
        Config { suspect_after: Duration::ZERO, shed_after, dead_after, ..Config::default() }
    }

    /// Whether all that follows from it is done.
    fn is_done(self, report: &Report) -> bool {
        let sick = report.members.iter().find(|member| *member.key.member == *SICK).unwrap();
        let left = if self == Self::Dead { sick.load } else { sick.primaries };
        left == 0 && report.is_settled()
    }
}

/// Is ready at once.
struct Ready;

impl Worker<Plain> for Ready {
    async fn happens(&self, task: Task<Plain>) {
        if let Happening::Assigned { .. } = task.happening {
            // It may have gone elsewhere meanwhile.
            let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
        }
    }
}

/// From the verdict to the first change of an assignment, and to the last.
async fn follow(store: impl Store, items: u32, found: Found) -> (Duration, Duration) {
    let mut tasks = JoinSet::new();
    let names: Vec<String> = (1..=MEMBERS).map(|member| member.to_string()).collect();
    let host = Host::new(&format!("{} leader\n{}", names[0], names[1..].join("\n")));
    let autopilot = host.run(Stable::new(), |options| {
        options.config.cleanup_dead_servers = false;
    });
    let policy = Graded::new(found.config()).unwrap();
    let options = placement::Options::new("/standings");
    let (placement, standings) =
        Placement::new(store.clone(), TokioRuntime, policy, options).unwrap();
    let mut placement = Some(placement);
    let mut handles: Vec<Handle<Plain>> = Vec::new();
    for name in &names {
        let value = PlainMember { limit: items, ..PlainMember::default() };
        let leading = Leading { standings: Some(standings.standings()), ..Leading::default() };
        let options = Options { leading, ..Options::new(ROOT, "default", &**name, value) };
        let (mut member, handle) =
            Allocator::new(store.clone(), TokioRuntime, Plain, Ready, options).unwrap();
        tasks.spawn(async move { member.run(std::future::pending()).await.map(drop).unwrap() });
        if let Some(placement) = placement.take() {
            let (members, decided) = (handle.clone(), autopilot.clone());
            tasks.spawn(async move { panic!("{}", placement.run(decided, members).await) });
            // Who is there first leads.
            handle.report_when(|_| true).await.unwrap();
        }
        handles.push(handle);
    }
    let value = serde_json::to_vec(&PlainItem { replication: REPLICAS, zones: None }).unwrap();
    let puts = (0..items).map(|item| Op::put(format!("{ROOT}/items/{item:06}"), value.clone()));
    for ops in puts.collect::<Vec<Op>>().chunks(store.limits().operations) {
        store.commit(Txn::new(ops.to_vec())).await.unwrap();
    }
    let placed = |report: &Report| {
        report.members.len() == MEMBERS && report.items == items as usize && report.is_settled()
    };
    handles[0].report_when(placed).await.unwrap();
    let next = handles[0].report().unwrap().revision + 1;
    let mut watch = store.watch(KeyRange::prefix(format!("{ROOT}/assign/")), next).await.unwrap();
    let first = tokio::spawn(async move {
        while !matches!(watch.next().await.unwrap(), Update::Events(_)) {}
        Instant::now()
    });
    let silent = Duration::from_secs(60);
    {
        let mut inner = host.inner();
        let server = inner.server(SICK);
        (server.contact, server.probe) = (Some(silent), Probe::Silent(silent));
    }
    host.0.1.notify_one();
    let mut views = autopilot.watch();
    let judged = |view: &autopilot::View| {
        let server = view.state.as_ref().and_then(|state| state.server(&SICK.into()).cloned());
        server.is_some_and(|server| server.health.verdict == Verdict::Unhealthy)
    };
    views.wait_for(|view| judged(view)).await.unwrap();
    let verdict = Instant::now();
    handles[0].report_when(|report| found.is_done(report)).await.unwrap();
    let all = verdict.elapsed();
    (first.await.unwrap().saturating_duration_since(verdict), all)
}

/// Where the items are kept.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    InMemory,
    InEtcd,
}

/// The medians of some runs.
async fn medians(kept: Kept, items: u32, found: Found, runs: usize) -> (f64, f64) {
    let mut taken = Vec::new();
    for _ in 0..runs {
        let run = async {
            match kept {
                Kept::InMemory => {
                    let store = Embedded::new(machine::Config::default(), TokioRuntime);
                    follow(store, items, found).await
                }
                Kept::InEtcd => {
                    let server = server::Server::start().await;
                    follow(server.store().await, items, found).await
                }
            }
        };
        taken.push(tokio::time::timeout(PATIENCE, run).await.expect("something never comes"));
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let (first, all) = taken.into_iter().unzip();
    (median(first), median(all))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // Else it is only to be seen that it runs.
    let full = std::env::args().any(|argument| argument == "--bench")
        && !std::env::args().any(|argument| argument == "--test");
    let (sizes, runs): (&[u32], usize) =
        if full { (&[10, 100, 1_000, 10_000], 5) } else { (&[10], 1) };
    println!("| store | items | verdict | first item moves, ms | all is done, ms |");
    println!("|---|---:|---|---:|---:|");
    let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for (kept, store) in [(Kept::InMemory, "in memory"), (Kept::InEtcd, "etcd")] {
        for (found, verdict) in [(Found::Suspect, "suspect"), (Found::Dead, "dead")] {
            let (mut firsts, mut alls) = (Vec::new(), Vec::new());
            for items in sizes.iter().copied() {
                let (first, all) = medians(kept, items, found, runs).await;
                println!("| {store} | {items} | {verdict} | {first:.1} | {all:.1} |");
                firsts.push((f64::from(items), first));
                alls.push((f64::from(items), all));
            }
            let (first, all) = match (kept, found) {
                (Kept::InMemory, Found::Suspect) => ("suspect, first", "suspect, all"),
                (Kept::InMemory, Found::Dead) => ("dead, first", "dead, all"),
                (Kept::InEtcd, Found::Suspect) => ("etcd suspect, first", "etcd suspect, all"),
                (Kept::InEtcd, Found::Dead) => ("etcd dead, first", "etcd dead, all"),
            };
            lines.extend([(first, firsts), (all, alls)]);
        }
    }
    if full {
        let title =
            "Milliseconds from a verdict to the first item that moves, and to the last, by items";
        std::fs::write("docs/placement.svg", chart::draw(title, &lines)).unwrap();
    }
}
