//! Votes and work side by side: what is shown while the items of a server move.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use raft_autopilot::{
    allocator::{
        self, Allocator, Happening, Leading, Rules, Standing, Task, Worker,
        plain::{Plain, PlainItem, PlainMember, PlainState},
    },
    autopilot::Server,
    placement::{Options, Picture, Placement},
    promoters::Stable,
    runtime::{Runtime, TokioRuntime},
    store::{Embedded, machine},
};

use crate::{
    host::{Host, until},
    published::{falls_silent, hasty},
};

/// Is ready at once, as long as that is wanted.
struct Copies(Arc<AtomicBool>);

impl Worker<Plain> for Copies {
    async fn happens(&self, task: Task<Plain>) {
        if let Happening::Assigned { .. } = task.happening
            && self.0.load(Ordering::Relaxed)
        {
            // It may have gone elsewhere meanwhile.
            let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_item_that_moves_is_shown_with_the_verdict_that_moves_it() {
    let store = Embedded::new(machine::Config::default(), TokioRuntime);
    let options = Options::new("/standings");
    let (placement, handle) =
        Placement::new(store.clone(), TokioRuntime, hasty(), options).unwrap();
    let copies = Arc::new(AtomicBool::new(true));
    let item = PlainItem { replication: 2, zones: None };
    let members: Vec<allocator::Handle<Plain>> = ["1", "2", "3", "4", "5"]
        .into_iter()
        .map(|id| {
            let value = PlainMember { limit: 400, ..PlainMember::default() };
            let standings = Some(handle.standings());
            let options = allocator::Options {
                fixed_items: (100..400)
                    .map(|number| (format!("i{number}"), item.clone()))
                    .collect(),
                leading: Leading { standings, ..Leading::default() },
                ..allocator::Options::new("/work", "default", id, value)
            };
            let worker = Copies(Arc::clone(&copies));
            let made = Allocator::new(store.clone(), TokioRuntime, Plain, worker, options);
            let (mut member, handle) = made.unwrap();
            TokioRuntime.spawn(async move { drop(member.run(std::future::pending()).await) });
            handle
        })
        .collect();
    let host = Host::new("1 leader\n2\n3\n4\n5");
    let autopilot = host.run(Stable::new(), |options| options.config.cleanup_dead_servers = false);
    let (told, member) = (autopilot.clone(), members[0].clone());
    TokioRuntime.spawn(async move { drop(placement.run(told, member).await) });
    let plans = || members.iter().find(|member| member.report().is_some());
    let shown = |by: &allocator::Handle<Plain>| {
        let state = autopilot.view().state.clone()?;
        let servers: Vec<&Server> = state.servers.iter().map(|server| &*server.server).collect();
        Picture::new(&handle.published(), by, &Rules::default(), servers)
    };
    until("all hold all items", || {
        plans().and_then(shown).is_some_and(|picture| {
            picture.cluster.doing.is_empty() && picture.servers.values().all(|one| one.items == 120)
        })
    })
    .await;
    copies.store(false, Ordering::Relaxed);
    falls_silent(&host, "3");
    TokioRuntime.sleep(Duration::from_secs(10)).await;
    let planner = plans().unwrap();
    let onlooker = members.iter().find(|member| member.report().is_none()).unwrap();
    for by in [planner, onlooker] {
        let picture = shown(by).unwrap();
        let sick = &picture.servers["3"];
        assert_eq!((sick.standing, sick.items, sick.stands), (Standing::Gone, 120, true));
        assert!(sick.why.contains("contact lost"), "{}", sick.why);
        let why = format!("default#3 holds nothing by its standing: {}", sick.why);
        let cluster = picture.cluster;
        assert_eq!(cluster.reasons[&why], 120, "{:?}", cluster.reasons);
        assert_eq!(cluster.moving.len(), 100, "so many are named");
        // Whoever is to hold it instead does so already, and is not consistent.
        for moving in &cluster.moving {
            assert_eq!(moving.contains(" from default#3"), moving.ends_with(&why), "{moving}");
        }
    }
}
