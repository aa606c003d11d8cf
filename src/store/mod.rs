//! The key-value contract under the allocator and the ids, and the stores that fulfil it.

mod contract;
mod embedded;
mod error;
#[cfg(feature = "etcd")]
pub mod etcd;
mod journal;
mod keeper;
mod kv;
mod local;
pub mod machine;
pub mod mirror;
pub mod replicated;
#[cfg(feature = "testing")]
pub mod suite;
mod tree;
mod txn;
mod validity;

pub use contract::{Lease, LeaseState, Pages, Store, Update, Watch};
pub use embedded::Embedded;
pub use error::{Refusal, StoreError};
pub use journal::{OpenError, Recovered};
pub use keeper::LeaseKeeper;
pub use kv::{Bytes, Event, Events, KeyRange, KeyValue, LeaseId};
pub use local::LocalWatch;
pub use txn::{
    Compare, Limits, Op, OpResponse, RangeRequest, RangeResponse, Relation, Target, Txn,
    TxnResponse,
};
pub use validity::{LeaseStatus, Validity};
