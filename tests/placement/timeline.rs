//! A cluster over time, and what placement publishes of its servers.

use std::{collections::BTreeMap, time::Duration};

use raft_autopilot::{
    allocator::{MemberKey, Standing},
    autopilot::{Config as Thresholds, IntentKind, Promoter, Record, Role, Server, State, Wishes},
    placement::{Cause, Decision, Facts, Graded, Hold, Notice, Policy, Stood, decide},
    promoters::Stable,
    rehearse::World,
};

const STEP: Duration = Duration::from_millis(100);

/// A cluster of servers with a hundred items' worth of limit each.
pub(crate) struct Timeline {
    pub(crate) world: World,
    pub(crate) thresholds: Thresholds,
    policy: Box<dyn Policy>,
    pub(crate) max_share_percent: u8,
    limits: BTreeMap<MemberKey, u32>,
    notices: BTreeMap<MemberKey, Stands>,
    pub(crate) hold: Option<Hold>,
    /// Every change of a standing: seconds since the start, server, standing.
    pub(crate) told: Vec<String>,
    begin: Duration,
}

/// What is published, and since when health, and people, leave what they do.
struct Stands {
    notice: Notice,
    by_health: Duration,
    by_person: Duration,
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
        Self {
            begin: world.at(),
            world,
            thresholds,
            policy: Box::new(Graded::default()),
            max_share_percent: 34,
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
        for key in decision.forget {
            self.notices.remove(&key);
        }
        for (key, notice) in decision.notices {
            let before = self.notices.remove(&key);
            let stood = before.as_ref().map(|before| before.notice.standing);
            if stood != Some(notice.standing)
                && (stood.is_some() || notice.standing != Standing::Full)
            {
                let at = at.saturating_sub(self.begin).as_secs_f64();
                self.told.push(format!("{at:.0}s {}: {:?}", key.member, notice.standing));
            }
            let since = |part: fn(&Notice) -> Standing, since: fn(&Stands) -> Duration| {
                let before = before.as_ref();
                before.filter(|old| part(&old.notice) == part(&notice)).map_or(at, since)
            };
            let by_health = since(|notice| notice.by_health, |old| old.by_health);
            let by_person = since(|notice| notice.by_person, |old| old.by_person);
            self.notices.insert(key, Stands { notice, by_health, by_person });
        }
    }

    /// What is decided, if this is thought of the cluster.
    pub(crate) fn decided(&self, state: &State) -> Decision {
        let stood = self.notices.iter().map(|(key, stands)| {
            let by_health = state.at.saturating_sub(stands.by_health);
            let by_person = state.at.saturating_sub(stands.by_person);
            (key.clone(), Stood { notice: stands.notice.clone(), by_health, by_person })
        });
        let facts = Facts {
            thresholds: &self.thresholds,
            state,
            limits: &self.limits,
            stood: &stood.collect(),
            max_share_percent: self.max_share_percent,
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
        self.notices[&key(id)].notice.standing
    }

    pub(crate) fn why(&self, id: &str) -> &str {
        &self.notices[&key(id)].notice.why
    }

    pub(crate) fn intend(&mut self, id: &str, kind: IntentKind, seconds: u64) {
        let (server, ttl) = (id.into(), Duration::from_secs(seconds));
        self.world.record(Record::Intend { server, kind, ttl });
    }

    pub(crate) fn cause(&self, id: &str) -> Cause {
        self.notices[&key(id)].notice.cause
    }

    /// Whose notices stand.
    pub(crate) fn members(&self) -> Vec<String> {
        self.notices.keys().map(|key| key.member.to_string()).collect()
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
