//! The item allocator: the plan against brute force, and the references' scenarios as keys and values.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "small worlds")]

mod brute;
mod budget;
mod case;
mod even;
#[path = "../support/faulty.rs"]
mod faulty;
mod fixed;
mod fixture;
mod flow;
mod kept;
mod large;
mod levels;
mod many;
mod members;
mod near_full;
mod odd;
mod optimal;
mod overflow;
mod planner;
mod predecessor;
mod reasons;
mod rolling;
mod scenarios;
mod scene;
mod simulation;
#[path = "../support/slots.rs"]
mod slots;
mod steps;
mod town;
#[path = "../support/items.rs"]
mod witness;
mod zones;
