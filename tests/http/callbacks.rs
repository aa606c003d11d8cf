//! What the application brings along may panic, and the work that it tells may hang: the rest is answered.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use raft_autopilot::{
    autopilot::{
        Config, NodeStatus, NodeType, Probe, Promoter, Removals, ServerExt, ServerId, ServerState,
        State, View, Wishes,
    },
    http::Work,
    runtime::{Runtime, TokioRuntime},
};
use serde_json::{Value, json};

use super::fixture::{World, healthy, settings};

/// Panics where it is asked for one thing.
#[derive(Debug)]
struct Fragile(&'static str);

impl Fragile {
    fn meets(&self, asked: &str) {
        assert!(self.0 != asked, "no server has a soul");
    }
}

impl Promoter for Fragile {
    fn wishes(&self, _: &Config, _: &State) -> Wishes {
        self.meets("wishes");
        Wishes::default()
    }

    fn node_type(&self, _: &Config, _: &State, _: &ServerState) -> NodeType {
        self.meets("node_type");
        NodeType::VOTER
    }

    fn keeps(&self, _: &Config, _: &State, _: &Removals) -> Vec<ServerId> {
        self.meets("keeps");
        Vec::new()
    }

    fn server_ext(&self, _: &Config, _: &State, _: &ServerState) -> ServerExt {
        self.meets("server_ext");
        ServerExt::default()
    }
}

/// What is warned of.
fn warnings(answer: &Value) -> Vec<String> {
    let warnings = answer["Warnings"].as_array().into_iter().flatten();
    warnings.map(|warning| warning.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_promoter_that_panics_for_a_reader_is_warned_of_in_that_answer_and_in_no_other() {
    let world = World::led_by(Fragile("server_ext"), healthy(), settings()).await;
    let expected = "the promoter panicked in `server_ext`: what it would have said is left out, \
                    until it is mended (no server has a soul)";
    for _ in 0..2 {
        let state = world.get("/state").await;
        assert_eq!(
            (state.status.as_u16(), warnings(&state.json())),
            (200, vec![expected.to_owned()])
        );
        assert!(world.handle.view().panics.is_empty(), "no round has met it");
    }
}

#[tokio::test(start_paused = true)]
async fn one_view_read_twice_says_the_same_of_a_promoter_that_panics() {
    for (asked, means) in [
        ("wishes", "no vote moves by its wishes"),
        ("node_type", "what it would have said is left out"),
    ] {
        let world = World::led_by(Fragile(asked), healthy(), settings()).await;
        let view = world.handle.view();
        let (first, second) = (view.explain().unwrap(), view.explain().unwrap());
        assert_eq!(first, second);
        let expected = format!(
            "the promoter panicked in `{asked}`: {means}, until it is mended (no server has a soul)"
        );
        assert_eq!(first.warnings.iter().filter(|w| w.contains("panicked")).count(), 1);
        assert!(first.warnings.contains(&expected), "{:?}", first.warnings);
        assert!(warnings(&world.get("/state").await.json()).contains(&expected));
        assert!(warnings(&world.get("/explain").await.json()).contains(&expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_promoter_that_panics_over_the_dead_is_warned_of_from_then_on() {
    let world = World::led_by(Fragile("keeps"), healthy(), settings()).await;
    assert_eq!(warnings(&world.get("/state").await.json()), [""; 0]);
    world
        .edit_server("d", |d| {
            d.discovery = Some(NodeStatus::Left);
            d.contact = Some(Duration::from_secs(300_000));
            d.probe = Probe::Silent(Duration::from_secs(300_000));
        })
        .await;
    let met = |view: &Arc<View>| !view.panics.is_empty();
    world.handle.watch().wait_for(met).await.unwrap();
    let view = world.handle.view();
    let [panic] = &view.panics[..] else { panic!("{:?}", view.panics) };
    assert_eq!((panic.asked, &*panic.said), ("keeps", "no server has a soul"));
    let told = warnings(&world.get("/state").await.json());
    assert!(told.iter().any(|w| w.contains("`keeps`: all the dead are kept")), "{told:?}");
}

/// Panics over what is later than that.
#[derive(Debug)]
struct Shortsighted(Duration);

impl Promoter for Shortsighted {
    fn wishes(&self, _: &Config, state: &State) -> Wishes {
        assert!(state.at <= self.0, "no day has a morrow");
        Wishes::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_asks_about_the_future_says_nothing_of_what_is_wished_now() {
    let end = TokioRuntime.now() + Duration::from_secs(3_600);
    let world = World::led_by(Shortsighted(end), healthy(), settings()).await;
    world
        .edit_server("d", |d| {
            d.discovery = Some(NodeStatus::Failed);
            d.contact = Some(Duration::from_secs(60));
            d.probe = Probe::Silent(Duration::from_secs(60));
        })
        .await;
    for path in ["/explain", "/explain/d"] {
        assert_eq!(
            warnings(&world.get(path).await.json()),
            ["the promoter panicked in `wishes`: what it would have said is left out, until it \
                 is mended (no day has a morrow)"]
        );
    }
    assert!(world.handle.view().panics.is_empty());
}

/// Work that is told when it is let go.
fn gated(gate: mpsc::Receiver<()>) -> impl Fn() -> Work + Send + Sync + 'static {
    let gate = Mutex::new(gate);
    move || {
        let _ = gate.lock().unwrap().recv();
        Some((json!("all"), [(ServerId::from("a"), json!("one"))].into()))
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_is_told_stands_beside_the_servers_and_beside_the_whole() {
    let (open, gate) = mpsc::channel();
    open.send(()).unwrap();
    let tell = gated(gate);
    let world = World::with(healthy(), settings().with_work(move |_| tell())).await;
    let state = world.get("/state").await.json();
    assert_eq!((&state["Work"], &state["Servers"]["a"]["Work"]), (&json!("all"), &json!("one")));
    assert_eq!(state["Servers"]["b"].get("Work"), None);
}

#[tokio::test(start_paused = true)]
async fn work_that_hangs_is_left_out_for_every_reader_and_asked_for_once() {
    let (open, gate) = mpsc::channel();
    let tell = gated(gate);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let tell = move |_: &[&_]| {
        count.fetch_add(1, Ordering::Relaxed);
        tell()
    };
    let world = Arc::new(World::with(healthy(), settings().with_work(tell)).await);
    let read = |world: &Arc<World>| {
        let world = Arc::clone(world);
        tokio::spawn(async move { world.get("/state").await })
    };
    let readers = [read(&world), read(&world)];
    while asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    // Time stands while a thread works, unless it is pushed.
    while readers.iter().any(|reader| !reader.is_finished()) {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    for reader in readers {
        let answer = reader.await.unwrap();
        let told = warnings(&answer.json());
        assert_eq!((answer.status.as_u16(), answer.json().get("Work")), (200, None));
        let expected = "the work of the servers is left out: it was not told within 5s";
        assert!(told.contains(&expected.to_owned()), "{told:?}");
    }
    // Time stands, so whoever waits would wait for ever.
    assert_eq!(world.get("/state").await.json().get("Work"), None);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the others would hang as well");
    drop(open);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_deposed_while_its_work_is_told_does_not_answer() {
    let (open, gate) = mpsc::channel();
    let (tell, asked) = (gated(gate), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&asked);
    let tell = move |_: &[&_]| {
        told.store(true, Ordering::Relaxed);
        tell()
    };
    let world = Arc::new(World::with(healthy(), settings().with_work(tell)).await);
    let reading = Arc::clone(&world);
    let reader = tokio::spawn(async move { reading.get("/state").await });
    while !asked.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    world.edit(|seen| (seen.leader, seen.leading) = (Some("b".into()), None)).await;
    open.send(()).unwrap();
    assert_eq!(reader.await.unwrap().status, 503);
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_is_left_out_and_warned_of() {
    let world =
        World::with(healthy(), settings().with_work(|_| panic!("no shelf has an end"))).await;
    let state = world.get("/state").await;
    let told = warnings(&state.json());
    assert_eq!((state.status.as_u16(), state.json().get("Work")), (200, None));
    assert!(told.iter().any(|w| w.contains("left out") && w.contains("an end")), "{told:?}");
}
