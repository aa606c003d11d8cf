//! The ids over a real etcd that is killed, started again, stopped, and put back to a backup, for a
//! minute; and one that is full.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, CompactionOptions, DeleteOptions};

use raft_autopilot::{
    ids::{Collector, CollectorOptions, Handle, IdRange, Ids, IdsError, Options, Reclaim, Status},
    runtime::TokioRuntime,
    store::{
        KeyRange, RangeRequest, Store,
        etcd::{self, Etcd},
        mirror,
    },
};
use tokio::time::{Instant, sleep};

use super::server::{BUSY, PATIENCE, Server, until};

#[allow(dead_code, reason = "the stress in virtual time uses more of it")]
#[path = "../ids/checker.rs"]
mod checker;

const PREFIX: &str = "ids/";

fn chance(state: &mut u64, sides: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % sides
}

async fn reach(server: &Server) -> Etcd {
    let options = etcd::Options { deadline: Duration::from_millis(700), ..server.options() };
    until(|| Etcd::connect(options.clone(), TokioRuntime)).await
}

async fn open(server: &Server, number: u64, ttl: Duration) -> Ids<Etcd, TokioRuntime> {
    let options = Options {
        node: format!("node{number}").into(),
        range: Some(IdRange::new(1, 12).unwrap()),
        ttl,
        request_timeout: REQUEST,
        patience: Duration::from_secs(5),
        backoff_max: Duration::from_millis(200),
        reconcile_interval: Duration::from_secs(2),
        reclaim: if number == 0 { Reclaim::Eager } else { Reclaim::Collector },
        ..Options::default()
    };
    let store = reach(server).await;
    until(|| Ids::open(store.clone(), TokioRuntime, PREFIX, options.clone())).await
}

/// What a node holds, for the checker to look at.
type Held = Arc<std::sync::Mutex<Vec<Handle>>>;

async fn work(ids: Ids<Etcd, TokioRuntime>, held: Held, number: u64, done: Arc<AtomicBool>) -> u64 {
    let (mut dice, mut granted) = (number + 1, 0);
    while !done.load(Ordering::Relaxed) {
        if chance(&mut dice, 2) == 0 {
            let key = format!("key/{}", chance(&mut dice, 15));
            match ids.allocate(key).await {
                Ok(handle) => {
                    granted += 1;
                    held.lock().unwrap().push(handle);
                }
                Err(IdsError::Exhausted { .. } | IdsError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        } else {
            let dropped = {
                let mut held = held.lock().unwrap();
                let len = held.len() as u64;
                (len > 0)
                    .then(|| held.swap_remove(usize::try_from(chance(&mut dice, len)).unwrap()))
            };
            drop(dropped);
        }
        sleep(Duration::from_millis(chance(&mut dice, 8))).await;
    }
    granted
}

const TTL: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(1);

/// Until when nobody can be expected to know that the server was put back.
type Unnoticed = Arc<Mutex<Option<Instant>>>;

/// What was done to a server, and how often.
#[derive(Clone, Copy, Debug, Default)]
struct Havoc {
    kills: u64,
    stops: u64,
    put_back: u64,
}

/// Kills the server, stops it for a while, or puts it back, now and then.
async fn havoc(mut server: Server, done: Arc<AtomicBool>, unnoticed: Unnoticed) -> (Server, Havoc) {
    let (mut dice, mut done_to, mut backed_up) = (7, Havoc::default(), false);
    while !done.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(1_000 + chance(&mut dice, 2_000))).await;
        match chance(&mut dice, 4) {
            0 => {
                done_to.kills += 1;
                server.kill();
                sleep(Duration::from_millis(chance(&mut dice, 1_500))).await;
                server.restart();
                server.ready().await;
            }
            1 => {
                done_to.stops += 1;
                server.freeze();
                // Sometimes longer than a lease.
                sleep(Duration::from_millis(chance(&mut dice, 3_500))).await;
                server.thaw();
            }
            _ if backed_up => {
                *unnoticed.lock().unwrap() = Some(Instant::now() + 2 * PATIENCE);
                server.kill();
                let down = Instant::now();
                server.put_back().await;
                *unnoticed.lock().unwrap() = Some(down + TTL + REQUEST + REQUEST);
                done_to.put_back += 1;
                backed_up = false;
            }
            _ => {
                server.back_up().await;
                backed_up = true;
            }
        }
    }
    (server, done_to)
}

