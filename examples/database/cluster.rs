//! Five servers on this machine, each a process of its own, with a table of how they are.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::http;
use crate::web::Status;

/// Added to a server's HTTP port, for its port to the other servers.
const RAFT_PORT_OFFSET: u16 = 100;

/// How long a server may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a server may take to answer or to stop.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What the whole cluster is started with.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many servers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// HTTP port of the first server; the next ones follow.
    #[arg(long, default_value_t = 7301, value_parser = clap::value_parser!(u16).range(1..=60000))]
    http_port: u16,
    /// Where the servers keep their data [default: a temporary directory, removed at the end].
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// One server, as its parent sees it.
struct Server {
    number: u16,
    http: String,
    child: Child,
    ended: Option<ExitStatus>,
}

/// Starts the servers, shows how they are, and stops them all at Ctrl-C.
pub(crate) async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    let place = Place::new(&options)?;
    place.check_ports()?;
    place.make_dir()?;
    let mut servers = Vec::new();
    let shown = tokio::select! {
        biased;
        stopped = &mut stop => stopped.map_err(Into::into),
        shown = show(&place, &mut servers) => shown,
    };
    let stopped = stop_all(servers).await;
    place.clear()?;
    shown.and(stopped.map_err(Into::into))
}

/// Where the servers of this run live.
struct Place {
    nodes: u16,
    http_port: u16,
    program: PathBuf,
    dir: PathBuf,
    is_temporary: bool,
}

impl Place {
    fn new(options: &Options) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let name = format!("raft-autopilot-database-{}", std::process::id());
        let is_temporary = options.dir.is_none();
        let dir = options.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
        let Options { nodes, http_port, .. } = *options;
        Ok(Self { nodes, http_port, program, dir, is_temporary })
    }

    fn make_dir(&self) -> io::Result<()> {
        // A temporary name can be guessed: whoever made that directory first is not to be trusted.
        DirBuilder::new().mode(0o700).recursive(!self.is_temporary).create(&self.dir)
    }

    fn http(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.http_port + number - 1)
    }

    fn listen(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.http_port + RAFT_PORT_OFFSET + number - 1)
    }

    /// A server that cannot listen would end at once; say so before any is started.
    fn check_ports(&self) -> Result<(), String> {
        for number in 1..=self.nodes {
            for addr in [self.http(number), self.listen(number)] {
                TcpListener::bind(&addr).map_err(|error| {
                    format!("{addr} is not free ({error}): stop what listens there, or choose other ports with --http-port")
                })?;
            }
        }
        Ok(())
    }

    /// The arguments of one server, as they can be typed.
    fn arguments(&self, number: u16) -> Vec<String> {
        let dir = self.dir.join(number.to_string()).display().to_string();
        let (listen, http) = (self.listen(number), self.http(number));
        let (name, zone) = (format!("n{number}"), format!("zone-{}", (number - 1) % 3 + 1));
        let mut arguments: Vec<String> = ["node", "--dir", &dir, "--listen", &listen]
            .into_iter()
            .chain(["--http", &http, "--name", &name, "--zone", &zone])
            .map(str::to_owned)
            .collect();
        if number > 1 {
            arguments.extend(["--seed".to_owned(), self.listen(1)]);
        }
        arguments
    }

    fn start(&self, number: u16) -> io::Result<Server> {
        let log = File::create(self.log(number))?;
        let child = Command::new(&self.program)
            .args(self.arguments(number))
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Server { number, http: self.http(number), child, ended: None })
    }

    fn log(&self, number: u16) -> PathBuf {
        self.dir.join(format!("{number}.log"))
    }

    fn clear(&self) -> io::Result<()> {
        if self.is_temporary { std::fs::remove_dir_all(&self.dir) } else { Ok(()) }
    }
}

async fn show(place: &Place, servers: &mut Vec<Server>) -> Result<(), Box<dyn Error>> {
    println!("starting {} servers in {}", place.nodes, place.dir.display());
    for number in 1..=place.nodes {
        servers.push(place.start(number)?);
        // The first begins the cluster; the others find it and join all at once.
        if number == 1 {
            wait_for_leader(place, &mut servers[0]).await?;
        }
    }
    println!("{}", what_to_try(place, servers));
    let mut before = String::new();
    let mut ticks = interval(Duration::from_millis(300));
    loop {
        ticks.tick().await;
        for server in servers.iter_mut() {
            report_end(place, server)?;
        }
        let table = table(servers).await;
        if table != before {
            println!("{table}");
            before = table;
        }
    }
}

