//! Answers other servers: Raft's requests, snapshots, status, and those who want to join.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::storage::Snapshot;
use raft_autopilot::autopilot::Handle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;

use crate::members;
use crate::ranges::Placed;
use crate::storage::{Identity, LogStore, StateMachine, check_snapshot};
use crate::store::Store;
use crate::types::{Raft, SnapshotMeta, Vote};
use crate::wire::{self, Envelope, Request, Response, Status};

/// The longest snapshot that is accepted, in bytes: it is held in memory while it arrives.
const MAX_SNAPSHOT_LEN: u64 = 1 << 30;

/// How long a connection may stay silent. Longer than any pause between two requests of a peer
/// that still needs it.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// One running server: what its listeners, its clients' handlers and its operator work with.
pub(crate) struct Service {
    pub(crate) identity: Identity,
    /// Random number of this run of the process.
    pub(crate) boot_id: u64,
    /// The version that it was started as.
    pub(crate) version: String,
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) state: StateMachine,
    /// The way to the autopilot of this server; every change of the membership goes through it.
    pub(crate) autopilot: Handle,
    /// The store that the database hosts: leases, watches and transactions for whoever places
    /// work or agrees on numbers.
    pub(crate) store: Store,
    /// Who holds which range of the keys.
    pub(crate) placed: Placed,
    /// Told when another server says that this one was removed.
    removed: UnboundedSender<String>,
    /// Bytes received and expected of a snapshot that is arriving.
    arriving: Mutex<Option<(u64, u64)>>,
}

/// A snapshot that is arriving on one connection.
struct Arriving {
    vote: Vote,
    meta: SnapshotMeta,
    len: u64,
    bytes: Vec<u8>,
}

impl Service {
    pub(crate) fn new(
        identity: Identity,
        version: String,
        raft: Raft,
        (log, state): (LogStore, StateMachine),
        autopilot: Handle,
        (store, placed): (Store, Placed),
        removed: UnboundedSender<String>,
    ) -> Self {
        let (boot_id, arriving) = (crate::storage::random(), Mutex::default());
        Self {
            identity,
            boot_id,
            version,
            raft,
            log,
            state,
            autopilot,
            store,
            placed,
            removed,
            arriving,
        }
    }

