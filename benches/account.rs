//! The processor time of a thread, which others on the machine do not lengthen.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    fs,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// The processor time that this thread has had; the time on the clock, where the system does not tell.
pub(crate) fn spent() -> Duration {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    // A thread that yields has its account brought up to date.
    thread::yield_now();
    let account = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = account.and_then(|account| account.split(' ').next()?.parse().ok());
    spent.map_or_else(|| BEGIN.elapsed(), Duration::from_nanos)
}
