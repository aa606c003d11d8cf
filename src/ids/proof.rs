//! Proves again and again that the store is the one that it was: by what this session has written,
//! which stands there as long as nobody has put the store back to an earlier state.
//!
//! A store that went back mostly shows it by its revision. One that was written to since, or whose
//! revision was raised, as etcd's restore can, does not; but it has lost references. The last one
//! that stood at the last proof speaks for all before it, and those since then speak for
//! themselves.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    runtime::Runtime,
    store::{
        Bytes, KeyValue, LeaseStatus, Limits, Op, OpResponse, Refusal, Store, StoreError, Txn,
        TxnResponse,
    },
};

use super::{
    desk::Desk,
    handle::Core,
    layout::{KeyHash, Layout, Mapping, Meta, Record, RefName},
    link::Link,
    slot::Standing,
    tenure::Tenure,
};

/// How many requests are on their way at once: enough for 80,000 references in a third of the
/// default time to live, where an answer takes 100 ms.
const LANES: usize = 8;

/// A reference that should stand, with the mapping that it refers to.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    key: Bytes,
    hash: KeyHash,
    name: RefName,
    attached: u64,
}

impl Witness {
    /// What is asked of the store.
    fn ops(&self, layout: &Layout) -> [Op; 2] {
        let reference = layout.reference(self.hash, self.name);
        [Op::get(reference), Op::get(layout.mapping(self.hash))]
    }
}

/// What the store says about a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Testimony {
    /// The revision at which the reference was written last.
    attached: Option<u64>,
    mapping: Option<Mapping>,
}

/// What a proof leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The store is what it was.
    Proven,
    /// Something else was written; it is to be read, and then proven again.
    Moved,
    /// What stood is gone.
    Forgotten,
}

/// Proves it for as long as the session lasts, three times within the time to live of its lease.
pub(super) async fn prove<S: Store, R: Runtime>(
    link: Link<S, R>,
    core: Weak<Core>,
    tenure: Weak<Tenure>,
    ttl: Duration,
) {
    let mut pause = ttl / 3;
    loop {
        link.runtime.sleep(pause).await;
        let (Some(core), Some(tenure)) = (core.upgrade(), tenure.upgrade()) else { return };
        let asked_at = link.runtime.now();
        if tenure.status_at(asked_at) == LeaseStatus::Lost {
            return core.wake.notify_one();
        }
        let life = link.lives();
        pause = ttl / 20;
        match ask(&link, &core, &tenure, ttl / 3).await {
            Ok(Verdict::Proven) => {
                tenure.prove(link.runtime.now(), asked_at);
                pause = ttl / 3;
            }
            Ok(Verdict::Moved) => {}
            Ok(Verdict::Forgotten) => match link.keep(tenure.lease).await {
                Ok(()) => link.forgot(life),
                Err(StoreError::Refused(Refusal::LeaseNotFound(_))) => tenure.end(),
                Err(error) => tracing::info!("the session was not asked for: {error}"),
            },
            Err(error) => tracing::info!("the store was not proven: {error}"),
        }
        core.wake.notify_one();
    }
}

/// Asks all witnesses, some of them at a time. It lasts as long as answers come: each may take no
/// longer than `patience`, and whoever has been heard is not asked again if another fails.
async fn ask<S: Store, R: Runtime>(
    link: &Link<S, R>,
    core: &Core,
    tenure: &Arc<Tenure>,
    patience: Duration,
) -> Result<Verdict, StoreError> {
    let witnesses = core.lock().witnesses();
    let room = room(&link.store.limits(), &link.layout);
    let mut chunks: Vec<&[Witness]> = witnesses.chunks(room).collect();
    if chunks.is_empty() {
        // Then the range and the epoch speak alone.
        chunks.push(&[]);
    }
    let hear = async |some: &[Witness]| {
        let ops = some.iter().flat_map(|witness| witness.ops(&link.layout));
        let txn = Txn::new([Op::get(link.layout.meta())].into_iter().chain(ops));
        // Another may come through where this one hangs.
        let answer = link.bounded_by(patience, link.commit(txn)).await?;
        let (meta, said) = read(&link.layout, &answer);
        Ok(core.lock().judge(tenure, meta, some.iter().zip(said)))
    };
    // Each of them has one request on its way.
    let lane = async |lane: usize| {
        for some in chunks.iter().skip(lane).step_by(LANES) {
            match hear(some).await {
                Ok(Verdict::Proven) => {}
                other => return Err(other),
            }
        }
        Ok(())
    };
    let [first, second, third, fourth, fifth, sixth, seventh, last] =
        std::array::from_fn::<_, LANES, _>(lane);
    let heard = tokio::try_join!(
        biased;
        first, second, third, fourth, fifth, sixth, seventh, last,
    );
    match heard {
        Ok(_) => Ok(Verdict::Proven),
        Err(other) => other,
    }
}

