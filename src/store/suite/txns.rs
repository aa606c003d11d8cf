//! Checks of transactions: compares, both branches, nesting, refusals.

use std::time::Duration;

use super::World;
use crate::{
    runtime::Runtime,
    store::{
        Bytes, Compare, KeyRange, LeaseId, Op, OpResponse, RangeRequest, Refusal, Relation, Store,
        StoreError, Target, Txn,
    },
};

pub(super) async fn all<S: Store, R: Runtime>(world: &mut impl FnMut(&str) -> World<S, R>) {
    a_key_counts_its_changes(&world("a key counts its changes")).await;
    a_key_is_created_once(&world("a key is created once")).await;
    compares_look_at_one_key(&world("compares look at one key")).await;
    compares_look_at_a_range(&world("compares look at a range")).await;
    one_branch_is_done(&world("one branch is done")).await;
    operations_see_those_before_them(&world("operations see those before them")).await;
    compares_see_what_stood_before(&world("compares see what stood before")).await;
    a_chain_of_candidates(&world("a chain of candidates")).await;
    only_a_change_is_a_revision(&world("only a change is a revision")).await;
    a_key_is_changed_once(&world("a key is changed once")).await;
    too_much_is_refused_unsent(&world("too much is refused unsent")).await;
    only_so_deep_is_nested(&world("only so deep is nested")).await;
    a_missing_lease_refuses_all_of_it(&world("a missing lease refuses all of it")).await;
    nonsense_is_refused(&world("nonsense is refused")).await;
    counters_do_not_lose_a_step(&world("counters do not lose a step")).await;
}

async fn a_key_counts_its_changes<S: Store, R: Runtime>(world: &World<S, R>) {
    let first = world.put("a", "1").await;
    let second = world.put("a", "2").await;
    let found = world.get("a").await.expect("it was put");
    assert!(second > first);
    assert_eq!((found.create_revision, found.mod_revision, found.version), (first, second, 2));
    assert_eq!((&*found.key, &*found.value), (&*world.key("a"), &b"2"[..]));
    assert_eq!(found.lease, LeaseId::NONE);
    world.delete("a").await;
    assert_eq!(world.get("a").await, None);
    let third = world.put("a", "").await;
    let found = world.get("a").await.expect("it was put");
    assert_eq!((found.create_revision, found.mod_revision, found.version), (third, third, 1));
    // Keys and values are bytes, not text.
    let key = Bytes::from([world.prefix.as_bytes(), &[0, 255]].concat());
    world.commit(Txn::new([Op::put(key.clone(), &[0, 159, 255])])).await;
    let found = world.list(RangeRequest::new(KeyRange::key(key))).await;
    assert_eq!(&*found[0].value, &[0, 159, 255]);
}

async fn a_key_is_created_once<S: Store, R: Runtime>(world: &World<S, R>) {
    let create = |value: &str| {
        let absent = [Compare::absent(world.one("a"))];
        Txn::when(absent).and_then([world.put_op("a", value)]).or_else([Op::get(world.key("a"))])
    };
    assert!(world.commit(create("first")).await.succeeded);
    let second = world.commit(create("second")).await;
    assert!(!second.succeeded);
    let [OpResponse::Range(found)] = &second.responses[..] else { panic!("{second:?}") };
    assert_eq!(&*found.items[0].value, b"first");
}

/// Checks a target that stands at 2, or at its like, against 1, 2 and 3.
async fn relations<S: Store, R: Runtime>(
    world: &World<S, R>,
    range: &KeyRange,
    targets: [Target; 3],
) {
    use Relation::{Equal, Greater, Less, NotEqual};
    for (target, holding) in
        targets.into_iter().zip([[NotEqual, Greater].as_slice(), &[Equal], &[NotEqual, Less]])
    {
        for relation in [Equal, NotEqual, Greater, Less] {
            let compare = Compare { range: range.clone(), relation, target: target.clone() };
            let expected = holding.contains(&relation);
            assert_eq!(world.holds(compare.clone()).await, expected, "{compare:?}");
        }
    }
}

