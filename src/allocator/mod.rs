//! Who holds which item: items with a desired replication, members with limits, failure zones.

pub mod case;
mod detour;
mod exact;
mod fair;
mod fill;
pub mod flow;
pub mod item;
mod network;
pub mod plan;
mod primaries;
mod problem;
mod quota;
mod state;
mod takers;

pub use network::{Certificate, Reason, Solution, solve, solve_by_counting};
pub use problem::{Holder, Holdings, Primaries, Problem, Seat, ZoneRule};
pub use state::{Standing, shed};
