//! How an observation becomes a state: the rules of health, stability and the signs of death.

use std::{cmp::Ordering, sync::Arc, time::Duration};

use super::{
    cluster::{
        Leading, LogId, NodeStatus, Observation, Probe, Role, Server, ServerId, Sighting, Status,
    },
    config::Config,
    lapse::Lapse,
    records::{IntentKind, ServerRecord, Signs, Verdict, age},
    signs::Evidence,
    state::{Health, Reason, Reasons, ServerState, State, Trail, flaps},
};

impl State {
    /// Assesses an observation, given what was thought before it. Pure and total.
    ///
    /// Servers are judged only by a leader with a fresh lease; for anybody else all are unknown.
    /// What the last state or, at the beginning of a leadership, the ledger says of a server is
    /// continued; a server that neither knows starts from nothing.
    #[must_use]
    pub fn assess(config: &Config, last: Option<&State>, seen: &Observation) -> State {
        // What another leadership measured is not this one's; what may be carried over is in
        // the ledger.
        let leadership = |leading: Option<Leading>| leading.map(|l| (l.term, l.since));
        let last = last.filter(|last| leadership(last.leading) == leadership(seen.leading));
        let judges = seen.leading.is_some_and(|leading| leading.lease);
        let lapse = last.map_or(Lapse::default(), |last| Lapse::since(config, last, seen));
        let mended;
        let known = last.map_or(&[][..], |last| &last.servers);
        let sightings: &[Sighting] = if is_sorted(&seen.servers, known) {
            &seen.servers
        } else {
            mended = sorted(&seen.servers);
            &mended
        };
        let shrunken = discovery_shrunken(seen, sightings);
        let has_judged = last.is_some_and(|last| last.judged);
        let fresh = last.is_none() || (judges && !has_judged);
        let round = Round { config, seen, shrunken, fresh, judges, lapse };
        let mut before = known;
        let servers = sightings.iter();
        let servers = servers.map(|sighting| {
            let last = next_in(&mut before, &sighting.server);
            round.server(sighting, last)
        });
        let servers = servers.collect();
        let mut state = State {
            at: seen.at,
            local: seen.local.clone(),
            leader: seen.leader.clone(),
            leading: seen.leading,
            observed: last.filter(|_| !judges).map_or(seen.at, |last| last.observed),
            judged: judges || has_judged,
            lapse: if judges { lapse.time } else { Duration::ZERO },
            membership: seen.membership,
            last_log: seen.last_log,
            servers,
            healthy: false,
            voters_healthy: false,
            quorum: false,
            failure_tolerance: 0,
            discovery: seen.discovery,
            discovery_shrunken: shrunken,
            ledger: seen.ledger.clone(),
            ledger_at: seen.ledger_at,
            feedback: seen.feedback.clone(),
        };
        count(&mut state);
        state
    }
}

/// Whether the servers are in their order; they are where they are those of the last round.
fn is_sorted(servers: &[Sighting], last: &[ServerState]) -> bool {
    let same = |(s, last): (&Sighting, &ServerState)| Arc::ptr_eq(&s.server, &last.server);
    (servers.len() == last.len() && servers.iter().zip(last).all(same))
        || servers.windows(2).all(|pair| pair[0].server.id < pair[1].server.id)
}

fn sorted(servers: &[Sighting]) -> Vec<Sighting> {
    let mut servers = servers.to_vec();
    servers.sort_by(|a, b| a.server.id.cmp(&b.server.id));
    servers.dedup_by(|a, b| a.server.id == b.server.id);
    servers
}

/// The entry of `server` in a sorted rest, which is advanced past it. An adapter hands out the
/// same pointer in every round, so that ids are compared only after something has changed.
fn next_in<'a>(rest: &mut &'a [ServerState], server: &Arc<Server>) -> Option<&'a ServerState> {
    while let Some((first, tail)) = rest.split_first() {
        let order = if Arc::ptr_eq(&first.server, server) {
            Ordering::Equal
        } else {
            first.server.id.cmp(&server.id)
        };
        match order {
            Ordering::Less => *rest = tail,
            Ordering::Equal => {
                *rest = tail;
                return Some(first);
            }
            Ordering::Greater => return None,
        }
    }
    None
}

