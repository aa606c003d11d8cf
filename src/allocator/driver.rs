//! The loop of the member that plans for all: follow the store, plan, and commit what is safe.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{
    converge::{Batch, Bounds, Budget, Round},
    desk::Core,
    intent::{Intent, Outside, Rules, Standings},
    joint::{self, Joint},
    leader::{self, Oldest},
    report::{Done, Report},
    state::Standing,
    value::{Entity, MemberKey, Workload},
    world::World,
};
use crate::{
    runtime::{Runtime, sleep_until},
    store::{
        Compare, LeaseKeeper, LeaseStatus, Op, Refusal, Store, StoreError, Txn, TxnResponse,
        mirror::{Mirror, View},
    },
};

/// The first pause after a round in which nothing came through.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);

/// The longest.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// For so long what can wait does, while more of it is coming in; and so long is it waited for.
const GATHER_MAX: Duration = Duration::from_secs(1);
const GATHER_STEP: Duration = Duration::from_millis(10);

/// For so many items transactions are made at once.
const AT_ONCE: usize = 1_024;

/// The same as long as none is on its way.
const AT_FIRST: usize = 256;

/// How the leader works; each member may become it, so all should have the same.
#[derive(Clone, Debug)]
pub struct Leading {
    /// By what rules items are placed.
    pub rules: Rules,
    /// How many replicas may be on their way at once that their items have besides as many others as they
    /// want, and how many primaries may be handed over in one round. What an item lacks never waits for
    /// that. Default: any number.
    pub moves_in_flight: Option<usize>,
    /// How many replicas may be on their way to one member at once, lost ones that are replaced
    /// among them. Default: any number.
    pub inbound_per_member: Option<usize>,
    /// For how long a replica that does not become consistent counts as on its way, from when this leader
    /// saw it first. Then others go on, and it goes on beside them. Default 10 min, as PD gives the
    /// addition of a peer.
    pub in_flight_for: Duration,
    /// How many requests are on their way at once, of up to four transactions each. Default 16.
    pub batches_in_flight: usize,
    /// For how long an item that a member has given back is rather not given to it again. Default
    /// 60 s.
    pub avoid_for: Duration,
    /// What members may hold, as judged from outside, for instance by their health. Nothing is planned
    /// while that is not known, `None`, so that nobody gets back what was taken; when whoever tells it
    /// has ended, what it told last goes on. Default: nobody judges.
    pub standings: Option<watch::Receiver<Option<Standings>>>,
}

impl Default for Leading {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            moves_in_flight: None,
            inbound_per_member: None,
            in_flight_for: Budget::default().counts_for,
            batches_in_flight: 16,
            avoid_for: Duration::from_secs(60),
            standings: None,
        }
    }
}

impl Leading {
    fn budget(&self) -> Budget {
        Budget {
            moves: self.moves_in_flight,
            inbound: self.inbound_per_member,
            counts_for: self.in_flight_for,
        }
    }
}

pub(super) struct Driver<S, R: Runtime, W: Workload> {
    pub(super) store: S,
    pub(super) runtime: R,
    pub(super) core: Arc<Core<W>>,
    pub(super) keeper: LeaseKeeper<S, R>,
    pub(super) mirror: Mirror<Entity<W>>,
    pub(super) options: Leading,
}

/// What this member knows as the leader.
struct Office<W: Workload> {
    world: World<W>,
    view: Arc<View<Entity<W>>>,
    intent: Option<Intent>,
    /// Until when which items are rather not given to which members.
    avoided: BTreeMap<(Arc<str>, MemberKey), Duration>,
    /// Assignments that this leader has ended itself in the last round.
    ended: HashSet<(Arc<str>, u32)>,
    apart: BTreeSet<Arc<str>>,
    done: Done,
    failures: u32,
    /// Until when more is waited for, and the last revision that had changed anything when that was
    /// last looked at.
    gathering: Option<(Duration, u64)>,
}

/// What came of the transactions of a round.
#[derive(Default)]
struct Outcome {
    revision: u64,
    succeeded: usize,
    refused: u64,
    failed: BTreeSet<Arc<str>>,
    /// One of them may have been done, or may still be.
    unknown: bool,
}

