//! The promises of a host's port as one suite that any implementation of `Cluster` can be held to.

use std::{fmt, future::Future, time::Duration};

use crate::{
    autopilot::{
        Change, Cluster, ClusterError, Fence, LogId, Observation, Origin, Outcome, Record, Role,
        Server, ServerId, Step,
    },
    runtime::Runtime,
};

/// How long a host may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the suite looks.
const LOOK: Duration = Duration::from_millis(10);

/// The host under test: three voters, one of which leads, and servers that can be started beside
/// them. Nothing but the suite changes the membership: no autopilot steers it.
pub trait Rig: Send + Sync {
    /// The port under test.
    type Cluster: Cluster;

    /// The port of the node that leads now; waits until one does with a fresh lease.
    fn leader(&self) -> impl Future<Output = Self::Cluster> + Send;

    /// The port of a voter that does not lead.
    fn follower(&self) -> impl Future<Output = Self::Cluster> + Send;

    /// Starts a server that is empty and no member, and says how it is to be added. Called twice,
    /// for two servers.
    fn spare(&self) -> impl Future<Output = Server> + Send;
}

/// A promise that is broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenPromise {
    /// The promise.
    pub promise: &'static str,
    /// What was found instead.
    pub found: String,
}

impl fmt::Display for BrokenPromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}", self.promise, self.found)
    }
}

impl std::error::Error for BrokenPromise {}

type Kept = Result<(), BrokenPromise>;

/// Holds a host to every promise of [`Cluster`], in order.
///
/// # Errors
/// The first promise that is broken. What was changed until then stays.
pub async fn cluster<G: Rig, R: Runtime>(rig: &G, runtime: &R) -> Kept {
    let suite = Suite { rig, runtime };
    suite.observes().await?;
    suite.fences().await?;
    let spare = suite.adds().await?;
    suite.swaps(&spare).await?;
    suite.records().await?;
    suite.transfers(&spare).await?;
    suite.removes().await
}

struct Suite<'a, G, R> {
    rig: &'a G,
    runtime: &'a R,
}

fn keeps(promise: &'static str, kept: bool, found: &dyn fmt::Debug) -> Kept {
    let found = || format!("{found:?}");
    if kept { Ok(()) } else { Err(BrokenPromise { promise, found: found() }) }
}

fn role(seen: &Observation, id: &ServerId) -> Option<Role> {
    seen.servers.iter().find(|s| s.server.id == *id).map(|s| s.role)
}

fn voters(seen: &Observation) -> Vec<ServerId> {
    let voters = seen.servers.iter().filter(|s| s.role.votes());
    voters.map(|s| s.server.id.clone()).collect()
}

fn fence(seen: &Observation) -> Fence {
    let term = seen.leading.map_or(0, |leading| leading.term);
    Fence { term, leader: seen.local.clone(), membership: seen.membership.log_id }
}

fn change(step: Step, fence: Fence) -> Change {
    Change { step, fence, origin: Origin::Promoter }
}

