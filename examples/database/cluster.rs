//! Five servers on this machine, each a process of its own, with a table of how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{DirBuilder, File};
use std::io::{self, IsTerminal, Write};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::autopilot::VOTERS;
use crate::http;
use crate::table::Picture;

/// Added to a server's HTTP port, for its port to the other servers.
const RAFT_PORT_OFFSET: u16 = 100;

/// Where the leader tells what it thinks of everybody.
const STATE: &str = "/v1/operator/autopilot/state";

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
    /// What an operator has to present [default: a random one, shown with the commands to try].
    #[arg(long, env = "DATABASE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Keep ranges and standings in this etcd, `http://host:port`, instead of in the database's own log.
    #[cfg(feature = "etcd")]
    #[arg(long, value_name = "URL")]
    etcd: Option<String>,
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
    token: String,
    /// More arguments for every server.
    more: Vec<String>,
}

impl Place {
    fn new(options: &Options) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let name = format!("raft-autopilot-database-{}", std::process::id());
        let is_temporary = options.dir.is_none();
        let dir = options.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
        let token = options.token.clone().filter(|token| !token.is_empty());
        let token = token.unwrap_or_else(|| format!("{:016x}", crate::storage::random()));
        let Options { nodes, http_port, .. } = *options;
        #[cfg(feature = "etcd")]
        let etcd = options.etcd.clone();
        #[cfg(not(feature = "etcd"))]
        let etcd: Option<String> = None;
        let more = etcd.map(|etcd| vec!["--etcd".to_owned(), etcd]).unwrap_or_default();
        Ok(Self { nodes, http_port, program, dir, is_temporary, token, more })
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

    /// The arguments of a new server.
    fn arguments(&self, number: u16) -> Vec<String> {
        let dir = self.dir.join(number.to_string()).display().to_string();
        let (listen, http) = (self.listen(number), self.http(number));
        let (name, zone) = (format!("n{number}"), format!("zone-{}", (number - 1) % 3 + 1));
        let mut arguments: Vec<String> = ["node", "--dir", &dir, "--listen", &listen]
            .into_iter()
            .chain(["--http", &http, "--name", &name, "--zone", &zone])
            .map(str::to_owned)
            .collect();
        arguments.extend(self.more.clone());
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
            .env("DATABASE_TOKEN", &self.token)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Server { number, http: self.http(number), child, ended: None })
    }

    /// The arguments of a server that has run before.
    fn again(&self, number: u16) -> Vec<String> {
        let dir = self.dir.join(number.to_string()).display().to_string();
        let mut arguments = vec!["node".to_owned(), "--dir".to_owned(), dir];
        arguments.extend(self.more.clone());
        arguments
    }

    /// A server's command line, to be copied into a shell.
    fn typed(&self, arguments: &[String]) -> String {
        let program = self.program.display().to_string();
        let words = std::iter::once(&program).chain(arguments).map(|word| quoted(word));
        let token = format!("DATABASE_TOKEN={}", quoted(&self.token));
        std::iter::once(token).chain(words).collect::<Vec<_>>().join(" ")
    }

    fn log(&self, number: u16) -> PathBuf {
        self.dir.join(format!("{number}.log"))
    }

    fn clear(&self) -> io::Result<()> {
        if self.is_temporary { std::fs::remove_dir_all(&self.dir) } else { Ok(()) }
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

async fn show(place: &Place, servers: &mut Vec<Server>) -> Result<(), Box<dyn Error>> {
    println!("starting {} servers in {}", place.nodes, place.dir.display());
    let is_new = !place.dir.join("1").exists();
    for number in 1..=place.nodes {
        servers.push(place.start(number)?);
        // The first begins the cluster; the next ones get their ids in order. Servers that have
        // run before need each other to go on.
        if let (true, Some(server)) = (is_new, servers.last_mut()) {
            wait(place, server, if number == 1 { STATE } else { "/status" }).await?;
        }
    }
    println!("{}", what_to_try(place, servers));
    let mut screen = Screen { begin: Instant::now(), key: String::new(), since: 0, lines: 0 };
    let mut known: BTreeSet<String> = servers.iter().map(|server| server.http.clone()).collect();
    let mut ticks = interval(Duration::from_millis(300));
    loop {
        ticks.tick().await;
        for server in servers.iter_mut() {
            if report_end(place, server)? {
                screen.lines = 0;
            }
        }
        let picture = picture(&known).await;
        if let Some(picture) = &picture {
            known.extend(picture.addresses().map(str::to_owned));
        }
        let pids = servers.iter().filter_map(|s| Some((s.http.as_str(), s.child.id()?))).collect();
        screen.show(picture.as_ref(), &pids)?;
    }
}

/// A table a change; on a terminal the last one is kept up to date where it stands.
struct Screen {
    begin: Instant,
    key: String,
    /// When the table that stands was new, in seconds.
    since: u64,
    lines: usize,
}

impl Screen {
    fn show(&mut self, picture: Option<&Picture>, pids: &BTreeMap<&str, u32>) -> io::Result<()> {
        let key = picture.map_or_else(String::new, Picture::key);
        let is_new = key != self.key;
        let mut out = io::stdout().lock();
        if !is_new && !out.is_terminal() {
            return Ok(());
        }
        if !is_new && self.lines > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.lines)?;
        }
        let text =
            picture.map_or_else(|| "nobody leads\n".to_owned(), |picture| picture.text(pids));
        if is_new {
            self.since = self.begin.elapsed().as_secs();
        }
        let text = format!("{:>4} s: {text}\n", self.since);
        self.key = key;
        self.lines = text.lines().count();
        if out.is_terminal() {
            // A line too long for the terminal is cut, so that the lines can be counted.
            write!(out, "\x1b[?7l{text}\x1b[?7h")?;
        } else {
            write!(out, "{text}")?;
        }
        out.flush()
    }
}