async fn wait_for_leader(place: &Place, first: &mut Server) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        report_end(place, first)?;
        if first.ended.is_some() {
            return Err("the first server has ended".into());
        }
        if status(&first.http).await.is_some_and(|status| status.leader.is_some()) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(format!("the first server did not lead within {START_LIMIT:?}").into())
}

/// Says once that a server has ended, why if it said so, and how to start it again.
fn report_end(place: &Place, server: &mut Server) -> io::Result<()> {
    if server.ended.is_some() {
        return Ok(());
    }
    server.ended = server.child.try_wait()?;
    if let Some(ended) = server.ended {
        println!(
            "server at {} has ended ({ended}){}",
            server.http,
            last_line(place, server.number)
        );
        println!("  to start it again: {}", typed(&place.program, &place.arguments(server.number)));
    }
    Ok(())
}

fn last_line(place: &Place, number: u16) -> String {
    let log = std::fs::read_to_string(place.log(number)).unwrap_or_default();
    log.lines().last().map(|line| format!(": {line}")).unwrap_or_default()
}

fn typed(program: &Path, arguments: &[String]) -> String {
    let words = arguments.iter().map(|word| if word.is_empty() { "''" } else { word });
    std::iter::once(format!("'{}'", program.display()))
        .chain(words.map(str::to_owned))
        .collect::<Vec<_>>()
        .join(" ")
}

fn what_to_try(place: &Place, servers: &[Server]) -> String {
    let last = servers.last();
    let pid = last.and_then(|server| server.child.id()).unwrap_or_default();
    let http = place.http(1);
    format!(
        "\nWhat to try, in another terminal:\n\
         \x20 write and read:  curl -L -X PUT http://{http}/kv/colour -d green; curl -L http://{http}/kv/colour\n\
         \x20 kill server {}:   kill -9 {pid}\n\
         \x20 add one more:    {}\n\
         \x20 move the lead:   curl -L -X PUT http://{http}/leader/ID\n\
         Ctrl-C stops all of them.\n",
        place.nodes,
        typed(&place.program, &place.arguments(place.nodes + 1)),
    )
}

async fn status(http: &str) -> Option<Status> {
    let answer = http::ask("GET", http, "/status", Vec::new(), ANSWER_LIMIT).await.ok()?;
    answer.status.is_success().then(|| serde_json::from_slice(&answer.body).ok())?
}

/// Every server that was started here or is a member, and how it says it is.
async fn table(servers: &[Server]) -> String {
    let mut addresses: Vec<String> = servers.iter().map(|server| server.http.clone()).collect();
    let mut known = Vec::new();
    let mut next = 0;
    while let Some(addr) = addresses.get(next).cloned() {
        next += 1;
        let status = status(&addr).await;
        for member in status.iter().flat_map(|status| status.members.values()) {
            if !addresses.contains(member) {
                addresses.push(member.clone());
            }
        }
        known.push((addr, status));
    }
    let mut table = format!(
        "{:<16} {:>7} {:>4} {:<6} {:<9} {:<5} {:>4} {:<7} {}\n",
        "http", "pid", "id", "name", "role", "vote", "term", "zone", "version"
    );
    for (addr, status) in known {
        let server = servers.iter().find(|server| server.http == addr);
        let pid = server.and_then(|server| server.child.id());
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        // Writing into a String does not fail.
        let _ = match status {
            Some(status) => {
                let votes = status.voters.iter().any(|set| set.contains(&status.id));
                writeln!(
                    table,
                    "{addr:<16} {pid:>7} {:>4} {:<6} {:<9} {:<5} {:>4} {:<7} {}",
                    status.id,
                    status.name,
                    status.role,
                    if votes { "yes" } else { "no" },
                    status.term,
                    status.zone,
                    status.version
                )
            }
            None => writeln!(table, "{addr:<16} {pid:>7}    -        no answer"),
        };
    }
    table
}

/// Servers stop by themselves when their standard input ends; those that do not are killed.
async fn stop_all(servers: Vec<Server>) -> io::Result<()> {
    let mut servers = servers;
    for server in &mut servers {
        drop(server.child.stdin.take());
    }
    for server in &mut servers {
        if timeout(ANSWER_LIMIT, server.child.wait()).await.is_err() {
            server.child.kill().await?;
        }
    }
    Ok(())
}
