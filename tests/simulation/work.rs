//! Items on every process: the real allocator and the real placement over the store that the database
//! hosts, and what in it may never happen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use openraft::type_config::TypeConfigExt;
use raft_autopilot::allocator::plain::{Plain, PlainItem, PlainMember, PlainState};
use raft_autopilot::allocator::{
    self, Allocator, Happening, Leading, Report, Standing, Task, Worker, ZoneRule,
};
use raft_autopilot::openraft::{RaftLog, RaftRuntime, StoreHost};
use raft_autopilot::placement::{self, Config, Graded, Keys, Notice, Options, Placement, Term};
use raft_autopilot::store::replicated::{self, Answer, Applied, Entry, LogError, Replicated};
use raft_autopilot::store::{Event, Events, KeyRange, RangeRequest, Store, Update, Watch};

use crate::dice::Dice;
use crate::items::Witness;
use crate::network::forget;
use crate::oracle::Oracle;
use crate::store::Store as StateMachine;
use crate::types::{Command, Raft, Reply, Server, TypeConfig, clock, sleep};
use crate::world::{Seat, World};

/// Where items are, and where their members' standings are.
const ROOT: &str = "/work";
const STANDINGS: &str = "/standings";

const ITEMS: u32 = 10;
const REPLICAS: u32 = 2;

/// How much of all limits health may lower at once, in percent.
const SHARE: u8 = 34;

type Hosted = Replicated<RaftLog<TypeConfig, StateMachine, Database>, RaftRuntime<TypeConfig>>;

/// What works on a process that runs.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) store: Hosted,
    pub(crate) items: allocator::Handle<Plain>,
    pub(crate) standings: placement::Handle,
}

/// The simulated database, as the log of the hosted store sees it.
pub(crate) struct Database {
    id: u64,
    world: Arc<World>,
}

impl StoreHost<TypeConfig> for Database {
    fn command(&self, entry: Entry) -> Command {
        Command::Store(Box::new(entry))
    }

    fn applied(&self, response: Reply) -> Option<Applied> {
        if let Reply::Stored(applied) = response { Some(*applied) } else { None }
    }

    async fn ask(
        &self,
        id: u64,
        _node: Server,
        request: replicated::Request,
    ) -> Result<Answer, LogError> {
        let world = self.world.clone();
        let limit = Duration::from_millis(800);
        let asked = self.world.network.call((self.id, id), "store", limit, move |_: Raft| {
            async move { Some(world.work(id)?.store.answer(request).await) }.boxed()
        });
        asked.await.map_err(|_| LogError::Unknown("no answer".to_owned()))
    }
}

/// Takes a while until a replica is ready.
struct Copies {
    dice: std::sync::Mutex<Dice>,
}

impl Worker<Plain> for Copies {
    async fn happens(&self, task: Task<Plain>) {
        if let Happening::Assigned { .. } = task.happening {
            let takes = self.dice.lock().unwrap().millis(10, 400);
            sleep(takes).await;
            // It may have gone elsewhere meanwhile.
            let _ = task.handle.publish(&task.item, &PlainState { consistent: true }).await;
        }
    }
}

/// The times of the policy, as short as a simulation wants them.
fn times() -> Config {
    Config {
        suspect_after: Duration::from_millis(600),
        shed_after: Duration::from_secs(2),
        shed_interval: Duration::from_millis(700),
        dead_after: Duration::from_secs(6),
        return_after: Duration::from_secs(2),
        return_interval: Duration::from_millis(700),
        ..Config::default()
    }
}

