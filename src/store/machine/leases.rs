//! The leases that stand, when each ends, and the keys that end with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::store::{
    contract::Lease,
    error::Refusal,
    kv::{Bytes, LeaseId},
    tree::Tree,
};

#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) ttl: Duration,
    /// In the machine's time.
    pub(super) deadline: Duration,
    pub(super) keys: Tree<Bytes>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    pub(super) standing: BTreeMap<LeaseId, Standing>,
    /// The same leases by their deadlines.
    due: BTreeSet<(Duration, LeaseId)>,
    /// The last id that was chosen here.
    pub(super) last_id: LeaseId,
}

impl Leases {
    pub(super) fn get(&self, id: LeaseId) -> Result<&Standing, Refusal> {
        self.standing.get(&id).ok_or(Refusal::LeaseNotFound(id))
    }

    pub(super) fn grant(
        &mut self,
        id: Option<LeaseId>,
        ttl: Duration,
        now: Duration,
    ) -> Result<LeaseId, Refusal> {
        if ttl.is_zero() || ttl > Lease::TTL_MAX {
            let most = Lease::TTL_MAX;
            let what = format!("a lease of {ttl:?}: it lasts more than 0 and at most {most:?}");
            return Err(Refusal::Invalid(what));
        }
        let id = match id {
            Some(id) => id,
            None => self.free_id()?,
        };
        if id == LeaseId::NONE || id > LeaseId::MAX {
            return Err(Refusal::Invalid(format!("{id} is not the id of a lease")));
        }
        if self.standing.contains_key(&id) {
            return Err(Refusal::LeaseExists(id));
        }
        self.insert(id, ttl, now.saturating_add(ttl));
        Ok(id)
    }

    /// The next id that no lease has, and that was not chosen here before.
    fn free_id(&mut self) -> Result<LeaseId, Refusal> {
        while self.last_id < LeaseId::MAX {
            self.last_id.0 += 1;
            if !self.standing.contains_key(&self.last_id) {
                return Ok(self.last_id);
            }
        }
        Err(Refusal::Invalid("all ids of leases are used up".to_owned()))
    }

    pub(super) fn insert(&mut self, id: LeaseId, ttl: Duration, deadline: Duration) {
        self.due.insert((deadline, id));
        self.standing.insert(id, Standing { ttl, deadline, keys: Tree::default() });
    }

    pub(super) fn keep_alive(&mut self, id: LeaseId, now: Duration) -> Result<Duration, Refusal> {
        let lease = self.standing.get_mut(&id).ok_or(Refusal::LeaseNotFound(id))?;
        self.due.remove(&(lease.deadline, id));
        lease.deadline = now.saturating_add(lease.ttl);
        self.due.insert((lease.deadline, id));
        Ok(lease.ttl)
    }

    pub(super) fn remove(&mut self, id: LeaseId) -> Result<Standing, Refusal> {
        let lease = self.standing.remove(&id).ok_or(Refusal::LeaseNotFound(id))?;
        self.due.remove(&(lease.deadline, id));
        Ok(lease)
    }

    pub(super) fn attach(&mut self, id: LeaseId, key: &Bytes) {
        if let Some(lease) = self.standing.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    pub(super) fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.standing.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// When the next lease ends, and which.
    pub(super) fn next(&self) -> Option<(Duration, LeaseId)> {
        self.due.first().copied()
    }
}
