//! What a world is meant to become: the planner's answer, with names for numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    place::Places,
    plan::Caps,
    planner::{Certificate, Holder, Keep, Less, Planner, Problem, Reason, Seat, Stays, ZoneRule},
    roster::Member,
    state::{Post, Standing, seats},
    value::{ItemValue, MemberKey, MemberValue, Workload, digest},
    world::{Item, World},
};

/// By what rules items are placed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// How an item's replicas are spread over zones. Default: at least two zones.
    pub zone_rule: ZoneRule,
    /// How they are spread over what zones lie in, the outermost first. The first rule is for the first part of a zone's
    /// name, up to a `/`, the second for its first two parts, and so on: with one rule `europe/3` and `europe/4` are two
    /// zones of one region. A zone whose name has fewer parts lies in itself. Default: none.
    pub levels: Vec<ZoneRule>,
    /// Whether a replica is rather not placed than beyond these rules. What stands already is not given up for that
    /// before the item has all that it wants elsewhere. Default: no, it is placed and counted.
    pub zones_required: bool,
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

/// Who is meant to hold what. It goes on from plan to plan, each at the cost of what has changed since; where that
/// would not be as good, all is planned at once.
///
/// Items and members have the numbers that they have in the world. The planner knows of an item that is
/// gone, or that nobody can read, that it wants nothing, and of a member that is gone, that it may hold nothing.
#[derive(Debug)]
pub struct Intent {
    of: u64,
    rules: Rules,
    planner: Planner,
    /// How often the world had been asked before what has changed.
    asked: u64,
    zones: Zones,
    places: Places,
    /// By level, the outermost first, and by the number of the zone: what that lies in.
    lies_in: Vec<Vec<u32>>,
    /// The zones with a member that may hold something.
    open_zones: BTreeSet<u32>,
    /// By the member's number; `None`: it does not stand.
    seats: Vec<Option<Seat>>,
    /// By the member's number.
    standings: Vec<Standing>,
    /// Who should hold less than it may, by the member's number, and why it does not.
    stays: BTreeMap<u32, Stays>,
    lacking: Arc<[Lacking]>,
    unreadable: usize,
}

/// The numbers of zones, of those of members and of those that items name: they stay, whoever comes or goes.
type Zones = BTreeMap<Arc<str>, u32>;

/// A number that says whether the same is meant.
fn fingerprint<W: Workload>(world: &World<W>, rules: &Rules, outside: &Outside) -> u64 {
    let standings: Vec<(&MemberKey, Standing)> =
        outside.standings.iter().map(|(key, judgement)| (key, judgement.standing)).collect();
    world.fingerprint().wrapping_add(digest(&(rules, standings, &outside.avoided)))
}

impl Intent {
    /// Plans. Of the world all items that do not stand as meant are unsettled.
    pub fn new<W: Workload>(world: &mut World<W>, rules: &Rules, outside: &Outside) -> Self {
        let (_, asked) = world.take_changed();
        let mut zones = Zones::default();
        let standings = standings(world, outside);
        let seats = full_seats(world, &standings, &mut zones);
        let mut problem = Problem::new(rules.zone_rule, rules.balance_slack);
        rules.levels.iter().for_each(|rule| problem.add_level(*rule));
        problem.require_zones(rules.zones_required);
        let mut problem = problem.with_capacity(world.rows_end(), world.assignments());
        for seat in &seats {
            problem.add_member(*seat);
        }
        let mut holders = Vec::new();
        for row in (0..).take(world.rows_end()) {
            let item = world.row_mut(row);
            let (replication, allowed) = read(item, &standings, &mut zones, &mut holders);
            problem.add_item(replication, &holders);
            if let Some(allowed) = allowed {
                problem.restrict(&allowed);
            }
        }
        let mut intent = Self {
            of: 0,
            rules: rules.clone(),
            planner: Planner::new(problem),
            asked,
            zones,
            places: Places::default(),
            lies_in: vec![Vec::new(); rules.levels.len()],
            open_zones: BTreeSet::new(),
            seats: Vec::new(),
            standings,
            stays: BTreeMap::new(),
            lacking: Arc::default(),
            unreadable: 0,
        };
        intent.plan(world, outside, &seats);
        world.unsettle(|item| intent.is_unsettled(item));
        intent
    }

