//! Takes ids back that nobody uses. Any number of collectors may run; one is enough.

use std::{sync::Arc, time::Duration};

use crate::{
    runtime::Runtime,
    store::{
        Bytes, KeyRange, KeyValue, Lease, LeaseId, Limits, Op, RangeRequest, Refusal, Store,
        StoreError, Txn,
        mirror::{self, Mirror, View},
    },
};

use super::{
    audit::{Violation, audit},
    config::check_some,
    error::IdsError,
    layout::{Layout, Record},
    ledger::{Ledger, Rate},
    link::Link,
    pool::Pool,
    range::IdRange,
    source::stands,
    txns::{Dead, Ended, collect, collected},
};

/// How often a collector looks at the store though nothing has changed that it knows of: it may be
/// one that was put back.
const LOOK: Duration = Duration::from_secs(60);

/// How often a collector looks whether all records agree.
const AUDIT: Duration = Duration::from_secs(3_600);

/// How a collector works.
#[derive(Clone, Debug)]
pub struct CollectorOptions {
    /// How long nobody has to use an id before it is taken back. Default 5 min: several times the
    /// time to live of a session, so that a node that was away finds its ids again.
    pub grace: Duration,
    /// The same while ids run low. Default 1 min.
    pub grace_floor: Duration,
    /// From which share of used ids on, in percent, it hurries. Default 80.
    pub watermark_percent: u8,
    /// How long an id rests before another key may have it, at most 9,000,000,000 s. Default 0: it
    /// does not. Rounded up to what the store can do.
    pub rest: Duration,
    /// The most ids that are taken back in an interval; at least one. Default 2,500, as the
    /// reference.
    pub rate_limit: u32,
    /// That interval. Default 1 min.
    pub rate_interval: Duration,
    /// The most ids of one transaction. Default 100.
    pub batch: usize,
    /// How long a request may take, more than 0. Default 5 s.
    pub request_timeout: Duration,
    /// How long it waits until all ids are read. Default 2 min.
    pub patience: Duration,
    /// How it follows the store.
    pub mirror: mirror::Options,
}

impl Default for CollectorOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(300),
            grace_floor: Duration::from_secs(60),
            watermark_percent: 80,
            rest: Duration::ZERO,
            rate_limit: 2_500,
            rate_interval: Duration::from_secs(60),
            batch: 100,
            request_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(120),
            mirror: mirror::Options::default(),
        }
    }
}

impl CollectorOptions {
    /// Fails where they make no sense.
    fn check(&self) -> Result<(), IdsError> {
        if self.rest > Lease::TTL_MAX {
            let (found, expected) = (format!("{:?}", self.rest), "at most 9,000,000,000 s");
            return Err(IdsError::Invalid { field: "rest", found, expected });
        }
        check_some("request_timeout", self.request_timeout)?;
        Ok(self.mirror.check().map_err(StoreError::Refused)?)
    }
}

/// What a collector has found and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Ids that keys have, before.
    pub found: usize,
    /// Those of them that nobody used.
    pub unused: usize,
    /// Those that were taken back.
    pub deleted: usize,
    /// For how long the oldest of them was unused.
    pub oldest: Duration,
}

/// Takes ids back that nobody uses. It needs no instance of the ids, and no election: each
/// deletion asks again, at the instant that it is done.
#[derive(Debug)]
pub struct Collector<S, R> {
    link: Link<S, R>,
    options: CollectorOptions,
    mirror: Mirror<Record>,
    seen: Arc<View<Record>>,
    ledger: Ledger,
    /// Which ids are not free, used or resting.
    pool: Pool,
    rate: Rate,
    /// How often the store was found to have gone back.
    lives: u64,
}

impl<S: Store, R: Runtime> Collector<S, R> {
    /// A collector of the ids below a prefix. It reads them all, and follows them.
    ///
    /// # Errors
    /// [`IdsError::Invalid`] for options that make no sense, [`IdsError::Unavailable`] if not all
    /// could be read within its patience, or what the store refuses.
    pub async fn open(
        store: S,
        runtime: R,
        prefix: impl Into<Bytes>,
        options: CollectorOptions,
    ) -> Result<Self, IdsError> {
        options.check()?;
        let link = Link::new(store, runtime, Layout::new(prefix), options.request_timeout);
        let mirror = follow(&link, &options).await?;
        let rate = Rate::new(options.rate_limit, options.rate_interval);
        let (seen, ledger, pool) = (Arc::default(), Ledger::default(), Pool::default());
        let mut collector = Self { link, options, mirror, seen, ledger, pool, rate, lives: 0 };
        collector.look(&collector.mirror.view());
        Ok(collector)
    }

