//! What can be seen of a cluster (`Observation`) and done to it (`Change`), and the port between (`Cluster`).

use std::{fmt, future::Future, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::records::{Ledger, Outcome, Record};
pub use super::server::{LogId, NodeStatus, Role, Server, ServerId};

/// One answer to a status probe, sent on a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How long ago the server was asked.
    #[serde(with = "crate::duration")]
    pub age: Duration,
    /// A number drawn anew at every start of the server's process.
    pub boot: u64,
    /// A number drawn when its log storage was created, and kept there; `None`: it tells none.
    /// Another one under the same id is another disk: what was acknowledged and voted for is
    /// forgotten, however quickly the log has been filled again.
    pub disk: Option<u64>,
    /// The index of the last entry in its log, purged ones included.
    pub last_log: u64,
    /// What the leader knew it to hold when it was asked. A log that ends before that has lost
    /// entries.
    pub acknowledged: u64,
    /// The index of the last entry that its state machine applied.
    pub applied: u64,
    /// While it installs a snapshot: how far it is, in any unit that only grows.
    pub snapshot: Option<u64>,
}

/// What the status probe knows of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Nobody probes this server.
    #[default]
    Off,
    /// The latest answer.
    Answered(Status),
    /// No answer for this long, although it was asked.
    Silent(#[serde(with = "crate::duration")] Duration),
}

/// What one round sees of one server: who it is, and three signals, each of which may be missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// Who it is.
    pub server: Arc<Server>,
    /// Its place in the membership.
    pub role: Role,
    /// Signal one, contact: the age of the last request that it acknowledged to this leader;
    /// `None`: never in this leader's time. Ignored for the leader itself.
    #[serde(default, with = "crate::duration::option")]
    pub contact: Option<Duration>,
    /// Signal two, log progress: the last entry that this leader knows it to hold.
    pub matched: Option<LogId>,
    /// Signal three: a status probe on a connection of its own.
    #[serde(default)]
    pub probe: Probe,
    /// What discovery says; `None`: nothing, or there is no discovery.
    pub discovery: Option<NodeStatus>,
}

/// The membership, without its servers: each of them carries its own [`Role`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The log entry that holds it; the fence of every change.
    pub log_id: LogId,
    /// Whether that entry is committed. While it is not, a change is in flight.
    pub committed: bool,
    /// Whether it is joint: two sets of voters, and both must agree.
    #[serde(default)]
    pub joint: bool,
}

/// What makes this node the one that acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leading {
    /// The term it leads in.
    pub term: u64,
    /// When its leadership began, on the clock of [`Observation::at`].
    #[serde(with = "crate::duration")]
    pub since: Duration,
    /// For how long nobody was seen leading before.
    #[serde(default, with = "crate::duration")]
    pub gap: Duration,
    /// Whether a quorum has acknowledged it recently enough that no other leader can exist, and
    /// [`Observation::ledger`] has all that was recorded before this leadership. The only voter
    /// waits for nobody else.
    pub lease: bool,
}

/// Everything that one round knows, read once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was read: monotonic, since the driver started.
    #[serde(with = "crate::duration")]
    pub at: Duration,
    /// This node.
    pub local: ServerId,
    /// Whoever leads, as far as this node knows.
    pub leader: Option<ServerId>,
    /// Set while this node leads.
    pub leading: Option<Leading>,
    /// The membership in effect, committed or not.
    pub membership: Membership,
    /// The end of this node's log.
    pub last_log: LogId,
    /// Age of the last answer of discovery; `None`: there is no discovery.
    #[serde(default, with = "crate::duration::option")]
    pub discovery: Option<Duration>,
    /// The members, and servers known to the application besides, which are shown and never
    /// added without an order; the adapter for openraft yields members only. Sorted by id without
    /// duplicates; where they are not, the core sorts them and keeps the first of each id.
    pub servers: Vec<Sighting>,
    /// What was recorded in the host's own log; `None`: the host keeps no records.
    pub ledger: Option<Arc<Ledger>>,
    /// The reading at `at` of the clock that `ledger` was applied with.
    #[serde(default, with = "crate::duration")]
    pub ledger_at: Duration,
    /// How long from one round to the next is, at most, as the driver has promised; set by the
    /// driver. 0: nothing is promised. More than twice as long is time that nobody observed.
    #[serde(default, with = "crate::duration")]
    pub pace: Duration,
    /// What the driver knows of its own doing; `None`: nothing worth telling.
    pub feedback: Option<Arc<Feedback>>,
}

