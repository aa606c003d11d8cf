//! Cases as JSON: scenarios of the reference, what does not fit, and what makes no sense.

use raft_autopilot::allocator::{
    Problem, Reason, Seat, Standing, ZoneRule,
    case::{Case, CaseAssignment, CaseItem, CaseMember, Placement},
    retire,
};

use super::large::Dice;

pub(crate) fn place(case: &str) -> Placement {
    let case: Case = serde_json::from_str(case).unwrap();
    case.place()
}

/// `item@zone/member`, the primary with a star.
fn lines(placement: &Placement) -> Vec<String> {
    let line = |desired: &raft_autopilot::allocator::case::Desired| {
        let star = if desired.primary { "*" } else { "" };
        format!("{}@{}/{}{star}", desired.item, desired.zone, desired.member)
    };
    placement.desired.iter().map(line).collect()
}

#[test]
fn one_member_and_one_item_that_wants_two() {
    let placement = place(
        r#"{"members":[{"zone":"a","id":"m1","limit":10,"exiting":false}],
            "items":[{"id":"i1","replication":2}],
            "assignments":[{"item":"i1","zone":"a","member":"m1","slot":0}]}"#,
    );
    assert_eq!(lines(&placement), ["i1@a/m1*"]);
    let sums = placement.summary;
    assert_eq!((sums.placed, sums.unplaced, sums.added, sums.unchanged), (1, 1, 0, 1));
    assert_eq!(placement.unplaced[0].reason, Reason::TooFewMembers(1));
    assert_eq!(placement.unplaced[0].missing, 1);
}

#[test]
fn seven_items_of_three_replicas_fill_three_members_of_two_zones() {
    let items: Vec<String> =
        (1..=7).map(|i| format!(r#"{{"id":"i0{i}","replication":3}}"#)).collect();
    let placement = place(&format!(
        r#"{{"members":[{{"zone":"a","id":"A1","limit":1024}},{{"zone":"a","id":"A2","limit":1024}},
            {{"zone":"b","id":"B1","limit":1024}}],"items":[{}]}}"#,
        items.join(",")
    ));
    assert_eq!(placement.summary.placed, 21);
    assert_eq!(placement.summary.zones_violated, 0);
    assert_eq!((placement.summary.min_load, placement.summary.max_load), (7, 7));
}

#[test]
fn exiting_members_are_relieved_as_far_as_can_be_spared() {
    let placement = place(
        r#"{"members":[{"zone":"a","id":"A2","limit":4},{"zone":"a","id":"A1","limit":4,"exiting":true},
            {"zone":"b","id":"B1","limit":4,"exiting":true},{"zone":"b","id":"B2","limit":4}],
            "items":[{"id":"i1","replication":1},{"id":"i2","replication":1},
            {"id":"i3","replication":1},{"id":"i4","replication":1}]}"#,
    );
    assert_eq!(placement.summary.placed, 4);
    let left = ["a/A1", "b/B1"];
    assert!(lines(&placement).iter().all(|line| left.iter().all(|left| !line.contains(left))));
}

