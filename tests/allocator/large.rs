//! Worlds beyond brute force, held by chance: plans by counting are full, within the rule and even, as
//! the small network says that they can be; and planned worlds that change move no more than they must.

use raft_autopilot::allocator::{
    Certificate, Holder, Problem, Seat, Solution, ZoneRule, solve, solve_by_counting,
};

/// Chance, from a seed: xorshift.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 33) % u64::from(end)).unwrap()
    }
}

#[derive(Clone, Copy, Debug)]
struct World {
    items: usize,
    members: u32,
    zones: u32,
    /// Out of ten members, how many are in the first zone besides its share.
    skew: u32,
    /// Whether some items are restricted to two zones.
    restricted: bool,
    /// Room of the members, in percent of what is wanted.
    room: u32,
    rule: ZoneRule,
    /// The rules of what zones lie in: two of them in a room, and two of those in a region.
    around: &'static [ZoneRule],
    required: bool,
}

impl World {
    fn problem(&self, seed: u64) -> Problem {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            dice.below(2);
        }
        let replication: Vec<u32> = (0..self.items).map(|_| 1 + dice.below(5)).collect();
        let fair = replication.iter().sum::<u32>() / self.members + 1;
        let mut problem = Problem::new(self.rule, 0);
        self.around.iter().for_each(|rule| problem.add_level(*rule));
        (0..self.zones).for_each(|zone| problem.place_zone(zone, &[zone / 4, zone / 2]));
        problem.require_zones(self.required);
        for member in 0..self.members {
            let zone = if dice.below(10) < self.skew { 0 } else { member % self.zones };
            let limit = fair * self.room / 100 * (80 + dice.below(41)) / 100;
            let gone = dice.below(20) == 0;
            problem.add_member(Seat::new(zone, if gone { 0 } else { limit }));
        }
        for wanted in replication {
            let holders: Vec<Holder> = (0..if dice.below(20) == 0 { 0 } else { wanted })
                .map(|at| {
                    let holder = Holder::new(dice.below(self.members));
                    if at == 0 { holder.primary() } else { holder }
                })
                .collect();
            problem.add_item(wanted, &holders);
            if self.restricted && dice.below(3) == 0 {
                let first = dice.below(self.zones);
                problem.restrict(&[first, (first + 1) % self.zones]);
            }
        }
        problem
    }
}

fn plan(world: World, seed: u64) -> Certificate {
    let mut problem = world.problem(seed);
    let solution = solve_by_counting(&problem);
    let certificate = solution.certificate.clone();
    assert_eq!(certificate.placed, certificate.placeable, "{world:?} {seed}");
    if world.around.is_empty() || certificate.beyond_least == 0 {
        assert_eq!(certificate.beyond, certificate.beyond_least, "{world:?} {seed}");
    }
    assert_eq!(certificate.spread, 0, "{world:?} {seed}");
    assert!(certificate.added >= certificate.lower_bound);
    problem.hold(solution.desired.clone());
    let again = solve_by_counting(&problem);
    let is_fixed = again.desired == solution.desired;
    // Where not all levels can be kept a next plan may find something better, of a few items.
    let is_near =
        || certificate.beyond_least > 0 && again.certificate.added * 100 < certificate.placed;
    assert!(is_fixed || !world.around.is_empty() && is_near(), "{world:?} {seed}: no fixed point");
    certificate
}

#[test]
fn large_worlds_are_planned_by_counting_as_full_and_as_even_as_can_be() {
    let plain = World {
        items: 3_000,
        members: 60,
        zones: 3,
        skew: 0,
        restricted: false,
        room: 150,
        rule: ZoneRule::Two,
        around: &[],
        required: false,
    };
    let worlds = [
        plain,
        World { room: 110, ..plain },
        World { skew: 4, ..plain },
        World { restricted: true, ..plain },
        World { zones: 4, skew: 3, restricted: true, ..plain },
        World { rule: ZoneRule::Spread, ..plain },
        World { rule: ZoneRule::Spread, zones: 6, ..plain },
        World { rule: ZoneRule::MaxPerZone(2), skew: 3, ..plain },
        World { room: 95, ..plain },
        World { zones: 1, ..plain },
    ];
    for world in worlds {
        for seed in 0..3 {
            plan(world, seed);
        }
    }
}

#[test]
fn large_worlds_whose_zones_lie_in_others_are_planned_by_counting_within_all_rules() {
    use ZoneRule::{MaxPerZone, Spread, Two};
    let plain = World {
        items: 2_000,
        members: 96,
        zones: 8,
        skew: 0,
        restricted: false,
        room: 150,
        rule: Two,
        around: &[Two],
        required: false,
    };
    let worlds = [
        plain,
        World { required: true, ..plain },
        World { around: &[Spread], ..plain },
        World { around: &[Two, Spread], rule: Spread, ..plain },
        World { around: &[Spread, MaxPerZone(1)], rule: Spread, ..plain },
        World { around: &[Two, Spread], rule: Spread, required: true, ..plain },
        World { around: &[Spread], zones: 12, skew: 3, ..plain },
        World { around: &[Spread], restricted: true, room: 110, ..plain },
        World { around: &[Spread], restricted: true, required: true, ..plain },
    ];
    for world in worlds {
        for seed in 0..2 {
            let told = plan(world, seed);
            assert!(told.beyond <= told.beyond_least + told.beyond_least / 20, "{world:?} {seed}");
        }
    }
}

