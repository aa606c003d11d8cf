//! Keeps a Raft cluster healthy from inside the database that runs it.
#![doc = include_str!("../README.md")]

#[cfg(feature = "allocator")]
pub mod allocator;
pub mod autopilot;
pub mod codec;
#[cfg(any(doc, doctest))]
pub mod docs;
pub mod duration;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "ids")]
pub mod ids;
#[cfg(feature = "openraft")]
pub mod openraft;
#[cfg(feature = "placement")]
pub mod placement;
pub mod promoters;
pub mod rehearse;
pub mod runtime;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
