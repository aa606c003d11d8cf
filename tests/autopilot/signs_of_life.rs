//! A sign of life ends a silence, whoever was judged meanwhile, and the ledger has nothing for longer than it stands.

use std::time::Duration;

use raft_autopilot::{
    autopilot::{NodeStatus, Probe, Sign, State, Verdict},
    promoters::Stable,
    runtime::{Runtime, TokioRuntime},
};

use crate::{
    host::{Host, LEARNER, healthy, until},
    support::{HEARTBEAT, World, status, time},
};

/// For how long replication has not heard from 4.
fn silence(state: &State) -> Duration {
    let since = state.server(&"4".into()).unwrap().signs.contact;
    state.at.saturating_sub(since.unwrap())
}

#[test]
fn who_is_heard_while_nobody_is_judged_is_not_silent_from_before() {
    let mut world = World::of("1 leader\n2\n3\n4 learner alive lost=23h59m silent=23h59m");
    assert!(silence(&world.pass(time("1s"))) >= time("23h59m"));
    // Without a lease the leader hears it, and it falls silent again before the lease is back.
    world.seen.leading.as_mut().unwrap().lease = false;
    world.server("4").contact = Some(Duration::ZERO);
    world.server("4").probe = Probe::Answered(status(7, 1_000, 1_000, 1_000));
    world.pass(time("2s"));
    world.server("4").contact = Some(time("2s"));
    world.server("4").probe = Probe::Silent(time("1s"));
    world.pass(HEARTBEAT);
    world.seen.leading.as_mut().unwrap().lease = true;
    let state = world.pass(HEARTBEAT);
    assert!(silence(&state) <= time("2s"), "{:?}", silence(&state));
    let probe = state.server(&"4".into()).unwrap().signs.probe.unwrap();
    assert!(state.at.saturating_sub(probe) <= time("2s"));
}

#[test]
fn who_is_heard_between_two_rounds_is_not_silent_from_before() {
    let mut world = World::of("1 leader\n2\n3\n4 learner lost=23h59m silent=23h59m");
    world.pass(time("2s"));
    world.server("4").contact = Some(time("1s"));
    let state = world.pass(HEARTBEAT);
    assert_eq!(silence(&state), time("1s"));
}

/// How long ago, by the ledger, something of 4 began.
fn recorded(
    host: &Host,
    of: impl Fn(&raft_autopilot::autopilot::ServerRecord) -> Duration,
) -> Duration {
    let inner = host.inner();
    let ledger = inner.world.ledger.as_ref().unwrap();
    TokioRuntime.now().saturating_sub(of(&ledger.servers["4"]))
}

#[tokio::test(start_paused = true)]
async fn a_history_that_was_interrupted_between_two_records_is_recorded_anew() {
    let host = Host::new(LEARNER);
    let handle = host.run(Stable::with_target(3), |_| {});
    healthy(&handle).await;
    TokioRuntime.sleep(time("7s")).await;
    let age = || recorded(&host, |record| record.applied_at.unwrap());
    assert!(age() >= time("6s"), "{:?}", age());
    // One record a second: that of 3 is the last before 4 has been sick and is well again.
    let count = host.inner().records.len();
    host.inner().server("3").contact = Some(time("1s"));
    until("3 is recorded", || host.inner().records.len() > count).await;
    let verdict = || handle.state().unwrap().server(&"4".into()).unwrap().health.verdict;
    host.inner().server("4").contact = Some(time("1s"));
    until("it is sick", || verdict() == Verdict::Unhealthy).await;
    host.inner().server("4").contact = Some(Duration::ZERO);
    until("it is well", || verdict() == Verdict::Healthy).await;
    let since = TokioRuntime.now();
    assert_eq!(host.inner().records.len(), count + 1);
    TokioRuntime.sleep(time("3s")).await;
    let truly = TokioRuntime.now().saturating_sub(since);
    assert!(age() <= truly + time("10ms"), "{:?} of {truly:?}", age());
}

#[tokio::test(start_paused = true)]
async fn time_without_a_leader_is_counted_by_no_leader_after_it() {
    let host = Host::new("1 leader\n2\n3\n4 learner lost=1h");
    let handle = host.run(Stable::with_target(3), |_| {});
    let sign = |record: &raft_autopilot::autopilot::ServerRecord| {
        assert_eq!(record.signs, [Sign::Contact]);
        record.signs_at.contact.unwrap()
    };
    until("it is recorded", || {
        let known = |ledger: &raft_autopilot::autopilot::Ledger| {
            ledger.servers.get("4").is_some_and(|record| !record.signs.is_empty())
        };
        host.inner().world.ledger.as_ref().is_some_and(known)
    })
    .await;
    TokioRuntime.sleep(time("20s")).await;
    assert!(recorded(&host, sign) >= time("20s"));
    // Of those 20 s nobody led for 9.
    {
        let inner = &mut *host.inner();
        let leading = inner.world.seen.leading.as_mut().unwrap();
        (leading.term, leading.since, leading.gap) = (6, TokioRuntime.now(), time("9s"));
    }
    host.0.1.notify_one();
    TokioRuntime.sleep(time("3s")).await;
    let state = handle.state().unwrap();
    assert!(silence(&state) < time("15s"), "{:?}", silence(&state));
    let found = recorded(&host, sign);
    assert!(found < time("15s"), "the next leader would count {found:?}");
}

#[test]
fn discovery_that_fails_itself_interrupts_its_sign_and_does_not_end_it() {
    let mut world = World::of("1 leader alive\n2\n3\n4 learner lost=30h failed=23h\n5");
    let told = |state: &State| {
        let since = state.server(&"4".into()).unwrap().signs.discovery;
        since.map(|since| state.at.saturating_sub(since))
    };
    assert_eq!(told(&world.pass(time("10s"))), Some(time("23h")));
    // It hangs for an hour: what it said does not count, and the hour does not either.
    world.seen.discovery = Some(time("11s"));
    for _ in 0..360 {
        assert_eq!(told(&world.pass(time("10s"))), None);
    }
    world.seen.discovery = Some(Duration::ZERO);
    assert_eq!(told(&world.pass(time("10s"))), Some(time("23h 10s")));
    assert_eq!(told(&world.pass(time("10s"))), Some(time("23h 20s")));
    // It lists too few to be believed, and then the server as alive: that ends it.
    let forget = |world: &mut World, forgotten: bool| {
        for server in world.seen.servers.iter_mut().filter(|s| s.server.id.as_str() != "1") {
            server.discovery = (!forgotten).then_some(NodeStatus::Alive);
        }
    };
    forget(&mut world, true);
    assert_eq!(told(&world.pass(time("10s"))), None);
    forget(&mut world, false);
    assert_eq!(told(&world.pass(time("10s"))), None);
    world.server("4").discovery = Some(NodeStatus::Failed);
    assert_eq!(told(&world.pass(time("10s"))), Some(Duration::ZERO));
}