/// What a change was planned from. If any of it has moved, the change is not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The term of the leader that planned it.
    pub term: u64,
    /// That leader.
    pub leader: ServerId,
    /// The log id of the membership that it was planned from.
    pub membership: LogId,
}

/// One atomic step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Finish the joint membership that stands, keeping demoted voters as learners.
    FinishJoint,
    /// Move votes, all of them in one joint change.
    Votes {
        /// Learners that become voters.
        promote: Vec<ServerId>,
        /// Voters that become learners.
        demote: Vec<ServerId>,
    },
    /// Take servers out of the membership; voters among them lose their vote with it.
    Remove {
        /// Who leaves.
        servers: Vec<ServerId>,
        /// Learners that take the freed votes in the same joint change.
        promote: Vec<ServerId>,
        /// A server that is added as a learner in the same change.
        add: Option<Arc<Server>>,
    },
    /// Add a server as a learner.
    Add(Arc<Server>),
    /// Change the address of a server that has proven its id there.
    Readdress {
        /// Who moved.
        server: ServerId,
        /// Where it is now.
        address: String,
    },
    /// Hand leadership over.
    Transfer {
        /// To whom.
        to: ServerId,
    },
}

impl Step {
    /// One word for logs, metrics and back-off.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FinishJoint => "finish-joint",
            Self::Votes { .. } => "votes",
            Self::Remove { .. } => "remove",
            Self::Add(_) => "add",
            Self::Readdress { .. } => "readdress",
            Self::Transfer { .. } => "transfer",
        }
    }

    /// The servers that the step touches, in the order of the step.
    pub fn servers(&self) -> impl Iterator<Item = &ServerId> {
        let (a, b, one): (&[ServerId], &[ServerId], Option<&ServerId>) = match self {
            Self::FinishJoint => (&[], &[], None),
            Self::Votes { promote, demote } => (promote, demote, None),
            Self::Remove { servers, promote, add } => {
                (servers, promote, add.as_ref().map(|server| &server.id))
            }
            Self::Add(server) => (&[], &[], Some(&server.id)),
            Self::Readdress { server, .. } => (&[], &[], Some(server)),
            Self::Transfer { to } => (&[], &[], Some(to)),
        };
        a.iter().chain(b).chain(one)
    }
}

/// A list of ids for people: `a, b`.
struct List<'a>(&'a [ServerId]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, id) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{id}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FinishJoint => f.write_str("finish the joint membership"),
            Self::Votes { promote, demote } if demote.is_empty() => {
                write!(f, "promote {}", List(promote))
            }
            Self::Votes { promote, demote } if promote.is_empty() => {
                write!(f, "demote {}", List(demote))
            }
            Self::Votes { promote, demote } => {
                write!(f, "promote {} and demote {}", List(promote), List(demote))
            }
            Self::Remove { servers, promote, add } => {
                write!(f, "remove {}", List(servers))?;
                if !promote.is_empty() {
                    write!(f, " and promote {}", List(promote))?;
                }
                match add {
                    Some(server) => write!(f, " and add {} at {}", server.id, server.address),
                    None => Ok(()),
                }
            }
            Self::Add(server) => write!(f, "add {} at {}", server.id, server.address),
            Self::Readdress { server, address } => write!(f, "move {server} to {address}"),
            Self::Transfer { to } => write!(f, "transfer leadership to {to}"),
        }
    }
}

/// Who wants a step, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A joint membership was left behind and must be finished.
    Unfinished,
    /// The promoter wishes it.
    Promoter,
    /// A dead server is cleaned up.
    Cleanup,
    /// The leader is cordoned or has stated an intent, and hands over.
    Drain,
    /// A person ordered it.
    Operator {
        /// The operation that it is a step of.
        operation: u64,
        /// The reason given for waiving rules; `None`: none is waived.
        force: Option<String>,
    },
}

impl Origin {
    /// Whether a person ordered it.
    pub fn is_operator(&self) -> bool {
        matches!(self, Self::Operator { .. })
    }

