//! Ready-made promoters, and the pieces to compose others from.

mod electorate;
mod policy;
mod preferred;
mod stable;
mod upgrade;
mod version;
mod witness;
mod wrapper;
mod zones;

#[cfg(feature = "placement")]
pub(crate) use electorate::may_lead;
pub use electorate::{Ballot, Candidate, Electorate, Standing, wishes};
pub use policy::promoter;
pub use preferred::Preferred;
pub use stable::Stable;
pub use upgrade::Upgrade;
pub use witness::Witness;
pub use wrapper::Wrapper;
pub use zones::Zones;
