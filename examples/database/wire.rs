//! What servers say to each other over TCP: one request, one response, each a frame of the codec.

use std::io;
use std::time::Duration;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use raft_autopilot::codec::{self, CodecError, HEADER_LEN};
use raft_autopilot::store::replicated;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::types::{Member, SnapshotMeta, TypeConfig, Vote};

/// A request with its addressee, so that nobody answers for a server that used to be there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    /// The cluster's number; 0 from a server that has none yet.
    pub(crate) cluster: u64,
    /// The sender's id; 0 if it has none yet.
    pub(crate) from: u64,
    /// The id of the server it is meant for; 0 for whoever listens there.
    pub(crate) to: u64,
    pub(crate) request: Request,
}

/// Variants are encoded by position: append, never reorder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// A snapshot of so many bytes follows on this connection, in chunks.
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        len: u64,
    },
    /// The next bytes of the snapshot; the last ones are answered when it is installed.
    SnapshotChunk(#[serde(with = "serde_bytes")] Vec<u8>),
    Status,
    /// I am new: promise me an id.
    Reserve,
    /// I am running under the id that was promised: take me in as a learner.
    Join {
        id: u64,
        member: Member,
    },
    /// You, whom this names, were removed from the cluster: stop.
    Dismiss,
    /// You lead, I think: this is for the store that the database hosts.
    Store(replicated::Request),
}

/// Variants are encoded by position: append, never reorder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    SnapshotGoOn,
    Snapshot(SnapshotResponse<TypeConfig>),
    Status(Status),
    Reserved {
        cluster: u64,
        id: u64,
    },
    Joined,
    /// Ask the leader, at this address; `None` while there is none.
    Redirect(Option<String>),
    /// The sender of the request was removed from the cluster and must stop.
    Removed,
    /// Not done, and why; asking again later may help.
    Refused(String),
    /// I have heard, and stop.
    Dismissed,
    /// What the store says.
    Store(replicated::Answer),
}

/// How a server is, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The node id.
    pub(crate) id: u64,
    /// Random, new with every start of the process.
    pub(crate) boot_id: u64,
    /// Random, drawn when its log file was created.
    pub(crate) disk_id: u64,
    /// The version that it was started as.
    pub(crate) version: String,
    /// Index of the last entry in its log.
    pub(crate) last_log_index: Option<u64>,
    /// Index of the last entry that it has applied.
    pub(crate) last_applied: Option<u64>,
    /// Bytes received and expected of a snapshot that is on its way to it.
    pub(crate) snapshot: Option<(u64, u64)>,
}

/// Writes one frame.
pub(crate) async fn write<T: Serialize>(stream: &mut TcpStream, message: &T) -> io::Result<()> {
    stream.write_all(&codec::encode(message).map_err(invalid)?).await
}

/// Reads one frame; `None` when the peer has closed the connection between two frames.
pub(crate) async fn read<T: DeserializeOwned>(stream: &mut TcpStream) -> io::Result<Option<T>> {
    let mut header = [0; HEADER_LEN];
    if stream.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[1..]).await?;
    let expected = codec::payload_len(header, codec::MAX_PAYLOAD_LEN).map_err(invalid)?;
    // Memory is taken as bytes arrive, not as a header claims them.
    let mut payload = Vec::new();
    let found = stream.take(u64::try_from(expected).unwrap_or(0)).read_to_end(&mut payload).await?;
    if found < expected {
        return Err(invalid(CodecError::Truncated { found, expected }));
    }
    codec::decode_payload(&payload).map(Some).map_err(invalid)
}

fn invalid(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A connection to one address, opened when it is needed and kept while it works.
pub(crate) struct Connection {
    addr: String,
    stream: Option<TcpStream>,
}

impl Connection {
    pub(crate) fn new(addr: impl Into<String>) -> Self {
        Self { addr: addr.into(), stream: None }
    }

    /// Asks once, within `limit`. After any error, and when this future is dropped half-way, the
    /// stream is dropped too: a late answer would be taken for the next one.
    pub(crate) async fn ask(
        &mut self,
        envelope: &Envelope,
        limit: Duration,
    ) -> io::Result<Response> {
        let stream = self.stream.take();
        let talk = async {
            let mut stream = match stream {
                Some(stream) => stream,
                None => connect(&self.addr).await?,
            };
            write(&mut stream, envelope).await?;
            let response = read(&mut stream).await?;
            io::Result::Ok((stream, response.ok_or(io::ErrorKind::UnexpectedEof)?))
        };
        let (stream, response) =
            tokio::time::timeout(limit, talk).await.map_err(|_| io::ErrorKind::TimedOut)??;
        self.stream = Some(stream);
        Ok(response)
    }
}

async fn connect(addr: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
