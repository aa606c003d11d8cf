//! From what a policy wishes to what is published: what may never happen stands here.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    notice::{Notice, member_of},
    policy::{Policy, Seen, Wish},
};
use crate::{
    allocator::{MemberKey, Standing},
    autopilot::{Config as Thresholds, ServerState, State, Verdict, said},
    duration::rounded,
};

/// How soon a policy is asked again at the earliest, however soon it wishes to be.
const SOONEST: Duration = Duration::from_millis(10);

/// A notice that stands, and for how long it has, as far as this leader has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stood {
    /// What is published.
    pub notice: Notice,
    /// For how long health has left what it leaves.
    pub by_health: Duration,
    /// For how long people have.
    pub by_person: Duration,
}

/// What is known when it is decided.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Autopilot's thresholds.
    pub thresholds: &'a Thresholds,
    /// What autopilot thinks of the cluster.
    pub state: &'a State,
    /// How many items each member may hold, by its own word.
    pub limits: &'a BTreeMap<MemberKey, u32>,
    /// What is published.
    pub stood: &'a BTreeMap<MemberKey, Stood>,
    /// How much of all limits health may lower at once, in percent.
    pub max_share_percent: u8,
}

/// Why nothing is taken from anybody by their health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// This node does not lead with a fresh lease: it judges nobody.
    NotLeading,
    /// An operator has paused autopilot, with this reason.
    Paused(String),
    /// Autopilot only looks on here.
    Observing,
    /// The last round of autopilot is too long ago.
    Stale {
        /// How long.
        #[serde(with = "crate::duration")]
        age: Duration,
        /// How long it may be.
        #[serde(with = "crate::duration")]
        allowed: Duration,
    },
    /// The policy has panicked when it was asked about these members.
    PolicyFailed {
        /// Which; what they may hold stays as it is.
        members: Vec<MemberKey>,
        /// Its words.
        words: String,
    },
    /// More look bad at once than health may take from: so many of so many items' worth of limits.
    TooMany {
        /// The members that look bad.
        members: Vec<MemberKey>,
        /// The sum of their limits.
        limits: u64,
        /// The sum of all limits.
        of: u64,
        /// How much of it may be lowered, in percent.
        allowed_percent: u8,
    },
    /// A leader of a later term has published: the store refuses what this one would.
    Superseded {
        /// The term in which this node leads.
        term: u64,
        /// The key of the term that was claimed last.
        key: String,
    },
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeading => {
                f.write_str("this node does not lead with a fresh lease, and judges nobody")
            }
            Self::Paused(reason) => write!(
                f,
                "autopilot is paused: {reason}; what members may hold stays as it is, and drains and \
                 cordons wait until it is resumed"
            ),
            Self::Observing => f.write_str(
                "autopilot only observes here, and nothing is published; start it without `observer`",
            ),
            Self::Stale { age, allowed } => write!(
                f,
                "the last round of autopilot was {} ago, and may be at most {}: what members may hold \
                 stays as it is until the host answers",
                rounded(*age),
                rounded(*allowed)
            ),
            Self::PolicyFailed { members, words } => write!(
                f,
                "the policy panicked, and what {} may hold stays as it is: mend the policy ({words})",
                names(members)
            ),
            Self::TooMany { members, limits, of, allowed_percent } => {
                let names = names(members);
                write!(
                    f,
                    "{names} look bad at once, which is {limits} of {of} items' worth of limits, and \
                     health may lower {allowed_percent} %: nobody loses anything by it until fewer do"
                )
            }
            Self::Superseded { term, key } => write!(
                f,
                "a leader of a later term than {term} has published, and nothing of this node's is taken: \
                 another one will lead, or this cluster is a new one over the store of an older one; then \
                 delete the key {key}"
            ),
        }
    }
}

fn names(members: &[MemberKey]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The notices, by member.
    pub notices: BTreeMap<MemberKey, Notice>,
    /// Members of servers that were removed, whose notices take nothing any more: to be deleted.
    pub forget: Vec<MemberKey>,
    /// Why health takes nothing from anybody now, or not from everybody; `None`: it may.
    pub hold: Option<Hold>,
    /// After how long to decide again, though nothing happens meanwhile.
    pub again: Option<Duration>,
    /// Servers that cannot be members, and why.
    pub nameless: Vec<String>,
    /// Servers whose votes count in another zone than their work.
    pub astray: Vec<String>,
}