#[test]
fn capacity_is_shed_by_the_oldest_and_never_more_than_can_be_spared() {
    let shed = |limits: &[u32], exiting: &[u32], replication: &[u32]| {
        let mut problem = Problem::new(ZoneRule::Two, 0);
        for limit in limits {
            problem.add_member(Seat::new(0, *limit));
        }
        for wanted in replication {
            problem.add_item(*wanted, &[]);
        }
        let exiting: Vec<(u32, u32)> = exiting.iter().map(|member| (*member, 0)).collect();
        retire(&mut problem, &exiting);
        let left = problem.seats().iter().zip(limits);
        left.map(|(seat, limit)| limit - seat.limit).collect::<Vec<u32>>()
    };
    // The reference's vectors: limits, who is exiting, the items' replication, what is shed.
    assert_eq!(shed(&[5, 5], &[0], &[1, 1]), [5, 0]);
    assert_eq!(shed(&[5; 5], &[0, 1], &[1, 1]), [5, 5, 0, 0, 0]);
    // The reference keeps the second whole; here it keeps the one item that needs three members.
    assert_eq!(shed(&[10; 4], &[0, 1], &[3, 2, 1]), [10, 9, 0, 0]);
    assert_eq!(shed(&[3, 3, 3, 3], &[0, 1, 2], &[1; 5]), [3, 3, 1, 0]);
    assert_eq!(shed(&[2, 2], &[0], &[1; 5]), [0, 0]);
    assert_eq!(shed(&[1, 2, 3], &[], &[1, 1]), [0, 0, 0]);
    // A member without a limit is not one of those that stay.
    assert_eq!(shed(&[5, 5, 0], &[0], &[2]), [0, 0, 0]);
    // What no item can fill is not spare.
    assert_eq!(shed(&[1000, 1, 1000], &[0], &[2, 2, 2]), [998, 0, 0]);
    // The last three are enough for 17 replicas, but not for four items on two members each.
    let items = [2, 2, 2, 2, 1, 1, 1, 1];
    assert_eq!(shed(&[3, 11, 14], &[1], &items), [0, 10, 0]);
    assert_eq!(shed(&[3, 2, 1, 3], &[0, 2], &[2, 2, 2]), [3, 0, 0, 0]);
    assert_eq!(shed(&[3, 3, 1, 3], &[0, 2], &[3, 3, 3]), [1, 0, 0, 0]);
}

#[test]
fn who_cannot_leave_does_not_keep_those_that_can() {
    let mut problem = Problem::new(ZoneRule::Two, 0);
    for zone in [0, 1, 1] {
        problem.add_member(Seat::new(zone, 2));
    }
    problem.add_item(1, &[]);
    problem.restrict(&[0]);
    problem.add_item(1, &[]);
    problem.restrict(&[1]);
    retire(&mut problem, &[(0, 0), (1, 0)]);
    let left: Vec<u32> = problem.seats().iter().map(|seat| seat.limit).collect();
    // The first is needed for one item, and gives up its other slot.
    assert_eq!(left, [1, 0, 2]);
}

#[test]
fn who_cannot_leave_is_named_with_the_reason() {
    let placement = place(
        r#"{"members":[{"zone":"a","id":"m1","limit":9},{"zone":"a","id":"m2","limit":9},
              {"zone":"b","id":"m3","limit":9,"exiting":true}],
            "items":[{"id":"i1","replication":2}]}"#,
    );
    assert_eq!(placement.summary.zones_violated, 0);
    let staying: Vec<String> = placement
        .staying
        .iter()
        .map(|staying| format!("{}#{}: {}", staying.zone, staying.member, staying.words))
        .collect();
    assert_eq!(staying, ["b#m3: without it the zone rule would be broken"]);
}

#[test]
fn restrictions_shares_standings_and_rules_are_read() {
    let placement = place(
        r#"{"members":[{"zone":"a","id":"m1","limit":10,"share":1.5},
              {"zone":"a","id":"m2","limit":10,"share":0.5},
              {"zone":"b","id":"m3","limit":10,"standing":"gone"},
              {"zone":"b","id":"m4","limit":10,"standing":{"shed":9}},
              {"zone":"c","id":"m5","limit":10,"standing":"no_new_primaries"}],
            "items":[{"id":"i1","replication":1,"zones":["b"]},{"id":"i2","replication":1,"zones":["b"]},
              {"id":"i3","replication":2,"zones":["a","c"]}],
            "zone_rule":"spread","balance_slack":1}"#,
    );
    assert_eq!(placement.summary.placed, 3);
    assert_eq!(placement.unplaced.len(), 1);
    assert_eq!(placement.unplaced[0].reason, Reason::NoRoom);
    let lines = lines(&placement);
    assert!(lines.contains(&"i3@c/m5".to_owned()), "no new primary at m5: {lines:?}");
    let capped = place(
        r#"{"members":[{"zone":"a","id":"m1","limit":10},{"zone":"a","id":"m2","limit":10}],
            "items":[{"id":"i1","replication":2}],"zone_rule":{"max_per_zone":1}}"#,
    );
    assert_eq!(capped.summary.zones_violated, 1);
}