/// Waits until a server answers this well.
async fn wait(place: &Place, server: &mut Server, path: &str) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        report_end(place, server)?;
        if server.ended.is_some() {
            return Err(format!("n{} has ended", server.number).into());
        }
        let answer = http::ask("GET", &server.http, path, None, Vec::new(), ANSWER_LIMIT).await;
        if answer.is_ok_and(|answer| answer.status.is_success()) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(format!("n{} was not ready within {START_LIMIT:?}", server.number).into())
}

/// Says once that a server has ended, why if it said so, and how to start it again.
fn report_end(place: &Place, server: &mut Server) -> io::Result<bool> {
    if server.ended.is_some() {
        return Ok(false);
    }
    server.ended = server.child.try_wait()?;
    let Some(ended) = server.ended else { return Ok(false) };
    let number = server.number;
    println!("n{number} has ended ({ended}){}", last_line(place, number));
    println!("  to start it again:  {}\n", place.typed(&place.again(number)));
    Ok(true)
}

fn last_line(place: &Place, number: u16) -> String {
    let log = std::fs::read_to_string(place.log(number)).unwrap_or_default();
    let words = log.lines().last().filter(|line| !line.contains(" listens on "));
    words.map(|line| format!(": {line}")).unwrap_or_default()
}

fn what_to_try(place: &Place, servers: &[Server]) -> String {
    let (http, token, last) = (place.http(1), &place.token, place.nodes);
    let pid = servers.last().and_then(|server| server.child.id()).unwrap_or_default();
    let order = format!("curl -X POST --location-trusted -H 'Authorization: Bearer {token}'");
    format!(
        "\nWhat to try, in another terminal:\n\
         \x20 write and read       curl -L -X PUT http://{http}/kv/colour -d green; \
                                    curl -i -L http://{http}/kv/colour\n\
         \x20 add one more         {more}\n\
         \x20 stop n{last} for a while  kill -STOP {pid}; sleep 5; kill -CONT {pid}\n\
         \x20 kill n{last}              kill -9 {pid}\n\
         \x20 let n{last} leave         kill -TERM {pid}\n\
         \x20 drain the leader     {order} http://{http}/operator/drain/leader\n\
         \x20 remove a server      {order} http://{http}/operator/remove/ID\n\
         \x20 all that is known    curl http://{http}/v1/operator/autopilot/state\n\
         \x20 what it did, and why curl http://{http}/v1/operator/autopilot/history\n\
         Times are short here: healthy for 5 s earns a vote, {VOTERS} voters at most; a vote moves \
         from the dead to\na server that stands by after 5 s, and who is dead for 3 min is removed. \
         The keys are in 48 ranges,\neach read from two servers: who is sick for 2 s hands its \
         primaries over, for 8 s its ranges too, bit by bit;\nwho is well again gets them back. A \
         drained server holds no ranges and does not lead for 1 min.\n\
         Ctrl-C stops all of them.\n",
        more = place.typed(&place.arguments(last + 1)),
    )
}

/// What the leader says; any server knows the way to it.
async fn picture(known: &BTreeSet<String>) -> Option<Picture> {
    for addr in known {
        let Ok(answer) = http::ask("GET", addr, STATE, None, Vec::new(), ANSWER_LIMIT).await else {
            continue;
        };
        if let (true, Ok(picture)) =
            (answer.status.is_success(), serde_json::from_slice(&answer.body))
        {
            return Some(picture);
        }
    }
    None
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
