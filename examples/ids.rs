//! Two nodes agree on the ids of keys, and an id comes back when nobody uses it any more.
//!
//! ```sh
//! cargo run --example ids --features ids
//! ```

use std::{error::Error, time::Duration};

use raft_autopilot::{
    ids::{Collector, CollectorOptions, Event, IdRange, Ids, IdsError, Options, list},
    runtime::TokioRuntime,
    store::{Embedded, machine::Config},
};

const PREFIX: &str = "identities/";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Any store will do: this one is in memory, and both nodes are in this process.
    let store = Embedded::new(Config::default(), TokioRuntime);
    let options = |node: &str| -> Result<Options, Box<dyn Error>> {
        let range = Some(IdRange::new(256, 65_535)?);
        Ok(Options { range, node: node.into(), ..Options::default() })
    };
    let one = Ids::open(store.clone(), TokioRuntime, PREFIX, options("one")?).await?;
    let two = Ids::open(store.clone(), TokioRuntime, PREFIX, options("two")?).await?;

    // Both ask at the same time for the same labels.
    let labels = "app=web;ns=shop;";
    let (here, there) = tokio::join!(one.allocate(labels), two.allocate(labels));
    let (here, there) = (here?, there?);
    println!("one: {labels} is {}, new: {}", here.id(), here.is_new());
    println!("two: {labels} is {}, new: {}", there.id(), there.is_new());
    assert_eq!(here.id(), there.id());
    println!("it is {:?}, its fencing token is {}", here.status(), here.generation());

    // Many at once go in one transaction.
    let many = one.allocate_many((0..100).map(|pod| format!("app=batch;pod={pod};"))).await?;
    println!("one: {} more keys, from {} on", many.len(), many[0].id());
    drop(many);

    // As long as anybody uses an id, nobody takes it back.
    let options = CollectorOptions { grace: Duration::ZERO, ..CollectorOptions::default() };
    let mut collector = Collector::open(store.clone(), TokioRuntime, PREFIX, options).await?;
    here.release().await;
    let first = collector.collect().await?;
    println!("collected {} of {}: `two` still uses {}", first.deleted, first.found, there.id());
    assert_eq!(two.get_no_cache(labels.as_bytes()).await?, Some(there.id()));
    let id = there.id();
    there.release().await;
    let second = collector.collect().await?;
    println!("collected {} of {}: nobody uses {id}", second.deleted, second.found);
    assert_eq!(two.get_no_cache(labels.as_bytes()).await?, None);

    // A reader is told what stands, and then what happens.
    let _db = one.allocate("app=db;ns=shop;").await?;
    // A cache is a moment behind its store.
    two.wait_revision(list(&store, PREFIX).await?.revision).await?;
    let (mut events, mut last) = (two.subscribe(), None);
    while let Some(event) = events.next().await {
        println!("two is told: {event:?}");
        match event {
            Event::Sync { .. } => last = Some(one.allocate("app=cache;ns=shop;").await?),
            Event::Upsert { id, .. } if last.as_ref().is_some_and(|last| last.id() == id) => break,
            Event::Upsert { .. } | Event::Delete { .. } => {}
        }
    }

    // There is no id without an end.
    let small = Options { range: Some(IdRange::new(1, 2)?), ..Options::default() };
    let small = Ids::open(Embedded::new(Config::default(), TokioRuntime), TokioRuntime, "x", small);
    let small = small.await?;
    let _both = small.allocate_many(["a", "b"]).await?;
    match small.allocate("c").await {
        Err(error @ IdsError::Exhausted { .. }) => println!("and then {error}"),
        other => return Err(format!("{other:?}").into()),
    }
    one.close().await;
    two.close().await;
    Ok(())
}