/// Rides on a process: the hosted store, a member, and placement.
pub(crate) async fn work(seat: &Seat) {
    if !seat.world.character.works {
        return;
    }
    let Some(state) = seat.world.store(seat.id) else { return };
    let host = Database { id: seat.id, world: seat.world.clone() };
    let log = RaftLog::new(seat.raft.clone(), Arc::new(host));
    let runtime = RaftRuntime::<TypeConfig>::new();
    // No two lives of any server have the same.
    let life = seat.id << 32 | seat.boot;
    let options = replicated::Options { client: Some(life), ..replicated::Options::default() };
    let store = Replicated::new(log, state.replica.clone(), runtime.clone(), options);
    let policy = Graded::new(times()).expect("sane times");
    let options = Options { max_share_percent: SHARE, ..Options::new(STANDINGS) };
    let placed = Placement::new(store.clone(), runtime.clone(), policy, options);
    let (placement, standings) = placed.expect("sane options");
    let value = PlainMember { limit: 2 * ITEMS, ..PlainMember::default() };
    let item = PlainItem { replication: REPLICAS, zones: None };
    let options = allocator::Options {
        ttl: Duration::from_secs(4),
        fixed_items: (0..ITEMS).map(|number| (format!("i{number}"), item.clone())).collect(),
        leading: Leading { standings: Some(standings.standings()), ..Leading::default() },
        ..allocator::Options::new(ROOT, "default", seat.id.to_string(), value)
    };
    let copies = Copies { dice: Dice::new(life, "copies").into() };
    let made = Allocator::new(store.clone(), runtime, Plain, copies, options);
    let (mut member, items) = made.expect("sane options");
    let shown_by = standings.clone();
    seat.world.employ(seat.id, Work { store, items: items.clone(), standings });
    let lives = async {
        while let Err(error) = member.run(std::future::pending()).await {
            seat.world.oracle.note(format_args!("n{} holds nothing: {error}", seat.id));
            sleep(Duration::from_millis(200)).await;
        }
    };
    let holds = tell_holds(seat, shown_by);
    let follows = async {
        while seat.world.autopilot(seat.id).is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        let Some(autopilot) = seat.world.autopilot(seat.id) else { return };
        let error = placement.run(autopilot, items).await;
        seat.world.oracle.note(format_args!("n{} follows no standings: {error}", seat.id));
    };
    futures_util::future::join3(lives, follows, holds).await;
}

/// Notes why a process takes nothing, whenever that changes.
async fn tell_holds(seat: &Seat, standings: placement::Handle) {
    let mut told = None;
    loop {
        sleep(Duration::from_millis(50)).await;
        let hold = standings.published().hold.clone();
        let kind = hold.as_ref().map(std::mem::discriminant);
        if kind != told
            && let Some(hold) = hold
        {
            seat.world.oracle.note(format_args!("n{} holds: {hold:?}", seat.id));
        }
        told = kind;
    }
}

/// Sees every revision of the hosted store, on whichever server is up.
pub(crate) fn observe(world: &Arc<World>) {
    forget(follow(world.clone()));
}

async fn follow(world: Arc<World>) {
    let mut judge = Judge::default();
    let mut dice = Dice::new(world.seed, "observer");
    loop {
        sleep(Duration::from_millis(20)).await;
        let Some(id) = dice.pick(&world.up()) else { continue };
        let Some(work) = world.work(id) else { continue };
        let all = KeyRange::from_key("/");
        let watching = work.store.watch(all, judge.next);
        let Ok(Ok(mut watch)) = TypeConfig::timeout(Duration::from_secs(1), watching).await else {
            continue;
        };
        let until = clock() + dice.millis(200, 2_000);
        while clock() < until {
            match TypeConfig::timeout(Duration::from_millis(200), watch.next()).await {
                Ok(Ok(Update::Events(events))) => judge.see(&world.oracle, &events),
                Ok(Ok(Update::Progress(_))) | Err(_) => {}
                Ok(Err(error)) => {
                    if error.is_compacted() {
                        world.oracle.violated("the observer's place was compacted");
                    }
                    break;
                }
            }
        }
    }
}

/// What in the hosted store may never happen.
struct Judge {
    /// The revision to see next.
    next: u64,
    items: Witness,
    keys: Keys,
    term: String,
    notices: BTreeMap<String, Notice>,
    /// The limits of all members that stood, at the last few revisions: whoever decides may not know
    /// of the last ones.
    limits: Vec<BTreeMap<String, u64>>,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            next: 1,
            items: Witness::new(ROOT, ZoneRule::default()),
            keys: Keys::new(STANDINGS),
            term: String::new(),
            notices: BTreeMap::new(),
            limits: Vec::new(),
        }
    }
}

