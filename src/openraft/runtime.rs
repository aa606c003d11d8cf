//! The runtime of openraft as the port of our drivers.

use std::{fmt, future::Future, marker::PhantomData, time::Duration};

use ::openraft::{Instant as _, RaftTypeConfig, alias::InstantOf, type_config::TypeConfigExt};

use crate::runtime::Runtime;

/// Thirty years: no sleep is longer, since some runtimes reckon its end without looking.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The runtime of an openraft type configuration, as the port of our drivers.
pub struct RaftRuntime<C: RaftTypeConfig> {
    epoch: InstantOf<C>,
    config: PhantomData<C>,
}

impl<C: RaftTypeConfig> RaftRuntime<C> {
    /// A runtime whose clock starts now.
    pub fn new() -> Self {
        Self { epoch: C::now(), config: PhantomData }
    }
}

impl<C: RaftTypeConfig> Default for RaftRuntime<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: RaftTypeConfig> Clone for RaftRuntime<C> {
    fn clone(&self) -> Self {
        Self { epoch: self.epoch, config: PhantomData }
    }
}

impl<C: RaftTypeConfig> fmt::Debug for RaftRuntime<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftRuntime").finish_non_exhaustive()
    }
}

impl<C: RaftTypeConfig> Runtime for RaftRuntime<C> {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        C::sleep(duration.min(FAR))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(C::spawn(task));
    }
}
