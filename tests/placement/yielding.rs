//! Work weighs on who leads: whoever hands its work over gives up leadership first.

use std::{sync::Arc, time::Duration};

use raft_autopilot::{
    allocator::{
        self, Allocator, Happening, Status, Task, Worker,
        plain::{Plain, PlainItem, PlainMember, PlainState},
    },
    autopilot::{Role, Server, Step},
    placement::{LEAVING, LIMIT, Yielding, tag},
    promoters::{Preferred, Stable},
    rehearse::World,
    runtime::{Runtime, TokioRuntime},
    store::{Embedded, machine},
};
use tokio::sync::Notify;

use crate::host::{Host, healthy, until};

/// Voters that are stable, of which the first leads.
fn voters(ids: &[&str]) -> World {
    let mut world = World::new(raft_autopilot::autopilot::Config::default());
    for id in ids {
        world.insert(Server::new(*id, format!("{id}:1")), Role::Voter);
    }
    assert_eq!(world.run(&Stable::new(), Duration::from_secs(60)), []);
    assert_eq!(world.leader(), Some(&ids[0].into()));
    world
}

fn leaves(world: &mut World, id: &str) {
    world.describe(id, |server| {
        server.meta.insert(LEAVING.to_owned(), "yes".to_owned());
    });
}

fn run(world: &mut World) -> Vec<Step> {
    world.run(&Yielding::new(Stable::new()), Duration::from_secs(60))
}

#[test]
fn a_leader_that_leaves_hands_over_to_a_stable_voter_that_stays_and_once() {
    let mut world = voters(&["a", "b", "c"]);
    leaves(&mut world, "a");
    leaves(&mut world, "b");
    assert_eq!(run(&mut world), [Step::Transfer { to: "c".into() }]);
}

#[test]
fn nobody_takes_over_who_is_sick_not_stable_or_no_voter() {
    let mut world = voters(&["a", "b", "c"]);
    world.insert(Server::new("d", "d:1"), Role::Learner);
    leaves(&mut world, "a");
    leaves(&mut world, "b");
    world.kill("c", Duration::ZERO);
    world.pass(Duration::from_secs(1));
    let stands = |world: &mut World| {
        world.run(&Yielding::new(Stable::with_target(3)), Duration::from_secs(5))
    };
    assert_eq!(stands(&mut world), []);
    world.heal("c");
    assert_eq!(stands(&mut world), [], "not before it has been stable again");
    let yielding = Yielding::new(Stable::with_target(3));
    let steps = world.run(&yielding, Duration::from_secs(60));
    assert_eq!(steps, [Step::Transfer { to: "c".into() }]);
}

#[test]
fn where_all_leave_or_nobody_does_leadership_stays() {
    let mut world = voters(&["a", "b", "c"]);
    assert_eq!(run(&mut world), []);
    leaves(&mut world, "b");
    assert_eq!(run(&mut world), [], "it does not lead");
    leaves(&mut world, "a");
    leaves(&mut world, "c");
    assert_eq!(run(&mut world), [], "nobody would be better");
}

#[test]
fn an_inner_promoters_wish_for_one_that_leaves_goes_to_one_that_stays() {
    let mut world = voters(&["a", "b", "c"]);
    world.describe("b", |server| server.zone = Some("near".to_owned()));
    let near = Yielding::new(Preferred::new(Stable::new()).zone("near"));
    leaves(&mut world, "b");
    leaves(&mut world, "a");
    let steps = world.run(&near, Duration::from_secs(600));
    assert_eq!(steps, [Step::Transfer { to: "c".into() }], "and it comes to rest there");
}

/// Takes its time until a replica is ready.
struct Slow;

impl Worker<Plain> for Slow {
    async fn happens(&self, task: Task<Plain>) {
        if let Happening::Assigned { .. } = task.happening {
            TokioRuntime.sleep(Duration::from_secs(5)).await;
            // It may have gone elsewhere meanwhile.
            let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
        }
    }
}

fn load(handle: &allocator::Handle<Plain>, id: &str) -> Option<u32> {
    let report = handle.report()?;
    report.members.iter().find(|member| &*member.key.member == id).map(|member| member.load)
}

/// The tags come from the store, as an application's do.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_told_to_leave_gives_up_leadership_while_it_still_holds_items() {
    let store = Embedded::new(machine::Config::default(), TokioRuntime);
    let mut members = Vec::new();
    let told = Arc::new(Notify::new());
    // Whoever is there first plans: not the one that leaves.
    for id in ["2", "3", "1"] {
        let value = PlainMember { limit: 100, ..PlainMember::default() };
        let item = PlainItem { replication: 1, zones: None };
        let options = allocator::Options {
            fixed_items: (0..30).map(|number| (format!("i{number:02}"), item.clone())).collect(),
            ..allocator::Options::new("/work", "default", id, value)
        };
        let made = Allocator::new(store.clone(), TokioRuntime, Plain, Slow, options);
        let (mut member, handle) = made.unwrap();
        let told = Arc::clone(&told);
        TokioRuntime.spawn(async move {
            let leaves = async {
                if id == "1" {
                    told.notified().await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            drop(member.run(leaves).await);
        });
        while handle.status() != Status::Active {
            handle.changed(handle.status()).await;
        }
        members.push(handle);
    }
    let planner = members[0].clone();
    until("all share all items", || {
        planner.report().is_some_and(|report| report.is_settled())
            && load(&planner, "1") == Some(10)
    })
    .await;
    let host = Host::new("1 leader\n2\n3");
    let autopilot = host.run(Yielding::new(Stable::new()), |_| {});
    healthy(&autopilot).await;
    TokioRuntime.sleep(Duration::from_secs(20)).await;
    let describe = || {
        let view = planner.view().unwrap();
        for sighting in &mut host.inner().world.seen.servers {
            tag(Arc::make_mut(&mut sighting.server), planner.keys(), &view);
        }
        host.0.1.notify_one();
    };
    describe();
    TokioRuntime.sleep(Duration::from_secs(5)).await;
    let limit = autopilot.state().unwrap().servers[0].tag(LIMIT).map(str::to_owned);
    assert_eq!((limit.as_deref(), host.done()), (Some("100"), Vec::new()));
    told.notify_one();
    until("it hands leadership over", || {
        describe();
        !host.done().is_empty()
    })
    .await;
    // To whoever stays; this host does not follow it up.
    assert_eq!(host.done()[0], "transfer leadership to 2");
    assert!(load(&planner, "1") > Some(0), "it still holds some of its items");
    until("it holds nothing", || load(&planner, "1").is_none_or(|load| load == 0)).await;
}
