//! Members that die, stall, lose leases, drain and come back over a connection that loses, delays and
//! repeats, while people change items, limits and standings; with a witness of every revision.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use raft_autopilot::{
    allocator::{
        Handle, Judgement, Leading, MemberKey, Options, Report, Rules, Standing, Standings,
        ZoneRule,
        plain::{Plain, PlainMember},
    },
    runtime::{Runtime, TokioRuntime},
    store::{
        Compare, Embedded, KeyRange, Limits, LocalWatch, Op, RangeRequest, Store, Target, Txn,
        Update, Watch, machine::Config,
    },
};
use tokio::sync::watch;

use crate::{
    faulty::{self, Dice, Faults, Faulty},
    town::{ROOT, Running, item, options, start_over},
    witness::{Author, Witness},
};

const STEPS: u64 = 80;
const ITEMS: u64 = 12;

struct Member {
    zone: String,
    name: String,
    limit: u32,
    running: Option<Running>,
    /// Its lives; what former ones have sent may still be written.
    lives: Vec<Life>,
}

/// A life of a member: its connection, and what it has reported as the leader.
struct Life {
    line: Faulty,
    reports: Arc<Mutex<Vec<Arc<Report>>>>,
}

impl Life {
    /// Writes down whatever it will report.
    fn new(line: Faulty, handle: Handle<Plain>) -> Self {
        let reports: Arc<Mutex<Vec<Arc<Report>>>> = Arc::default();
        let all = Arc::clone(&reports);
        TokioRuntime.spawn(async move {
            let is_last = |report: &Report| {
                all.lock()
                    .unwrap()
                    .last()
                    .is_some_and(|last| std::ptr::eq(&raw const **last, report))
            };
            while let Some(next) = handle.report_when(|report| !is_last(report)).await {
                all.lock().unwrap().push(next);
            }
        });
        Self { line, reports }
    }

    fn wrote(&self, revision: u64) -> bool {
        self.line.line.wrote.lock().unwrap().contains(&revision)
    }

    /// By which plan it has written a revision. A round is reported before anything of it is sent, and
    /// what is sent comes to be before the next is planned, or never.
    fn plan(&self, revision: u64) -> Option<Arc<Report>> {
        let reports = self.reports.lock().unwrap();
        reports.iter().rev().find(|report| report.revision < revision).cloned()
    }
}

/// A compare that the leader's transactions are built of, and that is left out of all of them, to
/// see whether anybody misses it.
#[cfg_attr(debug_assertions, allow(dead_code, reason = "an optimised build leaves compares out"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    /// That members are as they were: the leader, and those that get an item.
    Members,
    /// That the item is as it was.
    Item,
    /// That its replicas are as they were.
    Replicas,
}

impl Without {
    fn is(self, compare: &Compare) -> bool {
        let under =
            |part: &str| compare.range.start().starts_with(format!("{ROOT}/{part}").as_bytes());
        let unchanged = matches!(compare.target, Target::ModRevision(_));
        match self {
            Self::Members => under("members/") && unchanged,
            Self::Item => under("items/") && unchanged,
            Self::Replicas => under("assign/"),
        }
    }
}

struct World {
    store: Embedded,
    without: Option<Without>,
    dice: Dice,
    faults: Faults,
    leading: Leading,
    standings: watch::Sender<Option<Standings>>,
    members: Vec<Member>,
    witness: Witness,
    watch: LocalWatch,
}

/// What has happened in a story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    revisions: u64,
    created: u64,
    ended: u64,
    promoted: u64,
    leaders: usize,
    /// Requests of several transactions of which all were done, and of which only some were.
    joint: (u64, u64),
    settled_after: Duration,
    rounds: u64,
}

