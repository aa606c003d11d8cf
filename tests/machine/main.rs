//! The store's machine against a naive model: random commands, whole histories, and snapshots.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

mod commands;
mod model;

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use raft_autopilot::{
    codec,
    runtime::TokioRuntime,
    store::{
        Embedded, KeyRange, Lease, LeaseId, Limits, Op, RangeRequest, Refusal, Store, Txn,
        machine::{Command, Machine, Part, Restore},
    },
};

use commands::{commands, ranges, reads, steps, txns, wide_steps};
use model::{config, follow};

/// Whether some way through the transaction touches a key twice, unless it only deletes it.
fn duplicates(txn: &Txn) -> bool {
    fn paths(txn: &Txn) -> Vec<Vec<&Op>> {
        [&txn.success, &txn.failure].into_iter().flat_map(|ops| paths_of(ops)).collect()
    }
    fn paths_of(ops: &[Op]) -> Vec<Vec<&Op>> {
        let mut all = vec![Vec::new()];
        for op in ops {
            let next = if let Op::Txn(txn) = op { paths(txn) } else { vec![vec![op]] };
            all = all
                .iter()
                .flat_map(|path| next.iter().map(|more| [&path[..], &more[..]].concat()))
                .collect();
        }
        all
    }
    paths(txn).iter().any(|path| {
        path.iter().enumerate().any(|(at, op)| {
            let Op::Put { key, .. } = op else { return false };
            path.iter().enumerate().any(|(other, op)| match op {
                Op::Put { key: twin, .. } => other != at && twin == key,
                Op::Delete(range) => range.contains(key),
                _ => false,
            })
        })
    })
}

#[test]
fn bytes_that_nest_without_end_are_refused() {
    // A list of one operation, which is a transaction: the beginning of each level.
    let level = |txn: &Txn| codec::encode(txn).unwrap()[codec::HEADER_LEN..].to_vec();
    let (flat, nested) = (level(&Txn::default()), level(&Txn::new([Op::Txn(Txn::default())])));
    let begin = &nested[..nested.len() - flat.len() - 1];
    for levels in [Txn::DEPTH, 1_000, 1_000_000] {
        let bytes = begin.repeat(levels);
        let error = codec::decode_payload::<Txn>(&bytes).unwrap_err().to_string();
        assert!(error.contains("nested too deep"), "{error}");
    }
    // And the next ones are none the worse.
    let deepest = (1..Txn::DEPTH).fold(Txn::default(), |txn, _| Txn::new([Op::Txn(txn)]));
    assert_eq!(deepest.depth(), Txn::DEPTH);
    assert_eq!(codec::decode::<Txn>(&codec::encode(&deepest).unwrap()).unwrap(), deepest);
}

#[tokio::test]
async fn a_time_beyond_all_reason_overflows_nowhere() {
    let mut machine = Machine::default();
    let ttl = Duration::from_secs(60);
    machine.apply(Command::Grant { id: None, ttl }, Duration::MAX).unwrap();
    machine.apply(Command::KeepAlive(LeaseId(1)), Duration::MAX).unwrap();
    let mut restore = Restore::new();
    machine.snapshot().for_each(|part| restore.push(part).unwrap());
    let copy = restore.finish().unwrap();
    assert!(copy.snapshot().eq(machine.snapshot()));
    let store = Embedded::restore(copy, TokioRuntime);
    store.keep_alive(LeaseId(1)).await.unwrap();
    let lease = store.grant(Lease::TTL_MAX, None).await.unwrap().id;
    let left = store.time_to_live(lease).await.unwrap().remaining;
    assert!(left <= Lease::TTL_MAX && left > Lease::TTL_MAX.saturating_sub(ttl), "{left:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_commands_keep_the_machine_equal_to_a_naive_model(
        steps in steps(),
        ranges in vec(ranges(), 1..4),
        reads in vec(reads(), 1..6),
    ) {
        follow(steps, &ranges, &reads);
    }

    #[test]
    fn a_key_is_changed_once_on_every_way_through_a_transaction(txn in txns()) {
        let limits = Limits { operations: 100, bytes: 100_000 };
        let refused = matches!(txn.check(&limits), Err(Refusal::DuplicateKey(_)));
        prop_assert_eq!(refused, duplicates(&txn));
        let limits = Limits { operations: txn.operations(), bytes: txn.size() };
        let fits = txn.check(&limits);
        let too_much = matches!(fits, Err(Refusal::TooManyOperations { .. } | Refusal::TooLarge { .. }));
        prop_assert!(!too_much);
    }

    #[test]
    fn changed_parts_of_a_snapshot_never_panic(
        steps in vec(commands(), 1..60),
        drop in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
        more in vec(commands(), 0..30),
    ) {
        let mut machine = Machine::new(config());
        for command in steps {
            let _ = machine.apply(command, Duration::ZERO);
        }
        let mut frames: Vec<Vec<u8>> =
            machine.snapshot().map(|part| codec::encode(&part).unwrap()).collect();
        if changes.is_empty() {
            frames.remove(drop.index(frames.len()));
        }
        let missing = changes.is_empty();
        for (frame, at, byte) in changes {
            let frame = frame.index(frames.len());
            let at = at.index(frames[frame].len());
            frames[frame][at] = byte;
        }
        let mut restore = Restore::new();
        let pushed = frames.iter().try_for_each(|frame| {
            let part = codec::decode::<Part>(frame).map_err(|_| ())?;
            restore.push(part).map_err(|_| ())
        });
        if let (Ok(()), Ok(mut machine)) = (pushed, restore.finish()) {
            prop_assert!(!missing);
            for command in more {
                let _ = machine.apply(command, Duration::from_secs(9));
            }
            let _ = machine.events(&KeyRange::all(), machine.compacted() + 1, 9);
            let delete = Command::Txn(Txn::new([Op::Delete(KeyRange::all())]));
            let _ = machine.apply(delete, Duration::MAX);
            let _ = machine.snapshot().count();
        }
    }
}

proptest! {
    // The model copies every key for every revision.
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn commands_that_fill_many_nodes_and_empty_them_keep_it_equal_too(steps in wide_steps()) {
        let ranges = [KeyRange::span("100", "300"), KeyRange::all()];
        let reads = ranges.clone().map(RangeRequest::new);
        let reads = [reads[0].clone().at(40), reads[0].clone().limit(70), reads[1].clone()];
        follow(steps, &ranges, &reads);
    }
}