/// Discovery that answers and lists less than two thirds of the members, or does not list the
/// leader, has failed itself.
fn discovery_shrunken(seen: &Observation, servers: &[Sighting]) -> bool {
    if seen.discovery.is_none() {
        return false;
    }
    let leads = |s: &Sighting| seen.leader.as_ref() == Some(&s.server.id);
    let (mut all, mut listed, mut leader) = (0_usize, 0_usize, false);
    for server in servers.iter().filter(|server| server.role != Role::Absent) {
        all += 1;
        if server.discovery.is_some() {
            listed += 1;
            leader = leader || leads(server);
        }
    }
    listed * 3 < all * 2 || !leader
}

/// The votes of one half of a membership.
#[derive(Clone, Copy, Default)]
struct Votes {
    all: usize,
    live: usize,
    healthy: usize,
}

impl Votes {
    fn add(&mut self, counts: bool, server: &ServerState) {
        let healthy = server.health.verdict == Verdict::Healthy;
        self.all += usize::from(counts);
        self.live += usize::from(counts && server.live);
        self.healthy += usize::from(counts && healthy);
    }

    fn quorum(self) -> usize {
        self.all / 2 + 1
    }
}

/// The verdicts on the whole. A joint membership is as strong as the weaker of its halves.
fn count(state: &mut State) {
    let (mut members, mut sick) = (0_usize, 0_usize);
    let (mut new, mut old) = (Votes::default(), Votes::default());
    for server in state.servers.iter().filter(|server| server.role != Role::Absent) {
        members += 1;
        sick += usize::from(server.health.verdict != Verdict::Healthy);
        new.add(matches!(server.role, Role::Voter | Role::Incoming), server);
        old.add(matches!(server.role, Role::Voter | Role::Outgoing), server);
    }
    let well = |votes: Votes| votes.all > 0 && votes.healthy == votes.all;
    let tolerance = |votes: Votes| votes.healthy.saturating_sub(votes.quorum());
    state.healthy = members > 0 && sick == 0;
    state.voters_healthy = well(new) && well(old);
    state.quorum = new.live >= new.quorum() && old.live >= old.quorum();
    state.failure_tolerance = tolerance(new).min(tolerance(old));
}

/// What is remembered of a server that nothing is remembered of.
static NO_RECORD: ServerRecord = ServerRecord {
    verdict: Verdict::Unknown,
    boot: None,
    disk: None,
    joined: false,
    signs: Vec::new(),
    flaps: 0,
    signs_at: Signs { contact: None, probe: None, discovery: None, identity: None, shrunk: None },
    applied_at: None,
};

/// What every server of one round is judged with.
struct Round<'a> {
    config: &'a Config,
    seen: &'a Observation,
    shrunken: bool,
    /// The first round of this leadership, or the first that judges and knows all records.
    fresh: bool,
    /// This node leads with a fresh lease.
    judges: bool,
    /// The time before this round that counts for nothing.
    lapse: Lapse,
}

/// A server's standing before this round: the last state's word, else the ledger's, else none.
struct Before {
    health: Health,
    signs: Signs,
    joining: Option<Duration>,
    matched: Option<LogId>,
    lag: u64,
    flaps: u8,
    trail: Trail,
}

/// What one sighting measures.
struct Measure<'a> {
    contact: Option<Duration>,
    matched: Option<LogId>,
    lag: u64,
    catch_up: Option<Duration>,
    status: Option<&'a Status>,
    was: Identity,
}

/// What was known of who a server is, before this round.
struct Identity {
    boot: Option<u64>,
    disk: Option<u64>,
    reborn: bool,
}

