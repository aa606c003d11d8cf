//! Histories of a cluster: what befalls its servers, drawn at random and shrunk to the least that matters.

use std::{fmt, time::Duration};

use proptest::prelude::*;

use crate::{
    autopilot::{Config, IntentKind, Promoter, Record, Role, Server, ServerId},
    rehearse::World,
};

/// What a cluster begins with: the description of each server, and whether it votes.
#[derive(Clone)]
pub(super) struct Beginning {
    pub(super) servers: Vec<(Server, Role)>,
    /// Numbers of those that are down from the start.
    pub(super) down: Vec<usize>,
}

impl fmt::Debug for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (server, role)) in self.servers.iter().enumerate() {
            let down = if self.down.contains(&i) { ", down" } else { "" };
            let zone = server.zone.as_deref().unwrap_or("-");
            let version = &server.version;
            let replica = if server.read_replica { ", read replica" } else { "" };
            let id = &server.id;
            write!(f, "{id} ({role:?}{down}, zone {zone}, version {version}{replica}) ")?;
        }
        Ok(())
    }
}

impl Beginning {
    /// The cluster, and `None` where it could never have led.
    pub(super) fn world(&self, config: &Config) -> Option<World> {
        let mut world = World::new(config.clone());
        world.update_interval = Duration::from_secs(45);
        for (server, role) in &self.servers {
            world.insert(server.clone(), *role);
        }
        for down in &self.down {
            world.kill(self.servers[*down].0.id.as_str(), Duration::ZERO);
        }
        world.has_quorum().then_some(world)
    }

    fn id(&self, number: usize) -> ServerId {
        self.servers[number % self.servers.len()].0.id.clone()
    }
}

/// Something that befalls a cluster.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A server goes silent.
    Kill(usize),
    /// It answers again.
    Heal(usize),
    /// An operator keeps it from gaining anything.
    Cordon(usize),
    /// No more.
    Uncordon(usize),
    /// An operator announces its restart.
    Reboot(usize),
    /// Leadership cannot be given to it.
    Refuse(usize),
    /// It runs another version now.
    Upgrade(usize),
    /// Seconds pass.
    Pass(u16),
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let who = 0..9_usize;
    prop_oneof![
        4 => who.clone().prop_map(Event::Kill),
        4 => who.clone().prop_map(Event::Heal),
        1 => who.clone().prop_map(Event::Cordon),
        1 => who.clone().prop_map(Event::Uncordon),
        1 => who.clone().prop_map(Event::Reboot),
        1 => who.clone().prop_map(Event::Refuse),
        1 => who.prop_map(Event::Upgrade),
        6 => (1..200_u16).prop_map(Event::Pass),
    ]
}

/// Three to seven servers; which of them vote, are read replicas, or are on a newer version.
pub(super) fn beginning(dress: fn(&mut Server, usize)) -> impl Strategy<Value = Beginning> {
    let one = (any::<bool>(), 0..3_u8, 0..8_u8, prop_oneof![Just("1.0"), Just("2.0")]);
    prop::collection::vec(one, 3..8).prop_map(move |found| {
        let server = |(i, (votes, zone, replica, version)): (usize, (bool, u8, u8, &str))| {
            let mut server = named(i);
            server.zone = Some(char::from(b'x' + zone).to_string());
            version.clone_into(&mut server.version);
            server.read_replica = replica == 0 && i > 0;
            dress(&mut server, i);
            let votes = (votes || i == 0) && !server.read_replica;
            (server, if votes { Role::Voter } else { Role::Learner })
        };
        let servers = found.into_iter().enumerate().map(server).collect();
        Beginning { servers, down: Vec::new() }
    })
}

/// The server with this number: `a`, `b`, and so on.
pub(super) fn named(number: usize) -> Server {
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let id = letters[number % letters.len()];
    Server::new(id, format!("{id}:1"))
}

/// Lets the events happen, then makes everybody well; `None` where it could never have led.
pub(super) fn live(
    config: &Config,
    promoter: &dyn Promoter,
    beginning: &Beginning,
    events: &[Event],
) -> Option<World> {
    let mut world = beginning.world(config)?;
    for event in events {
        happen(&mut world, beginning, event, promoter);
    }
    for (server, _) in &beginning.servers {
        world.heal(server.id.as_str());
        world.record(Record::Uncordon(server.id.clone()));
        world.record(Record::Unintend(server.id.clone()));
    }
    world.refuses_leadership.clear();
    Some(world)
}

fn happen(world: &mut World, beginning: &Beginning, event: &Event, promoter: &dyn Promoter) {
    match event {
        Event::Kill(n) => world.kill(beginning.id(*n).as_str(), Duration::ZERO),
        Event::Heal(n) => world.heal(beginning.id(*n).as_str()),
        Event::Cordon(n) => {
            let (server, reason) = (beginning.id(*n), "a test".to_owned());
            world.record(Record::Cordon { server, reason, ttl: None });
        }
        Event::Uncordon(n) => world.record(Record::Uncordon(beginning.id(*n))),
        Event::Reboot(n) => {
            let (server, ttl) = (beginning.id(*n), Duration::from_secs(120));
            world.record(Record::Intend { server, kind: IntentKind::Reboot, ttl });
        }
        Event::Refuse(n) => {
            world.refuses_leadership.insert(beginning.id(*n));
        }
        Event::Upgrade(n) => {
            world.describe(beginning.id(*n).as_str(), |server| {
                "2.0".clone_into(&mut server.version);
            });
        }
        Event::Pass(seconds) => {
            world.run(promoter, Duration::from_secs(u64::from(*seconds)));
        }
    }
}
