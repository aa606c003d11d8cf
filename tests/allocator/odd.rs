//! Numbers that nobody should pass: a plan is made all the same, and it is sound.

use raft_autopilot::allocator::{
    Holder, Planner, Problem, Seat, ZoneRule, solve, solve_by_counting,
};

use crate::{large::Dice, planner::check};

/// Now and then the largest number, or the one before.
fn odd(dice: &mut Dice, end: u32) -> u32 {
    if dice.below(10) == 0 { u32::MAX - dice.below(2) } else { dice.below(end) }
}

fn holders(dice: &mut Dice) -> Vec<Holder> {
    let holder = |dice: &mut Dice| {
        let holder =
            Holder::new(if dice.below(9) == 0 { Holder::MEMBER_MAX } else { dice.below(9) });
        if dice.below(2) == 0 { holder.primary() } else { holder.consistent() }
    };
    (0..dice.below(5)).map(|_| holder(dice)).collect()
}

fn seat(dice: &mut Dice) -> Seat {
    Seat { share: odd(dice, 3), ..Seat::new(odd(dice, 4), odd(dice, 9)) }
}

fn zones(dice: &mut Dice) -> Vec<u32> {
    (0..dice.below(4)).map(|_| odd(dice, 5)).collect()
}

fn problem(dice: &mut Dice) -> Problem {
    let rules = [ZoneRule::Two, ZoneRule::Spread, ZoneRule::MaxPerZone(odd(dice, 3))];
    let mut problem = Problem::new(rules[dice.below(3) as usize], odd(dice, 2));
    for _ in 0..dice.below(20) {
        match dice.below(4) {
            0 => {
                problem.add_member(seat(dice));
            }
            1 => {
                problem.add_item(odd(dice, 6), &holders(dice));
            }
            2 => problem.restrict(&zones(dice)),
            _ => {
                if let Some(place) = problem.seat_mut(dice.below(9)) {
                    *place = seat(dice);
                }
            }
        }
    }
    problem
}

fn change(planner: &mut Planner, dice: &mut Dice) {
    match dice.below(5) {
        0 => {
            planner.add_member(seat(dice));
        }
        1 => planner.change_member(odd(dice, 9), seat(dice)),
        2 => {
            let zones = zones(dice);
            let zones = (dice.below(2) == 0).then_some(&zones[..]);
            planner.add_item(odd(dice, 6), zones, &holders(dice));
        }
        3 => {
            let zones = zones(dice);
            let zones = (dice.below(2) == 0).then_some(&zones[..]);
            planner.change_item(odd(dice, 9), odd(dice, 6), zones);
        }
        _ => planner.hold(odd(dice, 9), &holders(dice)),
    }
}

#[test]
fn numbers_that_make_no_sense_are_planned_like_any_others() {
    for seed in 1..=1_500u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let problem = problem(&mut dice);
        let (best, counted) =
            (solve(&problem).certificate, solve_by_counting(&problem).certificate);
        assert_eq!(
            (best.placed, best.placeable),
            (counted.placeable, counted.placeable),
            "seed {seed}"
        );
        assert!(best.is_best(), "seed {seed}");
        assert!(best.added == counted.added || !counted.is_best(), "seed {seed}");
        let mut planner = Planner::by_counting(problem);
        for _ in 0..4 {
            check(&mut planner);
            change(&mut planner, &mut dice);
        }
    }
}

/// Two zones for each item, and no two items with the same two.
fn pairs(zones: u32) -> Problem {
    let mut problem = Problem::new(ZoneRule::Two, 0);
    problem.restrict(&[0]);
    for zone in 0..zones {
        problem.add_member(Seat::new(zone, zones));
    }
    for first in 0..zones {
        for second in first + 1..zones {
            problem.add_item(2, &[]);
            problem.restrict(&[second, first]);
        }
    }
    problem
}

#[test]
fn every_item_may_have_zones_of_its_own() {
    let certificate = solve_by_counting(&pairs(40)).certificate;
    assert_eq!((certificate.unplaced(), certificate.max_load), (0, 39));
    assert!(certificate.is_best());

    let many = pairs(380);
    let last = many.replication().len() - 1;
    assert!(last > 1 << 16);
    assert!(many.allows(last, 378) && many.allows(last, 379) && !many.allows(last, 377));
}

/// So large that not every way is looked for that would keep loads fair.
#[cfg(not(debug_assertions))]
#[test]
fn everything_is_placed_that_fits_though_not_everybody_gets_a_fair_share() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut problem = Problem::new(ZoneRule::Two, 0);
    for member in 0..400 {
        problem.add_member(Seat::new(member % 200, 100 + member));
    }
    for item in 0..20_000 {
        problem.add_item(item % 5, &[]);
        let zones: Vec<u32> = (0..5).map(|_| dice.below(200)).collect();
        problem.restrict(&zones);
    }
    let planned = solve_by_counting(&problem).certificate;
    assert_eq!((planned.placed, planned.beyond), (planned.placeable, planned.beyond_least));
}
