//! HTTP for clients: keys and values, the status, and what an operator may ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use openraft::async_runtime::WatchReceiver;
use raft_autopilot::http::Settings;
use raft_autopilot::store::{KeyRange, Op, RangeRequest, Store, StoreError, Txn};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::autopilot;
use crate::members::{self, LIMIT, NotDone};
use crate::operator;
use crate::ranges::Answers;
use crate::service::Service;
use crate::types::{Applied, Command};

/// The longest value, in bytes; far below what one frame between servers can carry.
const MAX_VALUE_LEN: usize = 1 << 20;

/// The longest key, in bytes.
const MAX_KEY_LEN: usize = 1024;

const NO_KEY: &str = "no such key; nothing was changed: write it first";

const NOT_LEADING: &str = "not the leader; nothing was changed: ask it, as `Location` says";

const NOT_HELD: &str = "this server does not hold the key's range; ask the one that does, as `Location` \
                        says";

type Served = State<Arc<Service>>;

/// What `GET /status` tells.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) version: String,
    pub(crate) boot_id: String,
    /// In hexadecimal, new with every data directory.
    pub(crate) disk_id: String,
    /// `leader`, `follower`, `candidate`, `learner` or `shutdown`.
    pub(crate) role: String,
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) last_log_index: Option<u64>,
    pub(crate) last_applied: Option<u64>,
    /// Bytes received and expected of a snapshot that is arriving.
    pub(crate) snapshot: Option<(u64, u64)>,
    /// Two sets while the membership is changing.
    pub(crate) voters: Vec<BTreeSet<u64>>,
    pub(crate) members: BTreeMap<u64, String>,
}

/// Answers clients, for as long as this future lives.
pub(crate) async fn serve(service: Arc<Service>, listener: TcpListener, token: Option<String>) {
    let placed = service.placed.clone();
    let mut settings = Settings::new()
        .with_leader_address(autopilot::http)
        .with_work(move |servers| placed.work(servers));
    if let Some(token) = &token {
        settings = settings.with_token(token.as_str());
    }
    let router = Router::new()
        .route("/kv/{key}", get(read).put(write).delete(remove))
        .route("/store/{key}", get(read_store).put(write_store))
        .route("/status", get(status))
        .merge(operator::router(token))
        .layer(DefaultBodyLimit::max(MAX_VALUE_LEN))
        .with_state(Arc::clone(&service))
        .merge(raft_autopilot::http::router(service.autopilot.clone(), settings));
    #[cfg(feature = "ids")]
    let router =
        router.merge(crate::numbers::router(&service.identity.member.name, service.store.clone()));
    let router = router.into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "HTTP has ended");
    }
}

/// A key, read by a server that holds its range. Every answer knows all that was written before it was
/// asked for, whichever server gives it.
async fn read(State(service): Served, Path(key): Path<String>, uri: Uri) -> Response {
    match service.placed.answers(&key) {
        Answers::Here => {
            // The store is in the same log: once it is up to date, so are the keys.
            let nothing = RangeRequest::new(KeyRange::key(key.as_str())).limit(1).keys_only();
            if let Err(error) = service.store.range(nothing).await {
                return refused(&error);
            }
        }
        Answers::At(http) => return redirect(&http, uri.path(), NOT_HELD),
        Answers::Leader => {
            if let Err(not_done) = members::confirm_leadership(&service).await {
                return elsewhere(not_done, uri.path());
            }
        }
    }
    let by = [("x-served-by", service.identity.member.name.clone())];
    let state = service.state.clone();
    match tokio::task::spawn_blocking(move || state.get(&key)).await {
        Ok(Ok(Some(value))) => {
            (by, [(header::CONTENT_TYPE, "application/octet-stream")], value).into_response()
        }
        Ok(Ok(None)) => failed(StatusCode::NOT_FOUND, NO_KEY),
        Ok(Err(error)) => unreadable(&error),
        Err(error) => unreadable(&error),
    }
}

async fn write(
    State(service): Served,
    Path(key): Path<String>,
    uri: Uri,
    value: Bytes,
) -> Response {
    if key.len() > MAX_KEY_LEN {
        let why = format!(
            "a key of {} bytes, at most {MAX_KEY_LEN} allowed; nothing was changed: choose a shorter one",
            key.len()
        );
        return failed(StatusCode::BAD_REQUEST, &why);
    }
    commit(&service, Command::Set { key, value: value.to_vec() }, uri.path()).await
}

