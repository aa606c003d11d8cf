//! Plans of a world that changes little by little: each costs what changed, not what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    certificate::{Certificate, certify},
    draft::Draft,
    evade::evade,
    fair::{Fair, cap, fair_of},
    fill::{Filled, fill},
    flow::index,
    holder::{Holder, sanitised},
    kinds::{Class, Classes, Zones, narrow},
    live::Live,
    network::{Reason, Solution, is_small, solve, solve_by_counting},
    primaries,
    problem::Problem,
    retire::{Less, Stays, retire_to},
    seat::Seat,
    survey::{Cells, Standing, is_sound},
    tally::Kind,
};

/// A [`Problem`] with its plan, both kept from one change to the next.
///
/// Tell it what changed, and ask for the next [plan](Self::plan). That reads the items that changed, and
/// those that move, and not all the others; it is exactly as good as a plan that was made at once, as the
/// certificate shows. Where that cannot be had, because not all fits, because the zone rule cannot be
/// kept, because it is required or there are rules of what zones lie in, or because most items change, all is planned
/// at once as [`solve`] does.
///
/// Numbers stay: a member that is gone has the limit zero, and an item that is gone wants no replicas
/// and has no holders. Both may be given to somebody else later.
///
/// ```
/// use raft_autopilot::allocator::{Planner, Problem, Seat, ZoneRule};
///
/// let mut problem = Problem::new(ZoneRule::Two, 0);
/// for member in 0..6 {
///     problem.add_member(Seat::new(member % 3, 1_000));
/// }
/// for _ in 0..300 {
///     problem.add_item(3, &[]);
/// }
/// let mut planner = Planner::new(problem);
/// assert_eq!(planner.plan().added, 900);
///
/// // What was planned has been done; then the first member is lost.
/// let moving: Vec<u32> = planner.moving().collect();
/// for item in moving {
///     let desired = planner.desired(item).to_vec();
///     planner.hold(item, &desired);
/// }
/// planner.change_member(0, Seat::new(0, 0));
/// assert_eq!(planner.plan().added, 150);
/// ```
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says something else of the last plan")]
pub struct Planner {
    /// Without who holds what: that is in `live`.
    problem: Problem,
    live: Live,
    /// The items by the replicas that they want, and their set of zones.
    kinds: BTreeMap<Kind, Alike>,
    /// Whether what members are to hold is counted; with too many kinds it is not.
    counted: bool,
    primaries: Vec<u32>,
    /// Replicas that are not consistent.
    raw: u64,
    wanted: u64,
    certificate: Certificate,
    /// Whether nothing changed since the last plan.
    still: bool,
    /// Whether the next plan is made at once.
    whole: bool,
    /// Whether the last one was.
    was_whole: bool,
    solver: Solver,
}

/// What makes a plan of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Solver {
    /// As the size asks for.
    BySize,
    Counting,
}

/// What is known of items of one kind.
#[derive(Clone, Debug, Default)]
struct Alike {
    items: i64,
    /// By member, the replicas that it is to hold.
    of_member: Vec<u32>,
    /// How many of an item a zone took in the last plan.
    cap: Option<usize>,
}

/// With more kinds of items than this all is planned at once.
const KINDS_MAX: usize = 64;

impl Planner {
    /// A planner that has not planned yet.
    pub fn new(problem: Problem) -> Self {
        Self::with(problem, Solver::BySize)
    }

    /// The same, that plans by counting whatever the size, as [`solve_by_counting`] does.
    pub fn by_counting(problem: Problem) -> Self {
        Self::with(problem, Solver::Counting)
    }

    fn with(mut problem: Problem, solver: Solver) -> Self {
        let held = problem.release();
        let mut planner = Self {
            live: Live::unplanned(problem.seats.len(), &held),
            problem,
            kinds: BTreeMap::new(),
            counted: false,
            primaries: Vec::new(),
            raw: 0,
            wanted: 0,
            certificate: Certificate::default(),
            still: false,
            whole: true,
            was_whole: true,
            solver,
        };
        planner.count_items();
        planner
    }

