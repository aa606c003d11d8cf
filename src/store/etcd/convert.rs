//! Our words and etcd's: requests, answers, and what its errors mean to a caller.

use std::sync::Arc;

use etcd_client::{
    Compare as EtcdCompare, CompareOp, DeleteOptions, Error, EventType, GetOptions, GetResponse,
    PutOptions, Txn as EtcdTxn, TxnOp, TxnOpResponse, TxnResponse as EtcdTxnResponse,
};

use crate::store::{
    error::{Refusal, StoreError},
    kv::{Bytes, Event, KeyRange, KeyValue, LeaseId},
    txn::{
        Compare, Op, OpResponse, RangeRequest, RangeResponse, Relation, Target, Txn, TxnResponse,
    },
};

/// Etcd counts with signs; nothing of ours is ever so large.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A range as etcd names it: its key, and its end unless it is a single key.
pub(super) fn range(range: &KeyRange) -> (Vec<u8>, Option<Vec<u8>>) {
    match range {
        KeyRange::Key(key) => (key.to_vec(), None),
        KeyRange::Span { start, end } => {
            // No key is empty, so the first that can be is a single zero.
            let start = if start.is_empty() { vec![0] } else { start.to_vec() };
            (start, Some(end.as_ref().map_or_else(|| vec![0], |end| end.to_vec())))
        }
    }
}

pub(super) fn get_options(request: &RangeRequest) -> (Vec<u8>, GetOptions) {
    let (key, end) = range(&request.range);
    let mut options = GetOptions::new();
    if let Some(end) = end {
        options = options.with_range(end);
    }
    if let Some(revision) = request.revision {
        options = options.with_revision(signed(revision));
    }
    if let Some(limit) = request.limit {
        // Zero would mean no limit.
        options = options.with_limit(signed(limit.max(1) as u64));
    }
    if request.keys_only {
        options = options.with_keys_only();
    }
    (key, options)
}

fn delete_op(keys: &KeyRange) -> TxnOp {
    let (key, end) = range(keys);
    TxnOp::delete(key, end.map(|end| DeleteOptions::new().with_range(end)))
}

fn compare(compare: &Compare) -> EtcdCompare {
    let (key, end) = range(&compare.range);
    let op = match compare.relation {
        Relation::Equal => CompareOp::Equal,
        Relation::NotEqual => CompareOp::NotEqual,
        Relation::Greater => CompareOp::Greater,
        Relation::Less => CompareOp::Less,
    };
    let compared = match &compare.target {
        Target::CreateRevision(named) => EtcdCompare::create_revision(key, op, signed(*named)),
        Target::ModRevision(named) => EtcdCompare::mod_revision(key, op, signed(*named)),
        Target::Version(named) => EtcdCompare::version(key, op, signed(*named)),
        Target::Value(named) => EtcdCompare::value(key, op, named.to_vec()),
        Target::Lease(named) => EtcdCompare::lease(key, op, signed(named.0)),
    };
    match end {
        Some(end) => compared.with_range(end),
        None => compared,
    }
}

pub(super) fn txn(txn: &Txn) -> EtcdTxn {
    let compares: Vec<EtcdCompare> = txn.compares.iter().map(compare).collect();
    let success: Vec<TxnOp> = txn.success.iter().map(op).collect();
    let failure: Vec<TxnOp> = txn.failure.iter().map(op).collect();
    EtcdTxn::new().when(compares).and_then(success).or_else(failure)
}

fn op(op: &Op) -> TxnOp {
    match op {
        Op::Range(read) => {
            let (key, options) = get_options(read);
            TxnOp::get(key, Some(options))
        }
        Op::Put { key, value, lease } => {
            let options = PutOptions::new().with_lease(signed(lease.0));
            TxnOp::put(key.to_vec(), value.to_vec(), Some(options))
        }
        Op::Delete(keys) => delete_op(keys),
        Op::Txn(nested) => TxnOp::txn(txn(nested)),
    }
}