impl Outcome {
    /// Of the transactions of one request, each by its items.
    fn add(&mut self, items: Vec<Vec<Arc<str>>>, answer: Result<TxnResponse, StoreError>) {
        let answer = answer.inspect_err(|error| {
            let items: usize = items.iter().map(Vec::len).sum();
            tracing::info!("{items} items wait for the next round: {error}");
            self.unknown |= matches!(error, StoreError::Unknown(_));
        });
        let answer = answer.ok();
        self.revision = answer.as_ref().map_or(0, |answer| answer.revision).max(self.revision);
        let many = items.len();
        let mut done = answer.iter().flat_map(|answer| joint::done(many, answer));
        for items in items {
            if done.next().unwrap_or_default() {
                self.succeeded += 1;
            } else {
                self.refused += 1;
                self.failed.extend(items);
            }
        }
    }
}

impl<W: Workload> Office<W> {
    /// Makes transactions for so many more items. Returns whether any item is left.
    fn go_on(&mut self, round: &mut Round, bounds: &Bounds, items: usize) -> bool {
        let Some(intent) = &self.intent else { return false };
        let known = round.batches.len();
        let left = round.go_on(&mut self.world, intent, bounds, &self.apart, items);
        for Batch { ended, .. } in &round.batches[known..] {
            self.ended.extend(ended.iter().cloned());
        }
        left
    }
}

impl<S: Store, R: Runtime, W: Workload> Driver<S, R, W> {
    /// Works for all while this member leads, until the mirror ends.
    pub(super) async fn run(mut self) -> StoreError {
        let mut oldest = None;
        let mut next_claim = None;
        if let Some(standings) = &mut self.options.standings {
            // Whoever has ended without a word judges nobody.
            let _ = standings.wait_for(Option::is_some).await;
        }
        let mut view = self.mirror.view();
        loop {
            if self.leads(&view, &mut oldest) {
                let ended = self.lead(view, &mut oldest).await;
                self.core.lock().report = None;
                self.core.turned.notify_waiters();
                match ended {
                    Ok(later) => view = later,
                    Err(error) => return error,
                }
            }
            let again = self.take_over(&view, &mut oldest, &mut next_claim).await;
            tokio::select! {
                biased;
                later = self.mirror.changed(&view) => match later {
                    Ok(later) => view = later,
                    Err(error) => return error,
                },
                () = judged(&mut self.options.standings) => {}
                () = sleep_until(&self.runtime, again) => {}
            }
        }
    }

    /// Takes over, if something is taken from who leads and from all others that are older. Returns when
    /// to look again: where members know different standings, each may think that it is for it to lead,
    /// and none does so in quick succession.
    async fn take_over(
        &mut self,
        view: &View<Entity<W>>,
        oldest: &mut Option<Oldest>,
        next_claim: &mut Option<Duration>,
    ) -> Option<Duration> {
        let standings = self.options.standings.as_mut()?.borrow_and_update().clone()?;
        let is_well = |member: &MemberKey| {
            standings.get(member).is_none_or(|judgement| judgement.standing == Standing::Full)
        };
        let leads = leader::find(&self.core.keys, view, oldest)?;
        let txn = leader::take_over(&self.core.keys, view, leads, &self.core.me, is_well)?;
        let now = self.runtime.now();
        let later = now.saturating_add(BACKOFF_MAX);
        if self.keeper.status() != LeaseStatus::Held {
            return Some(later);
        }
        if next_claim.is_some_and(|next| next > now) {
            return *next_claim;
        }
        *next_claim = Some(later);
        match self.store.commit(txn).await {
            Ok(TxnResponse { succeeded: true, .. }) => {
                tracing::info!("{} takes the planning over", self.core.me);
            }
            // The view that comes next says who did.
            Ok(_) => {}
            Err(error) => tracing::info!("{} takes the planning over later: {error}", self.core.me),
        }
        *next_claim
    }

    /// Whether this member leads in a view.
    fn leads(&self, view: &View<Entity<W>>, oldest: &mut Option<Oldest>) -> bool {
        let leads = leader::find(&self.core.keys, view, oldest);
        leads.is_some_and(|kv| *kv.key == *self.core.own_key().as_bytes())
    }

    /// Leads, until another one does: then it returns the view that shows it.
    async fn lead(
        &mut self,
        view: Arc<View<Entity<W>>>,
        oldest: &mut Option<Oldest>,
    ) -> Result<Arc<View<Entity<W>>>, StoreError> {
        let (keys, workload) = (self.core.keys.clone(), Arc::clone(&self.core.workload));
        let world = World::new(keys, workload, &view);
        tracing::info!("{} leads, at revision {}", self.core.me, view.revision());
        let mut office = Office {
            world,
            view,
            intent: None,
            avoided: BTreeMap::new(),
            ended: HashSet::new(),
            apart: BTreeSet::new(),
            done: Done::default(),
            failures: 0,
            gathering: None,
        };
        loop {
            let outside = self.outside(&mut office);
            let status = self.keeper.status();
            if status != LeaseStatus::Held {
                // Whoever may have lost its lease sends nothing; it is told when it has.
                self.keeper.changed(status).await;
            } else if self.gathers(&mut office, &outside) {
                self.gather(&mut office).await?;
            } else if !self.round(&mut office, &outside).await? {
                office.failures = 0;
                self.wait(&mut office).await?;
            }
            let view = self.mirror.view();
            if !self.leads(&view, oldest) {
                tracing::info!("{} leads no more, at revision {}", self.core.me, view.revision());
                return Ok(view);
            }
            self.follow(&mut office, view);
            office.ended.clear();
        }
    }