/// What is published of a server, and what a policy wishes instead, by its health and by people.
struct Asked {
    stands: Notice,
    health: Wish,
    person: Wish,
    /// The words of a policy that panicked.
    failed: Option<String>,
}

/// Decides what is published of every server.
///
/// Only a leader with a fresh lease decides; everybody else leaves what stands. Who is not known to be
/// bad loses nothing, and never do more than a set share of all limits lose anything by their health at
/// once: then nobody does, and what was taken before stays taken. What people say is not bounded so.
pub fn decide(policy: &dyn Policy, facts: &Facts<'_>) -> Decision {
    let mut decision = Decision::default();
    if !facts.state.may_act() {
        decision.hold = Some(Hold::NotLeading);
        return decision;
    }
    let mut wishes: BTreeMap<MemberKey, Asked> = BTreeMap::new();
    for server in facts.state.members() {
        let id = &server.server.id;
        let key = match member_of(&server.server) {
            Ok(key) => key,
            Err(error) => {
                decision.nameless.push(format!("server {id}: {error}"));
                continue;
            }
        };
        if let Some(Asked { stands, .. }) = wishes.get(&key) {
            let other = &stands.server;
            decision
                .nameless
                .push(format!("server {id}: server {other} is the member {key} already"));
            continue;
        }
        decision.astray.extend(astray(facts.thresholds, server, &key));
        let asked = ask(policy, facts, server, &key);
        wishes.insert(key, asked);
    }
    let too_many = too_many(facts, &wishes);
    let failed = wishes.iter().filter(|(_, asked)| asked.failed.is_some());
    let members: Vec<MemberKey> = failed.map(|(key, _)| key.clone()).collect();
    let words = wishes.values().find_map(|asked| asked.failed.clone());
    let failed = words.map(|words| Hold::PolicyFailed { members, words });
    forget(facts, &wishes, &mut decision);
    for (key, asked) in wishes {
        let again = [&asked.health, &asked.person].map(|wish| wish.again);
        let again = again.into_iter().flatten().map(|again| again.max(SOONEST));
        decision.again = decision.again.into_iter().chain(again).min();
        decision.notices.insert(key, next(asked, too_many.is_some()));
    }
    decision.hold = too_many.or(failed);
    decision
}

/// In words, where a server's votes are counted in another zone than its work.
fn astray(thresholds: &Thresholds, server: &ServerState, key: &MemberKey) -> Option<String> {
    let tag = thresholds.redundancy_zone_tag.as_str();
    let zone = server.tag(tag).filter(|zone| *zone != &*key.zone)?;
    let id = &server.server.id;
    Some(format!(
        "server {id} votes in zone {zone}, by its tag `{tag}` (redundancy_zone_tag), and works in zone \
         {}: give both the same, or items and votes are not spread alike",
        key.zone
    ))
}

/// What a policy wishes of a server.
fn ask(policy: &dyn Policy, facts: &Facts<'_>, server: &ServerState, key: &MemberKey) -> Asked {
    let (id, verdict) = (&server.server.id, server.health.verdict);
    let now = facts.stood.get(key);
    let stands = match now {
        Some(now) => Notice { server: id.clone(), verdict, ..now.notice.clone() },
        None => Notice::full(id.clone(), verdict),
    };
    let stay = |standing, why: &str| Wish { standing, why: why.to_owned(), again: None };
    let stay = |why: &str| (stay(stands.by_health, why), stay(stands.by_person, why));
    let Some(limit) = facts.limits.get(key).copied() else {
        // What it held it has lost; it finds its standing when it is back.
        let (health, person) = stay("its member is not there");
        return Asked { stands, health, person, failed: None };
    };
    let seen = |standing, stood| {
        let Facts { thresholds, state, .. } = *facts;
        Seen { thresholds, state, server, limit, standing, stood }
    };
    let (by_health, by_person) = now.map(|now| (now.by_health, now.by_person)).unwrap_or_default();
    let told = facts.state.intended(id).is_some() || facts.state.cordoned(id).is_some();
    let asked = catch_unwind(AssertUnwindSafe(|| {
        let health = policy.wish(&seen(stands.by_health, by_health));
        let person = if told || stands.by_person != Standing::Full {
            policy.heed(&seen(stands.by_person, by_person))
        } else {
            Wish { standing: Standing::Full, why: String::new(), again: None }
        };
        (health, person)
    }));
    match asked {
        Ok((health, mut person)) => {
            if !told && person.standing.rank() > stands.by_person.rank() {
                // Nobody has said so.
                person.standing = stands.by_person;
            }
            Asked { stands, health, person, failed: None }
        }
        Err(words) => {
            let (health, person) = stay(&stands.why);
            Asked { stands, health, person, failed: Some(said(&*words)) }
        }
    }
}

