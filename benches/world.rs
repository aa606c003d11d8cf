//! Clusters to measure with: observations of any size, and a `Cluster` in memory.

#![allow(dead_code, reason = "each bench and test that includes this file uses its own part of it")]

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use raft_autopilot::autopilot::{
    Applied, Change, Cluster, ClusterError, Config, Leading, Ledger, LogId, Membership, NodeStatus,
    Observation, Outcome, Plan, Probe, Promoter, Record, Report, Role, Server, ServerId, Sighting,
    Sign, StandingSign, State, Status, Verdict, check, plan,
};

/// A heartbeat; rounds of a busy driver are this far apart.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(50);

/// The sizes that growth is measured over.
pub(crate) const SIZES: [usize; 6] = [5, 10, 30, 100, 300, 1000];

/// When the first round is: late enough that every grace can have passed.
const START: Duration = Duration::from_secs(7 * 24 * 3600);

/// What one round has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// Nothing: everybody votes and is well.
    Converged,
    /// One learner is stable and gets a vote.
    Promotion,
    /// One voter has been dead for longer than its grace and is removed.
    DeadVoter,
}

impl Case {
    pub(crate) const ALL: [Self; 3] = [Self::Converged, Self::Promotion, Self::DeadVoter];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Promotion => "one promotion",
            Self::DeadVoter => "one dead voter",
        }
    }

    /// How many changes each round plans, and checks.
    pub(crate) fn changes(self) -> usize {
        usize::from(self != Self::Converged)
    }
}

fn id(n: usize) -> ServerId {
    ServerId::from(format!("server-{n:04}"))
}

/// What a leader of `size` servers sees, with all three signals of each, and with records.
pub(crate) fn observation(size: usize, case: Case) -> Observation {
    let end = LogId { term: 3, index: 1_000_000 };
    let servers: Vec<Sighting> = (0..size)
        .map(|n| {
            let last = n + 1 == size;
            let dead = last && case == Case::DeadVoter;
            let silent = Duration::from_secs(3 * 24 * 3600);
            let status = Status {
                age: HEARTBEAT,
                boot: 7,
                disk: Some(7),
                last_log: end.index,
                acknowledged: end.index,
                applied: end.index,
                snapshot: None,
            };
            Sighting {
                server: Arc::new(Server::new(id(n), format!("10.0.{}.{}:7000", n / 250, n % 250))),
                role: if last && case == Case::Promotion { Role::Learner } else { Role::Voter },
                contact: Some(if dead { silent } else { HEARTBEAT }),
                matched: Some(end),
                probe: if dead { Probe::Silent(silent) } else { Probe::Answered(status) },
                discovery: Some(if dead { NodeStatus::Failed } else { NodeStatus::Alive }),
            }
        })
        .collect();
    Observation {
        at: START,
        local: id(0),
        leader: Some(id(0)),
        leading: Some(Leading {
            term: 3,
            since: Duration::from_secs(60),
            gap: Duration::ZERO,
            lease: true,
        }),
        membership: Membership { log_id: end, committed: true, joint: false },
        last_log: end,
        discovery: Some(HEARTBEAT),
        ledger: Some(Arc::new(ledger(&servers))),
        ledger_at: START,
        servers,
        pace: HEARTBEAT,
        feedback: None,
    }
}

/// The records that a leader of these servers has written, long ago.
fn ledger(servers: &[Sighting]) -> Ledger {
    let mut ledger = Ledger::default();
    let signs = [Sign::Contact, Sign::Probe].map(|sign| StandingSign { sign, age: Duration::ZERO });
    let reports = servers.iter().map(|sighting| {
        let dead = matches!(sighting.probe, Probe::Silent(_));
        Report {
            server: sighting.server.id.clone(),
            verdict: if dead { Verdict::Unhealthy } else { Verdict::Healthy },
            boot: Some(7),
            disk: Some(7),
            age: Duration::ZERO,
            signs: if dead { signs.to_vec() } else { Vec::new() },
            flaps: 0,
            leads: sighting.server.id == id(0),
        }
    });
    ledger.apply(1, Duration::from_secs(60), Record::Health(reports.collect()));
    ledger
}

/// The rounds of one leader, one after another, without a driver.
pub(crate) struct Rounds<P> {
    config: Config,
    promoter: P,
    seen: Observation,
    last: State,
}

impl<P: Promoter> Rounds<P> {
    /// After the first rounds, so that the next are like all that follow.
    pub(crate) fn new(size: usize, case: Case, promoter: P) -> Self {
        let config = Config::for_heartbeat(HEARTBEAT);
        let seen = observation(size, case);
        let last = State::assess(&config, None, &seen);
        let mut rounds = Self { config, promoter, seen, last };
        for _ in 0..3 {
            let (_, passed) = rounds.next();
            assert_eq!(passed, case.changes(), "every planned change passes the check");
        }
        rounds
    }

    /// One round: assess, plan, and check every change; how many passed. The old state goes.
    pub(crate) fn next(&mut self) -> (Plan, usize) {
        self.seen.at += HEARTBEAT;
        self.seen.ledger_at = self.seen.at;
        self.last = State::assess(&self.config, Some(&self.last), &self.seen);
        let plan = plan(&self.config, &self.last, &self.promoter);
        let passed = plan
            .changes
            .iter()
            .filter(|change| check(&self.config, change, &self.last).is_ok())
            .count();
        (plan, passed)
    }

    /// What the rounds are made of, to measure each part alone.
    pub(crate) fn parts(&mut self) -> (&Config, &P, &Observation, &State) {
        (&self.config, &self.promoter, &self.seen, &self.last)
    }
}

/// A converged cluster in memory: it never changes, and is observed by whoever holds it.
#[derive(Clone)]
pub(crate) struct Still {
    seen: Arc<Observation>,
    observed: Arc<AtomicU64>,
}

impl Still {
    /// One of `size` servers, seen by its leader or by a follower. It keeps no records.
    pub(crate) fn new(size: usize, leads: bool) -> Self {
        let mut seen = observation(size, Case::Converged);
        seen.ledger = None;
        seen.leading = seen.leading.filter(|_| leads);
        if !leads {
            seen.local = id(1);
        }
        Self { seen: Arc::new(seen), observed: Arc::default() }
    }

    /// How often it was observed.
    pub(crate) fn observed(&self) -> u64 {
        self.observed.load(Ordering::Relaxed)
    }
}

impl Cluster for Still {
    type Error = Infallible;

    async fn observe(&self, at: Duration) -> Observation {
        self.observed.fetch_add(1, Ordering::Relaxed);
        let mut seen = Observation::clone(&self.seen);
        seen.at = at;
        seen.ledger_at = at;
        seen.leading = seen.leading.map(|leading| Leading { since: Duration::ZERO, ..leading });
        seen
    }

    async fn changed(&self) {
        pending::<()>().await;
    }

    async fn apply(&self, change: Change) -> Applied<Infallible> {
        Err(ClusterError::Moved(change.step.to_string()))
    }

    async fn record(&self, _: Record) -> Result<Outcome, ClusterError<Infallible>> {
        Ok(Outcome::Recorded(1))
    }
}
