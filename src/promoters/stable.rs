//! Everybody who is stable votes, up to an optional number of voters; the rest stand by.

use std::cmp::Ordering;

use super::electorate::{Ballot, Electorate, Standing, is_ready, wishes};
use crate::autopilot::{
    Config, Policy, Promoter, Role, ServerId, ServerState, State, StateExt, Wishes,
};

/// The default policy: whoever has been healthy for the stabilization time gets a vote.
///
/// Without a target everybody stable votes and nobody is demoted, as in the reference. With one,
/// that many vote and the rest stand by: a voter that has been lost for `voter_replacement_grace`
/// gives its vote to the best one standing by, surplus voters give theirs up, and votes are never
/// moved between servers that are equally good. Nobody is promoted to an even number of voters
/// above two, which tolerates no more failures than one voter less: a target of four means at
/// most three. An even number that stands already and is no surplus is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stable {
    target: Option<usize>,
}

impl Stable {
    /// Everybody stable votes.
    pub fn new() -> Self {
        Self::default()
    }

    /// `voters` vote, at least one.
    #[must_use]
    pub fn with_target(voters: usize) -> Self {
        Self { target: Some(voters.max(1)) }
    }
}

impl Electorate for Stable {
    fn elect(&self, ballot: &Ballot<'_>) -> Vec<ServerId> {
        let (hold, lost) = (ballot.count(Standing::Holds), ballot.count(Standing::Lost));
        let fit = hold + ballot.count(Standing::Ready);
        let seats = match self.target {
            None => fit + lost,
            Some(target) => {
                let grown = target.min(fit);
                let even = grown > 2 && grown % 2 == 0 && grown > hold + lost;
                // A vote is taken from the lost only where somebody takes its place.
                target.min((grown - usize::from(even)).max(hold + lost))
            }
        };
        ballot.candidates.iter().take(seats).map(|c| c.id().clone()).collect()
    }

    fn is_unlimited(&self) -> bool {
        self.target.is_none()
    }
}

impl Promoter for Stable {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        if self.target.is_some() || state.voters().any(|s| s.server.read_replica) {
            return wishes(self, config, state);
        }
        // The same in short: in most rounds nobody is ready, and nothing is allocated.
        let ready = |s: &&ServerState| {
            s.role == Role::Learner && !s.server.read_replica && is_ready(config, state, s)
        };
        let ready = state.servers.iter().filter(ready);
        let mut promote: Vec<ServerId> = ready.map(|s| s.server.id.clone()).collect();
        if promote.len() > 1 {
            let found = |id: &ServerId| state.server(id);
            promote.sort_by(|a, b| {
                let both = found(a).zip(found(b));
                both.map_or(Ordering::Equal, |(a, b)| state.order(a, b))
            });
        }
        Wishes { promote, ..Wishes::default() }
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        let tolerance = self.optimistic_failure_tolerance(&Ballot::new(config, state));
        StateExt { optimistic_failure_tolerance: Some(tolerance), ..StateExt::default() }
    }

    fn policy(&self) -> Option<Policy> {
        Some(Policy::Stable { target: self.target })
    }
}
