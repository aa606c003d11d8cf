//! Which signs of death stand, and since when: each begins with silence, and a sign of life ends it.

use std::time::Duration;

use super::{
    cluster::{NodeStatus, Observation, Probe, Sighting},
    config::Config,
    records::Signs,
    state::{Reason, Reasons, Trail},
};

/// What one round knows of one server that bears on its signs.
pub(super) struct Evidence<'a> {
    pub(super) config: &'a Config,
    pub(super) seen: &'a Observation,
    pub(super) sighting: &'a Sighting,
    /// Discovery answers, and lists too few of the members to be believed.
    pub(super) shrunken: bool,
    pub(super) reasons: Reasons,
    /// Age of its last contact; `None`: never with this leader.
    pub(super) contact: Option<Duration>,
}

impl Evidence<'_> {
    /// The signs that stand now, given those that stood before.
    pub(super) fn signs(&self, old: Signs, trail: &mut Trail) -> Signs {
        let (at, reasons) = (self.seen.at, self.reasons);
        // In most rounds. A silent probe is a reason too.
        if reasons.is_empty() && !trail.reborn && trail.told == 0 && old.discovery.is_none() {
            return Signs::default();
        }
        if reasons.contains(Reason::NotJudged) {
            return self.unjudged(old, trail);
        }
        // While it is not known whether a sign of contact or of a probe still stands, what was
        // known of it is kept.
        let contact = if reasons.contains(Reason::NoContactYet) {
            old.contact
        } else {
            let first = || self.heard().unwrap_or_default().max(trail.seen);
            let since = || old.contact.map_or_else(first, |old| self.since_heard(old));
            reasons.contains(Reason::ContactLost).then(since)
        };
        let probe = match self.sighting.probe {
            Probe::Silent(age) if age > self.config.last_contact_threshold => {
                let since = at.saturating_sub(age).max(trail.seen);
                Some(old.probe.map_or(since, |old| old.min(since)))
            }
            Probe::Silent(_) => old.probe,
            // Nobody probes any more: what replication hears from is not silent.
            Probe::Off => old.probe.filter(|_| reasons.intersects(SILENT)),
            Probe::Answered(_) => None,
        };
        Signs {
            contact,
            probe,
            discovery: self.discovery(old.discovery, trail),
            identity: trail.reborn.then(|| old.identity.unwrap_or(at)),
            shrunk: reasons.contains(Reason::LogShrank).then(|| old.shrunk.unwrap_or(at)),
        }
    }

    /// Discovery that is stale or shrunken has failed itself: what it said counts for nothing, and
    /// goes on from where it stood when it is back and says the same.
    fn discovery(&self, old: Option<Duration>, trail: &mut Trail) -> Option<Duration> {
        let at = self.seen.at;
        if self.reasons.intersects(DISCOVERY) {
            let told = Duration::from_secs(std::mem::take(&mut trail.told).into());
            return Some(old.unwrap_or_else(|| at.saturating_sub(told)));
        }
        if let Some(since) = old {
            let told = at.saturating_sub(since).as_secs();
            trail.told = u32::try_from(told).unwrap_or(u32::MAX);
        }
        if trail.told > 0 && !self.is_stale() && !self.is_forgotten() {
            trail.told = 0;
        }
        None
    }

    /// Discovery lists too few to be believed, and not this one.
    fn is_forgotten(&self) -> bool {
        self.shrunken && self.sighting.discovery.is_none()
    }

    /// An old answer of discovery says nothing.
    fn is_stale(&self) -> bool {
        self.seen.discovery.is_some_and(|age| age > self.config.status_max_age)
    }

    /// The signs that are left while nobody is judged: a sign of life ends one all the same.
    fn unjudged(&self, old: Signs, trail: &mut Trail) -> Signs {
        let answered = matches!(self.sighting.probe, Probe::Answered(_));
        let alive = !self.is_stale() && self.sighting.discovery == Some(NodeStatus::Alive);
        if alive {
            trail.told = 0;
        }
        Signs {
            contact: old.contact.map(|old| self.since_heard(old)),
            probe: old.probe.filter(|_| !answered),
            discovery: old.discovery.filter(|_| !alive),
            ..old
        }
    }

    /// When replication heard from it last.
    fn heard(&self) -> Option<Duration> {
        self.contact.map(|age| self.seen.at.saturating_sub(age))
    }

    /// A silence that began then began no earlier than it was heard last.
    fn since_heard(&self, since: Duration) -> Duration {
        self.heard().map_or(since, |heard| since.max(heard))
    }
}

/// Replication has not heard from it.
const SILENT: Reasons = Reasons::of(&[Reason::ContactLost, Reason::NoContactYet]);

/// Discovery does not say that it is alive.
const DISCOVERY: Reasons =
    Reasons::of(&[Reason::DiscoveryFailed, Reason::DiscoveryLeft, Reason::DiscoveryAbsent]);