impl Before {
    fn of(last: &ServerState) -> Self {
        Self {
            health: last.health,
            signs: last.signs,
            joining: last.joining,
            matched: last.matched,
            lag: last.lag,
            flaps: last.flaps,
            trail: last.trail,
        }
    }

    /// Since when it has been healthy, confirmed or not.
    fn history(&self) -> Option<Duration> {
        self.trail.carried.or(self.health.healthy_since)
    }

    /// Forgets what was counted in time; a log that shrank stays shrunk.
    fn restart(&mut self, at: Duration) {
        self.health.since = at;
        self.health.healthy_since = None;
        self.signs = Signs { shrunk: self.signs.shrunk.map(|_| at), ..Signs::default() };
        self.joining = self.joining.map(|_| at);
        self.trail =
            Trail { seen: at, progressed: at, applied: at, carried: None, told: 0, ..self.trail };
    }

    /// Whether it holds more than ever before, of the log or of a snapshot of it.
    fn gained(&mut self, measure: &Measure<'_>) -> bool {
        let snapshot = measure.status.and_then(|status| status.snapshot);
        if measure.matched > self.matched {
            self.trail.snapshot = snapshot;
            return true;
        }
        let further = snapshot > self.trail.snapshot;
        self.trail.snapshot = self.trail.snapshot.max(snapshot);
        further
    }

    /// Leaves a time that nobody observed out of every count.
    fn leave_out(&mut self, lapse: Lapse, at: Duration, fresh: bool) {
        let later = |since: Duration| lapse.leave_out(since, at);
        self.signs = self.signs.map(later);
        self.joining = self.joining.map(later);
        self.trail.progressed = later(self.trail.progressed);
        self.trail.applied = later(self.trail.applied);
        // What contact and probes say of the time before counts no further back than now.
        self.trail.seen = at;
        if lapse.hole || fresh {
            self.health.since = at;
            self.health.healthy_since = None;
            self.trail.carried = None;
        }
    }
}

