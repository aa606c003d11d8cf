//! Keeps a Raft cluster healthy from inside the database that runs it.

pub mod codec;
