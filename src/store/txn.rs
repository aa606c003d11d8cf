//! Reads and transactions as values: what is asked, what is answered, and what is refused unread.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{
    error::Refusal,
    kv::{Bytes, KeyRange, KeyValue, LeaseId},
};

/// A read of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRequest {
    /// The keys to read.
    pub range: KeyRange,
    /// The revision to read at, from 1. `None`: the current one.
    pub revision: Option<u64>,
    /// The most keys to return. `None`: all.
    pub limit: Option<usize>,
    /// Leaves the values empty in the answer. Leases are not to be relied on in it: some versions
    /// of etcd leave them out too.
    pub keys_only: bool,
}

impl RangeRequest {
    /// A read of all keys in `range`, with their values, at the current revision.
    pub fn new(range: KeyRange) -> Self {
        Self { range, revision: None, limit: None, keys_only: false }
    }

    /// The same at a revision.
    #[must_use]
    pub fn at(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// The same with at most so many keys.
    #[must_use]
    pub fn limit(mut self, keys: usize) -> Self {
        self.limit = Some(keys);
        self
    }

    /// The same without the values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }
}

impl RangeRequest {
    /// Refuses what makes no sense, and what etcd would take for something else.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.revision == Some(0) {
            return Err(Refusal::Invalid("a reading at revision 0, they begin at 1".to_owned()));
        }
        check_range(&self.range)
    }
}

/// What stands in a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeResponse {
    /// The store's revision when it was read. Not the one that was asked for; pin later pages to it.
    pub revision: u64,
    /// The keys in ascending order, at most as many as asked for.
    pub items: Vec<Arc<KeyValue>>,
    /// Whether the range holds more keys than these.
    pub more: bool,
}

/// How a compare relates what stands (on the left) to what it names (on the right).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// What stands is greater.
    Greater,
    /// What stands is less.
    Less,
}

impl Relation {
    /// Whether `standing` relates to `named` like this.
    pub fn holds<T: Ord + ?Sized>(self, standing: &T, named: &T) -> bool {
        match self {
            Self::Equal => standing == named,
            Self::NotEqual => standing != named,
            Self::Greater => standing > named,
            Self::Less => standing < named,
        }
    }
}

/// What a compare looks at. All but the value are zero for a key that does not stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The revision at which the key came to be.
    CreateRevision(u64),
    /// The revision of its last change.
    ModRevision(u64),
    /// How often it was put since it came to be.
    Version(u64),
    /// Its value, byte by byte. Never holds for a key that does not stand, whatever the relation.
    Value(Bytes),
    /// Its lease.
    Lease(LeaseId),
}

/// A condition on what stood before the transaction.
///
/// It holds if it holds for every key that stands in the range. An empty range is judged like a
/// single key that does not stand: all zero, and without a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The keys to look at.
    pub range: KeyRange,
    /// How what stands must relate to what the target names.
    pub relation: Relation,
    /// What to look at, and what to compare it with.
    pub target: Target,
}

impl Compare {
    /// That `target` is equal for all keys in `range`.
    pub fn equal(range: KeyRange, target: Target) -> Self {
        Self { range, relation: Relation::Equal, target }
    }

    /// That no key stands in `range`.
    pub fn absent(range: KeyRange) -> Self {
        Self::equal(range, Target::CreateRevision(0))
    }

    /// That a key was last changed at exactly this revision.
    pub fn unchanged(key: impl Into<Bytes>, mod_revision: u64) -> Self {
        Self::equal(KeyRange::key(key), Target::ModRevision(mod_revision))
    }
}

/// What a transaction does, in order; each sees what those before it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Reads.
    Range(RangeRequest),
    /// Creates or changes a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// The lease with which it ends from now on; the one it had, it leaves.
        lease: LeaseId,
    },
    /// Deletes all keys in a range.
    Delete(KeyRange),
    /// Another transaction, with compares of its own. These too see what stood before everything.
    Txn(#[serde(deserialize_with = "nested")] Txn),
}

impl Op {
    /// Puts a key that no lease ends.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: LeaseId::NONE }
    }

    /// Puts a key that ends with a lease.
    pub fn put_leased(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease }
    }

    /// Deletes one key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete(KeyRange::key(key))
    }

    /// Reads one key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Range(RangeRequest::new(KeyRange::key(key)))
    }
}

