//! The plan of small worlds is the best there is, in each objective, and a fixed point.

use proptest::{
    collection::vec, option, prelude::*, strategy::ValueTree, test_runner::FileFailurePersistence,
};
use raft_autopilot::allocator::{
    Holder, Primaries, Problem, Seat, ZoneRule, solve, solve_by_counting,
};

use crate::brute::{self, Score};

/// What an item is drawn from: replication, zones, and its holders (member, consistent), the first
/// of which is the primary if `primary` says so.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    replication: u32,
    zones: Option<Vec<u32>>,
    holders: Vec<(u32, bool)>,
    primary: bool,
}

fn item(members: u32, most: u32) -> impl Strategy<Value = Item> {
    let zones = option::weighted(0.15, vec(0..3u32, 1..3));
    let holders = vec((0..members, any::<bool>()), 0..5);
    (0..=most, zones, holders, any::<bool>()).prop_map(|(replication, zones, holders, primary)| {
        Item { replication, zones, holders, primary }
    })
}

fn seat() -> impl Strategy<Value = Seat> {
    seat_of(3)
}

fn seat_of(zones: u32) -> impl Strategy<Value = Seat> {
    let share = option::weighted(0.3, 1..5u32);
    (0..zones, 0..9u32, share, prop::bool::weighted(0.2)).prop_map(|(zone, limit, share, kept)| {
        let primaries = if kept { Primaries::Kept } else { Primaries::Any };
        Seat { zone, limit, share: share.unwrap_or(limit), primaries }
    })
}

fn rule() -> impl Strategy<Value = ZoneRule> {
    prop_oneof![
        Just(ZoneRule::Two),
        Just(ZoneRule::Spread),
        (1..3u32).prop_map(ZoneRule::MaxPerZone)
    ]
}

/// Rules of what zones lie in, what each of the zones lies in, and whether the rules are required.
type Around = (Vec<ZoneRule>, Vec<Vec<u32>>, bool);

fn around() -> impl Strategy<Value = Around> {
    let lies_in = vec(vec(0..2u32, 0..=2), 4);
    (vec(rule(), 0..=2), lies_in, prop::bool::weighted(0.3))
}

fn world(rule: ZoneRule, slack: u32, seats: &[Seat], items: &[Item]) -> Problem {
    world_within(rule, &Around::default(), slack, seats, items)
}

fn world_within(
    rule: ZoneRule,
    (levels, lies_in, required): &Around,
    slack: u32,
    seats: &[Seat],
    items: &[Item],
) -> Problem {
    let mut problem = Problem::new(rule, slack);
    problem.require_zones(*required);
    for level in levels {
        problem.add_level(*level);
    }
    for (zone, lies_in) in (0..).zip(lies_in) {
        problem.place_zone(zone, lies_in);
    }
    for seat in seats {
        problem.add_member(*seat);
    }
    for item in items {
        let holders: Vec<Holder> = item
            .holders
            .iter()
            .enumerate()
            .map(|(at, (member, consistent))| {
                let holder = Holder::new(*member);
                let holder = if *consistent { holder.consistent() } else { holder };
                if at == 0 && item.primary { holder.primary() } else { holder }
            })
            .collect();
        problem.add_item(item.replication, &holders);
        if let Some(zones) = &item.zones {
            problem.restrict(zones);
        }
    }
    problem
}

