//! The promises of a store as one suite that any implementation can be held to.

mod leases;
mod mirrors;
mod ranges;
mod txns;
mod watches;
mod world;

pub use world::{World, run};
