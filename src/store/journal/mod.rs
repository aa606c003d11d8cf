//! The files of an embedded store: a snapshot, the commands since, and the thread that writes them.

mod files;
mod record;
mod writer;

pub use files::{OpenError, Recovered};
pub(super) use writer::{Journal, Queue};
