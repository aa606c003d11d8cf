//! The store inside a replicated log: three real openraft nodes, and what goes wrong with them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cluster;
#[cfg(feature = "ids")]
mod ids;
mod once;
mod stopped;
mod storage;
mod types;

use std::{future::Future, time::Duration};

use openraft::{AsyncRuntime, type_config::TypeConfigExt};
use openraft_rt_sim::SimRuntime;
use raft_autopilot::{
    runtime::Runtime,
    store::{
        Compare, KeyRange, LeaseKeeper, LeaseStatus, Limits, Op, RangeRequest, Refusal, Store as _,
        StoreError, Txn, Update, Watch,
        machine::{Command, Config, Outcome},
        mirror::{self, Mirror},
        replicated::{Applied, Entry, Proposal, Replica, Stamp},
        suite,
    },
};

use cluster::{Cluster, Store};
use types::Sim;

fn simulate<F: Future<Output = ()> + Send + 'static>(seed: u64, test: F) {
    // Shown where it fails.
    println!("seed {seed}");
    SimRuntime::with_seed(seed).block_on(test);
}

async fn sleep(millis: u64) {
    Sim::sleep(Duration::from_millis(millis)).await;
}

#[test]
fn a_leading_node_keeps_the_contract() {
    simulate(1, async {
        let cluster = Cluster::start().await;
        let leader = cluster.leader().await;
        suite::run(cluster.node(leader).store, cluster.runtime(), "suite/").await;
    });
}

#[test]
fn a_following_node_keeps_the_contract() {
    simulate(2, async {
        let cluster = Cluster::start().await;
        let follower = cluster.follower().await;
        suite::run(cluster.node(follower).store, cluster.runtime(), "suite/").await;
    });
}

#[test]
fn the_contract_holds_while_leaders_are_killed() {
    for seed in [3, 33, 34, 35] {
        simulate(seed, async move {
            let cluster = Cluster::start().await;
            let here = cluster.follower().await;
            // Each time at other moments of the suite.
            cluster.kill_leaders(here, Duration::from_millis(1_300 + 100 * (seed % 8)));
            suite::run(cluster.node(here).store, cluster.runtime(), "suite/").await;
        });
    }
}

async fn count(store: &Store, key: &str) -> u64 {
    let found = store.range(RangeRequest::new(KeyRange::key(key))).await.unwrap();
    found.items.first().map_or(0, |kv| kv.version)
}

