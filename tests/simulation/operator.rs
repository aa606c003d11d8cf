//! An operator who gives orders to autopilot, and changes the membership behind its back, while
//! everything else happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use raft_autopilot::autopilot::{
    Config, Handle, Held, IntentKind, Reason, Record, Server, ServerId, VerbError, Why,
};

use crate::autopilot::{name, number};
use crate::dice::Dice;
use crate::network::forget;
use crate::types::{self, Command, Raft, TypeConfig, address, clock, sleep};
use crate::world::World;

/// A change that is made past autopilot, by openraft's own calls.
#[derive(Clone, Copy, Debug)]
enum Raw {
    Transfer(u64),
    Add(u64),
    Promote(u64),
    Demote(u64),
    Remove(u64),
    /// Stores the configuration that the run began with.
    Configure,
}

/// A verb of autopilot's handle.
#[derive(Clone, Debug)]
enum Verb {
    Add(u64),
    /// Adds a server that was removed before, which must be refused.
    AddAgain(u64),
    Remove(u64),
    Replace(u64, u64),
    Promote(u64),
    Demote(u64),
    Transfer(Option<u64>),
    Readdress(u64, String),
    Pause,
    Resume,
    Cordon(u64, Option<Duration>),
    Uncordon(u64),
    Intend(u64, IntentKind, Duration),
    Configure(Box<Config>),
    CleanUp,
}

/// How a verb is given.
#[derive(Clone, Copy, Debug)]
struct Manner {
    forced: bool,
    /// The verb's own deadline.
    ttl: Duration,
    /// How long the operator waits for the answer.
    patience: Duration,
}

/// Gives orders until the given time; they overlap, and one in three is abandoned half-way.
pub(crate) async fn work(world: Arc<World>, until: Duration) {
    let mut operator = Operator { dice: Dice::new(world.seed, "operator"), fresh: 100, world };
    while clock() < until {
        sleep(operator.dice.millis(300, 3000)).await;
        operator.work();
    }
    operator.tidy_up().await;
}

struct Operator {
    world: Arc<World>,
    dice: Dice,
    /// The next id that was never used.
    fresh: u64,
}

