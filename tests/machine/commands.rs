//! Random commands: few keys, short and long, so that much meets.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use raft_autopilot::store::{
    Bytes, Compare, KeyRange, LeaseId, Limits, Op, RangeRequest, Relation, Target, Txn,
    machine::{Command, Config},
};

/// Short ones, and such as need memory of their own.
fn keys() -> impl Strategy<Value = Bytes> {
    (0..3_u8, 0..5_u8).prop_map(|(a, b)| {
        let rest = if b > 2 { "/a/long/way/down/from/there" } else { "" };
        format!("{}/{b}{rest}", char::from(b'a' + a)).into()
    })
}

pub(crate) fn ranges() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => keys().prop_map(KeyRange::Key),
        2 => (0..4_u8).prop_map(|a| KeyRange::prefix(format!("{}/", char::from(b'a' + a)))),
        1 => (keys(), keys()).prop_filter("not empty", |(a, b)| a < b)
            .prop_map(|(a, b)| KeyRange::span(a, b)),
        1 => keys().prop_map(KeyRange::from_key),
        1 => Just(KeyRange::all()),
    ]
}

pub(crate) fn reads() -> impl Strategy<Value = RangeRequest> {
    (
        ranges(),
        prop_oneof![4 => Just(None), 1 => (1..90_u64).prop_map(Some)],
        0..9_usize,
        any::<bool>(),
    )
        .prop_map(|(range, revision, limit, keys_only)| RangeRequest {
            range,
            revision,
            limit: (limit < 6).then_some(limit),
            keys_only,
        })
}

fn leases() -> impl Strategy<Value = LeaseId> {
    prop_oneof![3 => Just(LeaseId::NONE), 2 => (1..6_u64).prop_map(LeaseId)]
}

fn compares() -> impl Strategy<Value = Compare> {
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::NotEqual),
        Just(Relation::Greater),
        Just(Relation::Less)
    ];
    let number = prop_oneof![Just(0_u64), 0..5_u64, 0..90_u64];
    let target = (0..5_u8, number).prop_map(|(which, number)| match which {
        0 => Target::CreateRevision(number),
        1 => Target::ModRevision(number),
        2 => Target::Version(number),
        3 => Target::Value(format!("{}", number % 4).into()),
        _ => Target::Lease(LeaseId(number % 5)),
    });
    (ranges(), relation, target).prop_map(|(range, relation, target)| Compare {
        range,
        relation,
        target,
    })
}

pub(crate) fn txns() -> impl Strategy<Value = Txn> {
    let op = prop_oneof![
        5 => (keys(), 0..4_u8, leases()).prop_map(|(key, value, lease)| {
            let value = format!("{value}").repeat(if value == 3 { 30 } else { 1 });
            Op::Put { key, value: value.into(), lease }
        }),
        2 => ranges().prop_map(Op::Delete),
        2 => reads().prop_map(Op::Range),
    ];
    let txn = |op: BoxedStrategy<Op>| {
        (vec(compares(), 0..2), vec(op.clone(), 0..4), vec(op, 0..3))
            .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
    };
    let leaf = txn(op.clone().boxed());
    let op = prop_oneof![6 => op, 1 => leaf.prop_map(Op::Txn)].boxed();
    let middle = txn(op.clone());
    txn(prop_oneof![8 => op, 1 => middle.prop_map(Op::Txn)].boxed())
}

fn configs() -> impl Strategy<Value = Config> {
    (1..12_usize, 200..2_000_usize, 0..60_usize, 0..90_u64).prop_map(
        |(operations, bytes, history_len, seconds)| Config {
            limits: Limits { operations, bytes },
            history_len,
            history_age: Duration::from_secs(seconds),
        },
    )
}

pub(crate) fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        12 => txns().prop_map(Command::Txn),
        3 => (leases(), 1..20_u64).prop_map(|(id, seconds)| Command::Grant {
            id: (id != LeaseId::NONE).then_some(id),
            ttl: Duration::from_secs(seconds),
        }),
        1 => leases().prop_map(Command::KeepAlive),
        1 => leases().prop_map(Command::Revoke),
        1 => (0..60_u64).prop_map(Command::Compact),
        1 => Just(Command::Tick),
        1 => configs().prop_map(Command::Configure),
    ]
}

/// A history: what is done, each with the milliseconds before it.
pub(crate) fn steps() -> impl Strategy<Value = Vec<(Command, u64)>> {
    vec((commands(), 0..4_000_u64), 1..120)
}

/// Transactions over so many keys that they fill many nodes of a tree, and empty them again.
fn wide_txns() -> impl Strategy<Value = Txn> {
    let key = |number: u16| format!("{number:03}");
    prop_oneof![
        3 => (0..600_u16, 1..64_u16, leases()).prop_map(move |(start, len, lease)| {
            let keys = (start..start + len).map(key);
            Txn::new(keys.map(|key| Op::put_leased(key, "", lease)).collect::<Vec<_>>())
        }),
        2 => (0..600_u16, 1..200_u16).prop_map(move |(start, len)| {
            Txn::new([Op::Delete(KeyRange::span(key(start), key(start + len)))])
        }),
    ]
}

/// A history of many keys.
pub(crate) fn wide_steps() -> impl Strategy<Value = Vec<(Command, u64)>> {
    let limits = Limits { operations: 64, bytes: 10_000 };
    let config = (0..60_usize, 0..90_u64).prop_map(move |(history_len, seconds)| {
        let history_age = Duration::from_secs(seconds);
        Command::Configure(Config { limits, history_len, history_age })
    });
    let other =
        commands().prop_filter("it stays", |command| !matches!(command, Command::Configure(_)));
    let command = prop_oneof![8 => wide_txns().prop_map(Command::Txn), 3 => other];
    (config, vec((command, 0..4_000_u64), 1..90)).prop_map(|(config, mut steps)| {
        steps.insert(0, (config, 1));
        steps
    })
}
