//! What the application decides about the router: the token, who may read, where leaders are found.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde_json::Value;

use crate::autopilot::{Server, ServerId};

/// Who may read health, state and configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reads {
    /// Peers on loopback without a token, everybody else with it. Where the application does not
    /// provide `ConnectInfo<SocketAddr>`, or a proxy stands between, nobody counts as on loopback.
    #[default]
    OpenOnLoopback,
    /// Everybody: the application guards the router itself.
    Open,
    /// Only with the token; without one set, nobody.
    Token,
}

/// Where a server answers HTTP.
pub(super) type FindAddress = dyn Fn(&Server) -> Option<String> + Send + Sync;

/// The work of a cluster, to be shown beside its votes: of the whole, and by server. `None`: it is not
/// known yet.
pub type Work = Option<(Value, BTreeMap<ServerId, Value>)>;

/// Tells the work, given the servers that autopilot knows.
pub(super) type TellWork = dyn Fn(&[&Server]) -> Work + Send + Sync;

/// How the router behaves on this node.
///
/// ```
/// use raft_autopilot::http::Settings;
///
/// let settings = Settings::new()
///     .with_token("a long secret")
///     .with_leader_address(|leader| leader.meta.get("http").cloned());
/// # let _ = settings;
/// ```
#[derive(Clone)]
pub struct Settings {
    pub(super) token: Option<Arc<str>>,
    pub(super) reads: Reads,
    pub(super) leader_address: Arc<FindAddress>,
    pub(super) max_age: Duration,
    pub(super) work: Option<Arc<TellWork>>,
}

impl Settings {
    /// No token, so nobody writes; reading open on loopback; leaders without address.
    pub fn new() -> Self {
        Self {
            token: None,
            reads: Reads::default(),
            leader_address: Arc::new(|_| None),
            max_age: Duration::from_secs(10),
            work: None,
        }
    }

    /// The secret that lets write, and read from afar. Default none; an empty one is none.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<Arc<str>>) -> Self {
        self.token = Some(token.into()).filter(|token| !token.is_empty());
        self
    }

    /// Who may read. Default [`Reads::OpenOnLoopback`].
    #[must_use]
    pub fn with_reads(mut self, reads: Reads) -> Self {
        self.reads = reads;
        self
    }

    /// Where a server answers HTTP, for example `10.0.0.2:7302`; `None`: not known. Called with
    /// the leader when another node must answer. Of a leader outside the membership only the id
    /// is known. Default: never known.
    #[must_use]
    pub fn with_leader_address(
        mut self,
        find: impl Fn(&Server) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.leader_address = Arc::new(find);
        self
    }

    /// What the servers work on, to be shown beside each of them and beside the whole, as `Work` in
    /// `/state`; for instance what placement tells. It is asked whenever somebody reads, on a thread
    /// where it may take its time, for one reader after the other. Where it takes more than 5 s (ours), or
    /// panics, the work is left out and `Warnings` says so. Default: nothing.
    #[must_use]
    pub fn with_work(mut self, tell: impl Fn(&[&Server]) -> Work + Send + Sync + 'static) -> Self {
        self.work = Some(Arc::new(tell));
        self
    }

    /// A leader whose last round is longer ago does not answer for the cluster any more: its
    /// driver hangs. Default 10 s (ours: five rounds at the default). Never less than
    /// [`Handle::good_for`](crate::autopilot::Handle::good_for), which grows with the update interval.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("token", &self.token.as_ref().map(|_| "secret"))
            .field("reads", &self.reads)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}
