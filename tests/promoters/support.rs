//! What the tests of the promoters share: servers, worlds, and short questions about them.

use std::time::Duration;

use raft_autopilot::{
    autopilot::{Config, Promoter, Role, Server, ServerId, StateExt, Step, UpgradeInfo},
    rehearse::World,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn config() -> Config {
    Config::for_heartbeat(Duration::from_millis(50))
}

pub(crate) fn world() -> World {
    World::new(config())
}

/// `id`, or `id@zone`, or `id:version`, or `id@zone:version`; an id ending in `r` is a read replica.
pub(crate) fn server(text: &str) -> Server {
    let (rest, version) = text.split_once(':').unwrap_or((text, ""));
    let (id, zone) = rest.split_once('@').map_or((rest, None), |(id, zone)| (id, Some(zone)));
    let mut server = Server::new(id, format!("{id}:1"));
    server.zone = zone.map(str::to_owned);
    version.clone_into(&mut server.version);
    server.read_replica = id.ends_with('r');
    server
}

/// A settled cluster: these vote, those do not, and all have been healthy for a minute.
pub(crate) fn cluster(voters: &str, learners: &str) -> World {
    let mut world = world();
    add(&mut world, voters, Role::Voter);
    add(&mut world, learners, Role::Learner);
    // Somebody who wishes nothing looks on meanwhile.
    world.run(&Content, MINUTE);
    assert!(world.steps().is_empty());
    world
}

pub(crate) fn add(world: &mut World, servers: &str, role: Role) {
    for text in servers.split_whitespace() {
        world.insert(server(text), role);
    }
}

/// Wishes nothing.
#[derive(Debug)]
pub(crate) struct Content;

impl Promoter for Content {
    fn wishes(
        &self,
        _: &Config,
        _: &raft_autopilot::autopilot::State,
    ) -> raft_autopilot::autopilot::Wishes {
        raft_autopilot::autopilot::Wishes::default()
    }
}

pub(crate) fn ids(text: &str) -> Vec<ServerId> {
    text.split_whitespace().map(ServerId::from).collect()
}

pub(crate) fn votes(promote: &str, demote: &str) -> Step {
    Step::Votes { promote: ids(promote), demote: ids(demote) }
}

pub(crate) fn transfer(to: &str) -> Step {
    Step::Transfer { to: to.into() }
}

/// The voters, by id, the leader marked with a star.
pub(crate) fn voters(world: &World) -> String {
    let star = |id: &ServerId| if world.leader() == Some(id) { "*" } else { "" };
    let voters: Vec<String> = world.voters().iter().map(|id| format!("{id}{}", star(id))).collect();
    voters.join(" ")
}

pub(crate) fn ext(world: &mut World, promoter: &dyn Promoter) -> StateExt {
    let (config, state) = (world.config.clone(), world.assess());
    promoter.state_ext(&config, &state)
}

pub(crate) fn upgrade(world: &mut World, promoter: &dyn Promoter) -> UpgradeInfo {
    ext(world, promoter).upgrade.unwrap()
}

pub(crate) fn status(world: &mut World, promoter: &dyn Promoter) -> &'static str {
    upgrade(world, promoter).status.as_str()
}

pub(crate) fn node_type(world: &mut World, promoter: &dyn Promoter, id: &str) -> String {
    let (config, state) = (world.config.clone(), world.assess());
    let server = state.server(&id.into()).unwrap();
    promoter.node_type(&config, &state, server).to_string()
}
