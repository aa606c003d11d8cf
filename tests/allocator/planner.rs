//! The live planner: whatever changes, its plan is as good as one that is made at once.

use std::collections::{BTreeMap, BTreeSet};

use raft_autopilot::allocator::{
    Certificate, Holder, Planner, Problem, Seat, ZoneRule, solve_by_counting,
};

use crate::{brute, large::Dice};

/// What a plan says of itself, counted again from nothing but the problem and the plan.
fn recount(problem: &Problem, planner: &Planner) -> Certificate {
    let mut found = Certificate { min_load: u64::MAX, ..Certificate::default() };
    let mut loads = vec![0u64; problem.seats().len()];
    for item in 0..problem.replication().len() {
        let row = planner.desired(item as u32);
        let members: BTreeSet<u32> = row.iter().map(|holder| holder.member()).collect();
        assert_eq!(members.len(), row.len(), "a member twice");
        assert!(row.len() <= problem.replication()[item] as usize);
        assert_eq!(
            row.iter().filter(|holder| holder.is_primary()).count(),
            usize::from(!row.is_empty())
        );
        let held: BTreeSet<u32> =
            problem.held().of(item).iter().map(|holder| holder.member()).collect();
        found.wanted += u64::from(problem.replication()[item]);
        found.placed += row.len() as u64;
        found.added += members.difference(&held).count() as u64;
        found.removed += held.difference(&members).count() as u64;
        found.unchanged += held.intersection(&members).count() as u64;
        let wanted = problem.replication()[item].min(problem.seats().len() as u32);
        let (zones, cap) = brute::rule(problem, item, wanted);
        let mut in_zone: BTreeMap<u32, usize> = BTreeMap::new();
        for holder in row {
            let seat = problem.seats()[holder.member() as usize];
            assert!(seat.limit > 0 && problem.allows(item, seat.zone));
            loads[holder.member() as usize] += 1;
            *in_zone.entry(seat.zone).or_default() += 1;
        }
        let beyond: usize = in_zone.values().map(|there| there.saturating_sub(cap)).sum();
        found.beyond += beyond as u64;
        // What can only be beyond the cap breaks no rule that asks for what is possible.
        let spare = match problem.zone_rule() {
            ZoneRule::Spread => row.len().saturating_sub(cap * zones),
            ZoneRule::Two | ZoneRule::MaxPerZone(_) => 0,
        };
        found.zones_violated += u64::from(beyond > spare);
    }
    for (load, seat) in loads.iter().zip(problem.seats()) {
        assert!(*load <= u64::from(seat.limit));
        found.max_load = found.max_load.max(*load);
        if seat.limit > 0 {
            found.min_load = found.min_load.min(*load);
        }
    }
    found
}

/// Plans, and holds the plan against one that is made at once. Returns whether only what changed was
/// planned.
pub(crate) fn check(planner: &mut Planner) -> bool {
    let told = planner.plan().clone();
    let problem = planner.problem();
    let found = recount(&problem, planner);
    let hand_offs = told.hand_offs;
    let counted = Certificate {
        placeable: told.placeable,
        out_of_turn: told.out_of_turn,
        beyond_least: told.beyond_least,
        lower_bound: told.lower_bound,
        spread: told.spread,
        slack: told.slack,
        hand_offs,
        min_load: if found.min_load == u64::MAX { 0 } else { found.min_load },
        ..found
    };
    assert_eq!(told, counted);
    let whole = solve_by_counting(&problem).certificate;
    assert_eq!((told.placed, told.placeable), (whole.placed, whole.placeable));
    assert_eq!(told.out_of_turn, whole.out_of_turn);
    assert_eq!((told.beyond, told.beyond_least), (whole.beyond, whole.beyond_least));
    assert!(told.spread <= whole.spread.max(told.slack));
    assert!(told.added <= whole.added, "{told:?}\n{whole:?}");
    !planner.was_whole()
}