async fn remove(State(service): Served, Path(key): Path<String>, uri: Uri) -> Response {
    commit(&service, Command::Delete { key }, uri.path()).await
}

async fn commit(service: &Service, command: Command, path: &str) -> Response {
    match tokio::time::timeout(LIMIT, service.raft.client_write(command)).await {
        Ok(Ok(written)) => match written.data {
            Applied::Done | Applied::Reserved(_) | Applied::Recorded(_) | Applied::Stored(_) => {
                StatusCode::NO_CONTENT.into_response()
            }
            Applied::NoSuchKey => failed(StatusCode::NOT_FOUND, NO_KEY),
        },
        Ok(Err(error)) => elsewhere(NotDone::write(&error), path),
        Err(_) => elsewhere(NotDone::timeout(), path),
    }
}

/// A key of the hosted store; any server knows it.
async fn read_store(State(service): Served, Path(key): Path<String>) -> Response {
    match service.store.range(RangeRequest::new(KeyRange::key(key))).await {
        Ok(found) => match found.items.first() {
            Some(kv) => {
                let revision = [("x-revision", kv.mod_revision.to_string())];
                (revision, kv.value.to_vec()).into_response()
            }
            None => failed(StatusCode::NOT_FOUND, NO_KEY),
        },
        Err(error) => refused(&error),
    }
}

async fn write_store(State(service): Served, Path(key): Path<String>, value: Bytes) -> Response {
    match service.store.commit(Txn::new([Op::put(key, value.to_vec())])).await {
        Ok(done) => {
            let revision = [("x-revision", done.revision.to_string())];
            (StatusCode::NO_CONTENT, revision).into_response()
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &StoreError) -> Response {
    match error {
        StoreError::Refused(_) => failed(StatusCode::BAD_REQUEST, &error.to_string()),
        StoreError::Retry(_) | StoreError::Unknown(_) => unavailable(&error.to_string()),
    }
}

async fn status(State(service): Served) -> Response {
    match look(&service) {
        Ok(status) => Json(status).into_response(),
        Err(error) => unreadable(&error),
    }
}

fn look(service: &Service) -> std::io::Result<Status> {
    let own = service.status()?;
    let member = service.identity.member.clone();
    let metrics = service.raft.metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership();
    let members = membership.nodes().map(|(id, member)| (*id, member.http.clone())).collect();
    Ok(Status {
        id: own.id,
        name: member.name,
        zone: member.zone,
        version: own.version,
        boot_id: format!("{:016x}", own.boot_id),
        disk_id: format!("{:016x}", own.disk_id),
        role: format!("{:?}", metrics.state).to_lowercase(),
        term: metrics.current_term,
        leader: metrics.current_leader,
        last_log_index: own.last_log_index,
        last_applied: own.last_applied,
        snapshot: own.snapshot,
        voters: membership.get_joint_config().clone(),
        members,
    })
}

/// Sends a client to the leader, if there is one, or asks it to come back.
pub(crate) fn elsewhere(not_done: NotDone, path: &str) -> Response {
    match not_done {
        NotDone::Elsewhere(Some(leader)) => redirect(&leader.http, path, NOT_LEADING),
        NotDone::Elsewhere(None) => {
            unavailable("no leader is known; nothing was changed: try again in a moment")
        }
        NotDone::Because(why) => unavailable(&why),
    }
}

fn redirect(http: &str, path: &str, why: &str) -> Response {
    let location = format!("http://{http}{path}");
    let body = Json(json!({ "error": why, "server": http }));
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)], body).into_response()
}

pub(crate) fn unavailable(why: &str) -> Response {
    ([(header::RETRY_AFTER, "1")], failed(StatusCode::SERVICE_UNAVAILABLE, why)).into_response()
}

fn unreadable(error: &dyn std::error::Error) -> Response {
    let why = format!("{error}; nothing was changed: look at the disk of this server");
    failed(StatusCode::INTERNAL_SERVER_ERROR, &why)
}

pub(crate) fn failed(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({ "error": why }))).into_response()
}
