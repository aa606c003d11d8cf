//! Every small cluster: what a server may be and how, and the observation that shows it.

use std::{collections::BTreeMap, sync::Arc};

use raft_autopilot::autopilot::{
    Config, Cordon, Intent, Ledger, Observation, Role, ServerId, ServerRecord, Sighting, State,
    Step,
};

use crate::support::World;

/// How a server is, in words and as the facts that an oracle judges by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Is {
    Well,
    Young,
    Cordoned,
    Doubtful,
    Trailing,
    JustLost,
    LostByOneSign,
    Lost,
    Dead,
    LongDead,
    Wiped,
    Left,
    Rebooting,
    Draining,
}

pub(crate) const ALL: &[Is] = &[
    Is::Well,
    Is::Young,
    Is::Cordoned,
    Is::Doubtful,
    Is::Trailing,
    Is::JustLost,
    Is::LostByOneSign,
    Is::Lost,
    Is::Dead,
    Is::LongDead,
    Is::Wiped,
    Is::Left,
    Is::Rebooting,
    Is::Draining,
];

const SECOND: u64 = 1;
const HOUR: u64 = 3_600;

/// What is true of a server, told apart from what autopilot makes of it.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts are true or not")]
pub(crate) struct Facts {
    pub(crate) live: bool,
    pub(crate) healthy: bool,
    pub(crate) unknown: bool,
    pub(crate) may_gain: bool,
    pub(crate) stable: bool,
    /// Somebody has said that it restarts.
    pub(crate) restarts: bool,
    /// Somebody has said that it should not lead.
    pub(crate) drains: bool,
    /// Ages of the signs of death, in seconds.
    pub(crate) signs: &'static [u64],
    /// The grace for the cause, in seconds.
    pub(crate) grace: u64,
}

impl Is {
    fn words(self) -> &'static str {
        match self {
            Self::Well => "alive",
            Self::Young => "alive healthy_for=9s",
            Self::Cordoned => "alive cordoned",
            Self::Doubtful => "alive contact=never",
            Self::Trailing => "alive matched=10",
            Self::JustLost => "alive lost=1s",
            Self::LostByOneSign => "alive lost=100h",
            Self::Lost => "alive lost=11s silent=11s",
            Self::Dead => "alive lost=25h silent=25h",
            Self::LongDead => "alive lost=50h silent=50h",
            Self::Wiped => "alive wiped=1m",
            Self::Left => "lost=11s left=11s",
            Self::Rebooting => "alive lost=50h silent=50h intent=reboot",
            Self::Draining => "alive intent=drain",
        }
    }

    pub(crate) fn facts(self) -> Facts {
        let well = Facts {
            live: true,
            healthy: true,
            unknown: false,
            may_gain: true,
            stable: true,
            restarts: false,
            drains: false,
            signs: &[],
            grace: 24 * HOUR,
        };
        let sick = Facts { healthy: false, may_gain: false, stable: false, ..well };
        let gone = Facts { live: false, ..sick };
        match self {
            Self::Well => well,
            Self::Young => Facts { stable: false, ..well },
            Self::Cordoned => Facts { may_gain: false, ..well },
            Self::Doubtful => Facts { unknown: true, ..gone },
            Self::Trailing => sick,
            Self::JustLost => Facts { signs: &[SECOND], ..gone },
            Self::LostByOneSign => Facts { signs: &[100 * HOUR], ..gone },
            Self::Lost => Facts { signs: &[11, 11], ..gone },
            Self::Dead => Facts { signs: &[25 * HOUR, 25 * HOUR], ..gone },
            Self::LongDead => Facts { signs: &[50 * HOUR, 50 * HOUR], ..gone },
            Self::Wiped => Facts { signs: &[60], ..gone },
            Self::Left => Facts { signs: &[11, 11], grace: 10, ..gone },
            Self::Rebooting => Facts { restarts: true, ..Self::LongDead.facts() },
            Self::Draining => Facts { drains: true, ..well },
        }
    }
}

/// One cluster: its members by number, and who of them leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) members: BTreeMap<u8, (Role, Is)>,
    pub(crate) leader: u8,
    pub(crate) min_quorum: u32,
    pub(crate) min_margin: u32,
}

impl Case {
    pub(crate) fn number(id: &ServerId) -> u8 {
        id.as_str().parse().unwrap()
    }

    /// What stands after a step that a host has done.
    pub(crate) fn after(&self, step: &Step) -> Self {
        let mut case = self.clone();
        let mut set = |ids: &[ServerId], role| {
            for id in ids {
                case.members.get_mut(&Self::number(id)).unwrap().0 = role;
            }
        };
        match step {
            Step::Votes { promote, demote } => {
                set(promote, Role::Voter);
                set(demote, Role::Learner);
            }
            Step::Remove { servers, promote, .. } => {
                set(promote, Role::Voter);
                for id in servers {
                    case.members.remove(&Self::number(id));
                }
            }
            Step::Transfer { to } => case.leader = Self::number(to),
            Step::FinishJoint => {
                for (role, _) in case.members.values_mut() {
                    *role = match *role {
                        Role::Incoming => Role::Voter,
                        Role::Outgoing => Role::Learner,
                        other => other,
                    };
                }
            }
            Step::Add(_) | Step::Readdress { .. } => unreachable!("nobody orders it here"),
        }
        case
    }
}

type Parts = (Sighting, ServerRecord, Option<Cordon>, Option<Intent>);

