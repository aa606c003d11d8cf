//! Keys that are more than bytes.

use std::{fmt, marker::PhantomData};

use crate::{
    runtime::Runtime,
    store::{Bytes, Store},
};

use super::{error::IdsError, handle::Handle, instance::Ids};

/// A key of a type of its own. Two keys are the same if their bytes are.
pub trait IdKey: Sized {
    /// The key as bytes.
    fn encode(&self) -> Bytes;

    /// The key that has these bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

impl IdKey for Bytes {
    fn encode(&self) -> Bytes {
        self.clone()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Ok(bytes.into())
    }
}

impl IdKey for Vec<u8> {
    fn encode(&self) -> Bytes {
        self.as_slice().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Ok(bytes.to_vec())
    }
}

impl IdKey for String {
    fn encode(&self) -> Bytes {
        self.as_str().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Self::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
    }
}

/// An instance that speaks of keys of one type.
pub struct Typed<K, S, R> {
    ids: Ids<S, R>,
    keys: PhantomData<fn(K) -> K>,
}

impl<K, S: Clone, R: Clone> Clone for Typed<K, S, R> {
    fn clone(&self) -> Self {
        Self { ids: self.ids.clone(), keys: PhantomData }
    }
}

impl<K, S, R> fmt::Debug for Typed<K, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ids.fmt(f)
    }
}

impl<S: Store, R: Runtime> Ids<S, R> {
    /// The same instance for keys of a type.
    pub fn typed<K: IdKey>(&self) -> Typed<K, S, R> {
        Typed { ids: self.clone(), keys: PhantomData }
    }
}

impl<K: IdKey, S: Store, R: Runtime> Typed<K, S, R> {
    /// The instance for keys of any bytes.
    pub fn ids(&self) -> &Ids<S, R> {
        &self.ids
    }

    /// As [`Ids::allocate`].
    ///
    /// # Errors
    /// The same.
    pub async fn allocate(&self, key: &K) -> Result<Handle, IdsError> {
        self.ids.allocate(key.encode()).await
    }

    /// As [`Ids::get`].
    ///
    /// # Errors
    /// The same.
    pub async fn get(&self, key: &K) -> Result<Option<u64>, IdsError> {
        self.ids.get(&key.encode()).await
    }

    /// As [`Ids::get_by_id`].
    ///
    /// # Errors
    /// The same, and [`IdsError::Foreign`] for a key that is not of the type.
    pub async fn get_by_id(&self, id: u64) -> Result<Option<K>, IdsError> {
        let key = self.ids.get_by_id(id).await?;
        key.map(|key| K::decode(&key)).transpose().map_err(IdsError::Foreign)
    }
}
