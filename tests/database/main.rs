//! The example database: openraft's own suite over its storage, and real processes that are killed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "real processes run on the real clock")]
#![allow(dead_code, reason = "the example uses more of its files than this test")]
#![allow(unused_imports, reason = "the example uses more of its files than this test")]

#[cfg(feature = "etcd")]
#[path = "../etcd/server.rs"]
mod etcd;
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(target_feature = "crt-static")))]
mod faults;
#[path = "../../examples/database/http.rs"]
mod http;
#[cfg(feature = "ids")]
mod numbers;
mod placed;
mod process;
mod scenes;
#[path = "../../examples/database/storage/mod.rs"]
mod storage;
#[path = "../../examples/database/types.rs"]
mod types;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use raft_autopilot::autopilot::Step;
use raft_autopilot::promoters::promoter;
use raft_autopilot::rehearse::{Case, rehearse};
use serde_json::Value;
use storage::{LogStore, StateMachine};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use types::TypeConfig;

use process::{
    PATIENCE, Server, TOKEN, ask, check, command, count_voters, of, order, program, take_leader,
    thinks, thought, until, voters, write,
};

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, state) = storage::open(dir.path()).unwrap();
        Ok((dir, log, state))
    }
}

#[tokio::test]
async fn the_storage_passes_the_suite_of_openraft() {
    Suite::test_all(OnDisk).await.unwrap();
}