    /// Plans anew, as [`Intent::new`] does, from the plan that it was and what has changed in the same world since.
    pub fn follow<W: Workload>(&mut self, world: &mut World<W>, rules: &Rules, outside: &Outside) {
        let (mut rows, asked) = world.take_changed();
        let knows_the_rest = asked == self.asked + 1 && *rules == self.rules;
        if !knows_the_rest {
            *self = Self::new(world, rules, outside);
            return;
        }
        self.asked = asked;
        let before = std::mem::replace(&mut self.standings, standings(world, outside));
        let seats = full_seats(world, &self.standings, &mut self.zones);
        for seat in &seats[self.seats.len()..] {
            self.planner.add_member(Seat::new(seat.zone, 0));
        }
        for (member, standing) in (0..).zip(&self.standings) {
            let before = before.get(member as usize).copied().unwrap_or_default();
            if before.keeps_primaries() != standing.keeps_primaries() {
                rows.extend(self.planner.items_of(member));
            }
        }
        let mut holders = Vec::new();
        for row in &rows {
            let item = world.row_mut(*row);
            let (replication, allowed) = read(item, &self.standings, &mut self.zones, &mut holders);
            self.planner.set_item(*row, replication, allowed.as_deref(), &holders);
        }
        self.plan(world, outside, &seats);
        rows.extend(self.planner.moving());
        world.look_at(rows, |item| self.is_unsettled(item));
    }

    /// Plans, when all but the members is told.
    fn plan<W: Workload>(&mut self, world: &World<W>, outside: &Outside, seats: &[Seat]) {
        self.place_zones();
        let mut lower = lower(world, &self.standings, seats);
        loop {
            let stays = self.planner.change_members(seats.to_vec(), &lower);
            self.stays = stays.into_iter().collect();
            self.planner.plan();
            if !self.take_for_good(&mut lower) {
                break;
            }
        }
        let pair = |(item, member): &(Arc<str>, MemberKey)| {
            Some((world.find_row(item)?, world.find_number(member)?))
        };
        self.planner.evade(&outside.avoided.iter().filter_map(pair).collect());
        let seats = (0..).zip(self.planner.seats()).map(|(number, seat)| {
            let member = world.member(number);
            // It holds what no plan moves besides what the plan lets it.
            let limit = seat.limit.saturating_add(member.frozen);
            member.stands().then_some(Seat { limit, ..*seat })
        });
        self.seats = seats.collect();
        let open = self.planner.seats().iter().filter(|seat| seat.limit > 0);
        self.open_zones = open.map(|seat| seat.zone).collect();
        self.lacking = lacking(world, &self.planner);
        self.unreadable = world.unreadable();
        self.of = fingerprint(world, &self.rules, outside);
    }

    /// Says what all zones lie in.
    fn place_zones(&mut self) {
        if self.rules.levels.is_empty() {
            return;
        }
        for level in &mut self.lies_in {
            level.resize(self.zones.len(), 0);
        }
        for (name, zone) in &self.zones {
            let lies_in = self.places.of(name, self.rules.levels.len());
            self.planner.place_zone(*zone, &lies_in);
            for (level, thing) in self.lies_in.iter_mut().zip(lies_in) {
                level[*zone as usize] = thing;
            }
        }
    }