/// A transaction: if all compares hold, one list is done, else the other; all of it at one
/// revision, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// What must have stood before.
    pub compares: Vec<Compare>,
    /// What is done if it did.
    pub success: Vec<Op>,
    /// What is done if it did not.
    pub failure: Vec<Op>,
}

/// Decodes what may hold itself, as deep as [`Txn::DEPTH`]: bytes from elsewhere could nest it until
/// the stack is used up.
fn nested<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    struct Level;

    thread_local!(static LEVELS: Cell<usize> = const { Cell::new(1) });

    impl Drop for Level {
        fn drop(&mut self) {
            LEVELS.set(LEVELS.get() - 1);
        }
    }

    LEVELS.set(LEVELS.get() + 1);
    let _level = Level;
    if LEVELS.get() > Txn::DEPTH {
        return Err(de::Error::custom("transactions are nested too deep"));
    }
    T::deserialize(from)
}

/// What an operation or a compare takes beside keys and values, in bytes: never too little.
const OVERHEAD: usize = 48;

impl Txn {
    /// How deep transactions may be nested, the outermost counted: 48. Etcd allows more, but its
    /// clients could not read the answer.
    pub const DEPTH: usize = 48;

    /// A transaction without compares, which does `ops`.
    pub fn new(ops: impl IntoIterator<Item = Op>) -> Self {
        Self::default().and_then(ops)
    }

    /// A transaction that asks for `compares` first.
    pub fn when(compares: impl IntoIterator<Item = Compare>) -> Self {
        Self { compares: compares.into_iter().collect(), ..Self::default() }
    }

    /// Adds what is done if all compares hold.
    #[must_use]
    pub fn and_then(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.success.extend(ops);
        self
    }

    /// Adds what is done if one of them does not.
    #[must_use]
    pub fn or_else(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.failure.extend(ops);
        self
    }

    /// Whether one of its lists, or of those nested in it, puts or deletes anything.
    pub fn writes(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|op| match op {
            Op::Range(_) => false,
            Op::Put { .. } | Op::Delete(_) => true,
            Op::Txn(txn) => txn.writes(),
        })
    }

    /// The limit of operations that it needs: in each list, what stands there besides what is
    /// nested in it.
    pub fn operations(&self) -> usize {
        let nested = self.success.iter().chain(&self.failure).map(|op| match op {
            Op::Txn(txn) => txn.operations(),
            Op::Range(_) | Op::Put { .. } | Op::Delete(_) => 0,
        });
        self.compares.len().max(self.success.len()).max(self.failure.len())
            + nested.max().unwrap_or_default()
    }

    /// How deep transactions are nested in it, itself counted.
    pub fn depth(&self) -> usize {
        let nested = self.success.iter().chain(&self.failure).map(|op| match op {
            Op::Txn(txn) => txn.depth(),
            Op::Range(_) | Op::Put { .. } | Op::Delete(_) => 0,
        });
        1 + nested.max().unwrap_or_default()
    }

    /// How large a request it makes, in bytes: never too low, and a little too high.
    pub fn size(&self) -> usize {
        let range = |range: &KeyRange| match range {
            KeyRange::Key(key) => key.len(),
            KeyRange::Span { start, end } => start.len() + end.as_ref().map_or(1, |end| end.len()),
        };
        let compares = self.compares.iter().map(|compare| {
            let value = if let Target::Value(value) = &compare.target { value.len() } else { 0 };
            OVERHEAD + range(&compare.range) + value
        });
        let ops = self.success.iter().chain(&self.failure).map(|op| match op {
            Op::Range(read) => OVERHEAD + range(&read.range),
            Op::Put { key, value, .. } => OVERHEAD + key.len() + value.len(),
            Op::Delete(keys) => OVERHEAD + range(keys),
            Op::Txn(txn) => txn.nested_size(),
        });
        compares.sum::<usize>() + ops.sum::<usize>()
    }

    /// By how much a request grows that it is nested in.
    pub(crate) fn nested_size(&self) -> usize {
        OVERHEAD + self.size()
    }

    /// Judges it before anything is read or sent.
    ///
    /// # Errors
    /// [`Refusal::TooManyOperations`], [`Refusal::TooLarge`], [`Refusal::DuplicateKey`] or
    /// [`Refusal::Invalid`].
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        let (found, limit) = (self.operations(), limits.operations);
        if found > limit {
            return Err(Refusal::TooManyOperations { found, limit });
        }
        let (found, limit) = (self.size(), limits.bytes);
        if found > limit {
            return Err(Refusal::TooLarge { found, limit });
        }
        let single = matches!(&self.success[..], [] | [Op::Put { .. } | Op::Range(_)]);
        if !(single && self.failure.is_empty()) {
            let (found, limit) = (self.depth(), Self::DEPTH);
            if found > limit {
                let what = format!("transactions are nested {found} deep, at most {limit} can be");
                return Err(Refusal::Invalid(what));
            }
            self.check_writes()?;
        }
        self.check_keys()
    }

    /// Refuses two operations of a list that touch the same key, unless both delete it.
    fn check_writes(&self) -> Result<(), Refusal> {
        // Where each names its key they are sorted, which is quicker than to keep them in order.
        match (single_writes(&self.success), single_writes(&self.failure)) {
            (Some(success), Some(failure)) => {
                check_single(success)?;
                check_single(failure)
            }
            _ => Writes::of_branches(self).map(drop),
        }
    }

    fn check_keys(&self) -> Result<(), Refusal> {
        for compare in &self.compares {
            check_range(&compare.range)?;
        }
        for op in self.success.iter().chain(&self.failure) {
            match op {
                Op::Range(read) => read.check()?,
                Op::Delete(keys) => check_range(keys)?,
                Op::Put { key, .. } if key.is_empty() => return Err(empty_key()),
                Op::Put { .. } => {}
                Op::Txn(txn) => txn.check_keys()?,
            }
        }
        Ok(())
    }
}

