//! Why a change must not be applied, as data: `Refusal`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    cluster::{Fence, Role, ServerId},
    records::{IntentKind, Verdict},
};

/// Why a change must not be applied. Nothing was changed by the step; the text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "code")]
#[non_exhaustive]
pub enum Refusal {
    /// This node does not lead, or a quorum has not answered it recently.
    NotLeading,
    /// The term, the leader or the membership has moved since the plan.
    Moved {
        /// What it was planned from.
        planned: Fence,
        /// What stands; `None`: this node does not lead.
        found: Option<Fence>,
    },
    /// Another change of the membership is not committed yet.
    ChangeInFlight,
    /// A joint membership stands and must be finished first.
    JointUnfinished,
    /// There is no joint membership to finish.
    NotJoint,
    /// The change names nobody.
    Empty,
    /// The change names a server twice.
    Twice {
        /// Which.
        server: ServerId,
    },
    /// A server is not in the place that the change starts from.
    WrongRole {
        /// Which.
        server: ServerId,
        /// Where it is.
        found: Role,
        /// Where it would have to be.
        expected: Role,
    },
    /// The voters that answer would not make a quorum.
    NoQuorum {
        /// How many would answer.
        live: usize,
        /// Of how many.
        voters: usize,
    },
    /// The live voters beyond the quorum would become fewer than `min_margin`.
    Margin {
        /// Live voters beyond the quorum now; negative below it.
        before: i64,
        /// And after the change.
        after: i64,
    },
    /// The leader would lose its vote; it hands leadership over first.
    LeaderKeepsVote,
    /// Fewer voters would be left than `min_quorum`; where that is not set, fewer than three
    /// without a person's order.
    MinQuorum {
        /// How many would be left.
        left: usize,
        /// How many there must be.
        floor: usize,
    },
    /// A server that would gain a vote or leadership is not healthy.
    NotHealthy {
        /// Which.
        server: ServerId,
        /// What it is.
        verdict: Verdict,
    },
    /// A server that would gain a vote has not been healthy for long enough.
    NotStable {
        /// Which.
        server: ServerId,
        /// For how long it has been.
        #[serde(with = "crate::duration")]
        healthy_for: Duration,
        /// For how long it must.
        #[serde(with = "crate::duration")]
        needed: Duration,
    },
    /// A server that would gain a vote or leadership lacks too much of the log.
    NotCaughtUp {
        /// Which.
        server: ServerId,
        /// How many entries.
        lag: u64,
    },
    /// A server that would gain a vote or leadership is cordoned.
    Cordoned {
        /// Which.
        server: ServerId,
        /// Why, in the operator's words.
        reason: String,
    },
    /// An operator has announced what is about to happen to a server: it is not taken for dead
    /// while it restarts, and leadership does not go to it.
    Intended {
        /// Which.
        server: ServerId,
        /// What is announced.
        kind: IntentKind,
    },
    /// A read replica would gain a vote.
    ReadReplica {
        /// Which.
        server: ServerId,
    },
    /// A server that the order is about is no member.
    NotMember {
        /// Which.
        server: ServerId,
    },
    /// Nothing is known of a server that would lose its vote or its place.
    NotKnown {
        /// Which.
        server: ServerId,
    },
    /// The grace of a sick server has not passed.
    GraceRuns {
        /// Which.
        server: ServerId,
        /// For how long two signs have stood.
        #[serde(with = "crate::duration")]
        passed: Duration,
        /// For how long they must.
        #[serde(with = "crate::duration")]
        grace: Duration,
    },
    /// Fewer than two independent signs say that a server is dead.
    TooFewSigns {
        /// Which.
        server: ServerId,
        /// How many do.
        signs: usize,
    },
    /// Too many servers have vanished together: more likely the observer is cut off.
    VanishedTogether {
        /// How many.
        vanished: usize,
        /// Of how many.
        members: usize,
    },
    /// A live voter would be removed; it is demoted first, by a wish or an order.
    LiveVoter {
        /// Which.
        server: ServerId,
    },
    /// The id was removed once and must not come back; join with a new one.
    RemovedId {
        /// Which.
        server: ServerId,
    },
    /// Another member has the address.
    AddressInUse {
        /// Who.
        server: ServerId,
        /// The address.
        address: String,
    },
}

