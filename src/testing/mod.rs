//! A simulated cluster without any Raft, and the examination of a promoter on it.

mod world;

pub use world::World;
