//! Two servers and a witness: a third vote that only ever breaks the tie, and never leads.

use super::{
    electorate::{Ballot, Candidate, Electorate, Standing, may_lead, wishes},
    wrapper::Wrapper,
};
use crate::autopilot::{Config, Policy, ServerId, ServerState, State, StateExt, Wishes};

/// Adds a witness to another policy: a server that holds the log on a small machine or a third
/// site, votes to break a tie, and does not serve.
///
/// - A witness votes only where it makes the number of voters odd: beside two others, or four.
///   One witness votes at a time. One beside a single voter would add a way to fail and nothing
///   else; that is refused.
/// - A pair gets its second vote together with the witness's, in one change. Two voters alone
///   are refused on the way up: either of them would stop the other. Once they stand, the vote
///   of neither is taken; [`State::warnings`] says that no failure is tolerated.
/// - A witness that comes to lead hands over at once.
///
/// A witness is a server whose tag of the given name is set, and not `false`. Refusals and
/// warnings are in [`StateExt::warnings`].
#[derive(Clone, Debug)]
pub struct Witness<E> {
    inner: E,
    tag: String,
}

impl<E: Electorate> Witness<E> {
    /// Servers whose tag `tag` is set are witnesses.
    pub fn new(inner: E, tag: impl Into<String>) -> Self {
        Self { inner, tag: tag.into() }
    }

    fn is_witness(&self, server: &ServerState) -> bool {
        server.tag(&self.tag).is_some_and(|value| value != "false")
    }

    /// The elected, and what was refused on the way.
    fn decide(&self, ballot: &Ballot<'_>) -> (Vec<ServerId>, Option<String>) {
        let served = ballot.only(|c| !self.is_witness(c.server));
        let witnesses = ballot.only(|c| self.is_witness(c.server));
        let mut elected = self.inner.elect(&served);
        if elected.len() % 2 == 1 || elected.is_empty() {
            let refused = (elected.len() == 1 && !witnesses.candidates.is_empty())
                .then(|| "no vote for a witness beside a single voter".to_owned());
            return (elected, refused);
        }
        if let Some(witness) = witnesses.candidates.first() {
            elected.push(witness.id().clone());
            return (elected, None);
        }
        let holds = |c: &&Candidate| c.standing != Standing::Ready;
        let voting = served.candidates.iter().filter(holds).count();
        if elected.len() > 2 || voting > 1 {
            let tie = format!("{} voters and no witness to break a tie", elected.len());
            return (elected, Some(tie));
        }
        elected.truncate(1);
        (elected, Some("no second vote before a witness is ready".to_owned()))
    }
}

impl<E: Electorate> Electorate for Witness<E> {
    fn elect(&self, ballot: &Ballot<'_>) -> Vec<ServerId> {
        self.decide(ballot).0
    }

    /// A witness follows nobody: it votes only where it makes the number odd.
    fn reserve(&self, ballot: &Ballot<'_>) -> usize {
        self.inner.reserve(&ballot.only(|c| !self.is_witness(c.server)))
    }

    fn is_unlimited(&self) -> bool {
        self.inner.is_unlimited()
    }

    fn spread(&self, ballot: &Ballot<'_>, servers: &[ServerId]) -> usize {
        self.inner.spread(ballot, servers)
    }
}

impl<E: Electorate> Wrapper for Witness<E> {
    type Inner = E;

    fn inner(&self) -> &E {
        &self.inner
    }

    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        let mut wishes = wishes(self, config, state);
        let leader = state.leader.as_ref().and_then(|id| state.server(id));
        if wishes.leader.is_none() && leader.is_some_and(|leader| self.is_witness(leader)) {
            let fit = |s: &&ServerState| !self.is_witness(s) && may_lead(state, s);
            let best = state.voters().filter(fit).min_by(|a, b| state.order(a, b));
            wishes.leader = best.map(|best| best.server.id.clone());
        }
        wishes
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        let mut ext = self.inner.state_ext(config, state);
        let ballot = Ballot::new(config, state);
        ext.optimistic_failure_tolerance = Some(self.optimistic_failure_tolerance(&ballot));
        ext.warnings.extend(self.decide(&ballot).1);
        ext
    }

    fn policy(&self) -> Option<Policy> {
        let inner = Box::new(self.inner.policy()?);
        Some(Policy::Witness { tag: self.tag.clone(), inner })
    }
}