    /// Collects until `shutdown` completes, whatever fails. Once an hour it says in the log which
    /// records do not agree; see [`Collector::audit`].
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut audit_at = self.link.runtime.now();
        loop {
            let turn = async {
                match self.collect().await {
                    Ok(_) => {
                        let now = self.link.runtime.now();
                        if now >= audit_at {
                            audit_at = now + AUDIT;
                            self.audit().iter().for_each(|found| tracing::error!("{found}"));
                        }
                        self.wait().await;
                    }
                    // What it knows may be of no use any more.
                    Err(error) => {
                        tracing::warn!("ids were not taken back: {error}");
                        self.link.runtime.sleep(Duration::from_secs(1)).await;
                    }
                }
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                () = turn => {}
            }
        }
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) {
        let now = self.link.runtime.now();
        let grace = self.grace();
        let due = self.ledger.oldest().map(|since| since.saturating_add(grace));
        let due = due.map(|due| if self.rate.allowed(now) == 0 { self.rate.next() } else { due });
        // Something that is due and was not deleted is tried again, but not at once.
        let pause = due.map_or(LOOK, |due| due.saturating_sub(now));
        let pause = pause.clamp(Duration::from_millis(100), LOOK);
        let mirror = self.mirror.clone();
        let changed = async {
            if mirror.changed(&self.seen).await.is_err() {
                self.link.runtime.sleep(pause).await;
            }
        };
        tokio::select! {
            biased;
            () = changed => {}
            () = self.link.runtime.sleep(pause) => {}
        }
    }

    /// Takes back what is due, within the rate.
    ///
    /// # Errors
    /// Why the store does not answer; what was deleted before stays deleted.
    pub async fn collect(&mut self) -> Result<Collected, IdsError> {
        if self.mirror.status().ended.is_some() || self.lives != self.link.lives() {
            let lives = self.link.lives();
            self.mirror = follow(&self.link, &self.options).await?;
            self.lives = lives;
            (self.ledger, self.pool) = (Ledger::default(), Pool::default());
            self.seen = Arc::default();
        }
        // What was done before this call is to be seen.
        let meta = self.link.layout.meta();
        let probe = RangeRequest::new(KeyRange::key(&meta)).keys_only();
        let probed = self.link.range(probe).await?;
        let view = self.link.bounded(self.mirror.wait(probed.revision)).await?;
        let shown = view.get(&meta).map_or(0, |entry| entry.kv.mod_revision);
        if shown < probed.items.first().map_or(0, |kv| kv.mod_revision) {
            // Somebody has raised the epoch where the mirror did not look any more.
            self.link.forgot(self.lives);
            return Err(StoreError::Unknown("the store has gone back in time".to_owned()).into());
        }
        self.look(&view);
        let now = self.link.runtime.now();
        let (found, unused) = self.ledger.counts();
        let oldest = self.ledger.oldest().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let mut done = Collected { found, unused, deleted: 0, oldest };
        let most = self.rate.allowed(now);
        let dead = self.ledger.due(now, self.grace(), most);
        let limits = self.link.store.limits();
        let name_len = self.link.layout.name_len_max();
        for dead in portions(&dead, self.options.batch, name_len, &limits) {
            self.rate.take(dead.len());
            let lease = self.rest().await?;
            let answer = self.link.commit(collect(&self.link.layout, lease, dead)).await;
            if let Err(StoreError::Refused(Refusal::DuplicateKey(_))) = answer {
                // Two keys of one id never stand together: some of it is of another life.
                self.link.forgot(self.lives);
            }
            let answer = answer?;
            let ended = collected(dead, &answer);
            done.deleted += ended.iter().filter(|ended| **ended == Ended::Deleted).count();
            let replaced = dead.iter().zip(ended).filter(|(_, ended)| *ended == Ended::Replaced);
            let replaced: Vec<&Dead> = replaced.map(|(dead, _)| dead).collect();
            self.believe(&replaced, answer.revision).await?;
        }
        self.calm().await?;
        if done.deleted > 0 {
            tracing::info!("{} ids were taken back", done.deleted);
        }
        Ok(done)
    }

    /// Makes sure that what does not stand any more at a revision is not shown there. If it is, the
    /// store has gone back unnoticed, and all is to be read again.
    async fn believe(&self, replaced: &[&Dead], revision: u64) -> Result<(), StoreError> {
        if replaced.is_empty() {
            return Ok(());
        }
        let view = self.link.bounded(self.mirror.wait(revision)).await?;
        let shown = |dead: &Dead| match view.get(&self.link.layout.mapping(dead.hash)) {
            Some(entry) => {
                matches!(stands(entry), Some(Record::Mapping(_, shown)) if *shown == dead.mapping)
            }
            None => false,
        };
        if replaced.iter().any(|dead| shown(dead)) {
            self.link.forgot(self.lives);
            return Err(StoreError::Unknown("the store has gone back in time".to_owned()));
        }
        Ok(())
    }

    /// What is wrong with the ids, at one revision; nothing ever should be. Nothing is changed, for
    /// nobody but a person can know which of the records is to go.
    pub fn audit(&self) -> Vec<Violation> {
        let view = self.mirror.view();
        audit(view.iter().filter_map(|(_, entry)| stands(entry)))
    }

    /// The keys below the prefix that are not of this layout; they are left alone.
    pub fn foreign(&self) -> Vec<Bytes> {
        self.mirror.view().undecoded().map(|entry| entry.kv.key.clone()).collect()
    }

    /// A lease for ids to rest with.
    async fn rest(&self) -> Result<Option<LeaseId>, StoreError> {
        if self.options.rest.is_zero() {
            return Ok(None);
        }
        let granted = Box::pin(self.link.store.grant(self.options.rest, None));
        let lease = self.link.bounded(granted).await?;
        Ok(Some(lease.id))
    }

    /// Takes the call for help down, unless there is still no id left.
    async fn calm(&self) -> Result<(), StoreError> {
        let urgent = self.link.layout.urgent();
        if self.seen.get(&urgent).is_some() && self.pool.available() > 0 {
            self.link.commit(Txn::new([Op::delete(urgent)])).await?;
        }
        Ok(())
    }

    /// How long an id has to be unused: less while they run low.
    fn grace(&self) -> Duration {
        let used = u128::from(self.pool.unavailable()) * 100;
        let total = u128::from(self.pool.range().total());
        let low = used >= total * u128::from(self.options.watermark_percent);
        if low || self.seen.get(&self.link.layout.urgent()).is_some() {
            self.options.grace.min(self.options.grace_floor)
        } else {
            self.options.grace
        }
    }

    /// Counts the ids of the range that are not free.
    fn count(&mut self, range: IdRange) {
        self.pool = Pool::new(range);
        for (name, _) in self.seen.range(&self.link.layout.ids()) {
            if let Some(id) = self.link.layout.parse_id(name) {
                self.pool.remove(id);
            }
        }
    }

    /// Goes on to a later view.
    fn look(&mut self, view: &Arc<View<Record>>) {
        let now = self.link.runtime.now();
        self.link.note(self.lives, view.revision());
        let seen = std::mem::replace(&mut self.seen, Arc::clone(view));
        let (mut references, mut range) = (Vec::new(), None);
        for change in seen.changes(view) {
            if let Some(id) = self.link.layout.parse_id(change.key) {
                // Readable or not, it is not free.
                match change.after {
                    Some(_) => drop(self.pool.remove(id)),
                    None => drop(self.pool.insert(id)),
                }
                continue;
            }
            let before = change.before.and_then(|entry| stands(entry));
            match (before, change.after.and_then(|entry| stands(entry))) {
                (_, Some(Record::Mapping(hash, mapping))) => {
                    self.ledger.mapping(*hash, Some(mapping.clone()), now);
                }
                (Some(Record::Mapping(hash, _)), None) => self.ledger.mapping(*hash, None, now),
                (None, Some(Record::Reference { hash, .. })) => references.push((*hash, true)),
                (Some(Record::Reference { hash, .. }), None) => references.push((*hash, false)),
                (_, Some(Record::Meta(meta))) => range = Some(meta.range),
                _ => {}
            }
        }
        if let Some(range) = range.filter(|range| *range != self.pool.range()) {
            self.count(range);
        }
        // First those that came, so that none looks unused in between.
        references.sort_by_key(|(_, came)| !came);
        for (hash, came) in references {
            self.ledger.reference(hash, came, now);
        }
    }
}

