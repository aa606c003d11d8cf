//! Who holds which item: items with a desired replication, members with limits, failure zones.

mod exact;
mod fair;
mod fill;
pub mod flow;
mod network;
mod primaries;
mod problem;
mod quota;
mod takers;

pub use network::{Certificate, Solution, solve, solve_by_counting};
pub use problem::{Holder, Holdings, Primaries, Problem, Seat, ZoneRule};
