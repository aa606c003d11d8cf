//! Placement follows health: autopilot's verdicts decide what servers hold, and not only whether they
//! vote.

mod decide;
mod driver;
mod notice;
mod picture;
mod policy;
mod yielding;

pub use decide::{Decision, Facts, Hold, Stood, decide};
pub use driver::{Handle, Options, Placement, Published};
pub use notice::{Cause, Keys, Notice, Term, member_of};
pub use picture::{ClusterWork, Picture, ServerWork};
pub use policy::{Config, Graded, Policy, Seen, Wish};
pub use yielding::{LEAVING, LIMIT, Yielding, tag};
