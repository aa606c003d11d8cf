//! The reference's shared fixture: what is read of it, what is skipped, and what follows from it.

use raft_autopilot::{
    allocator::{Intent, Outside, Route, Rules},
    store::Op,
};

use crate::scene::{Mode::Hold, Reference, Scene};

/// Keys as the reference's tests have them, bad ones among them.
const KEYS: &[(&str, &str)] = &[
    ("/root/aaaaa/bad-key", "{\"R\":1}"),
    ("/root/assign/item-1#us-east#foo#1", "consistent"),
    ("/root/assign/item-1#us-west#baz#0", "consistent"),
    ("/root/assign/item-1#us-west#baz#invalid-slot", "consistent"),
    ("/root/assign/item-missing#us-west#baz#0", ""),
    ("/root/assign/item-two#missing#member#2", ""),
    ("/root/assign/item-two#us-east#bar#0", "consistent"),
    ("/root/assign/item-two#us-west#baz#1", ""),
    ("/root/assign/item-two#us-west#other#1", "invalid value"),
    ("/root/items/invalid#item#key", "{\"R\":1}"),
    ("/root/items/item-1", "{\"R\":2}"),
    ("/root/items/item-two", "{\"R\":1}"),
    ("/root/items/valid-id", "invalid value"),
    ("/root/jjjjj/bad-key", "{\"R\":1}"),
    ("/root/members/invalid-key", "{\"R\":1}"),
    ("/root/members/us-east#bar", "{\"R\":1}"),
    ("/root/members/us-east#foo", "{\"R\":2}"),
    ("/root/members/us-west#baz", "{\"R\":3}"),
    ("/root/members/us-west#valid-key", "invalid value"),
    ("/root/zzzzz/bad-key", "{\"R\":1}"),
];

async fn fixture() -> Scene {
    let mut scene = Scene::new().await;
    scene.commit(KEYS.iter().map(|(key, value)| Op::put(*key, *value)).collect()).await;
    scene
}

#[tokio::test(start_paused = true)]
async fn bad_keys_and_values_are_reported_and_skipped() {
    let scene = fixture().await;
    let view = scene.mirror.view();
    let bad: Vec<String> = view.undecoded().map(|entry| entry.kv.key.to_string()).collect();
    let expected = [
        "/root/aaaaa/bad-key",
        "/root/assign/item-1#us-west#baz#invalid-slot",
        "/root/assign/item-two#us-west#other#1",
        "/root/items/invalid#item#key",
        "/root/items/valid-id",
        "/root/jjjjj/bad-key",
        "/root/members/invalid-key",
        "/root/members/us-west#valid-key",
        "/root/zzzzz/bad-key",
    ];
    assert_eq!(bad, expected);
    assert!(view.undecoded().all(|entry| entry.error.is_some()));
    assert_eq!(view.len() - bad.len(), 11);
}

#[tokio::test(start_paused = true)]
async fn loads_primaries_and_the_leader_follow_from_what_stands() {
    let mut scene = fixture().await;
    let find = |zone: &str, member: &str| {
        let key = raft_autopilot::allocator::MemberKey::new(zone, member);
        let member = scene.world.find(&key).unwrap();
        (member.load, member.primaries)
    };
    assert_eq!(find("us-east", "bar"), (1, 1));
    assert_eq!(find("us-east", "foo"), (1, 0));
    // The reference does not count the one whose item is missing; it goes first thing.
    assert_eq!(find("us-west", "baz"), (3, 2));
    // All came to be at one revision: the first by zone and name leads.
    assert_eq!(scene.world.leader().unwrap().key.to_string(), "us-east#bar");
    assert_eq!((scene.world.len(), scene.world.assignments()), (3, 7));
    scene.settle(Hold).await;
    assert!(scene.world.item("item-missing").is_none());
    // Who holds what is bad in value stays where it is.
    assert!(scene.world.item("valid-id").is_some());
}

#[tokio::test(start_paused = true)]
async fn the_same_world_has_the_same_fingerprint_and_what_no_plan_needs_changes_nothing() {
    let mut scene = fixture().await;
    let before = scene.world.fingerprint();
    assert_eq!(fixture().await.world.fingerprint(), before);
    let rules = Rules::default();
    let outside = Outside::default();
    let intent = Intent::new(&mut scene.world, &rules, &outside);
    // Values, leases and assignments are not what a plan is made of.
    scene.commit(vec![Op::put("/root/assign/item-two#us-west#baz#1", "consistent")]).await;
    scene.commit(vec![Op::put("/root/members/us-east#bar", "{\"R\":1,\"E\":false}")]).await;
    assert_eq!(scene.world.fingerprint(), before);
    assert!(intent.is_of(&scene.world, &rules, &outside));
    for change in ["us-east/bar=2", "item-1:1", "us-east/new=0", "us-east/foo=2E"] {
        let last = scene.world.fingerprint();
        scene.put(change).await;
        assert_ne!(scene.world.fingerprint(), last, "{change}");
        assert!(!intent.is_of(&scene.world, &rules, &outside));
    }
    for change in ["us-east/bar=1", "item-1:2", "-us-east/new", "us-east/foo=2"] {
        scene.put(change).await;
    }
    assert_eq!(scene.world.fingerprint(), before, "it stands as it stood");
}

#[tokio::test(start_paused = true)]
async fn routes_are_in_the_order_of_slots_and_know_when_they_are_ready() {
    let mut scene = fixture().await;
    let route = |scene: &Scene, item: &str| {
        let view = scene.mirror.view();
        let route = Route::new(scene.world.keys(), &Reference, &view, item).unwrap();
        let hops: Vec<String> = route
            .hops
            .iter()
            .map(|hop| format!("{}{}", hop.member.member, if hop.consistent { "*" } else { "" }))
            .collect();
        (hops.join(" "), route.ready)
    };
    assert_eq!(route(&scene, "item-1"), ("baz* foo*".to_owned(), true));
    // The second of the members in slot 1 says nothing that can be read.
    assert_eq!(route(&scene, "item-two"), ("bar* baz other member".to_owned(), false));
    assert_eq!(route(&scene, "item-missing"), ("baz".to_owned(), false));
    assert_eq!(route(&scene, "nothing"), (String::new(), false));
    assert!(
        Route::<Reference>::new(scene.world.keys(), &Reference, &scene.mirror.view(), "a#")
            .is_err()
    );
    // Fewer replicas than wanted are not ready, however good they are.
    scene.put("item-1:3").await;
    assert!(!route(&scene, "item-1").1);
}
