//! The driver over a host in memory, in paused time: what hangs, what is slow, what is refused, and what is recorded.

use std::{
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::future::join_all;
use raft_autopilot::{
    autopilot::{
        Applied, Autopilot, Change, Cluster, ClusterError, Config, Handle, IntentKind, LogId,
        Observation, Options, Outcome, Promoter, Record, Refusal, Role, Running, Server, Sighting,
        State, Step, VerbError, Why, Wishes,
    },
    promoters::Stable,
    runtime::{Runtime, TokioRuntime},
};
use tokio::sync::Notify;

use crate::support::{HEARTBEAT, World, time};

/// A host of which everything can be turned.
#[derive(Clone)]
struct Host(Arc<(Mutex<Inner>, Notify)>);

struct Inner {
    world: World,
    index: u64,
    /// Steps that were done, as text, each with the time.
    done: Vec<(String, Duration)>,
    records: Vec<Record>,
    observations: u32,
    /// Observations hang.
    hangs: bool,
    /// How long a step takes.
    takes: Duration,
    /// How often the host does not remove.
    keeps: u32,
    /// Which records the host does not take.
    refuses: fn(&Record) -> bool,
    /// Records are never answered.
    loses: bool,
    /// Steps that were tried, and what the host says to the n-th of them.
    tries: u32,
    fails: fn(u32) -> Option<ClusterError<io::Error>>,
}

impl Host {
    fn new(text: &str) -> Self {
        let mut world = World::of(text);
        // The driver's clock counts from the start of the process.
        let now = TokioRuntime.now();
        (world.seen.at, world.seen.ledger_at) = (now, now);
        world.seen.leading.as_mut().unwrap().since = now;
        world.ledger.as_mut().unwrap().servers.clear();
        let inner = Inner {
            world,
            index: 100,
            done: Vec::new(),
            records: Vec::new(),
            observations: 0,
            hangs: false,
            takes: Duration::from_millis(1),
            keeps: 0,
            refuses: |_| false,
            loses: false,
            tries: 0,
            fails: |_| None,
        };
        Self(Arc::new((Mutex::new(inner), Notify::new())))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap()
    }

    fn done(&self) -> Vec<String> {
        self.inner().done.iter().map(|(step, _)| step.clone()).collect()
    }

    fn removed(&self) -> Vec<String> {
        let inner = self.inner();
        inner.world.ledger.as_ref().unwrap().removed.iter().map(ToString::to_string).collect()
    }

    /// Runs autopilot over it, with a pause of a second at most.
    fn run(&self, promoter: impl Promoter, tune: impl FnOnce(&mut Options)) -> Handle {
        let mut options = Options::for_heartbeat(HEARTBEAT);
        options.update_interval = time("1s");
        tune(&mut options);
        let (autopilot, handle) =
            Autopilot::new(self.clone(), TokioRuntime, promoter, options).unwrap();
        TokioRuntime.spawn(autopilot.run(std::future::pending()));
        handle
    }
}

impl Inner {
    fn server(&mut self, id: &str) -> &mut Sighting {
        self.world.server(id)
    }

    fn apply(&mut self, step: &Step) {
        self.index += 1;
        self.world.seen.membership.log_id = LogId { term: 5, index: self.index };
        match step {
            Step::Votes { promote, demote } => {
                for (ids, role) in [(promote, Role::Voter), (demote, Role::Learner)] {
                    for id in ids {
                        self.server(id.as_str()).role = role;
                    }
                }
            }
            Step::Remove { servers, .. } => {
                self.world.seen.servers.retain(|s| !servers.contains(&s.server.id));
            }
            Step::Add(server) => {
                let contact = Some(Duration::ZERO);
                let like = self.server("1").clone();
                let server = Arc::clone(server);
                let new = Sighting { server, role: Role::Learner, contact, ..like };
                self.world.seen.servers.push(new);
            }
            Step::FinishJoint | Step::Readdress { .. } | Step::Transfer { .. } => {}
        }
    }
}

impl Cluster for Host {
    type Error = io::Error;

    async fn observe(&self, at: Duration) -> Observation {
        let hangs = {
            let mut inner = self.inner();
            inner.observations += 1;
            inner.hangs
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let inner = self.inner();
        let mut seen = inner.world.seen.clone();
        (seen.at, seen.ledger_at) = (at, at);
        seen.ledger = inner.world.ledger.clone().map(Arc::new);
        seen
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        self.0.1.notified()
    }

    async fn apply(&self, change: Change) -> Applied<io::Error> {
        let takes = self.inner().takes;
        TokioRuntime.sleep(takes).await;
        let mut inner = self.inner();
        inner.tries += 1;
        if let Some(error) = (inner.fails)(inner.tries) {
            return Err(error);
        }
        let found = inner.world.seen.membership.log_id;
        if change.fence.membership != found {
            return Err(ClusterError::Moved(format!("{found:?}")));
        }
        if matches!(change.step, Step::Remove { .. }) && inner.keeps > 0 {
            inner.keeps -= 1;
            return Err(ClusterError::Refused(io::Error::other("not now")));
        }
        inner.apply(&change.step);
        inner.done.push((change.step.to_string(), TokioRuntime.now()));
        self.0.1.notify_one();
        Ok(())
    }

    async fn record(&self, record: Record) -> Result<Outcome, ClusterError<io::Error>> {
        let loses = self.inner().loses;
        if loses {
            std::future::pending::<()>().await;
        }
        let mut inner = self.inner();
        if (inner.refuses)(&record) {
            return Err(ClusterError::Refused(io::Error::other("not now")));
        }
        inner.records.push(record.clone());
        inner.index += 1;
        let index = inner.index;
        let ledger = inner.world.ledger.as_mut().unwrap();
        let outcome = ledger.apply(index, TokioRuntime.now(), record);
        self.0.1.notify_one();
        Ok(outcome)
    }
}

/// Waits until something holds; a minute, then it is a failure.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = TokioRuntime.now() + time("1m");
    while !holds() {
        assert!(TokioRuntime.now() < end, "never: {what}");
        TokioRuntime.sleep(time("5ms")).await;
    }
}

async fn healthy(handle: &Handle) {
    until("all healthy", || handle.state().is_some_and(|state| state.healthy)).await;
}

const LEARNER: &str = "1 leader\n2\n3\n4 learner";

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
    // Without a step under way it is answered at once; one that takes too long says so.
    let before = TokioRuntime.now();
    handle.pause("another").await.unwrap();
    assert!(TokioRuntime.now().saturating_sub(before) < time("100ms"));
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
