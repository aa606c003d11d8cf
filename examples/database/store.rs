//! The store that this database hosts: all that it takes to have one in its log.

use std::sync::Arc;
use std::time::Duration;

use raft_autopilot::openraft::{RaftLog, RaftRuntime, StoreHost};
use raft_autopilot::store::replicated::{
    self, Answer, Entry, LogError, Options, Replica, Replicated,
};

use crate::storage::StateMachine;
use crate::types::{Applied, Command, Member, Raft, TypeConfig};
use crate::wire::{Connection, Envelope, Request, Response};

/// How long another server may take for an answer.
const LIMIT: Duration = Duration::from_secs(2);

/// The store as this server sees it.
pub(crate) type Store =
    Replicated<RaftLog<TypeConfig, StateMachine, Database>, RaftRuntime<TypeConfig>>;

/// What the log of the store has to know of this database.
pub(crate) struct Database {
    pub(crate) cluster: u64,
    pub(crate) id: u64,
}

/// Makes the store of this server, over what its state machine applies.
pub(crate) fn new(raft: &Raft, replica: Replica, database: Database) -> Store {
    let log = RaftLog::new(raft.clone(), Arc::new(database));
    Replicated::new(log, replica, RaftRuntime::new(), Options::default())
}

/// An etcd in its place.
#[cfg(feature = "etcd")]
pub(crate) async fn connect(
    address: &str,
) -> Result<raft_autopilot::store::etcd::Etcd, raft_autopilot::store::StoreError> {
    use raft_autopilot::runtime::TokioRuntime;
    use raft_autopilot::store::etcd::{self, Etcd};

    let options = etcd::Options { endpoints: vec![address.to_owned()], ..etcd::Options::default() };
    Etcd::connect(options, TokioRuntime).await
}

/// Nobody can ask for one: this program was built without the feature `etcd`.
#[cfg(not(feature = "etcd"))]
pub(crate) async fn connect(_: &str) -> Result<Store, std::convert::Infallible> {
    std::future::pending().await
}

impl StoreHost<TypeConfig> for Database {
    fn command(&self, entry: Entry) -> Command {
        Command::Store(Box::new(entry))
    }

    fn applied(&self, response: Applied) -> Option<replicated::Applied> {
        match response {
            Applied::Stored(applied) => Some(*applied),
            Applied::Done | Applied::NoSuchKey | Applied::Reserved(_) | Applied::Recorded(_) => {
                None
            }
        }
    }

    async fn ask(
        &self,
        id: u64,
        member: Member,
        request: replicated::Request,
    ) -> Result<Answer, LogError> {
        let request = Request::Store(request);
        let envelope = Envelope { cluster: self.cluster, from: self.id, to: id, request };
        match Connection::new(member.addr).ask(&envelope, LIMIT).await {
            Ok(Response::Store(answer)) => Ok(answer),
            Ok(other) => Err(LogError::Retry(format!("server {id} answers {other:?}"))),
            Err(error) => Err(LogError::Unknown(error.to_string())),
        }
    }
}
