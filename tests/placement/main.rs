//! Placement follows health: the policy over time, what may never happen, and what is published.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/faulty.rs"]
mod faulty;
mod gone;
mod holds;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../autopilot/host.rs"]
mod host;
mod published;
mod scenarios;
mod shown;
#[path = "../support/mod.rs"]
mod support;
mod timeline;
mod words;
mod yielding;