impl Operator {
    fn work(&mut self) {
        let Some((leader, raft)) = self.world.leader() else { return };
        if self.dice.percent(50) {
            self.replace_bare_servers(false);
        }
        if self.dice.percent(30) {
            let Some(raw) = self.raw(leader, &raft) else { return };
            let abandoned = self.dice.percent(33);
            let patience =
                if abandoned { self.dice.millis(1, 10) } else { self.dice.millis(500, 3000) };
            self.world.oracle.note(format_args!("operator changes n{leader}: {raw:?}"));
            forget(change(self.world.clone(), raft, raw, patience));
        } else {
            // One in ten asks whoever it takes for the leader, and is mistaken.
            let asked =
                if self.dice.percent(10) { self.dice.pick(&self.world.up()) } else { Some(leader) };
            let Some(handle) = asked.and_then(|id| self.world.autopilot(id)) else { return };
            let Some(verb) = self.verb(leader, &raft, &handle) else { return };
            let abandoned = self.dice.percent(33);
            let manner = Manner {
                forced: self.dice.percent(25),
                ttl: self.dice.millis(500, 12_000),
                patience: self.dice.millis(1, if abandoned { 10 } else { 12_000 }),
            };
            self.world.oracle.note(format_args!("operator asks {asked:?}: {verb:?} {manner:?}"));
            forget(ask(self.world.clone(), handle, verb, manner).map(drop));
        }
    }

    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.world.start(self.fresh);
        self.fresh
    }

    fn raw(&mut self, leader: u64, raft: &Raft) -> Option<Raw> {
        let (voters, learners) = members(leader, raft);
        // Who has lost its disk does not count either.
        let dead = |id: &u64| self.world.is_dead(*id) || self.world.lost_disk(*id);
        let living = voters.iter().filter(|id| !dead(id)).count() + 1;
        let dead_voters = voters.len() + 1 - living;
        // A person knows better than to give the majority to the dead.
        let spare = living > dead_voters + 2;
        let dice = &mut self.dice;
        match dice.below(10) {
            0 | 1 => dice.pick(&voters).map(Raw::Transfer),
            2 | 3 if voters.len() + learners.len() < 6 => Some(Raw::Add(self.fresh())),
            4 | 5 if voters.len() < 6 => {
                dice.pick(&learners).filter(|id| !dead(id)).map(Raw::Promote)
            }
            6 if spare => dice.pick(&voters).map(Raw::Demote),
            7 if spare => dice.pick(&voters).map(Raw::Remove),
            8 => dice.pick(&learners).map(Raw::Remove),
            _ => Some(Raw::Configure),
        }
    }

    fn verb(&mut self, leader: u64, raft: &Raft, handle: &Handle) -> Option<Verb> {
        let (voters, learners) = members(leader, raft);
        let all = [&voters[..], &learners[..], &[leader]].concat();
        let gone = self.world.oracle.gone();
        let dice = &mut self.dice;
        let ttl = dice.millis(1000, 8000);
        Some(match dice.below(20) {
            0 | 1 if all.len() < 7 => Verb::Add(self.fresh()),
            2 => Verb::AddAgain(dice.pick(&gone)?),
            3 | 4 if all.len() > 3 => Verb::Remove(dice.pick(&all)?),
            5 if all.len() < 7 => {
                let old = dice.pick(&all)?;
                Verb::Replace(old, self.fresh())
            }
            6 => Verb::Promote(dice.pick(&learners)?),
            7 => Verb::Demote(dice.pick(&voters)?),
            8 => Verb::Demote(leader),
            9 | 10 => Verb::Transfer(dice.pick(&voters)),
            11 => Verb::Transfer(None),
            12 => {
                let (id, port) = (dice.pick(&all)?, 2 + dice.below(3));
                let machine = if dice.percent(70) { id } else { dice.pick(&all)? };
                Verb::Readdress(id, format!("server-{machine}:{port}"))
            }
            13 => Verb::Pause,
            14 => Verb::Resume,
            15 => Verb::Cordon(dice.pick(&all)?, dice.percent(80).then_some(ttl)),
            16 => Verb::Uncordon(dice.pick(&all)?),
            17 => {
                let kinds = [IntentKind::Drain, IntentKind::Reboot, IntentKind::Upgrade];
                Verb::Intend(dice.pick(&all)?, dice.pick(&kinds)?, ttl)
            }
            18 => {
                let view = handle.view();
                let mut config = Config::clone(&view.config);
                config.dead_server_last_contact_threshold = Duration::from_secs(60);
                config.min_quorum = u32::try_from(dice.below(5)).expect("a small number");
                config.server_stabilization_time = dice.millis(500, 6000);
                Verb::Configure(Box::new(config))
            }
            _ => Verb::CleanUp,
        })
    }

    /// What a person does about a server that was reborn without its disk, which autopilot reports
    /// and may not decide: takes it out by force, and lets a new one join in its place. Where
    /// autopilot cannot, because too few voters are left that count, it does so `by_hand`.
    fn replace_bare_servers(&mut self, by_hand: bool) {
        let Some((leader, raft)) = self.world.leader() else { return };
        let Some(handle) = self.world.autopilot(leader) else { return };
        let Some(state) = handle.state() else { return };
        let bare = |s: &raft_autopilot::autopilot::ServerState| {
            s.health.reasons.contains(Reason::LogShrank)
        };
        let bare: Vec<u64> =
            state.members().filter(|s| bare(s)).map(|s| number(&s.server.id)).collect();
        let manner =
            Manner { forced: true, ttl: Duration::from_secs(3), patience: Duration::from_secs(4) };
        for old in bare {
            let new = self.fresh();
            self.world.oracle.note(format_args!("operator replaces the bare n{old} by n{new}"));
            let (world, raft, handle) = (self.world.clone(), raft.clone(), handle.clone());
            forget(async move {
                let removed = ask(world.clone(), handle.clone(), Verb::Remove(old), manner).await;
                if !removed && by_hand && old != leader {
                    change(world.clone(), raft, Raw::Remove(old), manner.patience).await;
                }
                ask(world, handle, Verb::Add(new), manner).await;
            });
        }
    }

    /// After all trouble: ends pauses, and cordons that keep a joint membership open; replaces what
    /// has lost its disk; mends dead machines if there is no leader without them.
    async fn tidy_up(&mut self) {
        let mut leaderless = 0;
        loop {
            sleep(Duration::from_secs(3)).await;
            let Some((leader, _)) = self.world.leader() else {
                leaderless += 1;
                if leaderless == 3 {
                    self.world.revive();
                }
                continue;
            };
            let Some(handle) = self.world.autopilot(leader) else { continue };
            let paused = handle.view().running == raft_autopilot::autopilot::Running::Paused;
            let handle = handle.within(Duration::from_secs(1));
            if paused && let Err(error) = handle.resume().await {
                self.world.oracle.note(format_args!("operator cannot resume: {error}"));
            }
            // Nobody who keeps a vote may lead, if it is them that somebody has cordoned.
            let no_target = |held: &Held| matches!(held.why, Why::NoTarget);
            let stuck = handle.view().plan.held.iter().any(no_target);
            let state = handle.state().filter(|state| stuck || state.membership.joint);
            for id in state.iter().flat_map(|state| state.members()).map(|s| &s.server.id) {
                let cordoned = state.as_ref().is_some_and(|state| state.cordoned(id).is_some());
                if cordoned && let Err(error) = handle.uncordon(id.clone()).await {
                    self.world.oracle.note(format_args!("operator cannot uncordon: {error}"));
                }
            }
            self.replace_bare_servers(true);
        }
    }
}

