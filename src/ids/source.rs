//! The ids of one store as they stood at one revision, both ways.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::store::{
    Bytes,
    mirror::{Entry, View},
};

use super::layout::{Layout, Record};

/// One key's id, or one id's key, as far as a cache knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: u64,
    pub(super) key: Bytes,
    /// The revision at which the id was given to the key.
    pub(super) revision: u64,
}

/// How an id differs between two views.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) id: u64,
    pub(super) before: Option<Known>,
    pub(super) after: Option<Known>,
    /// Whether it is used by anybody or rests, readable or not.
    pub(super) busy: bool,
}

/// Tells one mirror from another by its address.
#[derive(Debug, Default)]
pub(super) struct Mirrored;

/// Ids that do not stand, and that are shown nevertheless, because their users write them again.
pub(super) type Kept = Arc<BTreeMap<u64, Known>>;

/// A view of the ids, and its reverse.
#[derive(Debug, Default)]
pub(super) struct Source {
    view: Arc<View<Record>>,
    by_key: HashMap<Bytes, u64>,
    kept: Kept,
    /// The mirror that it came from: views of two cannot be told apart by revisions.
    life: Arc<Mirrored>,
    loaded: bool,
}

/// What an entry says, if it can be read and is believed. What stood there before counts for
/// nothing: an id may be another key's by now.
pub(super) fn stands(entry: &Entry<Record>) -> Option<&Record> {
    entry.value.as_deref().filter(|_| entry.error.is_none())
}

/// The same if it gives the id to a key.
pub(super) fn known(entry: &Arc<Entry<Record>>) -> Option<Known> {
    match stands(entry)? {
        Record::Id { id, key, resting: false } => {
            Some(Known { id: *id, key: key.clone(), revision: entry.kv.mod_revision })
        }
        _ => None,
    }
}

impl Source {
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded
    }

    pub(super) fn revision(&self) -> u64 {
        self.view.revision()
    }

    pub(super) fn view(&self) -> &Arc<View<Record>> {
        &self.view
    }

    pub(super) fn life(&self) -> &Arc<Mirrored> {
        &self.life
    }

    pub(super) fn id(&self, key: &[u8]) -> Option<u64> {
        self.by_key.get(key).copied()
    }

    /// What is known of an id, which stands under a name.
    pub(super) fn get(&self, id: u64, name: &[u8]) -> Option<Known> {
        self.view.get(name).and_then(known).or_else(|| self.kept.get(&id).cloned())
    }

    /// All that is known.
    pub(super) fn ids(&self) -> BTreeMap<u64, Known> {
        let mut ids = ids(&self.view);
        ids.extend(self.kept.iter().map(|(id, known)| (*id, known.clone())));
        ids
    }

    pub(super) fn is_busy(&self, id: u64, name: &[u8]) -> bool {
        self.view.get(name).is_some() || self.kept.contains_key(&id)
    }

    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Shows an id on, though it does not stand.
    pub(super) fn keep(&mut self, known: Known) {
        self.by_key.insert(known.key.clone(), known.id);
        Arc::make_mut(&mut self.kept).insert(known.id, known);
    }

    /// Shows an id no longer than it stands. Whether it was shown.
    pub(super) fn let_go(&mut self, id: u64) -> bool {
        if !self.kept.contains_key(&id) {
            return false;
        }
        let known = Arc::make_mut(&mut self.kept).remove(&id);
        if let Some(known) = known {
            self.forget(&known);
        }
        true
    }

    fn forget(&mut self, known: &Known) {
        // The key may have got another id in the same change.
        if self.by_key.get(&known.key) == Some(&known.id) {
            self.by_key.remove(&known.key);
        }
    }

    /// Goes on to a later view of the same mirror; an earlier one changes nothing.
    pub(super) fn advance(&mut self, view: &Arc<View<Record>>, id: IdOf<'_>) -> Vec<Turn> {
        if self.loaded && view.revision() <= self.view.revision() {
            return Vec::new();
        }
        self.loaded = true;
        let turns: Vec<Turn> = self
            .view
            .changes(view)
            .filter_map(|change| {
                let before = change.before.and_then(known);
                let after = change.after.and_then(known);
                let busy = change.after.is_some();
                Some(Turn { id: id(change.key)?, before, after, busy })
            })
            .collect();
        for known in turns.iter().filter_map(|turn| turn.before.as_ref()) {
            self.forget(known);
        }
        for turn in turns.iter().filter(|turn| turn.busy) {
            self.let_go(turn.id);
        }
        for known in turns.iter().filter_map(|turn| turn.after.as_ref()) {
            self.by_key.insert(known.key.clone(), known.id);
        }
        self.view = Arc::clone(view);
        turns
    }

    /// Starts anew with another mirror.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

/// The ids of another store.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) layout: Layout,
    pub(super) source: Source,
}

impl Remote {
    /// What is known of an id.
    pub(super) fn get(&self, id: u64) -> Option<Known> {
        self.source.get(id, &self.layout.id(id))
    }
}

/// The ids of a view that are some key's.
pub(super) fn ids(view: &View<Record>) -> BTreeMap<u64, Known> {
    view.iter().filter_map(|(_, entry)| known(entry)).map(|known| (known.id, known)).collect()
}

/// Which id a key of the store is about.
pub(super) type IdOf<'a> = &'a dyn Fn(&[u8]) -> Option<u64>;
