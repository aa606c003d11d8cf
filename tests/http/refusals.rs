//! Every way in which a request is turned away, by its name.

use std::{future::pending, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use raft_autopilot::{
    autopilot::{Config, NodeStatus},
    http::{Reads, Settings},
};
use serde_json::json;

use crate::fixture::{BASE, HEARTBEAT, TOKEN, World, following, from, healthy, settings};

#[tokio::test(start_paused = true)]
async fn a_follower_points_to_the_leader() {
    let world = World::new(following()).await;
    for path in ["/health", "/state", "/configuration"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 503);
        let expected = json!({
            "Error": "this node does not lead; nothing was changed: ask the leader",
            "Leader": "b",
            "LeaderAddress": "b.example:8500",
        });
        assert_eq!(answer.json(), expected);
        assert_eq!(answer.headers["x-autopilot-leader"], "b.example:8500");
    }
    let answer = world.put("", "{}").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["Leader"]), (503, &json!("b")));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_address_nobody_knows_is_named_alone() {
    let world = World::with(following(), Settings::new()).await;
    let answer = world.get("/health").await;
    assert_eq!(
        answer.json(),
        json!({ "Error": "this node does not lead; nothing was changed: ask the leader", "Leader": "b" })
    );
    assert!(!answer.headers.contains_key("x-autopilot-leader"));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fits_no_header_stands_in_the_body_alone() {
    let settings = Settings::new().with_leader_address(|_| Some("b\r\nset-cookie: x".to_owned()));
    let answer = World::with(following(), settings).await.get("/health").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["LeaderAddress"], "b\r\nset-cookie: x");
    assert!(!answer.headers.contains_key("x-autopilot-leader"));
}

#[tokio::test(start_paused = true)]
async fn an_address_over_which_the_application_panics_is_not_known() {
    let settings = Settings::new().with_leader_address(|_| panic!("no road has an end"));
    let answer = World::with(following(), settings).await.get("/health").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["Leader"]), (503, &json!("b")));
    assert_eq!(answer.json().get("LeaderAddress"), None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_no_text_is_refused_to_those_who_may_ask() {
    let world = World::new(healthy()).await;
    let answer = world.get("/explain/%FF").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["Field"]), (400, &json!("server")));
    let request =
        Request::builder().uri(format!("{BASE}/explain/%FF")).body(Body::empty()).unwrap();
    let stranger = world.send(from("10.0.0.1:1", request)).await;
    assert_eq!((stranger.status.as_u16(), stranger.text.as_str()), (401, ""));
}

