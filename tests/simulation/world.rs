//! The world of one run: servers that start, crash, restart and lose their disks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use raft_autopilot::autopilot::{Handle, NodeStatus, ServerId};

use crate::autopilot::name;
use crate::character::{Character, ELECTION, HEARTBEAT};
use crate::disk::Disk;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::process::Process;
use crate::store::Store;
use crate::transport::Links;
use crate::types::{Raft, Server, clock, sleep};
use crate::work::Work;

/// What runs beside openraft in every process: made anew at every start, dropped by a crash.
pub(crate) type Rider = Arc<dyn Fn(Seat) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a rider gets of the process that it rides on.
pub(crate) struct Seat {
    pub(crate) id: u64,
    /// Which start of the server this is, from 1.
    pub(crate) boot: u64,
    pub(crate) raft: Raft,
    pub(crate) world: Arc<World>,
}

/// All there is. It is driven by tasks outside every process: faults, operator, clients.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) character: Character,
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) network: Network,
    config: Arc<Config>,
    rider: Rider,
    discovery: Mutex<Discovery>,
    servers: Mutex<BTreeMap<u64, Machine>>,
}

/// How discovery answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Discovery {
    #[default]
    Whole,
    Silent,
    /// It lists no more than so many.
    Less(usize),
}

/// One server's hardware, and the process that runs on it.
struct Machine {
    disk: Disk,
    store: Store,
    process: Option<Arc<Process>>,
    /// The start of every boot so far, the first first.
    boots: Vec<Duration>,
    /// The autopilot of the process that runs.
    autopilot: Option<Handle>,
    /// The hosted store and the member of the process that runs.
    work: Option<Work>,
    /// Down for so long that nobody waits for it.
    dead: bool,
    retired: bool,
    /// Set when it lost its disk: the last index that it had promised to keep.
    owes: Option<u64>,
    /// How many boots it had when its disk was new.
    wiped: u64,
}

impl Machine {
    fn new(id: u64, disk: Disk, oracle: Arc<Oracle>) -> Self {
        Self {
            store: Store::new(id, 0, disk.clone(), oracle),
            disk,
            process: None,
            boots: Vec::new(),
            autopilot: None,
            work: None,
            dead: false,
            retired: false,
            owes: None,
            wiped: 0,
        }
    }
}

