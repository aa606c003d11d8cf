//! A case to plan without a store, as JSON: members, items and assignments, and what is desired.

use std::{collections::BTreeMap, fmt, iter, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        DeserializeOwned, Error, IntoDeserializer, MapAccess, Unexpected, Visitor,
        value::{Error as Refused, MapAccessDeserializer, MapDeserializer},
    },
};

use super::{
    item::check_name,
    place::Places,
    planner::{Holder, Problem, Reason, Seat, Solution, Stays, ZoneRule, retire, solve},
    state::{Post, Standing, seats},
};

/// Members, items and assignments. Their order means nothing, but for members that are exiting: the
/// one listed first is the oldest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The members.
    pub members: Vec<CaseMember>,
    /// The items.
    pub items: Vec<CaseItem>,
    /// Who holds what now.
    #[serde(default)]
    pub assignments: Vec<CaseAssignment>,
    /// How far from its fair share a member may be before that is a reason to move an item. Default 0.
    #[serde(default)]
    pub balance_slack: u32,
    /// How replicas are spread over zones. Default: at least two zones.
    #[serde(default, deserialize_with = "zone_rule")]
    pub zone_rule: ZoneRule,
    /// How replicas are spread over what zones lie in, by the parts of a zone's name between `/`, the outermost first.
    /// Default: no rules.
    #[serde(default, deserialize_with = "zone_rules", skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<ZoneRule>,
    /// Whether a replica is rather not placed than beyond these rules. Default: no.
    #[serde(default)]
    pub zones_required: bool,
}

/// A member of a [`Case`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseMember {
    /// Its zone.
    pub zone: String,
    /// Its name, unique within the zone.
    pub id: String,
    /// How many items it may hold.
    pub limit: u64,
    /// Whether it wants to leave. Default: no.
    #[serde(default)]
    pub exiting: bool,
    /// Its weight when items are shared out, not negative. Default: its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// What it may hold, as judged from outside. Default: full.
    #[serde(default, deserialize_with = "standing")]
    pub standing: Standing,
}

/// An item of a [`Case`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseItem {
    /// Its name.
    pub id: String,
    /// How many replicas it wants.
    pub replication: u32,
    /// The zones that it may be held in. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<String>>,
}

/// An assignment of a [`Case`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseAssignment {
    /// The item's name.
    pub item: String,
    /// The member's zone.
    pub zone: String,
    /// The member's name.
    pub member: String,
    /// Zero: it is the primary.
    pub slot: u32,
    /// Whether the replica is consistent. Default: yes.
    #[serde(default = "yes")]
    pub consistent: bool,
}

fn yes() -> bool {
    true
}

