//! From what a policy wishes to what is published: what may never happen stands here.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    notice::{Cause, Notice, member_of},
    policy::{Policy, Seen, Wish, rank},
};
use crate::{
    allocator::{MemberKey, Standing},
    autopilot::{Config as Thresholds, Role, ServerState, State, Verdict},
};

/// How soon a policy is asked again at the earliest, however soon it wishes to be.
const SOONEST: Duration = Duration::from_millis(10);

/// A notice that stands, and for how long it has, as far as this leader has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stood {
    /// What is published.
    pub notice: Notice,
    /// For how long.
    pub stood: Duration,
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
            Self::TooMany { members, limits, of, allowed_percent } => {
                let names: Vec<String> = members.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "{} look bad at once, which is {limits} of {of} items' worth of limits, and health \
                     may lower {allowed_percent} %: nobody loses anything by it until fewer do",
                    names.join(", ")
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

/// What is to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The notices, by member.
    pub notices: BTreeMap<MemberKey, Notice>,
    /// Why health takes nothing from anybody now; `None`: it may.
    pub hold: Option<Hold>,
    /// After how long to decide again, though nothing happens meanwhile.
    pub again: Option<Duration>,
    /// Servers that cannot be members, and why.
    pub nameless: Vec<String>,
}

/// What is published of a server, and what a policy wishes instead.
type Asked = (Notice, Wish);

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
    for server in &facts.state.servers {
        if server.role == Role::Absent {
            continue;
        }
        let key = match member_of(&server.server) {
            Ok(key) => key,
            Err(error) => {
                decision.nameless.push(format!("server {}: {error}", server.server.id));
                continue;
            }
        };
        if let Some((notice, _)) = wishes.get(&key) {
            let (id, other) = (&server.server.id, &notice.server);
            decision
                .nameless
                .push(format!("server {id}: server {other} is the member {key} already"));
            continue;
        }
        let asked = ask(policy, facts, server, &key);
        wishes.insert(key, asked);
    }
    decision.hold = too_many(facts, &wishes);
    for (key, (stands, wish)) in wishes {
        let again = wish.again.map(|again| again.max(SOONEST));
        decision.again = decision.again.into_iter().chain(again).min();
        let notice = next(stands, wish, decision.hold.is_some());
        decision.notices.insert(key, notice);
    }
    decision
}

/// What a policy wishes of a server, by whose word it can be.
fn ask(policy: &dyn Policy, facts: &Facts<'_>, server: &ServerState, key: &MemberKey) -> Asked {
    let now = facts.stood.get(key);
    let (standing, cause) =
        now.map_or((Standing::Full, Cause::Health), |now| (now.notice.standing, now.notice.cause));
    let stands = Notice {
        server: server.server.id.clone(),
        verdict: server.health.verdict,
        standing,
        cause,
        why: now.map_or_else(String::new, |now| now.notice.why.clone()),
    };
    let Some(limit) = facts.limits.get(key).copied() else {
        // What it held it has lost; it finds its standing when it is back.
        let why = "its member is not there".to_owned();
        return (stands, Wish { standing, cause, why, again: None });
    };
    let mut wish = policy.wish(&Seen {
        thresholds: facts.thresholds,
        state: facts.state,
        server,
        limit,
        standing,
        cause,
        stood: now.map_or(Duration::ZERO, |now| now.stood),
    });
    let id = &server.server.id;
    let told = facts.state.intended(id).is_some() || facts.state.cordoned(id).is_some();
    let goes_on = cause == Cause::Person && rank(wish.standing) <= rank(standing);
    if !told && !goes_on {
        // Nobody has said so: what a policy takes on a person's word is bounded as all else is.
        wish.cause = Cause::Health;
    }
    (stands, wish)
}

/// Whether a wish takes something by health that is not taken yet.
fn worsens(stands: &Notice, wish: &Wish) -> bool {
    wish.cause == Cause::Health && rank(wish.standing) > rank(stands.standing)
}

/// Whether it may: health takes nothing from whoever is not known to be bad, whatever a policy wishes.
fn is_founded(stands: &Notice) -> bool {
    stands.verdict == Verdict::Unhealthy
}

/// What is published of a server next.
fn next(stands: Notice, wish: Wish, held: bool) -> Notice {
    if worsens(&stands, &wish) && (held || !is_founded(&stands)) {
        return stands;
    }
    let Wish { standing, cause, why, .. } = wish;
    Notice { standing, cause, why, ..stands }
}

/// Whether more lose something by their health than may: those that did already, and those that would.
fn too_many(facts: &Facts<'_>, wishes: &BTreeMap<MemberKey, Asked>) -> Option<Hold> {
    let limit = |key: &MemberKey| u64::from(facts.limits.get(key).copied().unwrap_or(0));
    let of: u64 = facts.limits.values().map(|limit| u64::from(*limit)).sum();
    let is_heard = |(stands, wish): &Asked| worsens(stands, wish) && is_founded(stands);
    let lowered = |(key, asked): (&MemberKey, &Asked)| {
        let (stands, wish) = asked;
        // Where its wish is not heard, what stands goes on.
        let goes_on = if worsens(stands, wish) {
            stands.cause == Cause::Health && rank(stands.standing) > (0, 0)
        } else {
            wish.cause == Cause::Health && rank(wish.standing) > (0, 0)
        };
        let there = facts.limits.contains_key(key);
        (there && (goes_on || is_heard(asked))).then(|| key.clone())
    };
    // A member may outlive its server's membership, with what was taken from it.
    let left = facts.stood.iter().filter(|(key, stood)| {
        let Notice { cause, standing, .. } = stood.notice;
        let taken = cause == Cause::Health && rank(standing) > (0, 0);
        taken && !wishes.contains_key(key) && facts.limits.contains_key(key)
    });
    let left = left.map(|(key, _)| key.clone());
    let members: Vec<MemberKey> = wishes.iter().filter_map(lowered).chain(left).collect();
    let limits: u64 = members.iter().map(limit).sum();
    let allowed_percent = facts.max_share_percent;
    let anybody = wishes.values().any(is_heard);
    let most = of * u64::from(allowed_percent);
    (anybody && limits * 100 > most).then_some(Hold::TooMany {
        members,
        limits,
        of,
        allowed_percent,
    })
}
