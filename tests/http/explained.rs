//! `/explain`: one current answer for each server, and what comes next.

use axum::http::StatusCode;
use serde_json::json;

use super::fixture::{World, healthy};

#[tokio::test(start_paused = true)]
async fn every_server_has_one_answer_with_code_and_words() {
    let world = World::new(healthy()).await;
    let body = world.get("/explain").await.json();
    assert_eq!(body["Summary"], "healthy; a leads; 3 of 4 vote; 1 may fail");
    assert_eq!(body["Servers"]["a"]["Code"], "leads");
    assert_eq!(body["Servers"]["b"]["Code"], "votes");
    assert_eq!(body["Servers"]["d"]["Code"], "not-stable");
    assert_eq!(body["MayFail"], json!(["a", "b", "c", "d"]));
    assert_eq!(body["Next"]["Words"], "promote d");
    assert!(body["Next"]["After"].as_str().unwrap().ends_with('s'), "{body}");
    assert_eq!(body["Warnings"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn two_voters_are_warned_of() {
    let mut seen = healthy();
    seen.servers.truncate(2);
    let world = World::new(seen).await;
    let words = "two voters: the loss of either stops the cluster; add a third, or a witness";
    for path in ["/explain", "/state"] {
        assert_eq!(world.get(path).await.json()["Warnings"], json!([words]), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_server_is_answered_for() {
    let world = World::new(healthy()).await;
    let answer = world.get("/explain/d").await.json();
    assert_eq!(answer["ID"], "d");
    assert_eq!(answer["Code"], "not-stable");
    let words = answer["Words"].as_str().unwrap();
    assert!(words.contains("of 10s stable"), "{words}");
    let stranger = world.get("/explain/zed").await;
    assert_eq!(stranger.status, StatusCode::NOT_FOUND);
    assert_eq!(
        stranger.json()["Error"],
        "no server has the id zed; nothing was changed: name one that `/state` lists"
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_explains_nothing_and_points_to_the_leader() {
    let mut seen = healthy();
    seen.leading = None;
    seen.leader = Some("b".into());
    let answer = World::new(seen).await.get("/explain").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["Leader"], "b");
}
