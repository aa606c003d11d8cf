//! Several transactions of a round in one request, each done or refused by its own compares; an error is of all.

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
        let many = together(batches, limits, apart).max(1).min(batches.len());
        let (mut txns, items): (Vec<Txn>, _) =
            batches.drain(..many).map(|batch| (batch.txn, batch.items)).unzip();
        let txn = if many > 1 { Txn::new(txns.into_iter().map(Op::Txn)) } else { txns.pop()? };
        Some(Self { txn, items })
    }
}

/// How many of the first go together.
fn together(batches: &[Batch], limits: &Limits, apart: &BTreeSet<Arc<str>>) -> usize {
    let (mut bytes, mut operations) = (0, 0);
    let fits = |(before, batch): &(usize, &Batch)| {
        bytes += batch.txn.nested_size();
        operations = batch.txn.operations().max(operations);
        let alone = batch.items.iter().any(|item| apart.contains(item));
        // What is nested in a list counts beside what stands in it.
        !alone && before + 1 + operations <= limits.operations && bytes <= limits.bytes
    };
    batches.iter().take(JOINED).enumerate().take_while(fits).count()
}

/// Which of so many transactions in a request were done.
pub(super) fn done(many: usize, answer: &TxnResponse) -> Vec<bool> {
    if many == 1 {
        return vec![answer.succeeded];
    }
    let done =
        |response: &OpResponse| matches!(response, OpResponse::Txn(answer) if answer.succeeded);
    answer.responses.iter().map(done).collect()
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
            assert!(joint.txn.check(limits).is_ok(), "{:?}", joint.txn.check(limits));
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
        let limits = Limits { bytes: 2 * batch("a", 6).txn.nested_size(), ..limits };
        assert_eq!(joints(all(6), &limits, &[]), told(&[("ab", 8), ("cd", 8), ("e", 6)]));
    }

    #[test]
    fn each_is_done_or_refused_by_itself() {
        let answer = |succeeded, responses| TxnResponse { revision: 1, succeeded, responses };
        let nested = [true, false].map(|done| OpResponse::Txn(answer(done, Vec::new())));
        assert_eq!(done(2, &answer(true, nested.into())), [true, false]);
        assert_eq!(done(1, &answer(true, vec![OpResponse::Put])), [true]);
        assert_eq!(done(1, &answer(false, Vec::new())), [false]);
    }
}
