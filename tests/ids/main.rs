//! The same key gets the same number everywhere, whatever happens.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test runs on tokio")]

mod checker;
mod ends;
mod facts;
#[path = "../support/faulty.rs"]
mod faulty;
mod measure;
mod pool;
mod production;
mod restored;
mod session;
mod stress;
mod world;
