//! A thousand items on three members: one is killed, one joins, one drains; the loads as it happens.
//!
//! ```sh
//! cargo run --example items --features allocator
//! cargo run --example items --features allocator,etcd -- --etcd http://127.0.0.1:2379
//! ```
//!
//! The first keeps everything in one process, the second runs each member as a process of its own.

use std::{error::Error, io::IsTerminal, process::ExitCode, time::Duration};

use raft_autopilot::{
    allocator::{
        Allocator, Handle, Happening, Options, Report, Task, Worker,
        plain::{Plain, PlainItem, PlainMember, PlainState},
    },
    runtime::{Runtime, TokioRuntime},
    store::{Op, Store, Txn},
};

type Failure = Box<dyn Error + Send + Sync>;

const ROOT: &str = "/items-example";
const ITEMS: usize = 1_000;
const LIMIT: u32 = 1_000;

/// Does the work: here it only takes a moment until a replica is ready.
struct Copies;

impl Worker<Plain> for Copies {
    async fn happens(&self, task: Task<Plain>) {
        if let Happening::Assigned { .. } = task.happening {
            TokioRuntime.sleep(Duration::from_millis(300)).await;
            // It may have gone elsewhere meanwhile.
            let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
        }
    }
}

/// One member, until it is told to drain.
async fn live(
    store: impl Store,
    zone: &str,
    name: &str,
    drain: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let value = PlainMember { limit: LIMIT, ..PlainMember::default() };
    let ttl = Duration::from_secs(3);
    let options = Options { ttl, ..Options::new(ROOT, zone, name, value) };
    let (mut allocator, _) = Allocator::new(store, TokioRuntime, Plain, Copies, options)?;
    allocator.run(drain).await?;
    Ok(())
}

/// Somebody who watches, and is the oldest member without holding anything: it plans for all.
fn watch(store: impl Store) -> Result<Handle<Plain>, Failure> {
    let options = Options::new(ROOT, "control", "watcher", PlainMember::default());
    let (mut allocator, handle) = Allocator::new(store, TokioRuntime, Plain, (), options)?;
    TokioRuntime.spawn(async move {
        if let Err(error) = allocator.run(std::future::pending()).await {
            eprintln!("the watcher ends: {error}");
        }
    });
    Ok(handle)
}

async fn put_items(store: &impl Store) -> Result<(), Failure> {
    let value = serde_json::to_vec(&PlainItem { replication: 2, zones: None })?;
    let ops = (0..ITEMS).map(|item| Op::put(format!("{ROOT}/items/{item:04}"), value.clone()));
    let ops: Vec<Op> = ops.collect();
    for ops in ops.chunks(100) {
        store.commit(Txn::new(ops.iter().cloned())).await?;
    }
    Ok(())
}

/// Draws the loads until `done` is true of them.
async fn draw(
    handle: &Handle<Plain>,
    title: &str,
    done: impl Fn(&Report) -> bool,
) -> Result<(), Failure> {
    let started = TokioRuntime.now();
    loop {
        let report = handle.report().ok_or("the watcher does not lead")?;
        let done = done(&report) && report.is_settled();
        if std::io::stdout().is_terminal() {
            print!("\x1b[2J\x1b[H");
        }
        if done || std::io::stdout().is_terminal() {
            let took = TokioRuntime.now().saturating_sub(started);
            println!("== {title}: after {took:.1?}\n{report}");
        }
        if done {
            let pause = if std::io::stdout().is_terminal() { 2_000 } else { 0 };
            TokioRuntime.sleep(Duration::from_millis(pause)).await;
            return Ok(());
        }
        TokioRuntime.sleep(Duration::from_millis(100)).await;
    }
}

/// Who holds nothing any more, and who holds something.
fn members(report: &Report) -> usize {
    report.members.iter().filter(|member| member.stands && member.load > 0).count()
}

/// A member that this example has started.
trait Started {
    fn kill(&mut self);
    fn drain(&mut self);
}

