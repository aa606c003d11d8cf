//! The example database: openraft's own suite over its storage, and real processes that are killed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "real processes run on the real clock")]
#![allow(dead_code, reason = "the example uses more of its files than this test")]
#![allow(unused_imports, reason = "the example uses more of its files than this test")]

#[path = "../examples/database/http.rs"]
mod http;
#[path = "../examples/database/storage/mod.rs"]
mod storage;
#[path = "../examples/database/types.rs"]
mod types;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use serde_json::Value;
use storage::{LogStore, StateMachine};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use types::TypeConfig;

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

/// How long anything may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// The example's program, which cargo builds beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/database");
    assert!(
        program.is_file(),
        "{} is missing: build it with `cargo build --example database --features openraft,http`",
        program.display()
    );
    program
}

/// One server, in a process of its own; killed when dropped.
struct Server {
    child: Child,
    id: u64,
    addr: String,
    http: String,
}

impl Server {
    async fn start(dir: &Path, more: &[&str]) -> Self {
        let mut child = command(dir, more).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("the server ended before it was ready");
        // Keep its output open, or its last words would fail.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let words: Vec<&str> = line.split([' ', ',']).collect();
        let after = |word| {
            words[words.iter().position(|found| *found == word).unwrap() + 1..]
                .iter()
                .find(|next| !next.is_empty())
                .unwrap()
        };
        let http = words.last().unwrap().strip_prefix("http://").unwrap().to_owned();
        Self { child, id: after("server").parse().unwrap(), addr: after("on").to_string(), http }
    }

    async fn first(dir: &Path) -> Self {
        Self::start(dir, &["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]).await
    }

    async fn joining(dir: &Path, seed: &str) -> Self {
        let more = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--seed", seed];
        Self::start(dir, &more).await
    }

    /// `kill -9`, and the certainty that it is gone.
    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, Vec<u8>)> {
        ask(&self.http, method, path, body).await
    }

    async fn status(&self) -> Option<Value> {
        let (code, body) = self.ask("GET", "/status", "").await?;
        (code == 200).then(|| serde_json::from_slice(&body).unwrap())
    }

    /// Waits until this server agrees with all of this about itself.
    async fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        until(what, || async { self.status().await.is_some_and(|status| holds(&status)) }).await;
    }
}

fn command(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("node").arg("--dir").arg(dir).args(more);
    command.args(["--snapshot-every", "50"]).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn ask(addr: &str, method: &str, path: &str, body: &str) -> Option<(u16, Vec<u8>)> {
    let limit = Duration::from_secs(8);
    let answer = http::ask(method, addr, path, body.as_bytes().to_vec(), limit).await.ok()?;
    Some((answer.status.as_u16(), answer.body))
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Writes a key through any of these servers until one of them acknowledges it.
async fn write(servers: &[&Server], key: &str) {
    until(&format!("{key} is written"), || async {
        for server in servers {
            if let Some((204, _)) = server.ask("PUT", &format!("/kv/{key}"), key).await {
                return true;
            }
        }
        false
    })
    .await;
}

/// Reads a key back through this server, which sends us to the leader.
async fn check(server: &Server, keys: &[String]) {
    for key in keys {
        until(&format!("{key} is read"), || async {
            match server.ask("GET", &format!("/kv/{key}"), "").await {
                Some((200, value)) => {
                    assert_eq!(value, key.as_bytes(), "the value of {key}");
                    true
                }
                Some((404, _)) => panic!("{key} was acknowledged and is lost"),
                Some(_) | None => false,
            }
        })
        .await;
    }
}

async fn promote(leader: &Server, id: u64) {
    until(&format!("{id} votes"), || async {
        matches!(leader.ask("PUT", &format!("/servers/{id}/vote"), "").await, Some((204, _)))
    })
    .await;
}

fn voters(status: &Value) -> usize {
    status["voters"][0].as_array().unwrap().len()
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
    for server in [&second, &third] {
        server
            .wait("it has joined", |status| status["members"].as_object().unwrap().len() > 1)
            .await;
        promote(&first, server.id).await;
    }

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
        second.ask("PUT", &format!("/leader/{id}"), "").await;
        status["role"] == "leader"
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
    promote(&first, second.id).await;
    first.wait("two vote", |status| voters(status) == 2).await;

    for server in [&mut second, &mut third] {
        let path = format!("/servers/{}", server.id);
        let removed = || async {
            let gone =
                first.status().await.unwrap()["members"].get(server.id.to_string()).is_none();
            gone || matches!(first.ask("DELETE", &path, "").await, Some((204, _)))
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
    assert_eq!(server.ask("PUT", "/leader/99", "").await.unwrap().0, 409);
    assert_eq!(server.ask("PUT", "/servers/x/vote", "").await.unwrap().0, 400);
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