impl Refusal {
    /// What to do about it.
    fn advice(&self) -> &'static str {
        match self {
            Self::NotLeading => "wait for a leader, and ask it",
            Self::Moved { .. } => "plan anew from what stands",
            Self::ChangeInFlight | Self::JointUnfinished => "wait for its end",
            Self::NotJoint => "look at the membership",
            Self::Empty => "name a server",
            Self::Twice { .. } => "name it once",
            Self::WrongRole { .. } | Self::NotMember { .. } => {
                "look at the membership, and name another"
            }
            Self::NoQuorum { .. } => "bring voters back first",
            Self::Margin { .. } => "bring voters back or add one first, or use force",
            Self::LeaderKeepsVote => "transfer leadership first",
            Self::MinQuorum { .. } => "add a voter first, set a lower `min_quorum`, or use force",
            Self::NotHealthy { .. } => "wait until it is healthy",
            Self::NotStable { .. } | Self::GraceRuns { .. } => "wait, or use force",
            Self::NotCaughtUp { .. } => "wait until it has caught up",
            Self::Cordoned { .. } => "uncordon it first",
            Self::Intended { .. } => "wait until the announcement ends, or withdraw it",
            Self::ReadReplica { .. } => "choose another server",
            Self::NotKnown { .. } => "wait until it has been seen",
            Self::TooFewSigns { .. } => "wait for another sign, or use force",
            Self::VanishedTogether { .. } => "bring them back, or use force",
            Self::LiveVoter { .. } => "demote it first",
            Self::RemovedId { .. } => "join with a new id",
            Self::AddressInUse { .. } => "choose another address, or remove that server first",
        }
    }

    /// Whether waiting may lift it, without anybody's order.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotLeading
            | Self::Moved { .. }
            | Self::ChangeInFlight
            | Self::JointUnfinished
            | Self::NoQuorum { .. }
            | Self::Margin { .. }
            | Self::NotHealthy { .. }
            | Self::NotStable { .. }
            | Self::NotCaughtUp { .. }
            | Self::Intended { .. }
            | Self::NotKnown { .. }
            | Self::GraceRuns { .. }
            | Self::TooFewSigns { .. }
            | Self::VanishedTogether { .. } => true,
            Self::NotJoint
            | Self::Empty
            | Self::Twice { .. }
            | Self::WrongRole { .. }
            | Self::LeaderKeepsVote
            | Self::MinQuorum { .. }
            | Self::Cordoned { .. }
            | Self::ReadReplica { .. }
            | Self::NotMember { .. }
            | Self::LiveVoter { .. }
            | Self::RemovedId { .. }
            | Self::AddressInUse { .. } => false,
        }
    }
}

impl fmt::Display for Refusal {
    /// What stands in the way; what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what(f)?;
        write!(f, "; {}", self.advice())
    }
}

impl Refusal {
    /// What stands in the way.
    fn what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let human = crate::duration::rounded;
        match self {
            Self::NotLeading => f.write_str("this node does not lead with a fresh lease"),
            Self::Moved { .. } => {
                f.write_str("the membership or the leader has moved since the plan")
            }
            Self::ChangeInFlight => f.write_str("another change of the membership is in flight"),
            Self::JointUnfinished => f.write_str("a joint membership must be finished first"),
            Self::NotJoint => f.write_str("there is no joint membership to finish"),
            Self::Empty => f.write_str("the change names nobody"),
            Self::Twice { server } => write!(f, "the change names {server} twice"),
            Self::WrongRole { server, found, expected } => {
                write!(f, "{server} is {found:?}, expected {expected:?}")
            }
            Self::NoQuorum { live, voters } => {
                write!(f, "only {live} of {voters} voters would answer")
            }
            Self::Margin { before, after } => {
                write!(f, "live voters beyond the quorum would go from {before} to {after}")
            }
            Self::LeaderKeepsVote => {
                f.write_str("the leader keeps its vote until it has handed over")
            }
            Self::MinQuorum { left, floor } => {
                write!(f, "{left} voters would be left, fewer than {floor}")
            }
            Self::NotHealthy { server, verdict } => write!(f, "{server} is {}", verdict.as_str()),
            Self::NotStable { server, healthy_for, needed } => {
                write!(f, "{server} is healthy for {} of {}", human(*healthy_for), human(*needed))
            }
            Self::NotCaughtUp { server, lag } => write!(f, "{server} lacks {lag} entries"),
            Self::Cordoned { server, reason } => write!(f, "{server} is cordoned: {reason}"),
            Self::ReadReplica { server } => write!(f, "{server} is a read replica"),
            Self::Intended { server, kind } => {
                write!(f, "an operator has announced for {server}: {kind}")
            }
            Self::NotMember { server } => write!(f, "{server} is no member of the cluster"),
            Self::NotKnown { server } => write!(f, "nothing is known of {server}'s health"),
            Self::GraceRuns { server, passed, grace } => {
                write!(f, "{server}: {} of a grace of {}", human(*passed), human(*grace))
            }
            Self::TooFewSigns { server, signs } => {
                write!(f, "{signs} of 2 independent signs say that {server} is dead")
            }
            Self::VanishedTogether { vanished, members } => {
                write!(f, "{vanished} of {members} servers vanished together: frozen")
            }
            Self::LiveVoter { server } => write!(f, "{server} is a live voter"),
            Self::RemovedId { server } => {
                write!(f, "{server} was removed once")
            }
            Self::AddressInUse { server, address } => {
                write!(f, "{server} already has the address {address}")
            }
        }
    }
}
