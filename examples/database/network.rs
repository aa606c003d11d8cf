//! openraft's network over TCP: a connection of its own for entries, heartbeats and snapshots.

use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use tokio::sync::mpsc::UnboundedSender;

use crate::types::{Entry, Member, TypeConfig, Vote};
use crate::wire::{Connection, Envelope, Request, Response};

/// Bytes of entries in one request, about; a single larger entry travels alone.
const APPEND_LEN: usize = 1 << 20;

/// How long a follower's disk may take to sync entries, besides the time on the wire.
const DISK_LIMIT: Duration = Duration::from_millis(500);

/// Time for each byte of entries: a link of 1 MB/s is still good enough.
const PER_BYTE: Duration = Duration::from_micros(1);

/// Bytes of a snapshot in one request.
const CHUNK_LEN: usize = 1 << 20;

/// How long one chunk may take before the transfer is given up, and begun again by openraft.
const CHUNK_LIMIT: Duration = Duration::from_secs(5);

/// How long a follower may take to install a whole snapshot after its last chunk.
const INSTALL_LIMIT: Duration = Duration::from_secs(60);

type Error = RPCError<TypeConfig>;
type SnapshotOf = openraft::alias::SnapshotOf<TypeConfig, Vec<u8>>;

/// Makes the connections of one server.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) cluster: u64,
    pub(crate) id: u64,
    /// Told when another server answers that this one was removed.
    pub(crate) removed: UnboundedSender<String>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    // Called once a peer for entries, once for heartbeats and once a snapshot, so each has a
    // connection of its own and a snapshot never stands in the way of a heartbeat.
    async fn new_client(&mut self, target: u64, member: &Member) -> Peer {
        Peer { network: self.clone(), target, connection: Connection::new(&member.addr) }
    }
}

/// One connection of this server to another.
pub(crate) struct Peer {
    network: Network,
    target: u64,
    connection: Connection,
}

impl Peer {
    async fn ask(
        &mut self,
        action: RPCTypes,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, Error> {
        let Network { cluster, id: from, .. } = self.network;
        let envelope = Envelope { cluster, from, to: self.target, request };
        let answer = self.connection.ask(&envelope, timeout).await;
        let refused = |why: String| Err(Unreachable::from_string(why).into());
        match answer {
            Ok(Response::Removed) => {
                let why = format!("server {} says that this server was removed", self.target);
                // The receiver is gone only when this server is stopping anyway.
                let _ = self.network.removed.send(why.clone());
                refused(why)
            }
            Ok(Response::Refused(why)) => refused(why),
            Ok(response) => Ok(response),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(Timeout { action, id: from, target: self.target, timeout }.into())
            }
            // A connection that broke is worth one more try at once; a refused one is not.
            Err(error) if is_broken(&error) => Err(NetworkError::new(&error).into()),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
    ) -> Result<SnapshotResponse<TypeConfig>, Error> {
        let action = RPCTypes::InstallSnapshot;
        let len = u64::try_from(snapshot.snapshot.len()).unwrap_or(u64::MAX);
        let first = Request::Snapshot { vote, meta: snapshot.meta, len };
        let mut response = self.ask(action, first, CHUNK_LIMIT).await?;
        let mut left = snapshot.snapshot.as_slice();
        loop {
            match response {
                Response::Snapshot(response) => return Ok(response),
                Response::SnapshotGoOn if !left.is_empty() => {}
                other => return Err(unexpected(&other)),
            }
            let (chunk, rest) = left.split_at(left.len().min(CHUNK_LEN));
            left = rest;
            let limit = if left.is_empty() { INSTALL_LIMIT } else { CHUNK_LIMIT };
            response = self.ask(action, Request::SnapshotChunk(chunk.to_vec()), limit).await?;
        }
    }
}

fn is_broken(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn unexpected(response: &Response) -> Error {
    Unreachable::from_string(format!("an answer to something else: {response:?}")).into()
}

/// How many of these entries go into one request (at least one, if there is any), and about how
/// many bytes they take.
fn fitting(entries: &[Entry]) -> (usize, usize) {
    let mut whole = 0;
    for (count, entry) in entries.iter().enumerate() {
        let len = match &entry.payload {
            openraft::EntryPayload::Normal(command) => command.len(),
            openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 0,
        };
        if count > 0 && whole + len > APPEND_LEN {
            return (count, whole);
        }
        whole += len;
    }
    (entries.len(), whole)
}

/// How long a request may take. A heartbeat has the time that openraft gives; that is too short
/// for entries that are long or meet a slow disk, and a request that never ends in time would be
/// repeated for ever.
fn limit(option: &RPCOption, entries: usize, len: usize) -> Duration {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let allowance = if entries == 0 { Duration::ZERO } else { DISK_LIMIT + PER_BYTE * len };
    option.soft_ttl() + allowance
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Error> {
        let whole = rpc.entries.len();
        let (count, len) = fitting(&rpc.entries);
        rpc.entries.truncate(count);
        let sent = rpc.entries.last().map(|entry| entry.log_id);
        let is_part = rpc.entries.len() < whole;
        let request = Request::Append(rpc);
        let limit = limit(&option, count, len);
        match self.ask(RPCTypes::AppendEntries, request, limit).await? {
            Response::Append(AppendEntriesResponse::Success) if is_part => {
                Ok(AppendEntriesResponse::PartialSuccess(sent))
            }
            Response::Append(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        match self.ask(RPCTypes::Vote, Request::Vote(rpc), option.soft_ttl()).await? {
            Response::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        match self.ask(RPCTypes::Vote, Request::PreVote(rpc), option.soft_ttl()).await? {
            Response::Vote(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // The option's time is for a whole snapshot of unknown size; here every chunk has its own.
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => sent.map_err(Into::into),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Error> {
        let request = Request::TransferLeader(rpc);
        match self.ask(RPCTypes::TransferLeader, request, option.soft_ttl()).await? {
            Response::TransferLeader(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }
}