impl World {
    async fn new(seed: u64, without: Option<Without>) -> Self {
        let mut dice = Dice(seed);
        // Of every other seed a round is several transactions, which go together.
        let operations = if seed.is_multiple_of(2) { 20 } else { 128 };
        let limits = Limits { operations, ..Limits::default() };
        let store = Embedded::new(Config { limits, ..Config::default() }, TokioRuntime);
        let (standings, judged) = watch::channel(Some(Standings::default()));
        let zone_rule = match dice.roll(3) {
            0 => ZoneRule::Spread,
            1 => ZoneRule::MaxPerZone(1),
            _ => ZoneRule::Two,
        };
        let slack = u32::try_from(dice.roll(3) / 2).unwrap();
        let leading = Leading {
            rules: Rules { zone_rule, balance_slack: slack, ..Rules::default() },
            moves_in_flight: (dice.roll(3) == 0).then_some(2),
            inbound_per_member: (dice.roll(4) == 0).then_some(1),
            in_flight_for: Duration::from_secs(5),
            avoid_for: Duration::from_secs(3),
            standings: Some(judged),
            ..Leading::default()
        };
        let harsh = dice.roll(4);
        let faults = Faults { lost: harsh, unanswered: harsh, late: harsh, way: 2 * harsh };
        let witness = Witness::new(ROOT, zone_rule);
        let watch = store.watch(KeyRange::prefix(format!("{ROOT}/")), 1).await.unwrap();
        let mut world = Self {
            store,
            without,
            dice,
            faults,
            leading,
            standings,
            members: Vec::new(),
            witness,
            watch,
        };
        for number in 0..3 + world.dice.roll(4) {
            let zone = ["a", "b", "c"][usize::try_from(number % 3).unwrap()].to_owned();
            let limit = 4 + u32::try_from(world.dice.roll(12)).unwrap();
            let (name, lives) = (format!("m{number}"), Vec::new());
            world.members.push(Member { zone, name, limit, running: None, lives });
        }
        for number in 0..ITEMS / 2 {
            world.put_item(number).await;
        }
        world
    }

    fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.dice.roll(sides as u64)).unwrap()
    }

    fn start(&mut self, at: usize) {
        if self.members[at].running.as_ref().is_some_and(|running| !running.task.is_finished()) {
            return;
        }
        let without = self.without.map(|without| {
            Arc::new(move |compare: &Compare, _: &Txn| without.is(compare)) as faulty::Without
        });
        let line = Faulty::new(&self.store, self.dice.roll(u64::MAX), without);
        *line.line.faults.lock().unwrap() = self.faults;
        let takes = Duration::from_millis(self.dice.roll(1_500));
        let member = &mut self.members[at];
        let options = Options::<Plain> {
            leading: self.leading.clone(),
            ..options(&member.zone, &member.name, member.limit)
        };
        let running = start_over(line.clone(), options, takes);
        member.lives.push(Life::new(line, running.handle.clone()));
        member.running = Some(running);
    }

    async fn put(&mut self, op: Op) {
        self.store.commit(Txn::new([op])).await.unwrap();
    }

    async fn put_item(&mut self, number: u64) {
        let value = if self.dice.roll(20) == 0 {
            b"{\"replication\":-1}".to_vec()
        } else {
            let replication = u32::try_from(self.dice.roll(4)).unwrap();
            serde_json::to_vec(&item(replication)).unwrap()
        };
        self.put(Op::put(format!("{ROOT}/items/i{number:02}"), value)).await;
    }

    async fn step(&mut self) {
        let at = self.roll(self.members.len());
        let number = self.dice.roll(ITEMS);
        match self.dice.roll(100) {
            0..20 => self.put_item(number).await,
            20..26 => self.put(Op::delete(format!("{ROOT}/items/i{number:02}"))).await,
            26..36 => {
                if let Some(running) = self.members[at].running.take() {
                    running.crash();
                }
            }
            36..52 => self.start(at),
            52..62 => self.stall(at),
            62..68 => {
                if let Some(running) = &mut self.members[at].running {
                    running.shut_down();
                }
            }
            68..74 => self.change_limit(at),
            74..80 => self.give_back(at),
            80..84 => self.delete_by_hand().await,
            84..90 => self.judge(at),
            90..96 => self.flip(number),
            _ => {}
        }
    }

    /// Somebody changes an item, and thinks better of it.
    fn flip(&mut self, number: u64) {
        let store = self.store.clone();
        let millis = self.dice.roll(40);
        TokioRuntime.spawn(async move {
            for replication in [1, 3] {
                let value = serde_json::to_vec(&item(replication)).unwrap();
                let put = Op::put(format!("{ROOT}/items/i{number:02}"), value);
                store.commit(Txn::new([put])).await.unwrap();
                TokioRuntime.sleep(Duration::from_millis(millis)).await;
            }
        });
    }

    fn stall(&mut self, at: usize) {
        let millis = self.dice.roll(5_000);
        let Some(line) = self.members[at].lives.last().map(|life| Arc::clone(&life.line.line))
        else {
            return;
        };
        TokioRuntime.spawn(async move {
            line.pause();
            TokioRuntime.sleep(Duration::from_millis(millis)).await;
            line.resume();
        });
    }

    fn change_limit(&mut self, at: usize) {
        let limit = u32::try_from(self.dice.roll(16)).unwrap();
        if let Some(running) = &self.members[at].running {
            let handle = running.handle.clone();
            TokioRuntime.spawn(async move {
                let exiting = handle.value().is_some_and(|value| value.exiting);
                let _ = handle.update(PlainMember { limit, share: None, exiting }).await;
            });
        }
    }

    fn give_back(&mut self, at: usize) {
        let Some(running) = &self.members[at].running else { return };
        let held = running.handle.held();
        if held.is_empty() {
            return;
        }
        let handle = running.handle.clone();
        let item = held[self.roll(held.len())].item.clone();
        let member = (self.members[at].zone.clone(), self.members[at].name.clone());
        self.witness.given_back.insert((item.to_string(), member));
        TokioRuntime.spawn(async move { drop(handle.give_back(&item).await) });
    }

    async fn delete_by_hand(&mut self) {
        let range = KeyRange::prefix(format!("{ROOT}/assign/"));
        let found = self.store.range(RangeRequest::new(range).keys_only()).await.unwrap();
        if found.items.is_empty() {
            return;
        }
        let key = found.items[self.roll(found.items.len())].key.clone();
        let text = std::str::from_utf8(&key).unwrap();
        let parts: Vec<&str> = text.rsplit('/').next().unwrap().split('#').collect();
        let member = (parts[1].to_owned(), parts[2].to_owned());
        self.witness.given_back.insert((parts[0].to_owned(), member));
        self.put(Op::delete(&key)).await;
    }

    fn judge(&mut self, at: usize) {
        let standing = match self.dice.roll(6) {
            0 => Standing::NoNewPrimaries,
            1 => Standing::Shed(u32::try_from(self.dice.roll(6)).unwrap()),
            2 => Standing::Gone,
            3 => {
                let shed = u32::try_from(self.dice.roll(6)).unwrap();
                let some = [Standing::NoPrimaries, Standing::NothingNew, Standing::ShedOnly(shed)];
                some[self.roll(3)]
            }
            _ => Standing::Full,
        };
        let Member { zone, name, .. } = &self.members[at];
        let key = MemberKey::new(zone.as_str(), name.as_str());
        self.standings.send_modify(|standings| {
            let judgement = Judgement { standing, why: "by chance".into() };
            Arc::make_mut(standings.get_or_insert_default()).insert(key, judgement);
        });
    }

    async fn check(&mut self) -> Result<(), String> {
        let members = &self.members;
        let wrote = |revision: u64| {
            members.iter().find_map(|Member { zone, name, lives, .. }| {
                let life = lives.iter().find(|life| life.wrote(revision))?;
                Some(Author { member: (zone.clone(), name.clone()), plan: life.plan(revision) })
            })
        };
        // All that has happened.
        loop {
            let update = tokio::select! {
                biased;
                update = self.watch.next() => update.unwrap(),
                () = std::future::ready(()) => return Ok(()),
            };
            if let Update::Events(events) = update {
                let judged = self.witness.judge(&events, Some(&wrote));
                judged.map_err(|fault| format!("at revision {}: {fault}", events.revision))?;
            }
        }
    }

    async fn pass(&mut self, millis: u64) -> Result<(), String> {
        let mut left = millis;
        while left > 0 {
            let some = left.min(10);
            TokioRuntime.sleep(Duration::from_millis(some)).await;
            self.check().await?;
            left -= some;
        }
        Ok(())
    }

    /// All is well again: it settles, and nothing is left to do.
    async fn end(&mut self) -> Result<(Duration, u64), String> {
        self.faults = Faults::default();
        self.standings.send_replace(Some(Standings::default()));
        for member in &mut self.members {
            for Life { line, .. } in &member.lives {
                *line.line.faults.lock().unwrap() = Faults::default();
                line.line.resume();
            }
        }
        for member in &self.members {
            if let Some(running) = &member.running {
                let handle = running.handle.clone();
                let exiting = handle.value().is_some_and(|value| value.exiting);
                let value = PlainMember { limit: 2 * ITEMS as u32, share: None, exiting };
                TokioRuntime.spawn(async move { drop(handle.update(value).await) });
            }
        }
        // Who drains goes; who is gone comes back.
        self.pass(5_000).await?;
        for at in 0..self.members.len() {
            self.start(at);
        }
        for number in 0..ITEMS {
            let replication = u32::try_from(number % 3).unwrap();
            let value = serde_json::to_vec(&item(replication)).unwrap();
            self.put(Op::put(format!("{ROOT}/items/i{number:02}"), value)).await;
        }
        // Rounds so far, of this leader and of those before.
        let (from, mut rounds, mut last) = (TokioRuntime.now(), 0, None);
        loop {
            self.pass(20).await?;
            let took = TokioRuntime.now().saturating_sub(from);
            let mut running = self.members.iter().filter_map(|member| member.running.as_ref());
            let report = running.find_map(|running| running.handle.report());
            if let Some(report) = report {
                let before = last.replace(report.done.rounds);
                let new = before.is_some_and(|before| before > report.done.rounds);
                let before = if new { 0 } else { before.unwrap_or(report.done.rounds) };
                rounds += report.done.rounds - before;
                // Items that were given back go where they may before that is over.
                let quiet = took > self.leading.avoid_for && report.is_settled();
                if quiet && report.items as u64 == ITEMS {
                    let certificate = &report.certificate;
                    if !certificate.is_best()
                        || certificate.added > 0 && took > Duration::from_secs(20)
                    {
                        return Err(format!("it could be better: {certificate:?}"));
                    }
                    self.witness.judge_end()?;
                    return Ok((took, rounds));
                }
            }
            if took > Duration::from_secs(40) {
                let running = self.members.iter().filter_map(|member| member.running.as_ref());
                let reports: Vec<_> = running.map(|running| running.handle.report()).collect();
                return Err(format!("it does not settle: {reports:?}"));
            }
        }
    }
}

