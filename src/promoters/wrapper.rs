//! A promoter around another: what it does not say itself the inner one answers.

use std::time::Duration;

use crate::autopilot::{
    Config, NodeType, Policy, Promoter, Removals, ServerExt, ServerId, ServerState, State,
    StateExt, Wishes,
};

/// A promoter that changes what another one says. Whoever implements this is a [`Promoter`], each
/// method of which is by default the inner one's; [`Upgrade`](super::Upgrade) is one.
///
/// ```
/// use raft_autopilot::{
///     autopilot::{Config, Promoter, ServerId, State, Wishes},
///     promoters::{Stable, Wrapper},
/// };
///
/// /// Leaves one server without a vote.
/// #[derive(Debug)]
/// struct Without(ServerId, Stable);
///
/// impl Wrapper for Without {
///     type Inner = Stable;
///
///     fn inner(&self) -> &Stable {
///         &self.1
///     }
///
///     fn wishes(&self, config: &Config, state: &State) -> Wishes {
///         let mut wishes = self.1.wishes(config, state);
///         wishes.promote.retain(|id| *id != self.0);
///         wishes
///     }
/// }
///
/// let promoter: Box<dyn Promoter> = Box::new(Without("a".into(), Stable::new()));
/// ```
pub trait Wrapper: std::fmt::Debug + Send + Sync + 'static {
    /// What is inside.
    type Inner: Promoter + ?Sized;

    /// The promoter inside.
    fn inner(&self) -> &Self::Inner;

    /// See [`Promoter::wishes`].
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        self.inner().wishes(config, state)
    }

    /// See [`Promoter::node_type`].
    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        self.inner().node_type(config, state, server)
    }

    /// See [`Promoter::is_potential_voter`].
    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        self.inner().is_potential_voter(node_type)
    }

    /// See [`Promoter::keeps`].
    fn keeps(&self, config: &Config, state: &State, dead: &Removals) -> Vec<ServerId> {
        self.inner().keeps(config, state, dead)
    }

    /// See [`Promoter::server_ext`].
    fn server_ext(&self, config: &Config, state: &State, server: &ServerState) -> ServerExt {
        self.inner().server_ext(config, state, server)
    }

    /// See [`Promoter::state_ext`].
    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        self.inner().state_ext(config, state)
    }

    /// See [`Promoter::wake`].
    fn wake(&self, config: &Config, state: &State) -> Option<Duration> {
        self.inner().wake(config, state)
    }

    /// See [`Promoter::policy`]. Default: none, for what is around the inner one is not known.
    fn policy(&self) -> Option<Policy> {
        None
    }
}

impl<W: Wrapper> Promoter for W {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        Wrapper::wishes(self, config, state)
    }

    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        Wrapper::node_type(self, config, state, server)
    }

    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        Wrapper::is_potential_voter(self, node_type)
    }

    fn keeps(&self, config: &Config, state: &State, dead: &Removals) -> Vec<ServerId> {
        Wrapper::keeps(self, config, state, dead)
    }

    fn server_ext(&self, config: &Config, state: &State, server: &ServerState) -> ServerExt {
        Wrapper::server_ext(self, config, state, server)
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        Wrapper::state_ext(self, config, state)
    }

    fn wake(&self, config: &Config, state: &State) -> Option<Duration> {
        Wrapper::wake(self, config, state)
    }

    fn policy(&self) -> Option<Policy> {
        Wrapper::policy(self)
    }
}
