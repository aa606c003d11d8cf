//! The ids in several processes at once, over one etcd: they agree, one is killed, one is stopped for
//! longer than its lease, and the etcd is put back to a backup.
//!
//! The processes are this very program, which runs `a_process_of_its_own` and does what it is told,
//! line by line.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use raft_autopilot::{
    ids::{Collector, CollectorOptions, Handle, IdRange, Ids, Options, list},
    runtime::TokioRuntime,
    store::etcd::Etcd,
};
use tokio::time::{Instant, sleep};

use super::server::{BUSY, PATIENCE, Server, until};

const PREFIX: &str = "ids/";
const ADDRESS: &str = "IDS_PROCESS_ETCD";
const NAME: &str = "IDS_PROCESS_NAME";
/// What its answers begin with; the rest of what it says is the test harness's.
const MARK: &str = "> ";

/// A process with an instance of the ids.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(server: &Server, name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::a_process_of_its_own", "--nocapture"])
            .env(ADDRESS, server.address())
            .env(NAME, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output).lines() }
    }

    /// Tells it to do something.
    fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
        self.input.flush().unwrap();
    }

    /// Its next answer.
    fn answer(&mut self) -> String {
        loop {
            let line = self.output.next().unwrap().unwrap();
            // The harness does not end the line that it begins for a test.
            if let Some((_, answer)) = line.split_once(MARK) {
                return answer.to_owned();
            }
        }
    }

    fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.answer()
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn open(address: &str, name: &str) -> Ids<Etcd, TokioRuntime> {
    let options = || raft_autopilot::store::etcd::Options {
        endpoints: vec![address.to_owned()],
        deadline: Duration::from_secs(1),
        ..raft_autopilot::store::etcd::Options::default()
    };
    let store = until(|| Etcd::connect(options(), TokioRuntime)).await;
    let options = Options {
        node: name.into(),
        range: Some(IdRange::new(1, 100).unwrap()),
        ttl: Duration::from_secs(3),
        request_timeout: Duration::from_secs(1),
        ..Options::default()
    };
    until(|| Ids::open(store.clone(), TokioRuntime, PREFIX, options.clone())).await
}

/// What a process does: see [`Process`]. By itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_its_own() {
    let (Ok(address), Ok(name)) = (std::env::var(ADDRESS), std::env::var(NAME)) else { return };
    let ids = open(&address, &name).await;
    let mut held: Vec<Handle> = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (verb, key) = line.split_once(' ').unwrap();
        let mine = held.iter().position(|handle| **handle.key() == *key.as_bytes());
        let answer = match (verb, mine) {
            ("allocate", _) => {
                let handle = ids.allocate(key).await.unwrap();
                let answer = format!("{} {} {}", handle.id(), handle.is_new(), handle.generation());
                held.push(handle);
                answer
            }
            ("status", Some(at)) => format!("{:?}", held[at].status()),
            ("generation", Some(at)) => held[at].generation().to_string(),
            ("release", Some(at)) => held.swap_remove(at).release().await.to_string(),
            other => panic!("{other:?}"),
        };
        println!("\n{MARK}{answer}");
    }
}