    /// Adds a member, and returns its number.
    ///
    /// # Panics
    /// If there are more than [`Holder::MEMBER_MAX`].
    pub fn add_member(&mut self, seat: Seat) -> u32 {
        self.still = false;
        // Items that want more replicas than there were members want more now.
        let members = narrow(self.problem.seats.len());
        self.whole |= self.kinds.keys().any(|(replication, _)| *replication > members);
        self.live.add_member();
        self.primaries.push(0);
        self.kinds.values_mut().for_each(|kind| kind.of_member.push(0));
        self.problem.add_member(seat)
    }

    /// Says what a zone lies in, as [`Problem::place_zone`] does.
    pub fn place_zone(&mut self, zone: u32, lies_in: &[u32]) {
        if self.problem.lies_in(zone) != lies_in {
            self.still = false;
            self.problem.place_zone(zone, lies_in);
        }
    }

    /// Changes a member: where it is, and what it may hold; nothing, if its limit is zero. Without a
    /// member of that number nothing happens.
    pub fn change_member(&mut self, member: u32, seat: Seat) {
        let Some(before) = self.problem.seat_mut(member) else { return };
        self.still &= *before == seat;
        let moves = before.zone != seat.zone || seat.limit == 0 && before.limit > 0;
        *before = seat;
        if moves {
            self.live.touch_all_of(member);
        }
    }

    /// Changes all members, but for those to whom nothing happens. Then limits are lowered as far as that may be, as
    /// [`retire`](super::retire) does; returned is who stays, and why.
    pub(crate) fn change_members(&mut self, seats: Vec<Seat>, lower: &[Less]) -> Vec<(u32, Stays)> {
        let before = std::mem::replace(&mut self.problem.seats, seats);
        let kinds = self.items_of_kind();
        let classes = |problem: &Problem| Classes::by_kind(problem, kinds.into_iter());
        let stays = retire_to(&mut self.problem, classes, lower);
        let after = std::mem::replace(&mut self.problem.seats, before);
        for (member, seat) in (0..).zip(after) {
            self.change_member(member, seat);
        }
        stays
    }

    /// Adds an item, as [`Problem::add_item`] does, that may be held in some zones or in any. Returns its
    /// number.
    pub fn add_item(
        &mut self,
        replication: u32,
        zones: Option<&[u32]>,
        holders: &[Holder],
    ) -> usize {
        self.still = false;
        let item = self.problem.replication.len();
        self.problem.replication.push(replication);
        if !self.problem.zone_set.is_empty() {
            self.problem.zone_set.push(0);
        }
        self.problem.restrict_item(item, zones);
        self.live.add_item(self.known(holders));
        self.count_kind(item, 1);
        item
    }

    /// Changes what an item wants, and the zones that it may be held in. Without an item of that number
    /// nothing happens.
    pub fn change_item(&mut self, item: u32, replication: u32, zones: Option<&[u32]>) {
        let item = item as usize;
        if item >= self.problem.replication.len() {
            return;
        }
        let set = zones.map_or(0, |zones| self.problem.set_number(zones));
        if self.problem.kind(item) == (replication, set) {
            return;
        }
        self.still = false;
        self.count_desired(item, false);
        self.count_kind(item, -1);
        self.problem.replication[item] = replication;
        self.problem.set_zone_set(item, set);
        self.count_kind(item, 1);
        self.count_desired(item, true);
        self.live.touch(narrow(item));
    }

    /// Says who holds an item now, as [`Problem::add_item`] reads it. Without an item of that number
    /// nothing happens.
    pub fn hold(&mut self, item: u32, holders: &[Holder]) {
        if (item as usize) >= self.problem.replication.len() {
            return;
        }
        self.still = false;
        let held = self.known(holders);
        let done = self.live.is_done(item, &held);
        if done {
            self.count_desired(item as usize, false);
        }
        self.live.hold(item, held);
        if done {
            self.count_desired(item as usize, true);
        }
    }

    /// The same, with what the item wants, as [`change_item`](Self::change_item) reads it. There may be no item of that
    /// number yet.
    pub(crate) fn set_item(
        &mut self,
        item: u32,
        replication: u32,
        zones: Option<&[u32]>,
        holders: &[Holder],
    ) {
        while item as usize >= self.live.len() {
            self.add_item(0, None, &[]);
        }
        self.change_item(item, replication, zones);
        self.hold(item, holders);
    }

