//! The router through `oneshot`: Consul's shapes, every error by its name, and hostile requests.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test speaks to tokio and to the wall clock")]

#[path = "http/callbacks.rs"]
mod callbacks;
#[path = "http/explained.rs"]
mod explained;
#[path = "http/fixture.rs"]
mod fixture;
#[path = "http/history.rs"]
mod history;
#[path = "http/hostile.rs"]
mod hostile;
#[path = "http/refusals.rs"]
mod refusals;
#[path = "http/shapes.rs"]
mod shapes;
