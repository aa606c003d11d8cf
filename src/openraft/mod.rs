//! The adapter for openraft: its metrics as observations, its membership changes as steps, its runtime as ours.

mod adapter;
mod application;
mod change;
mod memory;
mod node;
mod runtime;

pub use application::{Answer, Application, PROBE_DEADLINE, PROBE_INTERVAL};
pub use node::{Openraft, OpenraftError, options};
pub use runtime::RaftRuntime;
