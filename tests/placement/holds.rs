//! When nothing is published: while autopilot is paused, only observes, or its host does not answer.

use std::time::Duration;

use raft_autopilot::{
    allocator::Standing,
    autopilot::IntentKind,
    placement::{Graded, Handle, Hold, Keys, Options, Placement, Published},
    runtime::{Runtime, TokioRuntime},
    store::{Embedded, KeyRange, RangeRequest, Store, machine},
};

use crate::{
    host::until,
    published::{falls_silent, is_well_again, key, members, node, node_with, stored},
};

fn store() -> Embedded {
    Embedded::new(machine::Config::default(), TokioRuntime)
}

fn words(published: &Published) -> String {
    published.hold.as_ref().map_or_else(String::new, ToString::to_string)
}

async fn holds(handle: &Handle, begin: &str) {
    until(begin, || words(&handle.published()).starts_with(begin)).await;
}

#[tokio::test(start_paused = true)]
async fn while_autopilot_is_paused_nothing_is_published_and_the_pause_is_named() {
    let store = store();
    let members = members(&store, ["1", "2", "3", "4", "5"], None).await;
    let (host, handle, autopilot) = node_with(&store, 5, members[0].clone(), |_| {});
    until("it is published", || handle.published().notices.len() == 5).await;
    autopilot.pause("the disks are counted").await.unwrap();
    holds(&handle, "autopilot is paused: the disks are counted").await;
    // Neither what is seen nor what is said changes anything.
    falls_silent(&host, "3");
    autopilot.intend("4", IntentKind::Drain, Duration::from_secs(600)).await.unwrap();
    TokioRuntime.sleep(Duration::from_secs(120)).await;
    assert!(stored(&store).await.1.is_empty());
    assert!(words(&handle.published()).contains("drains and cordons wait until it is resumed"));
    autopilot.resume().await.unwrap();
    let standing = |id: &str| handle.published().notices[&key(id)].standing;
    until("both are heard", || {
        standing("3") == Standing::Gone && standing("4") == Standing::Shed(100)
    })
    .await;
    assert_eq!(handle.published().hold, None);
}

#[tokio::test(start_paused = true)]
async fn an_autopilot_that_only_observes_publishes_nothing_and_says_so() {
    let store = store();
    let members = members(&store, ["1", "2", "3", "4", "5"], None).await;
    let (host, handle, _) =
        node_with(&store, 5, members[0].clone(), |options| options.observer = true);
    falls_silent(&host, "3");
    holds(&handle, "autopilot only observes here").await;
    TokioRuntime.sleep(Duration::from_secs(60)).await;
    assert!(handle.published().notices.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_nobody_renews_gives_nothing_back() {
    let store = store();
    let members = members(&store, ["1", "2", "3", "4", "5"], None).await;
    let (host, handle) = node(&store, 5, members[0].clone());
    until("it is published", || handle.published().notices.len() == 5).await;
    falls_silent(&host, "3");
    let standing = || handle.published().notices[&key("3")].standing;
    until("it is judged", || standing() == Standing::Gone).await;
    is_well_again(&host, "3");
    until("it gets something back", || matches!(standing(), Standing::Shed(_))).await;
    let before = standing();
    // The next steps would follow by time alone.
    host.inner().hangs = true;
    holds(&handle, "the last round of autopilot was ").await;
    TokioRuntime.sleep(Duration::from_secs(120)).await;
    assert_eq!(standing(), before);
    host.inner().hangs = false;
    host.0.1.notify_one();
    until("it has all again", || standing() == Standing::Full).await;
    assert_eq!(handle.published().hold, None);
}

/// Two leaders of one term, as some hosts know them: the later one has a greater id.
#[tokio::test(start_paused = true)]
async fn what_the_first_leader_of_a_term_writes_late_is_refused_too() {
    let store = store();
    let members = members(&store, ["1", "2", "3", "4", "5"], None).await;
    let (old_host, old) = node(&store, 5, members[0].clone());
    until("the old leader publishes", || old.published().notices.len() == 5).await;
    let (_, new) = node(&store, 5, members[1].clone());
    until("the new leader publishes", || {
        new.published().notices.len() == 5 && new.published().hold.is_none()
    })
    .await;
    TokioRuntime.sleep(Duration::from_millis(100)).await;
    // To the old one alone a server looks dead.
    falls_silent(&old_host, "4");
    let refused = Some(Hold::Superseded { term: 5, key: "/standings/term".to_owned() });
    until("the old leader hears it", || old.published().hold == refused).await;
    assert!(stored(&store).await.1.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_share_of_more_than_all_is_refused_by_name() {
    let options = Options { max_share_percent: 101, ..Options::new("/standings") };
    let made = Placement::new(store(), TokioRuntime, Graded::default(), options);
    let error = made.unwrap_err().to_string();
    assert!(error.starts_with("max_share_percent is 101"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_removed_servers_leaves_the_store() {
    let store = store();
    let members = members(&store, ["1", "2"], None).await;
    // Of five servers, two of which are members.
    let (host, handle) = node(&store, 5, members[0].clone());
    until("it is published", || handle.published().notices.len() == 5).await;
    host.inner().world.seen.servers.retain(|server| server.server.id.as_str() != "4");
    host.0.1.notify_one();
    until("it is forgotten", || handle.published().notices.len() == 4).await;
    assert!(!handle.published().notices.contains_key(&key("4")));
    let notice = KeyRange::key(Keys::new("/standings").server(&key("4")));
    let found = store.range(RangeRequest::new(notice)).await.unwrap();
    assert_eq!(found.items.len(), 0);
}
