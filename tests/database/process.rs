//! Servers of the example, each a process, and what is asked of them.

use std::{
    borrow::Borrow,
    collections::BTreeSet,
    future::Future,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::http;

/// What operators present.
pub(crate) const TOKEN: &str = "a secret";

/// The addresses of a new server.
const NEW: [&str; 4] = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];

/// How long anything may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The example's program, which cargo builds beside this test.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/database");
    assert!(
        program.is_file(),
        "{} is missing: build it with `cargo build --example database --features openraft,http,placement`",
        program.display()
    );
    program
}

/// One server, in a process of its own; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) id: u64,
    pub(crate) addr: String,
    pub(crate) http: String,
}

impl Server {
    pub(crate) async fn start(dir: &Path, more: &[&str]) -> Self {
        Self::spawn(command(dir, more)).await
    }

    pub(crate) async fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
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

    pub(crate) async fn first(dir: &Path) -> Self {
        Self::new(dir, &[]).await
    }

    pub(crate) async fn joining(dir: &Path, seed: &str) -> Self {
        Self::new(dir, &["--seed", seed]).await
    }

    /// A new server, at addresses that are free.
    pub(crate) async fn new(dir: &Path, more: &[&str]) -> Self {
        Self::spawn(anew(dir, more)).await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// `kill -9`, and the certainty that it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, Vec<u8>)> {
        ask(&self.http, method, path, body).await
    }

    pub(crate) async fn status(&self) -> Option<Value> {
        let (code, body) = self.ask("GET", "/status", "").await?;
        (code == 200).then(|| serde_json::from_slice(&body).unwrap())
    }

    /// Waits until this server agrees with all of this about itself.
    pub(crate) async fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        until(what, || async { self.status().await.is_some_and(|status| holds(&status)) }).await;
    }
}

pub(crate) fn command(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("node").arg("--dir").arg(dir).args(more);
    command
        .args(["--snapshot-every", "50", "--token", TOKEN])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Starts a new server, at addresses that are free.
pub(crate) fn anew(dir: &Path, more: &[&str]) -> Command {
    command(dir, &[&NEW[..], more].concat())
}

pub(crate) async fn ask(
    addr: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Option<(u16, Vec<u8>)> {
    let limit = Duration::from_secs(8);
    let answer =
        http::ask(method, addr, path, Some(TOKEN), body.as_bytes().to_vec(), limit).await.ok()?;
    Some((answer.status.as_u16(), answer.body))
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Writes a key through any of these servers until one of them acknowledges it.
pub(crate) async fn write(servers: &[&Server], key: &str) {
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
pub(crate) async fn check(server: &Server, keys: &[String]) {
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

/// Who answers reads of these keys that are sent to this server.
pub(crate) async fn readers(server: &Server, keys: &[String]) -> BTreeSet<String> {
    let mut readers = BTreeSet::new();
    for key in keys {
        let (path, limit) = (format!("/kv/{key}"), Duration::from_secs(8));
        let answer = http::ask("GET", &server.http, &path, None, Vec::new(), limit).await.unwrap();
        assert_eq!(answer.body, key.as_bytes(), "the value of {key}");
        readers.extend(answer.header("x-served-by").map(str::to_owned));
    }
    readers
}

/// Whether an order was carried out; any server knows the way to the leader.
pub(crate) async fn order(server: &Server, order: &str) -> bool {
    matches!(server.ask("POST", &format!("/operator/{order}"), "").await, Some((204, _)))
}

/// The voters that a server's status tells; nobody while they are changing.
pub(crate) fn voters(status: &Value) -> Vec<u64> {
    let sets = status["voters"].as_array().unwrap();
    let voters = sets.iter().filter(|_| sets.len() == 1).flat_map(|set| set.as_array().unwrap());
    voters.map(|id| id.as_u64().unwrap()).collect()
}

/// What autopilot on the leader among these thinks; `None` while nobody leads.
pub(crate) async fn thinks<S: Borrow<Server>>(servers: &[S]) -> Option<Value> {
    for server in servers {
        let server = server.borrow();
        if let Some((200, state)) = server.ask("GET", "/v1/operator/autopilot/state", "").await {
            return Some(serde_json::from_slice(&state).unwrap());
        }
    }
    None
}

/// Waits until autopilot thinks so, and returns all that it thinks.
pub(crate) async fn thought<S: Borrow<Server>>(
    servers: &[S],
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = thinks(servers).await;
        match state {
            Some(state) if holds(&state) => return state,
            state => {
                assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; {state:?}");
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn count_voters(state: &Value) -> usize {
    state["Voters"].as_array().unwrap().len()
}

/// What autopilot thinks of one server.
pub(crate) fn of(state: &Value, id: u64, field: &str) -> String {
    state["Servers"][id.to_string()][field].as_str().unwrap_or_default().to_owned()
}

/// Takes the leader out of these servers.
pub(crate) async fn take_leader(servers: &mut Vec<Server>) -> Server {
    let state = thought(servers, "somebody leads", |_| true).await;
    let leader: u64 = state["Leader"].as_str().unwrap().parse().unwrap();
    let leader = servers.iter().position(|server| server.id == leader);
    servers.swap_remove(leader.unwrap())
}
