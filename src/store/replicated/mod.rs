//! The store inside the host's own replicated log: no server beside the database.

mod port;
mod replica;
mod sessions;
mod stored;
mod watch;

pub use port::{Answer, Log, LogError, Request};
pub use replica::{Frozen, Replica};
pub use sessions::{Applied, Entry, Part, Proposal, Stamp};
pub use stored::{Options, Replicated};
pub use watch::ReplicatedWatch;
