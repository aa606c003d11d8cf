//! Steps that failed and wait: for how long, and what is remembered of them.

use std::time::Duration;

use super::cluster::{Feedback, Retry, Step};

/// How long after its wait a failure still counts: the next one then waits longer.
const MEMORY: Duration = Duration::from_secs(5 * 60);

/// How long it is remembered that a transfer of leadership has failed.
const TRANSFER_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// What has failed lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retries {
    waits: Vec<Retry>,
    transfer_failed: Option<Duration>,
}

impl From<&Feedback> for Retries {
    fn from(feedback: &Feedback) -> Self {
        let Feedback { retries, transfer_failed, .. } = feedback;
        Self { waits: retries.clone(), transfer_failed: *transfer_failed }
    }
}

impl Retries {
    /// The same for the planner, while there is anything to say.
    pub(crate) fn feedback(&self) -> Option<Feedback> {
        let (retries, transfer_failed) = (self.waits.clone(), self.transfer_failed);
        let says = !retries.is_empty() || transfer_failed.is_some();
        says.then(|| Feedback { retries, transfer_failed, ..Feedback::default() })
    }

    /// Forgets what has not mattered for a while.
    pub(crate) fn forget(&mut self, now: Duration) {
        self.waits.retain(|wait| {
            let memory = if wait.failures == 0 { Duration::ZERO } else { MEMORY };
            wait.until.saturating_add(memory) >= now
        });
        let fresh = |failed: &Duration| failed.saturating_add(TRANSFER_MEMORY) >= now;
        self.transfer_failed = self.transfer_failed.filter(fresh);
    }

    /// Another leadership begins: a transfer that failed ends in an election, and still counts.
    pub(crate) fn of_a_new_leadership(&mut self) {
        self.waits.retain(|wait| is_transfer(&wait.step));
    }

    /// A step has succeeded.
    pub(crate) fn done(&mut self, step: &Step) {
        self.waits.retain(|wait| wait.step != *step);
        if is_transfer(step) {
            self.transfer_failed = None;
        }
    }

    /// A step waits without having failed; what has failed before goes on counting.
    pub(crate) fn pause(&mut self, step: Step, until: Duration, error: String) {
        let failures = self.failures(&step);
        self.waits.push(Retry { step, failures, until, error });
    }

    /// A step has failed, and waits: 1 s, doubled with every failure up to a minute, and up to a
    /// quarter more by `salt`, so that steps which failed together are not tried together.
    /// Returns how often it has failed in a row.
    pub(crate) fn failed(&mut self, step: Step, now: Duration, error: String, salt: &str) -> u32 {
        let failures = self.failures(&step).saturating_add(1);
        let base = Duration::from_secs(1 << (failures - 1).min(6)).min(Duration::from_secs(60));
        let spread = base / 4 * u32::from(hash(salt, &step, failures)) / 256;
        let until = now.saturating_add(base).saturating_add(spread);
        if is_transfer(&step) {
            self.transfer_failed = Some(now);
        }
        self.waits.push(Retry { step, failures, until, error });
        failures
    }

    /// Forgets the wait of a step; returns how often it has failed in a row.
    fn failures(&mut self, step: &Step) -> u32 {
        let before = self.waits.iter().position(|wait| wait.step == *step);
        before.map_or(0, |i| self.waits.swap_remove(i).failures)
    }
}

fn is_transfer(step: &Step) -> bool {
    matches!(step, Step::Transfer { .. })
}

/// A byte that differs from salt to salt, step to step and failure to failure, always the same.
fn hash(salt: &str, step: &Step, failures: u32) -> u8 {
    let mut hash = failures.wrapping_mul(0x9E37_79B9);
    for byte in format!("{salt} {step}").bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    (hash >> 24).to_le_bytes()[0]
}
