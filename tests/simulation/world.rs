//! The world of one run: servers that start, crash, restart and lose their disks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, SnapshotPolicy};

use crate::disk::Disk;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::process::Process;
use crate::store::Store;
use crate::transport::Links;
use crate::types::{Raft, Server, sleep};

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
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) network: Network,
    config: Arc<Config>,
    rider: Rider,
    servers: Mutex<BTreeMap<u64, Machine>>,
}

/// One server's hardware, and the process that runs on it.
struct Machine {
    disk: Disk,
    store: Store,
    process: Option<Arc<Process>>,
    boots: u64,
    retired: bool,
}

impl World {
    /// A world with no server yet.
    pub(crate) fn new(seed: u64, rider: Rider) -> Arc<Self> {
        let oracle = Arc::new(Oracle::default());
        let config = Config {
            heartbeat_interval: 50,
            election_timeout_min: 200,
            election_timeout_max: 400,
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
            network: Network::new(seed, oracle.clone()),
            oracle,
            config: Arc::new(config.validate().expect("a valid configuration")),
            rider,
            servers: Mutex::default(),
        })
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<u64, Machine>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a server's process; a new id gets a new machine with an empty disk. Does nothing if
    /// it is up, or retired.
    pub(crate) fn start(self: &Arc<Self>, id: u64) {
        let oracle = self.oracle.clone();
        let process = Process::new(move |text| {
            oracle.violated(format_args!("a task of n{id} panicked: {text}"));
        });
        let boot = {
            let mut servers = self.servers();
            let machine = servers.entry(id).or_insert_with(|| {
                let disk = Disk::new(self.seed, id);
                let store = Store::new(id, disk.clone(), self.oracle.clone());
                Machine { disk, store, process: None, boots: 0, retired: false }
            });
            if machine.process.is_some() || machine.retired {
                return;
            }
            machine.boots += 1;
            machine.store = Store::new(id, machine.disk.clone(), self.oracle.clone());
            machine.process = Some(process.clone());
            machine.boots
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
        let Some((process, disk)) = self
            .servers()
            .get_mut(&id)
            .and_then(|machine| Some((machine.process.take()?, machine.disk.clone())))
        else {
            return;
        };
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
    /// quorum that it was part of has an honest witness. Returns whether it did.
    pub(crate) fn crash_and_wipe(&self, id: u64) -> bool {
        if !self.may_lose_disk(id) {
            return false;
        }
        self.crash(id);
        if let Some(disk) = self.disk(id) {
            disk.wipe();
            self.oracle.note(format_args!("n{id} loses its disk"));
        }
        true
    }

    fn may_lose_disk(&self, id: u64) -> bool {
        let mut voters = BTreeSet::new();
        for raft in self.network.rafts().values() {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            if membership.get_joint_config().len() > 1 {
                return false;
            }
            voters.extend(membership.voter_ids());
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

    /// Waits until every member of the leader's membership has applied all that the leader has,
    /// and holds every acknowledged write. Reports what is missing if that takes longer than
    /// `patience`.
    pub(crate) async fn converges_within(&self, patience: Duration) {
        let step = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        let mut missing = self.missing();
        while let Some(what) = missing {
            if waited >= patience {
                return self.oracle.violated(format_args!("no convergence: {what}"));
            }
            sleep(step).await;
            waited += step;
            if waited.as_millis().is_multiple_of(1000) {
                self.move_the_leadership().await;
            }
            missing = self.missing();
        }
        self.oracle.note("converged");
    }

    /// What an operator does about a server that was reborn without its disk: its leader believes
    /// in the log it had, and only the next leader starts it over.
    async fn move_the_leadership(&self) {
        let Some((leader, raft)) = self.leader() else { return };
        let applied = |id: u64| self.store(id)?.read(|image| image.last_applied);
        let voters: Vec<u64> = raft.voter_ids().collect();
        let heir = voters.into_iter().find(|id| *id != leader && applied(*id) == applied(leader));
        if let Some(heir) = heir {
            self.oracle.note(format_args!("the leadership goes from n{leader} to n{heir}"));
            drop(raft.trigger().transfer_leader(heir).await);
        }
    }

    fn missing(&self) -> Option<String> {
        let Some((leader, raft)) = self.leader() else { return Some("no leader".into()) };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied;
        if applied.map(|log_id| log_id.index) != metrics.last_log_index {
            return Some(format!(
                "n{leader} has applied {applied:?} of {:?}",
                metrics.last_log_index
            ));
        }
        for (id, _) in metrics.membership_config.nodes() {
            let theirs = self.store(*id).and_then(|store| store.read(|image| image.last_applied));
            if theirs != applied {
                return Some(format!("n{id} has applied {theirs:?} of {applied:?}"));
            }
        }
        for (id, _) in metrics.membership_config.nodes() {
            if let Some(store) = self.store(*id) {
                store.read(|image| self.oracle.holds_every_acked_write(*id, &image.data));
            }
        }
        None
    }
}
