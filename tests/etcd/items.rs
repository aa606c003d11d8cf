//! The items over a real etcd that is killed and started again, members that leave and come, and the
//! command that looks at them.

use std::{process::Command, time::Duration};

use raft_autopilot::{
    allocator::{
        Allocator, AllocatorError, Handle, Happening, Left, Options, Report, Task, Worker,
        plain::{Plain, PlainItem, PlainMember, PlainState},
    },
    runtime::TokioRuntime,
    store::{KeyRange, Op, RangeRequest, Store, Txn, etcd::Etcd},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::server::{PATIENCE, Server};

const ROOT: &str = "/items";
const ITEMS: usize = 300;

struct Copies;

impl Worker<Plain> for Copies {
    async fn happens(&self, task: Task<Plain>) {
        if let Happening::Assigned { .. } = task.happening {
            // It may have gone elsewhere meanwhile.
            let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
        }
    }
}

struct Member {
    handle: Handle<Plain>,
    drain: oneshot::Sender<()>,
    task: JoinHandle<Result<Left, AllocatorError>>,
}

fn start(store: &Etcd, zone: &str, name: &str) -> Member {
    let value = PlainMember { limit: 1_000, ..PlainMember::default() };
    // Longer than any pause of a machine that is busy with other things.
    let options = Options { ttl: PATIENCE, ..Options::new(ROOT, zone, name, value) };
    let made = Allocator::new(store.clone(), TokioRuntime, Plain, Copies, options);
    let (mut allocator, handle) = made.unwrap();
    let (drain, told) = oneshot::channel::<()>();
    let told = async {
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Member { handle, drain, task: tokio::spawn(async move { allocator.run(told).await }) }
}

async fn settled(leader: &Member, members: usize) -> std::sync::Arc<Report> {
    let settled = leader.handle.report_when(|report| {
        let working = report.members.iter().filter(|member| member.load > 0).count();
        report.is_settled() && report.assignments == 2 * ITEMS && working == members
    });
    tokio::time::timeout(PATIENCE, settled).await.expect("it settles").unwrap()
}

fn loads(report: &Report) -> Vec<u32> {
    report.members.iter().map(|member| member.load).filter(|load| *load > 0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_placed_and_moved_while_etcd_is_killed_and_comes_back() {
    let mut server = Server::start().await;
    let store = server.store().await;
    let value = serde_json::to_vec(&PlainItem { replication: 2, zones: None }).unwrap();
    let ops: Vec<Op> = (0..ITEMS)
        .map(|item| Op::put(format!("{ROOT}/items/i{item:03}"), value.as_slice()))
        .collect();
    for ops in ops.chunks(100) {
        store.commit(Txn::new(ops.iter().cloned())).await.unwrap();
    }
    let one = start(&store, "a", "one");
    one.handle.report_when(|_| true).await.unwrap();
    let (two, three) = (start(&store, "b", "two"), start(&store, "c", "three"));
    assert_eq!(loads(&*settled(&one, 3).await), [200, 200, 200]);
    // In the middle of what a fourth one sets going.
    let four = start(&store, "b", "four");
    four.handle.changed(raft_autopilot::allocator::Status::Joining).await;
    server.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart();
    server.ready().await;
    assert_eq!(loads(&*settled(&one, 4).await), [150, 150, 150, 150]);
    // The oldest goes, and another one leads.
    one.drain.send(()).unwrap();
    assert_eq!(one.task.await.unwrap(), Ok(Left::default()));
    let next = [&two, &three, &four].into_iter().map(|member| {
        let handle = member.handle.clone();
        Box::pin(async move { handle.report_when(|_| true).await })
    });
    let (found, _, _) = futures_util::future::select_all(next).await;
    let leader = found.unwrap().leader.clone().unwrap();
    let leader = [&two, &three, &four].into_iter().find(|m| *m.handle.member() == leader).unwrap();
    // Two zones are left, and each has a replica of every item.
    assert_eq!(loads(&*settled(leader, 3).await), [150, 150, 300]);
    for number in 0..ITEMS {
        let route = two.handle.route(&format!("i{number:03}")).unwrap();
        assert!(route.ready && route.primary().is_some(), "{route:?}");
    }
    look_with_the_command(&server);
    for member in [two, three, four] {
        member.task.abort();
    }
}

/// Makes all consistent that is not, until so much is held as is meant to be at that revision.
async fn made_good(store: &Etcd, leader: &Member, replicas: usize, revision: u64) {
    let range = KeyRange::prefix(format!("{ROOT}/assign/"));
    let made = async {
        loop {
            let found = store.range(RangeRequest::new(range.clone())).await.unwrap();
            let new = found.items.iter().filter(|kv| kv.value.is_empty());
            let good = new.map(|kv| Op::put_leased(&kv.key, r#"{"consistent":true}"#, kv.lease));
            for some in good.collect::<Vec<Op>>().chunks(100) {
                store.commit(Txn::new(some.iter().cloned())).await.unwrap();
            }
            let report = leader.handle.report().filter(|report| report.revision >= revision);
            let good = report.filter(|report| report.is_settled() && report.copying == 0);
            if good.is_some_and(|report| report.assignments == replicas) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.expect("it settles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_of_a_hundred_replicas_loses_some_and_moves_all() {
    let server = Server::start().await;
    let store = server.store().await;
    // Nobody but the leader runs; who holds what is the same.
    let leader = start(&store, "a", "leader");
    leader.handle.report_when(|_| true).await.unwrap();
    let put = async |ops: Vec<Op>| {
        let mut revision = 0;
        for some in ops.chunks(100) {
            revision = store.commit(Txn::new(some.iter().cloned())).await.unwrap().revision;
        }
        revision
    };
    let members = |numbers: std::ops::Range<usize>, exiting: bool| {
        let value = format!(r#"{{"limit":1,"exiting":{exiting}}}"#);
        let key = |number| format!("{ROOT}/members/{}#m{number:03}", ["a", "b"][number % 2]);
        numbers.map(|number| Op::put(key(number), value.as_str())).collect::<Vec<Op>>()
    };
    let item = |replication: usize| {
        vec![Op::put(format!("{ROOT}/items/i"), format!(r#"{{"replication":{replication}}}"#))]
    };
    put(members(0..120, false)).await;
    for replicas in [100, 60, 100] {
        let revision = put(item(replicas)).await;
        made_good(&store, &leader, replicas, revision).await;
    }
    put(members(120..240, false)).await;
    let revision = put(members(0..120, true)).await;
    made_good(&store, &leader, 100, revision).await;
    let route = leader.handle.route("i").unwrap();
    let moved = route.hops.iter().filter(|hop| *hop.member.member >= *"m120");
    assert!(route.ready && route.primary().is_some() && moved.count() >= 99, "{route:?}");
    leader.task.abort();
}

#[cfg(feature = "cli")]
fn look(server: &Server, more: &[&str]) -> Command {
    let address = format!("http://{}", server.socket());
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft-autopilot"));
    command.args(["items", "--etcd", &address, "--root", ROOT]).args(more);
    command
}

#[cfg(feature = "cli")]
fn look_with_the_command(server: &Server) {
    let run = |more: &[&str]| {
        let output = look(server, more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run(&[]);
    assert_eq!(code, Some(0));
    assert!(text.contains("300 items, 600 replicas"), "{text}");
    assert!(text.contains("items: 300 stand as they are meant to"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("150 of 1000")).count(), 2, "{text}");
    let (_, json) = run(&["--json"]);
    let report: Report = serde_json::from_str(&json).unwrap();
    assert!(report.is_settled() && report.certificate.is_best());
    // What makes no sense is not looked for.
    for bad in [["--zone-rule", "0"], ["--every", "0s"]] {
        assert_eq!(run(&bad).0, Some(2));
    }
}

#[cfg(feature = "cli")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_reads_all_that_plans_depend_on_and_says_what_makes_no_sense() {
    let server = Server::start().await;
    let store = server.store().await;
    let put = |key: &str, value: &str| Op::put(format!("{ROOT}/{key}"), value);
    let mut ops = vec![
        put("members/a#one", r#"{"limit":9}"#),
        put("members/b#two", r#"{"limit":9,"share":-1}"#),
        put("members/c#three", r#"{"limit":0,"share":"all"}"#),
        put("items/bad", r#"{"replication":1,"zones":"a"}"#),
        put("assign/gone#a#one#0", ""),
    ];
    for item in 0..4 {
        ops.push(put(&format!("items/i{item}"), r#"{"replication":1,"zones":["a"]}"#));
        ops.push(put(&format!("assign/i{item}#a#one#0"), r#"{"consistent":true}"#));
    }
    store.commit(Txn::new(ops)).await.unwrap();
    let output = look(&server, &[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for said in [
        "items: 4 stand as they are meant to\n  1 being changed\n",
        "ignored: `/items/items/bad`: its `zones` is no list of names\n",
        "ignored: `/items/members/b#two`: its share is no weight; its limit counts instead\n",
        "ignored: `/items/members/c#three`: its `share` is no number\n",
    ] {
        assert!(text.contains(said), "{text}");
    }
    assert!(text.contains("moving: gone from a#one (being changed): it is deleted\n"), "{text}");
    assert_eq!(text.matches("moving").count(), 1, "{text}");
}

/// The command while it looks again and again.
#[cfg(feature = "cli")]
struct Looking(std::process::Child);

#[cfg(feature = "cli")]
impl Drop for Looking {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(feature = "cli")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_that_what_it_shows_is_old_while_etcd_does_not_answer() {
    use std::io::{BufRead as _, BufReader};

    let mut server = Server::start().await;
    let mut command = look(&server, &["--watch", "--every", "50ms"]);
    let mut looking = Looking(command.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(looking.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("led by nobody")));
    server.kill();
    let said = move || lines.any(|line| line.contains("this is how it stood"));
    let said = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(said)).await;
    assert!(said.expect("it says so").unwrap());
}

#[cfg(not(feature = "cli"))]
fn look_with_the_command(_: &Server) {
    let _ = Command::new("true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_held_ends_with_its_lease_at_one_revision() {
    let server = Server::start().await;
    let store = server.store().await;
    let value = serde_json::to_vec(&PlainItem { replication: 1, zones: None }).unwrap();
    let put = |item: usize| Op::put(format!("{ROOT}/items/i{item}"), value.as_slice());
    store.commit(Txn::new((0..5).map(put))).await.unwrap();
    let one = start(&store, "a", "one");
    let placed = one.handle.report_when(|report| report.is_settled() && report.assignments == 5);
    tokio::time::timeout(PATIENCE, placed).await.unwrap().unwrap();
    let member = KeyRange::key(format!("{ROOT}/members/a#one"));
    let found = store.range(RangeRequest::new(member)).await.unwrap();
    let before = found.revision;
    store.revoke(found.items[0].lease).await.unwrap();
    let ended = one.task.await.unwrap();
    assert!(matches!(ended, Err(AllocatorError::LeaseLost | AllocatorError::Removed(_))));
    let all = KeyRange::prefix(format!("{ROOT}/"));
    let left = store.range(RangeRequest::new(all)).await.unwrap();
    assert_eq!((left.items.len(), left.revision), (5, before + 1), "only the items are left");
}
