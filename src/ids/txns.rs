//! The transactions of the ids, and what their answers mean. Each decides and acts at once, so
//! that no lock is needed.

use std::sync::Arc;

use crate::store::{
    Bytes, Compare, KeyRange, KeyValue, LeaseId, Op, OpResponse, Relation, Target, Txn, TxnResponse,
};

use super::layout::{KeyHash, Layout, Mapping, Meta, RefName, read_mapping};

/// What is needed to come to use a key.
#[derive(Clone, Debug)]
pub(super) struct Acquire {
    pub(super) key: Bytes,
    pub(super) hash: KeyHash,
    pub(super) name: RefName,
    /// Drawn for the mapping, if this creates it; see [`Acquire::nonce_for`].
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
    /// The nonce of the mapping if it gets an id: another for each, as a request that comes late to
    /// a store that was put back may create it a second time, with another candidate.
    pub(super) fn nonce_for(&self, id: u64) -> u64 {
        self.nonce ^ id
    }

    fn op(&self, layout: &Layout, node: &Bytes, lease: LeaseId) -> Op {
        let mapping = layout.mapping(self.hash);
        let refer = Op::put_leased(layout.reference(self.hash, self.name), node, lease);
        let stands = Compare {
            range: KeyRange::key(&mapping),
            relation: Relation::Greater,
            target: Target::CreateRevision(0),
        };
        let value = Layout::id_value(&self.key);
        let create = |id: u64, name: &Bytes| {
            let (key, nonce) = (self.key.clone(), self.nonce_for(id));
            let create = Op::put(&mapping, Layout::mapping_value(&Mapping { key, id, nonce }));
            [create, Op::put(name, &value), refer.clone()]
        };
        let mut otherwise: Option<Op> = None;
        if let (true, Some(id)) = (self.again, self.candidates.first()) {
            // It rests since this very key had it, so nobody else has come in between.
            let (name, resting) = (layout.id(*id), Layout::resting_value(&self.key));
            let rests = Compare::equal(KeyRange::key(&name), Target::Value(resting));
            otherwise = Some(Op::Txn(Txn::when([rests]).and_then(create(*id, &name))));
        }
        for id in self.candidates.iter().rev() {
            let name = layout.id(*id);
            let free = Compare::absent(KeyRange::key(&name));
            let choice = Txn::when([free]).and_then(create(*id, &name)).or_else(otherwise.take());
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

/// Comes to use keys, each known or new; fenced by the range and the epoch. By what they are, not
/// by their revision: a store that was restored may have others at the same one.
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
    fence: &Meta,
    node: &Bytes,
    lease: LeaseId,
    batch: &[Acquire],
) -> Txn {
    Txn::when([agreed(layout, Some(fence))])
        .and_then(batch.iter().map(|acquire| acquire.op(layout, node, lease)))
}

/// That the range and the epoch are still these, or that there are none.
fn agreed(layout: &Layout, meta: Option<&Meta>) -> Compare {
    let key = KeyRange::key(layout.meta());
    match meta {
        Some(meta) => Compare::equal(key, Target::Value(Layout::meta_value(meta))),
        None => Compare::absent(key),
    }
}

/// Agrees on another range or epoch, if nobody else has meanwhile.
pub(super) fn agree(layout: &Layout, found: Option<&Meta>, meta: &Meta) -> Txn {
    let put = Op::put(layout.meta(), Layout::meta_value(meta));
    Txn::when([agreed(layout, found)]).and_then([put])
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
    /// If the mapping shall go with the last reference.
    pub(super) eager: Option<Eager>,
}

/// What is needed to take a mapping along with its last reference.
#[derive(Clone, Debug)]
pub(super) struct Eager {
    /// The mapping that was referred to.
    pub(super) mapping: Mapping,
    /// The revision at which the reference was written.
    pub(super) attached: u64,
}

/// Deletes references. A name is never used twice, so it may be done at any time, and again.
///
/// An eager one takes the mapping along if it stands itself since the revision at which it was
/// written, and all references to the key do: then there is no other. That alone would not do for
/// a store that was restored, where another's reference may stand since the same revision, or the
/// own one with another mapping.
pub(super) fn release(layout: &Layout, batch: &[Release]) -> Txn {
    Txn::new(batch.iter().map(|release| {
        let own = layout.reference(release.hash, release.name);
        let reference = Op::delete(&own);
        let Some(Eager { mapping, attached }) = &release.eager else { return reference };
        let stands = Compare::unchanged(own, *attached);
        let references = layout.references_to(release.hash);
        let alone = Compare::equal(references, Target::ModRevision(*attached));
        let same = same(layout, release.hash, mapping);
        let free = [Op::delete(layout.mapping(release.hash)), Op::delete(layout.id(mapping.id))];
        let all = [reference.clone()].into_iter().chain(free);
        Op::Txn(Txn::when([stands, alone, same]).and_then(all).or_else([reference]))
    }))
}

/// That a key has the very mapping that it had: by its nonce, for a store that was restored may
/// have another at the same revision.
fn same(layout: &Layout, hash: KeyHash, mapping: &Mapping) -> Compare {
    let value = Target::Value(Layout::mapping_value(mapping));
    Compare::equal(KeyRange::key(layout.mapping(hash)), value)
}

/// A mapping that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) hash: KeyHash,
    pub(super) mapping: Mapping,
}

/// Deletes mappings, each only if nobody uses it at that instant and it is still the same. With a
/// lease the ids rest for as long as it lives.
pub(super) fn collect(layout: &Layout, rest: Option<LeaseId>, batch: &[Dead]) -> Txn {
    Txn::new(batch.iter().map(|dead| {
        let unused = Compare::absent(layout.references_to(dead.hash));
        let mapping = layout.mapping(dead.hash);
        let same = same(layout, dead.hash, &dead.mapping);
        let id = layout.id(dead.mapping.id);
        let free = match rest {
            Some(lease) => Op::put_leased(id, Layout::resting_value(&dead.mapping.key), lease),
            None => Op::delete(id),
        };
        let look = Op::get(&mapping);
        Op::Txn(Txn::when([unused, same]).and_then([Op::delete(mapping), free]).or_else([look]))
    }))
}

/// What came of collecting one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was deleted.
    Deleted,
    /// Somebody uses it.
    Used,
    /// It does not stand any more; another may.
    Replaced,
}

