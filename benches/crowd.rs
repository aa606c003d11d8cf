//! Many autopilots in one thread, on tokio with its clock paused.

#![allow(dead_code, reason = "each bench and test that includes this file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "a bench or a test may panic")]

use std::{future::pending, time::Duration};

use raft_autopilot::{
    autopilot::{Autopilot, Handle, Options, Running, ServerState},
    promoters::Stable,
    runtime::TokioRuntime,
};
use tokio::runtime::{Builder, Runtime};

use crate::world::{HEARTBEAT, Still};

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Starts an autopilot on the runtime that is entered.
fn start(cluster: Still, tick: Duration) -> Handle {
    let options = Options { update_interval: tick, ..Options::for_heartbeat(HEARTBEAT) };
    let (autopilot, handle) =
        Autopilot::new(cluster, TokioRuntime, Stable::new(), options).unwrap();
    raft_autopilot::runtime::Runtime::spawn(&TokioRuntime, autopilot.run(pending()));
    handle
}

#[expect(clippy::disallowed_methods, reason = "the clock is paused: nobody waits")]
async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// What autopilots that stand by hold together, in bytes.
pub(crate) struct Memory {
    /// All of it: tasks, channels, handles, states.
    pub(crate) bytes: u64,
    /// The states of servers among it.
    pub(crate) servers: u64,
}

/// Measures `count` autopilots on followers of clusters of `size`, after several rounds of each.
pub(crate) fn standing_by(count: usize, size: usize) -> Memory {
    let runtime = paused();
    let cluster = Still::new(size, false);
    let mut handles: Vec<Handle> = Vec::with_capacity(count);
    let allocated = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..count {
                handles.push(start(cluster.clone(), Duration::from_secs(2)));
            }
            sleep(Duration::from_secs(200)).await;
        });
    });
    assert!(handles.iter().all(|handle| handle.running() == Running::StandingBy));
    let states = handles.iter().filter_map(Handle::state);
    let servers: usize = states.map(|state| state.servers.capacity()).sum();
    assert_eq!(servers, count * size, "no state has room to spare");
    Memory {
        bytes: allocated.bytes_current.unsigned_abs(),
        servers: (servers * size_of::<ServerState>()) as u64,
    }
}

/// Autopilots that lead, each a converged cluster of its own.
pub(crate) struct Leading {
    runtime: Runtime,
    clusters: Vec<Still>,
    handles: Vec<Handle>,
}

impl Leading {
    /// Starts `count` of them, spread over one tick, and lets them settle.
    pub(crate) fn start(count: usize, size: usize, tick: Duration) -> Self {
        let runtime = paused();
        let clusters: Vec<Still> = (0..count).map(|_| Still::new(size, true)).collect();
        let mut handles = Vec::with_capacity(count);
        runtime.block_on(async {
            for cluster in &clusters {
                handles.push(start(cluster.clone(), tick));
                sleep(tick / u32::try_from(count).unwrap()).await;
            }
            sleep(tick * 3).await;
        });
        assert!(handles.iter().all(|handle| handle.running() == Running::Leading));
        Self { runtime, clusters, handles }
    }

    /// Lets time pass; how many rounds there were.
    pub(crate) fn pass(&self, time: Duration) -> u64 {
        let observed = || self.clusters.iter().map(Still::observed).sum::<u64>();
        let before = observed();
        self.runtime.block_on(sleep(time));
        assert!(self.handles.iter().all(|handle| handle.running() == Running::Leading));
        observed() - before
    }
}
