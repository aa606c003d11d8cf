//! Tells an application's worker what comes to be held here and what goes, item by item.

use std::{future::Future, sync::Arc};

use super::{
    desk::Core,
    handle::Handle,
    item::Key,
    local::{Facts, Happening},
    value::{Entity, Workload, key_of},
};
use crate::{
    runtime::Runtime,
    store::{
        KeyRange, StoreError,
        mirror::{Mirror, View},
    },
};

/// What a worker is told of an item.
#[derive(Debug)]
pub struct Task<W: Workload> {
    /// The item's name.
    pub item: Arc<str>,
    /// What happens to it.
    pub happening: Happening,
    /// The member, to say how far the item is: [`Handle::publish`].
    pub handle: Handle<W>,
    pub(super) value: Option<Arc<Entity<W>>>,
}

impl<W: Workload> Task<W> {
    /// The item's value. `None`: it has none that decodes, or is deleted.
    pub fn value(&self) -> Option<&W::Item> {
        self.value.as_ref()?.item()
    }
}

/// Does the work of the items that are held here.
pub trait Worker<W: Workload>: Send + Sync + 'static {
    /// Does what is to be done when something happens to an item.
    ///
    /// What happens to one item is told strictly one after another: the next thing when this is
    /// done. What happens meanwhile and is undone again is not told. When the lease is lost, what is
    /// under way is dropped at its next `await`, and [`Happening::Removed`] is told.
    fn happens(&self, task: Task<W>) -> impl Future<Output = ()> + Send;
}

/// A worker that does nothing: for members that watch, plan, or look at [`Handle::held`] themselves.
impl<W: Workload> Worker<W> for () {
    async fn happens(&self, _: Task<W>) {}
}

/// Follows what is held here, until the mirror ends.
pub(super) async fn follow<W: Workload, R: Runtime>(
    core: &Arc<Core<W>>,
    runtime: &R,
    worker: &Arc<impl Worker<W>>,
    mirror: &Mirror<Entity<W>>,
) -> StoreError {
    let mut followed = mirror.changes_from_empty();
    // Most changes are of what others hold, and are not worth a closer look.
    let concerns = |key: &[u8]| core.keys.may_concern(key, &core.me.zone, &core.me.member);
    loop {
        let (seen, view) = match followed.next().await {
            Ok(views) => views,
            Err(error) => return error,
        };
        for change in seen.changes(&view).filter(|change| concerns(change.key)) {
            let item = match key_of(&core.keys, change.key) {
                Ok(Key::Assignment { item, zone, member, .. })
                    if *zone == *core.me.zone && *member == *core.me.member =>
                {
                    item
                }
                Ok(Key::Item(item)) => {
                    if change.after.is_none() && core.fixed.contains_key(item) {
                        core.lock().errands.fixed = true;
                        core.errand.notify_one();
                    }
                    item
                }
                _ => continue,
            };
            let item = item.into();
            let facts = facts(core, &view, &item);
            if core.lock().locals.stands(&item, facts) {
                work(core, runtime, worker, item);
            }
        }
        core.lock().seen = view.changed();
        core.turned.notify_waiters();
    }
}

/// Nothing is held any more, whatever stands.
pub(super) fn lose<W: Workload, R: Runtime>(
    core: &Arc<Core<W>>,
    runtime: &R,
    worker: &Arc<impl Worker<W>>,
) {
    let items = core.lock().locals.lose();
    core.lost.notify_waiters();
    for item in items {
        work(core, runtime, worker, item);
    }
}

fn facts<W: Workload>(core: &Core<W>, view: &View<Entity<W>>, item: &Arc<str>) -> Option<Facts> {
    let own = format!("{}{item}#{}#", core.keys.assignments(), core.me);
    let range = KeyRange::prefix(own.as_str());
    let slot = |key: &[u8]| std::str::from_utf8(&key[own.len()..]).ok()?.parse::<u32>().ok();
    let own = view.range(&range).filter_map(|(key, entry)| Some((slot(key)?, entry)));
    let (slot, entry) = own.min_by_key(|(slot, _)| *slot)?;
    let value = view.get(format!("{}{item}", core.keys.items()).as_bytes());
    Some(Facts {
        since: entry.kv.create_revision,
        primary: slot == 0,
        blank: entry.kv.value.is_empty(),
        item: value.map_or(0, |entry| entry.kv.mod_revision),
    })
}

/// Works on an item in a task of its own, until nothing is left to be told.
fn work<W: Workload, R: Runtime>(
    core: &Arc<Core<W>>,
    runtime: &R,
    worker: &Arc<impl Worker<W>>,
    item: Arc<str>,
) {
    let (core, worker) = (Arc::clone(core), Arc::clone(worker));
    runtime.spawn(async move {
        let mut busy = Busy { core: &core, item: &item, done: false };
        loop {
            let mut lost = std::pin::pin!(core.lost.notified());
            lost.as_mut().enable();
            let next = {
                let mut desk = core.lock();
                let key = format!("{}{item}", core.keys.items());
                let view = desk.mirror.as_ref().map(Mirror::view);
                let value = view.and_then(|view| view.value(key.as_bytes()).cloned());
                desk.locals.next(&item).map(|happening| (happening, value))
            };
            let Some((happening, value)) = next else { break };
            let handle = Handle { core: Arc::clone(&core) };
            let task = Task { item: Arc::clone(&item), happening, handle, value };
            let removed = matches!(happening, Happening::Removed(_));
            tokio::select! {
                biased;
                () = lost, if !removed => {}
                () = worker.happens(task) => {}
            }
        }
        busy.done = true;
    });
}

/// A worker at work; should it panic, its item is free again for the next thing that happens.
struct Busy<'a, W: Workload> {
    core: &'a Core<W>,
    item: &'a str,
    done: bool,
}

impl<W: Workload> Drop for Busy<'_, W> {
    fn drop(&mut self) {
        if !self.done {
            self.core.lock().locals.break_off(self.item);
        }
        self.core.turned.notify_waiters();
    }
}
