//! What a world is meant to become: the planner's answer, with names for numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    planner::{
        Certificate, Holder, Holdings, Keep, Less, Problem, Reason, Seat, ZoneRule, evade,
        retire_to, solve,
    },
    state::{Post, Standing, seats},
    value::{ItemValue, MemberKey, MemberValue, Workload},
    world::{Item, Member, World, digest},
};

/// By what rules items are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// How an item's replicas are spread over zones. Default: at least two zones.
    pub zone_rule: ZoneRule,
    /// How far from its fair share a member may be, in items, before that is a reason to move any.
    /// Default 0.
    pub balance_slack: u32,
}

/// What a member may hold, as judged from outside, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// What it may hold.
    pub standing: Standing,
    /// Why, for people; no plan depends on it.
    pub why: Arc<str>,
}

/// What members may hold, as judged from outside; who is not named may hold all it can.
///
/// A standing takes away only what the others can hold: the number of replicas that can be placed
/// stays as it is without it.
pub type Standings = Arc<BTreeMap<MemberKey, Judgement>>;

/// What is known from outside of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// What members may hold.
    pub standings: Standings,
    /// Items that should rather not go to a member: it has just given them back.
    pub avoided: BTreeSet<(Arc<str>, MemberKey)>,
}

impl Outside {
    /// What a member may hold.
    pub fn standing(&self, member: &MemberKey) -> Standing {
        self.standings.get(member).map_or(Standing::Full, |judgement| judgement.standing)
    }
}

/// An item that lacks replicas, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacking {
    /// The item's name.
    pub item: Arc<str>,
    /// How many replicas it lacks.
    pub missing: u32,
    /// Why.
    pub reason: Reason,
}

/// Who is meant to hold what.
#[derive(Debug)]
pub struct Intent {
    of: u64,
    desired: Holdings,
    /// The member's number in the world, by its number in the plan, and the other way round.
    members: Vec<u32>,
    seats: Vec<Option<Seat>>,
    /// By the member's number in the world.
    standings: Vec<Standing>,
    certificate: Certificate,
    lacking: Arc<[Lacking]>,
    unreadable: usize,
}

/// A number that says whether the same is meant.
fn fingerprint<W: Workload>(world: &World<W>, rules: &Rules, outside: &Outside) -> u64 {
    let standings: Vec<(&MemberKey, Standing)> =
        outside.standings.iter().map(|(key, judgement)| (key, judgement.standing)).collect();
    world.fingerprint().wrapping_add(digest(&(rules, standings, &outside.avoided)))
}

impl Intent {
    /// Plans. Of the world only the numbers of the items in the plan are changed, and all items that
    /// do not stand as meant are unsettled.
    pub fn new<W: Workload>(world: &mut World<W>, rules: &Rules, outside: &Outside) -> Self {
        let of = fingerprint(world, rules, outside);
        let frozen = frozen(world);
        let (problem, members) = problem(world, rules, outside, &frozen);
        let mut solution = solve(&problem);
        let numbers = numbers(world, &members);
        let avoided = outside.avoided.iter().filter_map(|(item, member)| {
            let item = usize::try_from(world.item(item)?.number?).ok()?;
            Some((item, numbers[world.find_number(member)? as usize]?))
        });
        evade(&problem, &mut solution.desired, avoided);
        let mut seats = vec![None; world.numbers_end()];
        let mut standings = vec![Standing::Full; world.numbers_end()];
        for (seat, member) in problem.seats().iter().zip(&members) {
            standings[*member as usize] = outside.standing(&world.member(*member).key);
            // It holds what no plan moves besides what the plan lets it.
            let limit = seat.limit.saturating_add(frozen.get(member).copied().unwrap_or(0));
            seats[*member as usize] = Some(Seat { limit, ..*seat });
        }
        let lacking = lacking(world, &problem, &solution);
        let (desired, certificate) = (solution.desired, solution.certificate);
        let unreadable = world.unreadable();
        let intent =
            Self { of, desired, members, seats, standings, certificate, lacking, unreadable };
        world
            .unsettle(|item| !intent.is_met(item) || item.held.iter().any(|held| !held.consistent));
        intent
    }