async fn compares_look_at_one_key<S: Store, R: Runtime>(world: &World<S, R>) {
    let lease = world.grant(Duration::from_secs(60)).await.id;
    let created = world.put("a", "1").await;
    let put = Op::put_leased(world.key("a"), "b", lease);
    let changed = world.commit(Txn::new([put])).await.revision;
    let around = |number: u64| [number - 1, number, number + 1];
    let a = world.one("a");
    relations(world, &a, around(created).map(Target::CreateRevision)).await;
    relations(world, &a, around(changed).map(Target::ModRevision)).await;
    relations(world, &a, around(2).map(Target::Version)).await;
    relations(world, &a, around(lease.0).map(|id| Target::Lease(LeaseId(id)))).await;
    relations(world, &a, ["a", "b", "ba"].map(|value| Target::Value(value.into()))).await;
    // A key that does not stand is all zero, and has no value.
    for zero in [
        Target::CreateRevision(0),
        Target::ModRevision(0),
        Target::Version(0),
        Target::Lease(LeaseId::NONE),
    ] {
        assert!(world.holds(Compare::equal(world.one("none"), zero)).await);
    }
    for relation in [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less] {
        let target = Target::Value(Bytes::default());
        assert!(!world.holds(Compare { range: world.one("none"), relation, target }).await);
    }
}

async fn compares_look_at_a_range<S: Store, R: Runtime>(world: &World<S, R>) {
    let range = world.below("in/");
    let empty = Compare::absent(range.clone());
    let mine = |lease| Compare::equal(range.clone(), Target::Lease(lease));
    let valued =
        |relation| Compare { range: range.clone(), relation, target: Target::Value("v".into()) };
    assert!(world.holds(empty.clone()).await);
    assert!(world.holds(mine(LeaseId::NONE)).await);
    assert!(!world.holds(valued(Relation::NotEqual)).await);
    let lease = world.grant(Duration::from_secs(60)).await.id;
    world.put_leased("in/1", lease).await;
    world.put_leased("in/2", lease).await;
    assert!(!world.holds(empty.clone()).await);
    assert!(world.holds(mine(lease)).await);
    assert!(world.holds(valued(Relation::NotEqual)).await);
    assert!(world.holds(Compare::equal(range.clone(), Target::Version(1))).await);
    // It must hold for every key.
    world.put("in/2", "v").await;
    assert!(!world.holds(mine(lease)).await);
    assert!(!world.holds(Compare::equal(range.clone(), Target::Version(1))).await);
    assert!(!world.holds(valued(Relation::Equal)).await);
    // The key right behind the range is none of it.
    let in_one = KeyRange::span(world.key("in/1"), world.key("in/2"));
    assert!(world.holds(Compare::equal(in_one, Target::Lease(lease))).await);
}

async fn one_branch_is_done<S: Store, R: Runtime>(world: &World<S, R>) {
    let txn = |version| {
        Txn::when([
            Compare::equal(world.one("a"), Target::Version(version)),
            Compare::absent(world.one("never")),
        ])
        .and_then([world.put_op("a", "then"), world.put_op("then", "")])
        .or_else([world.put_op("a", "else"), Op::Delete(world.below("then"))])
    };
    let done = world.commit(txn(0)).await;
    assert!(done.succeeded);
    assert_eq!(done.responses, [OpResponse::Put, OpResponse::Put]);
    let then = world.get("then").await.expect("it was put");
    assert_eq!(then.mod_revision, done.revision);
    let done = world.commit(txn(7)).await;
    assert!(!done.succeeded);
    assert_eq!(done.responses, [OpResponse::Put, OpResponse::Delete(1)]);
    assert_eq!(world.values("").await, [("a".to_owned(), "else".to_owned())]);
}

