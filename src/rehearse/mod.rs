//! What if: a saved moment of a cluster, continued on a simulated one until it has converged.

mod case;
mod rehearsal;
mod world;

pub use case::Case;
pub use rehearsal::{End, Rehearsal, Rehearsed, rehearse};
pub use world::World;
