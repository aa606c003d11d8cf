//! Primaries are as even as the placement allows, at once and from plan to plan: nobody who has more by
//! two than somebody else could hand one on to it, by way of whomever.

use raft_autopilot::allocator::{
    Holder, Holdings, Planner, Problem, Seat, ZoneRule, solve_by_counting,
};

use crate::large::Dice;

/// How many primaries each member has.
fn primaries(desired: &Holdings, members: usize) -> Vec<i64> {
    let mut primaries = vec![0; members];
    for row in desired.iter() {
        let primary = row.iter().find(|holder| holder.is_primary());
        assert_eq!(primary.is_none(), row.is_empty(), "what is held has a primary");
        if let Some(primary) = primary {
            primaries[primary.member() as usize] += 1;
        }
    }
    primaries
}

/// Fails if somebody could get a primary, step by step, from somebody who has more by two.
fn are_even(desired: &Holdings, members: usize) {
    let has = primaries(desired, members);
    // By member, the most primaries of anybody who could hand one on to it.
    let mut most = has.clone();
    loop {
        let before = most.clone();
        for row in desired.iter() {
            let Some(primary) = row.iter().find(|holder| holder.is_primary()) else { continue };
            let from = most[primary.member() as usize];
            for holder in row {
                let to = &mut most[holder.member() as usize];
                *to = from.max(*to);
            }
        }
        if most == before {
            break;
        }
    }
    for (member, (most, has)) in most.iter().zip(&has).enumerate() {
        assert!(
            *most <= has + 1,
            "member {member} has {has}, and could be helped by one with {most}"
        );
    }
}

/// The limit of a member, of so many kinds: the smallest could be primary of all that they hold, and would have
/// too few.
fn limit(member: u32, fair: u32, kinds: u32) -> u32 {
    if kinds == 1 { fair * 2 } else { fair / 4 + member % kinds * 3 * fair / (kinds - 1) }
}

fn world(dice: &mut Dice, items: u32, members: u32, kinds: u32) -> Problem {
    let fair = items * 3 / members + 1;
    let mut problem = Problem::new(ZoneRule::Two, 0);
    for member in 0..members {
        problem.add_member(Seat::new(member % 3, limit(member, fair, kinds)));
    }
    for _ in 0..items {
        let wanted = if kinds.is_multiple_of(2) { 1 + dice.below(4) } else { 3 };
        // Some have the same members as others.
        let first = dice.below(members / 3) * 3;
        let holders: Vec<Holder> = (first..first + wanted.min(3)).map(Holder::new).collect();
        problem.add_item(wanted, if dice.below(4) == 0 { &holders } else { &[] });
    }
    problem
}

fn carry_out(planner: &mut Planner) {
    for item in planner.moving().collect::<Vec<u32>>() {
        let row: Vec<Holder> =
            planner.desired(item).iter().map(|holder| holder.consistent()).collect();
        planner.hold(item, &row);
    }
}

#[test]
fn primaries_of_members_of_any_kind_are_as_even_as_the_placement_allows() {
    for (seed, kinds) in [(1, 2), (2, 7), (3, 60), (4, 7), (5, 24), (6, 1), (7, 90), (8, 3)] {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed + 1) | 1);
        let members = 60 + 30 * dice.below(5);
        let items = members * (10 + dice.below(60));
        let mut problem = world(&mut dice, items, members, kinds);
        let planned = solve_by_counting(&problem);
        are_even(&planned.desired, members as usize);
        problem.hold(planned.desired.clone());
        assert_eq!(solve_by_counting(&problem).desired, planned.desired, "a fixed point");
        for lost in [1, members / 10] {
            let mut changed = problem.clone();
            for _ in 0..lost {
                changed.seat_mut(dice.below(members)).unwrap().limit = 0;
            }
            are_even(&solve_by_counting(&changed).desired, members as usize);
        }
    }
}

#[test]
fn primaries_stay_as_even_from_plan_to_plan_where_members_come_and_go_and_change() {
    for (seed, kinds) in [(1, 2), (2, 7), (3, 60), (4, 7), (5, 24), (6, 1), (7, 90)] {
        let mut dice = Dice(0xD1B5_4A32_D192_ED03_u64.wrapping_mul(seed + 1) | 1);
        let members = 90;
        let problem = world(&mut dice, 4_000, members, kinds);
        let mut planner = Planner::by_counting(problem);
        let mut parts = 0;
        for turn in 0..40 {
            planner.plan();
            parts += u32::from(!planner.was_whole());
            let members = u32::try_from(planner.problem().seats().len()).unwrap();
            are_even(&planner.solution().desired, members as usize);
            if dice.below(5) > 0 {
                carry_out(&mut planner);
            }
            let member = dice.below(members);
            let seat = planner.problem().seats()[member as usize];
            match dice.below(5) {
                0 => _ = planner.add_member(Seat::new(turn % 3, limit(dice.below(90), 130, kinds))),
                1 => planner.change_member(member, Seat { limit: 0, ..seat }),
                2 => {
                    let item = dice.below(4_000);
                    let row: Vec<Holder> = planner.held(item).iter().skip(1).copied().collect();
                    planner.hold(item, &row);
                }
                3 => planner.change_item(dice.below(4_000), 1 + dice.below(4), None),
                _ => planner.change_member(
                    member,
                    Seat::new(seat.zone, seat.limit.max(40) * (80 + dice.below(50)) / 100),
                ),
            }
        }
        assert!(parts > 10, "{parts} plans were made of what changed only");
    }
}

#[test]
fn primaries_stay_as_even_where_members_hold_what_no_plan_gave_them() {
    let mut parts = 0;
    for seed in 1..=150 {
        let mut dice = Dice(0xA24B_AED4_963E_E407_u64.wrapping_mul(seed) | 1);
        let (members, items) = (12 + 3 * dice.below(8), 100 + dice.below(200));
        let kinds = 1 + dice.below(7);
        let mut planner = Planner::by_counting(world(&mut dice, items, members, kinds));
        for _ in 0..8 {
            planner.plan();
            parts += u32::from(!planner.was_whole());
            are_even(&planner.solution().desired, members as usize);
            carry_out(&mut planner);
            for _ in 0..=dice.below(20) {
                // They may be too few, and then they stay while others are looked for.
                let strangers = [dice.below(members), dice.below(members)];
                let row = strangers.map(|member| Holder::new(member).consistent());
                planner.hold(dice.below(items), &[row[0].primary(), row[1]]);
            }
        }
    }
    assert!(parts > 500, "{parts} plans were made of what changed only");
}
