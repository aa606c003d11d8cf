//! The contract of a store, in etcd's model: revisions, transactions, watches and leases.
//!
//! Every change of anything is one revision, and revisions are counted by one number for the whole
//! store. One public suite (feature `testing`) holds every implementation to it.

use std::{future::Future, time::Duration};

use super::{
    error::{Refusal, StoreError},
    kv::{Bytes, Events, KeyRange, LeaseId},
    txn::{Limits, RangeRequest, RangeResponse, Txn, TxnResponse},
};

/// A key-value store with revisions, transactions, watches and leases. Its clones are the same
/// store.
///
/// All reads and transactions are linearizable: each sees every change that was answered before
/// it was sent. A future that is dropped may still take effect, as one that ended in
/// [`StoreError::Unknown`] may.
///
/// # Errors
/// Every method may fail with each [`StoreError`]; which refusals are its own, each says.
pub trait Store: Clone + Send + Sync + 'static {
    /// A watch of this store.
    type Watch: Watch;

    /// What a transaction may hold. Larger ones are refused before they are sent.
    fn limits(&self) -> Limits;

    /// Reads a range of keys, at the current revision or an earlier one.
    ///
    /// For a range that may be large use [`Pages`].
    ///
    /// # Errors
    /// Refused as [`Refusal::Compacted`] or [`Refusal::Ahead`]; never [`StoreError::Unknown`].
    fn range(
        &self,
        request: RangeRequest,
    ) -> impl Future<Output = Result<RangeResponse, StoreError>> + Send;

    /// Does a transaction.
    ///
    /// # Errors
    /// Refused as [`Txn::check`] says, as [`Refusal::LeaseNotFound`] if a put names no lease that
    /// stands, and like [`Store::range`]. Then nothing of it was done.
    fn commit(&self, txn: Txn) -> impl Future<Output = Result<TxnResponse, StoreError>> + Send;

    /// Watches a range of keys: all that happens to them at revision `from` and later. Zero: all
    /// that happens from now on.
    ///
    /// # Errors
    /// That `from` is compacted is told by the watch, not here.
    fn watch(
        &self,
        range: KeyRange,
        from: u64,
    ) -> impl Future<Output = Result<Self::Watch, StoreError>> + Send;

    /// Grants a lease; with an id of the caller's choice, or of the store's.
    ///
    /// # Errors
    /// Refused as [`Refusal::LeaseExists`], or [`Refusal::Invalid`] for an id or a time to live
    /// that is zero or too large.
    fn grant(
        &self,
        ttl: Duration,
        id: Option<LeaseId>,
    ) -> impl Future<Output = Result<Lease, StoreError>> + Send;

    /// Lets a lease live for its whole time again, from some moment between the call and its
    /// answer. Returns that time.
    ///
    /// # Errors
    /// Refused as [`Refusal::LeaseNotFound`].
    fn keep_alive(&self, id: LeaseId) -> impl Future<Output = Result<Duration, StoreError>> + Send;

    /// Ends a lease, and deletes all keys that have it, at one revision.
    ///
    /// # Errors
    /// Refused as [`Refusal::LeaseNotFound`].
    fn revoke(&self, id: LeaseId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// How long a lease still lives, and the keys that have it.
    ///
    /// # Errors
    /// Refused as [`Refusal::LeaseNotFound`].
    fn time_to_live(
        &self,
        id: LeaseId,
    ) -> impl Future<Output = Result<LeaseState, StoreError>> + Send;

    /// Forgets the history up to and including a revision; what stood at it can still be read.
    ///
    /// # Errors
    /// Refused as [`Refusal::Compacted`] if it is gone already, or as [`Refusal::Ahead`].
    fn compact(&self, revision: u64) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A watch of a range of keys. Dropping it ends it.
///
/// It lasts over disconnects, restarts and changes of leader: what it tells, it tells once, in the
/// order of the revisions, and without a gap.
pub trait Watch: Send + 'static {
    /// Waits for what comes next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Any error ends the watch. [`Refusal::Compacted`]: what should come next is gone; read the
    /// range, and watch from the revision after that of the reading.
    fn next(&mut self) -> impl Future<Output = Result<Update, StoreError>> + Send;

    /// Asks for an [`Update::Progress`] soon, even where nothing happens. Without being asked, a
    /// store may send none for as long as nothing happens in the range.
    fn request_progress(&mut self);
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// All that one revision did to the watched keys.
    Events(Events),
    /// All that happened up to and including this revision has been told.
    Progress(u64),
}

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lives without being kept alive; at least what was asked for. Etcd counts in
    /// whole seconds, and grants no less than its election timeout.
    pub ttl: Duration,
}

impl Lease {
    /// The longest time to live: 9,000,000,000 s, as etcd's.
    pub const TTL_MAX: Duration = Duration::from_secs(9_000_000_000);
}

/// What stands of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// How long it lives without being kept alive.
    pub ttl: Duration,
    /// How long it lives from now on; etcd rounds to whole seconds.
    pub remaining: Duration,
    /// The keys that have it, in ascending order.
    pub keys: Vec<Bytes>,
}

/// Reads a large range in pages, all of them at the revision of the first.
#[derive(Debug)]
pub struct Pages<'a, S> {
    store: &'a S,
    range: Option<KeyRange>,
    revision: Option<u64>,
    page_len: usize,
    keys_only: bool,
}

impl<'a, S: Store> Pages<'a, S> {
    /// How many keys a page holds, if nothing else is asked for: 1,000.
    pub const PAGE_LEN: usize = 1_000;

    /// Pages of `range`, at the revision that stands when the first is read.
    pub fn new(store: &'a S, range: KeyRange) -> Self {
        let page_len = Self::PAGE_LEN;
        Self { store, range: Some(range), revision: None, page_len, keys_only: false }
    }

    /// The same, with so many keys to a page, at least one.
    #[must_use]
    pub fn page_len(mut self, keys: usize) -> Self {
        self.page_len = keys.max(1);
        self
    }

    /// The same at a revision.
    #[must_use]
    pub fn at(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// The same without the values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// The revision that the pages are read at; known from the first page on.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// Reads the next page. `None`: that was all.
    ///
    /// # Errors
    /// Those of [`Store::range`]. The same page is read when called again; after
    /// [`Refusal::Compacted`] start over.
    pub async fn next(&mut self) -> Result<Option<RangeResponse>, StoreError> {
        let Some(range) = self.range.clone() else { return Ok(None) };
        let request = RangeRequest {
            range: range.clone(),
            revision: self.revision,
            limit: Some(self.page_len),
            keys_only: self.keys_only,
        };
        let page = self.store.range(request).await?;
        self.revision.get_or_insert(page.revision);
        self.range = match page.items.last() {
            Some(last) if page.more => Some(range.after(&last.key)),
            _ => None,
        };
        Ok(Some(page))
    }
}

impl StoreError {
    /// Whether it is [`Refusal::Compacted`].
    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Compacted { .. }))
    }
}
