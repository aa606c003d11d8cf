//! Key ranges follow the health of real processes that are stopped, killed and drained.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, time::sleep};

use crate::process::{
    Server, anew, check, count_voters, of, order, take_leader, thinks, thought, write,
};

const RANGES: u64 = 48;

/// So many servers, all of which vote, and which share all ranges.
pub(crate) async fn cluster(dirs: &[TempDir]) -> Vec<Server> {
    cluster_with(dirs, &[]).await
}

pub(crate) async fn cluster_with(dirs: &[TempDir], more: &[&str]) -> Vec<Server> {
    cluster_of(dirs, |dir, seed| anew(dir, &[more, seed].concat())).await
}

/// The same, each started by a command that is told its directory and whom to join.
pub(crate) async fn cluster_of(
    dirs: &[TempDir],
    command: impl Fn(&Path, &[&str]) -> Command,
) -> Vec<Server> {
    let mut servers = vec![Server::spawn(command(dirs[0].path(), &[])).await];
    for dir in &dirs[1..] {
        let seed = servers[0].addr.clone();
        servers.push(Server::spawn(command(dir.path(), &["--seed", &seed])).await);
    }
    thought(&servers, "all vote, and share all ranges", |state| {
        count_voters(state) == dirs.len() && settled(state) && holders(state) == dirs.len()
    })
    .await;
    servers
}

pub(crate) fn work<'a>(state: &'a Value, id: u64, field: &str) -> &'a Value {
    &state["Servers"][id.to_string()]["Work"][field]
}

pub(crate) fn number(state: &Value, id: u64, field: &str) -> u64 {
    work(state, id, field).as_u64().unwrap_or(0)
}

/// Whether every range has two replicas, and nothing moves.
pub(crate) fn settled(state: &Value) -> bool {
    let cluster = &state["Work"];
    cluster["Replicas"] == 2 * RANGES
        && cluster["Doing"].as_object().is_some_and(serde_json::Map::is_empty)
}

fn holders(state: &Value) -> usize {
    let servers = state["Servers"].as_object().unwrap();
    servers.values().filter(|server| server["Work"]["Items"].as_u64() > Some(0)).count()
}

/// How many ranges each server holds, and of how many it is the primary.
pub(crate) fn loads(state: &Value) -> BTreeMap<u64, (u64, u64)> {
    let servers = state["Servers"].as_object().unwrap();
    let ids = servers.keys().map(|id| id.parse().unwrap());
    ids.map(|id| (id, (number(state, id, "Items"), number(state, id, "Primaries")))).collect()
}

pub(crate) async fn signal(server: &Server, name: &str) {
    let pid = server.pid().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
}

