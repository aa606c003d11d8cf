//! Who holds which item: items with a desired replication, members with limits, failure zones.

pub mod case;
mod certificate;
mod crown;
mod detour;
mod draft;
mod exact;
mod fair;
mod fill;
pub mod flow;
pub mod item;
mod keep;
mod kinds;
mod level;
mod lists;
mod live;
mod network;
mod openings;
pub mod plan;
mod planner;
mod primaries;
mod problem;
mod quota;
mod routes;
mod state;
mod surplus;
mod survey;
mod takers;
mod tournament;

pub use certificate::Certificate;
pub use network::{Reason, Solution, solve, solve_by_counting};
pub use planner::Planner;
pub use problem::{Holder, Holdings, Primaries, Problem, Seat, ZoneRule};
pub use state::{Standing, shed};
