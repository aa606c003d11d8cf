//! Random faults by seed: after each a mirror is what a fresh reading finds, a watch has told everything once, and nobody waits in vain.

use std::{sync::Arc, time::Duration};

use raft_autopilot::{
    runtime::TokioRuntime,
    store::{
        Event, KeyRange, KeyValue, LeaseKeeper, LeaseStatus, Op, RangeRequest, RangeResponse,
        Refusal, Store, StoreError, Txn, Update, Watch,
        etcd::{Etcd, EtcdWatch, Options},
        mirror::{self, Mirror},
    },
};
use tokio::time::{sleep, timeout};

use super::{
    proxy::{Mode, Proxy},
    server::{BUSY, PATIENCE, Server, until},
};

/// How many schedules there are, and how many are tried at once, each with an etcd of its own.
const SEEDS: u64 = 200;
const AT_ONCE: u64 = 6;

/// How many faults a schedule has.
const FAULTS: u64 = 4;

/// Longer than this is no lease of a schedule.
const TTL: Duration = Duration::from_secs(1);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A small generator of numbers, so that a seed says everything.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 29)) % end
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_what_stands_after_every_fault() {
    let _alone = BUSY.lock().await;
    let named = std::env::var("FAULT_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds: Vec<u64> = named.map_or_else(|| (0..SEEDS).collect(), |seed| vec![seed]);
    let next = Arc::new(std::sync::Mutex::new(seeds.into_iter()));
    let workers = (0..AT_ONCE).map(|_| {
        let next = Arc::clone(&next);
        tokio::spawn(async move {
            loop {
                let Some(seed) = next.lock().unwrap().next() else { return };
                let run = tokio::spawn(timeout(PATIENCE * 3, schedule(seed)));
                assert!(
                    matches!(run.await, Ok(Ok(()))),
                    "seed {seed} failed; once more: FAULT_SEED={seed} cargo test \
                     --features etcd,testing --test etcd -- faults --nocapture"
                );
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

async fn schedule(seed: u64) {
    let mut world = Box::pin(World::start(seed)).await;
    for _ in 0..FAULTS {
        world.fault().await;
        world.check().await;
    }
}

/// One etcd, who writes to it directly, and who looks at it through a proxy.
struct World {
    dice: Dice,
    server: Server,
    proxy: Proxy,
    direct: Etcd,
    watched: Etcd,
    mirror: Mirror<u64>,
    follower: Follower,
    keeper: LeaseKeeper<Etcd, TokioRuntime>,
    waiters: Vec<tokio::task::JoinHandle<u64>>,
    /// The last revision that one of them waits for.
    wanted: u64,
    story: Vec<String>,
}

/// A watch, and what it has told of the key that every transaction puts.
struct Follower {
    watch: EtcdWatch,
    revision: u64,
    version: i64,
}

impl World {
    async fn start(seed: u64) -> Self {
        let server = Server::start().await;
        let proxy = Proxy::start(server.socket()).await;
        let direct = Options { deadline: millis(1_000), ..server.options() };
        let direct = until(|| Etcd::connect(direct.clone(), TokioRuntime)).await;
        let options = Options {
            endpoints: vec![proxy.address.clone()],
            deadline: millis(1_500),
            connect_timeout: millis(500),
            keep_alive: (millis(300), millis(700)),
            ..Options::default()
        };
        let watched = until(|| Etcd::connect(options.clone(), TokioRuntime)).await;
        let options = mirror::Options { retry_interval: millis(500), ..mirror::Options::default() };
        let mirror = until(|| {
            let decode = |kv: &KeyValue| Ok(kv.mod_revision);
            let range = KeyRange::prefix("k");
            Mirror::open(watched.clone(), TokioRuntime, range, decode, options.clone())
        });
        let mirror = mirror.await;
        let keeper = until(|| LeaseKeeper::grant(watched.clone(), TokioRuntime, TTL)).await;
        let revision = mirror.view().revision();
        let watch = until(|| watched.watch(KeyRange::key("k"), revision + 1)).await;
        let mut world = Self {
            dice: Dice(seed),
            server,
            proxy,
            direct,
            watched,
            mirror,
            follower: Follower { watch, revision, version: 0 },
            keeper,
            waiters: Vec::new(),
            wanted: 0,
            story: vec![format!("seed {seed}")],
        };
        world.leased().await;
        world
    }

    fn say(&mut self, what: String) {
        if std::env::var_os("FAULT_SEED").is_some() {
            eprintln!("{what}");
        }
        self.story.push(what);
    }

    /// One change of a few keys, done at least once.
    async fn write(&mut self) -> u64 {
        let mut ops = vec![Op::put("k", "")];
        for key in 0..self.dice.below(6) {
            let key = format!("k/{}", key * 7 + self.dice.below(7));
            ops.push(match self.dice.below(3) {
                0 => Op::delete(key),
                _ => Op::put(key, self.dice.below(100).to_string()),
            });
        }
        let txn = Txn::new(ops);
        let done = async {
            loop {
                match self.direct.commit(txn.clone()).await {
                    Ok(done) => return done.revision,
                    Err(StoreError::Refused(refusal)) => panic!("{refusal}"),
                    Err(StoreError::Retry(_) | StoreError::Unknown(_)) => sleep(millis(20)).await,
                }
            }
        };
        timeout(PATIENCE, done).await.expect("a write is done")
    }

    async fn write_some(&mut self) {
        for _ in 0..=self.dice.below(12) {
            self.write().await;
        }
    }

    /// Puts the key of the lease.
    async fn leased(&mut self) {
        let put = Txn::new([Op::put_leased("lease", "", self.keeper.id())]);
        loop {
            match self.direct.commit(put.clone()).await {
                // If it is refused, the lease has ended already; the check finds it so.
                Ok(_) | Err(StoreError::Refused(_)) => return,
                Err(_) => sleep(millis(20)).await,
            }
        }
    }

    /// Waiters for what is to come, most of them while it cannot be seen.
    fn wait_for(&mut self, revisions: u64) {
        let now = self.mirror.view().revision();
        self.wanted = now + revisions;
        for ahead in 1..=revisions {
            let mirror = self.mirror.clone();
            self.waiters.push(tokio::spawn(async move {
                let view = mirror.wait(now + ahead).await.unwrap();
                assert!(view.revision() >= now + ahead);
                view.revision()
            }));
        }
    }

    async fn fault(&mut self) {
        self.wait_for(3);
        let long = millis(100 + self.dice.below(700));
        let kind = self.dice.below(8);
        self.say(format!("fault {kind} for {long:?}"));
        match kind {
            0 => {
                self.server.restart();
                self.write_some().await;
            }
            1 => {
                self.server.kill();
                sleep(long).await;
                self.server.restart();
                self.server.ready().await;
            }
            2 => {
                // Longer than the lease lives.
                self.server.freeze();
                sleep(TTL + long).await;
                self.server.thaw();
            }
            3 => {
                let last = self.write().await;
                self.proxy.set(Mode::Cut);
                self.write_some().await;
                self.compact(last + self.dice.clone().below(3)).await;
                sleep(long).await;
            }
            kind => {
                let mode = match kind {
                    4 => Mode::Cut,
                    5 => Mode::Mute,
                    6 => Mode::Slow(long / 4),
                    _ => [Mode::HalfClosed, Mode::Deaf][usize::from(self.dice.below(2) == 0)],
                };
                self.say(format!("{mode:?}"));
                self.proxy.set(mode);
                self.write_some().await;
                sleep(long).await;
            }
        }
        self.write_some().await;
        self.proxy.set(Mode::Open);
    }

    async fn compact(&mut self, revision: u64) {
        match self.direct.compact(revision).await {
            Ok(())
            | Err(StoreError::Refused(_) | StoreError::Retry(_) | StoreError::Unknown(_)) => {}
        }
    }

    async fn read(&self, range: KeyRange) -> RangeResponse {
        let read = async {
            loop {
                match self.direct.range(RangeRequest::new(range.clone())).await {
                    Ok(found) => return found,
                    Err(StoreError::Refused(refusal)) => panic!("{refusal}"),
                    Err(_) => sleep(millis(20)).await,
                }
            }
        };
        timeout(PATIENCE, read).await.expect("a reading is answered")
    }

    /// Nobody writes to the mirror's keys meanwhile.
    async fn check(&mut self) {
        let mut last = self.write().await;
        // A schedule may have had fewer changes than are waited for.
        while last < self.wanted {
            last = self.write().await;
        }
        for waiter in std::mem::take(&mut self.waiters) {
            let told = timeout(PATIENCE, waiter).await;
            told.unwrap_or_else(|_| panic!("a waiter waits: {}", self.tell())).unwrap();
        }
        let view = timeout(PATIENCE, self.mirror.wait(last)).await;
        let view = view.unwrap_or_else(|_| panic!("nothing shows: {}", self.tell())).unwrap();
        let fresh = self.read(KeyRange::prefix("k")).await;
        let shown: Vec<_> = view.iter().map(|(_, entry)| Arc::clone(&entry.kv)).collect();
        assert_eq!(shown, fresh.items, "{}", self.tell());
        self.follow(last).await;
        self.check_lease().await;
    }

    /// The watch has told every version of the one key, one after the other.
    async fn follow(&mut self, last: u64) {
        while self.follower.revision < last {
            let update = timeout(PATIENCE, self.follower.watch.next()).await;
            match update.unwrap_or_else(|_| panic!("the watch is silent: {}", self.tell())) {
                Ok(Update::Events(events)) => {
                    assert!(events.revision > self.follower.revision, "{}", self.tell());
                    self.follower.revision = events.revision;
                    let [Event::Put(kv)] = &events.events[..] else { panic!("{events:?}") };
                    let version = i64::try_from(kv.version).unwrap();
                    let expected = self.follower.version + 1;
                    let first = self.follower.version < 0;
                    assert!(first || version == expected, "{version}: {}", self.tell());
                    self.follower.version = version;
                }
                Ok(Update::Progress(revision)) => {
                    self.follower.revision = self.follower.revision.max(revision);
                }
                Err(StoreError::Refused(Refusal::Compacted { .. })) => {
                    // What lies between is gone, and so is how many versions that were.
                    let found = self.read(KeyRange::key("k")).await;
                    let from = found.revision + 1;
                    let watch = self.watched.watch(KeyRange::key("k"), from).await;
                    let version = i64::try_from(found.items[0].version).unwrap();
                    let revision = found.revision;
                    self.follower = Follower { watch: watch.unwrap(), revision, version };
                }
                Err(error) => panic!("{error}: {}", self.tell()),
            }
        }
    }

    /// What is held stands, and what is lost is granted anew.
    async fn check_lease(&mut self) {
        let stands = !self.read(KeyRange::key("lease")).await.items.is_empty();
        let status = self.keeper.status();
        assert!(stands || status != LeaseStatus::Held, "{}", self.tell());
        if status == LeaseStatus::Lost {
            let grant = async {
                loop {
                    let store = self.watched.clone();
                    if let Ok(keeper) = LeaseKeeper::grant(store, TokioRuntime, TTL).await {
                        return keeper;
                    }
                }
            };
            self.keeper = timeout(PATIENCE, grant).await.expect("a lease is granted");
            self.leased().await;
        }
    }

    fn tell(&self) -> String {
        let status = self.mirror.status();
        format!("{:?}\n{status:?}\n{}", self.story, self.server.words())
    }
}