impl World {
    /// A world with no server yet.
    pub(crate) fn new(
        seed: u64,
        character: Character,
        oracle: Arc<Oracle>,
        rider: Rider,
    ) -> Arc<Self> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).expect("a short time");
        let config = Config {
            heartbeat_interval: millis(HEARTBEAT),
            election_timeout_min: millis(ELECTION.0),
            election_timeout_max: millis(ELECTION.1),
            enable_pre_vote: Some(true),
            // A restored leader that lost the unflushed end of its log in the crash would write
            // other entries under log ids that its followers have already committed.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(200),
            max_in_snapshot_log_to_keep: 50,
            replication_lag_threshold: 400,
            ..Config::default()
        };
        Arc::new(Self {
            seed,
            character,
            network: Network::new(seed, oracle.clone()),
            oracle,
            config: Arc::new(config.validate().expect("a valid configuration")),
            rider,
            discovery: Mutex::default(),
            servers: Mutex::default(),
        })
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<u64, Machine>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a server's process; a new id gets a new machine with an empty disk. Does nothing if
    /// it is up, dead or retired.
    pub(crate) fn start(self: &Arc<Self>, id: u64) {
        let oracle = self.oracle.clone();
        let process = Process::new(move |text| {
            oracle.violated(format_args!("a task of n{id} panicked: {text}"));
        });
        let boot = {
            let mut servers = self.servers();
            let machine = servers.entry(id).or_insert_with(|| {
                let disk = Disk::new(self.seed, id);
                Machine::new(id, disk, self.oracle.clone())
            });
            if machine.process.is_some() || machine.dead || machine.retired {
                return;
            }
            machine.boots.push(clock());
            let boot = machine.boots.len() as u64;
            machine.store = Store::new(id, boot, machine.disk.clone(), self.oracle.clone());
            machine.process = Some(process.clone());
            boot
        };
        self.oracle.note(format_args!("n{id} starts, boot {boot}"));
        process.spawn(self.clone().run(id, boot));
    }

    async fn run(self: Arc<Self>, id: u64, boot: u64) {
        let Some((disk, store)) = self.hardware(id) else { return };
        let links = Links { id, network: self.network.clone() };
        match Raft::new(id, self.config.clone(), links, disk, store).await {
            Ok(raft) => {
                self.network.listen(id, raft.clone());
                (self.rider)(Seat { id, boot, raft, world: self.clone() }).await;
            }
            Err(error) => self.oracle.violated(format_args!("n{id} cannot start: {error}")),
        }
    }

    fn hardware(&self, id: u64) -> Option<(Disk, Store)> {
        self.servers().get(&id).map(|machine| (machine.disk.clone(), machine.store.clone()))
    }

    /// A server's disk, to break it.
    pub(crate) fn disk(&self, id: u64) -> Option<Disk> {
        self.hardware(id).map(|(disk, _)| disk)
    }

    /// A server's state machine as of its last start.
    pub(crate) fn store(&self, id: u64) -> Option<Store> {
        self.hardware(id).map(|(_, store)| store)
    }

    /// Kills a server's process and loses what its disk had not flushed. Does nothing if it is
    /// down.
    pub(crate) fn crash(&self, id: u64) {
        let Some((process, disk, handles)) = self.servers().get_mut(&id).and_then(|machine| {
            let handles = (machine.autopilot.take(), machine.work.take());
            Some((machine.process.take()?, machine.disk.clone(), handles))
        }) else {
            return;
        };
        drop(handles);
        self.oracle.note(format_args!("n{id} crashes"));
        self.network.hang_up(id);
        process.kill();
        disk.crash();
    }

    /// Takes a server away for good.
    pub(crate) fn retire(&self, id: u64) {
        self.crash(id);
        if let Some(machine) = self.servers().get_mut(&id) {
            machine.retired = true;
            self.oracle.note(format_args!("n{id} is retired"));
        }
    }

    /// Crashes a server and replaces its disk by an empty one, if Raft can survive that: if the
    /// disks of all others hold all that this one promised, the entries and the vote. Then every
    /// quorum that it was part of has an honest witness. Whoever was the only voter once never does:
    /// with the beginning of the log alone it would elect itself. Returns whether it did.
    pub(crate) fn crash_and_wipe(&self, id: u64) -> bool {
        if !self.may_lose_disk(id) {
            return false;
        }
        self.crash(id);
        if let Some(machine) = self.servers().get_mut(&id) {
            machine.owes = machine.owes.max(machine.disk.last_written());
            machine.wiped = machine.boots.len() as u64;
            machine.disk.wipe();
            self.oracle.note(format_args!("n{id} loses its disk"));
        }
        true
    }

    fn may_lose_disk(&self, id: u64) -> bool {
        if self.character.founders == [id] || self.oracle.was_alone(id) {
            return false;
        }
        let mut voters = BTreeSet::new();
        // Whoever is down counts with what it knew: it may come back, and stand for election by it.
        let disks = self.ids().into_iter().filter_map(|id| self.disk(id));
        for membership in disks.filter_map(|disk| disk.last_membership()) {
            if membership.get_joint_config().len() > 1 {
                return false;
            }
            let named: BTreeSet<u64> = membership.voter_ids().collect();
            // Of two voters both are the quorum, and an empty one commits nothing.
            if named.contains(&id) && named.len() < 3 {
                return false;
            }
            // Nor does a voter count that lost its disk before: those that do stay a quorum.
            let whole = named.iter().filter(|other| **other != id && !self.lost_disk(**other));
            if whole.count() <= named.len() / 2 {
                return false;
            }
            voters.extend(named);
        }
        let Some(own) = self.disk(id) else { return false };
        let (vote, _) = own.survives();
        let others = voters.iter().filter(|voter| **voter != id);
        let mut witnesses = 0;
        for other in others {
            if self.network.raft(*other).is_none() {
                return false;
            }
            let Some(disk) = self.disk(*other) else { return false };
            let (their_vote, their_last) = disk.survives();
            if their_vote != vote || their_last < own.last_written() {
                return false;
            }
            witnesses += 1;
        }
        witnesses >= 2 && vote.is_some_and(|vote| openraft::vote::RaftVote::is_committed(&vote))
    }

    /// Gives the operator the autopilot of a process that runs.
    pub(crate) fn board(&self, id: u64, handle: Handle) {
        if let Some(machine) = self.servers().get_mut(&id) {
            machine.autopilot = Some(handle);
        }
    }

    /// The autopilot of a server, if it is up.
    pub(crate) fn autopilot(&self, id: u64) -> Option<Handle> {
        self.servers().get(&id)?.autopilot.clone()
    }

    /// Tells everybody how to reach the hosted store of a process that runs.
    pub(crate) fn employ(&self, id: u64, work: Work) {
        if let Some(machine) = self.servers().get_mut(&id) {
            machine.work = Some(work);
        }
    }

    /// The hosted store and the member of a server, if it is up.
    pub(crate) fn work(&self, id: u64) -> Option<Work> {
        self.servers().get(&id)?.work.clone()
    }

    /// Kills a server's process for so long that nobody waits for it, if a quorum of the voters
    /// and one more are not dead then. Returns whether it did.
    pub(crate) fn kill_for_long(&self, id: u64) -> bool {
        let Some((leader, raft)) = self.leader() else { return false };
        let enough = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let dead = |voter: &u64| *voter == id || self.is_dead(*voter);
            let configs = metrics.membership_config.membership().get_joint_config();
            configs.iter().all(|voters| {
                voters.iter().filter(|voter| !dead(voter)).count() > voters.len() / 2 + 1
            })
        };
        if leader == id || !enough {
            return false;
        }
        self.crash(id);
        if let Some(machine) = self.servers().get_mut(&id) {
            machine.dead = true;
            self.oracle.note(format_args!("n{id} is dead"));
        }
        true
    }

    /// Lets the dead live again.
    pub(crate) fn revive(self: &Arc<Self>) {
        let dead: Vec<u64> = self.ids().into_iter().filter(|id| self.is_dead(*id)).collect();
        for id in dead {
            if let Some(machine) = self.servers().get_mut(&id) {
                machine.dead = false;
            }
            self.start(id);
        }
    }

    pub(crate) fn is_dead(&self, id: u64) -> bool {
        self.servers().get(&id).is_some_and(|machine| machine.dead)
    }

    pub(crate) fn is_up(&self, id: u64) -> bool {
        self.servers().get(&id).is_some_and(|machine| machine.process.is_some())
    }

    /// The latest start of a server, from 1; 0 if it never started.
    pub(crate) fn boot(&self, id: u64) -> u64 {
        self.servers().get(&id).map_or(0, |machine| machine.boots.len() as u64)
    }

    /// The identity of a server's disk: how many boots it had when the disk was new.
    pub(crate) fn disk_identity(&self, id: u64) -> u64 {
        self.servers().get(&id).map_or(0, |machine| machine.wiped)
    }

    /// When a boot of a server began.
    pub(crate) fn started(&self, id: u64, boot: u64) -> Option<Duration> {
        let at = usize::try_from(boot.checked_sub(1)?).ok()?;
        self.servers().get(&id)?.boots.get(at).copied()
    }

    /// Whether a server ever lost its disk: then it never counts as a voter again.
    pub(crate) fn lost_disk(&self, id: u64) -> bool {
        self.servers().get(&id).is_some_and(|machine| machine.owes.is_some())
    }

    /// Whether a server lost its disk and does not hold again what it had promised to keep.
    pub(crate) fn lacks_disk(&self, id: u64) -> bool {
        let servers = self.servers();
        let Some(machine) = servers.get(&id) else { return false };
        machine.owes.is_some_and(|owed| machine.disk.survives().1 < Some(owed))
    }

    /// Whether a server that is dead had the time to say good-bye: every other one.
    fn left(id: u64, machine: &Machine) -> bool {
        machine.dead && id.is_multiple_of(2)
    }

    /// The same by its id.
    pub(crate) fn says_goodbye(&self, id: u64) -> bool {
        self.servers().get(&id).is_some_and(|machine| Self::left(id, machine))
    }

    /// What the servers' own discovery says: all, nothing, or less than all.
    pub(crate) fn discover(&self) -> Option<Vec<(ServerId, NodeStatus)>> {
        let mood = *self.discovery.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = self.servers();
        let listed = servers.iter().filter(|(_, machine)| !machine.retired);
        let listed = listed.map(|(id, machine)| {
            let status = match machine.process {
                Some(_) => NodeStatus::Alive,
                None if Self::left(*id, machine) => NodeStatus::Left,
                None => NodeStatus::Failed,
            };
            (name(*id), status)
        });
        match mood {
            Discovery::Whole => Some(listed.collect()),
            Discovery::Silent => None,
            Discovery::Less(keep) => Some(listed.take(keep).collect()),
        }
    }

    pub(crate) fn set_discovery(&self, mood: Discovery) {
        *self.discovery.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// Every server that is not retired, by id.
    pub(crate) fn ids(&self) -> Vec<u64> {
        let servers = self.servers();
        servers.iter().filter(|(_, machine)| !machine.retired).map(|(id, _)| *id).collect()
    }

    /// The servers whose process is up.
    pub(crate) fn up(&self) -> Vec<u64> {
        self.network.rafts().into_keys().collect()
    }

    /// Whoever leads the highest term, as it says itself.
    pub(crate) fn leader(&self) -> Option<(u64, Raft)> {
        let rafts = self.network.rafts();
        let leading = rafts.into_iter().filter(|(_, raft)| raft.is_leader());
        leading.max_by_key(|(_, raft)| raft.metrics().borrow_watched().current_term)
    }

    /// Forms the first cluster of the given servers, and waits until it has a leader.
    pub(crate) async fn form(self: &Arc<Self>, ids: &[u64]) {
        for id in ids {
            self.start(*id);
        }
        sleep(Duration::from_millis(50)).await;
        let members: BTreeMap<_, _> = ids.iter().map(|id| (*id, Server::of(*id))).collect();
        if let Some(raft) = ids.first().and_then(|id| self.network.raft(*id))
            && let Err(error) = raft.initialize(members).await
        {
            self.oracle.violated(format_args!("the cluster cannot form: {error}"));
        }
        while self.leader().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends every process, which also unties the knot of handles between the world and its tasks.
    pub(crate) fn end(&self) {
        for id in self.ids() {
            self.crash(id);
        }
    }
}
