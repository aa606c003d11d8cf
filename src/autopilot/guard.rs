//! A promoter that panics ends nothing: what it would have said is left out, and its words are kept.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// What a panic means for whoever reads.
const LEFT_OUT: &str = "what it would have said is left out";

/// A promoter has panicked while a plan was made. What is shown is what that means, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromoterPanic {
    /// The method of [`Promoter`] that was asked.
    pub asked: &'static str,
    /// The words of the panic.
    pub said: Box<str>,
}

impl fmt::Display for PromoterPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(match self.asked {
            "wishes" => "no vote moves by its wishes",
            "keeps" => "all the dead are kept",
            _ => LEFT_OUT,
        }))
    }
}

impl PromoterPanic {
    fn words(&self, means: &str) -> String {
        let Self { asked, said } = self;
        format!("the promoter panicked in `{asked}`: {means}, until it is mended ({said})")
    }
}

/// A promoter, asked for one purpose: a round, or one reading of a view. No panic of it is heard outside:
/// it wishes nothing then, keeps the dead, and says nothing beside.
#[derive(Debug)]
pub(crate) struct Guard {
    inner: Arc<dyn Promoter>,
    /// Those of the round that is read.
    known: Vec<PromoterPanic>,
    /// Those that were met here, the first of each method.
    panics: Mutex<Vec<PromoterPanic>>,
}

impl Guard {
    /// For a round, or for one who reads what it came to, whose panics are known.
    pub(crate) fn new(inner: Arc<dyn Promoter>, known: Vec<PromoterPanic>) -> Self {
        Self { inner, known, panics: Mutex::default() }
    }

    /// The panics until now, the first of each method.
    pub(super) fn panics(self) -> Vec<PromoterPanic> {
        self.panics.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The panics until now, in words: to be asked for when nothing else is.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let met = self.met();
        let new = met.iter().filter(|met| self.known.iter().all(|known| known.asked != met.asked));
        let new = new.map(|met| met.words(LEFT_OUT));
        self.known.iter().map(ToString::to_string).chain(new).collect()
    }

    fn met(&self) -> MutexGuard<'_, Vec<PromoterPanic>> {
        self.panics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<T>(
        &self,
        asked: &'static str,
        ask: impl FnOnce(&dyn Promoter) -> T,
        otherwise: impl FnOnce() -> T,
    ) -> T {
        catch_unwind(AssertUnwindSafe(|| ask(&*self.inner))).unwrap_or_else(|panic| {
            let mut met = self.met();
            if met.iter().all(|known| known.asked != asked) {
                met.push(PromoterPanic { asked, said: said(&*panic).into() });
            }
            otherwise()
        })
    }
}

impl Promoter for Guard {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        self.ask("wishes", |inner| inner.wishes(config, state), Wishes::default)
    }

    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        let unknown = || NodeType::new("unknown");
        self.ask("node_type", |inner| inner.node_type(config, state, server), unknown)
    }

    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        let by_default = || *node_type != NodeType::READ_REPLICA;
        self.ask("is_potential_voter", |inner| inner.is_potential_voter(node_type), by_default)
    }

    fn keeps(&self, config: &Config, state: &State, dead: &Removals) -> Vec<ServerId> {
        let all = || dead.iter().cloned().collect();
        self.ask("keeps", |inner| inner.keeps(config, state, dead), all)
    }

    fn server_ext(&self, config: &Config, state: &State, server: &ServerState) -> ServerExt {
        let nothing = ServerExt::default;
        self.ask("server_ext", |inner| inner.server_ext(config, state, server), nothing)
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        self.ask("state_ext", |inner| inner.state_ext(config, state), StateExt::default)
    }

    fn wake(&self, config: &Config, state: &State) -> Option<Duration> {
        self.ask("wake", |inner| inner.wake(config, state), || None)
    }

    fn policy(&self) -> Option<Policy> {
        self.ask("policy", Promoter::policy, || None)
    }
}
