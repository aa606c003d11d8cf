//! What is thought of a cluster at one moment: health, stability and signs of death of every server.

use std::{cmp::Ordering, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    cluster::{
        Feedback, Fence, Leading, LogId, Membership, NodeStatus, Role, Server, ServerId, Status,
        Step,
    },
    config::Config,
    records::{IntentKind, Ledger, Signs, Verdict},
};

/// One reason for a verdict. Several may hold at once; see [`Reasons`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Reason {
    /// This node does not lead, or its lease has run out: it judges nobody.
    NotJudged,
    /// It has not acknowledged anything to this leader yet.
    NoContactYet,
    /// It has acknowledged nothing for longer than `last_contact_threshold`.
    ContactLost,
    /// The leader does not know yet how much of the log it holds.
    NoProgressYet,
    /// It is further behind than `max_trailing_logs` and `max_catch_up_time` allow.
    Trailing,
    /// It lacks entries and gains none.
    Stalled,
    /// It holds the log and does not apply it.
    NotApplying,
    /// It has lost what it had acknowledged: its log is shorter than it was, or its disk tells
    /// another identity. The disk was replaced or rolled back.
    LogShrank,
    /// It does not answer status probes. On its own it makes nobody unhealthy.
    ProbeSilent,
    /// Discovery has lost it.
    DiscoveryFailed,
    /// It has said good-bye.
    DiscoveryLeft,
    /// Discovery does not list it, while it lists most of the others.
    DiscoveryAbsent,
    /// Its id was removed once and must not come back.
    RemovedId,
    /// It was added and has not caught up once. On its own it makes nobody unhealthy.
    Joining,
    /// An operator has announced that it restarts.
    Intended,
    /// It is known to the application, and not a member: nothing can be measured of it.
    NotMember,
}

impl Reason {
    const ALL: [Self; 16] = [
        Self::NotJudged,
        Self::NoContactYet,
        Self::ContactLost,
        Self::NoProgressYet,
        Self::Trailing,
        Self::Stalled,
        Self::NotApplying,
        Self::LogShrank,
        Self::ProbeSilent,
        Self::DiscoveryFailed,
        Self::DiscoveryLeft,
        Self::DiscoveryAbsent,
        Self::RemovedId,
        Self::Joining,
        Self::Intended,
        Self::NotMember,
    ];
    pub(super) const UNHEALTHY: Reasons = Reasons::of(&[
        Self::ContactLost,
        Self::Trailing,
        Self::Stalled,
        Self::NotApplying,
        Self::LogShrank,
        Self::DiscoveryFailed,
        Self::DiscoveryLeft,
        Self::RemovedId,
    ]);
    pub(super) const UNKNOWN: Reasons =
        Reasons::of(&[Self::NotJudged, Self::NoContactYet, Self::NoProgressYet, Self::NotMember]);
    /// What keeps a voter from counting towards a quorum.
    pub(super) const NOT_LIVE: Reasons = Reasons::of(&[
        Self::NotJudged,
        Self::NoContactYet,
        Self::ContactLost,
        Self::NoProgressYet,
        Self::Stalled,
        Self::LogShrank,
        Self::NotMember,
    ]);

    /// In words, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJudged => "not judged: this node does not lead with a fresh lease",
            Self::NoContactYet => "no contact with this leader yet",
            Self::ContactLost => "contact lost",
            Self::NoProgressYet => "log progress not known yet",
            Self::Trailing => "trailing",
            Self::Stalled => "lacks entries and gains none",
            Self::NotApplying => "holds the log and does not apply it",
            Self::LogShrank => {
                "has lost what it had acknowledged: its disk was replaced or rolled back"
            }
            Self::ProbeSilent => "does not answer status probes",
            Self::DiscoveryFailed => "discovery says failed",
            Self::DiscoveryLeft => "discovery says left",
            Self::DiscoveryAbsent => "absent from discovery",
            Self::RemovedId => "this id was removed and must not come back",
            Self::Joining => "joining: has not caught up once",
            Self::Intended => "announced by an operator",
            Self::NotMember => "not a member",
        }
    }
}

/// A set of reasons, in one word of memory.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Reason>", into = "Vec<Reason>")]
pub struct Reasons(u32);

