//! How etcd is asked: one connection a server, deadlines, and retries where they are safe.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, Identity, ResponseHeader, TlsOptions,
};

use super::convert::{self, Failure, failure, unsigned};
use crate::{
    runtime::{Runtime, TokioRuntime},
    store::{
        error::{Refusal, StoreError},
        kv::KeyRange,
        txn::{Limits, RangeRequest, RangeResponse},
    },
};

/// Longer than any request or connection is waited for.
const DAY: Duration = Duration::from_secs(86_400);

/// What a server says to a user that it knows, about a key that is not for it.
const NOT_PERMITTED: &str = "permission denied";

/// The pause before a request that was turned away is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How servers and we prove to each other who we are. All texts are PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// The certificates that the servers' are signed with.
    pub ca: Option<String>,
    /// Our certificate and its key.
    pub identity: Option<(String, String)>,
    /// The name in the servers' certificates, where it is not that of the endpoint.
    pub domain: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// How an etcd is reached.
#[derive(Clone)]
pub struct Options {
    /// The servers' addresses, such as `http://10.0.0.1:2379`; `https` needs `tls`.
    pub endpoints: Vec<String>,
    /// User and password. Default: none.
    pub user: Option<(String, String)>,
    /// Certificates. Default: none.
    pub tls: Option<Tls>,
    /// How long a request may take, its retries included. Default 5 s.
    pub deadline: Duration,
    /// How long a connection may take to stand. Default 2 s.
    pub connect_timeout: Duration,
    /// How often an open connection is tried out, and how long that may take. Without it a server
    /// that hangs is not noticed by a watch. Default 2 s each.
    pub keep_alive: (Duration, Duration),
    /// What the servers take: `--max-txn-ops`, `--max-request-bytes`. Default: theirs.
    pub limits: Limits,
    /// The largest answer that is taken, in bytes. Default 256 MiB. A larger one refuses a reading
    /// and ends a watch; what it answers to may have been done. A watch that comes back is told up
    /// to 1,000 revisions at once.
    pub response_len: usize,
}

impl Options {
    /// Fails where they make no sense.
    fn check(&self) -> Result<(), Refusal> {
        if self.endpoints.is_empty() {
            return Err(Refusal::Invalid("an etcd without endpoints".to_owned()));
        }
        for (field, found) in [
            ("deadline", self.deadline),
            ("connect_timeout", self.connect_timeout),
            ("keep_alive", self.keep_alive.0),
            ("keep_alive", self.keep_alive.1),
        ] {
            if found.is_zero() || found > DAY {
                let what = format!("an etcd's `{field}` of {found:?} found");
                return Err(Refusal::Invalid(format!(
                    "{what}, more than 0 and at most a day expected"
                )));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("Options")
            .field("endpoints", &self.endpoints)
            .field("user", &user)
            .field("tls", &self.tls)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            user: None,
            tls: None,
            deadline: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            keep_alive: (Duration::from_secs(2), Duration::from_secs(2)),
            limits: Limits::default(),
            response_len: 256 << 20,
        }
    }
}

/// An etcd. Its clones share their connections.
///
/// A reading that fails is sent again, to the next server, until the deadline. A change is sent
/// again only if no server can have seen it; otherwise it ends in [`StoreError::Unknown`].
///
/// Where etcd does not say which revision or lease it refuses, the first that the request names
/// is told; and a compacted revision is told as the least that it can be.
#[derive(Clone)]
pub struct Etcd<R: Runtime = TokioRuntime> {
    pub(super) shared: Arc<Shared<R>>,
}

pub(super) struct Shared<R> {
    pub(super) runtime: R,
    pub(super) options: Options,
    /// One for each endpoint; connected when it is first needed.
    clients: Vec<tokio::sync::OnceCell<Client>>,
    /// The endpoint that answered last.
    current: AtomicUsize,
    /// The latest revision that any answer has named.
    latest: AtomicU64,
    /// The cluster of the first answer. Zero: there was none yet.
    cluster: AtomicU64,
}

impl<R: Runtime> fmt::Debug for Etcd<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl<R: Runtime> Etcd<R> {
    /// Reaches for an etcd, and returns once it has answered.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for options that make no sense, or a user or certificate that does
    /// not suffice; [`StoreError::Retry`] if no server answers within the deadline.
    pub async fn connect(options: Options, runtime: R) -> Result<Self, StoreError> {
        options.check()?;
        let clients = options.endpoints.iter().map(|_| tokio::sync::OnceCell::new()).collect();
        let (current, latest, cluster) =
            (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { runtime, options, clients, current, latest, cluster });
        let etcd = Self { shared };
        match etcd.get(&RangeRequest::new(KeyRange::key("\0")).keys_only()).await {
            // It knows us; that we may read this key was not the question.
            Err(Failure::Refused(Refusal::Denied(why))) if why.contains(NOT_PERMITTED) => Ok(etcd),
            Err(failure) => Err(failure.of_reading()),
            Ok(_) => Ok(etcd),
        }
    }

