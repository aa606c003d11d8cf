//! openraft's calls over the simulated network.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2, alias};

use crate::network::{Failure, Network};
use crate::store::Image;
use crate::types::{Raft, Server, TypeConfig, Vote, clock};

/// Makes the links of one server.
pub(crate) struct Links {
    pub(crate) id: u64,
    pub(crate) network: Network,
}

/// One server's link to another.
pub(crate) struct Link {
    from: u64,
    to: u64,
    network: Network,
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &Server) -> Link {
        Link { from: self.id, to: target, network: self.network.clone() }
    }
}

impl Link {
    async fn call<T, H>(
        &self,
        action: RPCTypes,
        kind: &'static str,
        ttl: Duration,
        handler: H,
    ) -> Result<T, RPCError<TypeConfig>>
    where
        T: Send + 'static,
        H: FnOnce(Raft) -> BoxFuture<'static, Option<T>> + Send + 'static,
    {
        let called = self.network.call((self.from, self.to), kind, ttl, handler).await;
        called.map_err(|failure| match failure {
            Failure::Refused => {
                RPCError::Unreachable(Unreachable::from_string("connection refused"))
            }
            Failure::TimedOut => {
                RPCError::Timeout(Timeout { action, id: self.from, target: self.to, timeout: ttl })
            }
        })
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Arc<Image>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.network.oracle().leads(rpc.vote.leader_id().term(), self.from);
        let sent = clock();
        let answer = self
            .call(RPCTypes::AppendEntries, "append", option.hard_ttl(), |raft| {
                async move { raft.append_entries(rpc).await.ok() }.boxed()
            })
            .await?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.network.oracle().acknowledged((self.from, self.to), sent);
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(RPCTypes::Vote, "vote", option.hard_ttl(), |raft| {
            async move { raft.vote(rpc).await.ok() }.boxed()
        })
        .await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(RPCTypes::Vote, "pre-vote", option.hard_ttl(), |raft| {
            async move { raft.pre_vote(rpc).await.ok() }.boxed()
        })
        .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: alias::SnapshotOf<TypeConfig, Arc<Image>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let (sent, ours) = (clock(), vote);
        let call =
            self.call(RPCTypes::InstallSnapshot, "snapshot", option.hard_ttl(), move |raft| {
                async move { raft.install_full_snapshot(vote, snapshot).await.ok() }.boxed()
            });
        // Whoever does not lead any more has later snapshots than its vote can vouch for.
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = call => answer.map_err(StreamingError::from)?,
        };
        // An installed snapshot is heard of its server, as an entry is.
        if answer.vote <= ours {
            self.network.oracle().acknowledged((self.from, self.to), sent);
        }
        Ok(answer)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(RPCTypes::TransferLeader, "transfer", option.hard_ttl(), |raft| {
            async move { raft.handle_transfer_leader(request).await.ok() }.boxed()
        })
        .await
    }
}
