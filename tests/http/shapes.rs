//! What is answered when all is well: field by field as Consul does, and ours beside.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body, http::Request, routing::get};
use raft_autopilot::{
    autopilot::{Config, IntentKind, NodeStatus, Probe, Role},
    http::{durations, router},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt;

use crate::fixture::{BASE, HEARTBEAT, TOKEN, World, following, healthy, settings};

/// Takes `StableSince` out, after a look at it: UTC in RFC 3339, not in the future, whole seconds
/// if asked for.
fn take_stable_since(server: &mut Value, whole: bool) -> SystemTime {
    let text = server.as_object_mut().unwrap().remove("StableSince").unwrap();
    let text = text.as_str().unwrap();
    let since = humantime::parse_rfc3339(text).unwrap();
    assert!(text.ends_with('Z'), "{text}");
    assert!(since <= SystemTime::now() + Duration::from_secs(1), "{text}");
    assert_eq!(!whole, text.contains('.'), "{text}");
    since
}

#[tokio::test(start_paused = true)]
async fn health_is_consuls_field_by_field() {
    let world = World::new(healthy()).await;
    let answer = world.get("/health").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    let mut body = answer.json();
    for server in body["Servers"].as_array_mut().unwrap() {
        take_stable_since(server, true);
    }
    let server = |id: &str, leader: bool, voter: bool| {
        json!({
            "ID": id,
            "Name": format!("node-{id}"),
            "Address": format!("{id}.example:8300"),
            "SerfStatus": "alive",
            "Version": "1.2.3",
            "Leader": leader,
            "LastContact": if leader { "0s" } else { "10ms" },
            "LastTerm": 3,
            "LastIndex": 1024,
            "Healthy": true,
            "Voter": voter,
            "Verdict": "healthy",
            "Reasons": [],
            "Held": [],
        })
    };
    let servers = [
        server("a", true, true),
        server("b", false, true),
        server("c", false, true),
        server("d", false, false),
    ];
    assert_eq!(body, json!({ "Healthy": true, "FailureTolerance": 1, "Servers": servers }));
}

#[tokio::test(start_paused = true)]
async fn state_is_consuls_field_by_field() {
    let world = World::new(healthy()).await;
    let answer = world.get("/state").await;
    assert_eq!(answer.status, 200);
    let mut body = answer.json();
    for server in body["Servers"].as_object_mut().unwrap().values_mut() {
        take_stable_since(server, false);
    }
    let server = |id: &str, status: &str| {
        json!({
            "ID": id,
            "Name": format!("node-{id}"),
            "Address": format!("{id}.example:8300"),
            "NodeStatus": "alive",
            "Version": "1.2.3",
            "LastContact": if status == "leader" { "0s" } else { "10ms" },
            "LastTerm": 3,
            "LastIndex": 1024,
            "Healthy": true,
            "ReadReplica": false,
            "Status": status,
            "Meta": { "http": format!("{id}.example:8500") },
            "NodeType": "voter",
            "Verdict": "healthy",
            "Reasons": [],
            "Held": [],
        })
    };
    let age = body.as_object_mut().unwrap().remove("Age").unwrap();
    assert!(durations::parse(age.as_str().unwrap()).unwrap() < Duration::from_secs(2));
    let expected = json!({
        "Healthy": true,
        "FailureTolerance": 1,
        "OptimisticFailureTolerance": 1,
        "Servers": {
            "a": server("a", "leader"),
            "b": server("b", "voter"),
            "c": server("c", "voter"),
            "d": server("d", "non-voter"),
        },
        "Leader": "a",
        "Voters": ["a", "b", "c"],
        "VotersHealthy": true,
        "Quorum": true,
        "Term": 3,
        "Running": "leading",
        "Planned": [],
        "Held": [],
        "BlindSpots": [],
    });
    assert_eq!(body, expected);
}

#[tokio::test(start_paused = true)]
async fn every_place_in_the_membership_has_consuls_word() {
    let world = World::new(healthy()).await;
    world
        .edit(|seen| {
            seen.membership.joint = true;
            for (server, role) in
                seen.servers.iter_mut().zip([Role::Voter, Role::Outgoing, Role::Incoming])
            {
                server.role = role;
            }
            seen.servers[3].role = Role::Absent;
        })
        .await;
    let body = world.get("/state").await.json();
    let status = |id: &str| body["Servers"][id]["Status"].clone();
    let words = ["a", "b", "c", "d"].map(status);
    assert_eq!(words, ["leader", "voter", "staging", "none"]);
    assert_eq!(body["Voters"], json!(["a", "b"]));
}

#[tokio::test(start_paused = true)]
async fn a_read_replica_is_listed() {
    let mut seen = healthy();
    Arc::make_mut(&mut seen.servers[3].server).read_replica = true;
    let body = World::new(seen).await.get("/state").await.json();
    assert_eq!(body["ReadReplicas"], json!(["d"]));
    assert_eq!(body["Servers"]["d"]["ReadReplica"], true);
    assert_eq!(body["Servers"]["d"]["NodeType"], "read-replica");
}

#[tokio::test(start_paused = true)]
async fn configuration_is_consuls_field_by_field() {
    let world = World::new(healthy()).await;
    let body = world.get("/configuration").await.json();
    let expected = json!({
        "CleanupDeadServers": true,
        "LastContactThreshold": "200ms",
        "MaxTrailingLogs": 250,
        "MinQuorum": 0,
        "ServerStabilizationTime": "10s",
        "RedundancyZoneTag": "",
        "DisableUpgradeMigration": false,
        "UpgradeVersionTag": "",
        "CreateIndex": 0,
        "ModifyIndex": 0,
        "LastContactRecovery": "150ms",
        "TrailingLogsRecovery": 125,
        "MaxCatchUpTime": "1s",
        "StallThreshold": "2s",
        "StatusMaxAge": "10s",
        "DeadServerLastContactThreshold": "24h0m0s",
        "LeftServerGrace": "10s",
        "JoinGrace": "10m0s",
        "VoterReplacementGrace": "10s",
        "MinMargin": 0,
        "UpgradeTargetVersion": "",
    });
    assert_eq!(body, expected);
}

#[tokio::test(start_paused = true)]
async fn every_field_of_the_configuration_is_on_the_wire() {
    let world = World::new(healthy()).await;
    let body = world.get("/configuration").await.json();
    let ours = serde_json::to_value(Config::for_heartbeat(HEARTBEAT)).unwrap();
    for field in ours.as_object().unwrap().keys() {
        let name = field.replace('_', "");
        let found = body.as_object().unwrap().keys().any(|wire| wire.eq_ignore_ascii_case(&name));
        assert!(found, "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_get_answers_a_put_takes_back() {
    let world = World::new(healthy()).await;
    let mut body = world.get("/configuration").await.json();
    body["MaxTrailingLogs"] = 500.into();
    body["LastContactThreshold"] = "1.5s".into();
    body["RedundancyZoneTag"] = "zone".into();
    let answer = world.put("", body.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "true"));
    let mut read = world.get("/configuration").await.json();
    assert!(read["ModifyIndex"].as_u64().unwrap() > 100);
    assert_eq!(read["CreateIndex"], read["ModifyIndex"]);
    for index in ["CreateIndex", "ModifyIndex"] {
        read[index] = 0.into();
    }
    assert_eq!(read, body);
}

#[tokio::test(start_paused = true)]
async fn a_put_replaces_everything_by_defaults_and_not_by_what_stands() {
    let world = World::new(healthy()).await;
    world.put("", r#"{"MaxTrailingLogs": 9, "CleanupDeadServers": false}"#).await;
    assert_eq!(world.handle.view().config.trailing_logs_recovery, 4);
    // As Consul's client writes what it was not told.
    let answer = world.put("", r#"{"MinQuorum": 3, "LastContactThreshold": null}"#).await;
    assert_eq!(answer.text, "true");
    let expected = Config { min_quorum: 3, ..Config::for_heartbeat(HEARTBEAT) };
    assert_eq!(*world.handle.view().config, expected);
}

#[tokio::test(start_paused = true)]
async fn a_bare_number_is_nanoseconds() {
    let world = World::new(healthy()).await;
    let answer = world.put("", r#"{"LastContactThreshold": 400000000}"#).await;
    assert_eq!(answer.text, "true");
    assert_eq!(world.get("/configuration").await.json()["LastContactThreshold"], "400ms");
}

#[tokio::test(start_paused = true)]
async fn a_threshold_that_consul_knows_carries_those_that_it_does_not() {
    let world = World::new(healthy()).await;
    let answer = world.put("", r#"{"LastContactThreshold": "48h"}"#).await;
    assert_eq!(answer.text, "true", "{answer:?}");
    let body = world.get("/configuration").await.json();
    assert_eq!(body["LastContactRecovery"], "36h0m0s");
    assert_eq!(body["LeftServerGrace"], "48h0m0s");
}

#[tokio::test(start_paused = true)]
async fn cas_compares_with_the_modify_index() {
    let world = World::new(healthy()).await;
    let never_stored = world.put("?cas=0", "{}").await;
    assert_eq!((never_stored.status.as_u16(), never_stored.text.as_str()), (200, "false"));
    assert_eq!(world.put("", "{}").await.text, "true");
    let first = world.get("/configuration").await.json();
    let stands = first["ModifyIndex"].as_u64().unwrap();
    let changed = r#"{"MinQuorum": 3}"#;
    assert_eq!(world.put(&format!("?cas={}", stands - 1), changed).await.text, "false");
    assert_eq!(world.get("/configuration").await.json(), first);
    assert_eq!(world.put(&format!("?dc=dc1&cas={stands}"), changed).await.text, "true");
    let second = world.get("/configuration").await.json();
    assert_eq!(second["MinQuorum"], 3);
    assert_eq!(second["CreateIndex"], first["CreateIndex"]);
    assert!(second["ModifyIndex"].as_u64() > first["ModifyIndex"].as_u64());
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_cluster_answers_429_with_the_body() {
    let world = World::new(healthy()).await;
    world.edit_server("b", |server| server.contact = Some(Duration::from_secs(3))).await;
    let answer = world.get("/health").await;
    assert_eq!(answer.status, 429);
    let body = answer.json();
    assert_eq!((&body["Healthy"], &body["FailureTolerance"]), (&json!(false), &json!(0)));
    let b = &body["Servers"][1];
    assert_eq!(
        (&b["ID"], &b["Healthy"], &b["LastContact"]),
        (&json!("b"), &json!(false), &json!("3s"))
    );
    assert_eq!((&b["Verdict"], &b["Reasons"]), (&json!("unhealthy"), &json!(["contact-lost"])));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_never_in_contact_does_not_look_perfect() {
    let mut seen = healthy();
    let b = &mut seen.servers[1];
    (b.contact, b.matched, b.probe, b.discovery) = (None, None, Probe::Off, None);
    let world = World::new(seen).await;
    let body = world.get("/health").await.json();
    let b = &body["Servers"][1];
    assert_eq!(b["LastContact"], "2562047h47m16.854775807s");
    assert_eq!(durations::parse(b["LastContact"].as_str().unwrap()).unwrap(), durations::MAX);
    assert_eq!((&b["LastTerm"], &b["LastIndex"]), (&json!(0), &json!(0)));
    assert_eq!((&b["Healthy"], &b["Verdict"]), (&json!(false), &json!("unknown")));
    assert_eq!(b["SerfStatus"], "none");
    assert!(b["Reasons"].as_array().unwrap().contains(&json!("no-contact-yet")));
}

#[tokio::test(start_paused = true)]
async fn stability_reads_the_same_in_every_answer_and_moves_with_the_verdict() {
    let world = World::new(healthy()).await;
    let since = async |id: &str| {
        let mut body = world.get("/state").await.json();
        take_stable_since(&mut body["Servers"][id], false)
    };
    let before = since("b").await;
    assert_eq!(since("b").await, before);
    tokio::time::advance(Duration::from_millis(600)).await;
    world.edit_server("b", |server| server.contact = Some(Duration::from_secs(3))).await;
    let (b, c) = (since("b").await, since("c").await);
    assert_eq!(c, before);
    assert!(b.duration_since(before).unwrap() >= Duration::from_millis(600));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_stands_beside_the_server() {
    let world = World::new(healthy()).await;
    world
        .edit_server("d", |server| {
            server.contact = Some(Duration::from_secs(60));
            server.discovery = Some(NodeStatus::Failed);
        })
        .await;
    let body = world.get("/state").await.json();
    let held = &body["Servers"]["d"]["Held"];
    assert_eq!(held.as_array().unwrap().len(), 1, "{body}");
    assert_eq!(held[0]["Step"], "remove d");
    assert_eq!((&held[0]["Kind"], &held[0]["Origin"]), (&json!("remove"), &json!("cleanup")));
    assert_eq!(held[0]["Code"], "grace-runs");
    assert!(held[0]["Why"].as_str().unwrap().contains("of a grace of 1day"));
    assert_eq!(&body["Held"], held);
    assert_eq!(body["Servers"]["b"]["Held"], json!([]));
    let health = world.get("/health").await.json();
    assert_eq!(&health["Servers"][3]["Held"], held);
}

#[tokio::test(start_paused = true)]
async fn a_pause_a_cordon_and_an_intent_are_shown() {
    let world = World::new(healthy()).await;
    world.handle.pause("the network is moved").await.unwrap();
    world.handle.cordon("d", "old disk", None).await.unwrap();
    world.handle.intend("c", IntentKind::Reboot, Duration::from_secs(3600)).await.unwrap();
    world.edit(|_| ()).await;
    let body = world.get("/state").await.json();
    assert_eq!(body["Running"], "paused");
    let idle = json!({ "Code": "paused", "Why": "paused: the network is moved; resume to go on" });
    assert_eq!(body["Idle"], idle);
    assert_eq!(body["Servers"]["d"]["Cordoned"], "old disk");
    assert_eq!(body["Servers"]["c"]["Intent"], "reboot");
}

#[tokio::test(start_paused = true)]
async fn what_autopilot_cannot_see_is_said() {
    let mut seen = healthy();
    seen.ledger = None;
    seen.discovery = None;
    for server in &mut seen.servers {
        (server.probe, server.discovery) = (Probe::Off, None);
    }
    let world = World::new(seen).await;
    let body = world.get("/state").await.json();
    let spots = body["BlindSpots"].as_array().unwrap();
    let codes: Vec<&str> = spots.iter().map(|spot| spot["Code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["no-status-probe", "no-discovery", "no-records"]);
    assert!(spots.iter().all(|spot| spot["What"].is_string()));
    assert_eq!(body["Servers"]["b"]["NodeStatus"], "unknown");
}

#[tokio::test(start_paused = true)]
async fn a_live_voter_whose_probe_is_silent_is_named() {
    let mut seen = healthy();
    let silent = seen.servers.iter_mut().find(|s| s.server.id.as_str() == "b").unwrap();
    silent.probe = Probe::Silent(Duration::from_secs(30));
    let world = World::new(seen).await;
    let body = world.get("/state").await.json();
    let spots = body["BlindSpots"].as_array().unwrap();
    let named: Vec<_> = spots.iter().filter(|spot| spot["Code"] == "silent-probe").collect();
    assert_eq!(named.len(), 1, "{spots:?}");
    assert!(named[0]["What"].as_str().unwrap().starts_with("b counts as a live voter"));
}

#[tokio::test(start_paused = true)]
async fn anybody_answers_for_the_configuration_where_stale_is_good_enough() {
    let world = World::new(following()).await;
    assert_eq!(world.get("/configuration").await.status, 503);
    let answer = world.get("/configuration?stale").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["MaxTrailingLogs"], 250);
}

#[tokio::test(start_paused = true)]
async fn it_is_part_of_an_application_with_a_state_and_paths_of_its_own() {
    let world = World::new(healthy()).await;
    let app =
        Router::new()
            .route(
                "/",
                get(|axum::extract::State(name): axum::extract::State<&'static str>| async move {
                    name
                }),
            )
            .fallback(|| async { "mine" })
            .with_state("database")
            .merge(router(world.handle.clone(), settings()))
            .nest("/raft", router(world.handle.clone(), settings()));
    for prefix in ["", "/raft"] {
        let request =
            Request::get(format!("{prefix}{BASE}/health")).header("x-consul-token", TOKEN);
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200, "{prefix}");
    }
}

/// The status line that a plain client on this machine gets for `/health`.
async fn status_line(address: SocketAddr) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {BASE}/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn over_a_real_socket_loopback_is_known_where_the_application_provides_the_peer() {
    let world = World::new(healthy()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let known = world.app.clone().into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async { axum::serve(listener, known).await });
    assert_eq!(status_line(address).await, "HTTP/1.1 200 OK");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let unknown = world.app.clone();
    tokio::spawn(async { axum::serve(listener, unknown).await });
    assert_eq!(status_line(address).await, "HTTP/1.1 401 Unauthorized");
}