impl Reasons {
    pub(super) const fn of(reasons: &[Reason]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < reasons.len() {
            bits |= 1 << reasons[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether a reason is among them.
    pub fn contains(self, reason: Reason) -> bool {
        self.0 & (1 << reason as u8) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them, in the order of the enum.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }

    pub(super) fn add(&mut self, reason: Reason, holds: bool) {
        self.0 |= u32::from(holds) << reason as u8;
    }

    pub(super) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl From<Vec<Reason>> for Reasons {
    fn from(reasons: Vec<Reason>) -> Self {
        Self::of(&reasons)
    }
}

impl From<Reasons> for Vec<Reason> {
    fn from(reasons: Reasons) -> Self {
        reasons.iter().collect()
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A verdict with its reasons and its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Healthy, unhealthy, or unknown.
    pub verdict: Verdict,
    /// Why; some reasons stand beside a healthy verdict too.
    pub reasons: Reasons,
    /// Since when the verdict stands, on the clock of [`State::at`].
    #[serde(with = "crate::duration")]
    pub since: Duration,
    /// Since when it has been healthy without a break, restarts included as breaks; `None`
    /// unless it is healthy, or unknown for no longer than `last_contact_threshold`.
    #[serde(with = "crate::duration::option")]
    pub healthy_since: Option<Duration>,
}

/// What is thought of one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerState {
    /// Who it is.
    pub server: Arc<Server>,
    /// Its place in the membership.
    pub role: Role,
    /// Its health.
    pub health: Health,
    /// How often it has failed after having been stable, without a quiet day since. See
    /// [`ServerState::stabilization`].
    #[serde(default)]
    pub flaps: u8,
    /// Whether, as a voter, it counts towards a quorum: it acknowledges and advances on fresh
    /// samples. Trailing a little is unhealthy, not dead.
    pub live: bool,
    /// The signs that it is dead.
    pub signs: Signs,
    /// Set for a learner that has not caught up once: the last time that it made progress.
    /// Not set where this leader found it in the membership and no record knows it as joining.
    #[serde(with = "crate::duration::option")]
    pub joining: Option<Duration>,
    /// Age of its last contact; `None`: never with this leader. 0 for the leader itself.
    #[serde(with = "crate::duration::option")]
    pub last_contact: Option<Duration>,
    /// The last entry that the leader knows it to hold.
    pub matched: Option<LogId>,
    /// Entries that it lacks, as far as is known.
    pub lag: u64,
    /// Time to catch up at its measured rate; `None`: it gains nothing. 0 without lag.
    #[serde(with = "crate::duration::option")]
    pub catch_up: Option<Duration>,
    /// What discovery says.
    pub discovery: Option<NodeStatus>,
    /// The latest status answer that is not too old.
    pub status: Option<Status>,
    /// What is remembered for the next round only.
    pub trail: Trail,
}

/// What one round leaves for the next about a server's progress. Not meant for readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trail {
    /// Since when this leader has seen it as it is, without a hole.
    #[serde(with = "crate::duration")]
    pub(super) seen: Duration,
    /// When it last gained an entry, or lacked none.
    #[serde(with = "crate::duration")]
    pub(super) progressed: Duration,
    /// Entries a second while it gains, smoothed.
    pub(super) rate: f64,
    /// When, by its status answers, its state machine last advanced or had nothing to apply.
    #[serde(with = "crate::duration")]
    pub(super) applied: Duration,
    /// The applied index in the latest status answer.
    pub(super) applied_index: u64,
    /// Whether, by that answer, it held entries that it had not applied.
    #[serde(default)]
    pub(super) waits: bool,
    /// Its boot id, once known.
    pub(super) boot: Option<u64>,
    /// The identity of its disk, once known.
    pub(super) disk: Option<u64>,
    /// Its boot id has changed, and it has not been healthy since.
    pub(super) reborn: bool,
    /// For how many seconds discovery had told of its death when discovery itself failed; until it
    /// is back.
    #[serde(default)]
    pub(super) told: u32,
    /// How far a snapshot has come at the most since it last gained an entry: one that begins again is
    /// no progress before it is further than that.
    #[serde(default)]
    pub(super) snapshot: Option<u64>,
    /// Since when the ledger has it healthy, until a probe confirms that it has not restarted.
    #[serde(with = "crate::duration::option")]
    pub(super) carried: Option<Duration>,
}

/// After so long without a failure none is remembered.
const QUIET: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest penalty. Shorter than [`QUIET`] by more than an hour: whoever fails within an hour of
/// being trusted again, again and again, is not forgiven each time.
const LONGEST: Duration = Duration::from_secs(20 * 60 * 60);

/// The stabilization time of a server that has failed so often.
fn stabilization(config: &Config, flaps: u8) -> Duration {
    let base = config.server_stabilization_time;
    let Some(times @ 1..) = flaps.checked_sub(1) else { return base };
    base.saturating_mul(4_u32.saturating_pow(u32::from(times))).min(base.max(LONGEST))
}

/// How often a server has failed that was healthy since `then`: once more when it fails, or has
/// `lost` leadership, after having been stable, unless that was announced; never after a quiet day.
/// One that was not stable could not have gained a vote, so its failing costs nothing.
#[inline]
pub(super) fn flaps(
    config: &Config,
    so_far: u8,
    then: Option<Duration>,
    lost: bool,
    now: &Health,
    at: Duration,
) -> u8 {
    // In most rounds.
    if so_far == 0 && now.verdict != Verdict::Unhealthy && !lost {
        return 0;
    }
    let age = |since: Option<Duration>| since.map(|since| at.saturating_sub(since));
    let was_stable = age(then).is_some_and(|age| age >= stabilization(config, so_far));
    let announced = now.reasons.contains(Reason::Intended);
    let failed = lost || now.verdict == Verdict::Unhealthy;
    match now.verdict {
        Verdict::Healthy | Verdict::Unhealthy | Verdict::Unknown
            if failed && was_stable && !announced =>
        {
            so_far.saturating_add(1)
        }
        Verdict::Healthy if age(now.healthy_since).is_some_and(|age| age >= QUIET) => 0,
        Verdict::Healthy | Verdict::Unhealthy | Verdict::Unknown => so_far,
    }
}

impl ServerState {
    /// For how long it has been healthy without a break.
    pub fn healthy_for(&self, at: Duration) -> Option<Duration> {
        self.health.healthy_since.map(|since| at.saturating_sub(since))
    }

    /// How long it must have been healthy to be stable: `server_stabilization_time`, four times
    /// as much after each failure but the first, up to 20 h. A day without a failure, and all is
    /// forgotten. Losing leadership that nobody handed over is a failure too, however short.
    pub fn stabilization(&self, config: &Config) -> Duration {
        stabilization(config, self.flaps)
    }

    /// Whether it is healthy now and has been for its stabilization time. Equal counts.
    pub fn is_stable(&self, config: &Config, at: Duration) -> bool {
        self.health.verdict == Verdict::Healthy
            && self.healthy_for(at).is_some_and(|age| age >= self.stabilization(config))
    }

    /// Its boot id and the identity of its disk, as far as a probe or the ledger has told them.
    pub(crate) fn identity(&self) -> (Option<u64>, Option<u64>) {
        (self.trail.boot, self.trail.disk)
    }

    /// The tag `key` of the application, if it is set and not empty.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.server.meta.get(key).map(String::as_str).filter(|tag| !tag.is_empty())
    }
}

/// What is thought of the cluster after one observation. A value: it holds no clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "verdicts that readers ask for one by one")]
pub struct State {
    /// When it was observed: monotonic, since the driver started.
    #[serde(with = "crate::duration")]
    pub at: Duration,
    /// This node.
    pub local: ServerId,
    /// Whoever leads, as far as this node knows.
    pub leader: Option<ServerId>,
    /// Set while this node leads.
    pub leading: Option<Leading>,
    /// The latest round that judged, or the first of this leadership: until then the cluster was
    /// observed.
    #[serde(with = "crate::duration")]
    pub(super) observed: Duration,
    /// Whether a round of this leadership has judged: until then what is recorded may still be on
    /// its way to this node.
    #[serde(default = "yes")]
    pub(super) judged: bool,
    /// The time before this round that nobody observed, because this node had no lease or there
    /// was no round. No grace and no history counts it. 0: the rounds follow each other.
    #[serde(with = "crate::duration")]
    pub lapse: Duration,
    /// The membership in effect.
    pub membership: Membership,
    /// The end of the leader's log.
    pub last_log: LogId,
    /// Every member, and every other server that the application knows, sorted by id.
    pub servers: Vec<ServerState>,
    /// Whether every member is healthy. An empty cluster is not.
    pub healthy: bool,
    /// Whether every voter is healthy, and there is one.
    pub voters_healthy: bool,
    /// Whether live voters make a quorum, in both halves of a joint membership.
    pub quorum: bool,
    /// How many voters may fail and leave a healthy quorum: healthy voters less the quorum; of a
    /// joint membership, the smaller number of its halves.
    pub failure_tolerance: usize,
    /// Age of the last answer of discovery; `None`: there is no discovery.
    #[serde(default, with = "crate::duration::option")]
    pub discovery: Option<Duration>,
    /// Discovery answers, and lists too few of the members to be believed: a member missing
    /// from it is then no sign of anything.
    pub discovery_shrunken: bool,
    /// The records, where the host or this leader keeps them.
    pub ledger: Option<Arc<Ledger>>,
    /// The reading at `at` of the clock that the ledger was applied with.
    #[serde(with = "crate::duration")]
    pub ledger_at: Duration,
    /// What the driver knows of its own doing.
    pub feedback: Option<Arc<Feedback>>,
}

/// For a case that does not say.
fn yes() -> bool {
    true
}

impl State {
    /// The server with this id.
    pub fn server(&self, id: &ServerId) -> Option<&ServerState> {
        // Of a few, looking at each is quicker.
        if self.servers.len() <= 16 {
            return self.servers.iter().find(|server| server.server.id == *id);
        }
        let found = self.servers.binary_search_by(|server| server.server.id.cmp(id)).ok()?;
        self.servers.get(found)
    }

    /// Everybody in the membership.
    pub fn members(&self) -> impl Iterator<Item = &ServerState> {
        self.servers.iter().filter(|server| server.role != Role::Absent)
    }

    /// Everybody who votes, in any half of the membership.
    pub fn voters(&self) -> impl Iterator<Item = &ServerState> {
        self.servers.iter().filter(|server| server.role.votes())
    }

    /// The number of voters of the membership, of its new half where it is joint.
    pub fn num_voters(&self) -> usize {
        let votes = |server: &&ServerState| matches!(server.role, Role::Voter | Role::Incoming);
        self.servers.iter().filter(votes).count()
    }

    /// What is unsafe about the membership itself, whatever the promoter, in words.
    pub fn warnings(&self) -> impl Iterator<Item = &'static str> {
        let pair = self.num_voters() == 2;
        let words = "two voters: the loss of either stops the cluster; add a third, or a witness";
        pair.then_some(words).into_iter()
    }

    /// Whether a server is the leader.
    pub fn is_leader(&self, id: &ServerId) -> bool {
        self.leader.as_ref() == Some(id)
    }

    /// Whether this node leads and its lease is fresh.
    pub fn may_act(&self) -> bool {
        self.leading.is_some_and(|leading| leading.lease)
    }

    /// What a change planned now is bound to; `None` while this node does not lead.
    pub fn fence(&self) -> Option<Fence> {
        let leading = self.leading?;
        Some(Fence {
            term: leading.term,
            leader: self.local.clone(),
            membership: self.membership.log_id,
        })
    }

    /// The reason of the cordon on a server, if one is in force.
    pub fn cordoned(&self, id: &ServerId) -> Option<&str> {
        self.ledger.as_ref().and_then(|ledger| ledger.cordoned(id, self.ledger_at))
    }

    /// What is announced about a server.
    pub fn intended(&self, id: &ServerId) -> Option<IntentKind> {
        self.ledger.as_ref().and_then(|ledger| ledger.intended(id, self.ledger_at))
    }

    /// Whether a transfer of leadership to a server has failed lately, and is not tried again yet.
    pub fn refused_leadership(&self, id: &ServerId) -> bool {
        let retries = self.feedback.as_ref().map_or(&[][..], |feedback| &feedback.retries);
        retries.iter().any(|retry| {
            retry.until > self.at && matches!(&retry.step, Step::Transfer { to } if to == id)
        })
    }

    /// Whether an id was removed and must not come back: it is recorded, or will be, because
    /// the ledger still knows a member that is none any more.
    pub fn removed(&self, id: &ServerId) -> bool {
        let Some(ledger) = &self.ledger else { return false };
        let is_member = || self.server(id).is_some_and(|server| server.role != Role::Absent);
        ledger.removed.contains(id) || (!is_member() && ledger.servers.contains_key(id))
    }

    /// The same of a member.
    pub(crate) fn removed_member(&self, member: &ServerState) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.removed.contains(&member.server.id))
    }

    /// Who is better, best first: the leader; voters; the healthy; among the healthy whoever
    /// has been so for longer, among the others whoever has been sick for less; the smaller id.
    pub fn order(&self, a: &ServerState, b: &ServerState) -> Ordering {
        let rank = |s: &ServerState| {
            let healthy = s.health.verdict == Verdict::Healthy;
            let since = s.health.since;
            let age = if healthy { since } else { self.at.saturating_sub(since) };
            (!self.is_leader(&s.server.id), !s.role.votes(), !healthy, age)
        };
        rank(a).cmp(&rank(b)).then_with(|| a.server.id.cmp(&b.server.id))
    }

    /// The ids of all voters, best first.
    pub fn sorted_voters(&self) -> Vec<ServerId> {
        let mut voters: Vec<&ServerState> = self.voters().collect();
        voters.sort_by(|a, b| self.order(a, b));
        voters.into_iter().map(|voter| voter.server.id.clone()).collect()
    }
}
