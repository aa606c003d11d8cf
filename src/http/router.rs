//! The router: who is asked, who may ask, and what is answered.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRequest, Path, Query, Request, State as Shared,
        rejection::PathRejection,
    },
    http::{HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::json;
use tokio::sync;

use super::{
    auth::{self, Denied},
    config::{self, Bad},
    explain,
    settings::{Settings, Work},
    wall::Wall,
    wire::{self, Reading},
};
use crate::{
    autopilot::{Handle, Running, Server, ServerId, State, VerbError, View},
    rehearse::Case,
};

/// The longest body of a PUT; a whole configuration has less than 1 KiB.
const BODY_MAX: usize = 64 * 1024;

/// How long the body of a PUT may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How long a PUT that is recorded waits until it can be read back here.
const READ_BACK: Duration = Duration::from_secs(1);

/// How long a reader of the state waits for the work of the servers.
const WORK_DEADLINE: Duration = Duration::from_secs(5);

/// What a node answers before it knows anything.
const NO_ROUND: &str = "no round has been done yet; nothing was changed: ask again in a moment";

/// Where a 503 names the leader's address.
const LEADER: HeaderName = HeaderName::from_static("x-autopilot-leader");

/// The routes of autopilot, ready to be merged into, or nested in, an application's own router.
///
/// Needs no state of the application. The [module](super) lists what is answered.
///
/// ```
/// use axum::Router;
/// use raft_autopilot::{autopilot::Handle, http::{Settings, router}};
///
/// fn app(handle: Handle) -> Router {
///     let settings = Settings::new().with_token("a long secret");
///     Router::new().merge(router(handle, settings))
/// }
/// ```
pub fn router(handle: Handle, settings: Settings) -> Router {
    let reads = || async { not_allowed(&["GET", "HEAD"]) };
    let configures = || async { not_allowed(&["GET", "HEAD", "PUT"]) };
    Router::new()
        .route("/v1/operator/autopilot/health", get(health).fallback(reads))
        .route("/v1/operator/autopilot/state", get(state).fallback(reads))
        .route("/v1/operator/autopilot/case", get(case).fallback(reads))
        .route("/v1/operator/autopilot/explain", get(explain).fallback(reads))
        .route("/v1/operator/autopilot/explain/{server}", get(explain_one).fallback(reads))
        .route("/v1/operator/autopilot/history", get(history).fallback(reads))
        .route(
            "/v1/operator/autopilot/configuration",
            get(read).put(write).fallback(configures).layer(DefaultBodyLimit::max(BODY_MAX)),
        )
        .with_state(Arc::new(Desk {
            handle,
            settings,
            wall: Wall::default(),
            turn: Arc::default(),
            asked: Mutex::default(),
        }))
}

/// What every request needs.
struct Desk {
    handle: Handle,
    settings: Settings,
    wall: Wall,
    /// Held by whoever has the work told, also when nobody waits for it any more.
    turn: Arc<sync::Mutex<()>>,
    /// Since when that has taken, on the driver's clock.
    asked: Mutex<Option<Duration>>,
}

/// One telling of the work; over when dropped, also where the application panics.
struct Telling {
    desk: Arc<Desk>,
    _turn: sync::OwnedMutexGuard<()>,
}

impl Telling {
    fn begin(desk: &Arc<Desk>, turn: sync::OwnedMutexGuard<()>) -> Self {
        *desk.asked() = Some(desk.handle.now());
        Self { desk: Arc::clone(desk), _turn: turn }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        *self.desk.asked() = None;
    }
}

/// Why a request is not answered as it wishes.
enum Refused {
    Denied(Denied),
    Bad(Bad),
    TooLong,
    Unknown { server: String },
    Elsewhere { error: String, leader: Option<ServerId>, address: Option<String> },
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Bad> for Refused {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Denied(denied) => denied.into_response(),
            Self::Bad(Bad { field: None, reason }) => {
                let error = format!("{reason}; nothing was changed: correct the request");
                (StatusCode::BAD_REQUEST, Json(json!({ "Error": error }))).into_response()
            }
            Self::Bad(Bad { field: Some(field), reason }) => {
                let error = format!("{field}: {reason}; nothing was changed: correct the request");
                let body = json!({ "Error": error, "Field": field, "Reason": reason });
                (StatusCode::BAD_REQUEST, Json(body)).into_response()
            }
            Self::TooLong => {
                let error = format!(
                    "the body is longer than {BODY_MAX} bytes; nothing was changed: send a shorter one"
                );
                (StatusCode::PAYLOAD_TOO_LARGE, Json(json!({ "Error": error }))).into_response()
            }
            Self::Unknown { server } => {
                let error = format!(
                    "no server has the id {server}; nothing was changed: name one that `/state` lists"
                );
                (StatusCode::NOT_FOUND, Json(json!({ "Error": error }))).into_response()
            }
            Self::Elsewhere { error, leader, address } => {
                let header = address.as_deref().and_then(|a| HeaderValue::from_str(a).ok());
                let mut body = json!({ "Error": error });
                if let Some(leader) = leader {
                    body["Leader"] = leader.as_str().into();
                }
                if let Some(address) = address {
                    body["LeaderAddress"] = address.into();
                }
                let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
                if let Some(address) = header {
                    response.headers_mut().insert(LEADER, address);
                }
                response
            }
        }
    }
}

