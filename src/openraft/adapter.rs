//! A node of openraft as a cluster: what is observed, and when it has changed.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use ::openraft::{
    Instant as _, RaftMetrics, RaftTypeConfig, alias::CommittedLeaderIdOf,
    async_runtime::WatchReceiver, storage::RaftStateMachine, type_config::TypeConfigExt,
    vote::RaftTerm,
};

use super::{
    application::{Application, PROBE_DEADLINE, PROBE_INTERVAL},
    change::failure,
    memory::{Asking, Seen, has_applied, text},
    node::{Openraft, OpenraftError},
};
use crate::{
    autopilot::{
        Applied, Change, Cluster, ClusterError, Dismissal, Leading, LogId, Membership, Observation,
        Outcome, Probe, Record, Role, Server, ServerId, Sighting,
    },
    runtime::Runtime,
};

impl<C, SM, A> Openraft<C, SM, A>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C>,
    A: Application<C>,
{
    /// Whether this node leads, since when, and whether a quorum has answered lately.
    fn leading(&self, at: Duration, metrics: &RaftMetrics<C>) -> Option<Leading> {
        let mut memory = self.memory();
        // A node that has stopped over a failure keeps the state that it had.
        if !metrics.state.is_leader() || metrics.running_state.is_err() {
            memory.leading = None;
            return None;
        }
        let term = metrics.current_term.as_u64().unwrap_or_default();
        let lease = Duration::from_millis(self.raft.config().election_timeout_min);
        let (since, gap) = match memory.leading {
            Some((known, since, gap)) if known == term => (since, gap),
            // A vote names its leader long after that is gone: what counts is when one was heard.
            _ => (at, memory.heard.map_or(at, |heard| at.saturating_sub(heard))),
        };
        if memory.leading.is_none_or(|(known, _, _)| known != term) {
            // What was asked in another leadership says nothing of the time between.
            for known in memory.servers.values_mut() {
                (known.silent, known.answer, known.due) = (None, None, at);
            }
        }
        memory.leading = Some((term, since, gap));
        let membership = metrics.membership_config.membership();
        let alone = membership.voter_ids().all(|id| id == metrics.id);
        let acked = metrics.last_quorum_acked.map(|acked| acked.elapsed());
        // Before an entry of its own leadership is applied, a leader does not know all that is recorded.
        let applied = has_applied::<C>(&metrics.vote, applied_by(metrics));
        let lease = applied && (alone || acked.is_some_and(|age| age < lease));
        memory.heard = if alone { Some(at) } else { acked.map(|age| at.saturating_sub(age)) };
        Some(Leading { term, since, gap, lease })
    }

    /// Notes when a follower last heard its leader. The metrics do not tell: while pre-votes fail
    /// they go on naming a leader that is long gone.
    async fn hear(&self) {
        let heard = self.raft.with_raft_state(|state| {
            let follows = !state.server_state.is_leader()
                && ::openraft::vote::RaftVote::is_committed(state.vote_ref());
            state.vote_last_modified().filter(|_| follows)
        });
        if let Ok(Some(heard)) = heard.await {
            let heard = self.runtime.now().saturating_sub(heard.elapsed());
            let mut memory = self.memory();
            memory.heard = memory.heard.max(Some(heard));
        }
    }

    fn sightings(&self, at: Duration, metrics: &RaftMetrics<C>) -> Vec<Sighting> {
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        let leads = metrics.state.is_leader();
        let mut memory = self.memory();
        let discovered = memory.discovery.as_ref().map(|(_, known)| known.clone());
        let mut sightings: Vec<Sighting> = membership
            .nodes()
            .map(|(id, node)| {
                let name = text(id);
                let known = memory.servers.entry(name.clone()).or_default();
                let mut server = self.application.server(id, node);
                if server.version.is_empty()
                    && let Some((answer, _, _)) = &known.answer
                {
                    server.version.clone_from(&answer.version);
                }
                let server = match &known.server {
                    Some(old) if **old == server => Arc::clone(old),
                    _ => Arc::new(server),
                };
                known.server = Some(Arc::clone(&server));
                let contact = metrics.heartbeat.as_ref().and_then(|map| map.get(id));
                let matched = metrics.replication.as_ref().and_then(|map| map.get(id));
                Sighting {
                    server,
                    role: role::<C>(id, configs),
                    contact: contact.and_then(|time| time.map(|time| time.elapsed())),
                    matched: matched.and_then(|log_id| log_id.as_ref().map(|l| self.log_id(l))),
                    probe: if leads { known.probe(at) } else { Probe::Off },
                    discovery: discovered.as_ref().and_then(|known| known.get(&name).copied()),
                }
            })
            .collect();
        sightings.sort_by(|a, b| a.server.id.cmp(&b.server.id));
        let members: BTreeSet<&ServerId> = sightings.iter().map(|s| &s.server.id).collect();
        memory.servers.retain(|id, _| members.contains(id));
        sightings
    }

    /// Sends the probes that are due, one in flight a server, each in a task of its own.
    fn send_probes(&self, at: Duration, metrics: &RaftMetrics<C>) {
        let mut memory = self.memory();
        if self.application.discovers() && !memory.asking_discovery && memory.discovery_due <= at {
            memory.asking_discovery = true;
            memory.discovery_due = at.saturating_add(PROBE_INTERVAL);
            self.ask_discovery();
        }
        if !self.application.probes() {
            return;
        }
        let term = memory.leading.map(|(term, _, _)| term);
        for (id, node) in metrics.membership_config.membership().nodes() {
            let known = memory.servers.entry(text(id)).or_default();
            if *id == metrics.id || known.asking || known.due > at {
                continue;
            }
            known.asking = true;
            known.due = at.saturating_add(PROBE_INTERVAL);
            if known.answer.is_none() {
                known.silent.get_or_insert(at);
            }
            let matched = metrics.replication.as_ref().and_then(|map| map.get(id));
            let held = matched.and_then(|m| m.as_ref()).map_or(0, ::openraft::LogId::index);
            self.ask(id.clone(), node.clone(), at, held, term);
        }
    }

    fn ask(&self, id: C::NodeId, node: C::Node, at: Duration, held: u64, term: Option<u64>) {
        let (application, memory) = (Arc::clone(&self.application), Arc::clone(&self.memory));
        self.runtime.spawn(async move {
            let name = text(&id);
            let _asking = Asking { memory: Arc::clone(&memory), server: Some(name.clone()) };
            let asked = C::timeout(PROBE_DEADLINE, application.probe(id, node)).await;
            let answer = asked.ok().flatten().filter(|answer| answer.id == name);
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            let same = memory.leading.map(|(term, _, _)| term) == term;
            let Some(known) = memory.servers.get_mut(&name) else { return };
            if !same {
                // What was asked in another leadership says nothing of this one.
                return;
            }
            if let Some(answer) = answer {
                known.silent = None;
                known.answer = Some((answer, at, held));
            } else {
                known.silent.get_or_insert(at);
            }
        });
    }

    fn ask_discovery(&self) {
        let (application, memory) = (Arc::clone(&self.application), Arc::clone(&self.memory));
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            let _asking = Asking { memory: Arc::clone(&memory), server: None };
            let asked = C::timeout(PROBE_DEADLINE, application.discover()).await;
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(Some(listed)) = asked {
                memory.discovery = Some((runtime.now(), listed.into_iter().collect()));
            }
        });
    }
}