#[tokio::test(start_paused = true)]
async fn nobody_leads() {
    let mut seen = following();
    seen.leader = None;
    let answer = World::new(seen).await.get("/state").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        json!({ "Error": "this node does not lead; nothing was changed: ask the leader" })
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_lease_does_not_answer_and_does_not_point_to_itself() {
    let world = World::new(healthy()).await;
    world.edit(|seen| seen.leading.as_mut().unwrap().lease = false).await;
    let answer = world.get("/health").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        json!({ "Error": "this node leads without a fresh lease; nothing was changed: ask again in a moment" })
    );
    assert_eq!(world.put("", "{}").await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_too_old_is_not_shown_as_health() {
    let world = World::with(healthy(), settings().with_max_age(Duration::from_secs(5))).await;
    *world.memory.hangs.lock().unwrap() = true;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let answer = world.get("/health").await;
    assert_eq!(answer.status, 503);
    let error = answer.json()["Error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("the last round was "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_was_dropped_answers_nothing() {
    let world = World::new(healthy()).await;
    world.driver.abort();
    while !world.driver.is_finished() {
        tokio::task::yield_now().await;
    }
    let expected = json!({ "Error": "autopilot does not run on this node; nothing was changed: start it, or ask another" });
    for path in ["/health", "/state", "/configuration"] {
        let answer = world.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (503, expected.clone()));
    }
    assert_eq!(world.put("", "{}").await.status, 503);
    assert_eq!(world.get("/configuration?stale").await.status, 200);
}

/// Method, peer, headers, and the status on a healthy leader with a token.
type Case = (&'static str, Option<&'static str>, &'static [(&'static str, &'static str)], u16);

const CASES: &[Case] = &[
    ("GET", Some("127.0.0.1:1"), &[], 200),
    ("GET", Some("[::1]:1"), &[], 200),
    ("GET", Some("[::ffff:127.0.0.1]:1"), &[], 200),
    ("GET", Some("10.0.0.1:1"), &[], 401),
    ("GET", None, &[], 401),
    ("GET", Some("127.0.0.1:1"), &[("x-forwarded-for", "10.0.0.1")], 401),
    ("GET", Some("127.0.0.1:1"), &[("forwarded", "for=10.0.0.1")], 401),
    ("GET", Some("10.0.0.1:1"), &[("x-consul-token", TOKEN)], 200),
    ("GET", None, &[("authorization", "Bearer open sesame")], 200),
    ("GET", None, &[("authorization", "Bearer wrong")], 403),
    ("PUT", Some("127.0.0.1:1"), &[], 401),
    ("PUT", Some("10.0.0.1:1"), &[("x-consul-token", TOKEN)], 200),
    ("PUT", None, &[("authorization", "bearer open sesame")], 200),
    ("PUT", None, &[("x-consul-token", "wrong")], 403),
    ("PUT", None, &[("x-consul-token", "open sesam")], 403),
    ("PUT", None, &[("x-consul-token", "open sesame!")], 403),
    ("PUT", None, &[("x-consul-token", "open sesameopen sesame")], 403),
    ("PUT", None, &[("x-consul-token", "")], 401),
    ("PUT", None, &[("authorization", "Basic b3BlbiBzZXNhbWU=")], 401),
    ("PUT", None, &[("authorization", "Bearer")], 401),
];

#[tokio::test(start_paused = true)]
async fn only_who_may_is_answered() {
    let world = World::new(healthy()).await;
    for (method, peer, headers, status) in CASES {
        let mut request = Request::builder().method(*method).uri(format!("{BASE}/configuration"));
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let body = if *method == "PUT" { "{}" } else { "" };
        let request = request.body(Body::from(body)).unwrap();
        let request = match peer {
            Some(peer) => from(peer, request),
            None => request,
        };
        let answer = world.send(request).await;
        assert_eq!(answer.status.as_u16(), *status, "{method} {peer:?} {headers:?}");
        if matches!(*status, 401 | 403) {
            assert_eq!(answer.text, "", "not a word more");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_token_writing_is_off() {
    for settings in [Settings::new(), Settings::new().with_token("")] {
        let world = World::with(healthy(), settings).await;
        assert_eq!(world.put("", "{}").await.status, 403);
        assert_eq!(world.get("/health").await.status, 200);
        let request = Request::get(format!("{BASE}/health")).body(Body::empty()).unwrap();
        assert_eq!(world.send(from("10.0.0.1:1", request)).await.status, 403);
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_read_is_the_applications_choice() {
    for (reads, near, far) in [(Reads::Open, 200, 200), (Reads::Token, 401, 401)] {
        let world = World::with(healthy(), settings().with_reads(reads)).await;
        assert_eq!(world.get("/health").await.status, near, "{reads:?}");
        let request = Request::get(format!("{BASE}/health")).body(Body::empty()).unwrap();
        assert_eq!(world.send(from("10.0.0.1:1", request)).await.status, far, "{reads:?}");
        let put = Request::put(format!("{BASE}/configuration")).body(Body::from("{}")).unwrap();
        assert_eq!(world.send(put).await.status, 401, "{reads:?}");
    }
}

#[test]
fn settings_do_not_print_the_token() {
    assert!(!format!("{:?}", settings()).contains(TOKEN));
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_answered_with_those_allowed() {
    let world = World::new(healthy()).await;
    for (path, allowed) in [
        ("/health", "GET, HEAD"),
        ("/state", "GET, HEAD"),
        ("/history", "GET, HEAD"),
        ("/configuration", "GET, HEAD, PUT"),
    ] {
        for method in ["POST", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let answer = world.ask(method, path, Body::empty()).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.headers["allow"], allowed);
            let list: Vec<&str> = allowed.split(", ").collect();
            assert_eq!(answer.json()["Allow"], json!(list));
        }
        let head = world.ask("HEAD", path, Body::empty()).await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    }
}

/// A body, the field to blame, and a part of the reason.
const WRONG: &[(&str, Option<&str>, &str)] = &[
    ("", None, "EOF"),
    ("{", None, "EOF"),
    ("[]", None, "expected a JSON object"),
    ("null", None, "expected a JSON object"),
    ("{} {}", None, "trailing characters"),
    (r#"{"MinQuorum": 3, "MinQuorum": 3}"#, None, "`MinQuorum` stands twice"),
    (r#"{"MinQuorm": 3}"#, Some("MinQuorm"), "not a field"),
    (r#"{"min_quorum": 3}"#, Some("min_quorum"), "not a field"),
    (r#"{"MinQuorum": "3"}"#, Some("MinQuorum"), "is \"3\"; expected a whole number"),
    (r#"{"MinQuorum": -1}"#, Some("MinQuorum"), "not negative"),
    (r#"{"MinQuorum": 4294967296}"#, Some("MinQuorum"), "of 32 bits"),
    (r#"{"MaxTrailingLogs": 1.5}"#, Some("MaxTrailingLogs"), "is 1.5"),
    (r#"{"CleanupDeadServers": "yes"}"#, Some("CleanupDeadServers"), "expected true or false"),
    (r#"{"RedundancyZoneTag": 1}"#, Some("RedundancyZoneTag"), "expected text"),
    (r#"{"ModifyIndex": "x"}"#, Some("ModifyIndex"), "expected a whole number"),
    (r#"{"LastContactThreshold": "fast"}"#, Some("LastContactThreshold"), "not a duration"),
    (r#"{"LastContactThreshold": "200"}"#, Some("LastContactThreshold"), "lacks a unit"),
    (r#"{"LastContactThreshold": "-1s"}"#, Some("LastContactThreshold"), "negative"),
    (r#"{"LastContactThreshold": -1}"#, Some("LastContactThreshold"), "is -1"),
    (r#"{"LastContactThreshold": 1e8}"#, Some("LastContactThreshold"), "whole number"),
    (r#"{"LastContactThreshold": []}"#, Some("LastContactThreshold"), "is []"),
    (r#"{"JoinGrace": "9999999h"}"#, Some("JoinGrace"), "longer than 292 years"),
    (r#"{"LastContactThreshold": "1ms"}"#, Some("LastContactThreshold"), "three heartbeats"),
    (
        r#"{"LastContactRecovery": "1s"}"#,
        Some("LastContactRecovery"),
        "at most 200ms (LastContactThreshold)",
    ),
    (r#"{"TrailingLogsRecovery": 300}"#, Some("TrailingLogsRecovery"), "at most MaxTrailingLogs"),
    (
        r#"{"DeadServerLastContactThreshold": "1s"}"#,
        Some("DeadServerLastContactThreshold"),
        "while CleanupDeadServers is on",
    ),
];

#[tokio::test(start_paused = true)]
async fn a_wrong_body_is_refused_with_the_field_and_the_reason() {
    let world = World::new(healthy()).await;
    for (body, field, reason) in WRONG {
        let answer = world.put("", *body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let json = answer.json();
        assert_eq!(json["Field"].as_str(), *field, "{body}: {json}");
        assert!(json["Error"].as_str().unwrap().contains(reason), "{body}: {json}");
        if let Some(field) = field {
            assert!(json["Error"].as_str().unwrap().starts_with(field), "{json}");
        }
    }
    // A good field beside a bad one is not taken either.
    world.put("", r#"{"MaxTrailingLogs": 9, "MinMargin": true}"#).await;
    assert_eq!(*world.handle.view().config, Config::for_heartbeat(HEARTBEAT));
    assert_eq!(world.handle.view().modify_index, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_cas_is_refused() {
    let world = World::new(healthy()).await;
    for query in ["?cas", "?cas=", "?cas=x", "?cas=-1", "?cas=%2B1", "?cas=18446744073709551616"] {
        let answer = world.put(query, "{}").await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.json()["Field"], "cas");
    }
    assert_eq!(world.put("?cas=1&cas=2", "{}").await.json()["Reason"], "stands twice");
    assert_eq!(world.handle.view().modify_index, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_is_refused() {
    let world = World::new(healthy()).await;
    let answer = world.put("", format!("{{{}}}", " ".repeat(64 * 1024))).await;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["Error"].is_string());
    assert_eq!(world.put("", format!("{{{}}}", " ".repeat(64 * 1024 - 2))).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_awaited_for_ever() {
    let world = World::new(healthy()).await;
    let never = futures_util::stream::once(pending::<Result<Bytes, std::io::Error>>());
    let answer = world.put("", Body::from_stream(never)).await;
    assert_eq!(answer.status, 400);
    let error = "the body did not arrive in time; nothing was changed: correct the request";
    assert_eq!(answer.json()["Error"], error);
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_is_called_what_discovery_calls_it() {
    let world = World::new(healthy()).await;
    for (status, serf, node) in [
        (NodeStatus::Failed, "failed", "failed"),
        (NodeStatus::Left, "left", "left"),
        (NodeStatus::Unknown, "none", "unknown"),
    ] {
        world.edit_server("c", |server| server.discovery = Some(status)).await;
        let (health, state) = (world.get("/health").await.json(), world.get("/state").await.json());
        assert_eq!(health["Servers"][2]["SerfStatus"], serf);
        assert_eq!(state["Servers"]["c"]["NodeStatus"], node);
    }
}
