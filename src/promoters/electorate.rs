//! Who may hold a vote now (`Ballot`), who should (`Electorate`), and the wishes that lead from the one to the other.

use crate::autopilot::{
    Config, IntentKind, Promoter, Role, ServerId, ServerState, State, Verdict, Wishes,
};

/// How a server stands to a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It votes, and nothing is wrong with it for long enough to replace it.
    Holds,
    /// It does not vote, and may.
    Ready,
    /// It votes, and has been lost for `voter_replacement_grace` without an announcement.
    Lost,
}

/// A server that may be elected.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Who.
    pub server: &'a ServerState,
    /// How it stands to a vote.
    pub standing: Standing,
}

impl<'a> Candidate<'a> {
    /// `None`: it never votes (a read replica), or must not now.
    fn new(config: &Config, state: &State, server: &'a ServerState) -> Option<Self> {
        if server.server.read_replica || server.role == Role::Absent {
            return None;
        }
        let standing = if !server.role.votes() {
            is_ready(config, state, server).then_some(Standing::Ready)?
        } else if is_lost(config, state, server) {
            Standing::Lost
        } else {
            Standing::Holds
        };
        Some(Self { server, standing })
    }

    /// Its id.
    pub fn id(&self) -> &'a ServerId {
        &self.server.server.id
    }

    /// Whether a vote would be well placed with it.
    pub fn is_fit(&self) -> bool {
        self.standing != Standing::Lost
    }
}

pub(super) fn is_ready(config: &Config, state: &State, server: &ServerState) -> bool {
    let id = &server.server.id;
    server.is_stable(config, state.at)
        && state.cordoned(id).is_none()
        && state.intended(id).is_none()
        && !state.removed_member(server)
}

/// A server whose restart is announced is not lost; one that is drained may be.
fn is_lost(config: &Config, state: &State, server: &ServerState) -> bool {
    let id = &server.server.id;
    let grace = config.voter_replacement_grace;
    let announced = state.intended(id).is_some_and(|kind| kind != IntentKind::Drain);
    server.health.verdict == Verdict::Unhealthy
        && !server.live
        && server.signs.first().is_some_and(|since| state.at.saturating_sub(since) >= grace)
        && !state.is_leader(id)
        && !announced
}

/// Everybody who may be elected: whoever votes comes first, then whoever is ready, the lost last;
/// each by [`State::order`]. Taking from the front therefore moves no vote between equals.
#[derive(Clone, Debug)]
pub struct Ballot<'a> {
    /// The thresholds.
    pub config: &'a Config,
    /// What is thought of the cluster.
    pub state: &'a State,
    /// The candidates, best first.
    pub candidates: Vec<Candidate<'a>>,
}

impl<'a> Ballot<'a> {
    /// Everybody who may be elected now.
    pub fn new(config: &'a Config, state: &'a State) -> Self {
        let of = |server| Candidate::new(config, state, server);
        let mut candidates: Vec<Candidate> = Vec::with_capacity(state.servers.len());
        candidates.extend(state.servers.iter().filter_map(of));
        candidates.sort_unstable_by(|a, b| {
            a.standing.cmp(&b.standing).then_with(|| state.order(a.server, b.server))
        });
        Self { config, state, candidates }
    }

    /// The same, with some of the candidates only.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&Candidate<'a>) -> bool) -> Self {
        let candidates = self.candidates.iter().filter(|c| keep(c)).copied().collect();
        Self { candidates, ..*self }
    }

    /// How many candidates stand like that.
    pub fn count(&self, standing: Standing) -> usize {
        self.candidates.iter().filter(|c| c.standing == standing).count()
    }

    /// Those of `servers` that a vote would be well placed with.
    pub fn fit(&self, servers: &[ServerId]) -> Vec<ServerId> {
        let fit = |id: &&ServerId| self.candidates.iter().any(|c| c.is_fit() && c.id() == *id);
        servers.iter().filter(fit).cloned().collect()
    }
}