async fn operations_see_those_before_them<S: Store, R: Runtime>(world: &World<S, R>) {
    world.put("old", "").await;
    let read = || Op::Range(RangeRequest::new(world.below("")));
    let done = world
        .commit(Txn::new([
            read(),
            world.put_op("new", "1"),
            read(),
            Op::delete(world.key("old")),
            Op::Txn(Txn::new([read()])),
        ]))
        .await;
    let names = |response: &OpResponse| -> Vec<String> {
        let OpResponse::Range(found) = response else { panic!("{response:?}") };
        assert_eq!(found.revision, done.revision);
        found.items.iter().map(|kv| world.name(&kv.key)).collect()
    };
    assert_eq!(names(&done.responses[0]), ["old"]);
    assert_eq!(names(&done.responses[2]), ["new", "old"]);
    let OpResponse::Txn(nested) = &done.responses[4] else { panic!("{done:?}") };
    assert_eq!(names(&nested.responses[0]), ["new"]);
    assert!(nested.succeeded && nested.revision == done.revision);
}

async fn compares_see_what_stood_before<S: Store, R: Runtime>(world: &World<S, R>) {
    world.put("a", "1").await;
    let nested = Txn::when([Compare::absent(world.one("b"))])
        .and_then([world.put_op("nested", "b was absent")])
        .or_else([world.put_op("nested", "b was there")]);
    let other = Txn::when([Compare::absent(world.one("a"))])
        .and_then([world.put_op("other", "a was absent")])
        .or_else([world.put_op("other", "a was there")]);
    let ops = [world.put_op("b", "2"), Op::delete(world.key("a")), Op::Txn(nested), Op::Txn(other)];
    world.commit(Txn::new(ops)).await;
    let values = world.values("").await;
    let values: Vec<_> = values.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(values, [("b", "2"), ("nested", "b was absent"), ("other", "a was there")]);
}

/// Takes the first free number for a key, in one transaction.
fn take<S: Store, R: Runtime>(world: &World<S, R>, key: &str, candidates: &[u32]) -> Txn {
    let (holder, reference) = (format!("k/{key}"), format!("r/{key}"));
    let mut chain = Txn::default();
    for number in candidates.iter().rev() {
        let name = format!("i/{number}");
        let mut or_else = vec![Op::get(world.key(&name))];
        if !chain.compares.is_empty() {
            or_else.push(Op::Txn(chain));
        }
        chain = Txn::when([Compare::absent(world.one(&name))])
            .and_then([
                world.put_op(&name, key),
                world.put_op(&holder, number.to_string()),
                world.put_op(&reference, ""),
            ])
            .or_else(or_else);
    }
    Txn::when([Compare::equal(world.one(&holder), Target::Version(1))])
        .and_then([Op::get(world.key(&holder)), world.put_op(&reference, "")])
        .or_else([Op::Txn(chain)])
}

async fn a_chain_of_candidates<S: Store, R: Runtime>(world: &World<S, R>) {
    let held = async |key: &str| world.get(format!("k/{key}")).await.map(|kv| kv.value.to_string());
    world.commit(take(world, "one", &[1001, 1002])).await;
    assert_eq!(held("one").await.as_deref(), Some("1001"));
    assert!(world.commit(take(world, "one", &[1003])).await.succeeded);
    assert_eq!(held("one").await.as_deref(), Some("1001"));
    world.commit(take(world, "two", &[1001, 1002])).await;
    assert_eq!(held("two").await.as_deref(), Some("1002"));
    let none = world.commit(take(world, "three", &[1001, 1002])).await;
    assert_eq!(held("three").await, None);
    let [OpResponse::Txn(first)] = &none.responses[..] else { panic!("{none:?}") };
    let [OpResponse::Range(one), OpResponse::Txn(second)] = &first.responses[..] else {
        panic!("{none:?}")
    };
    let [OpResponse::Range(two)] = &second.responses[..] else { panic!("{none:?}") };
    assert_eq!((&*one.items[0].value, &*two.items[0].value), (&b"one"[..], &b"two"[..]));
    // One number for two keys of one transaction: refused, and nothing is done.
    let twice = Txn::new(["four", "five"].map(|key| Op::Txn(take(world, key, &[1004]))));
    assert!(matches!(world.refusal(twice).await, Refusal::DuplicateKey(_)));
    assert_eq!((held("four").await, held("five").await), (None, None));
}