/// How many witnesses fit into a question, with the range and the epoch: each is two reads.
fn room(limits: &Limits, layout: &Layout) -> usize {
    let bytes = limits.bytes / (2 * (layout.name_len_max() + 64));
    (limits.operations / 2).min(bytes).saturating_sub(2).clamp(1, 50)
}

/// Reads an answer: the range and the epoch with their revision, and what is said of each witness.
fn read(layout: &Layout, answer: &TxnResponse) -> (Option<(Meta, u64)>, Vec<Testimony>) {
    let found = |answer: &OpResponse| match answer {
        OpResponse::Range(read) => read.items.first().cloned(),
        OpResponse::Put | OpResponse::Delete(_) | OpResponse::Txn(_) => None,
    };
    let mut found = answer.responses.iter().map(found);
    let record = |kv: &Arc<KeyValue>| layout.read(kv).ok();
    let meta = found.next().flatten().and_then(|kv| match record(&kv) {
        Some(Record::Meta(meta)) => Some((meta, kv.mod_revision)),
        _ => None,
    });
    let mut said = Vec::new();
    while let (Some(reference), Some(mapping)) = (found.next(), found.next()) {
        let attached = reference.map(|kv| kv.mod_revision);
        let mapping = mapping.and_then(|kv| match record(&kv) {
            Some(Record::Mapping(_, mapping)) => Some(mapping),
            _ => None,
        });
        said.push(Testimony { attached, mapping });
    }
    (meta, said)
}

impl Desk {
    /// Who can tell whether the store has gone back.
    fn witnesses(&self) -> Vec<Witness> {
        let mut witnesses = Vec::new();
        let mut last: Option<Witness> = None;
        for (key, slot) in &self.slots {
            let (Standing::Held, Some(hash), Some(name)) = (slot.standing, slot.hash, slot.name)
            else {
                continue;
            };
            let attached = slot.attached;
            let witness = || Witness { key: key.clone(), hash, name, attached };
            if slot.proven != attached {
                witnesses.push(witness());
            } else if last.as_ref().is_none_or(|last| last.attached < attached) {
                last = Some(witness());
            }
        }
        witnesses.extend(last);
        // Always in the same order, so that simulations repeat.
        witnesses.sort_by_key(|witness| witness.name);
        witnesses
    }

    /// Judges what the store says about the range, the epoch and some witnesses.
    fn judge<'a>(
        &mut self,
        tenure: &Arc<Tenure>,
        meta: Option<(Meta, u64)>,
        said: impl Iterator<Item = (&'a Witness, Testimony)>,
    ) -> Verdict {
        if self.session.as_ref().is_none_or(|session| !Arc::ptr_eq(session, tenure)) {
            return Verdict::Moved;
        }
        let mut doubtful = Vec::new();
        for (witness, testimony) in said {
            let Some(slot) = self.slots.get_mut(&witness.key) else { continue };
            // Whatever was let go or acquired again meanwhile cannot be expected to stand so.
            let same = slot.name == Some(witness.name) && slot.attached == witness.attached;
            if slot.standing != Standing::Held || !same {
                continue;
            }
            match testimony.attached {
                // A request that was thought lost may have written it again.
                Some(attached) if attached >= witness.attached => slot.attached = attached,
                _ => return Verdict::Forgotten,
            }
            slot.proven = slot.attached;
            let life = slot.life.as_ref();
            let stands = life.zip(testimony.mapping.as_ref()).is_some_and(|(life, mapping)| {
                (life.id, life.generation().nonce) == (mapping.id, mapping.nonce)
            });
            if !stands {
                doubtful.push(witness.key.clone());
            }
        }
        for key in doubtful {
            self.doubt(&key);
        }
        if self.meta.is_some() && self.meta == meta {
            return Verdict::Proven;
        }
        self.meta = None;
        Verdict::Moved
    }
}
