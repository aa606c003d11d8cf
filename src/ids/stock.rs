//! What an instance knows of the ids: the cache, and the pool of candidates that follows it.

use std::{collections::BTreeMap, sync::Arc};

use crate::store::mirror::View;

use super::{
    dice::Dice,
    layout::{Layout, Record},
    pool::Pool,
    range::IdRange,
    source::{Known, Source, Turn},
};

/// The cache and the pool.
#[derive(Debug)]
pub(super) struct Stock {
    layout: Layout,
    pool: Pool,
    source: Source,
    /// Ids of which an answer has told more than the cache knows yet, and the revision of it.
    ahead: BTreeMap<u64, u64>,
    turned: bool,
    dice: Dice,
}

impl Stock {
    pub(super) fn new(layout: Layout, range: IdRange, dice: Dice) -> Self {
        let (pool, source) = (Pool::new(range), Source::default());
        Self { layout, pool, source, ahead: BTreeMap::new(), turned: false, dice }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// The key of an id, as far as the cache knows it.
    pub(super) fn get(&self, id: u64) -> Option<Known> {
        self.source.get(id, &self.layout.id(id))
    }

    /// Leases up to so many candidates.
    pub(super) fn lease(&mut self, count: usize) -> Vec<u64> {
        (0..count).map_while(|_| self.pool.lease(self.dice.roll())).collect()
    }

    /// Gives a candidate back that was not used.
    pub(super) fn release(&mut self, id: u64) {
        self.pool.release(id);
    }

    /// Takes note that an id was somebody's at a revision.
    pub(super) fn settle(&mut self, id: u64, revision: u64) {
        if !self.pool.take(id) {
            self.pool.remove(id);
        }
        if self.source.is_loaded() && self.source.revision() >= revision {
            self.judge(id);
        } else {
            self.ahead.insert(id, revision);
        }
    }

    fn judge(&mut self, id: u64) {
        if !self.source.is_busy(id, &self.layout.id(id)) {
            self.pool.insert(id);
        }
    }

    /// Shows an id on that is gone and in use here, and keeps it from other keys.
    pub(super) fn keep(&mut self, known: Known) {
        self.pool.remove(known.id);
        self.source.keep(known);
        self.turned = true;
    }

    /// It is not in use here any more.
    pub(super) fn let_go(&mut self, id: u64) {
        if self.source.let_go(id) {
            self.judge(id);
            self.turned = true;
        } else if !self.source.is_loaded() && self.ahead.remove(&id).is_some() {
            // Nobody will tell what becomes of it; a list of all that ever were would not end.
            self.pool.insert(id);
        }
    }

    /// Whether something is shown that was not, or the other way round, without a new view.
    pub(super) fn take_turned(&mut self) -> bool {
        std::mem::take(&mut self.turned)
    }

    /// Goes on to a later view.
    pub(super) fn advance(
        &mut self,
        view: &Arc<View<Record>>,
        ours: impl Fn(&Known) -> bool,
    ) -> Vec<Turn> {
        let layout = self.layout.clone();
        let turns = self.source.advance(view, &|name| layout.parse_id(name));
        for turn in &turns {
            if turn.busy {
                self.pool.remove(turn.id);
            } else if let Some(before) = turn.before.as_ref().filter(|before| ours(before)) {
                self.keep(before.clone());
            } else if !self.ahead.contains_key(&turn.id) {
                self.pool.insert(turn.id);
            }
        }
        let revision = self.source.revision();
        let met: Vec<u64> =
            self.ahead.iter().filter(|(_, at)| **at <= revision).map(|(id, _)| *id).collect();
        for id in met {
            self.ahead.remove(&id);
            self.judge(id);
        }
        turns
    }

    /// Forgets all that it knows, because the store or the range is another.
    pub(super) fn restart(&mut self, range: IdRange) {
        self.source.restart();
        self.refill(range, []);
    }

    /// Takes the word of a listing for the ids that are used.
    pub(super) fn refill(&mut self, range: IdRange, used: impl IntoIterator<Item = u64>) {
        self.ahead.clear();
        let mut pool = Pool::new(range);
        for id in used {
            pool.remove(id);
        }
        self.pool = pool;
    }

    /// Puts the pool on another range; what is known stays known.
    pub(super) fn set_range(&mut self, range: IdRange) {
        if range != self.pool.range() {
            let view = Arc::clone(self.source.view());
            let used: Vec<u64> =
                view.iter().filter_map(|(name, _)| self.layout.parse_id(name)).collect();
            self.refill(range, used);
        }
    }
}