async fn only_a_change_is_a_revision<S: Store, R: Runtime>(world: &World<S, R>) {
    let before = world.put("a", "1").await;
    let idle = Txn::when([Compare::absent(world.one("a"))])
        .and_then([world.put_op("b", "")])
        .or_else([Op::get(world.key("a")), Op::delete(world.key("none"))]);
    assert_eq!(world.commit(idle).await.revision, before);
    assert_eq!(world.commit(Txn::default()).await.revision, before);
    // The same value again is a change.
    assert_eq!(world.put("a", "1").await, before + 1);
    let many = (0..50).map(|number| world.put_op(format!("m{number}"), "")).collect::<Vec<_>>();
    assert_eq!(world.commit(Txn::new(many)).await.revision, before + 2);
}

async fn a_key_is_changed_once<S: Store, R: Runtime>(world: &World<S, R>) {
    let put = || world.put_op("a", "1");
    let delete = || Op::delete(world.key("a"));
    let nested = |op| Op::Txn(Txn::new([op]));
    for ops in [
        vec![put(), put()],
        vec![put(), delete()],
        vec![delete(), put()],
        vec![put(), Op::Delete(world.below(""))],
        vec![nested(put()), nested(put())],
        vec![put(), nested(put())],
        vec![nested(put()), delete()],
        vec![nested(put()), nested(delete())],
        vec![nested(delete()), nested(put())],
    ] {
        let refusal = world.refusal(Txn::new(ops.clone())).await;
        assert_eq!(refusal, Refusal::DuplicateKey(world.key("a")), "{ops:?}");
    }
    assert_eq!(world.get("a").await, None);
    // Only one branch is done, and deleting twice is deleting once.
    let branches = Txn::default().and_then([put()]).or_else([put()]);
    world.commit(branches).await;
    let done = world.commit(Txn::new([delete(), delete()])).await;
    assert_eq!(done.responses, [OpResponse::Delete(1), OpResponse::Delete(0)]);
}

async fn too_much_is_refused_unsent<S: Store, R: Runtime>(world: &World<S, R>) {
    let limits = world.store.limits();
    let puts = |count: usize| {
        (0..count).map(|number| world.put_op(format!("{number}"), "")).collect::<Vec<_>>()
    };
    let before = world.revision().await;
    let limit = limits.operations;
    let found = limit + 1;
    let refusal = world.refusal(Txn::new(puts(found))).await;
    assert_eq!(refusal, Refusal::TooManyOperations { found, limit });
    assert!(refusal.to_string().contains(&limit.to_string()), "{refusal}");
    // A nested list shares the limit with what it is nested in.
    let nested = Txn::new([Op::Txn(Txn::new(puts(limit)))]);
    assert_eq!(world.refusal(nested).await, Refusal::TooManyOperations { found, limit });
    let compares = vec![Compare::absent(world.one("none")); found];
    let refusal = world.refusal(Txn::when(compares)).await;
    assert_eq!(refusal, Refusal::TooManyOperations { found, limit });
    let large = Txn::new([world.put_op("large", vec![0; limits.bytes + 1])]);
    let refusal = world.refusal(large).await;
    assert!(matches!(refusal, Refusal::TooLarge { limit, .. } if limit == limits.bytes));
    assert_eq!(world.revision().await, before);
    // What is just within is done.
    let absent = vec![Compare::absent(world.one("none")); limit];
    let most = Txn::when(absent).and_then(puts(limit)).or_else(puts(limit));
    assert!(world.commit(most).await.succeeded);
    let size = Txn::new([world.put_op("large", "")]).size();
    let large = Txn::new([world.put_op("large", vec![0; limits.bytes - size])]);
    world.commit(large).await;
    let found = world.get("large").await.map(|kv| kv.value.len());
    assert_eq!(found, Some(limits.bytes - size));
    world.delete("large").await;
}