fn empty_key() -> Refusal {
    Refusal::Invalid("a key is empty".to_owned())
}

/// Refuses a range that is one empty key, or that ends before it starts.
///
/// # Errors
/// [`Refusal::Invalid`].
pub(super) fn check_range(range: &KeyRange) -> Result<(), Refusal> {
    match range {
        KeyRange::Key(key) if key.is_empty() => Err(empty_key()),
        KeyRange::Span { start, end: Some(end) } if start >= end => Err(Refusal::Invalid(format!(
            "the range from `{start}` ends at `{end}`, before it starts"
        ))),
        KeyRange::Key(_) | KeyRange::Span { .. } => Ok(()),
    }
}

/// The keys that a list puts or deletes, and whether it puts them, if it names each.
fn single_writes(ops: &[Op]) -> Option<Vec<(&Bytes, bool)>> {
    let mut writes = Vec::with_capacity(ops.len());
    collect_single(ops, &mut writes).then_some(writes)
}

/// Adds what a list writes. Returns false where it does not name each key.
fn collect_single<'a>(ops: &'a [Op], writes: &mut Vec<(&'a Bytes, bool)>) -> bool {
    ops.iter().all(|op| match op {
        Op::Range(_) => true,
        Op::Put { key, .. } => {
            writes.push((key, true));
            true
        }
        Op::Delete(KeyRange::Key(key)) => {
            writes.push((key, false));
            true
        }
        Op::Delete(KeyRange::Span { .. }) => false,
        // Of two branches only one is done.
        Op::Txn(txn) => txn.failure.is_empty() && collect_single(&txn.success, writes),
    })
}

fn check_single(mut writes: Vec<(&Bytes, bool)>) -> Result<(), Refusal> {
    writes.sort_unstable();
    let mut pairs = writes.iter().zip(writes.iter().skip(1));
    match pairs.find(|((a, a_puts), (b, b_puts))| a == b && (*a_puts || *b_puts)) {
        Some(((key, _), _)) => Err(Refusal::DuplicateKey((*key).clone())),
        None => Ok(()),
    }
}

