//! The examination of a promoter: every small cluster, random histories, and nonsense.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use proptest::{
    collection::vec,
    test_runner::{Config as Runs, RngSeed, TestCaseError, TestError, TestRunner},
};

use super::history::{Beginning, beginning, event, live, named};
use crate::{
    autopilot::{
        Config, Held, Observation, Origin, Plan, Promoter, Refusal, Removals, Role, Server,
        ServerId, State, Step, Why, said,
    },
    rehearse::World,
};

/// How long a cluster has to settle in, after the last thing that befell it.
const SETTLE: Duration = Duration::from_secs(45 * 60);

/// How long it is watched after that.
const QUIET: Duration = Duration::from_secs(15 * 60);

/// What is expected of every promoter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expectation {
    /// It does not panic, whatever state it is asked about.
    Survives,
    /// The same state has the same wishes.
    SameStateSameWishes,
    /// In a cluster that nothing befalls, no set of voters and leader comes back twice. (Once it
    /// may: who may vote changes while servers become stable.)
    DoesNotFlap,
    /// A cluster that nothing befalls comes to rest.
    Converges,
    /// What it wishes can be done some time: no wish is held for ever.
    WishesWhatCanBe,
    /// It gives votes to potential voters only: what it says of the type of a server that it
    /// promotes must not be that such servers never vote.
    KeepsItsWord,
}

impl Expectation {
    fn words(self) -> &'static str {
        match self {
            Self::Survives => "a promoter must not panic",
            Self::SameStateSameWishes => "the same state must have the same wishes",
            Self::DoesNotFlap => "votes and leadership must not go in a circle",
            Self::Converges => "a cluster that nothing befalls must come to rest",
            Self::WishesWhatCanBe => "no wish may be held for ever",
            Self::KeepsItsWord => "whoever is promoted must be a potential voter",
        }
    }
}

/// One expectation that is broken, and how.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub expectation: Expectation,
    /// The cluster, what befell it, and what came of it.
    pub story: String,
}

/// What an examination found; at most one finding in each of its parts.
#[derive(Clone)]
pub struct Broken {
    /// What is broken.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { expectation, story } in &self.findings {
            writeln!(f, "{}: {story}", expectation.words())?;
        }
        Ok(())
    }
}

/// As it is displayed, so that `unwrap` in a test tells the story.
impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Broken {}

/// An examination of a promoter.
///
/// - **Every small cluster**: up to four servers, each voting or not, up or down; alike, in zones,
///   on two versions, and both. Nothing befalls them: they must come to rest.
/// - **Random histories** of three to seven servers: failures, returns, cordons, announced
///   restarts, upgrades, transfers that fail. Then everybody is well, and the cluster must come to
///   rest. A history that breaks an expectation is shrunk, and told with its seed.
/// - **Nonsense**: states without servers, leader or lease, joint memberships, thresholds of zero
///   and without end. It must not panic.
///
/// Every wish passes the planner and the safety check as in the driver, so this is about policies
/// that are no use, not about unsafe ones: there are none.
///
/// ```
/// use raft_autopilot::{promoters::Stable, testing::Examination};
///
/// Examination::new().histories(8).of(&Stable::with_target(3)).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Examination {
    config: Config,
    histories: u32,
    seed: u64,
    dress: fn(&mut Server, usize),
}

impl Default for Examination {
    fn default() -> Self {
        Self { config: Config::default(), histories: 200, seed: 1, dress: |_, _| {} }
    }
}

impl Examination {
    /// 200 histories, from seed 1, with the default thresholds.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many random histories.
    #[must_use]
    pub fn histories(mut self, histories: u32) -> Self {
        self.histories = histories;
        self
    }

    /// Where chance begins; the same seed gives the same histories.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// With these thresholds.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Gives each server, by its number from 0, what the promoter looks at, such as tags.
    #[must_use]
    pub fn dressed(mut self, dress: fn(&mut Server, usize)) -> Self {
        self.dress = dress;
        self
    }

    /// Examines a promoter.
    ///
    /// # Errors
    /// What is broken, each with the smallest story found.
    pub fn of(&self, promoter: &dyn Promoter) -> Result<(), Broken> {
        let parts = [self.nonsense(promoter), self.small(promoter), self.random(promoter)];
        let findings: Vec<Finding> = parts.into_iter().filter_map(Result::err).collect();
        if findings.is_empty() { Ok(()) } else { Err(Broken { findings }) }
    }

