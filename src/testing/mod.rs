//! What proves an implementation of one's own: the examination of a promoter, and the suite for a cluster.

mod history;
mod promoter;

pub use promoter::{Broken, Examination, Expectation, Finding};
