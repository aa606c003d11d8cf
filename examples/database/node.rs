//! The life of one server: its identity, its way into the cluster, and its end.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::Config;
use openraft::async_runtime::WatchReceiver;
use raft_autopilot::autopilot::Running;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::autopilot::{self, Database};
use crate::members::ask_leader;
use crate::network::Network;
use crate::ranges;
use crate::service::Service;
use crate::storage::{self, Identity, LogStore};
use crate::store;
use crate::types::{FIRST_ID, Member, Raft};
use crate::web;
use crate::wire::{Connection, Envelope, Request, Response};

/// How long a new server tries to join.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// How long a server that is terminated takes to hand over what it holds.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);

/// How often a server asks one of the others whether it still belongs to them.
const BELONG_INTERVAL: Duration = Duration::from_secs(1);

/// What one server is started with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Directory of the server's data. An empty one makes a new server, with a new id.
    #[arg(long)]
    dir: PathBuf,
    /// Address for the other servers; later starts may leave it out.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address for clients over HTTP; later starts may leave it out.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Any server of the cluster to join. A new server without a seed begins a cluster.
    #[arg(long, value_name = "HOST:PORT")]
    seed: Option<String>,
    /// Refuse to start unless the directory belongs to this id.
    #[arg(long)]
    id: Option<u64>,
    /// What operators call this server [default: its HTTP address].
    #[arg(long)]
    name: Option<String>,
    /// The zone that this server would fail together with.
    #[arg(long, default_value = "")]
    zone: String,
    /// The version that this server says it runs.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    version: String,
    /// Milliseconds between two heartbeats; well above the round trip time.
    #[arg(long, default_value_t = 100)]
    heartbeat: u64,
    /// Milliseconds without a leader before an election; it is held within twice this.
    #[arg(long, default_value_t = 600)]
    election: u64,
    /// Log entries between two snapshots.
    #[arg(long, default_value_t = 5000)]
    snapshot_every: u64,
    /// What an operator has to present as `Authorization: Bearer`; without it nobody may order
    /// anything.
    #[arg(long, env = "DATABASE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Keep ranges and standings in this etcd, `http://host:port`, instead of in the database's own log.
    #[cfg(feature = "etcd")]
    #[arg(long, value_name = "URL")]
    etcd: Option<String>,
    /// Stop when the standard input ends, that is, together with the process that started this.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs one server until it is told to stop, or was removed, or cannot go on.
pub(crate) async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    #[cfg(feature = "etcd")]
    let etcd = options.etcd.clone();
    #[cfg(not(feature = "etcd"))]
    let etcd: Option<String> = None;
    std::fs::create_dir_all(&options.dir)?;
    let (log, state) = storage::open(&options.dir)?;
    let known = log.identity()?;
    check_identity(&options, known.as_ref())?;
    let (peers, clients, member) = bind(&options, known.as_ref()).await?;
    let identity = match known {
        Some(identity) => identity,
        None => new_identity(&options, member, &log).await?,
    };
    let (removed, told) = unbounded_channel();
    let Identity { cluster, id, .. } = identity;
    let network = Network { cluster, id, removed: removed.clone() };
    let config = Arc::new(config(&options).validate()?);
    let raft = Raft::new(id, config, network, log.clone(), state.clone()).await?;
    let version = options.version;
    let work = Arc::new(OnceLock::new());
    let database = Database {
        cluster,
        id,
        version: version.clone(),
        state: state.clone(),
        work: Arc::clone(&work),
    };
    let (autopilot, handle) = autopilot::new(&raft, database)?;
    let store = store::new(&raft, state.replica(), store::Database { cluster, id });
    let server = autopilot::server(id, &identity.member);
    let (ranges, placed) = match etcd {
        Some(etcd) => ranges::new(store::connect(&etcd).await?, &server, &state, &handle)?,
        None => ranges::new(store.clone(), &server, &state, &handle)?,
    };
    // Autopilot, which was made first, asks for it from now on.
    let _ = work.set(placed.clone());
    let work = (store, placed);
    let service =
        Service::new(identity.clone(), version, raft.clone(), (log, state), handle, work, removed);
    let service = Arc::new(service);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Arc::clone(&service).listen(peers));
    tasks.spawn(web::serve(Arc::clone(&service), clients, options.token));
    tasks.spawn(autopilot);
    tasks.spawn(ranges);
    let Member { name, addr, http, .. } = &identity.member;
    println!("server {} ({name}) listens on {addr}, clients on http://{http}", identity.id);

    let end = live(&service, &options.dir, told, options.stop_with_stdin).await;
    if matches!(end, Ok(End::Terminated)) {
        println!("server {} hands over what it holds, and stops", identity.id);
        service.placed.leave(LEAVE_LIMIT).await;
        // Most often it does not lead any more: who leaves hands that over first.
        if service.autopilot.running() == Running::Leading
            && let Err(error) = service.autopilot.clone().within(LEAVE_LIMIT).transfer(None).await
        {
            tracing::warn!(%error, "leadership is left behind");
        }
    }
    raft.shutdown().await?;
    tasks.shutdown().await;
    if matches!(end, Ok(End::Removed)) {
        service.log.set_identity(&Identity { removed: true, ..identity.clone() })?;
        println!("server {} was removed from the cluster and stops", identity.id);
    }
    end.map(|_| ()).map_err(Into::into)
}

enum End {
    Told,
    /// Told by whoever goes on without this server.
    Terminated,
    Removed,
}

async fn live(
    service: &Service,
    dir: &Path,
    mut told: UnboundedReceiver<String>,
    with_stdin: bool,
) -> io::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(End::Told),
        _ = terminate.recv() => Ok(End::Terminated),
        () = end_of_stdin(), if with_stdin => Ok(End::Told),
        Some(why) = told.recv() => { tracing::warn!(why); Ok(End::Removed) }
        end = belong(service, dir) => end,
    }
}

