//! Placement follows health: the policy over time, what may never happen, and what is published.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod timeline;

mod scenarios;
