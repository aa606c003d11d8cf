//! The keys that are held, for whoever uses one of them again: beside the desk, so that nobody waits
//! for what goes on there.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use foldhash::quality::RandomState;

use crate::store::Bytes;

use super::life::Life;

/// The lives of the keys by their names; some may have been lost, and say so.
///
/// More than half of what using a key again costs would be the standard library's hash of its name.
#[derive(Debug, Default)]
pub(super) struct Shelf(RwLock<HashMap<Bytes, Arc<Life>, RandomState>>);

impl Shelf {
    pub(super) fn get(&self, key: &[u8]) -> Option<Arc<Life>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn put(&self, life: &Arc<Life>) {
        let mut lives = self.0.write().unwrap_or_else(PoisonError::into_inner);
        lives.insert(life.key.clone(), Arc::clone(life));
    }

    pub(super) fn take(&self, key: &[u8]) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
