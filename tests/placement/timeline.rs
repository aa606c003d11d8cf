//! A cluster over time, and what placement publishes of its servers.

use std::{collections::BTreeMap, time::Duration};

use raft_autopilot::{
    allocator::{MemberKey, Standing},
    autopilot::{Config as Thresholds, IntentKind, Promoter, Record, Role, Server, State, Wishes},
    placement::{Cause, Config, Decision, Facts, Graded, Hold, Notice, Policy, Stood, decide},
    promoters::Stable,
    rehearse::World,
};

const STEP: Duration = Duration::from_millis(100);

/// A cluster of servers with a hundred items' worth of limit each.
pub(crate) struct Timeline {
    pub(crate) world: World,
    thresholds: Thresholds,
    policy: Box<dyn Policy>,
    pub(crate) config: Config,
    limits: BTreeMap<MemberKey, u32>,
    notices: BTreeMap<MemberKey, (Notice, Duration)>,
    pub(crate) hold: Option<Hold>,
    /// Every change of a standing: seconds since the start, server, standing.
    pub(crate) told: Vec<String>,
    begin: Duration,
}

fn key(id: &str) -> MemberKey {
    MemberKey::new("default", id)
}

impl Timeline {
    pub(crate) fn new(servers: usize) -> Self {
        let thresholds = Thresholds::default();
        let mut world = World::new(thresholds.clone());
        for number in 1..=servers {
            let id = number.to_string();
            world.insert(Server::new(id.as_str(), format!("{id}:1")), Role::Voter);
        }
        // Long enough that everybody is stable.
        world.run(&Stable::new(), Duration::from_secs(60));
        let ids = (1..=servers).map(|number| (key(&number.to_string()), 100));
        let config = Config::default();
        Self {
            begin: world.at(),
            world,
            thresholds,
            policy: Box::new(Graded::new(config.clone()).unwrap()),
            config,
            limits: ids.collect(),
            notices: BTreeMap::new(),
            hold: None,
            told: Vec::new(),
        }
    }

    pub(crate) fn policy(&mut self, policy: impl Policy) {
        self.policy = Box::new(policy);
    }

    /// Lets so many seconds pass.
    pub(crate) fn pass(&mut self, seconds: u64) {
        let end = self.world.at() + Duration::from_secs(seconds);
        while self.world.at() < end {
            self.world.pass(STEP);
            self.look();
        }
    }

    pub(crate) fn look(&mut self) {
        let state = self.world.assess();
        // The ledger outlives the leader, as it does in a database.
        let (_, _) = self.world.round(&Still);
        let at = state.at;
        let decision = self.decided(&state);
        self.hold = decision.hold;
        for (key, notice) in decision.notices {
            let before = self.notices.get(&key).map(|(notice, _)| notice.standing);
            if before != Some(notice.standing) {
                if before.is_some() || notice.standing != Standing::Full {
                    let at = at.saturating_sub(self.begin).as_secs_f64();
                    self.told.push(format!("{at:.0}s {}: {:?}", key.member, notice.standing));
                }
                self.notices.insert(key, (notice, at));
            } else if let Some((old, _)) = self.notices.get_mut(&key) {
                *old = notice;
            }
        }
    }

    /// What is decided, if this is thought of the cluster.
    pub(crate) fn decided(&self, state: &State) -> Decision {
        let stood = self.notices.iter().map(|(key, (notice, since))| {
            let stood = state.at.saturating_sub(*since);
            (key.clone(), Stood { notice: notice.clone(), stood })
        });
        let facts = Facts {
            thresholds: &self.thresholds,
            state,
            limits: &self.limits,
            stood: &stood.collect(),
            max_share_percent: self.config.max_share_percent,
        };
        decide(&*self.policy, &facts)
    }

    /// Who would not be full, if this were thought of the cluster.
    pub(crate) fn decide(&self, state: &State) -> Vec<String> {
        let notices = self.decided(state).notices;
        let lowered = notices.iter().filter(|(_, notice)| notice.standing != Standing::Full);
        lowered.map(|(key, notice)| format!("{}: {:?}", key.member, notice.standing)).collect()
    }

    pub(crate) fn standing(&self, id: &str) -> Standing {
        self.notices[&key(id)].0.standing
    }

    pub(crate) fn why(&self, id: &str) -> &str {
        &self.notices[&key(id)].0.why
    }

    pub(crate) fn intend(&mut self, id: &str, kind: IntentKind, seconds: u64) {
        let (server, ttl) = (id.into(), Duration::from_secs(seconds));
        self.world.record(Record::Intend { server, kind, ttl });
    }

    pub(crate) fn cause(&self, id: &str) -> Cause {
        self.notices[&key(id)].0.cause
    }

    /// How many items a member may hold.
    pub(crate) fn limit(&mut self, id: &str, items: u32) {
        self.limits.insert(key(id), items);
    }

    /// A member ends.
    pub(crate) fn forget(&mut self, id: &str) {
        self.limits.remove(&key(id));
    }

    /// What was told since the last time.
    pub(crate) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

/// A promoter that wishes nothing.
#[derive(Debug)]
struct Still;

impl Promoter for Still {
    fn wishes(&self, _: &Thresholds, _: &State) -> Wishes {
        Wishes::default()
    }
}
