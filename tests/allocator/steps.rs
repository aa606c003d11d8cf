//! Keys, and the steps of one item: the reference's vectors, and that the way is safe and ends.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};
use raft_autopilot::allocator::{
    item::{Key, KeyError, Keys, NameError},
    plan::{self, Held, Step, Wanted},
};

/// The steps, with no rules of what zones lie in.
fn steps(
    replication: usize,
    cap: usize,
    held: &[Held<u32>],
    wanted: &[Wanted<u32>],
) -> Vec<Step<u32>> {
    plan::steps(replication, &cap.into(), held, wanted)
}

#[test]
fn keys_are_laid_out_as_the_reference_has_them() {
    let keys = Keys::new("/root/");
    let text = |key| keys.encode(&key).unwrap();
    assert_eq!(text(Key::Item("item-1")), "/root/items/item-1");
    let member = Key::Member { zone: "zone-a", member: "member-A1" };
    assert_eq!(text(member), "/root/members/zone-a#member-A1");
    let assignment = Key::Assignment { item: "item-1", zone: "us-west", member: "baz", slot: 0 };
    assert_eq!(text(assignment), "/root/assign/item-1#us-west#baz#0");
    for key in [member, assignment, Key::Item("a/b/ü")] {
        assert_eq!(keys.decode(&keys.encode(&key).unwrap()).unwrap(), key);
    }
    assert_eq!(keys.assignments_of("item-tw").unwrap(), "/root/assign/item-tw#");
}

#[test]
fn the_natural_order_is_that_of_the_keys() {
    let keys = Keys::new("/root");
    let names = ["11", "111", "22", "a", "a$", "a/b", "ab", "b", "ü"];
    let mut all: Vec<Key<'_>> = names.map(Key::Item).into_iter().chain([Key::Leader]).collect();
    for (zone, member) in names.iter().flat_map(|zone| names.map(|member| (*zone, member))) {
        all.push(Key::Member { zone, member });
        let slots = [0, 1, 2, 9, 10, 100, u32::MAX];
        all.extend(slots.map(|slot| Key::Assignment { item: "a", zone, member, slot }));
        all.push(Key::Assignment { item: zone, zone: "a", member, slot: 10 });
    }
    all.sort_unstable();
    let text: Vec<String> = all.iter().map(|key| keys.encode(key).unwrap()).collect();
    assert!(text.is_sorted(), "{text:?}");
}

#[test]
fn bad_keys_are_refused_with_the_reason() {
    let keys = Keys::new("/root");
    let parts = |found, expected| Err(KeyError::Parts { found, expected });
    assert_eq!(keys.decode("/root/items/invalid#item#key"), parts(3, 1));
    assert_eq!(keys.decode("/root/members/invalid-key"), parts(1, 2));
    assert_eq!(keys.decode("/root/aaaaa/x"), Err(KeyError::Prefix));
    assert_eq!(keys.decode("/rooted/items/x"), Err(KeyError::Prefix));
    for slot in ["invalid-slot", "00", "-1", "+1", ""] {
        let key = format!("/root/assign/i#z#m#{slot}");
        assert_eq!(keys.decode(&key), Err(KeyError::Slot(slot.to_owned())));
    }
    for bad in ["a b", "a#", "\0", "a\"", "!"] {
        let (item, zone, member, slot) = ("i", "z", "m", 0);
        for key in [
            Key::Item(bad),
            Key::Member { zone: bad, member },
            Key::Member { zone, member: bad },
            Key::Assignment { item: bad, zone, member, slot },
            Key::Assignment { item, zone: bad, member, slot },
            Key::Assignment { item, zone, member: bad, slot },
        ] {
            let error = keys.encode(&key).unwrap_err();
            assert!(matches!(error, NameError::Character { .. }), "{key:?}: {error}");
        }
    }
    assert_eq!(keys.encode(&Key::Item("")), Err(NameError::Empty));
}

/// A zone takes any number.
const ANY: usize = usize::MAX;