/// One moment of a cluster, as it is seen.
pub(crate) struct Scene {
    pub(crate) config: Config,
    pub(crate) seen: Observation,
}

impl Scene {
    pub(crate) fn state(&self) -> State {
        State::assess(&self.config, None, &self.seen)
    }
}

/// Makes scenes of cases; the parts are read from text once.
pub(crate) struct Maker {
    parts: BTreeMap<(u8, Is), Parts>,
    config: Config,
    empty: Observation,
}

impl Maker {
    pub(crate) fn new() -> Self {
        let mut parts = BTreeMap::new();
        for id in 1..=5_u8 {
            for is in ALL {
                let mut world = World::of(&format!("{id} {}", is.words()));
                let ledger = world.ledger.take().unwrap();
                let name = id.to_string();
                let record = ledger.servers[name.as_str()].clone();
                let cordon = ledger.cordons.get(name.as_str()).cloned();
                let intent = ledger.intents.get(name.as_str()).cloned();
                let sighting = world.seen.servers.remove(0);
                parts.insert((id, *is), (sighting, record, cordon, intent));
            }
        }
        let World { config, seen: mut empty, .. } = World::of("1 leader alive");
        empty.servers.clear();
        Self { parts, config, empty }
    }

    pub(crate) fn scene(&self, case: &Case) -> Scene {
        let (min_quorum, min_margin) = (case.min_quorum, case.min_margin);
        let config = Config { min_quorum, min_margin, ..self.config.clone() };
        let (mut seen, mut ledger) = (self.empty.clone(), Ledger::default());
        for (id, (role, is)) in &case.members {
            let (sighting, record, cordon, intent) = &self.parts[&(*id, *is)];
            let server = sighting.server.id.clone();
            if *id == case.leader {
                seen.local = server.clone();
                seen.leader = Some(server.clone());
            }
            seen.servers.push(Sighting { role: *role, ..sighting.clone() });
            ledger.servers.insert(server.clone(), record.clone());
            if let Some(intent) = intent {
                ledger.intents.insert(server.clone(), intent.clone());
            }
            if let Some(cordon) = cordon {
                ledger.cordons.insert(server, cordon.clone());
            }
            seen.membership.joint |= matches!(role, Role::Incoming | Role::Outgoing);
        }
        seen.ledger = Some(Arc::new(ledger));
        Scene { config, seen }
    }
}

/// Which place the leader has, which way round the others stand, and the settings.
#[derive(Clone, Copy)]
struct Deal {
    place: u8,
    reversed: bool,
    min_quorum: u32,
    min_margin: u32,
}

impl Deal {
    /// One of them, in turn with the count.
    fn turn(size: u8, count: usize) -> Self {
        let turn = u8::try_from(count % 60).unwrap();
        Self {
            place: turn % size,
            reversed: turn % 2 == 1,
            min_quorum: [0, 0, 3, 1][usize::from(turn / 2 % 4)],
            min_margin: u32::from(turn % 3 == 2),
        }
    }

    fn case(self, mut members: Vec<(Role, Is)>, leading: (Role, Is)) -> Case {
        if self.reversed {
            members.reverse();
        }
        members.insert(usize::from(self.place), leading);
        let Self { min_quorum, min_margin, .. } = self;
        Case {
            members: (1..).zip(members).collect(),
            leader: self.place + 1,
            min_quorum,
            min_margin,
        }
    }
}

/// All of them.
fn deals(size: u8) -> impl Iterator<Item = Deal> {
    let settings = [0, 1, 3].into_iter().flat_map(|quorum| [(quorum, 0), (quorum, 1)]);
    settings.flat_map(move |(min_quorum, min_margin)| {
        let places = (0..size).flat_map(|place| [(place, false), (place, true)]);
        places.map(move |(place, reversed)| Deal { place, reversed, min_quorum, min_margin })
    })
}

/// Every cluster of `size` members: each way to give the others a role and a state, and each way
/// for the leader to be. The rest turns with the count; in a `whole` walk clusters of up to three
/// have each of every leader's place, floor and margin.
pub(crate) fn cases(
    size: u8,
    states: &[Is],
    roles: &[Role],
    leaders: &'static [(Role, Is)],
    whole: bool,
) -> impl Iterator<Item = Case> + use<> {
    let kinds: Vec<(Role, Is)> =
        roles.iter().flat_map(|role| states.iter().map(move |is| (*role, *is))).collect();
    let every = whole && size <= 3;
    let choices = choices(kinds.len(), usize::from(size) - 1);
    let led = choices.flat_map(move |choice| {
        let members: Vec<(Role, Is)> = choice.iter().map(|kind| kinds[*kind]).collect();
        leaders.iter().map(move |leading| (members.clone(), *leading))
    });
    led.enumerate().flat_map(move |(count, (members, leading))| {
        let turn = (!every).then(|| Deal::turn(size, count));
        let all = every.then(|| deals(size)).into_iter().flatten();
        turn.into_iter().chain(all).map(move |deal| deal.case(members.clone(), leading))
    })
}

/// Every choice of `many` among `kinds`, with repetition and without order.
fn choices(kinds: usize, many: usize) -> impl Iterator<Item = Vec<usize>> {
    std::iter::successors(Some(vec![0; many]), move |choice: &Vec<usize>| {
        let last = choice.iter().rposition(|kind| kind + 1 < kinds)?;
        let mut next = choice.clone();
        next[last..].fill(choice[last] + 1);
        Some(next)
    })
}
