//! The one port of every driver: now, sleep and spawn; and its implementation for tokio.

use std::{future::Future, sync::OnceLock, time::Duration};

/// What a driver needs of the runtime that it runs on.
///
/// The same driver runs on tokio in production and on a simulated runtime in tests, where time
/// passes as fast as the work is done.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// Monotonic time since some moment that is the same for all clones.
    fn now(&self) -> Duration;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Runs a task to its end; nobody waits for it or cancels it.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
}

/// Completes at a moment of the runtime's clock; never, if there is none.
pub(crate) async fn sleep_until<R: Runtime>(runtime: &R, at: Option<Duration>) {
    match at {
        Some(at) => runtime.sleep(at.saturating_sub(runtime.now())).await,
        None => std::future::pending().await,
    }
}

/// The tokio runtime that the caller runs on. Its clock starts at the first reading in the
/// process, and follows tokio's, so that it can be paused in tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioRuntime;

impl Runtime for TokioRuntime {
    fn now(&self) -> Duration {
        static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
        let now = tokio::time::Instant::now().into_std();
        now.saturating_duration_since(*EPOCH.get_or_init(|| now))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the port")]
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the port")]
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(task));
    }
}
