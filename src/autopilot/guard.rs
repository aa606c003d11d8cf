//! A promoter that panics ends nothing: what it would have said is left out, and its words are kept.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    config::Config,
    policy::Policy,
    promoter::{NodeType, Promoter, Removals, ServerExt, StateExt, Wishes},
    server::ServerId,
    state::{ServerState, State},
};

/// What somebody has said who panicked.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// A promoter of which no panic is heard outside. One that panics wishes nothing and keeps the dead.
#[derive(Debug)]
pub(super) struct Guard {
    inner: Arc<dyn Promoter>,
    /// What the latest round's panic said.
    failed: Arc<Mutex<Option<String>>>,
    /// Whether it is the rounds that ask, and not readers, who may ask what is not the case.
    counts: bool,
}

impl Guard {
    /// One for the rounds, and one for readers, who are warned by it of what befell the rounds.
    pub(super) fn new(inner: impl Promoter) -> (Self, Self) {
        let (inner, failed) = (Arc::new(inner) as Arc<dyn Promoter>, Arc::default());
        let readers =
            Self { inner: Arc::clone(&inner), failed: Arc::clone(&failed), counts: false };
        (Self { inner, failed, counts: true }, readers)
    }

    /// Forgets the panic of the round before, and returns its words.
    pub(super) fn begin(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the promoter's panic said, if it has panicked in this round.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ask<T>(&self, ask: impl FnOnce(&dyn Promoter) -> T, otherwise: impl FnOnce(&str) -> T) -> T {
        catch_unwind(AssertUnwindSafe(|| ask(&*self.inner))).unwrap_or_else(|panic| {
            let words = said(&*panic);
            let told = otherwise(&words);
            if self.counts {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
            }
            told
        })
    }
}

impl Promoter for Guard {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        self.ask(|inner| inner.wishes(config, state), |_| Wishes::default())
    }

    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        let unknown = |_: &str| NodeType::new("unknown");
        self.ask(|inner| inner.node_type(config, state, server), unknown)
    }

    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        self.ask(|inner| inner.is_potential_voter(node_type), |_| false)
    }

    fn keeps(&self, config: &Config, state: &State, dead: &Removals) -> Vec<ServerId> {
        let all = |_: &str| dead.iter().cloned().collect();
        self.ask(|inner| inner.keeps(config, state, dead), all)
    }

    fn server_ext(&self, config: &Config, state: &State, server: &ServerState) -> ServerExt {
        self.ask(|inner| inner.server_ext(config, state, server), |_| ServerExt::default())
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        let mut ext = self.ask(|inner| inner.state_ext(config, state), |_| StateExt::default());
        ext.warnings.extend(self.failure().map(|words| {
            format!(
                "the promoter panicked: its wishes are not known, so no vote moves by them and the \
                 dead are kept, until it is mended ({words})"
            )
        }));
        ext
    }

    fn wake(&self, config: &Config, state: &State) -> Option<Duration> {
        self.ask(|inner| inner.wake(config, state), |_| None)
    }

    fn policy(&self) -> Option<Policy> {
        self.ask(Promoter::policy, |_| None)
    }
}