impl<G: Rig, R: Runtime> Suite<'_, G, R> {
    async fn see(&self, cluster: &G::Cluster) -> Observation {
        cluster.observe(self.runtime.now()).await
    }

    /// Looks until something holds.
    async fn until(
        &self,
        cluster: &G::Cluster,
        promise: &'static str,
        holds: impl Fn(&Observation) -> bool,
    ) -> Result<Observation, BrokenPromise> {
        let end = self.runtime.now().saturating_add(PATIENCE);
        loop {
            let seen = self.see(cluster).await;
            if holds(&seen) {
                return Ok(seen);
            }
            keeps(promise, self.runtime.now() < end, &seen)?;
            self.runtime.sleep(LOOK).await;
        }
    }

    async fn settled(&self, cluster: &G::Cluster) -> Result<Observation, BrokenPromise> {
        let promise = "a membership is committed, and joint no longer than it has to be";
        self.until(cluster, promise, |seen| {
            seen.membership.committed && !seen.membership.joint && seen.leading.is_some()
        })
        .await
    }

    async fn observes(&self) -> Kept {
        let leader = self.rig.leader().await;
        self.settled(&leader).await?;
        let at = self.runtime.now();
        let seen = leader.observe(at).await;
        keeps("`at` comes back as it was given", seen.at == at, &seen.at)?;
        let sorted = seen.servers.windows(2).all(|two| two[0].server.id < two[1].server.id);
        keeps("servers are sorted by id, without duplicates", sorted, &seen.servers)?;
        keeps("three servers vote", voters(&seen).len() == 3, &seen.servers)?;
        let local = seen.leader.as_ref() == Some(&seen.local);
        keeps("a node that leads knows that it does", local, &seen.leader)?;
        keeps("the leader is a member", role(&seen, &seen.local) == Some(Role::Voter), &seen)?;
        let since = seen.leading.map(|leading| leading.since);
        keeps("a leadership began before now", since <= Some(seen.at), &seen.leading)?;
        let promise = "every voter that is up is in contact, with known progress";
        self.until(&leader, promise, |seen| {
            let others = seen.servers.iter().filter(|s| s.server.id != seen.local);
            others.clone().count() == 2
                && others.clone().all(|s| s.contact.is_some() && s.matched.is_some())
        })
        .await?;
        let leading = self.until(&leader, "a leader with a quorum has a fresh lease", |seen| {
            seen.leading.is_some_and(|leading| leading.lease)
        });
        let leading = leading.await?;
        let follower = self.rig.follower().await;
        let promise = "a node that does not lead says so, and who does";
        let seen = self.until(&follower, promise, |seen| {
            seen.leading.is_none() && seen.leader == leading.leader
        });
        let seen = seen.await?;
        keeps("all nodes see the same voters", voters(&seen) == voters(&leading), &seen.servers)
    }

    async fn fences(&self) -> Kept {
        let leader = self.rig.leader().await;
        let seen = self.settled(&leader).await?;
        let other = voters(&seen).into_iter().find(|id| *id != seen.local);
        let step = Step::Votes { promote: Vec::new(), demote: other.into_iter().collect() };
        let fresh = fence(&seen);
        let newer = LogId { term: fresh.term, index: fresh.membership.index + 1000 };
        let other_term = LogId { term: fresh.membership.term + 1, ..fresh.membership };
        let stale = [
            Fence { term: fresh.term + 1, ..fresh.clone() },
            Fence { membership: other_term, ..fresh.clone() },
            Fence { membership: newer, ..fresh.clone() },
        ];
        let promise = "a change whose fence does not hold is answered `Moved`";
        for stale in stale {
            let applied = leader.apply(change(step.clone(), stale)).await;
            keeps(promise, matches!(applied, Err(ClusterError::Moved(_))), &applied)?;
        }
        let follower = self.rig.follower().await;
        let applied = follower.apply(change(step, fresh)).await;
        let refused = matches!(applied, Err(ClusterError::Moved(_) | ClusterError::Refused(_)));
        keeps("a node that does not lead applies nothing", refused, &applied)?;
        let after = self.see(&leader).await;
        let same = after.membership == seen.membership && voters(&after) == voters(&seen);
        keeps("what is not applied leaves the membership as it was", same, &after.membership)
    }

    async fn adds(&self) -> Result<Server, BrokenPromise> {
        let leader = self.rig.leader().await;
        let spare = self.rig.spare().await;
        let seen = self.settled(&leader).await?;
        let step = Step::Add(spare.clone().into());
        let applied = leader.apply(change(step.clone(), fence(&seen))).await;
        keeps("a server is added", applied.is_ok(), &applied)?;
        let moved = async {
            leader.changed().await;
            true
        };
        let late = async {
            self.runtime.sleep(PATIENCE).await;
            false
        };
        let moved = first(moved, late).await;
        keeps("`changed` completes after the membership has changed", moved, &moved)?;
        let promise = "whoever is added is a learner, in contact, with known progress";
        let after = self.until(&leader, promise, |seen| {
            let found = seen.servers.iter().find(|s| s.server.id == spare.id);
            found.is_some_and(|s| {
                s.role == Role::Learner && s.contact.is_some() && s.matched.is_some()
            })
        });
        let after = after.await?;
        let found = after.servers.iter().find(|s| s.server.id == spare.id);
        let address = found.map(|s| s.server.address.as_str());
        keeps("it has the address it was added with", address == Some(&spare.address), &address)?;
        let moved = after.membership.log_id != seen.membership.log_id;
        keeps("every change of the membership moves its log id", moved, &after.membership)?;
        let again = leader.apply(change(step, fence(&seen))).await;
        let refused = matches!(again, Err(ClusterError::Moved(_)));
        keeps("a fence holds for one change", refused, &again)?;
        Ok(spare)
    }

    async fn swaps(&self, spare: &Server) -> Kept {
        let leader = self.rig.leader().await;
        let seen = self.settled(&leader).await?;
        let old = voters(&seen).into_iter().find(|id| *id != seen.local);
        let Some(old) = old else { return keeps("a follower votes", false, &seen) };
        let step = Step::Votes { promote: vec![spare.id.clone()], demote: vec![old.clone()] };
        let applied = leader.apply(change(step, fence(&seen))).await;
        keeps("votes move together", applied.is_ok(), &applied)?;
        let after = self.settled(&leader).await?;
        let gained = role(&after, &spare.id) == Some(Role::Voter);
        keeps("whoever is promoted votes", gained, &after.servers)?;
        let lost = role(&after, &old) == Some(Role::Learner);
        keeps("whoever is demoted stays, as a learner", lost, &after.servers)?;
        keeps("nobody else's vote moves", voters(&after).len() == 3, &after.servers)
    }

    async fn records(&self) -> Kept {
        let leader = self.rig.leader().await;
        if self.see(&leader).await.ledger.is_none() {
            return Ok(());
        }
        let follower = self.rig.follower().await;
        let elsewhere = follower.record(Record::Pause("elsewhere".to_owned())).await;
        keeps("only the leader records", elsewhere.is_err(), &elsewhere)?;
        let one = leader.record(Record::Pause("the suite".to_owned())).await;
        let other = leader.record(Record::Resume).await;
        let (Ok(Outcome::Recorded(one)), Ok(Outcome::Recorded(other))) = (&one, &other) else {
            return keeps("a record is answered with its index", false, &(one, other));
        };
        keeps("indexes grow", one < other, &(one, other))?;
        let config = crate::autopilot::Config::default();
        let cas = Some(u64::MAX);
        let conflict = leader.record(Record::Configure { config, cas }).await;
        let refused = matches!(conflict, Ok(Outcome::Conflict { .. }));
        keeps("a configuration is compared with what is stored", refused, &conflict)?;
        let (server, reason) = (ServerId::from("nobody"), "the suite".to_owned());
        let cordon = Record::Cordon { server: server.clone(), reason, ttl: None };
        let cordon = leader.record(cordon).await;
        keeps("a cordon is recorded", cordon.is_ok(), &cordon)?;
        for cluster in [&leader, &follower] {
            let promise = "every node comes to know what is recorded";
            self.until(cluster, promise, |seen| {
                let ledger = seen.ledger.as_ref();
                ledger.is_some_and(|l| l.cordons.contains_key(&server) && l.paused.is_none())
            })
            .await?;
        }
        let lifted = leader.record(Record::Uncordon(server)).await;
        keeps("a cordon is lifted", lifted.is_ok(), &lifted)
    }

    async fn transfers(&self, spare: &Server) -> Kept {
        let leader = self.rig.leader().await;
        let promise = "a promoted server is in contact";
        self.until(&leader, promise, |seen| {
            let found = seen.servers.iter().find(|s| s.server.id == spare.id);
            found.is_some_and(|s| s.matched.is_some_and(|m| m.index >= seen.last_log.index))
        })
        .await?;
        let seen = self.settled(&leader).await?;
        let step = Step::Transfer { to: spare.id.clone() };
        let applied = leader.apply(change(step, fence(&seen))).await;
        keeps("leadership is handed over", applied.is_ok(), &applied)?;
        let promise = "whoever has handed over leads no more, and knows who does";
        self.until(&leader, promise, |seen| {
            seen.leading.is_none() && seen.leader.as_ref() == Some(&spare.id)
        })
        .await?;
        let next = self.rig.leader().await;
        let after = self.settled(&next).await?;
        keeps("it went where it was sent", after.local == spare.id, &after.leader)?;
        let newer = fence(&after).term > fence(&seen).term;
        keeps("every leadership has a term of its own", newer, &after.leading)
    }

    async fn removes(&self) -> Kept {
        let leader = self.rig.leader().await;
        let spare = self.rig.spare().await;
        let seen = self.settled(&leader).await?;
        let gone: Vec<ServerId> = seen
            .servers
            .iter()
            .filter(|s| s.role == Role::Learner)
            .map(|s| s.server.id.clone())
            .collect();
        let add = Some(spare.clone().into());
        let step = Step::Remove { servers: gone.clone(), promote: Vec::new(), add };
        let applied = leader.apply(change(step, fence(&seen))).await;
        keeps("servers leave, and one comes, in one change", applied.is_ok(), &applied)?;
        let after = self.settled(&leader).await?;
        let left = gone.iter().all(|id| {
            let role = role(&after, id);
            role.is_none() || role == Some(Role::Absent)
        });
        keeps("whoever is removed is no member", left, &after.servers)?;
        let came = role(&after, &spare.id) == Some(Role::Learner);
        keeps("whoever came is a learner", came, &after.servers)?;
        let nobody = leader.identify("nowhere.invalid:1").await;
        keeps("nobody answers where nobody is", nobody.is_none(), &nobody)
    }
}

/// The answer of whichever completes first.
async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        found = one => found,
        found = other => found,
    }
}
