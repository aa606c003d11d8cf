//! Redundancy zones: one voter a zone, the others stand by, and a zone that is lost is stood in for.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::electorate::{Ballot, Candidate, Electorate, Standing, wishes};
use crate::autopilot::{
    Config, NodeType, Policy, Promoter, ServerExt, ServerId, ServerState, State, StateExt, Verdict,
    Wishes, Zone,
};

/// One voter in each zone, the rest standing by.
///
/// - A voter that is lost hands its vote to the best server standing by in its zone.
/// - Where a whole zone is lost, a server of another zone votes in its stead, from the zone with
///   most healthy servers. It gives the vote back in the same change in which the zone returns.
/// - There are as many votes as zones, and at least three while there are servers for them;
///   or as many as the target says, spread over the zones as evenly as can be.
/// - A zone that is only just joining claims its vote once a server of it is stable.
///
/// The zone is the tag that [`Config::redundancy_zone_tag`] names, or the server's own zone where
/// that is empty. A server without a zone is a zone to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    target: Option<usize>,
}

/// Where a server stands: in a zone, or alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Zone(&'a str),
    Alone(&'a ServerId),
}

impl<'a> Place<'a> {
    fn of(config: &Config, server: &'a ServerState) -> Self {
        zone(config, server).map_or(Self::Alone(&server.server.id), Self::Zone)
    }
}

fn zone<'a>(config: &Config, server: &'a ServerState) -> Option<&'a str> {
    let zone = match config.redundancy_zone_tag.as_str() {
        "" => server.server.zone.as_deref(),
        tag => server.tag(tag),
    };
    zone.filter(|zone| !zone.is_empty())
}

impl Zones {
    /// One voter a zone.
    pub fn new() -> Self {
        Self::default()
    }

    /// `voters` in all, at least one, spread over the zones.
    #[must_use]
    pub fn with_target(voters: usize) -> Self {
        Self { target: Some(voters.max(1)) }
    }

    /// How many vote.
    fn seats(self, ballot: &Ballot<'_>) -> usize {
        if let Some(target) = self.target {
            return target;
        }
        let (mut standing, mut all) = (BTreeSet::new(), BTreeSet::new());
        for server in ballot.state.members().filter(|s| !s.server.read_replica) {
            let place = Place::of(ballot.config, server);
            all.insert(place);
            // What failed still has its claim; what has just come, or come back, not yet.
            let failed = server.health.verdict == Verdict::Unhealthy && server.joining.is_none();
            let listed = ballot.candidates.iter().any(|c| *c.id() == server.server.id);
            if failed || listed {
                standing.insert(place);
            }
        }
        // Whoever stands in for a zone does so until the zone is back.
        let hold = ballot.count(Standing::Holds);
        hold.clamp(standing.len().max(3), all.len().max(3))
    }
}

impl Electorate for Zones {
    /// Seat by seat to the zone with fewest: whoever votes already, then the zone with most
    /// healthy servers, then the better server. The lost keep a vote that nobody else can take.
    fn elect(&self, ballot: &Ballot<'_>) -> Vec<ServerId> {
        let config = ballot.config;
        let mut healthy: BTreeMap<Place, usize> = BTreeMap::new();
        for server in ballot.state.members() {
            let well = server.health.verdict == Verdict::Healthy && !server.server.read_replica;
            *healthy.entry(Place::of(config, server)).or_default() += usize::from(well);
        }
        let mut seated: BTreeMap<Place, usize> = BTreeMap::new();
        let mut rest: Vec<&Candidate> = ballot.candidates.iter().collect();
        let mut elected = Vec::new();
        for _ in 0..self.seats(ballot).min(rest.len()) {
            let wanted = |c: &Candidate| {
                let place = Place::of(config, c.server);
                let seats = seated.get(&place).copied().unwrap_or_default();
                let healthy = Reverse(healthy.get(&place).copied().unwrap_or_default());
                (!c.is_fit(), seats, c.standing, healthy)
            };
            let Some(best) = (0..rest.len()).min_by_key(|i| (wanted(rest[*i]), *i)) else { break };
            let best = rest.remove(best);
            *seated.entry(Place::of(config, best.server)).or_default() += 1;
            elected.push(best.id().clone());
        }
        elected
    }

    fn spread(&self, ballot: &Ballot<'_>, servers: &[ServerId]) -> usize {
        let found = servers.iter().filter_map(|id| ballot.state.server(id));
        found.map(|server| Place::of(ballot.config, server)).collect::<BTreeSet<_>>().len()
    }
}

impl Promoter for Zones {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        wishes(self, config, state)
    }

    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        let Some(own) = zone(config, server) else {
            let replica = server.server.read_replica;
            return if replica { NodeType::READ_REPLICA } else { NodeType::VOTER };
        };
        let voters = state.voters().filter(|s| zone(config, s) == Some(own));
        let first = voters.min_by(|a, b| state.order(a, b));
        if server.server.read_replica {
            NodeType::READ_REPLICA
        } else if first.is_none_or(|first| first.server.id == server.server.id) {
            NodeType::ZONE_VOTER
        } else if server.role.votes() {
            NodeType::ZONE_EXTRA_VOTER
        } else {
            NodeType::ZONE_STANDBY
        }
    }

    fn server_ext(&self, config: &Config, _: &State, server: &ServerState) -> ServerExt {
        let redundancy_zone = zone(config, server).map(str::to_owned);
        ServerExt { redundancy_zone, ..ServerExt::default() }
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        let mut zones: BTreeMap<String, Zone> = BTreeMap::new();
        let mut healthy: BTreeMap<&str, usize> = BTreeMap::new();
        for server in state.members().filter(|s| !s.server.read_replica) {
            let Some(name) = zone(config, server) else { continue };
            let zone = zones.entry(name.to_owned()).or_default();
            zone.servers.push(server.server.id.clone());
            if server.role.votes() {
                zone.voters.push(server.server.id.clone());
            }
            let well = healthy.entry(name).or_default();
            *well += usize::from(server.health.verdict == Verdict::Healthy);
            zone.failure_tolerance = well.saturating_sub(1);
        }
        let tolerance = self.optimistic_failure_tolerance(&Ballot::new(config, state));
        StateExt {
            optimistic_failure_tolerance: Some(tolerance),
            redundancy_zones: zones,
            ..StateExt::default()
        }
    }

    fn policy(&self) -> Option<Policy> {
        Some(Policy::Zones { target: self.target })
    }
}
