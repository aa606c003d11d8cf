//! Numbers for names: the same name gets the same number from every server, over the store that the
//! database hosts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use raft_autopilot::ids::{Handle, Ids, IdsError, Options};
use raft_autopilot::openraft::RaftRuntime;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::store::Store;
use crate::types::TypeConfig;
use crate::web::{failed, unavailable};

/// How long a number stays taken after the server that used it has died.
const TTL: Duration = Duration::from_secs(10);

/// The numbers that this server uses.
struct Numbers {
    name: String,
    store: Store,
    /// Opened by the first who asks: until then there may be no leader.
    ids: OnceCell<Ids<Store, RaftRuntime<TypeConfig>>>,
    held: Mutex<BTreeMap<String, Handle>>,
}

impl Numbers {
    async fn ids(&self) -> Result<&Ids<Store, RaftRuntime<TypeConfig>>, IdsError> {
        let (store, node) = (self.store.clone(), self.name.as_str().into());
        let patience = Duration::from_secs(5);
        let options = Options { node, ttl: TTL, patience, ..Options::default() };
        self.ids.get_or_try_init(|| Ids::open(store, RaftRuntime::new(), "numbers/", options)).await
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `POST /numbers/<name>` uses a number for a name, `DELETE` lets it go, `GET` looks it up.
pub(crate) fn router(name: &str, store: Store) -> Router {
    let (name, ids, held) = (name.to_owned(), OnceCell::new(), Mutex::default());
    Router::new()
        .route("/numbers/{name}", get(look_up).post(allocate).delete(release))
        .with_state(Arc::new(Numbers { name, store, ids, held }))
}

async fn allocate(State(numbers): State<Arc<Numbers>>, Path(name): Path<String>) -> Response {
    let allocated = async { numbers.ids().await?.allocate(name.as_str()).await };
    match allocated.await {
        Ok(handle) => {
            let generation = handle.generation().to_string();
            let answer = json!({
                "number": handle.id(), "generation": generation, "new": handle.is_new(),
            });
            numbers.held().insert(name, handle);
            Json(answer).into_response()
        }
        Err(error) => unavailable(&error.to_string()),
    }
}

async fn release(State(numbers): State<Arc<Numbers>>, Path(name): Path<String>) -> Response {
    let held = numbers.held().remove(&name);
    match held {
        Some(handle) => {
            handle.release().await;
            StatusCode::NO_CONTENT.into_response()
        }
        None => failed(StatusCode::NOT_FOUND, "this server uses no number for that name"),
    }
}

async fn look_up(State(numbers): State<Arc<Numbers>>, Path(name): Path<String>) -> Response {
    let found = async { numbers.ids().await?.get_no_cache(name.as_bytes()).await };
    let status = numbers.held().get(&name).map(|handle| format!("{:?}", handle.status()));
    match found.await {
        Ok(Some(number)) => Json(json!({ "number": number, "here": status })).into_response(),
        Ok(None) => failed(StatusCode::NOT_FOUND, "that name has no number"),
        Err(error) => unavailable(&error.to_string()),
    }
}