    fn known(&self, holders: &[Holder]) -> Vec<Holder> {
        sanitised(holders, self.problem.seats.len()).unwrap_or_else(|| holders.to_vec())
    }

    /// Plans, and says how good the plan is.
    pub fn plan(&mut self) -> &Certificate {
        if self.still {
            return &self.certificate;
        }
        // Items that break the zone rule are not moved unless all are looked at.
        let is_whole = self.whole || self.certificate.beyond > 0;
        let part = if is_whole { None } else { self.plan_part() };
        self.was_whole = part.is_none();
        match part {
            Some(certificate) => self.certificate = certificate,
            None => self.plan_all(),
        }
        self.still = true;
        &self.certificate
    }

    /// Keeps items away from members that have just given them back, each pair an item and a member: as far as the
    /// plan loses nothing, and until the next one.
    pub(crate) fn evade(&mut self, avoided: &BTreeSet<(u32, u32)>) {
        if avoided.is_empty() {
            return;
        }
        self.still = false;
        let mut loads = self.loads();
        let moving: Vec<u32> = self.live.moving().collect();
        for item in &moving {
            self.count_desired(*item as usize, false);
        }
        evade(&self.problem, &mut self.live, &moving, &mut loads, avoided);
        for item in moving {
            self.count_desired(item as usize, true);
        }
    }

    /// Whether the last plan was made at once.
    pub fn was_whole(&self) -> bool {
        self.was_whole
    }

    /// The members, by number.
    pub(crate) fn seats(&self) -> &[Seat] {
        &self.problem.seats
    }

    /// How good the last plan is.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Who is to hold an item by the last plan; nobody, if there is no such item.
    pub fn desired(&self, item: u32) -> &[Holder] {
        if (item as usize) < self.live.len() { self.live.of(item as usize) } else { &[] }
    }

    /// Who holds an item now; nobody, if there is no such item.
    pub fn held(&self, item: u32) -> &[Holder] {
        if (item as usize) < self.live.len() { self.live.held(item as usize) } else { &[] }
    }

    /// The items that are not held as they are to be, or that changed since the last plan, in order.
    pub fn moving(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.live.moving()
    }

    /// Why an item does not get all its replicas; `None`: it does.
    pub fn reason(&self, item: u32) -> Option<Reason> {
        let placed = self.desired(item).len();
        self.problem.replication.get(item as usize)?;
        Reason::for_lack(&self.problem, item as usize, placed, &self.certificate)
    }

