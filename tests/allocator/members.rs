//! A member's life: it announces itself, holds, hands off, drains and leaves; and what its worker is
//! told.

use std::{sync::Arc, time::Duration};

use raft_autopilot::{
    allocator::{
        AllocatorError, Doing, Former, Handle, Happening, Judgement, Leading, Left, MemberKey,
        Options, Report, Standing, Standings, Status, Why,
        plain::{Plain, PlainMember, PlainState},
    },
    store::{Embedded, KeyRange, LeaseId, Op, RangeRequest, Store, Txn},
};

use tokio::{sync::watch, time::Instant};

use crate::{
    faulty::{Faults, Faulty},
    town::{ROOT, Running, item, options, pause, put_items, start, start_over, store},
};

/// Waits until a member leads and has nothing left to do.
async fn settled(members: &[&Running]) {
    let settled = async {
        loop {
            let report = members.iter().find_map(|member| member.handle.report());
            if report.is_some_and(|report| report.is_settled() && report.items > 0) {
                return;
            }
            pause(10).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), settled).await.expect("it does not settle");
}

fn primaries(handle: &Handle<Plain>) -> usize {
    handle.held().iter().filter(|held| held.primary).count()
}

fn key(member: &str) -> String {
    format!("{ROOT}/members/{member}")
}

async fn lease_of(store: &impl Store, key: &str) -> Option<LeaseId> {
    let found = store.range(RangeRequest::new(KeyRange::key(key))).await.unwrap();
    found.items.first().map(|kv| kv.lease)
}

#[tokio::test(start_paused = true)]
async fn three_members_share_what_there_is_and_take_over_what_one_of_them_had() {
    let store = store();
    put_items(&store, (0..30).map(|item| (format!("i{item:02}"), 2))).await;
    let [one, two, three] = ["a/one", "b/two", "c/three"].map(|name| {
        let (zone, member) = name.split_once('/').unwrap();
        start(&store, options(zone, member, 100))
    });
    settled(&[&one, &two, &three]).await;
    for member in [&one, &two, &three] {
        assert_eq!((member.handle.held().len(), primaries(&member.handle)), (20, 10));
        assert_eq!(member.handle.status(), Status::Active);
    }
    let route = one.handle.route("i07").unwrap();
    assert_eq!((route.hops.len(), route.ready), (2, true));
    assert!(route.primary().is_some() && route.hops.iter().all(|hop| hop.consistent));
    two.crash();
    pause(2_500).await;
    settled(&[&one, &three]).await;
    for member in [&one, &three] {
        assert_eq!((member.handle.held().len(), primaries(&member.handle)), (30, 15));
    }
}

/// Two members that share 30 items, and which of them leads.
async fn two_settled(store: &Embedded) -> ([Running; 2], Handle<Plain>) {
    put_items(store, (0..30).map(|item| (format!("i{item:02}"), 2))).await;
    let members = ["one", "two"].map(|name| start(store, options(name, name, 100)));
    let [one, two] = &members;
    settled(&[one, two]).await;
    let leader = if one.handle.report().is_some() { one } else { two }.handle.clone();
    (members, leader)
}

/// Waits for a report of the leader.
async fn reported(leader: &Handle<Plain>, enough: impl Fn(&Report) -> bool) -> Arc<Report> {
    let report = tokio::time::timeout(Duration::from_secs(60), leader.report_when(enough));
    report.await.expect("it does not come to that").unwrap()
}

