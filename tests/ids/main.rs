//! The same key gets the same number everywhere, whatever happens.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod checker;
mod faulty;
mod stress;