#[test]
fn a_proposal_that_is_sent_again_is_done_once() {
    simulate(4, async {
        let cluster = Cluster::start().await;
        cluster.lose_every(Some(2));
        let store = cluster.node(cluster.follower().await).store;
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let store = store.clone();
            tasks.push(Sim::spawn(async move {
                for _ in 0..20 {
                    store.commit(Txn::new([Op::put("count", "")])).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        cluster.lose_every(None);
        assert_eq!(count(&store, "count").await, 160);
    });
}

#[test]
fn what_was_answered_survives_every_node() {
    simulate(5, async {
        let cluster = Cluster::start().await;
        let store = cluster.node(1).store;
        for number in 0..130 {
            store.commit(Txn::new([Op::put(format!("{number:03}"), "")])).await.unwrap();
        }
        drop(store);
        for id in 1..=3 {
            cluster.kill(id).await;
        }
        for id in 1..=3 {
            cluster.boot(id).await;
        }
        cluster.leader().await;
        for id in 1..=3 {
            let store = cluster.node(id).store;
            let all = store.range(RangeRequest::new(KeyRange::all())).await.unwrap();
            assert_eq!(all.items.len(), 130, "on node {id}");
        }
    });
}

#[test]
fn a_node_that_was_away_is_told_all_or_that_it_is_compacted() {
    simulate(6, async {
        let cluster = Cluster::start().await;
        let away = cluster.follower().await;
        let store = cluster.node(away).store;
        let mut watch = store.watch(KeyRange::all(), 0).await.unwrap();
        cluster.isolate(away);
        let other = cluster.node(cluster.leader().await).store;
        let mut last = 0;
        for number in 0..200 {
            last =
                other.commit(Txn::new([Op::put("a", number.to_string())])).await.unwrap().revision;
        }
        cluster.heal();
        // It gets a snapshot, which holds the history too.
        let mut told = Vec::new();
        while told.last() != Some(&last) {
            if let Update::Events(events) = watch.next().await.unwrap() {
                told.push(events.revision);
            }
        }
        assert_eq!(told, ((last - 199)..=last).collect::<Vec<_>>());
        // A snapshot that holds no history.
        let away = cluster.follower().await;
        let mut watch = cluster.node(away).store.watch(KeyRange::all(), 0).await.unwrap();
        cluster.isolate(away);
        let other = cluster.node(cluster.leader().await).store;
        for number in 0..200 {
            last =
                other.commit(Txn::new([Op::put("a", number.to_string())])).await.unwrap().revision;
        }
        other.compact(last).await.unwrap();
        cluster.heal();
        let end = loop {
            match watch.next().await {
                Ok(Update::Events(events)) => assert!(events.revision < last, "all was told"),
                Ok(Update::Progress(_)) => {}
                Err(end) => break end,
            }
        };
        assert!(end.is_compacted(), "{end}");
    });
}

#[test]
fn a_node_without_quorum_changes_nothing_and_says_so() {
    simulate(7, async {
        let cluster = Cluster::start().await;
        let leader = cluster.leader().await;
        let store = cluster.node(leader).store;
        store.commit(Txn::new([Op::put("a", "1")])).await.unwrap();
        cluster.isolate(leader);
        let start = cluster.runtime().now();
        let lost = store.commit(Txn::new([Op::put("a", "2")])).await;
        let open = matches!(lost, Err(StoreError::Unknown(_) | StoreError::Retry(_)));
        assert!(open, "{lost:?}");
        let read = store.range(RangeRequest::new(KeyRange::key("a"))).await;
        assert!(matches!(read, Err(StoreError::Retry(_))), "{read:?}");
        assert!(cluster.runtime().now().saturating_sub(start) < Duration::from_secs(12));
        let other = cluster.node(cluster.leader().await).store;
        assert_eq!(count(&other, "a").await, 1);
        cluster.heal();
        sleep(1_000).await;
        store.commit(Txn::new([Op::put("a", "3")])).await.unwrap();
        assert_eq!(count(&other, "a").await, 2);
    });
}

#[test]
fn a_lease_that_is_kept_alive_outlives_its_leader() {
    simulate(8, async {
        let cluster = Cluster::start().await;
        let here = cluster.follower().await;
        let store = cluster.node(here).store;
        let ttl = Duration::from_secs(3);
        let keeper = LeaseKeeper::grant(store.clone(), cluster.runtime(), ttl).await.unwrap();
        store.commit(Txn::new([Op::put_leased("a", "", keeper.id())])).await.unwrap();
        for _ in 0..3 {
            let leader = cluster.leader().await;
            cluster.isolate(leader);
            sleep(1_500).await;
            cluster.heal();
            sleep(4_000).await;
            assert_ne!(keeper.status(), LeaseStatus::Lost);
            assert_eq!(count(&store, "a").await, 1);
        }
        // Nobody keeps it: it ends on every node, and no sooner than it may.
        let other = cluster.node(cluster.leader().await).store;
        let mut watch = other.watch(KeyRange::all(), 0).await.unwrap();
        let until = keeper.until();
        drop(keeper);
        loop {
            if let Update::Events(_) = watch.next().await.unwrap() {
                break;
            }
        }
        assert!(cluster.runtime().now() >= until);
        assert_eq!(count(&store, "a").await, 0);
    });
}

#[test]
fn a_cut_off_leader_does_not_end_a_lease_early() {
    for seed in 10..18 {
        simulate(seed, async move {
            let cluster = Cluster::start().await;
            let first = cluster.leader().await;
            let store = cluster.node(first).store;
            store.commit(Txn::new([Op::put("a", "")])).await.unwrap();
            sleep(20_000).await;
            // It thinks that much time has passed; those who follow it begin anew.
            cluster.isolate(first);
            sleep(1_000 + seed * 77).await;
            let second = cluster.node(cluster.leader().await).store;
            let before = cluster.runtime().now();
            let ttl = Duration::from_secs(4);
            let lease = second.grant(ttl, None).await.unwrap().id;
            second.commit(Txn::new([Op::put_leased("leased", "", lease)])).await.unwrap();
            let mut watch = second.watch(KeyRange::key("leased"), 0).await.unwrap();
            cluster.heal();
            for _ in 0..20 {
                let _ = store.commit(Txn::new([Op::put("a", "")])).await;
                sleep(37).await;
            }
            loop {
                if let Update::Events(_) = watch.next().await.unwrap() {
                    break;
                }
            }
            let lived = cluster.runtime().now().saturating_sub(before);
            assert!(lived >= ttl && lived < ttl * 2, "it lived {lived:?}");
        });
    }
}

#[test]
fn a_snapshot_that_is_not_whole_is_refused() {
    let replica = Replica::new();
    let stamp = Stamp { leader: 7, at: Duration::from_secs(1) };
    assert_eq!(replica.apply(Entry::Lead(7)), Applied::Done(Ok(Outcome::Done)));
    let propose = |client, number| {
        let command = Command::Txn(Txn::new([Op::put("a", vec![1; 1000])]));
        let since = Duration::ZERO;
        Entry::Propose(Proposal { client, number, floor: number, since, stamp, command })
    };
    for client in 1..=200 {
        assert!(matches!(replica.apply(propose(client, 0)), Applied::Done(Ok(_))));
    }
    let parts: Vec<_> = replica.freeze().parts().collect();
    let restored = replica.restore(parts.clone()).unwrap();
    assert_eq!(restored.parts().collect::<Vec<_>>(), parts);
    for missing in 0..parts.len() {
        let mut some = parts.clone();
        some.remove(missing);
        assert!(replica.restore(some).is_err(), "without part {missing}");
        let mut more = parts.clone();
        more.insert(missing, parts[missing].clone());
        assert!(replica.restore(more).is_err(), "with part {missing} twice");
    }
    // Another copy that goes on from it gives the same answers, old ones included.
    let other = Replica::new();
    other.install(restored);
    for entry in [propose(3, 0), propose(3, 1), propose(3, 0), Entry::Lead(8), propose(4, 1)] {
        assert_eq!(other.apply(entry.clone()), replica.apply(entry));
    }
    assert_eq!(other.apply(propose(3, 0)), Applied::Forgotten);
    assert_eq!(other.apply(propose(5, 1)), Applied::Stale);
}

#[test]
fn a_mirror_comes_to_every_revision_though_the_leader_is_far_away() {
    simulate(31, async {
        let cluster = Cluster::start().await;
        let here = cluster.node(cluster.follower().await).store;
        let there = cluster.node(cluster.leader().await).store;
        // The mirror asks for progress more often than it can be answered.
        cluster.slow_down(Duration::from_millis(150));
        let (range, options) = (KeyRange::prefix("shown/"), mirror::Options::default());
        let mirror = Mirror::open(here, cluster.runtime(), range, |_| Ok(()), options);
        let mirror = mirror.await.unwrap();
        for _ in 0..5 {
            let put = Txn::new([Op::put("elsewhere", "")]);
            let revision = there.commit(put).await.unwrap().revision;
            tokio::select! {
                biased;
                view = mirror.wait(revision) => assert!(view.unwrap().revision() >= revision),
                () = sleep(2_000) => panic!("it waits for ever"),
            }
        }
        mirror.check();
        sleep(2_000).await;
        assert_eq!(mirror.status().checks, 1);
    });
}

#[test]
fn all_copies_are_configured_at_one_place_of_the_log() {
    simulate(32, async {
        let cluster = Cluster::start().await;
        let limits = Limits { operations: 2, ..Limits::default() };
        let config = Config { limits, history_len: 3, ..Config::default() };
        cluster.node(cluster.follower().await).store.configure(config).await.unwrap();
        let puts = |count: u64| Txn::new((0..count).map(|key| Op::put(key.to_string(), "")));
        for id in 1..=3 {
            let store = cluster.node(id).store;
            // Once it has seen what was answered before.
            store.range(RangeRequest::new(KeyRange::key("0"))).await.unwrap();
            assert_eq!(store.limits(), limits, "on node {id}");
            let refused = store.commit(puts(3)).await;
            let refused =
                matches!(refused, Err(StoreError::Refused(Refusal::TooManyOperations { .. })));
            assert!(refused, "on node {id}");
            store.commit(puts(2)).await.unwrap();
        }
    });
    // A copy that begins with a snapshot judges as the one that made it.
    let first = Replica::new();
    let stamp = Stamp { leader: 7, at: Duration::ZERO };
    let propose = |number, command| {
        Entry::Propose(Proposal {
            client: 1,
            number,
            floor: number,
            since: stamp.at,
            stamp,
            command,
        })
    };
    let put = || Command::Txn(Txn::new([Op::put("a", "")]));
    let limits = Limits { operations: 1, ..Limits::default() };
    let config = Config { limits, history_len: 2, ..Config::default() };
    for entry in [Entry::Lead(7), propose(1, Command::Configure(config))] {
        assert_eq!(first.apply(entry), Applied::Done(Ok(Outcome::Done)));
    }
    let second = Replica::new();
    second.install(second.restore(first.freeze().parts()).unwrap());
    let old = RangeRequest::new(KeyRange::key("a")).at(1);
    let read = || Command::Txn(Txn::new([Op::Txn(Txn::new([Op::Range(old.clone())]))]));
    for (number, command) in [(2, put()), (3, put()), (4, put()), (5, read()), (6, Command::Tick)] {
        let entry = propose(number, command);
        assert_eq!(first.apply(entry.clone()), second.apply(entry));
        assert!(first.freeze().parts().eq(second.freeze().parts()));
    }
}

#[test]
fn one_of_many_takes_a_lock() {
    simulate(30, async {
        let cluster = Cluster::start().await;
        let mut tasks = Vec::new();
        for id in 1..=3 {
            let store = cluster.node(id).store;
            tasks.push(Sim::spawn(async move {
                let mut taken = 0;
                for number in 0..30 {
                    let key = KeyRange::key(format!("lock/{number}"));
                    let take = Txn::when([Compare::absent(key)])
                        .and_then([Op::put(format!("lock/{number}"), id.to_string())]);
                    taken += u64::from(store.commit(take).await.unwrap().succeeded);
                }
                taken
            }));
        }
        let mut taken = 0;
        for task in tasks {
            taken += task.await.unwrap();
        }
        assert_eq!(taken, 30);
    });
}
