//! Half of the members are replaced, a tenth at a time, as Gazette's own benchmark does it.

use raft_autopilot::store::{LeaseId, Op};

use crate::{
    cluster::{Cluster, Spent, items, member, member_key},
    ledger::{Faults, Ledger},
    replay::Beside,
};

/// The old ones' limit, and the new ones'.
const LIMITS: (usize, usize) = (1_500, 1_205);

const STEPS: usize = 5;

/// What a run took.
pub(crate) struct Sums {
    pub(crate) spent: Spent,
    pub(crate) raw: Spent,
    /// With fences and a watcher: what etcd does for any leader.
    pub(crate) fenced: Spent,
    pub(crate) moves: u64,
    pub(crate) bound: u64,
    /// Every replica that stood with a member that left had to move once.
    pub(crate) hindsight: u64,
    /// Assignments that got another slot.
    pub(crate) renames: usize,
    /// Items that got another primary.
    pub(crate) crowned: usize,
    pub(crate) rounds: u64,
    /// In one step: a tenth joins, a tenth leaves, and is gone.
    pub(crate) most_rounds: u64,
    pub(crate) batches: u64,
    pub(crate) failed: u64,
    pub(crate) faults: Faults,
}

/// Sixty percent of the members are in one zone, forty in the other.
fn zone(at: usize) -> &'static str {
    if matches!(at % 5, 1 | 3) { "zone-b" } else { "zone-a" }
}

fn put(at: usize, limit: usize, exiting: bool) -> Op {
    member(zone(at), at, limit, exiting, LeaseId::NONE)
}

/// 10 `n` members and 2,000 `n` items: the old ones leave after the new ones have come, or before.
pub(crate) async fn roll(n: usize, down_first: bool, slack: u32) -> Sums {
    let olds = (0..5 * n).map(|at| put(at, LIMITS.0, false));
    let mut cluster = Cluster::start(1, slack, |_| olds.chain(items(2_000 * n))).await;
    let (_, report) = cluster.settle(0).await;
    let (filled, added) = (report.done.rounds, report.done.added);
    cluster.bound = 0;
    let mut most_rounds = 0;
    for step in 0..STEPS {
        let block = step * n..(step + 1) * n;
        let news = block.clone().map(|at| put(5 * n + at, LIMITS.1, false)).collect();
        let olds = block.clone().map(|at| put(at, LIMITS.0, true)).collect();
        // Those that have nothing any more go.
        let gone = block.map(|at| Op::delete(member_key(zone(at), at))).collect();
        let phases: [Vec<Op>; 3] = if down_first { [olds, news, gone] } else { [news, olds, gone] };
        let mut rounds = 0;
        for ops in phases {
            let revision = cluster.write(ops).await;
            rounds += cluster.settle(revision).await.0;
        }
        most_rounds = most_rounds.max(rounds);
    }
    let report = cluster.handle.report().unwrap();
    assert!(report.is_settled(), "it does not settle: {report}");
    let spent = cluster.spent();
    let written = cluster.written();
    let mut ledger = Ledger::default();
    for part in written.iter().flat_map(|written| &written.parts) {
        ledger.enter(&part.ops);
    }
    let raw = cluster.replay(&written, Beside::Nothing).await;
    let fenced = cluster.replay(&written, Beside::Fences { lost: 0 }).await;
    Sums {
        spent,
        raw,
        fenced,
        moves: report.done.added - added,
        bound: cluster.bound,
        hindsight: 6_000 * n as u64,
        renames: ledger.renames,
        crowned: ledger.crowned,
        rounds: report.done.rounds - filled,
        most_rounds,
        batches: report.done.batches,
        failed: report.done.failed,
        faults: ledger.faults,
    }
}