/// Gets into the cluster, then keeps asking whether this server is still part of it: nobody else
/// tells a server that was away when it was removed.
async fn belong(service: &Service, dir: &Path) -> io::Result<End> {
    let Identity { cluster, id, member, seed, .. } = &service.identity;
    let is_member =
        || service.state.standing(|standing| standing.membership.get_node(id).is_some());
    match seed {
        None if !service.raft.is_initialized().await.map_err(io::Error::other)? => {
            let first = BTreeMap::from([(*id, member.clone())]);
            service.raft.initialize(first).await.map_err(io::Error::other)?;
        }
        Some(seed) if !is_member() => {
            let join = || Request::Join { id: *id, member: member.clone() };
            match ask_leader(seed, *cluster, *id, join, JOIN_LIMIT).await? {
                Response::Joined => {}
                Response::Removed => return Ok(End::Removed),
                other => return Err(io::Error::other(format!("an odd answer: {other:?}"))),
            }
        }
        None | Some(_) => {}
    }
    let mut ticks = tokio::time::interval(BELONG_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 0_usize.. {
        ticks.tick().await;
        if !dir.exists() {
            return Err(io::Error::other(format!("{} is gone", dir.display())));
        }
        service.raft.metrics().borrow_watched().running_state.clone().map_err(io::Error::other)?;
        let others: Vec<String> = service.state.standing(|standing| {
            let others = standing.membership.nodes().filter(|(other, _)| *other != id);
            others.map(|(_, member)| member.addr.clone()).collect()
        });
        let Some(addr) = others.get(turn % others.len().max(1)) else { continue };
        let envelope = Envelope { cluster: *cluster, from: *id, to: 0, request: Request::Status };
        let answer = Connection::new(addr).ask(&envelope, BELONG_INTERVAL).await;
        if let Ok(Response::Removed) = answer {
            return Ok(End::Removed);
        }
    }
    Ok(End::Told)
}

async fn end_of_stdin() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while stdin.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

/// An id belongs to a log: with the log gone the votes it gave are forgotten, and a server that
/// came back under its old id could vote a second time.
fn check_identity(options: &Options, known: Option<&Identity>) -> Result<(), String> {
    let dir = options.dir.display();
    match (known, options.id) {
        (Some(Identity { id, removed: true, .. }), _) => Err(format!(
            "{dir} belonged to server {id}, which was removed: start with an empty directory"
        )),
        (None, Some(told)) => Err(format!(
            "{dir} is empty, so it cannot be server {told}: its log is gone, and its id with it. \
             Leave out --id to join as a new server"
        )),
        (Some(Identity { id, .. }), Some(told)) if *id != told => Err(format!(
            "{dir} belongs to server {id}, not to server {told}; nothing was changed: name its own \
                 directory, or leave out --id"
        )),
        (Some(_) | None, _) => Ok(()),
    }
}

/// Opens both listeners; a server that is known keeps its addresses.
async fn bind(
    options: &Options,
    known: Option<&Identity>,
) -> Result<(TcpListener, TcpListener, Member), String> {
    let known = known.map(|identity| &identity.member);
    let listen = address("--listen", options.listen.as_deref(), known.map(|m| m.addr.as_str()))?;
    let http = address("--http", options.http.as_deref(), known.map(|m| m.http.as_str()))?;
    let (peers, addr) = bind_one(listen).await?;
    let (clients, http) = bind_one(http).await?;
    let name = options.name.clone().unwrap_or_else(|| http.clone());
    Ok((peers, clients, Member { addr, http, name, zone: options.zone.clone() }))
}

fn address<'a>(
    flag: &str,
    told: Option<&'a str>,
    known: Option<&'a str>,
) -> Result<&'a str, String> {
    match (told, known) {
        (Some(told), Some(known)) if told != known => Err(format!(
            "{flag} {told}: the cluster knows this server at {known}; leave {flag} out"
        )),
        (told, known) => known.or(told).ok_or_else(|| format!("a new server needs {flag}")),
    }
}

async fn bind_one(addr: &str) -> Result<(TcpListener, String), String> {
    let failed = |error| {
        format!(
            "cannot listen on {addr}: {error}; nothing was changed: stop what listens there, or name another"
        )
    };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?.to_string();
    Ok((listener, addr))
}

/// Asks the cluster for an id, or begins a cluster; written down before it is used.
async fn new_identity(options: &Options, member: Member, log: &LogStore) -> io::Result<Identity> {
    let seed = options.seed.clone();
    let (cluster, id) = match &seed {
        None => (crate::storage::random(), FIRST_ID),
        Some(seed) => match ask_leader(seed, 0, 0, || Request::Reserve, JOIN_LIMIT).await? {
            Response::Reserved { cluster, id } => (cluster, id),
            other => return Err(io::Error::other(format!("an odd answer: {other:?}"))),
        },
    };
    let identity = Identity { cluster, id, member, seed, removed: false };
    log.set_identity(&identity)?;
    Ok(identity)
}

fn config(options: &Options) -> Config {
    Config {
        cluster_name: "database".to_owned(),
        heartbeat_interval: options.heartbeat,
        election_timeout_min: options.election,
        election_timeout_max: options.election.saturating_mul(2),
        // Without it, a server that was cut off forces an election when it comes back.
        enable_pre_vote: Some(true),
        // A leader commits as soon as its followers have an entry, even before its own disk has.
        // If it crashed then and came back as the leader of the same term, without that entry,
        // there would be two histories.
        enable_leader_restore: Some(false),
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(options.snapshot_every),
        max_in_snapshot_log_to_keep: options.snapshot_every / 5,
        ..Config::default()
    }
}
