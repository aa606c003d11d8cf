//! Who holds which item: items with a desired replication, members with limits, failure zones.

mod exact;
mod fair;
pub mod flow;
mod network;
mod problem;

pub use network::{Certificate, Solution, solve};
pub use problem::{Holder, Holdings, Primaries, Problem, Seat, ZoneRule};
