//! Ten of a hundred members are lost, with all that they held.

use raft_autopilot::{allocator::Report, store::LeaseId};

use crate::{
    cluster::{Cluster, SETTLE, Spent, items, member},
    replay::Beside,
};

/// How it went.
pub(crate) struct Loss {
    pub(crate) spent: Spent,
    pub(crate) raw: Spent,
    /// With fences, a watcher, and as great a loss before: what etcd does for any leader.
    pub(crate) fenced: Spent,
}

impl Loss {
    pub(crate) fn times(&self) -> f64 {
        self.spent.wall / self.raw.wall
    }
}

/// From the revision that deletes ten of a hundred members, and all that they held, until every
/// replica is placed again; beside the same transactions' writes sent raw.
pub(crate) async fn lose(count: usize, repeats: usize) -> Vec<Loss> {
    let zone = |at: usize| if matches!(at % 5, 1 | 3) { "zone-b" } else { "zone-a" };
    let ninety = (0..90).map(|at| member(zone(at), at, 1_500, false, LeaseId::NONE));
    let mut cluster = Cluster::start(1, 0, |_| ninety.chain(items(count))).await;
    let mut figures = Vec::new();
    for _ in 0..repeats {
        let lease = cluster.grant().await;
        let ten = (90..100).map(|at| member(zone(at), at, 1_500, false, lease));
        let revision = cluster.write(ten).await;
        cluster.settle(revision).await;
        tokio::time::sleep(SETTLE).await;
        drop(cluster.written());
        let stood = cluster.handle.view().unwrap().revision();
        // Etcd takes its time to delete them all; before it has, there is no such revision.
        cluster.revoke(lease).await;
        let before = cluster.spent();
        let placed = |report: &Report| {
            report.revision > stood && report.assignments == 3 * count && report.members.len() == 91
        };
        cluster.handle.report_when(placed).await.unwrap();
        let spent = cluster.spent() - before;
        let written = cluster.written();
        let raw = cluster.replay(&written, Beside::Nothing).await;
        let fenced = cluster.replay(&written, Beside::Fences { lost: 3 * count / 10 }).await;
        figures.push(Loss { spent, raw, fenced });
        cluster.settle(stood).await;
    }
    figures
}
