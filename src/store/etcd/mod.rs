//! A real etcd, 3.4 or newer, as a store.
//!
//! To build it, the compiler of protocol buffers and its own files are needed:
//! `apt-get install protobuf-compiler libprotobuf-dev`, `brew install protobuf`, or the like.

mod client;
mod convert;
mod store;
mod watch;

pub use client::{Etcd, Options, Tls};
pub use watch::EtcdWatch;
