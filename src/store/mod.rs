//! The key-value contract under the allocator and the ids, and the stores that fulfil it.

mod contract;
mod error;
mod kv;
pub mod machine;
mod tree;
mod txn;

pub use contract::{Lease, LeaseState, Pages, Store, Update, Watch};
pub use error::{Refusal, StoreError};
pub use kv::{Bytes, Event, Events, KeyRange, KeyValue, LeaseId};
pub use txn::{
    Compare, Limits, Op, OpResponse, RangeRequest, RangeResponse, Relation, Target, Txn,
    TxnResponse,
};
