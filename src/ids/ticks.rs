//! Counts the changes of the caches, and wakes whoever waits for the next one, in order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// The count. Its waiters wake in the order in which they came, so that simulations repeat.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    count: AtomicU64,
    ended: AtomicBool,
    changed: Notify,
}

impl Ticks {
    /// A cache has changed.
    pub(super) fn tick(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// There will be no more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until there were more than were seen. Whether there will be more.
    pub(super) async fn changed(&self, seen: u64) -> bool {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.ended.load(Ordering::Relaxed) {
                return false;
            }
            if self.count() != seen {
                return true;
            }
            changed.await;
        }
    }
}
