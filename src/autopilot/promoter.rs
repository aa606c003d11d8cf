//! What an application would like: the `Promoter` names wishes, and is never trusted with more.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    cluster::ServerId,
    config::Config,
    policy::Policy,
    state::{ServerState, State},
};

/// The role that a promoter has in mind for a server. An open word; the known ones are constants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeType(Cow<'static, str>);

impl NodeType {
    /// May vote.
    pub const VOTER: Self = Self(Cow::Borrowed("voter"));
    /// Never votes.
    pub const READ_REPLICA: Self = Self(Cow::Borrowed("read-replica"));
    /// The wanted voter of its zone.
    pub const ZONE_VOTER: Self = Self(Cow::Borrowed("zone-voter"));
    /// In reserve for the voter of its zone.
    pub const ZONE_STANDBY: Self = Self(Cow::Borrowed("zone-standby"));
    /// Votes in place of a zone that is lost.
    pub const ZONE_EXTRA_VOTER: Self = Self(Cow::Borrowed("zone-extra-voter"));

    /// A type of the application's own.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a promoter would like to happen. An empty one is content.
///
/// Every wish is judged before anything is done; what cannot be done is held, with the reason.
/// Wishes that are fulfilled already, or name servers that nobody knows, are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Learners that should vote, the most wanted first.
    pub promote: Vec<ServerId>,
    /// Voters that should not, the least wanted first.
    pub demote: Vec<ServerId>,
    /// Whoever should lead; `None`: whoever does.
    pub leader: Option<ServerId>,
}

/// Dead servers that autopilot means to remove, once their grace has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removals {
    /// Members without a vote that discovery does not list.
    pub stale_learners: Vec<ServerId>,
    /// Voters that discovery does not list.
    pub stale_voters: Vec<ServerId>,
    /// Members without a vote that failed or left.
    pub failed_learners: Vec<ServerId>,
    /// Voters that failed or left.
    pub failed_voters: Vec<ServerId>,
}

impl Removals {
    /// All of them: those without a vote first.
    pub fn iter(&self) -> impl Iterator<Item = &ServerId> {
        let learners = self.stale_learners.iter().chain(&self.failed_learners);
        learners.chain(&self.stale_voters).chain(&self.failed_voters)
    }

    /// The lists, in the same order.
    pub(super) fn lists(self) -> [Vec<ServerId>; 4] {
        [self.stale_learners, self.failed_learners, self.stale_voters, self.failed_voters]
    }
}

/// What a promoter says of one server beside its type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerExt {
    /// Its redundancy zone.
    pub redundancy_zone: Option<String>,
    /// The version to migrate by.
    pub upgrade_version: Option<String>,
    /// Whatever a promoter of the application's own has to say.
    pub other: BTreeMap<String, String>,
}

/// What a promoter says of one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its servers.
    pub servers: Vec<ServerId>,
    /// Those of them that vote.
    pub voters: Vec<ServerId>,
    /// How many of its servers may fail before the zone is lost.
    pub failure_tolerance: usize,
}

/// How far a migration to another version is. The words are those on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeStatus {
    /// Switched off by `disable_upgrade_migration`.
    Disabled,
    /// Every server runs one version, or nobody says which.
    #[default]
    Idle,
    /// Too few servers on the target version to take the votes over; they do not vote yet. Also
    /// while the votes return to the old version because the new servers have failed.
    AwaitNewVoters,
    /// Servers on the target version are given votes.
    Promoting,
    /// Servers on other versions lose their votes.
    Demoting,
    /// Leadership moves to a voter on the target version.
    LeaderTransfer,
    /// Leadership has moved, and fewer servers run the target version than others.
    AwaitNewServers,
    /// Done: the servers on other versions may be removed.
    AwaitServerRemoval,
}

impl UpgradeStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Idle => "idle",
            Self::AwaitNewVoters => "await-new-voters",
            Self::Promoting => "promoting",
            Self::Demoting => "demoting",
            Self::LeaderTransfer => "leader-transfer",
            Self::AwaitNewServers => "await-new-servers",
            Self::AwaitServerRemoval => "await-server-removal",
        }
    }
}

/// Servers of one zone, or of all, split by version and vote. Read replicas are in none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Voters on the target version.
    pub target_version_voters: Vec<ServerId>,
    /// Servers on the target version that do not vote.
    pub target_version_non_voters: Vec<ServerId>,
    /// Voters on any other version, or on one that is not known.
    pub other_version_voters: Vec<ServerId>,
    /// Servers on any other version, or on one that is not known, that do not vote.
    pub other_version_non_voters: Vec<ServerId>,
}