#[test]
fn where_zones_lie_in_others_a_planned_world_that_changes_moves_hardly_more_than_it_must() {
    let world = World {
        items: 2_000,
        members: 96,
        zones: 8,
        skew: 0,
        restricted: false,
        room: 150,
        rule: ZoneRule::Two,
        around: &[ZoneRule::Two],
        required: false,
    };
    for seed in 0..4 {
        let lost = changed(world, seed, |problem| problem.seat_mut(7).unwrap().limit = 0);
        let came = changed(world, seed, |problem| {
            problem.add_member(Seat::new(3, 500));
        });
        assert_eq!((lost.beyond, lost.gap()), (0, 0), "{seed}: {lost:?}");
        // Who comes gets items of one region only for others of the same.
        assert!(came.beyond == 0 && came.gap() * 10 < came.added, "{seed}: {came:?}");
    }
}

#[test]
fn where_counting_is_not_the_best_one_flow_plans_up_to_a_million_items_times_members() {
    let world = World {
        items: 900,
        members: 330,
        zones: 30,
        skew: 0,
        restricted: true,
        room: 105,
        rule: ZoneRule::Spread,
        around: &[],
        required: false,
    };
    let mut helped = 0;
    for seed in 0..12 {
        let problem = world.problem(seed);
        if !solve_by_counting(&problem).certificate.is_best() {
            let best = solve(&problem).certificate;
            assert!(best.is_best(), "{seed}: {best:?}");
            helped += 1;
        }
        if helped == 2 {
            return;
        }
    }
    panic!("counting was the best {helped} times too seldom");
}

/// A planned world, then changed.
fn changed(world: World, seed: u64, change: impl FnOnce(&mut Problem)) -> Certificate {
    let mut problem = world.problem(seed);
    let desired = solve_by_counting(&problem).desired;
    problem.hold(desired);
    change(&mut problem);
    solve_by_counting(&problem).certificate
}

#[test]
fn planned_worlds_that_change_move_no_more_than_they_must() {
    let plain = World {
        items: 5_000,
        members: 50,
        zones: 3,
        skew: 0,
        restricted: false,
        room: 150,
        rule: ZoneRule::Two,
        around: &[],
        required: false,
    };
    for world in
        [plain, World { rule: ZoneRule::Spread, zones: 5, ..plain }, World { zones: 1, ..plain }]
    {
        for seed in 0..3 {
            let lost = changed(world, seed, |problem| {
                let member = (0..50).find(|member| problem.seats()[*member].limit > 0).unwrap();
                problem.seat_mut(u32::try_from(member).unwrap()).unwrap().limit = 0;
            });
            let added = changed(world, seed, |problem| {
                problem.add_member(Seat::new(0, problem.seats()[0].limit.max(400)));
            });
            for certificate in [lost, added] {
                assert_eq!(certificate.placed, certificate.placeable);
                // With every zone bound by the rule, the bound itself is not always reached.
                let gap = if world.rule == ZoneRule::Spread { 10 } else { 50 };
                let most = certificate.lower_bound + certificate.lower_bound.div_ceil(gap);
                assert!(certificate.added <= most, "{world:?} {seed} {certificate:?}");
            }
        }
    }
}

#[test]
fn what_was_planned_stays_though_nobody_knows_whether_fewer_could_have_moved() {
    let rules = [ZoneRule::Two, ZoneRule::Spread, ZoneRule::MaxPerZone(1), ZoneRule::MaxPerZone(2)];
    let mut unknown = 0;
    for (rule, zones) in rules.into_iter().flat_map(|rule| [2, 3, 5].map(|zones| (rule, zones))) {
        for (restricted, room) in [(false, 90), (true, 100), (false, 110), (true, 110)] {
            let (items, members, skew) = (1_605, 19, 4);
            let (around, required) = (&[][..], false);
            let world =
                World { items, members, zones, skew, restricted, room, rule, around, required };
            let mut problem = world.problem(1);
            let Solution { desired, certificate: told } = solve_by_counting(&problem);
            problem.hold(desired.clone());
            let again = solve_by_counting(&problem);
            let is_good = told.placed == told.placeable
                && told.out_of_turn == 0
                && told.beyond == told.beyond_least
                && told.spread == 0;
            if is_good {
                assert!(again.desired == desired, "{world:?}: {:?}", again.certificate);
                unknown += u32::from(!told.is_best());
            }
        }
    }
    assert!(unknown > 10, "only {unknown} are not known to be the best");
}
