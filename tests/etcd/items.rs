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

#[cfg(feature = "cli")]
fn look_with_the_command(server: &Server) {
    let run = |more: &[&str]| {
        let address = format!("http://{}", server.socket());
        let output = Command::new(env!("CARGO_BIN_EXE_raft-autopilot"))
            .args(["items", "--etcd", &address, "--root", ROOT])
            .args(more)
            .output()
            .unwrap();
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
    // By another rule it would look otherwise.
    let (code, _) = run(&["--zone-rule", "0"]);
    assert_eq!(code, Some(2));
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