/// Divides what is to be deleted into transactions of at most so many ids, within the limits.
fn portions<'a>(
    dead: &'a [Dead],
    most: usize,
    name_len: usize,
    limits: &Limits,
) -> impl Iterator<Item = &'a [Dead]> {
    let most = limits.operations.saturating_sub(4).clamp(1, most.max(1));
    let mut left = dead;
    std::iter::from_fn(move || {
        let mut filled = 0;
        let fits = left.iter().take(most).take_while(|dead| {
            // The key is compared, and stays with an id that rests.
            filled += 2 * dead.mapping.key.len() + 8 * name_len + 512;
            filled <= limits.bytes
        });
        let count = fits.count().clamp(1, left.len().max(1));
        let (portion, rest) = left.split_at_checked(count)?;
        left = rest;
        Some(portion)
    })
}

async fn follow<S: Store, R: Runtime>(
    link: &Link<S, R>,
    options: &CollectorOptions,
) -> Result<Mirror<Record>, IdsError> {
    let layout = link.layout.clone();
    let decode = move |kv: &KeyValue| layout.read(kv);
    let (store, runtime, range) =
        (link.store.clone(), link.runtime.clone(), link.layout.everything());
    tokio::select! {
        biased;
        opened = Mirror::open(store, runtime, range, decode, options.mirror.clone()) => Ok(opened?),
        // As long as the store cannot be reached, a mirror tries again.
        () = link.runtime.sleep(options.patience) => {
            let why = "not all ids could be read in time".to_owned();
            Err(IdsError::Unavailable(StoreError::Unknown(why)))
        }
    }
}
