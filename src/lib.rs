//! Keeps a Raft cluster healthy from inside the database that runs it.

pub mod autopilot;
pub mod codec;
pub mod duration;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "openraft")]
pub mod openraft;
pub mod promoters;
pub mod runtime;