/// The voters and the learners that the leader knows, without itself.
fn members(leader: u64, raft: &Raft) -> (Vec<u64>, Vec<u64>) {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let voters = membership.voter_ids().filter(|id| *id != leader).collect();
    (voters, membership.learner_ids().filter(|id| *id != leader).collect())
}

/// Lets those of the first five who did not form the cluster join it, by asking whoever leads.
pub(crate) async fn found(world: Arc<World>) {
    let joining: Vec<u64> = (1..=5).filter(|id| !world.character.founders.contains(id)).collect();
    for id in joining {
        world.start(id);
        loop {
            sleep(Duration::from_millis(100)).await;
            let Some((leader, _)) = world.leader() else { continue };
            let Some(handle) = world.autopilot(leader) else { continue };
            let added = handle.within(Duration::from_secs(5)).add(server(id)).await;
            world.oracle.note(format_args!("n{id} joins: {added:?}"));
            if added.is_ok() || world.oracle.gone().contains(&id) {
                break;
            }
        }
    }
}

fn server(id: u64) -> Server {
    Server::new(name(id), address(id))
}

/// Gives a verb; returns whether it was carried out in time.
async fn ask(world: Arc<World>, handle: Handle, verb: Verb, manner: Manner) -> bool {
    let handle = handle.within(manner.ttl);
    let handle = if manner.forced { handle.forced("the operator knows better") } else { handle };
    let (asked, text) = (verb.clone(), format!("{verb:?}"));
    let answered = TypeConfig::timeout(manner.patience, carry_out(handle, asked)).await;
    let Ok(answer) = answered else {
        world.oracle.note(format_args!("operator has no answer to {text}"));
        return false;
    };
    world.oracle.note(format_args!("{text} is answered: {answer:?}"));
    let oracle = &world.oracle;
    let (gone, is_ok) = (oracle.gone(), answer.is_ok());
    match verb {
        Verb::Remove(id) if is_ok && oracle.has(id) => {
            oracle.violated(format_args!("n{id} is said to be removed, and is not"));
        }
        Verb::Add(id) if is_ok && !gone.contains(&id) && !oracle.has(id) => {
            oracle.violated(format_args!("n{id} is said to be added, and is not"));
        }
        Verb::AddAgain(id) if is_ok => {
            oracle.violated(format_args!("n{id} was removed, and is said to be added again"));
        }
        _ => {}
    }
    is_ok
}

async fn carry_out(handle: Handle, verb: Verb) -> Result<(), VerbError> {
    let id = |id: u64| -> ServerId { name(id) };
    match verb {
        Verb::Add(new) | Verb::AddAgain(new) => handle.add(server(new)).await,
        Verb::Remove(old) => handle.remove(id(old)).await,
        Verb::Replace(old, new) => handle.replace(id(old), server(new)).await,
        Verb::Promote(learner) => handle.promote(id(learner)).await,
        Verb::Demote(voter) => handle.demote(id(voter)).await,
        Verb::Transfer(to) => handle.transfer(to.map(id)).await,
        Verb::Readdress(server, address) => handle.readdress(id(server), address).await,
        Verb::Pause => handle.pause("the operator thinks").await,
        Verb::Resume => handle.resume().await,
        Verb::Cordon(server, ttl) => handle.cordon(id(server), "it smells", ttl).await,
        Verb::Uncordon(server) => handle.uncordon(id(server)).await,
        Verb::Intend(server, kind, ttl) => handle.intend(id(server), kind, ttl).await,
        Verb::Configure(config) => {
            let cas = handle.view().modify_index;
            handle.configure(*config, Some(cas)).await
        }
        Verb::CleanUp => handle.remove_dead_servers().await,
    }
}

async fn change(world: Arc<World>, raft: Raft, raw: Raw, patience: Duration) {
    let change = match raw {
        Raw::Transfer(id) => return drop(raft.trigger().transfer_leader(id).await),
        Raw::Configure => return configure(&world, &raft, patience).await,
        Raw::Add(id) => ChangeMembers::AddNodes([(id, types::Server::of(id))].into()),
        Raw::Promote(id) => ChangeMembers::AddVoterIds([id].into()),
        Raw::Demote(id) | Raw::Remove(id) => ChangeMembers::RemoveVoters([id].into()),
    };
    let done = TypeConfig::timeout(patience, raft.change_membership(change, true)).await;
    if let Raw::Remove(id) = raw
        && matches!(done, Ok(Ok(_)))
    {
        let node = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        if let Ok(Ok(_)) = TypeConfig::timeout(patience, raft.change_membership(node, true)).await {
            world.retire(id);
        }
    }
}

/// Stores the configuration of the run.
pub(crate) async fn configure(world: &World, raft: &Raft, patience: Duration) {
    let config = world.character.stored.clone();
    let record = Command::Record(Box::new(Record::Configure { config, cas: None }));
    drop(TypeConfig::timeout(patience, raft.client_write(record)).await);
}