/// A change of the world.
fn change(planner: &mut Planner, dice: &mut Dice) {
    let problem = planner.problem();
    let (members, items) = (problem.seats().len() as u32, problem.replication().len() as u32);
    match dice.below(12) {
        0 => {
            let member = dice.below(members);
            let seat = problem.seats()[member as usize];
            planner.change_member(member, Seat { limit: 0, ..seat });
        }
        1 => {
            let gone = (0..members).find(|member| problem.seats()[*member as usize].limit == 0);
            if let Some(member) = gone {
                planner.change_member(member, Seat::new(dice.below(3), 150));
            }
        }
        2 => {
            planner.add_member(Seat::new(dice.below(3), 100 + dice.below(100)));
        }
        3 => {
            let member = dice.below(members);
            let seat = problem.seats()[member as usize];
            let limit = (seat.limit + 20).saturating_sub(dice.below(40)).max(60);
            planner.change_member(member, Seat { limit, ..seat });
        }
        4 => {
            let zones = [dice.below(3), 2];
            let zones = (dice.below(8) == 0).then_some(&zones[..]);
            planner.add_item(dice.below(if zones.is_some() { 2 } else { 4 }), zones, &[]);
        }
        5 => planner.change_item(dice.below(items), dice.below(5), None),
        6 => {
            let item = dice.below(items);
            planner.change_item(item, 0, None);
            planner.hold(item, &[]);
        }
        7 => {
            let item = dice.below(items);
            let mut held = planner.held(item).to_vec();
            held.pop();
            planner.hold(item, &held);
        }
        8 => {
            let item = dice.below(items);
            let mut held = planner.held(item).to_vec();
            held.push(Holder::new(dice.below(members)));
            planner.hold(item, &held);
        }
        _ => carry_out(planner, dice),
    }
}

/// Some of what was planned is done: new replicas come, or old ones go as well.
fn carry_out(planner: &mut Planner, dice: &mut Dice) {
    let moving: Vec<u32> = planner.moving().collect();
    for item in moving {
        let (held, desired) = (planner.held(item).to_vec(), planner.desired(item).to_vec());
        let mut both: Vec<Holder> = held.clone();
        let new = |holder: &&Holder| held.iter().all(|held| held.member() != holder.member());
        both.extend(desired.iter().filter(new).map(|holder| holder.replica()));
        match dice.below(4) {
            0 => {}
            1 => planner.hold(item, &both),
            _ => {
                let done: Vec<Holder> = desired.iter().map(|holder| holder.consistent()).collect();
                planner.hold(item, &done);
            }
        }
    }
}

fn world(rule: ZoneRule, slack: u32, mixed: bool, dice: &mut Dice) -> Planner {
    let mut problem = Problem::new(rule, slack);
    for member in 0..30 {
        problem.add_member(Seat::new(member % 3, 120 + dice.below(60)));
    }
    for _ in 0..600 {
        problem.add_item(if mixed { 1 + dice.below(4) } else { 3 }, &[]);
    }
    Planner::by_counting(problem)
}

#[test]
fn a_plan_of_what_changed_is_as_good_as_a_plan_of_all() {
    let (mut part, mut all) = (0, 0);
    for seed in 1..=12u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let rule = [ZoneRule::Two, ZoneRule::Spread, ZoneRule::MaxPerZone(2)][seed as usize % 3];
        let slack = if seed.is_multiple_of(4) { 3 } else { 0 };
        let mut planner = world(rule, slack, seed.is_multiple_of(2), &mut dice);
        for _ in 0..25 {
            for _ in 0..=dice.below(3) {
                change(&mut planner, &mut dice);
            }
            part += u32::from(check(&mut planner));
            all += 1;
        }
    }
    println!("{part} of {all}");
    assert!(part * 3 > all, "{part} of {all} plans were made of what changed only");
}

