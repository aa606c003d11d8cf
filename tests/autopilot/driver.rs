//! The driver over a host in memory, in paused time: what hangs, what is slow, and what is tried again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use raft_autopilot::{
    autopilot::{
        Autopilot, ClusterError, Config, Handle, Options, Probe, Promoter, Record, Removals, Role,
        Running, ServerId, State, Task, VerbError, Why, Wishes,
    },
    promoters::{Preferred, Stable},
    runtime::{Runtime, TokioRuntime},
};

use crate::{
    host::{Host, LEARNER, healthy, until},
    support::{HEARTBEAT, time},
};

// What hangs, and what takes longer than it may.

#[tokio::test(start_paused = true)]
async fn an_observation_that_hangs_is_given_up_and_costs_no_stability_when_it_is_one() {
    let host = Host::new("1 leader\n2\n3");
    let handle = host.run(Stable::new(), |_| {});
    healthy(&handle).await;
    TokioRuntime.sleep(time("20s")).await;
    let since =
        |handle: &Handle| handle.state().unwrap().server(&"2".into()).unwrap().health.healthy_since;
    let begin = since(&handle);
    host.inner().hangs = true;
    let before = host.inner().observations;
    until("one hangs", || host.inner().observations > before).await;
    host.inner().hangs = false;
    TokioRuntime.sleep(time("5s")).await;
    assert_eq!(since(&handle), begin, "one observation may be missed");
    // Verbs are heard between those that hang, and told in time.
    host.inner().hangs = true;
    let asked = TokioRuntime.now();
    assert_eq!(handle.pause("a test").await, Ok(()));
    let removed = handle.clone().within(time("3s")).remove("3").await;
    assert!(matches!(removed, Err(VerbError::Deadline { .. })), "{removed:?}");
    assert!(TokioRuntime.now().saturating_sub(asked) < time("8s"));
    assert_eq!(host.done(), [""; 0]);
    // Time in which nothing was seen is no stability, and the ledger is told.
    TokioRuntime.sleep(time("1m")).await;
    host.inner().hangs = false;
    TokioRuntime.sleep(time("5s")).await;
    assert!(since(&handle) > begin);
    let lapses: Vec<Duration> = host
        .inner()
        .records
        .iter()
        .filter_map(|r| if let Record::Lapse(time) = r { Some(*time) } else { None })
        .collect();
    assert!(matches!(lapses[..], [lapse] if lapse >= time("1m")), "{lapses:?}");
}

