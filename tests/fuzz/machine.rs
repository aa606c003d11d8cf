//! Commands by libFuzzer: the store's machine stays equal to a naive model.

#![no_main]
#![allow(dead_code, reason = "the tests use more of it")]

#[path = "../machine/model.rs"]
mod model;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use raft_autopilot::store::{
    Bytes, Compare, KeyRange, LeaseId, Limits, Op, RangeRequest, Relation, Target, Txn,
    machine::{Command, Config},
};

/// Bytes that decide; after the last one all is zero.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, end: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % end
    }

    fn many<T>(&mut self, end: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(end)).map(|_| one(self)).collect()
    }

    /// Short ones, and such as need memory of their own.
    fn key(&mut self) -> Bytes {
        let len = [1, 1, 1, 2, 30][usize::from(self.below(5))];
        vec![b'a' + self.below(6); len].into()
    }

    fn range(&mut self) -> KeyRange {
        match self.below(4) {
            0 => KeyRange::key(self.key()),
            1 => KeyRange::prefix(self.key()),
            2 => KeyRange::span(self.key(), self.key()),
            _ => KeyRange::from_key(self.key()),
        }
    }

    fn revision(&mut self) -> u64 {
        u64::from(self.below(80))
    }

    fn lease(&mut self) -> LeaseId {
        LeaseId(u64::from(self.below(6)))
    }

    fn read(&mut self) -> RangeRequest {
        let range = self.range();
        let revision = (self.below(2) == 0).then(|| self.revision());
        let limit = (self.below(2) == 0).then(|| usize::from(self.below(4)));
        RangeRequest { range, revision, limit, keys_only: self.below(3) == 0 }
    }

    fn compare(&mut self) -> Compare {
        let relation = match self.below(4) {
            0 => Relation::Equal,
            1 => Relation::NotEqual,
            2 => Relation::Greater,
            _ => Relation::Less,
        };
        let target = match self.below(5) {
            0 => Target::CreateRevision(self.revision()),
            1 => Target::ModRevision(self.revision()),
            2 => Target::Version(self.revision() % 5),
            3 => Target::Value(self.key()),
            _ => Target::Lease(self.lease()),
        };
        Compare { range: self.range(), relation, target }
    }

    fn op(&mut self, depth: u8) -> Op {
        match self.below(if depth == 0 { 5 } else { 6 }) {
            0..=2 => Op::Put { key: self.key(), value: self.key(), lease: self.lease() },
            3 => Op::Delete(self.range()),
            4 => Op::Range(self.read()),
            _ => Op::Txn(self.txn(depth - 1)),
        }
    }

    fn txn(&mut self, depth: u8) -> Txn {
        Txn {
            compares: self.many(3, Self::compare),
            success: self.many(5, |more| more.op(depth)),
            failure: self.many(3, |more| more.op(depth)),
        }
    }

    fn command(&mut self) -> Command {
        match self.below(13) {
            0..=6 => Command::Txn(self.txn(2)),
            7 => {
                let id = Some(self.lease()).filter(|id| *id != LeaseId::NONE);
                Command::Grant { id, ttl: Duration::from_secs(1 + u64::from(self.below(90))) }
            }
            8 => Command::KeepAlive(self.lease()),
            9 => Command::Revoke(self.lease()),
            10 => Command::Compact(self.revision()),
            11 => Command::Configure(Config {
                limits: Limits {
                    operations: self.below(12).into(),
                    bytes: 9 * usize::from(self.below(200)),
                },
                history_len: self.below(60).into(),
                history_age: Duration::from_secs(self.below(90).into()),
            }),
            _ => Command::Tick,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let ranges = [KeyRange::prefix(choices.key()), KeyRange::all()];
    let reads = ranges.clone().map(RangeRequest::new).map(|read| read.limit(2));
    let reads = [reads[0].clone(), reads[1].clone().at(1 + choices.revision())];
    let mut steps = Vec::new();
    while !choices.0.is_empty() && steps.len() < 120 {
        let pause = u64::from(choices.below(16)) * 250;
        steps.push((choices.command(), pause));
    }
    model::follow(steps, &ranges, &reads);
});
