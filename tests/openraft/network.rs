//! A network in this process that can be cut, slowed, hung and made to grant what nobody asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{
    OptionalSend, Raft, RaftNetworkFactory, RaftNetworkV2,
    alias::{SnapshotOf, VoteOf},
    errors::{RPCError, RaftError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    type_config::TypeConfigExt,
};

use crate::{
    storage::{Image, Machine},
    types::{Peer, Types},
};

/// Everything between the servers. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network<C: Types>(Arc<Mutex<Wires<C>>>);

struct Wires<C: Types> {
    up: BTreeMap<String, Raft<C, Machine<C>>>,
    cut: BTreeSet<(String, String)>,
    /// Appends with entries hang for ever on these, and nobody looks at the time to live.
    hung: BTreeSet<(String, String)>,
    /// Pre-votes are granted without being asked, as openraft's default does.
    grants_unasked: bool,
    pre_votes_asked: u64,
    transfers: u64,
    latency: Duration,
}

impl<C: Types> Network<C> {
    pub(crate) fn new(latency: Duration) -> Self {
        Self(Arc::new(Mutex::new(Wires {
            up: BTreeMap::new(),
            cut: BTreeSet::new(),
            hung: BTreeSet::new(),
            grants_unasked: false,
            pre_votes_asked: 0,
            transfers: 0,
            latency,
        })))
    }

    fn wires(&self) -> MutexGuard<'_, Wires<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listen(&self, id: &str, raft: Raft<C, Machine<C>>) {
        self.wires().up.insert(id.to_owned(), raft);
    }

    pub(crate) fn hang_up(&self, id: &str) {
        let gone = self.wires().up.remove(id);
        drop(gone);
    }

    /// Whoever is up at `to`, as `from` can reach it.
    pub(crate) fn reach(&self, from: &str, to: &str) -> Option<Raft<C, Machine<C>>> {
        let wires = self.wires();
        let cut = |a: &str, b: &str| wires.cut.contains(&(a.to_owned(), b.to_owned()));
        if cut(from, to) || cut(to, from) { None } else { wires.up.get(to).cloned() }
    }

    /// Nothing passes between the two groups, in either direction.
    pub(crate) fn cut(&self, some: &[&str], others: &[&str]) {
        let mut wires = self.wires();
        for (a, b) in some.iter().flat_map(|a| others.iter().map(move |b| (*a, *b))) {
            wires.cut.insert((a.to_owned(), b.to_owned()));
            wires.cut.insert((b.to_owned(), a.to_owned()));
        }
    }

    /// Appends with entries hang between the two; heartbeats pass.
    pub(crate) fn hang(&self, from: &str, to: &str) {
        self.wires().hung.insert((from.to_owned(), to.to_owned()));
    }

    pub(crate) fn heal(&self) {
        let mut wires = self.wires();
        wires.cut.clear();
        wires.hung.clear();
    }

    /// How long every message takes from now on.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.wires().latency = latency;
    }

    pub(crate) fn grant_unasked(&self) {
        self.wires().grants_unasked = true;
    }

    pub(crate) fn pre_votes_asked(&self) -> u64 {
        self.wires().pre_votes_asked
    }

    /// How often openraft has told a server to take over.
    pub(crate) fn transfers(&self) -> u64 {
        self.wires().transfers
    }

    fn hangs(&self, from: &str, to: &str) -> bool {
        self.wires().hung.contains(&(from.to_owned(), to.to_owned()))
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.wires().cut.contains(&(from.to_owned(), to.to_owned()))
    }

    async fn call<T, F>(
        &self,
        (from, to): (&C::NodeId, &C::NodeId),
        action: RPCTypes,
        ttl: Duration,
        ask: impl FnOnce(Raft<C, Machine<C>>) -> F + Send,
    ) -> Result<T, RPCError<C>>
    where
        T: Send,
        F: Future<Output = Result<T, RaftError<C>>> + Send,
    {
        let (one, other) = (from.to_string(), to.to_string());
        let latency = self.wires().latency;
        let call = async {
            C::sleep(latency).await;
            if self.is_cut(&one, &other) {
                return std::future::pending().await;
            }
            let raft = self.wires().up.get(&other).cloned();
            let unreachable =
                || RPCError::Unreachable(Unreachable::from_string("nobody listens there"));
            let answer = ask(raft.ok_or_else(unreachable)?).await.map_err(|_| unreachable())?;
            C::sleep(latency).await;
            if self.is_cut(&other, &one) {
                return std::future::pending().await;
            }
            Ok(answer)
        };
        C::timeout(ttl, call).await.unwrap_or_else(|_| {
            let (id, target) = (from.clone(), to.clone());
            Err(RPCError::Timeout(Timeout { action, id, target, timeout: ttl }))
        })
    }
}

/// Makes the links of one server.
pub(crate) struct Links<C: Types> {
    pub(crate) id: C::NodeId,
    pub(crate) network: Network<C>,
}

/// One server's link to another.
pub(crate) struct Link<C: Types> {
    from: C::NodeId,
    to: C::NodeId,
    network: Network<C>,
}

impl<C: Types> RaftNetworkFactory<C> for Links<C> {
    type Network = Link<C>;

    async fn new_client(&mut self, target: C::NodeId, _node: &Peer) -> Link<C> {
        Link { from: self.id.clone(), to: target, network: self.network.clone() }
    }
}

impl<C: Types> Link<C> {
    async fn call<T, F>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        ask: impl FnOnce(Raft<C, Machine<C>>) -> F + Send,
    ) -> Result<T, RPCError<C>>
    where
        T: Send,
        F: Future<Output = Result<T, RaftError<C>>> + Send,
    {
        self.network.call((&self.from, &self.to), action, option.hard_ttl(), ask).await
    }
}

impl<C: Types> RaftNetworkV2<C> for Link<C> {
    type SnapshotData = Image<C>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        if !rpc.entries.is_empty()
            && self.network.hangs(&self.from.to_string(), &self.to.to_string())
        {
            return std::future::pending().await;
        }
        self.call(
            RPCTypes::AppendEntries,
            &option,
            |raft| async move { raft.append_entries(rpc).await },
        )
        .await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.call(RPCTypes::Vote, &option, |raft| async move { raft.vote(rpc).await }).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        if self.network.wires().grants_unasked {
            return Ok(VoteResponse::new(rpc.vote, None, true));
        }
        self.network.wires().pre_votes_asked += 1;
        self.call(RPCTypes::Vote, &option, |raft| async move { raft.pre_vote(rpc).await }).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, Image<C>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let install = |raft: Raft<C, Machine<C>>| async move {
            raft.install_full_snapshot(vote, snapshot).await.map_err(RaftError::Fatal)
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            answer = self.call(RPCTypes::InstallSnapshot, &option, install) => {
                answer.map_err(StreamingError::from)
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        self.network.wires().transfers += 1;
        self.call(RPCTypes::TransferLeader, &option, |raft| async move {
            raft.handle_transfer_leader(request).await.map_err(RaftError::Fatal)
        })
        .await
    }
}
