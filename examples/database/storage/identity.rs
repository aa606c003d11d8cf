//! Who a server is: written once into its data directory, before it says a word to anybody.

use std::io;

use raft_autopilot::codec;
use redb::{Database, ReadableDatabase};
use serde::{Deserialize, Serialize};

use super::failed;
use super::log::META;
use crate::types::Member;

const KEY: &str = "identity";

/// The identity of a data directory. It never changes, except that it may end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Random number of the cluster; servers of two clusters never talk to each other.
    pub(crate) cluster: u64,
    /// The node id. An empty directory gets a new one; an old one never returns.
    pub(crate) id: u64,
    /// The addresses and names under which it joined.
    pub(crate) member: Member,
    /// Whom it asked to join; `None` on the server that began the cluster.
    pub(crate) seed: Option<String>,
    /// It was removed from the cluster and must not run again.
    pub(crate) removed: bool,
}

impl Identity {
    pub(super) fn read(db: &Database) -> io::Result<Option<Self>> {
        let table = db.begin_read().map_err(failed)?.open_table(META).map_err(failed)?;
        let bytes = table.get(KEY).map_err(failed)?;
        bytes.map(|bytes| codec::decode(bytes.value()).map_err(failed)).transpose()
    }

    pub(super) fn write(&self, db: &Database) -> io::Result<()> {
        let bytes = codec::encode(self).map_err(failed)?;
        let txn = db.begin_write().map_err(failed)?;
        txn.open_table(META).map_err(failed)?.insert(KEY, bytes.as_slice()).map_err(failed)?;
        txn.commit().map_err(failed)
    }
}
