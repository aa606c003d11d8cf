//! The adapter for openraft: its metrics as observations, its membership changes as steps, its runtime as ours.

mod adapter;
mod application;
mod change;
mod memory;
mod runtime;

pub use adapter::{Openraft, options};
pub use application::{Answer, Application, PROBE_DEADLINE, PROBE_INTERVAL};
pub use change::OpenraftError;
pub use runtime::RaftRuntime;
