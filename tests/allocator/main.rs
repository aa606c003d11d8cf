//! The item allocator: the plan against brute force, and the references' scenarios as keys and values.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "small worlds")]

mod brute;
mod case;
mod fixed;
mod flow;
mod large;
mod optimal;
mod planner;
mod steps;
