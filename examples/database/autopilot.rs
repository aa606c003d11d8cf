//! Autopilot in this database: all that it takes to embed it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::alias::CommittedLeaderIdOf;
use raft_autopilot::autopilot::{
    Autopilot, ConfigError, Dismissal, Handle, Ledger, Options, Outcome, Record, Server, ServerId,
};
use raft_autopilot::openraft::{Answer, Application, Openraft, PROBE_DEADLINE, RaftRuntime};
use raft_autopilot::placement::Yielding;
use raft_autopilot::promoters::Stable;

use crate::ranges::Placed;
use crate::storage::{StateMachine, clock};
use crate::types::{Applied, Command, Member, Raft, TypeConfig};
use crate::wire::{Connection, Envelope, Request, Response, Status};

/// How many servers vote; the others stand by.
pub(crate) const VOTERS: usize = 5;

/// Where a server keeps the address for its clients.
const HTTP: &str = "http";

/// What autopilot cannot see in the Raft of this server.
pub(crate) struct Database {
    pub(crate) cluster: u64,
    pub(crate) id: u64,
    pub(crate) version: String,
    pub(crate) state: StateMachine,
    /// What is known of the servers' work, once it is.
    pub(crate) work: Arc<OnceLock<Placed>>,
}

/// Makes the autopilot of this server: a future to run for the server's whole life, and the handle
/// for its operators.
pub(crate) fn new(
    raft: &Raft,
    database: Database,
) -> Result<(impl Future<Output = ()> + Send + use<>, Handle), ConfigError> {
    let runtime = RaftRuntime::new();
    let cluster = Openraft::new(raft.clone(), Arc::new(database), runtime.clone());
    // Who hands its work over hands leadership over too.
    let promoter = Yielding::new(Stable::with_target(VOTERS));
    let (autopilot, handle) = Autopilot::new(cluster, runtime, promoter, options(raft))?;
    // It ends with the process; dropping it is safe at any moment.
    Ok((autopilot.run(std::future::pending()), handle))
}

/// Short times, for watching: the defaults are 10 s, 10 s, 24 h and 2 s.
fn options(raft: &Raft) -> Options {
    let mut options = raft_autopilot::openraft::options(raft);
    options.config.server_stabilization_time = Duration::from_secs(5);
    options.config.voter_replacement_grace = Duration::from_secs(5);
    options.config.dead_server_last_contact_threshold = Duration::from_secs(180);
    options.update_interval = Duration::from_millis(500);
    options
}

impl Database {
    async fn ask(&self, addr: &str, to: u64, request: Request) -> Option<Response> {
        let envelope = Envelope { cluster: self.cluster, from: self.id, to, request };
        Connection::new(addr).ask(&envelope, PROBE_DEADLINE).await.ok()
    }

    async fn status(&self, addr: &str, to: u64) -> Option<Status> {
        match self.ask(addr, to, Request::Status).await? {
            Response::Status(status) => Some(status),
            _ => None,
        }
    }
}

impl Application<TypeConfig> for Database {
    fn node_id(&self, text: &str) -> Option<u64> {
        text.parse().ok()
    }

    fn term(&self, leader: &CommittedLeaderIdOf<TypeConfig>) -> u64 {
        leader.term
    }

    fn server(&self, id: &u64, member: &Member) -> Server {
        let mut server = server(*id, member);
        if *id == self.id {
            // The others tell theirs when they are probed.
            server.version.clone_from(&self.version);
        }
        if let Some(work) = self.work.get() {
            work.tag(&mut server);
        }
        server
    }

    fn node(&self, server: &Server) -> Option<Member> {
        Some(Member {
            addr: server.address.clone(),
            http: http(server)?,
            name: server.name.clone(),
            zone: server.zone.clone().unwrap_or_default(),
        })
    }

    fn ledger(&self) -> Option<(Arc<Ledger>, Duration)> {
        Some((self.state.standing(|standing| Arc::clone(&standing.ledger)), clock()))
    }

    fn command(&self, record: Record) -> Option<Command> {
        Some(Command::Record(Box::new(record)))
    }

    fn outcome(&self, applied: Applied) -> Option<Outcome> {
        match applied {
            Applied::Recorded(outcome) => Some(outcome),
            Applied::Done | Applied::NoSuchKey | Applied::Reserved(_) | Applied::Stored(_) => None,
        }
    }

    fn probes(&self) -> bool {
        true
    }

    async fn probe(&self, id: u64, member: Member) -> Option<Answer> {
        let status = self.status(&member.addr, id).await?;
        Some(Answer {
            id: status.id.to_string().into(),
            boot: status.boot_id,
            disk: Some(status.disk_id),
            last_log: status.last_log_index.unwrap_or_default(),
            applied: status.last_applied.unwrap_or_default(),
            snapshot: status.snapshot.map(|(received, _)| received),
            version: status.version,
        })
    }

    async fn identify(&self, address: &str) -> Option<ServerId> {
        Some(self.status(address, 0).await?.id.to_string().into())
    }

    async fn dismiss(&self, server: Arc<Server>) -> Dismissal {
        let Some(id) = self.node_id(server.id.as_str()) else { return Dismissal::NotOffered };
        match self.ask(&server.address, id, Request::Dismiss).await {
            Some(Response::Dismissed) => Dismissal::Heard,
            _ => Dismissal::NoAnswer,
        }
    }
}

/// A member as autopilot knows it.
pub(crate) fn server(id: u64, member: &Member) -> Server {
    let mut server = Server::new(id.to_string(), member.addr.as_str());
    server.name.clone_from(&member.name);
    server.zone = Some(member.zone.clone()).filter(|zone| !zone.is_empty());
    server.meta.insert(HTTP.to_owned(), member.http.clone());
    server
}

/// Where a server answers its clients.
pub(crate) fn http(server: &Server) -> Option<String> {
    server.meta.get(HTTP).cloned()
}
