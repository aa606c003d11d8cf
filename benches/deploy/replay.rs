//! What was written, once more: as keys that are nobody's, with and without what a leader needs beside.

use std::collections::BTreeSet;

use raft_autopilot::store::{Bytes, Compare, KeyRange, LeaseId, Op, Relation, Target, Txn};

use crate::recorder::{Part, ROOT, Written};

/// What goes along with the writes. Each is written where the other is not, so that both are new.
#[derive(Clone, Copy)]
pub(crate) enum Beside {
    /// Nothing: they are sent raw.
    Nothing,
    /// What etcd does for any leader: the same requests, with as many compares, of keys that stand like those,
    /// each when those are answered that it came after, which may be because the leader had made no more; one watcher that reads what happens and
    /// does nothing with it; and, just before, the loss of so many keys that it watches.
    Fences { lost: usize },
}

impl Beside {
    /// Where it is written.
    pub(crate) fn root(self) -> &'static str {
        match self {
            Self::Nothing => "/raw",
            Self::Fences { .. } => "/fenced",
        }
    }

    fn renamed(self, key: &[u8]) -> Bytes {
        [self.root().as_bytes(), &key[ROOT.len()..]].concat().into()
    }
}

/// The key that an operation changes.
fn key(op: &Op) -> &Bytes {
    match op {
        Op::Put { key, .. } | Op::Delete(KeyRange::Key(key)) => key,
        other => panic!("nobody writes {other:?} here"),
    }
}

/// What is deleted, or compared, and was not written before.
pub(crate) fn standing(written: &[Written], beside: Beside) -> Vec<Op> {
    let (mut stands, mut puts) = (BTreeSet::new(), Vec::new());
    let mut put = |key: &Bytes| puts.push(Op::put(beside.renamed(key), r#"{"consistent":true}"#));
    for Part { compares, ops } in written.iter().flat_map(|written| &written.parts) {
        let compares: &[Bytes] = if matches!(beside, Beside::Nothing) { &[] } else { compares };
        compares.iter().filter(|key| stands.insert(*key)).for_each(&mut put);
        for op in ops {
            if stands.insert(key(op)) && matches!(op, Op::Delete(_)) {
                put(key(op));
            }
        }
    }
    puts
}

/// So many keys that are lost with a lease.
pub(crate) fn leased(count: usize, beside: Beside, lease: LeaseId) -> impl Iterator<Item = Op> {
    let key = move |at: usize| format!("{}/assign/i{at:06}#zone-a#m00090#9", beside.root());
    (0..count).map(move |at| Op::put_leased(key(at), r#"{"consistent":true}"#, lease))
}

/// The same writes, a list of requests for each time that all before have been answered.
pub(crate) fn stages(written: &[Written], beside: Beside) -> Vec<Vec<Txn>> {
    let parts = |written: &Written| -> Vec<Txn> {
        written.parts.iter().map(|part| txn(part, beside)).collect()
    };
    if matches!(beside, Beside::Nothing) {
        return vec![written.iter().flat_map(parts).collect()];
    }
    let joint = |written: &Written| match <[Txn; 1]>::try_from(parts(written)) {
        Ok([alone]) => alone,
        Err(parts) => Txn::new(parts.into_iter().map(Op::Txn)),
    };
    // Each request of a stage made a later revision than all of the stages before.
    let stages = written.chunk_by(|one, next| one.stage == next.stage);
    stages.map(|stage| stage.iter().map(joint).collect()).collect()
}

/// A transaction of the same writes.
fn txn(part: &Part, beside: Beside) -> Txn {
    let ops = part.ops.iter().map(|op| match op {
        Op::Put { value, .. } => Op::put(beside.renamed(key(op)), value),
        op => Op::delete(beside.renamed(key(op))),
    });
    let compares = match beside {
        Beside::Nothing => &[][..],
        Beside::Fences { .. } => &part.compares,
    };
    let holds = compares.iter().map(|key| Compare {
        range: KeyRange::key(beside.renamed(key)),
        relation: Relation::Less,
        target: Target::ModRevision(u64::MAX >> 1),
    });
    Txn::when(holds).and_then(ops)
}
