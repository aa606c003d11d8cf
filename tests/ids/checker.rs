//! Reads one revision of the store, and judges it and all handles by what must never be. It shares
//! no code with the ids but the hash.

use std::{cell::RefCell, collections::BTreeMap};

use raft_autopilot::{
    ids::{Generation, Handle, KeyHash, Status},
    store::{KeyRange, RangeRequest, RangeResponse, Store},
};

/// What stands below a prefix, as text and bytes.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    /// Hash: id, key, revision.
    pub(crate) mappings: BTreeMap<String, (u64, Vec<u8>, u64)>,
    /// Id: key, and whether it rests.
    pub(crate) ids: BTreeMap<u64, (Vec<u8>, bool)>,
    /// Hash and node, each as often as there are references.
    pub(crate) references: Vec<(String, Vec<u8>)>,
    /// First id, last id, revision.
    pub(crate) range: Option<(u64, u64, u64)>,
    pub(crate) epoch: u64,
}

pub(crate) async fn snapshot<S: Store>(store: &S, prefix: &str) -> Snapshot {
    let range = RangeRequest::new(KeyRange::prefix(prefix));
    read(&store.range(range).await.unwrap(), prefix)
}

/// Reads what a range said.
pub(crate) fn read(read: &RangeResponse, prefix: &str) -> Snapshot {
    let mut found = Snapshot { revision: read.revision, ..Snapshot::default() };
    for kv in &read.items {
        let name = std::str::from_utf8(&kv.key[prefix.len()..]).unwrap();
        let (kind, rest) = name.split_at(2.min(name.len()));
        match kind {
            "m" => {
                let text = std::str::from_utf8(&kv.value).unwrap();
                let number = |at: usize| text.split(' ').nth(at).unwrap().parse().unwrap();
                found.range = Some((number(2), number(3), kv.mod_revision));
                found.epoch = number(4);
            }
            "k/" => {
                let id = u64::from_str_radix(std::str::from_utf8(&kv.value[..16]).unwrap(), 16);
                assert_eq!(kv.create_revision, kv.mod_revision, "a mapping was overwritten");
                let mapping = (id.unwrap(), kv.value[34..].to_vec(), kv.create_revision);
                found.mappings.insert(rest.to_owned(), mapping);
            }
            "i/" => {
                let id = u64::from_str_radix(rest, 16).unwrap();
                found.ids.insert(id, (kv.value[2..].to_vec(), kv.value.starts_with(b"t")));
            }
            "r/" => found.references.push((rest[..32].to_owned(), kv.value.to_vec())),
            "u" => {}
            other => panic!("a strange key of kind {other}"),
        }
    }
    found
}

impl Snapshot {
    /// What is wrong with the records.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (hash, (id, key, revision)) in &self.mappings {
            match self.ids.get(id) {
                Some((owner, false)) if owner == key => {}
                other => faults.push(format!("{} has {id}, which is {other:?}", show(key))),
            }
            if hash_of(key) != *hash {
                faults.push(format!("{} stands under {hash}", show(key)));
            }
            if let Some((first, last, since)) = self.range
                && *revision > since
                && !(first..=last).contains(id)
            {
                faults.push(format!("{id} was given out of {first}..={last}"));
            }
        }
        for (id, (key, resting)) in &self.ids {
            let mapping = self.mappings.get(&hash_of(key));
            if !resting && mapping.is_none_or(|mapping| mapping.0 != *id) {
                faults.push(format!("{id} is {}'s, who has {mapping:?}", show(key)));
            }
        }
        for (hash, node) in &self.references {
            if !self.mappings.contains_key(hash) {
                faults.push(format!("{} uses {hash}, which has no id", show(node)));
            }
        }
        faults
    }

    /// What is wrong with a handle of a node.
    pub(crate) fn fault_of(&self, node: &str, handle: &Handle) -> Option<String> {
        let status = handle.status();
        if !matches!(status, Status::Held | Status::Suspect | Status::Restored) {
            return None;
        }
        let hash = hash_of(handle.key());
        let what = || format!("{node} holds {} as {} ({status:?})", handle.key(), handle.id());
        match self.mappings.get(&hash) {
            None => return Some(format!("{}, which has no id", what())),
            Some((id, _, revision)) => {
                if *id != handle.id() {
                    return Some(format!("{}, which is {id}", what()));
                }
                if *revision != handle.generation().revision {
                    return Some(format!("{}, by revision {revision}: {handle:?}", what()));
                }
            }
        }
        let referred = |(to, by): &(String, Vec<u8>)| *to == hash && by == node.as_bytes();
        (!self.references.iter().any(referred)).then(|| format!("{}, without a reference", what()))
    }
}

/// The hash of a key; there are few keys.
fn hash_of(key: &[u8]) -> String {
    thread_local! {
        static KNOWN: RefCell<BTreeMap<Vec<u8>, String>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| match known.get(key) {
        Some(hash) => hash.clone(),
        None => known.entry(key.to_vec()).or_insert(KeyHash::of(key).to_string()).clone(),
    })
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// That no fencing token is ever given out twice.
#[derive(Debug, Default)]
pub(crate) struct Tokens(BTreeMap<Generation, (u64, Vec<u8>)>);

impl Tokens {
    pub(crate) fn fault_of(&mut self, handle: &Handle) -> Option<String> {
        if !matches!(handle.status(), Status::Held | Status::Restored) {
            return None;
        }
        let mine = (handle.id(), handle.key().to_vec());
        let generation = handle.generation();
        let first = self.0.entry(generation).or_insert_with(|| mine.clone());
        (*first != mine).then(|| format!("{generation} was {first:?}'s and is {mine:?}'s"))
    }
}
