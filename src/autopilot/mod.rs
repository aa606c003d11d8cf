//! Who votes: observe the cluster, assess it, plan changes, judge each of them, apply one.

mod assess;
mod cluster;
mod config;
mod desk;
mod driver;
mod explain;
mod foresee;
mod guard;
mod handle;
mod history;
mod lapse;
mod options;
mod orders;
mod plan;
mod policy;
mod promoter;
mod records;
mod refusal;
mod report;
mod requests;
mod retries;
mod safety;
mod server;
mod signs;
mod state;
mod version;
mod wake;
mod why;

pub use cluster::{
    Applied, Change, Cluster, ClusterError, Dismissal, Feedback, Fence, Leading, LogId, Membership,
    NodeStatus, Observation, Origin, Probe, Retry, Role, Server, ServerId, Sighting, Status, Step,
};
pub use config::{Config, ConfigError};
pub use driver::Autopilot;
pub use explain::{Answer, Code, Explanation, Next, explain};
#[cfg(feature = "http")]
pub(crate) use guard::Guard;
pub use guard::PromoterPanic;
#[cfg(any(feature = "placement", feature = "testing"))]
pub(crate) use guard::said;
pub use handle::{Handle, Running, VerbError, View};
pub use history::{Decision, Fate, History};
pub use options::Options;
pub use plan::{Plan, plan};
pub use policy::{Liking, Policy};
pub use promoter::{
    NodeType, Promoter, Removals, ServerExt, StateExt, UpgradeInfo, UpgradeStatus, Versions,
    Wishes, Zone,
};
pub use records::{
    Cordon, Intent, IntentKind, Ledger, Operation, Outcome, Record, Report, ServerRecord, Sign,
    Signs, StandingSign, StoredConfig, Task, Verdict,
};
pub use refusal::Refusal;
pub(crate) use report::outstanding;
pub(crate) use retries::Retries;
pub use safety::check;
pub use state::{Health, Reason, Reasons, ServerState, State, Trail};
pub(crate) use version::parse_version;
pub use why::{Held, Why};
