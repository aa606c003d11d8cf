//! How quickly autopilot acts, in simulated time, measured against what really happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::async_runtime::WatchReceiver;
use openraft_rt_sim::SimRuntime;
use raft_autopilot::autopilot::{Config, Server, State, Verdict};

use crate::autopilot::{self, name};
use crate::character::{Character, ELECTION, HEARTBEAT};
use crate::types::{address, clock, sleep};
use crate::world::World;

/// How many seeds each measurement takes.
const SEEDS: u64 = 100;
/// How closely the measurements look.
const LOOK: Duration = Duration::from_micros(100);

/// A cluster that is led and has been seen by autopilot, without any fault.
async fn calm(seed: u64, founders: &[u64]) -> Arc<World> {
    let character = Character::calm(founders, Config::for_heartbeat(HEARTBEAT));
    let world = World::new(seed, character, Arc::default(), autopilot::rider());
    world.form(founders).await;
    sleep(Duration::from_secs(2)).await;
    world
}

/// From the moment at which a new server has acknowledged the leader's whole log for as long as
/// `server_stabilization_time` to the entry that gives it a vote being written to the leader's disk.
fn promotion(seed: u64) -> Duration {
    SimRuntime::with_seed(seed).block_on(async {
        let world = calm(seed, &[1, 2, 3]).await;
        let (leader, raft) = world.leader().expect("a leader");
        let handle = world.autopilot(leader).expect("an autopilot");
        world.start(4);
        sleep(Duration::from_millis(seed % 60)).await;
        handle.add(Server::new(name(4), address(4))).await.expect("a learner is added");
        let caught_up = || {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics.replication.as_ref().and_then(|known| known.get(&4).copied());
            matched.flatten().map(|log_id| log_id.index) == metrics.last_log_index
        };
        while !caught_up() {
            sleep(LOOK).await;
        }
        let needed = handle.view().config.server_stabilization_time;
        let eligible = clock() + needed;
        let disk = world.disk(leader).expect("a disk");
        while !disk.last_membership().is_some_and(|last| last.voter_ids().any(|id| id == 4)) {
            sleep(LOOK).await;
        }
        world.end();
        clock().saturating_sub(eligible)
    })
}

#[test]
fn an_eligible_server_is_proposed_as_a_voter_within_a_heartbeat() {
    let mut delays: Vec<Duration> = (0..SEEDS).map(promotion).collect();
    delays.sort();
    let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    println!("eligible to proposed: median {median:?}, worst {worst:?}");
    assert!(worst <= HEARTBEAT, "{worst:?}");
}

/// Whether a leader may act on a state, and has come to a verdict about somebody else in it.
fn has_judged(state: &State) -> bool {
    let others = state.members().filter(|server| server.server.id != state.local);
    let mut judged = others.filter(|server| server.health.verdict != Verdict::Unknown);
    state.may_act() && judged.next().is_some()
}

/// Kills the leader: from its death to another's leading, and from there to that one's first
/// verdict.
fn takeover(seed: u64) -> (Duration, Duration) {
    SimRuntime::with_seed(seed).block_on(async {
        let world = calm(seed, &[1, 2, 3, 4, 5]).await;
        sleep(Duration::from_millis(seed % 60)).await;
        let (old, _) = world.leader().expect("a leader");
        world.crash(old);
        let death = clock();
        let mut led = None;
        loop {
            sleep(LOOK).await;
            let Some((leader, _)) = world.leader() else { continue };
            let begin = *led.get_or_insert(clock());
            let Some(handle) = world.autopilot(leader) else { continue };
            if handle.state().is_some_and(|state| has_judged(&state)) {
                world.end();
                return (begin.saturating_sub(death), clock().saturating_sub(begin));
            }
        }
    })
}

#[test]
fn a_new_leader_has_assessed_its_cluster_when_the_election_ends() {
    let takeovers: Vec<_> = (0..SEEDS).map(takeover).collect();
    let mut elections: Vec<_> = takeovers.iter().map(|(election, _)| *election).collect();
    let mut assessments: Vec<_> = takeovers.iter().map(|(_, assessment)| *assessment).collect();
    elections.sort();
    assessments.sort();
    let last = takeovers.len() - 1;
    println!("election: median {:?}, worst {:?}", elections[last / 2], elections[last]);
    println!("assessed then: median {:?}, worst {:?}", assessments[last / 2], assessments[last]);
    // A follower waits for the old leader's lease and its own election timeout, both at most
    // `election_timeout_max`, looks at them once a heartbeat, and then asks twice for every vote:
    // before it moves the term, and after.
    let votes = 2 * 2 * Duration::from_millis(3) + 2 * Duration::from_millis(2);
    let election = 2 * ELECTION.1 + HEARTBEAT + votes;
    // Then its own first entry goes to the other disks and back, and is applied.
    let entry = 2 * Duration::from_millis(3) + 2 * Duration::from_millis(2);
    assert!(assessments[last] <= entry + 2 * LOOK, "{:?}", assessments[last]);
    // A vote that is split costs another timeout: that is an election more, and counted apart.
    let split = takeovers.iter().filter(|(led, _)| *led > election).count();
    println!("split votes: {split}");
    // None of these seeds has one.
    assert_eq!(split, 0, "took longer than {election:?}");
    let mut single = takeovers.iter().filter(|(led, _)| *led <= election);
    assert!(single.all(|(led, judged)| *led + *judged <= election + entry), "{takeovers:?}");
}

#[test]
fn two_processes_give_the_same_trace() {
    let program = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let traces: BTreeMap<_, _> = ["one", "other"]
        .map(|name| {
            let path = folder.path().join(name);
            let mut command = std::process::Command::new(&program);
            command.args(["--exact", "every_seed_keeps_the_invariants"]);
            command.env("SIM_SEED", "5").env("SIM_TRACE", &path).env_remove("SIM_SEEDS");
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            (name, std::fs::read(path).unwrap())
        })
        .into();
    assert!(traces["one"].len() > 10_000, "the trace is short");
    assert!(traces["one"] == traces["other"], "two processes gave two traces");
}