    /// How this server is.
    pub(crate) fn status(&self) -> io::Result<Status> {
        Ok(Status {
            id: self.identity.id,
            boot_id: self.boot_id,
            disk_id: self.log.disk_id(),
            version: self.version.clone(),
            last_log_index: self.log.last_index()?,
            last_applied: self.state.standing(|standing| standing.applied.map(|id| id.index)),
            snapshot: *self.arriving.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// Answers everyone who connects, for as long as this future lives.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut talks = tokio::task::JoinSet::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    talks.spawn(Arc::clone(&self).talk(stream));
                    while talks.try_join_next().is_some() {}
                }
                // Out of file descriptors, most likely: those in use will come back.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn talk(self: Arc<Self>, mut stream: TcpStream) {
        let mut arriving = None;
        let ended = loop {
            let read = wire::read::<Envelope>(&mut stream);
            let envelope = match tokio::time::timeout(IDLE_LIMIT, read).await {
                Ok(Ok(Some(envelope))) => envelope,
                Ok(Ok(None)) | Err(_) => break Ok(()),
                Ok(Err(error)) => break Err(error),
            };
            let response = self.answer(envelope, &mut arriving).await;
            let written = wire::write(&mut stream, &response).await;
            if matches!(response, Response::Dismissed) {
                // The receiver is gone only when this server is stopping anyway.
                let _ = self.removed.send("told by the leader that this server was removed".into());
            }
            if let Err(error) = written {
                break Err(error);
            }
        };
        if arriving.is_some() {
            self.set_arriving(None);
        }
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }

    async fn answer(&self, envelope: Envelope, arriving: &mut Option<Arriving>) -> Response {
        if let Some(refusal) = self.refusal(&envelope) {
            return refusal;
        }
        let answer = match envelope.request {
            Request::Append(rpc) => {
                self.raft.append_entries(rpc).await.map(Response::Append).map_err(text)
            }
            Request::Vote(rpc) => self.raft.vote(rpc).await.map(Response::Vote).map_err(text),
            Request::PreVote(rpc) => {
                self.raft.pre_vote(rpc).await.map(Response::Vote).map_err(text)
            }
            Request::TransferLeader(rpc) => {
                let transferred = self.raft.handle_transfer_leader(rpc).await;
                transferred.map(Response::TransferLeader).map_err(text)
            }
            Request::Snapshot { vote, meta, len } => {
                *arriving = Some(Arriving { vote, meta, len, bytes: Vec::new() });
                self.receive(arriving, Vec::new()).await
            }
            Request::SnapshotChunk(chunk) => self.receive(arriving, chunk).await,
            Request::Status => self.status().map(Response::Status).map_err(text),
            Request::Reserve => Ok(members::reserve(self).await),
            Request::Join { id, member } => Ok(members::join(self, id, member).await),
            Request::Dismiss => Ok(Response::Dismissed),
            Request::Store(request) => Ok(Response::Store(self.store.answer(request).await)),
        };
        answer.unwrap_or_else(Response::Refused)
    }

    /// Why this request gets no answer here, if so.
    fn refusal(&self, envelope: &Envelope) -> Option<Response> {
        let Envelope { cluster, from, to, ref request } = *envelope;
        let Identity { cluster: own, id, .. } = self.identity;
        let is_named = to == id || (to == 0 && !matches!(request, Request::Dismiss));
        if !is_named {
            return Some(Response::Refused(format!(
                "this is server {id}, not {to}; nothing was changed: ask that one at its own address"
            )));
        }
        let is_open = matches!(request, Request::Status | Request::Reserve);
        if cluster != own && !(cluster == 0 && is_open) {
            return Some(Response::Refused(
                "this is another cluster; nothing was changed: name a seed of your own".to_owned(),
            ));
        }
        // A leader that has just removed itself still has to tell everybody so; whoever was
        // removed and does not know it asks for votes, for the status, or to join.
        let is_asking = matches!(
            request,
            Request::Vote(_) | Request::PreVote(_) | Request::Status | Request::Join { .. }
        );
        let is_removed =
            from != 0 && is_asking && self.state.standing(|standing| standing.is_removed(from));
        is_removed.then_some(Response::Removed)
    }

    async fn receive(
        &self,
        arriving: &mut Option<Arriving>,
        chunk: Vec<u8>,
    ) -> Result<Response, String> {
        let Some(mut snapshot) = arriving.take() else {
            return Err("a chunk of a snapshot that was not announced".to_owned());
        };
        snapshot.bytes.extend(chunk);
        let received = u64::try_from(snapshot.bytes.len()).unwrap_or(u64::MAX);
        if snapshot.len > MAX_SNAPSHOT_LEN || received > snapshot.len {
            self.set_arriving(None);
            let len = snapshot.len;
            return Err(format!(
                "{received} of {len} bytes of a snapshot, at most {MAX_SNAPSHOT_LEN} accepted"
            ));
        }
        self.set_arriving(Some((received, snapshot.len)));
        if received < snapshot.len {
            *arriving = Some(snapshot);
            return Ok(Response::SnapshotGoOn);
        }
        let installed = self.install(snapshot).await;
        self.set_arriving(None);
        installed
    }

    async fn install(&self, snapshot: Arriving) -> Result<Response, String> {
        let Arriving { vote, meta, bytes, .. } = snapshot;
        let check = move || check_snapshot(&meta, &bytes).map(|()| (meta, bytes));
        let checked = tokio::task::spawn_blocking(check).await.map_err(text)?;
        let (meta, snapshot) = checked.map_err(text)?;
        let installed = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
        installed.map(Response::Snapshot).map_err(text)
    }

    fn set_arriving(&self, progress: Option<(u64, u64)>) {
        *self.arriving.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
