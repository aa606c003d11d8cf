//! Who holds which item: items with a desired replication, members with limits, failure zones.

pub mod case;
pub mod converge;
mod desk;
mod driver;
mod errands;
mod error;
mod flights;
mod handle;
mod intent;
pub mod item;
mod joint;
mod leader;
mod local;
mod moves;
mod part;
mod place;
pub mod plain;
pub mod plan;
mod planner;
mod progress;
mod report;
mod roster;
mod route;
mod session;
mod state;
mod table;
mod value;
mod worker;
mod world;

pub use desk::Status;
pub use driver::Leading;
pub use error::AllocatorError;
pub use handle::Handle;
pub use intent::{Intent, Judgement, Lacking, Outside, Rules, Standings};
pub use local::{Happening, Held, Why};
pub use moves::Move;
pub use planner::{
    Certificate, Holder, Holdings, Planner, Primaries, Problem, Reason, Seat, Solution, Stays,
    ZoneRule, flow, retire, solve, solve_by_counting,
};
pub use progress::Doing;
pub use report::{Done, MemberReport, Report};
pub use roster::Member;
pub use route::{Hop, Route};
pub use session::{Allocator, Former, Left, Options};
pub use state::{Post, Standing, seats};
pub use value::{AssignmentValue, Entity, ItemValue, MemberKey, MemberValue, Replica, Workload};
pub use worker::{Task, Worker};
pub use world::{Assignment, Item, World};
