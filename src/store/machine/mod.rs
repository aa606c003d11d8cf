//! The store as a deterministic state machine: command in, result and events out.

mod apply;
mod history;
mod leases;
mod log;
mod snapshot;

pub use apply::{Command, Config, Machine, Outcome};
pub use snapshot::{Part, Restore, SnapshotError};