impl Judge {
    fn see(&mut self, oracle: &Oracle, events: &Events) {
        let revision = events.revision;
        if revision < self.next {
            return oracle.violated(format_args!("revision {revision} was told twice"));
        }
        self.next = revision + 1;
        oracle.note(format_args!("revision {revision}: {} events", events.events.len()));
        if let Err(fault) = self.items.judge(events, None) {
            oracle.violated(format_args!("at revision {revision}: {fault}"));
        }
        let stand = self.items.limits().into_iter();
        self.limits.push(
            stand
                .map(|((zone, member), limit)| (format!("{zone}#{member}"), limit.into()))
                .collect(),
        );
        let enough = self.limits.len().saturating_sub(40);
        self.limits.drain(..enough);
        let mut anybody = false;
        for event in &events.events {
            anybody |= self.standing(oracle, revision, event);
        }
        if anybody {
            self.share(oracle, revision);
        }
    }

    /// Whether somebody has lost something by its health.
    fn standing(&mut self, oracle: &Oracle, revision: u64, event: &Event) -> bool {
        let Event::Put(kv) = event else { return false };
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        if key == self.keys.term() {
            let term = String::from_utf8_lossy(&kv.value).into_owned();
            if term < self.term || term.len() != Term(0).to_string().len() {
                oracle.violated(format_args!("at revision {revision} the term is {term}"));
            }
            self.term = term;
            return false;
        }
        let Some(member) = self.keys.member(&kv.key) else { return false };
        let Ok(notice) = serde_json::from_slice::<Notice>(&kv.value) else {
            oracle.violated(format_args!("at revision {revision} a notice is not one"));
            return false;
        };
        let now = notice.by_health;
        let before = self.notices.insert(member.to_string(), notice);
        let before = before.map_or(Standing::Full, |before| before.by_health);
        if now.rank() > before.rank() {
            oracle.note(format_args!("{member} loses by its health: {now:?}"));
        } else if now.rank() < before.rank() {
            oracle.note(format_args!("{member} gets back: {now:?}"));
        }
        now != Standing::Full && before == Standing::Full
    }

    /// No more than a set share of all limits is lowered by health.
    fn share(&self, oracle: &Oracle, revision: u64) {
        let limit = |member: &String| {
            let known = self.limits.iter().map(|limits| limits.get(member).copied().unwrap_or(0));
            known.min().unwrap_or(0)
        };
        let lowered = self.notices.iter().filter(|(_, notice)| is_lowered(notice));
        let taken: u64 = lowered.map(|(member, _)| limit(member)).sum();
        let all = self.limits.iter().map(|limits| limits.values().sum()).max().unwrap_or(0);
        if taken * 100 > all * u64::from(SHARE) {
            oracle.violated(format_args!(
                "at revision {revision} health has lowered {taken} of {all}: {:?}",
                self.notices
            ));
        }
    }
}

fn is_lowered(notice: &Notice) -> bool {
    notice.by_health != Standing::Full
}

/// Waits until all items are held as they are meant to be, and reports what is missing if that takes
/// longer than `patience`.
pub(crate) async fn settled(world: &Arc<World>, patience: Duration) {
    let until = clock() + patience;
    while world.oracle.violation().is_none() {
        let report = world.up().into_iter().find_map(|id| world.work(id)?.items.report());
        let enough = |report: &Report| {
            let standing = report.members.iter().filter(|member| member.stands).count();
            let replicas = ITEMS as usize * (REPLICAS as usize).min(standing);
            report.is_settled() && report.items == ITEMS as usize && report.assignments == replicas
        };
        if report.as_deref().is_some_and(enough) {
            return world.oracle.note("settled");
        }
        if clock() > until {
            for id in world.up() {
                let Some(Work { items, store, .. }) = world.work(id) else { continue };
                let seen = items.view().map(|view| view.revision());
                let first = RangeRequest::new(KeyRange::from_key(ROOT)).limit(1);
                let there = store.range(first).await.map(|at| at.revision);
                world
                    .oracle
                    .note(format_args!("n{id} {:?} sees {seen:?} of {there:?}", items.status()));
            }
            return world.oracle.violated(format_args!("items do not settle: {report:?}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}
