//! Follows the ids of a store, for the cache of an instance.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    runtime::Runtime,
    store::{
        KeyValue, Store,
        mirror::{Mirror, Options, View},
    },
};

use super::{
    config::Validator,
    layout::{Layout, Record},
};

/// What a follower has to tell.
pub(super) enum Fed<'a> {
    /// It begins anew.
    Opened(&'a Mirror<Record>),
    /// What stands now.
    View(&'a Arc<View<Record>>),
}

/// What follows the ids below a prefix.
pub(super) struct Follower<S, R, F> {
    pub(super) store: S,
    pub(super) runtime: R,
    pub(super) layout: Layout,
    pub(super) validators: Vec<Validator>,
    pub(super) options: Options,
    /// Whether to begin anew; or to end, if the listener says so.
    pub(super) reopen: Arc<Notify>,
    /// Listens, and says whether to go on.
    pub(super) listener: F,
}

impl<S: Store, R: Runtime, F: Fn(Option<&Fed<'_>>) -> bool + Send + Sync + 'static>
    Follower<S, R, F>
{
    /// Follows until the listener has enough.
    pub(super) async fn run(self) {
        let listener = &self.listener;
        while listener(None) {
            let mirror = tokio::select! {
                biased;
                mirror = self.open() => mirror,
                () = self.reopen.notified() => continue,
            };
            let Some(mirror) = mirror else { continue };
            let mut view = mirror.view();
            if !listener(Some(&Fed::Opened(&mirror))) || !listener(Some(&Fed::View(&view))) {
                return;
            }
            loop {
                let next = tokio::select! {
                    biased;
                    next = mirror.changed(&view) => next,
                    () = self.reopen.notified() => break,
                };
                match next {
                    Ok(next) if listener(Some(&Fed::View(&next))) => view = next,
                    Ok(_) => return,
                    Err(error) => {
                        tracing::warn!("the cache of the ids begins anew: {error}");
                        self.runtime.sleep(Duration::from_millis(50)).await;
                        break;
                    }
                }
            }
        }
    }

    async fn open(&self) -> Option<Mirror<Record>> {
        let (layout, validators) = (self.layout.clone(), self.validators.clone());
        let decode = move |kv: &KeyValue| read(&layout, &validators, kv);
        let (store, runtime, range) = (self.store.clone(), self.runtime.clone(), self.layout.ids());
        match Mirror::open(store, runtime, range, decode, self.options.clone()).await {
            Ok(mirror) => Some(mirror),
            Err(error) => {
                tracing::warn!("the ids cannot be followed: {error}");
                self.runtime.sleep(self.options.retry_interval).await;
                None
            }
        }
    }
}

fn read(layout: &Layout, validators: &[Validator], kv: &KeyValue) -> Result<Record, String> {
    let record = layout.read(kv)?;
    if let Record::Id { id, key, .. } = &record {
        let judge = |validator: &Validator| {
            let judged = catch_unwind(AssertUnwindSafe(|| validator(*id, key)));
            judged.unwrap_or_else(|_| Err("a validator panicked".to_owned()))
        };
        validators.iter().try_for_each(judge)?;
    }
    Ok(record)
}