#[test]
fn a_disk_keeps_its_identity_and_another_disk_has_another() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let identity = |dir: &TempDir| storage::open(dir.path()).unwrap().0.disk_id();
    let first = identity(&one);
    // The writer's thread lets go of the file a moment after its log.
    let again = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        storage::open(one.path()).ok().map(|(log, _)| log.disk_id())
    });
    assert_eq!(again, Some(first));
    assert_ne!(identity(&other), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_servers_are_killed() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [one, two, three] = [0, 1, 2].map(|n: usize| dirs[n].path());
    let first = Server::first(one).await;
    first.wait("the first server leads", |status| status["role"] == "leader").await;
    let second = Server::joining(two, &first.addr).await;
    // Any server will do as a seed.
    let third = Server::joining(three, &second.addr).await;
    assert!(first.id < second.id && second.id < third.id, "every server has an id of its own");
    first.wait("all three vote", |status| voters(status).len() == 3).await;

    let keys: Vec<String> = (0..180).map(|n| format!("key-{n}")).collect();
    for key in &keys[..60] {
        write(&[&first], key).await;
    }
    let id = first.id;
    first.kill().await;
    for key in &keys[60..120] {
        write(&[&second, &third], key).await;
    }
    let first = Server::start(one, &[]).await;
    assert_eq!(first.id, id, "a server keeps its id with its directory");
    check(&first, &keys[..120]).await;
    until("the restarted server leads again", || async {
        let status = first.status().await.unwrap();
        status["role"] == "leader" || order(&second, &format!("transfer/{id}")).await
    })
    .await;
    let long = "x".repeat(1 << 20);
    until("a long value is written", || async {
        matches!(third.ask("PUT", "/kv/long", &long).await, Some((204, _)))
    })
    .await;

    // All at once, in the middle of a write.
    let last = second.http.clone();
    let unheard = tokio::spawn(async move { ask(&last, "PUT", "/kv/unheard", "x").await });
    first.kill().await;
    second.kill().await;
    third.kill().await;
    drop(unheard.await);
    let first = Server::start(one, &[]).await;
    let second = Server::start(two, &[]).await;
    let third = Server::start(three, &[]).await;
    for key in &keys[120..] {
        write(&[&first, &second, &third], key).await;
    }
    for server in [&first, &second, &third] {
        check(server, &keys).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosted_store_survives_every_server_and_any_server_knows_it() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [one, two, three] = [0, 1, 2].map(|n: usize| dirs[n].path());
    let first = Server::first(one).await;
    first.wait("the first server leads", |status| status["role"] == "leader").await;
    let second = Server::joining(two, &first.addr).await;
    let third = Server::joining(three, &first.addr).await;
    first.wait("all three vote", |status| voters(status).len() == 3).await;
    let put = async |server: &Server, key: usize| {
        until("it is put", || async {
            let path = format!("/store/{key}");
            matches!(server.ask("PUT", &path, &key.to_string()).await, Some((204, _)))
        })
        .await;
    };
    for key in 0..130 {
        put([&first, &second, &third][key % 3], key).await;
    }
    // Whoever leads dies while the others are used.
    first.kill().await;
    for key in 130..150 {
        put([&second, &third][key % 2], key).await;
    }
    second.kill().await;
    third.kill().await;
    let first = Server::start(one, &[]).await;
    let second = Server::start(two, &[]).await;
    let third = Server::start(three, &[]).await;
    for server in [&first, &second, &third] {
        for key in 0..150 {
            until("it is found", || async {
                match server.ask("GET", &format!("/store/{key}"), "").await {
                    Some((200, value)) => value == key.to_string().as_bytes(),
                    Some((404, _)) => panic!("{key} is lost"),
                    Some(_) | None => false,
                }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_server_is_told_stops_and_never_returns() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let first = Server::first(dirs[0].path()).await;
    first.wait("the first server leads", |status| status["role"] == "leader").await;
    // The longest values that are accepted: the snapshot takes several chunks.
    for n in 0..3 {
        let written = first.ask("PUT", &format!("/kv/long-{n}"), &"x".repeat(1 << 20)).await;
        assert_eq!(written.unwrap().0, 204);
    }
    for n in 0..120 {
        write(&[&first], &format!("key-{n}")).await;
    }
    // It starts from a snapshot: the log no longer begins at its beginning.
    let mut second = Server::joining(dirs[1].path(), &first.addr).await;
    let mut third = Server::joining(dirs[2].path(), &first.addr).await;
    for server in [&second, &third] {
        let caught_up = |status: &Value| status["last_applied"].as_u64() > Some(120);
        server.wait("it has caught up", caught_up).await;
    }
    first.wait("all vote", |status| voters(status).len() == 3).await;

    for server in [&mut second, &mut third] {
        let removed = || async {
            let gone =
                first.status().await.unwrap()["members"].get(server.id.to_string()).is_none();
            gone || order(&first, &format!("remove/{}", server.id)).await
        };
        until("it is removed", removed).await;
        let ended = timeout(PATIENCE, server.child.wait()).await;
        assert!(ended.expect("a removed server stops").unwrap().success());
    }
    let again = command(dirs[1].path(), &[]).output().await.unwrap();
    assert!(!again.status.success());
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("which was removed"), "{said}");
    write(&[&first], "still-here").await;
}

#[tokio::test]
async fn hostile_bytes_and_bad_requests_are_refused_and_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::first(dir.path()).await;
    server.wait("it leads", |status| status["role"] == "leader").await;
    let hostile = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![1, 0xff, 0xff, 0xff, 0xff],
        vec![1, 4, 0, 0, 0, 0xfd, 0xff, 0xff, 0xff],
        (0..=255).cycle().take(100_000).collect(),
    ];
    for bytes in hostile {
        let mut stream = tokio::net::TcpStream::connect(&server.addr).await.unwrap();
        // The server may hang up before it has read all of this.
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it hangs up");
        assert!(answer.is_empty(), "hostile bytes are not answered");
    }
    let long = "x".repeat((1 << 20) + 1);
    assert_eq!(server.ask("PUT", "/kv/long", &long).await.unwrap().0, 413);
    let key = format!("/kv/{}", "k".repeat(1025));
    assert_eq!(server.ask("PUT", &key, "x").await.unwrap().0, 400);
    assert_eq!(server.ask("GET", "/kv/nothing", "").await.unwrap().0, 404);
    assert_eq!(server.ask("DELETE", "/kv/nothing", "").await.unwrap().0, 404);
    assert_eq!(server.ask("POST", "/operator/transfer/99", "").await.unwrap().0, 409);
    assert_eq!(server.ask("POST", "/operator/cordon/x", "").await.unwrap().0, 400);
    assert_eq!(server.ask("POST", "/operator/dance/1", "").await.unwrap().0, 404);
    for token in [None, Some("another secret"), Some("")] {
        let limit = Duration::from_secs(8);
        let order = "/operator/cordon/1";
        let answer = http::ask("POST", &server.http, order, token, Vec::new(), limit).await;
        assert_eq!(answer.unwrap().status.as_u16(), 401, "{token:?}");
    }
    write(&[&server], "fine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_starts_a_cluster_and_ctrl_c_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_ports();
    let mut command = Command::new(program());
    command.args(["--nodes", "3", "--http-port", &port.to_string()]).env("TMPDIR", dir.path());
    let mut child = command.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let servers = [port, port + 1, port + 2].map(|port| format!("127.0.0.1:{port}"));
    for http in &servers {
        until("all three are members", || async {
            let Some((200, status)) = ask(http, "GET", "/status", "").await else { return false };
            let status: Value = serde_json::from_slice(&status).unwrap();
            status["members"].as_object().unwrap().len() == 3
        })
        .await;
    }
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let ended = timeout(PATIENCE, child.wait()).await.expect("Ctrl-C ends it").unwrap();
    assert!(ended.success());
    for http in &servers {
        assert!(std::net::TcpListener::bind(http).is_ok(), "something still listens on {http}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "a directory was left");
}

/// The first of some ports that are free now, and so are those a hundred above.
fn free_ports() -> u16 {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let from = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let mut ports = (from..32_000).step_by(10);
    ports.find(|port| (0..3).all(|n| is_free(port + n) && is_free(port + n + 100))).unwrap()
}

#[tokio::test]
async fn an_empty_directory_is_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--id", "7", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let ended = command(dir.path(), &more).output().await.unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("cannot be server 7"), "{said}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|addr| (addr.to_string(), taken)).unwrap();
    let more = ["--listen", taken.0.as_str(), "--http", "127.0.0.1:0"];
    let ended = command(dir.path(), &more).output().await.unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains(&taken.0), "{said}");
}

async fn stored_config(servers: &[Server]) -> Option<Value> {
    for server in servers {
        let path = "/v1/operator/autopilot/configuration";
        if let Some((200, config)) = server.ask("GET", path, "").await {
            return Some(serde_json::from_slice(&config).unwrap());
        }
    }
    None
}

/// The moment that the leader saves, replayed for a minute: the steps.
async fn rehearsed(servers: &[Server], leader: &Value) -> Vec<Step> {
    let leader: u64 = leader.as_str().unwrap().parse().unwrap();
    let leads = |server: &&Server| server.id == leader;
    let leader = servers.iter().find(leads).unwrap();
    let (code, case) = leader.ask("GET", "/v1/operator/autopilot/case", "").await.unwrap();
    assert_eq!(code, 200);
    let case: Case = serde_json::from_slice(&case).unwrap();
    let policy = promoter(case.promoter.as_ref().unwrap()).unwrap();
    let rehearsal = rehearse(&case, &*policy, Duration::from_secs(60));
    rehearsal.steps.into_iter().map(|rehearsed| rehearsed.step).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_servers_steer_themselves_and_a_sixth_takes_the_vote_of_a_dead_leader() {
    let dirs = [(); 6].map(|()| tempfile::tempdir().unwrap());
    let mut servers = vec![Server::first(dirs[0].path()).await];
    for dir in &dirs[1..5] {
        servers.push(Server::joining(dir.path(), &servers[0].addr).await);
    }
    thought(&servers, "all five vote", |state| count_voters(state) == 5).await;
    servers.push(Server::joining(dirs[5].path(), &servers[4].addr).await);
    let sixth = servers[5].id;
    thought(&servers, "the sixth is healthy", |s| of(s, sixth, "Verdict") == "healthy").await;

    let keys: Vec<String> = (0..60).map(|n| format!("key-{n}")).collect();
    for key in &keys[..30] {
        write(&[&servers[0]], key).await;
    }
    let dead = take_leader(&mut servers).await;
    let (id, dir) = (dead.id, dirs[usize::try_from(dead.id - 1).unwrap()].path());
    dead.kill().await;
    let state = thought(&servers, "the new leader finds the old one dead", |state| {
        of(state, id, "Verdict") == "unhealthy"
    })
    .await;
    assert!(state["Servers"][id.to_string()]["Reasons"].to_string().contains("contact-lost"));
    let swap = Step::Votes {
        promote: vec![sixth.to_string().into()],
        demote: vec![id.to_string().into()],
    };
    assert_eq!(rehearsed(&servers, &state["Leader"]).await, [swap], "at a desk");
    for key in &keys[30..] {
        write(&[&servers[0], &servers[1]], key).await;
    }
    let moved = |status: &Value| {
        let voters = voters(status);
        // One joint change: there is no moment with a voter more or less.
        assert!(voters.is_empty() || voters.len() == 5, "{voters:?}");
        voters.contains(&sixth)
    };
    servers[0].wait("the sixth has the vote", moved).await;
    let status = servers[0].status().await.unwrap();
    assert!(!voters(&status).contains(&id), "the dead one has lost it");

    servers.push(Server::start(dir, &[]).await);
    thought(&servers, "it returns and is healthy", |state| {
        of(state, id, "Verdict") == "healthy" && state["Healthy"] == true
    })
    .await;
    check(&servers[0], &keys).await;
    let state = thinks(&servers).await.unwrap();
    assert_eq!(of(&state, id, "Status"), "non-voter", "it stands by");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_and_records_survive_a_kill_of_every_server() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut servers = vec![Server::first(dirs[0].path()).await];
    for dir in &dirs[1..] {
        servers.push(Server::joining(dir.path(), &servers[0].addr).await);
    }
    thought(&servers, "all vote", |state| count_voters(state) == 3).await;
    let leader = thinks(&servers).await.unwrap()["Leader"].clone();
    // Whoever is drained hands over, whoever is cordoned does not take over.
    assert!(order(&servers[0], "cordon/3").await);
    assert!(order(&servers[0], "drain/leader").await);
    let state = thought(&servers, "another leads", |state| state["Leader"] != leader).await;
    assert_eq!(state["Leader"], "2");
    assert!(order(&servers[0], "undrain/1").await);
    assert!(order(&servers[0], "transfer/1").await, "done when the other leads");
    let config = r#"{"ServerStabilizationTime": "3s", "MinQuorum": 3}"#;
    until("a configuration is stored", || async {
        let path = "/v1/operator/autopilot/configuration";
        matches!(servers[0].ask("PUT", path, config).await, Some((200, _)))
    })
    .await;
    let config = stored_config(&servers).await.unwrap();
    assert_eq!(config["MinQuorum"], 3);
    assert!(config["ModifyIndex"].as_u64() > Some(0));
    write(&[&servers[0]], "kept").await;

    for server in servers.drain(..) {
        server.kill().await;
    }
    for dir in &dirs {
        servers.push(Server::start(dir.path(), &[]).await);
    }
    let state = thought(&servers, "all are healthy", |state| state["Healthy"] == true).await;
    assert_eq!(count_voters(&state), 3);
    assert_eq!(of(&state, 3, "Cordoned"), "ordered over HTTP");
    assert_eq!(stored_config(&servers).await.unwrap(), config);
    check(&servers[0], &["kept".to_owned()]).await;
    // Now the configuration forbids what was allowed without it.
    let refused = servers[0].ask("POST", "/operator/remove/3", "").await;
    assert!(matches!(refused, Some((409, _))), "{refused:?}");
}
