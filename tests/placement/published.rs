//! What is published through a real store, and what members make of it: real drivers in paused time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::FutureExt;
use raft_autopilot::{
    allocator::{
        self, Allocator, Happening, Judgement, Leading, MemberKey, Standing, Standings, Status,
        Task, Worker,
        plain::{Plain, PlainItem, PlainMember, PlainState},
    },
    autopilot::{self, Probe},
    placement::{Config, Graded, Handle, Hold, Keys, Notice, Options, Placement, Term},
    promoters::Stable,
    runtime::{Runtime, TokioRuntime},
    store::{Embedded, Event, KeyRange, Op, RangeRequest, Store, Txn, Update, Watch, machine},
};
use tokio::sync::watch;

use crate::host::{Host, until};

const ROOT: &str = "/work";
const NOTICES: &str = "/standings";
const SERVERS: &str = "1 leader\n2\n3\n4\n5";

/// Is ready at once.
pub(crate) struct Ready;

impl Worker<Plain> for Ready {
    async fn happens(&self, task: Task<Plain>) {
        if let Happening::Assigned { .. } = task.happening {
            // It may have gone elsewhere meanwhile.
            let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
        }
    }
}

pub(crate) fn key(id: &str) -> MemberKey {
    MemberKey::new("default", id)
}

/// Members of a hundred items' worth of limit each, of which the first leads.
pub(crate) async fn members<const N: usize>(
    store: &Embedded,
    ids: [&str; N],
    standings: Option<watch::Receiver<Option<Standings>>>,
) -> [allocator::Handle<Plain>; N] {
    let mut joined = Vec::new();
    for id in ids {
        let member = member(store, id, standings.clone());
        while member.status() != Status::Active {
            member.changed(member.status()).await;
        }
        joined.push(member);
    }
    joined.try_into().ok().unwrap()
}

fn member(
    store: &Embedded,
    id: &str,
    standings: Option<watch::Receiver<Option<Standings>>>,
) -> allocator::Handle<Plain> {
    let value = PlainMember { limit: 100, ..PlainMember::default() };
    let item = PlainItem { replication: 2, zones: None };
    let options = allocator::Options {
        fixed_items: (0..20).map(|number| (format!("i{number:02}"), item.clone())).collect(),
        leading: Leading { standings, ..Leading::default() },
        ..allocator::Options::new(ROOT, "default", id, value)
    };
    let made = Allocator::new(store.clone(), TokioRuntime, Plain, Ready, options);
    let (mut member, handle) = made.unwrap();
    TokioRuntime.spawn(async move { drop(member.run(std::future::pending()).await) });
    handle
}

/// Everything that is taken is taken at once.
pub(crate) fn hasty() -> Graded {
    let none = Duration::ZERO;
    let config =
        Config { suspect_after: none, shed_after: none, dead_after: none, ..Config::default() };
    Graded::new(config).unwrap()
}

/// A node on which autopilot leads in a term, with five servers.
pub(crate) fn node(
    store: &Embedded,
    term: u64,
    members: allocator::Handle<Plain>,
) -> (Host, Handle) {
    let (host, handle, _) = node_with(store, term, members, |_| {});
    (host, handle)
}

/// The same, with options of autopilot's, and its handle.
pub(crate) fn node_with(
    store: &Embedded,
    term: u64,
    members: allocator::Handle<Plain>,
    tune: impl FnOnce(&mut autopilot::Options),
) -> (Host, Handle, autopilot::Handle) {
    let host = Host::new(SERVERS);
    host.inner().world.seen.leading.as_mut().unwrap().term = term;
    let autopilot = host.run(Stable::new(), |options| {
        options.config.cleanup_dead_servers = false;
        tune(options);
    });
    let told = autopilot.clone();
    let options = Options::new(NOTICES);
    let (placement, handle) =
        Placement::new(store.clone(), TokioRuntime, hasty(), options).unwrap();
    TokioRuntime.spawn(async move { drop(placement.run(autopilot, members).await) });
    (host, handle, told)
}

/// Waits until the leader's report is like this.
async fn reported(leader: &allocator::Handle<Plain>, is_so: impl Fn(&allocator::Report) -> bool) {
    let waited = leader.report_when(is_so);
    let waited = tokio::time::timeout(Duration::from_secs(60), waited).await;
    assert!(waited.is_ok(), "{:?}: {:#?}", leader.status(), leader.report());
}

pub(crate) fn falls_silent(host: &Host, id: &str) {
    let silent = Duration::from_secs(60);
    {
        let mut inner = host.inner();
        let server = inner.server(id);
        (server.contact, server.probe) = (Some(silent), Probe::Silent(silent));
    }
    host.0.1.notify_one();
}

/// It is as well as 2 again.
pub(crate) fn is_well_again(host: &Host, id: &str) {
    {
        let mut inner = host.inner();
        let well = (inner.server("2").contact, inner.server("2").probe);
        let server = inner.server(id);
        (server.contact, server.probe) = well;
    }
    host.0.1.notify_one();
}

/// What the store holds: the term, and the standings that are not full.
pub(crate) async fn stored(store: &Embedded) -> (String, BTreeMap<MemberKey, Standing>) {
    let keys = Keys::new(NOTICES);
    let found = store.range(RangeRequest::new(KeyRange::prefix(keys.prefix()))).await.unwrap();
    let (mut term, mut standings) = (String::new(), BTreeMap::new());
    for kv in found.items {
        if *kv.key == *keys.term().as_bytes() {
            term = String::from_utf8(kv.value.to_vec()).unwrap();
        } else if let Ok(notice) = serde_json::from_slice::<Notice>(&kv.value)
            && notice.standing != Standing::Full
        {
            standings.insert(keys.member(&kv.key).unwrap(), notice.standing);
        }
    }
    (term, standings)
}