/// Waits until something is so.
async fn comes_to_be(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn users(server: &Server, key: &str) -> BTreeSet<String> {
    let found = list(&server.store().await, PREFIX).await.unwrap();
    let hash = raft_autopilot::ids::KeyHash::of(key.as_bytes());
    let users = found.references.iter().filter(|reference| reference.hash == hash);
    users.map(|reference| reference.node.to_string()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_agree_whoever_is_killed_or_stopped() {
    let _alone = BUSY.lock().await;
    let server = Server::start().await;
    let mut processes: Vec<Process> =
        ["one", "two", "three", "four"].map(|name| Process::start(&server, name)).into();

    // All ask for the same, at the same time.
    for number in 0..50 {
        for process in &mut processes {
            process.tell(&format!("allocate key/{number}"));
        }
    }
    let mut given = BTreeSet::new();
    for number in 0..50 {
        let answers: Vec<String> = processes.iter_mut().map(Process::answer).collect();
        let parts: Vec<Vec<&str>> = answers.iter().map(|a| a.split(' ').collect()).collect();
        assert!(parts.iter().all(|p| p[0] == parts[0][0] && p[2] == parts[0][2]), "{answers:?}");
        assert_eq!(parts.iter().filter(|p| p[1] == "true").count(), 1, "{answers:?}");
        assert!(given.insert(parts[0][0].to_owned()), "key {number}: {answers:?}");
    }

    // One is killed: its references end with its lease, and nobody else's.
    drop(processes.remove(3));
    comes_to_be("the killed one's references end", async || {
        users(&server, "key/7").await == names(&["one", "two", "three"])
    })
    .await;
    assert_eq!(processes[0].ask("status key/7"), "Held");

    // One is stopped for longer than its lease, and its id goes to another key meanwhile.
    let mine = processes[2].ask("allocate mine");
    let (id, _) = mine.split_once(' ').unwrap();
    processes[2].signal("-STOP");
    comes_to_be("the stopped one's references end", async || {
        users(&server, "mine").await.is_empty()
    })
    .await;
    let options = CollectorOptions { grace: Duration::ZERO, ..CollectorOptions::default() };
    let collector = Collector::open(server.store().await, TokioRuntime, PREFIX, options).await;
    assert_eq!(collector.unwrap().collect().await.unwrap().deleted, 1);
    let mut theirs = None;
    for number in 0..60 {
        let answer = processes[0].ask(&format!("allocate theirs/{number}"));
        if answer.split(' ').next() == Some(id) {
            theirs = Some(format!("theirs/{number}"));
            break;
        }
    }
    let theirs = theirs.expect("somebody gets the id");
    // The question is there before it goes on, and it has had no time to hear from anybody.
    processes[2].tell("status mine");
    processes[2].signal("-CONT");
    let first = processes[2].answer();
    assert!(first == "Lost" || first == "Changed", "{first}");
    comes_to_be("it knows", async || processes[2].ask("status mine") == "Changed").await;
    comes_to_be("the others are restored", async || processes[2].ask("status key/7") == "Restored")
        .await;
    assert_eq!(processes[0].ask(&format!("status {theirs}")), "Held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_find_out_that_their_etcd_was_restored_from_a_backup() {
    let _alone = BUSY.lock().await;
    let mut server = Server::start().await;
    let mut processes: Vec<Process> =
        ["one", "two"].map(|name| Process::start(&server, name)).into();
    for process in &mut processes {
        process.ask("allocate both");
    }
    server.back_up().await;
    let generation = |answer: &str| answer.rsplit(' ').next().unwrap().to_owned();
    let late = generation(&processes[0].ask("allocate late"));
    for number in 0..20 {
        processes[1].ask(&format!("allocate {number}"));
        processes[1].ask(&format!("release {number}"));
    }
    server.put_back().await;
    // Whoever comes new to what stands now may be given what was lost.
    let mut three = Process::start(&server, "three");
    for number in 0..5 {
        three.ask(&format!("allocate new/{number}"));
    }
    comes_to_be("the epoch is raised", async || {
        let found = list(&server.store().await, PREFIX).await.unwrap();
        found.meta.is_some_and(|meta| meta.epoch == 2)
    })
    .await;
    let settled = ["Restored", "Changed"];
    for (process, key) in [(0, "both"), (0, "late"), (1, "both")] {
        comes_to_be("each handle knows", async || {
            settled.contains(&&*processes[process].ask(&format!("status {key}")))
        })
        .await;
    }
    // With the same id or another, by a token that is greater than all before.
    assert!(late.starts_with("1-"), "{late}");
    let after = processes[0].ask("allocate late");
    assert!(generation(&after).starts_with("2-"), "{after}");
    let both = processes[0].ask("allocate both");
    let same = processes[1].ask("allocate both");
    let id = |answer: &str| answer.split(' ').next().unwrap().to_owned();
    assert_eq!((id(&both), generation(&both)), (id(&same), generation(&same)));
    let third = three.ask("allocate both");
    assert_eq!((id(&both), generation(&both)), (id(&third), generation(&third)));
    let found = list(&server.store().await, PREFIX).await.unwrap();
    let given: BTreeSet<u64> = found.mappings.iter().map(|mapping| mapping.id).collect();
    assert_eq!(given.len(), found.mappings.len());
}