#[tokio::test(start_paused = true)]
async fn autopilot_stops_at_once_though_an_observation_hangs() {
    let host = Host::new("1 leader\n2\n3");
    host.inner().hangs = true;
    let options = Options { observe_deadline: time("20s"), ..Options::for_heartbeat(HEARTBEAT) };
    let (autopilot, handle) = Autopilot::new(host, TokioRuntime, Stable::new(), options).unwrap();
    let begin = TokioRuntime.now();
    autopilot.run(TokioRuntime.sleep(time("3s"))).await;
    assert_eq!(TokioRuntime.now().saturating_sub(begin), time("3s"));
    assert_eq!(handle.running(), Running::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_outlives_its_deadline_is_not_cancelled_and_not_done_twice() {
    let host = Host::new(LEARNER);
    host.inner().takes = time("25s");
    let handle = host.run(Stable::new(), |options| options.step_deadline = time("10s"));
    until("it is under way", || matches!(handle.view().plan.idle, Some(Why::InFlight(_)))).await;
    let begin = TokioRuntime.now();
    let held = || handle.view().plan.held.iter().map(|held| held.why.to_string()).collect();
    let said = |held: Vec<String>| held.iter().any(|why| why.contains("no outcome in time"));
    until("it is said", || said(held())).await;
    let late = TokioRuntime.now().saturating_sub(begin);
    // It is seen under way a heartbeat after it began.
    assert!(late >= time("9900ms") && late < time("11s"), "{late:?}");
    assert_eq!(host.done(), [""; 0]);
    until("it is done", || host.done() == ["promote 4"]).await;
    assert!(TokioRuntime.now().saturating_sub(begin) <= time("25100ms"));
    // Those that were tried meanwhile find that the membership has moved.
    TokioRuntime.sleep(time("2m")).await;
    assert_eq!(host.done(), ["promote 4"]);
    let plan = handle.view().plan.clone();
    assert!(plan.idle.is_none() && plan.changes.is_empty() && plan.held.is_empty(), "{plan:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_answered_when_the_step_under_way_has_ended_and_nothing_follows_it() {
    let host = Host::new("1 leader\n2\n3\n4 learner\n5 learner contact=never");
    host.inner().takes = time("5s");
    let handle = host.run(Stable::new(), |_| {});
    until("it is under way", || matches!(handle.view().plan.idle, Some(Why::InFlight(_)))).await;
    assert_eq!(host.done(), [""; 0]);
    handle.pause("a test").await.unwrap();
    let (answered, ended) = (TokioRuntime.now(), host.inner().done[0].1);
    assert!(
        answered >= ended && answered.saturating_sub(ended) < time("100ms"),
        "{:?}",
        answered.saturating_sub(ended)
    );
    // 5 becomes ready, and waits for the end of the pause.
    host.inner().server("5").contact = Some(Duration::ZERO);
    TokioRuntime.sleep(time("1m")).await;
    assert_eq!((host.done(), handle.running()), (vec!["promote 4".to_owned()], Running::Paused));
    handle.resume().await.unwrap();
    until("it goes on", || host.done() == ["promote 4", "promote 5"]).await;
    // Without a step under way it is answered at once.
    let before = TokioRuntime.now();
    handle.pause("another").await.unwrap();
    assert!(TokioRuntime.now().saturating_sub(before) < time("100ms"));
}

#[tokio::test(start_paused = true)]
async fn a_pause_names_the_step_under_way_where_its_outcome_is_given_up() {
    for leadership_is_lost_and_regained in [false, true] {
        let host = Host::new(LEARNER);
        host.inner().takes = time("20s");
        let handle = host.run(Stable::new(), |_| {});
        let under_way = || matches!(handle.view().plan.idle, Some(Why::InFlight(_)));
        until("it is under way", under_way).await;
        let regain = async {
            if leadership_is_lost_and_regained {
                TokioRuntime.sleep(time("1s")).await;
                host.inner().world.seen.leading.as_mut().unwrap().term += 1;
                host.0.1.notify_one();
            }
        };
        let begin = TokioRuntime.now();
        let (answer, ()) = tokio::join!(handle.pause("a test"), regain);
        let Err(VerbError::Deadline { left_behind }) = answer else {
            panic!("the step goes on");
        };
        assert_eq!(
            left_behind,
            "done: paused; under way: promote 4; waited for: the end of the step that was under way"
        );
        let at_once = TokioRuntime.now().saturating_sub(begin) < time("2s");
        assert_eq!(at_once, leadership_is_lost_and_regained);
        assert_eq!(host.done(), [""; 0]);
        until("it ends after all", || host.done() == ["promote 4"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn records_go_on_after_the_host_has_panicked_over_one() {
    let host = Host::new(LEARNER);
    host.inner().panics = 2;
    let handle = host.run(Stable::new(), |_| {});
    until("health is recorded", || !host.inner().records.is_empty()).await;
    assert_eq!(host.inner().panics, 0);
    host.inner().panics = 1;
    let said = handle.pause("a test").await;
    assert!(matches!(said, Err(VerbError::PerhapsRecorded(_))), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn an_observer_ends_nobodys_order() {
    let host = Host::new(LEARNER);
    // Done, and without a caller here: its leader has lost its place to this one.
    host.inner().world.order(Task::Remove("9".into()), None);
    let handle = host.run(Stable::new(), |options| options.observer = true);
    healthy(&handle).await;
    assert_eq!(handle.view().plan.finished, [77]);
    TokioRuntime.sleep(time("1m")).await;
    assert_eq!(host.inner().records, []);
}

/// Wishes for the same two, in another order every time.
#[derive(Debug)]
struct Fickle(AtomicBool);

impl Promoter for Fickle {
    fn wishes(&self, _: &Config, state: &State) -> Wishes {
        let votes = state.server(&"4".into()).is_some_and(|s| s.role == Role::Voter);
        let mut ids = vec![ServerId::from("4"), ServerId::from("5")];
        if self.0.fetch_xor(true, Ordering::Relaxed) {
            ids.reverse();
        }
        if votes {
            Wishes { demote: ids, ..Wishes::default() }
        } else {
            Wishes { promote: ids, ..Wishes::default() }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_wish_in_another_order_is_the_same_step() {
    let host = Host::new("1 leader\n2\n3\n4 learner\n5 learner");
    let handle = host.run(Fickle(AtomicBool::new(false)), |_| {});
    healthy(&handle).await;
    TokioRuntime.sleep(time("1m")).await;
    let stabilization = handle.view().config.server_stabilization_time;
    let steps: Vec<(String, Duration)> = host.inner().done.clone();
    for step in ["promote", "demote"] {
        let times: Vec<Duration> =
            steps.iter().filter(|(done, _)| done.starts_with(step)).map(|(_, at)| *at).collect();
        assert!(times.len() > 1, "{steps:?}");
        assert!(
            times.windows(2).all(|pair| pair[1].saturating_sub(pair[0]) >= stabilization),
            "{steps:?}"
        );
    }
}

#[test]
fn a_heartbeat_of_no_time_is_refused() {
    let host = Host::new(LEARNER);
    let options = Options { heartbeat: Duration::ZERO, ..Options::for_heartbeat(HEARTBEAT) };
    let refused = Autopilot::new(host, TokioRuntime, Stable::new(), options).unwrap_err();
    assert_eq!((refused.field, refused.expected.as_str()), ("heartbeat", "must be at least 1ms"));
}

/// How often the only step has failed, and when it is tried again.
fn waits(handle: &Handle) -> Option<(u32, Duration)> {
    handle.view().plan.held.iter().find_map(|held| match held.why {
        Why::BackingOff { failures, until, .. } => Some((failures, until)),
        _ => None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_step_that_has_failed_waits_longer_every_time_though_the_membership_moves_between() {
    let host = Host::new(LEARNER);
    host.inner().fails = |tries| {
        let odd = tries % 2 == 1;
        let refused = || ClusterError::Refused(io::Error::other("not now"));
        Some(if odd { refused() } else { ClusterError::Moved("a test".to_owned()) })
    };
    let handle = host.run(Stable::new(), |_| {});
    for failures in 1..=6 {
        until("it failed", || waits(&handle).is_some_and(|(known, _)| known == failures)).await;
    }
    assert!(host.inner().tries <= 12, "{}", host.inner().tries);
}

#[tokio::test(start_paused = true)]
async fn leaders_whose_steps_fail_together_do_not_try_again_together() {
    let mut moments = Vec::new();
    let hosts = ["1 leader\n2\n3\n4 learner", "2 leader\n1\n3\n4 learner"].map(Host::new);
    for host in &hosts {
        host.inner().fails = |_| Some(ClusterError::Refused(io::Error::other("not now")));
    }
    let handles = hosts.each_ref().map(|host| host.run(Stable::new(), |_| {}));
    for handle in &handles {
        until("it failed", || waits(handle).is_some()).await;
        moments.push(waits(handle).unwrap().1);
    }
    assert!(moments[0].abs_diff(moments[1]) > time("5ms"), "{moments:?}");
}

/// Wishes for a leader whose id was removed.
#[derive(Debug)]
struct Stubborn;

impl Promoter for Stubborn {
    fn wishes(&self, _config: &Config, _state: &State) -> Wishes {
        Wishes { leader: Some("2".into()), ..Wishes::default() }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_now_costs_no_more_rounds_than_a_quiet_cluster() {
    let rounds = async |host: &Host| {
        TokioRuntime.sleep(time("30s")).await;
        let before = host.inner().observations;
        TokioRuntime.sleep(time("60s")).await;
        host.inner().observations - before
    };
    let host = Host::new(LEARNER);
    let handle = host.run(Stable::new(), |options| options.observer = true);
    assert!((55..=65).contains(&rounds(&host).await));
    assert_eq!(handle.view().plan.changes.len(), 1, "it would promote");
    let host = Host::new(LEARNER);
    let handle = host.run(Stable::new(), |_| {});
    until("it leads", || handle.running() != Running::Stopped).await;
    handle.pause("a test").await.unwrap();
    let paused = rounds(&host).await;
    assert!((55..=65).contains(&paused), "{paused}");
    assert_eq!(handle.view().plan.changes.len(), 1, "it would promote");
    // A step that a rule forbids, for ever.
    let host = Host::new("1 leader\n2\n3");
    host.inner().world.ledger.as_mut().unwrap().removed.insert("2".into());
    let handle = host.run(Stubborn, |_| {});
    let refused = rounds(&host).await;
    assert!((55..=65).contains(&refused), "{refused}");
    let view = handle.view();
    assert!(view.plan.held.iter().any(|held| matches!(held.why, Why::Refused(_))));
    assert!(view.plan.changes.is_empty());
}

/// Leadership should go to 2, and only a failure keeps it here for long.
fn prefers_2() -> impl Promoter {
    Preferred::new(Stable::new()).tag("best", "yes").hold(time("1s")).cool_down(time("1h"))
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_failed_is_remembered_for_as_long_as_the_policy_wants() {
    let host = Host::new("1 leader\n2\n3");
    prefer(&host, "2");
    host.inner().fails = |_| Some(ClusterError::Refused(io::Error::other("not now")));
    let handle = host.run(prefers_2(), |_| {});
    until("it is tried", || host.inner().tries == 1).await;
    TokioRuntime.sleep(time("59m")).await;
    // Neither is the step repeated, nor is it held: nobody wishes it.
    assert_eq!((host.inner().tries, handle.view().plan.held.len()), (1, 0));
    let wake = handle.view().plan.wake.unwrap();
    until("it is tried again", || host.inner().tries == 2).await;
    assert!(TokioRuntime.now().saturating_sub(wake) < time("10ms"), "at that very moment");
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_succeeded_keeps_nothing_from_the_next_leader_or_the_same_again() {
    let host = Host::new("1 leader\n2\n3");
    prefer(&host, "2");
    let handle = host.run(prefers_2(), |_| {});
    // The host says it is done; the election that follows makes this node lead once more.
    until("it is done", || !host.done().is_empty()).await;
    host.inner().world.seen.leading.as_mut().unwrap().term += 1;
    host.0.1.notify_one();
    let again = TokioRuntime.now();
    until("it is done again", || host.done().len() == 2).await;
    // Not at once: what was just done waits for the stabilization time.
    let after = TokioRuntime.now().saturating_sub(again);
    let stabilization = handle.view().config.server_stabilization_time;
    assert!(after >= stabilization && after < stabilization + time("2s"), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn leadership_takes_with_it_what_is_not_recorded_yet() {
    let host = Host::new("1 leader\n2\n3");
    prefer(&host, "2");
    host.inner().refuses = |record| matches!(record, Record::Health(_));
    let _handle = host.run(prefers_2(), |_| {});
    until("it is done", || !host.done().is_empty()).await;
    let inner = host.inner();
    let ledger = inner.world.ledger.as_ref().unwrap();
    assert_eq!((ledger.servers.len(), &ledger.leader), (3, &None));
}

#[tokio::test(start_paused = true)]
async fn leadership_is_kept_where_nobody_knows_whether_its_end_is_recorded() {
    let host = Host::new("1 leader\n2\n3");
    prefer(&host, "2");
    host.inner().loses = true;
    let handle = host.run(prefers_2(), |_| {});
    TokioRuntime.sleep(time("50m")).await;
    let history = handle.view().history.clone();
    let fates: Vec<String> = history.iter().map(|decision| decision.fate.to_string()).collect();
    // Like any transfer that has failed it waits, and not for a heartbeat.
    assert_eq!(
        fates,
        ["the host refused it, nothing was changed: whether the hand-over is recorded is not \
          known: the host did not answer in time"]
    );
    assert_eq!(host.inner().tries, 0);
}

/// The tag that the policy looks for.
fn prefer(host: &Host, id: &str) {
    let mut inner = host.inner();
    let server = &mut inner.server(id).server;
    Arc::make_mut(server).meta.insert("best".to_owned(), "yes".to_owned());
}

// A promoter that panics.

/// Wishes well, until it is broken.
#[derive(Debug)]
struct Fragile(Arc<AtomicBool>);

impl Promoter for Fragile {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        assert!(!self.0.load(Ordering::Relaxed), "no server has a soul");
        Stable::new().wishes(config, state)
    }

    fn keeps(&self, _: &Config, _: &State, _: &Removals) -> Vec<ServerId> {
        assert!(!self.0.load(Ordering::Relaxed), "no server has a soul");
        Vec::new()
    }
}

#[tokio::test(start_paused = true)]
async fn a_promoter_that_panics_holds_its_own_steps_and_nothing_else_and_is_warned_of() {
    let host = Host::new("1 leader\n2\n3\n4\n5\n6 learner");
    let broken = Arc::new(AtomicBool::new(true));
    let handle = host.run(Fragile(Arc::clone(&broken)), |options| {
        options.config.dead_server_last_contact_threshold = time("1m");
    });
    healthy(&handle).await;
    let silent = time("10m");
    host.inner().server("3").contact = Some(silent);
    host.inner().server("3").probe = Probe::Silent(silent);
    TokioRuntime.sleep(time("5m")).await;
    assert_eq!(host.done(), [""; 0], "nobody gains a vote, and the dead stay");
    let warnings = handle.explain().unwrap().warnings;
    assert!(
        warnings.iter().any(|w| w.contains("panicked") && w.contains("has a soul")),
        "{warnings:?}"
    );
    // A person is still heard.
    assert_eq!(handle.remove("6").await, Ok(()));
    assert_eq!(host.done(), ["remove 6"]);
    // What is mended works again, without a restart.
    broken.store(false, Ordering::Relaxed);
    until("the dead one goes", || host.done().len() > 1).await;
    assert!(handle.explain().unwrap().warnings.iter().all(|w| !w.contains("panicked")));
}
