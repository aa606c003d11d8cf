//! What was written, once more: as keys that are nobody's, with and without what a leader needs beside.

use std::collections::BTreeSet;

use raft_autopilot::store::{Bytes, Compare, KeyRange, LeaseId, Op, Relation, Target, Txn};

use crate::cluster::{ROOT, Written};

/// Where it is written.
pub(crate) const RAW: &str = "/raw";

/// What goes along with the writes.
#[derive(Clone, Copy)]
pub(crate) enum Beside {
    /// Nothing: they are sent raw.
    Nothing,
    /// As many compares as they had, one watcher that reads what happens and does nothing with it, and,
    /// just before, the loss of so many keys that it watches: what etcd does for any leader.
    Fences { lost: usize },
}

fn renamed(key: &[u8]) -> Bytes {
    [RAW.as_bytes(), &key[ROOT.len()..]].concat().into()
}

/// The key that an operation changes.
fn key(op: &Op) -> &Bytes {
    match op {
        Op::Put { key, .. } | Op::Delete(KeyRange::Key(key)) => key,
        other => panic!("nobody writes {other:?} here"),
    }
}

/// What is deleted and was not written before.
pub(crate) fn deleted(written: &[Written]) -> Vec<Op> {
    let (mut stands, mut puts) = (BTreeSet::new(), Vec::new());
    for op in written.iter().flat_map(|written| &written.ops) {
        if stands.insert(key(op)) && matches!(op, Op::Delete(_)) {
            puts.push(Op::put(renamed(key(op)), r#"{"consistent":true}"#));
        }
    }
    puts
}

/// So many keys that are lost with a lease.
pub(crate) fn leased(count: usize, lease: LeaseId) -> impl Iterator<Item = Op> {
    let key = |at: usize| format!("{RAW}/assign/i{at:06}#zone-a#m00090#9");
    (0..count).map(move |at| Op::put_leased(key(at), r#"{"consistent":true}"#, lease))
}

/// A transaction of the same writes.
pub(crate) fn txn(written: &Written, beside: Beside) -> Txn {
    let ops = written.ops.iter().map(|op| match op {
        Op::Put { value, .. } => Op::put(renamed(key(op)), value),
        op => Op::delete(renamed(key(op))),
    });
    let compares = match beside {
        Beside::Nothing => 0,
        Beside::Fences { .. } => written.compares,
    };
    let keys = written.ops.iter().map(key).cycle().take(compares);
    let holds = keys.map(|key| Compare {
        range: KeyRange::key(renamed(key)),
        relation: Relation::Less,
        target: Target::ModRevision(u64::MAX >> 1),
    });
    Txn::when(holds).and_then(ops)
}