/// The leader whose entry was applied last.
fn applied_by<C: RaftTypeConfig>(metrics: &RaftMetrics<C>) -> Option<&CommittedLeaderIdOf<C>> {
    metrics.last_applied.as_ref().map(::openraft::LogId::committed_leader_id)
}

fn role<C: RaftTypeConfig>(id: &C::NodeId, configs: &[BTreeSet<C::NodeId>]) -> Role {
    let incoming = configs.last().is_some_and(|new| new.contains(id));
    let older = configs.len().saturating_sub(1);
    let outgoing = configs[..older].iter().any(|old| old.contains(id));
    match (incoming, outgoing) {
        (true, true) => Role::Voter,
        (true, false) if older == 0 => Role::Voter,
        (true, false) => Role::Incoming,
        (false, true) => Role::Outgoing,
        (false, false) => Role::Learner,
    }
}
impl<C, SM, A> Cluster for Openraft<C, SM, A>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C> + Send + Sync,
    A: Application<C>,
{
    type Error = OpenraftError;

    async fn observe(&self, at: Duration) -> Observation {
        let metrics = self.metrics();
        self.memory().seen = Some(Seen::of::<C>(
            &metrics.vote,
            metrics.current_leader.as_ref(),
            metrics.state,
            [&metrics.membership_config, &metrics.committed_membership_config],
            applied_by(&metrics),
        ));
        let leading = self.leading(at, &metrics);
        if leading.is_some() {
            self.send_probes(at, &metrics);
        }
        let servers = self.sightings(at, &metrics);
        let stored = &metrics.membership_config;
        let discovery = self.memory().discovery.as_ref().map(|(when, _)| at.saturating_sub(*when));
        let (ledger, ledger_at) = self.application.ledger().unzip();
        Observation {
            at,
            local: text(&metrics.id),
            leader: metrics.current_leader.as_ref().map(text),
            leading,
            membership: Membership {
                log_id: self.membership(&metrics),
                committed: metrics.committed_membership_config.log_id() == stored.log_id(),
                joint: stored.membership().get_joint_config().len() > 1,
            },
            last_log: LogId {
                term: metrics.current_term.as_u64().unwrap_or_default(),
                index: metrics.last_log_index.unwrap_or_default(),
            },
            discovery,
            servers,
            ledger,
            ledger_at: ledger_at.unwrap_or_default(),
            pace: Duration::ZERO,
            feedback: None,
        }
    }

    async fn changed(&self) {
        // This channel moves with leadership and membership, not with heartbeats.
        let mut metrics = self.raft.server_metrics();
        // This one moves with everything.
        let mut whole = self.raft.metrics();
        loop {
            let (applied, stopped) = {
                let whole = whole.borrow_watched();
                (applied_by(&whole).cloned(), whole.running_state.is_err())
            };
            if stopped {
                // Nothing will ever change again, and the two channels may differ for ever.
                return std::future::pending().await;
            }
            let seen = {
                let metrics = metrics.borrow_watched();
                Seen::of::<C>(
                    &metrics.vote,
                    metrics.current_leader.as_ref(),
                    metrics.state,
                    [&metrics.membership_config, &metrics.committed_membership_config],
                    applied.as_ref(),
                )
            };
            // A new leader may act once its own first entry is applied.
            let begins = seen.leads && !seen.applied;
            if self.memory().seen.as_ref() != Some(&seen) {
                return;
            }
            // A leader hears nobody; and to ask the node moves its metrics, which may be waited for.
            if !seen.leads {
                self.hear().await;
            }
            let pause = Duration::from_millis(self.raft.config().election_timeout_max);
            let moved = async {
                tokio::select! {
                    biased;
                    moved = metrics.changed() => moved,
                    moved = whole.changed(), if begins => moved,
                }
            };
            if let Ok(Err(_)) = C::timeout(pause, moved).await {
                // The node has stopped; nothing will ever change again.
                return std::future::pending().await;
            }
        }
    }

    async fn apply(&self, change: Change) -> Applied<OpenraftError> {
        self.change(change).await
    }

    async fn record(&self, record: Record) -> Result<Outcome, ClusterError<OpenraftError>> {
        let command = self.application.command(record);
        let command = command.ok_or(ClusterError::Refused(OpenraftError::NoRecords))?;
        let written = self.raft.client_write(command).await.map_err(|error| failure(&error))?;
        let outcome = self.application.outcome(written.data);
        outcome.ok_or(ClusterError::Unknown(OpenraftError::NoOutcome))
    }

    async fn identify(&self, address: &str) -> Option<ServerId> {
        C::timeout(PROBE_DEADLINE, self.application.identify(address)).await.ok().flatten()
    }

    async fn dismiss(&self, server: Arc<Server>) -> Dismissal {
        let told = C::timeout(PROBE_DEADLINE, self.application.dismiss(server)).await;
        told.unwrap_or(Dismissal::NoAnswer)
    }
}