    /// Who gets nothing new will not get back what the plan takes from it, so all others are to be planned for with as
    /// much as it will hold then. Whether that is less than was thought.
    fn take_for_good(&self, lower: &mut [Less]) -> bool {
        let mut lower: Vec<&mut Less> =
            lower.iter_mut().filter(|less| self.standing(less.member).gets_nothing_new()).collect();
        if lower.is_empty() {
            return false;
        }
        let loads = self.planner.loads();
        let load = |member: u32| u32::try_from(loads[member as usize]).unwrap_or(u32::MAX);
        lower.retain(|less| less.keep == Keep::Replicas && load(less.member) < less.limit);
        let takes = !lower.is_empty();
        for less in lower {
            less.limit = load(less.member);
        }
        takes
    }

    /// Whether something is to be done with an item, or waited for.
    fn is_unsettled<W: Workload>(&self, item: &Item<W>) -> bool {
        !self.is_met(item) || item.held.iter().any(|held| !held.consistent)
    }

    /// Whether it is still what a new plan would be made from.
    pub fn is_of<W: Workload>(&self, world: &World<W>, rules: &Rules, outside: &Outside) -> bool {
        self.of == fingerprint(world, rules, outside)
    }

    /// Who is meant to hold an item: the members' numbers, and who is meant to be the primary. `None`:
    /// nothing is meant, it stays as it is.
    pub(super) fn wanted<W: Workload>(
        &self,
        item: &Item<W>,
    ) -> Option<impl ExactSizeIterator<Item = (u32, bool)> + '_> {
        let wanted = item.is_planned.then(|| self.planner.desired(item.number))?.iter();
        Some(wanted.map(|holder| (holder.member(), holder.is_primary())))
    }

    /// How much a member may hold, with what is left where it is because nobody can read what it
    /// wants. `None`: it does not stand.
    pub(super) fn seat(&self, member: u32) -> Option<Seat> {
        self.seats.get(member as usize).copied().flatten()
    }

    /// The number of a member's zone.
    pub(super) fn zone(&self, member: u32) -> u32 {
        self.planner.seats().get(member as usize).map_or(u32::MAX, |seat| seat.zone)
    }

    /// How many of an item's replicas zones take by the rules.
    pub(super) fn caps(&self, item: &impl ItemValue) -> Caps<'_> {
        let is_open = |zone: &&u32| self.open_zones.contains(zone);
        let named = item.zones().map(|allowed| {
            let named = allowed.iter().filter_map(|zone| self.zones.get(zone.as_str()));
            named.filter(is_open).copied().collect::<BTreeSet<u32>>()
        });
        let open = named.as_ref().unwrap_or(&self.open_zones);
        let cap = |rule: ZoneRule, open: usize| {
            rule.cap(item.replication(), u32::try_from(open).unwrap_or(u32::MAX)) as usize
        };
        let around = self.rules.levels.iter().zip(&self.lies_in).map(|(rule, lies_in)| {
            let things: BTreeSet<u32> = open.iter().map(|zone| lies_in[*zone as usize]).collect();
            (&lies_in[..], cap(*rule, things.len()))
        });
        let around = around.rev().collect();
        Caps { zone: cap(self.rules.zone_rule, open.len()), around }
    }

    /// Why a member may hold what it should give up. `None`: it gives up all that it should.
    pub(super) fn stays(&self, member: u32) -> Option<Stays> {
        self.stays.get(&member).copied()
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
        self.planner.certificate()
    }

    /// Whether all was planned at once, and not only what had changed.
    pub fn was_whole(&self) -> bool {
        self.planner.was_whole()
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

/// What the members may hold, without what their standing and their wish to leave take from it.
fn full_seats<W: Workload>(
    world: &World<W>,
    standings: &[Standing],
    zones: &mut Zones,
) -> Vec<Seat> {
    let posts = (0..).zip(standings).map(|(number, standing)| {
        let member = world.member(number);
        let zone = zone_number(zones, &member.key.zone);
        Post { primaries: standing.primaries(), ..post(member, zone) }
    });
    seats(&posts.collect::<Vec<Post>>())
}

fn standings<W: Workload>(world: &World<W>, outside: &Outside) -> Vec<Standing> {
    let numbers = (0..).take(world.numbers_end());
    numbers.map(|number| outside.standing(&world.member(number).key)).collect()
}

fn zone_number(zones: &mut Zones, zone: &str) -> u32 {
    if let Some(number) = zones.get(zone) {
        return *number;
    }
    let number = u32::try_from(zones.len()).unwrap_or(u32::MAX);
    zones.insert(Arc::from(zone), number);
    number
}

/// To what the limits of members should be lowered: by their standings, and then of those that want to
/// leave, the oldest first. The order is the same whatever their numbers are.
fn lower<W: Workload>(world: &World<W>, standings: &[Standing], seats: &[Seat]) -> Vec<Less> {
    let members = || (0..).zip(seats).map(|(number, seat)| (number, world.member(number), seat));
    let mut judged: Vec<(&MemberKey, Less)> = members()
        .map(|(number, member, seat)| {
            let standing = standings[number as usize];
            // What stays whatever is planned is not in its limit.
            let limit = standing.limit(seat.limit, member.load.saturating_sub(member.frozen));
            (
                &member.key,
                Less {
                    member: number,
                    limit,
                    share: standing.keeps(seat.limit),
                    keep: Keep::Replicas,
                },
            )
        })
        .filter(|(_, less)| {
            let standing = standings[less.member as usize];
            less.limit < seats[less.member as usize].limit || standing.gets_nothing_new()
        })
        .collect();
    judged.sort_by_key(|(key, _)| *key);
    let leaves = |member: &Member<W>| member.value().is_some_and(MemberValue::is_exiting);
    let leaving = members().filter(|(_, member, _)| leaves(member));
    let mut leaving: Vec<(u64, &MemberKey, u32)> =
        leaving.map(|(number, member, _)| (member.since(), &member.key, number)).collect();
    leaving.sort_unstable();
    let keep = Keep::ZoneRule;
    let leaving = leaving.into_iter().map(|(.., member)| Less { member, limit: 0, share: 0, keep });
    judged.into_iter().map(|(_, less)| less).chain(leaving).collect()
}

/// What a plan has to know of an item: how many replicas it wants, in which zones, and who holds it. From
/// here on it is in the plan.
fn read<W: Workload>(
    item: &mut Item<W>,
    standings: &[Standing],
    zones: &mut Zones,
    holders: &mut Vec<Holder>,
) -> (u32, Option<Vec<u32>>) {
    holders.clear();
    item.is_planned = item.value().is_some();
    let Some(value) = item.value() else { return (0, None) };
    holders.extend(item.held.iter().map(|held| {
        let holder = Holder::new(held.member);
        let primary = held.slot == 0 && standings[held.member as usize].keeps_primaries();
        let holder = if primary { holder.primary() } else { holder };
        if held.consistent { holder.consistent() } else { holder }
    }));
    let allowed = value
        .zones()
        .map(|allowed| allowed.iter().map(|zone| zone_number(zones, zone)).collect::<Vec<u32>>());
    (value.replication(), allowed)
}

fn post<W: Workload>(member: &Member<W>, zone: u32) -> Post {
    let Some(value) = member.value() else {
        // Nobody knows what it can hold: it keeps what it has, and gets nothing.
        let limit = if member.stands() { member.load.saturating_sub(member.frozen) } else { 0 };
        return Post { zone, limit, ..Post::default() };
    };
    let limit = value.limit().saturating_sub(member.frozen);
    Post { zone, limit, share: value.share(), ..Post::default() }
}

/// The items that lack replicas, by name.
fn lacking<W: Workload>(world: &World<W>, planner: &Planner) -> Arc<[Lacking]> {
    if planner.certificate().unplaced() == 0 {
        return Arc::default();
    }
    let lacks = planner.lacking().map(|(row, missing, reason)| {
        let item = Arc::clone(world.row(row).0);
        Lacking { item, missing, reason }
    });
    let mut lacking: Vec<Lacking> = lacks.collect();
    lacking.sort_by(|a, b| a.item.cmp(&b.item));
    lacking.into()
}