/// What came of [`collect`].
pub(super) fn collected(batch: &[Dead], response: &TxnResponse) -> Vec<Ended> {
    let read = |dead: &Dead, part: &OpResponse| match part {
        OpResponse::Txn(nested) if nested.succeeded => Ended::Deleted,
        OpResponse::Txn(nested) => match nested.responses.first() {
            Some(OpResponse::Range(read))
                if read.items.first().and_then(|kv| read_mapping(&kv.value)).as_ref()
                    == Some(&dead.mapping) =>
            {
                Ended::Used
            }
            _ => Ended::Replaced,
        },
        _ => Ended::Replaced,
    };
    batch.iter().zip(&response.responses).map(|(dead, part)| read(dead, part)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ids::{layout::Meta, range::IdRange},
        store::{
            RangeRequest, Refusal,
            machine::{Command, Machine, Outcome},
        },
    };

    const FIRST: LeaseId = LeaseId(1);
    const SECOND: LeaseId = LeaseId(2);

    struct World {
        machine: Machine,
        layout: Layout,
        fence: Meta,
    }

    impl World {
        fn new() -> Self {
            let fence = Meta { range: IdRange::default(), epoch: 1 };
            let mut world = Self { machine: Machine::default(), layout: Layout::new("p"), fence };
            for lease in [FIRST, SECOND] {
                let ttl = Duration::from_secs(60);
                world
                    .machine
                    .apply(Command::Grant { id: Some(lease), ttl }, Duration::ZERO)
                    .unwrap();
            }
            let put = Op::put(world.layout.meta(), Layout::meta_value(&fence));
            world.commit(Txn::new([put])).unwrap();
            world
        }

        fn commit(&mut self, txn: Txn) -> Result<TxnResponse, Refusal> {
            match self.machine.apply(Command::Txn(txn), Duration::ZERO)? {
                Outcome::Txn(done) => Ok(done),
                other => panic!("{other:?}"),
            }
        }

        fn acquire(&mut self, lease: LeaseId, key: &str, candidates: &[u64]) -> Acquired {
            let batch = [asked(lease, key, candidates)];
            let txn = acquire(&self.layout, &self.fence, &"".into(), lease, &batch);
            match acquired(&batch, &self.commit(txn).unwrap()) {
                Fenced::Done(mut done, _) => done.remove(0),
                Fenced::Moved => panic!("the fence has moved"),
            }
        }

        fn dead(&self, key: &str) -> Dead {
            let hash = KeyHash::of(key.as_bytes());
            let name = KeyRange::key(self.layout.mapping(hash));
            let kv = self.machine.range(&RangeRequest::new(name)).unwrap().items.remove(0);
            Dead { hash, mapping: read_mapping(&kv.value).unwrap() }
        }

        fn collect(&mut self, dead: &Dead) -> usize {
            let dead = std::slice::from_ref(dead);
            let ended = collected(dead, &self.commit(collect(&self.layout, None, dead)).unwrap());
            usize::from(ended == [Ended::Deleted])
        }

        fn len(&self) -> usize {
            self.machine.range(&RangeRequest::new(self.layout.everything())).unwrap().items.len()
        }
    }

    fn name(lease: LeaseId) -> RefName {
        RefName { session: lease, number: 1 }
    }

    fn asked(lease: LeaseId, key: &str, candidates: &[u64]) -> Acquire {
        Acquire {
            key: key.into(),
            hash: KeyHash::of(key.as_bytes()),
            name: name(lease),
            nonce: lease.0 + 100,
            candidates: candidates.to_vec(),
            again: false,
        }
    }

    fn nonce(lease: LeaseId, id: u64) -> u64 {
        asked(lease, "", &[]).nonce_for(id)
    }

    fn gone(lease: LeaseId, key: &str, eager: Option<Eager>) -> Release {
        Release { hash: KeyHash::of(key.as_bytes()), name: name(lease), eager }
    }

    #[test]
    fn the_first_creates_the_second_attaches_and_a_third_key_takes_the_next_id() {
        let mut world = World::new();
        assert_eq!(world.acquire(FIRST, "key1", &[1_001, 1_002]), Acquired::Created(0));
        assert_eq!(world.len(), 4, "the fence, the key, the id, the reference");
        let Acquired::Attached { mapping, .. } = world.acquire(SECOND, "key1", &[1_003]) else {
            panic!("not attached");
        };
        assert_eq!((mapping.id, mapping.nonce), (1_001, nonce(FIRST, 1_001)));
        assert_eq!(world.acquire(FIRST, "key2", &[1_001, 1_002]), Acquired::Created(1));
        assert_eq!(world.acquire(FIRST, "key3", &[1_001, 1_002]), Acquired::Taken);
        assert_eq!(world.acquire(FIRST, "key3", &[]), Acquired::Taken);
        assert!(matches!(world.acquire(SECOND, "key2", &[]), Acquired::Attached { .. }));
    }

    #[test]
    fn what_was_sent_twice_is_done_once() {
        let mut world = World::new();
        assert_eq!(world.acquire(FIRST, "key", &[1, 2]), Acquired::Created(0));
        let len = world.len();
        let again = world.acquire(FIRST, "key", &[3, 4]);
        assert!(
            matches!(again, Acquired::Attached { mapping, .. } if mapping.nonce == nonce(FIRST, 1))
        );
        assert_eq!(world.len(), len);
    }

    #[test]
    fn a_mapping_is_collected_when_its_last_reference_is_gone_and_once() {
        let mut world = World::new();
        world.acquire(FIRST, "key", &[1]);
        world.acquire(SECOND, "key", &[1]);
        let dead = world.dead("key");
        assert_eq!((world.collect(&dead), world.len()), (0, 5));
        for lease in [FIRST, SECOND] {
            assert_eq!(world.collect(&dead), 0);
            let txn = release(&world.layout, &[gone(lease, "key", None)]);
            world.commit(txn).unwrap();
        }
        assert_eq!((world.collect(&dead), world.collect(&dead), world.len()), (1, 0, 1));
        // Another life of the same key is not the one that was dead.
        world.acquire(FIRST, "key", &[2]);
        let txn = release(&world.layout, &[gone(FIRST, "key", None)]);
        world.commit(txn).unwrap();
        assert_eq!((world.collect(&dead), world.len()), (0, 3));
    }

    #[test]
    fn the_last_user_may_take_the_mapping_along_and_only_the_last() {
        let mut world = World::new();
        world.acquire(FIRST, "key", &[1]);
        let attached = world.machine.revision();
        world.acquire(SECOND, "key", &[1]);
        let later = world.machine.revision();
        let Dead { mapping, .. } = world.dead("key");
        let eager = |lease, attached| {
            gone(lease, "key", Some(Eager { mapping: mapping.clone(), attached }))
        };
        let txn = release(&world.layout, &[eager(FIRST, attached)]);
        world.commit(txn).unwrap();
        assert_eq!(world.len(), 4, "somebody else uses it");
        // One that is late, from before the reference was written again, takes only that.
        let txn = release(&world.layout, &[eager(SECOND, attached)]);
        world.commit(txn).unwrap();
        assert_eq!(world.len(), 3);
        world.acquire(SECOND, "key", &[1]);
        assert!(world.machine.revision() > later);
        let txn = release(&world.layout, &[eager(SECOND, world.machine.revision())]);
        world.commit(txn).unwrap();
        assert_eq!(world.len(), 1);
    }

    #[test]
    fn one_candidate_for_two_keys_of_a_batch_is_refused_and_nothing_is_done() {
        let mut world = World::new();
        let batch = [asked(FIRST, "key1", &[1]), asked(FIRST, "key2", &[1])];
        let txn = acquire(&world.layout, &world.fence, &"".into(), FIRST, &batch);
        assert!(matches!(world.commit(txn), Err(Refusal::DuplicateKey(_))));
        assert_eq!(world.len(), 1);
    }

    #[test]
    fn of_four_candidates_114_keys_fit_into_a_transaction_and_of_one_122_but_not_124() {
        let mut world = World::new();
        let batch = |count: u64, most: usize| -> Vec<Acquire> {
            let candidates = |n| [4 * n + 1, 4 * n + 2, 4 * n + 3, 4 * n + 4];
            (0..count).map(|n| asked(FIRST, &format!("key{n}"), &candidates(n)[..most])).collect()
        };
        for (count, most, fits) in
            [(100, 4, true), (114, 4, true), (115, 4, false), (122, 1, true), (124, 1, false)]
        {
            let batch = batch(count, most);
            let txn = acquire(&world.layout, &world.fence, &"".into(), FIRST, &batch);
            assert_eq!(world.commit(txn).is_ok(), fits, "{count}");
        }
    }

    #[test]
    fn with_a_lease_that_has_ended_nothing_is_done() {
        let mut world = World::new();
        world.machine.apply(Command::Revoke(FIRST), Duration::ZERO).unwrap();
        let batch = [asked(FIRST, "key", &[1])];
        let txn = acquire(&world.layout, &world.fence, &"".into(), FIRST, &batch);
        assert_eq!(world.commit(txn), Err(Refusal::LeaseNotFound(FIRST)));
        assert_eq!(world.len(), 1);
    }

    #[test]
    fn a_reference_that_was_written_again_outlives_its_first_lease() {
        let mut world = World::new();
        world.acquire(FIRST, "key", &[1]);
        let batch = [Acquire { name: name(FIRST), ..asked(SECOND, "key", &[]) }];
        let txn = acquire(&world.layout, &world.fence, &"".into(), SECOND, &batch);
        world.commit(txn).unwrap();
        world.machine.apply(Command::Revoke(FIRST), Duration::ZERO).unwrap();
        assert_eq!((world.len(), world.collect(&world.dead("key"))), (4, 0));
    }

    #[test]
    fn a_batch_sees_what_stood_before_all_of_it() {
        let mut world = World::new();
        world.acquire(FIRST, "old", &[1]);
        let txn = release(&world.layout, &[gone(FIRST, "old", None)]);
        world.commit(txn).unwrap();
        let dead = collect(&world.layout, None, &[world.dead("old")]);
        // The id is freed by its neighbour in the same transaction, and is not free yet.
        let read = Compare::absent(KeyRange::key(world.layout.id(1)));
        let both = Txn::new([Op::Txn(dead), Op::Txn(Txn::when([read]))]);
        let done = world.commit(both).unwrap();
        assert!(matches!(&done.responses[1], OpResponse::Txn(read) if !read.succeeded));
        assert_eq!(world.len(), 1);
    }

    #[test]
    fn under_another_fence_nothing_is_done() {
        let mut world = World::new();
        let batch = [asked(FIRST, "key", &[1])];
        let other = Meta { epoch: 2, ..world.fence };
        let txn = acquire(&world.layout, &other, &"".into(), FIRST, &batch);
        assert!(matches!(acquired(&batch, &world.commit(txn).unwrap()), Fenced::Moved));
        assert_eq!(world.len(), 1);
    }

    #[test]
    fn an_id_that_rests_goes_back_to_its_own_key_only() {
        let mut world = World::new();
        world.acquire(FIRST, "key", &[1]);
        let txn = release(&world.layout, &[gone(FIRST, "key", None)]);
        world.commit(txn).unwrap();
        let dead = [world.dead("key")];
        let txn = collect(&world.layout, Some(SECOND), &dead);
        assert_eq!(collected(&dead, &world.commit(txn).unwrap()), [Ended::Deleted]);
        assert_eq!(world.acquire(FIRST, "other", &[1]), Acquired::Taken);
        for (key, expected) in [("other", Acquired::Taken), ("key", Acquired::Created(0))] {
            let batch = [Acquire { again: true, ..asked(FIRST, key, &[1]) }];
            let txn = acquire(&world.layout, &world.fence, &"".into(), FIRST, &batch);
            let answer = world.commit(txn).unwrap();
            assert!(
                matches!(acquired(&batch, &answer), Fenced::Done(done, _) if done[0] == expected)
            );
        }
        // It does not end with the lease that it rested with.
        world.machine.apply(Command::Revoke(SECOND), Duration::ZERO).unwrap();
        assert_eq!(world.len(), 4);
    }
}