/// What a promoter says of a migration to another version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeInfo {
    /// How far it is.
    pub status: UpgradeStatus,
    /// The version that it leads to, as the servers spell it; `None`: disabled, or none is known.
    pub target_version: Option<String>,
    /// Voters and other servers by version.
    pub versions: Versions,
    /// Read replicas on the target version.
    pub target_version_read_replicas: Vec<ServerId>,
    /// Read replicas on any other version.
    pub other_version_read_replicas: Vec<ServerId>,
    /// The same by zone, where servers have zones.
    pub redundancy_zones: BTreeMap<String, Versions>,
    /// What it waits for, in words; `None`: for nothing.
    pub waits: Option<String>,
}

/// What a promoter says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateExt {
    /// How many servers may fail one after another, with promotions in between.
    pub optimistic_failure_tolerance: Option<usize>,
    /// The zones by name.
    pub redundancy_zones: BTreeMap<String, Zone>,
    /// The migration to another version, where a promoter conducts one.
    pub upgrade: Option<UpgradeInfo>,
    /// What the promoter would not do because it is unsafe, or warns of, in words.
    pub warnings: Vec<String>,
    /// Whatever a promoter of the application's own has to say.
    pub other: BTreeMap<String, String>,
}

/// The policy of who votes and who leads. Pure, synchronous, and free to be wrong. While one panics it
/// wishes nothing and keeps all the dead, and readers are warned; what people order is done all the same.
/// That needs panics that unwind: in a program built with `panic = "abort"` the first one ends it.
///
/// The smallest useful promoter is one method. It reads the configuration and the state, where
/// time is too ([`State::at`]), and returns [`Wishes`].
///
/// ```
/// use raft_autopilot::autopilot::{Config, Promoter, Role, State, Wishes};
///
/// /// Everybody who has been stable for long enough votes.
/// #[derive(Debug)]
/// struct Everybody;
///
/// impl Promoter for Everybody {
///     fn wishes(&self, config: &Config, state: &State) -> Wishes {
///         let ready = |s: &&_| state_is_ready(config, state, s);
///         let promote = state.members().filter(ready).map(|s| s.server.id.clone()).collect();
///         Wishes { promote, ..Wishes::default() }
///     }
/// }
///
/// fn state_is_ready(config: &Config, state: &State, s: &raft_autopilot::autopilot::ServerState) -> bool {
///     s.role == Role::Learner && s.is_stable(config, state.at)
/// }
/// ```
pub trait Promoter: fmt::Debug + Send + Sync + 'static {
    /// What should change now. Called once a round; must not block.
    fn wishes(&self, config: &Config, state: &State) -> Wishes;

    /// The role meant for a server. Default: a voter, unless it is a read replica.
    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        let _ = (config, state);
        if server.server.read_replica { NodeType::READ_REPLICA } else { NodeType::VOTER }
    }

    /// Whether servers of a type may vote some day. Default: all but read replicas.
    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        *node_type != NodeType::READ_REPLICA
    }

    /// Which of the dead servers stay although their grace has passed; nobody else is removed for
    /// not being named. Default: none of them.
    fn keeps(&self, config: &Config, state: &State, dead: &Removals) -> Vec<ServerId> {
        let _ = (config, state, dead);
        Vec::new()
    }

    /// What to show beside a server. Default: nothing.
    fn server_ext(&self, config: &Config, state: &State, server: &ServerState) -> ServerExt {
        let _ = (config, state, server);
        ServerExt::default()
    }

    /// What to show beside the cluster. Default: nothing.
    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        let _ = (config, state);
        StateExt::default()
    }

    /// When time alone may change its wishes, on the clock of [`State::at`]; a moment that has
    /// passed says nothing. It need not name those known of every promoter: stability, graces,
    /// retries, and the ends of cordons, intents and orders. Default: none.
    fn wake(&self, config: &Config, state: &State) -> Option<Duration> {
        let _ = (config, state);
        None
    }

    /// What it is, as data, so that a moment can be replayed elsewhere. Default: nothing that is
    /// known elsewhere; the ready-made ones say what they are.
    fn policy(&self) -> Option<Policy> {
        None
    }
}
