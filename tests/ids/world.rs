//! What the tests of one fact each are made of: a store, and instances over it.

use std::time::Duration;

use raft_autopilot::{
    ids::{Collector, CollectorOptions, Event, Events, Handle, IdRange, Ids, Options},
    runtime::{Runtime, TokioRuntime},
    store::{Embedded, Op, Store, Txn, machine::Config},
};

use crate::{
    checker::{Snapshot, snapshot},
    faulty::{Faulty, Stoppable},
};

pub(crate) type Instance = Ids<Faulty, Stoppable>;

pub(crate) const PREFIX: &str = "ids/";

pub(crate) fn store() -> Embedded {
    Embedded::new(Config::default(), TokioRuntime)
}

pub(crate) fn range(first: u64, last: u64) -> IdRange {
    IdRange::new(first, last).unwrap()
}

pub(crate) fn key(number: u64) -> String {
    format!("key{number:04}")
}

pub(crate) fn options(name: &str) -> Options {
    let seed = name.bytes().fold(7, |seed: u64, byte| seed * 31 + u64::from(byte));
    Options { node: name.into(), seed: Some(seed), ..Options::default() }
}

/// An instance over a connection of its own.
pub(crate) async fn open(store: &Embedded, options: Options) -> (Instance, Faulty) {
    let line = Faulty::new(store, 1, None);
    let ids = Ids::open(line.clone(), line.runtime(), PREFIX, options).await.unwrap();
    ids.wait_synced().await.unwrap();
    (ids, line)
}

pub(crate) async fn collector(
    store: &Embedded,
    grace: Duration,
) -> Collector<Embedded, TokioRuntime> {
    let options = CollectorOptions { grace, grace_floor: grace, ..CollectorOptions::default() };
    Collector::open(store.clone(), TokioRuntime, PREFIX, options).await.unwrap()
}

pub(crate) async fn pause(millis: u64) {
    TokioRuntime.sleep(Duration::from_millis(millis)).await;
}

pub(crate) async fn look(store: &Embedded) -> Snapshot {
    let found = snapshot(store, PREFIX).await;
    assert_eq!(found.faults(), Vec::<String>::new());
    found
}

/// Asks for keys at the same time, each in a task of its own.
pub(crate) async fn together(asked: impl IntoIterator<Item = (Instance, String)>) -> Vec<Handle> {
    let ask = |(ids, key): (Instance, String)| {
        tokio::task::spawn(async move { ids.allocate(key).await.unwrap() })
    };
    let asking: Vec<_> = asked.into_iter().map(ask).collect();
    let mut handles = Vec::new();
    for asking in asking {
        handles.push(asking.await.unwrap());
    }
    handles
}

/// How many transactions a process has sent.
pub(crate) fn commits(line: &Faulty) -> u64 {
    *line.line.commits.lock().unwrap()
}

pub(crate) async fn delete(store: &Embedded, names: &[String]) {
    let ops = names.iter().map(|name| Op::delete(name.as_str()));
    store.commit(Txn::new(ops)).await.unwrap();
}

/// What happened until nothing more does.
pub(crate) async fn events(events: &mut Events) -> Vec<String> {
    let mut told = Vec::new();
    pause(50).await;
    while let Some(event) = events.try_next() {
        told.push(match event {
            Event::Upsert { id, key, .. } => format!("+{id} {key}"),
            Event::Delete { id, key, .. } => format!("-{id} {key}"),
            Event::Sync { .. } => "sync".to_owned(),
        });
    }
    told
}
