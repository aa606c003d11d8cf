//! The transactions of the ids, and what their answers mean. Each decides and acts at once, so
//! that no lock is needed.

use std::sync::Arc;

use crate::store::{
    Bytes, Compare, KeyRange, KeyValue, LeaseId, Op, OpResponse, Relation, Target, Txn, TxnResponse,
};

use super::layout::{KeyHash, Layout, Mapping, RefName, read_mapping};

/// What is needed to come to use a key.
#[derive(Clone, Debug)]
pub(super) struct Acquire {
    pub(super) key: Bytes,
    pub(super) hash: KeyHash,
    pub(super) name: RefName,
    /// For the mapping, if this creates it.
    pub(super) nonce: u64,
    /// The ids to choose from, the best first.
    pub(super) candidates: Vec<u64>,
    /// The only candidate is the id that the key had, which may rest.
    pub(super) again: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acquired {
    /// The key has an id already, and is referred to now.
    Attached {
        mapping: Mapping,
        /// The revision at which the mapping was created.
        revision: u64,
    },
    /// The key got the candidate of this index.
    Created(usize),
    /// All candidates are others'; nothing was changed.
    Taken,
    /// The answer makes no sense.
    Strange,
}

/// What the fence of a batch says.
#[derive(Debug)]
pub(super) enum Fenced<T> {
    /// It was done, with the revision at which.
    Done(Vec<T>, u64),
    /// The range or the epoch is another than it was; nothing was done.
    Moved,
}

impl Acquire {
    fn op(&self, layout: &Layout, node: &Bytes, lease: LeaseId) -> Op {
        let mapping = layout.mapping(self.hash);
        let refer = Op::put_leased(layout.reference(self.hash, self.name), node, lease);
        let stands = Compare {
            range: KeyRange::key(&mapping),
            relation: Relation::Greater,
            target: Target::CreateRevision(0),
        };
        let create = |id: u64| {
            let (key, nonce) = (self.key.clone(), self.nonce);
            let value = Layout::mapping_value(&Mapping { key, id, nonce });
            let create = Op::put(&mapping, value);
            [create, Op::put(layout.id(id), Layout::id_value(&self.key)), refer.clone()]
        };
        let mut otherwise: Option<Op> = None;
        if let (true, Some(id)) = (self.again, self.candidates.first()) {
            // It rests since this very key had it, so nobody else has come in between.
            let resting = Target::Value(Layout::resting_value(&self.key));
            let rests = Compare::equal(KeyRange::key(layout.id(*id)), resting);
            otherwise = Some(Op::Txn(Txn::when([rests]).and_then(create(*id))));
        }
        for id in self.candidates.iter().rev() {
            let free = Compare::absent(KeyRange::key(layout.id(*id)));
            let choice = Txn::when([free]).and_then(create(*id)).or_else(otherwise.take());
            otherwise = Some(Op::Txn(choice));
        }
        Op::Txn(Txn::when([stands]).and_then([refer.clone(), Op::get(&mapping)]).or_else(otherwise))
    }

    fn read(&self, response: &OpResponse) -> Acquired {
        let OpResponse::Txn(attach) = response else { return Acquired::Strange };
        if attach.succeeded {
            return match &attach.responses[..] {
                [_, OpResponse::Range(read)] => read_attached(read.items.first()),
                _ => Acquired::Strange,
            };
        }
        let mut choice = attach;
        for index in 0.. {
            match choice.responses.first() {
                Some(OpResponse::Txn(next)) if next.succeeded => {
                    return Acquired::Created(index.min(self.candidates.len().saturating_sub(1)));
                }
                Some(OpResponse::Txn(next)) => choice = next,
                _ => break,
            }
        }
        Acquired::Taken
    }
}

fn read_attached(kv: Option<&Arc<KeyValue>>) -> Acquired {
    let attached = kv.and_then(|kv| Some((read_mapping(&kv.value)?, kv.create_revision)));
    match attached {
        Some((mapping, revision)) => Acquired::Attached { mapping, revision },
        None => Acquired::Strange,
    }
}

/// Comes to use keys, each known or new; fenced by the revision of the range and the epoch.
///
/// ```text
/// if the key has an id    refer to it
/// else if c1 is free      give it c1 and refer to it
/// else if c2 is free      ...
/// ```
///
/// It may be sent again, however often it was done: the second time it attaches to what the first
/// has created.
pub(super) fn acquire(
    layout: &Layout,
    fence: u64,
    node: &Bytes,
    lease: LeaseId,
    batch: &[Acquire],
) -> Txn {
    Txn::when([Compare::unchanged(layout.meta(), fence)])
        .and_then(batch.iter().map(|acquire| acquire.op(layout, node, lease)))
}

/// What came of [`acquire`].
pub(super) fn acquired(batch: &[Acquire], response: &TxnResponse) -> Fenced<Acquired> {
    if !response.succeeded {
        return Fenced::Moved;
    }
    let none = OpResponse::Put;
    let answers = response.responses.iter().chain(std::iter::repeat(&none));
    let read = batch.iter().zip(answers).map(|(acquire, answer)| acquire.read(answer));
    Fenced::Done(read.collect(), response.revision)
}

/// A reference that is used no more.
#[derive(Clone, Debug)]
pub(super) struct Release {
    pub(super) hash: KeyHash,
    pub(super) name: RefName,
    /// The id of the key, and the revision at which the reference was written; if they are known,
    /// and the mapping shall go with the last reference.
    pub(super) eager: Option<(u64, u64)>,
}

/// Deletes references. A name is never used twice, so it may be done at any time, and again.
///
/// An eager one takes the mapping along if all references that stand to the key were written at
/// that one revision: then there is no other, and the mapping is the same ever since.
pub(super) fn release(layout: &Layout, batch: &[Release]) -> Txn {
    Txn::new(batch.iter().map(|release| {
        let reference = Op::delete(layout.reference(release.hash, release.name));
        let Some((id, revision)) = release.eager else { return reference };
        let references = layout.references_to(release.hash);
        let alone = Compare::equal(references, Target::ModRevision(revision));
        let mapping = Op::delete(layout.mapping(release.hash));
        let all = [reference.clone(), mapping, Op::delete(layout.id(id))];
        Op::Txn(Txn::when([alone]).and_then(all).or_else([reference]))
    }))
}

/// A mapping that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) hash: KeyHash,
    pub(super) id: u64,
    pub(super) key: Bytes,
    /// The revision of the mapping.
    pub(super) revision: u64,
}

/// Deletes mappings, each only if nobody uses it at that instant and it is still the same. With a
/// lease the ids rest for as long as it lives.
pub(super) fn collect(layout: &Layout, rest: Option<LeaseId>, batch: &[Dead]) -> Txn {
    Txn::new(batch.iter().map(|dead| {
        let unused = Compare::absent(layout.references_to(dead.hash));
        let mapping = layout.mapping(dead.hash);
        let same = Compare::unchanged(&mapping, dead.revision);
        let id = layout.id(dead.id);
        let free = match rest {
            Some(lease) => Op::put_leased(id, Layout::resting_value(&dead.key), lease),
            None => Op::delete(id),
        };
        Op::Txn(Txn::when([unused, same]).and_then([Op::delete(mapping), free]))
    }))
}

/// How many of a batch were deleted.
pub(super) fn collected(response: &TxnResponse) -> usize {
    let done = |part: &&OpResponse| matches!(part, OpResponse::Txn(nested) if nested.succeeded);
    response.responses.iter().filter(done).count()
}
