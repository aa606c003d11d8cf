//! Clusters that are nearly full: what fits is placed, and nothing moves but what was lost.

use raft_autopilot::store::LeaseId;

use crate::cluster::{Cluster, items, member};

/// A cluster in three zones.
pub(crate) struct Case {
    pub(crate) members: usize,
    pub(crate) items: usize,
    pub(crate) limit: usize,
}

/// How it went.
pub(crate) struct Full {
    /// Rounds until it was full, and replicas placed then.
    pub(crate) filled: (u64, usize),
    /// Rounds after one member was lost, replicas placed then, and how many could be.
    pub(crate) lost: (u64, usize, usize),
    /// Assignments made and ended after that.
    pub(crate) added: u64,
    pub(crate) removed: u64,
    /// What the lost member had held.
    pub(crate) held: u64,
}

/// Fills the cluster, and loses its last member.
pub(crate) async fn fill(case: &Case) -> Full {
    let Case { members, items: count, limit } = *case;
    let zone = |at: usize| ["zone-a", "zone-b", "zone-c"][at % 3];
    let all = |lease| {
        let leases = move |at: usize| if at + 1 == members { lease } else { LeaseId::NONE };
        let all = (0..members).map(move |at| member(zone(at), at, limit, false, leases(at)));
        all.chain(items(count))
    };
    let mut cluster = Cluster::start(0, 0, all).await;
    let (_, report) = cluster.settle(0).await;
    let filled = (report.done.rounds, report.assignments);
    let last =
        report.members.iter().find(|one| one.key.member.ends_with(&format!("{:05}", members - 1)));
    let (held, done) = (u64::from(last.unwrap().load), report.done);
    cluster.revoke(cluster.lease).await;
    let (rounds, report) = cluster.settle(report.revision + 1).await;
    let fits = (limit * (members - 1)).min(3 * count);
    Full {
        filled,
        lost: (rounds, report.assignments, fits),
        added: report.done.added - done.added,
        removed: report.done.removed - done.removed,
        held,
    }
}