    /// The items that do not get all their replicas, with how many they lack, and why.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = (u32, u32, Reason)> + '_ {
        // Why is the same for all that want the same.
        let mut reasons = BTreeMap::new();
        let wanted = (0..).zip(&self.problem.replication);
        wanted.filter_map(move |(item, wanted)| {
            let placed = self.desired(item).len();
            let missing = wanted.checked_sub(narrow(placed)).filter(|missing| *missing > 0)?;
            let reason = *reasons
                .entry(self.problem.kind(item as usize))
                .or_insert_with(|| self.reason(item));
            Some((item, missing, reason?))
        })
    }

    /// The items that a member holds, or is to hold, and perhaps others.
    pub(crate) fn items_of(&self, member: u32) -> Vec<u32> {
        let mut items = self.live.of_member(member);
        items.extend(self.live.moving());
        items
    }

    /// The problem as it is now, to be planned by somebody else.
    pub fn problem(&self) -> Problem {
        let mut problem = self.problem.clone();
        problem.hold_sane(self.live.all_held());
        problem
    }

    /// The last plan, of all items.
    pub fn solution(&self) -> Solution {
        Solution { desired: self.live.all_desired(), certificate: self.certificate.clone() }
    }

    fn plan_all(&mut self) {
        self.problem.hold_sane(std::mem::take(&mut self.live).all_held());
        let Solution { desired, certificate } = match self.solver {
            Solver::BySize => solve(&self.problem),
            Solver::Counting => solve_by_counting(&self.problem),
        };
        let held = self.problem.release();
        self.live = Live::new(self.problem.seats.len(), &desired, &held);
        self.certificate = certificate;
        self.count_all();
        self.keeps_caps(&Zones::new(&self.problem));
        let small = self.solver == Solver::BySize && is_small(&self.problem);
        self.whole = small || self.kinds.len() > KINDS_MAX;
    }

    /// Plans what changed. Nothing, if that is not as good as to plan all.
    fn plan_part(&mut self) -> Option<Certificate> {
        let knows_zones_alone = self.problem.around.rules.is_empty() && !self.problem.required;
        if !knows_zones_alone || self.live.moving().len() > 64 + self.live.len() / 8 {
            return None;
        }
        let classes = Classes::by_kind(&self.problem, self.items_of_kind().into_iter());
        let fair = fair_of(&self.problem, classes).filter(|fair| fair.beyond == 0)?;
        if !self.keeps_caps(&fair.zones) {
            return None;
        }
        let unsound = self.reset(&fair);
        let cells = Cells::new(&fair);
        let standing = self.standing(&fair, &cells);
        let live = std::mem::take(&mut self.live);
        let mut filled = fill(&self.problem, &fair, &cells, standing, unsound, live);
        primaries::elect(&self.problem, &mut filled);
        let Filled { draft, loads, lower_bound, .. } = filled;
        let moving: Vec<u32> = draft.moving().collect();
        let mut certificate = certify(&self.problem, &fair, &draft, self.wanted, &moving, &loads);
        certificate.bound_from_below(lower_bound);
        self.live = draft;
        for item in moving {
            let legal = self.legal(&fair, item as usize);
            self.count_row(item as usize, &legal, false);
            self.count_desired(item as usize, true);
        }
        self.live.settle(&loads);
        certificate.is_best().then_some(certificate)
    }

    /// Sets the items that move or changed back to who holds them. Returns those that cannot stay so.
    fn reset(&mut self, fair: &Fair) -> Vec<u32> {
        let moving: Vec<u32> = self.live.moving().collect();
        let mut unsound = Vec::new();
        for number in moving {
            let item = number as usize;
            self.count_desired(item, false);
            let class = fair.classes.of(&self.problem, item);
            let goal = self.problem.wanted(item) as usize;
            if is_sound(fair, class, goal, self.live.held(item)) {
                self.live.reset(number);
            } else {
                self.live.wish_as_before(number);
                unsound.push(number);
            }
            let legal = self.legal(fair, item);
            self.count_row(item, &legal, true);
        }
        unsound
    }

    /// Those who hold an item and may go on.
    fn legal(&self, fair: &Fair, item: usize) -> Vec<Holder> {
        let class = fair.classes.of(&self.problem, item);
        let held = self.live.held(item).iter().copied();
        held.filter(|holder| fair.is_legal(class, *holder)).collect()
    }

    /// Whether a zone takes as many of an item of each kind as in the last plan: if so, what was not
    /// touched is still within the zone rule.
    fn keeps_caps(&mut self, zones: &Zones) -> bool {
        let members = narrow(self.problem.seats.len());
        let mut kept = true;
        for ((replication, set), alike) in &mut self.kinds {
            let class = Class { wanted: (*replication).min(members), set: *set, standing: 0 };
            let cap = cap(&self.problem, zones, class);
            kept &= alike.cap.is_none_or(|before| before == cap);
            alike.cap = Some(cap);
        }
        kept
    }

    fn standing(&self, fair: &Fair, cells: &Cells) -> Standing {
        let members = self.problem.seats.len();
        let mut standing = Standing {
            of_member: vec![0; members],
            primaries: self.primaries.clone(),
            of_cell: vec![0; fair.classes.list.len() * cells.list.len()],
            raw: self.raw,
        };
        for ((replication, set), alike) in &self.kinds {
            let Some(class) = fair.classes.find(((*replication).min(narrow(members)), *set)) else {
                continue;
            };
            let row = class * cells.list.len();
            for (member, count) in alike.of_member.iter().enumerate().filter(|(_, n)| **n > 0) {
                standing.of_member[member] += count;
                if let Some(of_cell) =
                    standing.of_cell.get_mut(row + cells.of_member[member] as usize)
                {
                    *of_cell += count;
                }
            }
        }
        standing
    }

    /// How many items there are of each kind.
    fn items_of_kind(&self) -> Vec<(Kind, i64)> {
        self.kinds.iter().map(|(kind, alike)| (*kind, alike.items)).collect()
    }

    /// How many items each member is to hold.
    pub(crate) fn loads(&self) -> Vec<u64> {
        let mut loads = vec![0; self.problem.seats.len()];
        if self.counted {
            for alike in self.kinds.values() {
                let counts = loads.iter_mut().zip(&alike.of_member);
                counts.for_each(|(load, count)| *load += u64::from(*count));
            }
        } else {
            let rows = (0..self.live.len()).flat_map(|item| self.live.of(item));
            rows.for_each(|holder| loads[holder.member() as usize] += 1);
        }
        loads
    }

    /// Counts all items and rows anew.
    fn count_all(&mut self) {
        self.count_items();
        self.counted = self.kinds.len() <= KINDS_MAX;
        let Self { problem, live, kinds, primaries, raw, .. } = self;
        if self.counted {
            for items in runs(problem) {
                let mut alike = kinds.get_mut(&problem.kind(items.start));
                for item in items {
                    count_row(alike.as_deref_mut(), primaries, raw, live.of(item), true);
                }
            }
        }
    }

    /// Counts all items anew, and no rows yet.
    fn count_items(&mut self) {
        self.kinds.clear();
        self.primaries = vec![0; self.problem.seats.len()];
        (self.raw, self.wanted, self.counted) = (0, 0, false);
        let runs: Vec<Range<usize>> = runs(&self.problem).collect();
        for items in runs {
            self.count_kind(items.start, index(items.len()));
        }
    }

    /// Counts so many more items like one, or so many less.
    fn count_kind(&mut self, item: usize, by: i64) {
        let kind = self.problem.kind(item);
        let members = self.problem.seats.len();
        let alike = self
            .kinds
            .entry(kind)
            .or_insert_with(|| Alike { of_member: vec![0; members], ..Alike::default() });
        alike.items += by;
        if alike.items == 0 {
            self.kinds.remove(&kind);
        }
        self.whole |= self.kinds.len() > KINDS_MAX;
        self.wanted = self.wanted.wrapping_add_signed(i64::from(kind.0) * by);
    }

    /// Counts those who are to hold an item, or that they are not any more.
    fn count_desired(&mut self, item: usize, more: bool) {
        let Self { problem, live, kinds, primaries, raw, .. } = self;
        if self.counted {
            count_row(kinds.get_mut(&problem.kind(item)), primaries, raw, live.of(item), more);
        }
    }

    /// The same of others.
    fn count_row(&mut self, item: usize, row: &[Holder], more: bool) {
        let Self { problem, kinds, primaries, raw, .. } = self;
        if self.counted {
            count_row(kinds.get_mut(&problem.kind(item)), primaries, raw, row, more);
        }
    }
}

/// All items, those of one kind that follow each other together.
fn runs(problem: &Problem) -> impl Iterator<Item = Range<usize>> + '_ {
    let items = problem.replication.len();
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = start;
        let kind = (first < items).then(|| problem.kind(first))?;
        start = (first..items).find(|item| problem.kind(*item) != kind).unwrap_or(items);
        Some(first..start)
    })
}

/// Counts the replicas of an item, or that they are no more.
fn count_row(
    alike: Option<&mut Alike>,
    primaries: &mut [u32],
    raw: &mut u64,
    row: &[Holder],
    more: bool,
) {
    let by = |count: &mut u32, n: u32| *count = if more { *count + n } else { *count - n };
    let Some(alike) = alike else { return };
    for holder in row {
        let member = holder.member() as usize;
        by(&mut alike.of_member[member], 1);
        by(&mut primaries[member], u32::from(holder.is_primary()));
        let is_raw = u64::from(!holder.is_consistent());
        *raw = if more { *raw + is_raw } else { *raw - is_raw };
    }
}