pub(super) fn key_value(kv: &etcd_client::KeyValue) -> Arc<KeyValue> {
    Arc::new(KeyValue {
        key: kv.key().into(),
        value: kv.value().into(),
        create_revision: unsigned(kv.create_revision()),
        mod_revision: unsigned(kv.mod_revision()),
        version: unsigned(kv.version()),
        lease: LeaseId(unsigned(kv.lease())),
    })
}

/// The event, and the revision that it is of.
pub(super) fn event(event: &etcd_client::Event) -> Option<(u64, Event)> {
    let kv = event.kv()?;
    let revision = unsigned(kv.mod_revision());
    Some(match event.event_type() {
        EventType::Put => (revision, Event::Put(key_value(kv))),
        EventType::Delete => (revision, Event::Delete(kv.key().into())),
    })
}

pub(super) fn range_response(
    request: &RangeRequest,
    response: &GetResponse,
    revision: u64,
) -> RangeResponse {
    let limit = request.limit.unwrap_or(usize::MAX);
    let items: Vec<_> = response.kvs().iter().take(limit).map(key_value).collect();
    let more = response.more() || items.len() < response.kvs().len();
    RangeResponse { revision, items, more }
}

/// The answer to a transaction; `None` if it does not fit what was asked.
pub(super) fn txn_response(
    asked: &Txn,
    response: &EtcdTxnResponse,
    revision: u64,
) -> Option<TxnResponse> {
    let succeeded = response.succeeded();
    let ops = if succeeded { &asked.success } else { &asked.failure };
    let answers = response.op_responses();
    if answers.len() != ops.len() {
        return None;
    }
    let responses = ops.iter().zip(&answers).map(|(op, answer)| match (op, answer) {
        (Op::Range(read), TxnOpResponse::Get(found)) => {
            Some(OpResponse::Range(range_response(read, found, revision)))
        }
        (Op::Put { .. }, TxnOpResponse::Put(_)) => Some(OpResponse::Put),
        (Op::Delete(_), TxnOpResponse::Delete(done)) => {
            Some(OpResponse::Delete(unsigned(done.deleted())))
        }
        (Op::Txn(nested), TxnOpResponse::Txn(done)) => {
            txn_response(nested, done, revision).map(OpResponse::Txn)
        }
        _ => None,
    });
    Some(TxnResponse { revision, succeeded, responses: responses.collect::<Option<_>>()? })
}

/// What an error leaves behind.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request never reached a server, or was turned away at its door.
    Unsent(String),
    /// The request may have been done.
    Unanswered(String),
    /// The request was done, and its answer is larger than may be taken.
    TooLong(String),
    /// The lease that was named does not stand.
    NoLease,
    /// A lease of that id stands already.
    LeaseExists,
    /// The revision that was named is compacted.
    Compacted,
    /// The revision that was named is yet to come.
    Ahead,
    Refused(Refusal),
}

impl Failure {
    /// As an error of a request that changes nothing.
    pub(super) fn of_reading(self) -> StoreError {
        match self {
            Self::Unsent(why) | Self::Unanswered(why) => StoreError::Retry(why),
            Self::TooLong(why) => Refusal::Invalid(why).into(),
            other => other.of_writing(),
        }
    }

    /// As an error of a request that may have changed something.
    pub(super) fn of_writing(self) -> StoreError {
        let invalid = |why: &str| StoreError::Refused(Refusal::Invalid(why.to_owned()));
        match self {
            Self::Unsent(why) => StoreError::Retry(why),
            Self::Unanswered(why) | Self::TooLong(why) => StoreError::Unknown(why),
            Self::Refused(refusal) => StoreError::Refused(refusal),
            Self::NoLease => invalid("a lease does not stand"),
            Self::LeaseExists => invalid("a lease exists already"),
            Self::Compacted => invalid("a revision is compacted"),
            Self::Ahead => invalid("a revision is yet to come"),
        }
    }
}

// The numbers of gRPC's codes, which are part of its protocol.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;

/// What a server says before it has done anything.
const TURNED_AWAY: &[&str] = &[
    "tcp connect error",
    "error trying to connect",
    "dns error",
    "too many requests",
    "no leader",
];