#[tokio::test(start_paused = true)]
async fn what_an_old_leader_writes_late_is_refused_by_the_store() {
    let store = Embedded::new(machine::Config::default(), TokioRuntime);
    let members = members(&store, ["1", "2", "3", "4", "5"], None).await;
    let (old_host, old) = node(&store, 5, members[0].clone());
    until("the old leader publishes", || old.published().notices.len() == 5).await;
    assert_eq!(stored(&store).await, (Term(5).to_string(), BTreeMap::new()));
    // Both lead by their own word, as it is while a leader is cut off and has not found out.
    let (new_host, new) = node(&store, 6, members[1].clone());
    until("the new leader publishes", || {
        new.published().notices.len() == 5 && new.published().hold.is_none()
    })
    .await;
    // To the old one alone a server looks dead.
    falls_silent(&old_host, "4");
    let refused = Some(Hold::Superseded { term: 5, key: "/standings/term".to_owned() });
    until("the old leader hears it", || old.published().hold == refused).await;
    assert_eq!(stored(&store).await, (Term(6).to_string(), BTreeMap::new()));
    // The new one goes on, and what it says reaches both.
    falls_silent(&new_host, "3");
    let gone = |handle: &Handle| {
        let published = handle.published();
        published.notices.get(&key("3")).is_some_and(|notice| notice.standing == Standing::Gone)
    };
    until("the new leader's word is known to both", || gone(&old) && gone(&new)).await;
    TokioRuntime.sleep(Duration::from_secs(60)).await;
    let expected = BTreeMap::from([(key("3"), Standing::Gone)]);
    assert_eq!(stored(&store).await, (Term(6).to_string(), expected));
    let words = old.published().hold.as_ref().unwrap().to_string();
    assert!(words.contains("a later term than 5") && words.contains("/standings/term"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_is_lost_or_half_written_gives_nothing_back_and_is_written_again() {
    let store = Embedded::new(machine::Config::default(), TokioRuntime);
    let members = members(&store, ["1", "2", "3", "4", "5"], None).await;
    let (host, handle) = node(&store, 5, members[0].clone());
    until("it is published", || handle.published().notices.len() == 5).await;
    falls_silent(&host, "3");
    let standings = handle.standings();
    let stands = || {
        let known = standings.borrow().clone();
        known.and_then(|known| known.get(&key("3")).map(|judged| judged.standing))
    };
    until("it is judged", || stands() == Some(Standing::Gone)).await;
    // It is well again, and not for long enough to get anything back.
    is_well_again(&host, "3");
    let notice = Keys::new(NOTICES).server(&key("3"));
    let harm = [Op::delete(&*notice), Op::put(&*notice, br#"{"server":"3","verd"#.as_slice())];
    for harm in harm {
        store.commit(Txn::new([harm.clone()])).await.unwrap();
        TokioRuntime.sleep(Duration::from_secs(3)).await;
        assert_eq!(stands(), Some(Standing::Gone));
        let expected = BTreeMap::from([(key("3"), Standing::Gone)]);
        let shown = handle.published();
        assert_eq!(stored(&store).await.1, expected, "{harm:?}: {shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_plans_before_it_is_known_what_members_may_hold() {
    let store = Embedded::new(machine::Config::default(), TokioRuntime);
    let (told, standings) = watch::channel(None);
    let members = members(&store, ["1", "2", "3"], Some(standings.clone())).await;
    let assigned = KeyRange::prefix(format!("{ROOT}/assign/"));
    let mut watch = store.watch(assigned.clone(), 1).await.unwrap();
    TokioRuntime.sleep(Duration::from_secs(60)).await;
    let found = store.range(RangeRequest::new(assigned)).await.unwrap();
    assert_eq!(found.items.len(), 0);
    let judged = Judgement { standing: Standing::Gone, why: "it was drained".into() };
    told.send(Some(Arc::new(BTreeMap::from([(key("2"), judged)])))).unwrap();
    reported(&members[0], |report| report.assignments == 40 && report.is_settled()).await;
    // Whoever has drained it does not get it back for a moment.
    let mut given = 0;
    while let Some(Ok(Update::Events(events))) = watch.next().now_or_never() {
        for event in &events.events {
            let Event::Put(kv) = event else { continue };
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            assert!(!key.contains("default#2"), "{key}");
            given += 1;
        }
    }
    assert!(given >= 40, "{given}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_gives_up_a_part_is_the_primary_of_nothing_that_others_hold() {
    let store = Embedded::new(machine::Config::default(), TokioRuntime);
    let (told, standings) = watch::channel(Some(Standings::default()));
    let members = members(&store, ["1", "2", "3", "4", "5"], Some(standings.clone())).await;
    let of = |report: &allocator::Report, id: &str| {
        let found = report.members.iter().find(|member| member.key == key(id));
        found.map_or((0, 0), |member| (member.load, member.primaries))
    };
    reported(&members[0], |report| report.is_settled() && of(report, "3") == (8, 4)).await;
    let steps = [(Standing::NoPrimaries, 8), (Standing::Shed(25), 7), (Standing::Shed(50), 5)];
    for (standing, most) in steps {
        let judged = Judgement { standing, why: "it is slow".into() };
        told.send_replace(Some(Arc::new(BTreeMap::from([(key("3"), judged)]))));
        let done = |report: &allocator::Report| {
            let (load, primaries) = of(report, "3");
            report.is_settled() && (1..=most).contains(&load) && primaries == 0
        };
        reported(&members[0], done).await;
    }
}
