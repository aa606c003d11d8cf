//! Logs that stop, for good or for one entry, or have nothing to say for long: whoever waits for them is
//! told, or goes on.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::type_config::TypeConfigExt;
use raft_autopilot::{
    openraft::RaftRuntime,
    store::{
        KeyRange, KeyValue, Lease, Op, RangeRequest, Refusal, Store, StoreError, Txn, Watch,
        mirror::{self, Mirror},
        replicated::{
            Answer, Applied, Entry, Log, LogError, Options, Replica, Replicated, Request,
        },
    },
};

use super::{simulate, sleep, types::Sim};

/// A log of one node, until it stops.
#[derive(Clone, Default)]
struct Stoppable(Arc<AtomicBool>);

impl Log for Stoppable {
    fn leads(&self) -> bool {
        true
    }

    async fn append(&self, _: Entry) -> Result<Applied, LogError> {
        Err(LogError::Retry("nothing is appended here".to_owned()))
    }

    async fn read_index(&self) -> Result<u64, LogError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(LogError::Closed("its disk has failed".to_owned()));
        }
        Ok(0)
    }

    async fn applied(&self, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn ask(&self, _: Request) -> Result<Answer, LogError> {
        Err(LogError::Retry("nobody else is there".to_owned()))
    }
}

#[test]
fn whoever_waits_for_a_log_that_has_stopped_is_told() {
    simulate(50, async {
        let (log, runtime) = (Stoppable::default(), RaftRuntime::<Sim>::new());
        let replica = Replica::new();
        let store = Replicated::new(log.clone(), replica, runtime.clone(), Options::default());
        let mut watch = store.watch(KeyRange::all(), 0).await.unwrap();
        let decode = |_: &KeyValue| Ok(());
        let options = mirror::Options::default();
        let mirror = Mirror::open(store.clone(), runtime, KeyRange::all(), decode, options);
        let mirror = mirror.await.unwrap();
        log.0.store(true, Ordering::SeqCst);
        let closed = |error: StoreError| matches!(error, StoreError::Refused(Refusal::Closed(why)) if why.contains("disk"));
        assert!(closed(store.range(RangeRequest::new(KeyRange::all())).await.unwrap_err()));
        watch.request_progress();
        assert!(closed(watch.next().await.unwrap_err()));
        assert!(closed(watch.next().await.unwrap_err()), "it stays ended");
        assert!(closed(mirror.wait(2).await.unwrap_err()));
    });
}

/// A log of two nodes, the first of which leads; the other follows 10 ms later.
#[derive(Clone)]
struct Pair {
    leads: bool,
    replicas: [Replica; 2],
    leader: Arc<OnceLock<Replicated<Pair, RaftRuntime<Sim>>>>,
    under_way: Arc<Mutex<VecDeque<Entry>>>,
    /// It never tells what became of the first entry.
    forgets: Arc<AtomicBool>,
}

impl Pair {
    /// The stores of both.
    fn start(forgets: bool) -> (Self, [Replicated<Self, RaftRuntime<Sim>>; 2]) {
        let replicas = [Replica::new(), Replica::new()];
        let forgets = Arc::new(AtomicBool::new(forgets));
        let (leader, under_way) = (Arc::default(), Arc::default());
        let log = Self { leads: true, replicas, leader, under_way, forgets };
        let stores = [true, false].map(|leads| {
            let replica = log.replicas[usize::from(!leads)].clone();
            let log = Self { leads, ..log.clone() };
            Replicated::new(log, replica, RaftRuntime::new(), Options::default())
        });
        assert!(log.leader.set(stores[0].clone()).is_ok());
        (log, stores)
    }
}

impl Log for Pair {
    fn leads(&self) -> bool {
        self.leads
    }

    async fn append(&self, entry: Entry) -> Result<Applied, LogError> {
        if self.forgets.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let [here, there] = self.replicas.clone();
        self.under_way.lock().unwrap().push_back(entry.clone());
        let under_way = Arc::clone(&self.under_way);
        drop(Sim::spawn(async move {
            sleep(10).await;
            let next = under_way.lock().unwrap().pop_front();
            there.apply(next.unwrap());
        }));
        Ok(here.apply(entry))
    }

    async fn read_index(&self) -> Result<u64, LogError> {
        Ok(0)
    }

    async fn applied(&self, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn ask(&self, request: Request) -> Result<Answer, LogError> {
        // The other node goes on with it, whether this one waits or not.
        let leader = self.leader.get().unwrap().clone();
        Ok(Sim::spawn(async move { leader.answer(request).await }).await.unwrap())
    }
}

fn count() -> Txn {
    Txn::new([Op::put("count", "")])
}

#[test]
fn a_word_of_leadership_that_is_never_answered_holds_up_nobody() {
    simulate(51, async {
        let (log, [leader, follower]) = Pair::start(true);
        let asked = Sim::spawn(async move { follower.commit(count()).await });
        while log.forgets.load(Ordering::SeqCst) {
            sleep(1).await;
        }
        leader.commit(count()).await.unwrap();
        asked.await.unwrap().unwrap();
        let read = RangeRequest::new(KeyRange::key("count"));
        assert_eq!(leader.range(read).await.unwrap().items[0].version, 2);
    });
}

#[test]
fn a_store_that_nobody_has_used_for_long_goes_on_at_once() {
    simulate(52, async {
        let (_, [leader, follower]) = Pair::start(false);
        for _ in 0..4 {
            let start = Sim::now();
            // By the word of the first the copies learn how late it is, the other's among them.
            let (first, second) = tokio::join!(leader.commit(count()), follower.commit(count()));
            assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
            assert!(Sim::now() - start < Duration::from_secs(1));
            Sim::sleep(Duration::from_secs(3_600)).await;
        }
        let read = RangeRequest::new(KeyRange::key("count"));
        assert_eq!(leader.range(read).await.unwrap().items[0].version, 8);
    });
}

#[test]
fn whoever_waits_without_end_is_served_like_anybody_else() {
    simulate(53, async {
        let (log, _) = Pair::start(false);
        let (deadline, patience) = (Duration::MAX, Duration::MAX);
        let options = Options { deadline, patience, ..Options::default() };
        let replica = log.replicas[0].clone();
        let store = Replicated::new(log, replica, RaftRuntime::<Sim>::new(), options);
        store.commit(count()).await.unwrap();
        let lease = store.grant(Lease::TTL_MAX, None).await.unwrap().id;
        assert!(store.time_to_live(lease).await.unwrap().remaining <= Lease::TTL_MAX);
        store.range(RangeRequest::new(KeyRange::key("count"))).await.unwrap();
    });
}