async fn story(seed: u64, without: Option<Without>) -> Result<Counts, String> {
    let mut world = World::new(seed, without).await;
    for at in 0..world.members.len() {
        world.start(at);
    }
    for _ in 0..STEPS {
        world.step().await;
        let millis = world.dice.roll(400);
        world.pass(millis).await?;
    }
    let (settled_after, rounds) = world.end().await?;
    let lives = world.members.iter().flat_map(|member| &member.lives);
    let joint = lives.fold((0, 0), |(all, some), life| {
        let joint = *life.line.line.joint.lock().unwrap();
        (all + joint.0, some + joint.1)
    });
    Ok(Counts {
        revisions: world.witness.revisions,
        created: world.witness.created,
        ended: world.witness.ended,
        promoted: world.witness.promoted,
        leaders: world.witness.leaders.len(),
        joint,
        settled_after,
        rounds,
    })
}

/// Runs one seed in a runtime of its own, in virtual time.
fn run(seed: u64, without: Option<Without>) -> Result<Counts, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(story(seed, without))
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("ITEMS_SEED").unwrap_or(0);
    let usual = if cfg!(debug_assertions) { 30 } else { 1_000 };
    first..first + number("ITEMS_SEEDS").unwrap_or(usual)
}

#[test]
fn no_fault_breaks_an_item_and_after_the_last_it_settles() {
    let (mut sum, mut most) = (Counts::default(), 0);
    for seed in seeds() {
        match run(seed, None) {
            Ok(counts) => {
                sum.revisions += counts.revisions;
                sum.created += counts.created;
                sum.ended += counts.ended;
                sum.promoted += counts.promoted;
                sum.leaders += counts.leaders;
                sum.joint = (sum.joint.0 + counts.joint.0, sum.joint.1 + counts.joint.1);
                sum.settled_after = sum.settled_after.max(counts.settled_after);
                sum.rounds += counts.rounds;
                most = most.max(counts.rounds);
            }
            Err(fault) => panic!(
                "{fault}\nreplay it: ITEMS_SEED={seed} ITEMS_SEEDS=1 cargo test --features allocator \
                 --test allocator no_fault_breaks"
            ),
        }
    }
    println!("{sum:?}, at most {most} rounds after the last fault");
    assert!(most <= 30, "{most} rounds after the last fault");
    // Few stories need not have them.
    let joint = seeds().count() < 30 || sum.joint.0 > 0 && sum.joint.1 > 0;
    assert!(joint, "some were refused of several that went together");
    assert!(sum.created > 0 && sum.ended > 0 && sum.promoted > 0 && sum.leaders > 0);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..4 {
        assert_eq!(run(seed, None), run(seed, None));
    }
}

/// Each is found by itself: without `Members` who leads no more goes on, and limits are exceeded;
/// without `Item` replicas go that are wanted again; without `Replicas` one goes that was the last
/// good one but for another that has just gone. It takes some thousand stories, and an optimised
/// build.
#[cfg(not(debug_assertions))]
#[test]
fn no_compare_can_be_left_out() {
    for without in [Without::Members, Without::Item, Without::Replicas] {
        let found =
            (0..4_000).find_map(|seed| run(seed, Some(without)).err().map(|fault| (seed, fault)));
        let (seed, fault) = found.unwrap_or_else(|| panic!("nobody misses {without:?}"));
        println!("{without:?}: seed {seed}: {fault}");
    }
}
