//! What may never happen, once more and from first principles: it knows the facts, not the state.

use std::collections::BTreeSet;

use raft_autopilot::autopilot::{Origin, Role, Step};

use crate::world::{Case, Facts};

/// Votes, and those who cast them.
struct Votes {
    all: usize,
    live: usize,
}

impl Votes {
    fn of(case: &Case, voters: &BTreeSet<u8>) -> Self {
        let live = voters.iter().filter(|id| facts(case, **id).live).count();
        Self { all: voters.len(), live }
    }

    fn margin(&self) -> i64 {
        i64::try_from(self.live).unwrap() - i64::try_from(self.all / 2 + 1).unwrap()
    }
}

fn facts(case: &Case, id: u8) -> Facts {
    case.members[&id].1.facts()
}

/// The first law that a step would break in a uniform membership; `None`: it may be done.
pub(crate) fn broken(case: &Case, step: &Step, origin: &Origin) -> Option<&'static str> {
    let numbers =
        |ids: &[_]| -> BTreeSet<u8> { ids.iter().map(Case::number).collect::<BTreeSet<u8>>() };
    let (gain, lose, leave) = match step {
        Step::Votes { promote, demote } => (numbers(promote), numbers(demote), false),
        Step::Remove { servers, promote, .. } => (numbers(promote), numbers(servers), true),
        Step::Transfer { to } => return unfit_leader(case, Case::number(to), origin),
        Step::FinishJoint => return Some("there is nothing to finish"),
        Step::Add(_) | Step::Readdress { .. } => unreachable!("not tried here"),
    };
    let voters: BTreeSet<u8> = case
        .members
        .iter()
        .filter(|(_, (role, _))| *role == Role::Voter)
        .map(|(id, _)| *id)
        .collect();
    let after: BTreeSet<u8> = voters.difference(&lose).chain(&gain).copied().collect();
    let member = |id: &u8| case.members.contains_key(id);
    if gain.is_empty() && lose.is_empty() {
        return Some("it changes nothing");
    }
    if !gain.iter().all(|id| member(id) && !voters.contains(id)) || !gain.is_disjoint(&lose) {
        return Some("only a learner gains a vote");
    }
    if !lose.iter().all(|id| if leave { member(id) } else { voters.contains(id) }) {
        return Some("only a voter loses its vote, only a member leaves");
    }
    if lose.contains(&case.leader) {
        return Some("the leader keeps its vote");
    }
    let (before_votes, after_votes) = (Votes::of(case, &voters), Votes::of(case, &after));
    if before_votes.margin() < 0 || after_votes.margin() < 0 {
        return Some("both memberships have a live quorum");
    }
    if gain.iter().any(|id| !facts(case, *id).healthy || !facts(case, *id).may_gain) {
        return Some("only the healthy gain a vote");
    }
    let (person, forced) = match origin {
        Origin::Operator { force, .. } => (true, force.is_some()),
        _ => (false, false),
    };
    if forced {
        return None;
    }
    if gain.iter().any(|id| !facts(case, *id).stable) {
        return Some("only the stable gain a vote");
    }
    let lowered = after_votes.margin() < before_votes.margin();
    if lowered && after_votes.margin() < i64::from(case.min_margin) {
        return Some("the margin is kept");
    }
    let sick = lose.iter().filter(|id| voters.contains(id) && !facts(case, **id).healthy).count();
    let replaced = sick <= gain.len();
    let floor = match case.min_quorum {
        0 if !person && (voters.len(), after.len(), sick) == (2, 1, 0) => 1,
        0 if !person => 3,
        floor => usize::try_from(floor).unwrap(),
    };
    if after.len() < voters.len() && after.len() < floor {
        return Some("no fewer voters than the floor");
    }
    if leave && lose.intersection(&voters).any(|id| facts(case, *id).live) {
        return Some("a live voter is not removed");
    }
    if leave && person && lose.intersection(&voters).any(|id| facts(case, *id).unknown) {
        return Some("a voter of whom nothing is known is not removed");
    }
    let wished = *origin == Origin::Promoter && !leave;
    let swapped = replaced && !leave;
    lose.iter().filter(|_| !person).find_map(|id| must_stay(case, *id, wished, swapped))
}

/// Why a server keeps what it has, although nobody but autopilot says otherwise.
fn must_stay(case: &Case, id: u8, wished: bool, swapped: bool) -> Option<&'static str> {
    let facts = facts(case, id);
    if facts.unknown {
        return Some("nobody unknown loses anything");
    }
    if facts.healthy {
        return (!wished).then_some("the healthy lose their vote to a wish only");
    }
    let (grace, needed) = if swapped { (10, 1) } else { (facts.grace, 2) };
    let standing = |age: u64| facts.signs.iter().filter(|sign| **sign >= age).count();
    if standing(grace) < needed {
        return Some("so many signs have stood for the grace");
    }
    if facts.restarts {
        return Some("whoever is said to restart is not dead");
    }
    if standing(2 * grace) >= 2 {
        return None;
    }
    let begin = |signs: &[u64]| signs.iter().max().copied();
    let own = begin(facts.signs)?;
    let vanished = case
        .members
        .values()
        .filter_map(|(_, is)| begin(is.facts().signs))
        .filter(|other| other.abs_diff(own) <= grace)
        .count();
    let many = vanished >= 2 && 3 * vanished > case.members.len();
    many.then_some("too many vanished together")
}

fn unfit_leader(case: &Case, to: u8, origin: &Origin) -> Option<&'static str> {
    let person = matches!(origin, Origin::Operator { .. });
    let fit = case.members.get(&to).is_some_and(|(role, is)| {
        let facts = is.facts();
        let fit = *role == Role::Voter && facts.healthy && facts.live && facts.may_gain;
        fit && (person || !facts.drains)
    });
    (!fit || to == case.leader).then_some("only a fit voter is handed leadership")
}
