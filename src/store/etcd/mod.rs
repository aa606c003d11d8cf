//! A real etcd, 3.4 or newer, as a store.
//!
//! To build it, the compiler of protocol buffers is needed (`apt-get install protobuf-compiler`).

mod client;
mod convert;
mod watch;

pub use client::{Etcd, Options, Tls};
pub use watch::EtcdWatch;
