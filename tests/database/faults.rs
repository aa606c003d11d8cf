//! Servers whose processes go on while their disk hangs, or while others do not hear them: what ranges
//! make of it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::placed::{cluster_of, follower, loads, number, settled, work};
use crate::process::{Server, anew, ask, readers, thinks, thought, until, write};

/// Longer than a lease lives.
const LONG: Duration = Duration::from_secs(20);

/// Servers between whom and their systems stands `faults.c`.
struct Cluster {
    dirs: [TempDir; 5],
    servers: Vec<Server>,
}

impl Cluster {
    async fn start(more: &[&str]) -> Self {
        let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
        let library = library(dirs[0].path()).await;
        let command = |dir: &Path, seed: &[&str]| {
            let mut command = anew(dir, &[more, seed].concat());
            command.env("LD_PRELOAD", &library).env("FAULTS", dir);
            command
        };
        let servers = cluster_of(&dirs, command).await;
        Self { dirs, servers }
    }

    async fn leader(&self) -> &Server {
        let state = thought(&self.servers, "somebody leads", |_| true).await;
        self.servers.iter().find(|server| leads(&state, server)).unwrap()
    }

    fn others(&self, than: &Server) -> Vec<&Server> {
        self.servers.iter().filter(|server| server.id != than.id).collect()
    }

    fn fault(&self, of: &Server, name: &str) -> PathBuf {
        self.dirs[usize::try_from(of.id - 1).unwrap()].path().join(name)
    }

    fn hang_disk(&self, of: &Server) {
        fs::write(self.fault(of, "disk"), "").unwrap();
    }

    /// Nothing that one says reaches the others.
    fn cut(&self, from: &Server, to: &[&Server]) {
        let port = |server: &&Server| format!("{} ", server.addr.rsplit(':').next().unwrap());
        fs::write(self.fault(from, "cut"), to.iter().map(port).collect::<String>()).unwrap();
    }

    fn mend(&self) {
        for server in &self.servers {
            for fault in ["disk", "cut"] {
                // Most have none.
                let _ = fs::remove_file(self.fault(server, fault));
            }
        }
    }
}

