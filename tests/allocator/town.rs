//! Members with sessions over an embedded store, each behind a connection of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use raft_autopilot::{
    allocator::{
        Allocator, AllocatorError, Handle, Happening, Left, Options, Task, Worker,
        plain::{Plain, PlainItem, PlainMember, PlainState},
    },
    runtime::{Runtime, TokioRuntime},
    store::{Embedded, Op, Store, Txn, machine::Config},
};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::faulty::Faulty;

pub(crate) const ROOT: &str = "/work";

/// What a member's worker was told, in order, by item.
pub(crate) type Told = Arc<Mutex<Vec<(String, Happening)>>>;

/// A worker that makes what it is given consistent after a while, and writes down what it is told.
#[derive(Clone, Default)]
pub(crate) struct Diligent {
    pub(crate) told: Told,
    pub(crate) takes: Duration,
    busy: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Worker<Plain> for Diligent {
    async fn happens(&self, task: Task<Plain>) {
        let item = task.item.to_string();
        {
            let mut busy = self.busy.lock().unwrap();
            let busy = busy.entry(item.clone()).or_default();
            *busy += 1;
            assert_eq!(*busy, 1, "two things at once happen to {item}");
        }
        let _free = Free { busy: Arc::clone(&self.busy), item: item.clone() };
        self.told.lock().unwrap().push((item, task.happening));
        if matches!(task.happening, Happening::Assigned { .. }) {
            TokioRuntime.sleep(self.takes).await;
            // It may have gone elsewhere meanwhile.
            let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
        }
    }
}

struct Free {
    busy: Arc<Mutex<BTreeMap<String, u32>>>,
    item: String,
}

impl Drop for Free {
    fn drop(&mut self) {
        *self.busy.lock().unwrap().get_mut(&self.item).unwrap() -= 1;
    }
}

/// A member that runs.
pub(crate) struct Running {
    pub(crate) handle: Handle<Plain>,
    pub(crate) line: Faulty,
    pub(crate) told: Told,
    shutdown: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<Result<Left, AllocatorError>>,
}

impl Running {
    pub(crate) fn shut_down(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            let _ = shutdown.send(());
        }
    }

    /// The process is gone, without a word to the store.
    pub(crate) fn crash(self) {
        self.line.line.pause();
        self.task.abort();
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> Result<Left, AllocatorError> {
        self.task.await.unwrap()
    }
}

pub(crate) fn options(zone: &str, member: &str, limit: u32) -> Options<Plain> {
    let value = PlainMember { limit, ..PlainMember::default() };
    Options { ttl: Duration::from_secs(2), ..Options::new(ROOT, zone, member, value) }
}

pub(crate) fn store() -> Embedded {
    Embedded::new(Config::default(), TokioRuntime)
}

pub(crate) fn start(store: &Embedded, options: Options<Plain>) -> Running {
    start_over(Faulty::new(store, 1, None), options, Duration::from_millis(20))
}

pub(crate) fn start_over(line: Faulty, options: Options<Plain>, takes: Duration) -> Running {
    let told = Told::default();
    let worker = Diligent { told: Arc::clone(&told), takes, busy: Arc::default() };
    let (mut allocator, handle) =
        Allocator::new(line.clone(), line.runtime(), Plain, worker, options).unwrap();
    let (shutdown, asked) = oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "it is waited for, and ended")]
    let task = tokio::spawn(async move {
        let asked = async {
            if asked.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        allocator.run(asked).await
    });
    Running { handle, line, told, shutdown: Some(shutdown), task }
}

pub(crate) fn item(replication: u32) -> PlainItem {
    PlainItem { replication, zones: None }
}

pub(crate) async fn put_items(store: &Embedded, items: impl IntoIterator<Item = (String, u32)>) {
    let ops: Vec<Op> = items
        .into_iter()
        .map(|(name, replication)| {
            let value = serde_json::to_vec(&item(replication)).unwrap();
            Op::put(format!("{ROOT}/items/{name}"), value)
        })
        .collect();
    for ops in ops.chunks(100) {
        store.commit(Txn::new(ops.iter().cloned())).await.unwrap();
    }
}

pub(crate) async fn pause(millis: u64) {
    TokioRuntime.sleep(Duration::from_millis(millis)).await;
}
