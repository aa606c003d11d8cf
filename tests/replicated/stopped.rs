//! A store whose log has stopped for good: whoever waits for it is told.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use raft_autopilot::{
    openraft::RaftRuntime,
    store::{
        KeyRange, KeyValue, RangeRequest, Refusal, Store, StoreError, Watch,
        machine::Config,
        mirror::{self, Mirror},
        replicated::{
            Answer, Applied, Entry, Log, LogError, Options, Replica, Replicated, Request,
        },
    },
};

use super::{simulate, types::Sim};

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
        let replica = Replica::new(Config::default());
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
