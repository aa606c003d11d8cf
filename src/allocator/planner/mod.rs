//! The planner: from an indexed problem to who is to hold what, as good as can be, and how good that is.

mod certificate;
mod columns;
mod crown;
mod detour;
mod draft;
mod evade;
mod exact;
mod fair;
mod fill;
pub mod flow;
mod give;
mod incremental;
mod keep;
mod kinds;
mod level;
mod links;
mod lists;
mod live;
mod network;
mod openings;
mod primaries;
mod problem;
mod quota;
mod retire;
mod routes;
mod surplus;
mod survey;
mod takers;
mod tournament;

pub use certificate::Certificate;
pub(super) use evade::evade;
pub use incremental::Planner;
pub use network::{Reason, Solution, solve, solve_by_counting};
pub use problem::{Holder, Holdings, Primaries, Problem, Seat, ZoneRule};
pub use retire::retire;