fn zone_rule<'de, D: Deserializer<'de>>(json: D) -> Result<ZoneRule, D::Error> {
    json.deserialize_any(Forms(r#""two", "spread" or {"max_per_zone": 2}"#, PhantomData))
}

fn zone_rules<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<ZoneRule>, D::Error> {
    /// A rule that is read as the one of zones is.
    #[derive(Deserialize)]
    struct Level(#[serde(deserialize_with = "zone_rule")] ZoneRule);

    let levels: Vec<Level> = Deserialize::deserialize(json)?;
    Ok(levels.into_iter().map(|Level(rule)| rule).collect())
}

fn standing<'de, D: Deserializer<'de>>(json: D) -> Result<Standing, D::Error> {
    let forms = r#""full", "no_new_primaries", "no_primaries", "nothing_new", {"shed": 2}, {"shed_only": 2} or "gone""#;
    json.deserialize_any(Forms(forms, PhantomData))
}

/// Reads a word, or a word and a number; of all else it says in which forms it may be written.
struct Forms<T>(&'static str, PhantomData<T>);

impl<T: DeserializeOwned> Forms<T> {
    fn counted<E: Error>(&self, word: &str, count: u32) -> Result<T, E> {
        let one = MapDeserializer::<_, Refused>::new(iter::once((word, count)));
        let wrong = |_| {
            let found = format!("`{word}` with a number");
            E::invalid_value(Unexpected::Other(&found), self)
        };
        T::deserialize(MapAccessDeserializer::new(one)).map_err(wrong)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Forms<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        let read: Result<T, Refused> = T::deserialize(word.into_deserializer());
        read.map_err(|_| E::invalid_value(Unexpected::Str(word), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let wrong = |found: &str| A::Error::invalid_value(Unexpected::Other(found), &self);
        let word: Option<String> = map.next_key()?;
        let word = word.ok_or_else(|| wrong("an empty object"))?;
        // Of a word that is none the number says nothing.
        self.counted::<A::Error>(&word, 0)?;
        let count = map.next_value()?;
        if map.next_key::<String>()?.is_some() {
            return Err(wrong("an object of several fields"));
        }
        self.counted(&word, count)
    }
}

/// What is desired in a [`Case`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Who should hold what, by item, zone and member.
    pub desired: Vec<Desired>,
    /// The plan in figures.
    pub summary: Summary,
    /// The items that lack replicas, and why.
    pub unplaced: Vec<Unplaced>,
    /// What of the case made no sense and was left out; not written where there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// Members that cannot leave yet, as they want to, and why; not written where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staying: Vec<Staying>,
}

/// A member that cannot leave yet: it may go on holding what the others cannot take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staying {
    /// Its zone.
    pub zone: String,
    /// Its name.
    pub member: String,
    /// Why.
    pub reason: Stays,
    /// Why, for people.
    pub words: String,
}

/// A desired assignment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Desired {
    /// The item's name.
    pub item: String,
    /// The member's zone.
    pub zone: String,
    /// The member's name.
    pub member: String,
    /// Whether it is to be the item's primary.
    pub primary: bool,
}

/// A plan in figures; see [`Certificate`](super::Certificate) for what each says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named and described as in the certificate")]
pub struct Summary {
    pub placed: u64,
    pub unplaced: u64,
    pub added: u64,
    pub removed: u64,
    pub unchanged: u64,
    pub lower_bound: u64,
    pub min_load: u64,
    pub max_load: u64,
    pub zones_violated: u64,
    pub hand_offs: u64,
}

/// An item that lacks replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// The item's name.
    pub item: String,
    /// How many replicas it lacks.
    pub missing: u32,
    /// Why.
    pub reason: Reason,
    /// The same in words.
    pub words: String,
}

/// Where each member is listed, by its zone and its name.
type Members<'a> = BTreeMap<(&'a str, &'a str), usize>;

/// A case with numbers for names.
struct Indexed<'a> {
    problem: Problem,
    members: Vec<&'a CaseMember>,
    items: Vec<&'a CaseItem>,
    /// Assignments that cannot stay, because their item or their member is not there.
    orphans: u64,
    ignored: Vec<String>,
    /// The members that cannot leave yet, by number.
    stays: Vec<(u32, Stays)>,
}

impl Case {
    /// Plans.
    pub fn place(&self) -> Placement {
        let Indexed { mut problem, members, items, orphans, ignored, stays } = self.index();
        let solution = plan(&mut problem, &members);
        let mut desired = Vec::with_capacity(solution.desired.all().len());
        let mut unplaced = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let holders = solution.desired.of(number);
            let from = desired.len();
            desired.extend(holders.iter().map(|holder| {
                let member = members[holder.member() as usize];
                Desired {
                    item: item.id.clone(),
                    zone: member.zone.clone(),
                    member: member.id.clone(),
                    primary: holder.is_primary(),
                }
            }));
            desired[from..].sort();
            if let Some(reason) = Reason::of(&problem, &solution, number) {
                let placed = u32::try_from(holders.len()).unwrap_or(u32::MAX);
                let missing = item.replication.saturating_sub(placed);
                let words = reason.to_string();
                unplaced.push(Unplaced { item: item.id.clone(), missing, reason, words });
            }
        }
        let found = solution.certificate;
        let summary = Summary {
            placed: found.placed,
            unplaced: found.unplaced(),
            added: found.added,
            removed: found.removed + orphans,
            unchanged: found.unchanged,
            lower_bound: found.lower_bound,
            min_load: found.min_load,
            max_load: found.max_load,
            zones_violated: found.zones_violated,
            hand_offs: found.hand_offs,
        };
        let staying = stays.into_iter().map(|(number, reason)| {
            let CaseMember { zone, id, .. } = members[number as usize];
            let (zone, member) = (zone.clone(), id.clone());
            Staying { zone, member, reason, words: reason.to_string() }
        });
        Placement { desired, summary, unplaced, ignored, staying: staying.collect() }
    }

    /// The members by zone and name, and the items by name: where each is listed.
    fn names(&self, ignored: &mut Vec<String>) -> (Members<'_>, BTreeMap<&str, usize>) {
        let mut members = Members::new();
        for (at, member) in self.members.iter().enumerate() {
            let key = (member.zone.as_str(), member.id.as_str());
            if let Err(error) = check_name(key.0).and_then(|()| check_name(key.1)) {
                ignored.push(format!("member {}#{}: {error}", key.0, key.1));
            } else if *members.entry(key).or_insert(at) != at {
                ignored.push(format!("member {}#{} is listed twice", key.0, key.1));
            }
        }
        let mut items: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, item) in self.items.iter().enumerate() {
            if let Err(error) = check_name(&item.id) {
                ignored.push(format!("item {}: {error}", item.id));
            } else if *items.entry(item.id.as_str()).or_insert(at) != at {
                ignored.push(format!("item {} is listed twice", item.id));
            }
        }
        (members, items)
    }

    fn index(&self) -> Indexed<'_> {
        let mut ignored = Vec::new();
        let (members, items) = self.names(&mut ignored);
        let mut zones: BTreeMap<&str, u32> = members.keys().map(|(zone, _)| (*zone, 0)).collect();
        for (zone, number) in zones.values_mut().zip(0..) {
            *zone = number;
        }
        let mut problem = Problem::new(self.zone_rule, self.balance_slack);
        self.levels.iter().for_each(|rule| problem.add_level(*rule));
        problem.require_zones(self.zones_required);
        let mut places = Places::default();
        for (name, zone) in &zones {
            problem.place_zone(*zone, &places.of(name, self.levels.len()));
        }
        for seat in self.seats(&members, &zones, &mut ignored) {
            problem.add_member(seat);
        }
        let numbers: BTreeMap<(&str, &str), u32> = members.keys().copied().zip(0..).collect();
        let standings: BTreeMap<u32, Standing> = members
            .values()
            .zip(0..)
            .map(|(at, number)| (number, self.members[*at].standing))
            .collect();
        let mut held: BTreeMap<&str, Vec<Holder>> = BTreeMap::new();
        let mut orphans = 0;
        for assignment in self.ordered() {
            let member = numbers.get(&(assignment.zone.as_str(), assignment.member.as_str()));
            let (Some(member), true) = (member, items.contains_key(assignment.item.as_str()))
            else {
                orphans += 1;
                continue;
            };
            let holders = held.entry(&assignment.item).or_default();
            if holders.iter().any(|holder| holder.member() == *member) {
                orphans += 1;
                continue;
            }
            let mut holder = Holder::new(*member);
            let standing = standings.get(member).copied().unwrap_or_default();
            if assignment.slot == 0 && standing.keeps_primaries() {
                holder = holder.primary();
            }
            holders.push(if assignment.consistent { holder.consistent() } else { holder });
        }
        for at in items.values() {
            let item = &self.items[*at];
            problem.add_item(item.replication, held.get(item.id.as_str()).map_or(&[], |held| held));
            if let Some(allowed) = &item.zones {
                let allowed = allowed.iter().filter_map(|zone| zones.get(zone.as_str()).copied());
                problem.restrict(&allowed.collect::<Vec<u32>>());
            }
        }
        // The order in which they are listed is that of their age.
        let mut exiting: Vec<(usize, u32)> = members.values().copied().zip(0..).collect();
        exiting.retain(|(at, _)| self.members[*at].exiting);
        exiting.sort_unstable();
        let exiting: Vec<(u32, u32)> = exiting.into_iter().map(|(_, number)| (number, 0)).collect();
        let stays = retire(&mut problem, &exiting);
        Indexed {
            problem,
            members: members.values().map(|at| &self.members[*at]).collect(),
            items: items.values().map(|at| &self.items[*at]).collect(),
            orphans,
            ignored,
            stays,
        }
    }

    /// The assignments as their keys are ordered in a store.
    fn ordered(&self) -> Vec<&CaseAssignment> {
        let mut assignments: Vec<&CaseAssignment> = self.assignments.iter().collect();
        assignments.sort_by_key(|held| (&held.item, &held.zone, &held.member, held.slot));
        assignments
    }

    /// The seats of the members, in the order of their names.
    fn seats(
        &self,
        members: &Members<'_>,
        zones: &BTreeMap<&str, u32>,
        ignored: &mut Vec<String>,
    ) -> Vec<Seat> {
        let mut loads: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for held in &self.assignments {
            *loads.entry((held.zone.as_str(), held.member.as_str())).or_default() += 1;
        }
        let posts: Vec<Post> = members
            .iter()
            .map(|(place, at)| {
                let member = &self.members[*at];
                let limit = u32::try_from(member.limit).unwrap_or(u32::MAX);
                let primaries = member.standing.primaries();
                let post = Post { zone: zones[place.0], limit, share: member.share, primaries };
                if !post.has_sane_share() {
                    let (zone, member) = place;
                    ignored.push(format!("member {zone}#{member}: its share is no weight"));
                }
                post
            })
            .collect();
        let load = |place| loads.get(place).copied().unwrap_or(0);
        let seats = seats(&posts).into_iter().zip(members);
        seats.map(|(seat, (place, at))| self.members[*at].standing.of(seat, load(place))).collect()
    }
}

/// Plans. Who gets nothing new will not get back what the plan takes from it, so all others are planned for with as
/// much as it will hold then.
fn plan(problem: &mut Problem, members: &[&CaseMember]) -> Solution {
    loop {
        let solution = solve(problem);
        let mut loads = vec![0; members.len()];
        solution.desired.all().iter().for_each(|holder| loads[holder.member() as usize] += 1);
        let mut takes = false;
        for (number, (member, load)) in (0..).zip(members.iter().zip(loads)) {
            if let Some(seat) = problem.seat_mut(number)
                && member.standing.gets_nothing_new()
                && load < seat.limit
            {
                *seat = seat.limited(load);
                takes = true;
            }
        }
        if !takes {
            return solution;
        }
    }
}
