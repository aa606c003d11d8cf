//! What a round and an autopilot may cost: allocations, bytes and rounds, never time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use raft_autopilot::{
    autopilot::{Autopilot, Options, ServerState},
    promoters::Stable,
    runtime::TokioRuntime,
};

#[path = "../benches/crowd.rs"]
mod crowd;
#[path = "../benches/world.rs"]
mod world;

use world::{Case, Rounds, SIZES, Still};

#[test]
fn a_converged_round_allocates_the_new_state_and_nothing_else() {
    for size in SIZES {
        let mut rounds = Rounds::new(size, Case::Converged, Stable::new());
        let allocated = allocation_counter::measure(|| {
            drop(rounds.next());
        });
        assert_eq!(allocated.count_total, 1, "{size} servers");
        let servers = size * size_of::<ServerState>();
        assert_eq!(allocated.bytes_total, servers as u64, "{size} servers");
    }
}

#[test]
fn a_round_with_one_change_allocates_no_more_in_a_larger_cluster() {
    for case in [Case::Promotion, Case::DeadVoter] {
        let allocations = |size| {
            let mut rounds = Rounds::new(size, case, Stable::new());
            let allocated = allocation_counter::measure(|| {
                drop(rounds.next());
            });
            allocated.count_total
        };
        assert_eq!(allocations(5), allocations(1000), "{case:?}");
    }
}

#[test]
fn a_round_with_one_change_allocates_the_new_state_and_the_change() {
    for case in [Case::Promotion, Case::DeadVoter] {
        let mut rounds = Rounds::new(5, case, Stable::new());
        let mut planned = None;
        let allocated = allocation_counter::measure(|| planned = Some(rounds.next()));
        // The servers of the state; of the change the list that it stands in, and the list of
        // those whom its step names.
        assert_eq!(allocated.count_total, 1 + 2, "{case:?}");
        assert_eq!(allocated.count_current, 2, "{case:?}: the old state goes, all else is kept");
        let beyond = allocated.bytes_total - (5 * size_of::<ServerState>()) as u64;
        assert!(beyond < 640, "{case:?}: {beyond} bytes");
    }
}

#[test]
fn an_autopilot_that_stands_by_takes_less_than_four_kibibytes_beside_the_state_of_its_servers() {
    let memory = crowd::standing_by(1000, 5);
    let each = (memory.bytes - memory.servers) / 1000;
    assert!(each < 4096, "{each} bytes each");
}

#[test]
fn a_leader_of_a_converged_cluster_looks_once_a_slow_tick() {
    let tick = Duration::from_secs(10);
    let crowd = crowd::Leading::start(20, 5, tick);
    assert_eq!(crowd.pass(tick * 30), 20 * 30);
}

#[test]
fn a_driver_whose_rounds_would_be_too_far_apart_is_refused_by_name() {
    let heartbeat = Duration::from_millis(50);
    let mut options = Options::for_heartbeat(heartbeat);
    options.update_interval = Duration::from_secs(31);
    let made = Autopilot::new(Still::new(3, true), TokioRuntime, Stable::new(), options);
    let refused = made.map(drop).unwrap_err().to_string();
    assert!(refused.starts_with("update_interval is 31s, and must be from 50ms to 30s; "));
}