/// What is surely held at this moment, and by which token.
fn firm(held: &Held) -> Vec<(u64, Vec<u8>, u64)> {
    let held = held.lock().unwrap();
    let firm = held.iter().filter(|handle| handle.status() == Status::Held);
    firm.map(|handle| (handle.id(), handle.key().to_vec(), handle.generation().revision)).collect()
}

async fn check(store: &Etcd, nodes: &[Held], unnoticed: &Unnoticed) -> bool {
    let before: Vec<_> = nodes.iter().map(firm).collect();
    let Ok(read) = store.range(RangeRequest::new(KeyRange::prefix(PREFIX))).await else {
        return false;
    };
    let after: Vec<_> = nodes.iter().map(firm).collect();
    let found = checker::read(&read, PREFIX);
    assert_eq!(found.faults(), Vec::<String>::new());
    if unnoticed.lock().unwrap().is_some_and(|until| Instant::now() < until) {
        return true;
    }
    for (before, after) in before.into_iter().zip(after) {
        // Held before and after it was read, it was held then.
        for (id, key, revision) in before.into_iter().filter(|held| after.contains(held)) {
            let mapping = found.mappings.values().find(|mapping| mapping.1 == key);
            assert_eq!(mapping, Some(&(id, key, revision)), "at revision {}", found.revision);
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_survive_an_etcd_that_is_killed_stopped_and_put_back_for_a_minute() {
    let _alone = BUSY.lock().await;
    let seconds = std::env::var("IDS_SECONDS").ok().and_then(|text| text.parse().ok());
    let server = Server::start().await;
    let (store, done) = (reach(&server).await, Arc::new(AtomicBool::new(false)));
    let (mut nodes, mut working) = (Vec::new(), Vec::new());
    for number in 0..4 {
        let held = Held::default();
        let ids = open(&server, number, TTL).await;
        nodes.push(Arc::clone(&held));
        working.push(tokio::spawn(work(ids, held, number, Arc::clone(&done))));
    }
    for _ in 0..2 {
        let options = CollectorOptions {
            grace: Duration::ZERO,
            rate_limit: u32::MAX,
            // So that nobody waits ten minutes until it finds out what it has missed.
            mirror: mirror::Options {
                check_interval: Some(Duration::from_secs(2)),
                ..mirror::Options::default()
            },
            ..CollectorOptions::default()
        };
        let store = reach(&server).await;
        let collector =
            until(|| Collector::open(store.clone(), TokioRuntime, PREFIX, options.clone()));
        let collector = collector.await;
        tokio::spawn(collector.run(std::future::pending()));
    }
    let unnoticed = Unnoticed::default();
    let havoc = tokio::spawn(havoc(server, Arc::clone(&done), Arc::clone(&unnoticed)));
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let mut snapshots = 0;
    while Instant::now() < end {
        snapshots += u32::from(check(&store, &nodes, &unnoticed).await);
        sleep(Duration::from_millis(5)).await;
    }
    done.store(true, Ordering::Relaxed);
    let (server, havoc) = havoc.await.unwrap();
    let mut granted = 0;
    for node in working {
        granted += node.await.unwrap();
    }
    for held in &nodes {
        let handles = std::mem::take(&mut *held.lock().unwrap());
        drop(handles);
    }
    // Nothing is left when all have gone and the server is well.
    let end = Instant::now() + PATIENCE;
    loop {
        let left = checker::snapshot(&store, PREFIX).await;
        assert_eq!(left.faults(), Vec::<String>::new());
        if left.references.is_empty() && left.mappings.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "left over: {:?} {:?}", left.references, left.mappings);
        sleep(Duration::from_millis(200)).await;
    }
    println!("{granted} granted, {snapshots} snapshots, {havoc:?}");
    assert!(granted > 0 && snapshots > 0);
    // The choice is always the same; only how far it comes is not.
    let all = havoc.kills > 0 && havoc.stops > 0 && havoc.put_back > 0;
    assert!(seconds.is_some() || all, "not all of it happened: {havoc:?}");
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_full_gives_no_more_and_what_is_held_goes_on() {
    let server = Server::start_with(&["--quota-backend-bytes", "8000000"]).await;
    let ids = open(&server, 1, TTL).await;
    let (kept, gone) = (ids.allocate("kept").await.unwrap(), ids.allocate("gone").await.unwrap());
    let mut client = server.client().await;
    for number in 0..100 {
        // The alarm comes a moment after the first that finds no room.
        let len = if number < 20 { 1_000_000 } else { 10 };
        let junk = client.put(format!("junk/{number}"), vec![0; len], None).await;
        if number > 20 && junk.is_err_and(|error| error.to_string().contains("space exceeded")) {
            break;
        }
        assert!(number < 99, "it is never full");
    }
    // Who comes new gets no lease.
    let new = open(&server, 2, TTL).await;
    let refused = new.allocate("new").await.unwrap_err();
    assert!(matches!(refused, IdsError::Unavailable(_)), "{refused}");
    // For longer than a lease: what is held is held, and what is let go is gone.
    sleep(2 * TTL).await;
    assert_eq!(kept.status(), Status::Held);
    assert_eq!(ids.allocate("kept").await.unwrap().id(), kept.id());
    assert!(gone.release().await);
    let store = server.store().await;
    assert_eq!(checker::snapshot(&store, PREFIX).await.references.len(), 1);
    // Somebody makes room.
    let all = Some(DeleteOptions::new().with_prefix());
    let deleted = client.delete("junk/", all).await.unwrap();
    let revision = deleted.header().unwrap().revision();
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await.unwrap();
    client.defragment().await.unwrap();
    for alarm in client.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap().alarms() {
        let mut member = AlarmOptions::new();
        member.with_member(alarm.member_id());
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await.unwrap();
    }
    assert!(until(|| new.allocate("new")).await.is_new());
}

#[cfg(feature = "cli")]
fn command(server: &Server, arguments: &[&str]) -> (bool, String) {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_raft-autopilot"))
        .args(["ids", "--etcd", server.address()])
        .args(arguments)
        .output()
        .unwrap();
    let said = if done.status.success() { done.stdout } else { done.stderr };
    (done.status.success(), String::from_utf8(said).unwrap())
}

#[cfg(feature = "cli")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_lists_looks_up_and_collects() {
    let server = Server::start().await;
    assert_eq!(command(&server, &["list"]), (true, "there are no ids\n".to_owned()));
    let ids = open(&server, 1, Duration::from_secs(60)).await;
    let kept = ids.allocate("app=web;").await.unwrap();
    ids.allocate("app=db;").await.unwrap().release().await;
    let (_, listed) = command(&server, &["list"]);
    assert!(listed.contains("1 user") && listed.contains("node1"), "{listed}");
    assert!(listed.contains("unused") && listed.contains("2 of 12 ids"), "{listed}");
    let id = kept.id().to_string();
    assert_eq!(command(&server, &["lookup", "app=web;"]), (true, format!("{id}\n")));
    assert_eq!(command(&server, &["lookup", "--id", &id]), (true, "app=web;\n".to_owned()));
    assert!(!command(&server, &["lookup", "app=none;"]).0);
    // What `list` prints of bytes that are no text is given back as it stands.
    let odd = ids.allocate(&b"\xff\0\\ '\""[..]).await.unwrap();
    let shown = r#"\xff\x00\\ \'\""#;
    let (_, listed) = command(&server, &["list"]);
    assert!(listed.contains(shown), "{listed}");
    let id = odd.id().to_string();
    assert_eq!(command(&server, &["lookup", "--id", &id]), (true, format!("{shown}\n")));
    assert_eq!(command(&server, &["lookup", shown]), (true, format!("{id}\n")));
    for (wrong, at) in [(r"a\q", "byte 1"), (r"ab\x0", "byte 2"), (r"abc\", "byte 3")] {
        let (done, said) = command(&server, &["lookup", wrong]);
        assert!(!done && said.contains(at), "{said}");
    }
    odd.release().await;
    command(&server, &["collect"]);
    ids.allocate("app=db;").await.unwrap().release().await;
    let collected = command(&server, &["collect"]);
    assert_eq!(collected, (true, "1 ids were taken back, 1 are left\n".to_owned()));
    let (_, json) = command(&server, &["--json", "list"]);
    assert!(json.contains("\"key\": \"app=web;\""), "{json}");
    assert!(!json.contains("app=db;"), "{json}");
    let mut client = server.client().await;
    client.put(format!("{PREFIX}i/{:016x}", 12), "k nobody", None).await.unwrap();
    let (_, listed) = command(&server, &["list"]);
    assert!(listed.contains("wrong: the id 12 is a key's"), "{listed}");
}