/// A promoter that names the servers which should vote and leaves the way there to [`wishes`].
/// Wrappers such as [`Upgrade`](super::Upgrade) narrow the ballot of another electorate.
pub trait Electorate: Promoter {
    /// Who should vote, the most wanted first. A lost voter that nobody replaces belongs here
    /// too: whoever is not named loses the vote.
    fn elect(&self, ballot: &Ballot<'_>) -> Vec<ServerId>;

    /// How many of those who are not elected may follow, one after another, the elected that are
    /// lost. Default: everybody else who is fit, and may vote some day.
    fn reserve(&self, ballot: &Ballot<'_>) -> usize {
        let elected = self.elect(ballot);
        let may_vote = |c: &Candidate| {
            self.is_potential_voter(&self.node_type(ballot.config, ballot.state, c.server))
        };
        let follows = |c: &&Candidate| c.is_fit() && !elected.contains(c.id()) && may_vote(c);
        ballot.candidates.iter().filter(follows).count()
    }

    /// How many servers may fail one after another, with promotions in between: those who should
    /// vote and are healthy, and those who may follow, less the quorum. None of one or two
    /// voters, whoever stands by: nobody is left to promote.
    fn optimistic_failure_tolerance(&self, ballot: &Ballot<'_>) -> usize {
        let elected = self.elect(ballot);
        if elected.len().min(ballot.state.num_voters()) < 3 {
            return 0;
        }
        let healthy = |id: &&ServerId| {
            ballot.state.server(id).is_some_and(|s| s.health.verdict == Verdict::Healthy)
        };
        let healthy = elected.iter().filter(healthy).count();
        (healthy + self.reserve(ballot)).saturating_sub(elected.len() / 2 + 1)
    }

    /// Whether everybody who may vote does, so that the number of servers sets the number of
    /// votes. Default: no, the policy does.
    fn is_unlimited(&self) -> bool {
        false
    }

    /// Over how many domains of failure `servers` are spread. Default: each is one.
    fn spread(&self, ballot: &Ballot<'_>, servers: &[ServerId]) -> usize {
        let _ = ballot;
        servers.len()
    }
}

/// What must change for the elected to vote, and nobody else.
///
/// Votes move together. A leader that is not elected keeps its vote until everybody who is has
/// one and is well; then leadership goes to the best of them, and the vote follows.
pub fn wishes(electorate: &dyn Electorate, config: &Config, state: &State) -> Wishes {
    let ballot = Ballot::new(config, state);
    let elected = electorate.elect(&ballot);
    if elected.is_empty() {
        return Wishes::default();
    }
    let role = |id: &ServerId| state.server(id).map(|server| server.role);
    let promote: Vec<ServerId> =
        elected.iter().filter(|id| role(id) == Some(Role::Learner)).cloned().collect();
    let leads = |s: &&ServerState| state.is_leader(&s.server.id);
    let surplus = |s: &&ServerState| s.role == Role::Voter && !elected.contains(&s.server.id);
    let mut losers: Vec<&ServerState> = state.voters().filter(surplus).collect();
    losers.sort_by(|a, b| state.order(b, a));
    let leader_goes = losers.iter().any(leads);
    // What would be refused for ever is not wished: the best of the rest stay.
    let spare = (elected.len() + losers.len()).saturating_sub(floor(config, &elected, &losers));
    losers.truncate(spare);
    losers.retain(|s| !leads(s));
    let settled = promote.is_empty() && losers.iter().all(|s| s.health.verdict != Verdict::Healthy);
    let leader = if leader_goes && settled { successor(&ballot, &elected) } else { None };
    let demote = losers.into_iter().map(|s| s.server.id.clone()).collect();
    Wishes { promote, demote, leader }
}

/// How many voters have to be left: see [`Config::removal_floor`]. A healthy pair may become one.
fn floor(config: &Config, elected: &[ServerId], losers: &[&ServerState]) -> usize {
    let healthy = losers.iter().all(|s| s.health.verdict == Verdict::Healthy);
    let pair = config.min_quorum == 0 && elected.len() == 1 && losers.len() == 1 && healthy;
    if pair { 1 } else { config.removal_floor() }
}

/// The best of the elected to lead, once all of them are well that are not lost for good.
fn successor(ballot: &Ballot<'_>, elected: &[ServerId]) -> Option<ServerId> {
    let state = ballot.state;
    let voters: Vec<&ServerState> = ballot
        .candidates
        .iter()
        .filter(|c| c.is_fit() && elected.contains(c.id()))
        .map(|c| c.server)
        .collect();
    if voters.iter().any(|s| s.health.verdict != Verdict::Healthy) {
        return None;
    }
    let fit = |s: &&&ServerState| may_lead(state, s);
    let best = voters.iter().filter(fit).min_by_key(|s| state.refused_leadership(&s.server.id));
    best.map(|s| s.server.id.clone())
}

/// Whether a voter may be given the leadership now.
pub(crate) fn may_lead(state: &State, server: &ServerState) -> bool {
    let id = &server.server.id;
    server.role == Role::Voter
        && server.health.verdict == Verdict::Healthy
        && server.live
        && state.cordoned(id).is_none()
        && state.intended(id).is_none()
}
