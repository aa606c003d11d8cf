//! The ready-made promoters pass the examination; promoters that are no use do not, and are told why.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use raft_autopilot::{
    autopilot::{Config, NodeType, Promoter, Role, Server, ServerState, State, Wishes},
    promoters::{Preferred, Stable, Upgrade, Witness, Wrapper, Zones},
    testing::{Broken, Examination, Expectation},
};

/// As many as there is time for.
fn examination() -> Examination {
    Examination::new().histories(if cfg!(debug_assertions) { 10 } else { 300 })
}

#[test]
fn stable_passes() {
    examination().of(&Stable::new()).unwrap();
    examination().of(&Stable::with_target(3)).unwrap();
}

#[test]
fn zones_pass() {
    examination().of(&Zones::new()).unwrap();
    examination().of(&Zones::with_target(3)).unwrap();
}

#[test]
fn upgrades_pass() {
    examination().of(&Upgrade::new(Stable::new())).unwrap();
    examination().of(&Upgrade::new(Stable::with_target(3))).unwrap();
    examination().of(&Upgrade::new(Zones::new())).unwrap();
}

#[test]
fn a_preferred_leader_passes() {
    let weighs = |server: &mut Server, number: usize| {
        server.meta.insert("weight".to_owned(), (number % 3).to_string());
    };
    let promoter = Preferred::new(Upgrade::new(Zones::new())).zone("y").weight("weight");
    examination().dressed(weighs).of(&promoter).unwrap();
}

#[test]
fn a_witness_passes() {
    let third = |server: &mut Server, number: usize| {
        if number == 2 {
            server.meta.insert("witness".to_owned(), "true".to_owned());
        }
    };
    examination().dressed(third).of(&Witness::new(Stable::new(), "witness")).unwrap();
}

/// A policy in one closure.
struct Policy<F>(F);

impl<F> fmt::Debug for Policy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy")
    }
}

impl<F: Fn(&State) -> Wishes + Send + Sync + 'static> Promoter for Policy<F> {
    fn wishes(&self, _: &Config, state: &State) -> Wishes {
        (self.0)(state)
    }
}

fn broken(wishes: impl Fn(&State) -> Wishes + Send + Sync + 'static) -> Broken {
    Examination::new().histories(5).of(&Policy(wishes)).unwrap_err()
}

#[track_caller]
fn only(broken: &Broken, expectation: Expectation) {
    let found = &broken.findings;
    assert!(!found.is_empty() && found.iter().all(|f| f.expectation == expectation), "{broken}");
}

fn ids(state: &State, role: Role) -> Vec<raft_autopilot::autopilot::ServerId> {
    state.servers.iter().filter(|s| s.role == role).map(|s| s.server.id.clone()).collect()
}

#[test]
fn one_that_swaps_votes_for_ever_flaps() {
    let swaps = broken(|state| {
        let (mut promote, mut demote) = (ids(state, Role::Learner), ids(state, Role::Voter));
        promote.retain(|id| state.server(id).is_some_and(|s| !s.server.read_replica));
        demote.retain(|id| !state.is_leader(id));
        Wishes { promote, demote, leader: None }
    });
    assert!(swaps.findings.iter().any(|f| f.expectation == Expectation::DoesNotFlap), "{swaps}");
}

#[test]
fn one_that_passes_leadership_round_flaps() {
    let round = broken(|state| {
        let voters = ids(state, Role::Voter);
        let leader = voters.into_iter().find(|id| !state.is_leader(id));
        Wishes { leader, ..Wishes::default() }
    });
    only(&round, Expectation::DoesNotFlap);
}

#[test]
fn one_that_wishes_what_cannot_be_is_told_so() {
    let stubborn = broken(|state| {
        let demote = state.leader.iter().cloned().collect();
        Wishes { demote, ..Wishes::default() }
    });
    only(&stubborn, Expectation::WishesWhatCanBe);
    assert!(stubborn.to_string().contains("the leader keeps its vote"), "{stubborn}");
}

#[test]
fn one_that_never_comes_to_rest_is_told_so() {
    // A vote given and taken every 25 minutes: too seldom for a circle, and without end.
    let restless = broken(|state| {
        let rests = state.at.as_secs() / (25 * 60) % 2 == 0;
        let (mut promote, mut demote) = (ids(state, Role::Learner), ids(state, Role::Voter));
        let well =
            |s: &ServerState| !s.server.read_replica && s.is_stable(&Config::default(), state.at);
        promote.retain(|id| state.server(id).is_some_and(well));
        demote.retain(|id| !state.is_leader(id));
        demote.truncate(demote.len().saturating_sub(2));
        let (promote, demote) = if rests { (promote, Vec::new()) } else { (Vec::new(), demote) };
        Wishes { promote, demote, leader: None }
    });
    assert!(!restless.findings.is_empty(), "{restless}");
    only(&restless, Expectation::Converges);
}

/// Says that servers of its type never vote, and gives them votes.
#[derive(Debug)]
struct Liar(Stable);

impl Wrapper for Liar {
    type Inner = Stable;

    fn inner(&self) -> &Stable {
        &self.0
    }

    fn is_potential_voter(&self, _: &NodeType) -> bool {
        false
    }
}

#[test]
fn one_that_promotes_whoever_may_never_vote_is_told_so() {
    let broken = Examination::new().histories(5).of(&Liar(Stable::new())).unwrap_err();
    only(&broken, Expectation::KeepsItsWord);
    assert!(broken.to_string().contains("is a voter"), "{broken}");
}

#[test]
fn one_that_panics_or_changes_its_mind_is_caught() {
    let panics = broken(|state| {
        let leader = state.leader.clone().expect("there is always a leader");
        Wishes { leader: Some(leader), ..Wishes::default() }
    });
    assert!(panics.to_string().contains("there is always a leader"), "{panics}");
    let mind = AtomicBool::new(false);
    let fickle = broken(move |state| {
        let promote = if mind.fetch_xor(true, Ordering::Relaxed) {
            ids(state, Role::Learner)
        } else {
            Vec::new()
        };
        Wishes { promote, ..Wishes::default() }
    });
    assert!(
        fickle.findings.iter().any(|f| f.expectation == Expectation::SameStateSameWishes),
        "{fickle}"
    );
}