    /// Whether to wait while more is coming in.
    fn gathers(&self, office: &mut Office<W>, outside: &Outside) -> bool {
        let Office { world, intent, view, gathering, .. } = office;
        let is_current = |intent: &Intent| intent.is_of(world, &self.options.rules, outside);
        if !world.may_wait() || !intent.as_ref().is_some_and(is_current) {
            *gathering = None;
            return false;
        }
        let now = self.runtime.now();
        let (end, goes_on) = match gathering {
            Some((end, seen)) => (*end, now < *end && *seen < view.changed()),
            None => (now.saturating_add(GATHER_MAX), true),
        };
        *gathering = goes_on.then(|| (end, view.changed()));
        goes_on
    }

    /// Waits a while for more to come in, or until nothing more can or something presses.
    async fn gather(&self, office: &mut Office<W>) -> Result<(), StoreError> {
        let end = self.runtime.now().saturating_add(GATHER_STEP);
        while self.runtime.now() < end && office.world.may_wait() {
            tokio::select! {
                biased;
                view = self.mirror.changed(&office.view) => {
                    self.follow(office, view?);
                    // The next may be there already, again and again: what else is done in this task
                    // gets its turn.
                    tokio::task::yield_now().await;
                }
                () = sleep_until(&self.runtime, Some(end)) => {}
            }
        }
        Ok(())
    }

    /// What is known from outside now.
    fn outside(&mut self, office: &mut Office<W>) -> Outside {
        let now = self.runtime.now();
        office.avoided.retain(|_, until| *until > now);
        let standings = self.options.standings.as_mut();
        let standings = standings.and_then(|standings| standings.borrow_and_update().clone());
        Outside {
            standings: standings.unwrap_or_default(),
            avoided: office.avoided.keys().cloned().collect(),
        }
    }

    /// Plans, if anything has changed that a plan depends on.
    fn plan(&self, office: &mut Office<W>, outside: &Outside) {
        let Office { world, intent, done, .. } = office;
        let rules = &self.options.rules;
        match intent {
            Some(intent) if intent.is_of(world, rules, outside) => return,
            Some(intent) => intent.follow(world, rules, outside),
            None => *intent = Some(Intent::new(world, rules, outside)),
        }
        done.plans += 1;
    }

    /// Tells what stands and is meant, and what is done about it.
    fn report(&self, office: &Office<W>, outside: &Outside) {
        let Office { world, view, intent: Some(intent), done, .. } = office else { return };
        let mut report = Report::new(world, view, intent, outside);
        report.done = *done;
        self.core.lock().report = Some(Arc::new(report));
        self.core.turned.notify_waiters();
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self, office: &mut Office<W>) -> Result<(), StoreError> {
        let avoided = office.avoided.values().min().copied();
        let budget = office.world.progress.budget_ends(&self.options.budget());
        let soonest = avoided.into_iter().chain(budget).min();
        tokio::select! {
            biased;
            view = self.mirror.changed(&office.view) => view.map(|_| ()),
            () = judged(&mut self.options.standings) => Ok(()),
            () = sleep_until(&self.runtime, soonest) => Ok(()),
        }
    }

    /// Goes on to a later view. What ended there, and not by this leader's doing, was given back.
    fn follow(&self, office: &mut Office<W>, view: Arc<View<Entity<W>>>) {
        let ended = office.world.follow(&office.view, &view);
        office.view = view;
        let until = self.runtime.now().saturating_add(self.options.avoid_for);
        for pair in ended {
            let (world, (item, member)) = (&office.world, &pair);
            if office.ended.contains(&pair) || !world.member(*member).stands() {
                continue;
            }
            let held = world.item(item).is_some_and(|item| {
                !item.stands() || item.held.iter().any(|held| held.member == *member)
            });
            if !held {
                let key = world.member(*member).key.clone();
                office.avoided.insert((pair.0, key), until);
            }
        }
    }