async fn only_so_deep_is_nested<S: Store, R: Runtime>(world: &World<S, R>) {
    world.put("a", "1").await;
    let nested = |depth: usize| {
        let innermost = Txn::new([Op::get(world.key("a")), world.put_op("b", "")]);
        (1..depth).fold(innermost, |txn, _| Txn::new([Op::Txn(txn)]))
    };
    let refusal = world.refusal(nested(Txn::DEPTH + 1)).await;
    assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal}");
    assert_eq!(world.get("b").await, None);
    // The answer is just as deep.
    let mut done = world.commit(nested(Txn::DEPTH)).await;
    for _ in 1..Txn::DEPTH {
        let Some(OpResponse::Txn(inner)) = done.responses.pop() else { panic!("{done:?}") };
        done = inner;
    }
    let [OpResponse::Range(found), OpResponse::Put] = &done.responses[..] else {
        panic!("{done:?}")
    };
    assert_eq!(&*found.items[0].value, b"1");
}

async fn a_missing_lease_refuses_all_of_it<S: Store, R: Runtime>(world: &World<S, R>) {
    let lease = world.grant(Duration::from_secs(60)).await.id;
    world.retry(|| world.store.revoke(lease)).await.expect("it stands");
    let leased = || Op::put_leased(world.key("b"), "", lease);
    let txn = Txn::new([world.put_op("a", ""), Op::Txn(Txn::new([leased()]))]);
    assert_eq!(world.refusal(txn).await, Refusal::LeaseNotFound(lease));
    assert_eq!(world.values("").await, []);
    // On the way that is not taken it does not matter.
    let branches = Txn::default().and_then([world.put_op("a", "")]).or_else([leased()]);
    assert!(world.commit(branches).await.succeeded);
}

async fn nonsense_is_refused<S: Store, R: Runtime>(world: &World<S, R>) {
    let backwards = KeyRange::span(world.key("b"), world.key("a"));
    for txn in [
        Txn::new([Op::put("", "")]),
        Txn::new([Op::delete("")]),
        Txn::new([Op::Delete(backwards.clone())]),
        Txn::when([Compare::absent(backwards.clone())]),
        Txn::new([Op::Range(RangeRequest::new(KeyRange::all()).at(0))]),
    ] {
        assert!(matches!(world.refusal(txn).await, Refusal::Invalid(_)));
    }
    for read in [RangeRequest::new(backwards), RangeRequest::new(KeyRange::all()).at(0)] {
        let read = world.store.range(read).await;
        assert!(matches!(read, Err(StoreError::Refused(Refusal::Invalid(_)))), "{read:?}");
    }
}

async fn counters_do_not_lose_a_step<S: Store, R: Runtime>(world: &World<S, R>) {
    const CLIENTS: usize = 8;
    const STEPS: usize = 20;
    world.put("count", "0").await;
    let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..CLIENTS {
        let (world, done) = (world.clone(), done.clone());
        world.runtime.clone().spawn(async move {
            for _ in 0..STEPS {
                step(&world).await;
            }
            let _ = done.send(());
        });
    }
    for _ in 0..CLIENTS {
        world.soon("the end of a client", ended.recv()).await.expect("a client has panicked");
    }
    let count = world.get("count").await.expect("it was put");
    assert_eq!(count.value.to_string(), (CLIENTS * STEPS).to_string());
    assert_eq!(count.version, (CLIENTS * STEPS + 1) as u64);
}

async fn step<S: Store, R: Runtime>(world: &World<S, R>) {
    loop {
        let count = world.get("count").await.expect("it was put");
        let next: usize = count.value.to_string().parse().expect("a number");
        let txn = Txn::when([Compare::unchanged(world.key("count"), count.mod_revision)])
            .and_then([world.put_op("count", (next + 1).to_string())]);
        if world.commit(txn).await.succeeded {
            return;
        }
    }
}
