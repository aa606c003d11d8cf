//! Everybody who is stable votes, up to an optional number of voters; the rest stand by.

use crate::autopilot::{Config, Promoter, Role, ServerState, State, Verdict, Wishes};

/// The default policy: whoever has been healthy for the stabilization time gets a vote.
///
/// Without a target everybody stable votes and nobody is demoted, as in the reference. With one,
/// at most that many vote and the rest stand by: a voter that has been out of contact for
/// `voter_replacement_grace` gives its vote to the best one standing by, and votes are never
/// moved between servers that are equally good. Nobody is promoted to an even number of voters
/// above two, which tolerates no more failures than one voter less: a target of four means at
/// most three. An even number that stands already is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stable {
    target: Option<usize>,
}

impl Stable {
    /// Everybody stable votes.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most `voters` vote, at least one.
    #[must_use]
    pub fn with_target(voters: usize) -> Self {
        Self { target: Some(voters.max(1)) }
    }
}

impl Promoter for Stable {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        let ready = |s: &&ServerState| {
            s.role == Role::Learner
                && s.is_stable(config, state.at)
                && !s.server.read_replica
                && state.cordoned(&s.server.id).is_none()
        };
        if state.servers.iter().all(|s| !ready(&s)) {
            return Wishes::default();
        }
        let mut standby: Vec<&ServerState> = state.members().filter(ready).collect();
        standby.sort_by(|a, b| state.order(a, b));
        let Some(target) = self.target else {
            let promote = standby.into_iter().map(|s| s.server.id.clone()).collect();
            return Wishes { promote, ..Wishes::default() };
        };
        let lost = |s: &&ServerState| {
            let grace = config.voter_replacement_grace;
            s.health.verdict == Verdict::Unhealthy
                && !s.live
                && s.signs.iter().any(|(_, since)| state.at.saturating_sub(since) >= grace)
                && !state.is_leader(&s.server.id)
                && state.intended(&s.server.id).is_none()
        };
        let mut lost: Vec<&ServerState> = state.voters().filter(lost).collect();
        lost.sort_by(|a, b| state.order(b, a));
        let voters = state.num_voters();
        // Votes are taken from the lost only where somebody takes their place.
        let places = target.saturating_sub(voters.saturating_sub(lost.len()));
        lost.truncate(standby.len().min(places));
        let ready = standby.len() - lost.len();
        let mut size = target.min(voters + ready).max(voters);
        if size > voters && size > 2 && size % 2 == 0 {
            size -= 1;
        }
        standby.truncate(lost.len() + size - voters);
        let ids =
            |servers: Vec<&ServerState>| servers.iter().map(|s| s.server.id.clone()).collect();
        Wishes { promote: ids(standby), demote: ids(lost), leader: None }
    }
}
