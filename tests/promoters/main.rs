//! The bundled promoters on a simulated cluster: the documented vectors, step by step, and what holds for every small cluster.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod examined;
mod explaining;
mod flapping;
mod nonsense;
mod policies;
mod rehearsals;
mod support;
mod tolerance;
mod upgrades;
mod zones;
