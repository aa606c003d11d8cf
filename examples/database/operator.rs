//! What an operator may order over HTTP: `POST /operator/{verb}/{server}`, with the token.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use raft_autopilot::autopilot::{IntentKind, VerbError};

use crate::members::NotDone;
use crate::service::Service;
use crate::web::{elsewhere, failed};

/// How long an order is pursued.
const LIMIT: Duration = Duration::from_secs(30);

/// For how long a drained server is kept from leading.
const DRAIN: Duration = Duration::from_secs(60);

const NO_TOKEN: &str = "this server was started without a token; nothing was changed: start it with \
                        DATABASE_TOKEN set";

const WRONG_TOKEN: &str = "not the token; nothing was changed: send `Authorization: Bearer` and the \
                           one that the server was started with";

/// The orders, for those who present the token. No token: no orders.
pub(crate) fn router(token: Option<String>) -> Router<Arc<Service>> {
    let token: Option<Arc<str>> = token.map(Into::into);
    Router::new().route("/operator/{verb}/{server}", post(order)).layer(from_fn(
        move |request: Request, next: Next| {
            let token = token.clone();
            async move {
                let told = request.headers().get(header::AUTHORIZATION);
                let told = told.map_or(&[][..], |value| value.as_bytes());
                match token {
                    None => failed(StatusCode::FORBIDDEN, NO_TOKEN),
                    Some(token) if is_bearer(told, &token) => next.run(request).await,
                    Some(_) => failed(StatusCode::UNAUTHORIZED, WRONG_TOKEN),
                }
            }
        },
    ))
}

/// Compares in a time that does not tell how much of it is right.
fn is_bearer(told: &[u8], token: &str) -> bool {
    let Some(told) = told.strip_prefix(b"Bearer ") else { return false };
    let differ = told.iter().zip(token.as_bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    told.len() == token.len() && differ == 0
}

async fn order(
    State(service): State<Arc<Service>>,
    Path((verb, server)): Path<(String, String)>,
    uri: Uri,
) -> Response {
    let autopilot = service.autopilot.clone().within(LIMIT);
    let id = match server.as_str() {
        // Known at the leader, and anybody else sends the order there.
        "leader" => autopilot.state().and_then(|state| state.leader.clone()),
        id => id.parse::<u64>().ok().map(|id| id.to_string().into()),
    };
    let done = match (verb.as_str(), id) {
        ("transfer", None) if server == "best" => autopilot.transfer(None).await,
        ("transfer", Some(id)) => autopilot.transfer(Some(id)).await,
        ("drain", Some(id)) => autopilot.intend(id, IntentKind::Drain, DRAIN).await,
        ("undrain", Some(id)) => autopilot.unintend(id).await,
        ("cordon", Some(id)) => autopilot.cordon(id, "ordered over HTTP", None).await,
        ("uncordon", Some(id)) => autopilot.uncordon(id).await,
        ("remove", Some(id)) => autopilot.remove(id).await,
        ("transfer" | "drain" | "undrain" | "cordon" | "uncordon" | "remove", None) => {
            let why = format!(
                "`{server}` is neither an id nor `leader`; nothing was changed: name one of them, or \
                 `best` to transfer"
            );
            return failed(StatusCode::BAD_REQUEST, &why);
        }
        (verb, _) => {
            let why = format!(
                "`{verb}` is no order; nothing was changed: use drain, undrain, cordon, uncordon, \
                 remove or transfer"
            );
            return failed(StatusCode::NOT_FOUND, &why);
        }
    };
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error @ VerbError::Refused { .. }) => failed(StatusCode::CONFLICT, &error.to_string()),
        Err(error) => elsewhere(NotDone::order(&service, &error), uri.path()),
    }
}