impl Round<'_> {
    fn server(&self, sighting: &Sighting, last: Option<&ServerState>) -> ServerState {
        let is_member = sighting.role != Role::Absent;
        let last = last.filter(|last| (last.role != Role::Absent) == is_member && !self.fresh);
        let mut before = last.map_or_else(|| self.recorded(sighting), Before::of);
        let led = before.history();
        if self.judges && !self.lapse.time.is_zero() {
            before.leave_out(self.lapse, self.seen.at, self.fresh);
        }
        let measure = self.measure(sighting, &mut before);
        let reasons = if self.judges {
            self.reasons(sighting, &before, &measure)
        } else {
            Reasons::of(&[Reason::NotJudged])
        };
        let restarted = before.trail.reborn && !measure.was.reborn;
        // A leader that fails is missed by the next, which knows its history from the ledger; that
        // it answers again from another boot, or late, is no excuse.
        let deposed = self.has_lost_leadership(&sighting.server.id, led);
        let then = if deposed { led } else { before.history() };
        // Where probes tell boots apart, only the next answer says that it is still the same.
        let confirmed = match measure.status {
            _ if !self.judges => None,
            Some(status) => Some(!measure.was.reborn && measure.was.boot == Some(status.boot)),
            None => (sighting.probe == Probe::Off).then_some(true),
        };
        if let Some(same) = confirmed
            && let Some(carried) = before.trail.carried.take()
            && same
        {
            before.health.healthy_since = Some(carried);
        }
        let health = self.health(reasons, &before, restarted || deposed);
        let healthy = health.verdict == Verdict::Healthy;
        let doubt = health.verdict == Verdict::Unknown && self.is_short(health.since);
        let goes_on = (healthy || doubt) && !deposed;
        before.trail.carried = before.trail.carried.filter(|_| goes_on);
        before.trail.reborn &= !healthy;
        let evidence = Evidence {
            config: self.config,
            seen: self.seen,
            sighting,
            shrunken: self.shrunken,
            reasons,
            contact: measure.contact,
        };
        let signs = evidence.signs(before.signs, &mut before.trail);
        let gained = before.gained(&measure);
        ServerState {
            server: Arc::clone(&sighting.server),
            role: sighting.role,
            health,
            flaps: flaps(self.config, before.flaps, then, deposed, &health, self.seen.at),
            live: !reasons.intersects(Reason::NOT_LIVE),
            signs,
            joining: before
                .joining
                .filter(|_| !healthy && sighting.role == Role::Learner)
                .map(|since| if gained { self.seen.at } else { since }),
            last_contact: measure.contact,
            matched: measure.matched,
            lag: measure.lag,
            catch_up: measure.catch_up,
            discovery: sighting.discovery,
            status: measure.status.copied(),
            trail: before.trail,
        }
    }

    /// Whether this node leads in the place of a server, healthy since `then`, that neither handed
    /// leadership over nor announced that it would be away: it has failed, however soon it answers
    /// again. A history that began with this leadership is no longer touched by that.
    fn has_lost_leadership(&self, id: &ServerId, then: Option<Duration>) -> bool {
        let (Some(ledger), Some(leading)) = (&self.seen.ledger, self.seen.leading) else {
            return false;
        };
        self.judges
            && ledger.leader.as_ref() == Some(id)
            && *id != self.seen.local
            && then.is_some_and(|then| then < leading.since)
            && ledger.intended(id, self.seen.ledger_at).is_none()
    }

    /// A server that the last state did not have, or had outside the membership.
    fn recorded(&self, sighting: &Sighting) -> Before {
        let at = self.seen.at;
        let ledger = self.seen.ledger.as_ref();
        let found = ledger.and_then(|ledger| ledger.servers.get(&sighting.server.id));
        let record = found.unwrap_or(&NO_RECORD);
        let here = |applied_at| at.saturating_sub(age(applied_at, self.seen.ledger_at));
        let since = here(record.applied_at);
        let carried = (record.verdict == Verdict::Healthy).then_some(since);
        // A grace does not run while nobody leads.
        let gap = self.seen.leading.map_or(Duration::MAX, |leading| leading.gap);
        let signs = record.signs_at.map(|since| here(Some(since)).saturating_add(gap).min(at));
        // Without a record nobody knows how long a member that was found has been one.
        let joining = if self.fresh { found.is_some_and(|r| !r.joined) } else { !record.joined };
        let mut before = Before {
            health: Health {
                verdict: record.verdict,
                reasons: Reasons::default(),
                since,
                healthy_since: None,
            },
            signs,
            joining: joining.then_some(at),
            matched: None,
            lag: 0,
            flaps: record.flaps,
            trail: Trail {
                seen: at,
                progressed: at,
                applied: at,
                boot: record.boot,
                disk: record.disk,
                carried,
                ..Trail::default()
            },
        };
        // A history with a hole longer than the stability it should prove proves nothing.
        if gap > self.config.server_stabilization_time {
            before.restart(at);
        }
        before
    }

    #[inline]
    fn measure<'s>(&self, sighting: &'s Sighting, before: &mut Before) -> Measure<'s> {
        let at = self.seen.at;
        let is_leader = self.seen.leading.is_some() && sighting.server.id == self.seen.local;
        let status = match &sighting.probe {
            Probe::Answered(status) if status.age <= self.config.status_max_age => Some(status),
            Probe::Answered(_) | Probe::Off | Probe::Silent(_) => None,
        };
        // The leader holds its own log, even where nobody says so.
        let matched = sighting.matched.or(is_leader.then_some(self.seen.last_log));
        let index = matched.map_or(0, |matched| matched.index);
        let lag = self.seen.last_log.index.saturating_sub(index);
        let trail = &mut before.trail;
        let was = Identity { boot: trail.boot, disk: trail.disk, reborn: trail.reborn };
        let had = before.matched.map_or(0, |matched| matched.index);
        if index > had {
            let took = at.saturating_sub(trail.progressed).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let gained = (index - had) as f64;
            // What was gained before the first look, or unobserved, has no known duration.
            if before.matched.is_some() && took > 0.0 && self.lapse.time.is_zero() {
                let rate = gained / took;
                trail.rate = if trail.rate > 0.0 { trail.rate.midpoint(rate) } else { rate };
            }
        }
        // What lacked nothing in the last round has lacked something since this one at most.
        if index > had || lag == 0 || before.lag == 0 {
            trail.progressed = at;
        }
        // A missed answer says nothing: the next one is judged against the last that came.
        if let Some(status) = status {
            let restarted = trail.boot.is_some_and(|boot| boot != status.boot);
            trail.reborn |= restarted;
            trail.boot = Some(status.boot);
            // Another disk is known as the old one until a round has judged it.
            if self.judges || trail.disk.is_none() {
                trail.disk = status.disk.or(trail.disk);
            }
            // Judged by when it was asked: an answer seen twice says nothing new.
            let waits = status.applied < status.last_log;
            let advanced = status.applied > trail.applied_index;
            if restarted || advanced || !(trail.waits && waits) {
                trail.applied = at.saturating_sub(status.age);
            }
            trail.waits = waits;
            trail.applied_index = status.applied;
        }
        let catch_up = catch_up(lag, trail.rate, at.saturating_sub(trail.progressed));
        let contact = if is_leader { Some(Duration::ZERO) } else { sighting.contact };
        Measure { contact, matched, lag, catch_up, status, was }
    }

    fn reasons(&self, sighting: &Sighting, before: &Before, measure: &Measure<'_>) -> Reasons {
        let (config, at) = (self.config, self.seen.at);
        let had = |reason| before.health.reasons.contains(reason);
        let mut reasons = Reasons::default();
        if sighting.role == Role::Absent {
            reasons.add(Reason::NotMember, true);
            self.add_discovery(&mut reasons, sighting);
            self.add_ledger(&mut reasons, &sighting.server.id);
            return reasons;
        }
        if let Some(age) = measure.contact {
            let limit = if had(Reason::ContactLost) {
                config.last_contact_recovery
            } else {
                config.last_contact_threshold
            };
            reasons.add(Reason::ContactLost, age > limit);
        } else {
            let begin = self.seen.leading.map_or(at, |leading| leading.since);
            let silent = at.saturating_sub(before.trail.seen.max(begin));
            let lost = silent > config.last_contact_threshold;
            reasons.add(Reason::ContactLost, lost);
            reasons.add(Reason::NoContactYet, !lost);
        }
        let (lag, late) = (measure.lag, at.saturating_sub(before.trail.progressed));
        let untold = measure.matched.is_none() && lag > 0;
        reasons.add(Reason::NoProgressYet, untold);
        if !untold || late > config.last_contact_threshold {
            let limit = if had(Reason::Trailing) {
                config.trailing_logs_recovery
            } else {
                config.max_trailing_logs
            };
            let quick = measure.catch_up.is_some_and(|time| time <= config.max_catch_up_time);
            let quick = quick && !config.max_catch_up_time.is_zero();
            reasons.add(Reason::Trailing, lag > limit && !quick);
            reasons.add(Reason::Stalled, lag > 0 && late > config.stall_threshold);
        }
        self.add_status(&mut reasons, sighting, before, measure);
        self.add_discovery(&mut reasons, sighting);
        self.add_ledger(&mut reasons, &sighting.server.id);
        reasons.add(Reason::Joining, before.joining.is_some() && sighting.role == Role::Learner);
        reasons
    }

    fn add_status(
        &self,
        reasons: &mut Reasons,
        sighting: &Sighting,
        before: &Before,
        measure: &Measure<'_>,
    ) {
        reasons.add(Reason::ProbeSilent, matches!(sighting.probe, Probe::Silent(_)));
        // Once a voter has lost what it acknowledged it stays marked: what it voted for is
        // forgotten too. A learner is cleared by catching up.
        let marked = before.signs.shrunk.is_some();
        let Some(status) = measure.status else {
            reasons.add(Reason::LogShrank, marked);
            // A missed answer does not show that it applies again.
            let stuck = before.health.reasons.contains(Reason::NotApplying);
            let max_age = self.config.status_max_age;
            let missed = matches!(sighting.probe, Probe::Silent(age) if age <= max_age);
            reasons.add(Reason::NotApplying, stuck && missed);
            return;
        };
        let shrank = status.last_log < status.acknowledged;
        let known = measure.was.disk.zip(status.disk);
        let replaced = known.is_some_and(|(old, new)| old != new);
        let stays = marked && sighting.role.votes();
        reasons.add(Reason::LogShrank, shrank || replaced || stays);
        let waits = status.applied < status.last_log;
        let asked = self.seen.at.saturating_sub(status.age);
        let stuck = asked.saturating_sub(before.trail.applied);
        reasons.add(Reason::NotApplying, waits && stuck > self.config.stall_threshold);
    }

    fn add_discovery(&self, reasons: &mut Reasons, sighting: &Sighting) {
        if self.seen.discovery.is_none() && sighting.discovery.is_none() {
            return;
        }
        // An old answer says as little as an old status.
        if self.seen.discovery.is_some_and(|age| age > self.config.status_max_age) {
            return;
        }
        reasons.add(Reason::DiscoveryFailed, sighting.discovery == Some(NodeStatus::Failed));
        reasons.add(Reason::DiscoveryLeft, sighting.discovery == Some(NodeStatus::Left));
        let absent = sighting.discovery.is_none() && !self.shrunken;
        reasons.add(Reason::DiscoveryAbsent, absent);
    }

    fn add_ledger(&self, reasons: &mut Reasons, id: &ServerId) {
        let Some(ledger) = &self.seen.ledger else { return };
        if !ledger.removed.is_empty() {
            reasons.add(Reason::RemovedId, ledger.removed.contains(id));
        }
        if !ledger.intents.is_empty() {
            let kind = ledger.intended(id, self.seen.ledger_at);
            reasons.add(Reason::Intended, kind.is_some_and(|kind| kind != IntentKind::Drain));
        }
    }

    fn health(&self, reasons: Reasons, before: &Before, restarted: bool) -> Health {
        let at = self.seen.at;
        let verdict = if reasons.intersects(Reason::UNHEALTHY) {
            Verdict::Unhealthy
        } else if reasons.intersects(Reason::UNKNOWN) {
            Verdict::Unknown
        } else {
            Verdict::Healthy
        };
        let same = verdict == before.health.verdict && !restarted;
        let mut since = if same { before.health.since } else { at };
        // A short doubt breaks no history; a longer one does, also where no round fell into it.
        let doubt = match before.health.verdict {
            Verdict::Unknown => at.saturating_sub(before.health.since),
            Verdict::Healthy | Verdict::Unhealthy => Duration::ZERO,
        };
        let whole = !restarted && doubt <= self.config.last_contact_threshold;
        let history = before.health.healthy_since.filter(|_| whole);
        let healthy_since = match verdict {
            Verdict::Unhealthy => None,
            Verdict::Healthy => {
                since = history.unwrap_or(at);
                Some(since)
            }
            Verdict::Unknown => history,
        };
        Health { verdict, reasons, since, healthy_since }
    }

    /// Whether a doubt since then is too short to break a history.
    fn is_short(&self, since: Duration) -> bool {
        self.seen.at.saturating_sub(since) <= self.config.last_contact_threshold
    }
}

/// Time to reach the end of the log: at the measured rate, and never less than the time that
/// nothing has been gained for.
fn catch_up(lag: u64, rate: f64, idle: Duration) -> Option<Duration> {
    if lag == 0 {
        return Some(Duration::ZERO);
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = lag as f64 / rate;
    Duration::try_from_secs_f64(seconds).ok().map(|time| time.max(idle))
}
