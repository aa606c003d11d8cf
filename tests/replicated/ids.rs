//! The ids over the store of three nodes, whose leaders are killed: every node agrees with every
//! other.

use std::time::Duration;

use raft_autopilot::{
    ids::{Collector, CollectorOptions, Handle, IdRange, Ids, IdsError, Options, Status},
    runtime::Runtime,
};

use super::{cluster::Cluster, simulate, sleep};

#[allow(dead_code, reason = "the stress in virtual time uses more of it")]
#[path = "../ids/checker.rs"]
mod checker;

const PREFIX: &str = "ids/";

fn options(node: u64) -> Options {
    Options {
        node: format!("node{node}").into(),
        range: Some(IdRange::new(1, 40).unwrap()),
        ttl: Duration::from_secs(5),
        request_timeout: Duration::from_secs(2),
        seed: Some(node),
        ..Options::default()
    }
}

#[test]
fn nodes_agree_on_ids_while_leaders_are_killed() {
    simulate(11, async {
        let cluster = Cluster::start().await;
        let runtime = cluster.runtime();
        let here = cluster.follower().await;
        let store = cluster.node(here).store;
        cluster.kill_leaders(here, Duration::from_secs(2));
        let mut nodes = Vec::new();
        for node in 1..=3 {
            // Each with a session of its own, all through the one node that lives.
            let ids = Ids::open(store.clone(), runtime.clone(), PREFIX, options(node));
            nodes.push(ids.await.unwrap());
        }
        let collecting = CollectorOptions { grace: Duration::ZERO, ..CollectorOptions::default() };
        let collector =
            Collector::open(store.clone(), runtime.clone(), PREFIX, collecting).await.unwrap();
        runtime.spawn(collector.run(std::future::pending()));
        let mut held: Vec<(usize, Handle)> = Vec::new();
        for round in 0..300_usize {
            let node = round % 3;
            match nodes[node].allocate(format!("key/{}", round * 7 % 25)).await {
                Ok(handle) => held.push((node, handle)),
                Err(IdsError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
            if held.len() > 20 {
                drop(held.swap_remove(round * 11 % 20));
            }
            let firm = |held: &[(usize, Handle)]| -> Vec<(u64, Vec<u8>, u64)> {
                let firm = held.iter().filter(|(_, handle)| handle.status() == Status::Held);
                firm.map(|(_, handle)| {
                    (handle.id(), handle.key().to_vec(), handle.generation().revision)
                })
                .collect()
            };
            let before = firm(&held);
            let found = checker::snapshot(&store, PREFIX).await;
            let after = firm(&held);
            assert_eq!(found.faults(), Vec::<String>::new());
            for (id, key, revision) in before.into_iter().filter(|held| after.contains(held)) {
                let mapping = found.mappings.values().find(|mapping| mapping.1 == key);
                assert_eq!(mapping, Some(&(id, key, revision)), "at revision {}", found.revision);
            }
            sleep(20).await;
        }
    });
}