    /// The connection to an endpoint.
    pub(super) async fn client(&self, endpoint: usize) -> Result<Client, Failure> {
        let index = endpoint % self.shared.clients.len();
        let (Some(client), Some(address)) =
            (self.shared.clients.get(index), self.shared.options.endpoints.get(index))
        else {
            return Err(Failure::Unsent("no endpoint".to_owned()));
        };
        // Once for each server; it need not be part of every request.
        let client = client.get_or_try_init(|| Box::pin(self.join(address))).await;
        client.cloned().map_err(Failure::with_nothing_sent)
    }

    /// Reaches for a server, and makes sure that it belongs to the same cluster as the others.
    async fn join(&self, address: &String) -> Result<Client, Failure> {
        let client = Client::connect([address], Some(self.connect_options())).await;
        let mut client = client.map_err(|error| failure(&error))?;
        match client.status().await.map_err(|error| failure(&error)) {
            Ok(status) => drop(self.revision(status.header())?),
            // Whoever may read need not be allowed to ask for this.
            Err(Failure::Refused(_)) => {}
            Err(other) => return Err(other),
        }
        Ok(client)
    }

    fn connect_options(&self) -> ConnectOptions {
        let options = &self.shared.options;
        let (interval, timeout) = options.keep_alive;
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(options.connect_timeout)
            .with_keep_alive(interval, timeout)
            .with_keep_alive_while_idle(true)
            // A server that is cut off from the others must not serve a watch that stands still.
            .with_require_leader(true);
        if let Some((name, password)) = &options.user {
            connect = connect.with_user(name, password).with_auto_token_refresh(true);
        }
        if let Some(tls) = &options.tls {
            let mut with = TlsOptions::new();
            if let Some(ca) = &tls.ca {
                with = with.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some((certificate, key)) = &tls.identity {
                with = with.identity(Identity::from_pem(certificate, key));
            }
            if let Some(domain) = &tls.domain {
                with = with.domain_name(domain);
            }
            connect = connect.with_tls(with);
        }
        connect
    }

    pub(super) fn current(&self) -> usize {
        self.shared.current.load(Ordering::Relaxed)
    }

    /// Leaves an endpoint that has failed, unless somebody else did already.
    pub(super) fn leave(&self, endpoint: usize) {
        let (order, next) = (Ordering::Relaxed, endpoint.wrapping_add(1));
        let _ = self.shared.current.compare_exchange(endpoint, next, order, order);
    }

    /// Notes the revision of an answer.
    ///
    /// # Errors
    /// The answer is of another cluster: the endpoints are not of one, or it was set up anew.
    pub(super) fn revision(&self, header: Option<&ResponseHeader>) -> Result<u64, Failure> {
        let Some(header) = header else { return Ok(0) };
        let (order, id) = (Ordering::Relaxed, header.cluster_id());
        let known = self.shared.cluster.compare_exchange(0, id, order, order);
        if let Err(known) = known
            && known != id
        {
            let what = format!("cluster {id:x} answers, this is a store of cluster {known:x}");
            return Err(Failure::Unanswered(what));
        }
        let revision = unsigned(header.revision());
        self.shared.latest.fetch_max(revision, order);
        Ok(revision)
    }

    /// Sends a request, again and to the next server where that is safe, until the deadline.
    pub(super) async fn call<T, F>(
        &self,
        reading: bool,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let runtime = &self.shared.runtime;
        let end = runtime.now().saturating_add(self.shared.options.deadline);
        loop {
            let endpoint = self.current();
            let attempt = async {
                let client = self.client(endpoint).await?;
                let done = request(client.clone()).await.map_err(|error| failure(&error));
                if done.as_ref().is_err_and(Failure::asks_for_a_token) {
                    let fresh = Box::pin(client.refresh_token()).await;
                    fresh.map_err(|error| failure(&error).with_nothing_sent())?;
                }
                done
            };
            let left = end.saturating_sub(runtime.now());
            // A reading tries another server where one hangs.
            let patience = if reading { left.min(self.shared.options.deadline / 3) } else { left };
            let done = tokio::select! {
                biased;
                done = attempt => done,
                () = runtime.sleep(patience) => {
                    Err(Failure::Unanswered("no answer within the deadline".to_owned()))
                }
            };
            let again = match &done {
                Err(Failure::Unsent(_)) => true,
                Err(Failure::Unanswered(_)) => {
                    self.leave(endpoint);
                    reading
                }
                _ => false,
            };
            if !again || runtime.now() + RETRY_PAUSE >= end {
                return done;
            }
            self.leave(endpoint);
            runtime.sleep(RETRY_PAUSE).await;
        }
    }

    /// Reads at a revision, whatever that may tell.
    pub(super) async fn get(&self, request: &RangeRequest) -> Result<RangeResponse, Failure> {
        let len = self.shared.options.response_len;
        let found = self.call(true, |client| async move {
            let (key, options) = convert::get_options(request);
            client.kv_client().max_decoding_message_size(len).get(key, Some(options)).await
        });
        let found = found.await?;
        let revision = self.revision(found.header())?;
        Ok(convert::range_response(request, &found, revision))
    }

    pub(super) fn ahead(&self, requested: u64) -> StoreError {
        let current = self.shared.latest.load(Ordering::Relaxed).min(requested.saturating_sub(1));
        Refusal::Ahead { requested, current }.into()
    }
}
