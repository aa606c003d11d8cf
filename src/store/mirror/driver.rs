//! What keeps a mirror: it loads, watches, applies whole revisions, and checks.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    shared::{Options, Shared, went_back},
    view::View,
};
use crate::{
    runtime::{Runtime, sleep_until},
    store::{
        contract::{Pages, Store, Update, Watch},
        error::{Refusal, StoreError},
        kv::{Bytes, Event, Events, KeyRange, KeyValue},
        txn::{RangeRequest, RangeResponse},
    },
};

/// The first pause before something that has failed is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// How many revisions are applied before a view is published, while more are ready.
const BATCH: usize = 1_000;

/// How often progress is asked for while somebody waits for it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The most keys that a report names.
const DRIFT_MAX: usize = 100;

pub(super) struct Driver<S, R, T, D, A> {
    pub(super) store: S,
    pub(super) runtime: R,
    pub(super) range: KeyRange,
    pub(super) decode: D,
    pub(super) options: Options,
    pub(super) shared: Arc<Shared<T>>,
    pub(super) readers: Weak<A>,
    /// Held by a check on its way.
    pub(super) checking: Weak<()>,
}

/// Whoever waits is told that nothing will come any more, also where the decoder panics.
struct Ending<T>(Arc<Shared<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.report(|status| {
            status.ended.get_or_insert_with(|| {
                Refusal::Closed("the task that follows the store has ended".to_owned()).into()
            });
        });
    }
}

/// Why a watch is left.
enum Leave {
    /// Nobody reads any more.
    Unread,
    /// Everything is to be read again.
    Reload,
    Failed(StoreError),
}

