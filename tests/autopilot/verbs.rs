//! Verbs and records over a host in memory: what is refused, what is recorded, and what is heard of it.

use std::io;

use futures_util::future::join_all;
use raft_autopilot::{
    autopilot::{ClusterError, Config, IntentKind, Record, Refusal, Running, Server, VerbError},
    promoters::Stable,
    runtime::{Runtime, TokioRuntime},
};

use crate::{
    host::{Host, LEARNER, healthy, until},
    support::time,
};

// Orders about nobody, and removals that are not recorded.

#[tokio::test(start_paused = true)]
async fn an_order_about_a_server_that_nobody_knows_is_refused_and_leaves_nothing() {
    let host = Host::new("1 leader\n2\n3\n8 absent contact=never matched=never");
    let handle = host.run(Stable::new(), |_| {});
    until("it steers", || handle.running() == Running::Leading).await;
    for id in ["9", "8"] {
        let refusal = Refusal::NotMember { server: id.into() };
        let refused =
            Err(VerbError::Refused { refusal, left_behind: "nothing was changed".to_owned() });
        assert_eq!(handle.demote(id).await, refused);
        assert_eq!(handle.promote(id).await, refused);
        assert_eq!(handle.replace(id, Server::new("5", "there")).await, refused);
        assert_eq!(handle.cordon(id, "a test", None).await, refused);
        assert_eq!(handle.intend(id, IntentKind::Reboot, time("1m")).await, refused);
        // Nothing is lifted by what there is nothing of.
        assert_eq!((handle.uncordon(id).await, handle.unintend(id).await), (Ok(()), Ok(())));
    }
    let orders = |record: &Record| {
        matches!(record, Record::Begin(_) | Record::Cordon { .. } | Record::Intend { .. })
    };
    assert!(!host.inner().records.iter().any(orders), "{:?}", host.inner().records);
    assert!(host.inner().world.ledger.as_ref().unwrap().cordons.is_empty());
    assert_eq!(host.done(), [""; 0]);
    // One that is no member is removed already.
    assert_eq!(handle.remove("9").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_could_not_be_recorded_is_recorded_later_and_the_id_stays_away_meanwhile() {
    let host = Host::new(LEARNER);
    host.inner().refuses = |record| matches!(record, Record::Removed(_) | Record::Health(_));
    let handle = host.run(Stable::with_target(3), |_| {});
    until("it steers", || handle.running() == Running::Leading).await;
    handle.remove("4").await.unwrap();
    TokioRuntime.sleep(time("10s")).await;
    assert_eq!(host.removed(), [""; 0]);
    let again = handle.add(Server::new("4", "there")).await;
    let refusal = Refusal::RemovedId { server: "4".into() };
    assert_eq!(
        again,
        Err(VerbError::Refused { refusal, left_behind: "nothing was changed".to_owned() })
    );
    host.inner().refuses = |_| false;
    until("it is recorded", || host.removed() == ["4"]).await;
    TokioRuntime.sleep(time("10s")).await;
    let removals = |record: &&Record| matches!(record, Record::Removed(_));
    assert_eq!(host.inner().records.iter().filter(removals).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_recorded_once() {
    let host = Host::new(LEARNER);
    let handle = host.run(Stable::with_target(3), |_| {});
    healthy(&handle).await;
    TokioRuntime.sleep(time("3s")).await;
    handle.remove("4").await.unwrap();
    TokioRuntime.sleep(time("3s")).await;
    let removals = |record: &&Record| matches!(record, Record::Removed(_));
    assert_eq!(host.inner().records.iter().filter(removals).count(), 1);
    assert_eq!(host.removed(), ["4"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_on_the_way_out_gets_no_vote_back_while_the_removal_waits() {
    for replace in [false, true] {
        let host =
            Host::new(if replace { "1 leader\n2\n3\n4\n5 learner" } else { "1 leader\n2\n3\n4" });
        let handle = host.run(Stable::with_target(4), |_| {});
        healthy(&handle).await;
        TokioRuntime.sleep(time("15s")).await;
        host.inner().keeps = 3;
        let handle = handle.within(time("10m"));
        let (answer, votes) = if replace {
            (handle.replace("4", Server::new("5", "10.0.0.5")).await, "promote 5 and demote 4")
        } else {
            (handle.remove("4").await, "demote 4")
        };
        assert_eq!(answer, Ok(()));
        let left = host.inner().keeps;
        assert_eq!((left, host.done()), (0, vec![votes.to_owned(), "remove 4".to_owned()]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_takes_no_orders() {
    let host = Host::new(LEARNER);
    let handle = host.run(Stable::new(), |options| options.observer = true);
    until("it plans", || !handle.view().plan.changes.is_empty()).await;
    let new = || Server::new("5", "there");
    let config = handle.view().config.as_ref().clone();
    let minute = time("1m");
    let answers = [
        handle.add(new()).await,
        handle.remove("3").await,
        handle.replace("3", new()).await,
        handle.promote("4").await,
        handle.demote("3").await,
        handle.demote("9").await,
        handle.transfer(None).await,
        handle.readdress("3", "there").await,
        handle.cordon("3", "a test", None).await,
        handle.uncordon("3").await,
        handle.intend("3", IntentKind::Reboot, minute).await,
        handle.unintend("3").await,
        handle.pause("a test").await,
        handle.resume().await,
        handle.configure(config, None).await,
        handle.remove_dead_servers().await,
        handle.clone().forced("a test").remove("3").await,
    ];
    for answer in answers {
        assert_eq!(answer, Err(VerbError::Observing));
    }
    TokioRuntime.sleep(minute).await;
    assert_eq!((host.done().len(), host.inner().records.len()), (0, 0));
    assert_eq!(handle.running(), Running::Paused);
}

#[tokio::test(start_paused = true)]
async fn a_verb_is_answered_though_leadership_was_lost_and_regained_under_its_step() {
    let host = Host::new(LEARNER);
    host.inner().takes = time("5s");
    let handle = host.run(Stable::with_target(3), |_| {});
    healthy(&handle).await;
    let again = host.clone();
    TokioRuntime.spawn(async move {
        TokioRuntime.sleep(time("2s")).await;
        {
            let inner = &mut *again.inner();
            let leading = inner.world.seen.leading.as_mut().unwrap();
            (leading.term, leading.since) = (6, TokioRuntime.now());
        }
        again.0.1.notify_one();
    });
    let begin = TokioRuntime.now();
    assert_eq!(handle.remove("4").await, Ok(()));
    assert!(TokioRuntime.now().saturating_sub(begin) < time("20s"));
    assert_eq!(host.done(), ["remove 4"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_hangs_is_given_up_as_not_known_and_autopilots_own_are_tried_again() {
    let host = Host::new("1 leader\n2\n3");
    host.inner().loses = true;
    let handle = host.run(Stable::new(), |options| options.step_deadline = time("5s"));
    healthy(&handle).await;
    let begin = TokioRuntime.now();
    let said = handle.cordon("3", "a test", None).await;
    assert!(matches!(said, Err(VerbError::PerhapsRecorded(_))), "{said:?}");
    let took = TokioRuntime.now().saturating_sub(begin);
    assert!(took >= time("5s") && took < time("6s"), "{took:?}");
    // Its own record of health was on its way, too.
    assert!(host.inner().records.is_empty());
    host.inner().loses = false;
    let own = || host.inner().records.iter().any(|record| matches!(record, Record::Health(_)));
    until("it is recorded", own).await;
    assert_eq!(handle.cordon("3", "a test", None).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn many_verbs_hear_in_time_though_every_observation_hangs() {
    let host = Host::new("1 leader\n2\n3");
    let handle = host.run(Stable::new(), |_| {});
    healthy(&handle).await;
    host.inner().hangs = true;
    let begin = TokioRuntime.now();
    let verbs = (0..100).map(|_| {
        let handle = handle.clone().within(time("5s"));
        async move { (handle.remove("3").await, TokioRuntime.now()) }
    });
    for (said, at) in join_all(verbs).await {
        assert!(matches!(said, Err(VerbError::Deadline { .. })), "{said:?}");
        let took = at.saturating_sub(begin);
        // One observation more than it has time for, and one for whoever had to queue.
        assert!(took >= time("5s") && took <= time("7s"), "{took:?}");
    }
    assert_eq!(host.done(), [""; 0]);
}

// The reference's cases of a failing host: config-error, remove-failure, add-failure, and the
// removal that fails. The caller hears the cause, and nothing was changed by halves. Ours tries
// again until the order's time is over.

#[tokio::test(start_paused = true)]
async fn an_order_that_the_host_refuses_tells_the_cause_and_changes_nothing() {
    let host = Host::new("1 leader\n2\n3\n4 learner lost=1h silent=1h");
    host.inner().fails = |_| Some(ClusterError::Refused(io::Error::other("the disk is full")));
    let handle = host.run(Stable::with_target(3), |_| {});
    until("it leads", || handle.running() == Running::Leading).await;
    let handle = handle.within(time("5s"));
    let taken = host.inner().server("4").server.address.clone();
    let orders = [
        handle.add(Server::new("5", "new:1")).await,
        handle.add(Server::new("5", taken)).await,
        handle.remove("3").await,
    ];
    for said in orders {
        let said = said.unwrap_err().to_string();
        assert!(said.contains("nothing was changed"), "{said}");
        assert!(said.contains("the disk is full"), "{said}");
    }
    assert_eq!(host.done(), [""; 0]);
    assert_eq!(host.inner().world.seen.servers.len(), 4);
    let history = handle.history();
    assert!(history.iter().any(|d| format!("{:?}", d.fate).contains("the disk is full")));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_the_host_does_not_record_is_not_in_force() {
    let host = Host::new("1 leader\n2\n3");
    host.inner().refuses = |record| matches!(record, Record::Configure { .. });
    let handle = host.run(Stable::new(), |_| {});
    until("it leads", || handle.running() == Running::Leading).await;
    let before = Config::clone(&handle.view().config);
    let wanted = before.clone().with_max_trailing_logs(7);
    let said = handle.configure(wanted, None).await.unwrap_err();
    assert!(matches!(said, VerbError::NotRecorded { .. }), "{said:?}");
    assert!(said.to_string().contains("not now"), "{said}");
    TokioRuntime.sleep(time("5s")).await;
    assert_eq!(*handle.view().config, before);
}
