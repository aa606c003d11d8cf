//! Every membership that was committed, in order, and which of them autopilot asked for.

use std::collections::{BTreeMap, BTreeSet};

use raft_autopilot::autopilot::Step;

use crate::types::{LogId, Membership};

/// Who votes and who belongs, of the newer half where the membership is joint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) voters: BTreeSet<u64>,
    pub(crate) nodes: BTreeSet<u64>,
}

impl Goal {
    pub(crate) fn new(membership: &Membership) -> Self {
        Self {
            voters: membership.get_joint_config().last().cloned().unwrap_or_default(),
            nodes: membership.nodes().map(|(id, _)| *id).collect(),
        }
    }
}

/// A step of autopilot's on its way.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) term: u64,
    /// The index of the membership that it was planned from.
    pub(crate) from: u64,
    pub(crate) goal: Goal,
}

/// A membership that was committed.
#[derive(Clone, Debug)]
struct Committed {
    index: u64,
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeSet<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Memberships {
    last: Option<Committed>,
    claims: BTreeMap<u64, (Claim, Progress)>,
    count: u64,
    /// Whoever was a member once, is not any more, and is known for it: because autopilot removed
    /// it, or because the ledger knew it. Nobody can know whom a person adds and takes out again
    /// before the next record.
    gone: BTreeSet<u64>,
    /// Whoever the ledger has ever named.
    known: BTreeSet<u64>,
    /// Whoever was once the only voter, for a moment at least.
    pub(crate) alone: BTreeSet<u64>,
    /// Whoever ever voted.
    pub(crate) voted: BTreeSet<u64>,
    /// How many steps of each kind were asked for.
    pub(crate) steps: BTreeMap<&'static str, usize>,
    /// How many steps came into effect.
    pub(crate) fulfilled: usize,
    /// How many joint memberships were committed, whoever made them.
    pub(crate) joints: usize,
}

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Asked,
    Joint,
    Done,
}

impl Memberships {
    /// Autopilot asks for a step; the number stands for it.
    pub(crate) fn claims(&mut self, claim: Claim, step: &Step) -> Option<u64> {
        *self.steps.entry(step.kind()).or_default() += 1;
        if matches!(step, Step::Transfer { .. }) {
            return None;
        }
        self.count += 1;
        self.claims.insert(self.count, (claim, Progress::Asked));
        Some(self.count)
    }

    /// The step was refused and cannot come into effect.
    pub(crate) fn unclaimed(&mut self, number: u64) {
        self.claims.remove(&number);
    }

    /// The step is said to be in effect.
    pub(crate) fn fulfilled(&mut self, number: u64) -> Result<(), String> {
        self.fulfilled += 1;
        match self.claims.remove(&number) {
            Some((_, Progress::Done)) => Ok(()),
            claim => Err(format!("a step is said to be done and is not: {claim:?}")),
        }
    }

    /// A membership was committed: it differs from the last one by learners or by one voter, or is
    /// one joint change, or one half of a joint membership; nobody returns who had left.
    pub(crate) fn commit(&mut self, log_id: &LogId, membership: &Membership) -> Result<(), String> {
        let next = Committed {
            index: log_id.index,
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, _)| *id).collect(),
        };
        self.joints += usize::from(next.configs.len() > 1);
        self.alone.extend(next.configs.iter().filter(|half| half.len() == 1).flatten());
        self.voted.extend(next.configs.iter().flatten());
        let Some(last) = self.last.replace(next.clone()) else { return Ok(()) };
        if let Some(back) = next.nodes.intersection(&self.gone).next() {
            return Err(format!("n{back} returns with {log_id}"));
        }
        let claimed = self.claimed(log_id, &last, &next);
        let left = last.nodes.difference(&next.nodes);
        self.gone.extend(left.filter(|id| claimed || self.known.contains(id)));
        let legal = match (&last.configs[..], &next.configs[..]) {
            ([old], [new]) => old.symmetric_difference(new).count() <= 1,
            ([old], [outgoing, _]) => outgoing == old,
            ([_, incoming], [new]) if claimed => new == incoming,
            ([outgoing, incoming], [new]) => new == incoming || new == outgoing,
            // openraft allows a person this; autopilot finishes the joint membership first.
            ([_, incoming], [outgoing, _]) => outgoing == incoming && !claimed,
            _ => false,
        };
        if legal { Ok(()) } else { Err(format!("{last:?} became {next:?}")) }
    }

    /// The ledger names a server.
    pub(crate) fn names(&mut self, id: u64) {
        self.known.insert(id);
    }

    /// Whether one of autopilot's steps made `next` of `last`.
    fn claimed(&mut self, log_id: &LogId, last: &Committed, next: &Committed) -> bool {
        let uniform = next.configs.len() == 1;
        let mut claimed = false;
        for (claim, progress) in self.claims.values_mut() {
            let first = *progress == Progress::Asked
                && claim.from == last.index
                && claim.term == log_id.leader_id.term;
            let second = *progress == Progress::Joint && last.configs.len() == 2;
            if next.configs.last() != Some(&claim.goal.voters) || !(first || second) {
                continue;
            }
            if !uniform {
                *progress = Progress::Joint;
                claimed |= first;
            } else if next.nodes == claim.goal.nodes {
                *progress = Progress::Done;
                claimed = true;
            }
        }
        claimed
    }

    /// Whether a server belongs to the last membership.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.last.as_ref().is_some_and(|last| last.nodes.contains(&id))
    }

    /// Whoever must not return.
    pub(crate) fn gone(&self) -> Vec<u64> {
        self.gone.iter().copied().collect()
    }
}