impl Desk {
    /// The view, and its state, of a node that leads and is at work.
    fn leading(&self) -> Result<(Arc<View>, Arc<State>), Refused> {
        let view = self.handle.view();
        if view.running == Running::Stopped {
            return Err(self.elsewhere(&view, "autopilot does not run on this node; nothing was changed: start it, or ask another"));
        }
        let Some(state) = view.state.clone() else {
            return Err(self.elsewhere(&view, NO_ROUND));
        };
        if state.leading.is_none() {
            return Err(self
                .elsewhere(&view, "this node does not lead; nothing was changed: ask the leader"));
        }
        if !state.may_act() {
            return Err(self.elsewhere(
                &view,
                "this node leads without a fresh lease; nothing was changed: ask again in a moment",
            ));
        }
        let age = self.handle.now().saturating_sub(state.at);
        // An update interval that is longer than usual makes nobody stale.
        if age > self.settings.max_age.max(self.handle.good_for()) {
            let age = Duration::from_secs(age.as_secs());
            let error = format!(
                "the last round was {} ago; nothing was changed: ask again, and look at the log of \
                 this node if it goes on",
                humantime::format_duration(age)
            );
            return Err(self.elsewhere(&view, &error));
        }
        Ok((view, state))
    }

    /// The answer of a node that cannot answer, with the way to the leader, unless that is itself.
    fn elsewhere(&self, view: &View, error: &str) -> Refused {
        let state = view.state.as_deref();
        let leader = state.and_then(|state| {
            let other = |leader: &&ServerId| **leader != state.local;
            state.leader.as_ref().filter(other).cloned()
        });
        let address = leader.as_ref().and_then(|leader| {
            let known = state.and_then(|state| state.server(leader));
            // Where the application panics the address is not known.
            let find = || match known {
                Some(known) => (self.settings.leader_address)(&known.server),
                None => (self.settings.leader_address)(&Server::new(leader.as_str(), "")),
            };
            catch_unwind(AssertUnwindSafe(find)).ok().flatten()
        });
        Refused::Elsewhere { error: error.to_owned(), leader, address }
    }

    fn asked(&self) -> MutexGuard<'_, Option<Duration>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading<'a>(&self, view: &'a View, state: &'a State) -> Reading<'a> {
        let now = self.handle.now();
        Reading { view, state, promoter: view.guard(), now, epoch: self.wall.epoch(now) }
    }
}

type Answer = Result<Response, Refused>;