/// The keys that a list of operations may put, and the ranges that it may delete.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeMap<&'a [u8], &'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// Of either branch; only one of them is done, so they may touch the same keys.
    fn of_branches(txn: &'a Txn) -> Result<Self, Refusal> {
        let mut writes = Self::of_list(&txn.success)?;
        let failure = Self::of_list(&txn.failure)?;
        writes.puts.extend(failure.puts);
        writes.deletes.extend(failure.deletes);
        Ok(writes)
    }

    /// Of a list, in which no two operations may touch the same key, unless both delete it.
    fn of_list(ops: &'a [Op]) -> Result<Self, Refusal> {
        let mut writes = Self::default();
        for op in ops {
            match op {
                Op::Range(_) => {}
                Op::Put { key, .. } => writes.add_put(key)?,
                Op::Delete(range) => writes.add_delete(range)?,
                Op::Txn(txn) => {
                    // Its two branches may put and delete the same key, so they join what stands
                    // here only after both were compared with it.
                    let nested = Self::of_branches(txn)?;
                    for key in nested.puts.values() {
                        writes.check_put(key)?;
                    }
                    for range in &nested.deletes {
                        writes.check_delete(range)?;
                    }
                    writes.puts.extend(nested.puts);
                    writes.deletes.extend(nested.deletes);
                }
            }
        }
        Ok(writes)
    }

    fn check_put(&self, key: &Bytes) -> Result<(), Refusal> {
        let twice =
            self.puts.contains_key(&**key) || self.deletes.iter().any(|range| range.contains(key));
        if twice { Err(Refusal::DuplicateKey(key.clone())) } else { Ok(()) }
    }

    fn add_put(&mut self, key: &'a Bytes) -> Result<(), Refusal> {
        self.check_put(key)?;
        self.puts.insert(key, key);
        Ok(())
    }

    fn check_delete(&self, range: &KeyRange) -> Result<(), Refusal> {
        let next = self.puts.range(&**range.start()..).next();
        match next {
            Some((_, key)) if range.contains(key) => Err(Refusal::DuplicateKey((*key).clone())),
            _ => Ok(()),
        }
    }

    fn add_delete(&mut self, range: &'a KeyRange) -> Result<(), Refusal> {
        self.check_delete(range)?;
        self.deletes.push(range);
        Ok(())
    }
}

/// What an operation of a transaction gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResponse {
    /// What was read.
    Range(RangeResponse),
    /// It was put.
    Put,
    /// How many keys were deleted.
    Delete(u64),
    /// What the nested transaction did; its revision is that of the whole.
    Txn(#[serde(deserialize_with = "nested")] TxnResponse),
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnResponse {
    /// The store's revision after it. It is a new one only if something was put or deleted.
    pub revision: u64,
    /// Whether all compares held.
    pub succeeded: bool,
    /// What each operation of the list that was done gave.
    pub responses: Vec<OpResponse>,
}

/// How large a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most compares or operations in one list, those nested below included. Default 128, as
    /// etcd's `--max-txn-ops`.
    pub operations: usize,
    /// The most bytes of a request. Default 1.5 MiB, as etcd's `--max-request-bytes`.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { operations: 128, bytes: 3 << 19 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists of single keys are judged in a quicker way, by the same rule.
    #[test]
    fn a_list_of_single_keys_is_refused_as_any_list_is() {
        let all = || {
            let key = |name: &str| KeyRange::key(name);
            let (put, delete) = (Op::put("a", "1"), Op::Delete(key("a")));
            [
                put.clone(),
                Op::put("b", "1"),
                delete.clone(),
                Op::Delete(key("b")),
                Op::Txn(Txn::new([put.clone(), Op::put("c", "1")])),
                Op::Txn(Txn::new([Op::Txn(Txn::new([delete.clone()]))])),
                Op::Txn(Txn::new([put]).or_else([delete])),
            ]
        };
        let lists = all().into_iter().flat_map(|first| {
            all().into_iter().flat_map(move |second| {
                let first = first.clone();
                all().map(move |third| vec![first.clone(), second.clone(), third])
            })
        });
        let mut refused = 0;
        for list in lists {
            for txn in [Txn::new(list.clone()), Txn::default().or_else(list.clone())] {
                let quick = txn.check_writes().is_err();
                assert_eq!(quick, Writes::of_branches(&txn).is_err(), "{list:?}");
                refused += u32::from(quick);
            }
        }
        assert!((1..2 * 7 * 7 * 7).contains(&refused), "{refused}");
    }
}