/// What our side says to an answer that it does not take.
const TOO_LONG: &str = "decoded message length too large";

/// What servers say to a token that is older than the last change of any user or role, some of them
/// with no code.
const OLD_TOKEN: &[&str] = &["revision of auth store is old", "revision in header is old"];

fn is_old(why: &str) -> bool {
    OLD_TOKEN.iter().any(|words| why.contains(words))
}

impl Failure {
    /// The same, where nothing but the password was sent.
    pub(super) fn with_nothing_sent(self) -> Self {
        match self {
            Self::Unanswered(why) => Self::Unsent(why),
            other => other,
        }
    }

    /// Whether the same would do with a fresh token, which the client does not fetch by itself.
    pub(super) fn asks_for_a_token(&self) -> bool {
        matches!(self, Self::Unsent(why) if is_old(why))
    }
}

pub(super) fn failure(error: &Error) -> Failure {
    let text = error.to_string();
    let status = match error {
        Error::GRpcStatus(status) => status,
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            return Failure::Refused(Refusal::Invalid(text));
        }
        Error::LeaseKeepAliveError(why) if why.contains("not found") => return Failure::NoLease,
        _ => return Failure::Unanswered(text),
    };
    let message = status.message();
    match i32::from(status.code()) {
        _ if is_old(message) => Failure::Unsent(message.to_owned()),
        NOT_FOUND if message.contains("lease not found") => Failure::NoLease,
        FAILED_PRECONDITION if message.contains("lease already exists") => Failure::LeaseExists,
        OUT_OF_RANGE if message.contains("compacted") => Failure::Compacted,
        OUT_OF_RANGE if message.contains("future revision") => Failure::Ahead,
        OUT_OF_RANGE if message.contains(TOO_LONG) => Failure::TooLong(message.to_owned()),
        RESOURCE_EXHAUSTED if message.contains("larger than max") => {
            Failure::Refused(Refusal::Invalid(message.to_owned()))
        }
        RESOURCE_EXHAUSTED => Failure::Unsent(message.to_owned()),
        // A token that has run out; the client fetches another when it is asked again.
        UNAUTHENTICATED if message.contains("invalid auth token") => {
            Failure::Unsent(message.to_owned())
        }
        PERMISSION_DENIED | UNAUTHENTICATED => {
            Failure::Refused(Refusal::Denied(message.to_owned()))
        }
        INVALID_ARGUMENT if message.contains("authentication") || message.contains("user name") => {
            Failure::Refused(Refusal::Denied(message.to_owned()))
        }
        INVALID_ARGUMENT | OUT_OF_RANGE | UNIMPLEMENTED => {
            Failure::Refused(Refusal::Invalid(message.to_owned()))
        }
        _ if turned_away(error) => Failure::Unsent(text),
        _ => Failure::Unanswered(text),
    }
}

fn turned_away(error: &Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if TURNED_AWAY.iter().any(|words| text.contains(words)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The lease that a refusal means: etcd does not say which.
pub(super) fn first_lease(txn: &Txn) -> LeaseId {
    fn find(txn: &Txn) -> Option<LeaseId> {
        txn.success.iter().chain(&txn.failure).find_map(|op| match op {
            Op::Put { lease, .. } if *lease != LeaseId::NONE => Some(*lease),
            Op::Txn(nested) => find(nested),
            Op::Put { .. } | Op::Range(_) | Op::Delete(_) => None,
        })
    }
    find(txn).unwrap_or(LeaseId::NONE)
}

/// The revision that a refusal means, where it is known.
pub(super) fn first_revision(txn: &Txn) -> u64 {
    fn find(txn: &Txn) -> Option<u64> {
        txn.success.iter().chain(&txn.failure).find_map(|op| match op {
            Op::Range(read) => read.revision,
            Op::Txn(nested) => find(nested),
            Op::Put { .. } | Op::Delete(_) => None,
        })
    }
    find(txn).unwrap_or_default()
}

/// Text for bytes of a key in a message of ours.
pub(super) fn show(range: &KeyRange) -> String {
    let start: &Bytes = range.start();
    format!("`{start}`")
}