/// Whether the plan is the best in each objective, and planning it again changes nothing.
fn check(mut problem: Problem) {
    let (best, fair) = brute::best(&problem);
    let solution = solve(&problem);
    let score = brute::judge(&problem, &solution.desired, &fair);
    assert_eq!(score, best, "{problem:?}\n{solution:?}\n{fair:?}");
    let ballot = brute::elected(&problem, &solution.desired);
    assert_eq!(ballot, brute::elect(&problem, &solution.desired), "{problem:?}\n{solution:?}");
    let certificate = &solution.certificate;
    assert_eq!(i64::try_from(certificate.added).unwrap(), best.added);
    assert_eq!(certificate.gap(), 0);
    assert!(certificate.spread <= u64::from(problem.slack()));

    problem.hold(solution.desired.clone());
    let again = solve(&problem);
    assert_eq!(again.desired, solution.desired, "{problem:?}");
    let certificate = again.certificate;
    assert_eq!((certificate.added, certificate.removed, certificate.hand_offs), (0, 0, 0));
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(200, |cases| cases.parse().unwrap()),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_plan_of_a_small_world_is_the_best(
        rule in rule(),
        slack in prop_oneof![3 => Just(0u32), 1 => 1..3u32],
        seats in vec(seat(), 1..=6),
        items in vec(item(6, 4), 0..=8),
    ) {
        check(world(rule, slack, &seats, &items));
    }

    #[test]
    fn the_plan_of_a_small_world_whose_zones_lie_in_others_is_the_best(
        rule in rule(),
        around in around(),
        slack in prop_oneof![3 => Just(0u32), 1 => 1..3u32],
        seats in vec(seat_of(4), 1..=6),
        items in vec(item(6, 4), 0..=6),
    ) {
        check(world_within(rule, &around, slack, &seats, &items));
    }
}

/// What a plan by counting must be whatever its size: valid, and where it says that it is the best, the best.
fn check_counting(problem: &Problem) -> bool {
    let (best, fair) = brute::best(problem);
    let solution = solve_by_counting(problem);
    let score = brute::judge(problem, &solution.desired, &fair);
    let certificate = &solution.certificate;
    let is_bound = certificate.lower_bound <= u64::try_from(best.added).unwrap();
    assert!(is_bound || certificate.placed < certificate.placeable, "{problem:?}");
    assert_eq!(i64::try_from(certificate.placeable).unwrap() + best.unplaced, {
        let members = problem.seats().len() as u32;
        problem.replication().iter().map(|wanted| i64::from(*wanted.min(&members))).sum::<i64>()
    });
    assert_eq!(i64::try_from(certificate.beyond_least).unwrap(), best.beyond);
    let ballot = brute::elected(problem, &solution.desired);
    let even = brute::elect(problem, &solution.desired);
    assert_eq!((ballot.0, ballot.1), (even.0, even.1), "{problem:?}\n{solution:?}");
    if certificate.is_best() {
        let given_up = score.given_up;
        assert_eq!(
            Score { given_up: 0, ..score },
            Score { given_up: 0, ..best.clone() },
            "{problem:?}\n{solution:?}"
        );
        assert!(given_up >= best.given_up);
    }
    certificate.is_best()
}

#[test]
fn counting_finds_the_best_of_most_small_worlds_and_says_so_when_it_did() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let worlds = (
        rule(),
        prop_oneof![3 => Just(0u32), 1 => 1..3u32],
        vec(seat(), 1..=6),
        vec(item(6, 4), 0..=8),
    );
    let (mut best, cases) = (0, 400);
    for _ in 0..cases {
        let (rule, slack, seats, items) = worlds.new_tree(&mut runner).unwrap().current();
        best += u32::from(check_counting(&world(rule, slack, &seats, &items)));
    }
    println!("{best} of {cases}");
    assert!(best * 10 >= cases * 9, "{best} of {cases}");
}

#[test]
fn counting_finds_the_best_of_most_small_worlds_whose_zones_lie_in_others() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let worlds = (
        rule(),
        around(),
        prop_oneof![3 => Just(0u32), 1 => 1..3u32],
        vec(seat_of(4), 1..=6),
        vec(item(6, 4), 0..=6),
    );
    let (mut best, cases) = (0, 400);
    for _ in 0..cases {
        let (rule, around, slack, seats, items) = worlds.new_tree(&mut runner).unwrap().current();
        best += u32::from(check_counting(&world_within(rule, &around, slack, &seats, &items)));
    }
    println!("{best} of {cases}");
    assert!(best * 10 >= cases * 8, "{best} of {cases}");
}
