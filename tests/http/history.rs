//! What was done and held back, as it is answered: newest first, each with its reason, and not too many.

use std::time::Duration;

use raft_autopilot::autopilot::History;
use serde_json::{Value, json};

use crate::fixture::{World, following, healthy};

fn decisions(answer: &Value) -> &Vec<Value> {
    answer["Decisions"].as_array().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_decision_is_told_with_its_reason_and_the_newest_first() {
    let world = World::new(healthy()).await;
    world.handle.pause("lunch").await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    world.handle.resume().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let answer = world.get("/history").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let mut body = answer.json();
    assert_eq!((&body["Node"], &body["Running"]), (&json!("a"), &json!("leading")));
    for decision in body["Decisions"].as_array_mut().unwrap() {
        let time = decision.as_object_mut().unwrap().remove("Time").unwrap();
        humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
        let why = decision.as_object_mut().unwrap().remove("Why").unwrap();
        assert!(!why.as_str().unwrap().is_empty());
    }
    let decision = |number: u64, code: &str| {
        json!({
            "Number": number, "Took": "0s", "Step": "promote d", "Kind": "votes",
            "Origin": "promoter", "Code": code, "Reasons": {},
        })
    };
    // Eligible while paused; and then the host, which moves nothing in this test.
    let told = [decision(3, "backing-off"), decision(2, "moved"), decision(1, "paused")];
    assert_eq!(decisions(&body), &told);
}

#[tokio::test(start_paused = true)]
async fn a_forced_order_and_what_spoke_against_it_are_told() {
    let world = World::new(healthy()).await;
    world.edit_server("c", |server| server.contact = Some(Duration::from_secs(5))).await;
    let forced = world.handle.clone().forced("it smells").within(Duration::from_secs(2));
    forced.remove("c").await.unwrap_err();
    let body = world.get("/history").await.json();
    let order = decisions(&body).iter().find(|decision| decision["Origin"] == "operator").unwrap();
    assert_eq!(order["Step"], "remove c");
    assert_eq!(order["Force"], "it smells");
    assert_eq!(order["Reasons"], json!({ "c": ["contact-lost"] }));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_last_64_are_kept_and_numbers_tell_how_many_were() {
    let world = World::new(healthy()).await;
    // The host says of the same promotion again and again that something has moved.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let body = world.get("/history").await.json();
    let decisions = decisions(&body);
    assert_eq!(decisions.len(), History::LEN);
    let number = |decision: &Value| decision["Number"].as_u64().unwrap();
    assert!(number(&decisions[0]) > 64, "{}", decisions[0]);
    assert!(decisions.windows(2).all(|pair| number(&pair[0]) == number(&pair[1]) + 1));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_led_before_still_tells_and_one_that_never_did_has_nothing() {
    let world = World::new(healthy()).await;
    world.edit_server("c", |server| server.contact = Some(Duration::from_secs(5))).await;
    world.edit(|seen| *seen = following()).await;
    let body = world.get("/history").await.json();
    assert_eq!((&body["Running"], decisions(&body).len()), (&json!("standing-by"), 1));
    assert_eq!(decisions(&body)[0]["Code"], "too-few-signs");
    let world = World::new(following()).await;
    let body = world.get("/history").await.json();
    assert_eq!((&body["Running"], decisions(&body).len()), (&json!("standing-by"), 0));
}