impl Asked {
    /// Whether health would take something that is not taken yet.
    fn worsens(&self) -> bool {
        self.health.standing.rank() > self.stands.by_health.rank()
    }

    /// Whether it may: health takes nothing from whoever is not known to be bad, whatever a policy
    /// wishes.
    fn is_heard(&self) -> bool {
        self.worsens() && self.stands.verdict == Verdict::Unhealthy
    }

    /// Whether what health left stays as it is, where all have to hold still or not.
    fn is_kept(&self, held: bool) -> bool {
        self.worsens() && (held || !self.is_heard())
    }

    /// What health leaves next.
    fn by_health(&self, held: bool) -> Standing {
        if self.is_kept(held) { self.stands.by_health } else { self.health.standing }
    }
}

/// What is published of a server next.
fn next(asked: Asked, held: bool) -> Notice {
    let (kept, by_health) = (asked.is_kept(held), asked.by_health(held));
    let Asked { stands, health, person, .. } = asked;
    if kept && person.standing == stands.by_person {
        return stands;
    }
    stands.leaving((by_health, &health.why), (person.standing, &person.why))
}

/// Whether health takes anything from whoever it leaves this.
fn is_lowered(by_health: Standing) -> bool {
    by_health.rank() > Standing::Full.rank()
}

/// Whether more lose something by their health than may: those that did already, and those that would,
/// whatever people say of them.
fn too_many(facts: &Facts<'_>, wishes: &BTreeMap<MemberKey, Asked>) -> Option<Hold> {
    let limit = |key: &MemberKey| u64::from(facts.limits.get(key).copied().unwrap_or(0));
    let of: u64 = facts.limits.values().map(|limit| u64::from(*limit)).sum();
    let lowered = wishes.iter().filter(|(_, asked)| is_lowered(asked.by_health(false)));
    // A member may outlive its server's membership, with what was taken from it.
    let left = facts.stood.iter().filter(|(key, _)| !wishes.contains_key(key));
    let left = left.filter(|(_, stood)| is_lowered(stood.notice.by_health));
    let members = lowered.map(|(key, _)| key).chain(left.map(|(key, _)| key));
    let members: Vec<MemberKey> =
        members.filter(|key| facts.limits.contains_key(*key)).cloned().collect();
    let limits: u64 = members.iter().map(limit).sum();
    let allowed_percent = facts.max_share_percent;
    let anybody = wishes.values().any(Asked::is_heard);
    let most = of * u64::from(allowed_percent);
    (anybody && limits * 100 > most).then_some(Hold::TooMany {
        members,
        limits,
        of,
        allowed_percent,
    })
}

/// What becomes of the notices of servers that were removed, and whose members have ended: first they
/// take nothing any more, so that nobody remembers that they did, and then they go.
fn forget(facts: &Facts<'_>, wishes: &BTreeMap<MemberKey, Asked>, decision: &mut Decision) {
    let gone = facts.stood.iter();
    let gone =
        gone.filter(|(key, _)| !wishes.contains_key(*key) && !facts.limits.contains_key(*key));
    for (key, Stood { notice, .. }) in gone {
        let nothing = (Standing::Full, "its server was removed");
        if notice.standing == Standing::Full {
            decision.forget.push(key.clone());
        } else {
            decision.notices.insert(key.clone(), notice.clone().leaving(nothing, nothing));
        }
    }
}