/// Puts the key of a member where nobody makes anything consistent, and waits until it has so many.
async fn put_idle(store: &Embedded, leader: &Handle<Plain>, limit: u32, copying: usize) {
    let new = Op::put(key("three#new"), format!(r#"{{"limit":{limit}}}"#));
    let revision = store.commit(Txn::new([new])).await.unwrap().revision;
    let waits = |report: &Report| {
        report.revision > revision && report.doing == [(Doing::Copying, copying)].into()
    };
    reported(leader, waits).await;
}

#[tokio::test(start_paused = true)]
async fn who_leads_says_at_once_that_it_waits_for_replicas() {
    let store = store();
    let (_members, leader) = two_settled(&store).await;
    let begin = Instant::now();
    put_idle(&store, &leader, 100, 20).await;
    assert_eq!(begin.elapsed(), Duration::ZERO, "the clock moves where all wait for something");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_taken_away_before_it_is_ready_is_nothing_to_wait_for() {
    let store = store();
    let (_members, leader) = two_settled(&store).await;
    put_idle(&store, &leader, 100, 20).await;
    let begin = Instant::now();
    put_idle(&store, &leader, 50, 12).await;
    assert_eq!(begin.elapsed(), Duration::ZERO, "nobody has got ready");
}

#[tokio::test(start_paused = true)]
async fn more_is_waited_for_while_replicas_change_and_not_for_what_happens_elsewhere() {
    let store = store();
    let (_members, leader) = two_settled(&store).await;
    put_idle(&store, &leader, 100, 20).await;
    let range = KeyRange::prefix(format!("{ROOT}/assign/"));
    let found = store.range(RangeRequest::new(range)).await.unwrap().items;
    let mut idle = found.iter().filter(|kv| kv.key.to_string().contains("#three#new#"));
    let mut get_ready = async || {
        let ready = Op::put(&idle.next().unwrap().key, r#"{"consistent":true}"#);
        store.commit(Txn::new([ready])).await.unwrap();
    };
    let begin = Instant::now();
    get_ready().await;
    pause(5).await;
    get_ready().await;
    pause(10).await;
    // The leader sees a later revision, and the same keys.
    let elsewhere = store.commit(Txn::new([Op::put("/elsewhere", "")])).await.unwrap();
    leader.mirror().unwrap().wait(elsewhere.revision).await.unwrap();
    reported(&leader, |report| report.copying == 18).await;
    assert_eq!(begin.elapsed(), Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn replicas_that_get_ready_soon_after_another_are_done_with_together_and_no_later() {
    let store = store();
    let (_members, leader) = two_settled(&store).await;
    let begin = Instant::now();
    let _three = start(&store, options("three", "three", 100));
    let line = Faulty::new(&store, 1, None);
    let _four = start_over(line, options("four", "four", 100), Duration::from_millis(25));
    let waits =
        |report: &Report| report.members.len() == 4 && report.doing.keys().eq([&Doing::Copying]);
    let all = reported(&leader, waits).await.copying;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    reported(&leader, |report| report.copying < all).await;
    assert_eq!(begin.elapsed(), Duration::from_millis(25), "the first waited for the second");
    reported(&leader, Report::is_settled).await;
    assert_eq!(begin.elapsed(), Duration::from_millis(25), "there was nobody else to wait for");
}

/// The same member, that follows what is said of all.
fn judged(options: Options<Plain>, standings: &watch::Sender<Option<Standings>>) -> Options<Plain> {
    let leading = Leading { standings: Some(standings.subscribe()), ..options.leading };
    Options { leading, ..options }
}

/// Waits until one of these leads, and nobody else does.
async fn leads(one: &Running, others: &[&Running]) {
    let leads = async {
        while one.handle.report().is_none()
            || others.iter().any(|other| other.handle.report().is_some())
        {
            pause(10).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), leads).await.expect("it does not lead");
}

#[tokio::test(start_paused = true)]
async fn another_plans_while_the_oldest_is_not_well_and_the_oldest_again_when_it_is() {
    let store = store();
    put_items(&store, (0..30).map(|item| (format!("i{item:02}"), 2))).await;
    let standings = watch::Sender::new(Some(Standings::default()));
    let judge = |member: &str, standing: Standing| {
        let judgement = Judgement { standing, why: "as told".into() };
        let zone = &member[..1];
        standings.send_modify(|all| {
            let all = Arc::make_mut(all.get_or_insert_default());
            all.insert(MemberKey::new(zone, member), judgement);
        });
    };
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        let member = start(&store, judged(options(name, name, 100), &standings));
        // The store knows who is older.
        pause(100).await;
        members.push(member);
    }
    let [a, b, c] = &members[..] else { panic!("three") };
    settled(&[a]).await;
    leads(a, &[b, c]).await;
    // The oldest, and then the next: the third plans, and takes their primaries.
    judge("a", Standing::NoPrimaries);
    leads(b, &[a, c]).await;
    judge("b", Standing::NoPrimaries);
    leads(c, &[a, b]).await;
    settled(&[c]).await;
    assert_eq!(primaries(&c.handle), 20, "of the others only those that a and b share");
    let leader = c.handle.report().unwrap().leader.clone();
    assert_eq!(leader, Some(MemberKey::new("c", "c")));
    // Nobody is well: who leads goes on.
    judge("c", Standing::NoNewPrimaries);
    pause(10_000).await;
    leads(c, &[a, b]).await;
    judge("b", Standing::Full);
    leads(b, &[a, c]).await;
    judge("a", Standing::Full);
    leads(a, &[b, c]).await;
    let key = format!("{ROOT}/leader");
    let left = store.range(RangeRequest::new(KeyRange::key(key.as_str()))).await.unwrap();
    assert!(left.items.is_empty(), "the oldest needs no key to lead");
    // Who has taken over and dies leaves the planning to the oldest.
    judge("a", Standing::NoPrimaries);
    leads(b, &[a, c]).await;
    let b = members.remove(1);
    b.crash();
    let [a, c] = &members[..] else { panic!("two") };
    leads(a, &[c]).await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_hands_over_first_and_leaves_nothing_behind() {
    let store = store();
    put_items(&store, (0..10).map(|item| (format!("i{item}"), 2))).await;
    let mut one = start(&store, options("a", "one", 20));
    let two = start(&store, options("b", "two", 20));
    let three = start(&store, options("c", "three", 20));
    settled(&[&one, &two, &three]).await;
    // It is the leader itself that goes.
    let held = one.handle.held().len();
    one.shut_down();
    pause(1).await;
    assert_eq!(one.handle.status(), Status::Draining);
    let told = one.told.clone();
    assert_eq!(one.ended().await, Ok(Left::default()));
    let removed = (told.lock().unwrap().iter())
        .filter(|(_, happening)| *happening == Happening::Removed(Why::Unassigned))
        .count();
    assert!(removed >= held, "{removed} of {held}");
    pause(10).await;
    settled(&[&two, &three]).await;
    assert_eq!((two.handle.held().len(), three.handle.held().len()), (10, 10));
    assert_eq!(lease_of(&store, &key("a#one")).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_hand_over_waits_and_leaves_when_its_time_is_over() {
    let store = store();
    put_items(&store, [("i".to_owned(), 1)]).await;
    let drain_timeout = Some(Duration::from_secs(30));
    let mut one = start(&store, Options { drain_timeout, ..options("a", "one", 1) });
    settled(&[&one]).await;
    one.shut_down();
    pause(29_000).await;
    assert_eq!((one.handle.status(), one.handle.held().len()), (Status::Draining, 1));
    assert_eq!(one.ended().await, Ok(Left { abandoned: vec!["i".into()] }));
    let left = store.range(RangeRequest::new(KeyRange::prefix(format!("{ROOT}/assign/")))).await;
    assert!(left.unwrap().items.is_empty(), "what it held ended with its lease");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_the_work_at_once() {
    let store = store();
    put_items(&store, [("i".to_owned(), 1)]).await;
    let one = start(&store, options("a", "one", 1));
    settled(&[&one]).await;
    let lease = lease_of(&store, &key("a#one")).await.unwrap();
    store.revoke(lease).await.unwrap();
    let (handle, told) = (one.handle.clone(), one.told.clone());
    let ended = one.ended().await.unwrap_err();
    assert!(matches!(ended, AllocatorError::Removed(_) | AllocatorError::LeaseLost), "{ended}");
    pause(1).await;
    let last = told.lock().unwrap().last().cloned();
    assert_eq!(last, Some(("i".to_owned(), Happening::Removed(Why::Lost))));
    assert_eq!((handle.status(), handle.held().len()), (Status::Ended, 0));
    let refused = handle.publish("i", &PlainState { consistent: true }).await;
    assert_eq!(refused, Err(AllocatorError::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_makes_a_member_suspect_and_then_lost() {
    let store = store();
    put_items(&store, [("i".to_owned(), 1)]).await;
    let one = start(&store, options("a", "one", 1));
    settled(&[&one]).await;
    *one.line.line.faults.lock().unwrap() = Faults { lost: 100, ..Faults::default() };
    assert_eq!(one.handle.changed(Status::Active).await, Status::Suspect);
    assert_eq!(one.handle.held().len(), 1, "nothing has ended yet");
    let ended = one.ended().await;
    assert_eq!(ended, Err(AllocatorError::LeaseLost));
}

#[tokio::test(start_paused = true)]
async fn who_has_lost_its_lease_can_be_run_again_and_is_told_everything_anew() {
    use raft_autopilot::{allocator::Allocator, runtime::Runtime, runtime::TokioRuntime};

    let store = store();
    put_items(&store, [("i".to_owned(), 1)]).await;
    let worker = crate::town::Diligent::default();
    let told = worker.told.clone();
    let made = Allocator::new(store.clone(), TokioRuntime, Plain, worker, options("a", "one", 1));
    let (mut allocator, handle) = made.unwrap();
    TokioRuntime.spawn(async move {
        while allocator.run(std::future::pending()).await.is_err() {
            pause(100).await;
        }
    });
    for _ in 0..3 {
        handle.report_when(|report| report.is_settled() && report.assignments == 1).await.unwrap();
        store.revoke(lease_of(&store, &key("a#one")).await.unwrap()).await.unwrap();
        assert_eq!(handle.changed(Status::Active).await, Status::Ended);
        assert_eq!(handle.changed(Status::Ended).await, Status::Joining);
    }
    let told: Vec<Happening> = told.lock().unwrap().iter().map(|(_, what)| *what).collect();
    let once = [Happening::Assigned { primary: true }, Happening::Removed(Why::Lost)];
    assert_eq!(told, [once, once, once].concat());
}

#[tokio::test(start_paused = true)]
async fn a_worker_under_way_is_dropped_when_the_lease_is_lost() {
    let store = store();
    put_items(&store, [("i".to_owned(), 1)]).await;
    let line = Faulty::new(&store, 1, None);
    let one = start_over(line, options("a", "one", 1), Duration::from_secs(3_600));
    pause(100).await;
    assert_eq!(one.told.lock().unwrap().len(), 1, "it is at work for an hour");
    store.revoke(lease_of(&store, &key("a#one")).await.unwrap()).await.unwrap();
    pause(10).await;
    let told = one.told.lock().unwrap().clone();
    let (name, assigned) = ("i".to_owned(), Happening::Assigned { primary: true });
    assert_eq!(told, [(name.clone(), assigned), (name, Happening::Removed(Why::Lost))]);
}

#[tokio::test(start_paused = true)]
async fn a_second_self_waits_for_the_end_of_the_first_or_refuses_as_told() {
    let store = store();
    let one = start(&store, options("a", "one", 1));
    pause(10).await;
    let refusing =
        raft_autopilot::allocator::Options { former: Former::Refuse, ..options("a", "one", 1) };
    let refused = start(&store, refusing).ended().await;
    assert!(matches!(refused, Err(AllocatorError::Announced(_))), "{refused:?}");
    let second = start(&store, options("a", "one", 7));
    pause(10_000).await;
    assert_eq!(second.handle.status(), Status::Joining);
    assert_eq!(one.handle.value().unwrap().limit, 1);
    one.crash();
    assert_eq!(second.handle.changed(Status::Joining).await, Status::Active);
    assert_eq!(second.handle.value().unwrap().limit, 7);
}

#[tokio::test(start_paused = true)]
async fn an_announcement_whose_answer_is_lost_is_not_a_former_self() {
    for seed in 0..20 {
        let store = store();
        let line = Faulty::new(&store, seed, None);
        *line.line.faults.lock().unwrap() = Faults { unanswered: 50, ..Faults::default() };
        let options = raft_autopilot::allocator::Options {
            former: Former::Refuse,
            ttl: Duration::from_secs(600),
            ..options("a", "one", 1)
        };
        let one = start_over(line, options, Duration::ZERO);
        assert_eq!(one.handle.changed(Status::Joining).await, Status::Active);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_can_change_its_value_until_it_ends() {
    let store = store();
    let one = start(&store, options("a", "one", 1));
    pause(10).await;
    for limit in [5, 6] {
        one.handle.update(PlainMember { limit, ..PlainMember::default() }).await.unwrap();
        assert_eq!(one.handle.value().unwrap().limit, limit);
    }
    store.revoke(lease_of(&store, &key("a#one")).await.unwrap()).await.unwrap();
    let refused = one.handle.update(PlainMember::default()).await;
    assert_eq!(refused, Err(AllocatorError::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_somebody_deletes_ends_the_member() {
    let store = store();
    let one = start(&store, options("a", "one", 1));
    pause(10).await;
    store.commit(Txn::new([Op::delete(key("a#one"))])).await.unwrap();
    assert!(matches!(one.ended().await, Err(AllocatorError::Removed(_))));
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_given_back_goes_to_another_member_and_may_come_again_later() {
    let store = store();
    put_items(&store, (0..4).map(|item| (format!("i{item}"), 1))).await;
    let one = start(&store, options("a", "one", 10));
    let two = start(&store, options("a", "two", 10));
    settled(&[&one, &two]).await;
    let item = one.handle.held()[0].item.clone();
    one.handle.give_back(&item).await.unwrap();
    pause(100).await;
    settled(&[&one, &two]).await;
    assert!(two.handle.held().iter().any(|held| held.item == item));
    assert_eq!((one.handle.held().len(), two.handle.held().len()), (1, 3));
    let refused = one.handle.give_back(&item).await;
    assert_eq!(refused, Err(AllocatorError::NotHeld(item.to_string())));
    // When it has been avoided for long enough, the loads are even again.
    pause(60_000).await;
    settled(&[&one, &two]).await;
    assert_eq!((one.handle.held().len(), two.handle.held().len()), (2, 2));
    // With nobody else there it comes back at once.
    two.crash();
    pause(3_000).await;
    settled(&[&one]).await;
    let item = one.handle.held()[0].item.clone();
    one.handle.give_back(&item).await.unwrap();
    pause(100).await;
    assert!(one.handle.held().iter().any(|held| held.item == item));
}

#[tokio::test(start_paused = true)]
async fn fixed_items_exist_from_the_start_and_are_made_again() {
    let store = store();
    let fixed_items = vec![("fixed".to_owned(), item(1))];
    let one = raft_autopilot::allocator::Options { fixed_items, ..options("a", "one", 5) };
    let one = start(&store, one);
    put_items(&store, [("free".to_owned(), 1)]).await;
    settled(&[&one]).await;
    assert_eq!(one.handle.held().len(), 2);
    let keys = ["fixed", "free"].map(|item| Op::delete(format!("{ROOT}/items/{item}")));
    store.commit(Txn::new(keys)).await.unwrap();
    pause(100).await;
    settled(&[&one]).await;
    let held = one.handle.held();
    assert_eq!(held.iter().map(|held| &*held.item).collect::<Vec<_>>(), ["fixed"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_is_told_the_next_thing_all_the_same() {
    use raft_autopilot::allocator::{Allocator, Task, Worker};
    use raft_autopilot::runtime::{Runtime, TokioRuntime};

    struct Panics;
    impl Worker<Plain> for Panics {
        async fn happens(&self, task: Task<Plain>) {
            if let Happening::Assigned { .. } = task.happening {
                let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
                panic!("on purpose");
            }
        }
    }
    let store = store();
    put_items(&store, [("i".to_owned(), 1)]).await;
    let made = Allocator::new(store.clone(), TokioRuntime, Plain, Panics, options("a", "one", 1));
    let (mut allocator, handle) = made.unwrap();
    TokioRuntime.spawn(async move { drop(allocator.run(std::future::pending()).await) });
    let report = handle.report_when(|report| report.is_settled() && report.assignments == 1).await;
    assert!(report.is_some());
    store.commit(Txn::new([Op::delete(format!("{ROOT}/items/i"))])).await.unwrap();
    pause(10).await;
    assert!(handle.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn names_that_cannot_be_part_of_a_key_are_refused_at_once() {
    use raft_autopilot::{allocator::Allocator, runtime::TokioRuntime};
    for (zone, member) in [("", "m"), ("z", "a b"), ("z#", "m")] {
        let options = options(zone, member, 1);
        let made = Allocator::new(store(), TokioRuntime, Plain, (), options);
        assert!(matches!(made, Err(AllocatorError::Name(_))), "{zone:?} {member:?}");
    }
    let one = start(&store(), options("a", "one", 1));
    pause(10).await;
    let refused = one.handle.publish("a#b", &PlainState { consistent: true }).await;
    assert!(matches!(refused, Err(AllocatorError::Name(_))), "{refused:?}");
    assert!(matches!(one.handle.route(""), Err(AllocatorError::Name(_))));
}
