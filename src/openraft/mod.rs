//! The adapter for openraft: its metrics as observations, its membership changes as steps, its runtime as ours, its log for our store.

mod adapter;
mod application;
mod change;
mod memory;
mod node;
mod runtime;
mod store;

pub use application::{Answer, Application, PROBE_DEADLINE, PROBE_INTERVAL};
pub use node::{Openraft, OpenraftError, options};
pub use runtime::RaftRuntime;
pub use store::{RaftLog, StoreHost};
