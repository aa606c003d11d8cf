//! Which key has which id, in the caches or in the store; without a reference to it.

use std::{pin::pin, sync::Arc, time::Duration};

use crate::{
    runtime::Runtime,
    store::{Bytes, KeyRange, RangeRequest, RangeResponse, Store, StoreError},
};

use super::{
    error::IdsError,
    instance::Ids,
    layout::{KeyHash, Mapping, Record},
    link::no_answer,
    source::Remote,
};

/// A mapping as a cache knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedId {
    /// The name of the remote cache; `None`: the own one.
    pub origin: Option<Arc<str>>,
    /// The id.
    pub id: u64,
    /// The key.
    pub key: Bytes,
}

impl<S: Store, R: Runtime> Ids<S, R> {
    /// The id of a key: from what is held, from the cache, or else from the store. It takes no
    /// reference, so it may be another the next moment.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(&self, key: &[u8]) -> Result<Option<u64>, IdsError> {
        match self.get_cached(key) {
            Some(id) => Ok(Some(id)),
            None => self.get_no_cache(key).await,
        }
    }

    /// The id of a key as far as this instance knows it.
    pub fn get_cached(&self, key: &[u8]) -> Option<u64> {
        let held = self.alive.0.shelf.get(key).filter(|life| life.is_held());
        held.map(|life| life.id).or_else(|| self.alive.0.lock().stock.source().id(key))
    }

    /// The id of a key as it stands in the store, in one round trip.
    ///
    /// # Errors
    /// Those of the store, or [`IdsError::Foreign`].
    pub async fn get_no_cache(&self, key: &[u8]) -> Result<Option<u64>, IdsError> {
        Ok(self.look_up(key).await?.map(|mapping| mapping.id))
    }

    async fn look_up(&self, key: &[u8]) -> Result<Option<Mapping>, IdsError> {
        let name = self.link.layout.mapping(KeyHash::of(key));
        match self.read(name).await? {
            Some(Record::Mapping(_, mapping)) => Ok(Some(mapping).filter(|m| *m.key == *key)),
            _ => Ok(None),
        }
    }

    /// The key of an id: from the cache, or else from the store.
    ///
    /// # Errors
    /// Those of the store, or [`IdsError::Foreign`].
    pub async fn get_by_id(&self, id: u64) -> Result<Option<Bytes>, IdsError> {
        if let Some(known) = self.alive.0.lock().stock.get(id) {
            return Ok(Some(known.key));
        }
        match self.read(self.link.layout.id(id)).await? {
            Some(Record::Id { key, resting: false, .. }) => Ok(Some(key)),
            _ => Ok(None),
        }
    }

    async fn read(&self, name: Bytes) -> Result<Option<Record>, IdsError> {
        let RangeResponse { items, .. } =
            self.link.range(RangeRequest::new(KeyRange::key(name))).await.inspect_err(|_| {
                // If it has gone back, that is for the driver to cope with.
                self.alive.0.wake.notify_one();
            })?;
        let Some(kv) = items.first() else { return Ok(None) };
        self.link.layout.read(kv).map(Some).map_err(IdsError::Foreign)
    }

    /// The id of a key, in the own cache, in the remote caches, or else in the own store. Other
    /// stores are not asked.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get_with_remotes(&self, key: &[u8]) -> Result<Option<u64>, IdsError> {
        if let Some(id) = self.get_cached(key) {
            return Ok(Some(id));
        }
        let found = |remote: &Remote| remote.source.id(key);
        let remote = self.alive.0.remotes().values().find_map(found);
        if remote.is_some() { Ok(remote) } else { self.get_no_cache(key).await }
    }

    /// The key of an id, in the own cache, in the remote caches, or else in the own store.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get_by_id_with_remotes(&self, id: u64) -> Result<Option<Bytes>, IdsError> {
        if let Some(known) = self.alive.0.lock().stock.get(id) {
            return Ok(Some(known.key));
        }
        let found = |remote: &Remote| remote.get(id).map(|known| known.key);
        let remote = self.alive.0.remotes().values().find_map(found);
        if remote.is_some() { Ok(remote) } else { self.get_by_id(id).await }
    }

    /// Waits until a key has an id, however it gets it, and returns that. Where the cache does not
    /// tell, it asks the store once in a second, whether that answers or not.
    ///
    /// # Errors
    /// [`IdsError::Unassigned`] after [`Options::patience`](super::Options::patience), or [`IdsError::Unavailable`] if the
    /// store did not answer last; [`IdsError::Closed`]; or what the store refuses.
    pub async fn wait_for(&self, key: &[u8]) -> Result<u64, IdsError> {
        let end = self.end();
        let ticks = &self.alive.0.ticks;
        let mut missing = IdsError::Unavailable(no_answer());
        loop {
            let mut seen = ticks.count();
            let left = end.saturating_sub(self.link.runtime.now());
            let asked = tokio::select! {
                biased;
                asked = self.get(key) => asked,
                () = self.link.runtime.sleep(left) => return Err(missing),
            };
            missing = match asked {
                Ok(Some(id)) => return Ok(id),
                Ok(None) => IdsError::Unassigned(key.into()),
                Err(IdsError::Store(error @ (StoreError::Retry(_) | StoreError::Unknown(_)))) => {
                    IdsError::Unavailable(error)
                }
                Err(error) => return Err(error),
            };
            let left = end.saturating_sub(self.link.runtime.now());
            if left.is_zero() {
                return Err(missing);
            }
            let mut pause = pin!(self.link.runtime.sleep(left.min(Duration::from_secs(1))));
            loop {
                tokio::select! {
                    biased;
                    goes_on = ticks.changed(seen) => if !goes_on {
                        return Err(IdsError::Closed);
                    },
                    () = &mut pause => break,
                }
                seen = ticks.count();
                if let Some(id) = self.get_cached(key) {
                    return Ok(id);
                }
            }
        }
    }

    /// All that the caches hold, in the order of the ids, the own ones first.
    pub fn cached(&self) -> Vec<CachedId> {
        let mut sources = vec![(None, self.alive.0.lock().stock.source().ids())];
        for (name, remote) in self.alive.0.remotes().iter() {
            sources.push((Some(Arc::clone(name)), remote.source.ids()));
        }
        let all = sources.into_iter().flat_map(|(origin, known)| {
            known.into_values().map(move |known| CachedId {
                origin: origin.clone(),
                id: known.id,
                key: known.key,
            })
        });
        all.collect()
    }
}