fn held(member: u32, slot: u32, consistent: bool, load: u64) -> Held<u32> {
    Held { member, zone: zone(member), slot, consistent, load, leaving: false }
}

fn wanted(members: &[u32]) -> Vec<Wanted<u32>> {
    members.iter().map(|member| want(*member, false)).collect()
}

fn want(member: u32, primary: bool) -> Wanted<u32> {
    Wanted { member, zone: zone(member), primary, room: true }
}

/// The members of three zones take turns.
fn zone(member: u32) -> u32 {
    member % 3
}

/// How many of the consistent replicas are within a zone rule that lets a zone take so many.
fn within(all: &[Held<u32>], cap: usize) -> usize {
    let in_zone = |zone| {
        let here = all.iter().filter(|held| held.consistent && held.zone == zone);
        let members: BTreeSet<u32> = here.map(|held| held.member).collect();
        members.len().min(cap)
    };
    (0..3).map(in_zone).sum()
}

fn removed(steps: &[Step<u32>]) -> Vec<u32> {
    let removed = |step: &Step<u32>| match step {
        Step::Remove { member, .. } => Some(*member),
        _ => None,
    };
    steps.iter().filter_map(removed).collect()
}

#[test]
fn removals_keep_as_many_consistent_replicas_as_are_wanted() {
    // Some are removed: the most loaded first, and a consistent one while one more is left.
    let some = [
        held(1, 0, false, 20),
        held(2, 1, true, 25),
        held(3, 2, false, 33),
        held(4, 3, true, 50),
        held(5, 4, false, 100),
    ];
    assert_eq!(removed(&steps(1, ANY, &some, &[])), [5, 4, 3, 1]);
    // All are.
    let all = [held(1, 0, false, 100), held(2, 1, true, 50)];
    assert_eq!(removed(&steps(0, ANY, &all, &[])), [1, 2]);
    // One that is blocked does not block the next: the inconsistent one goes.
    let behind = [held(1, 0, false, 50), held(2, 1, true, 100)];
    assert_eq!(removed(&steps(1, ANY, &behind, &[])), [1]);
    // Not enough are consistent.
    let few = [held(1, 0, false, 100), held(2, 1, true, 50), held(3, 2, false, 33)];
    assert_eq!(removed(&steps(2, ANY, &few, &[])), [0; 0]);
}

#[test]
fn of_two_replicas_that_may_go_the_one_goes_that_leaves_two_zones() {
    // Two are in zone 0, one in zone 1; the plan is one in zone 0 and a new one in zone 2.
    let all = [held(0, 0, true, 5), held(3, 1, true, 1), held(1, 2, true, 100)];
    let goal = wanted(&[0, 2]);
    let found = steps(2, 1, &all, &goal);
    assert_eq!(removed(&found), [3], "the most loaded one is the last outside of zone 0");
    // Where the plan itself has both in one zone, nothing has to be kept.
    assert_eq!(removed(&steps(2, 1, &all, &wanted(&[0, 6]))), [1]);
}

#[test]
fn a_consistent_replica_takes_the_place_of_a_lost_primary() {
    let none = [held(0, 1, false, 1), held(1, 2, true, 1), held(2, 3, false, 1)];
    let promote = Step::Promote { member: 1, slot: 2, instead_of: None };
    assert_eq!(steps(3, ANY, &none, &wanted(&[0, 1, 2])), [promote]);
    // A primary that stands is not demoted for being inconsistent.
    let stands = [held(0, 0, false, 1), held(1, 1, true, 1)];
    assert_eq!(steps(2, ANY, &stands, &wanted(&[0, 1])), []);
    // It hands off to one that should have it, and is ready.
    let wish = [want(0, false), want(1, true)];
    let hand = Step::Promote { member: 1, slot: 1, instead_of: Some(0) };
    assert_eq!(steps(2, ANY, &stands, &wish), [hand]);
}

