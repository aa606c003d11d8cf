//! A promoter that panics ends nothing: what it would have said is left out, and its words are kept.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
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

/// A promoter that tells whether it has panicked.
pub(super) trait Guarded: Promoter {
    /// Forgets what its panic said, and returns it.
    fn begin(&self) -> Option<Box<str>>;

    /// What its panic said, if it has panicked since.
    fn failure(&self) -> Option<Box<str>>;
}

/// A promoter of which no panic is heard outside. One that panics wishes nothing and keeps the dead.
#[derive(Debug)]
pub(super) struct Guard<P> {
    inner: P,
    failed: Mutex<Option<Box<str>>>,
}

impl<P: Promoter> Guard<P> {
    pub(super) fn new(inner: P) -> Self {
        Self { inner, failed: Mutex::default() }
    }

    fn failed(&self) -> MutexGuard<'_, Option<Box<str>>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<T>(&self, ask: impl FnOnce(&P) -> T, otherwise: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(|| ask(&self.inner))).unwrap_or_else(|panic| {
            *self.failed() = Some(said(&*panic).into());
            otherwise()
        })
    }
}

impl<P: Promoter> Guarded for Guard<P> {
    fn begin(&self) -> Option<Box<str>> {
        self.failed().take()
    }

    fn failure(&self) -> Option<Box<str>> {
        self.failed().clone()
    }
}

impl<P: Promoter> Promoter for Guard<P> {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        self.ask(|inner| inner.wishes(config, state), Wishes::default)
    }

    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        let unknown = || NodeType::new("unknown");
        self.ask(|inner| inner.node_type(config, state, server), unknown)
    }

    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        let by_default = || *node_type != NodeType::READ_REPLICA;
        self.ask(|inner| inner.is_potential_voter(node_type), by_default)
    }

    fn keeps(&self, config: &Config, state: &State, dead: &Removals) -> Vec<ServerId> {
        let all = || dead.iter().cloned().collect();
        self.ask(|inner| inner.keeps(config, state, dead), all)
    }

    fn server_ext(&self, config: &Config, state: &State, server: &ServerState) -> ServerExt {
        self.ask(|inner| inner.server_ext(config, state, server), ServerExt::default)
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        let mut ext = self.ask(|inner| inner.state_ext(config, state), StateExt::default);
        ext.warnings.extend(self.failure().map(|words| {
            format!(
                "the promoter panicked: what it would have said is left out, so no vote moves by its \
                 wishes and the dead are kept, until it is mended ({words})"
            )
        }));
        ext
    }

    fn wake(&self, config: &Config, state: &State) -> Option<Duration> {
        self.ask(|inner| inner.wake(config, state), || None)
    }

    fn policy(&self) -> Option<Policy> {
        self.ask(P::policy, || None)
    }
}