impl<S, R, T, D, A> Driver<S, R, T, D, A>
where
    S: Store,
    R: Runtime,
    T: Send + Sync + 'static,
    D: Fn(&KeyValue) -> Result<T, String> + Send + Sync + 'static,
    A: Send + Sync + 'static,
{
    /// Follows the store until nobody reads any more, or it is refused.
    pub(super) async fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        let mut pause = RETRY_FIRST;
        loop {
            let revision = self.shared.view().revision;
            match self.follow().await {
                Leave::Unread => return,
                Leave::Reload => {
                    self.shared.report(|status| status.reloads += 1);
                    if let Err(error) = self.load().await {
                        return self.end(error);
                    }
                    pause = RETRY_FIRST;
                }
                Leave::Failed(error @ StoreError::Refused(_)) => return self.end(error),
                Leave::Failed(error) => {
                    if self.shared.view().revision > revision {
                        pause = RETRY_FIRST;
                    }
                    pause = self.pause(pause, error).await;
                }
            }
            if self.readers.strong_count() == 0 {
                return;
            }
        }
    }

    fn end(&self, error: StoreError) {
        if self.readers.strong_count() == 0 {
            return;
        }
        tracing::error!("the mirror of {:?} ends: {error}", self.range);
        self.shared.report(|status| status.ended = Some(error));
    }

    async fn pause(&self, pause: Duration, error: StoreError) -> Duration {
        tracing::warn!("the mirror of {:?} tries again: {error}", self.range);
        self.shared.report(|status| status.failing = Some(error));
        self.runtime.sleep(pause).await;
        (pause * 2).min(self.options.retry_interval).max(RETRY_FIRST)
    }

    /// Reads everything, and publishes what differs from the last view as one change of it.
    pub(super) async fn load(&mut self) -> Result<(), StoreError> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.load_once().await {
                Err(error) if error.is_compacted() => {}
                Err(error @ StoreError::Refused(_)) => return Err(error),
                Err(error) if self.readers.strong_count() == 0 => return Err(error),
                Err(error) => pause = self.pause(pause, error).await,
                Ok(view) => {
                    drop(self.shared.publish(Arc::new(view)));
                    return Ok(());
                }
            }
        }
    }

    async fn load_once(&self) -> Result<View<T>, StoreError> {
        let old = self.shared.view();
        let mut view = (*old).clone();
        let mut pages = Pages::new(&self.store, self.range.clone()).page_len(self.options.page_len);
        let mut left = Some(self.range.clone());
        let mut pause = RETRY_FIRST;
        let mut changed = false;
        loop {
            let page = match pages.next().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                // The same page is asked for again.
                Err(error @ (StoreError::Retry(_) | StoreError::Unknown(_)))
                    if self.readers.strong_count() > 0 =>
                {
                    pause = self.pause(pause, error).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let revision = pages.revision().unwrap_or(page.revision);
            if revision < old.revision {
                return Err(went_back(old.revision, revision));
            }
            view.revision = revision;
            // What is not on this page and does not lie behind it stands no more.
            let last = page.items.last().filter(|_| page.more).map(|kv| kv.key.clone());
            let mut gone = left.take().map(|range| keys(&old, &range, last.as_ref()));
            left = last.map(|last| self.range.after(&last));
            for kv in &page.items {
                if let Some(gone) = &mut gone {
                    gone.meet(&kv.key);
                }
                if old.get(&kv.key).is_none_or(|entry| entry.kv.mod_revision != kv.mod_revision) {
                    view.put(kv, &self.decode);
                    view.changed = view.changed.max(kv.mod_revision);
                    changed = true;
                }
            }
            for key in gone.into_iter().flat_map(|gone| gone.gone.into_iter().chain(gone.left)) {
                view.delete(&key);
                changed = true;
            }
            // A store in this process never waits, and other tasks want their turn.
            tokio::task::yield_now().await;
        }
        if changed && old.revision > 0 {
            // Deletions carry no revision; this is the last that any of it can have happened at.
            view.changed = view.revision;
        }
        Ok(view)
    }

    /// Watches from the last view on.
    async fn follow(&mut self) -> Leave {
        let from = self.shared.view().revision + 1;
        let mut watch = match self.store.watch(self.range.clone(), from).await {
            Ok(watch) => watch,
            Err(error) if error.is_compacted() => return Leave::Reload,
            Err(error) => return Leave::Failed(error),
        };
        self.shared.report(|status| status.failing = None);
        let mut check_at =
            self.options.check_interval.map(|every| self.runtime.now().saturating_add(every));
        let mut ask_at = Duration::ZERO;
        loop {
            let wake = self.ask(&mut watch, &mut ask_at).into_iter().chain(check_at).min();
            let update = tokio::select! {
                biased;
                update = watch.next() => Some(update),
                () = self.shared.demand.notified() => None,
                () = sleep_until(&self.runtime, wake) => None,
            };
            if self.readers.strong_count() == 0 {
                return Leave::Unread;
            }
            if let Some(update) = update
                && let Err(error) = self.apply(update, &mut watch).await
            {
                return if error.is_compacted() { Leave::Reload } else { Leave::Failed(error) };
            }
            if self.shared.take_reload() {
                return Leave::Reload;
            }
            if check_at.is_some_and(|at| at <= self.runtime.now()) {
                check_at = self
                    .options
                    .check_interval
                    .map(|every| self.runtime.now().saturating_add(every));
                self.shared.ask_for_check();
            }
            if self.checking.strong_count() == 0 && self.shared.take_check() {
                self.check();
            }
        }
    }

    fn check(&mut self) {
        let running = Arc::new(());
        self.checking = Arc::downgrade(&running);
        let check = Check {
            store: self.store.clone(),
            range: self.range.clone(),
            page_len: self.options.page_len,
            shared: Arc::clone(&self.shared),
        };
        let demand = Arc::clone(&self.shared.demand);
        self.runtime.spawn(async move {
            check.run().await;
            drop(running);
            // Another may have been asked for meanwhile.
            demand.notify_one();
        });
    }

    /// Asks for progress if a reader waits for a later revision: at once, and then at intervals.
    /// Returns when to ask again.
    fn ask(&self, watch: &mut S::Watch, ask_at: &mut Duration) -> Option<Duration> {
        if self.shared.view().revision >= self.shared.wanted() {
            *ask_at = Duration::ZERO;
            return None;
        }
        let now = self.runtime.now();
        if *ask_at <= now {
            watch.request_progress();
            *ask_at = now + PROGRESS_INTERVAL;
        }
        Some(*ask_at)
    }

    /// Applies an update and those that are ready behind it, then publishes.
    async fn apply(
        &self,
        update: Result<Update, StoreError>,
        watch: &mut S::Watch,
    ) -> Result<(), StoreError> {
        let mut view = (*self.shared.view()).clone();
        let mut next = Some(update);
        let mut failed = Ok(());
        let mut count = 0;
        while let Some(update) = next {
            match update {
                Ok(Update::Events(events)) => self.apply_events(&mut view, &events),
                Ok(Update::Progress(revision)) => view.revision = view.revision.max(revision),
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
            count += 1;
            next = if count < BATCH {
                tokio::select! {
                    biased;
                    update = watch.next() => Some(update),
                    () = std::future::ready(()) => None,
                }
            } else {
                None
            };
        }
        let old = self.shared.publish(Arc::new(view));
        tokio::task::yield_now().await;
        drop(old);
        failed
    }

    fn apply_events(&self, view: &mut View<T>, events: &Events) {
        if events.revision <= view.revision {
            // The contract forbids it; what is applied already stays.
            tracing::error!("revision {} was told twice", events.revision);
            return;
        }
        for event in &events.events {
            match event {
                Event::Put(kv) => view.put(kv, &self.decode),
                Event::Delete(key) => view.delete(key),
            }
        }
        view.revision = events.revision;
        view.changed = events.revision;
    }
}

/// The keys that a reading has not met yet.
struct Gone {
    left: std::iter::Peekable<std::vec::IntoIter<Bytes>>,
    gone: Vec<Bytes>,
}

impl Gone {
    /// Meets a key; those before it, which were not met, are gone.
    fn meet(&mut self, met: &Bytes) {
        while let Some(key) = self.left.next_if(|key| key <= met) {
            if key != *met {
                self.gone.push(key);
            }
        }
    }
}

fn keys<T>(view: &View<T>, range: &KeyRange, last: Option<&Bytes>) -> Gone {
    let keys = view.range(range).map(|(key, _)| key);
    let keys = keys.take_while(|key| last.is_none_or(|last| *key <= last));
    let keys: Vec<Bytes> = keys.cloned().collect();
    Gone { left: keys.into_iter().peekable(), gone: Vec::new() }
}

/// Compares a view with what stood in the store at its revision.
struct Check<S, T> {
    store: S,
    range: KeyRange,
    page_len: usize,
    shared: Arc<Shared<T>>,
}

impl<S: Store, T: Send + Sync + 'static> Check<S, T> {
    async fn run(self) {
        let (view, drift) = match self.compare().await {
            Ok(compared) => compared,
            // It is not known just now: the next check will tell.
            Err(error) => return tracing::info!("a check was given up: {error}"),
        };
        if !drift.is_empty() {
            let revision = view.revision;
            tracing::error!("{} keys drifted at revision {revision}: {drift:?}", drift.len());
            self.shared.ask_for_reload();
        }
        self.shared.report(|status| {
            status.checks += 1;
            status.drifts += u64::from(!drift.is_empty());
            status.drift = drift;
        });
    }

    async fn compare(&self) -> Result<(Arc<View<T>>, Vec<Bytes>), StoreError> {
        // The last view may be of long ago, where nothing happened in the range since; what stood
        // then would not be known any more.
        let now = RangeRequest::new(self.range.clone()).limit(1).keys_only();
        let now = self.store.range(now).await?.revision;
        let view = self.shared.wait_until(now, |view| view.revision >= now).await?;
        let pages = Pages::new(&self.store, self.range.clone()).page_len(self.page_len);
        let mut pages = pages.keys_only().at(view.revision);
        let mut drift = Vec::new();
        let mut left = self.range.clone();
        while let Some(page) = pages.next().await? {
            drift.extend(differences(&view, &left, &page));
            drift.truncate(DRIFT_MAX);
            if let Some(last) = page.items.last() {
                left = self.range.after(&last.key);
            }
            tokio::task::yield_now().await;
        }
        Ok((view, drift))
    }
}

/// The keys in which a view differs from a page that begins with `range`.
fn differences<T>(view: &View<T>, range: &KeyRange, page: &RangeResponse) -> Vec<Bytes> {
    let last = page.items.last().filter(|_| page.more).map(|kv| &kv.key);
    let mine = view.range(range).map(|(_, entry)| &entry.kv);
    let mut mine = mine.take_while(|kv| last.is_none_or(|last| kv.key <= *last)).peekable();
    let mut theirs = page.items.iter().peekable();
    let mut drift = Vec::new();
    loop {
        let next = [mine.peek().map(|kv| &kv.key), theirs.peek().map(|kv| &kv.key)];
        let Some(key) = next.into_iter().flatten().min().cloned() else { return drift };
        let mine = mine.next_if(|kv| kv.key == key).map(|kv| kv.mod_revision);
        let theirs = theirs.next_if(|kv| kv.key == key).map(|kv| kv.mod_revision);
        if mine != theirs {
            drift.push(key);
        }
    }
}