#[test]
fn adds_take_new_slots_and_only_where_there_is_room() {
    let one = [held(3, 7, true, 1)];
    let mut goal = wanted(&[0, 1, 2, 3]);
    goal[1].room = false;
    let found = steps(4, ANY, &one, &goal);
    let expected = [
        Step::Add { member: 0, slot: 8 },
        Step::Add { member: 2, slot: 9 },
        Step::Promote { member: 3, slot: 7, instead_of: None },
    ];
    assert_eq!(found, expected);
    let new = [want(4, false), want(9, true)];
    assert_eq!(steps(2, ANY, &[], &new)[0], Step::Add { member: 9, slot: 0 });
}

/// Does a step as a store would.
fn apply(all: &mut Vec<Held<u32>>, step: Step<u32>) {
    match step {
        Step::Add { member, slot } => {
            assert!(all.iter().all(|held| held.slot != slot), "the slot is free");
            all.push(held(member, slot, false, 1));
        }
        Step::Remove { member, slot } => all.retain(|h| (h.member, h.slot) != (member, slot)),
        Step::Promote { member, slot, instead_of } => {
            if let Some(primary) = all.iter_mut().find(|held| held.slot == 0) {
                assert_eq!(Some(primary.member), instead_of);
                primary.slot = slot;
            }
            let to = all.iter_mut().find(|held| (held.member, held.slot) == (member, slot));
            to.unwrap().slot = 0;
        }
        Step::Demote { member, slot } => {
            let from = all.iter_mut().find(|held| (held.member, held.slot) == (member, 0));
            from.unwrap().slot = slot;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_way_is_safe_and_ends_where_it_should(
        holders in vec((0..6u32, any::<bool>(), 0..9u64, any::<bool>()), 0..5),
        first in 0..3u32,
        second_primary in any::<bool>(),
        members in prop::collection::btree_set(0..6u32, 0..5),
        chief in 0..5usize,
        cap in 1..4usize,
    ) {
        let mut all: Vec<Held<u32>> = Vec::new();
        for (slot, (member, consistent, load, leaving)) in (first..).zip(holders) {
            all.push(Held { zone: zone(member), leaving, ..held(member, slot, consistent, load) });
        }
        if let (true, [a, b, ..]) = (second_primary, &mut all[..]) && a.member != b.member {
            (a.slot, b.slot) = (0, 0);
        }
        let goal: Vec<Wanted<u32>> = members
            .iter()
            .enumerate()
            .map(|(at, member)| want(*member, at == chief))
            .collect();
        let replication = goal.len();
        let full: Vec<Held<u32>> = members.iter().map(|member| held(*member, 0, true, 0)).collect();
        let consistent = |all: &[Held<u32>]| {
            let mut members: Vec<u32> =
                all.iter().filter(|held| held.consistent).map(|held| held.member).collect();
            members.sort_unstable();
            members.dedup();
            members.len()
        };
        let mut rounds = 0;
        loop {
            let found = steps(replication, cap, &all, &goal);
            let before = consistent(&all);
            let apart = within(&all, cap).min(within(&full, cap));
            for step in &found {
                apply(&mut all, *step);
            }
            prop_assert!(consistent(&all) >= before.min(replication));
            prop_assert!(within(&all, cap) >= apart, "{apart} were within the zone rule: {all:?}");
            prop_assert!(all.iter().filter(|held| held.slot == 0).count() <= 1);
            prop_assert_eq!(all.iter().any(|held| held.slot == 0), !all.is_empty());
            if found.is_empty() && all.iter().all(|held| held.consistent) {
                break;
            }
            // Replicas become consistent while nothing else is to be done.
            if found.is_empty() {
                for held in &mut all {
                    held.consistent = true;
                }
            }
            rounds += 1;
            prop_assert!(rounds < 10, "it does not settle: {:?}", all);
        }
        let mut there: Vec<u32> = all.iter().map(|held| held.member).collect();
        there.sort_unstable();
        prop_assert_eq!(there, members.into_iter().collect::<Vec<u32>>());
        if let Some(chief) = goal.iter().find(|want| want.primary) {
            let primary = all.iter().find(|held| held.slot == 0).map(|held| held.member);
            prop_assert_eq!(primary, Some(chief.member));
        }
    }
}