async fn health(Shared(desk): Shared<Arc<Desk>>, parts: Parts) -> Answer {
    auth::may_read(&desk.settings, &parts)?;
    let (view, state) = desk.leading()?;
    let status = if state.healthy { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
    Ok(fresh(status, &wire::health(&desk.reading(&view, &state))))
}

async fn state(Shared(desk): Shared<Arc<Desk>>, parts: Parts) -> Answer {
    auth::may_read(&desk.settings, &parts)?;
    let (_, state) = desk.leading()?;
    let work = work(&desk, state).await;
    // That may have taken a while.
    let (view, state) = desk.leading()?;
    Ok(fresh(StatusCode::OK, &wire::state(&desk.reading(&view, &state), &work)))
}

/// What the servers work on, or why that is not known. To tell it may take a plan of all items: it is told
/// on a thread of its own, and to one reader after the other. Behind one that hangs nobody waits.
async fn work(desk: &Arc<Desk>, state: Arc<State>) -> Result<Work, String> {
    let Some(tell) = desk.settings.work.clone() else { return Ok(None) };
    let late = || {
        let deadline = humantime::format_duration(WORK_DEADLINE);
        Err(format!("the work of the servers is left out: it was not told within {deadline}"))
    };
    if desk.asked().is_some_and(|at| desk.handle.now().saturating_sub(at) >= WORK_DEADLINE) {
        return late();
    }
    let told = async {
        let telling = Telling::begin(desk, Arc::clone(&desk.turn).lock_owned().await);
        let told = tokio::task::spawn_blocking(move || {
            let _telling = telling;
            let servers: Vec<&Server> = state.servers.iter().map(|s| &*s.server).collect();
            tell(&servers)
        });
        told.await
    };
    let Ok(told) = tokio::time::timeout(WORK_DEADLINE, told).await else {
        tracing::warn!("the work of the servers was not told within {WORK_DEADLINE:?}");
        return late();
    };
    told.map_err(|error| format!("the work of the servers is left out: {error}"))
}

async fn explain(Shared(desk): Shared<Arc<Desk>>, parts: Parts) -> Answer {
    auth::may_read(&desk.settings, &parts)?;
    let (view, state) = desk.leading()?;
    Ok(fresh(StatusCode::OK, &explain::all(&desk.reading(&view, &state))))
}

async fn explain_one(
    Shared(desk): Shared<Arc<Desk>>,
    server: Result<Path<String>, PathRejection>,
    parts: Parts,
) -> Answer {
    auth::may_read(&desk.settings, &parts)?;
    let Path(server) = server.map_err(|error| Bad::field("server", error.body_text()))?;
    let (view, state) = desk.leading()?;
    let found = explain::one(&desk.reading(&view, &state), &server);
    found.map(|answer| fresh(StatusCode::OK, &answer)).ok_or(Refused::Unknown { server })
}

/// What this node decided while it led, also when it does so no longer.
async fn history(Shared(desk): Shared<Arc<Desk>>, parts: Parts) -> Answer {
    auth::may_read(&desk.settings, &parts)?;
    let view = desk.handle.view();
    let Some(state) = &view.state else {
        return Err(desk.elsewhere(&view, NO_ROUND));
    };
    Ok(fresh(StatusCode::OK, &wire::history(&desk.reading(&view, state))))
}

/// From any node that has seen one round: a moment without a leader is worth a look too.
async fn case(Shared(desk): Shared<Arc<Desk>>, parts: Parts) -> Answer {
    auth::may_read(&desk.settings, &parts)?;
    let view = desk.handle.view();
    let case = Case::saved(&view);
    let case = case.ok_or_else(|| desk.elsewhere(&view, NO_ROUND))?;
    Ok(fresh(StatusCode::OK, &case))
}

async fn read(Shared(desk): Shared<Arc<Desk>>, parts: Parts) -> Answer {
    auth::may_read(&desk.settings, &parts)?;
    let stale = query(&parts.uri)?.iter().any(|(name, _)| name == "stale");
    let view = desk.handle.view();
    if !(stale && view.state.is_some()) {
        desk.leading()?;
    }
    Ok(fresh(StatusCode::OK, &config::reply(&view)))
}

async fn write(Shared(desk): Shared<Arc<Desk>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    auth::may_write(&desk.settings, &parts)?;
    let cas = cas(&parts.uri)?;
    let (before, _) = desk.leading()?;
    let body = Bytes::from_request(Request::from_parts(parts, body), &());
    let body = match tokio::time::timeout(BODY_DEADLINE, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(Refused::TooLong);
        }
        Ok(Err(error)) => return Err(Bad::whole(error.body_text()).into()),
        Err(_) => return Err(Bad::whole("the body did not arrive in time").into()),
    };
    let config = config::parse(&body, desk.handle.heartbeat())?;
    match desk.handle.configure(config, cas).await {
        Ok(()) => {
            // Who reads next should find what was written; it is written in any case.
            let mut views = desk.handle.watch();
            let written = views.wait_for(|view| view.modify_index > before.modify_index);
            let _ = tokio::time::timeout(READ_BACK, written).await;
            Ok(fresh(StatusCode::OK, &true))
        }
        Err(VerbError::Conflict { .. }) => Ok(fresh(StatusCode::OK, &false)),
        Err(VerbError::Invalid(error)) => Err(Bad::from(error).into()),
        Err(
            error @ (VerbError::NotLeading { .. }
            | VerbError::LostLeadership { .. }
            | VerbError::Refused { .. }
            | VerbError::Deadline { .. }
            | VerbError::NotProven { .. }
            | VerbError::NotRecorded(_)
            | VerbError::PerhapsRecorded(_)
            | VerbError::Observing
            | VerbError::Stopped),
        ) => Err(desk.elsewhere(&desk.handle.view(), &error.to_string())),
    }
}

/// A JSON answer that no cache keeps.
fn fresh(status: StatusCode, body: &impl Serialize) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn not_allowed(allowed: &[&str]) -> Response {
    let body = json!({ "Error": "method not allowed; nothing was changed: use one of `Allow`", "Allow": allowed });
    let allow = [(header::ALLOW, allowed.join(", "))];
    (StatusCode::METHOD_NOT_ALLOWED, allow, Json(body)).into_response()
}

fn query(uri: &Uri) -> Result<Vec<(String, String)>, Bad> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
    query.map(|Query(query)| query).map_err(|error| Bad::whole(error.body_text()))
}

/// The modify index to compare with, if one is asked for.
fn cas(uri: &Uri) -> Result<Option<u64>, Bad> {
    let query = query(uri)?;
    let mut all = query.iter().filter(|(name, _)| name == "cas").map(|(_, value)| value);
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Bad::field("cas", "stands twice"));
    }
    // `parse` alone would take a sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let cas = value.parse().ok().filter(|_| digits);
    cas.map(Some).ok_or_else(|| Bad::field("cas", "expected a modify index, a whole number"))
}
