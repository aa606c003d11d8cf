//! What proves an implementation of one's own: the examination of a promoter, and the suite for a cluster.

mod cluster;
mod history;
mod promoter;

pub use cluster::{BrokenPromise, Rig, cluster};
pub use promoter::{Broken, Examination, Expectation, Finding};
