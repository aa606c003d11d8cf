//! How an instance of the ids works.

use std::{fmt, sync::Arc, time::Duration};

use crate::store::{Bytes, Lease, StoreError, mirror};

use super::{error::IdsError, range::IdRange};

/// The shortest life of a reference without its node: a third of it passes between two questions.
const TTL_MIN: Duration = Duration::from_millis(100);

/// Judges what others have written before it is believed.
///
/// Given an id and its key; an error, or a panic, keeps the mapping out of the cache and out of the
/// events. The id counts as used nevertheless.
pub type Validator = Arc<dyn Fn(u64, &Bytes) -> Result<(), String> + Send + Sync>;

/// Whether an instance gives keys an id that have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Creation {
    /// It does.
    #[default]
    Allowed,
    /// It only uses ids that others have given out.
    Forbidden,
}

/// Whether an instance keeps all ids in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// It reads all and follows them: lookups cost nothing, and candidates are free.
    #[default]
    Full,
    /// It reads nothing: for short lives, and for ranges that are mostly free. There are no events
    /// then, nothing to list, and no warning when ids run low.
    Lazy,
}

/// What happens to an id whose last user goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reclaim {
    /// A collector takes it back after its grace, so that it may well be the same when the key is
    /// used again.
    #[default]
    Collector,
    /// The last user takes it back at once, if the id is its own alone since it came; closing the
    /// instance does so for all. It does not rest. What a crash, a lost session or a request on its
    /// way leaves behind waits for a collector, which need not run often.
    Eager,
}

/// How an instance works.
#[derive(Clone)]
pub struct Options {
    /// The ids. `None`: those that stand; if none do, all but 0. The first instance decides for
    /// all.
    pub range: Option<IdRange>,
    /// What the references say about who holds them, for people. Default: nothing.
    pub node: Bytes,
    /// How long a reference outlives a node that is gone, from 100 ms to 9,000,000,000 s. Default 60 s:
    /// long enough for a restart of the store, and a fifth of what a collector waits on top.
    pub ttl: Duration,
    /// How long a request may take before it is sent again, more than 0. Default 5 s.
    pub request_timeout: Duration,
    /// How long a call waits for the store. Default 2 min.
    pub patience: Duration,
    /// How often a key is tried before its callers are told. Default 16.
    pub attempts: u32,
    /// The longest of the first pauses after a failure; they double. Default 20 ms.
    pub backoff_first: Duration,
    /// The longest pause after a failure. Default 5 s. Every pause is drawn between zero and that.
    pub backoff_max: Duration,
    /// The most keys of one transaction. Default 100.
    pub batch: usize,
    /// The most transactions that are on their way at once, but for one more that lets go. Default
    /// 4; what comes meanwhile is put together.
    pub in_flight: usize,
    /// How many ids a transaction may choose from for a key. Default 4; it takes one where there
    /// are very many.
    pub candidates: usize,
    /// How often references that nobody uses are looked for, more than 0. Default 5 min, give or
    /// take a tenth.
    pub reconcile_interval: Duration,
    /// The share of ids in use, in percent, from which on a warning is given. Default 80.
    pub watermark_percent: u8,
    /// Whether keys without an id get one.
    pub creation: Creation,
    /// Whether all ids are kept in memory.
    pub caching: Caching,
    /// What happens to ids that nobody uses.
    pub reclaim: Reclaim,
    /// Judges what others have written; all of them have to agree.
    pub validators: Vec<Validator>,
    /// How the cache follows the store.
    pub mirror: mirror::Options,
    /// Makes the choice of candidates and of nonces repeatable, for tests; no two instances may
    /// have the same. Default: as the machine's chance wants it.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            range: None,
            node: Bytes::default(),
            ttl: Duration::from_secs(60),
            request_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(120),
            attempts: 16,
            backoff_first: Duration::from_millis(20),
            backoff_max: Duration::from_secs(5),
            batch: 100,
            in_flight: 4,
            candidates: 4,
            reconcile_interval: Duration::from_secs(300),
            watermark_percent: 80,
            creation: Creation::default(),
            caching: Caching::default(),
            reclaim: Reclaim::default(),
            validators: Vec::new(),
            mirror: mirror::Options::default(),
            seed: None,
        }
    }
}

/// Fails for an option that is zero.
pub(super) fn check_some(field: &'static str, found: Duration) -> Result<(), IdsError> {
    if found.is_zero() {
        let (found, expected) = (format!("{found:?}"), "more than 0");
        return Err(IdsError::Invalid { field, found, expected });
    }
    Ok(())
}

impl Options {
    /// Fails where they make no sense, before anybody waits for what no store will do.
    pub(super) fn check(&self) -> Result<(), IdsError> {
        if !(TTL_MIN..=Lease::TTL_MAX).contains(&self.ttl) {
            let (found, expected) = (format!("{:?}", self.ttl), "from 100 ms to 9,000,000,000 s");
            return Err(IdsError::Invalid { field: "ttl", found, expected });
        }
        check_some("request_timeout", self.request_timeout)?;
        check_some("reconcile_interval", self.reconcile_interval)?;
        Ok(self.mirror.check().map_err(StoreError::Refused)?)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("range", &self.range)
            .field("node", &self.node)
            .field("ttl", &self.ttl)
            .field("creation", &self.creation)
            .field("caching", &self.caching)
            .field("reclaim", &self.reclaim)
            .finish_non_exhaustive()
    }
}