/// Builds what stands between.
async fn library(dir: &Path) -> PathBuf {
    let library = dir.join("faults.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/database/faults.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.await.unwrap().success());
    library
}

/// What `raft-autopilot state` prints of a server, or why it cannot.
#[cfg(feature = "cli")]
async fn printed(server: &Server) -> String {
    let address = format!("http://{}", server.http);
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft-autopilot"));
    let output = command.args(["state", "--address", &address]).output().await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn leads(state: &Value, server: &Server) -> bool {
    state["Leader"].as_str() == Some(&*server.id.to_string())
}

/// Whether a server has all that it had when all was well.
fn has_its_share(state: &Value, id: u64) -> bool {
    let loads = loads(state);
    let (items, primaries) = loads[&id];
    settled(state)
        && work(state, id, "Standing") == "full"
        && primaries > 0
        && loads.values().all(|load| load.0.abs_diff(items) <= 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_hangs_while_its_lease_lives_is_drained() {
    let cluster = Cluster::start(&[]).await;
    let servers = &cluster.servers;
    let keys: Vec<String> = (0..60).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        write(&[&servers[0]], key).await;
    }
    let sick = follower(servers).await;
    let before = thinks(servers).await.unwrap();
    let held = loads(&before)[&sick.id];
    assert!(held.1 > 0, "it is the primary of some");
    // Whoever has no name of its own is called by its address.
    assert!(readers(sick, &keys).await.contains(&sick.http), "it answers reads of its ranges");
    cluster.hang_disk(sick);
    let hung = Instant::now();
    let state = thought(servers, "its primaries are handed over", |state| {
        number(state, sick.id, "Primaries") == 0
    })
    .await;
    assert_eq!(work(&state, sick.id, "Standing"), "no_primaries");
    let why = work(&state, sick.id, "Why").as_str().unwrap();
    assert!(why.starts_with("unhealthy for 2s: "), "{why}");
    assert_eq!(number(&state, sick.id, "Items"), held.0, "its replicas stay at first");
    let state = thought(servers, "it holds nothing", |state| {
        assert_eq!(work(state, sick.id, "Stands"), true, "its lease lives");
        number(state, sick.id, "Items") == 0 && settled(state)
    })
    .await;
    assert!(hung.elapsed() > Duration::from_secs(15), "it has renewed its lease meanwhile");
    assert_eq!(work(&state, sick.id, "Cause"), "health");
    // Nobody would know that without an answer of its own.
    let reasons = state["Servers"][sick.id.to_string()]["Reasons"].to_string();
    assert!(reasons.contains("not-applying"), "{reasons}");
    assert_eq!(state["Leader"], before["Leader"], "it stands for no election");
    assert_eq!(sick.status().await.unwrap()["role"], "follower", "its process goes on");
    let by = readers(&servers[0], &keys).await;
    assert!(by.len() > 2 && !by.contains(&sick.http), "others answer: {by:?}");
    cluster.mend();
    thought(servers, "it has its share again", |state| has_its_share(state, sick.id)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_to_whom_half_look_bad_at_once_takes_nothing_and_says_why() {
    let cluster = Cluster::start(&[]).await;
    let servers = &cluster.servers;
    let leader = cluster.leader().await;
    let before = loads(&thinks(servers).await.unwrap());
    // All others hear them, and they reach the leader themselves.
    cluster.cut(leader, &cluster.others(leader)[..2]);
    let hold = |state: &Value| state["Work"]["Hold"].as_str().unwrap_or_default().to_owned();
    let why =
        "look bad at once, which is 120 of 300 items' worth of limits, and health may lower 34 %";
    thought(servers, "the reason is shown", |state| hold(state).contains(why)).await;
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        let state = thought(servers, "somebody leads", |_| true).await;
        assert!(leads(&state, leader));
        assert!(hold(&state).contains(why), "{}", hold(&state));
        // Whoever is found first may have lost its primaries before the second was found.
        let lowered = servers.iter().map(|server| work(&state, server.id, "Standing"));
        let lowered: Vec<&Value> = lowered.filter(|standing| **standing != "full").collect();
        assert!(lowered.is_empty() || *lowered[0] == "no_primaries", "{lowered:?}");
        assert!(lowered.len() < 2, "{lowered:?}");
        for server in servers {
            assert_eq!(number(&state, server.id, "Items"), before[&server.id].0, "no range moves");
        }
        sleep(Duration::from_millis(100)).await;
    }
    #[cfg(feature = "cli")]
    assert!(printed(leader).await.contains(why));
    cluster.mend();
    thought(servers, "there is nothing to say", |state| {
        hold(state).is_empty() && servers.iter().all(|server| has_its_share(state, server.id))
    })
    .await;
}

/// The leader is cut off from all others, and sees none of them any more. Whether its lease lives then
/// depends on where that is kept.
async fn cut_off(more: &[&str], lives: bool) {
    let cluster = Cluster::start(more).await;
    let alone = cluster.leader().await;
    let others = cluster.others(alone);
    cluster.cut(alone, &others);
    for other in &others {
        cluster.cut(other, &[alone]);
    }
    let state = "/v1/operator/autopilot/state";
    until("it judges nobody, and says why", || async {
        let (code, said) = ask(&alone.http, "GET", state, "").await.unwrap();
        let said = String::from_utf8(said).unwrap();
        code == 503 && said.contains("this node leads without a fresh lease")
    })
    .await;
    thought(&others, "another leads, and takes its primaries", |state| {
        !leads(state, alone) && number(state, alone.id, "Primaries") == 0
    })
    .await;
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        assert_eq!(ask(&alone.http, "GET", state, "").await.unwrap().0, 503);
        let state = thought(&others, "somebody leads", |_| true).await;
        for other in &others {
            assert_eq!(work(&state, other.id, "Standing"), "full", "{}", other.id);
            assert_eq!(work(&state, other.id, "Stands"), true, "{}", other.id);
        }
        sleep(Duration::from_millis(100)).await;
    }
    thought(&others, "it is drained", |state| {
        settled(state)
            && number(state, alone.id, "Items") == 0
            && *work(state, alone.id, "Stands") == lives
    })
    .await;
    #[cfg(feature = "cli")]
    assert!(printed(alone).await.contains("this node leads without a fresh lease"));
    cluster.mend();
    thought(&cluster.servers, "all have their share again", |state| {
        cluster.servers.iter().all(|server| has_its_share(state, server.id))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_that_is_cut_off_from_everybody_takes_nothing_from_anybody() {
    cut_off(&[], false).await;
}

/// Here it could still write, where all would read it.
#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_that_is_cut_off_takes_nothing_from_anybody_though_it_reaches_an_etcd() {
    let etcd = crate::etcd::Server::start().await;
    cut_off(&["--etcd", &format!("http://{}", etcd.socket())], true).await;
}