    fn small(&self, promoter: &dyn Promoter) -> Result<(), Finding> {
        for flavour in 0..4_usize {
            for size in 1..=4_u32 {
                for choice in 0..4_usize.pow(size) {
                    let cluster = self.cluster(flavour, size as usize, choice);
                    guarded(&cluster, || {
                        let Some(world) = cluster.world(&self.config) else { return Ok(()) };
                        rests(promoter, world)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Each server takes two bits of `choice`: votes, and is up.
    fn cluster(&self, flavour: usize, size: usize, choice: usize) -> Beginning {
        let mut cluster = Beginning { servers: Vec::new(), down: Vec::new() };
        for i in 0..size {
            let bits = choice >> (2 * i);
            let mut server = named(i);
            if flavour & 1 != 0 {
                server.zone = Some(["x", "y", "z"][i % 3].to_owned());
            }
            if flavour & 2 != 0 {
                ["1.0", "2.0"][i % 2].clone_into(&mut server.version);
            }
            (self.dress)(&mut server, i);
            let role = if bits & 1 == 0 { Role::Voter } else { Role::Learner };
            cluster.servers.push((server, role));
            if bits & 2 != 0 {
                cluster.down.push(i);
            }
        }
        cluster
    }

    fn random(&self, promoter: &dyn Promoter) -> Result<(), Finding> {
        let runs = Runs {
            cases: self.histories,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(self.seed),
            ..Runs::default()
        };
        let histories = (beginning(self.dress), vec(event(), 0..40));
        let broken = |beginning: &Beginning, events: &[_]| {
            guarded(beginning, || {
                let Some(world) = live(&self.config, promoter, beginning, events) else {
                    return Ok(());
                };
                rests(promoter, world)
            })
        };
        let run = TestRunner::new(runs).run(&histories, |(beginning, events)| {
            broken(&beginning, &events).map_err(|found| TestCaseError::fail(found.story))
        });
        match run {
            Ok(()) => Ok(()),
            Err(TestError::Fail(reason, (beginning, events))) => {
                // Once more, for what exactly it was.
                let expectation = broken(&beginning, &events)
                    .err()
                    .map_or(Expectation::Survives, |f| f.expectation);
                let seed = self.seed;
                let story = format!("{reason}; after {events:?}; seed {seed}");
                Err(Finding { expectation, story })
            }
            Err(TestError::Abort(reason)) => {
                let story = format!("no histories could be made: {reason}");
                Err(Finding { expectation: Expectation::Survives, story })
            }
        }
    }

    fn nonsense(&self, promoter: &dyn Promoter) -> Result<(), Finding> {
        let whole = self.cluster(3, 4, 0b0000_0100);
        let Some(world) = whole.world(&self.config) else { return Ok(()) };
        let zero = Config {
            server_stabilization_time: Duration::ZERO,
            voter_replacement_grace: Duration::ZERO,
            max_trailing_logs: 0,
            ..self.config.clone()
        };
        let endless = Config {
            server_stabilization_time: Duration::MAX,
            voter_replacement_grace: Duration::MAX,
            min_quorum: u32::MAX,
            max_trailing_logs: u64::MAX,
            ..self.config.clone()
        };
        for config in [&self.config, &zero, &endless] {
            for seen in oddities(&world.observe()) {
                guarded(&whole, || {
                    let state = State::assess(config, None, &seen);
                    ask_everything(promoter, config, &state)
                })?;
            }
        }
        Ok(())
    }
}

/// Observations that no cluster should give.
fn oddities(seen: &Observation) -> Vec<Observation> {
    let with = |edit: fn(&mut Observation)| {
        let mut odd = seen.clone();
        edit(&mut odd);
        odd
    };
    vec![
        seen.clone(),
        with(|odd| odd.servers.clear()),
        with(|odd| odd.leader = None),
        with(|odd| odd.leader = Some("stranger".into())),
        with(|odd| odd.leading = None),
        with(|odd| odd.ledger = None),
        with(|odd| odd.at = Duration::ZERO),
        with(|odd| odd.at = Duration::MAX),
        with(|odd| odd.membership.committed = false),
        with(|odd| odd.servers.iter_mut().for_each(|s| s.role = Role::Absent)),
        with(|odd| odd.servers.iter_mut().for_each(|s| s.role = Role::Learner)),
        with(|odd| odd.servers.iter_mut().for_each(|s| (s.contact, s.matched) = (None, None))),
        with(|odd| {
            odd.membership.joint = true;
            let roles = [Role::Voter, Role::Incoming, Role::Outgoing, Role::Learner];
            odd.servers.iter_mut().zip(roles).for_each(|(server, role)| server.role = role);
        }),
        with(|odd| {
            for seen in &mut odd.servers {
                let server = Arc::make_mut(&mut seen.server);
                (server.version, server.zone) = ("latest".to_owned(), Some(String::new()));
            }
        }),
    ]
}

fn ask_everything(
    promoter: &dyn Promoter,
    config: &Config,
    state: &State,
) -> Result<(), (Expectation, String)> {
    same(promoter, config, state)?;
    let all: Vec<ServerId> = state.servers.iter().map(|s| s.server.id.clone()).collect();
    let dead = Removals { failed_voters: all.clone(), stale_learners: all, ..Removals::default() };
    let _ = promoter.keeps(config, state, &dead);
    let _ = promoter.keeps(config, state, &Removals::default());
    let _ = promoter.state_ext(config, state);
    for server in &state.servers {
        let _ = promoter.server_ext(config, state, server);
        let node_type = promoter.node_type(config, state, server);
        let _ = promoter.is_potential_voter(&node_type);
    }
    Ok(())
}

fn same(
    promoter: &dyn Promoter,
    config: &Config,
    state: &State,
) -> Result<(), (Expectation, String)> {
    let (one, other) = (promoter.wishes(config, state), promoter.wishes(config, state));
    if one == other {
        return Ok(());
    }
    Err((Expectation::SameStateSameWishes, format!("first {one:?}, then {other:?}")))
}

/// Runs one part of the examination; a panic is a finding.
fn guarded(
    cluster: &Beginning,
    part: impl FnOnce() -> Result<(), (Expectation, String)>,
) -> Result<(), Finding> {
    let done = catch_unwind(AssertUnwindSafe(part))
        .unwrap_or_else(|panic| Err((Expectation::Survives, said(&*panic))));
    done.map_err(|(expectation, story)| Finding {
        expectation,
        story: format!("{cluster:?}: {story}"),
    })
}

/// Whether a cluster that nothing befalls comes to rest, with nothing held for ever.
fn rests(promoter: &dyn Promoter, mut world: World) -> Result<(), (Expectation, String)> {
    let place = |world: &World| (world.voters(), world.leader().cloned());
    let (begin, mut places) = (world.at(), BTreeMap::from([(place(&world), 1)]));
    let settled = begin.saturating_add(SETTLE);
    let mut steps: Vec<Step> = Vec::new();
    let mut always: Option<Vec<Held>> = None;
    while world.at() < settled.saturating_add(QUIET) {
        let (plan, step) = world.round(promoter);
        let late = world.at() > settled;
        if late && step.is_none() {
            let stuck = stuck(&plan);
            always = Some(always.map_or(stuck.clone(), |mut held| {
                held.retain(|held| stuck.iter().any(|now| now.step == held.step));
                held
            }));
        }
        if let Some(step) = &step {
            steps.push(step.clone());
            keeps_its_word(promoter, &mut world, step)?;
            let visits = places.entry(place(&world)).or_insert(0);
            *visits += usize::from(moves(step));
            if *visits > 2 {
                return Err((Expectation::DoesNotFlap, told(&steps)));
            }
            if late {
                return Err((Expectation::Converges, told(&steps)));
            }
        }
        world.wait(&plan, step.is_some(), settled.saturating_add(QUIET));
    }
    let state = world.assess();
    same(promoter, &world.config, &state)?;
    match always.unwrap_or_default().first() {
        None => Ok(()),
        Some(held) => {
            let story = format!("{}: {} (after {})", held.step, held.why, told(&steps));
            Err((Expectation::WishesWhatCanBe, story))
        }
    }
}

/// Whether those who have got a vote are such as may have one.
fn keeps_its_word(
    promoter: &dyn Promoter,
    world: &mut World,
    step: &Step,
) -> Result<(), (Expectation, String)> {
    let Step::Votes { promote, .. } = step else { return Ok(()) };
    let state = world.assess();
    for server in promote.iter().filter_map(|id| state.server(id)) {
        let node_type = promoter.node_type(&world.config, &state, server);
        if !promoter.is_potential_voter(&node_type) {
            let story = format!("{step}: {} is a {node_type}", server.server.id);
            return Err((Expectation::KeepsItsWord, story));
        }
    }
    Ok(())
}

/// Whether a step moves votes or leadership.
fn moves(step: &Step) -> bool {
    matches!(step, Step::Votes { .. } | Step::Transfer { .. })
}

fn told(steps: &[Step]) -> String {
    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
    if steps.is_empty() { "no step".to_owned() } else { steps.join("; then ") }
}

/// What the promoter wishes and no time will bring. That a sick server keeps its vote for a time
/// is not its fault.
fn stuck(plan: &Plan) -> Vec<Held> {
    let risky = |why: &Why| {
        matches!(
            why,
            Why::Refused(
                Refusal::GraceRuns { .. }
                    | Refusal::TooFewSigns { .. }
                    | Refusal::VanishedTogether { .. }
                    | Refusal::NotKnown { .. }
                    | Refusal::NoQuorum { .. }
                    | Refusal::Margin { .. }
                    | Refusal::NotLeading
            ) | Why::BackingOff { .. }
                | Why::Intended(_)
        )
    };
    let wished = plan.held.iter().filter(|h| h.origin == Origin::Promoter && !risky(&h.why));
    wished.cloned().collect()
}
