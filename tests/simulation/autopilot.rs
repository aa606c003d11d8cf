//! Autopilot on every process: the real driver over the real adapter, and what the simulated
//! database tells them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use openraft::alias::CommittedLeaderIdOf;
use openraft::async_runtime::WatchReceiver;
use raft_autopilot::autopilot::{
    Autopilot, Dismissal, Ledger, NodeStatus, Outcome, Record, Server, ServerId,
};
use raft_autopilot::openraft::{Answer, Application, Openraft, PROBE_DEADLINE, RaftRuntime};

use crate::store::Store;
use crate::types::{Command, Reply, TypeConfig, clock, sleep};
use crate::witness::Witness;
use crate::work;
use crate::world::{Rider, Seat, World};

/// The simulated database, as autopilot on one process of it sees it.
struct Database {
    id: u64,
    store: Store,
    world: Arc<World>,
}

/// The node id that a server's name stands for.
pub(crate) fn number(id: &ServerId) -> u64 {
    id.as_str().parse().unwrap_or_default()
}

/// The name of a node id.
pub(crate) fn name(id: u64) -> ServerId {
    ServerId::from(id.to_string())
}

impl Application<TypeConfig> for Database {
    fn node_id(&self, text: &str) -> Option<u64> {
        text.parse().ok()
    }

    fn term(&self, leader: &CommittedLeaderIdOf<TypeConfig>) -> u64 {
        leader.term
    }

    fn server(&self, id: &u64, node: &crate::types::Server) -> Server {
        Server::new(name(*id), node.address.clone())
    }

    fn node(&self, server: &Server) -> Option<crate::types::Server> {
        Some(crate::types::Server { address: server.address.clone() })
    }

    fn ledger(&self) -> Option<(Arc<Ledger>, Duration)> {
        Some((self.store.read(|image| image.ledger.clone()), self.store.now()))
    }

    fn command(&self, record: Record) -> Option<Command> {
        Some(Command::Record(Box::new(record)))
    }

    fn outcome(&self, response: Reply) -> Option<Outcome> {
        if let Reply::Recorded(outcome) = response { Some(outcome) } else { None }
    }

    fn probes(&self) -> bool {
        true
    }

    async fn probe(&self, id: u64, _node: crate::types::Server) -> Option<Answer> {
        let world = self.world.clone();
        let asked = self.world.network.call((self.id, id), "probe", PROBE_DEADLINE, move |raft| {
            let answer = Answer::of(&raft, world.boot(id), "").on_disk(world.disk_identity(id));
            async move { Some(answer) }.boxed()
        });
        let answer = asked.await.ok()?;
        self.world.oracle.probed((self.id, id), answer.boot);
        Some(answer)
    }

    fn discovers(&self) -> bool {
        self.world.character.discovery
    }

    async fn discover(&self) -> Option<Vec<(ServerId, NodeStatus)>> {
        sleep(Duration::from_millis(2)).await;
        self.world.discover()
    }

    async fn identify(&self, address: &str) -> Option<ServerId> {
        let machine = address.strip_prefix("server-")?.split(':').next()?.parse().ok()?;
        let asked =
            self.world.network.call((self.id, machine), "identify", PROBE_DEADLINE, |raft| {
                async move { Some(name(raft.metrics().borrow_watched().id)) }.boxed()
            });
        asked.await.ok()
    }

    async fn dismiss(&self, server: Arc<Server>) -> Dismissal {
        let (world, id) = (self.world.clone(), number(&server.id));
        if !self.world.is_up(id) && self.world.boot(id) == 0 {
            return Dismissal::NotOffered;
        }
        let told = self.world.network.call((self.id, id), "dismiss", PROBE_DEADLINE, move |_| {
            async move {
                world.oracle.dismissed(id);
                world.retire(id);
                Some(())
            }
            .boxed()
        });
        told.await.map_or(Dismissal::NoAnswer, |()| Dismissal::Heard)
    }
}

/// Rides on every process: the driver, and a watch over what openraft says of itself.
pub(crate) fn rider() -> Rider {
    Arc::new(|seat: Seat| {
        async move {
            futures_util::future::join3(drive(&seat), watch(&seat), work::work(&seat)).await;
        }
        .boxed()
    })
}

async fn drive(seat: &Seat) {
    let Some(store) = seat.world.store(seat.id) else { return };
    let database = Database { id: seat.id, store, world: seat.world.clone() };
    let runtime = RaftRuntime::new();
    let adapter = Openraft::new(seat.raft.clone(), Arc::new(database), runtime.clone());
    let (witness, introduce) = Witness::new(adapter, seat, clock());
    let (promoter, options) = (seat.world.character.promoter(), seat.world.character.options());
    match Autopilot::new(witness, runtime, promoter, options) {
        Ok((autopilot, handle)) => {
            introduce.set(handle.clone()).expect("introduced once");
            seat.world.board(seat.id, handle);
            autopilot.run(std::future::pending()).await;
        }
        Err(error) => seat.world.oracle.violated(format_args!("no autopilot: {error}")),
    }
}

/// Reports, twice a heartbeat, whether the process leads.
async fn watch(seat: &Seat) {
    loop {
        sleep(Duration::from_millis(25)).await;
        let metrics = seat.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == openraft::ServerState::Leader {
            seat.world.oracle.leads(metrics.current_term, seat.id);
        }
        if let Err(error) = &metrics.running_state {
            let text = format!("n{} boot {} stopped: {error}", seat.id, seat.boot);
            return seat.world.oracle.violated(text);
        }
    }
}
