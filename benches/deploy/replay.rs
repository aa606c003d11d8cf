//! What was written, once more: as keys that are nobody's, with and without what a leader needs beside.

use std::collections::BTreeSet;

use raft_autopilot::store::{Bytes, Compare, KeyRange, LeaseId, Op, Relation, Target, Txn};

use crate::recorder::{ROOT, Written};

/// What goes along with the writes. Each is written where the other is not, so that both are new.
#[derive(Clone, Copy)]
pub(crate) enum Beside {
    /// Nothing: they are sent raw.
    Nothing,
    /// As many compares as they had, of keys that stand like those, one watcher that reads what happens and
    /// does nothing with it, and, just before, the loss of so many keys that it watches: what etcd does for
    /// any leader.
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
    for Written { compares, ops, .. } in written {
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

/// A transaction of the same writes.
pub(crate) fn txn(written: &Written, beside: Beside) -> Txn {
    let ops = written.ops.iter().map(|op| match op {
        Op::Put { value, .. } => Op::put(beside.renamed(key(op)), value),
        op => Op::delete(beside.renamed(key(op))),
    });
    let compares = match beside {
        Beside::Nothing => &[][..],
        Beside::Fences { .. } => &written.compares,
    };
    let holds = compares.iter().map(|key| Compare {
        range: KeyRange::key(beside.renamed(key)),
        relation: Relation::Less,
        target: Target::ModRevision(u64::MAX >> 1),
    });
    Txn::when(holds).and_then(ops)
}