#[test]
fn a_zone_rule_that_could_not_be_kept_is_kept_as_soon_as_it_can_be() {
    let mut broken = 0;
    for seed in 1..=6u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut problem = Problem::new(ZoneRule::Two, 0);
        for member in 0..12 {
            problem.add_member(Seat::new(member % 2, 400));
        }
        for _ in 0..600 {
            problem.add_item(2 + dice.below(3), &[]);
        }
        let mut planner = Planner::by_counting(problem);
        for _ in 0..12 {
            // The second zone can take one of each item, or cannot.
            let limit = if dice.below(2) == 0 { 10 } else { 400 };
            planner.change_member(1 + 2 * dice.below(6), Seat::new(1, limit));
            check(&mut planner);
            broken += u32::from(planner.certificate().beyond > 0);
            carry_out_all(&mut planner);
        }
    }
    assert!((10..62).contains(&broken), "{broken} of 72 plans break the rule");
}

#[test]
fn items_of_very_many_kinds_may_change() {
    let mut problem = Problem::new(ZoneRule::Two, 0);
    for member in 0..90 {
        problem.add_member(Seat::new(member % 3, 500));
    }
    for item in 0..300 {
        problem.add_item(item % 80, &[]);
    }
    let mut planner = Planner::by_counting(problem);
    for turn in 0..60 {
        // There are more and more of one kind.
        for item in [4 * turn, 4 * turn + 1, 4 * turn + 2, 4 * turn + 3] {
            planner.change_item(item, 3, None);
        }
        if turn % 10 == 0 {
            check(&mut planner);
            carry_out_all(&mut planner);
        }
    }
    check(&mut planner);
}

/// All that was planned is done, and consistent.
fn carry_out_all(planner: &mut Planner) {
    for item in planner.moving().collect::<Vec<u32>>() {
        let row = planner.desired(item).iter().map(|holder| holder.consistent());
        let row: Vec<Holder> = row.collect();
        planner.hold(item, &row);
    }
}

/// How many primaries each member is to have that may hold anything.
fn primaries(planner: &Planner) -> Vec<u32> {
    let problem = planner.problem();
    let mut primaries = vec![0; problem.seats().len()];
    for item in 0..problem.replication().len() as u32 {
        let primary = planner.desired(item).iter().find(|holder| holder.is_primary());
        primaries[primary.unwrap().member() as usize] += 1;
    }
    let of = primaries.into_iter().zip(problem.seats());
    of.filter(|(_, seat)| seat.limit > 0).map(|(primaries, _)| primaries).collect()
}

#[test]
fn primaries_stay_exactly_even_with_few_hand_offs_as_one_member_comes_and_another_goes() {
    let mut problem = Problem::new(ZoneRule::Two, 0);
    for member in 0..200 {
        problem.add_member(Seat::new(member % 3, 1_000));
    }
    for _ in 0..20_000 {
        problem.add_item(3, &[]);
    }
    let mut planner = Planner::by_counting(problem);
    planner.plan();
    carry_out_all(&mut planner);
    planner.plan();
    let plan = |planner: &mut Planner| {
        let certificate = planner.plan().clone();
        // Nobody has more than one too many, or too few, and nobody hands over for somebody else.
        assert!(certificate.is_best() && certificate.hand_offs <= 100, "{certificate:?}");
        assert!(!planner.was_whole());
        carry_out_all(planner);
    };
    for member in 0..12 {
        let seat = Seat::new(member % 3, 1_000);
        if member % 2 == 0 {
            planner.add_member(seat);
            plan(&mut planner);
        }
        planner.change_member(member, Seat { limit: 0, ..seat });
        plan(&mut planner);
        if member % 2 == 1 {
            planner.add_member(seat);
            plan(&mut planner);
        }
        let primaries = primaries(&planner);
        assert!(primaries.iter().all(|primaries| *primaries == 100), "{primaries:?}");
    }
}