/// The one of these that does not lead, with the greatest id.
pub(crate) async fn follower(servers: &[Server]) -> &Server {
    let state = thought(servers, "somebody leads", |_| true).await;
    let leader: u64 = state["Leader"].as_str().unwrap().parse().unwrap();
    servers.iter().rev().find(|server| server.id != leader).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_five_seconds_moves_no_range_and_gives_primaries_back() {
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let servers = cluster(&dirs).await;
    let paused = follower(&servers).await;
    let before = loads(&thinks(&servers).await.unwrap())[&paused.id];
    assert!(before.1 > 0, "it is the primary of some");
    signal(paused, "-STOP").await;
    let others: Vec<&Server> = servers.iter().filter(|server| server.id != paused.id).collect();
    let state = thought(&others, "its primaries are handed over", |state| {
        number(state, paused.id, "Primaries") == 0
    })
    .await;
    assert_eq!(work(&state, paused.id, "Standing"), "no_primaries");
    assert_eq!(number(&state, paused.id, "Items"), before.0, "its replicas stay");
    let why = work(&state, paused.id, "Why").as_str().unwrap();
    assert!(why.starts_with("unhealthy for 2s: contact lost"), "{why}");
    sleep(Duration::from_secs(2)).await;
    signal(paused, "-CONT").await;
    let state = thought(&servers, "it has as many primaries as the others again", |state| {
        work(state, paused.id, "Standing") == "full" && settled(state) && {
            let primaries: Vec<u64> = loads(state).values().map(|load| load.1).collect();
            primaries.iter().max().unwrap() - primaries.iter().min().unwrap() <= 1
        }
    })
    .await;
    assert_eq!(number(&state, paused.id, "Items"), before.0, "none of its replicas has moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ranges_of_a_dead_server_are_replicated_again_and_can_be_read_all_the_time() {
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let mut servers = cluster(&dirs).await;
    let keys: Vec<String> = (0..60).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        write(&[&servers[0]], key).await;
    }
    let dead = follower(&servers).await.id;
    let at = servers.iter().position(|server| server.id == dead).unwrap();
    servers.swap_remove(at).kill().await;
    check(&servers[0], &keys).await;
    let state = thought(&servers, "its ranges are elsewhere", |state| {
        number(state, dead, "Items") == 0 && settled(state)
    })
    .await;
    assert_eq!(holders(&state), 4);
    check(&servers[0], &keys).await;
    // It comes back, and gets its share.
    let dir = &dirs[usize::try_from(dead - 1).unwrap()];
    servers.push(Server::start(dir.path(), &[]).await);
    thought(&servers, "it has its share again", |state| {
        let items: Vec<u64> = loads(state).values().map(|load| load.0).collect();
        settled(state)
            && work(state, dead, "Standing") == "full"
            && items.iter().max().unwrap() - items.iter().min().unwrap() <= 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_while_its_lease_lives_is_drained_step_by_step() {
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let servers = cluster(&dirs).await;
    let stopped = follower(&servers).await;
    signal(stopped, "-STOP").await;
    let others: Vec<&Server> = servers.iter().filter(|server| server.id != stopped.id).collect();
    // After 8 s, and its lease lives for 15.
    let state = thought(&others, "it has shed some", |state| {
        let shed = work(state, stopped.id, "Standing")["shed"].as_u64();
        shed > Some(0) && number(state, stopped.id, "Items") < 19
    })
    .await;
    assert_eq!(work(&state, stopped.id, "Stands"), true, "its lease lives");
    assert!(number(&state, stopped.id, "Items") > 0, "not everything goes at once");
    signal(stopped, "-CONT").await;
    thought(&servers, "it has its share again", |state| {
        settled(state) && work(state, stopped.id, "Standing") == "full" && holders(state) == 5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_plans_and_is_stopped_hands_its_primaries_over_by_anothers_plan() {
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let servers = cluster(&dirs).await;
    let state = thought(&servers, "somebody plans, and another leads", |_| true).await;
    let planner = state["Work"]["Planner"].as_str().unwrap().to_owned();
    let plans = |id: u64| work(&state, id, "Member") == planner.as_str();
    let stopped = servers.iter().find(|server| plans(server.id)).unwrap();
    if state["Leader"].as_str() == Some(&*stopped.id.to_string()) {
        let heir = servers.iter().find(|server| server.id != stopped.id).unwrap().id;
        assert!(order(stopped, &format!("transfer/{heir}")).await);
        thought(&servers, "another leads", |state| {
            state["Leader"].as_str() == Some(&*heir.to_string())
        })
        .await;
    }
    signal(stopped, "-STOP").await;
    let others: Vec<&Server> = servers.iter().filter(|server| server.id != stopped.id).collect();
    let state = thought(&others, "another plans, and takes its primaries", |state| {
        state["Work"]["Planner"].as_str() != Some(&planner)
            && number(state, stopped.id, "Primaries") == 0
    })
    .await;
    assert_eq!(work(&state, stopped.id, "Stands"), true, "its lease lives");
    assert!(number(&state, stopped.id, "Items") > 0, "its replicas stay");
    signal(stopped, "-CONT").await;
    thought(&servers, "it has its share again, and plans", |state| {
        settled(state) && holders(state) == 5 && state["Work"]["Planner"].as_str() == Some(&planner)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_autopilots_leader_in_the_middle_drains_nobody_else() {
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let mut servers = cluster(&dirs).await;
    let stopped = follower(&servers).await.id;
    let at = servers.iter().position(|server| server.id == stopped).unwrap();
    signal(&servers[at], "-STOP").await;
    let seen = thought(&servers, "its primaries are handed over", |state| {
        number(state, stopped, "Primaries") == 0
    })
    .await;
    let leader: u64 = seen["Leader"].as_str().unwrap().parse().unwrap();
    // Two of five are bad now: nobody loses anything by that, and what was taken stays taken.
    let at = servers.iter().position(|server| server.id == leader).unwrap();
    servers.swap_remove(at).kill().await;
    // Whoever is stopped takes long not to answer, and this is seen until its lease has ended.
    let others: Vec<&Server> = servers.iter().filter(|server| server.id != stopped).collect();
    let state = thought(&others, "somebody else leads, and sees both", |state| {
        let hold = state["Work"]["Hold"].as_str().unwrap_or_default();
        state["Leader"].as_str() != Some(&*leader.to_string()) && hold.contains("look bad at once")
    })
    .await;
    for server in others {
        assert_eq!(work(&state, server.id, "Standing"), "full", "{}", server.id);
    }
    let at = servers.iter().position(|server| server.id == stopped).unwrap();
    signal(&servers[at], "-CONT").await;
    thought(&servers, "all is well again but for the dead one", |state| {
        work(state, stopped, "Standing") == "full"
            && number(state, leader, "Items") == 0
            && settled(state)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_server_hands_its_ranges_over_and_gets_them_back() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let servers = cluster(&dirs).await;
    let drained = follower(&servers).await.id;
    assert!(order(&servers[0], &format!("drain/{drained}")).await);
    let state = thought(&servers, "it holds nothing", |state| {
        number(state, drained, "Items") == 0 && settled(state)
    })
    .await;
    assert_eq!(work(&state, drained, "Why"), "drained by an operator");
    assert_eq!(of(&state, drained, "Verdict"), "healthy");
    assert!(order(&servers[0], &format!("undrain/{drained}")).await);
    thought(&servers, "it has its share again", |state| {
        holders(state) == 3 && settled(state) && work(state, drained, "Standing") == "full"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_leave_hands_over_ranges_and_leadership_and_stops() {
    let dirs = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let mut servers = cluster(&dirs).await;
    let mut leader = take_leader(&mut servers).await;
    signal(&leader, "-TERM").await;
    let ended = leader.ended().await;
    assert!(ended.success(), "{ended}");
    // Nobody has to find out that it is gone.
    let state = thought(&servers, "another leads, and all ranges are held", |state| {
        state["Leader"].as_str() != Some(&*leader.id.to_string())
            && settled(state)
            && holders(state) == 4
    })
    .await;
    assert_eq!(number(&state, leader.id, "Items"), 0);
}

#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_gone_for_a_minute_takes_no_vote_and_no_standing_and_ranges_come_back() {
    let etcd = crate::etcd::Server::start().await;
    let address = format!("http://{}", etcd.socket());
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let servers = cluster_with(&dirs, &["--etcd", &address]).await;
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        write(&[&servers[0]], key).await;
    }
    let before = thinks(&servers).await.unwrap();
    etcd.freeze();
    for _ in 0..6 {
        sleep(Duration::from_secs(10)).await;
        // Whoever holds a range or not: what was written can be read, and nobody is drained.
        check(&servers[1], &keys).await;
        let state = thought(&servers, "somebody leads", |_| true).await;
        assert_eq!((&state["Leader"], count_voters(&state)), (&before["Leader"], 3));
        for server in &servers {
            assert_eq!(work(&state, server.id, "Standing"), "full", "{}", server.id);
        }
    }
    etcd.thaw();
    thought(&servers, "all ranges are held again", |state| settled(state) && holders(state) == 3)
        .await;
    check(&servers[2], &keys).await;
}
