//! Several transactions of a round in one request, each of which is done or not as if it were alone.

use std::{collections::BTreeSet, sync::Arc};

use super::converge::{Batch, JOINED};
use crate::store::{Limits, Op, OpResponse, Txn, TxnResponse};

/// A request.
#[derive(Debug)]
pub(super) struct Joint {
    pub(super) txn: Txn,
    /// The items of each transaction in it.
    pub(super) items: Vec<Vec<Arc<str>>>,
}

impl Joint {
    /// Of the first that go together; those about items that are apart go with no other.
    pub(super) fn take(
        batches: &mut Vec<Batch>,
        limits: &Limits,
        apart: &BTreeSet<Arc<str>>,
    ) -> Option<Self> {
        // What is nested in a list counts beside what stands in it.
        let (mut bytes, mut operations) = (0, 0);
        let goes = |(at, batch): (usize, &Batch)| {
            bytes += batch.txn.size();
            operations = batch.txn.operations().max(operations);
            let alone = batch.items.iter().any(|item| apart.contains(item));
            !alone && operations + at < limits.operations && bytes <= limits.bytes
        };
        let many = batches.iter().take(JOINED).enumerate().map(goes).take_while(|goes| *goes);
        let many = many.count().max(1).min(batches.len());
        let (mut txns, mut items) = (Vec::with_capacity(many), Vec::with_capacity(many));
        for batch in batches.drain(..many) {
            txns.push(batch.txn);
            items.push(batch.items);
        }
        let txn = if many > 1 { Txn::new(txns.into_iter().map(Op::Txn)) } else { txns.pop()? };
        Some(Self { txn, items })
    }
}

/// Which of so many transactions in a request were done.
pub(super) fn done(many: usize, answer: &TxnResponse) -> impl Iterator<Item = bool> {
    let alone = (many == 1).then_some(answer.succeeded);
    let others = if many == 1 { &[][..] } else { &answer.responses[..] };
    let others = others
        .iter()
        .map(|response| matches!(response, OpResponse::Txn(answer) if answer.succeeded));
    alone.into_iter().chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(name: &str, puts: usize) -> Batch {
        let ops = (0..puts).map(|at| Op::put(format!("{name}/{at}"), ""));
        Batch { txn: Txn::new(ops), items: vec![name.into()], ended: Vec::new() }
    }

    /// The items of each request, and how many operations it takes.
    fn joints(mut batches: Vec<Batch>, limits: &Limits, apart: &[&str]) -> Vec<(String, usize)> {
        let apart = apart.iter().map(|name| Arc::from(*name)).collect();
        let all = std::iter::from_fn(|| Joint::take(&mut batches, limits, &apart));
        let told = all.map(|joint| {
            (joint.items.concat().iter().map(|item| &**item).collect(), joint.txn.operations())
        });
        told.collect()
    }

    #[test]
    fn what_fits_goes_together_but_nobody_who_is_apart() {
        let limits = Limits { operations: 10, bytes: 3 << 19 };
        let all = |puts| ["a", "b", "c", "d", "e"].map(|name| batch(name, puts)).into();
        let told = |told: &[(&str, usize)]| -> Vec<(String, usize)> {
            told.iter().map(|(items, operations)| ((*items).to_owned(), *operations)).collect()
        };
        assert_eq!(joints(all(6), &limits, &[]), told(&[("abcd", 10), ("e", 6)]));
        assert_eq!(joints(all(8), &limits, &[]), told(&[("ab", 10), ("cd", 10), ("e", 8)]));
        assert_eq!(joints(all(10), &limits, &[]).len(), 5, "there is room for one each");
        let apart = joints(all(6), &limits, &["b", "c"]);
        assert_eq!(apart, told(&[("a", 6), ("b", 6), ("c", 6), ("de", 8)]));
        let limits = Limits { bytes: 2 * batch("a", 6).txn.size(), ..limits };
        assert_eq!(joints(all(6), &limits, &[]), told(&[("ab", 8), ("cd", 8), ("e", 6)]));
    }

    #[test]
    fn each_is_done_or_not_as_if_it_were_alone() {
        let answer = |succeeded, responses| TxnResponse { revision: 1, succeeded, responses };
        let nested = [true, false].map(|done| OpResponse::Txn(answer(done, Vec::new())));
        let told = |many, answer| done(many, &answer).collect::<Vec<_>>();
        assert_eq!(told(2, answer(true, nested.into())), [true, false]);
        assert_eq!(told(1, answer(true, vec![OpResponse::Put])), [true]);
        assert_eq!(told(1, answer(false, Vec::new())), [false]);
    }
}