#[test]
fn who_gets_nothing_new_keeps_what_it_has() {
    let placed = |standing: &str| {
        let member = |at: usize| {
            let standing = if at == 0 { standing } else { "\"full\"" };
            format!(r#"{{"zone":"a","id":"m{at}","limit":1000,"standing":{standing}}}"#)
        };
        let members: Vec<String> = (0..5).map(member).collect();
        let item = |at: usize| format!(r#"{{"id":"i{at:03}","replication":1}}"#);
        let held = |at: usize| {
            format!(r#"{{"item":"i{at:03}","zone":"a","member":"m{}","slot":0}}"#, at % 5)
        };
        let items: Vec<String> = (0..110).map(item).collect();
        let assignments: Vec<String> = (0..100).map(held).collect();
        let (members, items) = (members.join(","), items.join(","));
        let assignments = assignments.join(",");
        let placement = place(&format!(
            r#"{{"members":[{members}],"items":[{items}],"assignments":[{assignments}]}}"#
        ));
        let at_first = placement.desired.iter().filter(|desired| desired.member == "m0").count();
        (at_first, placement.summary.removed)
    };
    assert_eq!(placed("\"full\""), (22, 0));
    assert_eq!(placed("\"nothing_new\""), (20, 0));
    assert_eq!(placed(r#"{"shed_only":0}"#), (20, 0));
    // Of a thousandth of its limit the share is a thousandth too.
    assert_eq!(placed(r#"{"shed":999}"#), (1, 19));
    assert_eq!(placed(r#"{"shed_only":999}"#), (1, 19));
}

#[test]
fn in_what_order_a_case_is_listed_means_nothing() {
    let case = |turn: usize| {
        let mut held = [("m1", 1), ("m1", 0), ("m2", 0), ("m2", 1)];
        held.rotate_left(turn);
        let held = held.map(|(member, slot)| {
            format!(r#"{{"item":"i","zone":"a","member":"{member}","slot":{slot}}}"#)
        });
        place(&format!(
            r#"{{"members":[{{"zone":"a","id":"m1","limit":9}},{{"zone":"a","id":"m2","limit":9}}],
                "items":[{{"id":"i","replication":2}}],"assignments":[{}]}}"#,
            held.join(",")
        ))
    };
    assert!((1..4).all(|turn| case(turn) == case(0)));
}

#[test]
fn what_makes_no_sense_is_left_out_and_said() {
    let placement = place(
        r#"{"members":[{"zone":"a","id":"m1","limit":99999999999},{"zone":"a","id":"m1","limit":3},
              {"zone":"a","id":"m2","limit":4,"share":-2},{"zone":"","id":"m3","limit":9}],
            "items":[{"id":"i1","replication":1},{"id":"i1","replication":3},{"id":"i#3","replication":1},
              {"id":"i2","replication":4000000000}],
            "assignments":[{"item":"gone","zone":"a","member":"m1","slot":0},
              {"item":"i1","zone":"x","member":"gone","slot":0},
              {"item":"i1","zone":"a","member":"m1","slot":1},
              {"item":"i1","zone":"a","member":"m1","slot":0}]}"#,
    );
    assert_eq!(placement.ignored.len(), 5);
    let no_key =
        r#"item i#3: "i#3" holds '#' at byte 1: only characters above '#' may be in a name"#;
    assert!(placement.ignored.iter().any(|ignored| ignored == no_key), "{:?}", placement.ignored);
    assert_eq!(lines(&placement), ["i1@a/m1*", "i2@a/m1", "i2@a/m2*"]);
    assert_eq!((placement.summary.unchanged, placement.summary.removed), (1, 3));
    assert_eq!(placement.summary.unplaced, 4_000_000_000 - 2);
}

#[test]
fn an_empty_case_is_planned() {
    let placement = place(r#"{"members":[],"items":[]}"#);
    assert_eq!(placement.summary, raft_autopilot::allocator::case::Summary::default());
    let placement = place(r#"{"members":[],"items":[{"id":"i","replication":2}]}"#);
    assert_eq!(placement.summary.unplaced, 2);
}

#[test]
fn a_lost_tenth_is_replaced_with_the_fewest_moves_even_near_the_limit() {
    // 20 members with room for 61 each, 1,200 slots: 1 % headroom, then one is lost.
    let mut case: Case = serde_json::from_str(r#"{"members":[],"items":[]}"#).unwrap();
    for member in 0..20 {
        let json = format!(r#"{{"zone":"{}","id":"m{member:02}","limit":61}}"#, member % 3);
        case.members.push(serde_json::from_str(&json).unwrap());
    }
    for item in 0..400 {
        let json = format!(r#"{{"id":"i{item:03}","replication":3}}"#);
        case.items.push(serde_json::from_str(&json).unwrap());
    }
    let placement = case.place();
    assert_eq!((placement.summary.placed, placement.summary.max_load), (1200, 60));
    case.assignments = placement
        .desired
        .iter()
        .map(|desired| {
            let slot = u32::from(!desired.primary);
            let (item, zone) = (desired.item.clone(), desired.zone.clone());
            let member = desired.member.clone();
            raft_autopilot::allocator::case::CaseAssignment {
                item,
                zone,
                member,
                slot,
                consistent: true,
            }
        })
        .collect();
    case.members.remove(7);
    let after = case.place();
    // Nineteen members hold 1,159 at most; all of it is used, and only what was lost moves.
    assert_eq!(after.summary.placed, 1159);
    assert_eq!(after.summary.added, after.summary.lower_bound);
    assert_eq!(after.summary.added, 1159 - 1140);
    assert_eq!(after.unplaced.len(), 41);
    assert!(after.unplaced.iter().all(|unplaced| unplaced.missing == 1));
}

/// A case in which `place` has been carried out.
fn done(case: &Case, place: &Placement) -> Case {
    let assignments = (1..).zip(&place.desired).map(|(slot, desired)| CaseAssignment {
        item: desired.item.clone(),
        zone: desired.zone.clone(),
        member: desired.member.clone(),
        slot: if desired.primary { 0 } else { slot },
        consistent: true,
    });
    Case { assignments: assignments.collect(), ..case.clone() }
}

#[test]
fn who_gets_nothing_new_is_planned_with_what_is_left_to_it_so_that_nothing_moves_afterwards() {
    for seed in 1..=300 {
        let mut dice = Dice((seed * 0x9E37_79B9) | 1);
        let member = |number: u32, limit: u32, standing: Standing| CaseMember {
            zone: ["a", "b", "c"][number as usize % 3].to_owned(),
            id: format!("m{number}"),
            limit: limit.into(),
            exiting: false,
            share: None,
            standing,
        };
        let item = |number: u32| CaseItem {
            id: format!("i{number:02}"),
            replication: 1 + number % 3,
            zones: None,
        };
        let mut case = Case {
            members: (0..7).map(|n| member(n, 12 + dice.below(9), Standing::Full)).collect(),
            items: (0..30).map(item).collect(),
            balance_slack: dice.below(3),
            ..Case::default()
        };
        case = done(&case, &case.place());
        // Then some get nothing new, others come or go.
        case.members[0].standing = Standing::NothingNew;
        case.members[1].standing = [Standing::ShedOnly(3), Standing::Full][dice.below(2) as usize];
        case.members[2].standing = [Standing::Gone, Standing::Full][dice.below(2) as usize];
        case.members.push(member(7, 12 + dice.below(9), Standing::Full));
        case.items.truncate(30 - dice.below(12) as usize);
        case = done(&case, &case.place());
        let again = case.place().summary;
        assert_eq!((again.added, again.removed, again.hand_offs), (0, 0, 0), "seed {seed}");
    }
}