    /// Whether it is still what a new plan would be made from.
    pub fn is_of<W: Workload>(&self, world: &World<W>, rules: &Rules, outside: &Outside) -> bool {
        self.of == fingerprint(world, rules, outside)
    }

    /// Who is meant to hold an item: the members' numbers in the world, and who is meant to be the
    /// primary. `None`: nothing is meant, it stays as it is.
    pub(super) fn wanted<W: Workload>(
        &self,
        item: &Item<W>,
    ) -> Option<impl ExactSizeIterator<Item = (u32, bool)> + '_> {
        let number = item.number? as usize;
        let wanted = self.desired.of(number).iter();
        let named = |holder: &Holder| (self.members[holder.member() as usize], holder.is_primary());
        Some(wanted.map(named))
    }

    /// How much a member may hold, with what is left where it is because nobody can read what it
    /// wants. `None`: it does not stand.
    pub(super) fn seat(&self, member: u32) -> Option<Seat> {
        self.seats.get(member as usize).copied().flatten()
    }

    /// What a member may hold, as judged from outside when this was planned.
    pub(super) fn standing(&self, member: u32) -> Standing {
        self.standings.get(member as usize).copied().unwrap_or_default()
    }

    /// Whether an item is held by whom it is meant to.
    pub(super) fn is_met<W: Workload>(&self, item: &Item<W>) -> bool {
        let Some(mut wanted) = self.wanted(item) else { return item.stands() };
        let held = |member: u32| item.held.iter().find(|held| held.member == member);
        item.held.len() == wanted.len()
            && wanted.all(|(member, primary)| {
                held(member).is_some_and(|held| (held.slot == 0) == primary)
            })
    }

    /// How good the plan is.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The items that lack replicas, by name.
    pub fn lacking(&self) -> &Arc<[Lacking]> {
        &self.lacking
    }

    /// How many items have no value that decodes, and are left as they are.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }
}

/// The planner's problem, and the members' numbers in the world by those in the problem.
fn problem<W: Workload>(
    world: &mut World<W>,
    rules: &Rules,
    outside: &Outside,
    frozen: &BTreeMap<u32, u32>,
) -> (Problem, Vec<u32>) {
    let mut members: Vec<u32> =
        world.members().filter(|(_, member)| member.stands()).map(|(number, _)| number).collect();
    members.sort_by(|a, b| world.member(*a).key.cmp(&world.member(*b).key));
    let zones: BTreeSet<Arc<str>> =
        members.iter().map(|number| Arc::clone(&world.member(*number).key.zone)).collect();
    let zones: BTreeMap<Arc<str>, u32> = zones.into_iter().zip(0..).collect();
    let posts: Vec<Post> = members
        .iter()
        .map(|number| {
            let member = world.member(*number);
            let primaries = outside.standing(&member.key).primaries();
            let frozen = frozen.get(number).copied().unwrap_or(0);
            Post { primaries, ..post(member, zones[&member.key.zone], frozen) }
        })
        .collect();
    let problem = Problem::new(rules.zone_rule, rules.balance_slack);
    let mut problem = problem.with_capacity(world.len(), world.assignments());
    for seat in seats(&posts) {
        problem.add_member(seat);
    }
    let numbers = numbers(world, &members);
    add_items(world, outside, &mut problem, &numbers, &zones);
    let lower = lower(world, outside, &members, &problem);
    retire_to(&mut problem, &lower);
    (problem, members)
}

