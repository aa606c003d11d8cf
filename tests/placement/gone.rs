//! A store that is out of reach for a minute, for everybody: whole drivers in paused time.

use std::time::Duration;

use raft_autopilot::{
    allocator::{
        self, Allocator, Leading, Standing, Standings,
        plain::{Plain, PlainItem, PlainMember},
    },
    placement::{Options, Placement},
    promoters::Stable,
    runtime::{Runtime, TokioRuntime},
    store::{Embedded, machine},
};
use tokio::sync::watch;

use crate::{
    faulty::{Faults, Faulty},
    host::{Host, until},
    published::{Ready, falls_silent, hasty, is_well_again, key},
};

/// A member that joins again whenever it has lost its lease.
fn lives(
    store: Faulty,
    id: &'static str,
    standings: watch::Receiver<Option<Standings>>,
) -> allocator::Handle<Plain> {
    let value = PlainMember { limit: 100, ..PlainMember::default() };
    let item = PlainItem { replication: 2, zones: None };
    let options = allocator::Options {
        fixed_items: (0..20).map(|number| (format!("i{number:02}"), item.clone())).collect(),
        leading: Leading { standings: Some(standings), ..Leading::default() },
        ..allocator::Options::new("/work", "default", id, value)
    };
    let (mut member, handle) = Allocator::new(store, TokioRuntime, Plain, Ready, options).unwrap();
    TokioRuntime.spawn(async move {
        while member.run(std::future::pending()).await.is_err() {
            TokioRuntime.sleep(Duration::from_millis(500)).await;
        }
    });
    handle
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_gone_for_a_minute_takes_nothing_from_anybody_and_gives_nothing_back() {
    let store = Embedded::new(machine::Config::default(), TokioRuntime);
    let lines: Vec<Faulty> = (0..5).map(|seed| Faulty::new(&store, seed, None)).collect();
    let (placement, handle) =
        Placement::new(lines[0].clone(), TokioRuntime, hasty(), Options::new("/standings"))
            .unwrap();
    let members: Vec<allocator::Handle<Plain>> = ["1", "2", "3", "4", "5"]
        .into_iter()
        .zip(&lines)
        .map(|(id, line)| lives(line.clone(), id, handle.standings()))
        .collect();
    let host = Host::new("1 leader\n2\n3\n4\n5");
    let autopilot = host.run(Stable::new(), |options| options.config.cleanup_dead_servers = false);
    let (told, member) = (autopilot.clone(), members[0].clone());
    TokioRuntime.spawn(async move { drop(placement.run(told, member).await) });
    let settled = |least: usize| {
        let report = members.iter().find_map(allocator::Handle::report);
        report.is_some_and(|report| {
            let stand = report.members.iter().filter(|member| member.stands).count();
            report.is_settled() && report.assignments == 40 && stand >= least
        })
    };
    until("all hold all items", || settled(5) && handle.published().notices.len() == 5).await;
    falls_silent(&host, "3");
    let standings = || {
        let notices = handle.published().notices.clone();
        notices.into_values().map(|notice| notice.standing).collect::<Vec<_>>()
    };
    let one_gone = [Standing::Full, Standing::Full, Standing::Gone, Standing::Full, Standing::Full];
    until("one of them is drained", || standings() == one_gone && settled(5)).await;
    for line in &lines {
        *line.line.faults.lock().unwrap() = Faults { lost: 100, ..Faults::default() };
    }
    // Meanwhile it is well again, and another one is not.
    is_well_again(&host, "3");
    falls_silent(&host, "4");
    for _ in 0..60 {
        TokioRuntime.sleep(Duration::from_secs(1)).await;
        assert_eq!(standings(), one_gone);
        let known = handle.standings().borrow().clone().unwrap();
        assert_eq!(known[&key("3")].standing, Standing::Gone);
    }
    assert!(handle.published().failing.is_some(), "and it is shown");
    for line in &lines {
        *line.line.faults.lock().unwrap() = Faults::default();
    }
    // Both are judged as they are by then: the first one gets its share back step by step.
    until("it goes on", || {
        let now = standings();
        now[3] == Standing::Gone && now[2] == Standing::Full
    })
    .await;
    until("all items are held again", || settled(5)).await;
    assert_eq!(handle.published().failing, None);
}
