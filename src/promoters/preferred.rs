//! Who should lead: servers of a zone, with a tag, or of greater weight, without leadership moving to and fro.

use std::time::Duration;

use super::{electorate::may_lead, wrapper::Wrapper};
use crate::autopilot::{Config, Liking, Policy, Promoter, ServerState, State, Wishes};

/// Adds a preferred leader to another promoter.
///
/// Preferences count in the order given: the first decides, the next decides between equals.
/// Leadership moves only to a server that is strictly better, is stable, and has been healthy for
/// at least `hold`; only from a leader that has led for `hold`; and, after a transfer to anybody has
/// failed on the leader, not before `cool_down` has passed since; and never to one from which the
/// inner policy would take it again. While votes are moving it stays where it is. Whoever keeps
/// losing leadership must be stable for longer each time ([`ServerState::stabilization`]).
#[derive(Clone, Debug)]
pub struct Preferred<P> {
    inner: P,
    likings: Vec<Liking>,
    hold: Duration,
    cool_down: Duration,
}

impl<P: Promoter> Preferred<P> {
    /// Without a preference yet. `hold` is 1 min, `cool_down` 5 min.
    pub fn new(inner: P) -> Self {
        let (hold, cool_down) = (Duration::from_secs(60), Duration::from_secs(300));
        Self { inner, likings: Vec::new(), hold, cool_down }
    }

    /// Prefers the servers of a zone, as the inner promoter or the application names it.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.likings.push(Liking::Zone(zone.into()));
        self
    }

    /// Prefers servers whose tag `key` is `value`.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.likings.push(Liking::Tag { key: key.into(), value: value.into() });
        self
    }

    /// Prefers the server with the greater whole number in the tag `key`; what is none counts 0.
    #[must_use]
    pub fn weight(mut self, key: impl Into<String>) -> Self {
        self.likings.push(Liking::Weight(key.into()));
        self
    }

    /// Prefers by these, after what was said before.
    #[must_use]
    pub fn by(mut self, likings: impl IntoIterator<Item = Liking>) -> Self {
        self.likings.extend(likings);
        self
    }

    /// How long a leader stays, and a better one must have been fit, before leadership moves.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// How long nothing is tried after a transfer has failed. More than a day is a day: nobody
    /// remembers it for longer.
    #[must_use]
    pub fn cool_down(mut self, cool_down: Duration) -> Self {
        self.cool_down = cool_down;
        self
    }

    fn score(&self, config: &Config, state: &State, server: &ServerState) -> Vec<i64> {
        let score = |liking: &Liking| match liking {
            Liking::Zone(zone) => {
                let named = self.inner.server_ext(config, state, server).redundancy_zone;
                i64::from(named.or_else(|| server.server.zone.clone()).as_ref() == Some(zone))
            }
            Liking::Tag { key, value } => i64::from(server.tag(key) == Some(value.as_str())),
            Liking::Weight(key) => server.tag(key).and_then(|w| w.parse().ok()).unwrap_or(0),
        };
        self.likings.iter().map(score).collect()
    }

    /// Whether the inner policy would leave leadership with a server that has it.
    fn would_stay(&self, config: &Config, state: &State, server: &ServerState) -> bool {
        let id = &server.server.id;
        let mut then = state.clone();
        (then.leader, then.local) = (Some(id.clone()), id.clone());
        let wishes = self.inner.wishes(config, &then);
        wishes.leader.is_none_or(|leader| leader == *id) && !wishes.demote.contains(id)
    }

    /// When something may be tried again after a transfer that failed.
    fn cooled_down(&self, state: &State) -> Option<Duration> {
        let failed = state.feedback.as_ref()?.transfer_failed?;
        Some(failed.saturating_add(self.cool_down))
    }
}

impl<P: Promoter> Wrapper for Preferred<P> {
    type Inner = P;

    fn inner(&self) -> &P {
        &self.inner
    }

    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        let mut wishes = self.inner.wishes(config, state);
        let leader = state.leader.as_ref().and_then(|id| state.server(id));
        let (Some(leader), Some(leading)) = (leader, state.leading) else { return wishes };
        let fresh = state.at.saturating_sub(leading.since) < self.hold;
        let cools_down = self.cooled_down(state).is_some_and(|end| end > state.at);
        if wishes != Wishes::default() || fresh || cools_down {
            return wishes;
        }
        let fit = |s: &&ServerState| {
            s.is_stable(config, state.at)
                && s.healthy_for(state.at).is_some_and(|age| age >= self.hold)
                && may_lead(state, s)
        };
        let score = |s: &ServerState| self.score(config, state, s);
        let mut fit: Vec<&ServerState> = state.voters().filter(fit).collect();
        fit.sort_by(|a, b| score(b).cmp(&score(a)).then_with(|| state.order(a, b)));
        let best = fit
            .into_iter()
            .take_while(|best| score(best) > score(leader))
            .find(|best| self.would_stay(config, state, best));
        wishes.leader = best.map(|best| best.server.id.clone());
        wishes
    }

    fn wake(&self, config: &Config, state: &State) -> Option<Duration> {
        let held = |since: Duration| since.saturating_add(self.hold);
        let healthy = state.voters().filter_map(|s| {
            let stable = |since: Duration| since.saturating_add(s.stabilization(config));
            s.health.healthy_since.map(|since| held(since).max(stable(since)))
        });
        let led = state.leading.map(|leading| held(leading.since));
        let moments = healthy.chain(led).chain(self.cooled_down(state));
        let moments = moments.chain(self.inner.wake(config, state));
        moments.filter(|moment| *moment > state.at).min()
    }

    fn policy(&self) -> Option<Policy> {
        let (hold, cool_down) = (self.hold, self.cool_down);
        let inner = Box::new(self.inner.policy()?);
        Some(Policy::Preferred { by: self.likings.clone(), hold, cool_down, inner })
    }
}