    /// Does what is safe now, and waits until the mirror shows what came of it. Returns whether there
    /// was anything to do.
    async fn round(&self, office: &mut Office<W>, outside: &Outside) -> Result<bool, StoreError> {
        let (made, mut outcome) = self.send(office, outside).await?;
        office.done.failed += outcome.refused;
        if outcome.unknown {
            outcome.revision = outcome.revision.max(self.fence().await?);
        }
        for item in &outcome.failed {
            office.world.look_again(item);
        }
        office.apart = outcome.failed;
        if outcome.succeeded > 0 {
            office.failures = 0;
        } else if made > 0 {
            let pause = BACKOFF_FIRST.saturating_mul(1 << office.failures.min(16)).min(BACKOFF_MAX);
            office.failures += 1;
            // The first time what has changed is on its way already.
            if office.failures > 1 {
                self.runtime.sleep(pause).await;
            }
        }
        if made > 0 {
            self.mirror.wait(outcome.revision).await?;
        }
        Ok(made > 0)
    }

    /// Makes the transactions of a round, and sends them: the first while the next are made, and what
    /// comes of them is followed meanwhile. Returns how many there were.
    async fn send(
        &self,
        office: &mut Office<W>,
        outside: &Outside,
    ) -> Result<(usize, Outcome), StoreError> {
        let bounds = Bounds {
            limits: self.store.limits(),
            budget: self.options.budget(),
            now: self.runtime.now(),
        };
        self.plan(office, outside);
        let mut round = Round::begin(&mut office.world, &bounds);
        let (sender, mut answers) = mpsc::unbounded_channel();
        let (mut outcome, mut unmade, mut in_flight) = (Outcome::default(), true, 0);
        let most = self.options.batches_in_flight.max(1);
        loop {
            if unmade && round.batches.len() < most {
                let items = if in_flight == 0 { AT_FIRST } else { AT_ONCE };
                unmade = office.go_on(&mut round, &bounds, items);
                if !unmade {
                    self.report(office, outside);
                    office.done.count(&round);
                }
            }
            while in_flight < most
                && let Some(Joint { txn, items }) =
                    Joint::take(&mut round.batches, &bounds.limits, &office.apart)
            {
                let (store, sender) = (self.store.clone(), sender.clone());
                in_flight += 1;
                // Once sent it goes on, whatever becomes of this loop.
                self.runtime.spawn(async move {
                    let answer = store.commit(txn).await;
                    // Whoever asked may have gone.
                    let _ = sender.send((answer, items));
                });
            }
            if unmade && round.batches.len() < most {
                // Whoever sends them gets a turn, and then there are more to be made.
                tokio::task::yield_now().await;
                continue;
            }
            if in_flight == 0 {
                return Ok((round.made, outcome));
            }
            tokio::select! {
                biased;
                Some((answer, items)) = answers.recv() => {
                    in_flight -= 1;
                    outcome.add(items, answer);
                }
                view = self.mirror.changed(&office.view), if !unmade => self.follow(office, view?),
            }
        }
    }

    /// Writes this member's key anew, so that nothing that was sent before can still be done.
    /// Returns the revision from which on that is so.
    async fn fence(&self) -> Result<u64, StoreError> {
        let key = self.core.own_key();
        let mut pause = BACKOFF_FIRST;
        loop {
            let view = self.mirror.view();
            // Who stands no more has lost what it sent under, and sends nothing.
            let Some(entry) = view.get(key.as_bytes()) else { return Ok(0) };
            let kv = &entry.kv;
            let txn = Txn::when([Compare::unchanged(key.as_str(), kv.mod_revision)]);
            let txn = txn.and_then([Op::put_leased(key.as_str(), &kv.value, kv.lease)]);
            match self.store.commit(txn).await {
                // Where somebody else has written it, that does as well.
                Ok(TxnResponse { revision, .. }) => return Ok(revision),
                Err(StoreError::Refused(Refusal::LeaseNotFound(_))) => return Ok(0),
                Err(error @ StoreError::Refused(_)) => return Err(error),
                Err(error) => tracing::info!("the outcome of a round is not known yet: {error}"),
            }
            self.runtime.sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
            if self.keeper.status() == LeaseStatus::Lost {
                return Ok(0);
            }
        }
    }
}

/// Until what is known from outside changes.
async fn judged(standings: &mut Option<watch::Receiver<Option<Standings>>>) {
    let ended = match standings {
        Some(standings) => standings.changed().await.is_err(),
        None => true,
    };
    if ended {
        std::future::pending::<()>().await;
    }
}
