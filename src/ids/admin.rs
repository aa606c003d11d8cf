//! What an operator does without an instance: look, configure, delete.

use crate::store::{Bytes, KeyRange, Op, Pages, RangeRequest, Store, StoreError, Txn};

use super::{
    audit::{Violation, audit},
    error::IdsError,
    layout::{KeyHash, Layout, Mapping, Meta, Record, RefName},
    range::IdRange,
    txns::agree,
};

/// Somebody's reference to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The hash of the key.
    pub hash: KeyHash,
    /// Which one it is.
    pub name: RefName,
    /// The node, by its own word.
    pub node: Bytes,
    /// The revision at which it was written: the lower, the older.
    pub revision: u64,
}

/// All that stands below a prefix at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The revision.
    pub revision: u64,
    /// The range and the epoch, if the prefix is in use.
    pub meta: Option<Meta>,
    /// The keys and their ids, in no particular order.
    pub mappings: Vec<Mapping>,
    /// Who uses what.
    pub references: Vec<Reference>,
    /// Ids that rest.
    pub resting: Vec<u64>,
    /// Keys that are not of this layout.
    pub foreign: Vec<Bytes>,
    /// What does not agree; nothing ever should be here.
    pub violations: Vec<Violation>,
}

/// Reads all that stands below a prefix.
///
/// # Errors
/// Why the store cannot be read.
pub async fn list<S: Store>(store: &S, prefix: impl Into<Bytes>) -> Result<Listing, StoreError> {
    let layout = Layout::new(prefix);
    let mut pages = Pages::new(store, layout.everything());
    let mut listing = Listing::default();
    let mut records = Vec::new();
    while let Some(page) = pages.next().await? {
        for kv in &page.items {
            match layout.read(kv) {
                Ok(record) => records.push((record, kv.mod_revision)),
                Err(_) => listing.foreign.push(kv.key.clone()),
            }
        }
    }
    listing.violations = audit(records.iter().map(|(record, _)| record));
    for (record, revision) in records {
        match record {
            Record::Meta(meta) => listing.meta = Some(meta),
            Record::Mapping(_, mapping) => listing.mappings.push(mapping),
            Record::Reference { hash, name, node } => {
                listing.references.push(Reference { hash, name, node, revision });
            }
            Record::Id { id, resting: true, .. } => listing.resting.push(id),
            Record::Id { .. } | Record::Urgent => {}
        }
    }
    listing.revision = pages.revision().unwrap_or_default();
    Ok(listing)
}

/// The id of a key, in one small read.
///
/// # Errors
/// [`IdsError::Foreign`], or why the store cannot be read.
pub async fn look_up<S: Store>(
    store: &S,
    prefix: impl Into<Bytes>,
    key: &[u8],
) -> Result<Option<Mapping>, IdsError> {
    let layout = Layout::new(prefix);
    let name = layout.mapping(KeyHash::of(key));
    let read = store.range(RangeRequest::new(KeyRange::key(name))).await?;
    let Some(kv) = read.items.first() else { return Ok(None) };
    match layout.read(kv).map_err(IdsError::Foreign)? {
        Record::Mapping(_, mapping) => Ok(Some(mapping).filter(|mapping| *mapping.key == *key)),
        other => Err(IdsError::Foreign(format!("it is {other:?}"))),
    }
}

/// The key of an id, in two small reads.
///
/// # Errors
/// [`IdsError::Foreign`], or why the store cannot be read.
pub async fn look_up_id<S: Store>(
    store: &S,
    prefix: impl Into<Bytes> + Clone,
    id: u64,
) -> Result<Option<Mapping>, IdsError> {
    let layout = Layout::new(prefix.clone());
    let read = store.range(RangeRequest::new(KeyRange::key(layout.id(id)))).await?;
    let Some(kv) = read.items.first() else { return Ok(None) };
    match layout.read(kv).map_err(IdsError::Foreign)? {
        Record::Id { key, resting: false, .. } => look_up(store, prefix, &key).await,
        _ => Ok(None),
    }
}

/// Gives the ids below a prefix another range. All instances follow it at once; ids that are out
/// of it stay valid, and are not given out again.
///
/// # Errors
/// [`IdsError::Foreign`], or why the store does not answer; after [`StoreError::Unknown`] it may
/// have been done.
pub async fn configure<S: Store>(
    store: &S,
    prefix: impl Into<Bytes>,
    range: IdRange,
) -> Result<Meta, IdsError> {
    let layout = Layout::new(prefix);
    let key = layout.meta();
    loop {
        let read = store.range(RangeRequest::new(KeyRange::key(&key))).await?;
        let found = match read.items.first() {
            None => None,
            Some(kv) => match layout.read(kv).map_err(IdsError::Foreign)? {
                Record::Meta(meta) => Some(meta),
                other => return Err(IdsError::Foreign(format!("it is {other:?}"))),
            },
        };
        let meta = Meta { range, epoch: found.map_or(1, |found| found.epoch) };
        if store.commit(agree(&layout, found.as_ref(), &meta)).await?.succeeded {
            return Ok(meta);
        }
    }
}

/// Deletes all that stands below a prefix, used or not. Instances that run notice, and give their
/// keys the same ids again; stop them first if that is not what is wanted.
///
/// # Errors
/// Why the store does not answer; after [`StoreError::Unknown`] it may have been done.
pub async fn delete_everything<S: Store>(
    store: &S,
    prefix: impl Into<Bytes>,
) -> Result<(), StoreError> {
    let everything = Layout::new(prefix).everything();
    store.commit(Txn::new([Op::Delete(everything)])).await.map(drop)
}
