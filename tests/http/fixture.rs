//! A cluster that is a value in memory, a real autopilot over it, and its router.

use std::{
    convert::Infallible,
    future::{Future, pending, ready},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode, header::HeaderMap},
};
use http_body_util::BodyExt;
use raft_autopilot::{
    autopilot::{
        Applied, Autopilot, Change, Cluster, ClusterError, Handle, Leading, Ledger, LogId,
        Membership, NodeStatus, Observation, Options, Outcome, Probe, Promoter, Record, Role,
        Server, ServerId, Sighting, Status,
    },
    http::{Settings, router},
    promoters::Stable,
    runtime::TokioRuntime,
};
use serde_json::Value;
use tokio::{sync::Notify, task::JoinHandle};
use tower::ServiceExt;

pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);
pub(crate) const TOKEN: &str = "open sesame";
pub(crate) const BASE: &str = "/v1/operator/autopilot";

/// The cluster: one observation that tests edit; records go into its ledger.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) seen: Arc<Mutex<Observation>>,
    moved: Arc<Notify>,
    index: Arc<Mutex<u64>>,
    /// While set, no observation completes.
    pub(crate) hangs: Arc<Mutex<bool>>,
}

impl Cluster for Memory {
    type Error = Infallible;

    async fn observe(&self, at: Duration) -> Observation {
        if *self.hangs.lock().unwrap() {
            pending::<()>().await;
        }
        Observation { at, ledger_at: at, ..self.seen.lock().unwrap().clone() }
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        let moved = Arc::clone(&self.moved);
        async move { moved.notified().await }
    }

    fn apply(&self, _change: Change) -> impl Future<Output = Applied<Self::Error>> + Send {
        ready(Err(ClusterError::Moved("nothing moves here".to_owned())))
    }

    fn record(
        &self,
        record: Record,
    ) -> impl Future<Output = Result<Outcome, ClusterError<Self::Error>>> + Send {
        let mut index = self.index.lock().unwrap();
        *index += 1;
        let mut seen = self.seen.lock().unwrap();
        let ledger = Arc::make_mut(seen.ledger.get_or_insert_default());
        ready(Ok(ledger.apply(*index, Duration::ZERO, record)))
    }
}

pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) handle: Handle,
    pub(crate) app: Router,
    pub(crate) driver: JoinHandle<()>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Three voters and a learner, all healthy, probed and discovered; `a` leads and is this node.
pub(crate) fn healthy() -> Observation {
    let last_log = LogId { term: 3, index: 1024 };
    let status = Status {
        age: Duration::from_millis(100),
        boot: 1,
        disk: Some(1),
        last_log: 1024,
        acknowledged: 1024,
        applied: 1024,
        snapshot: None,
    };
    let sighting = |id: &str, role| Sighting {
        server: Arc::new(Server {
            name: format!("node-{id}"),
            version: "1.2.3".to_owned(),
            meta: [("http".to_owned(), format!("{id}.example:8500"))].into(),
            ..Server::new(id, format!("{id}.example:8300"))
        }),
        role,
        contact: Some(Duration::from_millis(10)),
        matched: Some(last_log),
        probe: Probe::Answered(status),
        discovery: Some(NodeStatus::Alive),
    };
    Observation {
        at: Duration::ZERO,
        local: "a".into(),
        leader: Some("a".into()),
        leading: Some(Leading { term: 3, since: Duration::ZERO, gap: Duration::ZERO, lease: true }),
        membership: Membership {
            log_id: LogId { term: 3, index: 4 },
            committed: true,
            joint: false,
        },
        last_log,
        discovery: Some(Duration::ZERO),
        servers: vec![
            sighting("a", Role::Voter),
            sighting("b", Role::Voter),
            sighting("c", Role::Voter),
            sighting("d", Role::Learner),
        ],
        ledger: Some(Arc::new(Ledger::default())),
        ledger_at: Duration::ZERO,
        pace: Duration::from_secs(3),
        feedback: None,
    }
}

/// `a` follows `b`.
pub(crate) fn following() -> Observation {
    Observation { leader: Some("b".into()), leading: None, ..healthy() }
}

/// A token, and every server's HTTP address in its `meta`.
pub(crate) fn settings() -> Settings {
    Settings::new().with_token(TOKEN).with_leader_address(|leader| leader.meta.get("http").cloned())
}

impl World {
    pub(crate) async fn new(seen: Observation) -> Self {
        Self::with(seen, settings()).await
    }

    pub(crate) async fn with(seen: Observation, settings: Settings) -> Self {
        Self::led_by(Stable::new(), seen, settings).await
    }

    pub(crate) async fn led_by(
        promoter: impl Promoter,
        seen: Observation,
        settings: Settings,
    ) -> Self {
        let memory = Memory {
            seen: Arc::new(Mutex::new(seen)),
            moved: Arc::default(),
            index: Arc::new(Mutex::new(100)),
            hangs: Arc::default(),
        };
        let options = Options::for_heartbeat(HEARTBEAT);
        let (autopilot, handle) =
            Autopilot::new(memory.clone(), TokioRuntime, promoter, options).unwrap();
        let app = router(handle.clone(), settings);
        let driver = tokio::spawn(autopilot.run(pending()));
        let world = Self { memory, handle, app, driver };
        world.handle.watch().wait_for(|view| view.state.is_some()).await.unwrap();
        world
    }

    /// Edits what is seen, and waits until autopilot has seen it.
    pub(crate) async fn edit(&self, edit: impl FnOnce(&mut Observation)) {
        let mut views = self.handle.watch();
        views.mark_unchanged();
        edit(&mut self.memory.seen.lock().unwrap());
        self.memory.moved.notify_one();
        views.changed().await.unwrap();
        // The round above may have begun before the edit.
        self.memory.moved.notify_one();
        views.changed().await.unwrap();
    }

    /// Edits what is seen of one server.
    pub(crate) async fn edit_server(&self, id: &str, edit: impl FnOnce(&mut Sighting)) {
        let id = ServerId::from(id);
        self.edit(|seen| edit(seen.servers.iter_mut().find(|s| s.server.id == id).unwrap())).await;
    }

    /// A request from this very machine.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(format!("{BASE}{path}"));
        self.send(from("127.0.0.1:4711", request.body(body.into()).unwrap())).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, Body::empty()).await
    }

    /// A PUT of a configuration with the token.
    pub(crate) async fn put(&self, query: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method("PUT")
            .uri(format!("{BASE}/configuration{query}"))
            .header("x-consul-token", TOKEN);
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }
}

/// The request as if a peer had sent it.
pub(crate) fn from(peer: &str, mut request: Request<Body>) -> Request<Body> {
    let peer: SocketAddr = peer.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    request
}