    /// Whether a person ordered it with force.
    pub fn is_forced(&self) -> bool {
        matches!(self, Self::Operator { force: Some(_), .. })
    }
}

/// A step with what it was planned from and who wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What is done.
    pub step: Step,
    /// What it was planned from.
    pub fence: Fence,
    /// Who wants it.
    pub origin: Origin,
}

/// A step that failed and waits before it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The step.
    pub step: Step,
    /// How often it has failed in a row.
    pub failures: u32,
    /// When it may be tried again, on the clock of [`Observation::at`].
    #[serde(with = "crate::duration")]
    pub until: Duration,
    /// What the host said last.
    pub error: String,
}

/// What the driver knows of its own doing; it sets it before a round is assessed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// The step whose outcome is awaited.
    pub in_flight: Option<Step>,
    /// Steps that failed, and those that were just done and are not repeated at once.
    pub retries: Vec<Retry>,
    /// When a transfer of leadership last failed on this node, on the clock of
    /// [`Observation::at`]; forgotten once one has succeeded, and after a day.
    #[serde(default, with = "crate::duration::option")]
    pub transfer_failed: Option<Duration>,
    /// Autopilot only looks on: it plans and changes nothing.
    pub observer: bool,
}

/// Why the host did not do, or may not have done, what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError<E> {
    /// The membership, the term or the leader has moved since the plan. Nothing was changed;
    /// the next round plans anew.
    #[error(
        "the membership or the leader has moved since the plan; nothing was changed: plan anew ({0})"
    )]
    Moved(String),
    /// The host refused. Nothing was changed; the step is tried again after a pause.
    #[error("the host refused; nothing was changed: wait, it is tried again after a pause ({0})")]
    Refused(#[source] E),
    /// The outcome is not known: the change may be in effect, or half of it as a joint
    /// membership. The next round looks, and finishes it first.
    #[error(
        "the outcome is unknown, and the change may be in effect, wholly or half; look at the \
         membership before you repeat it ({0})"
    )]
    Unknown(#[source] E),
}

/// What came of telling a server that it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dismissal {
    /// It has heard, and stops.
    Heard,
    /// It did not answer in time, and is told again for about a minute.
    NoAnswer,
    /// The host has no way to tell it: whoever runs that server stops it.
    NotOffered,
}

/// What came of an applied change.
pub type Applied<E> = Result<(), ClusterError<E>>;

/// The host's Raft: what autopilot needs to see and to do. Implemented by adapters.
///
/// Every method may be slow or hang; the driver bounds each with a deadline of its own and
/// keeps no lock across a call.
pub trait Cluster: Send + Sync + 'static {
    /// What the host's failures are.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads everything once, without asking other servers. `at` is the driver's clock now and
    /// comes back as [`Observation::at`].
    fn observe(&self, at: Duration) -> impl Future<Output = Observation> + Send;

    /// Completes when leadership or membership has changed since the last `observe`. May
    /// complete too often; must not complete at every heartbeat.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// Applies one change if its fence still holds. Runs in a task that is never cancelled.
    ///
    /// # Errors
    /// See [`ClusterError`]: each variant says what was left behind.
    fn apply(&self, change: Change) -> impl Future<Output = Applied<Self::Error>> + Send;

    /// Writes a record into the host's log, fenced by its leadership, and returns what the
    /// ledger answered. Called only where [`Observation::ledger`] is set. Dropped when its time,
    /// that of a step, is over: it counts as unknown then, and may still be written.
    ///
    /// # Errors
    /// The host did not take it (nothing was recorded), or the outcome is unknown.
    fn record(
        &self,
        record: Record,
    ) -> impl Future<Output = Result<Outcome, ClusterError<Self::Error>>> + Send;

    /// Asks whoever listens at `address` for its id. `None`: nobody answers there, or the host
    /// cannot ask; an address is then never changed.
    fn identify(&self, address: &str) -> impl Future<Output = Option<ServerId>> + Send {
        let _ = address;
        std::future::ready(None)
    }

    /// Tells a server that it was removed, so that it stops. Default: nobody can tell it.
    fn dismiss(&self, server: Arc<Server>) -> impl Future<Output = Dismissal> + Send {
        let _ = server;
        std::future::ready(Dismissal::NotOffered)
    }
}