/// To what the limits of members should be lowered: by their standings, and then of those that want to
/// leave, the oldest first.
fn lower<W: Workload>(
    world: &World<W>,
    outside: &Outside,
    members: &[u32],
    problem: &Problem,
) -> Vec<Less> {
    let seats = || problem.seats().iter().zip(members.iter().map(|number| world.member(*number)));
    let judged = seats().zip(0..).map(|((seat, member), number)| {
        let standing = outside.standing(&member.key);
        let limit = standing.limit(seat.limit, member.load);
        Less { member: number, limit, share: standing.keeps(seat.limit), keep: Keep::Replicas }
    });
    let leaves = |member: &Member<W>| member.value().is_some_and(MemberValue::is_exiting);
    let leaving = seats().zip(0..).filter(|((_, member), _)| leaves(member));
    let mut leaving: Vec<(u64, u32)> =
        leaving.map(|((_, member), number)| (member.since(), number)).collect();
    leaving.sort_unstable();
    let keep = Keep::ZoneRule;
    let leaving = leaving.into_iter().map(|(_, member)| Less { member, limit: 0, share: 0, keep });
    judged.chain(leaving).collect()
}

/// The members' numbers in the plan, by those in the world.
fn numbers<W: Workload>(world: &World<W>, members: &[u32]) -> Vec<Option<u32>> {
    let mut numbers = vec![None; world.numbers_end()];
    for (number, member) in (0..).zip(members) {
        numbers[*member as usize] = Some(number);
    }
    numbers
}

fn add_items<W: Workload>(
    world: &mut World<W>,
    outside: &Outside,
    problem: &mut Problem,
    numbers: &[Option<u32>],
    zones: &BTreeMap<Arc<str>, u32>,
) {
    let keeps = |number: u32| outside.standing(&world.member(number).key).keeps_primaries();
    let keeps: Vec<bool> = (0..).take(numbers.len()).map(keeps).collect();
    let mut holders = Vec::new();
    let rows: Vec<u32> = world.rows().collect();
    for item in rows {
        let item = world.row_mut(item);
        item.number = None;
        let Some(value) = item.value() else { continue };
        holders.clear();
        holders.extend(item.held.iter().filter_map(|held| {
            let holder = Holder::new(numbers[held.member as usize]?);
            let primary = held.slot == 0 && keeps[held.member as usize];
            let holder = if primary { holder.primary() } else { holder };
            Some(if held.consistent { holder.consistent() } else { holder })
        }));
        let number = problem.add_item(value.replication(), &holders);
        if let Some(allowed) = value.zones() {
            let allowed = allowed.iter().filter_map(|zone| zones.get(zone.as_str()).copied());
            problem.restrict(&allowed.collect::<Vec<u32>>());
        }
        item.number = u32::try_from(number).ok();
    }
}

/// How much each member holds that no plan moves, because nobody knows what it wants.
fn frozen<W: Workload>(world: &World<W>) -> BTreeMap<u32, u32> {
    let mut frozen = BTreeMap::new();
    if world.unreadable() == 0 {
        return frozen;
    }
    for (_, item) in world.items().filter(|(_, item)| item.is_unreadable()) {
        for held in &item.held {
            *frozen.entry(held.member).or_default() += 1;
        }
    }
    frozen
}

fn post<W: Workload>(member: &Member<W>, zone: u32, frozen: u32) -> Post {
    let Some(value) = member.value() else {
        // Nobody knows what it can hold: it keeps what it has, and gets nothing.
        let limit = member.load.saturating_sub(frozen);
        return Post { zone, limit, ..Post::default() };
    };
    let limit = value.limit().saturating_sub(frozen);
    Post { zone, limit, share: value.share(), ..Post::default() }
}

fn lacking<W: Workload>(
    world: &World<W>,
    problem: &Problem,
    solution: &super::planner::Solution,
) -> Arc<[Lacking]> {
    if solution.certificate.unplaced() == 0 {
        return Arc::default();
    }
    let lacks = |(name, item): (&Arc<str>, &Item<W>)| {
        let number = item.number? as usize;
        let reason = Reason::of(problem, solution, number)?;
        let placed = u32::try_from(solution.desired.of(number).len()).unwrap_or(u32::MAX);
        let missing = problem.replication()[number].saturating_sub(placed);
        Some(Lacking { item: Arc::clone(name), missing, reason })
    };
    world.items().filter_map(lacks).collect()
}