async fn play<M: Started>(
    store: impl Store,
    mut start: impl FnMut(&str, &str) -> Result<M, Failure>,
) -> Result<(), Failure> {
    let handle = watch(store.clone())?;
    handle.report_when(|_| true).await.ok_or("the watcher has ended")?;
    put_items(&store).await?;
    let mut one = start("a", "one")?;
    let mut two = start("b", "two")?;
    let mut three = start("c", "three")?;
    let replicas = 2 * ITEMS;
    draw(&handle, "three members", |report| report.assignments == replicas && members(report) == 3)
        .await?;
    two.kill();
    draw(&handle, "two is killed, and its lease ends after a while", |report| {
        report.assignments == replicas && members(report) == 2
    })
    .await?;
    let mut four = start("b", "four")?;
    draw(&handle, "four joins", |report| members(report) == 3).await?;
    one.drain();
    draw(&handle, "one drains and leaves", |report| {
        members(report) == 2 && report.members.iter().all(|member| !member.exiting)
    })
    .await?;
    three.kill();
    four.kill();
    Ok(())
}

/// A member in this process.
struct Local {
    drain: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Started for Local {
    fn kill(&mut self) {
        self.task.abort();
    }

    fn drain(&mut self) {
        // A dropped sender says the same.
        self.drain = None;
    }
}

async fn in_one_process() -> Result<(), Failure> {
    use raft_autopilot::store::{Embedded, machine::Config};

    let store = Embedded::new(Config::default(), TokioRuntime);
    let members = store.clone();
    play(store, move |zone, name| {
        let (drain, told) = tokio::sync::oneshot::channel::<()>();
        let (store, zone, name) = (members.clone(), zone.to_owned(), name.to_owned());
        #[expect(clippy::disallowed_methods, reason = "so that it can be ended")]
        let task = tokio::spawn(async move {
            if let Err(error) = live(store, &zone, &name, async { drop(told.await) }).await {
                eprintln!("{name} ends: {error}");
            }
        });
        Ok(Local { drain: Some(drain), task })
    })
    .await
}

#[cfg(feature = "etcd")]
mod processes {
    //! Members as processes over an etcd.

    use std::process::{Child, Command};

    use raft_autopilot::{
        runtime::TokioRuntime,
        store::{
            KeyRange, Op, Store, Txn,
            etcd::{Etcd, Options},
        },
    };
    use tokio::signal::unix::{SignalKind, signal};

    use super::{Failure, ROOT, Started, live, play};

    /// A member's process, which does not outlive this one's work.
    struct Process(Child);

    impl Drop for Process {
        fn drop(&mut self) {
            self.kill();
        }
    }

    async fn connect(address: &str) -> Result<Etcd, Failure> {
        let options = Options { endpoints: vec![address.to_owned()], ..Options::default() };
        Ok(Etcd::connect(options, TokioRuntime).await?)
    }

    impl Started for Process {
        fn kill(&mut self) {
            // It may have ended by itself.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }

        fn drain(&mut self) {
            let _ = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status();
        }
    }

    pub(super) async fn parent(address: &str) -> Result<(), Failure> {
        let store = connect(address).await?;
        // What an earlier run has left.
        let old = Op::Delete(KeyRange::prefix(format!("{ROOT}/")));
        store.commit(Txn::new([old])).await?;
        let program = std::env::current_exe()?;
        let start = |zone: &str, name: &str| {
            let arguments = ["--etcd", address, "--member", zone, name];
            Ok(Process(Command::new(&program).args(arguments).spawn()?))
        };
        play(store, start).await
    }

    pub(super) async fn member(address: &str, zone: &str, name: &str) -> Result<(), Failure> {
        let mut asked = signal(SignalKind::terminate())?;
        let asked = async move {
            asked.recv().await;
        };
        live(connect(address).await?, zone, name, asked).await
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        [] => in_one_process().await,
        #[cfg(feature = "etcd")]
        ["--etcd", address] => processes::parent(address).await,
        #[cfg(feature = "etcd")]
        ["--etcd", address, "--member", zone, name] => processes::member(address, zone, name).await,
        _ => Err("it takes nothing, or `--etcd ADDRESS` with the feature `etcd`".into()),
    }
}
