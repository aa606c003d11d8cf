//! Scenarios of the pure core: a cluster as text in, a plan as text out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bad_days;
mod chance;
mod driver;
mod host;
mod reference;
mod signs_of_life;
mod verbs;
mod weak_changes;
mod weak_cleanup;
mod weak_health;

#[path = "../support/mod.rs"]
mod support;
